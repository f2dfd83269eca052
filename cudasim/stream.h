// Streams: queues of work and the dependencies between them.
//
//   position   1      2      3      4      5      6
//              copy   free   copy   event  wait   host
//                     ^ completed                 ^ submitted
//
// Everything that has an order in a stream has a position there, whether or not it takes a place in
// the queue: a free or the recording of an event is complete as soon as all before it is. A
// stream's memory is used for another stream when it is gone and goes on counting where it was, so
// that a position of the past is complete for ever. Guarded by the runtime's lock.
#ifndef CUDASIM_STREAM_H_
#define CUDASIM_STREAM_H_

#include <stdbool.h>
#include <stdint.h>

#include "cudasim/block.h"
#include "cudasim/history.h"
#include "cudasim/include/cuda_runtime_api.h"
#include "cudasim/op.h"

struct branch;
struct waiter;

typedef enum stream_state {
  STREAM_IDLE,     // nothing is queued
  STREAM_READY,    // the first op waits for somebody to run it
  STREAM_RUNNING,  // somebody runs it
  STREAM_WAITING,  // the first op waits for another stream
} stream_state;

#define STREAM_LOWEST_PRIORITY 0
#define STREAM_HIGHEST_PRIORITY (-5)

typedef struct stream {
  struct device* device;  // NULL while this memory is no stream
  struct stream* previous_of_device;
  struct stream* next_of_device;
  cudaStream_t handle;  // NULL for a device's legacy stream and for destroyed ones
  unsigned flags;
  int priority;
  uint64_t id;
  uint32_t slot;   // in histories
  bool is_closed;  // destroyed; goes when it has nothing left to do

  uint64_t submitted;  // position of the last thing
  uint64_t completed;  // all up to here is done
  uint64_t observed;   // and the host has waited for all up to here
  uint64_t entered;    // legacy stream: the device's `blocking_serial` it is behind; blocking ones:
                       // the legacy stream's position they are behind

  op* first;
  op* last;
  uint32_t queued;  // ops
  stream_state state;
  struct stream* next_ready;
  uint64_t lot;  // of the schedule `random`: who goes first; 0: not drawn yet
  struct stream* next_to_advance;
  struct stream* waiters;  // streams whose first op waits for this one
  struct stream* next_waiter;
  struct waiter* host_waiters;

  struct actor* actor;    // while the checker is on
  struct branch* branch;  // its part in a capture, while it is captured; else NULL
  history* known;
  shelf* shelves;  // memory freed in this stream, by pool
} stream;

// Makes a stream on `d`. NULL when the host has no memory.
stream* sim_stream_create(struct device* d, unsigned flags, int priority);

// Makes the handle invalid. The stream goes once its work is done.
void sim_stream_close(stream* s);

// Called by the scheduler when a closed stream has nothing left to do.
void sim_stream_recycle(stream* s);

// The stream of a handle as the calling thread and `current` device mean it; NULL, and why, if it
// is none or may not be used.
stream* sim_stream_of(struct device* current, cudaStream_t handle, cudaError_t* error);

// Puts `s` behind all that the legacy stream's rules put it behind; call before every use.
cudaError_t sim_stream_enter(stream* s);

// The stream of a handle, with room for one more op and entered; NULL, and why, if it cannot be
// used. One that is captured is returned as it is: nothing is queued in it.
stream* sim_stream_for_work(struct device* current, cudaStream_t handle, cudaError_t* error);

// Puts all that `s` does next behind `position` of `target`, and behind all of `known`.
cudaError_t sim_stream_follow(stream* s, stream* target, uint64_t position, const history* known);

// Takes the next position, which is complete when all before it is.
uint64_t sim_stream_mark(stream* s);

static inline bool stream_is_done(const stream* s, uint64_t position) {
  return s->completed >= position;
}

static inline bool stream_is_blocking(const stream* s) {
  return !(s->flags & cudaStreamNonBlocking);
}

// The host has waited for `position` of `s`, and so for all of `known`, which that is behind.
void sim_stream_observe(stream* s, uint64_t position, const history* known);

// Waits for all that is now in the streams of `d`.
void sim_stream_wait_device(struct device* d);

// Frees the bookkeeping of all streams at once.
void sim_stream_drop(void);

#endif  // CUDASIM_STREAM_H_
