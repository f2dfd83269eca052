// What the program may rely on to come before what: by streams, events and what the host waits for,
// whatever the schedule has done already. For the checker, and there only while it is on.
//
// Every stream is an actor, which counts what it does and knows, for every other actor, up to where
// it comes after that. Of each actor is also known up to where the host has waited for it: all that
// is queued from then on, in any stream, comes after that. What one thread of the program has
// waited for, all threads are taken to know: how threads order themselves cannot be seen here.
//
//   actor A   1   2   3   4        time 4
//             known ^ to the host
//   actor B   1   2 (after A 3)    knows {A: 3}
//
// A destroyed stream's actor stays until the host knows all of it; then another stream takes it
// over and goes on counting. Guarded by the runtime's lock.
#ifndef CUDASIM_ORDER_H_
#define CUDASIM_ORDER_H_

#include <stdbool.h>
#include <stdint.h>

#include "cudasim/history.h"
#include "cudasim/include/cuda_runtime_api.h"

struct op;
struct stream;

typedef struct actor {
  struct actor* next;  // of its device, or of those that nobody has
  uint32_t slot;       // in histories
  uint64_t time;       // of the last thing that it did
  uint64_t observed;   // the host has waited for all up to here
  uint64_t version;    // counts what it does and what it comes to be after
  uint64_t entered;  // the version of the legacy stream, or of all blocking ones, that it is behind
  int device;
  bool is_blocking;
  bool is_legacy;
  bool is_closed;
  history* known;
} actor;

// A moment of an actor, and what that is behind. All zero: none.
typedef struct stamp {
  actor* by;
  uint64_t time;
  history* known;
} stamp;

//===-- Streams -------------------------------------------------------------------------------===//

// Gives `s` an actor, or takes it away. A stream without one, for want of memory, is not checked.
void sim_order_open(struct stream* s, bool is_legacy);
void sim_order_close(struct stream* s);

// Applies the rules of the legacy stream to what `s` does next.
void sim_order_enter(const struct stream* s);

// Puts what `s` does next behind the moment.
void sim_order_follow(const struct stream* s, const stamp* what);

// The same for all that is in `first` now.
void sim_order_join(const struct stream* second, const struct stream* first);

// The time of what `s` does now.
uint64_t sim_order_tick(const struct stream* s);

// Whether what `by` did at `time` comes before all that `s` does later than `now`.
bool sim_order_is_before(const actor* by, uint64_t time, const actor* s, uint64_t now);

//===-- Moments and the host ------------------------------------------------------------------===//

// This moment of `s`. Released with sim_order_release, whose argument is then none.
stamp sim_order_stamp(const struct stream* s);
void sim_order_release(stamp* what);

// The host has waited for the moment, which is then released; or for all of a device.
void sim_order_learn(stamp* what);
void sim_order_learn_device(int id);

stamp sim_order_copy(const stamp* what);

// The answer to a program that asked whether the moment is over, which is then released: if so, the
// host knows.
cudaError_t sim_order_answer(cudaError_t broken, bool is_over, stamp* what);

// Notes at the op of a host function what it comes after; and, as it has run, takes the host to
// know that: the function may have told it.
void sim_order_mark(struct op* o, const struct stream* s);
void sim_order_note_run(struct op* o);

static inline bool actor_is_observed(const actor* by, uint64_t time) {
  return !by || time <= by->observed;
}

// Whether memory ran out: what comes before what is not known any more, and nothing is reported.
bool sim_order_is_lost(void);

// Frees the bookkeeping of all actors at once.
void sim_order_drop(void);

#endif  // CUDASIM_ORDER_H_
