#include "alloc/reuse_guard.h"

#include "alloc/cuda_runtime.h"
#include "alloc/event_cache.h"

// Gives the guard an event of the device that `stream` is on.
tm_status reuse_guard_prepare(reuse_guard* guard, const tm_stream* stream) {
  const tm_device device = tm_stream_device(stream);
  if (guard->event && tm_device_equal(tm_event_device(guard->event), device)) {
    return TM_OK;
  }
  tm_event* event = tm_event_acquire_(device.id);
  if (!event) {
    return tm_last_status();
  }
  tm_event_recycle_(guard->event);
  guard->event = event;
  return TM_OK;
}

static bool record(reuse_guard* guard) {
  bool capturing;
  return tm_stream_is_capturing(guard->stream, &capturing) == TM_OK && !capturing &&
         reuse_guard_prepare(guard, guard->stream) == TM_OK &&
         tm_event_record(guard->event, guard->stream) == TM_OK;
}

// Moves an UNRECORDED guard on where that is possible by now.
static void try_to_record(reuse_guard* guard) {
  const bool disowned = !tm_stream_handle(guard->stream);  // then all of its work is done
  const bool usable = tm_device_usable_(tm_stream_device(guard->stream).id);
  if (disowned || (usable && record(guard))) {
    guard->state = disowned ? REUSE_OVER : REUSE_RECORDED;
    tm_stream_release(guard->stream);
    guard->stream = NULL;
  }
}

void reuse_guard_close(reuse_guard* guard, tm_stream* stream) {
  guard->state = stream ? REUSE_UNRECORDED : REUSE_OVER;
  if (stream) {
    guard->stream = tm_stream_retain(stream);
    try_to_record(guard);
  }
}

static bool event_is_done(const reuse_guard* guard) {
  bool done = false;
  return tm_device_usable_(tm_event_device(guard->event).id) &&
         tm_event_query(guard->event, &done) == TM_OK && done;
}

bool reuse_guard_is_over(reuse_guard* guard) {
  if (guard->state == REUSE_UNRECORDED) {
    try_to_record(guard);
  }
  if (guard->state == REUSE_RECORDED && event_is_done(guard)) {
    guard->state = REUSE_OVER;
  }
  return guard->state == REUSE_OVER;
}

bool reuse_guard_is_lost(const reuse_guard* guard) {
  const tm_device device = guard->state == REUSE_UNRECORDED ? tm_stream_device(guard->stream)
                                                            : tm_event_device(guard->event);
  return guard->state != REUSE_OVER && !tm_device_usable_(device.id);
}

void reuse_guard_deinit(reuse_guard* guard) {
  tm_event_recycle_(guard->event);
  tm_stream_release(guard->stream);
  *guard = (reuse_guard){0};
}
