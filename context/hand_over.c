// Handing a context over to other threads: tm_context_capture and tm_context_capture_move.
//
// What is captured is either shared or moved:
// - A shared token is never current itself. Each thread that attaches it gets a context that stands
//   for it. Arenas, and adaptors over them, are replaced by the upstreams of the arenas, since one
//   thread at a time may use an arena.
// - A moved token is a context like any other, current on one thread at a time, that brings its
//   arenas along. While it is current nowhere, an identity that is no thread's owns them.

#include <string.h>

#include "alloc/thread_identity.h"
#include "context/object.h"
#include "tm/alloc/bookkeeping.h"
#include "tm/alloc/stack.h"
#include "tm/base/fatal.h"

//===-- What is captured --------------------------------------------------===//

typedef struct token_block {
  context_object object;
  captured_context captured;
  char trace[];
} token_block;

static bool holds_allocator(size_t slot) {
  return slot < TM_DEVICE_TYPES || slot >= (size_t)TM_SLOT_ON_DEVICE_;
}

// The allocator that any thread may use in the place of `allocator`: what is over an arena, an
// adaptor say, is no more for several threads than that is.
static tm_allocator* shareable(tm_allocator* allocator) {
  for (tm_allocator* below = allocator; below; below = tm_allocator_upstream(below)) {
    allocator = tm_is_stack(below) ? tm_allocator_upstream(below) : allocator;
  }
  return allocator;
}

static void capture_current(captured_context* out, const tm_context* from, bool move) {
  for (size_t slot = 0; slot < TM_SLOTS_; slot++) {
    if (holds_allocator(slot)) {
      tm_allocator* allocator = from->current[slot];
      out->current[slot] = tm_allocator_retain(move ? allocator : shareable(allocator));
    }
  }
  out->current[TM_SLOT_STREAM_] = tm_stream_retain(from->current[TM_SLOT_STREAM_]);
}

// Passes every arena on, those below other allocators included. False where one belongs to somebody
// else than `from`.
static bool pass_arenas(const captured_context* what, tm_thread_identity* from,
                        tm_thread_identity* to) {
  bool all = true;
  for (size_t slot = 0; slot < TM_SLOTS_; slot++) {
    tm_allocator* allocator = holds_allocator(slot) ? what->current[slot] : NULL;
    for (; allocator; allocator = tm_allocator_upstream(allocator)) {
      all = (!tm_is_stack(allocator) || tm_stack_pass_(allocator, from, to)) && all;
    }
  }
  return all;
}

void context_release_captured(captured_context* what) {
  if (!what) {
    return;
  }
  if (what->moved) {
    (void)pass_arenas(what, what->moved, NULL);
    tm_thread_identity_release(what->moved);
  }
  for (size_t slot = 0; slot < TM_SLOTS_; slot++) {
    if (holds_allocator(slot)) {
      tm_allocator_release(what->current[slot]);
    }
  }
  tm_stream_release(what->current[TM_SLOT_STREAM_]);
}

//===-- Capturing ---------------------------------------------------------===//

static token_block* capture(const char* caller, bool move) {
  const context_object* from = (const context_object*)tm_context_get_();
  if (!tm_device_equal(from->failing, nowhere)) {
    (void)TM_RAISE(TM_ERR_INVALID, "%s inside an out-of-memory handler", caller);
    return NULL;
  }
  const size_t trace_size = tm_trace_copy_size_();
  token_block* made = tm_bookkeeping_alloc(sizeof *made + trace_size, "a captured context");
  if (!made) {
    return NULL;
  }
  capture_current(&made->captured, &from->hot, move);
  made->captured.trace_top = tm_trace_copy_(made->trace, trace_size);
  context_init(&made->object, &made->captured);
  return made;
}

tm_context* tm_context_capture(void) {
  token_block* made = capture("tm_context_capture", false);
  return made ? &made->object.hot : NULL;
}

// Takes the arenas from the calling thread.
static tm_status move_arenas(captured_context* what) {
  what->moved = tm_thread_identity_make();
  if (!what->moved) {
    return tm_last_status();
  }
  if (!pass_arenas(what, tm_this_thread_, what->moved)) {
    return TM_RAISE(TM_ERR_BUSY, "tm_context_capture_move: a stack is owned by another thread");
  }
  return TM_OK;
}

tm_context* tm_context_capture_move(void) {
  token_block* made = capture("tm_context_capture_move", true);
  if (made && move_arenas(&made->captured) != TM_OK) {
    tm_context_release(&made->object.hot);  // the arenas it has taken are nobody's now
    return NULL;
  }
  return made ? &made->object.hot : NULL;
}

//===-- Attaching ---------------------------------------------------------===//

static bool is_shared_token(const context_object* object) {
  return object->captured && !object->captured->moved;
}

// A token has one context to stand for it; what attaches it meanwhile takes one from the heap. None
// is a thread-local: a library's thread-locals together must fit what the loader keeps for dlopen.
static context_object* take_stand_in(captured_context* captured) {
  if (!__atomic_exchange_n(&captured->stand_in_is_taken, true, __ATOMIC_ACQUIRE)) {
    memset(&captured->stand_in, 0, sizeof captured->stand_in);
    return &captured->stand_in;
  }
  return tm_bookkeeping_alloc(sizeof(context_object), "a context attached more than once");
}

static void give_stand_in_back(captured_context* captured, context_object* stand_in) {
  if (stand_in == &captured->stand_in) {
    __atomic_store_n(&captured->stand_in_is_taken, false, __ATOMIC_RELEASE);
  } else {
    tm_bookkeeping_free(stand_in);
  }
}

context_object* context_to_enter(context_object* asked) {
  if (!is_shared_token(asked)) {
    return asked;
  }
  context_object* stand_in = take_stand_in(asked->captured);
  if (!stand_in) {
    return NULL;
  }
  stand_in->token = (context_object*)tm_context_retain(&asked->hot);
  context_init(stand_in, NULL);
  stand_in->trace_top = asked->captured->trace_top;
  return stand_in;
}

void context_stand_in_is_left(context_object* stand_in) {
  if (__atomic_load_n(&stand_in->references, __ATOMIC_RELAXED) > 1) {
    TM_FATAL(
        "a context that was retained while it stood for a captured one ends with its block: retain "
        "the captured one");
  }
  context_object* token = stand_in->token;
  give_stand_in_back(token->captured, stand_in);
  tm_context_release(&token->hot);
}

// Where this thread cannot have an identity for want of memory, the arenas are nobody's, and its
// first allocation says so.
void context_take_arenas(context_object* object) {
  if (object->captured) {
    const tm_error kept = *tm_last_error();
    (void)pass_arenas(object->captured, object->captured->moved, tm_thread_identity_get());
    tm_restore_error_(&kept);
  }
}

void context_give_arenas_back(context_object* object) {
  if (object->captured) {
    (void)pass_arenas(object->captured, tm_this_thread_, object->captured->moved);
  }
}
