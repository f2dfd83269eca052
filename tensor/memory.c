#include "tensor/memory.h"

#include "tm/context/context.h"
#include "tm/tensor/dry.h"

tm_status tm_memory_alloc_(tm_device device, tm_allocator* allocator, size_t bytes,
                           tm_storage** out, tm_device* where) {
  *out = NULL;
  if (!allocator) {
    if (device.type == tm_device_none_().type) {
      return TM_NULL_HANDLE("the allocator");
    }
    allocator = tm_require_allocator(device);
    if (!allocator) {
      return tm_last_status();
    }
  }
  *where = tm_allocator_device(allocator);
  if (bytes == 0) {
    return TM_OK;
  }
  return tm_context_alloc(allocator, *where, bytes, out);
}

static tm_status check_device(tm_device device) {
  const int32_t devices = device.type == TM_DEVICE ? (int32_t)TM_MAX_DEVICES : 1;
  if (device.type < 0 || device.type >= TM_DEVICE_TYPES || device.id < 0 || device.id >= devices) {
    return TM_RAISE(TM_ERR_INVALID, "memory on device {%s, %d}: there is no such device",
                    tm_device_type_name((tm_device_type)device.type), device.id);
  }
  return TM_OK;
}

tm_status tm_memory_check_(const void* data, size_t bytes, tm_dtype dtype, tm_device device) {
  TM_TRY(check_device(device));
  if (!data && bytes) {
    return TM_RAISE(TM_ERR_INVALID, "%zu bytes of memory at NULL", bytes);
  }
  const size_t alignment = (size_t)tm_dtype_bits(dtype) / 8;
  if (alignment > 1 && bytes && (uintptr_t)data % alignment != 0) {
    return TM_RAISE(TM_ERR_INVALID, "memory at %p: elements of %s begin at multiples of %zu", data,
                    tm_dtype_name(dtype), alignment);
  }
  return TM_OK;
}

tm_status tm_memory_record_(tm_storage* storage, tm_stream* stream) {
  if (!storage) {
    return TM_OK;
  }
  if (storage->flags & TM_STORAGE_DRY_) {
    tm_dry_count_(0);
    return TM_OK;
  }
  return tm_storage_record_stream(storage, stream);
}
