// What is released after main has returned: the destructors of globals run when CUDA is going or
// gone, so device frees must do nothing then, and device calls must say so.
//
// Every pass is by exit status. The handler below is registered before the first device call, so it
// runs after the one that the library registers there.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tm/alloc/cached.h"
#include "tm/alloc/cuda.h"
#include "tm/alloc/cuda_pool.h"
#include "tm/alloc/device.h"
#include "tm/alloc/event.h"
#include "tm/alloc/host.h"
#include "tm/alloc/pinned.h"
#include "tm/alloc/stack.h"
#include "tm/alloc/storage.h"
#include "tm/alloc/stream.h"

static tm_stream* stream;
static tm_event* event;
static tm_allocator* stack;
static tm_storage* storage;
static tm_allocator* cached[2];  // over device and pinned memory
static void* cached_blocks[2];
static void* cuda_block;
static void* pinned_block;

static void fail(const char* what) {
  fprintf(stderr, "FAILED: %s: %s\n", what, tm_last_error()->message);
  _exit(1);
}

static void release_globals(void) {
  tm_storage_release(storage);
  tm_allocator_release(stack);
  for (int i = 0; i < 2; i++) {
    tm_allocator_release(cached[i]);
    tm_allocator_free(cached[i], cached_blocks[i], 1000, stream);
  }
  tm_allocator_free(tm_cuda_allocator(0), cuda_block, 1000, stream);
  tm_allocator_free(tm_pinned_allocator(), pinned_block, 1000, stream);
  if (tm_stream_sync(stream) != TM_ERR_UNAVAILABLE) fail("a device call while exiting");
  if (!strstr(tm_last_error()->message, "exiting")) fail("its message");
  tm_event_release(event);
  tm_stream_release(stream);
  void* block;
  if (tm_allocator_alloc(tm_host_allocator(), 100, NULL, &block) != TM_OK) fail("host memory");
  tm_allocator_free(tm_host_allocator(), block, 100, NULL);
  printf("released everything after main\n");
}

int main(void) {
  int32_t count;
  if (atexit(release_globals) != 0) return 1;
  if (tm_device_count(&count) != TM_OK) {
    printf("SKIPPED: %s\n", tm_last_error()->message);
    (void)fflush(stdout);
    _exit(0);
  }
  stream = tm_stream_create(0, 0);
  event = tm_event_create(0, false);
  tm_auto_allocator pool = stream ? tm_cuda_pool_allocator_create(stream, NULL) : NULL;
  stack = pool ? tm_stack_allocator_create(pool, NULL, NULL) : NULL;
  cached[0] = stream ? tm_cached_allocator_create(tm_cuda_allocator(0), stream, NULL) : NULL;
  cached[1] = tm_cached_allocator_create(tm_pinned_allocator(), NULL, NULL);
  if (!stack || !event || !cached[0] || !cached[1]) fail("creation");
  for (int i = 0; i < 2; i++) {
    if (tm_allocator_alloc(cached[i], 1000, stream, &cached_blocks[i]) != TM_OK) fail("cached");
  }
  if (tm_storage_alloc(stack, 1000, NULL, &storage) != TM_OK) fail("a storage");
  if (tm_allocator_alloc(tm_cuda_allocator(0), 1000, NULL, &cuda_block) != TM_OK) fail("cuda");
  if (tm_allocator_alloc(tm_pinned_allocator(), 1000, stream, &pinned_block) != TM_OK) {
    fail("pinned");
  }
  return 0;
}
