#include "tm/base/fatal.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "tm/base/trace.h"

enum { FATAL_MESSAGE_SIZE = 2048, FATAL_TRACE_SIZE = 1024 };  // bytes

static void print_to_stderr(const char* message, void* user) {
  (void)user;
  fprintf(stderr, "%s\n", message);
  fflush(stderr);
}

static pthread_mutex_t handler_lock = PTHREAD_MUTEX_INITIALIZER;
static tm_fatal_handler handler = print_to_stderr;
static void* handler_user;

tm_fatal_handler tm_set_fatal_handler(tm_fatal_handler new_handler, void* user) {
  pthread_mutex_lock(&handler_lock);
  const tm_fatal_handler before = handler;
  handler = new_handler ? new_handler : print_to_stderr;
  handler_user = user;
  pthread_mutex_unlock(&handler_lock);
  return before == print_to_stderr ? NULL : before;
}

void tm_fatal_(const char* file, int line, const char* format, ...) {
  char text[FATAL_MESSAGE_SIZE / 2];
  char trace[FATAL_TRACE_SIZE];
  char message[FATAL_MESSAGE_SIZE + FATAL_TRACE_SIZE];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  tm_trace_text(trace, sizeof trace);
  snprintf(message, sizeof message, "tmcore: fatal: %s:%d: %s%s%s", file, line, text,
           trace[0] ? "\n  in " : "", trace);
  pthread_mutex_lock(&handler_lock);
  const tm_fatal_handler current = handler;
  void* user = handler_user;
  pthread_mutex_unlock(&handler_lock);
  current(message, user);
  abort();
}
