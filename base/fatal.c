#include "tm/base/fatal.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "tm/base/source_path.h"
#include "tm/base/stderr_line.h"
#include "tm/base/trace.h"

enum {
  FATAL_TEXT_SIZE = 1024,   // bytes
  FATAL_TRACE_SIZE = 1024,  // bytes
  FATAL_MESSAGE_SIZE = FATAL_TEXT_SIZE + FATAL_TRACE_SIZE + 512,
  MAX_RUNNING = 2,  // handlers at a time on a thread: one, and once again for what fails in it
};

//===-- The handler -------------------------------------------------------===//

static void print_to_stderr(const char* message) {
  char line[FATAL_MESSAGE_SIZE + 1];
  const int length = snprintf(line, sizeof line, "%s\n", message);
  tm_write_stderr_(line, (size_t)length);
}

static pthread_mutex_t hook_lock = PTHREAD_MUTEX_INITIALIZER;
static tm_fatal_hook hook;
static void (*fatal_observer)(const char* message);  // with __atomic

// A child must not inherit the lock from a thread that it does not have.
static void lock_hook(void) { pthread_mutex_lock(&hook_lock); }
static void unlock_hook(void) { pthread_mutex_unlock(&hook_lock); }
static void register_fork_handlers(void) {
  (void)pthread_atfork(lock_hook, unlock_hook, unlock_hook);
}
static void watch_forks(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  (void)pthread_once(&once, register_fork_handlers);
}

tm_fatal_hook tm_set_fatal_handler(tm_fatal_handler handler, void* user) {
  watch_forks();
  lock_hook();
  const tm_fatal_hook before = hook;
  hook.handler = handler;
  hook.user = user;
  unlock_hook();
  return before;
}

void tm_observe_fatal_(void (*observer)(const char* message)) {
  watch_forks();
  __atomic_store_n(&fatal_observer, observer, __ATOMIC_RELEASE);
}

//===-- Failures inside a handler -----------------------------------------===//

// Which handlers are running is a list through the stack, as the scopes are. A handler may leave by
// longjmp, which nobody is told of, so one counts only while its entry is plainly there.
typedef struct running {
  struct running* outer;
  uintptr_t check;
} running;

static __thread running* innermost;

static uintptr_t running_check(const running* entry, const running* outer) {
  return (uintptr_t)entry ^ (uintptr_t)outer ^ (uintptr_t)0x666174616cu;
}

// Only upwards from `inner`: what lies below has been left, and the list cannot run in circles.
static bool is_running(const running* entry, const running* inner, const running** outer) {
  running copy;
  if ((uintptr_t)entry <= (uintptr_t)inner || !tm_read_memory_(entry, &copy, sizeof copy)) {
    return false;
  }
  *outer = copy.outer;
  return copy.check == running_check(entry, copy.outer);
}

static int count_running(const running* self) {
  int count = 0;
  const running* inner = self;
  const running* entry = innermost;
  const running* outer;
  while (entry && count < MAX_RUNNING && is_running(entry, inner, &outer)) {
    count++;
    inner = entry;
    entry = outer;
  }
  return count;
}

static void stop_running(running* self) { innermost = self->outer; }

// Not instrumented, because AddressSanitizer would move the entry off the stack.
__attribute__((no_sanitize_address)) static void call_handler(const char* message) {
  __attribute__((cleanup(stop_running))) running self = {.outer = NULL, .check = 0};  // exceptions
  const int count = count_running(&self);
  self.outer = count > 0 ? innermost : NULL;
  self.check = running_check(&self, self.outer);
  lock_hook();
  const tm_fatal_hook current = hook;
  unlock_hook();
  if (!current.handler || count == MAX_RUNNING) {
    print_to_stderr(message);
    return;
  }
  innermost = &self;
  current.handler(message, current.user);
}

void tm_fatal_(const char* file, int line, const char* format, ...) {
  char text[FATAL_TEXT_SIZE];
  char trace[FATAL_TRACE_SIZE];
  char message[FATAL_MESSAGE_SIZE];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  tm_trace_text(trace, sizeof trace);
  snprintf(message, sizeof message, "tmcore: fatal: %.400s:%d: %s%s%s", tm_source_path_(file), line,
           text, trace[0] ? "\n  in " : "", trace);
  void (*observer)(const char*) = __atomic_load_n(&fatal_observer, __ATOMIC_ACQUIRE);
  if (observer) {
    observer(message);
  }
  call_handler(message);
  abort();
}
