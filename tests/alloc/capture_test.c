// Allocators beside a stream that is really being captured into a graph: what they refuse leaves
// the capture valid, and what is freed meanwhile is given back afterwards. Needs a real device,
// since the simulation captures nothing.

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <cuda_runtime_api.h>

#include "tests/support/machine.h"
#include "tm/alloc/cuda.h"
#include "tm/alloc/cuda_pool.h"
#include "tm/alloc/pinned.h"
#include "tm/alloc/stack.h"
#include "tm/alloc/stream.h"

#define MIB ((size_t)1 << 20)

static tm_stream* stream;
static tm_allocator* pool;
static void* block;  // of the pool, for the graph's one node

static void cuda_ok(cudaError_t code) {
  cr_assert(eq(int, code, cudaSuccess), "%s", cudaGetErrorString(code));
}

static void begin(void) {
  machine_require_devices(1);
  stream = tm_stream_create(0, 0);
  pool = tm_cuda_pool_allocator_create(stream, NULL);
  cr_assert(stream && pool, "%s", tm_last_error()->message);
  cr_assert(eq(int, tm_allocator_alloc(pool, MIB, NULL, &block), TM_OK));
  cr_assert(eq(int, tm_stream_sync(stream), TM_OK));
}

static void begin_capture(void) {
  cuda_ok(cudaStreamBeginCapture(tm_stream_handle(stream), cudaStreamCaptureModeGlobal));
  cuda_ok(cudaMemsetAsync(block, 1, MIB, tm_stream_handle(stream)));
}

// The capture must have stayed valid, with the one node that the test queued.
static void end_capture(void) {
  cudaGraph_t graph = NULL;
  cuda_ok(cudaStreamEndCapture(tm_stream_handle(stream), &graph));
  size_t nodes = 0;
  cuda_ok(cudaGraphGetNodes(graph, NULL, &nodes));
  cr_expect(eq(sz, nodes, 1));
  cuda_ok(cudaGraphDestroy(graph));
}

static void end(void) {
  tm_allocator_free(pool, block, MIB, NULL);
  tm_allocator_release(pool);
  tm_stream_release(stream);
}

static void expect_refused(tm_allocator* allocator, size_t size, tm_stream* used_on) {
  void* none = &none;
  cr_expect(eq(int, tm_allocator_alloc(allocator, size, used_on, &none), TM_ERR_CAPTURING),
            "%s: %s", tm_allocator_name(allocator), tm_last_error()->message);
  cr_expect(eq(ptr, none, NULL));
}

Test(capture, calls_for_the_captured_stream_are_refused) {
  begin();
  tm_allocator* stack = tm_stack_allocator_create(pool, NULL, NULL);
  begin_capture();
  bool capturing = false;
  cr_expect(eq(int, tm_stream_is_capturing(stream, &capturing), TM_OK));
  cr_expect(capturing);
  expect_refused(pool, MIB, NULL);
  expect_refused(tm_cuda_allocator(0), MIB, stream);
  expect_refused(tm_pinned_allocator(), MIB, stream);
  expect_refused(stack, MIB, NULL);
  cr_expect(eq(int, tm_allocator_trim(pool, 0), TM_ERR_CAPTURING));
  cr_expect(eq(int, tm_stream_sync(stream), TM_ERR_CAPTURING));
  bool done;
  cr_expect(eq(int, tm_stream_query(stream, &done), TM_ERR_CAPTURING));
  end_capture();
  tm_allocator_release(stack);
  end();
}

Test(capture, calls_for_other_streams_go_on) {
  begin();
  tm_auto_stream other = tm_stream_create(0, 0);
  void* parked;
  cr_assert(eq(int, tm_allocator_alloc(tm_pinned_allocator(), MIB, other, &parked), TM_OK));
  tm_allocator_free(tm_pinned_allocator(), parked, MIB, other);
  begin_capture();
  void* memory;
  tm_allocator* const allocators[] = {tm_cuda_allocator(0), tm_pinned_allocator()};
  for (int i = 0; i < 2; i++) {
    for (size_t size = MIB; size <= 4 * MIB; size *= 2) {
      cr_assert(eq(int, tm_allocator_alloc(allocators[i], size, other, &memory), TM_OK), "%s",
                tm_last_error()->message);
      tm_allocator_free(allocators[i], memory, size, other);
    }
  }
  tm_allocator* second = tm_cuda_pool_allocator_create(other, NULL);
  cr_assert(second != NULL, "%s", tm_last_error()->message);
  cr_assert(eq(int, tm_allocator_alloc(second, MIB, NULL, &memory), TM_OK));
  tm_allocator_free(second, memory, MIB, NULL);
  cr_expect(eq(int, tm_allocator_trim(second, 0), TM_OK), "%s", tm_last_error()->message);
  tm_allocator_release(second);
  cr_expect(eq(int, tm_stream_sync(other), TM_OK), "%s", tm_last_error()->message);
  cr_expect(eq(int, tm_allocator_trim(tm_pinned_allocator(), 0), TM_OK));
  end_capture();
  end();
}

Test(capture, frees_on_the_captured_stream_happen_afterwards) {
  begin();
  void* memory;
  void* pinned_block;
  cr_assert(eq(int, tm_allocator_alloc(pool, 4 * MIB, NULL, &memory), TM_OK));
  cr_assert(eq(int, tm_allocator_alloc(tm_pinned_allocator(), MIB, stream, &pinned_block), TM_OK));
  cr_assert(eq(int, tm_stream_sync(stream), TM_OK));
  begin_capture();
  tm_allocator_free(pool, memory, 4 * MIB, NULL);
  tm_allocator_free(tm_pinned_allocator(), pinned_block, MIB, stream);
  end_capture();
  void* again;
  cr_assert(eq(int, tm_allocator_alloc(pool, 4 * MIB, NULL, &again), TM_OK));
  cr_expect(eq(ptr, again, memory));
  tm_allocator_free(pool, again, 4 * MIB, NULL);
  cr_assert(eq(int, tm_stream_sync(stream), TM_OK));
  for (int i = 0; i < 2; i++) {  // the first records what the free could not
    cr_expect(eq(int, tm_stream_sync(stream), TM_OK));
    cr_expect(eq(int, tm_allocator_trim(tm_pinned_allocator(), 0), TM_OK));
  }
  tm_allocator_stats stats;
  cr_assert(eq(int, tm_allocator_get_stats(tm_pinned_allocator(), &stats), TM_OK));
  cr_expect(eq(u64, stats.reserved_bytes, 0));
  end();
}
