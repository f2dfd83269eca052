// What the threads of a block do about a row of rms_norm. Compiled for kernels, and as plain C++,
// where a loop over the threads does the same.
#ifndef TM_EXAMPLES_RMS_NORM_ROW_H_
#define TM_EXAMPLES_RMS_NORM_ROW_H_

#include <tm/tm.h>

#include <cmath>

#include "examples/launch.h"

// What the kernel takes by value.
template <class T, class Index>
struct rms_norm_arguments {
  tmcore::accessor<const T, 2, Index> x;       // (rows, hidden)
  tmcore::accessor<const T, 1, Index> weight;  // (hidden)
  tmcore::accessor<T, 2, Index> out;           // (rows, hidden)
  float epsilon;
};

// Errors: as rms_norm, but for where the tensors lie.
template <class T, class Index>
tm_status rms_norm_prepare(const tm_tensor* x, const tm_tensor* weight, float epsilon,
                           const tm_tensor* out, rms_norm_arguments<T, Index>* arguments) {
  TM_TRY(tmcore::make_accessor(x, &arguments->x));
  TM_TRY(tmcore::make_accessor(weight, &arguments->weight));
  TM_TRY(tmcore::make_accessor(out, &arguments->out));
  TM_TRY(check_same_shape("rms_norm", x, out));
  TM_TRY(check_written("rms_norm", out));
  if (tm_dim(weight, 0) != tm_dim(x, 1)) {
    return TM_RAISE(TM_ERR_INVALID, "rms_norm: %lld weights for rows of %lld",
                    static_cast<long long>(tm_dim(weight, 0)),
                    static_cast<long long>(tm_dim(x, 1)));
  }
  if (!(epsilon >= 0)) {
    return TM_RAISE(TM_ERR_INVALID, "rms_norm: an epsilon of %g", static_cast<double>(epsilon));
  }
  arguments->epsilon = epsilon;
  return TM_OK;
}

// The sum of the squares that fall to one thread of `threads`.
template <class T, class Index>
HOST_DEVICE float rms_norm_sum(const rms_norm_arguments<T, Index>& a, Index row, Index thread,
                               Index threads) {
  const auto x = a.x.row(row);
  float sum = 0;
  for (Index i = thread; i < x.size(0); i += threads) {
    const auto value = static_cast<float>(x(i));
    sum += value * value;
  }
  return sum;
}

// What a row is multiplied with, of the sum over all threads.
template <class T, class Index>
HOST_DEVICE float rms_norm_scale(const rms_norm_arguments<T, Index>& a, float sum) {
  return 1.f / sqrtf(sum / static_cast<float>(a.x.size(1)) + a.epsilon);
}

// Writes the elements that fall to one thread: those that it has read.
template <class T, class Index>
HOST_DEVICE void rms_norm_write(const rms_norm_arguments<T, Index>& a, Index row, float scale,
                                Index thread, Index threads) {
  const auto x = a.x.row(row);
  const auto out = a.out.row(row);
  for (Index i = thread; i < x.size(0); i += threads) {
    out(i) = T(static_cast<float>(x(i)) * scale * static_cast<float>(a.weight(i)));
  }
}

#endif  // TM_EXAMPLES_RMS_NORM_ROW_H_
