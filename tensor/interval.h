// Half-open ranges of integers, [first, last), with ends that may be open: of tokens in a sequence,
// of layers, of what a schedule covers.
//
// INT64_MIN as `first` and INT64_MAX as `last` mean that the range has no end on that side; no
// dilation moves such an end. Nothing overflows: what would lie beyond becomes such an end. The
// integer INT64_MAX itself is in no range.
#ifndef TM_TENSOR_INTERVAL_H_
#define TM_TENSOR_INTERVAL_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tm/base/attributes.h"

TM_EXTERN_C_BEGIN

// Empty where `first` >= `last`; an empty one keeps its ends, so that a dilation can undo an
// erosion.
typedef struct tm_interval {
  int64_t first;
  int64_t last;
} tm_interval;

static inline tm_interval tm_interval_make(int64_t first, int64_t last) {
  tm_interval interval;
  interval.first = first;
  interval.last = last;
  return interval;
}

// a + b, and a - b, or the end of the range of int64_t beyond which it lies.
static inline int64_t tm_interval_add_(int64_t a, int64_t b) {
  int64_t sum;
  if (__builtin_add_overflow(a, b, &sum)) {
    return b < 0 ? INT64_MIN : INT64_MAX;
  }
  return sum;
}

static inline int64_t tm_interval_subtract_(int64_t a, int64_t b) {
  int64_t difference;
  if (__builtin_sub_overflow(a, b, &difference)) {
    return b < 0 ? INT64_MAX : INT64_MIN;
  }
  return difference;
}

// All from `first` on.
static inline tm_interval tm_interval_from(int64_t first) {
  return tm_interval_make(first, INT64_MAX);
}

// `size` integers from `first` on; a negative size is empty.
static inline tm_interval tm_interval_sized(int64_t first, int64_t size) {
  return tm_interval_make(first, tm_interval_add_(first, size));
}

static inline bool tm_interval_is_empty(tm_interval interval) {
  return interval.first >= interval.last;
}

// How many integers it has; INT64_MAX where they are as many or more, or have no end.
static inline int64_t tm_interval_size(tm_interval interval) {
  int64_t size;
  if (tm_interval_is_empty(interval)) {
    return 0;
  }
  if (interval.first == INT64_MIN || interval.last == INT64_MAX ||
      __builtin_sub_overflow(interval.last, interval.first, &size)) {
    return INT64_MAX;
  }
  return size;
}

static inline bool tm_interval_contains(tm_interval interval, int64_t index) {
  return interval.first <= index && index < interval.last;
}

// Whether both have the same integers: all empty ones are equal.
static inline bool tm_interval_equal(tm_interval a, tm_interval b) {
  return (tm_interval_is_empty(a) && tm_interval_is_empty(b)) ||
         (a.first == b.first && a.last == b.last);
}

// What is in both.
static inline tm_interval tm_interval_intersection(tm_interval a, tm_interval b) {
  return tm_interval_make(a.first > b.first ? a.first : b.first, a.last < b.last ? a.last : b.last);
}

// The smallest one that has all of both. An empty one adds nothing, wherever it lies.
static inline tm_interval tm_interval_hull(tm_interval a, tm_interval b) {
  if (tm_interval_is_empty(a)) {
    return b;
  }
  if (tm_interval_is_empty(b)) {
    return a;
  }
  return tm_interval_make(a.first < b.first ? a.first : b.first, a.last > b.last ? a.last : b.last);
}

// `left` more before it and `right` more behind; negative numbers erode.
static inline tm_interval tm_interval_dilate(tm_interval interval, int64_t left, int64_t right) {
  if (interval.first != INT64_MIN) {
    interval.first = tm_interval_subtract_(interval.first, left);
  }
  if (interval.last != INT64_MAX) {
    interval.last = tm_interval_add_(interval.last, right);
  }
  return interval;
}

enum { TM_INTERVAL_TEXT_SIZE = 48 };  // bytes that hold any interval as text, the NUL included

// Writes "[2,5)", "[2,inf)", "(-inf,5)"; cuts at `size` bytes, the terminating NUL included.
TM_API void tm_interval_text(tm_interval interval, char* text, size_t size);

TM_EXTERN_C_END

#endif  // TM_TENSOR_INTERVAL_H_
