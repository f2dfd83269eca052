// The engine: continuous batching over a decoder, the way a user of tmcore writes it.
//
//   engine* e = engine_create(&config, &options);    // weights, batches, profile, KV cache
//   engine_start(e, activations, &trace);            // one step at the limits, then the queue
//   while (!engine_is_idle(e)) TM_TRY(engine_step(e));
//   TM_TRY(engine_drain(e));
//
// Five kinds of memory, each from where it belongs:
//
//   weights          persistent tensors, made first
//   batches          pinned buffers and their copies on the device, two of each, used in turns
//   KV cache         one block of kv_fraction of the memory that weights, batches and the profile's
//                    activations leave, from an allocator of its own
//   prefix cache     beginnings of prompts that many share (prefix_cache.h), in memory that nothing
//                    else needs: a handler for out of memory drops them when a step does
//   activations      implicit tensors in the scope of the allocator given to engine_start; each
//   step
//                    makes 12 * layers + 5 of them, which the engine checks (decoder.h)
//
// A step is admitted before anything of it is queued: it has its KV blocks, and where activations
// come from a stack, what they need is reserved, exactly (decoder_activation_bytes). A step that is
// refused that is planned anew with fewer tokens; one that was admitted cannot run out of memory.
// Other allocators reserve nothing. There, out of memory in a step is an ordinary event: the step
// is undone, the latest sequence makes room (scheduler.h), and the engine goes on.
//
// Steps overlap: the host plans and queues one while the device does the one before. The tokens
// that a step samples are read when its buffers are needed again, two steps later, behind its
// event. Threads: one thread at a time.
#ifndef ENGINE_ENGINE_H_
#define ENGINE_ENGINE_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <tm/tm.h>

#include "engine/config.h"
#include "engine/counting.h"
#include "engine/kv_cache.h"
#include "engine/prefix_cache.h"
#include "engine/scheduler.h"
#include "engine/trace.h"

typedef struct engine engine;

typedef struct engine_options {
  tm_stream* stream;            // all work goes here
  tm_allocator* memory;         // of weights, batches and the profile
  tm_allocator* cache_memory;   // of the KV cache
  tm_allocator* host_memory;    // of the batches' host side; NULL: tm_pinned_allocator()
  tm_allocator* prefix_memory;  // of the prefix cache; may be NULL where there is none
  uint64_t prefix_bytes;        // that the prefix cache may hold; 0: there is none
  const memory_budget* budget;  // what the KV cache is a share of; NULL: the device's free memory
  double kv_fraction;           // over 0, at most 1; of no account where kv_tokens is given
  int64_t kv_tokens;            // that the KV cache holds; 0: kv_fraction says it
  int64_t max_batch;            // sequences in a step
  int64_t max_tokens;           // tokens in a step
  uint64_t (*runtime_clock)(void);  // nanoseconds this thread has spent in the CUDA runtime; NULL:
                                    // not known
} engine_options;

typedef struct engine_counts {
  uint64_t steps;                   // done
  uint64_t tensors;                 // activations made, those of steps that were undone included
  uint64_t tokens;                  // sampled, and seen by the host
  uint64_t oom_events;              // steps undone because memory ran out
  uint64_t reservations_refused;    // steps that were not admitted for want of memory
  uint64_t failed_after_admission;  // of oom_events, those of steps whose memory was reserved
  uint64_t forward_ns;              // spent making and releasing activations
  uint64_t runtime_ns;  // of these, spent in the CUDA runtime; 0 without a runtime_clock
  scheduler_counts requests;
  prefix_counts prefixes;
} engine_counts;

// What an engine holds, in bytes and blocks.
typedef struct engine_memory {
  uint64_t weight_bytes;
  uint64_t kv_bytes;
  int64_t kv_tokens;        // that the KV cache can hold
  size_t activation_bytes;  // of a step at the limits: what an arena needs
} engine_memory;

// Loads a model and sizes its memory by one step at the limits. Returns NULL on failure.
// Ownership: the caller owns the engine and gives it back with engine_destroy. It copies `config`
//            and retains stream and allocators; it borrows the budget.
// Errors: TM_ERR_INVALID (options), TM_ERR_OUT_OF_RANGE (no block of the KV cache fits),
//         TM_ERR_NO_MEMORY and other errors of the device.
TM_NODISCARD engine* engine_create(const model_config* config, const engine_options* options);

// Waits for what is in flight and releases everything. NULL is a no-op.
void engine_destroy(engine* e);

engine_memory engine_get_memory(const engine* e);

// Takes activations from `activations` from here on, runs one step at the limits, and queues the
// requests. Where that step finds no memory it is counted, not an error. Call it once.
// Ownership: the engine retains `activations` until engine_destroy.
// Errors: TM_ERR_NO_MEMORY (of the host), and errors of the device.
tm_status engine_start(engine* e, tm_allocator* activations, const request_trace* trace);

// Whether the activations come from a stack, below adaptors or not, so that steps are admitted.
bool engine_admits(const engine* e);

// Whether every request is finished or refused.
bool engine_is_idle(const engine* e);

// Runs one step, or plans the next one smaller. Out of memory is no error: see above.
// Errors: TM_ERR_CORRUPT (data that came back from the device is wrong), and other errors of the
//         device, after which the engine can only be destroyed.
tm_status engine_step(engine* e);

// Waits for the steps in flight and reads their tokens.
// Errors: as engine_step.
tm_status engine_drain(engine* e);

engine_counts engine_get_counts(const engine* e);

#endif  // ENGINE_ENGINE_H_
