// RMS normalization on tensors: what an engine calls.
#ifndef TM_EXAMPLES_RMS_NORM_H_
#define TM_EXAMPLES_RMS_NORM_H_

#include <tm/tm.h>

TM_EXTERN_C_BEGIN

// Queues out = x / sqrt(mean(x * x) + epsilon) * weight on `stream`, the mean over the last
// dimension: x and out are (rows, hidden), weight is (hidden), all of f16, bf16 or f32, with any
// strides. Sums are of f32. `out` may be `x`. Under a dry allocator it checks, and runs nothing.
// Where `stream` is not the one that the tensors were made on, the caller records it
// (tm_record_stream).
// Errors: TM_ERR_INVALID (null, another dtype, rank or shape, elements of out that share memory, a
//         tensor or a stream elsewhere, an epsilon that is negative or no number), TM_ERR_CUDA. On
//         error nothing was queued.
TM_NODISCARD tm_status rms_norm(const tm_tensor* x, const tm_tensor* weight, float epsilon,
                                const tm_tensor* out, tm_stream* stream);

TM_EXTERN_C_END

#endif  // TM_EXAMPLES_RMS_NORM_H_
