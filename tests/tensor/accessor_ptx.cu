// Kernels whose PTX accessor_ptx_test.sh looks at: the same sum by each way of indexing.

#include "tm/tensor/accessor.h"

namespace {

template <class Out, class In>
__device__ void add(Out out, In x) {
  const auto i = static_cast<int>(blockIdx.x);
  const auto j = static_cast<int>(blockIdx.y);
  const auto k = static_cast<int>(threadIdx.x);
  out(i, j, k) += x(i, j, k) + x.row(i)[j](k);
}

}  // namespace

extern "C" __global__ void unchecked_32(tmcore::accessor<float, 3, int32_t> out,
                                        tmcore::accessor<const float, 3, int32_t> x) {
  add(out, x);
}

extern "C" __global__ void unchecked_64(tmcore::accessor<float, 3> out,
                                        tmcore::accessor<const float, 3> x) {
  add(out, x);
}

extern "C" __global__ void checked_32(tmcore::accessor<float, 3, int32_t> out,
                                      tmcore::accessor<const float, 3, int32_t> x) {
  add(out.checked(), x.checked());
}

// C's macros work in kernels too.
extern "C" __global__ void macro_unchecked(tm_accessor x) { TM_AT(float, x, threadIdx.x, 1) = 1; }

extern "C" __global__ void macro_checked(tm_accessor x) {
  TM_AT_CHECKED(float, x, threadIdx.x, 1) = 1;
}
