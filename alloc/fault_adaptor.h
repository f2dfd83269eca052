// The fault adaptor refuses some allocations on purpose, so that a program sees what it does when
// memory runs out: every nth, by probability, above a size. The upstream is not asked for those.
//
// A refusal holds for the whole allocation: the second try that an allocator makes after trimming
// itself is refused as well. It is known by its size, its thread and the trim before it.
//
// Threads: any, at once, as far as the upstream allows: the adaptor asks it with no lock held.
#ifndef TM_ALLOC_FAULT_ADAPTOR_H_
#define TM_ALLOC_FAULT_ADAPTOR_H_

#include <stddef.h>
#include <stdint.h>

#include "tm/alloc/allocator.h"
#include "tm/base/attributes.h"
#include "tm/base/status.h"

TM_EXTERN_C_BEGIN

// A request fails where one of the rules says so. All zero: none does.
typedef struct tm_fault_options {
  uint64_t every_nth;  // the nth, 2nth, 3nth, ... request; 1: each; 0: none
  double probability;  // of each request, 0 to 1
  uint64_t seed;       // of the probability: the same seed refuses the same of a sequence
  size_t above_bytes;  // requests of more bytes, as they were asked; 0: none
  tm_status status;    // what they fail with; TM_OK stands for TM_ERR_NO_MEMORY
} tm_fault_options;

typedef struct tm_fault_counts {
  uint64_t requests;  // since the rules were given
  uint64_t refused;   // of them, by the rules
} tm_fault_counts;

// Creates the adaptor. NULL `options`: it refuses nothing. Returns NULL on failure.
// Ownership: the caller owns one reference; the adaptor retains `upstream`.
// Errors: TM_ERR_INVALID (NULL `upstream`, a probability that is not from 0 to 1, a status that is
//         none), TM_ERR_NO_MEMORY.
TM_API TM_NODISCARD tm_allocator* tm_fault_adaptor_create(tm_allocator* upstream,
                                                          const tm_fault_options* options);

// Other rules from here on, and counts that begin anew. NULL: no rules.
// Errors: TM_ERR_INVALID (NULL `fault`, or no fault adaptor; options as above). On error the rules
//         are as they were.
// Threads: safe.
TM_API TM_NODISCARD tm_status tm_fault_set(tm_allocator* fault, const tm_fault_options* options);

// Errors: TM_ERR_INVALID (NULL, or no fault adaptor). On error `*out` is all zero.
// Threads: safe.
TM_API TM_NODISCARD tm_status tm_fault_get(tm_allocator* fault, tm_fault_counts* out);

TM_EXTERN_C_END

#endif  // TM_ALLOC_FAULT_ADAPTOR_H_
