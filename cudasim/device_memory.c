// cudaMalloc and cudaFree. Small allocations share granules; larger ones have their own.

#include <stddef.h>

#include "cudasim/capture.h"
#include "cudasim/check.h"
#include "cudasim/device.h"
#include "cudasim/device_memory.h"
#include "cudasim/graph_memory.h"
#include "cudasim/pool.h"
#include "cudasim/report.h"
#include "cudasim/runtime.h"
#include "cudasim/scheduler.h"
#include "cudasim/space.h"

#define LARGEST_SMALL (GRANULE_BYTES - UNIT_BYTES)
#define PITCH_BYTES ((size_t)512)

static uint64_t round_up(uint64_t value, uint64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

//===-- Blocks --------------------------------------------------------------------------------===//

static block* take_small(device* d, uint64_t size) {
  block* b = sim_shelf_best(&d->small, size);
  if (!b) {
    b = sim_space_take(&d->space, GRANULE_BYTES);
    if (!b) return NULL;
    sim_shelf_put(&d->small, b, 0);
  }
  return sim_shelf_carve(b, size);
}

void sim_device_memory_give(block* b) {
  device* d = b->device;
  if (b->requested > LARGEST_SMALL) {
    sim_space_give(&d->space, b);
    return;
  }
  b = sim_shelf_give(&d->small, b, 0);
  if (block_size(b) < GRANULE_BYTES) return;
  sim_shelf_pull(b);
  sim_space_give(&d->space, b);
}

static block* take(device* d, uint64_t size) {
  if (size <= LARGEST_SMALL) return take_small(d, round_up(size, UNIT_BYTES));
  return sim_space_take(&d->space, round_up(size, GRANULE_BYTES));
}

//===-- Allocating and freeing ----------------------------------------------------------------===//

static cudaError_t refuse_memory(const device* d, uint64_t size) {
  return sim_refuse(cudaErrorMemoryAllocation, "%llu bytes asked, %llu of %llu of device %d taken",
                    (unsigned long long)size, (unsigned long long)d->space.taken,
                    (unsigned long long)d->space.memory, d->id);
}

static cudaError_t allocate(device* d, void** out, uint64_t size) {
  if (!out) return cudaErrorInvalidValue;
  *out = NULL;
  if (!size) return cudaSuccess;
  if (size > d->space.memory) return refuse_memory(d, size);
  block* b = take(d, size);
  if (!b) {
    sim_pool_relieve(d, NULL);
    b = take(d, size);
  }
  if (!b) return refuse_memory(d, size);
  if (!sim_space_enlist(&d->space, b, size)) {
    b->requested = size;
    sim_device_memory_give(b);
    return cudaErrorMemoryAllocation;
  }
  ++d->statistics.mallocs;
  *out = (void*)(uintptr_t)block_address(b);
  if (check_is_on()) sim_check_made(*out, size, MEMORY_DEVICE, NULL);
  return cudaSuccess;
}

static block* block_at(const void* p, device** out) {
  uint64_t address = (uint64_t)(uintptr_t)p;
  *out = sim_device_of(address);
  return *out ? sim_space_block_at(&(*out)->space, address) : NULL;
}

static cudaError_t refuse_free(const void* p) {
  if (check_is_on()) sim_check_refused_free(p);
  return sim_refuse(cudaErrorInvalidValue, "%p is not an allocation of any device", p);
}

static cudaError_t release(const void* p) {
  if (!p) return cudaSuccess;
  device* d;
  block* b = block_at(p, &d);
  if (!b) return refuse_free(p);
  if (d->broken) return d->broken;
  if (b->graph) return sim_graph_memory_free(b->graph, NULL);
  if (b->pool) {  // the program has waited for its work: so says cudaFree's contract
    ++d->statistics.frees;
    if (check_is_on()) sim_check_freed(p, NULL);
    return sim_pool_free(b, NULL);
  }
  if (d->queued || check_is_on()) {
    sim_stream_wait_device(d);
    b = block_at(p, &d);
    if (!b) return cudaErrorInvalidValue;  // freed by another thread meanwhile
  }
  if (check_is_on()) {
    sim_order_learn_device(d->id);
    sim_check_freed(p, NULL);
  }
  sim_space_delist(&d->space, b);
  sim_device_memory_give(b);
  ++d->statistics.frees;
  return cudaSuccess;
}

static cudaError_t allocate_pitched(device* d, void** out, size_t* pitch, size_t width,
                                    size_t rows) {
  if (!out || !pitch) return cudaErrorInvalidValue;
  *out = NULL;
  *pitch = round_up(width, PITCH_BYTES);
  size_t bytes;
  if (*pitch < width || __builtin_mul_overflow(*pitch, rows, &bytes)) {
    return cudaErrorMemoryAllocation;
  }
  return allocate(d, out, bytes);
}

static cudaError_t allocate_3d(device* d, struct cudaPitchedPtr* out, struct cudaExtent extent) {
  if (!out) return cudaErrorInvalidValue;
  size_t rows;
  if (__builtin_mul_overflow(extent.height, extent.depth, &rows)) return cudaErrorMemoryAllocation;
  out->xsize = extent.width;
  out->ysize = extent.height;
  return allocate_pitched(d, &out->ptr, &out->pitch, extent.width, rows);
}

//===-- Stream order --------------------------------------------------------------------------===//

// Adds a node to the capture of `s` that allocates on `d`.
static cudaError_t capture_allocation(stream* s, device* d, size_t size, void** out) {
  branch* b = s->branch;
  if (b->capture->is_invalid) return cudaErrorStreamCaptureInvalidated;
  if (!size) return cudaSuccess;
  cudaError_t error;
  graph_memory* m = sim_graph_memory_plan(b->capture->graph, d, size, &b->tips, &error);
  if (!m) return error;
  node_work w = {.type = cudaGraphNodeTypeMemAlloc, .memory = {.memory = m, .bytes = size}};
  error = sim_capture_work(s, &w);
  if (!error) *out = (void*)(uintptr_t)block_address(m->block);
  sim_graph_memory_drop(m, !error);
  return error;
}

static cudaError_t capture_free(stream* s, const void* p) {
  const capture* c = s->branch->capture;
  if (c->is_invalid) return cudaErrorStreamCaptureInvalidated;
  node_work w = {.type = cudaGraphNodeTypeMemFree};
  cudaError_t error = sim_graph_memory_plan_free(c->graph, p, &w.memory);
  return error ? error : sim_capture_work(s, &w);
}

static cudaError_t allocate_async(device* current, void** out, size_t size, cudaStream_t in,
                                  pool* p) {
  if (!out) return cudaErrorInvalidValue;
  *out = NULL;
  cudaError_t error = cudaSuccess;
  stream* s = sim_stream_of(current, in, &error);
  if (!s) return error;
  if (s->device->broken) return s->device->broken;
  if (s->branch) return capture_allocation(s, p ? p->device : s->device, size, out);
  error = sim_capture_check_unsafe();
  if (error || !size) return error;
  if (!p) p = s->device->pool;
  error = sim_pool_alloc(p, s, size, out);
  if (error) return error;
  ++p->device->statistics.async_mallocs;
  if (check_is_on()) sim_check_made(*out, size, MEMORY_POOL, s);
  return cudaSuccess;
}

static cudaError_t allocate_from(device* current, void** out, size_t size, cudaMemPool_t from,
                                 cudaStream_t in) {
  pool* p = sim_pool_of(from);
  return p ? allocate_async(current, out, size, in, p) : cudaErrorInvalidValue;
}

// Frees what cudaMalloc made once `s` gets here.
static cudaError_t release_later(block* b, stream* s) {
  cudaError_t error = sim_stream_enter(s);
  op* o = error ? NULL : sim_op_create(OP_FREE);
  if (!o) return cudaErrorMemoryAllocation;
  sim_space_delist(&b->device->space, b);
  o->free.block = b;
  sim_scheduler_submit(s, o, false);
  return cudaSuccess;
}

static cudaError_t release_async(device* current, const void* p, cudaStream_t in) {
  cudaError_t error = cudaSuccess;
  stream* s = sim_stream_of(current, in, &error);
  if (!s) return error;
  if (s->device->broken) return s->device->broken;
  if (s->branch) return capture_free(s, p);
  error = sim_capture_check_unsafe();
  if (error || !p) return error;
  device* d;
  block* b = block_at(p, &d);
  if (!b) return refuse_free(p);
  if (b->graph) return sim_graph_memory_free(b->graph, s);
  if (!b->pool && sim_scheduler_make_room(s)) return release_async(current, p, in);
  error = b->pool ? sim_pool_free(b, s) : release_later(b, s);
  if (error) return error;
  ++d->statistics.async_frees;
  if (check_is_on()) sim_check_freed(p, s);
  return cudaSuccess;
}

//===-- The API -------------------------------------------------------------------------------===//

cudaError_t cudaMalloc(void** devPtr, size_t size) {
  UNSAFE_CALL(cudaMalloc, allocate(frame.device, devPtr, size));
}

cudaError_t cudaMallocPitch(void** devPtr, size_t* pitch, size_t width, size_t height) {
  UNSAFE_CALL(cudaMallocPitch, allocate_pitched(frame.device, devPtr, pitch, width, height));
}

cudaError_t cudaMalloc3D(struct cudaPitchedPtr* pitchedDevPtr, struct cudaExtent extent) {
  UNSAFE_CALL(cudaMalloc3D, allocate_3d(frame.device, pitchedDevPtr, extent));
}

cudaError_t cudaFree(void* devPtr) { UNSAFE_CALL(cudaFree, release(devPtr)); }

cudaError_t cudaMallocAsync(void** devPtr, size_t size, cudaStream_t hStream) {
  CALL(cudaMallocAsync, allocate_async(frame.device, devPtr, size, hStream, NULL));
}

cudaError_t cudaMallocFromPoolAsync(void** ptr, size_t size, cudaMemPool_t memPool,
                                    cudaStream_t hStream) {
  CALL(cudaMallocFromPoolAsync, allocate_from(frame.device, ptr, size, memPool, hStream));
}

cudaError_t cudaFreeAsync(void* devPtr, cudaStream_t hStream) {
  CALL(cudaFreeAsync, release_async(frame.device, devPtr, hStream));
}
