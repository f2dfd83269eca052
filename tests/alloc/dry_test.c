// The dry allocator: what it measures, where its addresses lie, and that nothing touches them.

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/child.h"
#include "tests/support/expect_fatal.h"
#include "tests/support/failing.h"
#include "tests/support/random.h"
#include "tm/alloc/dry.h"
#include "tm/alloc/stack.h"
#include "tm/alloc/storage.h"
#include "tm/context/context.h"
#include "tm/tensor/copy.h"
#include "tm/tensor/dry.h"
#include "tm/tensor/tensor.h"

#define GIB ((size_t)1 << 30)

static const tm_device device0 = {TM_DEVICE, 0};

static tm_allocator* create(const tm_dry_options* options) {
  tm_allocator* dry = tm_dry_allocator_create(device0, options);
  cr_assert(dry != NULL, "%s", tm_last_error()->message);
  return dry;
}

static void* take(tm_allocator* allocator, size_t size) {
  void* block = NULL;
  cr_assert(eq(int, tm_allocator_alloc(allocator, size, NULL, &block), TM_OK), "%s",
            tm_last_error()->message);
  return block;
}

static tm_allocator_stats stats_of(tm_allocator* allocator) {
  tm_allocator_stats stats;
  cr_assert(eq(int, tm_allocator_get_stats(allocator, &stats), TM_OK));
  return stats;
}

//===-- What it measures ----------------------------------------------------===//

Test(dry, measures_what_is_live_and_the_peak_of_it) {
  tm_allocator* dry = create(NULL);
  void* a = take(dry, 1);
  void* b = take(dry, 80 * GIB);
  cr_expect(eq(u64, stats_of(dry).live_bytes, 80 * GIB + 256));
  tm_allocator_free(dry, a, 1, NULL);
  void* c = take(dry, 1000);
  tm_allocator_stats stats = stats_of(dry);
  cr_expect(eq(u64, stats.live_bytes, 80 * GIB + 1024));
  cr_expect(eq(u64, stats.peak_live_bytes, 80 * GIB + 1024));
  cr_expect(eq(u64, stats.reserved_bytes, stats.live_bytes));
  cr_expect(eq(u64, stats.live_blocks, 2));
  tm_allocator_free(dry, b, 80 * GIB, NULL);
  tm_allocator_free(dry, c, 1000, NULL);
  stats = stats_of(dry);
  cr_expect(eq(u64, stats.live_bytes, 0));
  cr_expect(eq(u64, stats.peak_live_bytes, 80 * GIB + 1024));
  cr_expect(eq(u64, stats.peak_reserved_bytes, 80 * GIB + 1024));
  cr_expect(eq(u64, stats.alloc_calls, 3));
  cr_expect(eq(u64, stats.upstream_calls, 0));
  tm_allocator_release(dry);
}

Test(dry, is_on_the_device_it_is_told_which_need_not_exist) {
  for (int type = TM_CPU; type <= TM_DEVICE; type++) {
    const tm_device device = {type, type == TM_DEVICE ? 63 : 0};
    tm_auto_allocator dry = tm_dry_allocator_create(device, NULL);
    cr_assert(dry != NULL);
    cr_expect(tm_device_equal(tm_allocator_device(dry), device));
    cr_expect(eq(ptr, tm_allocator_stream(dry), NULL));
    cr_expect(eq(sz, tm_allocator_alignment(dry), type == TM_DEVICE ? 256 : 64));
  }
}

Test(dry, refuses_devices_that_cannot_be) {
  static const tm_device wrong[] = {
      {TM_DEVICE, -1}, {TM_DEVICE, TM_MAX_DEVICES}, {TM_CPU, 1}, {TM_CPU_PINNED, -1}, {3, 0}};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    cr_expect(eq(ptr, tm_dry_allocator_create(wrong[i], NULL), NULL));
    cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
  }
}

Test(dry, runs_out_at_the_limit) {
  tm_allocator* dry = create(&(tm_dry_options){.maximum_bytes = 1000});
  void* a = take(dry, 500);
  void* none = &none;
  cr_expect(eq(int, tm_allocator_alloc(dry, 489, NULL, &none), TM_ERR_NO_MEMORY));
  cr_expect(eq(ptr, none, NULL));
  cr_expect(strstr(tm_last_error()->message, "512 bytes asked, 512 of at most 1000") != NULL, "%s",
            tm_last_error()->message);
  void* b = take(dry, 256);
  cr_expect(eq(u64, stats_of(dry).live_bytes, 768));
  tm_allocator_free(dry, a, 500, NULL);
  tm_allocator_free(dry, b, 256, NULL);
  cr_expect(eq(int, tm_allocator_alloc(dry, (size_t)PTRDIFF_MAX, NULL, &none), TM_ERR_NO_MEMORY));
  tm_allocator_release(dry);
}

//===-- Addresses -----------------------------------------------------------===//

// Whether the kernel finds memory at `address`.
static bool is_memory(const void* address) {
  int ends[2];
  cr_assert(pipe(ends) == 0);
  const bool found = write(ends[1], address, 1) == 1;
  close(ends[0]);
  close(ends[1]);
  return found;
}

static void touch(const void* address) { *(volatile char*)(uintptr_t)address = 1; }

Test(dry, addresses_are_aligned_and_no_memory) {
  tm_allocator* dry = tm_dry_allocator_create(tm_device_make(TM_CPU, 0), NULL);
  void* blocks[100];
  for (int i = 0; i < 100; i++) {
    blocks[i] = take(dry, 1 + (size_t)i * 77);
    cr_expect(blocks[i] != NULL);
    cr_expect(eq(sz, (uintptr_t)blocks[i] % 256, 0));
    cr_expect(not(is_memory(blocks[i])));
  }
  cr_expect(is_memory(&dry));
  cr_expect(run_in_child(touch, blocks[50]) != 0);
  for (int i = 0; i < 100; i++) {
    tm_allocator_free(dry, blocks[i], 1 + (size_t)i * 77, NULL);
  }
  tm_allocator_release(dry);
}

Test(dry, blocks_of_two_allocators_do_not_overlap) {
  tm_allocator* dry[2] = {create(NULL), create(NULL)};
  enum { BLOCKS = 200 };
  char* blocks[BLOCKS];
  for (int i = 0; i < BLOCKS; i++) {
    blocks[i] = take(dry[i % 2], 1000);
    for (int j = 0; j < i; j++) {
      cr_assert(labs(blocks[i] - blocks[j]) >= 1000);
    }
  }
  for (int i = 0; i < BLOCKS; i++) {
    tm_allocator_free(dry[i % 2], blocks[i], 1000, NULL);
  }
  tm_allocator_release(dry[0]);
  tm_allocator_release(dry[1]);
}

Test(dry, addresses_are_used_again_when_nothing_is_live) {
  const size_t half = (size_t)1 << 53;  // of the range
  tm_allocator* dry = create(NULL);
  for (int i = 0; i < 1000; i++) {
    void* a = take(dry, half);
    void* b = take(dry, half);
    void* none = &none;
    cr_assert(eq(int, tm_allocator_alloc(dry, 1, NULL, &none), TM_ERR_NO_MEMORY));
    cr_assert(eq(ptr, none, NULL));
    tm_allocator_free(dry, a, half, NULL);
    tm_allocator_free(dry, b, half, NULL);
  }
  tm_allocator_release(dry);
}

Test(dry, addresses_are_used_again_beside_live_blocks) {
  const size_t pib = (size_t)1 << 50;
  tm_allocator* dry = create(NULL);
  void* kept = take(dry, 256);
  for (int i = 0; i < 100; i++) {  // of 16 PiB
    tm_allocator_free(dry, take(dry, pib), pib, NULL);
  }
  tm_allocator_free(dry, kept, 256, NULL);
  tm_allocator_release(dry);
}

static bool overlap(const char* a, size_t a_size, const char* b, size_t b_size) {
  return a < b + b_size && b < a + a_size;
}

// Blocks of up to 256 TiB, so that the range runs out and is gone through again many times.
Test(dry, live_blocks_never_overlap) {
  enum { LIVE = 24, ROUNDS = 20000 };
  test_random random = test_random_start("live_blocks_never_overlap");
  tm_allocator* dry = create(NULL);
  char* blocks[LIVE] = {NULL};
  size_t sizes[LIVE] = {0};
  for (int round = 0; round < ROUNDS; round++) {
    const size_t chosen = test_random_below(&random, LIVE);
    tm_allocator_free(dry, blocks[chosen], sizes[chosen], NULL);
    sizes[chosen] = 1 + test_random_below(&random, (size_t)1 << (8 + random.state % 41));
    blocks[chosen] = take(dry, sizes[chosen]);
    for (size_t i = 0; i < LIVE; i++) {
      cr_assert(
          i == chosen || !blocks[i] || !overlap(blocks[chosen], sizes[chosen], blocks[i], sizes[i]),
          "round %d: %p of %zu bytes, %p of %zu bytes", round, (void*)blocks[chosen], sizes[chosen],
          (void*)blocks[i], sizes[i]);
    }
  }
  for (size_t i = 0; i < LIVE; i++) {
    tm_allocator_free(dry, blocks[i], sizes[i], NULL);
  }
  cr_expect(eq(u64, stats_of(dry).live_bytes, 0));
  tm_allocator_release(dry);
}

Test(dry, what_is_not_live_cannot_be_freed) {
  tm_allocator* dry = create(NULL);
  void* block = take(dry, 100);
  tm_allocator_free(dry, block, 100, NULL);
  EXPECT_FATAL(tm_allocator_free(dry, block, 100, NULL), "no block of 256 bytes is live there");
  int of_the_host;
  EXPECT_FATAL(tm_allocator_free(dry, &of_the_host, 4, NULL),
               "no block of 256 bytes is live there");
  cr_expect(eq(u64, stats_of(dry).live_blocks, 0));
  tm_allocator_release(dry);
}

typedef struct worker {
  tm_allocator* dry;
  char* blocks[1000];
} worker;

static void* take_many(void* argument) {
  worker* self = argument;
  for (int i = 0; i < 1000; i++) {
    void* extra = NULL;
    void* block = NULL;
    (void)!tm_allocator_alloc(self->dry, 100, NULL, &extra);
    (void)!tm_allocator_alloc(self->dry, 100, NULL, &block);
    tm_allocator_free(self->dry, extra, 100, NULL);
    self->blocks[i] = block;
  }
  return NULL;
}

static int compare(const void* a, const void* b) {
  const char* const* left = a;
  const char* const* right = b;
  return (*left > *right) - (*left < *right);
}

Test(dry, threads_never_get_the_same_address) {
  enum { THREADS = 4, BLOCKS = 4000 };
  static worker workers[THREADS];
  static char* all[BLOCKS];
  tm_allocator* dry = create(NULL);
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; i++) {
    workers[i].dry = dry;
    cr_assert(pthread_create(&threads[i], NULL, take_many, &workers[i]) == 0);
  }
  for (int i = 0; i < THREADS; i++) {
    cr_assert(pthread_join(threads[i], NULL) == 0);
    memcpy(&all[(size_t)i * 1000], workers[i].blocks, sizeof workers[i].blocks);
  }
  qsort(all, BLOCKS, sizeof *all, compare);
  for (int i = 1; i < BLOCKS; i++) {
    cr_assert(all[i] - all[i - 1] >= 256);
  }
  cr_expect(eq(u64, stats_of(dry).live_blocks, BLOCKS));
  for (int i = 0; i < BLOCKS; i++) {
    tm_allocator_free(dry, all[i], 100, NULL);
  }
  cr_expect(eq(u64, stats_of(dry).live_bytes, 0));
  tm_allocator_release(dry);
}

//===-- The mark ------------------------------------------------------------===//

static void expect_dry_tensors(tm_allocator* allocator) {
  TM_WITH_ALLOCATOR(allocator) {
    const tm_dry_counts before = tm_dry_counted();
    tm_auto_tensor a = tm_empty(TM_SHAPE(1 << 20, 1 << 16), TM_F16, TM_DEVICE);
    tm_auto_tensor b = tm_empty_like(&a);
    cr_assert(tm_ok(&a) && tm_ok(&b), "%s", tm_last_error()->message);
    cr_expect(tm_is_dry(&a) && tm_is_dry(&b));
    cr_expect(eq(int, tm_copy(&a, &b), TM_OK), "%s", tm_last_error()->message);
    cr_expect(eq(u64, tm_dry_counted().operations, before.operations + 1));
    cr_expect(eq(u64, tm_dry_counted().bytes, before.bytes + ((uint64_t)1 << 37)));
  }
}

Test(dry, tensors_carry_the_mark) {
  tm_allocator* dry = create(NULL);
  expect_dry_tensors(dry);
  cr_expect(eq(u64, stats_of(dry).live_bytes, 0));
  cr_expect(eq(u64, stats_of(dry).peak_live_bytes, (uint64_t)1 << 38));
  tm_allocator_release(dry);
}

Test(dry, a_stack_over_it_needs_no_stream_and_passes_the_mark_on) {
  tm_allocator* dry = create(NULL);
  tm_allocator* stack = tm_stack_allocator_create(dry, NULL, NULL);
  cr_assert(stack != NULL, "%s", tm_last_error()->message);
  tm_allocator_release(dry);
  expect_dry_tensors(stack);
  size_t mark;
  cr_assert(eq(int, tm_stack_high_water_mark(stack, &mark), TM_OK));
  cr_expect(eq(sz, mark, (size_t)1 << 38));
  tm_allocator* second = tm_stack_allocator_create(stack, NULL, NULL);
  expect_dry_tensors(second);
  tm_allocator_release(second);
  tm_allocator_release(stack);
}

static tm_status create_and_use(tm_allocator* upstream) {
  (void)upstream;
  tm_auto_allocator dry = tm_dry_allocator_create(device0, NULL);
  if (!dry) {
    return tm_last_status();
  }
  tm_storage* storage;
  TM_TRY(tm_storage_alloc(dry, 1000, NULL, &storage));
  tm_storage_release(storage);
  return TM_OK;
}

Test(dry, survives_every_failure) { expect_survives_every_failure(create_and_use); }
