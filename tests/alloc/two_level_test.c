// The index of free blocks against a linear search: a fit is found whenever there is one, and it is
// hardly larger than the smallest.

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "alloc/two_level.h"

enum { BLOCKS = 400, STEPS = 100000 };

static two_level_index two_level;
static two_level_block blocks[BLOCKS];
static bool is_in[BLOCKS];
static uint64_t state;

static uint64_t next_random(void) {  // xorshift64*
  state ^= state >> 12;
  state ^= state << 25;
  state ^= state >> 27;
  return state * 2685821657736338717u;
}

// Every power of two is as likely as any other.
static size_t random_bytes(void) {
  const size_t steps = (size_t)1 << next_random() % 24;
  return (steps + (size_t)(next_random() % steps)) * 64;
}

static void make_empty(void) { two_level_init(&two_level); }

TestSuite(two_level, .init = make_empty);

static void seed(void) {
  const char* text = getenv("TM_TEST_SEED");
  state = text ? strtoull(text, NULL, 0) : (uint64_t)time(NULL) * 2 + 1;
  printf("TM_TEST_SEED=%llu\n", (unsigned long long)state);
}

static void toggle(size_t i) {
  if (is_in[i]) {
    two_level_remove(&two_level, &blocks[i]);
  } else {
    blocks[i].base = (char*)(uintptr_t)(i * 4096);
    blocks[i].bytes = random_bytes();
    two_level_insert(&two_level, &blocks[i]);
  }
  is_in[i] = !is_in[i];
}

static size_t smallest_fit(size_t bytes) {
  size_t smallest = SIZE_MAX;
  for (size_t i = 0; i < BLOCKS; i++) {
    if (is_in[i] && blocks[i].bytes >= bytes && blocks[i].bytes < smallest) {
      smallest = blocks[i].bytes;
    }
  }
  return smallest;
}

static size_t largest(void) {
  size_t bytes = 0;
  for (size_t i = 0; i < BLOCKS; i++) {
    bytes = is_in[i] && blocks[i].bytes > bytes ? blocks[i].bytes : bytes;
  }
  return bytes;
}

Test(two_level, finds_a_fit_whenever_there_is_one) {
  seed();
  for (int i = 0; i < STEPS; i++) {
    toggle((size_t)(next_random() % BLOCKS));
    const size_t bytes = random_bytes();
    const two_level_block* found = two_level_find(&two_level, bytes);
    const size_t smallest = smallest_fit(bytes);
    cr_assert(eq(int, found != NULL, smallest != SIZE_MAX));
    if (found) {
      cr_assert(is_in[found - blocks] && found->bytes >= bytes);
      const double excess = (double)found->bytes / (double)smallest - 1;
      cr_assert(excess <= 2.0 / TWO_LEVEL_SECOND, "%zu for %zu, where %zu is there", found->bytes,
                bytes, smallest);
    }
    cr_assert(eq(sz, two_level_largest(&two_level), largest()));
  }
}

Test(two_level, a_fit_behind_many_blocks_of_its_class_is_found) {
  enum { MANY = 100 };
  static two_level_block many[MANY];
  const size_t bytes = (size_t)64 << 20;
  for (size_t i = 0; i < MANY; i++) {  // the first one put in is the last to be looked at
    many[i] = (two_level_block){.bytes = bytes + (i == 0 ? 8192 : 0)};
    two_level_insert(&two_level, &many[i]);
  }
  cr_expect(eq(ptr, two_level_find(&two_level, bytes + 4096), &many[0]));
  cr_expect(eq(ptr, two_level_find(&two_level, bytes + 16384), NULL));
}

// In a list of any length, and wherever in it: at its front, in the middle, at its end.
Test(two_level, what_is_taken_out_is_found_no_more) {
  enum { MANY = 5 };
  two_level_block many[MANY];
  for (size_t length = 1; length <= MANY; length++) {
    for (size_t gone = 0; gone < length; gone++) {
      for (size_t i = 0; i < length; i++) {
        many[i] = (two_level_block){.bytes = 1 << 20};
        two_level_insert(&two_level, &many[i]);
      }
      two_level_remove(&two_level, &many[gone]);
      for (size_t i = 1; i < length; i++) {
        two_level_block* found = two_level_find(&two_level, 1 << 20);
        cr_assert(found >= many && found < many + length && found != &many[gone]);
        two_level_remove(&two_level, found);
      }
      cr_expect(eq(ptr, two_level_find(&two_level, 64), NULL));
      cr_expect(eq(u64, two_level.first, 0));
    }
  }
}

Test(two_level, of_equals_the_last_one_put_in_is_found) {
  two_level_block many[3] = {{.bytes = 4096}, {.bytes = 4096}, {.bytes = 4160}};
  for (int i = 0; i < 3; i++) two_level_insert(&two_level, &many[i]);
  cr_expect(eq(ptr, two_level_find(&two_level, 4160), &many[2]));
  two_level_remove(&two_level, &many[2]);
  cr_expect(eq(ptr, two_level_find(&two_level, 4096), &many[1]));
}

Test(two_level, the_extremes_have_classes) {
  two_level_block smallest = {.bytes = 64};
  two_level_block largest_possible = {.bytes = SIZE_MAX / 64 * 64};
  cr_expect(eq(ptr, two_level_find(&two_level, 64), NULL));
  cr_expect(eq(sz, two_level_largest(&two_level), 0));
  two_level_insert(&two_level, &smallest);
  two_level_insert(&two_level, &largest_possible);
  cr_expect(eq(ptr, two_level_find(&two_level, 64), &smallest));
  cr_expect(eq(ptr, two_level_find(&two_level, 128), &largest_possible));
  two_level_remove(&two_level, &smallest);
  cr_expect(eq(ptr, two_level_find(&two_level, 64), &largest_possible));
  two_level_remove(&two_level, &largest_possible);
  cr_expect(eq(u64, two_level.first, 0));
}
