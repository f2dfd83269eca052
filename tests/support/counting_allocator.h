// An upstream for tests: host memory that counts its calls, has a budget, and fails on demand.
#ifndef TM_TESTS_SUPPORT_COUNTING_ALLOCATOR_H_
#define TM_TESTS_SUPPORT_COUNTING_ALLOCATOR_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tm/alloc/allocator.h"

// Plain figures: read them when no other thread uses the allocator.
typedef struct counting_allocator {
  tm_allocator base;  // must be first
  size_t budget;      // bytes that may be live; SIZE_MAX at first
  uint64_t allocs;    // that succeeded
  uint64_t failures;
  uint64_t frees;
  size_t live_bytes;
  size_t peak_bytes;
  int64_t fail_in;  // the nth allocation from now fails; 0: none
  bool destroyed;   // the last reference is gone
} counting_allocator;

// Initializes an allocator that lives in the caller's frame; its last release sets `destroyed`.
void counting_allocator_init(counting_allocator* allocator);

#endif  // TM_TESTS_SUPPORT_COUNTING_ALLOCATOR_H_
