// What a stream is known to come after: for every other stream, the position up to which that
// stream's work is ordered before whatever this one does next. Events carry a copy of their
// stream's history, and a stream that waits for an event joins it to its own. Guarded by the
// runtime's lock.
#ifndef CUDASIM_HISTORY_H_
#define CUDASIM_HISTORY_H_

#include <stdbool.h>
#include <stdint.h>

// Shared by reference; copied before it is changed. NULL is the history that knows nothing.
typedef struct history history;

// The known position of the stream in `slot`; 0 where nothing is known.
uint64_t sim_history_of(const history* h, uint32_t slot);

history* sim_history_retain(history* h);
void sim_history_release(history* h);

// Adds to `*mine` all that `other` knows, or that the stream in `slot` is at `position`. False,
// with nothing changed, when the host has no memory.
bool sim_history_join(history** mine, const history* other);
bool sim_history_note(history** mine, uint32_t slot, uint64_t position);

// Frees the memory of all histories.
void sim_history_drop(void);

#endif  // CUDASIM_HISTORY_H_
