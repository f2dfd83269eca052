// What the device remembers of each sequence from step to step: the seed of its sampler, one row a
// sequence, in the order of the latest step.
//
// A sequence brings its seed when it joins; after that the seed stays on the device and moves with
// its sequence when others finish, join or make room (tm_warp_or). Nothing is copied while the same
// sequences run.
#ifndef ENGINE_SEEDS_H_
#define ENGINE_SEEDS_H_

#include <stdbool.h>
#include <stdint.h>
#include <tm/tm.h>

typedef struct seeds {
  tm_state rows;      // [max sequences] i32 on the device; the front is the latest step's
  tm_buffer perm;     // [max sequences] i32 on the host: where each row comes from
  uint32_t* order;    // the requests whose rows are in front
  int64_t count;      // of them
  int64_t max_count;  // sequences in a step
} seeds;

// Makes the rows from the context's device allocator, for steps of at most `max_count` sequences.
// Ownership: the caller gives it back with seeds_deinit.
// Errors: those of tm_state_init, TM_ERR_NO_MEMORY. On error `*out` is all zero.
tm_status seeds_init(int64_t max_count, seeds* out);
void seeds_deinit(seeds* s);

// The seed of a request's sampler.
int32_t seeds_of(uint32_t request);

// Adds to `copies` what brings the rows into the order of `requests`, `count` of them. Of those
// that join, `joined`, i32 in pinned memory, is filled; it is read when the copies are done.
// `*moves` says whether there is anything to do: then seeds_commit follows once the copies are
// queued.
// Errors: those of tm_warp_or. On error nothing has changed.
tm_status seeds_add(seeds* s, const uint32_t* requests, int64_t count, const tm_tensor* joined,
                    tm_batch_copy* copies, bool* moves);

// The copies that seeds_add added are queued: the rows are in the order of `requests`.
void seeds_commit(seeds* s, const uint32_t* requests, int64_t count);

// No sequence has a seed on the device: all join anew.
void seeds_forget(seeds* s);

#endif  // ENGINE_SEEDS_H_
