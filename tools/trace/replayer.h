// Replays an allocation log through allocators, its threads on threads.
//
// In the log's order (the default) one event happens at a time, on the thread that it is of, so
// that every replay asks the allocators for the same in the same order. A concurrent replay keeps
// the order of each thread only, and that a block is freed after it was allocated.
#ifndef TRACE_REPLAYER_H_
#define TRACE_REPLAYER_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <tm/tm.h>

#include "trace/allocation_log.h"

typedef struct replayer replayer;

typedef struct replayer_options {
  tm_allocator* const* allocators;  // one per thread of the log, or one if `one_thread`
  tm_stream* const* streams;        // one per stream of the log; NULL: no streams
  bool concurrent;
  bool one_thread;    // all of the log on the calling thread
  bool try_failures;  // what failed in the log is tried and given back at once; not getting it is
                      // nothing
  // Called after each event with what is live in bytes as the log counts, of all threads; never by
  // two threads at once. NULL: nobody, and a pass is as quick as it can be.
  void (*watch)(void* user, uint64_t live_bytes, size_t events_done);
  // Called once on each thread when it allocates no more: the owner of its arena has the last word.
  void (*leave)(void* user, uint32_t thread);
  void* user;
} replayer_options;

enum { REPLAY_LINES = 10 };  // of the log that a result names

// What a pass found out.
typedef struct replay_result {
  uint64_t operations;                  // allocations and frees that were asked for
  uint64_t unserved;                    // allocations that the log has and the allocators refused
  uint64_t lines[REPLAY_LINES];         // of the first of them, in the order of the log
  uint64_t first_bytes;                 // what the first of them asked for
  char message[TM_ERROR_MESSAGE_SIZE];  // why it was refused; "" where none was
  uint64_t failures_served;             // of those that failed in the log, with `try_failures`
  double seconds;  // between the first event and the last; in the log's order without waiting for
                   // a thread's turn
} replay_result;

// Starts a thread for each of the log's, unless there is only one. Returns NULL on failure.
// Ownership: the caller gives it back with replayer_destroy; `log`, `options` and what is in them
//            are borrowed until then.
// Errors: TM_ERR_NO_MEMORY, TM_ERR_UNAVAILABLE (the system gives no further thread).
TM_NODISCARD replayer* replayer_create(const allocation_log* log, const replayer_options* options);

// Replays the log once. What the log never frees is freed at the end, uncounted.
void replayer_pass(replayer* r, replay_result* out);

// Ends the threads. NULL is a no-op.
void replayer_destroy(replayer* r);

#endif  // TRACE_REPLAYER_H_
