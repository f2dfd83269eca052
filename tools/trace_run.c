#include "tools/trace_run.h"

#include <stdio.h>
#include <string.h>
#include <tm/tm.h>

#include "engine/counting.h"
#include "tools/progress.h"
#include "trace/replayer.h"

// What a run holds. From the memory upwards:
//
//   thread 0's: stack -- adaptors --+
//                                   +-- shared: adaptors -- counting -- innermost
//   thread 1's: stack -- adaptors --+
typedef struct run_parts {
  const trace_options* options;
  const allocation_log* log;
  const allocator_expression* expression;
  memory_budget budget;  // where only a part of the device may be used
  bool is_capped;
  tm_stream** streams;     // one per stream of the log; NULL: none are used
  tm_allocator* counting;  // borrowed from what is over it; calls are counted here
  tm_allocator* shared;
  uint32_t thread_count;  // that have allocators of their own
  tm_allocator** own;     // what each thread allocates from
  tm_allocator** arenas;  // the innermost arena of each; borrowed
  replayer* replayer;
  uint64_t base_reserved;  // bytes that were reserved before
  progress bar;
  trace_run* out;
} run_parts;

enum { EVENTS_BETWEEN_UPDATES = 1024 };

//===-- What is reserved --------------------------------------------------===//

// Bytes held now, and at most so far. Of a device its driver knows; other memory is what was asked
// for. The pinned allocator, which is the process's, keeps a peak of the process's life.
static void read_reserved(const run_parts* p, uint64_t* now, uint64_t* peak) {
  tm_allocator_stats stats = {0};
  if (p->expression->memory == MEMORY_DEVICE) {
    *now = backend_reserved();
    *peak = backend_peak_reserved();
    return;
  }
  const bool is_pinned = p->expression->memory == MEMORY_PINNED;
  (void)!tm_allocator_get_stats(is_pinned ? tm_pinned_allocator() : p->counting, &stats);
  *now = stats.reserved_bytes;
  *peak = is_pinned ? stats.reserved_bytes : stats.peak_reserved_bytes;
}

static void prepare_to_watch(run_parts* p) {
  if (p->expression->memory == MEMORY_PINNED) (void)!tm_allocator_trim(tm_pinned_allocator(), 0);
  if (p->expression->memory == MEMORY_DEVICE) backend_restart_peak();
  uint64_t peak;
  p->counting = NULL;
  p->base_reserved = 0;
  if (allocator_expression_uses_streams(p->expression)) {
    read_reserved(p, &p->base_reserved, &peak);
  }
}

// After each event: whether there is a new peak, or we are at it still, and what was live.
static void watch(void* user, uint64_t live, size_t events_done) {
  run_parts* p = user;
  trace_run* out = p->out;
  uint64_t now, peak;
  read_reserved(p, &now, &peak);
  peak -= p->base_reserved;
  if (live > out->peak_live_bytes) out->peak_live_bytes = live;
  if (peak > out->peak_reserved_bytes) {
    out->peak_reserved_bytes = peak;
    out->live_at_peak_bytes = live;
  } else if (live > out->live_at_peak_bytes && now - p->base_reserved == peak) {
    out->live_at_peak_bytes = live;
  }
  if (events_done % EVENTS_BETWEEN_UPDATES == 0) progress_update(&p->bar, events_done);
}

// The owner of an arena knows its mark.
static void add_mark(void* user, uint32_t thread) {
  run_parts* p = user;
  size_t mark;
  if (!p->arenas[thread] || tm_stack_high_water_mark(p->arenas[thread], &mark) != TM_OK) return;
  __atomic_fetch_add(&p->out->high_water_bytes, mark, __ATOMIC_RELAXED);
}

static uint64_t upstream_calls(const run_parts* p) {
  tm_allocator_stats stats;
  return tm_allocator_get_stats(p->counting, &stats) == TM_OK ? stats.upstream_calls : 0;
}

//===-- Allocators --------------------------------------------------------===//

static tm_allocator* count(tm_allocator* innermost, void* user) {
  run_parts* p = user;
  p->counting = counting_allocator_create(innermost, p->is_capped ? &p->budget : NULL);
  tm_allocator_release(innermost);
  if (p->counting) counting_on_new_peak(p->counting, backend_sample_peak);
  return p->counting;
}

// The stream that a thread uses first: its arena's.
static tm_stream* stream_of_thread(const run_parts* p, uint32_t thread) {
  const allocation_log* log = p->log;
  size_t i = 0;
  if (!p->streams) return NULL;
  while (i + 1 < log->event_count && log->events[i].thread != thread) i++;
  return p->streams[log->events[i].stream];
}

static tm_status make_allocators(run_parts* p) {
  tm_stream* stream = p->streams ? p->streams[0] : NULL;
  p->shared = allocator_expression_make_shared(p->expression, stream, count, p);
  if (!p->shared) return tm_last_status();
  for (uint32_t i = 0; i < p->thread_count; i++) {
    p->own[i] = allocator_expression_make_own(p->expression, p->shared, stream_of_thread(p, i),
                                              &p->arenas[i]);
    if (!p->own[i]) return tm_last_status();
  }
  return TM_OK;
}

static tm_status start(run_parts* p, bool is_watched) {
  TM_TRY(make_allocators(p));
  const replayer_options options = {
      .allocators = p->own,
      .streams = p->streams,
      .concurrent = p->options->concurrent,
      .one_thread = p->options->one_thread,
      .try_failures = p->options->try_failures,
      .watch = is_watched ? watch : NULL,
      .leave = is_watched ? add_mark : NULL,
      .user = p,
  };
  p->replayer = replayer_create(p->log, &options);
  return p->replayer ? TM_OK : tm_last_status();
}

// Everything is given back, so that the next allocators find the memory as these did.
static void stop(run_parts* p) {
  replayer_destroy(p->replayer);
  p->replayer = NULL;
  for (uint32_t i = 0; p->own && i < p->thread_count; i++) {
    tm_allocator_release(p->own[i]);
    p->own[i] = NULL;
  }
  tm_allocator_release(p->shared);
  p->shared = NULL;
  for (uint32_t i = 0; p->streams && i < p->log->stream_count; i++) {
    (void)!tm_stream_sync(p->streams[i]);
  }
}

//===-- Passes ------------------------------------------------------------===//

static tm_status watch_pass(run_parts* p) {
  prepare_to_watch(p);
  TM_TRY(start(p, true));
  p->bar = progress_begin(p->out->allocators, "events", p->log->event_count);
  replayer_pass(p->replayer, &p->out->result);
  (void)progress_end(&p->bar);
  return TM_OK;
}

// A pass that is timed may fail where the one that was watched did not: threads come in another
// order.
static void note_failure(run_parts* p, const replay_result* result) {
  if (result->unserved && !p->out->result.unserved) p->out->result = *result;
}

static tm_status time_passes(run_parts* p) {
  trace_run* out = p->out;
  prepare_to_watch(p);
  TM_TRY(start(p, false));
  for (uint64_t i = 0; i < p->options->repeat; i++) {
    replay_result result;
    const uint64_t before = upstream_calls(p);
    replayer_pass(p->replayer, &result);
    out->upstream_calls_later = upstream_calls(p) - before;
    if (i == 0) out->upstream_calls = upstream_calls(p);
    out->seconds += result.seconds;
    out->operations += result.operations;
    note_failure(p, &result);
  }
  return TM_OK;
}

//===-- The run -----------------------------------------------------------===//

static tm_status make_streams(run_parts* p) {
  if (!allocator_expression_uses_streams(p->expression)) return TM_OK;
  p->streams =
      tm_bookkeeping_alloc(p->log->stream_count * sizeof(*p->streams), "the streams of a replay");
  if (!p->streams) return tm_last_status();
  for (uint32_t i = 0; i < p->log->stream_count; i++) {
    p->streams[i] = tm_stream_create(0, 0);
    if (!p->streams[i]) return tm_last_status();
  }
  return TM_OK;
}

static tm_status obtain_memory(run_parts* p) {
  p->own = tm_bookkeeping_alloc(p->thread_count * sizeof(*p->own), "the allocators of a replay");
  if (!p->own) return tm_last_status();
  p->arenas = tm_bookkeeping_alloc(p->thread_count * sizeof(*p->arenas), "the arenas of a replay");
  if (!p->arenas) return tm_last_status();
  return make_streams(p);
}

static tm_status run(run_parts* p) {
  if (p->thread_count > 1 && allocator_expression_owns_file(p->expression)) {
    return TM_RAISE(
        TM_ERR_INVALID,
        "what is outside an arena is made for each of %u threads, which would write one "
        "file: write it inside, or take --one-thread",
        p->thread_count);
  }
  TM_TRY(obtain_memory(p));
  const tm_status status = watch_pass(p);
  stop(p);
  if (status != TM_OK) return status;
  return time_passes(p);
}

static void tear_down(run_parts* p) {
  stop(p);
  for (uint32_t i = 0; p->streams && i < p->log->stream_count; i++) {
    tm_stream_release(p->streams[i]);
  }
  tm_bookkeeping_free(p->streams);
  tm_bookkeeping_free(p->arenas);
  tm_bookkeeping_free(p->own);
}

void trace_run_expression(const trace_options* options, const allocation_log* log,
                          const backend_device* device, const allocator_expression* expression,
                          trace_run* out) {
  run_parts parts = {
      .options = options,
      .log = log,
      .expression = expression,
      .is_capped = device && device->is_capped && expression->memory == MEMORY_DEVICE,
      .budget = {.limit_bytes = device ? device->memory_bytes : 0},
      .thread_count = options->one_thread ? 1 : log->thread_count,
      .out = out,
  };
  *out = (trace_run){.allocators = expression->text, .has_arena = expression->own_depth > 0};
  const tm_status status = run(&parts);
  if (status != TM_OK) {
    out->failed = true;
    out->is_misnamed = status == TM_ERR_INVALID || status == TM_ERR_UNAVAILABLE ||
                       status == TM_ERR_NOT_FOUND || status == TM_ERR_IO;
    (void)snprintf(out->message, sizeof(out->message), "%s", tm_last_error()->message);
  }
  tear_down(&parts);
}
