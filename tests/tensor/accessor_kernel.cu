#include "tests/tensor/accessor_kernel.h"

#include <cuda_fp16.h>

#include "tm/tensor/accessor.h"

namespace {

using tmcore::accessor;

enum { COLUMNS = 32, ROWS = 8 };  // of a block of threads

template <class T>
__global__ void scaled_add_kernel(accessor<const T, 2> x, float scale, accessor<const T, 2> y,
                                  accessor<T, 2, int32_t> out) {
  const int64_t row = int64_t{blockIdx.y} * ROWS + threadIdx.y;
  const int64_t column = int64_t{blockIdx.x} * COLUMNS + threadIdx.x;
  if (row < out.size(0) && column < out.size(1)) {
    out(row, column) = T(static_cast<float>(x(row, column)) * scale +
                         static_cast<float>(y.checked()[row](column)));
  }
}

template <class T>
tm_status check_same_shape(const accessor<const T, 2>& x, const accessor<T, 2, int32_t>& out) {
  if (x.size(0) != out.size(0) || x.size(1) != out.size(1)) {
    return TM_RAISE(TM_ERR_INVALID, "scaled add of (%lld,%lld) to (%lld,%lld)",
                    static_cast<long long>(x.size(0)), static_cast<long long>(x.size(1)),
                    static_cast<long long>(out.size(0)), static_cast<long long>(out.size(1)));
  }
  return TM_OK;
}

template <class T>
tm_status launch(const tm_tensor* x, float scale, const tm_tensor* y, const tm_tensor* out,
                 tm_stream* stream) {
  accessor<const T, 2> x_access;
  accessor<const T, 2> y_access;
  accessor<T, 2, int32_t> out_access;
  TM_TRY(tmcore::make_accessor(x, &x_access));
  TM_TRY(tmcore::make_accessor(y, &y_access));
  TM_TRY(tmcore::make_accessor(out, &out_access));
  TM_TRY(check_same_shape(x_access, out_access));
  TM_TRY(check_same_shape(y_access, out_access));
  if (tm_is_dry(out) || tm_size(out) == 0) {
    return TM_OK;
  }
  const dim3 threads(COLUMNS, ROWS);
  const dim3 blocks(static_cast<unsigned>((out_access.size(1) + COLUMNS - 1) / COLUMNS),
                    static_cast<unsigned>((out_access.size(0) + ROWS - 1) / ROWS));
  scaled_add_kernel<T>
      <<<blocks, threads, 0, tm_stream_handle(stream)>>>(x_access, scale, y_access, out_access);
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? TM_OK
                              : TM_RAISE(TM_ERR_CUDA, "scaled add: %s", cudaGetErrorString(error));
}

}  // namespace

tm_status scaled_add(const tm_tensor* x, float scale, const tm_tensor* y, const tm_tensor* out,
                     tm_stream* stream) {
  return launch<float>(x, scale, y, out, stream);
}

tm_status scaled_add_half(const tm_tensor* x, float scale, const tm_tensor* y, const tm_tensor* out,
                          tm_stream* stream) {
  return launch<__half>(x, scale, y, out, stream);
}
