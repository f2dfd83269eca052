// How to visit two layouts of one shape together in as few contiguous runs as possible. Private.
#ifndef TM_TENSOR_COPY_PLAN_H_
#define TM_TENSOR_COPY_PLAN_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tm/base/attributes.h"
#include "tm/base/status.h"
#include "tm/tensor/dtype.h"
#include "tm/tensor/layout.h"

// Loops round runs of bytes that lie contiguously on both sides. The loops are in the order of the
// destination's memory, and no two neighbours could be one.
typedef struct tm_copy_plan_ {
  int32_t rank;                      // loops, outermost first
  size_t run;                        // bytes
  int64_t count[TM_MAX_RANK];        // iterations
  int64_t source[TM_MAX_RANK];       // bytes from one iteration to the next
  int64_t destination[TM_MAX_RANK];  // the same
} tm_copy_plan_;

// Both layouts have the same shape, elements, and strides whose offsets fit memory; the destination
// is injective.
// Errors: TM_ERR_INVALID (runs of elements narrower than a byte that are no whole bytes). On error
//         `*out` is undefined.
TM_NODISCARD tm_status tm_copy_plan_make_(tm_dtype dtype, const tm_layout* source,
                                          const tm_layout* destination, tm_copy_plan_* out);

// Where a walk round some of a plan's loops is. All zero: at the first iteration.
typedef struct tm_copy_walk_ {
  int64_t index[TM_MAX_RANK];
  int64_t source;       // bytes from the first run's
  int64_t destination;  // the same
} tm_copy_walk_;

// Steps to the next iteration of the outermost `loops` loops; false past the last.
bool tm_copy_walk_next_(const tm_copy_plan_* plan, int32_t loops, tm_copy_walk_* walk);

#endif  // TM_TENSOR_COPY_PLAN_H_
