// Double-buffered state: what a step reads is in front, what it makes for the next goes to the
// back.
//
//   tm_state cache;
//   TM_TRY(tm_state_init(TM_SHAPE(max_batch, hidden), TM_F16, TM_DEVICE, &cache));
//   ...
//   TM_TRY(tm_warp(batch, &cache.front, rows, &perm, &cache.back));  // the rows in a new order
//   TM_TRY(tm_batch_copy_run(batch));
//   tm_state_swap(&cache);                                           // what was back is in front
//   ...
//   tm_state_deinit(&cache);
//
// A tm_state is a value that holds one reference to each of the two. All zero: both are null.
// Threads: a plain value.
#ifndef TM_TENSOR_STATE_H_
#define TM_TENSOR_STATE_H_

#include "tm/alloc/device.h"
#include "tm/base/attributes.h"
#include "tm/base/status.h"
#include "tm/tensor/dtype.h"
#include "tm/tensor/shape.h"
#include "tm/tensor/tensor.h"

TM_EXTERN_C_BEGIN

typedef struct tm_state {
  tm_tensor front;
  tm_tensor back;
} tm_state;

// Two contiguous tensors from the context's innermost allocator of that device type. Contents are
// undefined.
// Ownership: the caller gives them back with tm_state_deinit.
// Errors: those of tm_empty. On error both of `*out` are null.
static inline tm_status tm_state_init(tm_shape shape, tm_dtype dtype, tm_device_type type,
                                      tm_state* out);

// The same from `allocator`.
// Errors: those of tm_empty_from. On error both of `*out` are null.
static inline tm_status tm_state_init_from(tm_allocator* allocator, tm_shape shape, tm_dtype dtype,
                                           tm_state* out);

// Two tensors of one shape, dtype and device, made elsewhere.
// Ownership: takes both references over; `*front` and `*back` become null.
// Errors: TM_ERR_INVALID (null; shapes, dtypes or devices differ; they may overlap, or elements of
//         either may). On error both of `*out` are null, and `*front` and `*back` stay the
//         caller's.
TM_API TM_NODISCARD tm_status tm_state_init_with(tm_tensor* front, tm_tensor* back, tm_state* out);

// Exchanges the two. Copies no values: what streams still do with either goes on.
TM_API void tm_state_swap(tm_state* state);

// Releases both, which become null. Nulls are no-ops.
TM_API void tm_state_deinit(tm_state* state);

// A tm_state variable that is released at the end of its block.
#define tm_auto_state __attribute__((cleanup(tm_state_deinit))) tm_state

//===-- What the inline functions call ------------------------------------===//

// A device type of -1: exactly `allocator`.
TM_API TM_NODISCARD tm_status tm_state_init_(const tm_shape* shape, tm_dtype dtype,
                                             tm_device device, tm_allocator* allocator,
                                             tm_state* out);

TM_NODISCARD static inline tm_status tm_state_init(tm_shape shape, tm_dtype dtype,
                                                   tm_device_type type, tm_state* out) {
  return tm_state_init_(&shape, dtype, tm_device_any_(type), NULL, out);
}

TM_NODISCARD static inline tm_status tm_state_init_from(tm_allocator* allocator, tm_shape shape,
                                                        tm_dtype dtype, tm_state* out) {
  return tm_state_init_(&shape, dtype, tm_device_none_(), allocator, out);
}

TM_EXTERN_C_END

#endif  // TM_TENSOR_STATE_H_
