// Functions that run when a thread ends, with a value of that thread. Private.
#ifndef TM_BASE_THREAD_EXIT_H_
#define TM_BASE_THREAD_EXIT_H_

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "tm/base/attributes.h"

// All zero at first. No lock: a forked child could find it held for ever.
typedef struct tm_thread_exit {
  uint64_t key_and_1;  // a pthread_key_t + 1, or 0 before there is one; with __atomic
} tm_thread_exit;

// Has `function(value)` called when the calling thread ends by returning, pthread_exit or
// cancellation; a process that exits calls it for no thread. False where the system has no more
// keys: then it is never called.
// Threads: safe.
bool tm_thread_exit_set_(tm_thread_exit* self, void (*function)(void* value), void* value);

// Has `function(value)` called earlier: also when the calling thread calls exit() or returns from
// main, and before the destructors of globals run, and those of thread-locals that were used
// before. False where the C library cannot do that.
// Threads: safe.
bool tm_thread_exit_set_first_(void (*function)(void* value), void* value);

#endif  // TM_BASE_THREAD_EXIT_H_
