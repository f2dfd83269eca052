// From a dtype, known at run time, to a type of the language, known to the compiler.
//
//   tm_status scale(const tm_tensor* x, double by) {
//     return TM_DISPATCH(tm_dtype_of(x), (TM_F32, TM_F64, TM_I32), T, {
//       T* data = TM_DATA(T, x);
//       for (int64_t i = 0; i < tm_size(x); i++) {
//         data[i] = (T)(data[i] * by);
//       }
//     });
//   }
#ifndef TM_TENSOR_DISPATCH_H_
#define TM_TENSOR_DISPATCH_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tm/base/attributes.h"
#include "tm/base/status.h"
#include "tm/tensor/dtype.h"

TM_EXTERN_C_BEGIN

// Runs the body (what follows `type`, commas included) with `type` a typedef of the C type of
// `dtype`, which is evaluated once. `set` is a list of 1 to 16 dtypes in parentheses, or a macro
// that is one; the body is compiled once for each. An expression: its value is a tm_status.
//
// In the body, `return` leaves the function, `break` the body, and what surrounds it is in scope.
// Nested, the inner `type` has another name. C has no names for the narrow floats and no language
// has them for what is narrower than a byte: in C++ and CUDA, where their headers are included,
// TM_F16, TM_BF16, TM_E4M3 and TM_E5M2 are __half, __nv_bfloat16, __nv_fp8_e4m3, __nv_fp8_e5m2.
//
// Errors: TM_ERR_INVALID (`dtype` is not in the set; the message lists it). Then nothing was run.
#define TM_DISPATCH(dtype, set, type, ...)                                      \
  TM_DISPATCH_(dtype, set, type, TM_UNIQUE_(tm_dtype_), TM_UNIQUE_(tm_status_), \
               TM_UNIQUE_(tm_members_), __VA_ARGS__)

//===-- What the macro uses -----------------------------------------------===//

#define TM_DISPATCH_(asked, set, type, dtype, status, members, ...)                                \
  __extension__({                                                                                  \
    const tm_dtype dtype = (asked);                                                                \
    tm_status status = TM_OK;                                                                      \
    switch ((int)dtype) {                                                                          \
      TM_DISPATCH_CASES_(type, (__VA_ARGS__), TM_DISPATCH_OPEN_ set)                               \
      default: {                                                                                   \
        static const tm_dtype members[] = {TM_DISPATCH_OPEN_ set};                                 \
        status = tm_dispatch_refuse_(dtype, members, sizeof members / sizeof members[0], __FILE__, \
                                     __LINE__);                                                    \
      }                                                                                            \
    }                                                                                              \
    status;                                                                                        \
  })

#define TM_DISPATCH_OPEN_(...) __VA_ARGS__
#define TM_DISPATCH_CASES_(type, body, ...)                                             \
  TM_DISPATCH_PICK_(__VA_ARGS__, TM_DISPATCH_16_, TM_DISPATCH_15_, TM_DISPATCH_14_,     \
                    TM_DISPATCH_13_, TM_DISPATCH_12_, TM_DISPATCH_11_, TM_DISPATCH_10_, \
                    TM_DISPATCH_9_, TM_DISPATCH_8_, TM_DISPATCH_7_, TM_DISPATCH_6_,     \
                    TM_DISPATCH_5_, TM_DISPATCH_4_, TM_DISPATCH_3_, TM_DISPATCH_2_,     \
                    TM_DISPATCH_1_, _)                                                  \
  (type, body, __VA_ARGS__)
#define TM_DISPATCH_PICK_(a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, \
                          name, ...)                                                             \
  name

#define TM_DISPATCH_1_(type, body, dtype)                          \
  case dtype: {                                                    \
    typedef TM_DISPATCH_TYPE_##dtype type __attribute__((unused)); \
    TM_DISPATCH_OPEN_ body                                         \
  } break;
#define TM_DISPATCH_2_(type, body, dtype, ...) \
  TM_DISPATCH_1_(type, body, dtype) TM_DISPATCH_1_(type, body, __VA_ARGS__)
#define TM_DISPATCH_3_(type, body, dtype, ...) \
  TM_DISPATCH_1_(type, body, dtype) TM_DISPATCH_2_(type, body, __VA_ARGS__)
#define TM_DISPATCH_4_(type, body, dtype, ...) \
  TM_DISPATCH_1_(type, body, dtype) TM_DISPATCH_3_(type, body, __VA_ARGS__)
#define TM_DISPATCH_5_(type, body, dtype, ...) \
  TM_DISPATCH_1_(type, body, dtype) TM_DISPATCH_4_(type, body, __VA_ARGS__)
#define TM_DISPATCH_6_(type, body, dtype, ...) \
  TM_DISPATCH_1_(type, body, dtype) TM_DISPATCH_5_(type, body, __VA_ARGS__)
#define TM_DISPATCH_7_(type, body, dtype, ...) \
  TM_DISPATCH_1_(type, body, dtype) TM_DISPATCH_6_(type, body, __VA_ARGS__)
#define TM_DISPATCH_8_(type, body, dtype, ...) \
  TM_DISPATCH_1_(type, body, dtype) TM_DISPATCH_7_(type, body, __VA_ARGS__)
#define TM_DISPATCH_9_(type, body, dtype, ...) \
  TM_DISPATCH_1_(type, body, dtype) TM_DISPATCH_8_(type, body, __VA_ARGS__)
#define TM_DISPATCH_10_(type, body, dtype, ...) \
  TM_DISPATCH_1_(type, body, dtype) TM_DISPATCH_9_(type, body, __VA_ARGS__)
#define TM_DISPATCH_11_(type, body, dtype, ...) \
  TM_DISPATCH_1_(type, body, dtype) TM_DISPATCH_10_(type, body, __VA_ARGS__)
#define TM_DISPATCH_12_(type, body, dtype, ...) \
  TM_DISPATCH_1_(type, body, dtype) TM_DISPATCH_11_(type, body, __VA_ARGS__)
#define TM_DISPATCH_13_(type, body, dtype, ...) \
  TM_DISPATCH_1_(type, body, dtype) TM_DISPATCH_12_(type, body, __VA_ARGS__)
#define TM_DISPATCH_14_(type, body, dtype, ...) \
  TM_DISPATCH_1_(type, body, dtype) TM_DISPATCH_13_(type, body, __VA_ARGS__)
#define TM_DISPATCH_15_(type, body, dtype, ...) \
  TM_DISPATCH_1_(type, body, dtype) TM_DISPATCH_14_(type, body, __VA_ARGS__)
#define TM_DISPATCH_16_(type, body, dtype, ...) \
  TM_DISPATCH_1_(type, body, dtype) TM_DISPATCH_15_(type, body, __VA_ARGS__)

#define TM_DISPATCH_TYPE_TM_BOOL bool
#define TM_DISPATCH_TYPE_TM_U8 uint8_t
#define TM_DISPATCH_TYPE_TM_U16 uint16_t
#define TM_DISPATCH_TYPE_TM_U32 uint32_t
#define TM_DISPATCH_TYPE_TM_U64 uint64_t
#define TM_DISPATCH_TYPE_TM_I8 int8_t
#define TM_DISPATCH_TYPE_TM_I16 int16_t
#define TM_DISPATCH_TYPE_TM_I32 int32_t
#define TM_DISPATCH_TYPE_TM_I64 int64_t
#define TM_DISPATCH_TYPE_TM_F32 float
#define TM_DISPATCH_TYPE_TM_F64 double
#define TM_DISPATCH_TYPE_TM_POINTER void*
#ifdef __cplusplus
#define TM_DISPATCH_TYPE_TM_F16 ::__half
#define TM_DISPATCH_TYPE_TM_BF16 ::__nv_bfloat16
#define TM_DISPATCH_TYPE_TM_E4M3 ::__nv_fp8_e4m3
#define TM_DISPATCH_TYPE_TM_E5M2 ::__nv_fp8_e5m2
#endif

// Raises TM_ERR_INVALID, with the members' names.
TM_API TM_COLD tm_status tm_dispatch_refuse_(tm_dtype dtype, const tm_dtype* members, size_t count,
                                             const char* file, int line);

TM_EXTERN_C_END

#endif  // TM_TENSOR_DISPATCH_H_
