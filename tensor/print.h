// Tensors for people: a line that says what a tensor is, and its values.
//
//   tm_print(&x, stderr);
//
//   f16 device:0 (2,4096):(4096,1)
//   [[  0.5,     1,     2, ..., -1.25,     3,   nan],
//    [    0,     0,     0, ...,     0,     0,     0]]
//
// Up to 1000 values are shown all; of more, every dimension that is long shows its ends. Floats
// have 6 significant digits and a point, whatever the locale. What is narrower than a byte is
// packed from the low bits up.
#ifndef TM_TENSOR_PRINT_H_
#define TM_TENSOR_PRINT_H_

#include <stdio.h>

#include "tm/base/attributes.h"
#include "tm/base/status.h"
#include "tm/tensor/tensor.h"

TM_EXTERN_C_BEGIN

// Writes `tensor` to `file`; "null" where it is null. Values of device memory are fetched on the
// context's stream, which is waited for: only those that are shown, unless the tensor is small.
// Host memory is read as it is; the caller has seen to it that no stream still writes it. Of dry
// memory there are no values. On failure before the file is written to, nothing is.
// Errors: TM_ERR_INVALID (NULL), TM_ERR_NO_MEMORY, TM_ERR_IO (the file), and for device
//         memory TM_ERR_CAPTURING (the stream is being captured; the capture stays valid) and those
//         of tm_copy.
TM_API TM_NODISCARD tm_status tm_print(const tm_tensor* tensor, FILE* file);

TM_EXTERN_C_END

#endif  // TM_TENSOR_PRINT_H_
