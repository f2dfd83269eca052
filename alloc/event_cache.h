// Events that are kept ready, so that ordering two streams costs no cudaEventCreate. Private.
#ifndef TM_ALLOC_EVENT_CACHE_H_
#define TM_ALLOC_EVENT_CACHE_H_

#include <stdint.h>

#include "tm/alloc/event.h"

// Takes an event without timing for device `id`, from the cache or new. Returns NULL on failure.
// Ownership: the caller gives it back with tm_event_recycle_.
// Errors: as tm_event_create.
// Threads: safe.
TM_NODISCARD tm_event* tm_event_acquire_(int32_t id);

// Gives an event back, also while it is pending: it is recorded anew before it is waited for again.
// NULL is a no-op.
void tm_event_recycle_(tm_event* event);

// Destroys the events that are kept, so that a test can count what is left.
// Threads: safe.
void tm_event_cache_clear_(void);

#endif  // TM_ALLOC_EVENT_CACHE_H_
