#include "cudasim/device.h"

#include <stdio.h>
#include <string.h>

#include "cudasim/capture.h"
#include "cudasim/check.h"
#include "cudasim/event.h"
#include "cudasim/graph_memory.h"
#include "cudasim/pool.h"
#include "cudasim/runtime.h"

static device devices[CUDASIM_MAX_DEVICES];

int sim_device_count(void) { return sim_options()->devices; }

device* sim_device_at(int id) { return id >= 0 && id < sim_device_count() ? &devices[id] : NULL; }

device* sim_device_of(uint64_t address) {
  for (int i = 0; i < sim_device_count(); ++i) {
    if (devices[i].is_open && space_contains(&devices[i].space, address)) return &devices[i];
  }
  return NULL;
}

void sim_device_note_reserved(device* d, uint64_t bytes) {
  d->statistics.reserved_bytes = bytes;
  if (bytes > d->statistics.peak_reserved_bytes) d->statistics.peak_reserved_bytes = bytes;
}

//===-- Opening and closing -------------------------------------------------------------------===//

// Says once what every call will fail for.
static void complain_about_host(int id, uint64_t memory) {
  static bool has_complained;
  if (has_complained) return;
  has_complained = true;
  fprintf(stderr,
          "cudasim: the host has too little address space for the %llu bytes of device %d; "
          "CUDASIM_MEMORY sets how many there are\n",
          (unsigned long long)memory, id);
}

static bool make(device* d) {
  const options* o = sim_options();
  d->copies = sim_engine_of(d->id, ENGINE_COPIES);
  d->host_functions = sim_engine_of(d->id, ENGINE_HOST_FUNCTIONS);
  d->small.boundary = GRANULE_BYTES;
  d->statistics.memory_bytes = o->memory[d->id];
  if (!sim_space_open(d, o->memory[d->id], o->protect)) {
    complain_about_host(d->id, o->memory[d->id]);
    return false;
  }
  d->legacy = sim_stream_create(d, cudaStreamDefault, STREAM_LOWEST_PRIORITY);
  d->default_pool = d->pool = sim_pool_create(d, UINT64_MAX);
  return d->legacy && d->default_pool;
}

static void unmake(device* d) {
  while (d->streams) sim_stream_close(d->streams);
  sim_event_destroy_all(d);
  sim_pool_forget_all(d);
  sim_graph_memory_forget_all(d);
  sim_space_close(&d->space);
  *d = (device){.id = d->id, .observed_free = sim_pool_last_free()};
}

device* sim_device_open(int id, cudaError_t* error) {
  device* d = sim_device_at(id);
  *error = d ? cudaSuccess : cudaErrorInvalidDevice;
  if (!d || d->is_open) return d;
  d->id = id;
  d->is_open = true;
  if (make(d)) return d;
  unmake(d);
  *error = cudaErrorMemoryAllocation;
  return NULL;
}

void sim_device_close(device* d) {
  if (d->is_open) {
    sim_stream_wait_device(d);
    if (check_is_on()) {
      sim_order_learn_device(d->id);
      sim_check_device_gone(d->id);
    }
    unmake(d);
  }
  d->broken = cudaSuccess;
  d->is_lost = false;
}

static cudaError_t reset(int id) {
  device* d = sim_device_at(id);
  if (d->is_lost) return d->broken;
  bool was_broken = d->broken;
  sim_device_close(d);
  d->is_lost = was_broken;
  if (was_broken) d->broken = cudaErrorDevicesUnavailable;
  return cudaSuccess;
}

static cudaError_t synchronize(device* d) {
  cudaError_t error = sim_captures ? sim_capture_refuse_device(d) : cudaSuccess;
  if (error) return error;
  sim_stream_wait_device(d);
  if (check_is_on()) sim_order_learn_device(d->id);
  sim_pool_trim_to_thresholds(d);
  return d->broken;
}

//===-- Selection -----------------------------------------------------------------------------===//

static cudaError_t get_count(int* count) {
  if (!count) return cudaErrorInvalidValue;
  *count = sim_device_count();
  return cudaSuccess;
}

static cudaError_t set_current(int id) {
  if (!sim_device_at(id)) return cudaErrorInvalidDevice;
  sim_thread()->device = id;
  return cudaSuccess;
}

static cudaError_t get_current(int* id) {
  if (!id) return cudaErrorInvalidValue;
  *id = sim_thread()->device;
  return cudaSuccess;
}

static cudaError_t get_version(int* version) {
  if (!version) return cudaErrorInvalidValue;
  *version = CUDART_VERSION;
  return cudaSuccess;
}

static cudaError_t get_memory(const device* d, size_t* free, size_t* total) {
  if (free) *free = space_free(&d->space);
  if (total) *total = d->space.memory;
  return cudaSuccess;
}

static cudaError_t get_priorities(int* least, int* greatest) {
  if (least) *least = STREAM_LOWEST_PRIORITY;
  if (greatest) *greatest = STREAM_HIGHEST_PRIORITY;
  return cudaSuccess;
}

//===-- Peers ---------------------------------------------------------------------------------===//

static cudaError_t can_access(int* can, int id, int peer) {
  if (!can) return cudaErrorInvalidValue;
  if (!sim_device_at(id) || !sim_device_at(peer)) return cudaErrorInvalidDevice;
  *can = id != peer;
  return cudaSuccess;
}

static cudaError_t enable_peer(device* d, int peer, unsigned flags) {
  if (flags) return cudaErrorInvalidValue;
  if (!sim_device_at(peer)) return cudaErrorInvalidDevice;
  if (peer == d->id) return cudaErrorPeerAccessUnsupported;
  uint64_t bit = UINT64_C(1) << peer;
  if (d->peers & bit) return cudaErrorPeerAccessAlreadyEnabled;
  d->peers |= bit;
  return cudaSuccess;
}

static cudaError_t disable_peer(device* d, int peer) {
  if (!sim_device_at(peer)) return cudaErrorInvalidDevice;
  uint64_t bit = UINT64_C(1) << peer;
  if (!(d->peers & bit)) return cudaErrorPeerAccessNotEnabled;
  d->peers &= ~bit;
  return cudaSuccess;
}

//===-- The API -------------------------------------------------------------------------------===//

cudaError_t cudaGetDeviceCount(int* count) { PLAIN_CALL(cudaGetDeviceCount, get_count(count)); }

cudaError_t cudaSetDevice(int id) { PLAIN_CALL(cudaSetDevice, set_current(id)); }

cudaError_t cudaGetDevice(int* id) { PLAIN_CALL(cudaGetDevice, get_current(id)); }

cudaError_t cudaInitDevice(int id, unsigned int deviceFlags, unsigned int flags) {
  (void)deviceFlags;
  (void)flags;
  cudaError_t error;
  CALL(cudaInitDevice, (sim_device_open(id, &error), error));
}

cudaError_t cudaRuntimeGetVersion(int* runtimeVersion) {
  PLAIN_CALL(cudaRuntimeGetVersion, get_version(runtimeVersion));
}

cudaError_t cudaDriverGetVersion(int* driverVersion) {
  PLAIN_CALL(cudaDriverGetVersion, get_version(driverVersion));
}

cudaError_t cudaDeviceSynchronize(void) { CALL(cudaDeviceSynchronize, synchronize(frame.device)); }

cudaError_t cudaDeviceReset(void) {
  call frame;
  if (sim_call_open_plain(&frame, CALL_cudaDeviceReset)) {
    sim_lock();  // also where the device is broken
    frame.error = reset(sim_thread()->device);
    sim_unlock();
  }
  return sim_call_close(&frame);
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  CALL(cudaMemGetInfo, get_memory(frame.device, free, total));
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* leastPriority, int* greatestPriority) {
  PLAIN_CALL(cudaDeviceGetStreamPriorityRange, get_priorities(leastPriority, greatestPriority));
}

cudaError_t cudaDeviceCanAccessPeer(int* canAccessPeer, int id, int peerDevice) {
  PLAIN_CALL(cudaDeviceCanAccessPeer, can_access(canAccessPeer, id, peerDevice));
}

cudaError_t cudaDeviceEnablePeerAccess(int peerDevice, unsigned int flags) {
  CALL(cudaDeviceEnablePeerAccess, enable_peer(frame.device, peerDevice, flags));
}

cudaError_t cudaDeviceDisablePeerAccess(int peerDevice) {
  CALL(cudaDeviceDisablePeerAccess, disable_peer(frame.device, peerDevice));
}

//===-- The controls --------------------------------------------------------------------------===//

cudaError_t cudasim_stats(int id, cudasim_statistics* statistics) {
  if (!statistics) return cudaErrorInvalidValue;
  cudaError_t error = sim_machine_make();
  if (error) return error;
  sim_lock();
  const device* d = sim_device_open(id, &error);
  if (d) *statistics = d->statistics;
  sim_unlock();
  return error;
}

cudaError_t cudasim_reset_stats(int id) {
  cudaError_t error = sim_machine_make();
  if (error) return error;
  sim_lock();
  device* d = sim_device_open(id, &error);
  if (d) {
    uint64_t taken = d->space.taken;
    d->statistics = (cudasim_statistics){
        .memory_bytes = d->space.memory, .reserved_bytes = taken, .peak_reserved_bytes = taken};
  }
  sim_unlock();
  return error;
}

cudaError_t sim_device_break(int id, cudaError_t error, bool is_lost) {
  sim_lock();
  device* d = sim_device_at(id);
  if (d && !d->is_lost) {
    d->broken = error;
    d->is_lost = is_lost;
  }
  sim_unlock();
  return d ? cudaSuccess : cudaErrorInvalidDevice;
}

cudaError_t cudasim_break_device(int id, cudaError_t error) {
  if (error == cudaSuccess) return cudaErrorInvalidValue;
  cudaError_t refused = sim_machine_make();
  return refused ? refused : sim_device_break(id, error, false);
}

// What others hold is no memory that this process could give back.
static cudaError_t occupy(device* d, uint64_t bytes) {
  space* s = &d->space;
  uint64_t rounded = (bytes + GRANULE_BYTES - 1) / GRANULE_BYTES * GRANULE_BYTES;
  if (rounded < bytes || rounded > s->memory - s->taken) return cudaErrorMemoryAllocation;
  s->occupied = rounded;
  return cudaSuccess;
}

cudaError_t cudasim_occupy_memory(int id, uint64_t bytes) {
  cudaError_t error = sim_machine_make();
  if (error) return error;
  sim_lock();
  device* d = sim_device_open(id, &error);
  if (d) error = occupy(d, bytes);
  sim_unlock();
  return error;
}

void* cudasim_device_memory(const void* pointer, size_t size) {
  uint64_t address = (uint64_t)(uintptr_t)pointer;
  void* found = NULL;
  sim_lock();
  device* d = sim_device_of(address);
  const block* b = d ? sim_space_block_around(&d->space, address) : NULL;
  if (b && address - block_address(b) <= b->requested &&
      size <= b->requested - (address - block_address(b))) {
    sim_space_touch(&d->space, address, size);
    found = space_alias(&d->space, address);
  }
  sim_unlock();
  return found;
}
