#define _GNU_SOURCE  // pthread_cond_clockwait
#include "cudasim/runtime.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cudasim/choice.h"
#include "cudasim/event.h"
#include "cudasim/fault.h"
#include "cudasim/graph_exec.h"
#include "cudasim/handle.h"
#include "cudasim/host_memory.h"
#include "cudasim/op.h"
#include "cudasim/pool.h"
#include "cudasim/scheduler.h"
#include "cudasim/slab.h"
#include "cudasim/ticks.h"

typedef enum gate {
  GATE_NEW,     // there is no machine: the next call makes one
  GATE_OPEN,    // there is one
  GATE_BROKEN,  // there can be none: its options are not allowed
  GATE_FORKED,  // this is the child of a process that had one
  GATE_EXITED,  // the process is ending
} gate;

static struct {
  pthread_mutex_t lock;    // of everything
  pthread_mutex_t making;  // of the machine; taken before `lock`
  atomic_int gate;
  atomic_ullong machine;  // counts the machines that there were
  options options;
  options asked;  // by cudasim_configure
  bool is_asked;
  pthread_key_t thread_end;
  atomic_bool is_measuring;
  atomic_ullong ticks;  // of all threads
} state = {.lock = PTHREAD_MUTEX_INITIALIZER, .making = PTHREAD_MUTEX_INITIALIZER};

//===-- The lock ------------------------------------------------------------------------------===//

void sim_lock(void) { pthread_mutex_lock(&state.lock); }

void sim_unlock(void) { pthread_mutex_unlock(&state.lock); }

void sim_wait(pthread_cond_t* condition) { pthread_cond_wait(condition, &state.lock); }

bool sim_wait_ms(pthread_cond_t* condition, int ms) {
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_nsec += ms * 1000000L;
  until.tv_sec += until.tv_nsec / 1000000000;
  until.tv_nsec %= 1000000000;
  return pthread_cond_clockwait(condition, &state.lock, CLOCK_MONOTONIC, &until) != ETIMEDOUT;
}

//===-- Threads -------------------------------------------------------------------------------===//

static __thread thread_state this_thread = {.wake = PTHREAD_COND_INITIALIZER};

thread_state* sim_thread(void) { return &this_thread; }

// Forgets what belonged to an earlier machine.
static void renew_thread(thread_state* t) {
  sim_bookkeeping_free(t->streams);
  t->streams = NULL;
  t->device = 0;
  t->last_error = cudaSuccess;
  t->capture_mode = cudaStreamCaptureModeGlobal;
  t->machine = atomic_load(&state.machine);
}

static void close_streams(thread_state* t) {
  for (int i = 0; i < sim_device_count(); ++i) {
    stream* s = sim_handle_object(HANDLE_STREAM, t->streams[i]);
    if (s) sim_stream_close(s);
  }
}

static void end_thread(void* ended) {
  thread_state* t = ended;
  bool is_current = t->streams && t->machine == atomic_load(&state.machine);
  if (is_current && atomic_load(&state.gate) == GATE_OPEN) {
    sim_lock();
    close_streams(t);
    sim_unlock();
  }
  sim_bookkeeping_free(t->streams);
  t->streams = NULL;
}

stream* sim_thread_stream(device* d) {
  thread_state* t = sim_thread();
  if (!t->streams) {
    t->streams = sim_bookkeeping_alloc((size_t)sim_device_count() * sizeof(cudaStream_t));
    if (!t->streams || pthread_setspecific(state.thread_end, t)) return NULL;
  }
  stream* s = sim_handle_object(HANDLE_STREAM, t->streams[d->id]);
  if (s) return s;
  s = sim_stream_create(d, cudaStreamDefault, STREAM_LOWEST_PRIORITY);
  t->streams[d->id] = s ? s->handle : NULL;
  return s;
}

//===-- The machine ---------------------------------------------------------------------------===//

const options* sim_options(void) { return &state.options; }

static void in_child(void) {
  if (atomic_load(&state.gate) == GATE_OPEN) atomic_store(&state.gate, GATE_FORKED);
}

// Copies under way end before the memory that they use goes.
static void at_exit(void) {
  int expected = GATE_OPEN;
  if (!atomic_compare_exchange_strong(&state.gate, &expected, GATE_EXITED)) return;
  sim_lock();
  sim_scheduler_stop(false);
  sim_unlock();
}

static bool hook_process(void) {
  static bool is_hooked;
  if (is_hooked) return true;
  is_hooked = !pthread_key_create(&state.thread_end, end_thread) &&
              !pthread_atfork(NULL, NULL, in_child) && !atexit(at_exit);
  return is_hooked;
}

static gate make(void) {
  bool is_good = true;
  if (state.is_asked) {
    state.options = state.asked;
  } else {
    is_good = sim_options_resolve(&(cudasim_options){0}, &state.options);
  }
  sim_choice_begin(state.options.seed);
  atomic_fetch_add(&state.machine, 1);
  return is_good && hook_process() ? GATE_OPEN : GATE_BROKEN;
}

static cudaError_t error_of(gate g) {
  switch (g) {
    case GATE_OPEN:
      return cudaSuccess;
    case GATE_EXITED:
      return cudaErrorCudartUnloading;
    case GATE_NEW:
    case GATE_BROKEN:
    case GATE_FORKED:
      break;
  }
  return cudaErrorInitializationError;
}

cudaError_t sim_machine_make(void) {
  if (atomic_load(&state.gate) == GATE_NEW) {
    pthread_mutex_lock(&state.making);
    if (atomic_load(&state.gate) == GATE_NEW) atomic_store(&state.gate, make());
    pthread_mutex_unlock(&state.making);
  }
  return error_of((gate)atomic_load(&state.gate));
}

cudaError_t cudasim_configure(const cudasim_options* asked) {
  options resolved;
  if (!sim_options_resolve(asked ? asked : &(cudasim_options){0}, &resolved)) {
    return cudaErrorInvalidValue;
  }
  pthread_mutex_lock(&state.making);
  bool is_early = atomic_load(&state.gate) == GATE_NEW;
  if (is_early) {
    state.asked = resolved;
    state.is_asked = true;
  }
  pthread_mutex_unlock(&state.making);
  return is_early ? cudaSuccess : cudaErrorSetOnActiveProcess;
}

// Streams may still use memory of other devices.
static void wait_for_all_devices(void) {
  for (int i = 0; i < sim_device_count(); ++i) {
    device* d = sim_device_at(i);
    if (d->is_open) sim_stream_wait_device(d);
  }
}

static void take_down(void) {
  sim_lock();
  wait_for_all_devices();
  for (int i = 0; i < sim_device_count(); ++i) sim_device_close(sim_device_at(i));
  sim_scheduler_stop(true);
  sim_host_memory_free_all();
  sim_graph_exec_destroy_all();
  sim_graph_destroy_all();
  sim_handle_close_all();
  sim_stream_drop();
  sim_event_drop();
  sim_pool_drop();
  sim_block_drop();
  sim_op_drop();
  sim_history_drop();
  sim_unlock();
}

void cudasim_reset(void) {
  cudasim_fail_nothing();
  cudasim_measure_calls(0);
  pthread_mutex_lock(&state.making);
  int now = atomic_load(&state.gate);
  if (now == GATE_OPEN) take_down();
  if (now == GATE_OPEN || now == GATE_BROKEN) atomic_store(&state.gate, GATE_NEW);
  state.is_asked = false;
  state.options = (options){0};
  pthread_mutex_unlock(&state.making);
}

//===-- Calls ---------------------------------------------------------------------------------===//

static cudaError_t admit(call* c, call_id id) {
  if (atomic_load_explicit(&state.gate, memory_order_acquire) != GATE_OPEN) {
    cudaError_t error = sim_machine_make();
    bool is_asked_by_child =
        atomic_load(&state.gate) == GATE_FORKED && id == CALL_cudaGetDeviceCount;
    if (error) return is_asked_by_child ? cudaSuccess : error;  // as the real runtime does
  }
  thread_state* t = &this_thread;
  if (t->in_host_function) return cudaErrorNotPermitted;
  if (t->machine != atomic_load_explicit(&state.machine, memory_order_relaxed)) renew_thread(t);
  c->is_measured = atomic_load_explicit(&state.is_measuring, memory_order_relaxed);
  if (c->is_measured) c->began = ticks_now();
  if (!atomic_load_explicit(&sim_faults_armed, memory_order_relaxed)) return cudaSuccess;
  return sim_fault_next(id);
}

bool sim_call_open_plain(call* c, call_id id) {
  *c = (call){0};
  c->error = admit(c, id);
  return c->error == cudaSuccess;
}

bool sim_call_open(call* c, call_id id) {
  if (!sim_call_open_plain(c, id)) return false;
  sim_lock();
  c->is_locked = true;
  c->device = sim_device_open(this_thread.device, &c->error);
  if (c->device) c->error = c->device->broken;
  return c->error == cudaSuccess;
}

cudaError_t sim_call_close(call* c) {
  if (c->is_locked) sim_unlock();
  if (c->error && c->error != cudaErrorNotReady) this_thread.last_error = c->error;
  if (c->is_measured) {
    uint64_t ticks = ticks_now() - c->began;
    this_thread.call_ticks += ticks;
    atomic_fetch_add_explicit(&state.ticks, ticks, memory_order_relaxed);
  }
  return c->error;
}

void sim_warn(const char* text) {
  if (state.options.verbose) fprintf(stderr, "cudasim: %s\n", text);
}

cudaError_t sim_refuse(cudaError_t error, const char* format, ...) {
  if (!state.options.verbose) return error;
  char text[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  fprintf(stderr, "cudasim: %s: %s\n", cudaGetErrorName(error), text);
  return error;
}

//===-- Last errors ---------------------------------------------------------------------------===//

// What a broken device says on every call, also on these.
static cudaError_t sticky_error(void) {
  if (atomic_load(&state.gate) != GATE_OPEN || this_thread.in_host_function) return cudaSuccess;
  sim_lock();
  const device* d = sim_device_at(this_thread.device);
  cudaError_t error = d ? d->broken : cudaSuccess;
  sim_unlock();
  return error;
}

cudaError_t cudaPeekAtLastError(void) {
  return this_thread.last_error ? this_thread.last_error : sticky_error();
}

cudaError_t cudaGetLastError(void) {
  cudaError_t error = cudaPeekAtLastError();
  this_thread.last_error = cudaSuccess;
  return error;
}

//===-- Measuring -----------------------------------------------------------------------------===//

void cudasim_measure_calls(int on) {
  if (on) sim_ticks_begin();
  atomic_store(&state.is_measuring, on != 0);
}

uint64_t cudasim_thread_call_ns(void) {
  return this_thread.call_ticks ? sim_ticks_to_ns(this_thread.call_ticks) : 0;
}

uint64_t cudasim_call_ns(void) {
  uint64_t ticks = atomic_load(&state.ticks);
  return ticks ? sim_ticks_to_ns(ticks) : 0;
}
