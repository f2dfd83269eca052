// cudasim's own memory, made to fail: for programs that are linked with --wrap=calloc.
#ifndef TESTS_CUDASIM_FAILING_CALLOC_H_
#define TESTS_CUDASIM_FAILING_CALLOC_H_

#include <errno.h>
#include <stddef.h>

// The host's memory, which the linker sends here (--wrap=calloc).
static long allocations_left = -1;  // -1: any number

void* __real_calloc(size_t items, size_t size);  // NOLINT(bugprone-reserved-identifier)
void* __wrap_calloc(size_t items, size_t size);  // NOLINT(bugprone-reserved-identifier)
void* __wrap_calloc(size_t items, size_t size) {
  if (allocations_left == 0) {
    errno = ENOMEM;
    return NULL;
  }
  if (allocations_left > 0) --allocations_left;
  return __real_calloc(items, size);
}

#endif  // TESTS_CUDASIM_FAILING_CALLOC_H_
