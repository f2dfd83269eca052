#include "tm/alloc/stream.h"

#include <stdio.h>

#include "alloc/cuda_runtime.h"
#include "alloc/destroy_watch.h"
#include "alloc/event_cache.h"
#include "tm/alloc/bookkeeping.h"
#include "tm/alloc/event.h"

struct tm_stream {
  int32_t references;  // read and written with __atomic
  int32_t device_id;
  cudaStream_t handle;  // NULL once disowned; read and written with __atomic
  bool adopted;
};

static cudaStream_t current_handle(const tm_stream* stream) {
  return __atomic_load_n(&stream->handle, __ATOMIC_ACQUIRE);
}

// Why a stream without a handle cannot be used.
static TM_COLD tm_status raise_unusable(const tm_stream* stream, const char* what) {
  if (!stream) {
    return TM_NULL_HANDLE(what);
  }
  return TM_RAISE(TM_ERR_INVALID, "%s is disowned: its handle is its owner's", what);
}

//===-- Lifetime ----------------------------------------------------------===//

static tm_stream* wrap(cudaStream_t handle, int32_t id, bool adopted) {
  tm_stream* stream = tm_bookkeeping_alloc(sizeof *stream, "a stream");
  if (stream) {
    *stream = (tm_stream){.references = 1, .device_id = id, .handle = handle, .adopted = adopted};
  }
  return stream;
}

static tm_status create_handle(int32_t id, int priority, cudaStream_t* out) {
  TM_ON_DEVICE(id);
  TM_TRY_CUDA(cudaStreamCreateWithPriority(out, cudaStreamNonBlocking, priority));
  return TM_OK;
}

static void destroy_handle(cudaStream_t handle, int32_t id) {
  tm_device_guard guard = {0};
  if (tm_device_enter_to_free_(id, &guard)) {
    tm_cuda_ignore_(cudaStreamDestroy(handle));
    tm_device_leave_(&guard);
  }
}

tm_stream* tm_stream_create(int32_t id, int priority) {
  cudaStream_t handle = NULL;
  if (create_handle(id, priority, &handle) != TM_OK) {
    return NULL;
  }
  tm_stream* stream = wrap(handle, id, false);
  if (!stream) {
    destroy_handle(handle, id);
  }
  return stream;
}

static bool is_default_handle(cudaStream_t handle) {
  return handle == cudaStreamLegacy || handle == cudaStreamPerThread;
}

// Whether `handle` is a stream of device `id`. The default streams are those of every device. Of
// one that is being captured nobody can ask: that would end its capture.
static tm_status check_handle(cudaStream_t handle, int32_t id) {
  TM_ON_DEVICE(id);
  if (is_default_handle(handle)) {
    return TM_OK;
  }
  bool capturing;
  TM_TRY(tm_cuda_is_capturing_(handle, &capturing));
  if (capturing) {
    return TM_OK;
  }
  int device = -1;
  TM_TRY_CUDA(cudaStreamGetDevice(handle, &device));
  if (device != id) {
    return TM_RAISE(TM_ERR_INVALID, "tm_stream_adopt: a stream of device %d, not of device %d",
                    device, (int)id);
  }
  return TM_OK;
}

tm_stream* tm_stream_adopt_(cudaStream_t handle, int32_t id) {
  handle = handle ? handle : cudaStreamLegacy;
  return check_handle(handle, id) == TM_OK ? wrap(handle, id, true) : NULL;
}

tm_status tm_stream_disown(tm_stream* stream) {
  if (stream && !stream->adopted) {
    return TM_RAISE(TM_ERR_INVALID, "tm_stream_disown: the stream was created here, not adopted");
  }
  TM_TRY(tm_stream_sync(stream));
  __atomic_store_n(&stream->handle, NULL, __ATOMIC_RELEASE);
  return TM_OK;
}

tm_stream* tm_stream_retain(tm_stream* stream) {
  if (stream) {
    __atomic_fetch_add(&stream->references, 1, __ATOMIC_RELAXED);
  }
  return stream;
}

void tm_stream_release(tm_stream* stream) {
  if (!stream || __atomic_fetch_sub(&stream->references, 1, __ATOMIC_ACQ_REL) != 1) {
    return;
  }
  tm_tell_destroy_(stream, "stream");
  if (!stream->adopted) {
    destroy_handle(stream->handle, stream->device_id);
  }
  tm_bookkeeping_free(stream);
}

//===-- What it is --------------------------------------------------------===//

cudaStream_t tm_stream_handle(const tm_stream* stream) {
  return stream ? current_handle(stream) : NULL;
}

tm_device tm_stream_device(const tm_stream* stream) {
  return stream ? tm_device_make(TM_DEVICE, stream->device_id) : tm_device_make(TM_CPU, 0);
}

tm_status tm_stream_priority(const tm_stream* stream, int* out) {
  if (!out) {
    return TM_RAISE(TM_ERR_INVALID, "tm_stream_priority: out is NULL");
  }
  *out = 0;
  cudaStream_t handle = tm_stream_handle(stream);
  if (!stream || !handle) {
    return raise_unusable(stream, "tm_stream_priority: the stream");
  }
  TM_ON_DEVICE(stream->device_id);
  int priority = 0;
  TM_TRY_CUDA(cudaStreamGetPriority(handle, &priority));
  *out = priority;
  return TM_OK;
}

bool tm_stream_equal(const tm_stream* a, const tm_stream* b) {
  if (a == b) {
    return true;
  }
  if (!a || !b || a->device_id != b->device_id) {
    return false;
  }
  cudaStream_t handle = current_handle(a);
  return handle && handle == current_handle(b);
}

// What stands for a handle in a text; NULL where that is its address.
static const char* handle_name(cudaStream_t handle) {
  if (!handle) {
    return "disowned";
  }
  if (handle == cudaStreamLegacy) {
    return "legacy";
  }
  return handle == cudaStreamPerThread ? "per-thread" : NULL;
}

void tm_stream_text(const tm_stream* stream, char* text, size_t size) {
  if (!stream) {
    snprintf(text, size, "stream(null)");
    return;
  }
  cudaStream_t handle = current_handle(stream);
  const char* name = handle_name(handle);
  if (name) {
    snprintf(text, size, "stream(device %d, %s)", (int)stream->device_id, name);
  } else {
    snprintf(text, size, "stream(device %d, %p%s)", (int)stream->device_id, (void*)handle,
             stream->adopted ? ", adopted" : "");
  }
}

//===-- Capture -----------------------------------------------------------===//

tm_status tm_stream_is_capturing(const tm_stream* stream, bool* out) {
  if (!out) {
    return TM_RAISE(TM_ERR_INVALID, "tm_stream_is_capturing: out is NULL");
  }
  *out = false;
  cudaStream_t handle = tm_stream_handle(stream);
  if (!stream || !handle) {
    return raise_unusable(stream, "tm_stream_is_capturing: the stream");
  }
  TM_ON_DEVICE(stream->device_id);
  return tm_cuda_is_capturing_(handle, out);
}

tm_status tm_stream_refuse_capture_(const tm_stream* stream, const char* who) {
  cudaStream_t handle = tm_stream_handle(stream);
  if (!stream || !handle) {
    return TM_OK;
  }
  TM_ON_DEVICE(stream->device_id);
  return tm_cuda_refuse_capture_(handle, who);
}

//===-- Order -------------------------------------------------------------===//

tm_status tm_stream_sync(tm_stream* stream) {
  cudaStream_t handle = tm_stream_handle(stream);
  if (!stream || !handle) {
    return raise_unusable(stream, "tm_stream_sync: the stream");
  }
  TM_ON_DEVICE(stream->device_id);
  TM_TRY(tm_cuda_refuse_capture_(handle, "tm_stream_sync"));
  TM_TRY_CUDA(cudaStreamSynchronize(handle));
  return TM_OK;
}

tm_status tm_stream_query(tm_stream* stream, bool* out) {
  if (!out) {
    return TM_RAISE(TM_ERR_INVALID, "tm_stream_query: out is NULL");
  }
  *out = false;
  cudaStream_t handle = tm_stream_handle(stream);
  if (!stream || !handle) {
    return raise_unusable(stream, "tm_stream_query: the stream");
  }
  TM_ON_DEVICE(stream->device_id);
  TM_TRY(tm_cuda_refuse_capture_(handle, "tm_stream_query"));
  return TM_CUDA_QUERY(cudaStreamQuery(handle), out);
}

tm_status tm_stream_wait(tm_stream* stream, tm_event* event) {
  cudaStream_t handle = tm_stream_handle(stream);
  if (!stream || !handle) {
    return raise_unusable(stream, "tm_stream_wait: the stream");
  }
  if (!event) {
    return TM_NULL_HANDLE("tm_stream_wait: the event");
  }
  TM_TRY(tm_device_check_(tm_event_device(event).id));  // or the stream's device would be blamed
  TM_ON_DEVICE(stream->device_id);
  TM_TRY_CUDA(cudaStreamWaitEvent(handle, tm_event_handle(event), cudaEventWaitDefault));
  return TM_OK;
}

tm_status tm_stream_wait_stream(tm_stream* stream, tm_stream* other) {
  cudaStream_t handle = tm_stream_handle(stream);
  if (!stream || !handle) {
    return raise_unusable(stream, "tm_stream_wait_stream: the stream");
  }
  if (!other || !tm_stream_handle(other)) {
    return raise_unusable(other, "tm_stream_wait_stream: the other stream");
  }
  if (tm_stream_equal(stream, other)) {
    return TM_OK;
  }
  tm_event* event = tm_event_acquire_(other->device_id);
  if (!event) {
    return tm_last_status();
  }
  tm_status status = tm_event_record(event, other);
  if (status == TM_OK) {
    status = tm_stream_wait(stream, event);
  }
  tm_event_recycle_(event);  // a wait that is queued keeps what was recorded
  return status;
}

tm_status tm_stream_call_host(tm_stream* stream, void (*function)(void* user), void* user) {
  if (!function) {
    return TM_RAISE(TM_ERR_INVALID, "tm_stream_call_host: the function is NULL");
  }
  cudaStream_t handle = tm_stream_handle(stream);
  if (!stream || !handle) {
    return raise_unusable(stream, "tm_stream_call_host: the stream");
  }
  TM_ON_DEVICE(stream->device_id);
  TM_TRY_CUDA(cudaLaunchHostFunc(handle, function, user));
  return TM_OK;
}
