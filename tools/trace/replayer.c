#include "trace/replayer.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

//===-- State -------------------------------------------------------------===//

typedef enum block_state {
  BLOCK_PENDING,  // not allocated yet
  BLOCK_LIVE,
  BLOCK_UNSERVED,
  BLOCK_FREE,
} block_state;

typedef struct replayed_block {
  void* pointer;
  uint64_t bytes;
  uint32_t thread;  // whose allocator it is from
  uint32_t stream;
  int state;  // a block_state, with __atomic
} replayed_block;

typedef struct replay_thread {
  replayer* owner;
  pthread_t thread;
  pthread_cond_t wake;
  uint32_t number;
  size_t first_event;  // into `own_events`
  size_t event_count;
  replay_result result;  // of the pass that runs
  uint64_t busy_ns;
} replay_thread;

struct replayer {
  const allocation_log* log;
  replayer_options options;
  replayed_block* blocks;
  replay_thread* threads;  // of the log; none of them runs if there is one worker only
  uint32_t worker_count;   // threads that were started; 0: all is done on the caller's
  size_t* own_events;      // numbers of events, by thread
  bool is_ready;           // set up and started
  // What follows is guarded by `lock`.
  pthread_mutex_t lock;
  pthread_cond_t pass_done;
  pthread_cond_t block_known;  // a block is no longer pending
  uint64_t passes;             // that have begun
  uint32_t running;            // workers that are in it
  size_t next;                 // event whose turn it is
  bool ends;
  // What follows is read and written with __atomic.
  uint32_t waiting_for_blocks;
  uint64_t live_bytes;
  uint64_t events_done;
};

static uint64_t now_ns(void) {
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static tm_allocator* allocator_of(const replayer* r, uint32_t thread) {
  return r->options.allocators[r->options.one_thread ? 0 : thread];
}

static tm_stream* stream_of(const replayer* r, uint32_t stream) {
  return r->options.streams ? r->options.streams[stream] : NULL;
}

//===-- Blocks that another thread allocates ------------------------------===//

static void make_known(replayer* r, replayed_block* block, block_state state) {
  __atomic_store_n(&block->state, state, __ATOMIC_SEQ_CST);
  if (__atomic_load_n(&r->waiting_for_blocks, __ATOMIC_SEQ_CST) == 0) return;
  pthread_mutex_lock(&r->lock);
  pthread_cond_broadcast(&r->block_known);
  pthread_mutex_unlock(&r->lock);
}

// In the order of the log the event that allocates a block comes before the one that frees it, so
// of all events that are waited for, the first one has nothing to wait for: there is no deadlock.
static block_state wait_until_known(replayer* r, replayed_block* block) {
  int state = __atomic_load_n(&block->state, __ATOMIC_ACQUIRE);
  if (state != BLOCK_PENDING) return (block_state)state;
  pthread_mutex_lock(&r->lock);
  __atomic_fetch_add(&r->waiting_for_blocks, 1, __ATOMIC_SEQ_CST);
  while ((state = __atomic_load_n(&block->state, __ATOMIC_SEQ_CST)) == BLOCK_PENDING) {
    pthread_cond_wait(&r->block_known, &r->lock);
  }
  __atomic_fetch_sub(&r->waiting_for_blocks, 1, __ATOMIC_SEQ_CST);
  pthread_mutex_unlock(&r->lock);
  return (block_state)state;
}

//===-- Events ------------------------------------------------------------===//

static void note_unserved(replay_result* result, const log_event* e) {
  if (result->unserved == 0) {
    result->first_bytes = e->bytes;
    (void)snprintf(result->message, sizeof(result->message), "%s", tm_last_error()->message);
  }
  if (result->unserved < REPLAY_LINES) result->lines[result->unserved] = e->line;
  result->unserved++;
}

static void replay_allocate(replayer* r, replay_thread* t, const log_event* e) {
  replayed_block* block = &r->blocks[e->block];
  block->bytes = e->bytes;
  block->thread = e->thread;
  block->stream = e->stream;
  const tm_status status = tm_allocator_alloc(allocator_of(r, e->thread), e->bytes,
                                              stream_of(r, e->stream), &block->pointer);
  t->result.operations++;
  if (status == TM_OK) {
    if (r->options.watch) __atomic_fetch_add(&r->live_bytes, e->bytes, __ATOMIC_RELAXED);
  } else {
    note_unserved(&t->result, e);
  }
  make_known(r, block, status == TM_OK ? BLOCK_LIVE : BLOCK_UNSERVED);
}

static void give_back(const replayer* r, replayed_block* block) {
  tm_allocator_free(allocator_of(r, block->thread), block->pointer, block->bytes,
                    stream_of(r, block->stream));
  __atomic_store_n(&block->state, BLOCK_FREE, __ATOMIC_RELAXED);
}

// A block is given back on the stream that it was allocated for. Where the log frees it on another,
// that stream's work comes before.
static void replay_free(replayer* r, replay_thread* t, const log_event* e) {
  replayed_block* block = &r->blocks[e->block];
  if (wait_until_known(r, block) != BLOCK_LIVE) return;
  if (e->stream != block->stream && r->options.streams) {
    (void)!tm_stream_wait_stream(stream_of(r, block->stream), stream_of(r, e->stream));
  }
  give_back(r, block);
  t->result.operations++;
  if (r->options.watch) __atomic_fetch_sub(&r->live_bytes, e->bytes, __ATOMIC_RELAXED);
}

static void try_failure(const replayer* r, replay_thread* t, const log_event* e) {
  tm_allocator* allocator = allocator_of(r, e->thread);
  tm_stream* stream = stream_of(r, e->stream);
  void* pointer;
  t->result.operations++;
  if (tm_allocator_alloc(allocator, e->bytes, stream, &pointer) != TM_OK) return;
  tm_allocator_free(allocator, pointer, e->bytes, stream);
  t->result.operations++;
  t->result.failures_served++;
}

static void watch(replayer* r) {
  const size_t done = __atomic_add_fetch(&r->events_done, 1, __ATOMIC_RELAXED);
  if (r->options.concurrent) pthread_mutex_lock(&r->lock);
  r->options.watch(r->options.user, __atomic_load_n(&r->live_bytes, __ATOMIC_RELAXED), done);
  if (r->options.concurrent) pthread_mutex_unlock(&r->lock);
}

static void replay_event(replayer* r, replay_thread* t, const log_event* e) {
  switch (e->kind) {
    case LOG_ALLOCATE:
      replay_allocate(r, t, e);
      break;
    case LOG_FREE:
      replay_free(r, t, e);
      break;
    default:
      if (r->options.try_failures) try_failure(r, t, e);
      break;
  }
  if (r->options.watch) watch(r);
}

//===-- Orders ------------------------------------------------------------===//

// Replays the events from `next` on that are of this thread; returns the first that is not.
static size_t take_turn(replayer* r, replay_thread* t, size_t next) {
  const uint64_t start = now_ns();
  const allocation_log* log = r->log;
  while (next < log->event_count &&
         (r->options.one_thread || log->events[next].thread == t->number)) {
    replay_event(r, t, &log->events[next++]);
  }
  t->busy_ns += now_ns() - start;
  return next;
}

static void wake_next(replayer* r) {
  if (r->next < r->log->event_count) {
    pthread_cond_signal(&r->threads[r->log->events[r->next].thread].wake);
    return;
  }
  for (uint32_t i = 0; i < r->worker_count; i++) pthread_cond_signal(&r->threads[i].wake);
}

static void replay_in_order(replayer* r, replay_thread* t) {
  pthread_mutex_lock(&r->lock);
  while (r->next < r->log->event_count) {
    if (r->log->events[r->next].thread != t->number) {
      pthread_cond_wait(&t->wake, &r->lock);
      continue;
    }
    const size_t next = r->next;
    pthread_mutex_unlock(&r->lock);
    const size_t end = take_turn(r, t, next);
    pthread_mutex_lock(&r->lock);
    r->next = end;
    wake_next(r);
  }
  pthread_mutex_unlock(&r->lock);
}

static void replay_own(replayer* r, replay_thread* t) {
  for (size_t i = 0; i < t->event_count; i++) {
    replay_event(r, t, &r->log->events[r->own_events[t->first_event + i]]);
  }
}

//===-- Threads -----------------------------------------------------------===//

// Waits for the pass of that number; false where there is none.
static bool wait_for_pass(replayer* r, replay_thread* t, uint64_t pass) {
  pthread_mutex_lock(&r->lock);
  while (r->passes < pass && !r->ends) pthread_cond_wait(&t->wake, &r->lock);
  const bool has_begun = r->passes >= pass;
  pthread_mutex_unlock(&r->lock);
  return has_begun;
}

static void leave_pass(replayer* r) {
  pthread_mutex_lock(&r->lock);
  if (--r->running == 0) pthread_cond_signal(&r->pass_done);
  pthread_mutex_unlock(&r->lock);
}

static void* run_thread(void* argument) {
  replay_thread* t = argument;
  replayer* r = t->owner;
  for (uint64_t pass = 1; wait_for_pass(r, t, pass); pass++) {
    if (r->options.concurrent) {
      replay_own(r, t);
    } else {
      replay_in_order(r, t);
    }
    leave_pass(r);
  }
  if (r->options.leave) r->options.leave(r->options.user, t->number);
  return NULL;
}

static void run_workers(replayer* r) {
  pthread_mutex_lock(&r->lock);
  r->next = 0;
  r->running = r->worker_count;
  r->passes++;
  for (uint32_t i = 0; i < r->worker_count; i++) pthread_cond_signal(&r->threads[i].wake);
  while (r->running) pthread_cond_wait(&r->pass_done, &r->lock);
  pthread_mutex_unlock(&r->lock);
}

//===-- Passes ------------------------------------------------------------===//

static void begin_pass(replayer* r) {
  r->live_bytes = 0;
  r->events_done = 0;
  for (uint32_t i = 0; i < r->log->block_count; i++) r->blocks[i].state = BLOCK_PENDING;
  for (uint32_t i = 0; i < r->log->thread_count; i++) {
    r->threads[i].result = (replay_result){0};
    r->threads[i].busy_ns = 0;
  }
}

// Latest first, as an arena likes it.
static void free_the_rest(replayer* r) {
  for (uint32_t i = r->log->block_count; i-- > 0;) {
    if (r->blocks[i].state == BLOCK_LIVE) give_back(r, &r->blocks[i]);
  }
}

// Puts the lines of two results in order, and keeps the first.
static void merge_lines(replay_result* sum, const replay_result* more) {
  uint64_t merged[REPLAY_LINES] = {0};
  size_t a = 0;
  size_t b = 0;
  for (size_t i = 0; i < REPLAY_LINES; i++) {
    const bool has_a = a < REPLAY_LINES && sum->lines[a];
    const bool has_b = b < REPLAY_LINES && more->lines[b];
    if (has_a && (!has_b || sum->lines[a] <= more->lines[b])) {
      merged[i] = sum->lines[a++];
    } else if (has_b) {
      merged[i] = more->lines[b++];
    }
  }
  memcpy(sum->lines, merged, sizeof(merged));
}

static void add(replay_result* sum, const replay_result* more) {
  if (more->unserved && (!sum->unserved || more->lines[0] < sum->lines[0])) {
    sum->first_bytes = more->first_bytes;
    memcpy(sum->message, more->message, sizeof(sum->message));
  }
  merge_lines(sum, more);
  sum->operations += more->operations;
  sum->unserved += more->unserved;
  sum->failures_served += more->failures_served;
}

void replayer_pass(replayer* r, replay_result* out) {
  *out = (replay_result){0};
  begin_pass(r);
  const uint64_t start = now_ns();
  if (r->worker_count) {
    run_workers(r);
  } else {
    (void)take_turn(r, &r->threads[0], 0);
  }
  const uint64_t wall_ns = now_ns() - start;
  uint64_t busy_ns = 0;
  for (uint32_t i = 0; i < r->log->thread_count; i++) {
    add(out, &r->threads[i].result);
    busy_ns += r->threads[i].busy_ns;
  }
  out->seconds = (double)(r->options.concurrent && r->worker_count ? wall_ns : busy_ns) * 1e-9;
  free_the_rest(r);
}

//===-- Lifetime ----------------------------------------------------------===//

// Sorts the events' numbers by their threads.
static void assign_events(replayer* r) {
  const allocation_log* log = r->log;
  for (size_t i = 0; i < log->event_count; i++) r->threads[log->events[i].thread].event_count++;
  for (uint32_t i = 1; i < log->thread_count; i++) {
    r->threads[i].first_event = r->threads[i - 1].first_event + r->threads[i - 1].event_count;
  }
  for (uint32_t i = 0; i < log->thread_count; i++) r->threads[i].event_count = 0;
  for (size_t i = 0; i < log->event_count; i++) {
    replay_thread* t = &r->threads[log->events[i].thread];
    r->own_events[t->first_event + t->event_count++] = i;
  }
}

static tm_status obtain_memory(replayer* r) {
  const allocation_log* log = r->log;
  // A log without a single allocation may have failures: one block more than none.
  r->blocks = tm_bookkeeping_alloc(((size_t)log->block_count + 1) * sizeof(*r->blocks),
                                   "the blocks of a replay");
  if (!r->blocks) return tm_last_status();
  r->threads =
      tm_bookkeeping_alloc(log->thread_count * sizeof(*r->threads), "the threads of a replay");
  if (!r->threads) return tm_last_status();
  r->own_events =
      tm_bookkeeping_alloc(log->event_count * sizeof(*r->own_events), "the order of a replay");
  return r->own_events ? TM_OK : tm_last_status();
}

static tm_status start_threads(replayer* r) {
  if (r->log->thread_count == 1 || r->options.one_thread) return TM_OK;
  for (uint32_t i = 0; i < r->log->thread_count; i++) {
    const int code = pthread_create(&r->threads[i].thread, NULL, run_thread, &r->threads[i]);
    if (code != 0) {
      return TM_RAISE(TM_ERR_UNAVAILABLE, "replay: thread %u of %u cannot be started: %s", i + 1,
                      r->log->thread_count, strerror(code));
    }
    r->worker_count++;
  }
  return TM_OK;
}

static tm_status set_up(replayer* r) {
  TM_TRY(obtain_memory(r));
  for (uint32_t i = 0; i < r->log->thread_count; i++) {
    r->threads[i].owner = r;
    r->threads[i].number = i;
    pthread_cond_init(&r->threads[i].wake, NULL);
  }
  assign_events(r);
  return start_threads(r);
}

replayer* replayer_create(const allocation_log* log, const replayer_options* options) {
  replayer* r = tm_bookkeeping_alloc(sizeof(*r), "a replay");
  if (!r) return NULL;
  r->log = log;
  r->options = *options;
  pthread_mutex_init(&r->lock, NULL);
  pthread_cond_init(&r->pass_done, NULL);
  pthread_cond_init(&r->block_known, NULL);
  r->is_ready = set_up(r) == TM_OK;
  if (r->is_ready) return r;
  replayer_destroy(r);
  return NULL;
}

static void end_threads(replayer* r) {
  pthread_mutex_lock(&r->lock);
  r->ends = true;
  for (uint32_t i = 0; i < r->worker_count; i++) pthread_cond_signal(&r->threads[i].wake);
  pthread_mutex_unlock(&r->lock);
  for (uint32_t i = 0; i < r->worker_count; i++) pthread_join(r->threads[i].thread, NULL);
  if (r->is_ready && r->worker_count == 0 && r->options.leave) r->options.leave(r->options.user, 0);
}

void replayer_destroy(replayer* r) {
  if (!r) return;
  end_threads(r);
  for (uint32_t i = 0; r->own_events && i < r->log->thread_count; i++) {
    pthread_cond_destroy(&r->threads[i].wake);
  }
  tm_bookkeeping_free(r->own_events);
  tm_bookkeeping_free(r->threads);
  tm_bookkeeping_free(r->blocks);
  pthread_cond_destroy(&r->block_known);
  pthread_cond_destroy(&r->pass_done);
  pthread_mutex_destroy(&r->lock);
  tm_bookkeeping_free(r);
}
