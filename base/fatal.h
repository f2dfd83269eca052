// What happens when the program itself is wrong: a message, the scope trace, and abort().
//
// Broken invariants and misuse that no status can report end here. The handler is replaceable, so
// that a server can write its own crash report and a test can look at the message.
#ifndef TM_BASE_FATAL_H_
#define TM_BASE_FATAL_H_

#include "tm/base/attributes.h"

TM_EXTERN_C_BEGIN

// Called with the whole message (where, what, the scope trace; several lines, no final newline).
// It may leave by longjmp, by a C++ exception or by ending the process; if it returns, abort()
// follows. It runs on the thread that failed, with no tmcore lock held. What is fatal inside it
// calls it again, but not for ever: at the third level the message goes to stderr, and abort()
// follows.
typedef void (*tm_fatal_handler)(const char* message, void* user);

// A handler and its user pointer, to be set again later.
typedef struct tm_fatal_hook {
  tm_fatal_handler handler;  // NULL: the default one
  void* user;
} tm_fatal_hook;

// Replaces the process-wide handler and returns the one before, with its user pointer. NULL
// restores the default, which writes the message to stderr.
//
//   const tm_fatal_hook before = tm_set_fatal_handler(report, &server);
//   ...
//   tm_set_fatal_handler(before.handler, before.user);
//
// Threads: safe; `user` must stay valid while the handler is set.
TM_API tm_fatal_hook tm_set_fatal_handler(tm_fatal_handler handler, void* user);

// Reports a fatal error. Returns only if nothing else is possible: never.
TM_API TM_COLD void tm_fatal_(const char* file, int line, const char* format, ...) TM_PRINTF(3, 4)
    __attribute__((noreturn));
#define TM_FATAL(...) tm_fatal_(__FILE__, __LINE__, __VA_ARGS__)

// Has `observer` called with each message before the handler. One; the log takes it. Private.
void tm_observe_fatal_(void (*observer)(const char* message));

TM_EXTERN_C_END

#endif  // TM_BASE_FATAL_H_
