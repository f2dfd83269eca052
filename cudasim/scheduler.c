#include "cudasim/scheduler.h"

#include <signal.h>
#include <stddef.h>

#include "cudasim/choice.h"
#include "cudasim/device.h"
#include "cudasim/event.h"
#include "cudasim/host_check.h"
#include "cudasim/kernel.h"
#include "cudasim/runtime.h"

// Ops of the program that one stream holds before its caller has to wait, as on a device.
#define QUEUE_LIMIT 1024

// A worker with nothing to do ends after this long.
#define REST_MS 200

// What is ready behind a host function that blocks gets a further worker after this long.
#define STUCK_MS 2

// A thread of the program that waits for a stream. On its stack.
typedef struct waiter {
  struct waiter* next;
  uint64_t position;
  bool is_done;
  pthread_cond_t* wake;
} waiter;

static struct {
  engine eager;           // all that is ready, in eager mode
  stream* to_advance;     // streams whose first op may have changed
  bool is_quiet;          // what becomes ready is run by the thread that submits it
  bool is_stopping;       // workers are to end
  unsigned workers;       // threads
  unsigned copies;        // ops other than host functions being run
  pthread_cond_t change;  // one of the two went down, while stopping
  pthread_cond_t news;  // in random mode: something is ready, or somebody need not wait any longer
} state = {.change = PTHREAD_COND_INITIALIZER, .news = PTHREAD_COND_INITIALIZER};

//===-- Engines -------------------------------------------------------------------------------===//

engine* sim_engine_of(int id, engine_kind kind) {
  static engine engines[CUDASIM_MAX_DEVICES][2] = {
      [0 ... CUDASIM_MAX_DEVICES - 1] = {
          [ENGINE_COPIES] = {.wake = PTHREAD_COND_INITIALIZER},
          [ENGINE_HOST_FUNCTIONS] = {.may_block = true, .wake = PTHREAD_COND_INITIALIZER}}};
  return &engines[id][kind];
}

static bool is_eager(void) { return sim_options()->schedule == SCHEDULE_EAGER; }

static bool is_random(void) { return sim_options()->schedule == SCHEDULE_RANDOM; }

static engine* engine_of(const stream* s) {
  if (is_eager()) return &state.eager;
  return s->first->kind == OP_HOST ? s->device->host_functions : s->device->copies;
}

static void engine_push(engine* e, stream* s) {
  int level = s->priority - STREAM_HIGHEST_PRIORITY;
  s->next_ready = NULL;
  if (e->first[level]) {
    e->last[level]->next_ready = s;
  } else {
    e->first[level] = s;
  }
  e->last[level] = s;
  e->occupied |= 1u << level;
}

static stream* engine_pop(engine* e) {
  if (!e->occupied) return NULL;
  int level = __builtin_ctz(e->occupied);
  stream* s = e->first[level];
  e->first[level] = s->next_ready;
  if (!e->first[level]) e->occupied &= ~(1u << level);
  return s;
}

//===-- Completion ----------------------------------------------------------------------------===//

static void advance_later(stream* s) {
  s->next_to_advance = state.to_advance;
  state.to_advance = s;
}

static void wake_streams(stream* s) {
  for (stream** link = &s->waiters; *link;) {
    stream* waiting = *link;
    if (stream_is_done(s, waiting->first->wait.position)) {
      *link = waiting->next_waiter;
      advance_later(waiting);
    } else {
      link = &waiting->next_waiter;
    }
  }
}

static void wake_host(stream* s) {
  for (waiter** link = &s->host_waiters; *link;) {
    waiter* w = *link;
    if (stream_is_done(s, w->position)) {
      *link = w->next;
      w->is_done = true;
      pthread_cond_broadcast(w->wake);  // in random mode, all share one
    } else {
      link = &w->next;
    }
  }
}

static void complete_first(stream* s) {
  op* o = s->first;
  s->first = o->next;
  if (!s->first) s->last = NULL;
  --s->queued;
  --s->device->queued;
  s->completed = s->first ? s->first->position - 1 : s->submitted;
  sim_op_release(o);
  wake_host(s);
  wake_streams(s);
}

static void start_worker(engine* e, void* (*work)(void* argument));
static void* serve(void* argument);
static void* watch_and_serve(void* argument);

// Sees to it that somebody takes what is ready.
static void call_worker(engine* e) {
  if (e->resting) {
    pthread_cond_signal(&e->wake);
  } else if (!e->workers) {
    start_worker(e, serve);
  } else if (e->may_block && !e->is_watched) {
    e->is_watched = true;
    start_worker(e, watch_and_serve);
  }
}

static void make_ready(stream* s) {
  s->state = STREAM_READY;
  if (is_random()) {
    sim_choice_offer(s);
    pthread_cond_broadcast(&state.news);
    return;
  }
  engine* e = engine_of(s);
  engine_push(e, s);
  if (!is_eager() && !state.is_quiet) call_worker(e);
}

// Whether the first op of `s` is a wait that has to go on.
static bool must_wait(const stream* s) {
  const op* o = s->first;
  return o->kind == OP_WAIT && !stream_is_done(o->wait.target, o->wait.position);
}

// Brings `s` to its first op that somebody has to run or that has to wait.
static void advance_one(stream* s) {
  while (s->first) {
    if (must_wait(s)) {
      stream* target = s->first->wait.target;
      s->state = STREAM_WAITING;
      s->next_waiter = target->waiters;
      target->waiters = s;
      return;
    }
    if (op_is_work(s->first)) {
      make_ready(s);
      return;
    }
    if (s->first->kind == OP_RECORD) {
      sim_event_stamp(s->first->record.event, s->first->record.serial);
    }
    complete_first(s);
  }
  s->state = STREAM_IDLE;
  if (s->is_closed) sim_stream_recycle(s);
}

// The streams that this sets free are advanced one after the other, not inside each other: chains
// of waits may be long.
static void advance(stream* s) {
  advance_later(s);
  while (state.to_advance) {
    stream* next = state.to_advance;
    state.to_advance = next->next_to_advance;
    advance_one(next);
  }
}

//===-- Running -------------------------------------------------------------------------------===//

// Runs the first op of `s`. A broken device completes its work without doing it.
static void run_first(stream* s) {
  const op* o = s->first;
  bool is_copy = o->kind != OP_HOST;
  if (!s->device->broken) {
    state.copies += is_copy;
    if (check_is_on()) sim_host_check_run(o);
    sim_unlock();
    sim_op_run(o);
    sim_lock();
    if (check_is_on()) sim_host_check_ran(o);
    state.copies -= is_copy;
    bool is_wild = o->kind == OP_KERNEL && sim_kernel_is_wild(o->kernel.run);
    if (is_wild && !s->device->broken) s->device->broken = cudaErrorIllegalAddress;
    if (state.is_stopping) pthread_cond_broadcast(&state.change);
  }
  complete_first(s);
  advance(s);
}

// Runs the first op of the first stream.
static bool run_next(engine* e) {
  stream* s = engine_pop(e);
  if (!s) return false;
  s->state = STREAM_RUNNING;
  if (e->occupied && e->may_block) call_worker(e);
  run_first(s);
  return true;
}

// Waits for work; false when there was none for long.
static bool rest(engine* e) {
  ++e->resting;
  bool woken = sim_wait_ms(&e->wake, REST_MS);
  --e->resting;
  return woken || e->occupied;
}

static void serve_locked(engine* e) {
  while (!state.is_stopping && (run_next(e) || rest(e))) {
  }
  --e->workers;
  --state.workers;
  pthread_cond_broadcast(&state.change);
}

static void* serve(void* argument) {
  sim_lock();
  serve_locked(argument);
  sim_unlock();
  return NULL;
}

// Leaves what is ready to the other workers for a moment: most host functions are short.
static void* watch_and_serve(void* argument) {
  engine* e = argument;
  sim_lock();
  sim_wait_ms(&e->wake, STUCK_MS);
  e->is_watched = false;
  if (e->occupied) sim_warn("host functions of several streams run at once; a GPU may not do that");
  serve_locked(e);
  sim_unlock();
  return NULL;
}

// The program's signals are not delivered to workers.
static void start_worker(engine* e, void* (*work)(void* argument)) {
  if (state.is_stopping) return;
  sigset_t all;
  sigset_t before;
  pthread_t thread;
  sigfillset(&all);
  if (check_is_on()) sigdelset(&all, SIGSEGV);  // what a host function does wrong is reported
  pthread_sigmask(SIG_SETMASK, &all, &before);
  bool is_started = pthread_create(&thread, NULL, work, e) == 0;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (!is_started) {  // whoever waits does the work
    e->is_watched = false;
    return;
  }
  pthread_detach(thread);
  ++e->workers;
  ++state.workers;
}

//===-- Choosing ------------------------------------------------------------------------------===//

static bool run_chosen(void) {
  stream* s = sim_choice_take();
  if (!s) return false;
  s->state = STREAM_RUNNING;
  run_first(s);
  return true;
}

static void run_some(void) {
  for (uint32_t ops = sim_choice_ops(); ops && run_chosen(); --ops) {
  }
}

// Runs what `s` needs next, unless another thread is at it.
static void run_towards(stream* s) {
  while (s->state == STREAM_WAITING) s = s->first->wait.target;
  if (s->state != STREAM_READY) return;
  sim_choice_take_this(s);
  s->state = STREAM_RUNNING;
  run_first(s);
}

void sim_scheduler_ask(stream* s, uint64_t position) {
  if (!is_random() || stream_is_done(s, position)) return;
  sim_choice_turn();
  switch (sim_choice_below(4)) {
    case 0:
      run_some();
      break;
    case 1:
      run_towards(s);
      break;
    default:
      break;
  }
}

void sim_scheduler_pass(void) {
  if (is_random() && sim_choice_below(2)) run_some();
}

// What nobody has waited for when the process ends may be done or not. Functions of the program are
// not called any more: what they need may be gone.
static void run_last(void) {
  if (sim_thread()->in_host_function || sim_choice_below(2)) return;
  for (uint32_t ops = sim_choice_ops(); ops; --ops) {
    stream* s = sim_choice_take();
    if (!s) return;
    if (s->first->kind == OP_HOST || s->first->kind == OP_KERNEL) {
      sim_choice_offer(s);
      continue;
    }
    s->state = STREAM_RUNNING;
    run_first(s);
  }
}

//===-- Helping and stopping ------------------------------------------------------------------===//

// Runs one thing that a waiting thread of the program may run.
static bool help(device* d) {
  if (is_random()) return run_chosen();
  if (is_eager()) return run_next(&state.eager);
  return run_next(d->copies) || (!d->host_functions->workers && run_next(d->host_functions));
}

void sim_scheduler_stop(bool all) {
  if (!all && is_random()) run_last();
  state.is_stopping = true;
  for (int i = 0; i < sim_device_count(); ++i) {
    pthread_cond_broadcast(&sim_engine_of(i, ENGINE_COPIES)->wake);
    pthread_cond_broadcast(&sim_engine_of(i, ENGINE_HOST_FUNCTIONS)->wake);
  }
  while (state.copies || (all && state.workers)) sim_wait(&state.change);
  if (all) state.is_stopping = false;
}

//===-- Submitting and waiting ----------------------------------------------------------------===//

bool sim_scheduler_make_room(stream* s) {
  if (s->queued < QUEUE_LIMIT) return false;
  sim_scheduler_wait(s, s->completed + (s->submitted - s->completed) / 2 + 1);
  return true;
}

static void append(stream* s, op* o) {
  o->stream = s;
  o->position = ++s->submitted;
  if (s != s->device->legacy && stream_is_blocking(s)) ++s->device->blocking_serial;
  if (s->last) {
    s->last->next = o;
  } else {
    s->first = o;
  }
  s->last = o;
  ++s->queued;
  ++s->device->queued;
  if (check_is_on()) sim_host_check_queued(o);
}

// In eager mode, runs all that is ready, whoever submitted it: its owner may be asleep.
static void drain(void) {
  while (run_next(&state.eager)) {
  }
}

static void queue(stream* s, op* o, bool soon) {
  append(s, o);
  if (s->state != STREAM_IDLE) return;
  state.is_quiet = soon;
  advance(s);
  state.is_quiet = false;
}

void sim_scheduler_queue(stream* s, op* o) { queue(s, o, false); }

void sim_scheduler_settle(stream* s, uint64_t position) {
  if (is_random() && sim_choice_is_occasion()) run_some();
  if (!is_eager()) return;
  drain();
  sim_scheduler_wait(s, position);
}

void sim_scheduler_submit(stream* s, op* o, bool soon) {
  bool is_work = op_is_work(o);
  uint64_t position = s->submitted + 1;
  queue(s, o, soon);
  if (is_work) sim_scheduler_settle(s, position);
}

void sim_scheduler_wait(stream* s, uint64_t position) {
  if (stream_is_done(s, position)) return;
  if (is_random()) sim_choice_turn();
  device* d = s->device;
  pthread_cond_t* wake = is_random() ? &state.news : &sim_thread()->wake;
  waiter w = {.next = s->host_waiters, .position = position, .wake = wake};
  s->host_waiters = &w;
  while (!w.is_done) {
    if (!help(d)) sim_wait(w.wake);
  }
  if (is_eager()) drain();
}
