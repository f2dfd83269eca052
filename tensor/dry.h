// What was done to dry memory: operations that were checked and counted, and touched nothing.
//
// Dry memory comes from the dry allocator, which hands out addresses only: a program planned on it
// runs its copies, fills and stream records as ever.
#ifndef TM_TENSOR_DRY_H_
#define TM_TENSOR_DRY_H_

#include <stddef.h>
#include <stdint.h>

#include "tm/base/attributes.h"

TM_EXTERN_C_BEGIN

typedef struct tm_dry_counts {
  uint64_t operations;  // copies, fills and stream records
  uint64_t bytes;       // that the copies and fills would have written
} tm_dry_counts;

// The counts of this process so far.
// Threads: safe.
TM_API tm_dry_counts tm_dry_counted(void);

// Counts one operation.
// Threads: safe.
TM_API void tm_dry_count_(size_t bytes);

TM_EXTERN_C_END

#endif  // TM_TENSOR_DRY_H_
