// What tmcore keeps per thread where inline code can reach it: two pointers, nothing else.
//
// They are the only thread-locals any public header touches. Initial-exec access costs one load
// and works in a library loaded with dlopen, as long as all the thread-locals of that library
// together fit the loader's reserve. Those of libcudart_static.a, a page of its own, do not: such
// a library links libcudart.so.
#ifndef TM_BASE_THREAD_H_
#define TM_BASE_THREAD_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tm/base/attributes.h"

TM_EXTERN_C_BEGIN

struct tm_context;
struct tm_trace_frame;

typedef struct tm_thread {
  struct tm_context* context;        // the thread's current context; NULL before its first use
  struct tm_trace_frame* trace_top;  // the innermost open scope; NULL where none is open
} tm_thread;

extern TM_API __thread tm_thread tm_thread_ __attribute__((tls_model("initial-exec")));

//===-- Frames that are gone ----------------------------------------------===//

// The lowest address that the running functions may use. Functions may be inlined into one another,
// so a frame address would not do.
static inline uintptr_t tm_stack_low_(void) {
  const uintptr_t red_zone = 512;  // bytes; x86-64 has 128, others less
  uintptr_t stack_pointer;
#if defined(__x86_64__)
  __asm__("mov %%rsp, %0" : "=r"(stack_pointer));
#elif defined(__aarch64__)
  __asm__("mov %0, sp" : "=r"(stack_pointer));
#else
  stack_pointer = (uintptr_t)__builtin_frame_address(0);
#endif
  return stack_pointer - red_zone;
}

// Whether `address` lies shortly below the stack in use, where only a function that has returned,
// or was left by longjmp, can have put a variable. The span is a page, so that the stack of a fiber
// next to this one is not taken for it: fibers that share a context need a page between them.
static inline bool tm_is_below_stack_(const void* address) {
  return tm_stack_low_() - (uintptr_t)address < 4096;
}

// Whether `address` lies on the thread's own stack, anywhere below what is in use of it: there only
// functions that are gone have left something. Exact, and slow: for what has gone wrong. Private.
bool tm_is_on_unused_stack_(const void* address);

// Copies `size` bytes, at least 1, that may not be mapped. False where they are not; then `out` may
// be half written. For messages about what has gone wrong: it costs a system call. Leaves errno.
TM_API bool tm_read_memory_(const void* address, void* out, size_t size);

// Whether the page of `address`, a multiple of 8, can be read now. One system call, allowed in
// every sandbox. Leaves errno. Private.
bool tm_is_readable_(const void* address);

// Copies what can be read, whatever a sanitizer knows about it: a frame that is gone, for instance.
// Private.
__attribute__((no_sanitize_address, no_sanitize_thread)) void tm_copy_unchecked_(const void* from,
                                                                                 void* to,
                                                                                 size_t size);

TM_EXTERN_C_END

#endif  // TM_BASE_THREAD_H_
