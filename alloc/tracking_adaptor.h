// The tracking adaptor knows every block that is out: how large, for how long, and in which scopes
// (tm/base/trace.h) it was allocated.
//
//   tracking: 3 blocks of 2304 bytes in all are outstanding
//     2048 bytes in 2 blocks, the oldest for 12.5 s: kv cache (cache.c:31) < serve (main.c:12)
//     256 bytes in 1 block, the oldest for 0.2 s: (no scope)
//
// What is still out when the adaptor is destroyed, or when the process exits, is reported: by the
// log (a warning for each line above) where it is destroyed, on stderr at exit, after the program's
// own exit handlers and the destructors of its globals. The exit of a forked child says nothing of
// adaptors that its parent made. An allocation that runs out of memory, of
// this adaptor or of what stands on it, has the largest holders in its message and in its report
// (tm/alloc/oom_report.h).
//
// It is for finding leaks: an allocation reads the scope trace and takes memory to note it.
//
// Threads: any, at once, as far as the upstream allows: the adaptor asks it with no lock held.
#ifndef TM_ALLOC_TRACKING_ADAPTOR_H_
#define TM_ALLOC_TRACKING_ADAPTOR_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tm/alloc/allocator.h"
#include "tm/base/attributes.h"
#include "tm/base/status.h"

TM_EXTERN_C_BEGIN

enum { TM_TRACKING_SCOPE_SIZE = 256 };  // bytes of a scope path that are kept, with the NUL

typedef struct tm_tracking_options {
  bool quiet;  // no reports when it is destroyed and at exit
} tm_tracking_options;

// Creates the adaptor. `options` may be NULL. Returns NULL on failure.
// Ownership: the caller owns one reference; the adaptor retains `upstream`.
// Errors: TM_ERR_INVALID (NULL), TM_ERR_NO_MEMORY. Freeing through the adaptor what is no live
// block
//         of it, or with another size than it was allocated with, is fatal.
TM_API TM_NODISCARD tm_allocator* tm_tracking_adaptor_create(tm_allocator* upstream,
                                                             const tm_tracking_options* options);

// One block that is out.
typedef struct tm_tracking_block {
  const void* ptr;
  size_t size;                         // bytes, as they were asked
  uint64_t age_ns;                     // since the allocation
  char scope[TM_TRACKING_SCOPE_SIZE];  // innermost first; "(no scope)" where none was open
} tm_tracking_block;

// The operations below:
// Errors: TM_ERR_INVALID (NULL, or no tracking adaptor; NULL outputs). On error outputs are empty.
// Threads: safe.

// What is out: blocks, and their bytes as they were asked.
TM_API TM_NODISCARD tm_status tm_tracking_totals(tm_allocator* tracking, size_t* blocks,
                                                 size_t* bytes);

// Stores up to `capacity` of the blocks that are out, in no order, and in `*count` how many. `out`
// may be NULL where `capacity` is 0.
TM_API TM_NODISCARD tm_status tm_tracking_get_blocks(tm_allocator* tracking, tm_tracking_block* out,
                                                     size_t capacity, size_t* count);

// Writes the report above, largest holders first, with newlines but none at the end. Cuts at `size`
// bytes, the terminating NUL included, and ends a cut report in "...".
TM_API TM_NODISCARD tm_status tm_tracking_report(tm_allocator* tracking, char* text, size_t size);

TM_EXTERN_C_END

#endif  // TM_ALLOC_TRACKING_ADAPTOR_H_
