// While its stream is captured into a graph, a pool neither allocates nor frees: a call would
// become a node of the graph, and every launch would repeat it. A free meanwhile is noted and made
// up for at the first call after the capture. The list for that has room for every live block
// before it is handed out, so that noting cannot fail:
//
//   noted    |-- free, noted --|-- room for the live blocks --|
//            0            noted_count        <= promised <= capacity

#include "tm/alloc/cuda_pool.h"

#include <pthread.h>
#include <string.h>

#include "alloc/counters.h"
#include "alloc/cuda_runtime.h"
#include "tm/alloc/bookkeeping.h"

typedef struct cuda_pool {
  tm_allocator base_allocator;  // must be first
  cudaMemPool_t pool;
  bool owned;
  size_t maximum_bytes;  // 0: no limit
  tm_allocator_stats counters;
  pthread_mutex_t lock;  // guards what follows
  void** noted;
  size_t noted_count;
  size_t promised;  // live blocks and noted ones
  size_t capacity;
} cuda_pool;

//===-- Frees during a capture ----------------------------------------------===//

static tm_status grow_noted(cuda_pool* self) {
  const size_t capacity = self->capacity ? 2 * self->capacity : 64;
  void** noted = tm_bookkeeping_alloc(capacity * sizeof *noted, "a pool's list of blocks");
  if (!noted) {
    return tm_last_status();
  }
  if (self->noted_count) {
    memcpy(noted, self->noted, self->noted_count * sizeof *noted);
  }
  tm_bookkeeping_free(self->noted);
  self->noted = noted;
  self->capacity = capacity;
  return TM_OK;
}

static tm_status promise_room(cuda_pool* self) {
  pthread_mutex_lock(&self->lock);
  const tm_status status = self->promised < self->capacity ? TM_OK : grow_noted(self);
  self->promised += status == TM_OK;
  pthread_mutex_unlock(&self->lock);
  return status;
}

static void return_promise(cuda_pool* self) {
  pthread_mutex_lock(&self->lock);
  self->promised--;
  pthread_mutex_unlock(&self->lock);
}

// A disowned stream has no work left, so any other of the device's orders the free as well.
static cudaStream_t stream_to_free_on(const cuda_pool* self) {
  cudaStream_t handle = tm_stream_handle(self->base_allocator.stream);
  return handle ? handle : cudaStreamPerThread;
}

static void free_now(cuda_pool* self, void* ptr) {
  tm_count_upstream_call_(&self->counters);
  tm_cuda_ignore_(cudaFreeAsync(ptr, stream_to_free_on(self)));
  self->promised--;
}

static void free_noted(cuda_pool* self) {
  while (self->noted_count) {
    free_now(self, self->noted[--self->noted_count]);
  }
}

static bool is_capturing(const cuda_pool* self) {
  bool capturing = false;
  return tm_cuda_is_capturing_(tm_stream_handle(self->base_allocator.stream), &capturing) ==
             TM_OK &&
         capturing;
}

static void make_up_for_noted(cuda_pool* self) {
  pthread_mutex_lock(&self->lock);
  if (TM_UNLIKELY(self->noted_count && !is_capturing(self))) {
    free_noted(self);
  }
  pthread_mutex_unlock(&self->lock);
}

//===-- The allocator -------------------------------------------------------===//

static tm_status alloc_from_pool(cuda_pool* self, size_t size, void** out) {
  cudaStream_t handle = tm_stream_handle(self->base_allocator.stream);
  if (!handle) {
    return TM_RAISE(TM_ERR_INVALID, "cuda_pool: its stream is disowned");
  }
  TM_ON_DEVICE(self->base_allocator.device.id);
  TM_TRY(tm_cuda_refuse_capture_(handle, "cuda_pool"));
  make_up_for_noted(self);
  tm_count_upstream_call_(&self->counters);
  return TM_CUDA_ALLOC_STATUS("cuda_pool", size,
                              cudaMallocFromPoolAsync(out, size, self->pool, handle));
}

static tm_status cuda_pool_alloc(tm_allocator* base, size_t size, tm_stream* stream, void** out) {
  cuda_pool* self = (cuda_pool*)base;
  tm_count_request_(&self->counters);
  TM_TRY(tm_device_check_(base->device.id));  // in a forked child the lock may be held for ever
  if (stream != base->stream) {
    TM_TRY(tm_stream_refuse_capture_(stream, "cuda_pool"));
  }
  TM_TRY(promise_room(self));
  void* block = NULL;
  const tm_status status = alloc_from_pool(self, size, &block);
  if (status != TM_OK) {
    return_promise(self);
    return status;
  }
  tm_count_alloc_(&self->counters, size);
  *out = block;
  return TM_OK;
}

static void free_or_note(cuda_pool* self, void* ptr) {
  pthread_mutex_lock(&self->lock);
  if (TM_UNLIKELY(is_capturing(self))) {
    self->noted[self->noted_count++] = ptr;
  } else {
    free_noted(self);
    free_now(self, ptr);
  }
  pthread_mutex_unlock(&self->lock);
}

static void cuda_pool_free(tm_allocator* base, void* ptr, size_t size, tm_stream* stream) {
  (void)stream;  // the allocator's own: tm_allocator_free has ordered it behind any other
  cuda_pool* self = (cuda_pool*)base;
  tm_device_guard guard = {0};
  if (tm_device_enter_to_free_(base->device.id, &guard)) {
    free_or_note(self, ptr);
    tm_device_leave_(&guard);
  }
  tm_count_free_(&self->counters, size);
}

static tm_status cuda_pool_trim(tm_allocator* base, size_t keep) {
  cuda_pool* self = (cuda_pool*)base;
  cudaStream_t handle = tm_stream_handle(base->stream);
  TM_ON_DEVICE(base->device.id);
  TM_TRY(tm_cuda_refuse_capture_(handle, "cuda_pool"));
  make_up_for_noted(self);
  if (handle) {
    TM_TRY_CUDA(cudaStreamSynchronize(handle));  // the driver trims only what is free by now
  }
  TM_TRY_CUDA(cudaMemPoolTrimTo(self->pool, keep));
  return TM_OK;
}

static tm_status cuda_pool_get_stats(tm_allocator* base, tm_allocator_stats* out) {
  cuda_pool* self = (cuda_pool*)base;
  tm_count_read_(&self->counters, out);
  out->limit_bytes = self->maximum_bytes;
  TM_ON_DEVICE(base->device.id);
  TM_TRY_CUDA(
      cudaMemPoolGetAttribute(self->pool, cudaMemPoolAttrReservedMemCurrent, &out->reserved_bytes));
  TM_TRY_CUDA(cudaMemPoolGetAttribute(self->pool, cudaMemPoolAttrReservedMemHigh,
                                      &out->peak_reserved_bytes));
  return TM_OK;
}

static void cuda_pool_destroy(tm_allocator* base) {
  cuda_pool* self = (cuda_pool*)base;
  tm_device_guard guard = {0};
  if (tm_device_enter_to_free_(base->device.id, &guard)) {
    make_up_for_noted(self);  // in the middle of a capture they stay allocated instead
    if (self->owned) {
      tm_cuda_ignore_(cudaMemPoolDestroy(self->pool));
    }
    tm_device_leave_(&guard);
  }
  pthread_mutex_destroy(&self->lock);
  tm_bookkeeping_free(self->noted);
  tm_allocator_deinit_(base);
  tm_bookkeeping_free(self);
}

static const tm_allocator_vtable cuda_pool_vtable = {
    .name = "cuda_pool",
    .destroy = cuda_pool_destroy,
    .alloc = cuda_pool_alloc,
    .free = cuda_pool_free,
    .trim = cuda_pool_trim,
    .get_stats = cuda_pool_get_stats,
};

//===-- Creation ------------------------------------------------------------===//

static tm_status require_pools(int32_t id) {
  int supported = 0;
  TM_TRY_CUDA(cudaDeviceGetAttribute(&supported, cudaDevAttrMemoryPoolsSupported, id));
  return supported
             ? TM_OK
             : TM_RAISE(TM_ERR_UNAVAILABLE, "cuda_pool: device %d has no memory pools", (int)id);
}

static tm_status create_own_pool(int32_t id, size_t maximum_bytes, cudaMemPool_t* out) {
  const struct cudaMemPoolProps properties = {
      .allocType = cudaMemAllocationTypePinned,
      .handleTypes = cudaMemHandleTypeNone,
      .location = {.type = cudaMemLocationTypeDevice, .id = id},
      .maxSize = maximum_bytes,
  };
  TM_TRY_CUDA(cudaMemPoolCreate(out, &properties));
  return TM_OK;
}

static tm_status set_threshold(cudaMemPool_t pool, uint64_t threshold) {
  TM_TRY_CUDA(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &threshold));
  return TM_OK;
}

static tm_status open_default_pool(int32_t id, uint64_t threshold, cudaMemPool_t* out) {
  TM_ON_DEVICE(id);
  TM_TRY(require_pools(id));
  TM_TRY_CUDA(cudaDeviceGetDefaultMemPool(out, id));
  return threshold ? set_threshold(*out, threshold) : TM_OK;
}

static tm_status open_own_pool(int32_t id, const tm_cuda_pool_options* options,
                               cudaMemPool_t* out) {
  TM_ON_DEVICE(id);
  TM_TRY(require_pools(id));
  TM_TRY(create_own_pool(id, options->maximum_bytes, out));
  const uint64_t threshold = options->release_threshold;
  const tm_status status = set_threshold(*out, threshold ? threshold : UINT64_MAX);
  if (status != TM_OK) {
    tm_cuda_ignore_(cudaMemPoolDestroy(*out));
  }
  return status;
}

static tm_status check_options(const tm_stream* stream, const tm_cuda_pool_options* options) {
  if (!stream) {
    return TM_NULL_HANDLE("tm_cuda_pool_allocator_create: the stream");
  }
  if (!tm_stream_handle(stream)) {
    return TM_RAISE(TM_ERR_INVALID, "cuda_pool: the stream is disowned");
  }
  if (options->default_pool && options->maximum_bytes) {
    return TM_RAISE(TM_ERR_INVALID,
                    "cuda_pool: a maximum of %zu bytes for the default pool, which all share",
                    options->maximum_bytes);
  }
  return TM_OK;
}

tm_allocator* tm_cuda_pool_allocator_create(tm_stream* stream,
                                            const tm_cuda_pool_options* options) {
  static const tm_cuda_pool_options defaults = {0};
  options = options ? options : &defaults;
  if (check_options(stream, options) != TM_OK) {
    return NULL;
  }
  cuda_pool* self = tm_bookkeeping_alloc(sizeof *self, "a pool allocator");
  if (!self) {
    return NULL;
  }
  const tm_device device = tm_stream_device(stream);
  const tm_status status =
      options->default_pool ? open_default_pool(device.id, options->release_threshold, &self->pool)
                            : open_own_pool(device.id, options, &self->pool);
  if (status != TM_OK) {
    tm_bookkeeping_free(self);
    return NULL;
  }
  self->owned = !options->default_pool;
  self->maximum_bytes = options->maximum_bytes;
  pthread_mutex_init(&self->lock, NULL);
  tm_allocator_init_(&self->base_allocator, &cuda_pool_vtable, device, stream);
  return &self->base_allocator;
}
