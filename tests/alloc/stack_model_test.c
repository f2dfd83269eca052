// The stack against a simple model: random sizes, lifetimes and orders, releases on another thread,
// resets, trims, reservations and pins. After every step no two live blocks overlap, addresses are
// aligned, and the high-water mark is the model's. The seed is printed; TM_TEST_SEED sets it.

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/support/counting_allocator.h"
#include "tm/alloc/stack.h"
#include "tm/alloc/storage.h"

enum { STEPS = 1000000, MAX_LIVE = 300 };

typedef struct model {
  counting_allocator upstream;
  tm_allocator* stack;
  uint64_t random;
  tm_storage* live[MAX_LIVE];
  unsigned char stamp[MAX_LIVE];
  int count;
  int pins;
} model;

static uint64_t next_random(model* m) {  // xorshift64*
  m->random ^= m->random >> 12;
  m->random ^= m->random << 25;
  m->random ^= m->random >> 27;
  return m->random * 2685821657736338717u;
}

static size_t below(model* m, size_t bound) { return bound ? (size_t)(next_random(m) % bound) : 0; }

static void expect_no_overlap(const model* m, const tm_storage* added) {
  const char* low = added->data;
  const char* high = low + added->size;
  for (int i = 0; i < m->count; i++) {
    const char* other = m->live[i]->data;
    cr_assert(high <= other || other + m->live[i]->size <= low, "blocks overlap");
  }
}

// Stamps the first and last byte: a block that another one was given on top of shows it.
static void stamp(model* m, int i) {
  m->stamp[i] = (unsigned char)next_random(m);
  unsigned char* bytes = m->live[i]->data;
  bytes[0] = bytes[m->live[i]->size - 1] = m->stamp[i];
}

static void check_stamp(const model* m, int i) {
  const unsigned char* bytes = m->live[i]->data;
  cr_assert(eq(int, bytes[0], m->stamp[i]));
  cr_assert(eq(int, bytes[m->live[i]->size - 1], m->stamp[i]));
}

static void allocate(model* m) {
  const size_t size = 1 + (below(m, 20) ? below(m, 4000) : below(m, 3000000));
  tm_storage* storage;
  const tm_status status = tm_storage_alloc(m->stack, size, NULL, &storage);
  if (status != TM_OK) {
    cr_assert(eq(int, status, TM_ERR_NO_MEMORY));
    cr_assert(m->pins > 0, "out of memory without a limit: %s", tm_last_error()->message);
    return;
  }
  cr_assert(eq(sz, (uintptr_t)storage->data % 64, 0));
  expect_no_overlap(m, storage);
  m->live[m->count] = storage;
  stamp(m, m->count++);
}

static tm_storage* take_out(model* m, int i) {
  check_stamp(m, i);
  tm_storage* storage = m->live[i];
  m->count--;
  memmove(&m->live[i], &m->live[i + 1], (size_t)(m->count - i) * sizeof m->live[0]);
  memmove(&m->stamp[i], &m->stamp[i + 1], (size_t)(m->count - i));
  return storage;
}

static void* release_all(void* list) {
  for (tm_storage** storage = list; *storage; storage++) {
    tm_storage_release(*storage);
  }
  return NULL;
}

// Releases up to 16 random blocks on another thread.
static void release_elsewhere(model* m) {
  tm_storage* list[17] = {NULL};
  for (int i = 0; i < 16 && m->count; i++) {
    list[i] = take_out(m, (int)below(m, (size_t)m->count));
  }
  pthread_t thread;
  cr_assert(eq(int, pthread_create(&thread, NULL, release_all, list), 0));
  pthread_join(thread, NULL);
}

static void step(model* m) {
  const size_t action = below(m, 10000);
  if (action < 5000 && m->count < MAX_LIVE) {
    allocate(m);
  } else if (action < 9950 && m->count) {  // mostly in reverse order
    const int i = action < 9000 ? m->count - 1 : (int)below(m, (size_t)m->count);
    tm_storage_release(take_out(m, i));
  } else if (action < 9955) {
    release_elsewhere(m);
  } else if (action < 9970) {
    const tm_status status = tm_stack_reset(m->stack);
    cr_assert(status == TM_OK || (m->pins && m->count && status == TM_ERR_INVALID));
  } else if (action < 9980) {
    cr_assert(eq(int, tm_allocator_trim(m->stack, below(m, 1 << 24)), TM_OK));
  } else if (action < 9990 && !m->pins) {
    cr_assert(eq(int, tm_stack_reserve(m->stack, below(m, 1 << 24)), TM_OK));
  } else if (action < 9995) {
    const tm_status status = tm_stack_pin(m->stack);  // refused while blocks are in several regions
    cr_assert(status == TM_OK || status == TM_ERR_INVALID);
    m->pins += status == TM_OK;
  } else if (m->pins) {
    cr_assert(eq(int, tm_stack_unpin(m->stack), TM_OK));
    m->pins--;
  }
}

static uint64_t seed_of_this_run(void) {
  const char* text = getenv("TM_TEST_SEED");
  const uint64_t seed = text ? strtoull(text, NULL, 0) : (uint64_t)time(NULL) * 2 + 1;
  printf("TM_TEST_SEED=%llu\n", (unsigned long long)seed);
  return seed ? seed : 1;
}

static void open_model(model* m) {
  memset(m, 0, sizeof *m);
  m->random = seed_of_this_run();
  counting_allocator_init(&m->upstream);
  m->stack = tm_stack_allocator_create(&m->upstream.base, NULL, NULL);
  cr_assert(m->stack != NULL);
}

static void close_model(model* m) {
  while (m->count) {
    tm_storage_release(take_out(m, m->count - 1));
  }
  tm_allocator_release(m->stack);
  tm_allocator_release(&m->upstream.base);
  cr_expect(m->upstream.destroyed);
  cr_expect(eq(sz, m->upstream.live_bytes, 0));
}

Test(stack_model, a_million_random_operations) {
  static model m;
  open_model(&m);
  for (int i = 0; i < STEPS; i++) {
    step(&m);
  }
  tm_allocator_stats stats;
  cr_assert(eq(int, tm_allocator_get_stats(m.stack, &stats), TM_OK));
  cr_expect(eq(u64, stats.live_blocks, (uint64_t)m.count));
  cr_expect(eq(u64, stats.reserved_bytes, m.upstream.live_bytes));
  close_model(&m);
}

// One iteration: the same requests in the same order, freed in a random order, some of them living
// on into the next iteration.
static void iterate(model* m, const size_t* sizes, int blocks, int live_on) {
  cr_assert(eq(int, tm_stack_reset(m->stack), TM_OK));
  const int carried = m->count;
  for (int i = 0; i < blocks; i++) {
    tm_storage* storage;
    cr_assert(eq(int, tm_storage_alloc(m->stack, sizes[i], NULL, &storage), TM_OK));
    expect_no_overlap(m, storage);
    m->live[m->count] = storage;
    stamp(m, m->count++);
  }
  for (int i = 0; i < carried; i++) {
    tm_storage_release(take_out(m, 0));
  }
  while (m->count > live_on) {
    tm_storage_release(take_out(m, (int)below(m, (size_t)m->count)));
  }
}

Test(stack_model, an_iteration_no_larger_than_an_earlier_one_makes_no_upstream_call) {
  static model m;
  open_model(&m);
  size_t sizes[64];
  for (int live_on = 0; live_on <= 4; live_on += 2) {
    for (int i = 0; i < 64; i++) {
      sizes[i] = 1 + below(&m, 200000);
    }
    uint64_t calls = 0;
    for (int i = 0; i < 200; i++) {
      iterate(&m, sizes, 64, live_on);
      if (i == 8) {
        calls = m.upstream.allocs;
      }
    }
    cr_expect(eq(u64, m.upstream.allocs, calls), "with %d blocks living on", live_on);
  }
  close_model(&m);
}
