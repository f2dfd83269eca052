#include "tm/alloc/event.h"

#include <stdio.h>

#include "alloc/cuda_runtime.h"
#include "tm/alloc/bookkeeping.h"

struct tm_event {
  int32_t references;  // read and written with __atomic
  int32_t device_id;
  cudaEvent_t handle;
  bool timing;
  bool recorded;  // at least once; read and written with __atomic
};

//===-- Lifetime ----------------------------------------------------------===//

static tm_status create_handle(tm_event* event) {
  TM_ON_DEVICE(event->device_id);
  const unsigned flags = event->timing ? cudaEventDefault : cudaEventDisableTiming;
  TM_TRY_CUDA(cudaEventCreateWithFlags(&event->handle, flags));
  return TM_OK;
}

tm_event* tm_event_create(int32_t id, bool timing) {
  tm_event* event = tm_bookkeeping_alloc(sizeof *event, "an event");
  if (!event) {
    return NULL;
  }
  *event = (tm_event){.references = 1, .device_id = id, .timing = timing};
  if (create_handle(event) != TM_OK) {
    tm_bookkeeping_free(event);
    return NULL;
  }
  return event;
}

tm_event* tm_event_retain(tm_event* event) {
  if (event) {
    __atomic_fetch_add(&event->references, 1, __ATOMIC_RELAXED);
  }
  return event;
}

void tm_event_release(tm_event* event) {
  if (!event || __atomic_fetch_sub(&event->references, 1, __ATOMIC_ACQ_REL) != 1) {
    return;
  }
  tm_device_guard guard = {0};
  if (tm_device_enter_to_free_(event->device_id, &guard)) {
    tm_cuda_ignore_(cudaEventDestroy(event->handle));
    tm_device_leave_(&guard);
  }
  tm_bookkeeping_free(event);
}

//===-- What it is --------------------------------------------------------===//

cudaEvent_t tm_event_handle(const tm_event* event) { return event ? event->handle : NULL; }

tm_device tm_event_device(const tm_event* event) {
  return event ? tm_device_make(TM_DEVICE, event->device_id) : tm_device_make(TM_CPU, 0);
}

void tm_event_text(const tm_event* event, char* text, size_t size) {
  if (event) {
    snprintf(text, size, "event(device %d, %p%s)", (int)event->device_id, (void*)event->handle,
             event->timing ? ", timing" : "");
  } else {
    snprintf(text, size, "event(null)");
  }
}

//===-- Order -------------------------------------------------------------===//

tm_status tm_event_record(tm_event* event, tm_stream* stream) {
  if (!event) {
    return TM_NULL_HANDLE("tm_event_record: the event");
  }
  if (!stream) {
    return TM_NULL_HANDLE("tm_event_record: the stream");
  }
  cudaStream_t handle = tm_stream_handle(stream);
  if (!handle) {
    return TM_RAISE(TM_ERR_INVALID, "tm_event_record: the stream is disowned");
  }
  const int32_t stream_device = tm_stream_device(stream).id;
  if (stream_device != event->device_id) {
    return TM_RAISE(TM_ERR_INVALID,
                    "tm_event_record: the event is of device %d, the stream of device %d",
                    (int)event->device_id, (int)stream_device);
  }
  TM_ON_DEVICE(event->device_id);
  TM_TRY_CUDA(cudaEventRecord(event->handle, handle));
  __atomic_store_n(&event->recorded, true, __ATOMIC_RELEASE);
  return TM_OK;
}

tm_status tm_event_sync(tm_event* event) {
  if (!event) {
    return TM_NULL_HANDLE("tm_event_sync: the event");
  }
  TM_ON_DEVICE(event->device_id);
  TM_TRY_CUDA(cudaEventSynchronize(event->handle));
  return TM_OK;
}

tm_status tm_event_query(tm_event* event, bool* out) {
  if (!out) {
    return TM_RAISE(TM_ERR_INVALID, "tm_event_query: out is NULL");
  }
  *out = false;
  if (!event) {
    return TM_NULL_HANDLE("tm_event_query: the event");
  }
  TM_ON_DEVICE(event->device_id);
  return TM_CUDA_QUERY(cudaEventQuery(event->handle), out);
}

static tm_status check_timed(const tm_event* event, const char* which) {
  if (!event) {
    return TM_NULL_HANDLE(which);
  }
  if (!event->timing) {
    return TM_RAISE(TM_ERR_INVALID, "%s was made without timing", which);
  }
  if (!__atomic_load_n(&event->recorded, __ATOMIC_ACQUIRE)) {
    return TM_RAISE(TM_ERR_INVALID, "%s was never recorded", which);
  }
  return TM_OK;
}

tm_status tm_event_elapsed(tm_event* start, tm_event* end, float* out) {
  if (!out) {
    return TM_RAISE(TM_ERR_INVALID, "tm_event_elapsed: out is NULL");
  }
  *out = 0;
  TM_TRY(check_timed(start, "tm_event_elapsed: the start event"));
  TM_TRY(check_timed(end, "tm_event_elapsed: the end event"));
  if (start->device_id != end->device_id) {
    return TM_RAISE(TM_ERR_INVALID, "tm_event_elapsed: the events are of devices %d and %d",
                    (int)start->device_id, (int)end->device_id);
  }
  TM_ON_DEVICE(start->device_id);
  float milliseconds = 0;
  const cudaError_t code = cudaEventElapsedTime(&milliseconds, start->handle, end->handle);
  if (code == cudaErrorNotReady) {
    tm_cuda_ignore_(code);
    return TM_RAISE(TM_ERR_BUSY, "tm_event_elapsed: the work between the events is not done yet");
  }
  TM_TRY(tm_cuda_status_(code, "cudaEventElapsedTime(start, end)", __FILE__, __LINE__));
  *out = milliseconds;
  return TM_OK;
}
