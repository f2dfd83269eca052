// A context as it is kept. Private to context/.
#ifndef TM_CONTEXT_OBJECT_H_
#define TM_CONTEXT_OBJECT_H_

#include <stdbool.h>
#include <stdint.h>

#include "tm/alloc/device.h"
#include "tm/base/thread.h"
#include "tm/base/trace.h"
#include "tm/context/context.h"

struct captured_context;
struct tm_thread_identity;

typedef struct context_object {
  tm_context hot;                   // must be first
  const tm_thread* thread;          // atomic; where it is current; NULL: nowhere
  struct context_object* replaced;  // what was current before it, while it is
  tm_frame* entered_top;            // where it stood when it became current
  size_t entered_depth;
  tm_trace_frame* trace_top;          // its own trace, while it is not current
  int32_t references;                 // atomic
  struct captured_context* captured;  // of a token; else NULL
  struct context_object* token;       // retained; of a context that stands for one; else NULL
} context_object;

// What tm_context_capture found. The allocators and the stream are retained.
typedef struct captured_context {
  void* current[TM_SLOTS_];
  tm_trace_frame* trace_top;         // of a copy, which follows in the same block
  struct tm_thread_identity* moved;  // owns the arenas while no thread does; NULL: shared
  context_object stand_in;           // for one thread at a time that attaches a shared token
  bool stand_in_is_taken;            // atomic
} captured_context;

static const tm_device nowhere = {-1, 0};

// Makes current what the context begins with, and nothing else.
void context_set_base(context_object* object);

void context_init(context_object* object, captured_context* captured);

void context_report_leftovers(const context_object* object, const char* event);

// Over the fields of a handler's entry at `entry`, whose copy is `copy`.
static inline uintptr_t context_seal(const tm_frame* entry, const tm_frame* copy) {
  return (uintptr_t)entry * 3 + (uintptr_t)copy->value * 5 + (uintptr_t)copy->saved * 7 +
         (uintptr_t)copy->saved_on_device * 11 + copy->slots;
}

// Copies an entry that may be of a function, a fiber or a thread that is gone. False where that is
// certain.
bool context_read_entry(const tm_frame* entry, tm_frame* out);

//===-- Hand-over ---------------------------------------------------------===//

// The context that a thread enters for `asked`: itself or, where that is a token which any number
// of threads attach, one that stands for it. NULL after raising TM_ERR_NO_MEMORY.
context_object* context_to_enter(context_object* asked);

// Undoes context_to_enter where it made a stand-in, which may be gone afterwards. One that somebody
// has retained is fatal.
void context_stand_in_is_left(context_object* stand_in);

// The calling thread has made `object` current, or is about to stop that.
void context_take_arenas(context_object* object);
void context_give_arenas_back(context_object* object);

// NULL is a no-op.
void context_release_captured(captured_context* what);

#endif  // TM_CONTEXT_OBJECT_H_
