// Where TurboMind goes wrong with memory: one test for each row of the table. tests/mutations.sh
// shows that each of them fails without what it tests.

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#include "tests/support/counting_allocator.h"
#include "tests/support/machine.h"
#include "tm/alloc/callback.h"
#include "tm/alloc/cuda.h"
#include "tm/alloc/cuda_pool.h"
#include "tm/alloc/host.h"
#include "tm/alloc/stack.h"
#include "tm/alloc/storage.h"
#include "tm/alloc/stream.h"
#include "tm/context/context.h"
#include "tm/tensor/tensor.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

#define ASSERT_OK(call) cr_assert(eq(int, (call), TM_OK), "%s", tm_last_error()->message)

// A request that is too large for malloc must return NULL, as it does without the sanitizers.
__attribute__((visibility("default"))) const char* __asan_default_options(void);
const char* __asan_default_options(void) { return "allocator_may_return_null=1"; }
__attribute__((visibility("default"))) const char* __tsan_default_options(void);
const char* __tsan_default_options(void) { return "allocator_may_return_null=1"; }

static void* take(tm_allocator* allocator, size_t size) {
  void* block = NULL;
  ASSERT_OK(tm_allocator_alloc(allocator, size, NULL, &block));
  return block;
}

static void give(tm_allocator* allocator, void* block, size_t size) {
  tm_allocator_free(allocator, block, size, NULL);
}

static tm_allocator_stats stats_of(tm_allocator* allocator) {
  tm_allocator_stats stats;
  ASSERT_OK(tm_allocator_get_stats(allocator, &stats));
  return stats;
}

static void expect_filled(const char* block, int value, size_t size) {
  size_t wrong = 0;
  for (size_t i = 0; i < size; i++) {
    wrong += block[i] != (char)value;
  }
  cr_expect(eq(sz, wrong, 0));
}

// Over host memory that counts its calls.
static tm_allocator* create_stack(counting_allocator* upstream, size_t initial_bytes) {
  counting_allocator_init(upstream);
  tm_allocator* stack = tm_stack_allocator_create(
      &upstream->base, NULL, &(tm_stack_options){.initial_bytes = initial_bytes});
  cr_assert(stack != NULL, "%s", tm_last_error()->message);
  return stack;
}

//===-- CUDA ------------------------------------------------------------------------===//

Test(turbomind, cuda_out_of_memory_is_an_error_and_state_is_unchanged) {
  machine_configure(1, "64MiB");
  machine_require_devices(1);
  tm_auto_stream stream = tm_stream_create(0, 0);
  tm_auto_allocator pool = tm_cuda_pool_allocator_create(stream, NULL);
  tm_allocator* const allocators[] = {tm_cuda_allocator(0), pool};
  const size_t too_much = (size_t)1 << 40;  // bytes: more than any device has
  for (size_t i = 0; i < 2; i++) {
    void* kept = take(allocators[i], MIB);
    void* block = &block;
    cr_expect(eq(int, tm_allocator_alloc(allocators[i], too_much, NULL, &block), TM_ERR_NO_MEMORY));
    cr_expect(eq(ptr, block, NULL));
    const char* message = tm_last_error()->message;
    cr_expect(strstr(message, "1099511627776 bytes asked") != NULL, "%s", message);
    const tm_allocator_stats stats = stats_of(allocators[i]);
    cr_expect(eq(u64, stats.live_bytes, MIB));
    cr_expect(eq(u64, stats.live_blocks, 1));
    give(allocators[i], take(allocators[i], MIB), MIB);  // it goes on
    give(allocators[i], kept, MIB);
  }
}

//===-- The stack -------------------------------------------------------------------===//

Test(turbomind, stack_request_over_the_region_is_served_upstream_and_learned) {
  counting_allocator upstream;
  tm_allocator* stack = create_stack(&upstream, MIB);
  char* small = take(stack, MIB);
  char* large = take(stack, 5 * MIB);
  memset(small, 1, MIB);
  memset(large, 2, 5 * MIB);
  expect_filled(small, 1, MIB);
  expect_filled(large, 2, 5 * MIB);
  cr_expect(eq(u64, upstream.allocs, 2));
  give(stack, large, 5 * MIB);
  give(stack, small, MIB);
  small = take(stack, MIB);  // goes on in one region of what was needed
  const uint64_t calls = upstream.allocs + upstream.frees;
  for (int step = 0; step < 3; step++) {
    large = take(stack, 5 * MIB);
    cr_expect(eq(ptr, large, small + MIB));
    give(stack, large, 5 * MIB);
    give(stack, small, MIB);
    small = take(stack, MIB);
  }
  cr_expect(eq(u64, upstream.allocs + upstream.frees, calls));
  give(stack, small, MIB);
  tm_allocator_release(stack);
  cr_expect(eq(sz, upstream.live_bytes, 0));
}

Test(turbomind, stack_free_out_of_order_or_alive_across_a_reset_is_legal) {
  counting_allocator upstream;
  tm_allocator* stack = create_stack(&upstream, MIB);
  char* a = take(stack, KIB);
  char* b = take(stack, KIB);
  char* c = take(stack, KIB);
  memset(c, 3, KIB);
  give(stack, a, KIB);
  give(stack, b, KIB);
  expect_filled(c, 3, KIB);
  cr_expect(eq(u64, stats_of(stack).live_bytes, KIB));
  give(stack, c, KIB);
  cr_expect(eq(ptr, take(stack, KIB), a));  // all of the space came back
  memset(a, 4, KIB);
  ASSERT_OK(tm_stack_reset(stack));
  char* d = take(stack, 2 * KIB);
  memset(d, 5, 2 * KIB);
  expect_filled(a, 4, KIB);
  give(stack, a, KIB);
  expect_filled(d, 5, 2 * KIB);
  cr_expect(eq(u64, stats_of(stack).live_blocks, 1));
  give(stack, d, 2 * KIB);
  tm_allocator_release(stack);
  cr_expect(eq(sz, upstream.live_bytes, 0));
}

static size_t mark_of(tm_allocator* stack) {
  size_t mark = 0;
  ASSERT_OK(tm_stack_high_water_mark(stack, &mark));
  return mark;
}

Test(turbomind, stack_high_water_of_counts_is_right) {
  counting_allocator upstream;
  tm_allocator* stack = create_stack(&upstream, MIB);
  char* a = take(stack, 3 * KIB);
  char* b = take(stack, 5 * KIB);
  cr_expect(eq(sz, mark_of(stack), 8 * KIB));
  cr_expect(eq(u64, stats_of(stack).live_blocks, 2));
  give(stack, b, 5 * KIB);
  b = take(stack, KIB);
  cr_expect(eq(sz, mark_of(stack), 8 * KIB));  // the largest so far, not the last
  give(stack, b, KIB);
  b = take(stack, 7 * KIB);
  cr_expect(eq(sz, mark_of(stack), 10 * KIB));
  give(stack, b, 7 * KIB);
  give(stack, a, 3 * KIB);
  const tm_allocator_stats stats = stats_of(stack);
  cr_expect(eq(u64, stats.peak_live_bytes, 10 * KIB));
  cr_expect(eq(u64, stats.live_bytes, 0));
  cr_expect(eq(u64, stats.live_blocks, 0));
  cr_expect(eq(u64, stats.alloc_calls, 4));
  tm_allocator_release(stack);
}

Test(turbomind, first_block_of_a_stack_is_256_aligned) {
  machine_configure(1, "64MiB");
  machine_require_devices(1);
  tm_auto_stream stream = tm_stream_create(0, 0);
  tm_auto_allocator pool = tm_cuda_pool_allocator_create(stream, NULL);
  tm_auto_allocator over_pool = tm_stack_allocator_create(pool, NULL, NULL);
  tm_auto_allocator over_cuda = tm_stack_allocator_create(tm_cuda_allocator(0), stream, NULL);
  tm_allocator* const stacks[] = {over_pool, over_cuda};
  for (size_t i = 0; i < 2; i++) {
    void* first = take(stacks[i], 100);
    void* second = take(stacks[i], 100);
    cr_expect(eq(sz, (uintptr_t)first % 256, 0));
    cr_expect(eq(sz, (uintptr_t)second % 256, 0));
    give(stacks[i], second, 100);
    give(stacks[i], first, 100);
  }
}

Test(turbomind, upstream_failing_inside_a_stack_is_out_of_memory) {
  counting_allocator upstream;
  tm_allocator* stack = create_stack(&upstream, MIB);
  char* kept = take(stack, KIB);
  memset(kept, 6, KIB);
  upstream.budget = upstream.live_bytes;
  for (int i = 0; i < 2; i++) {
    void* block = &block;
    cr_expect(eq(int, tm_allocator_alloc(stack, 8 * MIB, NULL, &block), TM_ERR_NO_MEMORY));
    cr_expect(eq(ptr, block, NULL));
    cr_expect(eq(int, tm_last_status(), TM_ERR_NO_MEMORY));
  }
  cr_expect(eq(u64, stats_of(stack).live_bytes, KIB));
  expect_filled(kept, 6, KIB);
  give(stack, take(stack, KIB), KIB);  // what is there goes on being served
  give(stack, kept, KIB);
  tm_allocator_release(stack);
  cr_expect(eq(sz, upstream.live_bytes, 0));
}

//===-- The four ways to run out of memory ------------------------------------------===//

static tm_status give_nothing(size_t size, tm_stream* stream, void** out, void* user) {
  (void)size;
  (void)stream;
  (void)user;
  *out = NULL;
  return TM_OK;
}

static void take_nothing(void* ptr, size_t size, tm_stream* stream, void* user) {
  (void)ptr;
  (void)size;
  (void)stream;
  (void)user;
}

static void expect_out_of_memory(tm_allocator* allocator, size_t size) {
  tm_clear_error();
  void* block = &block;
  cr_expect(eq(int, tm_allocator_alloc(allocator, size, NULL, &block), TM_ERR_NO_MEMORY), "%s",
            tm_allocator_name(allocator));
  cr_expect(eq(ptr, block, NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_NO_MEMORY));
  tm_auto_tensor tensor = tm_empty_from(allocator, TM_SHAPE((int64_t)size), TM_U8);
  cr_expect(not(tm_ok(&tensor)), "%s", tm_allocator_name(allocator));
  cr_expect(eq(int, tm_last_status(), TM_ERR_NO_MEMORY));
}

Test(turbomind, running_out_of_memory_is_one_status_in_all_four_ways) {
  machine_configure(1, "64MiB");
  machine_require_devices(1);
  tm_auto_allocator callback = tm_callback_allocator_create(
      &(tm_callback_options){.alloc = give_nothing, .free = take_nothing});
  expect_out_of_memory(tm_host_allocator(), (size_t)PTRDIFF_MAX - 4096);
  expect_out_of_memory(tm_cuda_allocator(0), (size_t)1 << 40);
  expect_out_of_memory(callback, KIB);
  tm_clear_error();
  tm_auto_tensor nowhere = tm_empty(TM_SHAPE(10), TM_F32, TM_DEVICE);
  cr_expect(not(tm_ok(&nowhere)));
  cr_expect(eq(int, tm_last_status(), TM_ERR_UNAVAILABLE));
}
