// Entries are a linked list through the frames of the functions that opened them:
//
//   context.top -> [TM_WITH_ALLOCATOR in layer()] -> [TM_WITH_STREAM in step()] -> NULL
//
// What is current is kept in the context itself, by slot, and every entry keeps what it replaced.
// So lookups never follow the list, and neither does closing: an entry whose function has gone is
// counted, reported, and never read. Only tm_context_restore walks entries, those that its caller
// still has open.

#include "tm/context/context.h"

#include <stdlib.h>
#include <string.h>

#include "alloc/destroy_watch.h"
#include "context/object.h"
#include "tm/alloc/bookkeeping.h"
#include "tm/alloc/host.h"
#include "tm/base/fatal.h"
#include "tm/base/source_path.h"
#include "tm/base/thread_exit.h"
#include "tm/log.h"

static __thread context_object first_context;
static tm_thread_exit at_exit;
static bool watches_exit;               // atomic
static bool is_exiting;                 // atomic
static __thread bool thread_is_ending;  // or has called exit()

//===-- Lifetime ----------------------------------------------------------===//

void context_set_base(context_object* object) {
  memset(object->hot.current, 0, sizeof object->hot.current);
  object->hot.current[TM_SLOT_ALLOCATOR_ + TM_CPU] = tm_host_allocator();
  const captured_context* base = object->token ? object->token->captured : object->captured;
  if (base) {
    memcpy(object->hot.current, base->current, sizeof base->current);
  }
}

void context_init(context_object* object, captured_context* captured) {
  object->references = 1;
  object->hot.failing = nowhere;
  object->captured = captured;
  object->trace_top = captured ? captured->trace_top : NULL;
  context_set_base(object);
}

void context_report_leftovers(const context_object* object, const char* event) {
  if (object->hot.depth) {
    TM_LOG_ERROR("%s with %zu scopes of its context still open", event, object->hot.depth);
  }
}

static void leave_context(context_object* object);

// Leaves a context whose thread closes no scope any more. What was opened in it since goes as well,
// but for a fiber's, which has scopes of its own elsewhere.
static void abandon_context(context_object* object) {
  if (object->entered_depth == 0) {
    object->hot.top = NULL;
    object->hot.depth = 0;
    object->hot.failing = nowhere;
    context_set_base(object);
    tm_thread_.trace_top = object->trace_top;  // as it was
  }
  leave_context(object);
  tm_thread_.trace_top = NULL;  // a token's may be gone
}

// From here on no scope of this thread is closed: it ends, or has called exit() inside them.
// Nothing stays current, so that whatever is destroyed next may be. The count stays, for the
// report.
static void abandon_scopes(void* unused) {
  (void)unused;
  thread_is_ending = true;
  if (!tm_thread_.context) {
    return;
  }
  size_t left = 0;
  while (tm_thread_.context != &first_context.hot) {
    left += tm_thread_.context->depth;
    abandon_context((context_object*)tm_thread_.context);
  }
  first_context.hot.top = NULL;
  first_context.hot.depth += left;
  first_context.hot.failing = nowhere;
  context_set_base(&first_context);
}

static void end_thread(void* unused) {
  abandon_scopes(unused);
  context_report_leftovers(&first_context, "a thread ends");
  tm_thread_.context = NULL;
}

static void note_exit(void) { __atomic_store_n(&is_exiting, true, __ATOMIC_RELAXED); }

static void watch_process(void) {
  if (!__atomic_exchange_n(&watches_exit, true, __ATOMIC_RELAXED)) {
    (void)atexit(note_exit);
  }
}

static void refuse_to_destroy_pushed(const void* object, const char* what);

tm_context* tm_context_first_use_(void) {
  memset(&first_context, 0, sizeof first_context);
  context_init(&first_context, NULL);
  first_context.thread = &tm_thread_;
  tm_thread_.context = &first_context.hot;
  tm_watch_destroy_(refuse_to_destroy_pushed);
  watch_process();
  (void)tm_thread_exit_set_first_(abandon_scopes, NULL);
  // Where that fails, leftover scopes of the thread go unreported.
  (void)tm_thread_exit_set_(&at_exit, end_thread, &first_context);
  return &first_context.hot;
}

tm_context* tm_context_create(void) {
  context_object* object = tm_bookkeeping_alloc(sizeof *object, "a context");
  if (!object) {
    return NULL;
  }
  context_init(object, NULL);
  return &object->hot;
}

tm_context* tm_context_retain(tm_context* context) {
  if (context) {
    __atomic_fetch_add(&((context_object*)context)->references, 1, __ATOMIC_RELAXED);
  }
  return context;
}

// A global may be destroyed by exit() while other threads run on: then it stays. Globals that were
// made after the first scope are destroyed before note_exit runs.
static void refuse_to_destroy_current(context_object* object) {
  __atomic_store_n(&object->references, 1, __ATOMIC_RELAXED);
  if (!thread_is_ending && !__atomic_load_n(&is_exiting, __ATOMIC_RELAXED)) {
    TM_FATAL("a context is released while it is current on a thread");
  }
}

void tm_context_release(tm_context* context) {
  context_object* object = (context_object*)context;
  if (!object) {
    return;
  }
  if (__atomic_fetch_sub(&object->references, 1, __ATOMIC_ACQ_REL) != 1) {
    return;
  }
  if (__atomic_load_n(&object->thread, __ATOMIC_ACQUIRE)) {
    refuse_to_destroy_current(object);
    return;
  }
  context_report_leftovers(object, "a context is released");
  context_release_captured(object->captured);
  tm_bookkeeping_free(object);
}

//===-- Lookup ------------------------------------------------------------===//

tm_context* tm_current_context(void) { return tm_context_get_(); }

size_t tm_context_depth(void) { return tm_context_get_()->depth; }

tm_allocator* tm_require_allocator(tm_device device) {
  tm_allocator* allocator = tm_current_allocator_on(device);
  if (TM_UNLIKELY(!allocator)) {
    if (device.type == TM_DEVICE && device.id != -1) {
      (void)TM_RAISE(TM_ERR_UNAVAILABLE, "no allocator for device %d is current", device.id);
    } else {
      (void)TM_RAISE(TM_ERR_UNAVAILABLE, "no %s allocator is current",
                     tm_device_type_name((tm_device_type)device.type));
    }
  }
  return allocator;
}

tm_stream* tm_require_stream(void) {
  tm_stream* stream = tm_current_stream();
  if (TM_UNLIKELY(!stream)) {
    (void)TM_RAISE(TM_ERR_UNAVAILABLE, "no stream is current");
  }
  return stream;
}

//===-- Misuse ------------------------------------------------------------===//

// An entry that was never put on top: a fatal handler that throws has its scope closed all the
// same.
static const tm_slots_ unlinked = UINT32_MAX;

void tm_frame_stale_(tm_frame* frame) {
  frame->slots = unlinked;
  TM_FATAL(
      "a scope is opened at %s:%d above one whose function was left without closing it "
      "(longjmp without tm_context_restore?); %zu were open",
      tm_source_path_(frame->file), frame->line, tm_thread_.context->depth);
}

bool context_read_entry(const tm_frame* entry, tm_frame* out) {
  return !tm_is_below_stack_(entry) && !tm_is_on_unused_stack_(entry) &&
         tm_read_memory_(entry, out, sizeof *out);
}

// Copies the name of the file that an entry may have. False where it has none.
static bool read_file(const tm_frame* entry, char* file, size_t size) {
  size_t length = 0;
  file[0] = '\0';
  while (length + 1 < size && tm_read_memory_(entry->file + length, &file[length], 1) &&
         file[length] >= ' ' && file[length] <= '~') {
    length++;
  }
  const bool whole = file[length] == '\0';
  file[length] = '\0';
  return whole && length > 0;
}

// Whether a scope is closed that abandon_scopes has left: its entry is in a global, or a destructor
// of the thread pops it. It is counted off.
static bool close_abandoned(void) {
  tm_context* first = &first_context.hot;
  const bool found =
      !first->top && first->depth > 0 && (!tm_thread_.context || tm_thread_.context == first);
  first->depth -= found;
  return found;
}

void tm_frame_mismatch_(const tm_frame* frame) {
  if (frame->slots == unlinked || close_abandoned()) {
    return;
  }
  const tm_context* context = tm_thread_.context;
  const char* place = tm_source_path_(frame->file);
  if (!context || !context->top) {
    TM_FATAL("the scope of %s:%d is closed on a thread that has no scope open", place, frame->line);
  }
  tm_frame top;
  char file[256];
  if (!context_read_entry(context->top, &top) || !read_file(&top, file, sizeof file)) {
    TM_FATAL(
        "the scope of %s:%d is closed, but the innermost of the %zu open ones is another, whose "
        "function was left without closing it",
        place, frame->line, context->depth);
  }
  TM_FATAL("the scope of %s:%d is closed, but the innermost of the %zu open ones is that of %s:%d",
           place, frame->line, context->depth, tm_source_path_(file), top.line);
}

// Finds the innermost entry of `context` that made `object` current, and copies it.
static bool find_entry(const tm_context* context, const void* object, tm_frame* out) {
  size_t left = context->depth;
  for (const tm_frame* entry = context->top; entry && left > 0; entry = out->below, left--) {
    if (!context_read_entry(entry, out)) {
      return false;
    }
    if (out->value == object) {
      return true;
    }
  }
  return false;
}

static bool is_in_a_slot(const tm_context* context, const void* object) {
  for (size_t slot = 0; slot < TM_SLOTS_; slot++) {
    if (slot != TM_SLOT_NONE_ && context->current[slot] == object) {
      return true;
    }
  }
  return false;
}

static void refuse_to_destroy_pushed(const void* object, const char* what) {
  for (const tm_context* context = tm_thread_.context; context;) {
    tm_frame entry;
    char file[256];
    if (find_entry(context, object, &entry) && read_file(&entry, file, sizeof file)) {
      TM_FATAL("a %s is destroyed that the scope of %s:%d has made current", what,
               tm_source_path_(file), entry.line);
    }
    if (is_in_a_slot(context, object)) {
      TM_FATAL("a %s is destroyed that is current, by a scope that was left without closing it",
               what);
    }
    const context_object* replaced = ((const context_object*)context)->replaced;
    context = replaced ? &replaced->hot : NULL;
  }
}

//===-- Entries -----------------------------------------------------------===//

void tm_frame_push_allocator_(tm_frame* frame, tm_allocator* allocator, const char* file,
                              int line) {
  (void)tm_frame_open_allocator_(frame, allocator, NULL, file, line);
}

void tm_frame_push_stream_(tm_frame* frame, tm_stream* stream, const char* file, int line) {
  (void)tm_frame_open_stream_(frame, stream, NULL, file, line);
}

void tm_pop(tm_frame* frame) { tm_frame_close_(frame); }

void tm_frame_close_owned_(tm_frame* frame) {
  tm_allocator* owned = frame->value;
  tm_frame_close_(frame);
  tm_allocator_release(owned);
}

int tm_frame_open_oom_handler_(tm_frame* frame, tm_oom_handler handler, void* user,
                               const char* file, int line) {
  tm_context* context = tm_context_get_();
  tm_frame_link_(context, frame, file, line);
  const uint32_t slot = handler ? TM_SLOT_OOM_HANDLER_ : TM_SLOT_NONE_;
  frame->slots = tm_slots_make_(slot, TM_SLOT_NONE_);
  frame->value = (void*)handler;
  frame->saved_on_device = user;
  frame->saved = context->current[TM_SLOT_OOM_HANDLER_];
  frame->seal = context_seal(frame, frame);
  if (handler) {
    context->current[TM_SLOT_OOM_HANDLER_] = frame;
  }
  return 1;
}

// Takes the innermost entry off; fatal where that is not `frame`.
static tm_context* unlink_top(tm_frame* frame) {
  tm_context* context = tm_thread_.context;
  if (!context || context->top != frame) {
    tm_frame_mismatch_(frame);
    return NULL;
  }
  context->top = frame->below;
  context->depth--;
  return context;
}

void tm_frame_close_oom_handler_(tm_frame* frame) {
  tm_context* context = unlink_top(frame);
  if (context) {
    context->current[TM_SLOT_OOM_HANDLER_] = frame->saved;
  }
}

// Takes back the entry of a context that cannot be made current. The fatal error that follows may
// be left by an exception, and then the scope closes all the same.
static void unopen_context(tm_frame* frame) {
  unlink_top(frame);
  frame->value = NULL;
  frame->slots = unlinked;
}

// The entry stands in the context that is replaced, so that a fiber may suspend with scopes open.
int tm_frame_open_context_(tm_frame* frame, tm_context* context, void* unused, const char* file,
                           int line) {
  (void)unused;
  tm_context* outer = tm_context_get_();
  tm_frame_link_(outer, frame, file, line);
  frame->slots = tm_slots_make_(TM_SLOT_NONE_, TM_SLOT_NONE_);
  frame->value = context;
  frame->saved_on_device = tm_thread_.trace_top;
  if (!context) {
    return 1;
  }
  context_object* object = context_to_enter((context_object*)context);
  if (!object) {
    unopen_context(frame);
    TM_FATAL("the context made current at %s:%d: %s", tm_source_path_(file), line,
             tm_last_error()->message);
  }
  const tm_thread* other = NULL;
  if (!__atomic_compare_exchange_n(&object->thread, &other, &tm_thread_, false, __ATOMIC_ACQUIRE,
                                   __ATOMIC_RELAXED)) {
    unopen_context(frame);
    TM_FATAL("the context made current at %s:%d is already current on %s thread",
             tm_source_path_(file), line, other == &tm_thread_ ? "this" : "another");
  }
  context_take_arenas(object);
  frame->value = object;
  object->replaced = (context_object*)outer;
  object->entered_top = object->hot.top;
  object->entered_depth = object->hot.depth;
  tm_thread_.trace_top = object->trace_top;
  tm_thread_.context = &object->hot;
  return 1;
}

// Stops `object` from being current, keeping its trace. It may be gone afterwards.
static void leave_context(context_object* object) {
  object->trace_top = tm_thread_.trace_top;
  tm_thread_.context = &object->replaced->hot;
  object->replaced = NULL;
  context_give_arenas_back(object);
  const bool is_stand_in = object->token;
  __atomic_store_n(&object->thread, NULL, __ATOMIC_RELEASE);  // others may release it from here on
  if (is_stand_in) {
    context_stand_in_is_left(object);
  }
}

void tm_frame_close_context_(tm_frame* frame) {
  context_object* object = frame->value;
  if (object) {
    if (tm_thread_.context != &object->hot) {
      tm_frame_mismatch_(frame);
      return;
    }
    leave_context(object);
    tm_thread_.trace_top = frame->saved_on_device;
  }
  unlink_top(frame);
}

//===-- After longjmp -----------------------------------------------------===//

tm_context_mark tm_context_save(void) {
  tm_context* context = tm_context_get_();
  return (tm_context_mark){
      .context = context,
      .top = context->top,
      .depth = context->depth,
      .trace_top = tm_thread_.trace_top,
      .oom_handler = context->current[TM_SLOT_OOM_HANDLER_],
      .failing = context->failing,
  };
}

// Makes current what the entries from `entry` outwards say.
static void rebuild_current(tm_context* context, tm_frame* entry) {
  bool known[TM_SLOTS_] = {false};
  context_set_base((context_object*)context);
  for (; entry; entry = entry->below) {
    void* value = tm_slots_type_(entry->slots) == TM_SLOT_OOM_HANDLER_ ? entry : entry->value;
    const uint32_t slots[] = {tm_slots_type_(entry->slots), tm_slots_device_(entry->slots)};
    for (int i = 0; i < 2; i++) {
      if (slots[i] != TM_SLOT_NONE_ && !known[slots[i]]) {
        known[slots[i]] = true;
        context->current[slots[i]] = value;
      }
    }
  }
}

// Drops the entries above `top` and returns how many there were.
static size_t drop_entries(tm_context* context, tm_frame* top, size_t depth) {
  if (context->depth < depth) {
    TM_FATAL("tm_context_restore: %zu scopes were open at the save, %zu are now", depth,
             context->depth);
  }
  const size_t dropped = context->depth - depth;
  context->top = top;
  context->depth = depth;
  rebuild_current(context, top);
  context->failing = nowhere;
  return dropped;
}

size_t tm_context_restore(const tm_context_mark* mark) {
  size_t dropped = 0;
  while (tm_thread_.context != mark->context) {
    context_object* inner = (context_object*)tm_context_get_();
    if (!inner->replaced) {
      TM_FATAL("tm_context_restore: the saved context is not current on this thread");
    }
    dropped += drop_entries(&inner->hot, inner->entered_top, inner->entered_depth);
    tm_thread_.trace_top = inner->trace_top;  // as it was, unless it is a fiber's
    leave_context(inner);
  }
  dropped += drop_entries(mark->context, mark->top, mark->depth);
  mark->context->current[TM_SLOT_OOM_HANDLER_] = mark->oom_handler;
  mark->context->failing = mark->failing;
  tm_thread_.trace_top = mark->trace_top;
  return dropped;
}
