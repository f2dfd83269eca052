// The calls on streams.

#include <stddef.h>

#include "cudasim/capture.h"
#include "cudasim/device.h"
#include "cudasim/handle.h"
#include "cudasim/host_check.h"
#include "cudasim/order.h"
#include "cudasim/pool.h"
#include "cudasim/runtime.h"
#include "cudasim/scheduler.h"
#include "cudasim/stream.h"

static cudaError_t create(device* d, cudaStream_t* out, unsigned flags, int priority) {
  if (!out || flags & ~(unsigned)cudaStreamNonBlocking) return cudaErrorInvalidValue;
  if (priority < STREAM_HIGHEST_PRIORITY) priority = STREAM_HIGHEST_PRIORITY;
  if (priority > STREAM_LOWEST_PRIORITY) priority = STREAM_LOWEST_PRIORITY;
  stream* s = sim_stream_create(d, flags, priority);
  if (!s) return cudaErrorMemoryAllocation;
  *out = s->handle;
  return cudaSuccess;
}

static cudaError_t destroy(cudaStream_t handle) {
  stream* s = sim_handle_object(HANDLE_STREAM, handle);
  if (!s) return cudaErrorInvalidResourceHandle;
  sim_stream_close(s);
  sim_scheduler_pass();
  return cudaSuccess;
}

// A usable stream, and why not.
static stream* usable(device* current, cudaStream_t handle, cudaError_t* error) {
  stream* s = sim_stream_of(current, handle, error);
  if (s) *error = s->device->broken;
  return *error ? NULL : s;
}

//===-- Waiting -------------------------------------------------------------------------------===//

static cudaError_t check_asking(const stream* s) {
  return s->branch ? sim_capture_refuse_stream(s) : sim_capture_check_unsafe();
}

static cudaError_t query(device* current, cudaStream_t handle) {
  cudaError_t error;
  stream* s = usable(current, handle, &error);
  if (!s) return error;
  error = check_asking(s);
  // To ask the legacy stream is to ask all that it is behind.
  if (!error && s == s->device->legacy) error = sim_stream_enter(s);
  if (error) return error;
  device* d = s->device;
  uint64_t position = s->submitted;
  stamp here = sim_order_stamp(s);
  host_knowledge k = sim_host_check_ask(s, position, s->known);
  sim_scheduler_ask(s, position);  // the stream may be destroyed meanwhile
  sim_host_check_answer(&k);
  return sim_order_answer(d->broken, stream_is_done(s, position), &here);
}

static cudaError_t synchronize(device* current, cudaStream_t handle) {
  cudaError_t error;
  stream* s = usable(current, handle, &error);
  if (!s) return error;
  device* d = s->device;
  error = check_asking(s);
  if (!error && s == d->legacy) error = sim_stream_enter(s);
  if (error) return error;
  uint64_t position = s->submitted;
  history* known = sim_history_retain(s->known);
  stamp here = sim_order_stamp(s);
  sim_scheduler_wait(s, position);
  sim_order_learn(&here);
  if (s->device == d) sim_stream_observe(s, position, known);  // else it was destroyed meanwhile
  if (check_is_on()) sim_host_check_learn(s, position, known);
  sim_history_release(known);
  sim_pool_trim_to_thresholds(d);
  return d->broken;
}

//===-- Host functions ------------------------------------------------------------------------===//

static cudaError_t capture_launch(stream* s, cudaHostFn_t function, void* argument) {
  node_work w = {.type = cudaGraphNodeTypeHost,
                 .host = {.function = function, .argument = argument}};
  return sim_capture_work(s, &w);
}

static cudaError_t launch(device* current, cudaStream_t handle, cudaHostFn_t function,
                          void* argument) {
  if (!function) return cudaErrorInvalidValue;
  cudaError_t error;
  stream* s = sim_stream_for_work(current, handle, &error);
  if (!s) return error;
  if (s->branch) return capture_launch(s, function, argument);
  op* o = sim_host_op(function, argument);
  if (!o) return cudaErrorMemoryAllocation;
  ++s->device->statistics.host_functions;
  sim_order_mark(o, s);
  sim_scheduler_submit(s, o, false);
  return cudaSuccess;
}

//===-- Questions -----------------------------------------------------------------------------===//

typedef enum property {
  PRIORITY,
  FLAGS,
  ID,
  DEVICE,
} property;

static cudaError_t get(device* current, cudaStream_t handle, property what, void* out) {
  cudaError_t error;
  const stream* s = usable(current, handle, &error);
  if (!s) return error;
  if (!out) return cudaErrorInvalidValue;
  switch (what) {
    case PRIORITY:
      *(int*)out = s->priority;
      break;
    case FLAGS:
      *(unsigned*)out = s->flags;
      break;
    case ID:
      *(unsigned long long*)out = s->id;
      break;
    case DEVICE:
      *(int*)out = s->device->id;
      break;
  }
  return cudaSuccess;
}

//===-- The API -------------------------------------------------------------------------------===//

cudaError_t cudaStreamCreate(cudaStream_t* pStream) {
  CALL(cudaStreamCreate, create(frame.device, pStream, cudaStreamDefault, 0));
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* pStream, unsigned int flags) {
  CALL(cudaStreamCreateWithFlags, create(frame.device, pStream, flags, 0));
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* pStream, unsigned int flags, int priority) {
  CALL(cudaStreamCreateWithPriority, create(frame.device, pStream, flags, priority));
}

cudaError_t cudaStreamDestroy(cudaStream_t hStream) { CALL(cudaStreamDestroy, destroy(hStream)); }

cudaError_t cudaStreamQuery(cudaStream_t hStream) {
  CALL(cudaStreamQuery, query(frame.device, hStream));
}

cudaError_t cudaStreamSynchronize(cudaStream_t hStream) {
  CALL(cudaStreamSynchronize, synchronize(frame.device, hStream));
}

cudaError_t cudaLaunchHostFunc(cudaStream_t hStream, cudaHostFn_t fn, void* userData) {
  CALL(cudaLaunchHostFunc, launch(frame.device, hStream, fn, userData));
}

cudaError_t cudaStreamGetPriority(cudaStream_t hStream, int* priority) {
  CALL(cudaStreamGetPriority, get(frame.device, hStream, PRIORITY, priority));
}

cudaError_t cudaStreamGetFlags(cudaStream_t hStream, unsigned int* flags) {
  CALL(cudaStreamGetFlags, get(frame.device, hStream, FLAGS, flags));
}

cudaError_t cudaStreamGetId(cudaStream_t hStream, unsigned long long* streamId) {
  CALL(cudaStreamGetId, get(frame.device, hStream, ID, streamId));
}

cudaError_t cudaStreamGetDevice(cudaStream_t hStream, int* id) {
  CALL(cudaStreamGetDevice, get(frame.device, hStream, DEVICE, id));
}
