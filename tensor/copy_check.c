#include "tensor/copy_check.h"

#include "alloc/cuda_runtime.h"
#include "tensor/memory.h"
#include "tm/base/checked.h"

size_t tm_copy_reach_(const tm_tensor* tensor) {
  size_t bytes = 0;
  (void)!tm_dtype_bytes(tm_dtype_of(tensor), tm_layout_cosize(&tensor->layout), &bytes);
  return bytes;
}

static bool on_host(const tm_tensor* tensor) { return tensor->device.type != TM_DEVICE; }

bool tm_copy_may_overlap_(const tm_tensor* a, const tm_tensor* b) {
  if (tm_is_dry(a) || tm_is_dry(b)) {
    if (a->storage != b->storage) {
      return false;
    }
  } else if (on_host(a) != on_host(b)) {
    return false;
  }
  const uintptr_t a_begin = (uintptr_t)a->data;
  const uintptr_t b_begin = (uintptr_t)b->data;
  return a_begin < b_begin + tm_copy_reach_(b) && b_begin < a_begin + tm_copy_reach_(a);
}

static TM_COLD tm_status mismatch(const tm_tensor* source, const tm_tensor* destination) {
  const tm_shape from = tm_shape_of(source);
  const tm_shape to = tm_shape_of(destination);
  char from_text[TM_SHAPE_TEXT_SIZE];
  char to_text[TM_SHAPE_TEXT_SIZE];
  tm_shape_text(&from, from_text, sizeof from_text);
  tm_shape_text(&to, to_text, sizeof to_text);
  return TM_RAISE(TM_ERR_INVALID, "copy of %s %.120s to %s %.120s: not the same",
                  tm_dtype_name(tm_dtype_of(source)), from_text,
                  tm_dtype_name(tm_dtype_of(destination)), to_text);
}

tm_status tm_copy_check_writable_(const tm_tensor* destination) {
  if (tm_layout_is_injective(&destination->layout)) {
    return TM_OK;
  }
  char text[TM_LAYOUT_TEXT_SIZE];
  tm_layout_text(&destination->layout, text, sizeof text);
  return TM_RAISE(TM_ERR_INVALID, "write to %.250s: its elements may overlap each other", text);
}

static bool same_shape(const tm_layout* a, const tm_layout* b) {
  bool same = a->ranked == b->ranked;
  for (int32_t i = 0; same && i < tm_layout_rank(a); i++) {
    same = a->shape[i] == b->shape[i];
  }
  return same;
}

tm_status tm_copy_check_pair_(const tm_tensor* source, const tm_tensor* destination) {
  if (!tm_ok(source) || !tm_ok(destination)) {
    return TM_NULL_HANDLE(tm_ok(source) ? "the destination of a copy" : "the source of a copy");
  }
  if (source->dtype != destination->dtype || !same_shape(&source->layout, &destination->layout)) {
    return mismatch(source, destination);
  }
  TM_TRY(tm_copy_check_writable_(destination));
  if (tm_copy_may_overlap_(source, destination)) {
    return TM_RAISE(TM_ERR_INVALID, "copy of %zu bytes at %p to %zu bytes at %p: they overlap",
                    tm_copy_reach_(source), source->data, tm_copy_reach_(destination),
                    destination->data);
  }
  return TM_OK;
}

//===-- Buffers and pointers ----------------------------------------------===//

void tm_copy_borrow_(const tm_buffer* buffer, int64_t count, tm_tensor* out) {
  out->storage = buffer->storage;
  out->data = buffer->data;
  out->device = buffer->device;
  out->dtype = buffer->dtype;
  out->flags = TM_BORROWED_;
  out->layout.ranked = 2;
  out->layout.shape[0] = count;
  out->layout.stride[0] = 1;
}

tm_status tm_copy_front_(const tm_buffer* buffer, int64_t count, tm_tensor* out) {
  tm_reset_(out);
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
  if (count != buffer->size && !tm_memory_at_byte_(dtype, count)) {
    return TM_RAISE(TM_ERR_INVALID, "copy of %lld elements of %s: they are no whole bytes",
                    (long long)count, tm_dtype_name(dtype));
  }
  tm_copy_borrow_(buffer, count, out);
  return TM_OK;
}

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
  buffer.dtype = TM_U8;
  TM_TRY(locate(data, &buffer.device));
  tm_copy_borrow_(&buffer, (int64_t)size, out);
  return TM_OK;
}

tm_status tm_copy_pointers_(const void* source, int64_t count, size_t element, void* destination,
                            tm_tensor* from, tm_tensor* to) {
  size_t bytes;
  tm_reset_(from);
  tm_reset_(to);
  if (count < 0) {
    return TM_RAISE(TM_ERR_INVALID, "copy of %lld elements: a negative count", (long long)count);
  }
  if (!tm_checked_mul((size_t)count, element, &bytes) || bytes > PTRDIFF_MAX) {
    return TM_RAISE(TM_ERR_OVERFLOW, "copy of %lld elements of %zu bytes", (long long)count,
                    element);
  }
  if (!source || !destination) {
    return TM_RAISE(TM_ERR_INVALID, "copy of %zu bytes from or to NULL", bytes);
  }
  TM_TRY(borrow_bytes((void*)(uintptr_t)source, bytes, from));
  const tm_status status = borrow_bytes(destination, bytes, to);
  if (status != TM_OK) {
    tm_reset_(from);
  }
  return status;
}
