// RMS normalization: a kernel that takes accessors by value, one block of threads a row.

#include "examples/rms_norm.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>

#include "examples/launch.h"
#include "examples/rms_norm_row.h"

namespace {

enum {
  WARP = 32,
  WARPS = 8,
  THREADS = WARP * WARPS,
  MAXIMUM_BLOCKS = 1 << 20,  // each goes on with further rows
};

// The sum over the block, for every thread. `sums` is free again after the next __syncthreads.
__device__ float block_sum(float value, float* sums) {
  for (int distance = WARP / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, distance);
  }
  if (threadIdx.x % WARP == 0) {
    sums[threadIdx.x / WARP] = value;
  }
  __syncthreads();
  float sum = 0;
  for (int warp = 0; warp < WARPS; warp++) {
    sum += sums[warp];
  }
  return sum;
}

template <class T, class Index>
__global__ void __launch_bounds__(THREADS) kernel(rms_norm_arguments<T, Index> a) {
  __shared__ float sums[WARPS];
  const auto thread = static_cast<Index>(threadIdx.x);
  for (auto row = static_cast<Index>(blockIdx.x); row < a.x.size(0);
       row += static_cast<Index>(gridDim.x)) {
    const float sum = block_sum(rms_norm_sum(a, row, thread, Index{THREADS}), sums);
    rms_norm_write(a, row, rms_norm_scale(a, sum), thread, Index{THREADS});
    __syncthreads();
  }
}

template <class T, class Index>
tm_status launch(const tm_tensor* x, const tm_tensor* weight, float epsilon, const tm_tensor* out,
                 tm_stream* stream) {
  rms_norm_arguments<T, Index> arguments;
  TM_TRY(rms_norm_prepare(x, weight, epsilon, out, &arguments));
  TM_TRY(check_device("rms_norm", {x, weight, out}, stream));
  if (any_is_dry({x, weight, out}) || tm_size(out) == 0) {
    return TM_OK;
  }
  const on_device_of scope(stream);
  const int64_t blocks = std::min<int64_t>(tm_dim(x, 0), MAXIMUM_BLOCKS);
  kernel<T, Index>
      <<<static_cast<unsigned>(blocks), THREADS, 0, tm_stream_handle(stream)>>>(arguments);
  return launched("rms_norm");
}

}  // namespace

tm_status rms_norm(const tm_tensor* x, const tm_tensor* weight, float epsilon, const tm_tensor* out,
                   tm_stream* stream) {
  if (!tm_ok(x) || !tm_ok(weight) || !tm_ok(out)) {
    return TM_NULL_HANDLE("a tensor of rms_norm");
  }
  return TM_DISPATCH(tm_dtype_of(x), (TM_F16, TM_BF16, TM_F32), T, {
    TM_TRY(fit_int32({x, weight, out}) ? (launch<T, int32_t>(x, weight, epsilon, out, stream))
                                       : (launch<T, int64_t>(x, weight, epsilon, out, stream)));
  });
}
