// The cached allocator over memory of the host: what it reuses, joins, keeps and gives back.

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/counting_allocator.h"
#include "tests/support/expect_fatal.h"
#include "tests/support/failing.h"
#include "tests/support/random_workload.h"
#include "tm/alloc/cached.h"
#include "tm/alloc/dry.h"
#include "tm/alloc/host.h"
#include "tm/alloc/stack.h"
#include "tm/alloc/storage.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

static counting_allocator upstream;

static tm_allocator* create(const tm_cached_options* options) {
  counting_allocator_init(&upstream);
  tm_allocator* cached = tm_cached_allocator_create(&upstream.base, NULL, options);
  cr_assert(cached != NULL, "%s", tm_last_error()->message);
  return cached;
}

static void* take(tm_allocator* cached, size_t size) {
  void* block = NULL;
  cr_assert(eq(int, tm_allocator_alloc(cached, size, NULL, &block), TM_OK), "%s",
            tm_last_error()->message);
  cr_assert(tm_cached_is_valid(cached));
  return block;
}

static void give(tm_allocator* cached, void* block, size_t size) {
  tm_allocator_free(cached, block, size, NULL);
  cr_assert(tm_cached_is_valid(cached));
}

static tm_allocator_stats stats_of(tm_allocator* cached) {
  tm_allocator_stats stats;
  cr_assert(eq(int, tm_allocator_get_stats(cached, &stats), TM_OK));
  return stats;
}

static void end(tm_allocator* cached) {
  tm_allocator_release(cached);
  tm_allocator_release(&upstream.base);
  cr_expect(upstream.destroyed);
  cr_expect(eq(sz, upstream.live_bytes, 0));
}

//===-- One call of the upstream at a time ------------------------------------===//

static int calls_inside;  // atomic
static bool two_at_once;
static tm_allocator* shared;

static void* allocate_more(void* unused) {
  void* block = NULL;
  if (tm_allocator_alloc(shared, 8 * MIB, NULL, &block) == TM_OK) {
    tm_allocator_free(shared, block, 8 * MIB, NULL);
  }
  return unused;
}

static void enter_upstream(void) {
  if (__atomic_add_fetch(&calls_inside, 1, __ATOMIC_SEQ_CST) > 1) {
    __atomic_store_n(&two_at_once, true, __ATOMIC_SEQ_CST);
  }
}

static void leave_upstream(void) { (void)__atomic_sub_fetch(&calls_inside, 1, __ATOMIC_SEQ_CST); }

static tm_status alloc_alone(tm_allocator* self, size_t size, tm_stream* stream, void** out) {
  (void)self;
  enter_upstream();
  const tm_status status = tm_allocator_alloc(tm_host_allocator(), size, stream, out);
  leave_upstream();
  return status;
}

static void free_alone(tm_allocator* self, void* ptr, size_t size, tm_stream* stream) {
  (void)self;
  enter_upstream();
  tm_allocator_free(tm_host_allocator(), ptr, size, stream);
  leave_upstream();
}

static pthread_t meanwhile;

// Gives another thread time to get into the upstream as well.
static tm_status trim_slowly(tm_allocator* self, size_t keep) {
  (void)self;
  (void)keep;
  enter_upstream();
  cr_assert(eq(int, pthread_create(&meanwhile, NULL, allocate_more, NULL), 0));
  usleep(50000);
  leave_upstream();
  return TM_OK;
}

static void destroy_nothing(tm_allocator* self) { tm_allocator_deinit_(self); }

static const tm_allocator_vtable alone_vtable = {
    .name = "alone",
    .destroy = destroy_nothing,
    .alloc = alloc_alone,
    .free = free_alone,
    .trim = trim_slowly,
};

Test(cached, a_trim_reaches_the_upstream_alone) {
  tm_allocator alone;
  tm_allocator_init_(&alone, &alone_vtable, tm_device_make(TM_CPU, 0), NULL);
  shared = tm_cached_allocator_create(&alone, NULL, NULL);
  cr_assert(shared != NULL);
  void* block;
  cr_assert(eq(int, tm_allocator_alloc(shared, MIB, NULL, &block), TM_OK));
  cr_expect(eq(int, tm_allocator_trim(shared, 0), TM_OK));
  pthread_join(meanwhile, NULL);
  cr_expect(not(two_at_once));
  tm_allocator_free(shared, block, MIB, NULL);
  tm_allocator_release(shared);
  tm_allocator_release(&alone);
}

//===-- Creation ------------------------------------------------------------===//

Test(cached, says_what_it_is) {
  tm_allocator* cached = create(NULL);
  cr_expect(tm_is_cached(cached));
  cr_expect(eq(ptr, tm_cached_upstream(cached), &upstream.base));
  cr_expect(not(tm_is_cached(&upstream.base)));
  cr_expect(not(tm_is_cached(NULL)));
  cr_expect(eq(ptr, tm_cached_upstream(&upstream.base), NULL));
  cr_expect(not(tm_cached_is_valid(NULL)));
  cr_expect(eq(sz, upstream.live_bytes, 0), "nothing is obtained before it is needed");
  end(cached);
}

Test(cached, refuses_what_cannot_be) {
  cr_expect(eq(ptr, tm_cached_allocator_create(NULL, NULL, NULL), NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
  const tm_cached_options options = {.initial_bytes = 2 * MIB, .maximum_bytes = MIB};
  cr_expect(eq(ptr, tm_cached_allocator_create(tm_host_allocator(), NULL, &options), NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
}

Test(cached, initial_bytes_are_obtained_at_creation_in_one_piece) {
  tm_allocator* cached = create(&(tm_cached_options){.initial_bytes = 10 * MIB});
  cr_expect(eq(u64, upstream.allocs, 1));
  const tm_allocator_stats stats = stats_of(cached);
  cr_expect(eq(u64, stats.reserved_bytes, 10 * MIB));
  cr_expect(eq(u64, stats.largest_free_bytes, 10 * MIB));
  void* a = take(cached, 6 * MIB);
  void* b = take(cached, 4 * MIB);
  cr_expect(eq(u64, upstream.allocs, 1));
  give(cached, a, 6 * MIB);
  give(cached, b, 4 * MIB);
  end(cached);
  counting_allocator_init(&upstream);
  upstream.budget = MIB;
  cr_expect(eq(ptr,
               tm_cached_allocator_create(&upstream.base, NULL,
                                          &(tm_cached_options){.initial_bytes = 10 * MIB}),
               NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_NO_MEMORY));
  tm_allocator_release(&upstream.base);
  cr_expect(upstream.destroyed);
}

//===-- Reuse ---------------------------------------------------------------===//

Test(cached, a_freed_block_is_used_again_without_the_upstream) {
  tm_allocator* cached = create(NULL);
  void* first = take(cached, 1000);
  for (int i = 0; i < 100; i++) {
    give(cached, first, 1000);
    cr_assert(eq(ptr, take(cached, 1000), first));
  }
  cr_expect(eq(u64, upstream.allocs, 1));
  give(cached, first, 1000);
  end(cached);
}

Test(cached, neighbours_are_joined_in_any_order) {
  static const int orders[][4] = {{0, 1, 2, 3}, {3, 2, 1, 0}, {0, 2, 1, 3}, {1, 3, 0, 2}};
  tm_allocator* cached = create(&(tm_cached_options){.maximum_bytes = 4 * MIB});
  for (size_t k = 0; k < sizeof orders / sizeof *orders; k++) {
    void* blocks[4];
    for (int i = 0; i < 4; i++) {
      blocks[i] = take(cached, MIB);
    }
    for (int i = 0; i < 4; i++) {
      give(cached, blocks[orders[k][i]], MIB);
    }
    give(cached, take(cached, 4 * MIB), 4 * MIB);  // only if all of them are one
    cr_expect(eq(u64, stats_of(cached).largest_free_bytes, 4 * MIB));
  }
  end(cached);
}

Test(cached, the_smallest_block_that_fits_is_taken) {
  tm_allocator* cached = create(&(tm_cached_options){.initial_bytes = 16 * MIB});
  static const size_t sizes[] = {3 * MIB, 2 * MIB, 4 * MIB};
  void* holes[3];
  void* walls[3];
  for (int i = 0; i < 3; i++) {
    holes[i] = take(cached, sizes[i]);
    walls[i] = take(cached, KIB);
  }
  void* rest = take(cached, stats_of(cached).largest_free_bytes);
  const size_t rest_size = 16 * MIB - 9 * MIB - 3 * KIB;
  for (int i = 0; i < 3; i++) {
    give(cached, holes[i], sizes[i]);
  }
  cr_expect(eq(ptr, take(cached, 2 * MIB - KIB), holes[1]));
  cr_expect(eq(ptr, take(cached, 2 * MIB + KIB), holes[0]));
  cr_expect(eq(ptr, take(cached, 3 * MIB + KIB), holes[2]));
  give(cached, holes[1], 2 * MIB - KIB);
  give(cached, holes[0], 2 * MIB + KIB);
  give(cached, holes[2], 3 * MIB + KIB);
  for (int i = 0; i < 3; i++) {
    give(cached, walls[i], KIB);
  }
  give(cached, rest, rest_size);
  end(cached);
}

//===-- What is held --------------------------------------------------------===//

// Attention, then the wider feed-forward part of a layer: the first does not fit the second.
static void run_step(tm_allocator* cached) {
  void* hidden = take(cached, 64 * MIB);
  void* residual = take(cached, 64 * MIB);
  void* qkv = take(cached, 96 * MIB);
  void* attention = take(cached, 64 * MIB);
  give(cached, qkv, 96 * MIB);
  give(cached, attention, 64 * MIB);
  void* gate_up = take(cached, 448 * MIB);
  void* act = take(cached, 224 * MIB);
  give(cached, gate_up, 448 * MIB);
  give(cached, act, 224 * MIB);
  give(cached, residual, 64 * MIB);
  give(cached, hidden, 64 * MIB);
}

static tm_allocator* create_over_dry(void) {
  tm_auto_allocator dry = tm_dry_allocator_create(tm_device_make(TM_DEVICE, 0), NULL);
  tm_allocator* cached = tm_cached_allocator_create(dry, NULL, NULL);
  cr_assert(cached != NULL, "%s", tm_last_error()->message);
  return cached;
}

Test(cached, what_is_held_follows_what_is_needed) {
  tm_allocator* cached = create_over_dry();
  run_step(cached);
  cr_expect(eq(u64, stats_of(cached).peak_live_bytes, 800 * MIB));
  cr_expect(eq(u64, stats_of(cached).peak_reserved_bytes, 800 * MIB));
  run_step(cached);
  const uint64_t calls = stats_of(cached).upstream_calls;
  for (int i = 0; i < 100; i++) {
    run_step(cached);
  }
  cr_expect(eq(u64, stats_of(cached).upstream_calls, calls));
  cr_expect(eq(u64, stats_of(cached).peak_reserved_bytes, 800 * MIB));
  tm_allocator_release(cached);
}

static void take_and_give_in_pieces(tm_allocator* cached) {
  void* blocks[8];
  for (int i = 0; i < 8; i++) {
    blocks[i] = take(cached, 3 * MIB);
  }
  for (int i = 0; i < 8; i++) {
    give(cached, blocks[i], 3 * MIB);
  }
}

Test(cached, segments_become_one_of_the_peak_when_nothing_is_live) {
  tm_allocator* cached = create(NULL);
  take_and_give_in_pieces(cached);
  cr_expect(stats_of(cached).reserved_bytes > 24 * MIB, "3 MiB came in segments of 4");
  void* block = take(cached, MIB);
  cr_expect(eq(u64, stats_of(cached).reserved_bytes, 24 * MIB));
  cr_expect(eq(u64, stats_of(cached).largest_free_bytes, 23 * MIB));
  give(cached, block, MIB);
  const uint64_t calls = stats_of(cached).upstream_calls;
  for (int i = 0; i < 10; i++) {
    give(cached, take(cached, 24 * MIB), 24 * MIB);
    take_and_give_in_pieces(cached);
  }
  cr_expect(eq(u64, stats_of(cached).upstream_calls, calls));
  end(cached);
}

// Holes on both sides of a live block: the same peak needs more than is live.
static void make_holes(tm_allocator* cached) {
  void* a = take(cached, 8 * MIB);
  void* b = take(cached, 8 * MIB);
  void* c = take(cached, 8 * MIB);
  give(cached, a, 8 * MIB);
  give(cached, c, 8 * MIB);
  void* wide = take(cached, 16 * MIB);
  give(cached, wide, 16 * MIB);
  give(cached, b, 8 * MIB);
}

Test(cached, where_the_peak_does_not_fit_one_segment_of_it_the_next_is_larger) {
  tm_allocator* cached = create(&(tm_cached_options){.initial_bytes = 24 * MIB});
  for (int i = 0; i < 3; i++) {
    make_holes(cached);
  }
  const tm_allocator_stats learned = stats_of(cached);
  cr_expect(eq(u64, learned.peak_live_bytes, 24 * MIB));
  cr_expect(eq(u64, learned.reserved_bytes, 40 * MIB));
  for (int i = 0; i < 10; i++) {
    make_holes(cached);
  }
  cr_expect(eq(u64, stats_of(cached).upstream_calls, learned.upstream_calls));
  end(cached);
}

Test(cached, where_one_segment_is_not_to_be_had_it_goes_on_with_several) {
  tm_allocator* cached = create(NULL);
  void* a = take(cached, 3 * MIB);
  void* b = take(cached, 3 * MIB);
  give(cached, a, 3 * MIB);
  give(cached, b, 3 * MIB);
  upstream.fail_in = 1;
  a = take(cached, 3 * MIB);
  b = take(cached, 3 * MIB);
  cr_expect(eq(u64, upstream.failures, 1));
  const uint64_t frees = upstream.frees;
  for (int i = 0; i < 3; i++) {
    give(cached, a, 3 * MIB);
    give(cached, b, 3 * MIB);
    a = take(cached, 3 * MIB);
    b = take(cached, 3 * MIB);
  }
  cr_expect(eq(u64, upstream.frees, frees), "it does not ask again and again");
  give(cached, a, 3 * MIB);
  give(cached, b, 3 * MIB);
  end(cached);
}

Test(cached, trim_gives_free_segments_back_down_to_what_is_to_be_kept) {
  tm_allocator* cached = create(NULL);
  void* kept = take(cached, 2 * MIB);
  void* blocks[3];
  for (int i = 0; i < 3; i++) {
    blocks[i] = take(cached, 10 * MIB);
  }
  for (int i = 0; i < 3; i++) {
    give(cached, blocks[i], 10 * MIB);
  }
  cr_expect(eq(u64, stats_of(cached).reserved_bytes, 32 * MIB));
  cr_expect(eq(int, tm_allocator_trim(cached, 20 * MIB), TM_OK));
  cr_expect(eq(u64, stats_of(cached).reserved_bytes, 22 * MIB));
  cr_expect(eq(int, tm_allocator_trim(cached, 0), TM_OK));
  cr_expect(eq(u64, stats_of(cached).reserved_bytes, 2 * MIB));
  cr_expect(eq(sz, upstream.live_bytes, 2 * MIB));
  give(cached, kept, 2 * MIB);
  cr_expect(eq(int, tm_allocator_trim(cached, 0), TM_OK));
  cr_expect(eq(sz, upstream.live_bytes, 0));
  end(cached);
}

Test(cached, holds_at_most_the_maximum) {
  tm_allocator* cached = create(&(tm_cached_options){.maximum_bytes = 10 * MIB});
  void* a = take(cached, 6 * MIB);
  void* none = &none;
  cr_expect(eq(int, tm_allocator_alloc(cached, 5 * MIB, NULL, &none), TM_ERR_NO_MEMORY));
  cr_expect(eq(ptr, none, NULL));
  const char* message = tm_last_error()->message;
  cr_expect(strstr(message,
                   "5242880 bytes asked; 6291456 live in 6291456 held, of at most 10485760"
                   ", and the largest free block has 0") != NULL,
            "%s", message);
  void* b = take(cached, 4 * MIB);
  give(cached, a, 6 * MIB);
  give(cached, b, 4 * MIB);
  give(cached, take(cached, 10 * MIB), 10 * MIB);  // in place of the two
  cr_expect(eq(u64, upstream.peak_bytes, 10 * MIB));
  end(cached);
}

Test(cached, a_maximum_that_is_no_multiple_is_not_exceeded) {
  tm_allocator* cached = create(&(tm_cached_options){.initial_bytes = 1000, .maximum_bytes = 1000});
  cr_expect(eq(sz, upstream.peak_bytes, 768));  // the upstream's multiples are of 256
  give(cached, take(cached, 768), 768);
  void* none = &none;
  cr_expect(eq(int, tm_allocator_alloc(cached, 769, NULL, &none), TM_ERR_NO_MEMORY));
  end(cached);
}

Test(cached, a_maximum_that_holds_nothing_is_refused) {
  counting_allocator_init(&upstream);
  cr_expect(tm_cached_allocator_create(&upstream.base, NULL,
                                       &(tm_cached_options){.maximum_bytes = 255}) == NULL);
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
  cr_expect(eq(str, (char*)tm_last_error()->message,
               "tm_cached_allocator_create: maximum_bytes is 255, and the smallest block of "
               "counting has 256 bytes"));
  tm_allocator_release(&upstream.base);
  cr_expect(upstream.destroyed);
}

Test(cached, little_memory_is_enough_for_what_fits_exactly) {
  tm_allocator* cached = create(NULL);
  upstream.budget = 100 * KIB;
  give(cached, take(cached, 90 * KIB), 90 * KIB);
  void* none = &none;
  cr_expect(eq(int, tm_allocator_alloc(cached, 101 * KIB, NULL, &none), TM_ERR_NO_MEMORY));
  cr_expect(strstr(tm_last_error()->message,
                   "cached: 103424 bytes asked; 0 live in 0 held, the largest free block has 0 "
                   "bytes; counting: 103424 bytes asked") != NULL,
            "%s", tm_last_error()->message);
  give(cached, take(cached, 100 * KIB), 100 * KIB);  // the other segment makes way
  end(cached);
}

Test(cached, statistics_say_how_scattered_the_free_memory_is) {
  tm_allocator* cached = create(&(tm_cached_options){.initial_bytes = 4 * MIB});
  void* blocks[4];
  for (int i = 0; i < 4; i++) {
    blocks[i] = take(cached, MIB);
  }
  tm_allocator_stats stats = stats_of(cached);
  cr_expect(eq(u64, stats.largest_free_bytes, 0));
  cr_expect(eq(dbl, tm_allocator_stats_fragmentation(&stats), 0));
  give(cached, blocks[0], MIB);
  give(cached, blocks[2], MIB);
  stats = stats_of(cached);
  cr_expect(eq(u64, stats.largest_free_bytes, MIB));
  cr_expect(eq(dbl, tm_allocator_stats_fragmentation(&stats), 0.5));
  give(cached, blocks[1], MIB);
  stats = stats_of(cached);
  cr_expect(eq(u64, stats.largest_free_bytes, 3 * MIB));
  cr_expect(eq(dbl, tm_allocator_stats_fragmentation(&stats), 0));
  give(cached, blocks[3], MIB);
  end(cached);
}

// An ideal best fit in one unbounded region needs 1.017 times what is live.
Test(cached, a_random_workload_needs_little_more_than_is_live) {
  for (uint64_t seed = 1; seed <= 20; seed++) {
    tm_allocator* cached = create_over_dry();
    random_workload result;
    cr_assert(eq(int, random_workload_run(cached, 1000, seed, &result), TM_OK));
    const double ratio = (double)result.peak_reserved_bytes / (double)result.peak_live_bytes;
    cr_expect(ratio >= 1 && ratio <= 1.05, "seed %llu: %.4f", (unsigned long long)seed, ratio);
    cr_expect(tm_cached_is_valid(cached));
    cr_expect(eq(u64, stats_of(cached).live_bytes, 0));
    tm_allocator_release(cached);
  }
}

//===-- Lifetime ------------------------------------------------------------===//

typedef struct return_of_blocks {
  tm_allocator* cached;
  void* blocks[3];
} return_of_blocks;

static void* return_blocks(void* argument) {
  const return_of_blocks* self = argument;
  for (int i = 0; i < 3; i++) {
    tm_allocator_free(self->cached, self->blocks[i], 1000, NULL);
  }
  return NULL;
}

Test(cached, live_blocks_keep_it_alive_and_the_last_takes_it_along) {
  return_of_blocks returned = {.cached = create(NULL)};
  for (int i = 0; i < 3; i++) {
    returned.blocks[i] = take(returned.cached, 1000);
  }
  tm_allocator_release(returned.cached);
  tm_allocator_release(&upstream.base);
  cr_expect(not(upstream.destroyed));
  memset(returned.blocks[2], 1, 1000);
  pthread_t thread;
  cr_assert(pthread_create(&thread, NULL, return_blocks, &returned) == 0);
  cr_assert(pthread_join(thread, NULL) == 0);
  cr_expect(upstream.destroyed);
  cr_expect(eq(sz, upstream.live_bytes, 0));
}

Test(cached, serves_stacks_and_caches) {
  tm_allocator* cached = create(NULL);
  tm_allocator* second = tm_cached_allocator_create(cached, NULL, NULL);
  tm_allocator* stack = tm_stack_allocator_create(second, NULL, NULL);
  tm_storage* storage;
  cr_assert(eq(int, tm_storage_alloc(stack, 5 * MIB, NULL, &storage), TM_OK));
  tm_allocator_release(stack);
  tm_allocator_release(second);
  tm_allocator_release(cached);
  memset(storage->data, 1, 5 * MIB);
  tm_storage_release(storage);
  tm_allocator_release(&upstream.base);
  cr_expect(upstream.destroyed);
}

//===-- Misuse --------------------------------------------------------------===//

static void* misused;
static tm_allocator* misused_cache;

static void free_twice(void) {
  tm_allocator_free(misused_cache, misused, 1000, NULL);
  tm_allocator_free(misused_cache, misused, 1000, NULL);
}

static void free_with_another_size(void) { tm_allocator_free(misused_cache, misused, 2000, NULL); }

static void free_what_is_not_its_own(void) {
  static _Alignas(64) char mine[64];
  tm_allocator_free(misused_cache, mine, 64, NULL);
}

Test(cached, freeing_what_is_not_a_live_block_is_fatal) {
  misused_cache = create(NULL);
  misused = take(misused_cache, 1000);
  EXPECT_FATAL(free_twice(), "no block of 1024 bytes is live there");
  misused = take(misused_cache, 1000);
  EXPECT_FATAL(free_with_another_size(), "no block of 2048 bytes is live there");
  EXPECT_FATAL(free_what_is_not_its_own(), "no block of 64 bytes is live there");
  give(misused_cache, misused, 1000);
  end(misused_cache);
}

//===-- Failures ------------------------------------------------------------===//

static tm_status use(tm_allocator* cached) {
  void* blocks[200] = {NULL};
  tm_status status = TM_OK;
  for (int i = 0; i < 200 && status == TM_OK; i++) {
    status = tm_allocator_alloc(cached, 100 + (size_t)i * 1000, NULL, &blocks[i]);
  }
  for (int i = 199; i >= 0; i -= 2) {
    tm_allocator_free(cached, blocks[i], 100 + (size_t)i * 1000, NULL);
  }
  for (int i = 0; i < 200; i += 2) {
    tm_allocator_free(cached, blocks[i], 100 + (size_t)i * 1000, NULL);
  }
  return status == TM_OK && !tm_cached_is_valid(cached)
             ? TM_RAISE(TM_ERR_CORRUPT, "the cache is not valid")
             : status;
}

static tm_status create_use_and_release(tm_allocator* memory) {
  tm_auto_allocator cached =
      tm_cached_allocator_create(memory, NULL, &(tm_cached_options){.initial_bytes = KIB});
  if (!cached) {
    return tm_last_status();
  }
  TM_TRY(use(cached));
  TM_TRY(use(cached));  // with one segment by now
  return tm_allocator_trim(cached, 0);
}

Test(cached, survives_every_failure) {
  expect_survives_every_failure_or_retries(create_use_and_release);
}
