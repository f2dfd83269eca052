// The calls that manage memory pools.

#include <stddef.h>

#include "cudasim/capture.h"
#include "cudasim/device.h"
#include "cudasim/pool.h"
#include "cudasim/runtime.h"

//===-- Lifetime ------------------------------------------------------------------------------===//

static cudaError_t create(cudaMemPool_t* out, const struct cudaMemPoolProps* props) {
  if (!out || !props || props->allocType != cudaMemAllocationTypePinned) {
    return cudaErrorInvalidValue;
  }
  if (props->location.type == cudaMemLocationTypeHost ||
      props->location.type == cudaMemLocationTypeHostNuma) {
    return sim_refuse(cudaErrorNotSupported, "cudasim has pools of device memory only");
  }
  if (props->location.type != cudaMemLocationTypeDevice) return cudaErrorInvalidValue;
  if (props->handleTypes != cudaMemHandleTypeNone) {
    return sim_refuse(cudaErrorNotSupported, "cudasim shares no pool between processes");
  }
  cudaError_t error;
  device* d = sim_device_open(props->location.id, &error);
  if (!d) return error == cudaErrorInvalidDevice ? cudaErrorInvalidValue : error;
  uint64_t chunks = props->maxSize / CHUNK_BYTES + (props->maxSize % CHUNK_BYTES != 0);
  pool* p = sim_pool_create(d, chunks ? chunks * CHUNK_BYTES : UINT64_MAX);
  if (!p) return cudaErrorMemoryAllocation;
  *out = p->handle;
  return cudaSuccess;
}

static cudaError_t destroy(cudaMemPool_t handle) {
  pool* p = sim_pool_of(handle);
  if (!p || p == p->device->default_pool) return cudaErrorInvalidValue;
  sim_pool_close(p);
  return cudaSuccess;
}

static cudaError_t trim(cudaMemPool_t handle, size_t keep) {
  pool* p = sim_pool_of(handle);
  if (!p) return cudaErrorInvalidValue;
  sim_pool_trim(p, keep);
  return cudaSuccess;
}

//===-- Attributes ----------------------------------------------------------------------------===//

static int* policy_of(pool* p, enum cudaMemPoolAttr attribute) {
  switch (attribute) {
    case cudaMemPoolReuseFollowEventDependencies:
      return &p->follows_events;
    case cudaMemPoolReuseAllowOpportunistic:
      return &p->is_opportunistic;
    case cudaMemPoolReuseAllowInternalDependencies:
      return &p->adds_dependencies;
    default:
      return NULL;
  }
}

static uint64_t* bytes_of(pool* p, enum cudaMemPoolAttr attribute) {
  switch (attribute) {
    case cudaMemPoolAttrReleaseThreshold:
      return &p->threshold;
    case cudaMemPoolAttrReservedMemCurrent:
      return &p->reserved;
    case cudaMemPoolAttrReservedMemHigh:
      return &p->reserved_high;
    case cudaMemPoolAttrUsedMemCurrent:
      return &p->used;
    case cudaMemPoolAttrUsedMemHigh:
      return &p->used_high;
    default:
      return NULL;
  }
}

static cudaError_t get(cudaMemPool_t handle, enum cudaMemPoolAttr attribute, void* value) {
  pool* p = sim_pool_of(handle);
  if (!p || !value) return cudaErrorInvalidValue;
  const int* policy = policy_of(p, attribute);
  const uint64_t* bytes = bytes_of(p, attribute);
  if (policy) {
    *(int*)value = *policy;
  } else if (bytes) {
    *(uint64_t*)value = *bytes;
  } else {
    return cudaErrorInvalidValue;
  }
  return cudaSuccess;
}

// A high-water mark can only be set to 0, which sets it to what is there now.
static cudaError_t reset_high(uint64_t* high, uint64_t now, uint64_t value) {
  if (value) return cudaErrorInvalidValue;
  *high = now;
  return cudaSuccess;
}

static cudaError_t set(cudaMemPool_t handle, enum cudaMemPoolAttr attribute, const void* value) {
  pool* p = sim_pool_of(handle);
  if (!p || !value) return cudaErrorInvalidValue;
  int* policy = policy_of(p, attribute);
  if (policy) {
    *policy = *(const int*)value != 0;
    return cudaSuccess;
  }
  switch (attribute) {
    case cudaMemPoolAttrReleaseThreshold:
      p->threshold = *(const uint64_t*)value;
      break;
    case cudaMemPoolAttrReservedMemHigh:
      return reset_high(&p->reserved_high, p->reserved, *(const uint64_t*)value);
    case cudaMemPoolAttrUsedMemHigh:
      return reset_high(&p->used_high, p->used, *(const uint64_t*)value);
    default:
      return cudaErrorInvalidValue;
  }
  return cudaSuccess;
}

//===-- Access --------------------------------------------------------------------------------===//

static cudaError_t check_access(const pool* p, const struct cudaMemAccessDesc* a) {
  if (a->location.type != cudaMemLocationTypeDevice) return cudaErrorInvalidValue;
  if (!sim_device_at(a->location.id)) return cudaErrorInvalidDevice;
  if (a->flags == cudaMemAccessFlagsProtRead) return cudaErrorNotSupported;
  bool is_owner = a->location.id == p->device->id;
  if (a->flags == cudaMemAccessFlagsProtNone)
    return is_owner ? cudaErrorInvalidDevice : cudaSuccess;
  return a->flags == cudaMemAccessFlagsProtReadWrite ? cudaSuccess : cudaErrorInvalidValue;
}

static cudaError_t set_access(cudaMemPool_t handle, const struct cudaMemAccessDesc* list,
                              size_t count) {
  pool* p = sim_pool_of(handle);
  if (!p || (count && !list)) return cudaErrorInvalidValue;
  uint64_t accessible = p->accessible;
  for (size_t i = 0; i < count; ++i) {
    cudaError_t error = check_access(p, &list[i]);
    if (error) return error;
    uint64_t bit = UINT64_C(1) << list[i].location.id;
    accessible = list[i].flags == cudaMemAccessFlagsProtNone ? accessible & ~bit : accessible | bit;
  }
  p->accessible = accessible;
  return cudaSuccess;
}

static cudaError_t get_access(enum cudaMemAccessFlags* out, cudaMemPool_t handle,
                              const struct cudaMemLocation* location) {
  const pool* p = sim_pool_of(handle);
  if (!p || !out || !location) return cudaErrorInvalidValue;
  *out = cudaMemAccessFlagsProtNone;
  if (location->type == cudaMemLocationTypeHost) return cudaSuccess;
  if (location->type != cudaMemLocationTypeDevice || !sim_device_at(location->id)) {
    return cudaErrorInvalidValue;
  }
  bool can = p->accessible >> location->id & 1;
  *out = can ? cudaMemAccessFlagsProtReadWrite : cudaMemAccessFlagsProtNone;
  return cudaSuccess;
}

//===-- Default and current pools -------------------------------------------------------------===//

static cudaError_t get_default(cudaMemPool_t* out, int id) {
  if (!out) return cudaErrorInvalidValue;
  cudaError_t error;
  const device* d = sim_device_open(id, &error);
  if (d) *out = d->default_pool->handle;
  return error;
}

static cudaError_t get_current(cudaMemPool_t* out, int id) {
  if (!out) return cudaErrorInvalidValue;
  cudaError_t error;
  const device* d = sim_device_open(id, &error);
  if (d) *out = d->pool->handle;
  return error;
}

static cudaError_t set_current(int id, cudaMemPool_t handle) {
  cudaError_t error;
  device* d = sim_device_open(id, &error);
  if (!d) return error;
  pool* p = sim_pool_of(handle);
  if (!p || p->device != d) return cudaErrorInvalidValue;
  d->pool = p;
  return cudaSuccess;
}

// The device of a location that can have the pool asked for.
static cudaError_t check_location(const struct cudaMemLocation* location,
                                  enum cudaMemAllocationType type) {
  if (!location) return cudaErrorInvalidValue;
  if (type == cudaMemAllocationTypeManaged || location->type == cudaMemLocationTypeHost ||
      location->type == cudaMemLocationTypeHostNuma) {
    return sim_refuse(cudaErrorNotSupported, "cudasim has pools of device memory only");
  }
  bool is_good = type == cudaMemAllocationTypePinned && location->type == cudaMemLocationTypeDevice;
  return is_good ? cudaSuccess : cudaErrorInvalidValue;
}

static cudaError_t with_location(cudaError_t (*get_pool)(cudaMemPool_t* out, int id),
                                 cudaMemPool_t* out, const struct cudaMemLocation* location,
                                 enum cudaMemAllocationType type) {
  cudaError_t error = check_location(location, type);
  return error ? error : get_pool(out, location->id);
}

static cudaError_t set_with_location(const struct cudaMemLocation* location,
                                     enum cudaMemAllocationType type, cudaMemPool_t handle) {
  cudaError_t error = check_location(location, type);
  return error ? error : set_current(location->id, handle);
}

//===-- The API -------------------------------------------------------------------------------===//

cudaError_t cudaMemPoolCreate(cudaMemPool_t* memPool, const struct cudaMemPoolProps* poolProps) {
  UNSAFE_CALL(cudaMemPoolCreate, create(memPool, poolProps));
}

cudaError_t cudaMemPoolDestroy(cudaMemPool_t memPool) {
  UNSAFE_CALL(cudaMemPoolDestroy, destroy(memPool));
}

cudaError_t cudaMemPoolTrimTo(cudaMemPool_t memPool, size_t minBytesToKeep) {
  UNSAFE_CALL(cudaMemPoolTrimTo, trim(memPool, minBytesToKeep));
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t memPool, enum cudaMemPoolAttr attr, void* value) {
  UNSAFE_CALL(cudaMemPoolSetAttribute, set(memPool, attr, value));
}

cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t memPool, enum cudaMemPoolAttr attr, void* value) {
  UNSAFE_CALL(cudaMemPoolGetAttribute, get(memPool, attr, value));
}

cudaError_t cudaMemPoolSetAccess(cudaMemPool_t memPool, const struct cudaMemAccessDesc* descList,
                                 size_t count) {
  UNSAFE_CALL(cudaMemPoolSetAccess, set_access(memPool, descList, count));
}

cudaError_t cudaMemPoolGetAccess(enum cudaMemAccessFlags* flags, cudaMemPool_t memPool,
                                 struct cudaMemLocation* location) {
  CALL(cudaMemPoolGetAccess, get_access(flags, memPool, location));
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* memPool, int id) {
  CALL(cudaDeviceGetDefaultMemPool, get_default(memPool, id));
}

cudaError_t cudaDeviceGetMemPool(cudaMemPool_t* memPool, int id) {
  CALL(cudaDeviceGetMemPool, get_current(memPool, id));
}

cudaError_t cudaDeviceSetMemPool(int id, cudaMemPool_t memPool) {
  UNSAFE_CALL(cudaDeviceSetMemPool, set_current(id, memPool));
}

cudaError_t cudaMemGetDefaultMemPool(cudaMemPool_t* memPool, struct cudaMemLocation* location,
                                     enum cudaMemAllocationType type) {
  CALL(cudaMemGetDefaultMemPool, with_location(get_default, memPool, location, type));
}

cudaError_t cudaMemGetMemPool(cudaMemPool_t* memPool, struct cudaMemLocation* location,
                              enum cudaMemAllocationType type) {
  CALL(cudaMemGetMemPool, with_location(get_current, memPool, location, type));
}

cudaError_t cudaMemSetMemPool(struct cudaMemLocation* location, enum cudaMemAllocationType type,
                              cudaMemPool_t memPool) {
  UNSAFE_CALL(cudaMemSetMemPool, set_with_location(location, type, memPool));
}
