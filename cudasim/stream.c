#include "cudasim/stream.h"

#include <stddef.h>

#include "cudasim/capture.h"
#include "cudasim/device.h"
#include "cudasim/handle.h"
#include "cudasim/host_check.h"
#include "cudasim/order.h"
#include "cudasim/pool.h"
#include "cudasim/report.h"
#include "cudasim/runtime.h"
#include "cudasim/scheduler.h"
#include "cudasim/slab.h"

static slab streams = {.size = sizeof(stream)};
static stream* recycled;  // linked through next_of_device
static uint32_t slots;    // given out
static uint64_t last_id;

//===-- Lifetime ------------------------------------------------------------------------------===//

static stream* take_memory(void) {
  stream* s = recycled;
  if (s) {
    recycled = s->next_of_device;
    uint64_t position = s->submitted;
    *s = (stream){.slot = s->slot, .submitted = position, .completed = position};
    return s;
  }
  s = sim_slab_take(&streams);
  if (s) *s = (stream){.slot = slots++};
  return s;
}

static void link_to_device(stream* s, device* d) {
  s->device = d;
  s->next_of_device = d->streams;
  if (d->streams) d->streams->previous_of_device = s;
  d->streams = s;
}

static void unlink_from_device(stream* s) {
  if (s->next_of_device) s->next_of_device->previous_of_device = s->previous_of_device;
  if (s->previous_of_device) {
    s->previous_of_device->next_of_device = s->next_of_device;
  } else {
    s->device->streams = s->next_of_device;
  }
  s->device = NULL;
}

stream* sim_stream_create(device* d, unsigned flags, int priority) {
  stream* s = take_memory();
  if (!s) return NULL;
  s->flags = flags;
  s->priority = priority;
  s->id = ++last_id;
  s->observed = s->submitted;
  s->handle = sim_handle_open(HANDLE_STREAM, s);
  if (!s->handle) {
    s->next_of_device = recycled;
    recycled = s;
    return NULL;
  }
  link_to_device(s, d);
  if (check_is_on()) sim_order_open(s, !d->legacy);
  return s;
}

void sim_stream_close(stream* s) {
  if (s->branch) sim_capture_leave(s);
  if (s->actor) sim_order_close(s);
  sim_handle_close(s->handle);
  s->handle = NULL;
  s->is_closed = true;
  if (s->state == STREAM_IDLE) sim_stream_recycle(s);
}

void sim_stream_recycle(stream* s) {
  s->observed = s->submitted;
  if (check_is_on()) sim_host_check_close(s);
  while (s->shelves) sim_pool_dissolve(s->shelves);
  sim_history_release(s->known);
  unlink_from_device(s);
  s->next_of_device = recycled;
  recycled = s;
}

void sim_stream_drop(void) {
  sim_slab_drop(&streams);
  recycled = NULL;
  slots = 0;
}

stream* sim_stream_of(device* current, cudaStream_t handle, cudaError_t* error) {
  if (!handle || handle == cudaStreamLegacy) {
    *error = sim_capture_check_legacy(current, true);
    return *error ? NULL : current->legacy;
  }
  stream* s = handle == cudaStreamPerThread ? sim_thread_stream(current)
                                            : sim_handle_object(HANDLE_STREAM, handle);
  *error = s ? cudaSuccess : cudaErrorInvalidResourceHandle;
  return s;
}

//===-- Order ---------------------------------------------------------------------------------===//

uint64_t sim_stream_mark(stream* s) {
  ++s->submitted;
  if (s != s->device->legacy && stream_is_blocking(s)) ++s->device->blocking_serial;
  if (!s->first) s->completed = s->submitted;
  return s->submitted;
}

cudaError_t sim_stream_follow(stream* s, stream* target, uint64_t position, const history* known) {
  if (s == target) return cudaSuccess;
  if (!sim_history_join(&s->known, known) || !sim_history_note(&s->known, target->slot, position)) {
    return cudaErrorMemoryAllocation;
  }
  if (stream_is_done(target, position)) {
    sim_stream_mark(s);
    return cudaSuccess;
  }
  op* o = sim_op_create(OP_WAIT);
  if (!o) return cudaErrorMemoryAllocation;
  o->wait.target = target;
  o->wait.position = position;
  sim_scheduler_submit(s, o, false);
  return cudaSuccess;
}

// The legacy stream goes behind everything in the blocking streams.
static cudaError_t enter_legacy(stream* s) {
  device* d = s->device;
  if (s->entered == d->blocking_serial) return cudaSuccess;
  uint64_t serial = d->blocking_serial;
  for (stream* other = d->streams; other; other = other->next_of_device) {
    if (other == s || !stream_is_blocking(other)) continue;
    if (sim_history_of(s->known, other->slot) >= other->submitted) continue;
    cudaError_t error = sim_stream_follow(s, other, other->submitted, other->known);
    if (error) return error;
  }
  s->entered = serial;
  return cudaSuccess;
}

cudaError_t sim_stream_enter(stream* s) {
  if (s->actor) sim_order_enter(s);
  stream* legacy = s->device->legacy;
  if (s == legacy) return enter_legacy(s);
  if (!stream_is_blocking(s) || s->entered == legacy->submitted) return cudaSuccess;
  uint64_t position = legacy->submitted;
  cudaError_t error = sim_stream_follow(s, legacy, position, legacy->known);
  if (!error) s->entered = position;
  return error;
}

stream* sim_stream_for_work(device* current, cudaStream_t handle, cudaError_t* error) {
  stream* s = sim_stream_of(current, handle, error);
  while (s && !s->branch && sim_scheduler_make_room(s)) s = sim_stream_of(current, handle, error);
  if (!s) return NULL;
  *error = s->device->broken;
  if (!*error && !s->branch) *error = sim_stream_enter(s);
  return *error ? NULL : s;
}

//===-- The host ------------------------------------------------------------------------------===//

static void observe(stream* s, uint64_t position) {
  if (position > s->observed) s->observed = position;
}

void sim_stream_observe(stream* s, uint64_t position, const history* known) {
  observe(s, position);
  for (stream* other = known ? s->device->streams : NULL; other; other = other->next_of_device) {
    observe(other, sim_history_of(known, other->slot));
  }
}

typedef struct target {
  stream* stream;
  uint64_t position;
} target;

static size_t collect_targets(const device* d, target* targets, size_t capacity) {
  size_t count = 0;
  for (stream* s = d->streams; s; s = s->next_of_device) {
    if (stream_is_done(s, s->submitted)) continue;
    if (count < capacity) targets[count] = (target){.stream = s, .position = s->submitted};
    ++count;
  }
  return count;
}

void sim_stream_wait_device(device* d) {
  enum { AT_ONCE = 64 };
  target targets[AT_ONCE];
  size_t count = AT_ONCE + 1;
  uint64_t last_free = sim_pool_last_free();
  while (count > AT_ONCE) {  // what is over is met again, as far as it is not done by then
    count = d->queued ? collect_targets(d, targets, AT_ONCE) : 0;
    for (size_t i = 0; i < count && i < AT_ONCE; ++i) {
      sim_scheduler_wait(targets[i].stream, targets[i].position);
    }
  }
  for (stream* s = d->streams; s; s = s->next_of_device) observe(s, s->completed);
  if (last_free > d->observed_free) d->observed_free = last_free;
  if (check_is_on()) sim_host_check_learn_device(d);
}
