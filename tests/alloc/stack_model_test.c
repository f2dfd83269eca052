// The stack against a simple model: random sizes, lifetimes and orders, releases on another thread,
// resets, trims, reservations and pins. No two live blocks overlap, addresses are aligned, a block
// takes the place of one that was freed just before it, and the high-water mark is the model's.
// The seed is printed; TM_TEST_SEED sets it.

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

enum { STEPS = 1000000, MAX_LIVE = 300, ALIGNMENT = TM_HOST_ALIGNMENT };

// The model: what one unbounded region would hold.
typedef struct place {
  size_t end;     // bytes, from the region's start
  uint64_t name;  // of its block; 0: freed out of order
} place;

typedef struct model {
  counting_allocator upstream;
  tm_allocator* stack;
  size_t maximum;  // bytes the stack may hold; 0: no limit
  uint64_t random;
  tm_storage* live[MAX_LIVE];
  uint64_t name[MAX_LIVE];
  unsigned char stamp[MAX_LIVE];
  int count;
  int pins;
  uint64_t refusals;  // for the limit
  uint64_t names;
  place* places;  // in order of their ends
  size_t place_count;
  size_t place_capacity;
  size_t mark;  // the largest end there ever was
} model;

static uint64_t next_random(model* m) {  // xorshift64*
  m->random ^= m->random >> 12;
  m->random ^= m->random << 25;
  m->random ^= m->random >> 27;
  return m->random * 2685821657736338717u;
}

static size_t below(model* m, size_t bound) { return bound ? (size_t)(next_random(m) % bound) : 0; }

//===-- The model ---------------------------------------------------------===//

static size_t end_of_places(const model* m) {
  return m->place_count ? m->places[m->place_count - 1].end : 0;
}

static uint64_t add_place(model* m, size_t size) {
  if (m->place_count == m->place_capacity) {
    m->place_capacity = m->place_capacity ? 2 * m->place_capacity : 256;
    m->places = realloc(m->places, m->place_capacity * sizeof *m->places);
    cr_assert(m->places != NULL);
  }
  const size_t end = end_of_places(m) + (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  m->places[m->place_count++] = (place){end, ++m->names};
  m->mark = end > m->mark ? end : m->mark;
  return m->names;
}

// Blocks that a reset has set aside have no place.
static void free_place(model* m, uint64_t name) {
  for (size_t i = m->place_count; i-- > 0;) {
    if (m->places[i].name == name) {
      m->places[i].name = 0;
      break;
    }
  }
  while (m->place_count && m->places[m->place_count - 1].name == 0) {
    m->place_count--;
  }
}

static void expect_the_models_mark(const model* m) {
  size_t mark = 0;
  cr_assert(eq(int, tm_stack_high_water_mark(m->stack, &mark), TM_OK));
  cr_assert(eq(sz, mark, m->mark));
}

//===-- Steps -------------------------------------------------------------===//

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

static size_t random_size(model* m) {
  return 1 + (below(m, 20) ? below(m, 4000) : below(m, 3000000));
}

static void add_block(model* m, tm_storage* storage) {
  cr_assert(eq(sz, (uintptr_t)storage->data % ALIGNMENT, 0));
  expect_no_overlap(m, storage);
  m->live[m->count] = storage;
  m->name[m->count] = add_place(m, storage->size);
  stamp(m, m->count++);
}

static void allocate(model* m) {
  tm_storage* storage;
  const tm_status status = tm_storage_alloc(m->stack, random_size(m), NULL, &storage);
  if (status == TM_OK) {
    add_block(m, storage);
    return;
  }
  cr_assert(eq(int, status, TM_ERR_NO_MEMORY));
  cr_assert(storage == NULL);
  cr_assert(m->pins > 0 || m->maximum, "out of memory without a limit: %s",
            tm_last_error()->message);
  m->refusals += m->pins == 0;
}

static tm_storage* take_out(model* m, int i) {
  check_stamp(m, i);
  tm_storage* storage = m->live[i];
  free_place(m, m->name[i]);
  m->count--;
  memmove(&m->live[i], &m->live[i + 1], (size_t)(m->count - i) * sizeof m->live[0]);
  memmove(&m->name[i], &m->name[i + 1], (size_t)(m->count - i) * sizeof m->name[0]);
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

// Gives the latest block back and asks for as much again. Returns its address.
static const void* replace_latest(model* m) {
  tm_storage* storage = take_out(m, m->count - 1);
  const size_t size = storage->size;
  tm_storage_release(storage);
  cr_assert(eq(int, tm_storage_alloc(m->stack, size, NULL, &storage), TM_OK));
  add_block(m, storage);
  return storage->data;
}

// What is freed last is used first: the same request again is the same address. Only the first time
// may the stack step back to where it has room below.
static void allocate_again_and_again(model* m) {
  const int before = m->count;
  allocate(m);
  if (m->count > before) {
    const void* address = replace_latest(m);
    cr_assert(eq(ptr, (void*)replace_latest(m), (void*)address));
  }
}

static void reserve(model* m) {
  const tm_status status = tm_stack_reserve(m->stack, below(m, 1 << 24));
  cr_assert(status == TM_OK || (m->maximum && status == TM_ERR_NO_MEMORY));
}

// Refused while blocks are in several regions.
static void pin(model* m) {
  const tm_status status = tm_stack_pin(m->stack);
  cr_assert(status == TM_OK || status == TM_ERR_INVALID ||
            (m->maximum && status == TM_ERR_NO_MEMORY));
  m->pins += status == TM_OK;
}

static void step(model* m) {
  const size_t action = below(m, 10000);
  if (action < 500 && m->count < MAX_LIVE) {
    allocate_again_and_again(m);
  } else if (action < 5000 && m->count < MAX_LIVE) {
    allocate(m);
  } else if (action < 9950 && m->count) {  // mostly in reverse order
    const int i = action < 9000 ? m->count - 1 : (int)below(m, (size_t)m->count);
    tm_storage_release(take_out(m, i));
  } else if (action < 9955) {
    release_elsewhere(m);
  } else if (action < 9970) {
    const tm_status status = tm_stack_reset(m->stack);
    cr_assert(status == TM_OK || (m->pins && m->count && status == TM_ERR_INVALID));
    m->place_count = status == TM_OK ? 0 : m->place_count;
  } else if (action < 9980) {
    cr_assert(eq(int, tm_allocator_trim(m->stack, below(m, 1 << 24)), TM_OK));
  } else if (action < 9990 && !m->pins) {
    reserve(m);
  } else if (action < 9995) {
    pin(m);
  } else {
    for (; m->pins; m->pins--) {
      cr_assert(eq(int, tm_stack_unpin(m->stack), TM_OK));
    }
  }
}

static uint64_t seed_of_this_run(void) {
  const char* text = getenv("TM_TEST_SEED");
  const uint64_t seed = text ? strtoull(text, NULL, 0) : (uint64_t)time(NULL) * 2 + 1;
  printf("TM_TEST_SEED=%llu\n", (unsigned long long)seed);
  return seed ? seed : 1;
}

static void open_model(model* m, size_t initial, size_t maximum) {
  memset(m, 0, sizeof *m);
  m->random = seed_of_this_run();
  m->maximum = maximum;
  counting_allocator_init(&m->upstream);
  const tm_stack_options options = {.initial_bytes = initial, .maximum_bytes = maximum};
  m->stack = tm_stack_allocator_create(&m->upstream.base, NULL, &options);
  cr_assert(m->stack != NULL);
  cr_assert(m->upstream.live_bytes >= initial);
}

static void close_model(model* m) {
  while (m->count) {
    tm_storage_release(take_out(m, m->count - 1));
  }
  tm_allocator_release(m->stack);
  tm_allocator_release(&m->upstream.base);
  cr_expect(m->upstream.destroyed);
  cr_expect(eq(sz, m->upstream.live_bytes, 0));
  free(m->places);
}

static void take_steps(model* m, int steps) {
  for (int i = 0; i < steps; i++) {
    step(m);
    if (i % 64 == 0) {
      expect_the_models_mark(m);
    }
    cr_assert(m->maximum == 0 || m->upstream.live_bytes <= m->maximum);
  }
  expect_the_models_mark(m);
}

Test(stack_model, a_million_random_operations) {
  static model m;
  open_model(&m, 0, 0);
  take_steps(&m, STEPS);
  tm_allocator_stats stats;
  cr_assert(eq(int, tm_allocator_get_stats(m.stack, &stats), TM_OK));
  cr_expect(eq(u64, stats.live_blocks, (uint64_t)m.count));
  cr_expect(eq(u64, stats.reserved_bytes, m.upstream.live_bytes));
  close_model(&m);
}

Test(stack_model, a_stack_with_a_limit_never_holds_more) {
  static model m;
  open_model(&m, 1 << 20, 8 << 20);
  take_steps(&m, STEPS / 4);
  cr_expect(m.refusals > 0, "nothing came near the limit");
  close_model(&m);
}

// One iteration: the same requests in the same order, freed in a random order, some of them living
// on into the next iteration.
static void iterate(model* m, const size_t* sizes, int blocks, int live_on) {
  cr_assert(eq(int, tm_stack_reset(m->stack), TM_OK));
  m->place_count = 0;
  const int carried = m->count;
  for (int i = 0; i < blocks; i++) {
    tm_storage* storage;
    cr_assert(eq(int, tm_storage_alloc(m->stack, sizes[i], NULL, &storage), TM_OK));
    add_block(m, storage);
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
  open_model(&m, 0, 0);
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

// An iteration of random requests that together ask for at most `bytes`; up to 3 of them live on.
static void iterate_at_random(model* m, size_t bytes) {
  size_t sizes[64];
  int blocks = 0;
  size_t left = bytes / ALIGNMENT;
  while (blocks < 64 && left > 0) {
    const size_t units = 1 + below(m, left < 4000 ? left : 4000);
    sizes[blocks++] = units * ALIGNMENT - below(m, ALIGNMENT);
    left -= units;
  }
  iterate(m, sizes, blocks, (int)below(m, 4));
}

Test(stack_model, iterations_of_other_sizes_below_an_earlier_one_make_no_upstream_call_either) {
  static model m;
  open_model(&m, 0, 0);
  const size_t largest = 3 << 20;
  size_t sizes[16];
  for (int i = 0; i < 16; i++) {
    sizes[i] = largest / 16;
  }
  for (int i = 0; i < 8; i++) {  // the largest, with blocks that live on
    iterate(&m, sizes, 16, 3);
  }
  const uint64_t allocs = m.upstream.allocs;
  const uint64_t frees = m.upstream.frees;
  for (int i = 0; i < 5000; i++) {
    iterate_at_random(&m, below(&m, largest + 1));
  }
  cr_expect(eq(u64, m.upstream.allocs, allocs));
  cr_expect(eq(u64, m.upstream.frees, frees));
  close_model(&m);
}
