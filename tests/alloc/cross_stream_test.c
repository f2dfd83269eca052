// Memory that goes from one stream to another: nothing may be overwritten before it was read.
//
// Each test queues a copy out of a block behind a closed gate, lets the block's memory go to a new
// owner that overwrites it, and opens the gate only then. The first test shows that the arrangement
// notices an overwrite, by leaving out the order that the library makes.

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <cuda_runtime_api.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/gate.h"
#include "tests/support/machine.h"
#include "tm/alloc/cuda_pool.h"
#include "tm/alloc/pinned.h"
#include "tm/alloc/stack.h"
#include "tm/alloc/storage.h"
#include "tm/alloc/stream.h"

enum { SIZE = 1 << 20, OLD = 0x11, NEW = 0x22 };

static tm_stream* a;  // the pool's own stream
static tm_stream* b;
static tm_allocator* pool;
static char* seen;  // pinned: what the copy behind the gate found

static void cuda_ok(cudaError_t code) {
  cr_assert(eq(int, code, cudaSuccess), "%s", cudaGetErrorString(code));
}

static void* take(tm_allocator* allocator, tm_stream* stream) {
  void* block = NULL;
  cr_assert(eq(int, tm_allocator_alloc(allocator, SIZE, stream, &block), TM_OK), "%s",
            tm_last_error()->message);
  return block;
}

static void setup(void) {
  machine_configure(2, "256MiB");
  machine_require_devices(1);
  a = tm_stream_create(0, 0);
  b = tm_stream_create(0, 0);
  pool = tm_cuda_pool_allocator_create(a, NULL);
  cr_assert(a && b && pool, "%s", tm_last_error()->message);
  seen = take(tm_pinned_allocator(), NULL);
  tm_allocator_free(pool, take(pool, NULL), SIZE, NULL);  // the pool has its memory from here on
  cr_assert(eq(int, tm_stream_sync(a), TM_OK));
}

static void finish(void) {
  cr_expect(eq(int, tm_device_sync(0), TM_OK));
  tm_allocator_free(tm_pinned_allocator(), seen, SIZE, NULL);
  tm_allocator_release(pool);
  tm_stream_release(a);
  tm_stream_release(b);
  cr_expect(eq(i64, machine_live_allocations(0), 0));
}

static void write_on(tm_stream* stream, void* block, int value) {
  cuda_ok(cudaMemsetAsync(block, value, SIZE, tm_stream_handle(stream)));
}

static void read_on(tm_stream* stream, const void* block) {
  cuda_ok(cudaMemcpyAsync(seen, block, SIZE, cudaMemcpyDeviceToHost, tm_stream_handle(stream)));
}

static void give_time(void) { (void)usleep(50 * 1000); }  // for an overwrite that is not ordered

static int wrong_bytes(int value) {
  int wrong = 0;
  for (int i = 0; i < SIZE; i++) {
    wrong += seen[i] != (char)value;
  }
  return wrong;
}

static void expect_seen(int value) { cr_expect(eq(int, wrong_bytes(value), 0)); }

// Writes OLD to the block, and queues behind a closed gate on `stream` to read it.
static void read_behind(gate* g, tm_stream* stream, void* block) {
  write_on(stream, block, OLD);
  cr_assert(eq(int, tm_stream_sync(stream), TM_OK));
  memset(seen, 0, SIZE);
  gate_close(g, stream);
  read_on(stream, block);
}

Test(cross_stream, the_arrangement_notices_a_missing_wait) {
  machine_leave_unchecked();
  setup();
  gate g;
  void* old = take(pool, NULL);
  read_behind(&g, a, old);
  tm_allocator_free(pool, old, SIZE, NULL);
  void* next = take(pool, NULL);  // ready on a, which is held up: b must not touch it yet
  cr_assert(eq(ptr, next, old));
  write_on(b, next, NEW);
  cr_assert(eq(int, tm_stream_sync(b), TM_OK));
  gate_open(&g);
  cr_assert(eq(int, tm_stream_sync(a), TM_OK));
  expect_seen(NEW);  // which is the mistake
  tm_allocator_free(pool, next, SIZE, NULL);
  finish();
}

Test(cross_stream, a_block_for_another_stream_is_waited_for_there) {
  setup();
  gate g;
  void* old = take(pool, NULL);
  read_behind(&g, a, old);
  tm_allocator_free(pool, old, SIZE, NULL);
  void* next = take(pool, b);
  cr_assert(eq(ptr, next, old));
  write_on(b, next, NEW);
  give_time();
  bool done = true;
  cr_assert(eq(int, tm_stream_query(b, &done), TM_OK));
  cr_expect(not(done));
  gate_open(&g);
  cr_assert(eq(int, tm_stream_sync(a), TM_OK));
  expect_seen(OLD);
  tm_allocator_free(pool, next, SIZE, b);
  finish();
}

Test(cross_stream, a_block_freed_on_another_stream_is_reused_after_it) {
  setup();
  gate g;
  void* old = take(pool, b);
  read_behind(&g, b, old);
  tm_allocator_free(pool, old, SIZE, b);
  void* next = take(pool, NULL);
  write_on(a, next, NEW);
  give_time();
  gate_open(&g);
  cr_assert(eq(int, tm_stream_sync(b), TM_OK));
  expect_seen(OLD);
  tm_allocator_free(pool, next, SIZE, NULL);
  finish();
}

Test(cross_stream, a_stream_of_another_device_is_ordered_too) {
  setup();
  machine_require_devices(2);
  tm_auto_stream elsewhere = tm_stream_create(1, 0);
  cr_assert(elsewhere != NULL, "%s", tm_last_error()->message);
  gate g;
  void* old = take(pool, elsewhere);
  write_on(a, old, OLD);
  cr_assert(eq(int, tm_stream_sync(a), TM_OK));
  memset(seen, 0, SIZE);
  gate_close(&g, elsewhere);
  read_on(elsewhere, old);
  tm_allocator_free(pool, old, SIZE, elsewhere);
  void* next = take(pool, NULL);
  cr_assert(eq(ptr, next, old));
  write_on(a, next, NEW);
  give_time();
  gate_open(&g);
  cr_assert(eq(int, tm_stream_sync(elsewhere), TM_OK));
  expect_seen(OLD);
  tm_allocator_free(pool, next, SIZE, NULL);
  finish();
}

static void release_while_read(tm_allocator* allocator, bool on_b) {
  gate g;
  tm_storage* storage;
  cr_assert(eq(int, tm_storage_alloc(allocator, SIZE, on_b ? b : NULL, &storage), TM_OK));
  void* old = storage->data;
  if (!on_b) {
    write_on(a, old, OLD);
    cr_assert(eq(int, tm_stream_wait_stream(b, a), TM_OK));
  }
  read_behind(&g, b, old);
  if (!on_b) {
    cr_assert(eq(int, tm_storage_record_stream(storage, b), TM_OK));
  }
  tm_storage_release(storage);
  void* next = take(allocator, NULL);
  write_on(a, next, NEW);
  give_time();
  gate_open(&g);
  cr_assert(eq(int, tm_stream_sync(b), TM_OK));
  expect_seen(OLD);
  tm_allocator_free(allocator, next, SIZE, NULL);
}

Test(cross_stream, a_storage_made_on_another_stream_is_freed_after_it) {
  setup();
  release_while_read(pool, true);
  finish();
}

Test(cross_stream, a_recorded_stream_is_waited_for_before_reuse) {
  setup();
  release_while_read(pool, false);
  finish();
}

Test(cross_stream, the_same_holds_for_a_stack) {
  setup();
  tm_allocator* stack = tm_stack_allocator_create(pool, NULL, NULL);
  cr_assert(stack != NULL);
  tm_allocator_free(stack, take(stack, NULL), SIZE, NULL);
  release_while_read(stack, true);
  release_while_read(stack, false);
  tm_allocator_release(stack);
  finish();
}

Test(cross_stream, pool_memory_follows_the_stream_into_a_stack) {
  setup();
  gate g;
  void* old = take(pool, NULL);
  read_behind(&g, a, old);
  tm_allocator_free(pool, old, SIZE, NULL);
  tm_allocator* stack = tm_stack_allocator_create(pool, b, NULL);
  cr_assert(stack != NULL);
  void* next = take(stack, NULL);
  write_on(b, next, NEW);
  give_time();
  gate_open(&g);
  cr_assert(eq(int, tm_stream_sync(a), TM_OK));
  expect_seen(OLD);
  tm_allocator_free(stack, next, SIZE, NULL);
  tm_allocator_release(stack);
  finish();
}
