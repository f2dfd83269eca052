// The scheduler: which tokens of which requests the next step computes.
//
// Continuous batching with chunked prefill. A sequence is a request that runs: it knows `known`
// tokens (its prompt and what it has generated) and has computed the keys and values of `computed`
// of them. When the two meet, one more token is sampled. A step takes, within `max_tokens` tokens,
// first one token of every sequence that decodes, then chunks of the prompts that are not through,
// then waiting requests in their order, as many as batch, tokens and KV blocks allow.
//
// Sequences are in the order of their admission. One that has to make room is the latest: its
// blocks are given back, its request goes to the front of the queue with the tokens it has
// generated, and later computes all of them again.
//
// Memory for a step's activations is obtained before it is queued, or not: a step that is refused
// its memory is shortened (scheduler_shorten), one that runs out half-way steps back.
#ifndef ENGINE_SCHEDULER_H_
#define ENGINE_SCHEDULER_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <tm/tm.h>

#include "engine/kv_cache.h"
#include "engine/prefix_cache.h"
#include "engine/request_queue.h"
#include "engine/trace.h"

// Why a request is refused.
typedef enum refusal {
  REFUSED_POSITIONS,  // prompt and generated tokens exceed the model's max_position_embeddings
  REFUSED_KV_CACHE,   // they exceed the whole KV cache
  REFUSED_MEMORY,     // not even alone, token by token, does it find memory for its activations
  REFUSALS,
} refusal;

typedef struct scheduler_limits {
  int64_t max_batch;      // sequences in a step
  int64_t max_tokens;     // tokens in a step
  int64_t max_positions;  // tokens of a sequence
} scheduler_limits;

typedef struct request {
  uint32_t prompt;     // tokens
  uint32_t wanted;     // tokens to generate
  uint32_t generated;  // tokens so far
} request;

typedef struct sequence {
  uint32_t request;  // its number
  uint32_t known;
  uint32_t computed;
  uint32_t planned;      // tokens of this sequence in the step being planned, from `computed` on
  uint32_t prefix;       // tokens at its beginning that lie in the prefix cache, not in its blocks
  uint32_t block_count;  // KV blocks it holds
  int32_t* blocks;       // their numbers
} sequence;

typedef struct scheduler_counts {
  uint64_t finished;
  uint64_t preempted_for_kv;      // times that a sequence made room for another's KV blocks
  uint64_t preempted_for_memory;  // times that a sequence made room because a step had no memory
  uint64_t shortened;             // steps planned anew with half the tokens, for want of memory
  uint64_t refused[REFUSALS];
} scheduler_counts;

typedef struct scheduler {
  scheduler_limits limits;
  kv_cache* cache;         // borrowed
  prefix_cache* prefixes;  // borrowed; NULL, as after scheduler_init: none
  request* requests;
  size_t request_count;
  request_queue queue;
  sequence* running;  // `running_count` of limits.max_batch, in the order of admission
  size_t running_count;
  int32_t* block_table;       // limits.max_batch rows: where the sequences' `blocks` point
  int64_t planned_tokens;     // of all sequences
  int64_t planned_sequences;  // those with tokens
  int64_t token_limit;        // tokens in a step; lowered when memory is refused
  int64_t chunk_limit;        // tokens of one prompt in a step; lowered when memory runs out
  uint32_t lone_failures;     // steps of one sequence alone that failed in a row
  bool admission_closed;      // until a step succeeds
  scheduler_counts counts;
} scheduler;

// The KV blocks with which `sequences` sequences of `tokens` tokens can all be admitted: what they
// take, and what admission keeps back.
// Errors: TM_ERR_OVERFLOW. On error `*out` is 0.
tm_status scheduler_kv_blocks(int64_t sequences, int64_t tokens, int64_t* out);

// Queues the requests of a trace, and refuses at once those that can never be served.
// Ownership: the caller gives it back with scheduler_deinit; it borrows `cache`, not `trace`.
// Errors: TM_ERR_NO_MEMORY. On error `*out` is all zero.
tm_status scheduler_init(const scheduler_limits* limits, kv_cache* cache,
                         const request_trace* trace, scheduler* out);
void scheduler_deinit(scheduler* s);

// Whether nothing runs and nothing waits.
static inline bool scheduler_is_idle(const scheduler* s) {
  return s->running_count == 0 && request_queue_is_empty(&s->queue);
}

// Plans the next step: sets every sequence's `planned`, takes KV blocks, admits, and pre-empts
// where blocks run out. Unless the scheduler is idle, at least one token is planned.
void scheduler_plan(scheduler* s);

// The planned step was done: sequences advance, sample, and finish.
void scheduler_commit(scheduler* s);

// The planned step ran out of memory and was undone. The latest sequence makes room; one that is
// alone tries shorter chunks, and is refused when a single token fails for long.
void scheduler_step_back(scheduler* s);

// The planned step was refused its memory before any of it was queued: the next is planned with
// half the tokens, and later ones with a sixteenth more after each that is done. A step of one
// token steps back.
void scheduler_shorten(scheduler* s);

#endif  // ENGINE_SCHEDULER_H_
