// Work: what it does to the contents of buffers, and in which order it must be.

#include <string.h>

#include "tests/cudasim/model.h"

//===-- Order ---------------------------------------------------------------------------------===//

static bool is_past(const model* m, const model_stream* s, int stream, uint32_t position) {
  return position <= m->done.at[stream] || (s && position <= s->order.at[stream]);
}

// A stream whose use of the buffer nothing puts before what `s`, or the host, does next.
static int race_with(const model* m, const model_stream* s, int buffer, bool writes) {
  const model_buffer* b = &m->buffers[buffer];
  if (b->writer != MODEL_NONE && !is_past(m, s, b->writer, b->written)) return b->writer;
  for (int i = 0; writes && i < MODEL_STREAMS; ++i) {
    if (!is_past(m, s, i, b->reads.at[i])) return i;
  }
  return MODEL_NONE;
}

// A copy from pageable memory to a device reads its source before the stream gets there.
static bool reads_at_once(const model* m, const model_work* w) {
  return model_is_on_device(&m->buffers[w->to.buffer]) &&
         m->buffers[w->from.buffer].memory == MEMORY_PAGEABLE;
}

int model_race(const model* m, int stream, const model_work* work) {
  const model_stream* s = &m->streams[stream];
  int with = race_with(m, s, work->to.buffer, true);
  if (with == MODEL_NONE && work->kind == WORK_COPY) {
    with = race_with(m, reads_at_once(m, work) ? NULL : s, work->from.buffer, false);
  }
  return with;
}

int model_race_of_nodes(const model* m, int stream, const model_nodes* nodes) {
  int with = MODEL_NONE;
  for (int i = 0; i < nodes->count && with == MODEL_NONE; ++i) {
    with = model_race(m, stream, &nodes->at[i].work);
  }
  return with;
}

int model_race_of_free(const model* m, int stream, int buffer) {
  return race_with(m, stream == MODEL_NONE ? NULL : &m->streams[stream], buffer, true);
}

bool model_host_may_touch(const model* m, int buffer) {
  return race_with(m, NULL, buffer, true) == MODEL_NONE;
}

static bool is_there(const model* m, const model_side* s) {
  return m->buffers[s->buffer].exists && m->buffers[s->buffer].id == s->id;
}

bool model_can_launch(const model* m, const model_nodes* nodes) {
  for (int i = 0; i < nodes->count; ++i) {
    const model_work* w = &nodes->at[i].work;
    if (!is_there(m, &w->to) || (w->kind == WORK_COPY && !is_there(m, &w->from))) return false;
  }
  return true;
}

//===-- Contents ------------------------------------------------------------------------------===//

static size_t place_of(const model_side* s, size_t x, size_t y, size_t z) {
  return s->offset + z * s->slice + y * s->pitch + x;
}

static void do_byte(model* m, const model_work* w, size_t x, size_t y, size_t z) {
  model_buffer* to = &m->buffers[w->to.buffer];
  size_t at = place_of(&w->to, x, y, z);
  if (w->kind == WORK_FILL) {
    to->data[at] = w->value;
    to->is_known[at] = true;
  } else if (w->kind == WORK_ADD) {
    to->data[at] = (unsigned char)(to->data[at] + w->value);
  } else {
    const model_buffer* from = &m->buffers[w->from.buffer];
    size_t source = place_of(&w->from, x, y, z);
    to->data[at] = from->data[source];
    to->is_known[at] = from->is_known[source];
  }
}

static void do_work(model* m, const model_work* w) {
  for (size_t z = 0; z < w->depth; ++z) {
    for (size_t y = 0; y < w->height; ++y) {
      for (size_t x = 0; x < w->width; ++x) do_byte(m, w, x, y, z);
    }
  }
}

static void note_access(model* m, int stream, uint32_t position, const model_work* w) {
  model_buffer* to = &m->buffers[w->to.buffer];
  if (w->kind == WORK_COPY) m->buffers[w->from.buffer].reads.at[stream] = position;
  to->writer = stream;
  to->written = position;
  to->is_compared = false;
  memset(&to->reads, 0, sizeof(to->reads));
}

static cudaError_t capture_work(model* m, model_stream* s, const model_work* w) {
  model_capture* c = &m->captures[s->capture];
  if (c->is_invalid) return cudaErrorStreamCaptureInvalidated;
  int index = c->nodes.count++;
  c->nodes.at[index] = (model_node){.work = *w, .dependencies = s->tips, .before = s->before};
  s->tips = UINT64_C(1) << index;
  s->before |= s->tips;
  return cudaSuccess;
}

static void submit(model* m, model_stream* s, const model_work* w) {
  model_enter(m, s);
  do_work(m, w);
  note_access(m, (int)(s - m->streams), model_tick(m, s), w);
}

//===-- Copies --------------------------------------------------------------------------------===//

static bool is_pageable(const model_buffer* b) { return b->memory == MEMORY_PAGEABLE; }

// Whether the host waits until the copy is done.
static bool waits(const model* m, const model_work* w, bool is_async) {
  const model_buffer* to = &m->buffers[w->to.buffer];
  const model_buffer* from = &m->buffers[w->from.buffer];
  bool to_device = model_is_on_device(to);
  bool from_device = model_is_on_device(from);
  if (to_device && is_pageable(from)) return false;  // it is read at once
  if (to_device && from_device) return false;
  return !is_async || is_pageable(to) || (!to_device && !from_device);
}

static void submit_copy(model* m, model_stream* s, const model_work* w, bool is_async) {
  const model_buffer* from = &m->buffers[w->from.buffer];
  bool is_upload = model_is_on_device(&m->buffers[w->to.buffer]) && is_pageable(from);
  model_enter(m, s);
  if (is_upload && !is_async) model_host_waits(m, &s->order);  // for what is before it
  ++m->devices[s->device].counts.copies;
  uint32_t* reads = &m->buffers[w->from.buffer].reads.at[s - m->streams];
  uint32_t before = *reads;
  submit(m, s, w);
  if (is_upload) *reads = before;
  if (waits(m, w, is_async)) model_host_waits(m, &s->order);
}

// A refused call may have put the stream behind the legacy one, so waiting for it may count as
// waiting for that.
static void note_refused(model* m, model_stream* s) {
  s->may_wait = true;
  if (model_is_blocking(s)) model_join(&m->waited, &m->streams[model_legacy(s->device)].order);
}

static model_stream* for_work(model* m, model_stream_arg arg, model_wrong wrong,
                              cudaError_t* error) {
  *error = wrong.early;
  if (*error) return NULL;
  model_stream* s = model_stream_of(m, arg, error);
  if (*error || wrong.is_empty) return NULL;
  *error = m->devices[s->device].broken;
  if (*error) return NULL;
  *error = wrong.late;
  if (*error) note_refused(m, s);
  return *error ? NULL : s;
}

static cudaError_t copy(model* m, model_stream_arg arg, const model_work* w, bool is_async,
                        model_wrong wrong) {
  cudaError_t error;
  model_stream* s = for_work(m, arg, wrong, &error);
  if (!s) return error;
  if (s->capture != MODEL_NONE) return capture_work(m, s, w);
  submit_copy(m, s, w, is_async);
  return cudaSuccess;
}

cudaError_t model_copy(model* m, const char* function, model_stream_arg s, const model_work* work,
                       bool is_async, model_wrong wrong) {
  cudaError_t error = model_open(m, function);
  return model_close(m, error ? error : copy(m, s, work, is_async, wrong));
}

static int device_of(const model* m, const model_side* s) { return m->buffers[s->buffer].device; }

// The legacy stream of `device` before or after the current device's.
static void join_legacy(model* m, int device, bool is_before) {
  model_stream* mine = &m->streams[model_legacy(m->device)];
  model_stream* other = &m->streams[model_legacy(device)];
  if (mine == other) return;
  model_stream* first = is_before ? other : mine;
  model_stream* second = is_before ? mine : other;
  model_enter(m, first);
  model_join(&second->order, &first->order);
  model_join(&second->history, &first->history);
}

static cudaError_t copy_peer(model* m, model_stream_arg arg, const model_work* w, bool is_async,
                             model_wrong wrong) {
  cudaError_t error = wrong.early;
  model_stream* s = error ? NULL : model_stream_of(m, arg, &error);
  if (!error) error = model_refuse_captured(m, s);
  if (!error) error = wrong.late;
  if (error || wrong.is_empty) return error;
  if (is_async) return copy(m, arg, w, true, wrong);
  join_legacy(m, device_of(m, &w->to), true);
  join_legacy(m, device_of(m, &w->from), true);
  error = copy(m, arg, w, false, wrong);
  join_legacy(m, device_of(m, &w->to), false);
  join_legacy(m, device_of(m, &w->from), false);
  return error;
}

cudaError_t model_copy_peer(model* m, const char* function, model_stream_arg s,
                            const model_work* work, bool is_async, model_wrong wrong) {
  cudaError_t error = model_open(m, function);
  return model_close(m, error ? error : copy_peer(m, s, work, is_async, wrong));
}

static cudaError_t copy_batch(model* m, model_stream_arg arg, const model_work* works, int count,
                              model_wrong wrong) {
  cudaError_t error;
  model_stream* s = model_stream_of(m, arg, &error);
  if (error) return error;
  if (model_is_legacy(arg.index)) return cudaErrorInvalidValue;
  if (m->devices[s->device].broken) return m->devices[s->device].broken;
  if (wrong.late) return wrong.late;
  for (int i = 0; i < count; ++i) {
    ++m->devices[s->device].counts.copies;
    submit(m, s, &works[i]);
  }
  return cudaSuccess;
}

cudaError_t model_copy_batch(model* m, model_stream_arg s, const model_work* works, int count,
                             model_wrong wrong) {
  MODEL_CALL(m, cudaMemcpyBatchAsync, copy_batch(m, s, works, count, wrong));
}

//===-- Fills and functions -------------------------------------------------------------------===//

static cudaError_t fill(model* m, model_stream_arg arg, const model_work* w, bool is_async,
                        model_wrong wrong) {
  cudaError_t error;
  model_stream* s = for_work(m, arg, wrong, &error);
  if (!s) return error;
  if (s->capture != MODEL_NONE) return capture_work(m, s, w);
  ++m->devices[s->device].counts.fills;
  submit(m, s, w);
  bool waits = !is_async && !model_is_on_device(&m->buffers[w->to.buffer]);
  if (waits) model_host_waits(m, &s->order);
  return cudaSuccess;
}

cudaError_t model_fill(model* m, const char* function, model_stream_arg s, const model_work* work,
                       bool is_async, model_wrong wrong) {
  cudaError_t error = model_open(m, function);
  return model_close(m, error ? error : fill(m, s, work, is_async, wrong));
}

static cudaError_t launch(model* m, model_stream_arg arg, const model_work* w, model_wrong wrong) {
  cudaError_t error;
  model_stream* s = for_work(m, arg, wrong, &error);
  if (!s) return error;
  if (w->is_kernel && s->device != m->device) return cudaErrorInvalidResourceHandle;
  if (s->capture != MODEL_NONE) return capture_work(m, s, w);
  cudasim_statistics* counts = &m->devices[s->device].counts;
  ++*(w->is_kernel ? &counts->kernels : &counts->host_functions);
  submit(m, s, w);
  return cudaSuccess;
}

cudaError_t model_launch_host(model* m, model_stream_arg s, const model_work* work,
                              model_wrong wrong) {
  MODEL_CALL(m, cudaLaunchHostFunc, launch(m, s, work, wrong));
}

cudaError_t model_launch_kernel(model* m, model_stream_arg s, const model_work* work,
                                model_wrong wrong) {
  MODEL_CALL(m, cudaLaunchKernel, launch(m, s, work, wrong));
}

//===-- Graphs --------------------------------------------------------------------------------===//

static void count_node(model_device* d, const model_work* w) {
  d->counts.copies += w->kind == WORK_COPY;
  d->counts.fills += w->kind == WORK_FILL;
  d->counts.kernels += w->kind == WORK_ADD && w->is_kernel;
  d->counts.host_functions += w->kind == WORK_ADD && !w->is_kernel;
}

static cudaError_t launch_graph(model* m, int exec, model_stream_arg arg) {
  cudaError_t error;
  model_stream* s = model_usable(m, arg, &error);
  if (error) return error;
  error = model_refuse_captured(m, s);
  if (error) return error;
  if (exec == MODEL_NONE) {
    note_refused(m, s);
    return cudaErrorInvalidValue;
  }
  model_exec* e = &m->execs[exec];
  model_enter(m, s);
  model_join(&s->order, &e->last);
  uint32_t position = model_tick(m, s);
  for (int i = 0; i < e->nodes.count; ++i) {
    do_work(m, &e->nodes.at[i].work);
    note_access(m, arg.index, position, &e->nodes.at[i].work);
    count_node(&m->devices[s->device], &e->nodes.at[i].work);
  }
  e->last = s->order;
  return cudaSuccess;
}

cudaError_t model_launch_graph(model* m, int exec, model_stream_arg s) {
  MODEL_CALL(m, cudaGraphLaunch, launch_graph(m, exec, s));
}
