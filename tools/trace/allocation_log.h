// An allocation log: what a program asked of its allocators, in order, whoever wrote it down.
#ifndef TRACE_ALLOCATION_LOG_H_
#define TRACE_ALLOCATION_LOG_H_

#include <stddef.h>
#include <stdint.h>
#include <tm/tm.h>

typedef enum log_format {
  LOG_ANY,         // whichever the content is
  LOG_RMM,         // the CSV of RMM's logging adaptor
  LOG_UMPIRE,      // Umpire's replay log: JSON lines, old or new
  LOG_MINIMALLOC,  // a static planning problem: buffers with lifetimes
  LOG_FORMATS,
} log_format;

typedef enum log_event_kind {
  LOG_ALLOCATE,
  LOG_FREE,
  LOG_FAILURE,    // an allocation that the program did not get
  LOG_WITHDRAWN,  // only while a log is being read
} log_event_kind;

typedef struct log_event {
  uint64_t bytes;   // as the program asked
  uint64_t line;    // of the file
  uint32_t block;   // each allocation makes a block of its own, from 0; 0 for a failure
  uint32_t thread;  // from 0, in the order of appearance
  uint32_t stream;  // the same
  log_event_kind kind;
} log_event;

// All zero is an empty log.
typedef struct allocation_log {
  log_format format;
  log_event* events;
  size_t event_count;
  size_t event_capacity;
  uint32_t block_count;
  uint32_t thread_count;
  uint32_t stream_count;
  uint64_t allocations;
  uint64_t frees;
  uint64_t failures;
  uint64_t peak_live_bytes;
  uint64_t last_live_bytes;  // at the end: never freed
  uint64_t last_live_blocks;
} allocation_log;

// Frees what the log holds and empties it.
void allocation_log_deinit(allocation_log* log);

#endif  // TRACE_ALLOCATION_LOG_H_
