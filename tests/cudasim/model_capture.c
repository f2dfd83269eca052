// Captures and graphs.

#include <string.h>

#include "tests/cudasim/model.h"

//===-- Calls beside captures -----------------------------------------------------------------===//

bool model_is_capturing(const model* m) {
  for (int i = 0; i < MODEL_CAPTURES; ++i) {
    if (m->captures[i].exists) return true;
  }
  return false;
}

cudaError_t model_refuse_unsafe(model* m, bool breaks) {
  cudaError_t error = cudaSuccess;
  if (m->mode == cudaStreamCaptureModeRelaxed) return error;
  for (int i = 0; i < MODEL_CAPTURES; ++i) {
    model_capture* c = &m->captures[i];
    if (!c->exists || c->mode == cudaStreamCaptureModeRelaxed) continue;
    if (breaks) c->is_invalid = true;
    error = cudaErrorStreamCaptureUnsupported;
  }
  return error;
}

cudaError_t model_refuse_legacy(model* m, int device, bool breaks) {
  cudaError_t error = cudaSuccess;
  for (int i = 0; i < MODEL_STREAMS; ++i) {
    const model_stream* s = &m->streams[i];
    if (s->capture == MODEL_NONE || s->device != device || !model_is_blocking(s)) continue;
    if (breaks) m->captures[s->capture].is_invalid = true;
    error = cudaErrorStreamCaptureImplicit;
  }
  return error;
}

cudaError_t model_refuse_captured(model* m, const model_stream* s) {
  if (s->capture == MODEL_NONE) return cudaSuccess;
  m->captures[s->capture].is_invalid = true;
  return cudaErrorStreamCaptureUnsupported;
}

//===-- Captures ------------------------------------------------------------------------------===//

static cudaError_t begin(model* m, model_stream_arg arg, enum cudaStreamCaptureMode mode) {
  cudaError_t error;
  model_stream* s = model_usable(m, arg, &error);
  if (error) return error;
  if ((unsigned)mode > cudaStreamCaptureModeRelaxed) return cudaErrorInvalidValue;
  if (model_is_legacy(arg.index)) return cudaErrorStreamCaptureUnsupported;
  if (s->capture != MODEL_NONE) return cudaErrorIllegalState;
  int slot = 0;
  while (m->captures[slot].exists) ++slot;  // the program begins no more than there is room for
  m->captures[slot] =
      (model_capture){.exists = true, .id = ++m->capture_ids, .mode = mode, .origin = arg.index};
  s->capture = slot;
  s->tips = s->before = 0;
  return cudaSuccess;
}

cudaError_t model_begin_capture(model* m, model_stream_arg s, enum cudaStreamCaptureMode mode) {
  MODEL_CALL(m, cudaStreamBeginCapture, begin(m, s, mode));
}

static bool is_joined(const model* m, const model_capture* c) {
  uint64_t last = (UINT64_C(1) << c->nodes.count) - 1;
  for (int i = 0; i < c->nodes.count; ++i) last &= ~c->nodes.at[i].dependencies;
  return !(last & ~m->streams[c->origin].tips);
}

static void dissolve(model* m, model_capture* c) {
  for (int i = 0; i < MODEL_STREAMS; ++i) {
    if (m->streams[i].capture == c - m->captures) m->streams[i].capture = MODEL_NONE;
  }
  c->exists = false;
}

void model_leave_capture(model* m, model_stream* s) {
  model_capture* c = &m->captures[s->capture];
  if (c->origin == s - m->streams) dissolve(m, c);
  s->capture = MODEL_NONE;
}

static cudaError_t end(model* m, model_stream_arg arg, int graph) {
  cudaError_t error;
  model_stream* s = model_stream_of(m, arg, &error);
  if (error) return error;
  if (s->capture == MODEL_NONE) return cudaErrorIllegalState;
  model_capture* c = &m->captures[s->capture];
  if (c->origin != arg.index) {
    c->is_invalid = true;
    return cudaErrorStreamCaptureUnmatched;
  }
  if (c->is_invalid) {
    error = cudaErrorStreamCaptureInvalidated;
  } else if (!is_joined(m, c)) {
    error = cudaErrorStreamCaptureUnjoined;
  }
  dissolve(m, c);
  if (!error) m->graphs[graph] = (model_graph){.exists = true, .nodes = c->nodes};
  return error;
}

cudaError_t model_end_capture(model* m, model_stream_arg s, int graph) {
  MODEL_CALL(m, cudaStreamEndCapture, end(m, s, graph));
}

static cudaError_t status(model* m, model_stream_arg arg, enum cudaStreamCaptureStatus* out) {
  cudaError_t error = cudaSuccess;
  if (arg.index == MODEL_NONE) return cudaErrorInvalidResourceHandle;
  const model_stream* s = &m->streams[arg.index];
  if (model_is_legacy(arg.index)) error = model_refuse_legacy(m, s->device, false);
  if (!error) error = m->devices[s->device].broken;
  if (error) return error;
  *out = cudaStreamCaptureStatusNone;
  if (s->capture == MODEL_NONE) return cudaSuccess;
  *out = m->captures[s->capture].is_invalid ? cudaStreamCaptureStatusInvalidated
                                            : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

cudaError_t model_capture_status(model* m, const char* function, model_stream_arg s,
                                 enum cudaStreamCaptureStatus* out) {
  cudaError_t error = model_open(m, function);
  return model_close(m, error ? error : status(m, s, out));
}

static cudaError_t exchange(model* m, enum cudaStreamCaptureMode mode) {
  if ((unsigned)mode > cudaStreamCaptureModeRelaxed) return cudaErrorInvalidValue;
  m->mode = mode;
  return cudaSuccess;
}

cudaError_t model_exchange_mode(model* m, enum cudaStreamCaptureMode mode) {
  MODEL_PLAIN_CALL(m, cudaThreadExchangeStreamCaptureMode, exchange(m, mode));
}

bool model_capture_is_full(const model* m, const model_stream* s) {
  return s->capture != MODEL_NONE && m->captures[s->capture].nodes.count == MODEL_NODES;
}

//===-- Races in a capture --------------------------------------------------------------------===//

static bool share_written(const model_work* a, const model_work* b) {
  bool reads = b->kind == WORK_COPY;
  return a->to.buffer == b->to.buffer || (reads && a->to.buffer == b->from.buffer);
}

bool model_races_in_capture(const model* m, const model_stream* s, const model_work* work) {
  const model_nodes* nodes = &m->captures[s->capture].nodes;
  for (int i = 0; i < nodes->count; ++i) {
    const model_work* other = &nodes->at[i].work;
    bool is_before = s->before >> i & 1;
    if (!is_before && (share_written(work, other) || share_written(other, work))) return true;
  }
  return false;
}

//===-- Graphs --------------------------------------------------------------------------------===//

int model_graph_slot(const model* m) {
  int slot = 0;
  while (slot < MODEL_GRAPHS && m->graphs[slot].exists) ++slot;
  return slot < MODEL_GRAPHS ? slot : MODEL_NONE;
}

int model_exec_slot(const model* m) {
  int slot = 0;
  while (slot < MODEL_GRAPHS && m->execs[slot].exists) ++slot;
  return slot < MODEL_GRAPHS ? slot : MODEL_NONE;
}

static cudaError_t destroy_graph(model* m, int graph) {
  if (graph == MODEL_NONE) return cudaErrorInvalidValue;
  m->graphs[graph].exists = false;
  return cudaSuccess;
}

cudaError_t model_destroy_graph(model* m, int graph) {
  MODEL_CALL(m, cudaGraphDestroy, destroy_graph(m, graph));
}

static cudaError_t instantiate(model* m, int graph, int exec) {
  if (graph == MODEL_NONE) return cudaErrorInvalidValue;
  m->execs[exec] = (model_exec){.exists = true, .nodes = m->graphs[graph].nodes};
  return cudaSuccess;
}

cudaError_t model_instantiate(model* m, int graph, int exec) {
  MODEL_UNSAFE_CALL(m, cudaGraphInstantiate, instantiate(m, graph, exec));
}

static cudaError_t destroy_exec(model* m, int exec) {
  if (exec == MODEL_NONE) return cudaErrorInvalidValue;
  m->execs[exec].exists = false;
  return cudaSuccess;
}

cudaError_t model_destroy_exec(model* m, int exec) {
  MODEL_CALL(m, cudaGraphExecDestroy, destroy_exec(m, exec));
}
