// Size classes of the pinned allocator: from 512 bytes on, eight to each power of two. Private.
//
//   512 1024 1536 ... 4096 | 4608 5120 ... 8192 | 9216 10240 ... 16384 | ...
//
// so that rounding up to a class adds at most an eighth, and all blocks of a class are one size.
#ifndef TM_ALLOC_PINNED_CLASS_H_
#define TM_ALLOC_PINNED_CLASS_H_

#include <stddef.h>

enum {
  PINNED_STEP_LOG2 = 9,                              // 512 bytes
  PINNED_CLASSES = 8 + 8 * (60 - PINNED_STEP_LOG2),  // up to PTRDIFF_MAX bytes
};

// The class of a request of `size` bytes, 1 to PTRDIFF_MAX, and the size of its blocks.
static inline int pinned_class_of(size_t size, size_t* bytes) {
  const int top = 63 - __builtin_clzll((unsigned long long)(size - 1) | 0xfff);  // from 11 on
  const int step_log2 = top < 12 ? PINNED_STEP_LOG2 : top - 3;
  const size_t steps = ((size - 1) >> step_log2) + 1;  // 1 to 8, or 9 to 16
  *bytes = steps << step_log2;
  return (int)steps - 1 + 8 * (step_log2 - PINNED_STEP_LOG2);
}

#endif  // TM_ALLOC_PINNED_CLASS_H_
