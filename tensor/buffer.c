#include "tm/tensor/buffer.h"

#include <inttypes.h>
#include <stdio.h>

#include "tensor/memory.h"

static tm_buffer make(tm_storage* storage, void* data, int64_t size, tm_device device,
                      tm_dtype dtype) {
  tm_buffer buffer;
  buffer.storage = storage;
  buffer.data = data;
  buffer.size = size;
  buffer.device = device;
  buffer.dtype = (uint8_t)dtype;
  buffer.flags = 0;
  return buffer;
}

//===-- Creating ----------------------------------------------------------===//

tm_buffer tm_buffer_empty_(int64_t size, tm_dtype dtype, tm_device device,
                           tm_allocator* allocator) {
  size_t bytes;
  tm_storage* storage;
  tm_device where;
  if (tm_dtype_bytes(dtype, size, &bytes) != TM_OK ||
      tm_memory_alloc_(device, allocator, bytes, &storage, &where) != TM_OK) {
    return tm_buffer_null();
  }
  return make(storage, storage ? storage->data : NULL, size, where, dtype);
}

// Whether an operation can start on `buffer`; raises where not.
static bool is_usable(const tm_buffer* buffer) {
  if (TM_LIKELY(tm_buffer_ok(buffer))) {
    return true;
  }
  (void)TM_NULL_HANDLE("a buffer");
  return false;
}

tm_buffer tm_buffer_empty_like(const tm_buffer* buffer) {
  return is_usable(buffer)
             ? tm_buffer_empty_on(buffer->size, (tm_dtype)buffer->dtype, buffer->device)
             : tm_buffer_null();
}

tm_buffer tm_buffer_empty_like_on(const tm_buffer* buffer, tm_device_type type) {
  return is_usable(buffer) ? tm_buffer_empty(buffer->size, (tm_dtype)buffer->dtype, type)
                           : tm_buffer_null();
}

tm_buffer tm_buffer_empty_like_as(const tm_buffer* buffer, tm_dtype dtype) {
  return is_usable(buffer) ? tm_buffer_empty_on(buffer->size, dtype, buffer->device)
                           : tm_buffer_null();
}

tm_buffer tm_buffer_empty_like_as_on(const tm_buffer* buffer, tm_dtype dtype, tm_device_type type) {
  return is_usable(buffer) ? tm_buffer_empty(buffer->size, dtype, type) : tm_buffer_null();
}

static tm_status check_foreign(const void* data, int64_t size, tm_dtype dtype, tm_device device,
                               size_t* bytes) {
  TM_TRY(tm_dtype_bytes(dtype, size, bytes));
  return tm_memory_check_(data, *bytes, dtype, device);
}

tm_buffer tm_buffer_from_borrowed(void* data, int64_t size, tm_dtype dtype, tm_device device) {
  size_t bytes;
  if (check_foreign(data, size, dtype, device, &bytes) != TM_OK) {
    return tm_buffer_null();
  }
  return make(NULL, bytes ? data : NULL, size, device, dtype);
}

tm_buffer tm_buffer_adopt(void* data, size_t bytes, int64_t size, tm_dtype dtype, tm_device device,
                          tm_deleter deleter, void* user) {
  size_t needed;
  tm_storage* storage;
  if (check_foreign(data, size, dtype, device, &needed) != TM_OK) {
    return tm_buffer_null();
  }
  if (needed > bytes) {
    (void)TM_RAISE(TM_ERR_OUT_OF_RANGE, "%lld elements of %s take %zu bytes, %zu are adopted",
                   (long long)size, tm_dtype_name(dtype), needed, bytes);
    return tm_buffer_null();
  }
  if (tm_storage_adopt(data, bytes, deleter, user, &storage) != TM_OK) {
    return tm_buffer_null();
  }
  return make(storage, needed ? data : NULL, size, device, dtype);
}

//===-- Asking ------------------------------------------------------------===//

size_t tm_buffer_byte_size(const tm_buffer* buffer) {
  size_t bytes = 0;
  return tm_buffer_ok(buffer) &&
                 tm_dtype_bytes((tm_dtype)buffer->dtype, buffer->size, &bytes) == TM_OK
             ? bytes
             : 0;
}

void* tm_buffer_data_as(const tm_buffer* buffer, tm_dtype dtype) {
  if (!is_usable(buffer)) {
    return NULL;
  }
  if (buffer->dtype != dtype) {
    (void)TM_RAISE(TM_ERR_INVALID, "data of a buffer of %s asked as %s",
                   tm_dtype_name((tm_dtype)buffer->dtype), tm_dtype_name(dtype));
    return NULL;
  }
  return buffer->data;
}

static tm_status check_index(const tm_buffer* buffer, int64_t index) {
  if (index < 0 || index > buffer->size) {
    return TM_RAISE(TM_ERR_OUT_OF_RANGE, "element %" PRId64 " of a buffer of %" PRId64, index,
                    buffer->size);
  }
  const tm_dtype dtype = (tm_dtype)buffer->dtype;
  return tm_memory_at_byte_(dtype, index)
             ? TM_OK
             : TM_RAISE(TM_ERR_INVALID,
                        "element %" PRId64 " of a buffer of %s: it begins at no byte", index,
                        tm_dtype_name(dtype));
}

void* tm_buffer_data_at(const tm_buffer* buffer, int64_t index) {
  if (!is_usable(buffer) || check_index(buffer, index) != TM_OK || !buffer->data) {
    return NULL;
  }
  return (char*)buffer->data + tm_memory_offset_((tm_dtype)buffer->dtype, index);
}

bool tm_buffer_equal(const tm_buffer* a, const tm_buffer* b) {
  return a->storage == b->storage && a->data == b->data && a->size == b->size &&
         a->dtype == b->dtype && tm_device_equal(a->device, b->device);
}

void tm_buffer_text(const tm_buffer* buffer, char* text, size_t size) {
  const tm_dtype dtype = (tm_dtype)buffer->dtype;
  const uint64_t width = (uint64_t)tm_dtype_bits(dtype);
  if (width == 0) {
    snprintf(text, size, "null");
    return;
  }
  const uintptr_t at = (uintptr_t)buffer->data;
  // Without elements there is no address, though adopted memory has one.
  const uintptr_t begin = at && buffer->storage ? (uintptr_t)buffer->storage->data : at;
  const uint64_t bits = (uint64_t)(at - begin) * 8;  // below 2^63: addresses are of 48 bits, or 57
  char base[32] = "";
  if (bits % width != 0) {
    snprintf(base, sizeof base, "+%" PRIu64 "B", bits / 8);
  } else if (bits != 0) {
    snprintf(base, sizeof base, "+%" PRIu64, bits / width);
  }
  snprintf(text, size, "%s[%" PRId64 "]@0x%" PRIxPTR "%s", tm_dtype_name(dtype), buffer->size,
           begin, base);
}

//===-- Changing ----------------------------------------------------------===//

static tm_buffer give_up(const tm_buffer* source, int take) {
  tm_memory_drop_(source->storage, source->flags, take);
  return tm_buffer_null();
}

// `size` elements of `dtype`, `offset` bytes into `source`.
static tm_buffer derive(const tm_buffer* source, int64_t offset, int64_t size, tm_dtype dtype,
                        int take) {
  if (size == 0) {
    tm_memory_drop_(source->storage, source->flags, take);
    return make(NULL, NULL, 0, source->device, dtype);
  }
  return make(tm_memory_take_(source->storage, source->flags, take), (char*)source->data + offset,
              size, source->device, dtype);
}

static tm_status check_slice(const tm_buffer* buffer, int64_t base, int64_t* size) {
  const tm_dtype dtype = (tm_dtype)buffer->dtype;
  if (*size < -1) {
    return TM_RAISE(TM_ERR_INVALID, "slice of a buffer of %lld elements: a size of %lld",
                    (long long)buffer->size, (long long)*size);
  }
  if (base < 0 || base > buffer->size || *size > buffer->size - base) {
    return TM_RAISE(TM_ERR_OUT_OF_RANGE,
                    "slice of a buffer: %lld elements from %lld on asked, there are %lld",
                    (long long)*size, (long long)base, (long long)buffer->size);
  }
  *size = *size == -1 ? buffer->size - base : *size;
  const int64_t end = base + *size;
  if (*size != 0 && (!tm_memory_at_byte_(dtype, base) ||
                     (end != buffer->size && !tm_memory_at_byte_(dtype, end)))) {
    return TM_RAISE(TM_ERR_INVALID, "slice of a buffer of %s: %lld to %lld are no whole bytes",
                    tm_dtype_name(dtype), (long long)base, (long long)end);
  }
  return TM_OK;
}

tm_buffer tm_buffer_slice_(const tm_buffer* buffer, int64_t base, int64_t size, int take) {
  if (!is_usable(buffer) || check_slice(buffer, base, &size) != TM_OK) {
    return give_up(buffer, take);
  }
  const tm_dtype dtype = (tm_dtype)buffer->dtype;
  return derive(buffer, tm_memory_offset_(dtype, base), size, dtype, take);
}

static tm_status check_as(const tm_buffer* buffer, tm_dtype dtype, int64_t* size) {
  const tm_dtype is = (tm_dtype)buffer->dtype;
  const size_t bytes = tm_buffer_byte_size(buffer);
  size_t exact;
  TM_TRY(tm_dtype_count(dtype, bytes, size));
  *size = dtype == is ? buffer->size : *size;
  TM_TRY(tm_dtype_bytes(dtype, *size, &exact));
  // A last byte that is only partly in use belongs to no element of another type.
  if (dtype != is && (exact != bytes || !tm_memory_at_byte_(is, buffer->size) ||
                      !tm_memory_at_byte_(dtype, *size))) {
    return TM_RAISE(TM_ERR_INVALID, "%lld elements of %s are no whole number of %s",
                    (long long)buffer->size, tm_dtype_name(is), tm_dtype_name(dtype));
  }
  return tm_memory_check_(buffer->data, bytes, dtype, buffer->device);
}

tm_buffer tm_buffer_as_(const tm_buffer* buffer, tm_dtype dtype, int take) {
  int64_t size;
  if (!is_usable(buffer) || check_as(buffer, dtype, &size) != TM_OK) {
    return give_up(buffer, take);
  }
  return derive(buffer, 0, size, dtype, take);
}

tm_status tm_buffer_record_stream(const tm_buffer* buffer, tm_stream* stream) {
  return tm_buffer_ok(buffer) ? tm_memory_record_(buffer->storage, stream)
                              : TM_NULL_HANDLE("a buffer");
}
