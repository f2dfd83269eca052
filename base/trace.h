// The scope trace: named scopes of the calling thread, shown in error records, fatal messages and
// logs, innermost first.
//
//   void attention(...) {
//     TM_SCOPE("attention");      // until the end of the enclosing block
//     TM_WITH_SCOPE("softmax") {  // a block of its own
//       ...
//     }
//   }
//
// A scope is an entry in the caller's frame: opening one is four stores, allocates nothing and
// cannot fail. It closes on every way out of its block, C++ exceptions included.
#ifndef TM_BASE_TRACE_H_
#define TM_BASE_TRACE_H_

#include <stddef.h>
#include <stdint.h>

#include "tm/base/attributes.h"
#include "tm/base/thread.h"

TM_EXTERN_C_BEGIN

enum { TM_SCOPE_NAME_SIZE = 64 };  // bytes TM_SCOPE_COPY keeps, the terminating NUL included

// One open scope. Lives in the frame of the function that opened it.
typedef struct tm_trace_frame {
  struct tm_trace_frame* below;  // the scope that encloses this one; NULL for the outermost
  const char* name;
  const char* file;
  int32_t line;
  uint32_t check;  // of the frame's address and fields: tells it from a reused piece of stack
} tm_trace_frame;

// Opens a scope until the end of the enclosing block. `name` is a string literal.
#define TM_SCOPE(name) TM_SCOPE_("" name, TM_UNIQUE_(tm_scope_))

// The same for a name made at run time, which is copied (and cut to TM_SCOPE_NAME_SIZE - 1 bytes).
#define TM_SCOPE_COPY(name) \
  TM_SCOPE_COPY_((name), TM_UNIQUE_(tm_scope_name_), TM_UNIQUE_(tm_scope_))

// The same with the name of the enclosing function.
#define TM_FUNCTION_SCOPE() TM_SCOPE_(__func__, TM_UNIQUE_(tm_scope_))

// Opens a scope for the block that follows. As with every TM_WITH_*, `break` and `continue` leave
// that block only.
#define TM_WITH_SCOPE(name) TM_WITH_SCOPE_("" name, TM_UNIQUE_(tm_once_), TM_UNIQUE_(tm_scope_))

// Writes the calling thread's open scopes, innermost first, as "name (file:line) < name (...)";
// an empty string where none is open. Cuts at `size` bytes, the terminating NUL included, and ends
// a cut trace in "...".
// Threads: reads the calling thread's scopes only.
TM_API void tm_trace_text(char* text, size_t size);

// How many scopes are open on the calling thread.
TM_API size_t tm_trace_depth(void);

//===-- What the macros use -----------------------------------------------===//

// A frame was closed that is not the innermost: fatal.
TM_API TM_COLD void tm_trace_mismatch_(const tm_trace_frame* frame);
TM_API const char* tm_trace_copy_name_(char* buffer, const char* name);

static inline uint32_t tm_trace_check_(const tm_trace_frame* frame) {
  return (uint32_t)((uintptr_t)frame ^ (uintptr_t)frame->below ^ (uintptr_t)frame->name ^
                    (uintptr_t)frame->file) ^
         (uint32_t)frame->line ^ 0x7472616du;
}

static inline tm_trace_frame tm_trace_make_(const char* name, const char* file, int line) {
  tm_trace_frame frame;
  frame.name = name;
  frame.file = file;
  frame.line = line;
  frame.below = NULL;
  frame.check = 0;
  return frame;
}

// Always 1, so that it can stand in a condition.
static inline int tm_trace_open_(tm_trace_frame* frame) {
  __asm__("" : "+r"(frame));  // the caller's compiler must not see a local's address escape
  frame->below = tm_thread_.trace_top;
  frame->check = tm_trace_check_(frame);
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

#define TM_SCOPE_(name, frame)                                             \
  __attribute__((cleanup(tm_trace_close_), unused)) tm_trace_frame frame = \
      tm_trace_make_((name), __FILE__, __LINE__);                          \
  (void)tm_trace_open_(&frame)

#define TM_SCOPE_COPY_(name, buffer, frame) \
  char buffer[TM_SCOPE_NAME_SIZE];          \
  TM_SCOPE_(tm_trace_copy_name_(buffer, (name)), frame)

#define TM_WITH_SCOPE_(name, once, frame)                                   \
  for (int once = 1; once;)                                                 \
    for (__attribute__((cleanup(tm_trace_close_)))                          \
         tm_trace_frame frame = tm_trace_make_((name), __FILE__, __LINE__); \
         once && (once = 0, tm_trace_open_(&frame));)

TM_EXTERN_C_END

#endif  // TM_BASE_TRACE_H_
