// What is the stack's own; what every allocator promises is in conformance_test.c.

#include "tm/alloc/stack.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/counting_allocator.h"
#include "tm/alloc/bookkeeping.h"
#include "tm/alloc/host.h"
#include "tm/alloc/storage.h"
#include "tm/base/fatal.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

static counting_allocator upstream;
static tm_allocator* stack;

static void setup(void) {
  counting_allocator_init(&upstream);
  stack = tm_stack_allocator_create(&upstream.base, NULL, NULL);
  cr_assert(stack != NULL);
}

// Every test ends with nothing live upstream; called by the test, since a fixture cannot fail it.
static void expect_nothing_left(void) {
  tm_allocator_release(stack);
  tm_allocator_release(&upstream.base);
  cr_expect(upstream.destroyed);
  cr_expect(eq(sz, upstream.live_bytes, 0));
}

static tm_storage* take(size_t size) {
  tm_storage* storage;
  cr_assert(eq(int, tm_storage_alloc(stack, size, NULL, &storage), TM_OK), "%s",
            tm_last_error()->message);
  memset(storage->data, 0xab, size);
  return storage;
}

static size_t mark(void) {
  size_t bytes;
  cr_assert(eq(int, tm_stack_high_water_mark(stack, &bytes), TM_OK));
  return bytes;
}

static tm_allocator_stats stats(void) {
  tm_allocator_stats result;
  cr_assert(eq(int, tm_allocator_get_stats(stack, &result), TM_OK));
  return result;
}

Test(stack, lifo_frees_give_the_same_address_again, .init = setup) {
  tm_storage* a = take(1000);
  tm_storage* b = take(3000);
  const void* address = b->data;
  tm_storage_release(b);
  b = take(500);
  cr_expect(eq(ptr, b->data, (void*)address));
  cr_expect(eq(sz, (size_t)((char*)b->data - (char*)a->data), 1024));
  tm_storage_release(b);
  tm_storage_release(a);
  expect_nothing_left();
}

Test(stack, first_blocks_address_is_aligned, .init = setup) {
  tm_storage* a = take(1);
  cr_expect(eq(sz, (uintptr_t)a->data % tm_allocator_alignment(stack), 0));
  cr_expect(eq(sz, (uintptr_t)a->data % 64, 0));
  tm_storage_release(a);
  expect_nothing_left();
}

Test(stack, free_out_of_order_is_legal, .init = setup) {
  tm_storage* a = take(1000);
  tm_storage* b = take(1000);
  tm_storage* c = take(1000);
  const void* b_address = b->data;
  tm_storage_release(b);  // below c: its space comes back with c's
  cr_expect(eq(u64, stats().live_blocks, 2));
  tm_storage* d = take(1000);
  cr_expect(d->data > c->data);
  tm_storage_release(d);
  tm_storage_release(c);
  b = take(1000);
  cr_expect(eq(ptr, b->data, (void*)b_address));
  tm_storage_release(a);
  tm_storage_release(b);
  cr_expect(eq(u64, stats().live_blocks, 0));
  expect_nothing_left();
}

Test(stack, request_over_the_region_is_served_upstream_and_learned, .init = setup) {
  tm_storage* small = take(1 * MIB);
  cr_expect(eq(u64, upstream.allocs, 1));
  tm_storage* large = take(8 * MIB);  // a further region
  cr_expect(eq(u64, upstream.allocs, 2));
  cr_expect(eq(sz, mark(), 9 * MIB));
  tm_storage_release(large);
  tm_storage_release(small);
  // Empty: the next iteration goes on with one region of the mark, and then without any call.
  small = take(1 * MIB);
  cr_expect(eq(u64, upstream.allocs, 3));
  cr_expect(eq(sz, upstream.live_bytes, 9 * MIB));
  large = take(8 * MIB);
  tm_storage_release(large);
  tm_storage_release(small);
  cr_expect(eq(u64, upstream.allocs, 3));
  expect_nothing_left();
}

Test(stack, high_water_mark_is_the_extent_in_one_region, .init = setup) {
  tm_storage* a = take(100);
  tm_storage* b = take(300);
  cr_expect(eq(sz, mark(), 128 + 320));
  tm_storage_release(b);
  b = take(100);
  cr_expect(eq(sz, mark(), 128 + 320));
  tm_storage_release(b);
  tm_storage_release(a);
  cr_expect(eq(u64, stats().peak_live_bytes, 448));
  expect_nothing_left();
}

Test(stack, block_alive_across_reset_costs_its_region_and_no_call_per_iteration, .init = setup) {
  tm_storage* kept = take(1 * MIB);
  cr_expect(eq(int, tm_stack_reset(stack), TM_OK));
  uint64_t calls = 0;
  for (int i = 0; i < 100; i++) {
    tm_storage* a = take(512 * KIB);
    tm_storage* b = take(512 * KIB);
    const bool apart = (char*)a->data + a->size <= (char*)kept->data ||
                       (char*)kept->data + kept->size <= (char*)a->data;
    cr_expect(apart);
    tm_storage_release(b);
    tm_storage_release(a);
    cr_expect(eq(int, tm_stack_reset(stack), TM_OK));
    if (i == 0) {
      calls = upstream.allocs + upstream.frees;
    }
  }
  cr_expect(eq(u64, upstream.allocs + upstream.frees, calls));
  cr_expect(eq(int, ((unsigned char*)kept->data)[MIB - 1], 0xab));
  tm_storage_release(kept);
  expect_nothing_left();
}

Test(stack, blocks_handed_from_iteration_to_iteration_make_no_call, .init = setup) {
  tm_storage* last = take(1 * MIB);
  uint64_t calls = 0;
  for (int i = 0; i < 100; i++) {
    cr_expect(eq(int, tm_stack_reset(stack), TM_OK));
    tm_storage* next = take(1 * MIB);
    tm_storage_release(last);
    last = next;
    if (i == 3) {
      calls = upstream.allocs + upstream.frees;
    }
  }
  cr_expect(eq(u64, upstream.allocs + upstream.frees, calls));
  tm_storage_release(last);
  expect_nothing_left();
}

Test(stack, reserve_is_the_reservation_that_cannot_fail_later, .init = setup) {
  cr_expect(eq(int, tm_stack_reserve(stack, 32 * MIB), TM_OK));
  const uint64_t calls = upstream.allocs;
  upstream.budget = upstream.live_bytes;  // nothing more to be had
  tm_storage* a = take(20 * MIB);
  tm_storage* b = take(12 * MIB);
  tm_storage_release(b);
  tm_storage_release(a);
  cr_expect(eq(u64, upstream.allocs, calls));
  cr_expect(eq(int, tm_stack_reserve(stack, SIZE_MAX), TM_ERR_INVALID));
  cr_expect(eq(int, tm_stack_reserve(stack, 33 * MIB), TM_ERR_NO_MEMORY));
  expect_nothing_left();
}

Test(stack, upstream_fails_inside_the_arena, .init = setup) {
  tm_storage* a = take(1 * MIB);
  upstream.budget = upstream.live_bytes;
  tm_storage* b = a;
  cr_expect(eq(int, tm_storage_alloc(stack, 8 * MIB, NULL, &b), TM_ERR_NO_MEMORY));
  cr_expect(eq(ptr, b, NULL));
  cr_expect(eq(u64, stats().live_blocks, 1));
  b = take(512 * KIB);  // what is there still serves
  tm_storage_release(b);
  tm_storage_release(a);
  expect_nothing_left();
}

Test(stack, where_one_region_of_the_mark_is_not_to_be_had_what_is_held_goes_on_serving,
     .init = setup) {
  tm_storage* a = take(1 * MIB);
  tm_storage* b = take(8 * MIB);
  upstream.budget = upstream.live_bytes;  // 10 MiB in two regions; no room for one of 9 beside them
  uint64_t calls = 0;
  for (int i = 0; i < 10; i++) {
    tm_storage_release(b);
    tm_storage_release(a);
    a = take(1 * MIB);
    b = take(8 * MIB);
    if (i == 1) {
      calls = upstream.allocs + upstream.frees + upstream.failures;
    }
  }
  cr_expect(eq(u64, upstream.allocs + upstream.frees + upstream.failures, calls));
  tm_storage_release(b);
  tm_storage_release(a);
  expect_nothing_left();
}

Test(stack, a_kept_block_that_leaves_no_room_for_the_mark_costs_no_call_per_iteration) {
  counting_allocator_init(&upstream);
  const tm_stack_options options = {.maximum_bytes = 10 * MIB};
  stack = tm_stack_allocator_create(&upstream.base, NULL, &options);
  tm_storage* kept = take(1 * MIB);
  uint64_t calls = 0;
  for (int i = 0; i < 10; i++) {
    tm_storage_release(take(8 * MIB));
    cr_expect(eq(int, tm_stack_reset(stack), TM_OK));
    if (i == 2) {
      calls = upstream.allocs + upstream.frees;
    }
  }
  cr_expect(eq(u64, upstream.allocs + upstream.frees, calls));
  tm_storage_release(kept);
  expect_nothing_left();
}

Test(stack, a_reservation_survives_a_larger_one_that_fails_growth_and_trimming, .init = setup) {
  cr_expect(eq(int, tm_stack_reserve(stack, 4 * MIB), TM_OK));
  upstream.budget = upstream.live_bytes;
  cr_expect(eq(int, tm_stack_reserve(stack, 64 * MIB), TM_ERR_NO_MEMORY));
  tm_storage* b;
  cr_expect(eq(int, tm_storage_alloc(stack, 64 * MIB, NULL, &b), TM_ERR_NO_MEMORY));
  cr_expect(eq(int, tm_allocator_trim(stack, 0), TM_OK));
  tm_storage* a = take(4 * MIB);
  tm_storage_release(a);
  cr_expect(eq(int, tm_stack_reserve(stack, 0), TM_OK));  // given up
  cr_expect(eq(int, tm_allocator_trim(stack, 0), TM_OK));
  cr_expect(eq(sz, upstream.live_bytes, 0));
  expect_nothing_left();
}

Test(stack, a_trimmed_stack_begins_small_again, .init = setup) {
  tm_storage_release(take(64 * MIB));
  cr_expect(eq(int, tm_allocator_trim(stack, 0), TM_OK));
  tm_storage_release(take(100));
  cr_expect(eq(sz, upstream.live_bytes, 2 * MIB));
  cr_expect(eq(sz, mark(), 64 * MIB));
  cr_expect(eq(int, tm_allocator_trim(stack, 1 * MIB), TM_OK));
  cr_expect(eq(sz, upstream.live_bytes, 2 * MIB));  // less than a whole region would go
  expect_nothing_left();
}

Test(stack, pinned_after_growth_it_serves_the_same_addresses, .init = setup) {
  tm_storage* a = take(1 * MIB);
  tm_storage* b = take(8 * MIB);
  cr_expect(eq(int, tm_stack_pin(stack), TM_ERR_INVALID));  // two regions
  tm_storage_release(b);
  tm_storage_release(a);
  cr_expect(eq(int, tm_stack_pin(stack), TM_OK));  // one of the mark
  const void* first = NULL;
  for (int i = 0; i < 3; i++) {
    a = take(1 * MIB);
    b = take(8 * MIB);
    first = i ? first : b->data;
    cr_expect(eq(ptr, b->data, (void*)first));
    tm_storage_release(a);
    tm_storage_release(b);
  }
  cr_expect(eq(int, tm_stack_unpin(stack), TM_OK));
  expect_nothing_left();
}

Test(stack, pinning_nothing_is_an_error, .init = setup) {
  cr_expect(eq(int, tm_stack_pin(stack), TM_ERR_INVALID));
  expect_nothing_left();
}

Test(stack, trim_gives_back_what_is_not_in_use, .init = setup) {
  tm_storage* a = take(1 * MIB);
  tm_storage* b = take(8 * MIB);
  tm_storage_release(b);
  cr_expect(eq(int, tm_allocator_trim(stack, 0), TM_OK));
  cr_expect(eq(sz, upstream.live_bytes, 2 * MIB));
  tm_storage_release(a);
  cr_expect(eq(int, tm_allocator_trim(stack, 0), TM_OK));
  cr_expect(eq(sz, upstream.live_bytes, 0));
  cr_expect(eq(u64, stats().reserved_bytes, 0));
  expect_nothing_left();
}

Test(stack, pinned_it_neither_grows_nor_moves_nor_trims, .init = setup) {
  tm_storage* a = take(1 * MIB);
  const void* address = a->data;
  tm_storage_release(a);
  cr_expect(eq(int, tm_stack_pin(stack), TM_OK));
  const uint64_t calls = upstream.allocs + upstream.frees;
  tm_storage* b;
  cr_expect(eq(int, tm_storage_alloc(stack, 64 * MIB, NULL, &b), TM_ERR_NO_MEMORY));
  cr_expect(eq(int, tm_allocator_trim(stack, 0), TM_OK));
  cr_expect(eq(int, tm_stack_reset(stack), TM_OK));
  a = take(1 * MIB);
  cr_expect(eq(ptr, a->data, (void*)address));
  cr_expect(eq(int, tm_stack_reset(stack), TM_ERR_INVALID));
  tm_storage_release(a);
  cr_expect(eq(u64, upstream.allocs + upstream.frees, calls));
  cr_expect(eq(int, tm_stack_unpin(stack), TM_OK));
  cr_expect(eq(int, tm_stack_unpin(stack), TM_ERR_INVALID));
  expect_nothing_left();
}

Test(stack, maximum_bytes_bounds_what_is_held) {
  counting_allocator_init(&upstream);
  const tm_stack_options options = {.initial_bytes = 4 * MIB, .maximum_bytes = 6 * MIB};
  stack = tm_stack_allocator_create(&upstream.base, NULL, &options);
  cr_assert(stack != NULL);
  cr_expect(eq(sz, upstream.live_bytes, 4 * MIB));
  tm_storage* a = take(4 * MIB);
  tm_storage* b;
  cr_expect(eq(int, tm_storage_alloc(stack, 3 * MIB, NULL, &b), TM_ERR_NO_MEMORY));
  cr_expect(strstr(tm_last_error()->message, "6291456") != NULL);
  b = take(2 * MIB);
  tm_storage_release(b);
  tm_storage_release(a);
  expect_nothing_left();
  const tm_stack_options wrong = {.initial_bytes = 2, .maximum_bytes = 1};
  cr_expect(tm_stack_allocator_create(tm_host_allocator(), NULL, &wrong) == NULL);
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
}

Test(stack, buffers_outlive_the_allocator, .init = setup) {
  tm_storage* a = take(1000);
  tm_storage* b = take(1000);
  tm_allocator_release(stack);
  tm_allocator_release(&upstream.base);
  cr_expect(not(upstream.destroyed));
  tm_storage_release(a);
  cr_expect(eq(int, ((unsigned char*)b->data)[999], 0xab));
  cr_expect(not(upstream.destroyed));
  tm_storage_release(b);
  cr_expect(upstream.destroyed);
  cr_expect(eq(sz, upstream.live_bytes, 0));
}

static void* release_storage(void* storage) {
  tm_storage_release(storage);
  return NULL;
}

static void run_elsewhere(void* (*function)(void*), void* argument) {
  pthread_t thread;
  cr_assert(eq(int, pthread_create(&thread, NULL, function, argument), 0));
  pthread_join(thread, NULL);
}

Test(stack, releases_on_other_threads_come_back_at_the_next_call, .init = setup) {
  tm_storage* a = take(1000);
  tm_storage* b = take(1000);
  const void* address = a->data;
  run_elsewhere(release_storage, a);
  run_elsewhere(release_storage, b);
  a = take(1000);
  cr_expect(eq(ptr, a->data, (void*)address));
  cr_expect(eq(u64, stats().live_blocks, 1));
  tm_storage_release(a);
  expect_nothing_left();
}

Test(stack, the_last_block_returned_on_another_thread_destroys_a_closed_stack, .init = setup) {
  tm_storage* a = take(1000);
  tm_storage* b = take(1000);
  run_elsewhere(release_storage, a);
  tm_allocator_release(stack);
  tm_allocator_release(&upstream.base);
  cr_expect(not(upstream.destroyed));
  run_elsewhere(release_storage, b);
  cr_expect(upstream.destroyed);
}

static void* release_allocator(void* allocator) {
  tm_allocator_release(allocator);
  return NULL;
}

Test(stack, dropped_by_a_thread_that_is_not_its_owner, .init = setup) {
  tm_storage* a = take(1000);
  run_elsewhere(release_allocator, stack);
  tm_allocator_release(&upstream.base);
  cr_expect(not(upstream.destroyed));
  tm_storage_release(a);
  cr_expect(upstream.destroyed);
}

static void* try_to_allocate(void* status) {
  tm_storage* storage;
  *(tm_status*)status = tm_storage_alloc(stack, 100, NULL, &storage);
  if (*(tm_status*)status == TM_OK) {
    tm_storage_release(storage);
  }
  return NULL;
}

Test(stack, another_thread_allocates_only_after_hand_over, .init = setup) {
  tm_storage* a = take(100);
  tm_status status = TM_OK;
  run_elsewhere(try_to_allocate, &status);
  cr_expect(eq(int, status, TM_ERR_BUSY));
  cr_expect(eq(int, tm_stack_hand_over(stack), TM_OK));
  run_elsewhere(try_to_allocate, &status);
  cr_expect(eq(int, status, TM_OK));
  tm_storage_release(a);  // the owner's thread has ended: this one takes over
  a = take(100);
  tm_storage_release(a);
  expect_nothing_left();
}

Test(stack, looking_at_a_stack_does_not_make_its_thread_the_owner, .init = setup) {
  cr_expect(eq(sz, mark(), 0));
  cr_expect(eq(int, tm_stack_reserve(stack, 100), TM_OK));
  cr_expect(eq(u64, stats().live_blocks, 0));
  tm_status status = TM_ERR_BUSY;
  run_elsewhere(try_to_allocate, &status);
  cr_expect(eq(int, status, TM_OK));
  expect_nothing_left();
}

static void* free_raw_block(void* block) {
  tm_allocator_free(stack, block, 500, NULL);
  return NULL;
}

Test(stack, raw_blocks_are_freed_in_any_order_and_on_any_thread, .init = setup) {
  void* blocks[1000];
  for (int i = 0; i < 1000; i++) {
    cr_assert(eq(int, tm_allocator_alloc(stack, 500, NULL, &blocks[i]), TM_OK));
  }
  for (int i = 0; i < 1000; i += 2) {
    tm_allocator_free(stack, blocks[i], 500, NULL);
  }
  for (int i = 1; i < 1000; i += 2) {
    if (i % 50 == 1) {
      run_elsewhere(free_raw_block, blocks[i]);
    } else {
      tm_allocator_free(stack, blocks[i], 500, NULL);
    }
  }
  cr_expect(eq(u64, stats().live_blocks, 0));
  expect_nothing_left();
}

Test(stack, nested_stacks_serve_from_one_another, .init = setup) {
  tm_allocator* inner = tm_stack_allocator_create(stack, NULL, NULL);
  tm_storage* a;
  cr_assert(eq(int, tm_storage_alloc(inner, 1000, NULL, &a), TM_OK));
  tm_storage_release(a);
  tm_allocator_release(inner);
  cr_expect(eq(u64, stats().live_blocks, 0));
  expect_nothing_left();
}

// A stack that is out of memory trims itself and tries again, so most failures are survived.
Test(stack, every_failing_heap_call_is_survived_or_an_error_and_leaks_nothing) {
  for (int nth = 1; nth <= 16; nth++) {
    counting_allocator_init(&upstream);
    const int64_t before = tm_bookkeeping_live();
    tm_bookkeeping_fail_nth(nth);
    tm_storage* storages[600] = {NULL};
    stack = tm_stack_allocator_create(&upstream.base, NULL, NULL);
    tm_status status = stack ? TM_OK : tm_last_status();
    for (int i = 0; i < 600 && status == TM_OK; i++) {
      status = tm_storage_alloc(stack, 10000, NULL, &storages[i]);
    }
    tm_bookkeeping_fail_nth(0);
    cr_expect(eq(int, status, nth == 1 ? TM_ERR_NO_MEMORY : TM_OK), "call %d", nth);
    for (int i = 0; i < 600; i++) {
      tm_storage_release(storages[i]);
    }
    expect_nothing_left();
    cr_expect(le(i64, tm_bookkeeping_live() - before, 1));  // this thread's identity is kept
  }
}

static jmp_buf caught;

static void catch_fatal(const char* text, void* user) {
  (void)text;
  (void)user;
  longjmp(caught, 1);
}

// Whether the function is fatal.
static bool is_fatal(void (*function)(void)) {
  tm_set_fatal_handler(catch_fatal, NULL);
  if (setjmp(caught)) {
    return true;
  }
  function();
  return false;
}

static tm_storage* victim;
static void release_victim(void) { tm_storage_release(victim); }
static void allocate_from_stack(void) { (void)!tm_storage_alloc(stack, 100, NULL, &victim); }
static void release_stack(void) { tm_allocator_release(stack); }

static void* release_victim_twice(void* unused) {
  tm_storage_release(victim);
  cr_expect(is_fatal(release_victim));
  return unused;
}

Test(stack, releasing_a_block_twice_is_fatal_on_any_thread, .init = setup) {
  victim = take(100);
  tm_storage_release(victim);
  cr_expect(is_fatal(release_victim));
  victim = take(100);
  run_elsewhere(release_victim_twice, NULL);
  cr_expect(eq(u64, stats().live_blocks, 0));
}

Test(stack, using_a_stack_after_its_last_release_is_fatal, .init = setup) {
  tm_storage* kept = take(100);
  tm_allocator_release(stack);
  cr_expect(is_fatal(allocate_from_stack));
  cr_expect(is_fatal(release_stack));
  tm_storage_release(kept);
}

static void* allocate_and_return(void* unused) {
  victim = take(100);
  return unused;
}

Test(stack, looking_at_a_stack_whose_owner_has_ended_leaves_it_to_the_next_thread, .init = setup) {
  run_elsewhere(allocate_and_return, NULL);
  cr_expect(eq(u64, stats().live_blocks, 1));
  tm_status status = TM_ERR_BUSY;
  run_elsewhere(try_to_allocate, &status);
  cr_expect(eq(int, status, TM_OK));
  tm_storage_release(victim);
  expect_nothing_left();
}

Test(stack, wrong_arguments_are_errors) {
  cr_expect(tm_stack_allocator_create(NULL, NULL, NULL) == NULL);
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
  cr_expect(eq(int, tm_stack_reset(tm_host_allocator()), TM_ERR_INVALID));
  cr_expect(strstr(tm_last_error()->message, "host") != NULL);
  cr_expect(eq(int, tm_stack_high_water_mark(NULL, NULL), TM_ERR_INVALID));
  cr_expect(not(tm_is_stack(tm_host_allocator())));
  cr_expect(tm_stack_upstream(tm_host_allocator()) == NULL);
}
