#include "tm/tensor/copy.h"

#include "alloc/cuda_runtime.h"
#include "tensor/copy_plan.h"
#include "tensor/host_copy.h"
#include "tensor/memcpy_calls.h"
#include "tensor/memory.h"
#include "tensor/stream_use.h"
#include "tensor/strided_copy.h"
#include "tm/context/context.h"
#include "tm/tensor/dry.h"

//===-- Checks ------------------------------------------------------------===//

static size_t bytes_reached(const tm_tensor* tensor) {
  size_t bytes = 0;
  (void)!tm_dtype_bytes(tm_dtype_of(tensor), tm_layout_cosize(&tensor->layout), &bytes);
  return bytes;
}

// Whether two tensors reach a common byte, or may: what lies between their elements counts. Dry
// addresses mean something within their own storage only.
static bool may_overlap(const tm_tensor* a, const tm_tensor* b) {
  if (tm_is_dry(a) || tm_is_dry(b)) {
    if (a->storage != b->storage) {
      return false;
    }
  } else if (tm_on_host_(a) != tm_on_host_(b)) {
    return false;
  }
  const uintptr_t a_begin = (uintptr_t)a->data;
  const uintptr_t b_begin = (uintptr_t)b->data;
  return a_begin < b_begin + bytes_reached(b) && b_begin < a_begin + bytes_reached(a);
}

static TM_COLD tm_status mismatch(const tm_tensor* source, const tm_tensor* destination) {
  const tm_shape from = tm_shape_of(source);
  const tm_shape to = tm_shape_of(destination);
  char from_text[TM_SHAPE_TEXT_SIZE];
  char to_text[TM_SHAPE_TEXT_SIZE];
  tm_shape_text(&from, from_text, sizeof from_text);
  tm_shape_text(&to, to_text, sizeof to_text);
  return TM_RAISE(TM_ERR_INVALID, "copy of %s %s to %s %s: not the same",
                  tm_dtype_name(tm_dtype_of(source)), from_text,
                  tm_dtype_name(tm_dtype_of(destination)), to_text);
}

static bool same_shape(const tm_layout* a, const tm_layout* b) {
  bool same = a->ranked == b->ranked;
  for (int32_t i = 0; same && i < tm_layout_rank(a); i++) {
    same = a->shape[i] == b->shape[i];
  }
  return same;
}

static tm_status check_writable(const tm_tensor* destination) {
  if (!tm_layout_is_injective(&destination->layout)) {
    char text[TM_LAYOUT_TEXT_SIZE];
    tm_layout_text(&destination->layout, text, sizeof text);
    return TM_RAISE(TM_ERR_INVALID, "write to %s: its elements may overlap each other", text);
  }
  return TM_OK;
}

static tm_status check_pair(const tm_tensor* source, const tm_tensor* destination) {
  if (!tm_ok(source) || !tm_ok(destination)) {
    return TM_NULL_HANDLE(tm_ok(source) ? "the destination of a copy" : "the source of a copy");
  }
  if (source->dtype != destination->dtype || !same_shape(&source->layout, &destination->layout)) {
    return mismatch(source, destination);
  }
  TM_TRY(check_writable(destination));
  if (may_overlap(source, destination)) {
    return TM_RAISE(TM_ERR_INVALID, "copy of %zu bytes at %p to %zu bytes at %p: they overlap",
                    bytes_reached(source), source->data, bytes_reached(destination),
                    destination->data);
  }
  return TM_OK;
}

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
  TM_TRY(check_pair(source, destination));
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
  TM_TRY(check_writable(destination));
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

// The buffer's memory as a tensor of one dimension, which borrows it.
static tm_tensor borrow_as_tensor(const tm_buffer* buffer) {
  tm_tensor tensor;
  tensor.storage = buffer->storage;
  tensor.data = buffer->data;
  tensor.device = buffer->device;
  tensor.dtype = buffer->dtype;
  tensor.flags = TM_BORROWED_;
  tensor.layout.ranked = 2;
  tensor.layout.shape[0] = buffer->size;
  tensor.layout.stride[0] = 1;
  return tensor;
}

tm_status tm_buffer_copy(const tm_buffer* source, const tm_buffer* destination) {
  const tm_tensor from = borrow_as_tensor(source);
  const tm_tensor to = borrow_as_tensor(destination);
  return tm_copy(&from, &to);
}

tm_status tm_buffer_clear(const tm_buffer* destination) {
  const tm_tensor to = borrow_as_tensor(destination);
  return tm_clear(&to);
}

tm_status tm_buffer_fill_bytes(const tm_buffer* destination, uint8_t value) {
  const tm_tensor to = borrow_as_tensor(destination);
  return tm_fill_bytes(&to, value);
}

static tm_status check_count(const tm_buffer* buffer, int64_t count) {
  if (!tm_buffer_ok(buffer)) {
    return TM_NULL_HANDLE("a buffer of a copy");
  }
  if (count < 0) {
    return TM_RAISE(TM_ERR_INVALID, "copy of %lld elements: a negative count", (long long)count);
  }
  if (count > buffer->size) {
    return TM_RAISE(TM_ERR_OUT_OF_RANGE, "copy of %lld elements: a buffer has %lld",
                    (long long)count, (long long)buffer->size);
  }
  const tm_dtype dtype = (tm_dtype)buffer->dtype;
  return count == buffer->size || tm_memory_at_byte_(dtype, count)
             ? TM_OK
             : TM_RAISE(TM_ERR_INVALID, "copy of %lld elements of %s: they are no whole bytes",
                        (long long)count, tm_dtype_name(dtype));
}

tm_status tm_buffer_copy_n(const tm_buffer* source, int64_t count, const tm_buffer* destination) {
  TM_TRY(check_count(source, count));
  TM_TRY(check_count(destination, count));
  tm_tensor from = borrow_as_tensor(source);
  tm_tensor to = borrow_as_tensor(destination);
  from.layout.shape[0] = count;
  to.layout.shape[0] = count;
  return tm_copy(&from, &to);
}

//===-- Pointers ----------------------------------------------------------===//

// Before the process uses a device through us there is no stream that could copy from one.
static tm_status locate(const void* pointer, tm_device* out) {
  *out = tm_device_make(TM_CPU, 0);
  if (!tm_cuda_usable_()) {
    return TM_OK;
  }
  struct cudaPointerAttributes attributes;
  TM_TRY_CUDA(cudaPointerGetAttributes(&attributes, pointer));
  if (attributes.type == cudaMemoryTypeHost) {
    *out = tm_device_make(TM_CPU_PINNED, 0);
  } else if (attributes.type != cudaMemoryTypeUnregistered) {
    *out = tm_device_make(TM_DEVICE, attributes.device);
  }
  return TM_OK;
}

static tm_status borrow_bytes(void* data, size_t size, tm_tensor* out) {
  tm_buffer buffer = tm_buffer_null();
  buffer.data = data;
  buffer.size = (int64_t)size;
  buffer.dtype = TM_U8;
  const tm_status status = locate(data, &buffer.device);
  *out = borrow_as_tensor(&buffer);
  return status;
}

void* tm_copy_n_(const void* source, int64_t count, size_t element, void* destination) {
  size_t bytes;
  tm_tensor from;
  tm_tensor to;
  if (count < 0) {
    (void)TM_RAISE(TM_ERR_INVALID, "copy of %lld elements: a negative count", (long long)count);
    return NULL;
  }
  if (count == 0) {
    return destination;
  }
  if (__builtin_mul_overflow((size_t)count, element, &bytes) || bytes > PTRDIFF_MAX) {
    (void)TM_RAISE(TM_ERR_OVERFLOW, "copy of %lld elements of %zu bytes", (long long)count,
                   element);
    return NULL;
  }
  if (!source || !destination) {
    (void)TM_RAISE(TM_ERR_INVALID, "copy of %zu bytes from or to NULL", bytes);
    return NULL;
  }
  if (borrow_bytes((void*)(uintptr_t)source, bytes, &from) != TM_OK ||
      borrow_bytes(destination, bytes, &to) != TM_OK || tm_copy(&from, &to) != TM_OK) {
    return NULL;
  }
  return (char*)destination + bytes;
}
