// Stream-ordered memory pools.
//
// A pool takes chunks of 32 MiB from its device, next to each other where it can, and keeps what is
// freed on shelves: one for memory whose free the host has waited for, which anybody may have, and
// one for each stream, in whose order the free was. An allocation takes, in this order,
//
//   1. the smallest block that fits of those two shelves, its own stream's and everybody's;
//   2. a block of another stream's that is done by now, or that its stream is ordered behind;
//   3. neighbouring blocks of its own two shelves together;
//   4. new chunks at the pool's end, for which unused chunks elsewhere in the pool are given up
//   first;
//   5. the same, after all pools of the device gave up what they do not use;
//   6. a block of another stream's, for which its stream is made to wait.
//
// What a program with one stream gets does not depend on how fast its work is done.
// Guarded by the runtime's lock.
#ifndef CUDASIM_POOL_H_
#define CUDASIM_POOL_H_

#include <stdbool.h>
#include <stdint.h>

#include "cudasim/block.h"
#include "cudasim/device.h"
#include "cudasim/stream.h"

typedef struct pool {
  struct pool* next_of_device;
  device* device;
  cudaMemPool_t handle;  // NULL once destroyed; it goes when its last block is freed and done
  uint64_t limit;        // bytes it may reserve
  uint64_t threshold;    // bytes it may keep when the host waits
  int follows_events;
  int is_opportunistic;
  int adds_dependencies;
  uint64_t reserved;
  uint64_t reserved_high;
  uint64_t used;
  uint64_t used_high;
  uint64_t live;        // blocks
  shelf settled;        // anybody's
  shelf* pending;       // one per stream that freed something
  block* tail;          // the last block of the chunks it grew last, or NULL
  uint64_t accessible;  // a bit per device
} pool;

// Makes a pool; NULL when the host has no memory.
pool* sim_pool_create(device* d, uint64_t limit);

// Makes the handle invalid. The pool goes when it has nothing live and nothing pending.
void sim_pool_close(pool* p);

// Ends the pools of `d`, of which no stream is left, without a thought for their memory.
void sim_pool_forget_all(device* d);

// Frees the bookkeeping of all pools at once.
void sim_pool_drop(void);

pool* sim_pool_of(cudaMemPool_t handle);

// Allocates `size` bytes, not 0, for use in `s` from now on.
cudaError_t sim_pool_alloc(pool* p, stream* s, uint64_t size, void** out);

// Frees the live block `b` at this point of `s`; at once where `s` is NULL. On error it stays live.
cudaError_t sim_pool_free(block* b, stream* s);

// The host has waited for the shelf's stream up to `position`.
void sim_pool_settle(shelf* from, uint64_t position);

// The same for all of it, and the end of the shelf, whose stream is gone.
void sim_pool_dissolve(shelf* from);

// Gives unused chunks back to the device while at least `keep` bytes stay reserved.
void sim_pool_trim(pool* p, uint64_t keep);

// Trims the pools of `d` to their thresholds, as a wait of the host does.
void sim_pool_trim_to_thresholds(device* d);

// Trims the pools of `d` to what is used. Whether that gave back anything.
bool sim_pool_relieve(device* d);

#endif  // CUDASIM_POOL_H_
