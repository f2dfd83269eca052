// The names that safetensors files have for types. Private.
#ifndef TM_TENSOR_SAFETENSORS_NAMES_H_
#define TM_TENSOR_SAFETENSORS_NAMES_H_

#include "tm/tensor/dtype.h"

#define TM_SAFETENSORS_METADATA_ "__metadata__"  // the key that is no tensor

enum { TM_SAFETENSORS_MOST_HEADER_ = 100000000 };  // bytes, the limit of every implementation

// NULL where files do not have the type.
static inline const char* tm_safetensors_name_(tm_dtype dtype) {
  static const char* const names[TM_DTYPES] = {
      [TM_BOOL] = "BOOL",    [TM_U8] = "U8",        [TM_U16] = "U16",      [TM_U32] = "U32",
      [TM_U64] = "U64",      [TM_I8] = "I8",        [TM_I16] = "I16",      [TM_I32] = "I32",
      [TM_I64] = "I64",      [TM_F16] = "F16",      [TM_BF16] = "BF16",    [TM_F32] = "F32",
      [TM_F64] = "F64",      [TM_E4M3] = "F8_E4M3", [TM_E5M2] = "F8_E5M2", [TM_E2M1] = "F4",
      [TM_E2M3] = "F6_E2M3", [TM_E3M2] = "F6_E3M2",
  };
  return (unsigned)dtype < TM_DTYPES ? names[dtype] : NULL;
}

#endif  // TM_TENSOR_SAFETENSORS_NAMES_H_
