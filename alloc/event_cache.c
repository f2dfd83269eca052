#include "alloc/event_cache.h"

#include <pthread.h>

#include "alloc/cuda_runtime.h"

enum { EVENTS_KEPT = 256 };  // per device: more than a step of an engine has pending at once

typedef struct event_shelf {
  pthread_mutex_t lock;
  int count;
  tm_event* events[EVENTS_KEPT];
} event_shelf;

static event_shelf shelves[TM_MAX_DEVICES] = {
    [0 ... TM_MAX_DEVICES - 1] = {.lock = PTHREAD_MUTEX_INITIALIZER},
};

static tm_event* take(event_shelf* shelf) {
  pthread_mutex_lock(&shelf->lock);
  tm_event* event = shelf->count > 0 ? shelf->events[--shelf->count] : NULL;
  pthread_mutex_unlock(&shelf->lock);
  return event;
}

static bool put(event_shelf* shelf, tm_event* event) {
  pthread_mutex_lock(&shelf->lock);
  const bool fits = shelf->count < EVENTS_KEPT;
  if (fits) {
    shelf->events[shelf->count++] = event;
  }
  pthread_mutex_unlock(&shelf->lock);
  return fits;
}

tm_event* tm_event_acquire_(int32_t id) {
  if (tm_device_check_(id) != TM_OK) {
    return NULL;
  }
  tm_event* event = take(&shelves[id]);
  return event ? event : tm_event_create(id, false);
}

void tm_event_recycle_(tm_event* event) {
  // A forked child may not take the lock: its parent's other threads may have held it.
  const int32_t id = tm_event_device(event).id;
  if (event && !(tm_device_usable_(id) && put(&shelves[id], event))) {
    tm_event_release(event);
  }
}

void tm_event_cache_clear_(void) {
  for (int32_t id = 0; id < TM_MAX_DEVICES; id++) {
    tm_event* event = tm_device_usable_(id) ? take(&shelves[id]) : NULL;
    while (event) {
      tm_event_release(event);
      event = take(&shelves[id]);
    }
  }
}
