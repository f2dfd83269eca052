#include "tm/tensor/accessor.h"

static tm_status check(const tm_tensor* tensor, tm_dtype dtype, int32_t rank) {
  if (!tm_ok(tensor)) {
    return TM_NULL_HANDLE("the tensor of an accessor");
  }
  if (tensor->dtype != dtype) {
    return TM_RAISE(TM_ERR_INVALID, "accessor of %s asked, the tensor is of %s",
                    tm_dtype_name(dtype), tm_dtype_name(tm_dtype_of(tensor)));
  }
  if (tm_rank(tensor) != rank) {
    return TM_RAISE(TM_ERR_INVALID, "accessor of rank %d asked, the tensor has rank %d", rank,
                    tm_rank(tensor));
  }
  if (tm_dtype_bits(dtype) < 8) {
    return TM_RAISE(TM_ERR_INVALID, "accessor of %s: its elements have no addresses",
                    tm_dtype_name(dtype));
  }
  return TM_OK;
}

tm_status tm_accessor_make(const tm_tensor* tensor, tm_dtype dtype, int32_t rank,
                           tm_accessor* out) {
  if (!out) {
    return TM_RAISE(TM_ERR_INVALID, "tm_accessor_make: out is NULL");
  }
  out->data = NULL;
  out->rank = 0;
  out->dtype = TM_DTYPE_NULL;
  TM_TRY(check(tensor, dtype, rank));
  out->data = tensor->data;
  out->rank = rank;
  out->dtype = (uint8_t)dtype;
  for (int32_t i = 0; i < rank; i++) {
    out->shape[i] = tensor->layout.shape[i];
    out->stride[i] = tensor->layout.stride[i];
  }
  return TM_OK;
}
