// The statistics adaptor counts what goes through it: bytes and blocks, now, at most and in total;
// over its life, and since the innermost tm_statistics_push.
//
//   tm_auto_allocator counted = tm_statistics_adaptor_create(pool);
//   TM_TRY(tm_statistics_push(counted));
//   ...                                   // one request
//   tm_statistics_counters request;
//   TM_TRY(tm_statistics_pop(counted, &request));
//
// tm_allocator_get_stats tells of the adaptor's whole life. Bytes are rounded to the alignment.
//
// Threads: any, at once, as far as the upstream allows: the adaptor asks it with no lock held.
#ifndef TM_ALLOC_STATISTICS_ADAPTOR_H_
#define TM_ALLOC_STATISTICS_ADAPTOR_H_

#include <stdint.h>

#include "tm/alloc/allocator.h"
#include "tm/base/attributes.h"
#include "tm/base/status.h"

TM_EXTERN_C_BEGIN

// Counted from 0 at a push. More may be freed than was allocated since, which is negative.
typedef struct tm_statistics_counters {
  int64_t current_bytes;   // allocated less freed
  int64_t peak_bytes;      // the largest current_bytes so far; at least 0
  uint64_t total_bytes;    // allocated, whether or not freed since
  int64_t current_blocks;  // the same in blocks
  int64_t peak_blocks;
  uint64_t total_blocks;
  uint64_t failures;  // allocations that the upstream refused
} tm_statistics_counters;

// Creates the adaptor. Returns NULL on failure.
// Ownership: the caller owns one reference; the adaptor retains `upstream`.
// Errors: TM_ERR_INVALID (NULL), TM_ERR_NO_MEMORY.
TM_API TM_NODISCARD tm_allocator* tm_statistics_adaptor_create(tm_allocator* upstream);

// The operations below:
// Errors: TM_ERR_INVALID (NULL, or no statistics adaptor), and what each says. On error `*out` is
//         all zero.
// Threads: safe. Pushes and pops nest over all threads together.

// What was counted since the innermost push that is open, or since the creation.
TM_API TM_NODISCARD tm_status tm_statistics_get(tm_allocator* statistics,
                                                tm_statistics_counters* out);

// Begins to count from 0. What is counted from here on is counted outside as well, at the pop.
// Errors: also TM_ERR_NO_MEMORY, where more than 8 are open.
TM_API TM_NODISCARD tm_status tm_statistics_push(tm_allocator* statistics);

// Ends the innermost push, and stores what was counted since; `out` may be NULL.
// Errors: also TM_ERR_INVALID (none is open).
TM_API TM_NODISCARD tm_status tm_statistics_pop(tm_allocator* statistics,
                                                tm_statistics_counters* out);

TM_EXTERN_C_END

#endif  // TM_ALLOC_STATISTICS_ADAPTOR_H_
