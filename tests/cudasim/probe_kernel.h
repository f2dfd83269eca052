// A kernel that adds 1 to the int that its argument points to, and reaches no device memory.
#ifndef TESTS_CUDASIM_PROBE_KERNEL_H_
#define TESTS_CUDASIM_PROBE_KERNEL_H_

#include <stddef.h>

#include "cudasim.h"

static int probe_kernel;  // its address is the kernel's

static size_t probe_reach(const cudasim_launch* launch, cudasim_range* ranges) {
  (void)launch;
  (void)ranges;
  return 0;
}

static void probe_run(const cudasim_launch* launch, dim3 block) {
  (void)block;
  ++**(int* const*)launch->arguments[0];
}

#endif  // TESTS_CUDASIM_PROBE_KERNEL_H_
