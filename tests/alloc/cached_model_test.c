// The cached allocator against a simple model: random sizes, lifetimes and orders, frees on another
// thread, trims, and an upstream that fails and is short of memory. After every step no two live
// blocks overlap, addresses are aligned and the counts are the model's; what fails, fails for want
// of memory, and never where a free block would have done. The seed is printed; TM_TEST_SEED sets
// it.

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/support/counting_allocator.h"
#include "tm/alloc/cached.h"

enum { STEPS = 60000, MAX_LIVE = 300, ALIGNMENT = 64 };

typedef struct model_block {
  unsigned char* ptr;
  size_t size;
  unsigned char stamp;
} model_block;

typedef struct model {
  counting_allocator upstream;
  tm_allocator* cached;
  size_t maximum;  // bytes; 0: none
  uint64_t random;
  model_block live[MAX_LIVE];
  int count;
  uint64_t live_bytes;  // rounded
  uint64_t refused;     // allocations
} model;

static uint64_t next_random(model* m) {  // xorshift64*
  m->random ^= m->random >> 12;
  m->random ^= m->random << 25;
  m->random ^= m->random >> 27;
  return m->random * 2685821657736338717u;
}

static size_t below(model* m, size_t bound) { return bound ? (size_t)(next_random(m) % bound) : 0; }

static uint64_t rounded(size_t size) { return (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

static tm_allocator_stats stats_of(const model* m) {
  tm_allocator_stats stats;
  cr_assert(eq(int, tm_allocator_get_stats(m->cached, &stats), TM_OK));
  return stats;
}

static void check(const model* m) {
  const tm_allocator_stats stats = stats_of(m);
  cr_assert(tm_cached_is_valid(m->cached));
  cr_assert(eq(u64, stats.live_bytes, m->live_bytes));
  cr_assert(eq(u64, stats.live_blocks, (uint64_t)m->count));
  cr_assert(eq(u64, stats.reserved_bytes, m->upstream.live_bytes));
  cr_assert(stats.reserved_bytes >= stats.live_bytes);
  cr_assert(stats.largest_free_bytes <= stats.reserved_bytes - stats.live_bytes);
  cr_assert(m->maximum == 0 || m->upstream.peak_bytes <= m->maximum);
}

static void expect_no_overlap(const model* m, const unsigned char* low, size_t size) {
  const unsigned char* high = low + size;
  for (int i = 0; i < m->count; i++) {
    const model_block* other = &m->live[i];
    cr_assert(high <= other->ptr || other->ptr + other->size <= low, "blocks overlap");
  }
}

// Stamps the first and last byte: a block that another one was given on top of shows it.
static void add(model* m, void* ptr, size_t size) {
  expect_no_overlap(m, ptr, size);
  model_block* block = &m->live[m->count++];
  *block = (model_block){ptr, size, (unsigned char)next_random(m)};
  block->ptr[0] = block->ptr[size - 1] = block->stamp;
  m->live_bytes += rounded(size);
}

static size_t random_size(model* m) {
  static const size_t bounds[] = {200, 4000, 100000, 3000000};
  return 1 + below(m, bounds[below(m, 4)]);
}

// What fails has asked the upstream in vain, or could not for the maximum.
static void allocate(model* m) {
  const size_t size = random_size(m);
  const tm_allocator_stats before = stats_of(m);
  const uint64_t failures = m->upstream.failures;
  void* block = m;
  const tm_status status = tm_allocator_alloc(m->cached, size, NULL, &block);
  if (status == TM_OK) {
    cr_assert(eq(sz, (uintptr_t)block % ALIGNMENT, 0));
    add(m, block, size);
    return;
  }
  m->refused++;
  cr_assert(eq(int, status, TM_ERR_NO_MEMORY));
  cr_assert(eq(ptr, block, NULL));
  cr_assert(before.largest_free_bytes < rounded(size), "%zu bytes refused, %llu are free", size,
            (unsigned long long)before.largest_free_bytes);
  cr_assert(m->upstream.failures > failures ||
            (m->maximum && before.live_bytes + rounded(size) > m->maximum) ||
            (m->maximum && stats_of(m).reserved_bytes + rounded(size) > m->maximum));
}

static model_block take_out(model* m, int i) {
  const model_block block = m->live[i];
  cr_assert(eq(int, block.ptr[0], block.stamp));
  cr_assert(eq(int, block.ptr[block.size - 1], block.stamp));
  m->live[i] = m->live[--m->count];
  m->live_bytes -= rounded(block.size);
  return block;
}

static void release(model* m, int i) {
  const model_block block = take_out(m, i);
  tm_allocator_free(m->cached, block.ptr, block.size, NULL);
}

typedef struct returned {
  tm_allocator* cached;
  model_block blocks[16];
  int count;
} returned;

static void* release_all(void* argument) {
  const returned* list = argument;
  for (int i = 0; i < list->count; i++) {
    tm_allocator_free(list->cached, list->blocks[i].ptr, list->blocks[i].size, NULL);
  }
  return NULL;
}

static void release_elsewhere(model* m) {
  returned list = {.cached = m->cached};
  while (list.count < 16 && m->count) {
    list.blocks[list.count++] = take_out(m, (int)below(m, (size_t)m->count));
  }
  pthread_t thread;
  cr_assert(pthread_create(&thread, NULL, release_all, &list) == 0);
  cr_assert(pthread_join(thread, NULL) == 0);
}

static void trim(model* m) {
  const size_t keep = below(m, 2) ? below(m, 50000000) : 0;
  cr_assert(eq(int, tm_allocator_trim(m->cached, keep), TM_OK));
  cr_assert(stats_of(m).reserved_bytes >= m->live_bytes);
}

static void step(model* m) {
  const size_t action = below(m, 10000);
  if (action < 5000 && m->count < MAX_LIVE) {
    allocate(m);
  } else if (action < 9900) {
    if (m->count) {
      release(m, (int)below(m, (size_t)m->count));
    }
  } else if (action < 9910) {
    release_elsewhere(m);
  } else if (action < 9930) {
    trim(m);
  } else if (action < 9960) {
    m->upstream.fail_in = 1 + (int64_t)below(m, 3);
  } else if (action < 9980) {
    m->upstream.budget = below(m, 2) ? SIZE_MAX : m->upstream.live_bytes + below(m, 5000000);
  } else if (action < 9985) {
    while (m->count) {
      release(m, m->count - 1);
    }
  }
}

static uint64_t seed_of_this_run(void) {
  const char* text = getenv("TM_TEST_SEED");
  const uint64_t seed = text ? strtoull(text, NULL, 0) : (uint64_t)time(NULL) * 2 + 1;
  printf("TM_TEST_SEED=%llu\n", (unsigned long long)seed);
  return seed ? seed : 1;
}

static void open_model(model* m, size_t maximum) {
  memset(m, 0, sizeof *m);
  m->random = seed_of_this_run() + maximum;
  m->maximum = maximum;
  counting_allocator_init(&m->upstream);
  m->cached = tm_cached_allocator_create(&m->upstream.base, NULL,
                                         &(tm_cached_options){.maximum_bytes = maximum});
  cr_assert(m->cached != NULL);
}

// With nothing live every segment is one free block, or it could not be given back.
static void close_model(model* m) {
  while (m->count) {
    release(m, (int)below(m, (size_t)m->count));
  }
  check(m);
  cr_expect(eq(int, tm_allocator_trim(m->cached, 0), TM_OK));
  cr_expect(eq(sz, m->upstream.live_bytes, 0));
  tm_allocator_release(m->cached);
  tm_allocator_release(&m->upstream.base);
  cr_expect(m->upstream.destroyed);
}

static void run(size_t maximum) {
  static model m;
  open_model(&m, maximum);
  for (int i = 0; i < STEPS; i++) {
    step(&m);
    check(&m);
  }
  cr_expect(m.refused > 0, "nothing was ever refused");
  close_model(&m);
}

Test(cached_model, random_operations_without_a_limit) { run(0); }

Test(cached_model, random_operations_with_a_limit) { run(30000000); }
