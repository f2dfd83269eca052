// What there was when memory ran out: the report behind a TM_ERR_NO_MEMORY of an allocation, as
// data. The error's message says the same in one line.
//
//   if (tm_allocator_alloc(stack, size, NULL, &block) == TM_ERR_NO_MEMORY) {
//     const tm_oom_report* report = tm_last_oom_report();
//     if (report && report->has_device_memory) plan_for(report->device_free_bytes);
//   }
#ifndef TM_ALLOC_OOM_REPORT_H_
#define TM_ALLOC_OOM_REPORT_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tm/alloc/device.h"
#include "tm/base/attributes.h"
#include "tm/base/status.h"

TM_EXTERN_C_BEGIN

struct tm_allocator;
struct tm_stream;

enum {
  TM_OOM_HOLDERS = 4,      // a report names at most
  TM_OOM_SCOPE_SIZE = 96,  // bytes, the terminating NUL included
  TM_OOM_NAME_SIZE = 32,   // bytes, the terminating NUL included
  TM_OOM_THREADS = 256,    // whose latest report is kept, of those that run
};

// Blocks that are live, by the scopes that were open when they were allocated.
typedef struct tm_oom_holder {
  uint64_t bytes;
  uint64_t blocks;
  char scope[TM_OOM_SCOPE_SIZE];  // innermost first, cut where it does not fit
} tm_oom_holder;

// Sizes are bytes. What is not known is 0, and a flag says so.
typedef struct tm_oom_report {
  uint64_t asked_bytes;              // by the caller, not rounded
  tm_device device;                  // that ran out
  char allocator[TM_OOM_NAME_SIZE];  // the name of the one that the caller asked, cut
  // Of that allocator, after it has trimmed itself: as in tm_allocator_stats.
  bool has_stats;           // whether these three are known
  bool knows_largest_free;  // whether largest_free_bytes is
  uint64_t live_bytes;
  uint64_t live_blocks;
  uint64_t reserved_bytes;
  uint64_t largest_free_bytes;
  // Of it and of what it stands on.
  uint64_t limit_bytes;  // the smallest maximum or budget; 0: none
  uint32_t holder_count;
  // Of the device. Not known for the host, and while a stream of the allocation is being captured.
  bool has_device_memory;
  uint64_t device_free_bytes;
  uint64_t device_total_bytes;
  // Where one of the allocators tracks what it hands out: the largest, in falling order.
  tm_oom_holder holders[TM_OOM_HOLDERS];
} tm_oom_report;

// The report behind the failure that tm_last_error() tells of; NULL where that is none of an
// allocation that ran out of memory. Nor is there one on a thread that runs out while
// TM_OOM_THREADS others have theirs; the message has the figures all the same. Ownership: borrowed;
// valid until the thread's next failure.
TM_API const tm_oom_report* tm_last_oom_report(void);

// Writes a report as one line, e.g. "stack on device:0: 4096 bytes asked, 0 live in 0 blocks, ...".
// Cuts at `size` bytes, the terminating NUL included; what comes last are the holders.
// Threads: safe.
TM_API void tm_oom_report_text(const tm_oom_report* report, char* text, size_t size);

//===-- For implementers --------------------------------------------------===//

// An allocation of `size` bytes from `allocator`, the one that the caller asked, has failed for
// want of memory, and the record says why: makes the report, adds its figures to the record's
// message, and returns TM_ERR_NO_MEMORY. `stream` is the one that was asked for, or NULL. Allocates
// nothing; what fails meanwhile leaves no trace.
TM_API TM_COLD tm_status tm_raise_oom_(struct tm_allocator* allocator, size_t size,
                                       const struct tm_stream* stream);

// Puts a report back, as that of the failure which is on record now.
TM_API void tm_restore_oom_report_(const tm_oom_report* report);

TM_EXTERN_C_END

#endif  // TM_ALLOC_OOM_REPORT_H_
