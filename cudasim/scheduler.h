// Who runs the work that streams have ready, and when.
//
// `threads`: each device has up to two workers, one for copies, fills and kernels and one for host
// functions, so that a host function that blocks holds up its stream only; while one blocks and
// others are ready, there are more. Workers start when there is work, end when there has been none
// for a while, and never wait for another stream: a stream that does is simply not ready. A thread
// of the program that waits helps with copies and fills.
//
// `eager`: the submitting thread runs what it submits, before its call returns.
//
// `random`: what is ready stays so until a thread of the program waits; that one then runs one
// after the other of all that is ready on any device, as the seed chooses, until it need not wait
// any longer. Where it need not wait at all, it may run some as well. There are no workers.
//
// Guarded by the runtime's lock, which is released while an op runs and while the host waits.
#ifndef CUDASIM_SCHEDULER_H_
#define CUDASIM_SCHEDULER_H_

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "cudasim/op.h"
#include "cudasim/stream.h"

#define PRIORITIES (STREAM_LOWEST_PRIORITY - STREAM_HIGHEST_PRIORITY + 1)

// Streams that have the same kind of work ready, by priority and in the order they became ready,
// and the workers for it.
typedef struct engine {
  stream* first[PRIORITIES];
  stream* last[PRIORITIES];
  unsigned
      occupied;  // a bit per priority that has streams, the lowest bit for the highest priority
  unsigned workers;
  unsigned resting;  // workers that wait for `wake`
  bool may_block;    // on the program: its work is host functions
  bool is_watched;   // a worker sees to what is still ready in a moment
  pthread_cond_t wake;
} engine;

typedef enum schedule {
  SCHEDULE_THREADS,
  SCHEDULE_EAGER,
  SCHEDULE_RANDOM,
} schedule;

// The two engines of a device. They stay when the device is closed: a worker may rest there.
typedef enum engine_kind {
  ENGINE_COPIES,
  ENGINE_HOST_FUNCTIONS,
} engine_kind;

engine* sim_engine_of(int id, engine_kind kind);

// Waits if `s` has no room for one more op of the program: a queue is bounded. Whether it waited,
// so that another thread may have changed anything.
bool sim_scheduler_make_room(stream* s);

// Queues `o` in `s` and lets it run; `soon` says that the caller is about to wait for it.
void sim_scheduler_submit(stream* s, op* o, bool soon);

// The same for several ops that are queued at once: eagerly, nothing is done before
// sim_scheduler_settle, which does all that is ready and waits for `position` of `s`. Randomly, it
// does some of what is ready, or nothing.
void sim_scheduler_queue(stream* s, op* o);
void sim_scheduler_settle(stream* s, uint64_t position);

// Waits until `s` has completed `position`.
void sim_scheduler_wait(stream* s, uint64_t position);

// The program asks whether `s` has completed `position`: randomly, something may be done before it
// is answered, without the lock. Who asks again and again gets there.
void sim_scheduler_ask(stream* s, uint64_t position);

// Something that does not wait, but could be taken for it: randomly, something may be done.
void sim_scheduler_pass(void);

// Ends the workers and waits for them; those in a host function are waited for only if `all`.
void sim_scheduler_stop(bool all);

#endif  // CUDASIM_SCHEDULER_H_
