// What `tm trace` found out, as a table for people and as JSON for machines.
#ifndef TOOLS_TRACE_REPORT_H_
#define TOOLS_TRACE_REPORT_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tools/backend.h"
#include "tools/trace_options.h"
#include "trace/allocation_log.h"
#include "trace/replayer.h"

// One expression's run.
typedef struct trace_run {
  const char* allocators;         // the expression
  replay_result result;           // of the pass that was watched
  uint64_t upstream_calls;        // allocations and frees asked of the innermost allocator, in the
                                  // first timed pass
  uint64_t upstream_calls_later;  // the same in the last one
  uint64_t peak_live_bytes;       // as the log counts, of what was served
  uint64_t peak_reserved_bytes;   // held for it
  uint64_t live_at_peak_bytes;    // live when that much was reserved
  uint64_t high_water_bytes;      // of all arenas together
  double seconds;                 // of all timed passes
  uint64_t operations;            // the same
  bool has_arena;
  bool failed;                          // the allocators could not be made, or not be replayed with
  bool is_misnamed;                     // that is for what was asked, not for want of memory
  char message[TM_ERROR_MESSAGE_SIZE];  // why it failed; "" else
} trace_run;

typedef struct trace_report {
  const trace_options* options;
  const allocation_log* log;
  const backend_device* device;  // NULL: none is used
  uint64_t capacity;             // bytes; 0: none is known
  const trace_run* runs;
  size_t run_count;
} trace_report;

// Prints the report on stdout.
void trace_report_table(const trace_report* report);

// Prints one JSON object on stdout. False where there is no memory for it.
bool trace_report_json(const trace_report* report);

#endif  // TOOLS_TRACE_REPORT_H_
