// How a possibly quantized tensor is stored: the type of its elements, the blocks that share a
// scale and a zero point, and the types of those.
//
// A block spans `block[d]` elements of dimension d; element x stands for (x - zero) * scale of its
// block. The scales, and the zeros, are a tensor with one element per block.
#ifndef TM_TENSOR_DATA_FORMAT_H_
#define TM_TENSOR_DATA_FORMAT_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tm/base/attributes.h"
#include "tm/base/status.h"
#include "tm/tensor/dtype.h"
#include "tm/tensor/shape.h"

TM_EXTERN_C_BEGIN

// All zero is no format. Compare with tm_data_format_equal: only `rank` blocks are set.
typedef struct tm_data_format {
  tm_dtype dtype;              // of the elements
  tm_dtype scales;             // TM_DTYPE_NULL: there are none
  tm_dtype zeros;              // TM_DTYPE_NULL: there are none
  int32_t rank;                // 0 to TM_MAX_RANK
  int32_t block[TM_MAX_RANK];  // elements along each dimension; 1: none are grouped
} tm_data_format;

// A matrix that is not quantized.
TM_API tm_data_format tm_data_format_plain(tm_dtype dtype);

// The format of a linear layer's weights, [inputs, outputs], whose other operand is `compute` (f16,
// bf16 or f32). `block_in` and `block_out` are the blocks along inputs and outputs.
//
//   weights         blocks                      scales    zeros
//   f16, bf16, f32  (1,1)                       -         -
//   e4m3            (128,128)                   f32       -        for GEMMs with 8-bit operands
//   e4m3            (128,1)                     compute   -        for GEMMs that widen the weights
//   e2m1            (n,1), n > 0                u8        -        MXFP4: the scales are e8m0
//   u4, u8          (n,1), n from 1 to 256      compute   compute  AWQ, GPTQ
//
// These are TurboMind's rules (ResolveLinearWeightFormat).
// Errors: TM_ERR_INVALID (NULL, other blocks, or another compute type), TM_ERR_UNAVAILABLE (weights
// of
//         another type). On failure `*out` is all zero.
// Threads: safe.
TM_API TM_NODISCARD tm_status tm_data_format_linear(tm_dtype compute, tm_dtype weights,
                                                    int32_t block_in, int32_t block_out,
                                                    tm_data_format* out);

// Whether it has scales, zeros, or a block of more than one element.
TM_API bool tm_data_format_is_quantized(const tm_data_format* format);

TM_API bool tm_data_format_equal(const tm_data_format* a, const tm_data_format* b);

// The shape of the scales and of the zeros of a tensor of `shape`: one element per block, the last
// of a dimension perhaps smaller.
// Errors: TM_ERR_INVALID (NULL, another rank than the format's, a negative size, a block that is
// not
//         positive). On failure `*out` is the scalar shape.
// Threads: safe.
TM_API TM_NODISCARD tm_status tm_data_format_blocks(const tm_data_format* format, tm_shape shape,
                                                    tm_shape* out);

enum { TM_DATA_FORMAT_TEXT_SIZE = 160 };  // bytes that hold any format as text, the NUL included

// Writes "f16" or "u4 in (128,1), scales f16, zeros f16"; cuts at `size` bytes, the terminating NUL
// included.
TM_API void tm_data_format_text(const tm_data_format* format, char* text, size_t size);

TM_EXTERN_C_END

#endif  // TM_TENSOR_DATA_FORMAT_H_
