// What is checked of the two sides of a copy before anything is done. Private.
#ifndef TM_TENSOR_COPY_CHECK_H_
#define TM_TENSOR_COPY_CHECK_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tm/alloc/device.h"
#include "tm/base/attributes.h"
#include "tm/base/status.h"
#include "tm/tensor/buffer.h"
#include "tm/tensor/tensor.h"

// Bytes from the tensor's first to its last element.
size_t tm_copy_reach_(const tm_tensor* tensor);

// Whether two tensors reach a common byte, or may: what lies between their elements counts. Dry
// addresses mean something within their own storage only.
bool tm_copy_may_overlap_(const tm_tensor* a, const tm_tensor* b);

// Whether a tensor can be written to: no two of its elements may lie at one place.
// Errors: TM_ERR_INVALID.
TM_NODISCARD tm_status tm_copy_check_writable_(const tm_tensor* destination);

// Whether `source` can be copied to `destination`.
// Errors: TM_ERR_INVALID (null; shapes or dtypes differ; the two overlap; elements of the
//         destination overlap each other).
TM_NODISCARD tm_status tm_copy_check_pair_(const tm_tensor* source, const tm_tensor* destination);

// The first `count` elements of a buffer as a tensor of one dimension, which borrows it; unchecked.
void tm_copy_borrow_(const tm_buffer* buffer, int64_t count, tm_tensor* out);

// The same, checked.
// Errors: TM_ERR_INVALID (null; `count` is negative; elements narrower than a byte that do not end
//         at a whole one), TM_ERR_OUT_OF_RANGE. On error `*out` is null.
TM_NODISCARD tm_status tm_copy_front_(const tm_buffer* buffer, int64_t count, tm_tensor* out);

// The two sides of a copy of `count` elements of `element` bytes each between pointers, as tensors
// that borrow them. Where they lie CUDA is asked, once the process uses devices.
// Errors: TM_ERR_INVALID (`count` is negative, NULL), TM_ERR_OVERFLOW, TM_ERR_CUDA. On error both
//         are null.
TM_NODISCARD tm_status tm_copy_pointers_(const void* source, int64_t count, size_t element,
                                         void* destination, tm_tensor* from, tm_tensor* to);

#endif  // TM_TENSOR_COPY_CHECK_H_
