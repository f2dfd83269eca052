// What a step tells the device: token ids, positions, lengths and block tables, in pinned buffers
// that go up in one batch of copies on the context's stream. And what the device tells back: the
// sampled tokens.
//
// An engine has two of them and uses them in turns, so it fills one while the device works on the
// other. A batch is filled again only after batch_wait.
//
// No kernel samples here. In its place the last token of each sequence is copied on the device, and
// comes back: so every step's data has made the whole way, in stream order, and is checked.
#ifndef ENGINE_BATCH_H_
#define ENGINE_BATCH_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <tm/tm.h>

#include "engine/scheduler.h"
#include "engine/seeds.h"

// The arrays of 32-bit integers that a step takes.
typedef enum batch_field {
  BATCH_TOKEN_IDS,      // [tokens]
  BATCH_POSITIONS,      // [tokens]: where each stands in its sequence
  BATCH_TOKEN_OFFSETS,  // [sequences + 1]: where each sequence's tokens begin
  BATCH_LENGTHS,        // [sequences]: tokens in the KV cache after this step
  BATCH_BLOCK_OFFSETS,  // [sequences + 1]: where each sequence's blocks begin
  BATCH_BLOCKS,         // [blocks]: KV block numbers
  BATCH_LAST_TOKENS,    // [sequences]: the last token of each
  BATCH_FIELDS,
} batch_field;

typedef struct batch {
  tm_tensor host[BATCH_FIELDS];  // pinned
  tm_tensor device[BATCH_FIELDS];
  int32_t* data[BATCH_FIELDS];   // of `host`
  tm_buffer from[BATCH_FIELDS];  // all of `host`
  tm_buffer to[BATCH_FIELDS];    // all of `device`
  tm_batch_copy* copies;         // empty but while they are queued
  int64_t used[BATCH_FIELDS];    // elements
  int64_t vocabulary;            // token ids are below it
  uint32_t* requests;            // [max sequences]: whose rows these are
  tm_tensor joined;              // [max sequences] i32, pinned: the seeds of those that join
  tm_tensor seeds_host;          // [max sequences] i32, pinned: what the device remembers of them
  bool has_seeds;                // the step moves seeds, and brings them
  tm_tensor sampled_device;      // [max sequences]
  tm_tensor sampled_host;        // [max sequences], pinned
  tm_event* done;                // after the last copy of the step
  bool in_flight;                // `done` is recorded and not waited for
  bool has_samples;              // what is in flight brings sampled tokens
  int64_t samples;               // sequences that have computed all they know, and get a new token
} batch;

// The largest step a batch must hold.
typedef struct batch_limits {
  int64_t tokens;
  int64_t sequences;
  int64_t blocks;
  int64_t vocabulary;  // token ids are below it
} batch_limits;

// Makes the buffers from the context's pinned and device allocators, for the context's stream.
// Ownership: the caller gives it back with batch_deinit, when it is not in flight.
// Errors: those of tm_empty and tm_event_create. On error `*out` is all zero.
tm_status batch_init(const batch_limits* limits, batch* out);
void batch_deinit(batch* b);

// Fills the batch with the planned tokens of the sequences. It must not be in flight.
void batch_fill(batch* b, const sequence* running, size_t count);

static inline int64_t batch_tokens(const batch* b) { return b->used[BATCH_TOKEN_IDS]; }
static inline int64_t batch_sequences(const batch* b) { return b->used[BATCH_LENGTHS]; }

// Queues the copies to the device, and those that move `remembered` along with their sequences, in
// one call.
// Errors: those of tm_batch_copy_run. On error `remembered` is unchanged.
tm_status batch_upload(batch* b, seeds* remembered);

// Queues the copies of the sampled tokens, the second of them to the host, and of seeds that moved.
// Errors: those of tm_copy.
tm_status batch_download(batch* b, const seeds* remembered);

// Marks the end of the step on the context's stream: the batch is in flight. `has_samples` says
// that batch_download was queued whole. Errors: those of tm_event_record; then the stream has been
// waited for, and nothing is in flight.
tm_status batch_launch(batch* b, bool has_samples);

// Waits until the batch is not in flight, and counts the tokens that were sampled.
// Errors: those of tm_event_sync, TM_ERR_CORRUPT (a sampled token is not the one that was sent, or
// a
//         seed not its request's). On error `*out` is 0.
tm_status batch_wait(batch* b, int64_t* out);

// Does a step of `sequences` sequences of one token each, and waits for it: the batch is not in
// flight before and after. What the copies take of the heap once (arrays for as many pieces as
// there can be, the events behind which memory is released) is then there, and no later step takes
// more. Rounds count from 0, and only from 1 on the seeds move in so many pieces. Afterwards
// `remembered` holds seeds of nobody: seeds_forget. Errors: those of batch_upload, batch_download,
// batch_launch and batch_wait.
tm_status batch_warm_up(batch* b, int64_t sequences, int round, seeds* remembered);

#endif  // ENGINE_BATCH_H_
