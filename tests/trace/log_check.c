#include "tests/trace/log_check.h"

#include <stdbool.h>
#include <stdlib.h>

// The figures, counted anew.
typedef struct tally {
  uint64_t* bytes;  // by block
  bool* is_live;    // the same
  uint32_t blocks;
  uint64_t allocations;
  uint64_t frees;
  uint64_t failures;
  uint64_t live_bytes;
  uint64_t peak_bytes;
} tally;

static const char* count_allocate(tally* t, const log_event* e) {
  if (e->block != t->blocks) return "blocks are not numbered in order";
  t->bytes[t->blocks] = e->bytes;
  t->is_live[t->blocks++] = true;
  t->allocations++;
  t->live_bytes += e->bytes;
  if (t->live_bytes > t->peak_bytes) t->peak_bytes = t->live_bytes;
  return NULL;
}

static const char* count_free(tally* t, const log_event* e) {
  if (e->block >= t->blocks || !t->is_live[e->block]) return "a block is freed that does not live";
  if (t->bytes[e->block] != e->bytes) return "a block is freed with another size";
  t->is_live[e->block] = false;
  t->frees++;
  t->live_bytes -= e->bytes;
  return NULL;
}

static const char* count_event(tally* t, const allocation_log* log, const log_event* e) {
  if (e->thread >= log->thread_count) return "a thread's number is too large";
  if (e->stream >= log->stream_count) return "a stream's number is too large";
  if (e->line == 0) return "an event has no line";
  if (e->bytes > INT64_MAX) return "an event has a size that is none";
  switch (e->kind) {
    case LOG_ALLOCATE:
      return count_allocate(t, e);
    case LOG_FREE:
      return count_free(t, e);
    case LOG_FAILURE:
      t->failures++;
      return NULL;
    default:
      return "an event is withdrawn";
  }
}

static const char* compare(const tally* t, const allocation_log* log) {
  if (t->blocks != log->block_count) return "block_count is wrong";
  if (t->allocations != log->allocations) return "allocations is wrong";
  if (t->frees != log->frees) return "frees is wrong";
  if (t->failures != log->failures) return "failures is wrong";
  if (t->peak_bytes != log->peak_live_bytes) return "peak_live_bytes is wrong";
  if (t->live_bytes != log->last_live_bytes) return "last_live_bytes is wrong";
  return t->allocations - t->frees == log->last_live_blocks ? NULL : "last_live_blocks is wrong";
}

const char* log_check(const allocation_log* log) {
  tally t = {
      .bytes = calloc((size_t)log->block_count + 1, sizeof(*t.bytes)),
      .is_live = calloc((size_t)log->block_count + 1, sizeof(*t.is_live)),
  };
  const char* wrong = t.bytes && t.is_live ? NULL : "there is no memory to check the log";
  if (log->event_count == 0) wrong = "the log has no events";
  for (size_t i = 0; i < log->event_count && !wrong; i++) {
    wrong = t.blocks > log->block_count ? "block_count is wrong"
                                        : count_event(&t, log, &log->events[i]);
  }
  if (!wrong) wrong = compare(&t, log);
  free(t.bytes);
  free(t.is_live);
  return wrong;
}
