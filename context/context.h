// The thread's context: which allocator and stream code uses that names none.
//
//   TM_WITH_STREAM(stream)
//   TM_WITH_ALLOCATOR(stack) {
//     tm_auto_tensor h = tm_empty(TM_SHAPE(tokens, hidden), TM_F16, TM_DEVICE);  // from the stack
//   }                                                  // popped on every way out
//
// A context holds, per device type, a stack of active allocators, a stack of streams and a stack
// of out-of-memory handlers. Every thread has one from its first use, with the host allocator
// pushed and nothing inherited. Entries live in the frames of the functions that open the scopes:
// opening one allocates nothing and cannot fail, whatever the depth.
//
// The block forms TM_WITH_* are loops: `break` and `continue` leave that block only, and a function
// that returns only from inside one still needs a return after it. The guard forms TM_USE_* hold
// until the end of the enclosing block. No label may jump over a guard.
// C users compile with -fexceptions for scopes to close on C++ throw, pthread_exit and
// cancellation.
#ifndef TM_CONTEXT_CONTEXT_H_
#define TM_CONTEXT_CONTEXT_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tm/alloc/allocator.h"
#include "tm/alloc/device.h"
#include "tm/alloc/oom_report.h"
#include "tm/alloc/storage.h"
#include "tm/alloc/stream.h"
#include "tm/base/attributes.h"
#include "tm/base/status.h"
#include "tm/base/thread.h"

TM_EXTERN_C_BEGIN

typedef struct tm_context tm_context;

//===-- Scopes ------------------------------------------------------------===//

// Makes `allocator` current for its device type. It is borrowed: the caller's reference outlives
// the scope, and where it does not, that is fatal on the same thread. exit() inside scopes may
// destroy what they made current, except what C++ thread-locals hold that were made after the
// thread's first scope: those go before anything can be told. NULL changes nothing and still closes
// as one.
#define TM_WITH_ALLOCATOR(allocator) TM_WITH_(allocator_, tm_frame_close_, (allocator), NULL)
#define TM_USE_ALLOCATOR(allocator) TM_USE_(allocator_, tm_frame_close_, (allocator), NULL)

// The same, and the scope releases the reference it is given when it closes:
// TM_WITH_OWNED_ALLOCATOR(tm_stack_allocator_create(...)) { ... }.
#define TM_WITH_OWNED_ALLOCATOR(allocator) \
  TM_WITH_(allocator_, tm_frame_close_owned_, (allocator), NULL)
#define TM_USE_OWNED_ALLOCATOR(allocator) \
  TM_USE_(allocator_, tm_frame_close_owned_, (allocator), NULL)

// Makes `stream` current. Borrowed; NULL changes nothing. The CUDA current device stays.
#define TM_WITH_STREAM(stream) TM_WITH_(stream_, tm_frame_close_, (stream), NULL)
#define TM_USE_STREAM(stream) TM_USE_(stream_, tm_frame_close_, (stream), NULL)

// Makes `context` the thread's current one, or what tm_context_capture found. Borrowed; NULL
// changes nothing. A context that is current on another thread, or already current further out on
// this one, is fatal.
#define TM_WITH_CONTEXT(context) TM_WITH_(context_, tm_frame_close_context_, (context), NULL)
#define TM_USE_CONTEXT(context) TM_USE_(context_, tm_frame_close_context_, (context), NULL)

// What a handler is told about an allocation that failed.
typedef struct tm_oom_request {
  tm_device device;             // where
  size_t size;                  // bytes that were asked for
  int attempt;                  // 1 for the first handler call of this allocation
  const tm_oom_report* report;  // of the latest attempt, for the time of the call; may be NULL
} tm_oom_request;

// Frees what it can and returns whether it freed anything: true has the allocation tried again.
// It runs on the allocating thread with no lock held, sees only the handlers outside itself, and
// an allocation it makes from the failing device fails at once.
typedef bool (*tm_oom_handler)(const tm_oom_request* request, void* user);

enum { TM_OOM_MAX_RETRIES = 8 };  // handler calls that freed something, per allocation

// Adds an out-of-memory handler, innermost first. A NULL handler changes nothing.
#define TM_WITH_OOM_HANDLER(handler, user) \
  TM_WITH_(oom_handler_, tm_frame_close_oom_handler_, (handler), (user))
#define TM_USE_OOM_HANDLER(handler, user) \
  TM_USE_(oom_handler_, tm_frame_close_oom_handler_, (handler), (user))

//===-- Lookup ------------------------------------------------------------===//

// The innermost allocator of a device type; NULL where there is none. Raises nothing.
// Ownership: borrowed, for as long as its scope is open.
static inline tm_allocator* tm_current_allocator(tm_device_type type);

// The innermost allocator on exactly `device`; NULL where there is none. An `id` of -1 means any.
static inline tm_allocator* tm_current_allocator_on(tm_device device);

// The innermost stream; NULL where there is none.
static inline tm_stream* tm_current_stream(void);

// The same where there must be one: raises TM_ERR_UNAVAILABLE, naming what is missing.
// Returns NULL on failure.
TM_API TM_NODISCARD tm_allocator* tm_require_allocator(tm_device device);
TM_API TM_NODISCARD tm_stream* tm_require_stream(void);

// The thread's current context. Never NULL. Borrowed.
TM_API tm_context* tm_current_context(void);

// Scopes open in the current context.
TM_API size_t tm_context_depth(void);

//===-- Allocating --------------------------------------------------------===//

// Allocates `size` bytes (not 0) from `allocator`, or from the current allocator of `device` where
// that is NULL, on the current stream. When memory runs out, the context's handlers are asked;
// where they do not help, tm_last_oom_report() is of the last attempt. Ownership: the caller owns
// one reference. Errors: TM_ERR_UNAVAILABLE (no current allocator), and as tm_storage_alloc. On
// error `*out` is
//         NULL.
TM_API TM_NODISCARD tm_status tm_context_alloc(tm_allocator* allocator, tm_device device,
                                               size_t size, tm_storage** out);

// tm_stack_reserve, with the handlers asked when memory runs out: how a step is admitted.
//
//   TM_WITH_OOM_HANDLER(drop_prefix_cache, cache) TM_TRY(tm_context_reserve(stack, step_bytes));
//
// Errors: as tm_stack_reserve. On error an earlier reservation still holds.
TM_API TM_NODISCARD tm_status tm_context_reserve(tm_allocator* stack, size_t bytes);

//===-- Contexts as objects -----------------------------------------------===//

// A context of one's own, for fibers, coroutines and tasks that carry theirs. It starts with the
// host allocator. Returns NULL on failure.
// Ownership: the caller owns one reference.
// Errors: TM_ERR_NO_MEMORY.
TM_API TM_NODISCARD tm_context* tm_context_create(void);

// Takes another reference and returns `context`. NULL passes through. A thread's own context ends
// with the thread, whatever references there are: what is to outlive it is captured. Inside a block
// that has a token attached, tm_current_context() stands for it; a reference to that which is kept
// past the block is fatal: the token is what to retain.
// Threads: safe from any thread.
TM_API tm_context* tm_context_retain(tm_context* context);

// Drops a reference; the last one destroys the context. Entries still open in it are counted and
// logged, never followed. Dropping the last one of a context that is current on a thread is fatal,
// unless that has attached a token of tm_context_capture, which it keeps alive. NULL is a no-op.
// Threads: safe from any thread.
TM_API void tm_context_release(tm_context* context);

// What is current on the calling thread, for other threads to work with: its allocators, its stream
// and its scope trace, but no out-of-memory handlers, which belong to its frames. Returns NULL on
// failure.
//
//   tm_context* token = tm_context_capture();           // on one thread
//   TM_WITH_CONTEXT(token) { ... }                      // on others, on any number at a time
//
// Each thread that attaches the token gets a context of its own, which ends with the block. Since
// one thread at a time may use an arena, its upstream takes its place in the token, and that of
// adaptors over it: statistics(stack(pool)) becomes the pool, stack(statistics(pool)) the
// statistics(pool). Attaching takes
// no memory, unless the token is attached already, on another thread or further out: where there is
// none then, that is fatal.
// Ownership: the caller owns one reference; the token retains what it holds.
// Errors: TM_ERR_INVALID (inside an out-of-memory handler), TM_ERR_NO_MEMORY.
TM_API TM_NODISCARD tm_context* tm_context_capture(void);

// The same with the arenas themselves, which nobody but a thread that has attached the token can
// use until it is released: one thread at a time, and with TM_ERR_BUSY for all others, the caller
// included. What is live in them stays where it is. Afterwards the next thread that allocates from
// them owns them.
// Errors: also TM_ERR_BUSY (an arena is owned by another thread).
TM_API TM_NODISCARD tm_context* tm_context_capture_move(void);

// Where a context stands, to return to after longjmp.
typedef struct tm_context_mark {
  tm_context* context;
  struct tm_frame* top;
  size_t depth;
  struct tm_trace_frame* trace_top;
  void* oom_handler;
  tm_device failing;
} tm_context_mark;

// Call save before setjmp; after a longjmp to it, restore drops what was jumped over, in contexts
// that were made current since as well, without following it: references that entries owned are not
// released. Returns how many entries those were. What was open at the save must still be.
// Threads: the mark is good on its own thread only.
TM_API tm_context_mark tm_context_save(void);
TM_API size_t tm_context_restore(const tm_context_mark* mark);

//===-- Entries -----------------------------------------------------------===//

// A context's slots: what is current, by kind.
enum tm_context_slot_ {
  TM_SLOT_ALLOCATOR_ = 0,  // + tm_device_type
  TM_SLOT_STREAM_ = TM_DEVICE_TYPES,
  TM_SLOT_OOM_HANDLER_,
  TM_SLOT_NONE_,  // for an entry that changes nothing
  // TM_SLOT_ON_DEVICE_ + device id
  TM_SLOTS_ = (int)TM_SLOT_ON_DEVICE_ + (int)TM_MAX_DEVICES,
};

// One entry of a context, in the frame of the function that opened it. What is stored together does
// not lie together: compilers would make one vector of it, which is slow to read back in parts.
typedef struct tm_frame {
  struct tm_frame* below;  // the entry that encloses this one; NULL for the outermost
  void* value;             // what it made current
  int32_t line;            // where it was opened
  tm_slots_ slots;         // those it changed
  void* saved;             // what was current for the device type before
  const char* file;        // where it was opened
  void* saved_on_device;   // the same for the device, unless that is one slot; a handler's user
                           // pointer
  uintptr_t seal;          // of a handler only: over its fields, to tell whether it is still there
} tm_frame;

// The part of a context that inline code reads. Private.
struct tm_context {
  tm_frame* top;
  size_t depth;
  void* current[TM_SLOTS_];
  tm_device failing;  // whose out-of-memory handler runs; a type of -1: none
};

// Explicit push and pop, for code whose scopes are not blocks: `frame` is the caller's and stays
// where it is until it is popped. Popping anything but the top entry is fatal.
#define tm_push_allocator(frame, allocator) \
  tm_frame_push_allocator_((frame), (allocator), __FILE__, __LINE__)
#define tm_push_stream(frame, stream) tm_frame_push_stream_((frame), (stream), __FILE__, __LINE__)
TM_API void tm_pop(tm_frame* frame);

//===-- What the macros use -----------------------------------------------===//

TM_API void tm_frame_push_allocator_(tm_frame* frame, tm_allocator* allocator, const char* file,
                                     int line);
TM_API void tm_frame_push_stream_(tm_frame* frame, tm_stream* stream, const char* file, int line);
TM_API int tm_frame_open_context_(tm_frame* frame, tm_context* context, void* unused,
                                  const char* file, int line);
TM_API int tm_frame_open_oom_handler_(tm_frame* frame, tm_oom_handler handler, void* user,
                                      const char* file, int line);
TM_API void tm_frame_close_owned_(tm_frame* frame);
TM_API void tm_frame_close_context_(tm_frame* frame);
TM_API void tm_frame_close_oom_handler_(tm_frame* frame);

// tm_storage_alloc was out of memory: asks the context's handlers, and tries again after each that
// freed something. Otherwise as tm_context_alloc.
TM_API TM_COLD TM_NODISCARD tm_status tm_context_ask_handlers_(tm_allocator* allocator, size_t size,
                                                               tm_storage** out);

// The thread's context, made on its first use. Never fails.
TM_API TM_COLD tm_context* tm_context_first_use_(void);
// `frame` is being opened above an entry whose function is gone: fatal.
TM_API TM_COLD void tm_frame_stale_(tm_frame* frame);
// `frame` is being closed and is not the top: fatal.
TM_API TM_COLD void tm_frame_mismatch_(const tm_frame* frame);

static inline tm_context* tm_context_get_(void) {
  tm_context* context = tm_thread_.context;
  if (TM_UNLIKELY(!context)) {
    context = tm_context_first_use_();
  }
  return context;
}

// Puts `frame` on top. It is never followed through what was the top before: that may belong to a
// function that longjmp left, which is told by its address.
static inline void tm_frame_link_(tm_context* context, tm_frame* frame, const char* file,
                                  int line) {
  frame->file = file;
  frame->line = line;
  if (TM_UNLIKELY(tm_is_below_stack_(context->top))) {
    tm_frame_stale_(frame);
  }
  frame->below = context->top;
  context->top = frame;
  context->depth++;
}

// Makes `value` current in `slots`, remembering what was.
static inline void tm_frame_set_(tm_context* context, tm_frame* frame, tm_slots_ slots,
                                 void* value) {
  frame->slots = slots;
  frame->value = value;
  frame->saved = context->current[tm_slots_type_(slots)];
  context->current[tm_slots_type_(slots)] = value;
  if (tm_slots_are_two_(slots)) {
    frame->saved_on_device = context->current[tm_slots_device_(slots)];
    context->current[tm_slots_device_(slots)] = value;
  }
}

static inline int tm_frame_open_allocator_(tm_frame* frame, tm_allocator* allocator, void* unused,
                                           const char* file, int line) {
  (void)unused;
  __asm__("" : "+r"(frame));  // the caller's compiler must not see a local's address escape
  tm_context* context = tm_context_get_();
  tm_frame_link_(context, frame, file, line);
  if (TM_LIKELY(allocator != NULL)) {
    tm_frame_set_(context, frame, allocator->slots, allocator);
  } else {
    tm_frame_set_(context, frame, tm_slots_make_(TM_SLOT_NONE_, TM_SLOT_NONE_), NULL);
  }
  return 1;
}

static inline int tm_frame_open_stream_(tm_frame* frame, tm_stream* stream, void* unused,
                                        const char* file, int line) {
  (void)unused;
  __asm__("" : "+r"(frame));
  tm_context* context = tm_context_get_();
  tm_frame_link_(context, frame, file, line);
  if (TM_LIKELY(stream != NULL)) {
    tm_frame_set_(context, frame, tm_slots_make_(TM_SLOT_STREAM_, TM_SLOT_STREAM_), stream);
  } else {
    tm_frame_set_(context, frame, tm_slots_make_(TM_SLOT_NONE_, TM_SLOT_NONE_), NULL);
  }
  return 1;
}

static inline void tm_frame_close_(tm_frame* frame) {
  tm_frame* self = frame;
  __asm__("" : "+r"(self));
  tm_context* context = tm_thread_.context;
  if (TM_UNLIKELY(!context || context->top != self)) {
    tm_frame_mismatch_(self);
    return;
  }
  const tm_slots_ slots = self->slots;
  context->top = self->below;
  context->depth--;
  context->current[tm_slots_type_(slots)] = self->saved;
  if (tm_slots_are_two_(slots)) {
    context->current[tm_slots_device_(slots)] = self->saved_on_device;
  }
}

static inline tm_allocator* tm_current_allocator(tm_device_type type) {
  return (tm_allocator*)((unsigned)type < TM_DEVICE_TYPES ? tm_context_get_()->current[type]
                                                          : NULL);
}

static inline tm_allocator* tm_current_allocator_on(tm_device device) {
  if (device.type != TM_DEVICE || device.id == -1) {
    return device.id > 0 ? NULL : tm_current_allocator((tm_device_type)device.type);
  }
  return (tm_allocator*)((unsigned)device.id < TM_MAX_DEVICES
                             ? tm_context_get_()->current[TM_SLOT_ON_DEVICE_ + device.id]
                             : NULL);
}

static inline tm_stream* tm_current_stream(void) {
  return (tm_stream*)tm_context_get_()->current[TM_SLOT_STREAM_];
}

// Two loops, so that the block runs once, `break` leaves it, and no compiler warns about what the
// block sets.
#define TM_WITH_(open, close, a, b)                                              \
  TM_WITH2_(TM_CONCAT_(tm_frame_open_, open), close, a, b, TM_UNIQUE_(tm_once_), \
            TM_UNIQUE_(tm_frame_))
#define TM_WITH2_(open, close, a, b, once, frame)        \
  for (int once = 1; once;)                              \
    for (__attribute__((cleanup(close))) tm_frame frame; \
         once && (once = 0, open(&frame, a, b, __FILE__, __LINE__));)

#define TM_USE_(open, close, a, b) \
  TM_USE2_(TM_CONCAT_(tm_frame_open_, open), close, a, b, TM_UNIQUE_(tm_frame_))
#define TM_USE2_(open, close, a, b, frame)                \
  __attribute__((cleanup(close), unused)) tm_frame frame; \
  (void)open(&frame, a, b, __FILE__, __LINE__)

TM_EXTERN_C_END

#endif  // TM_CONTEXT_CONTEXT_H_
