#include "tm/tensor/copy.h"

#include "alloc/cuda_runtime.h"
#include "tensor/copy_check.h"
#include "tensor/copy_plan.h"
#include "tensor/host_copy.h"
#include "tensor/memcpy_calls.h"
#include "tensor/stream_use.h"
#include "tensor/strided_copy.h"
#include "tm/context/context.h"
#include "tm/tensor/dry.h"

//===-- On a stream -------------------------------------------------------===//

static enum cudaMemcpyKind kind_of(const tm_tensor* source, const tm_tensor* destination) {
  if (tm_on_host_(source)) {
    return cudaMemcpyHostToDevice;
  }
  return tm_on_host_(destination) ? cudaMemcpyDeviceToHost : cudaMemcpyDeviceToDevice;
}

static tm_status enqueue_copy(const tm_tensor* source, const tm_tensor* destination,
                              const tm_copy_plan_* plan, bool by_peer, cudaStream_t stream) {
  const tm_memcpy_calls_ calls = tm_memcpy_calls_make_(plan);
  if (by_peer) {
    return tm_memcpy_calls_copy_peer_(&calls, source->data, source->device.id, destination->data,
                                      destination->device.id, stream);
  }
  bool launched = false;
  if (!tm_on_host_(source) && !tm_on_host_(destination) &&
      tm_strided_copy_pays_(&calls, source->data, destination->data)) {
    TM_TRY(tm_strided_copy_launch_(plan, source->data, destination->data, stream, &launched));
  }
  if (launched) {
    return TM_OK;
  }
  return tm_memcpy_calls_copy_(&calls, source->data, destination->data,
                               kind_of(source, destination), stream);
}

static tm_status enqueue_fill(const tm_tensor* destination, uint8_t value,
                              const tm_copy_plan_* plan, cudaStream_t stream) {
  const tm_memcpy_calls_ calls = tm_memcpy_calls_make_(plan);
  bool launched = false;
  if (tm_strided_fill_pays_(&calls, destination->data)) {
    TM_TRY(tm_strided_fill_launch_(plan, value, destination->data, stream, &launched));
  }
  if (launched) {
    return TM_OK;
  }
  return tm_memcpy_calls_fill_(&calls, value, destination->data, stream);
}

static tm_status record_uses(const tm_tensor* source, const tm_tensor* destination,
                             tm_stream* stream) {
  TM_TRY(tm_stream_use_record_(source, stream));
  return tm_stream_use_record_(destination, stream);
}

// The uses are recorded twice: before, because what a record needs must be there before anything is
// queued; after, because a record covers what is queued by then. That is something also where one
// of several calls failed.
static tm_status copy_on_stream(const tm_tensor* source, const tm_tensor* destination,
                                const tm_copy_plan_* plan) {
  tm_stream* stream = tm_stream_use_find_();
  if (!stream) {
    return tm_last_status();
  }
  bool by_peer;
  TM_TRY(tm_stream_use_check_copy_(source, destination, stream, &by_peer));
  TM_TRY(record_uses(source, destination, stream));
  tm_status queued;
  {
    TM_ON_DEVICE(tm_stream_device(stream).id);
    queued = enqueue_copy(source, destination, plan, by_peer, tm_stream_handle(stream));
  }
  TM_TRY(record_uses(source, destination, stream));
  return queued;
}

static tm_status fill_on_stream(const tm_tensor* destination, uint8_t value,
                                const tm_copy_plan_* plan) {
  tm_stream* stream = tm_stream_use_find_();
  if (!stream) {
    return tm_last_status();
  }
  TM_TRY(tm_stream_use_check_(destination, stream));
  TM_TRY(tm_stream_use_record_(destination, stream));
  tm_status queued;
  {
    TM_ON_DEVICE(tm_stream_device(stream).id);
    queued = enqueue_fill(destination, value, plan, tm_stream_handle(stream));
  }
  TM_TRY(tm_stream_use_record_(destination, stream));
  return queued;
}

//===-- Tensors -----------------------------------------------------------===//

tm_status tm_copy(const tm_tensor* source, const tm_tensor* destination) {
  TM_TRY(tm_copy_check_pair_(source, destination));
  if (tm_size(source) == 0) {
    return TM_OK;
  }
  tm_copy_plan_ plan;
  TM_TRY(tm_copy_plan_make_(tm_dtype_of(source), &source->layout, &destination->layout, &plan));
  if (tm_is_dry(source) || tm_is_dry(destination)) {
    tm_dry_count_(tm_byte_size(source));
    return TM_OK;
  }
  if (!tm_on_host_(source) || !tm_on_host_(destination)) {
    return copy_on_stream(source, destination, &plan);
  }
  tm_host_copy_(&plan, source->data, destination->data);
  return TM_OK;
}

tm_status tm_fill_bytes(const tm_tensor* destination, uint8_t value) {
  if (!tm_ok(destination)) {
    return TM_NULL_HANDLE("the destination of a fill");
  }
  TM_TRY(tm_copy_check_writable_(destination));
  if (tm_size(destination) == 0) {
    return TM_OK;
  }
  tm_copy_plan_ plan;
  TM_TRY(tm_copy_plan_make_(tm_dtype_of(destination), &destination->layout, &destination->layout,
                            &plan));
  if (tm_is_dry(destination)) {
    tm_dry_count_(tm_byte_size(destination));
    return TM_OK;
  }
  if (!tm_on_host_(destination)) {
    return fill_on_stream(destination, value, &plan);
  }
  tm_host_fill_(&plan, value, destination->data);
  return TM_OK;
}

tm_status tm_clear(const tm_tensor* destination) { return tm_fill_bytes(destination, 0); }

//===-- Buffers -----------------------------------------------------------===//

tm_status tm_buffer_copy(const tm_buffer* source, const tm_buffer* destination) {
  tm_tensor from;
  tm_tensor to;
  tm_copy_borrow_(source, source->size, &from);
  tm_copy_borrow_(destination, destination->size, &to);
  return tm_copy(&from, &to);
}

tm_status tm_buffer_copy_n(const tm_buffer* source, int64_t count, const tm_buffer* destination) {
  tm_tensor from;
  tm_tensor to;
  TM_TRY(tm_copy_front_(source, count, &from));
  TM_TRY(tm_copy_front_(destination, count, &to));
  return tm_copy(&from, &to);
}

tm_status tm_buffer_clear(const tm_buffer* destination) {
  return tm_buffer_fill_bytes(destination, 0);
}

tm_status tm_buffer_fill_bytes(const tm_buffer* destination, uint8_t value) {
  tm_tensor to;
  tm_copy_borrow_(destination, destination->size, &to);
  return tm_fill_bytes(&to, value);
}

//===-- Pointers ----------------------------------------------------------===//

void* tm_copy_n_(const void* source, int64_t count, size_t element, void* destination) {
  tm_tensor from;
  tm_tensor to;
  if (count == 0) {
    return destination;
  }
  if (tm_copy_pointers_(source, count, element, destination, &from, &to) != TM_OK ||
      tm_copy(&from, &to) != TM_OK) {
    return NULL;
  }
  return (char*)destination + tm_byte_size(&from);
}
