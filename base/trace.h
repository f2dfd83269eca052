// The scope trace: named scopes of the calling thread, shown in error records and fatal messages,
// innermost first.
//
//   void attention(...) {
//     TM_SCOPE("attention");       // until the end of the enclosing block
//     TM_WITH_SCOPE("softmax") {   // a block of its own
//       TM_SCOPE_CALL(softmax(x));  // one call
//     }
//   }
//
// A scope is an entry in the caller's frame: opening one is a few stores, allocates nothing and
// cannot fail. It closes on every way out of its block, C++ exceptions included.
#ifndef TM_BASE_TRACE_H_
#define TM_BASE_TRACE_H_

#include <stddef.h>
#include <stdint.h>

#include "tm/base/attributes.h"
#include "tm/base/thread.h"

TM_EXTERN_C_BEGIN

enum { TM_SCOPE_NAME_SIZE = 64 };  // bytes TM_SCOPE_COPY keeps, the terminating NUL included

// How a scope's name is to be read.
enum tm_scope_kind_ {
  TM_SCOPE_PLAIN_,      // as it is
  TM_SCOPE_COPIED_,     // the same, in a buffer of TM_SCOPE_NAME_SIZE bytes in the caller's frame
  TM_SCOPE_SIGNATURE_,  // a C++ function's signature
  TM_SCOPE_EXPRESSION_  // a call as it is written
};

// One open scope. Lives in the frame of the function that opened it.
typedef struct tm_trace_frame {
  struct tm_trace_frame* below;  // the scope that encloses this one; NULL for the outermost
  const char* name;
  const char* file;
  uint32_t place;  // line * 4 + tm_scope_kind_
  uint32_t check;  // of the frame's address and fields: tells it from a reused piece of stack
} tm_trace_frame;

// Opens a scope until the end of the enclosing block. `name` is a string literal.
#define TM_SCOPE(name) TM_SCOPE_("" name, TM_SCOPE_PLAIN_, TM_UNIQUE_(tm_scope_))

// The same for a name made at run time, which is copied (and cut to TM_SCOPE_NAME_SIZE - 1 bytes).
#define TM_SCOPE_COPY(name) \
  TM_SCOPE_COPY_((name), TM_UNIQUE_(tm_scope_name_), TM_UNIQUE_(tm_scope_))

// The same with the name of the enclosing function: in C as __func__ has it, in C++ and CUDA
// qualified, e.g. "Layer::forward()". The signature is reduced when a trace is shown.
#define TM_FUNCTION_SCOPE() TM_SCOPE_(TM_FUNCTION_NAME_, TM_FUNCTION_KIND_, TM_UNIQUE_(tm_scope_))

// Evaluates a call once, in a scope that shows the called function's name, e.g. "forward()" for
// TM_SCOPE_CALL(layer->forward(x, f(3))). An expression with the call's value, or void: it stands
// anywhere inside a function, `if`/`else` without braces and TM_TRY(...) included. In C++ a
// reference stays one, and what the call returns by value must be movable. A result that must not
// be ignored can be ignored here.
#define TM_SCOPE_CALL(...) TM_SCOPE_CALL_(#__VA_ARGS__, TM_UNIQUE_(tm_scope_), __VA_ARGS__)

// Opens a scope for the block that follows. As with every TM_WITH_*, `break` and `continue` leave
// that block only.
#define TM_WITH_SCOPE(name) TM_WITH_SCOPE_("" name, TM_UNIQUE_(tm_once_), TM_UNIQUE_(tm_scope_))

// Writes the calling thread's open scopes, innermost first, as "name (file:line) < name (...)";
// an empty string where none is open. Files go by their last component, or in full where the
// environment has TM_SRC_FULL_PATH. Cuts at `size` bytes, the terminating NUL included, and ends a
// cut trace in "...". Scopes that were left without closing end the trace with a note: it never
// follows what cannot be read. Allocates nothing, leaves errno.
// Threads: reads the calling thread's scopes only; good in signal handlers.
TM_API void tm_trace_text(char* text, size_t size);

// How many scopes are open on the calling thread.
TM_API size_t tm_trace_depth(void);

//===-- What the macros use -----------------------------------------------===//

// A frame was closed that is not the innermost: fatal.
TM_API TM_COLD void tm_trace_mismatch_(const tm_trace_frame* frame);
TM_API const char* tm_trace_copy_name_(char* buffer, const char* name);

// Copies the calling thread's open scopes into `memory`, names made at run time included, for as
// long as that lives; as many of them, from the innermost outwards, as fit. Returns the copy of the
// innermost, to be a thread's trace_top; NULL where none is open or fits. tm_trace_copy_size_ is
// what the whole trace takes. `memory` is aligned as for a pointer.
TM_API size_t tm_trace_copy_size_(void);
TM_API tm_trace_frame* tm_trace_copy_(void* memory, size_t size);

// `frame` may be a copy of the one at `address`.
static inline uint32_t tm_trace_check_(const tm_trace_frame* frame, const void* address) {
  return (uint32_t)((uintptr_t)address ^ (uintptr_t)frame->below ^ (uintptr_t)frame->name ^
                    (uintptr_t)frame->file) ^
         frame->place ^ 0x7472616du;
}

static inline tm_trace_frame tm_trace_make_(const char* name, enum tm_scope_kind_ kind,
                                            const char* file, int line) {
  tm_trace_frame frame;
  frame.name = name;
  frame.file = file;
  frame.place = (uint32_t)line * 4 + (uint32_t)kind;
  frame.below = NULL;
  frame.check = 0;
  return frame;
}

// Always 1, so that it can stand in a condition.
static inline int tm_trace_open_(tm_trace_frame* frame) {
  __asm__("" : "+r"(frame));  // the caller's compiler must not see a local's address escape
  frame->below = tm_thread_.trace_top;
  frame->check = tm_trace_check_(frame, frame);
  tm_thread_.trace_top = frame;
  return 1;
}

static inline void tm_trace_close_(tm_trace_frame* frame) {
  tm_trace_frame* self = frame;
  __asm__("" : "+r"(self));
  if (TM_UNLIKELY(tm_thread_.trace_top != self)) {
    tm_trace_mismatch_(self);
    return;
  }
  tm_thread_.trace_top = self->below;
}

#define TM_SCOPE_(name, kind, frame)                                       \
  __attribute__((cleanup(tm_trace_close_), unused)) tm_trace_frame frame = \
      tm_trace_make_((name), (kind), __FILE__, __LINE__);                  \
  (void)tm_trace_open_(&frame)

#define TM_SCOPE_COPY_(name, buffer, frame) \
  char buffer[TM_SCOPE_NAME_SIZE];          \
  TM_SCOPE_(tm_trace_copy_name_(buffer, (name)), TM_SCOPE_COPIED_, frame)

#define TM_WITH_SCOPE_(name, once, frame)                                                    \
  for (int once = 1; once;)                                                                  \
    for (__attribute__((cleanup(tm_trace_close_)))                                           \
         tm_trace_frame frame = tm_trace_make_((name), TM_SCOPE_PLAIN_, __FILE__, __LINE__); \
         once && (once = 0, tm_trace_open_(&frame));)

TM_EXTERN_C_END

#ifdef __cplusplus

#define TM_FUNCTION_NAME_ __PRETTY_FUNCTION__
#define TM_FUNCTION_KIND_ TM_SCOPE_SIGNATURE_

// The scope of one call. It stands on the left of a comma whose right is the call: C++17 evaluates
// the left first, as for the built-in comma. The operator closes the scope as soon as the call has
// returned; where that is void the comma is the built-in one, and the scope closes with the
// expression, which nothing can contain. A statement expression would copy a reference's object.
class tm_call_scope_ {
 public:
  tm_call_scope_(const char* call, const char* file, int line)
      : frame_(tm_trace_make_(call, TM_SCOPE_EXPRESSION_, file, line)), open_(true) {
    (void)tm_trace_open_(&frame_);
  }
  tm_call_scope_(const tm_call_scope_&) = delete;
  tm_call_scope_& operator=(const tm_call_scope_&) = delete;
  ~tm_call_scope_() {
    if (open_) tm_trace_close_(&frame_);
  }
  template <typename T>
  T operator,(T&& value) && {
    open_ = false;
    tm_trace_close_(&frame_);
    return static_cast<T&&>(value);
  }

 private:
  tm_trace_frame frame_;
  bool open_;
};
#define TM_SCOPE_CALL_(text, frame, ...) (tm_call_scope_((text), __FILE__, __LINE__), __VA_ARGS__)

#else

#define TM_FUNCTION_NAME_ __func__
#define TM_FUNCTION_KIND_ TM_SCOPE_PLAIN_

#define TM_SCOPE_CALL_(text, frame, ...)            \
  __extension__({                                   \
    TM_SCOPE_((text), TM_SCOPE_EXPRESSION_, frame); \
    __VA_ARGS__;                                    \
  })

#endif

#endif  // TM_BASE_TRACE_H_
