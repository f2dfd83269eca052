#include "cudasim/host_memory.h"

#include <stddef.h>
#include <stdlib.h>

#include "cudasim/capture.h"
#include "cudasim/check.h"
#include "cudasim/device.h"
#include "cudasim/fault_handler.h"
#include "cudasim/host_check.h"
#include "cudasim/runtime.h"
#include "cudasim/slab.h"
#include "cudasim/stream.h"

#define PAGE_BYTES ((size_t)4096)
#define LARGEST ((size_t)1 << 38)
#define ALLOC_FLAGS (cudaHostAllocPortable | cudaHostAllocMapped | cudaHostAllocWriteCombined)
#define REGISTER_FLAGS                                                            \
  (cudaHostRegisterPortable | cudaHostRegisterMapped | cudaHostRegisterIoMemory | \
   cudaHostRegisterReadOnly)

static slab ranges = {.size = sizeof(host_range)};
static tree by_address;
static uint64_t locked;  // bytes of whole pages, of all ranges

static void* memory_of(const host_range* r) { return (void*)(uintptr_t)r->node.major; }

//===-- Ranges --------------------------------------------------------------------------------===//

const host_range* sim_host_memory_around(uint64_t address) {
  host_range* r = (host_range*)sim_tree_at_most(&by_address, address, 0);
  return r && address - r->node.major < r->bytes ? r : NULL;
}

bool sim_host_memory_overlaps(uint64_t address, uint64_t bytes) {
  const tree_node* last = sim_tree_at_most(&by_address, address + bytes - 1, 0);
  return last && last->major + ((const host_range*)last)->bytes > address;
}

static host_range* range_at(const void* p) {
  host_range* r = (host_range*)sim_tree_at_most(&by_address, (uint64_t)(uintptr_t)p, 0);
  return r && r->node.major == (uint64_t)(uintptr_t)p ? r : NULL;
}

static uint64_t pages_of(uint64_t bytes) {
  return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

static cudaError_t check_limit(uint64_t bytes) {
  uint64_t limit = sim_options()->host_memory;
  if (locked <= limit && pages_of(bytes) <= limit - locked) return cudaSuccess;
  return sim_refuse(
      cudaErrorMemoryAllocation, "%llu bytes of host memory asked, %llu of %llu page-locked",
      (unsigned long long)bytes, (unsigned long long)locked, (unsigned long long)limit);
}

static cudaError_t add(void* p, size_t bytes, unsigned flags, bool is_registered, pinned* checked) {
  host_range* r = sim_slab_take(&ranges);
  if (!r) return cudaErrorMemoryAllocation;
  *r = (host_range){.bytes = bytes,
                    .flags = flags,
                    .device = sim_thread()->device,
                    .is_registered = is_registered,
                    .pinned = checked};
  r->node.major = (uint64_t)(uintptr_t)p;
  sim_tree_insert(&by_address, &r->node);
  locked += pages_of(bytes);
  if (check_is_on()) {
    sim_check_made(p, bytes, is_registered ? MEMORY_REGISTERED : MEMORY_PINNED, NULL);
  }
  return cudaSuccess;
}

static void give_memory(void* p, pinned* checked) {
  if (!checked) {
    free(p);
    return;
  }
  sim_host_check_forget(checked);
  sim_pinned_give(checked);
}

static void drop(host_range* r) {
  if (check_is_on()) sim_check_freed(memory_of(r), NULL);
  sim_tree_remove(&by_address, &r->node);
  locked -= pages_of(r->bytes);
  if (!r->is_registered) give_memory(memory_of(r), r->pinned);
  sim_slab_give(&ranges, r);
}

void sim_host_memory_free_all(void) {
  while (by_address.root) drop((host_range*)by_address.root);
  sim_slab_drop(&ranges);
}

// Queued copies may still use the memory, on any device.
static void wait_for_all_devices(void) {
  for (int i = 0; i < sim_device_count(); ++i) {
    device* d = sim_device_at(i);
    if (d->is_open && (d->queued || check_is_on())) sim_stream_wait_device(d);
    if (check_is_on()) sim_order_learn_device(i);
  }
}

//===-- Allocation and registration -----------------------------------------------------------===//

// Whole pages; NULL when the host has none.
static void* take_memory(size_t bytes, pinned** checked) {
  if (bytes > LARGEST) return NULL;
  if (check_is_on()) {
    sim_fault_handler_look_around();
    *checked = sim_pinned_take(bytes);
    if (*checked) return (void*)(uintptr_t)pinned_address(*checked);
  }
  void* p = NULL;
  return posix_memalign(&p, PAGE_BYTES, bytes) ? NULL : p;
}

static cudaError_t allocate(void** out, size_t bytes, unsigned flags) {
  if (!out || flags & ~(unsigned)ALLOC_FLAGS) return cudaErrorInvalidValue;
  *out = NULL;
  if (!bytes) return cudaSuccess;
  cudaError_t error = check_limit(bytes);
  if (error) return error;
  pinned* checked = NULL;
  void* p = take_memory(bytes, &checked);
  if (!p) return cudaErrorMemoryAllocation;
  // Under unified addressing all page-locked memory is mapped.
  error = add(p, bytes, flags | cudaHostAllocMapped, false, checked);
  if (error) {
    give_memory(p, checked);
    return error;
  }
  *out = p;
  return cudaSuccess;
}

static cudaError_t release(void* p) {
  if (!p) return cudaSuccess;
  const host_range* r = range_at(p);
  if (!r || r->is_registered) {
    if (check_is_on()) sim_check_refused_free(p);
    return sim_refuse(cudaErrorInvalidValue, "%p is not what cudaHostAlloc returned", p);
  }
  wait_for_all_devices();
  host_range* still = range_at(p);
  if (!still) return cudaErrorInvalidValue;  // freed by another thread meanwhile
  drop(still);
  return cudaSuccess;
}

static cudaError_t enlist(void* p, size_t bytes, unsigned flags) {
  if (!p || !bytes || flags & ~(unsigned)REGISTER_FLAGS) return cudaErrorInvalidValue;
  if ((uintptr_t)p + bytes < (uintptr_t)p) return cudaErrorInvalidValue;
  if (sim_device_of((uint64_t)(uintptr_t)p)) return cudaErrorInvalidValue;
  const host_range* around = sim_host_memory_around((uint64_t)(uintptr_t)p);
  if (around && !around->is_registered) return cudaErrorInvalidValue;
  if (sim_host_memory_overlaps((uint64_t)(uintptr_t)p, bytes)) {
    return cudaErrorHostMemoryAlreadyRegistered;
  }
  cudaError_t error = check_limit(bytes);
  return error ? error : add(p, bytes, flags | cudaHostRegisterMapped, true, NULL);
}

static cudaError_t delist(void* p) {
  if (!sim_host_memory_around((uint64_t)(uintptr_t)p)) return cudaErrorHostMemoryNotRegistered;
  const host_range* r = range_at(p);
  if (!r || !r->is_registered) return cudaErrorInvalidValue;
  wait_for_all_devices();
  host_range* still = range_at(p);
  if (!still) return cudaErrorHostMemoryNotRegistered;
  drop(still);
  return cudaSuccess;
}

//===-- Questions -----------------------------------------------------------------------------===//

static cudaError_t get_device_pointer(void** out, void* p, unsigned flags) {
  if (!out || flags) return cudaErrorInvalidValue;
  *out = NULL;
  if (!sim_host_memory_around((uint64_t)(uintptr_t)p)) return cudaErrorInvalidValue;
  *out = p;
  return cudaSuccess;
}

static cudaError_t get_flags(unsigned* flags, const void* p) {
  const host_range* r = sim_host_memory_around((uint64_t)(uintptr_t)p);
  if (!flags || !r) return cudaErrorInvalidValue;
  *flags = r->flags;
  return cudaSuccess;
}

static cudaError_t get_attributes(struct cudaPointerAttributes* out, void* p) {
  if (!out) return cudaErrorInvalidValue;
  uint64_t address = (uint64_t)(uintptr_t)p;
  *out = (struct cudaPointerAttributes){
      .type = cudaMemoryTypeUnregistered, .device = cudaInvalidDeviceId, .hostPointer = p};
  const device* d = sim_device_of(address);
  const block* b = d ? sim_space_block_around(&d->space, address) : NULL;
  const host_range* r = d ? NULL : sim_host_memory_around(address);
  if (b) {
    *out = (struct cudaPointerAttributes){
        .type = cudaMemoryTypeDevice, .device = d->id, .devicePointer = p};
  } else if (r) {
    *out = (struct cudaPointerAttributes){
        .type = cudaMemoryTypeHost, .device = r->device, .devicePointer = p, .hostPointer = p};
  }
  return cudaSuccess;
}

//===-- The API -------------------------------------------------------------------------------===//

cudaError_t cudaHostAlloc(void** pHost, size_t size, unsigned int flags) {
  UNSAFE_CALL(cudaHostAlloc, allocate(pHost, size, flags));
}

cudaError_t cudaMallocHost(void** ptr, size_t size) {
  UNSAFE_CALL(cudaMallocHost, allocate(ptr, size, cudaHostAllocDefault));
}

cudaError_t cudaFreeHost(void* ptr) { UNSAFE_CALL(cudaFreeHost, release(ptr)); }

cudaError_t cudaHostRegister(void* ptr, size_t size, unsigned int flags) {
  UNSAFE_CALL(cudaHostRegister, enlist(ptr, size, flags));
}

cudaError_t cudaHostUnregister(void* ptr) { UNSAFE_CALL(cudaHostUnregister, delist(ptr)); }

cudaError_t cudaHostGetDevicePointer(void** pDevice, void* pHost, unsigned int flags) {
  CALL(cudaHostGetDevicePointer, get_device_pointer(pDevice, pHost, flags));
}

cudaError_t cudaHostGetFlags(unsigned int* pFlags, void* pHost) {
  CALL(cudaHostGetFlags, get_flags(pFlags, pHost));
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes* attributes, const void* ptr) {
  CALL(cudaPointerGetAttributes, get_attributes(attributes, (void*)(uintptr_t)ptr));
}
