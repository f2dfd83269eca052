// Entries are a linked list through the frames of the functions that opened them:
//
//   context.top -> [TM_WITH_ALLOCATOR in layer()] -> [TM_WITH_STREAM in step()] -> NULL
//
// What is current is kept in the context itself, by slot, and every entry keeps what it replaced.
// So lookups never follow the list, and neither does closing: an entry whose function has gone is
// counted, reported, and never read. Only tm_context_restore walks entries, those that its caller
// still has open.

#include "tm/context/context.h"

#include <string.h>

#include "tm/alloc/bookkeeping.h"
#include "tm/alloc/host.h"
#include "tm/base/fatal.h"
#include "tm/base/thread_exit.h"
#include "tm/base/trace.h"
#include "tm/log.h"

typedef struct context_object {
  tm_context hot;                    // must be first
  const tm_thread* thread;           // atomic; where it is current; NULL: nowhere
  struct context_object* replaced;   // what was current before it, while it is
  tm_context_mark entered;           // where it stood when it became current
  struct tm_trace_frame* trace_top;  // its own trace, while it is not current
  tm_device failing;                 // whose out-of-memory handler runs; a type of -1: none
} context_object;

static __thread context_object first_context;
static tm_thread_exit at_exit;

//===-- Lifetime ----------------------------------------------------------===//

static const tm_device nowhere = {-1, 0};

static void init_context(context_object* object) {
  memset(object, 0, sizeof *object);
  object->failing = nowhere;
  object->hot.current[TM_SLOT_ALLOCATOR_ + TM_CPU] = tm_host_allocator();
}

static void report_leftovers(const context_object* object, const char* event) {
  if (object->hot.depth) {
    TM_LOG_ERROR("%s with %zu scopes of its context still open", event, object->hot.depth);
  }
}

static void leave_context(context_object* object);

static void end_thread(void* value) {
  while (tm_thread_.context && tm_thread_.context != value) {
    report_leftovers((context_object*)tm_thread_.context, "a thread ends");
    leave_context((context_object*)tm_thread_.context);
  }
  report_leftovers(value, "a thread ends");
  tm_thread_.context = NULL;
}

tm_context* tm_context_first_use_(void) {
  init_context(&first_context);
  first_context.thread = &tm_thread_;
  tm_thread_.context = &first_context.hot;
  // Where that fails, leftover scopes of the thread go unreported.
  (void)tm_thread_exit_set_(&at_exit, end_thread, &first_context);
  return &first_context.hot;
}

tm_context* tm_context_create(void) {
  context_object* object = tm_bookkeeping_alloc(sizeof *object, "a context");
  if (!object) {
    return NULL;
  }
  init_context(object);
  return &object->hot;
}

void tm_context_release(tm_context* context) {
  if (!context) {
    return;
  }
  context_object* object = (context_object*)context;
  if (__atomic_load_n(&object->thread, __ATOMIC_ACQUIRE)) {
    TM_FATAL("a context is released while it is current on a thread");
  }
  report_leftovers(object, "a context is released");
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
      frame->file, frame->line, tm_thread_.context->depth);
}

// Copies an entry that may be of a function, a fiber or a thread that is gone. False where it is.
static bool read_entry(const tm_frame* entry, tm_frame* out, char* file, size_t size) {
  if (tm_is_below_stack_(entry) || !tm_read_memory_(entry, out, sizeof *out) ||
      !tm_read_memory_(out->file, file, 1)) {
    return false;
  }
  size_t length = 0;
  while (length + 1 < size && tm_read_memory_(out->file + length, &file[length], 1) &&
         file[length] >= ' ' && file[length] <= '~') {
    length++;
  }
  const bool whole = file[length] == '\0';
  file[length] = '\0';
  return whole && length > 0;
}

void tm_frame_mismatch_(const tm_frame* frame) {
  if (frame->slots == unlinked) {
    return;
  }
  const tm_context* context = tm_thread_.context;
  if (!context || !context->top) {
    TM_FATAL("the scope of %s:%d is closed on a thread that has no scope open", frame->file,
             frame->line);
  }
  tm_frame top;
  char file[256];
  if (!read_entry(context->top, &top, file, sizeof file)) {
    TM_FATAL(
        "the scope of %s:%d is closed, but the innermost of the %zu open ones is another, whose "
        "function was left without closing it",
        frame->file, frame->line, context->depth);
  }
  TM_FATAL("the scope of %s:%d is closed, but the innermost of the %zu open ones is that of %s:%d",
           frame->file, frame->line, context->depth, file, top.line);
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
  context_object* object = (context_object*)context;
  const tm_thread* other = NULL;
  if (!__atomic_compare_exchange_n(&object->thread, &other, &tm_thread_, false, __ATOMIC_ACQUIRE,
                                   __ATOMIC_RELAXED)) {
    unlink_top(frame);
    frame->value = NULL;
    frame->slots = unlinked;
    TM_FATAL("the context made current at %s:%d is already current on %s thread", frame->file,
             frame->line, other == &tm_thread_ ? "this" : "another");
  }
  object->replaced = (context_object*)outer;
  object->entered.top = context->top;
  object->entered.depth = context->depth;
  tm_thread_.trace_top = object->trace_top;
  tm_thread_.context = context;
  return 1;
}

// Stops `object` from being current, keeping its trace.
static void leave_context(context_object* object) {
  object->trace_top = tm_thread_.trace_top;
  tm_thread_.context = &object->replaced->hot;
  object->replaced = NULL;
  __atomic_store_n(&object->thread, NULL, __ATOMIC_RELEASE);
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
      .failing = ((context_object*)context)->failing,
  };
}

// Makes current what the entries from `entry` outwards say.
static void rebuild_current(tm_context* context, tm_frame* entry) {
  bool known[TM_SLOTS_] = {false};
  memset(context->current, 0, sizeof context->current);
  context->current[TM_SLOT_ALLOCATOR_ + TM_CPU] = tm_host_allocator();
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
  ((context_object*)context)->failing = nowhere;
  return dropped;
}

size_t tm_context_restore(const tm_context_mark* mark) {
  size_t dropped = 0;
  while (tm_thread_.context != mark->context) {
    context_object* inner = (context_object*)tm_context_get_();
    if (!inner->replaced) {
      TM_FATAL("tm_context_restore: the saved context is not current on this thread");
    }
    dropped += drop_entries(&inner->hot, inner->entered.top, inner->entered.depth);
    tm_thread_.trace_top = inner->trace_top;  // as it was, unless it is a fiber's
    leave_context(inner);
  }
  dropped += drop_entries(mark->context, mark->top, mark->depth);
  mark->context->current[TM_SLOT_OOM_HANDLER_] = mark->oom_handler;
  ((context_object*)mark->context)->failing = mark->failing;
  tm_thread_.trace_top = mark->trace_top;
  return dropped;
}

//===-- Allocating --------------------------------------------------------===//

// While a handler runs, its device has an allocator that refuses, so that what the handler asks of
// the failing device fails at once.

static tm_status refuse_alloc(tm_allocator* self, size_t size, tm_stream* stream, void** out) {
  (void)stream;
  (void)out;
  return TM_RAISE(TM_ERR_NO_MEMORY, "%zu bytes of %s asked inside its out-of-memory handler", size,
                  tm_device_type_name((tm_device_type)self->device.type));
}

static void refuse_free(tm_allocator* self, void* ptr, size_t size, tm_stream* stream) {
  (void)self;
  (void)ptr;
  (void)size;
  (void)stream;
}

static void refuse_destroy(tm_allocator* self) { (void)self; }

static const tm_allocator_vtable refuse_vtable = {
    .name = "out-of-memory handler",
    .destroy = refuse_destroy,
    .alloc = refuse_alloc,
    .free = refuse_free,
};

// What run_handler changes in a context, to be put back.
typedef struct handler_state {
  context_object* object;
  void* handlers;
  tm_device failing;
} handler_state;

static void put_back(const handler_state* state) {
  state->object->hot.current[TM_SLOT_OOM_HANDLER_] = state->handlers;
  state->object->failing = state->failing;
}

// Runs one handler, which sees only the handlers outside itself, however it is left.
static bool run_handler(tm_frame* entry, const tm_oom_request* request) {
  tm_context* context = tm_context_get_();
  context_object* object = (context_object*)context;
  __attribute__((cleanup(put_back), unused))
  const handler_state state = {object, context->current[TM_SLOT_OOM_HANDLER_], object->failing};
  context->current[TM_SLOT_OOM_HANDLER_] = entry->saved;
  object->failing = request->device;
  tm_allocator refusing;
  tm_allocator_init_(&refusing, &refuse_vtable, request->device, NULL);
  refusing.references = TM_IMMORTAL_;
  TM_USE_ALLOCATOR(&refusing);
  return ((tm_oom_handler)entry->value)(request, entry->saved_on_device);
}

tm_status tm_context_ask_handlers_(tm_allocator* allocator, size_t size, tm_storage** out) {
  *out = NULL;
  if (tm_device_equal(((context_object*)tm_context_get_())->failing, allocator->device)) {
    return TM_ERR_NO_MEMORY;
  }
  const tm_error failure = *tm_last_error();
  tm_oom_request request = {.device = allocator->device, .size = size, .attempt = 1};
  tm_frame* entry = tm_context_get_()->current[TM_SLOT_OOM_HANDLER_];
  int freed = 0;
  while (entry && freed < TM_OOM_MAX_RETRIES) {
    if (tm_is_below_stack_(entry)) {
      TM_FATAL("an out-of-memory handler is asked whose scope was left without closing it");
    }
    if (run_handler(entry, &request)) {
      freed++;
      const tm_status status = tm_storage_alloc(allocator, size, tm_current_stream(), out);
      if (status != TM_ERR_NO_MEMORY) {
        return status;
      }
    } else {
      entry = entry->saved;
    }
    request.attempt++;
  }
  return tm_raise_(TM_ERR_NO_MEMORY, failure.file, failure.line, "%s", failure.message);
}

tm_status tm_context_alloc(tm_allocator* allocator, tm_device device, size_t size,
                           tm_storage** out) {
  if (!out) {
    return TM_RAISE(TM_ERR_INVALID, "tm_context_alloc: out is NULL");
  }
  *out = NULL;
  allocator = allocator ? allocator : tm_require_allocator(device);
  if (!allocator) {
    return tm_last_status();
  }
  const context_object* object = (const context_object*)tm_context_get_();
  if (TM_UNLIKELY(tm_device_equal(object->failing, allocator->device))) {
    return refuse_alloc(allocator, size, NULL, NULL);
  }
  const tm_status status = tm_storage_alloc(allocator, size, tm_current_stream(), out);
  if (TM_LIKELY(status != TM_ERR_NO_MEMORY)) {
    return status;
  }
  return tm_context_ask_handlers_(allocator, size, out);
}
