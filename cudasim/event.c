#include "cudasim/event.h"

#include <stddef.h>

#include "cudasim/capture.h"
#include "cudasim/device.h"
#include "cudasim/handle.h"
#include "cudasim/host_check.h"
#include "cudasim/pool.h"
#include "cudasim/runtime.h"
#include "cudasim/scheduler.h"
#include "cudasim/slab.h"
#include "cudasim/ticks.h"

#define FLAGS (cudaEventBlockingSync | cudaEventDisableTiming | cudaEventInterprocess)

static slab events = {.size = sizeof(event)};
static event* recycled;  // linked through next_of_device

//===-- Lifetime ------------------------------------------------------------------------------===//

static event* take_memory(void) {
  event* e = recycled;
  if (e) {
    recycled = e->next_of_device;
    *e = (event){.serial = e->serial};
    return e;
  }
  e = sim_slab_take(&events);
  if (e) *e = (event){0};
  return e;
}

static void give_memory(event* e) {
  e->next_of_device = recycled;
  recycled = e;
}

static cudaError_t create(device* d, unsigned flags, cudaEvent_t* out) {
  bool is_shared = flags & cudaEventInterprocess;
  if (!out || flags & ~(unsigned)FLAGS || (is_shared && !(flags & cudaEventDisableTiming))) {
    return cudaErrorInvalidValue;
  }
  event* e = take_memory();
  if (!e) return cudaErrorMemoryAllocation;
  e->handle = sim_handle_open(HANDLE_EVENT, e);
  if (!e->handle) {
    give_memory(e);
    return cudaErrorMemoryAllocation;
  }
  e->device = d;
  e->flags = flags;
  e->next_of_device = d->events;
  if (d->events) d->events->previous_of_device = e;
  d->events = e;
  *out = e->handle;
  return cudaSuccess;
}

static void destroy(event* e) {
  if (e->next_of_device) e->next_of_device->previous_of_device = e->previous_of_device;
  if (e->previous_of_device) {
    e->previous_of_device->next_of_device = e->next_of_device;
  } else {
    e->device->events = e->next_of_device;
  }
  sim_handle_close(e->handle);
  sim_history_release(e->known);
  sim_order_release(&e->recorded);
  sim_node_set_clear(&e->captured);
  ++e->serial;  // a recording that is still queued is void
  give_memory(e);
}

void sim_event_destroy_all(device* d) {
  while (d->events) destroy(d->events);
}

void sim_event_drop(void) {
  sim_slab_drop(&events);
  recycled = NULL;
}

event* sim_event_of(cudaEvent_t handle) { return sim_handle_object(HANDLE_EVENT, handle); }

static cudaError_t destroy_handle(cudaEvent_t handle) {
  event* e = sim_event_of(handle);
  if (!e) return cudaErrorInvalidResourceHandle;
  destroy(e);
  return cudaSuccess;
}

//===-- Recording -----------------------------------------------------------------------------===//

void sim_event_stamp(event* e, uint64_t serial) {
  if (e->serial == serial) e->ns = ticks_ns_now();
}

void sim_event_set_captured(event* e, uint64_t id, const node_set* nodes) {
  sim_node_set_clear(&e->captured);
  e->captured = *nodes;
  e->capture = id;
}

static void note_recorded(event* e, const stream* s) {
  sim_order_release(&e->recorded);
  e->recorded = sim_order_stamp(s);
}

void sim_event_record_at(event* e, stream* s, uint64_t position) {
  if (e->capture) sim_event_set_captured(e, 0, &(node_set){0});
  sim_history_release(e->known);
  e->known = sim_history_retain(s->known);
  if (s->actor) note_recorded(e, s);
  e->stream = s;
  e->position = position;
  e->ns = 0;
  ++e->serial;
}

// Notes the time once `s` gets there.
static cudaError_t record_later(event* e, stream* s) {
  op* o = sim_op_create(OP_RECORD);
  if (!o) return cudaErrorMemoryAllocation;
  sim_event_record_at(e, s, s->submitted + 1);
  o->record.event = e;
  o->record.serial = e->serial;
  sim_scheduler_submit(s, o, false);
  return cudaSuccess;
}

// A node that records the event, or waits for what is recorded by then, at each launch.
static cudaError_t capture_external(stream* s, enum cudaGraphNodeType type, const event* e) {
  if (!s->branch) return cudaErrorIllegalState;
  node_work w = {.type = type, .event = e->handle};
  return sim_capture_work(s, &w);
}

static cudaError_t record(device* current, cudaEvent_t handle, cudaStream_t in, unsigned flags) {
  cudaError_t error;
  stream* s = sim_stream_of(current, in, &error);
  event* e = sim_event_of(handle);
  if (flags & ~(unsigned)cudaEventRecordExternal) return cudaErrorInvalidValue;
  if (!s || !e) return s ? cudaErrorInvalidResourceHandle : error;
  if (e->device != s->device) {
    return sim_refuse(cudaErrorInvalidResourceHandle,
                      "an event of device %d cannot be recorded in a stream of device %d",
                      e->device->id, s->device->id);
  }
  if (s->device->broken) return s->device->broken;
  if (flags & cudaEventRecordExternal) {
    return capture_external(s, cudaGraphNodeTypeEventRecord, e);
  }
  if (s->branch) return sim_capture_record(s, e);
  if (event_has_timing(e) && sim_scheduler_make_room(s)) return record(current, handle, in, flags);
  error = sim_stream_enter(s);
  if (error) return error;
  if (event_has_timing(e) && s->first) return record_later(e, s);
  sim_event_record_at(e, s, sim_stream_mark(s));
  if (event_has_timing(e)) sim_event_stamp(e, e->serial);
  return cudaSuccess;
}

//===-- Waiting -------------------------------------------------------------------------------===//

static bool is_done(const event* e) { return !e->stream || stream_is_done(e->stream, e->position); }

static cudaError_t follow(device* current, cudaStream_t in, cudaEvent_t handle, unsigned flags) {
  cudaError_t error;
  stream* s = sim_stream_of(current, in, &error);
  const event* e = sim_event_of(handle);
  if (flags & ~(unsigned)cudaEventWaitExternal) return cudaErrorInvalidValue;
  if (!s || !e) return s ? cudaErrorInvalidResourceHandle : error;
  if (s->device->broken) return s->device->broken;
  if (flags & cudaEventWaitExternal) {
    return capture_external(s, cudaGraphNodeTypeWaitEvent, e);
  }
  if (e->capture || (s->branch && e->stream)) return sim_capture_wait(s, e);
  if (s->branch) return cudaSuccess;  // an event that was never recorded holds up nothing
  if (sim_scheduler_make_room(s)) return follow(current, in, handle, flags);
  error = sim_stream_enter(s);
  if (error || !e->stream) return error;
  sim_order_follow(s, &e->recorded);
  return sim_stream_follow(s, e->stream, e->position, e->known);
}

static cudaError_t check_asking(const event* e) {
  return e->capture ? sim_capture_refuse_event(e, true) : sim_capture_check_unsafe();
}

static cudaError_t query(cudaEvent_t handle) {
  const event* e = sim_event_of(handle);
  if (!e) return cudaErrorInvalidResourceHandle;
  if (e->device->broken) return e->device->broken;
  cudaError_t error = check_asking(e);
  if (error || !e->stream) return error;
  const device* d = e->device;
  stream* s = e->stream;
  uint64_t position = e->position;
  stamp recorded = sim_order_copy(&e->recorded);
  host_knowledge k = sim_host_check_ask(s, position, e->known);
  sim_scheduler_ask(s, position);  // the event may be destroyed meanwhile
  sim_host_check_answer(&k);
  return sim_order_answer(d->broken, stream_is_done(s, position), &recorded);
}

static cudaError_t synchronize(cudaEvent_t handle) {
  const event* e = sim_event_of(handle);
  if (!e) return cudaErrorInvalidResourceHandle;
  cudaError_t error = check_asking(e);
  if (error) return error;
  device* d = e->device;
  stream* s = e->stream;
  uint64_t position = e->position;
  history* known = sim_history_retain(e->known);
  stamp recorded = sim_order_copy(&e->recorded);
  if (s) sim_scheduler_wait(s, position);  // the event may be destroyed meanwhile
  sim_order_learn(&recorded);
  if (s && s->device) sim_stream_observe(s, position, known);
  if (s && check_is_on()) sim_host_check_learn(s, position, known);
  sim_history_release(known);
  sim_pool_trim_to_thresholds(d);
  return d->broken;
}

static cudaError_t elapsed_ms(float* ms, cudaEvent_t from, cudaEvent_t to) {
  if (!ms) return cudaErrorInvalidValue;
  const event* start = sim_event_of(from);
  const event* end = sim_event_of(to);
  if (!start || !end || start->device != end->device) return cudaErrorInvalidResourceHandle;
  if (!event_has_timing(start) || !event_has_timing(end)) return cudaErrorInvalidResourceHandle;
  if (start->capture) return sim_capture_refuse_event(start, false);
  if (end->capture) return sim_capture_refuse_event(end, false);
  if (!start->stream || !end->stream) return cudaErrorInvalidResourceHandle;
  if (start->device->broken) return start->device->broken;
  if (!is_done(start) || !is_done(end)) return cudaErrorNotReady;
  if (check_is_on()) {  // the answer tells that both have been reached
    sim_host_check_learn(start->stream, start->position, start->known);
    sim_host_check_learn(end->stream, end->position, end->known);
  }
  stamp over[] = {sim_order_copy(&start->recorded), sim_order_copy(&end->recorded)};
  sim_order_learn(&over[0]);
  sim_order_learn(&over[1]);
  *ms = (float)((double)(int64_t)(end->ns - start->ns) / 1e6);
  return cudaSuccess;
}

//===-- The API -------------------------------------------------------------------------------===//

cudaError_t cudaEventCreate(cudaEvent_t* out) {
  CALL(cudaEventCreate, create(frame.device, cudaEventDefault, out));
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* out, unsigned int flags) {
  CALL(cudaEventCreateWithFlags, create(frame.device, flags, out));
}

cudaError_t cudaEventDestroy(cudaEvent_t hEvent) { CALL(cudaEventDestroy, destroy_handle(hEvent)); }

cudaError_t cudaEventRecord(cudaEvent_t hEvent, cudaStream_t hStream) {
  CALL(cudaEventRecord, record(frame.device, hEvent, hStream, cudaEventRecordDefault));
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t hEvent, cudaStream_t hStream, unsigned int flags) {
  CALL(cudaEventRecordWithFlags, record(frame.device, hEvent, hStream, flags));
}

cudaError_t cudaStreamWaitEvent(cudaStream_t hStream, cudaEvent_t hEvent, unsigned int flags) {
  CALL(cudaStreamWaitEvent, follow(frame.device, hStream, hEvent, flags));
}

cudaError_t cudaEventQuery(cudaEvent_t hEvent) { CALL(cudaEventQuery, query(hEvent)); }

cudaError_t cudaEventSynchronize(cudaEvent_t hEvent) {
  CALL(cudaEventSynchronize, synchronize(hEvent));
}

cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t start, cudaEvent_t end) {
  CALL(cudaEventElapsedTime, elapsed_ms(ms, start, end));
}
