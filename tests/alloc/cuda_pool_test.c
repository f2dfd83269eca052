// What is the pool allocator's own; what every allocator promises is in conformance_test.c.

#include "tm/alloc/cuda_pool.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <cuda_runtime_api.h>
#include <string.h>

#include "tests/support/gate.h"
#include "tests/support/machine.h"
#include "tm/alloc/bookkeeping.h"
#include "tm/alloc/stream.h"

#define MIB ((size_t)1 << 20)

static tm_stream* stream;

static void setup(void) {
  machine_configure(1, "256MiB");
  machine_require_devices(1);
  stream = tm_stream_create(0, 0);
  cr_assert(stream != NULL, "%s", tm_last_error()->message);
}

static tm_allocator* create(const tm_cuda_pool_options* options) {
  tm_allocator* pool = tm_cuda_pool_allocator_create(stream, options);
  cr_assert(pool != NULL, "%s", tm_last_error()->message);
  return pool;
}

static void* take(tm_allocator* pool, size_t size) {
  void* block = NULL;
  cr_assert(eq(int, tm_allocator_alloc(pool, size, NULL, &block), TM_OK), "%s",
            tm_last_error()->message);
  return block;
}

static void give(tm_allocator* pool, void* block, size_t size) {
  tm_allocator_free(pool, block, size, NULL);
}

static tm_allocator_stats stats_of(tm_allocator* pool) {
  tm_allocator_stats stats;
  cr_assert(eq(int, tm_allocator_get_stats(pool, &stats), TM_OK), "%s", tm_last_error()->message);
  return stats;
}

static void finish(tm_allocator* pool) {
  tm_allocator_release(pool);
  cr_expect(eq(int, tm_stream_sync(stream), TM_OK));
  tm_stream_release(stream);
  cr_expect(eq(i64, machine_live_allocations(0), 0));
}

//===-- Options -----------------------------------------------------------------===//

Test(cuda_pool, an_own_pool_keeps_what_is_freed) {
  setup();
  tm_allocator* pool = create(NULL);
  give(pool, take(pool, 8 * MIB), 8 * MIB);
  cr_assert(eq(int, tm_stream_sync(stream), TM_OK));
  cr_expect(ge(u64, stats_of(pool).reserved_bytes, 8 * MIB));
  cr_expect(eq(u64, stats_of(pool).live_bytes, 0));
  cr_expect(eq(int, tm_allocator_trim(pool, 0), TM_OK));
  cr_expect(eq(u64, stats_of(pool).reserved_bytes, 0));
  cr_expect(ge(u64, stats_of(pool).peak_reserved_bytes, 8 * MIB));
  finish(pool);
}

Test(cuda_pool, a_release_threshold_is_kept_to) {
  setup();
  tm_allocator* pool = create(&(tm_cuda_pool_options){.release_threshold = 1});
  give(pool, take(pool, 160 * MIB), 160 * MIB);
  cr_expect(ge(u64, stats_of(pool).reserved_bytes, 160 * MIB));
  cr_assert(eq(int, tm_stream_sync(stream), TM_OK));
  cr_expect(le(u64, stats_of(pool).reserved_bytes, 32 * MIB));
  finish(pool);
}

Test(cuda_pool, the_default_pool_is_left_as_it_is) {
  setup();
  cudaMemPool_t shared;
  cr_assert(cudaDeviceGetDefaultMemPool(&shared, 0) == cudaSuccess);
  uint64_t before = 4 * MIB;
  cr_assert(cudaMemPoolSetAttribute(shared, cudaMemPoolAttrReleaseThreshold, &before) ==
            cudaSuccess);
  tm_allocator* pool = create(&(tm_cuda_pool_options){.default_pool = true});
  uint64_t after = 0;
  cr_assert(cudaMemPoolGetAttribute(shared, cudaMemPoolAttrReleaseThreshold, &after) ==
            cudaSuccess);
  cr_expect(eq(u64, after, before));
  void* block = take(pool, 16 * MIB);
  uint64_t used = 0;
  cr_assert(cudaMemPoolGetAttribute(shared, cudaMemPoolAttrUsedMemCurrent, &used) == cudaSuccess);
  cr_expect(ge(u64, used, 16 * MIB));
  give(pool, block, 16 * MIB);
  finish(pool);
  cr_assert(cudaMemPoolGetAttribute(shared, cudaMemPoolAttrReleaseThreshold, &after) ==
            cudaSuccess);
  cr_expect(eq(u64, after, before));
}

Test(cuda_pool, the_default_pool_takes_a_threshold) {
  setup();
  tm_allocator* pool =
      create(&(tm_cuda_pool_options){.default_pool = true, .release_threshold = 6 * MIB});
  cudaMemPool_t shared;
  uint64_t threshold = 0;
  cr_assert(cudaDeviceGetDefaultMemPool(&shared, 0) == cudaSuccess);
  cr_assert(cudaMemPoolGetAttribute(shared, cudaMemPoolAttrReleaseThreshold, &threshold) ==
            cudaSuccess);
  cr_expect(eq(u64, threshold, 6 * MIB));
  finish(pool);
}

Test(cuda_pool, a_maximum_is_out_of_memory_and_not_the_device) {
  setup();
  tm_allocator* pool = create(&(tm_cuda_pool_options){.maximum_bytes = 64 * MIB});
  void* block = take(pool, 32 * MIB);
  void* none = &none;
  cr_expect(eq(int, tm_allocator_alloc(pool, 48 * MIB, NULL, &none), TM_ERR_NO_MEMORY));
  cr_expect(eq(ptr, none, NULL));
  cr_expect(strstr(tm_last_error()->message, "50331648 bytes") != NULL, "%s",
            tm_last_error()->message);
  give(pool, block, 32 * MIB);
  give(pool, take(pool, 48 * MIB), 48 * MIB);
  finish(pool);
}

Test(cuda_pool, failed_requests_leave_nothing_behind) {
  setup();
  tm_allocator* pool = create(NULL);
  void* block = take(pool, MIB);
  const uint64_t calls = tm_bookkeeping_calls();
  for (int i = 0; i < 200; i++) {
    void* none = &none;
    cr_assert(eq(int, tm_allocator_alloc(pool, PTRDIFF_MAX / 2, NULL, &none), TM_ERR_NO_MEMORY));
  }
  cr_expect(eq(u64, tm_bookkeeping_calls(), calls));
  cr_expect(eq(u64, stats_of(pool).live_blocks, 1));
  give(pool, block, MIB);
  finish(pool);
}

Test(cuda_pool, refuses_what_cannot_be) {
  setup();
  const tm_cuda_pool_options both = {.default_pool = true, .maximum_bytes = MIB};
  cr_expect(eq(ptr, tm_cuda_pool_allocator_create(stream, &both), NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
  tm_clear_error();
  cr_expect(eq(ptr, tm_cuda_pool_allocator_create(NULL, NULL), NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
  tm_auto_stream adopted = tm_stream_adopt(NULL, 0);
  cr_assert(eq(int, tm_stream_disown(adopted), TM_OK));
  cr_expect(eq(ptr, tm_cuda_pool_allocator_create(adopted, NULL), NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
  tm_stream_release(stream);
}

Test(cuda_pool, a_device_without_pools_is_unavailable) {
  setup();
  machine_fail("cudaDeviceGetAttribute", 1, 1, cudaErrorNotSupported);
  cr_expect(eq(ptr, tm_cuda_pool_allocator_create(stream, NULL), NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_UNAVAILABLE));
  tm_stream_release(stream);
}

//===-- Order -------------------------------------------------------------------===//

Test(cuda_pool, memory_is_reused_in_stream_order_without_waiting) {
  setup();
  tm_allocator* pool = create(NULL);
  give(pool, take(pool, 8 * MIB), 8 * MIB);
  cr_assert(eq(int, tm_stream_sync(stream), TM_OK));
  gate g;
  gate_close(&g, stream);
  void* first = take(pool, 8 * MIB);
  give(pool, first, 8 * MIB);
  void* second = take(pool, 8 * MIB);
  cr_expect(eq(ptr, second, first));
  bool done = true;
  cr_expect(eq(int, tm_stream_query(stream, &done), TM_OK));
  cr_expect(not(done));
  gate_open(&g);
  give(pool, second, 8 * MIB);
  cr_expect(eq(u64, stats_of(pool).upstream_calls, 6));
  finish(pool);
}

Test(cuda_pool, trim_waits_for_what_is_freed) {
  setup();
  tm_allocator* pool = create(NULL);
  void* block = take(pool, 8 * MIB);
  cr_assert(cudaMemsetAsync(block, 1, 8 * MIB, tm_stream_handle(stream)) == cudaSuccess);
  give(pool, block, 8 * MIB);
  cr_expect(eq(int, tm_allocator_trim(pool, 0), TM_OK));
  cr_expect(eq(u64, stats_of(pool).reserved_bytes, 0));
  finish(pool);
}

//===-- Capture and disowned streams --------------------------------------------===//

Test(cuda_pool, frees_during_a_capture_happen_after_it) {
  setup();
  tm_allocator* pool = create(NULL);
  enum { BLOCKS = 100 };
  void* blocks[BLOCKS];
  for (int i = 0; i < BLOCKS; i++) {
    blocks[i] = take(pool, 1000);
  }
  machine_fail("cudaStreamIsCapturing", 1, 0, cudaErrorStreamCaptureImplicit);
  for (int i = 1; i < BLOCKS; i++) {
    give(pool, blocks[i], 1000);
  }
  void* none = &none;
  cr_expect(eq(int, tm_allocator_alloc(pool, 1000, NULL, &none), TM_ERR_CAPTURING));
  cr_expect(eq(ptr, none, NULL));
  cr_expect(eq(int, tm_allocator_trim(pool, 0), TM_ERR_CAPTURING));
  cr_expect(eq(i64, machine_live_allocations(0), BLOCKS));
  cr_expect(eq(u64, stats_of(pool).live_blocks, 1));
  machine_fail_nothing();
  give(pool, blocks[0], 1000);
  cr_expect(eq(i64, machine_live_allocations(0), 0));
  finish(pool);
}

Test(cuda_pool, a_pool_outlives_the_stream_it_was_given) {
  setup();
  tm_stream* adopted = tm_stream_adopt(tm_stream_handle(stream), 0);
  tm_allocator* pool = tm_cuda_pool_allocator_create(adopted, NULL);
  cr_assert(pool != NULL);
  void* block = take(pool, MIB);
  cr_assert(eq(int, tm_stream_disown(adopted), TM_OK));
  tm_stream_release(adopted);
  void* none = &none;
  cr_expect(eq(int, tm_allocator_alloc(pool, MIB, NULL, &none), TM_ERR_INVALID));
  cr_expect(eq(ptr, none, NULL));
  give(pool, block, MIB);
  cr_expect(eq(int, tm_allocator_trim(pool, 0), TM_OK), "%s", tm_last_error()->message);
  cr_expect(eq(int, tm_device_sync(0), TM_OK));
  finish(pool);
}
