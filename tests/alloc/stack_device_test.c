// The stack over device memory in stream order: whatever it does, nothing waits on the host.

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>

#include "tests/support/gate.h"
#include "tests/support/machine.h"
#include "tm/alloc/cuda_pool.h"
#include "tm/alloc/stack.h"
#include "tm/alloc/storage.h"
#include "tm/alloc/stream.h"

#define MIB ((size_t)1 << 20)

enum { ITERATIONS = 24, BLOCKS = 8 };

static tm_stream* stream;
static tm_allocator* stack;

static void setup(void) {
  machine_configure(1, "512MiB");
  machine_require_devices(1);
  stream = tm_stream_create(0, 0);
  cr_assert(stream != NULL, "%s", tm_last_error()->message);
  tm_auto_allocator pool = tm_cuda_pool_allocator_create(stream, NULL);
  cr_assert(pool != NULL, "%s", tm_last_error()->message);
  stack = tm_stack_allocator_create(pool, stream, NULL);
  cr_assert(stack != NULL, "%s", tm_last_error()->message);
}

static tm_storage* take(size_t size) {
  tm_storage* storage = NULL;
  cr_assert(eq(int, tm_storage_alloc(stack, size, NULL, &storage), TM_OK), "%s",
            tm_last_error()->message);
  return storage;
}

static void* release(void* storage) {
  tm_storage_release(storage);
  return NULL;
}

static void release_on_another_thread(tm_storage* storage) {
  pthread_t thread;
  cr_assert(eq(int, pthread_create(&thread, NULL, release, storage), 0));
  pthread_join(thread, NULL);
}

// One step of an engine, larger than the one before: the stack grows, a block lives on, another is
// released elsewhere.
static void iterate(int number, tm_storage** kept) {
  cr_assert(eq(int, tm_stack_reset(stack), TM_OK));
  tm_storage* blocks[BLOCKS];
  for (int i = 0; i < BLOCKS; i++) {
    blocks[i] = take(((size_t)number + 1) * 32 * 1024 * (size_t)(i + 1));
  }
  tm_storage_release(*kept);
  *kept = blocks[0];
  release_on_another_thread(blocks[1]);
  for (int i = 2; i < BLOCKS; i++) {
    tm_storage_release(blocks[i]);
  }
}

static void expect_pending(void) {
  bool done = true;
  cr_expect(eq(int, tm_stream_query(stream, &done), TM_OK));
  cr_expect(not(done));
}

Test(stack_device, growing_resetting_trimming_and_closing_make_nobody_wait) {
  setup();
  gate g;
  gate_close(&g, stream);  // a wait would never end
  tm_storage* kept = NULL;
  for (int i = 0; i < ITERATIONS; i++) {
    iterate(i, &kept);
  }
  cr_assert(eq(int, tm_stack_reserve(stack, 32 * MIB), TM_OK));
  cr_assert(eq(int, tm_stack_reserve(stack, 0), TM_OK));
  cr_assert(eq(int, tm_allocator_trim(stack, 1), TM_OK));
  tm_storage_release(kept);
  tm_allocator_release(stack);
  expect_pending();
  gate_open(&g);
  cr_expect(eq(int, tm_stream_sync(stream), TM_OK));
  tm_stream_release(stream);
  cr_expect(eq(i64, machine_live_allocations(0), 0));
}
