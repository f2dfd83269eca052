// What an engine needs, without a byte of memory: its own code, run over dry allocators.
//
// A plan is of the steady state: weights, batches and KV cache are there, and a step at the limits
// has been run. Its activations come from an arena, which has obtained its one region, or each from
// the upstream itself, as with a CUDA memory pool.
#ifndef ENGINE_PLAN_H_
#define ENGINE_PLAN_H_

#include <stdint.h>
#include <tm/tm.h>

#include "engine/config.h"

typedef struct plan_limits {
  int64_t batch;        // sequences that run together
  int64_t sequence;     // tokens of each
  int64_t step_tokens;  // tokens in a step
} plan_limits;

// Bytes asked of the device, each block rounded up to the allocators' alignment.
typedef struct plan_use {
  uint64_t activations;  // at most at once
  uint64_t peak;         // of everything
  uint64_t reserved;     // that the driver takes for the peak, in its granules
} plan_use;

typedef struct engine_plan {
  uint64_t weights;  // bytes, as above
  uint64_t batches;
  uint64_t kv_cache;
  int64_t kv_tokens;  // that the cache holds
  plan_use stack;     // activations from an arena
  plan_use pool;      // activations one by one; `reserved` is the least that a pool can hold
} engine_plan;

// Runs a step at the limits on nothing. `stream` is what the engine queues on: nothing comes of it.
// Errors: TM_ERR_INVALID (limits below 1, a sequence over the model's positions), TM_ERR_OVERFLOW,
//         TM_ERR_NO_MEMORY (of the host). On error `*out` is all zero.
tm_status plan_make(const model_config* config, const plan_limits* limits, tm_stream* stream,
                    engine_plan* out);

// The largest batch, and the longest sequence the model takes, for which the arena's reserved bytes
// fit in `memory` bytes; the other limits as given. 0: not even 1 fits.
// Errors: those of plan_make. On error `*out` is 0.
tm_status plan_largest_batch(const model_config* config, const plan_limits* limits,
                             tm_stream* stream, uint64_t memory, int64_t* out);
tm_status plan_longest_sequence(const model_config* config, const plan_limits* limits,
                                tm_stream* stream, uint64_t memory, int64_t* out);

#endif  // ENGINE_PLAN_H_
