// Caches under threads, for ThreadSanitizer: all allocate, free each other's blocks and trim at
// once, and whoever returns the last block of a released cache takes it along.

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/counting_allocator.h"
#include "tm/alloc/cached.h"
#include "tm/alloc/callback.h"
#include "tm/alloc/host.h"
#include "tm/alloc/pinned.h"
#include "tm/alloc/stream.h"
#include "tm/check.h"

enum { THREADS = 4, ROUNDS = 6000, SHELF = 64, CLOSINGS = 300 };

static const size_t maximum = (size_t)64 << 20;

typedef struct shared_cache {
  tm_allocator* cached;
  void* shelf[SHELF];  // atomic: blocks of the size that goes with the place
} shared_cache;

typedef struct worker {
  shared_cache* shared;
  uint64_t random;
  tm_stream* stream;  // or NULL
  uint64_t refused;
} worker;

static uint64_t next_random(worker* w) {  // xorshift64*
  w->random ^= w->random >> 12;
  w->random ^= w->random << 25;
  w->random ^= w->random >> 27;
  return w->random * 2685821657736338717u;
}

static size_t size_of(size_t place) { return 100 + place * place * 300; }

// The first and the last bytes say whose place the block is for: two owners would show.
static void stamp(void* block, size_t place) {
  memset(block, (int)place, 64);
  memset((char*)block + size_of(place) - 36, (int)place, 36);
}

static void check_stamp(const void* block, size_t place) {
  const unsigned char* bytes = block;
  TM_CHECK_EQ(bytes[0], place);
  TM_CHECK_EQ(bytes[size_of(place) - 1], place);
}

static void give(worker* w, void* block, size_t place) {
  if (block) {
    check_stamp(block, place);
    tm_allocator_free(w->shared->cached, block, size_of(place), w->stream);
  }
}

// Puts a new block in a place, and frees the one that was there, whoever put it there.
static void exchange(worker* w) {
  const size_t place = (size_t)(next_random(w) % SHELF);
  void* block = NULL;
  const tm_status status = tm_allocator_alloc(w->shared->cached, size_of(place), w->stream, &block);
  if (status == TM_OK) {
    stamp(block, place);
  } else {
    TM_CHECK_EQ(status, TM_ERR_NO_MEMORY);
    w->refused++;
  }
  give(w, __atomic_exchange_n(&w->shared->shelf[place], block, __ATOMIC_ACQ_REL), place);
}

static void* work(void* argument) {
  worker* w = argument;
  for (int i = 0; i < ROUNDS; i++) {
    exchange(w);
    if (next_random(w) % 300 == 0) {
      TM_CHECK_OK(tm_allocator_trim(w->shared->cached, 0));
      TM_CHECK(tm_cached_is_valid(w->shared->cached));
    }
    if (next_random(w) % 500 == 0) {
      tm_allocator_stats stats;
      TM_CHECK_OK(tm_allocator_get_stats(w->shared->cached, &stats));
      TM_CHECK(stats.live_bytes <= stats.reserved_bytes && stats.reserved_bytes <= maximum);
    }
  }
  return NULL;
}

static void work_together(tm_allocator* cached, bool with_streams) {
  static shared_cache shared;
  shared = (shared_cache){.cached = cached};
  worker workers[THREADS];
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; i++) {
    workers[i] = (worker){.shared = &shared, .random = (uint64_t)i + 1};
    workers[i].stream = with_streams ? tm_stream_create(0, 0) : NULL;
    TM_CHECK_EQ(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
  }
  for (int i = 0; i < THREADS; i++) {
    TM_CHECK_EQ(pthread_join(threads[i], NULL), 0);
  }
  for (size_t place = 0; place < SHELF; place++) {
    give(&workers[0], shared.shelf[place], place);
  }
  for (int i = 0; i < THREADS; i++) {
    TM_CHECK_EQ(workers[i].refused, 0);  // all places together need less than the maximum
    if (workers[i].stream) {
      TM_CHECK_OK(tm_stream_sync(workers[i].stream));
      tm_stream_release(workers[i].stream);
    }
  }
  TM_CHECK_OK(tm_allocator_trim(cached, 0));
  tm_allocator_stats stats;
  TM_CHECK_OK(tm_allocator_get_stats(cached, &stats));
  TM_CHECK_EQ(stats.live_blocks, 0);
  TM_CHECK_EQ(stats.reserved_bytes, 0);
  tm_allocator_release(cached);
}

static tm_allocator* create(tm_allocator* upstream) {
  tm_allocator* cached =
      tm_cached_allocator_create(upstream, NULL, &(tm_cached_options){.maximum_bytes = maximum});
  TM_CHECK(cached != NULL);
  return cached;
}

static void host_memory_is_shared(void) { work_together(create(tm_host_allocator()), false); }

static void pinned_memory_is_shared(void) {
  tm_auto_stream probe = tm_stream_create(0, 0);
  if (!probe) {
    printf("SKIPPED: pinned memory: %s\n", tm_last_error()->message);
    return;
  }
  work_together(create(tm_pinned_allocator()), true);
}

//===-- Closing -------------------------------------------------------------===//

typedef struct closing {
  tm_allocator* cached;
  void* blocks[4];
} closing;

static void* return_two(void* argument) {
  const closing* c = argument;
  tm_allocator_free(c->cached, c->blocks[0], 1000, NULL);
  tm_allocator_free(c->cached, c->blocks[1], 1000, NULL);
  return NULL;
}

static void* drop(void* argument) {
  tm_allocator_release(((closing*)argument)->cached);
  return NULL;
}

// Two threads return blocks, a third drops the cache, all at once.
static void closing_races_with_frees(void) {
  for (int round = 0; round < CLOSINGS; round++) {
    counting_allocator upstream;
    counting_allocator_init(&upstream);
    closing c = {.cached = create(&upstream.base)};
    tm_allocator_release(&upstream.base);
    for (int i = 0; i < 4; i++) {
      TM_CHECK_OK(tm_allocator_alloc(c.cached, 1000, NULL, &c.blocks[i]));
    }
    pthread_t returner;
    pthread_t dropper;
    TM_CHECK_EQ(pthread_create(&returner, NULL, return_two, &c), 0);
    TM_CHECK_EQ(pthread_create(&dropper, NULL, drop, &c), 0);
    for (int i = 0; i < round % 16; i++) {
      (void)sched_yield();
    }
    tm_allocator_free(c.cached, c.blocks[2], 1000, NULL);
    tm_allocator_free(c.cached, c.blocks[3], 1000, NULL);
    TM_CHECK_EQ(pthread_join(returner, NULL), 0);
    TM_CHECK_EQ(pthread_join(dropper, NULL), 0);
    TM_CHECK(upstream.destroyed);
    TM_CHECK_EQ(upstream.live_bytes, 0);
  }
}

//===-- Waiting for what another thread obtains -------------------------------===//

// An upstream that is slow, and has exactly one segment.
typedef struct slow_memory {
  _Alignas(256) char bytes[4 << 20];
  bool is_out;  // atomic
} slow_memory;

static tm_status slow_alloc(size_t size, tm_stream* stream, void** out, void* user) {
  (void)stream;
  slow_memory* memory = user;
  if (size > sizeof memory->bytes || __atomic_exchange_n(&memory->is_out, true, __ATOMIC_ACQ_REL)) {
    return TM_ERR_NO_MEMORY;
  }
  for (int i = 0; i < 100; i++) {
    (void)sched_yield();
  }
  *out = memory->bytes;
  return TM_OK;
}

static void slow_free(void* ptr, size_t size, tm_stream* stream, void* user) {
  (void)size;
  (void)stream;
  slow_memory* memory = user;
  TM_CHECK(ptr == memory->bytes);
  __atomic_store_n(&memory->is_out, false, __ATOMIC_RELEASE);
}

static void* take_and_give(void* argument) {
  tm_allocator* cached = argument;
  for (int i = 0; i < 200; i++) {
    void* block;
    TM_CHECK_OK(tm_allocator_alloc(cached, 100000, NULL, &block));
    tm_allocator_free(cached, block, 100000, NULL);
    if (i % 20 == 0) {
      TM_CHECK_OK(tm_allocator_trim(cached, 0));
    }
  }
  return NULL;
}

// Nobody is refused because another thread is just obtaining the memory, or giving it back.
static void nobody_is_refused_meanwhile(void) {
  static slow_memory memory;
  tm_auto_allocator upstream = tm_callback_allocator_create(
      &(tm_callback_options){.alloc = slow_alloc, .free = slow_free, .user = &memory});
  tm_auto_allocator cached = create(upstream);
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; i++) {
    TM_CHECK_EQ(pthread_create(&threads[i], NULL, take_and_give, cached), 0);
  }
  for (int i = 0; i < THREADS; i++) {
    TM_CHECK_EQ(pthread_join(threads[i], NULL), 0);
  }
}

int main(void) {
  host_memory_is_shared();
  pinned_memory_is_shared();
  closing_races_with_frees();
  nobody_is_refused_meanwhile();
  printf("cached_threads_test: done\n");
  return 0;
}
