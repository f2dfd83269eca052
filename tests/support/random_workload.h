// The random workload that RMM measures its memory resources with: sizes uniform from 1 byte to 4
// MiB, 2N operations. Each draws a size, and allocates when nothing is live, or by a chance of 73 %
// while fewer than N were allocated and less than 16,000 MiB would be live; else it frees a random
// live block.
#ifndef TM_TESTS_SUPPORT_RANDOM_WORKLOAD_H_
#define TM_TESTS_SUPPORT_RANDOM_WORKLOAD_H_

#include <stddef.h>
#include <stdint.h>

#include "tm/alloc/allocator.h"
#include "tm/base/attributes.h"
#include "tm/base/status.h"

TM_EXTERN_C_BEGIN

typedef struct random_workload {
  uint64_t peak_live_bytes;      // as the allocator counts them
  uint64_t peak_reserved_bytes;  // the same
  double nanoseconds;            // per operation
} random_workload;

// Runs the workload of `count` allocations; all that is live at the end is freed. A NULL allocator
// is none: the loop alone, to take its time off. Errors: those of the allocator. On error nothing
// of it stays live, and `*out` is all zero.
tm_status random_workload_run(tm_allocator* allocator, size_t count, uint64_t seed,
                              random_workload* out);

TM_EXTERN_C_END

#endif  // TM_TESTS_SUPPORT_RANDOM_WORKLOAD_H_
