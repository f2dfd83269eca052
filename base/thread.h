// What tmcore keeps per thread where inline code can reach it: two pointers, nothing else.
//
// They are the only thread-locals any public header touches. Initial-exec access costs one load
// and works in a library loaded with dlopen, because the two words fit the loader's reserve.
#ifndef TM_BASE_THREAD_H_
#define TM_BASE_THREAD_H_

#include "tm/base/attributes.h"

TM_EXTERN_C_BEGIN

struct tm_context;
struct tm_trace_frame;

typedef struct tm_thread {
  struct tm_context* context;       // the thread's current context; NULL before its first use
  struct tm_trace_frame* trace_top;  // the innermost open scope; NULL where none is open
} tm_thread;

extern TM_API __thread tm_thread tm_thread_ __attribute__((tls_model("initial-exec")));

TM_EXTERN_C_END

#endif  // TM_BASE_THREAD_H_
