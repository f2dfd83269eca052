// What buffers and tensors share: taking memory, vetting foreign memory, passing references on.
// Private.
#ifndef TM_TENSOR_MEMORY_H_
#define TM_TENSOR_MEMORY_H_

#include <stddef.h>
#include <stdint.h>

#include "tm/alloc/allocator.h"
#include "tm/alloc/device.h"
#include "tm/alloc/storage.h"
#include "tm/alloc/stream.h"
#include "tm/base/attributes.h"
#include "tm/base/status.h"
#include "tm/tensor/buffer.h"
#include "tm/tensor/dtype.h"

// Takes `bytes` from `allocator`, or, where that is NULL, from the context's for `device`; asks the
// context's handlers when memory runs out. Stores where the memory lies; of 0 bytes, where it
// would. Errors: as tm_buffer_empty. On error, and for 0 bytes, `*out` is NULL.
TM_NODISCARD tm_status tm_memory_alloc_(tm_device device, tm_allocator* allocator, size_t bytes,
                                        tm_storage** out, tm_device* where);

// Whether memory of somebody else's can hold `bytes` of such elements.
// Errors: TM_ERR_INVALID.
TM_NODISCARD tm_status tm_memory_check_(const void* data, size_t bytes, tm_dtype dtype,
                                        tm_device device);

// The memory is also used on `stream`; counts where it is dry.
TM_NODISCARD tm_status tm_memory_record_(tm_storage* storage, tm_stream* stream);

// Whether a handle's reference can be handed on by a function that consumes the handle.
static inline bool tm_memory_owns_(uint8_t flags, int take) {
  return take == TM_TAKE_MOVE_ && !(flags & TM_BORROWED_);
}

// The reference of a handle made from another.
static inline tm_storage* tm_memory_take_(tm_storage* storage, uint8_t flags, int take) {
  return tm_memory_owns_(flags, take) ? storage : tm_storage_retain(storage);
}

// The handle was consumed and nothing holds its memory now.
static inline void tm_memory_drop_(tm_storage* storage, uint8_t flags, int take) {
  if (tm_memory_owns_(flags, take)) {
    tm_storage_release(storage);
  }
}

// Bytes before element `index`, which begins at a whole byte. Splitting off whole groups of eight
// keeps the product in range.
static inline int64_t tm_memory_offset_(tm_dtype dtype, int64_t index) {
  const int64_t bits = tm_dtype_bits(dtype);
  return index / 8 * bits + index % 8 * bits / 8;
}

// Whether element `index` begins at a whole byte.
static inline bool tm_memory_at_byte_(tm_dtype dtype, int64_t index) {
  return index % 8 * tm_dtype_bits(dtype) % 8 == 0;
}

#endif  // TM_TENSOR_MEMORY_H_
