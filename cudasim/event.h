// Events. Recording one copies the position and the history of its stream; only one with timing
// takes a place in the queue, and only if the stream has something to do. Guarded by the runtime's
// lock.
#ifndef CUDASIM_EVENT_H_
#define CUDASIM_EVENT_H_

#include <stdbool.h>
#include <stdint.h>

#include "cudasim/graph.h"
#include "cudasim/order.h"
#include "cudasim/stream.h"

typedef struct event {
  struct device* device;
  struct event* previous_of_device;
  struct event* next_of_device;
  cudaEvent_t handle;
  unsigned flags;
  stream* stream;     // it was last recorded in, or NULL
  uint64_t position;  // there
  history* known;     // there
  stamp recorded;     // the same for the checker
  uint64_t serial;    // of the last recording; goes on counting when the memory is used again
  uint64_t ns;        // when the last recording completed; 0 until then
  uint64_t capture;   // the id of the capture it was last recorded in; 0: in none
  node_set captured;  // then the nodes that it comes after
} event;

// The event of a handle; NULL if it is none.
event* sim_event_of(cudaEvent_t handle);

// Notes that `e` is recorded at `position` of `s`, where a graph's node stands.
void sim_event_record_at(event* e, stream* s, uint64_t position);

static inline bool event_has_timing(const event* e) { return !(e->flags & cudaEventDisableTiming); }

// Destroys all events of `d`.
void sim_event_destroy_all(struct device* d);

// Notes that the recording completes now, unless a later one has taken its place.
void sim_event_stamp(event* e, uint64_t serial);

// Notes that `e` was last recorded in the capture `id`, after `nodes`, which become the event's.
void sim_event_set_captured(event* e, uint64_t id, const node_set* nodes);

// Frees the bookkeeping of all events at once.
void sim_event_drop(void);

#endif  // CUDASIM_EVENT_H_
