// Accessors: what a kernel needs of a tensor (pointer, sizes, strides), checked once on the host
// and passed by value.
//
//   __global__ void scale(tmcore::accessor<float, 2> x, float by) {
//     x(blockIdx.x, threadIdx.x) *= by;
//   }
//   tmcore::accessor<float, 2> x;
//   TM_TRY(tmcore::make_accessor(&tensor, &x));
//   scale<<<x.size(0), x.size(1), 0, stream>>>(x, 2.f);
//
// C code uses tm_accessor and TM_AT. Indexing is unchecked on both sides, as a kernel wants it.
// An accessor holds no reference: it is valid while its tensor is.
#ifndef TM_TENSOR_ACCESSOR_H_
#define TM_TENSOR_ACCESSOR_H_

#include <stdint.h>

#include "tm/base/attributes.h"
#include "tm/base/status.h"
#include "tm/tensor/dtype.h"
#include "tm/tensor/shape.h"
#include "tm/tensor/tensor.h"

TM_EXTERN_C_BEGIN

// Only the first `rank` entries of shape and stride are set.
typedef struct tm_accessor {
  void* data;  // element 0; NULL where there are none
  int64_t shape[TM_MAX_RANK];
  int64_t stride[TM_MAX_RANK];  // elements
  int32_t rank;
  uint8_t dtype;  // a tm_dtype
} tm_accessor;

// Stores the accessor of a tensor that has elements of `dtype` and `rank` dimensions.
// Errors: TM_ERR_INVALID (null; another dtype or rank; elements narrower than a byte, which have no
//         address). On error `*out` has rank 0 and no data.
TM_API TM_NODISCARD tm_status tm_accessor_make(const tm_tensor* tensor, tm_dtype dtype,
                                               int32_t rank, tm_accessor* out);

// The element at a full index, as an lvalue: TM_AT(float, x, i, j) = 1. `type` is the one that the
// accessor was made for. One to four indices.
#define TM_AT(type, accessor, ...)                                                        \
  (((type*)(accessor).data)[TM_AT_PICK_(__VA_ARGS__, tm_at4_, tm_at3_, tm_at2_, tm_at1_)( \
      (accessor).stride, __VA_ARGS__)])

#define TM_AT_PICK_(a, b, c, d, name, ...) name

static inline int64_t tm_at1_(const int64_t* stride, int64_t a) { return a * stride[0]; }

static inline int64_t tm_at2_(const int64_t* stride, int64_t a, int64_t b) {
  return a * stride[0] + b * stride[1];
}

static inline int64_t tm_at3_(const int64_t* stride, int64_t a, int64_t b, int64_t c) {
  return a * stride[0] + b * stride[1] + c * stride[2];
}

static inline int64_t tm_at4_(const int64_t* stride, int64_t a, int64_t b, int64_t c, int64_t d) {
  return a * stride[0] + b * stride[1] + c * stride[2] + d * stride[3];
}

TM_EXTERN_C_END

//===-- C++ and CUDA ------------------------------------------------------===//

#ifdef __cplusplus

#ifdef __CUDACC__
#define TM_HOST_DEVICE_ __host__ __device__ __forceinline__
#else
#define TM_HOST_DEVICE_ inline
#endif

namespace tmcore {

// `Rank` dimensions of T. Trivially copyable.
template <class T, int Rank>
struct accessor {
  static_assert(Rank >= 0 && Rank <= TM_MAX_RANK, "rank out of 0 to 8");

  // NOLINTBEGIN(misc-non-private-member-variables-in-classes): what a kernel reads, and nothing
  // else
  T* data;
  int64_t shape[Rank + (Rank == 0)];
  int64_t stride[Rank + (Rank == 0)];  // elements
  // NOLINTEND(misc-non-private-member-variables-in-classes)

  TM_HOST_DEVICE_ int64_t size(int dim) const { return shape[dim]; }

  // The element at a full index.
  template <class... Index>
  TM_HOST_DEVICE_ T& operator()(Index... index) const {
    static_assert(sizeof...(Index) == Rank, "as many indices as dimensions");
    const int64_t at[Rank + (Rank == 0)] = {static_cast<int64_t>(index)...};
    int64_t offset = 0;
    for (int i = 0; i < Rank; i++) {
      offset += at[i] * stride[i];
    }
    return data[offset];
  }

  // The part at index `i` of the outermost dimension.
  TM_HOST_DEVICE_ accessor<T, Rank - (Rank > 0)> operator[](int64_t i) const {
    static_assert(Rank > 0, "a scalar has no dimension");
    accessor<T, Rank - 1> part;
    part.data = data + i * stride[0];
    for (int d = 1; d < Rank; d++) {
      part.shape[d - 1] = shape[d];
      part.stride[d - 1] = stride[d];
    }
    return part;
  }
};

// Stores the accessor of a tensor that has elements of T and `Rank` dimensions.
// Errors: as tm_accessor_make. On error `*out` has no data and sizes of 0.
template <class T, int Rank>
TM_NODISCARD inline tm_status make_accessor(const tm_tensor* tensor, accessor<T, Rank>* out) {
  static_assert(dtype_of<T>::value != TM_DTYPE_NULL, "no tm_dtype stands for this type");
  tm_accessor made;
  const tm_status status = tm_accessor_make(tensor, dtype_of<T>::value, Rank, &made);
  out->data = static_cast<T*>(made.data);
  for (int i = 0; i < Rank; i++) {
    out->shape[i] = status == TM_OK ? made.shape[i] : 0;
    out->stride[i] = status == TM_OK ? made.stride[i] : 0;
  }
  return status;
}

}  // namespace tmcore

#endif

#endif  // TM_TENSOR_ACCESSOR_H_
