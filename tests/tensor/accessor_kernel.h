// A kernel that takes accessors by value, and how the host launches it.
#ifndef TM_TESTS_TENSOR_ACCESSOR_KERNEL_H_
#define TM_TESTS_TENSOR_ACCESSOR_KERNEL_H_

#include "tm/alloc/stream.h"
#include "tm/base/status.h"
#include "tm/tensor/tensor.h"

TM_EXTERN_C_BEGIN

// out = x * scale + y, for matrices of f32 with any strides, queued on `stream`. A row of `y` with
// stride 0 is added to every row.
tm_status scaled_add(const tm_tensor* x, float scale, const tm_tensor* y, const tm_tensor* out,
                     tm_stream* stream);

// The same for f16.
tm_status scaled_add_half(const tm_tensor* x, float scale, const tm_tensor* y, const tm_tensor* out,
                          tm_stream* stream);

TM_EXTERN_C_END

#endif  // TM_TESTS_TENSOR_ACCESSOR_KERNEL_H_
