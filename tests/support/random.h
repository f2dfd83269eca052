// Random numbers for property tests. The seed is printed, and TM_TEST_SEED sets it.
#ifndef TM_TESTS_SUPPORT_RANDOM_H_
#define TM_TESTS_SUPPORT_RANDOM_H_

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

typedef struct test_random {
  uint64_t state;
} test_random;

static inline test_random test_random_start(const char* test) {
  const char* given = getenv("TM_TEST_SEED");
  const uint64_t seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
  fprintf(stderr, "%s: TM_TEST_SEED=%llu\n", test, (unsigned long long)seed);
  return (test_random){.state = (seed + 1) * 0x9e3779b97f4a7c15u | 1};
}

static inline uint64_t test_random_next(test_random* r) {  // xorshift64*
  r->state ^= r->state >> 12;
  r->state ^= r->state << 25;
  r->state ^= r->state >> 27;
  return r->state * 2685821657736338717u;
}

// Below `bound`, which is not 0.
static inline size_t test_random_below(test_random* r, size_t bound) {
  return (size_t)(test_random_next(r) % bound);
}

#endif  // TM_TESTS_SUPPORT_RANDOM_H_
