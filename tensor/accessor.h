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
// C code uses tm_accessor and TM_AT. Indexing is unchecked on both sides, as a kernel wants it; the
// call that is to be checked says so (TM_AT_CHECKED, x.checked()), whatever the program is compiled
// with. A check that fails goes to the fatal handler on the host, with the index, the dimension and
// its size; in a kernel it prints them and traps.
//
// Offsets are 64-bit. Where tm_fits_int32 they may be 32-bit, which costs a kernel fewer registers
// and instructions: tmcore::accessor<float, 2, int32_t>.
//
// An accessor holds no reference: it is valid while its tensor is.
#ifndef TM_TENSOR_ACCESSOR_H_
#define TM_TENSOR_ACCESSOR_H_

#include <stdbool.h>
#include <stdint.h>
#ifdef __CUDACC__
#include <stdio.h>
#endif

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
//         address). On error `*out` has rank 0, no dtype and no data.
TM_API TM_NODISCARD tm_status tm_accessor_make(const tm_tensor* tensor, tm_dtype dtype,
                                               int32_t rank, tm_accessor* out);

// Whether 32 bits with a sign hold every size, every stride that an index is multiplied with, and
// the offset of every element and of every byte of one.
TM_API bool tm_fits_int32(const tm_accessor* accessor);

// The element at a full index, as an lvalue: TM_AT(float, x, i, j) = 1. Takes 0 to 8 indices, as
// many as the accessor has dimensions, and checks nothing. `accessor` is a variable; it and the
// indices are evaluated once. `type` is the one the accessor was made for. C has no name for the
// narrow floats: there uint16_t and uint8_t are their bits.
#define TM_AT(type, accessor, ...)                                                          \
  (*(type*)TM_SHAPE_PICK_(_ __VA_OPT__(, ) __VA_ARGS__, tm_at8_, tm_at7_, tm_at6_, tm_at5_, \
                          tm_at4_, tm_at3_, tm_at2_, tm_at1_,                               \
                          tm_at0_)(&(accessor), sizeof(type) __VA_OPT__(, ) __VA_ARGS__))

// The same, checked: that the accessor was made for `type`, that there are as many indices as
// dimensions, and that each is from 0 to its size. What is not is fatal; in a kernel it prints a
// line and traps.
#define TM_AT_CHECKED(type, accessor, ...)                                                     \
  (*(type*)tm_at_checked_(&(accessor), TM_DTYPE_OF(type), sizeof(type), TM_INDEX(__VA_ARGS__), \
                          __FILE__, __LINE__))

//===-- What the macros use -----------------------------------------------===//

TM_HOST_DEVICE_ static inline void* tm_at_(const tm_accessor* x, size_t bytes, int64_t offset) {
  return (char*)x->data + offset * (int64_t)bytes;
}

TM_HOST_DEVICE_ static inline int64_t tm_offset2_(const int64_t* stride, int64_t a, int64_t b) {
  return a * stride[0] + b * stride[1];
}

TM_HOST_DEVICE_ static inline int64_t tm_offset4_(const int64_t* stride, int64_t a, int64_t b,
                                                  int64_t c, int64_t d) {
  return tm_offset2_(stride, a, b) + tm_offset2_(stride + 2, c, d);
}

TM_HOST_DEVICE_ static inline void* tm_at0_(const tm_accessor* x, size_t bytes) {
  return tm_at_(x, bytes, 0);
}

TM_HOST_DEVICE_ static inline void* tm_at1_(const tm_accessor* x, size_t bytes, int64_t a) {
  return tm_at_(x, bytes, a * x->stride[0]);
}

TM_HOST_DEVICE_ static inline void* tm_at2_(const tm_accessor* x, size_t bytes, int64_t a,
                                            int64_t b) {
  return tm_at_(x, bytes, tm_offset2_(x->stride, a, b));
}

TM_HOST_DEVICE_ static inline void* tm_at3_(const tm_accessor* x, size_t bytes, int64_t a,
                                            int64_t b, int64_t c) {
  return tm_at_(x, bytes, tm_offset2_(x->stride, a, b) + c * x->stride[2]);
}

TM_HOST_DEVICE_ static inline void* tm_at4_(const tm_accessor* x, size_t bytes, int64_t a,
                                            int64_t b, int64_t c, int64_t d) {
  return tm_at_(x, bytes, tm_offset4_(x->stride, a, b, c, d));
}

TM_HOST_DEVICE_ static inline void* tm_at5_(const tm_accessor* x, size_t bytes, int64_t a,
                                            int64_t b, int64_t c, int64_t d, int64_t e) {
  return tm_at_(x, bytes, tm_offset4_(x->stride, a, b, c, d) + e * x->stride[4]);
}

TM_HOST_DEVICE_ static inline void* tm_at6_(const tm_accessor* x, size_t bytes, int64_t a,
                                            int64_t b, int64_t c, int64_t d, int64_t e, int64_t f) {
  return tm_at_(x, bytes, tm_offset4_(x->stride, a, b, c, d) + tm_offset2_(x->stride + 4, e, f));
}

TM_HOST_DEVICE_ static inline void* tm_at7_(const tm_accessor* x, size_t bytes, int64_t a,
                                            int64_t b, int64_t c, int64_t d, int64_t e, int64_t f,
                                            int64_t g) {
  return tm_at_(
      x, bytes,
      tm_offset4_(x->stride, a, b, c, d) + tm_offset2_(x->stride + 4, e, f) + g * x->stride[6]);
}

TM_HOST_DEVICE_ static inline void* tm_at8_(const tm_accessor* x, size_t bytes, int64_t a,
                                            int64_t b, int64_t c, int64_t d, int64_t e, int64_t f,
                                            int64_t g, int64_t h) {
  return tm_at_(x, bytes,
                tm_offset4_(x->stride, a, b, c, d) + tm_offset4_(x->stride + 4, e, f, g, h));
}

// Fatal, on the host.
TM_API TM_COLD void tm_index_fatal_(int64_t index, int dim, int64_t size, const char* file,
                                    int line) __attribute__((noreturn));
TM_API TM_COLD void tm_access_fatal_(const tm_accessor* accessor, tm_dtype dtype, int rank,
                                     const char* file, int line) __attribute__((noreturn));

// Does not return.
TM_HOST_DEVICE_ static inline void tm_index_failed_(int64_t index, int dim, int64_t size,
                                                    const char* file, int line) {
#ifdef __CUDA_ARCH__
  printf("%s:%d: index %lld in dimension %d, whose size is %lld\n", file, line, (long long)index,
         dim, (long long)size);
  __trap();
#else
  tm_index_fatal_(index, dim, size, file, line);
#endif
}

// Does not return.
TM_HOST_DEVICE_ static inline void tm_access_failed_(const tm_accessor* x, tm_dtype dtype, int rank,
                                                     const char* file, int line) {
#ifdef __CUDA_ARCH__
  printf("%s:%d: %d indices and dtype %d for an accessor of rank %d and dtype %d\n", file, line,
         rank, (int)dtype, (int)x->rank, (int)x->dtype);
  __trap();
#else
  tm_access_fatal_(x, dtype, rank, file, line);
#endif
}

// Whether elements of `made` may be read as `asked`: as what they are, or as the bits of a float
// that C has no name for.
TM_HOST_DEVICE_ static inline bool tm_reads_as_(tm_dtype made, tm_dtype asked) {
  return made == asked || (asked == TM_U16 && (made == TM_F16 || made == TM_BF16)) ||
         (asked == TM_U8 && (made == TM_E4M3 || made == TM_E5M2));
}

TM_HOST_DEVICE_ static inline void* tm_at_checked_(const tm_accessor* x, tm_dtype dtype,
                                                   size_t bytes, tm_shape index, const char* file,
                                                   int line) {
  if (TM_UNLIKELY(!tm_reads_as_((tm_dtype)x->dtype, dtype) || x->rank != index.rank)) {
    tm_access_failed_(x, dtype, index.rank, file, line);
  }
  int64_t offset = 0;
  for (int i = 0; i < index.rank; i++) {
    if (TM_UNLIKELY(index.dim[i] < 0 || index.dim[i] >= x->shape[i])) {
      tm_index_failed_(index.dim[i], i, x->shape[i], file, line);
    }
    offset += index.dim[i] * x->stride[i];
  }
  return tm_at_(x, bytes, offset);
}

// Raises TM_ERR_OVERFLOW where tm_fits_int32 is false, and takes the data away.
TM_API tm_status tm_accessor_expect_int32_(tm_accessor* accessor);

TM_EXTERN_C_END

//===-- C++ and CUDA ------------------------------------------------------===//

#ifdef __cplusplus

#include <type_traits>

namespace tmcore {

template <class T, int Rank, class Index>
struct checked_accessor;

// `Rank` dimensions of T, which may be const. `Index` is the type of offsets, int64_t or int32_t.
// Trivially copyable.
template <class T, int Rank, class Index = int64_t>
struct accessor {
  static_assert(Rank >= 0 && Rank <= TM_MAX_RANK, "rank out of 0 to 8");
  static_assert(std::is_same<Index, int64_t>::value || std::is_same<Index, int32_t>::value,
                "offsets are of 64 or 32 bits, with a sign");

  // NOLINTBEGIN(misc-non-private-member-variables-in-classes): what a kernel reads, and nothing
  // else
  T* data;
  Index shape[Rank + (Rank == 0)];
  Index stride[Rank + (Rank == 0)];  // elements
  // NOLINTEND(misc-non-private-member-variables-in-classes)

  TM_HOST_DEVICE_ Index size(int dim) const { return shape[dim]; }

  // The element at a full index.
  template <class... Integer>
  TM_HOST_DEVICE_ T& operator()(Integer... index) const {
    static_assert(sizeof...(Integer) == Rank, "as many indices as dimensions");
    const Index at[Rank + (Rank == 0)] = {static_cast<Index>(index)...};
    Index offset = 0;
    for (int i = 0; i < Rank; i++) {
      offset += at[i] * stride[i];
    }
    return data[offset];
  }

  // The part at index `i` of the outermost dimension.
  TM_HOST_DEVICE_ accessor<T, Rank - (Rank > 0), Index> row(Index i) const {
    static_assert(Rank > 0, "a scalar has no dimension");
    accessor<T, Rank - (Rank > 0), Index> part;
    part.data = data + i * stride[0];
    for (int d = 1; d < Rank; d++) {
      part.shape[d - 1] = shape[d];
      part.stride[d - 1] = stride[d];
    }
    return part;
  }
  TM_HOST_DEVICE_ accessor<T, Rank - (Rank > 0), Index> operator[](Index i) const { return row(i); }

  // The same for reading only.
  TM_HOST_DEVICE_ accessor<const T, Rank, Index> as_const() const {
    accessor<const T, Rank, Index> result;
    result.data = data;
    for (int d = 0; d < Rank; d++) {
      result.shape[d] = shape[d];
      result.stride[d] = stride[d];
    }
    return result;
  }

  // The same with checked indices. A check that fails names the place of this call.
  TM_HOST_DEVICE_ checked_accessor<T, Rank, Index> checked(const char* file = __builtin_FILE(),
                                                           int line = __builtin_LINE()) const {
    return checked_accessor<T, Rank, Index>{*this, file, line};
  }
};

// An accessor whose indices are checked, each against its dimension: x.checked()(i, j).
template <class T, int Rank, class Index>
struct checked_accessor {
  // NOLINTBEGIN(misc-non-private-member-variables-in-classes): as an accessor's
  accessor<T, Rank, Index> unchecked;
  const char* file;
  int line;
  // NOLINTEND(misc-non-private-member-variables-in-classes)

  TM_HOST_DEVICE_ Index size(int dim) const { return unchecked.shape[dim]; }

  template <class... Integer>
  TM_HOST_DEVICE_ T& operator()(Integer... index) const {
    static_assert(sizeof...(Integer) == Rank, "as many indices as dimensions");
    const int64_t at[Rank + (Rank == 0)] = {static_cast<int64_t>(index)...};
    for (int i = 0; i < Rank; i++) {
      check(at[i], i);
    }
    return unchecked(index...);
  }

  TM_HOST_DEVICE_ checked_accessor<T, Rank - (Rank > 0), Index> row(int64_t i) const {
    check(i, 0);
    return checked_accessor<T, Rank - (Rank > 0), Index>{unchecked.row(static_cast<Index>(i)), file,
                                                         line};
  }
  TM_HOST_DEVICE_ checked_accessor<T, Rank - (Rank > 0), Index> operator[](int64_t i) const {
    return row(i);
  }

 private:
  TM_HOST_DEVICE_ void check(int64_t index, int dim) const {
    if (TM_UNLIKELY(index < 0 || index >= unchecked.shape[dim])) {
      tm_index_failed_(index, dim, unchecked.shape[dim], file, line);
    }
  }
};

// Stores the accessor of a tensor that has elements of T and `Rank` dimensions.
// Errors: as tm_accessor_make; TM_ERR_OVERFLOW (32-bit offsets, where tm_fits_int32 is false). On
//         error `*out` has no data and sizes of 0.
template <class T, int Rank, class Index>
TM_NODISCARD inline tm_status make_accessor(const tm_tensor* tensor,
                                            accessor<T, Rank, Index>* out) {
  static_assert(dtype_of<T>::value != TM_DTYPE_NULL, "no tm_dtype stands for this type");
  tm_accessor made;
  tm_status status = tm_accessor_make(tensor, dtype_of<T>::value, Rank, &made);
  if (status == TM_OK && sizeof(Index) == sizeof(int32_t)) {
    status = tm_accessor_expect_int32_(&made);
  }
  out->data = static_cast<T*>(made.data);
  for (int i = 0; i < Rank; i++) {
    out->shape[i] = status == TM_OK ? static_cast<Index>(made.shape[i]) : 0;
    // Strides that nothing is multiplied with may be of any size.
    const bool counts = status == TM_OK && made.shape[i] > 1;
    out->stride[i] = counts ? static_cast<Index>(made.stride[i]) : 0;
  }
  return status;
}

}  // namespace tmcore

#endif

#endif  // TM_TENSOR_ACCESSOR_H_
