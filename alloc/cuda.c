#include "tm/alloc/cuda.h"

#include <pthread.h>
#include <stdbool.h>

#include "alloc/counters.h"
#include "alloc/cuda_runtime.h"

typedef struct cuda_allocator {
  tm_allocator base_allocator;  // must be first
  bool ready;                   // read and written with __atomic
  tm_allocator_stats counters;
} cuda_allocator;

static cuda_allocator allocators[TM_MAX_DEVICES];
static pthread_mutex_t creation_lock = PTHREAD_MUTEX_INITIALIZER;

static tm_status cuda_alloc(tm_allocator* self, size_t size, tm_stream* stream, void** out) {
  tm_allocator_stats* counters = &((cuda_allocator*)self)->counters;
  tm_count_request_(counters);
  TM_TRY(tm_stream_refuse_capture_(stream, "cuda"));
  TM_ON_DEVICE(self->device.id);
  void* block = NULL;
  tm_count_upstream_call_(counters);
  TM_TRY(TM_CUDA_ALLOC_STATUS("cuda", size, cudaMalloc(&block, size)));
  tm_count_alloc_(counters, size);
  tm_count_reserve_(counters, size);
  *out = block;
  return TM_OK;
}

static void cuda_free(tm_allocator* self, void* ptr, size_t size, tm_stream* stream) {
  (void)stream;  // cudaFree waits for every stream of the device
  tm_allocator_stats* counters = &((cuda_allocator*)self)->counters;
  tm_device_guard guard = {0};
  if (tm_device_enter_to_free_(self->device.id, &guard)) {
    tm_count_upstream_call_(counters);
    tm_cuda_ignore_(cudaFree(ptr));
    tm_device_leave_(&guard);
  }
  tm_count_free_(counters, size);
  tm_count_unreserve_(counters, size);
}

static tm_status cuda_get_stats(tm_allocator* self, tm_allocator_stats* out) {
  tm_count_read_(&((cuda_allocator*)self)->counters, out);
  out->knows_largest_free = true;  // nothing is held that is not in use
  return TM_OK;
}

static void cuda_destroy(tm_allocator* self) { (void)self; }  // immortal: never called

static const tm_allocator_vtable cuda_vtable = {
    .name = "cuda",
    .destroy = cuda_destroy,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .get_stats = cuda_get_stats,
};

// Whether the device is there is asked of CUDA by making it current once.
static tm_status make_ready(cuda_allocator* self, int32_t id) {
  TM_ON_DEVICE(id);
  tm_allocator_init_(&self->base_allocator, &cuda_vtable, tm_device_make(TM_DEVICE, id), NULL);
  self->base_allocator.references = TM_IMMORTAL_;
  self->base_allocator.ignores_stream = true;
  __atomic_store_n(&self->ready, true, __ATOMIC_RELEASE);
  return TM_OK;
}

tm_allocator* tm_cuda_allocator(int32_t id) {
  if (tm_device_check_(id) != TM_OK) {
    return NULL;
  }
  cuda_allocator* self = &allocators[id];
  tm_status status = TM_OK;
  if (TM_UNLIKELY(!__atomic_load_n(&self->ready, __ATOMIC_ACQUIRE))) {
    pthread_mutex_lock(&creation_lock);
    status = self->ready ? TM_OK : make_ready(self, id);
    pthread_mutex_unlock(&creation_lock);
  }
  return status == TM_OK ? &self->base_allocator : NULL;
}
