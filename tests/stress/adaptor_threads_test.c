// The adaptors used by many threads at once, over an upstream that any thread may use, over one
// that only the locked adaptor makes so, and over an arena whose blocks other threads free. Under
// TSan it shows what they keep without a lock.

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/counting_allocator.h"
#include "tm/alloc/fault_adaptor.h"
#include "tm/alloc/guard_adaptor.h"
#include "tm/alloc/host.h"
#include "tm/alloc/limit_adaptor.h"
#include "tm/alloc/locked_adaptor.h"
#include "tm/alloc/logging_adaptor.h"
#include "tm/alloc/stack.h"
#include "tm/alloc/statistics_adaptor.h"
#include "tm/alloc/storage.h"
#include "tm/alloc/tracking_adaptor.h"
#include "tm/base/trace.h"
#include "tm/check.h"

enum { THREADS = 4, ROUNDS = 400, LIVE = 8, BUDGET = 64 << 10 };

typedef struct pile {
  tm_allocator* adaptors[7];  // the last one is on top
  tm_allocator* top;
  char path[256];
} pile;

// All seven over `upstream`, whose reference stays the caller's.
static void build(pile* p, tm_allocator* upstream) {
  const char* folder = getenv("TEST_TMPDIR");
  (void)snprintf(p->path, sizeof p->path, "%s/adaptor_threads.%d.csv", folder ? folder : "/tmp",
                 (int)getpid());
  p->adaptors[0] = tm_locked_adaptor_create(upstream);
  p->adaptors[1] = tm_guard_adaptor_create(p->adaptors[0]);
  p->adaptors[2] = tm_statistics_adaptor_create(p->adaptors[1]);
  p->adaptors[3] = tm_limit_adaptor_create(p->adaptors[2], BUDGET);
  p->adaptors[4] = tm_logging_adaptor_create(p->adaptors[3], p->path);
  p->adaptors[5] =
      tm_fault_adaptor_create(p->adaptors[4], &(tm_fault_options){.probability = 0.05, .seed = 11});
  p->adaptors[6] = tm_tracking_adaptor_create(p->adaptors[5], NULL);
  p->top = p->adaptors[6];
  TM_CHECK(p->top != NULL, "%s", tm_last_error()->message);
}

static void tear_down(pile* p) {
  for (int i = 6; i >= 0; i--) {
    tm_allocator_release(p->adaptors[i]);
  }
  TM_CHECK_EQ(unlink(p->path), 0);
}

static void expect_nothing_live(const pile* p) {
  tm_statistics_counters counters;
  tm_limit_state state;
  size_t blocks;
  size_t bytes;
  TM_CHECK_OK(tm_statistics_get(p->adaptors[2], &counters));
  TM_CHECK_OK(tm_limit_get(p->adaptors[3], &state));
  TM_CHECK_OK(tm_tracking_totals(p->top, &blocks, &bytes));
  TM_CHECK_EQ(counters.current_bytes, 0);
  TM_CHECK_EQ(counters.current_blocks, 0);
  TM_CHECK_EQ(state.used, 0u);
  TM_CHECK_EQ(state.reserved, 0u);
  TM_CHECK_LE(state.peak, (size_t)BUDGET);
  TM_CHECK_EQ(blocks, 0u);
  TM_CHECK_OK(tm_guard_check(p->adaptors[1]));
  TM_CHECK_OK(tm_logging_check(p->adaptors[4]));
}

//===-- Everything at once ----------------------------------------------------===//

typedef struct worker {
  const pile* pile;
  unsigned seed;
} worker;

static void look_around(const pile* p, int round) {
  char text[512];
  tm_allocator_stats stats;
  tm_fault_counts counts;
  switch (round % 4) {
    case 0:
      TM_CHECK_OK(tm_tracking_report(p->top, text, sizeof text));
      break;
    case 1:
      TM_CHECK_OK(tm_guard_check(p->adaptors[1]));
      break;
    case 2:
      TM_CHECK_OK(tm_statistics_push(p->adaptors[2]));
      TM_CHECK_OK(tm_statistics_pop(p->adaptors[2], NULL));
      break;
    default:
      TM_CHECK_OK(tm_fault_get(p->adaptors[5], &counts));
      TM_CHECK_OK(tm_allocator_get_stats(p->adaptors[2], &stats));
  }
}

static void reserve_and_commit(const pile* p) {
  tm_limit_reservation room;
  if (tm_limit_reserve(p->adaptors[3], 2048, &room) != TM_OK) {
    TM_CHECK_EQ(tm_last_status(), TM_ERR_NO_MEMORY);
    return;
  }
  void* block;
  TM_CHECK_OK(tm_limit_commit(&room, 2000, NULL, &block));  // whatever the others take
  tm_allocator_free(p->adaptors[3], block, 2000, NULL);
  tm_limit_cancel(&room);
}

static void* use_all(void* argument) {
  worker* w = argument;
  void* live[LIVE] = {NULL};
  size_t sizes[LIVE] = {0};
  for (int round = 0; round < ROUNDS; round++) {
    TM_SCOPE("round");
    const int i = rand_r(&w->seed) % LIVE;
    tm_allocator_free(w->pile->top, live[i], sizes[i], NULL);
    sizes[i] = 1 + (size_t)rand_r(&w->seed) % 3000;
    const tm_status status = tm_allocator_alloc(w->pile->top, sizes[i], NULL, &live[i]);
    TM_CHECK(status == TM_OK || status == TM_ERR_NO_MEMORY, "%s", tm_last_error()->message);
    if (live[i]) {
      memset(live[i], round, sizes[i]);
    }
    if (round % 10 == 0) {
      look_around(w->pile, round / 10);
      reserve_and_commit(w->pile);
    }
  }
  for (int i = 0; i < LIVE; i++) {
    tm_allocator_free(w->pile->top, live[i], sizes[i], NULL);
  }
  return NULL;
}

static void run_threads(const pile* p) {
  pthread_t threads[THREADS];
  worker workers[THREADS];
  for (unsigned i = 0; i < THREADS; i++) {
    workers[i] = (worker){.pile = p, .seed = i + 1};
    TM_CHECK_EQ(pthread_create(&threads[i], NULL, use_all, &workers[i]), 0);
  }
  for (int i = 0; i < THREADS; i++) {
    TM_CHECK_EQ(pthread_join(threads[i], NULL), 0);
  }
}

static void all_over_host(void) {
  pile p;
  build(&p, tm_host_allocator());
  run_threads(&p);
  expect_nothing_live(&p);
  tear_down(&p);
}

// Its figures are plain: two threads inside at once are a race.
static void all_over_what_only_the_lock_makes_safe(void) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  pile p;
  build(&p, &upstream.base);
  run_threads(&p);
  expect_nothing_live(&p);
  tear_down(&p);
  TM_CHECK_EQ(upstream.live_bytes, 0u);
  TM_CHECK_EQ(upstream.allocs, upstream.frees);
  tm_allocator_release(&upstream.base);
  TM_CHECK(upstream.destroyed);
}

//===-- Over an arena ---------------------------------------------------------===//

static void* release_storage(void* storage) {
  tm_storage_release(storage);
  return NULL;
}

// One thread allocates, others free.
static void over_an_arena(void) {
  tm_allocator* stack = tm_stack_allocator_create(tm_host_allocator(), NULL, NULL);
  tm_allocator* guard = tm_guard_adaptor_create(stack);
  tm_allocator* statistics = tm_statistics_adaptor_create(guard);
  tm_allocator* tracking = tm_tracking_adaptor_create(statistics, NULL);
  TM_CHECK(tracking != NULL);
  for (int round = 0; round < ROUNDS / 4; round++) {
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++) {
      tm_storage* storage;
      TM_CHECK_OK(tm_storage_alloc(tracking, 100 + 10 * i, NULL, &storage));
      TM_CHECK_EQ(pthread_create(&threads[i], NULL, release_storage, storage), 0);
    }
    for (int i = 0; i < THREADS; i++) {
      TM_CHECK_EQ(pthread_join(threads[i], NULL), 0);
    }
  }
  tm_statistics_counters counters;
  TM_CHECK_OK(tm_statistics_get(statistics, &counters));
  TM_CHECK_EQ(counters.current_blocks, 0);
  TM_CHECK_EQ(counters.total_blocks, (uint64_t)THREADS * (ROUNDS / 4));
  tm_allocator_release(tracking);
  tm_allocator_release(statistics);
  tm_allocator_release(guard);
  tm_allocator_release(stack);
}

int main(void) {
  all_over_host();
  all_over_what_only_the_lock_makes_safe();
  over_an_arena();
  printf("adaptors: %d threads, %d rounds each\n", THREADS, ROUNDS);
  return 0;
}
