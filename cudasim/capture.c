#include "cudasim/capture.h"

#include <stddef.h>

#include "cudasim/device.h"
#include "cudasim/runtime.h"
#include "cudasim/slab.h"

unsigned sim_captures;
static capture* captures;
static uint64_t last_id;

static void invalidate(capture* c) { c->is_invalid = true; }

//===-- Calls beside captures -----------------------------------------------------------------===//

static bool forbids_unsafe(const capture* c, const thread_state* t) {
  if (c->thread == t->id) return c->mode != cudaStreamCaptureModeRelaxed;
  return c->mode == cudaStreamCaptureModeGlobal && t->capture_mode == cudaStreamCaptureModeGlobal;
}

cudaError_t sim_capture_refuse_unsafe(void) {
  const thread_state* t = sim_thread();
  if (t->capture_mode == cudaStreamCaptureModeRelaxed) return cudaSuccess;
  cudaError_t error = cudaSuccess;
  for (capture* c = captures; c; c = c->next) {
    if (!forbids_unsafe(c, t)) continue;
    invalidate(c);
    error = cudaErrorStreamCaptureUnsupported;
  }
  return error ? sim_refuse(error, "an unsafe call while a stream is being captured") : cudaSuccess;
}

static bool is_on(const capture* c, const device* d, bool blocking_only) {
  for (const branch* b = c->branches; b; b = b->next) {
    if (b->stream->device == d && (!blocking_only || stream_is_blocking(b->stream))) return true;
  }
  return false;
}

cudaError_t sim_capture_refuse_legacy(const device* d, bool breaks) {
  cudaError_t error = cudaSuccess;
  for (capture* c = captures; c; c = c->next) {
    if (!is_on(c, d, true)) continue;
    if (breaks) invalidate(c);
    error = cudaErrorStreamCaptureImplicit;
  }
  return error ? sim_refuse(error, "the legacy stream while a blocking stream is being captured")
               : cudaSuccess;
}

cudaError_t sim_capture_refuse_device(const device* d) {
  cudaError_t error = cudaSuccess;
  for (capture* c = captures; c; c = c->next) {
    if (!is_on(c, d, false)) continue;
    invalidate(c);
    error = cudaErrorStreamCaptureUnsupported;
  }
  return error ? sim_refuse(error, "device %d while one of its streams is being captured", d->id)
               : cudaSuccess;
}

cudaError_t sim_capture_refuse_stream(const stream* s) {
  if (!s->branch) return cudaSuccess;
  invalidate(s->branch->capture);
  return sim_refuse(cudaErrorStreamCaptureUnsupported, "a call that a capture cannot contain");
}

//===-- Lifetime ------------------------------------------------------------------------------===//

static branch* add_branch(capture* c, stream* s) {
  branch* b = sim_bookkeeping_alloc(sizeof(*b));
  if (!b) return NULL;
  *b = (branch){.capture = c, .next = c->branches, .stream = s};
  c->branches = s->branch = b;
  return b;
}

static void drop_branch(branch* b) {
  branch** link = &b->capture->branches;
  while (*link != b) link = &(*link)->next;
  *link = b->next;
  b->stream->branch = NULL;
  sim_node_set_clear(&b->tips);
  sim_bookkeeping_free(b->handles);
  sim_bookkeeping_free(b);
}

// Takes the streams out of the capture, and returns its graph.
static graph* dissolve(capture* c) {
  while (c->branches) drop_branch(c->branches);
  capture** link = &captures;
  while (*link != c) link = &(*link)->next;
  *link = c->next;
  --sim_captures;
  graph* g = c->graph;
  sim_bookkeeping_free(c);
  return g;
}

static uint64_t id_of(thread_state* t) {
  static uint64_t threads;
  if (!t->id) t->id = ++threads;
  return t->id;
}

cudaError_t sim_capture_begin(stream* s, enum cudaStreamCaptureMode mode) {
  if ((int)mode < 0 || mode > cudaStreamCaptureModeRelaxed) return cudaErrorInvalidValue;
  if (s == s->device->legacy) {
    return sim_refuse(cudaErrorStreamCaptureUnsupported, "the legacy stream cannot be captured");
  }
  if (s->branch) return cudaErrorIllegalState;
  capture* c = sim_bookkeeping_alloc(sizeof(*c));
  graph* g = sim_graph_create();
  branch* b = c && g ? add_branch(c, s) : NULL;
  if (!b) {
    if (g) sim_graph_destroy(g);
    sim_bookkeeping_free(c);
    return cudaErrorMemoryAllocation;
  }
  *c = (capture){.next = captures,
                 .id = ++last_id,
                 .mode = mode,
                 .thread = id_of(sim_thread()),
                 .origin = s,
                 .branches = b,
                 .graph = g};
  g->is_growing = true;
  captures = c;
  ++sim_captures;
  return cudaSuccess;
}

// Whether everything captured comes before what the origin would do next.
static bool is_joined(const capture* c) {
  const graph* g = c->graph;
  for (uint32_t i = 0; i < g->count; ++i) {
    bool is_last = true;
    for (uint32_t k = i + 1; k < g->count && is_last; ++k) {
      is_last = !sim_node_set_has(&g->nodes[k]->dependencies, i);
    }
    if (is_last && !sim_node_set_has(&c->origin->branch->tips, i)) return false;
  }
  return true;
}

static cudaError_t check_end(const capture* c) {
  if (c->mode != cudaStreamCaptureModeRelaxed && c->thread != sim_thread()->id) {
    return cudaErrorStreamCaptureWrongThread;
  }
  if (c->is_invalid) return cudaErrorStreamCaptureInvalidated;
  return is_joined(c) ? cudaSuccess : cudaErrorStreamCaptureUnjoined;
}

cudaError_t sim_capture_end(stream* s, cudaGraph_t* out) {
  if (!s->branch) return cudaErrorIllegalState;
  capture* c = s->branch->capture;
  if (c->origin != s) {
    invalidate(c);
    return cudaErrorStreamCaptureUnmatched;
  }
  cudaError_t error = check_end(c);
  graph* g = dissolve(c);
  g->is_growing = false;
  if (error || !out) {
    sim_graph_destroy(g);
  } else {
    *out = g->handle;
  }
  return error;
}

void sim_capture_leave(stream* s) {
  capture* c = s->branch->capture;
  if (c->origin == s) {
    sim_graph_destroy(dissolve(c));
  } else {
    drop_branch(s->branch);
  }
}

//===-- Building ------------------------------------------------------------------------------===//

cudaError_t sim_capture_work(stream* s, const node_work* w) {
  branch* b = s->branch;
  capture* c = b->capture;
  if (c->is_invalid) return cudaErrorStreamCaptureInvalidated;
  node_set tips = {0};
  if (!sim_node_set_add(&tips, c->graph->count) ||
      !sim_graph_add(c->graph, w, s->device, &b->tips)) {
    sim_node_set_clear(&tips);
    return cudaErrorMemoryAllocation;
  }
  sim_node_set_clear(&b->tips);
  b->tips = tips;
  return cudaSuccess;
}

cudaError_t sim_capture_record(const stream* s, event* e) {
  const branch* b = s->branch;
  if (b->capture->is_invalid) return cudaErrorStreamCaptureInvalidated;
  node_set tips = {0};
  if (!sim_node_set_join(&tips, &b->tips)) return cudaErrorMemoryAllocation;
  sim_event_set_captured(e, b->capture->id, &tips);
  return cudaSuccess;
}

// The capture that `e` was recorded in, if it still takes something.
static capture* capture_of(const event* e) {
  capture* c = captures;
  while (c && c->id != e->capture) c = c->next;
  return c && !c->is_invalid ? c : NULL;
}

cudaError_t sim_capture_refuse_event(const event* e, bool breaks) {
  capture* c = capture_of(e);
  if (!c) return sim_refuse(cudaErrorInvalidValue, "an event of a capture that is over");
  if (breaks) invalidate(c);
  return sim_refuse(cudaErrorCapturedEvent, "an event that was recorded in a capture");
}

// The stream, which is in no capture, enters that of the event.
static cudaError_t enter(stream* s, capture* c, const node_set* tips) {
  branch* b = add_branch(c, s);
  if (!b) return cudaErrorMemoryAllocation;
  if (sim_node_set_join(&b->tips, tips)) return cudaSuccess;
  drop_branch(b);
  return cudaErrorMemoryAllocation;
}

static cudaError_t merge(capture* c, capture* other) {
  invalidate(c);
  invalidate(other);
  return cudaErrorStreamCaptureMerge;
}

cudaError_t sim_capture_wait(stream* s, const event* e) {
  capture* mine = s->branch ? s->branch->capture : NULL;
  if (mine && mine->is_invalid) return cudaErrorStreamCaptureInvalidated;
  capture* c = e->capture ? capture_of(e) : NULL;
  if (!c) {  // what is outside the capture, or over
    if (mine) invalidate(mine);
    return e->capture ? sim_refuse(cudaErrorInvalidValue, "an event of a capture that is over")
                      : cudaErrorStreamCaptureIsolation;
  }
  if (s == s->device->legacy) {
    invalidate(c);
    return cudaErrorStreamCaptureImplicit;
  }
  if (!mine) return enter(s, c, &e->captured);
  if (mine != c) return merge(mine, c);
  return sim_node_set_join(&s->branch->tips, &e->captured) ? cudaSuccess
                                                           : cudaErrorMemoryAllocation;
}
