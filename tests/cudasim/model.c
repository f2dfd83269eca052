#include "tests/cudasim/model.h"

#include <string.h>

void model_begin(model* m, int devices, uint64_t memory, bool is_eager) {
  memset(m, 0, sizeof(*m));
  m->is_eager = is_eager;
  m->device_count = devices;
  for (int i = 0; i < MODEL_STREAMS; ++i) m->streams[i].capture = MODEL_NONE;
  for (int i = 0; i < MODEL_FREED; ++i) m->freed[i].pool = MODEL_NONE;
  for (int d = 0; d < devices; ++d) {
    m->devices[d].memory = memory;
    m->devices[d].pool = d;  // the default pools are the first
    m->pools[d] = (model_pool){.exists = true,
                               .device = d,
                               .limit = UINT64_MAX,
                               .follows_events = 1,
                               .is_opportunistic = 1,
                               .adds_dependencies = 1,
                               .accessible = UINT64_C(1) << d};
    m->streams[model_legacy(d)].exists = m->streams[model_per_thread(d)].exists = true;
    m->streams[model_legacy(d)].device = m->streams[model_per_thread(d)].device = d;
  }
}

//===-- Clocks --------------------------------------------------------------------------------===//

void model_join(model_clock* a, const model_clock* b) {
  for (int i = 0; i < MODEL_STREAMS; ++i) {
    if (b->at[i] > a->at[i]) a->at[i] = b->at[i];
  }
}

static bool is_within(const model_clock* a, const model_clock* b) {
  for (int i = 0; i < MODEL_STREAMS; ++i) {
    if (a->at[i] > b->at[i]) return false;
  }
  return true;
}

bool model_is_done(const model* m, const model_clock* clock) { return is_within(clock, &m->done); }

void model_host_knows(model* m, const model_clock* clock) { model_join(&m->done, clock); }

void model_host_waits(model* m, const model_clock* clock) {
  model_join(&m->waited, clock);
  model_join(&m->done, clock);
}

// Of what the host learns by waiting for something on a device, pools count that device's streams.
static void host_observes(model* m, int device, const model_clock* history) {
  for (int i = 0; i < MODEL_STREAMS; ++i) {
    bool counts = m->streams[i].device == device && history->at[i] > m->observed.at[i];
    if (counts) m->observed.at[i] = history->at[i];
  }
}

void model_host_waits_for_device(model* m, int device) {
  for (int i = 0; i < MODEL_STREAMS; ++i) {
    if (m->streams[i].device == device) model_host_waits(m, &m->streams[i].order);
  }
}

void model_enter(model* m, model_stream* s) {
  s->may_wait = false;
  if (!model_is_blocking(s)) return;
  model_stream* legacy = &m->streams[model_legacy(s->device)];
  if (s != legacy) {
    model_join(&s->order, &legacy->order);
    model_join(&s->history, &legacy->history);
    return;
  }
  for (int i = MODEL_DEVICES; i < MODEL_STREAMS; ++i) {
    const model_stream* other = &m->streams[i];
    if (other->device != s->device || !model_is_blocking(other)) continue;
    model_join(&s->order, &other->order);
    model_join(&s->history, &other->history);
  }
}

uint32_t model_tick(model* m, model_stream* s) {
  int index = (int)(s - m->streams);
  s->order.at[index] = s->history.at[index] = ++s->position;
  return s->position;
}

//===-- Calls ---------------------------------------------------------------------------------===//

static cudaError_t fault_of(model* m, const char* function) {
  for (int i = 0; i < MODEL_FAULTS; ++i) {
    model_fault* f = &m->faults[i];
    if (!f->error || strcmp(f->function, function) != 0) continue;
    cudaError_t error = f->error;
    if (f->ahead) {
      --f->ahead;
      return cudaSuccess;
    }
    if (f->count && --f->count == 0) f->error = cudaSuccess;
    return error;
  }
  return cudaSuccess;
}

void model_fail(model* m, const char* function, uint64_t nth, uint64_t count, cudaError_t error) {
  model_fault* place = NULL;
  for (int i = 0; i < MODEL_FAULTS; ++i) {
    model_fault* f = &m->faults[i];
    bool is_same = f->error && strcmp(f->function, function) == 0;
    if (is_same || (!place && !f->error)) place = f;
    if (is_same) break;
  }
  if (!place) return;
  *place = (model_fault){.ahead = nth - 1, .count = count, .error = error};
  strncpy(place->function, function, sizeof(place->function) - 1);
}

cudaError_t model_open_plain(model* m, const char* function) {
  m->or_else = cudaSuccess;
  return fault_of(m, function);
}

cudaError_t model_open(model* m, const char* function) {
  cudaError_t error = model_open_plain(m, function);
  return error ? error : m->devices[m->device].broken;
}

cudaError_t model_open_unsafe(model* m, const char* function) {
  cudaError_t error = model_open(m, function);
  return error ? error : model_refuse_unsafe(m, true);
}

static void finish_all(model* m) {
  for (int i = 0; i < MODEL_STREAMS; ++i) m->done.at[i] = m->streams[i].position;
}

cudaError_t model_close(model* m, cudaError_t error) {
  if (error && error != cudaErrorNotReady) m->last_error = error;
  if (m->is_eager) finish_all(m);
  model_settle_memory(m);
  return error;
}

void model_correct(model* m) {
  if (m->or_else != cudaErrorNotReady) m->last_error = m->or_else;
}

void model_break(model* m, int device, cudaError_t error) { m->devices[device].broken = error; }

cudaError_t model_peek(const model* m) {
  return m->last_error ? m->last_error : m->devices[m->device].broken;
}

cudaError_t model_get_last_error(model* m) {
  cudaError_t error = model_peek(m);
  m->last_error = cudaSuccess;
  m->or_else = cudaSuccess;
  return error;
}

//===-- Devices -------------------------------------------------------------------------------===//

static cudaError_t set_device(model* m, int device) {
  if (!model_is_device(m, device)) return cudaErrorInvalidDevice;
  m->device = device;
  return cudaSuccess;
}

cudaError_t model_set_device(model* m, int device) {
  MODEL_PLAIN_CALL(m, cudaSetDevice, set_device(m, device));
}

// Captures on the device, all of which the call breaks.
static cudaError_t refuse_device(model* m, int device) {
  cudaError_t error = cudaSuccess;
  for (int i = 0; i < MODEL_STREAMS; ++i) {
    const model_stream* s = &m->streams[i];
    if (!s->exists || s->device != device || s->capture == MODEL_NONE) continue;
    m->captures[s->capture].is_invalid = true;
    error = cudaErrorStreamCaptureUnsupported;
  }
  return error;
}

static cudaError_t synchronize_device(model* m) {
  cudaError_t error = refuse_device(m, m->device);
  if (error) return error;
  model_host_waits_for_device(m, m->device);
  for (int i = 0; i < MODEL_STREAMS; ++i) {
    if (m->streams[i].device == m->device) m->observed.at[i] = m->streams[i].position;
  }
  model_settle_memory(m);
  model_trim_to_thresholds(m, m->device);
  return cudaSuccess;
}

cudaError_t model_synchronize_device(model* m) {
  MODEL_CALL(m, cudaDeviceSynchronize, synchronize_device(m));
}

static void drop_streams(model* m, int device) {
  for (int i = 0; i < MODEL_STREAMS; ++i) {
    model_stream* s = &m->streams[i];
    if (s->device != device) continue;
    if (s->capture != MODEL_NONE) model_leave_capture(m, s);
    if (i >= MODEL_FIRST_OWN) s->exists = false;
    if (i < MODEL_FIRST_OWN) s->id = 0;
    m->observed.at[i] = s->position;
  }
}

static void drop_memory(model* m, int device) {
  for (int i = 0; i < MODEL_BUFFERS; ++i) {
    model_buffer* b = &m->buffers[i];
    if (model_is_on_device(b) && b->device == device) b->exists = b->is_leaving = false;
  }
  for (int i = 0; i < MODEL_FREED; ++i) {
    int pool = m->freed[i].pool;
    if (pool != MODEL_NONE && m->pools[pool].device == device) m->freed[i].pool = MODEL_NONE;
  }
  for (int i = 0; i < MODEL_POOLS; ++i) {
    model_pool* p = &m->pools[i];
    if (p->device == device) p->exists = p->is_ending = false;
  }
}

static cudaError_t reset_device(model* m) {
  int d = m->device;
  model_host_waits_for_device(m, d);
  drop_streams(m, d);
  drop_memory(m, d);
  for (int i = 0; i < MODEL_EVENTS; ++i) {
    if (m->events[i].device == d) m->events[i].exists = false;
  }
  m->devices[d] = (model_device){.memory = m->devices[d].memory, .pool = d};
  m->pools[d] = (model_pool){.exists = true,
                             .device = d,
                             .limit = UINT64_MAX,
                             .follows_events = 1,
                             .is_opportunistic = 1,
                             .adds_dependencies = 1,
                             .accessible = UINT64_C(1) << d};
  return cudaSuccess;
}

cudaError_t model_reset_device(model* m) { MODEL_PLAIN_CALL(m, cudaDeviceReset, reset_device(m)); }

static cudaError_t enable_peer(model* m, int peer, unsigned flags) {
  model_device* d = &m->devices[m->device];
  if (flags) return cudaErrorInvalidValue;
  if (!model_is_device(m, peer)) return cudaErrorInvalidDevice;
  if (peer == m->device) return cudaErrorPeerAccessUnsupported;
  if (d->peers >> peer & 1) return cudaErrorPeerAccessAlreadyEnabled;
  d->peers |= UINT64_C(1) << peer;
  return cudaSuccess;
}

cudaError_t model_enable_peer(model* m, int peer, unsigned flags) {
  MODEL_CALL(m, cudaDeviceEnablePeerAccess, enable_peer(m, peer, flags));
}

static cudaError_t disable_peer(model* m, int peer) {
  model_device* d = &m->devices[m->device];
  if (!model_is_device(m, peer)) return cudaErrorInvalidDevice;
  if (!(d->peers >> peer & 1)) return cudaErrorPeerAccessNotEnabled;
  d->peers &= ~(UINT64_C(1) << peer);
  return cudaSuccess;
}

cudaError_t model_disable_peer(model* m, int peer) {
  MODEL_CALL(m, cudaDeviceDisablePeerAccess, disable_peer(m, peer));
}

//===-- Streams -------------------------------------------------------------------------------===//

model_stream* model_stream_of(model* m, model_stream_arg s, cudaError_t* error) {
  *error = s.index == MODEL_NONE ? cudaErrorInvalidResourceHandle : cudaSuccess;
  if (*error) return NULL;
  if (model_is_legacy(s.index)) *error = model_refuse_legacy(m, m->streams[s.index].device, true);
  return *error ? NULL : &m->streams[s.index];
}

model_stream* model_usable(model* m, model_stream_arg s, cudaError_t* error) {
  model_stream* found = model_stream_of(m, s, error);
  if (found) *error = m->devices[found->device].broken;
  return *error ? NULL : found;
}

int model_stream_slot(const model* m) {
  for (int i = MODEL_FIRST_OWN; i < MODEL_STREAMS; ++i) {
    if (!m->streams[i].exists && !m->streams[i].position && !m->streams[i].handle) return i;
  }
  return MODEL_NONE;
}

static cudaError_t create_stream(model* m, int slot, unsigned flags, int priority) {
  if (flags & ~(unsigned)cudaStreamNonBlocking) return cudaErrorInvalidValue;
  if (priority > 0) priority = 0;
  if (priority < -5) priority = -5;
  m->streams[slot] = (model_stream){.exists = true,
                                    .device = m->device,
                                    .flags = flags,
                                    .priority = priority,
                                    .capture = MODEL_NONE};
  return cudaSuccess;
}

cudaError_t model_create_stream(model* m, int slot, unsigned flags, int priority) {
  MODEL_CALL(m, cudaStreamCreateWithPriority, create_stream(m, slot, flags, priority));
}

// A destroyed stream keeps its place: its work goes on.
static cudaError_t destroy_stream(model* m, model_stream_arg s) {
  if (s.index < MODEL_FIRST_OWN) return cudaErrorInvalidResourceHandle;
  model_stream* gone = &m->streams[s.index];
  if (gone->capture != MODEL_NONE) model_leave_capture(m, gone);
  gone->exists = false;
  return cudaSuccess;
}

cudaError_t model_destroy_stream(model* m, model_stream_arg s) {
  MODEL_CALL(m, cudaStreamDestroy, destroy_stream(m, s));
}

static cudaError_t check_asking(model* m, const model_stream* s) {
  return s->capture == MODEL_NONE ? model_refuse_unsafe(m, true) : model_refuse_captured(m, s);
}

static cudaError_t query_stream(model* m, model_stream_arg arg) {
  cudaError_t error;
  model_stream* s = model_usable(m, arg, &error);
  if (!error) error = check_asking(m, s);
  if (error) return error;
  if (model_is_legacy(arg.index)) model_enter(m, s);
  bool is_certain = m->is_eager || (model_is_done(m, &s->order) && !s->may_wait);
  if (!is_certain) m->or_else = cudaErrorNotReady;
  return cudaSuccess;
}

cudaError_t model_query_stream(model* m, model_stream_arg s) {
  MODEL_CALL(m, cudaStreamQuery, query_stream(m, s));
}

static cudaError_t synchronize_stream(model* m, model_stream_arg arg) {
  cudaError_t error;
  model_stream* s = model_usable(m, arg, &error);
  if (!error) error = check_asking(m, s);
  if (error) return error;
  if (model_is_legacy(arg.index)) model_enter(m, s);
  model_host_waits(m, &s->order);
  host_observes(m, s->device, &s->history);
  model_settle_memory(m);
  model_trim_to_thresholds(m, s->device);
  return cudaSuccess;
}

cudaError_t model_synchronize_stream(model* m, model_stream_arg s) {
  MODEL_CALL(m, cudaStreamSynchronize, synchronize_stream(m, s));
}

//===-- Events --------------------------------------------------------------------------------===//

static model_event* event_of(model* m, int e) { return e == MODEL_NONE ? NULL : &m->events[e]; }

static cudaError_t create_event(model* m, int slot, unsigned flags) {
  unsigned known = cudaEventBlockingSync | cudaEventDisableTiming | cudaEventInterprocess;
  bool is_shared = flags & cudaEventInterprocess;
  if (flags & ~known || (is_shared && !(flags & cudaEventDisableTiming))) {
    return cudaErrorInvalidValue;
  }
  m->events[slot] =
      (model_event){.exists = true, .device = m->device, .flags = flags, .stream = MODEL_NONE};
  return cudaSuccess;
}

cudaError_t model_create_event(model* m, int slot, unsigned flags) {
  MODEL_CALL(m, cudaEventCreateWithFlags, create_event(m, slot, flags));
}

static cudaError_t destroy_event(model* m, int e) {
  if (e == MODEL_NONE) return cudaErrorInvalidResourceHandle;
  m->events[e].exists = false;
  return cudaSuccess;
}

cudaError_t model_destroy_event(model* m, int e) {
  MODEL_CALL(m, cudaEventDestroy, destroy_event(m, e));
}

static cudaError_t record_in_capture(model* m, model_event* e, const model_stream* s) {
  const model_capture* c = &m->captures[s->capture];
  if (c->is_invalid) return cudaErrorStreamCaptureInvalidated;
  e->capture = c->id;
  e->tips = s->tips;
  e->before = s->before;
  return cudaSuccess;
}

static cudaError_t record(model* m, int event, model_stream_arg arg, unsigned flags) {
  cudaError_t error;
  model_stream* s = model_stream_of(m, arg, &error);
  model_event* e = event_of(m, event);
  if (flags & ~(unsigned)cudaEventRecordExternal) return cudaErrorInvalidValue;
  if (error) return error;
  if (!e || e->device != s->device) return cudaErrorInvalidResourceHandle;
  if (m->devices[s->device].broken) return m->devices[s->device].broken;
  if (s->capture != MODEL_NONE) return record_in_capture(m, e, s);
  model_enter(m, s);
  e->stream = (int)(s - m->streams);
  e->order = s->order;
  e->history = s->history;
  e->capture = 0;
  return cudaSuccess;
}

cudaError_t model_record(model* m, const char* function, int e, model_stream_arg s,
                         unsigned flags) {
  cudaError_t error = model_open(m, function);
  return model_close(m, error ? error : record(m, e, s, flags));
}

static model_capture* capture_of(model* m, const model_event* e) {
  for (int i = 0; i < MODEL_CAPTURES; ++i) {
    model_capture* c = &m->captures[i];
    if (c->exists && c->id == e->capture && !c->is_invalid) return c;
  }
  return NULL;
}

static cudaError_t join_capture(model* m, model_stream* s, const model_event* e) {
  model_capture* mine = s->capture == MODEL_NONE ? NULL : &m->captures[s->capture];
  if (mine && mine->is_invalid) return cudaErrorStreamCaptureInvalidated;
  model_capture* c = e->capture ? capture_of(m, e) : NULL;
  if (!c) {
    if (mine) mine->is_invalid = true;
    return e->capture ? cudaErrorInvalidValue : cudaErrorStreamCaptureIsolation;
  }
  if (model_is_legacy((int)(s - m->streams))) {
    c->is_invalid = true;
    return cudaErrorStreamCaptureImplicit;
  }
  if (mine && mine != c) {
    mine->is_invalid = c->is_invalid = true;
    return cudaErrorStreamCaptureMerge;
  }
  if (!mine) s->tips = s->before = 0;
  s->capture = (int)(c - m->captures);
  s->tips |= e->tips;
  s->before |= e->before;
  return cudaSuccess;
}

static cudaError_t wait_event(model* m, model_stream_arg arg, int event, unsigned flags) {
  cudaError_t error;
  model_stream* s = model_stream_of(m, arg, &error);
  const model_event* e = event_of(m, event);
  if (flags & ~(unsigned)cudaEventWaitExternal) return cudaErrorInvalidValue;
  if (error) return error;
  if (!e) return cudaErrorInvalidResourceHandle;
  if (m->devices[s->device].broken) return m->devices[s->device].broken;
  bool is_captured = s->capture != MODEL_NONE;
  if (e->capture || (is_captured && e->stream != MODEL_NONE)) return join_capture(m, s, e);
  if (is_captured) return cudaSuccess;
  model_enter(m, s);
  if (e->stream == MODEL_NONE) return cudaSuccess;
  model_join(&s->order, &e->order);
  model_join(&s->history, &e->history);
  return cudaSuccess;
}

cudaError_t model_wait_event(model* m, model_stream_arg s, int e, unsigned flags) {
  MODEL_CALL(m, cudaStreamWaitEvent, wait_event(m, s, e, flags));
}

// What asking an event of a capture returns.
static cudaError_t refuse_event(model* m, const model_event* e, bool breaks) {
  model_capture* c = capture_of(m, e);
  if (c && breaks) c->is_invalid = true;
  return c ? cudaErrorCapturedEvent : cudaErrorInvalidValue;
}

static cudaError_t check_asking_event(model* m, const model_event* e) {
  return e->capture ? refuse_event(m, e, true) : model_refuse_unsafe(m, true);
}

static cudaError_t query_event(model* m, int event) {
  const model_event* e = event_of(m, event);
  if (!e) return cudaErrorInvalidResourceHandle;
  if (m->devices[e->device].broken) return m->devices[e->device].broken;
  cudaError_t error = check_asking_event(m, e);
  if (error || e->stream == MODEL_NONE) return error;
  bool is_certain = m->is_eager || model_is_done(m, &e->order);
  if (!is_certain) m->or_else = cudaErrorNotReady;
  return cudaSuccess;
}

cudaError_t model_query_event(model* m, int e) { MODEL_CALL(m, cudaEventQuery, query_event(m, e)); }

static cudaError_t synchronize_event(model* m, int event) {
  const model_event* e = event_of(m, event);
  if (!e) return cudaErrorInvalidResourceHandle;
  cudaError_t error = check_asking_event(m, e);
  if (error) return error;
  if (e->stream != MODEL_NONE) {
    model_host_waits(m, &e->order);
    host_observes(m, m->streams[e->stream].device, &e->history);
  }
  model_settle_memory(m);
  model_trim_to_thresholds(m, e->device);
  return m->devices[e->device].broken;
}

cudaError_t model_synchronize_event(model* m, int e) {
  MODEL_CALL(m, cudaEventSynchronize, synchronize_event(m, e));
}

static bool has_timing(const model_event* e) { return !(e->flags & cudaEventDisableTiming); }

static cudaError_t elapsed(model* m, int first, int last) {
  const model_event* start = event_of(m, first);
  const model_event* end = event_of(m, last);
  if (!start || !end || start->device != end->device) return cudaErrorInvalidResourceHandle;
  if (!has_timing(start) || !has_timing(end)) return cudaErrorInvalidResourceHandle;
  if (start->capture) return refuse_event(m, start, false);
  if (end->capture) return refuse_event(m, end, false);
  if (start->stream == MODEL_NONE || end->stream == MODEL_NONE) {
    return cudaErrorInvalidResourceHandle;
  }
  if (m->devices[start->device].broken) return m->devices[start->device].broken;
  bool is_certain = model_is_done(m, &start->order) && model_is_done(m, &end->order);
  if (!m->is_eager && !is_certain) m->or_else = cudaErrorNotReady;
  return cudaSuccess;
}

cudaError_t model_elapsed(model* m, int start, int end) {
  MODEL_CALL(m, cudaEventElapsedTime, elapsed(m, start, end));
}
