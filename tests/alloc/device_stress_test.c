// Pinned memory, pools, events and streams from several threads at once, for ThreadSanitizer. Every
// thread copies a pattern through blocks that others have just given back, and checks it.

#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tm/alloc/cuda.h"
#include "tm/alloc/cuda_pool.h"
#include "tm/alloc/device.h"
#include "tm/alloc/event.h"
#include "tm/alloc/pinned.h"
#include "tm/alloc/storage.h"
#include "tm/alloc/stream.h"
#include "tm/check.h"

enum { THREADS = 4, ROUNDS = 150, SIZE = 40000 };

static tm_stream* shared_stream;
static tm_allocator* pool;    // on the shared stream
static tm_storage* exchange;  // the storage that one thread leaves and another releases

// Host to device to host, on the thread's own stream.
static void copy_through(tm_stream* stream, int value) {
  char* source;
  char* result;
  void* device;
  TM_CHECK_OK(tm_allocator_alloc(tm_pinned_allocator(), SIZE, stream, (void**)&source));
  TM_CHECK_OK(tm_allocator_alloc(tm_pinned_allocator(), SIZE, NULL, (void**)&result));
  TM_CHECK_OK(tm_allocator_alloc(pool, SIZE, stream, &device));
  memset(source, value, SIZE);
  cudaStream_t handle = tm_stream_handle(stream);
  TM_CHECK_EQ(cudaMemcpyAsync(device, source, SIZE, cudaMemcpyHostToDevice, handle), cudaSuccess);
  tm_allocator_free(tm_pinned_allocator(), source, SIZE, stream);  // while it may still be read
  TM_CHECK_EQ(cudaMemcpyAsync(result, device, SIZE, cudaMemcpyDeviceToHost, handle), cudaSuccess);
  tm_allocator_free(pool, device, SIZE, stream);
  TM_CHECK_OK(tm_stream_sync(stream));
  for (int i = 0; i < SIZE; i++) {
    TM_CHECK_EQ(result[i], (char)value);
  }
  tm_allocator_free(tm_pinned_allocator(), result, SIZE, NULL);
}

static void pass_a_storage_on(tm_stream* stream) {
  tm_storage* mine;
  TM_CHECK_OK(tm_storage_alloc(pool, SIZE, NULL, &mine));
  TM_CHECK_OK(tm_storage_record_stream(mine, stream));
  tm_storage_release(__atomic_exchange_n(&exchange, mine, __ATOMIC_ACQ_REL));
}

static void order_streams(tm_stream* stream) {
  tm_auto_event event = tm_event_create(0, false);
  TM_CHECK(event != NULL);
  TM_CHECK_OK(tm_event_record(event, stream));
  TM_CHECK_OK(tm_stream_wait(shared_stream, event));
  TM_CHECK_OK(tm_stream_wait_stream(stream, shared_stream));
  bool done;
  TM_CHECK_OK(tm_event_query(event, &done));
}

static void* work(void* argument) {
  const int id = (int)(intptr_t)argument;
  tm_auto_stream stream = tm_stream_create(0, 0);
  TM_CHECK(stream != NULL);
  for (int i = 0; i < ROUNDS; i++) {
    copy_through(stream, id * 50 + i % 50);
    pass_a_storage_on(stream);
    order_streams(stream);
    if (i % 40 == id) {
      TM_CHECK_OK(tm_allocator_trim(tm_pinned_allocator(), 0));
      TM_CHECK_OK(tm_allocator_trim(pool, 0));
    }
    if (i % 50 == id) {
      void* block;
      TM_CHECK_OK(tm_allocator_alloc(tm_cuda_allocator(0), SIZE, NULL, &block));
      tm_allocator_free(tm_cuda_allocator(0), block, SIZE, NULL);
    }
  }
  TM_CHECK_OK(tm_stream_sync(stream));
  return NULL;
}

static void expect_nothing_live(tm_allocator* allocator) {
  tm_allocator_stats stats;
  TM_CHECK_OK(tm_allocator_get_stats(allocator, &stats));
  TM_CHECK_EQ(stats.live_bytes, 0);
  TM_CHECK_EQ(stats.live_blocks, 0);
}

int main(void) {
  int32_t count;
  if (tm_device_count(&count) != TM_OK) {
    printf("SKIPPED: %s\n", tm_last_error()->message);
    return 0;
  }
  shared_stream = tm_stream_create(0, 0);
  pool = tm_cuda_pool_allocator_create(shared_stream, NULL);
  TM_CHECK(pool != NULL);
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; i++) {
    TM_CHECK_EQ(pthread_create(&threads[i], NULL, work, (void*)(intptr_t)i), 0);
  }
  for (int i = 0; i < THREADS; i++) {
    TM_CHECK_EQ(pthread_join(threads[i], NULL), 0);
  }
  tm_storage_release(exchange);
  TM_CHECK_OK(tm_stream_sync(shared_stream));
  expect_nothing_live(pool);
  expect_nothing_live(tm_cuda_allocator(0));
  expect_nothing_live(tm_pinned_allocator());
  tm_allocator_release(pool);
  tm_stream_release(shared_stream);
  TM_CHECK_OK(tm_allocator_trim(tm_pinned_allocator(), 0));
  printf("%d threads, %d rounds each\n", THREADS, ROUNDS);
  return 0;
}
