// Size arithmetic that cannot wrap silently: each returns false instead, and leaves `*out` alone.
#ifndef TM_BASE_CHECKED_H_
#define TM_BASE_CHECKED_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tm/base/attributes.h"

TM_EXTERN_C_BEGIN

static inline bool tm_checked_add(size_t a, size_t b, size_t* out) {
  size_t sum;
  if (__builtin_add_overflow(a, b, &sum)) {
    return false;
  }
  *out = sum;
  return true;
}

static inline bool tm_checked_mul(size_t a, size_t b, size_t* out) {
  size_t product;
  if (__builtin_mul_overflow(a, b, &product)) {
    return false;
  }
  *out = product;
  return true;
}

// Rounds up to a multiple of `alignment`, which is a power of two.
static inline bool tm_checked_round_up(size_t size, size_t alignment, size_t* out) {
  size_t sum;
  if (__builtin_add_overflow(size, alignment - 1, &sum)) {
    return false;
  }
  *out = sum & ~(alignment - 1);
  return true;
}

TM_EXTERN_C_END

#endif  // TM_BASE_CHECKED_H_
