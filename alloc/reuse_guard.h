// What keeps freed host memory from being used again while a stream still reads or writes it: an
// event, and the host asks whether it is done. Private.
//
//             prepare                  close on a stream               the event is seen done
//   OPEN ------------------> OPEN --------------------------> RECORDED ----------------------> OVER
//                                 \-- cannot be recorded --> UNRECORDED -- later call ---^
//                                 \-- close on no stream ------------------------------------> OVER
//
// Where the event cannot be recorded yet (the stream is being captured, or CUDA fails), the guard
// keeps the stream; recording later covers the same work and more. So closing never fails and never
// waits.
//
// Threads: none of it is safe; whoever owns the memory locks. In the child of a fork nothing here
// may be called.
#ifndef TM_ALLOC_REUSE_GUARD_H_
#define TM_ALLOC_REUSE_GUARD_H_

#include <stdbool.h>

#include "tm/alloc/event.h"
#include "tm/alloc/stream.h"
#include "tm/base/attributes.h"
#include "tm/base/status.h"

typedef enum reuse_state {
  REUSE_OPEN,  // in use
  REUSE_UNRECORDED,
  REUSE_RECORDED,
  REUSE_OVER,  // idle
} reuse_state;

// All zero: open, without an event.
typedef struct reuse_guard {
  reuse_state state;
  tm_event* event;    // from the event cache; NULL where no stream was named yet
  tm_stream* stream;  // retained while UNRECORDED; else NULL
} reuse_guard;

// Obtains the event that closing on `stream` will need. On failure the guard is as it was.
TM_NODISCARD tm_status reuse_guard_prepare(reuse_guard* guard, const tm_stream* stream);

// The memory is free after what is queued on `stream` now; NULL: at once.
void reuse_guard_close(reuse_guard* guard, tm_stream* stream);

// Whether a closed guard is over: nothing uses the memory any more.
bool reuse_guard_is_over(reuse_guard* guard);

// Whether a closed guard will never be over, since its device is lost.
bool reuse_guard_is_lost(const reuse_guard* guard);

// Gives the event and the stream back; the guard is then all zero.
void reuse_guard_deinit(reuse_guard* guard);

#endif  // TM_ALLOC_REUSE_GUARD_H_
