// Rotary position embedding on tensors: what an engine calls.
#ifndef TM_EXAMPLES_ROTARY_H_
#define TM_EXAMPLES_ROTARY_H_

#include <stdbool.h>
#include <tm/tm.h>

TM_EXTERN_C_BEGIN

typedef struct rotary_options {
  float theta;       // the base of the frequencies, e.g. 10000; above 0
  bool interleaved;  // pairs are elements (2i, 2i + 1); otherwise (i, i + half)
} rotary_options;

// Queues the rotation of each pair i of every head by position * theta^(-2i / dim) on `stream`: x
// and out are (tokens, heads, dim) with any strides, of f16, bf16 or f32; positions is (tokens) of
// i32; dim is even. `out` may be `x`. Under a dry allocator it checks, and runs nothing. Where
// `stream` is not the one that the tensors were made on, the caller records it (tm_record_stream).
// Errors: TM_ERR_INVALID (null, another dtype, rank or shape, an odd dim, elements of out that
//         share memory, a tensor or a stream elsewhere, theta), TM_ERR_CUDA. On error nothing was
//         queued.
TM_NODISCARD tm_status rotary(const tm_tensor* x, const tm_tensor* positions,
                              const rotary_options* options, const tm_tensor* out,
                              tm_stream* stream);

TM_EXTERN_C_END

#endif  // TM_EXAMPLES_ROTARY_H_
