#include "tensor/stream_use.h"

#include "alloc/cuda_runtime.h"
#include "tm/alloc/storage.h"
#include "tm/context/context.h"

// A stream without a handle is one that its owner took back: CUDA would take that for the default
// stream.
tm_stream* tm_stream_use_find_(void) {
  tm_stream* stream = tm_require_stream();
  if (stream && !tm_stream_handle(stream)) {
    (void)TM_RAISE(TM_ERR_INVALID, "the current stream was disowned");
    return NULL;
  }
  return stream;
}

static bool is_of(const tm_tensor* tensor, const tm_stream* stream) {
  return tensor->device.id == tm_stream_device(stream).id;
}

tm_status tm_stream_use_check_(const tm_tensor* tensor, const tm_stream* stream) {
  return tm_on_host_(tensor) || is_of(tensor, stream)
             ? TM_OK
             : TM_RAISE(TM_ERR_INVALID,
                        "memory of device %d is written or read on a stream of device %d",
                        (int)tensor->device.id, (int)tm_stream_device(stream).id);
}

// Both devices of a copy between two must be there still: what a lost one answers would be put down
// to the stream's.
tm_status tm_stream_use_check_copy_(const tm_tensor* source, const tm_tensor* destination,
                                    const tm_stream* stream, bool* by_peer) {
  *by_peer = false;
  if (tm_on_host_(source) || tm_on_host_(destination)) {
    TM_TRY(tm_stream_use_check_(source, stream));
    return tm_stream_use_check_(destination, stream);
  }
  *by_peer = !is_of(source, stream) || !is_of(destination, stream);
  if (*by_peer) {
    TM_TRY(tm_device_check_(source->device.id));
    TM_TRY(tm_device_check_(destination->device.id));
  }
  return TM_OK;
}

// Pageable memory is done with when the runtime's call returns.
tm_status tm_stream_use_record_(const tm_tensor* tensor, tm_stream* stream) {
  if (!tensor->storage || tensor->device.type == TM_CPU || tensor->storage->stream == stream) {
    return TM_OK;
  }
  return tm_storage_record_stream(tensor->storage, stream);
}
