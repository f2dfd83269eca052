// Stream-ordered memory pools.
//
// A pool has a long range of addresses and, chunk by chunk of 32 MiB, memory for those in use:
//
//   addresses   |<- live ->|<- free ->|<- live ->|<- free, in stream 3 ->|<- free ... as long as it
//   takes memory      |..........|....|     |..........|.......................|.....|
//
// What is freed goes on the shelf of its stream, and from there to one for everybody as soon as the
// stream has done it. An allocation takes the smallest free run that fits, of those the first,
// among
//
//   - everybody's blocks together with its own stream's, wherever that stream is: for one stream,
//   the
//     result is the same whether its work is done quickly or slowly;
//   - other streams' blocks whose free its stream is ordered behind.
//
// Chunks of the run that have no memory get some: from unused chunks elsewhere in the pool whose
// frees the host has waited for; from the device; from chunks that any pool can spare. If all of
// that is not enough, the allocation takes what another stream will free and makes its stream wait
// for it.
//
// A real device was seen to do the same, except that it joins blocks of a busy stream later.
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
  cudaMemPool_t handle;   // NULL once destroyed; it goes when its last block is freed and done
  uint64_t limit;         // bytes it may reserve
  uint64_t threshold;     // bytes it may keep when the host waits
  int follows_events;     // takes what its stream is ordered behind
  int is_opportunistic;   // takes what happens to be done
  int adds_dependencies;  // takes what is not, and makes its stream wait
  uint64_t reserved;
  uint64_t reserved_high;
  uint64_t used;
  uint64_t used_high;
  uint64_t live;        // blocks
  shelf done;           // what anybody may use
  shelf* pending;       // one per stream that freed something
  block* tail;          // the last block of the addresses it took last, or NULL
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

// Counts the frees in streams so far, on all devices.
uint64_t sim_pool_last_free(void);

// The shelf's stream is gone and all that was freed in it is done.
void sim_pool_dissolve(shelf* from);

// Gives memory that the host has waited for back to the device while at least `keep` bytes stay.
void sim_pool_trim(pool* p, uint64_t keep);

// Gives such memory of the pools of `d` back until none has more than its threshold, as a wait of
// the host does.
void sim_pool_trim_to_thresholds(device* d);

// Makes all pools of `d` but `except`, and its graphs, give back what nobody uses.
void sim_pool_relieve(device* d, const pool* except);

#endif  // CUDASIM_POOL_H_
