// Data types of elements, down to 2 bits.
//
// Elements narrower than a byte are packed; a run of them takes whole bytes, rounded up: 3 x u4 are
// 2 bytes.
#ifndef TM_TENSOR_DTYPE_H_
#define TM_TENSOR_DTYPE_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tm/base/attributes.h"
#include "tm/base/status.h"

TM_EXTERN_C_BEGIN

// Structs store it as uint8_t. Zero is the null type, which no element has.
typedef enum tm_dtype {
  TM_DTYPE_NULL = 0,
  TM_BOOL = 1,
  TM_U8 = 2,
  TM_U16 = 3,
  TM_U32 = 4,
  TM_U64 = 5,
  TM_I8 = 6,
  TM_I16 = 7,
  TM_I32 = 8,
  TM_I64 = 9,
  TM_F16 = 10,   // IEEE half
  TM_BF16 = 11,  // bfloat16
  TM_F32 = 12,
  TM_F64 = 13,
  TM_E4M3 = 14,  // 8-bit float: 4 bits of exponent, 3 of mantissa
  TM_E5M2 = 15,  // 8-bit float
  TM_E2M1 = 16,  // 4-bit float
  TM_E2M3 = 17,  // 6-bit float
  TM_E3M2 = 18,  // 6-bit float
  TM_U2 = 19,
  TM_U4 = 20,
  TM_U6 = 21,
  TM_POINTER = 22,  // an address of the device the tensor is on
} tm_dtype;

enum { TM_DTYPES = 23 };  // values of tm_dtype, the null type included

// Bits of one element; 0 for the null type and for a value that is no type.
static inline int tm_dtype_bits(tm_dtype dtype) {
  static const uint8_t bits[TM_DTYPES] = {0,  8,  8, 16, 32, 64, 8, 16, 32, 64, 16, 16,
                                          32, 64, 8, 8,  4,  6,  6, 2,  4,  6,  64};
  return (unsigned)dtype < TM_DTYPES ? bits[dtype] : 0;
}

// Stores the bytes that `count` elements take, rounded up to whole bytes.
// Errors: TM_ERR_INVALID (`out` is NULL, no type, a negative count), TM_ERR_OVERFLOW (more than
//         PTRDIFF_MAX bytes). On error `*out` is 0.
TM_API TM_NODISCARD tm_status tm_dtype_bytes(tm_dtype dtype, int64_t count, size_t* out);

// Stores how many whole elements fit in `bytes`.
// Errors: TM_ERR_INVALID (`out` is NULL, no type), TM_ERR_OVERFLOW (more than INT64_MAX elements).
//         On error `*out` is 0.
TM_API TM_NODISCARD tm_status tm_dtype_count(tm_dtype dtype, size_t bytes, int64_t* out);

// "bool", "u8", "f16", "e4m3", "pointer", ...; "null" for the null type, "unknown" for a value that
// is no type.
TM_API const char* tm_dtype_name(tm_dtype dtype);

// The type of that name, exactly as it prints.
// Errors: TM_ERR_INVALID (NULL), TM_ERR_NOT_FOUND (no such name; "null" is none). On error `*out`
//         is TM_DTYPE_NULL.
TM_API TM_NODISCARD tm_status tm_dtype_parse(const char* name, tm_dtype* out);

//===-- Codes of others ---------------------------------------------------===//

// CUDA's libraries: a cudaDataType (CUDA_R_16F, ...), as the int that it is, since no header here
// includes CUDA's. bool, u2, u6 and pointer have none, and of CUDA's the complex ones, the signed
// 4-bit integer and e8m0 none here.
// Errors: TM_ERR_INVALID (`out` is NULL, no type), TM_ERR_NOT_FOUND (no counterpart). On error
//         `*out` is -1, or TM_DTYPE_NULL.
TM_API TM_NODISCARD tm_status tm_dtype_to_cuda(tm_dtype dtype, int* out);
TM_API TM_NODISCARD tm_status tm_dtype_from_cuda(int cuda, tm_dtype* out);

// DLPack: the `code` and `bits` of a DLDataType of one lane, as of DLPack 1.1. Every type has one:
// e4m3 is DLPack's e4m3fn (no infinities), the 6- and 4-bit floats have 6 and 4 bits, pointer is
// an opaque handle of 64.
// Errors: TM_ERR_INVALID (`code`, `bits` or `out` is NULL, no type), TM_ERR_NOT_FOUND (no
//         counterpart, among them bool of other than 8 bits). On error the outputs are 0, or
//         TM_DTYPE_NULL.
TM_API TM_NODISCARD tm_status tm_dtype_to_dlpack(tm_dtype dtype, uint8_t* code, uint8_t* bits);
TM_API TM_NODISCARD tm_status tm_dtype_from_dlpack(uint8_t code, uint8_t bits, tm_dtype* out);

TM_EXTERN_C_END

//===-- Types of the language (TM_DTYPE_OF) --------------------------------===//

// TM_DTYPE_OF(float) is TM_F32. `type` is a scalar type; any data pointer is TM_POINTER, and what
// no tm_dtype stands for is TM_DTYPE_NULL. C has no name for the narrow floats: say TM_F16.
#ifndef __cplusplus

// clang-format off
#define TM_DTYPE_OF(type)                                       \
  _Generic((type)0,                                             \
      _Bool: TM_BOOL,                                           \
      char: (char)-1 < (char)1 ? TM_I8 : TM_U8,                 \
      signed char: TM_I8,                                       \
      short: TM_I16,                                            \
      int: TM_I32,                                              \
      long: sizeof(long) == 8 ? TM_I64 : TM_I32,                \
      long long: TM_I64,                                        \
      unsigned char: TM_U8,                                     \
      unsigned short: TM_U16,                                   \
      unsigned int: TM_U32,                                     \
      unsigned long: sizeof(long) == 8 ? TM_U64 : TM_U32,       \
      unsigned long long: TM_U64,                               \
      float: TM_F32,                                            \
      double: TM_F64,                                           \
      default: TM_DTYPE_OF_POINTER_((type)0))
// clang-format on
// 5 is what gcc and clang call the class of pointers.
#define TM_DTYPE_OF_POINTER_(x) (__builtin_classify_type(x) == 5 ? TM_POINTER : TM_DTYPE_NULL)

#else

// The narrow floats of the CUDA toolkit's headers, which need not be included.
struct __half;
struct __nv_bfloat16;
struct __nv_fp8_e4m3;
struct __nv_fp8_e5m2;

namespace tmcore {

// The tm_dtype of a C++ type, as `dtype_of<T>::value`. Specialize it for types of your own.
template <class T>
struct dtype_of {
  static constexpr tm_dtype value = TM_DTYPE_NULL;
};

template <class T>
struct dtype_of<const T> : dtype_of<T> {};
template <class T>
struct dtype_of<volatile T> : dtype_of<T> {};
template <class T>
struct dtype_of<const volatile T> : dtype_of<T> {};
template <class T>
struct dtype_of<T*> {
  static constexpr tm_dtype value = TM_POINTER;
};

#define TM_DTYPE_IS_(type, dtype)              \
  template <>                                  \
  struct dtype_of<type> {                      \
    static constexpr tm_dtype value = (dtype); \
  }
TM_DTYPE_IS_(bool, TM_BOOL);
TM_DTYPE_IS_(char, static_cast<char>(-1) < static_cast<char>(1) ? TM_I8 : TM_U8);
TM_DTYPE_IS_(signed char, TM_I8);
TM_DTYPE_IS_(short, TM_I16);
TM_DTYPE_IS_(int, TM_I32);
TM_DTYPE_IS_(long, sizeof(long) == 8 ? TM_I64 : TM_I32);
TM_DTYPE_IS_(long long, TM_I64);
TM_DTYPE_IS_(unsigned char, TM_U8);
TM_DTYPE_IS_(unsigned short, TM_U16);
TM_DTYPE_IS_(unsigned int, TM_U32);
TM_DTYPE_IS_(unsigned long, sizeof(long) == 8 ? TM_U64 : TM_U32);
TM_DTYPE_IS_(unsigned long long, TM_U64);
TM_DTYPE_IS_(float, TM_F32);
TM_DTYPE_IS_(double, TM_F64);
TM_DTYPE_IS_(__half, TM_F16);
TM_DTYPE_IS_(__nv_bfloat16, TM_BF16);
TM_DTYPE_IS_(__nv_fp8_e4m3, TM_E4M3);
TM_DTYPE_IS_(__nv_fp8_e5m2, TM_E5M2);
#undef TM_DTYPE_IS_

}  // namespace tmcore

#define TM_DTYPE_OF(type) (::tmcore::dtype_of<type>::value)

#endif

#endif  // TM_TENSOR_DTYPE_H_
