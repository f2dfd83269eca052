// Logs through allocators: the order of events, their threads, and what is not served.

#include "trace/replayer.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <tm/tm.h>

#include "tests/support/counting_allocator.h"
#include "tests/support/failing.h"
#include "tests/trace/log_check.h"
#include "trace/log_builder.h"

//===-- Logs --------------------------------------------------------------===//

enum { MOST_BLOCKS = 4096, MOST_THREADS = 8 };

// A log that tests write event by event; addresses are slots.
typedef struct draft {
  log_builder builder;
  uint64_t line;
} draft;

static draft draft_of(uint32_t threads) {
  draft d = {.builder = {.file = "draft"}};
  uint32_t number;
  for (uint32_t i = 0; i < threads; i++) {
    cr_assert(eq(int, log_builder_thread(&d.builder, (log_handle){.value = i}, &number), TM_OK));
  }
  cr_assert(eq(int, log_builder_stream(&d.builder, (log_handle){0}, &number), TM_OK));
  return d;
}

static void allocate(draft* d, uint32_t thread, uint64_t slot, uint64_t bytes) {
  const log_subject subject = {.address = {.value = slot + 1}, .bytes = bytes};
  const log_place place = {.line = ++d->line, .thread = thread};
  cr_assert(eq(int, log_builder_allocate(&d->builder, place, subject), TM_OK));
}

static void deallocate(draft* d, uint32_t thread, uint64_t slot) {
  const log_subject subject = {.address = {.value = slot + 1}, .bytes = LOG_SIZE_UNKNOWN};
  const log_place place = {.line = ++d->line, .thread = thread};
  cr_assert(eq(int, log_builder_free(&d->builder, place, subject), TM_OK));
}

static void fail(draft* d, uint32_t thread, uint64_t bytes) {
  const log_place place = {.line = ++d->line, .thread = thread};
  cr_assert(eq(int, log_builder_fail(&d->builder, place, bytes, NULL), TM_OK));
}

static allocation_log finished(draft* d) {
  allocation_log log;
  cr_assert(eq(int, log_builder_finish(&d->builder, LOG_ANY, &log), TM_OK));
  log_builder_deinit(&d->builder);
  cr_assert(log_check(&log) == NULL, "%s", log_check(&log));
  return log;
}

// Random events of random threads; blocks are freed by anybody, and some never.
static allocation_log random_log(uint32_t threads, int events, unsigned seed) {
  enum { SLOTS = 64 };
  bool is_live[SLOTS] = {false};
  draft d = draft_of(threads);
  cr_log_info("seed %u", seed);
  for (int i = 0; i < events; i++) {
    const uint32_t thread = (unsigned)rand_r(&seed) % threads;
    const int slot = rand_r(&seed) % SLOTS;
    if (is_live[slot]) {
      deallocate(&d, thread, (uint64_t)slot);
    } else {
      allocate(&d, thread, (uint64_t)slot, (uint64_t)rand_r(&seed) % 1000);
    }
    is_live[slot] = !is_live[slot];
  }
  return finished(&d);
}

//===-- An allocator that remembers ---------------------------------------===//

typedef struct call {
  uint32_t is_free;
  size_t size;
  pthread_t thread;
} call;

// Calls in the order in which they came; safe from any thread.
typedef struct recorder {
  pthread_mutex_t lock;
  call calls[2 * MOST_BLOCKS];
  size_t count;
  size_t largest;  // what is asked beyond is refused
  int64_t live;    // blocks
} recorder;

static recorder recorded;  // too large for a frame

static void note(uint32_t is_free, size_t size) {
  pthread_mutex_lock(&recorded.lock);
  recorded.calls[recorded.count++] = (call){is_free, size, pthread_self()};
  recorded.live += is_free ? -1 : 1;
  pthread_mutex_unlock(&recorded.lock);
}

static tm_status recorder_alloc(size_t size, tm_stream* stream, void** out, void* user) {
  (void)stream, (void)user;
  if (size > recorded.largest) {
    return TM_RAISE(TM_ERR_NO_MEMORY, "recorder: %zu bytes asked, %zu allowed", size,
                    recorded.largest);
  }
  *out = aligned_alloc(TM_HOST_ALIGNMENT, size);
  note(0, size);
  return TM_OK;
}

static void recorder_free(void* pointer, size_t size, tm_stream* stream, void* user) {
  (void)stream, (void)user;
  note(1, size);
  free(pointer);
}

static tm_allocator* new_recorder(size_t largest) {
  recorded = (recorder){.lock = PTHREAD_MUTEX_INITIALIZER, .largest = largest};
  tm_allocator* allocator = tm_callback_allocator_create(&(tm_callback_options){
      .name = "recorder",
      .device = tm_device_make(TM_CPU, 0),
      .alloc = recorder_alloc,
      .free = recorder_free,
  });
  cr_assert(allocator != NULL);
  return allocator;
}

// Replays a log `passes` times; each thread asks the same allocator.
static replay_result replay(const allocation_log* log, tm_allocator* allocator,
                            replayer_options options, int passes) {
  tm_allocator* allocators[MOST_THREADS];
  replay_result result = {0};
  for (int i = 0; i < MOST_THREADS; i++) allocators[i] = allocator;
  options.allocators = allocators;
  replayer* r = replayer_create(log, &options);
  cr_assert(r != NULL, "%s", tm_last_error()->message);
  for (int i = 0; i < passes; i++) replayer_pass(r, &result);
  replayer_destroy(r);
  return result;
}

//===-- Order -------------------------------------------------------------===//

// The calls that are not about nothing must be those of the log, each thread's on a thread of its
// own, before what is freed at the end.
static void expect_order_of(const allocation_log* log, bool on_one_thread) {
  pthread_t threads[MOST_THREADS];
  bool is_known[MOST_THREADS] = {false};
  size_t at = 0;
  for (size_t i = 0; i < log->event_count; i++) {
    const log_event* e = &log->events[i];
    if (e->bytes == 0) continue;
    const call* c = &recorded.calls[at++];
    cr_assert(eq(u32, c->is_free, e->kind == LOG_FREE), "event %zu", i);
    cr_assert(eq(sz, c->size, (e->bytes + 63) / 64 * 64), "event %zu", i);
    const uint32_t thread = on_one_thread ? 0 : e->thread;
    if (!is_known[thread]) threads[thread] = c->thread;
    is_known[thread] = true;
    cr_assert(pthread_equal(c->thread, threads[thread]), "event %zu", i);
  }
  for (int i = 1; i < MOST_THREADS && is_known[i]; i++) {
    cr_expect(not(pthread_equal(threads[i], threads[i - 1])));
    cr_expect(not(pthread_equal(threads[i], pthread_self())));
  }
}

Test(replayer, the_logs_order_is_kept_on_the_logs_threads) {
  allocation_log log = random_log(5, 3000, (unsigned)time(NULL));
  tm_auto_allocator allocator = new_recorder(SIZE_MAX);
  const replay_result result = replay(&log, allocator, (replayer_options){0}, 1);
  expect_order_of(&log, false);
  cr_expect(eq(u64, result.operations, log.allocations + log.frees));
  cr_expect(eq(u64, result.unserved, 0));
  cr_expect(eq(str, (char*)result.message, (char*)""));
  cr_expect(eq(i64, recorded.live, 0), "what the log never frees is freed in the end");
  cr_expect(result.seconds > 0);
  allocation_log_deinit(&log);
}

Test(replayer, one_thread_does_it_all_where_it_is_told_to) {
  allocation_log log = random_log(5, 3000, (unsigned)time(NULL));
  tm_auto_allocator allocator = new_recorder(SIZE_MAX);
  (void)replay(&log, allocator, (replayer_options){.one_thread = true}, 1);
  expect_order_of(&log, true);
  cr_expect(pthread_equal(recorded.calls[0].thread, pthread_self()));
  allocation_log_deinit(&log);
}

Test(replayer, a_log_of_one_thread_needs_no_other) {
  draft d = draft_of(1);
  allocate(&d, 0, 1, 64);
  allocate(&d, 0, 2, 128);
  allocate(&d, 0, 3, 192);
  deallocate(&d, 0, 2);
  allocation_log log = finished(&d);
  tm_auto_allocator allocator = new_recorder(SIZE_MAX);
  (void)replay(&log, allocator, (replayer_options){.concurrent = true}, 1);
  expect_order_of(&log, true);
  cr_expect(pthread_equal(recorded.calls[0].thread, pthread_self()));
  cr_expect(eq(sz, recorded.count, 6));
  cr_expect(eq(sz, recorded.calls[4].size, 192), "the latest goes first");
  cr_expect(eq(sz, recorded.calls[5].size, 64));
  allocation_log_deinit(&log);
}

// Whatever the order, all that was allocated is freed once, with its size.
static void expect_all_is_freed(const allocation_log* log, int passes) {
  uint64_t allocated = 0;
  uint64_t freed = 0;
  for (size_t i = 0; i < recorded.count; i++) {
    *(recorded.calls[i].is_free ? &freed : &allocated) += recorded.calls[i].size;
  }
  cr_expect(eq(u64, allocated, freed));
  cr_expect(eq(i64, recorded.live, 0));
  uint64_t sized = 0;
  for (size_t i = 0; i < log->event_count; i++) {
    sized += log->events[i].kind == LOG_ALLOCATE && log->events[i].bytes > 0;
  }
  cr_expect(eq(sz, recorded.count, 2 * sized * (unsigned)passes));
}

Test(replayer, concurrent_threads_free_what_others_allocate) {
  for (unsigned round = 0; round < 5; round++) {
    allocation_log log = random_log(MOST_THREADS, 1500, (unsigned)time(NULL) + round);
    tm_auto_allocator allocator = new_recorder(SIZE_MAX);
    const replay_result result = replay(&log, allocator, (replayer_options){.concurrent = true}, 3);
    expect_all_is_freed(&log, 3);
    cr_expect(eq(u64, result.operations, log.allocations + log.frees));
    allocation_log_deinit(&log);
  }
}

Test(replayer, each_thread_has_an_arena_of_its_own) {
  allocation_log log = random_log(4, 1500, (unsigned)time(NULL));
  tm_allocator* arenas[4];
  replay_result result;
  for (int concurrent = 0; concurrent < 2; concurrent++) {
    tm_auto_allocator upstream = new_recorder(SIZE_MAX);
    for (int i = 0; i < 4; i++) arenas[i] = tm_stack_allocator_create(upstream, NULL, NULL);
    const replayer_options options = {.allocators = arenas, .concurrent = concurrent == 1};
    replayer* r = replayer_create(&log, &options);
    cr_assert(r != NULL);
    for (int pass = 0; pass < 4; pass++) {
      replayer_pass(r, &result);
      cr_expect(eq(u64, result.unserved, 0), "%s", result.message);
    }
    replayer_destroy(r);
    for (int i = 0; i < 4; i++) tm_allocator_release(arenas[i]);
    cr_expect(eq(i64, recorded.live, 0));
  }
  allocation_log_deinit(&log);
}

//===-- What is not served ------------------------------------------------===//

Test(replayer, what_is_not_served_is_named_and_never_freed) {
  draft d = draft_of(2);
  for (uint64_t i = 0; i < 14; i++) allocate(&d, i % 2, i, i < 2 ? 64 : 64 * i);
  for (uint64_t i = 0; i < 14; i++) deallocate(&d, 0, i);
  allocation_log log = finished(&d);
  for (int mode = 0; mode < 3; mode++) {
    tm_auto_allocator allocator = new_recorder(128);
    const replay_result result = replay(
        &log, allocator, (replayer_options){.concurrent = mode == 1, .one_thread = mode == 2}, 2);
    cr_expect(eq(u64, result.unserved, 11));
    cr_expect(eq(u64, result.operations, 14 + 3));
    cr_expect(eq(u64, result.first_bytes, 192));
    for (uint64_t i = 0; i < REPLAY_LINES; i++) cr_expect(eq(u64, result.lines[i], i + 4));
    cr_expect(strstr(result.message, "recorder: 192 bytes asked, 128 allowed") != NULL, "%s",
              result.message);
    cr_expect(eq(i64, recorded.live, 0));
  }
  allocation_log_deinit(&log);
}

Test(replayer, what_failed_in_the_log_is_tried_where_it_is_told_to) {
  draft d = draft_of(1);
  fail(&d, 0, 64);
  fail(&d, 0, 256);
  allocate(&d, 0, 0, 64);
  fail(&d, 0, 128);
  allocation_log log = finished(&d);
  tm_auto_allocator allocator = new_recorder(128);
  replay_result result = replay(&log, allocator, (replayer_options){0}, 1);
  cr_expect(eq(u64, result.operations, 1));
  cr_expect(eq(u64, result.failures_served, 0));
  result = replay(&log, allocator, (replayer_options){.try_failures = true}, 1);
  cr_expect(eq(u64, result.failures_served, 2));
  cr_expect(eq(u64, result.unserved, 0));
  cr_expect(eq(u64, result.operations, 6));
  cr_expect(eq(i64, recorded.live, 0));
  allocation_log_deinit(&log);
}

//===-- Who is told -------------------------------------------------------===//

typedef struct audience {
  uint64_t peak;
  uint64_t live;
  size_t events;
  uint32_t left[MOST_THREADS];
  pthread_t threads[MOST_THREADS];
} audience;

static void watch(void* user, uint64_t live_bytes, size_t events_done) {
  audience* a = user;
  a->live = live_bytes;
  if (live_bytes > a->peak) a->peak = live_bytes;
  if (events_done > a->events) a->events = events_done;
}

static void leave(void* user, uint32_t thread) {
  audience* a = user;
  a->left[thread]++;
  a->threads[thread] = pthread_self();
}

Test(replayer, what_is_live_is_told_after_each_event) {
  allocation_log log = random_log(3, 2000, (unsigned)time(NULL));
  for (int concurrent = 0; concurrent < 2; concurrent++) {
    audience a = {0};
    (void)replay(&log, tm_host_allocator(),
                 (replayer_options){.concurrent = concurrent == 1, .watch = watch, .user = &a}, 1);
    cr_expect(eq(sz, a.events, 2000));
    cr_expect(eq(u64, a.live, log.last_live_bytes));
    cr_expect(concurrent || a.peak == log.peak_live_bytes);
  }
  allocation_log_deinit(&log);
}

Test(replayer, each_thread_leaves_once) {
  allocation_log log = random_log(3, 100, 1);
  tm_auto_allocator allocator = new_recorder(SIZE_MAX);
  audience a = {0};
  (void)replay(&log, allocator, (replayer_options){.leave = leave, .user = &a}, 2);
  for (int i = 0; i < 3; i++) {
    cr_expect(eq(u32, a.left[i], 1));
    cr_expect(not(pthread_equal(a.threads[i], pthread_self())));
  }
  a = (audience){0};
  (void)replay(&log, allocator, (replayer_options){.leave = leave, .one_thread = true, .user = &a},
               2);
  cr_expect(eq(u32, a.left[0], 1));
  cr_expect(eq(u32, a.left[1], 0));
  cr_expect(pthread_equal(a.threads[0], pthread_self()));
  allocation_log_deinit(&log);
}

Test(replayer, passes_are_alike) {
  allocation_log log = random_log(2, 500, (unsigned)time(NULL));
  counting_allocator counting;
  counting_allocator_init(&counting);
  const replay_result result = replay(&log, &counting.base, (replayer_options){0}, 10);
  cr_expect(eq(u64, counting.allocs, counting.frees));
  cr_expect(eq(sz, counting.live_bytes, 0));
  cr_expect(eq(u64, counting.allocs % 10, 0));
  cr_expect(eq(u64, result.operations, log.allocations + log.frees));
  tm_allocator_release(&counting.base);
  allocation_log_deinit(&log);
}

//===-- Failures ----------------------------------------------------------===//

static allocation_log failing_log;

static tm_status create_and_destroy(tm_allocator* upstream) {
  tm_allocator* allocators[2] = {upstream, upstream};
  const replayer_options options = {.allocators = allocators};
  replayer* r = replayer_create(&failing_log, &options);
  if (!r) return tm_last_status();
  replayer_destroy(r);
  return TM_OK;
}

Test(replayer, creation_survives_every_failure) {
  failing_log = random_log(2, 20, 1);
  expect_survives_every_failure(create_and_destroy);
  allocation_log_deinit(&failing_log);
}
