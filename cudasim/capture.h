// Captures: streams that build a graph instead of doing work.
//
//   origin   begin   fill   record e                    wait f   end
//   other                            wait e   copy   record f
//
// A stream enters a capture by waiting for an event that was recorded in it. Its tips are the nodes
// that its next one comes after; waiting for an event adds the event's to them. A capture that is
// invalid takes nothing more and only ends. Guarded by the runtime's lock.
#ifndef CUDASIM_CAPTURE_H_
#define CUDASIM_CAPTURE_H_

#include <stdbool.h>
#include <stdint.h>

#include "cudasim/event.h"
#include "cudasim/graph.h"
#include "cudasim/runtime.h"
#include "cudasim/stream.h"

// The part of one stream in a capture.
typedef struct branch {
  struct capture* capture;
  struct branch* next;  // of the capture
  stream* stream;
  node_set tips;
  cudaGraphNode_t* handles;  // of the tips, as the program last asked for them
} branch;

typedef struct capture {
  struct capture* next;  // of all
  uint64_t id;           // not given out again
  enum cudaStreamCaptureMode mode;
  uint64_t thread;  // that began it
  stream* origin;
  branch* branches;
  graph* graph;
  bool is_invalid;
} capture;

// How many there are: a call looks for captures only if there is one.
extern unsigned sim_captures;

//===-- Calls beside captures -----------------------------------------------------------------===//

// For calls that are unsafe while streams are captured: refuses them, and invalidates the captures,
// as the modes of the captures and of the calling thread say.
cudaError_t sim_capture_refuse_unsafe(void);

static inline cudaError_t sim_capture_check_unsafe(void) {
  return sim_captures ? sim_capture_refuse_unsafe() : cudaSuccess;
}

// The whole of a function of the API that is unsafe in this sense, as CALL in runtime.h.
#define UNSAFE_CALL(function, expression)                       \
  call frame;                                                   \
  if (sim_call_open(&frame, CALL_##function)) {                 \
    frame.error = sim_capture_check_unsafe();                   \
    if (frame.error == cudaSuccess) frame.error = (expression); \
  }                                                             \
  return sim_call_close(&frame)

// For uses of the legacy stream of `d`, which is behind all blocking streams: refuses them while
// one of those is captured, whose captures become invalid if `breaks`.
cudaError_t sim_capture_refuse_legacy(const struct device* d, bool breaks);

static inline cudaError_t sim_capture_check_legacy(const struct device* d, bool breaks) {
  return sim_captures ? sim_capture_refuse_legacy(d, breaks) : cudaSuccess;
}

// For calls that no mode allows on what is captured: invalidates the capture of `s`, or all those
// on `d`. Success where there is none.
cudaError_t sim_capture_refuse_stream(const stream* s);
cudaError_t sim_capture_refuse_device(const struct device* d);

//===-- Building ------------------------------------------------------------------------------===//

cudaError_t sim_capture_begin(stream* s, enum cudaStreamCaptureMode mode);

// Ends the capture that began in `s`, and makes its graph the program's, in `*out`, which is NULL
// on failure.
cudaError_t sim_capture_end(stream* s, cudaGraph_t* out);

// Adds a node to the captured stream `s`.
cudaError_t sim_capture_work(stream* s, const node_work* w);

// Records `e` in the captured stream `s`.
cudaError_t sim_capture_record(const stream* s, event* e);

// Makes `s` wait for `e`, of which at least one is captured.
cudaError_t sim_capture_wait(stream* s, const event* e);

// What asking an event that was recorded in a capture returns: CUDA forbids it. Invalidates the
// capture if `breaks`.
cudaError_t sim_capture_refuse_event(const event* e, bool breaks);

// The captured stream `s` is about to be gone, and with its origin so is a capture.
void sim_capture_leave(stream* s);

#endif  // CUDASIM_CAPTURE_H_
