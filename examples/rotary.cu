// Rotary position embedding: a kernel that takes accessors by value, one block of threads a token.

#include "examples/rotary.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>

#include "examples/launch.h"
#include "examples/rotary_token.h"

namespace {

enum {
  THREADS = 128,
  MAXIMUM_BLOCKS = 1 << 20,  // each goes on with further tokens
};

template <class T, class Index>
__global__ void __launch_bounds__(THREADS) kernel(rotary_arguments<T, Index> a) {
  for (auto token = static_cast<Index>(blockIdx.x); token < a.x.size(0);
       token += static_cast<Index>(gridDim.x)) {
    rotary_token(a, token, static_cast<Index>(threadIdx.x), Index{THREADS});
  }
}

template <class T, class Index>
tm_status launch(const tm_tensor* x, const tm_tensor* positions, const rotary_options* options,
                 const tm_tensor* out, tm_stream* stream) {
  rotary_arguments<T, Index> arguments;
  TM_TRY(rotary_prepare(x, positions, options, out, &arguments));
  TM_TRY(check_device("rotary", {x, positions, out}, stream));
  if (any_is_dry({x, positions, out}) || tm_size(out) == 0) {
    return TM_OK;
  }
  const on_device_of scope(stream);
  const int64_t blocks = std::min<int64_t>(tm_dim(x, 0), MAXIMUM_BLOCKS);
  kernel<T, Index>
      <<<static_cast<unsigned>(blocks), THREADS, 0, tm_stream_handle(stream)>>>(arguments);
  return launched("rotary");
}

}  // namespace

tm_status rotary(const tm_tensor* x, const tm_tensor* positions, const rotary_options* options,
                 const tm_tensor* out, tm_stream* stream) {
  if (!tm_ok(x) || !tm_ok(positions) || !tm_ok(out)) {
    return TM_NULL_HANDLE("a tensor of rotary");
  }
  if (!options) {
    return TM_RAISE(TM_ERR_INVALID, "rotary: no options");
  }
  return TM_DISPATCH(tm_dtype_of(x), (TM_F16, TM_BF16, TM_F32), T, {
    TM_TRY(fit_int32({x, positions, out})
               ? (launch<T, int32_t>(x, positions, options, out, stream))
               : (launch<T, int64_t>(x, positions, options, out, stream)));
  });
}
