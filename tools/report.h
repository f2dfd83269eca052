// What `tm replay` found out, as a table for people and as JSON for machines.
#ifndef TOOLS_REPORT_H_
#define TOOLS_REPORT_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/config.h"
#include "engine/engine.h"
#include "tools/backend.h"

typedef enum verdict {
  NOT_VERIFIED,
  VERIFIED,
  FOUND_SOMETHING,
} verdict;

enum { REPORT_TEXT_SIZE = 512 };  // bytes of a message, the terminating NUL included

// One allocator's run.
typedef struct replay_run {
  const char* allocator;
  uint64_t requests;
  engine_memory memory;
  engine_counts counts;
  uint64_t upstream_calls;               // allocations and frees asked of the upstream
  uint64_t upstream_calls_after_warmup;  // of these, those after the step at the limits
  uint64_t peak_live_bytes;              // of activations
  uint64_t peak_reserved_bytes;          // of the activations' allocator, as the driver counts
  uint64_t steady_reserved_bytes;        // the same, after the step at the limits
  uint64_t persistent_live_bytes;        // weights, batches and KV cache
  uint64_t persistent_reserved_bytes;    // the same, as the driver counts
  uint64_t live_at_peak_bytes;           // live activations when that much was reserved
  double seconds;                        // serving, from the first step to the last
  uint64_t refused_on_purpose;           // allocations, by --fail-rate
  uint64_t outstanding;                  // blocks not given back at the end, where they are tracked
  uint64_t findings;
  uint64_t checked;  // tensors whose stamps were read back, the warm-up's included
  verdict verified;
  bool has_runtime_share;  // counts.runtime_ns is known
  bool admits;             // steps are admitted before they are queued
  bool has_prefix_cache;
  bool failed;
  bool does_not_fit;               // it failed: model and limits need more memory than there is
  char message[REPORT_TEXT_SIZE];  // why the run failed, or the first finding; "" else
} replay_run;

typedef struct replay_report {
  const char* trace;  // a file; NULL: generated
  const char* model;
  const model_config* config;
  const backend_device* device;
  int64_t max_batch;
  int64_t max_tokens;
  double kv_fraction;
  double fail_rate;  // 0: nothing is refused on purpose, nor tracked
  uint64_t seed;     // of that
  const replay_run* runs;
  size_t run_count;
} replay_report;

// Prints the report on stdout.
void report_table(const replay_report* report);

// Prints one JSON object on stdout. False where there is no memory for it.
bool report_json(const replay_report* report);

#endif  // TOOLS_REPORT_H_
