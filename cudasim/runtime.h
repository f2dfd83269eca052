// What all calls have in common: the lock, the calling thread's state, the checks at their
// beginning.
#ifndef CUDASIM_RUNTIME_H_
#define CUDASIM_RUNTIME_H_

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "cudasim/calls.h"
#include "cudasim/device.h"
#include "cudasim/include/cudasim.h"
#include "cudasim/options.h"

// What a thread of the program has of its own.
typedef struct thread_state {
  int device;
  cudaError_t last_error;
  enum cudaStreamCaptureMode capture_mode;
  bool in_host_function;
  uint64_t machine;       // that the rest belongs to
  cudaStream_t* streams;  // its default streams, by device; NULL before the first
  uint64_t id;            // 0 before it captures anything
  uint64_t call_ticks;
  struct call* call;  // that it is in, while the checker is on
  pthread_cond_t wake;
} thread_state;

thread_state* sim_thread(void);

// The default stream of the calling thread on `d`; NULL when the host has no memory.
stream* sim_thread_stream(device* d);

// One for everything but the work itself, which runs without it.
void sim_lock(void);
bool sim_try_lock(void);
void sim_unlock(void);
void sim_wait(pthread_cond_t* condition);

// Waits at most `ms` milliseconds; false when they have passed.
bool sim_wait_ms(pthread_cond_t* condition, int ms);

// Makes the machine if there is none; an error if that cannot be, or can no longer be.
cudaError_t sim_machine_make(void);

// The options of the machine; all zero before there is one.
const options* sim_options(void);

//===-- Calls ---------------------------------------------------------------------------------===//

typedef struct call {
  device* device;  // the current one
  cudaError_t error;
  bool is_locked;
  bool is_measured;
  uint64_t began;      // ticks
  call_id id;          // this and the rest: while the checker is on
  const void* within;  // a place in the function of the API
  struct site* site;   // if somebody asked for it
  struct call* outer;  // that runs a host function which makes this one
} call;

// Begins a call: with the lock, and the current device open and not broken. False, without the
// lock, when the call is refused.
bool sim_call_open(call* c, call_id id);

// The same without the lock and without a device.
bool sim_call_open_plain(call* c, call_id id);

// Ends it, and returns and records its error.
cudaError_t sim_call_close(call* c);

// The whole of a function of the API: `expression` is evaluated unless the call is refused, and can
// use `frame.device`.
#define CALL(function, expression)                                        \
  call frame;                                                             \
  if (sim_call_open(&frame, CALL_##function)) frame.error = (expression); \
  return sim_call_close(&frame)

#define PLAIN_CALL(function, expression)                                        \
  call frame;                                                                   \
  if (sim_call_open_plain(&frame, CALL_##function)) frame.error = (expression); \
  return sim_call_close(&frame)

// Says something on stderr if the machine is verbose.
void sim_warn(const char* text);

// Returns `error`, and says why on stderr if the machine is verbose.
cudaError_t sim_refuse(cudaError_t error, const char* format, ...)
    __attribute__((format(printf, 2, 3)));

#endif  // CUDASIM_RUNTIME_H_
