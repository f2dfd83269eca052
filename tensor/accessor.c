#include "tm/tensor/accessor.h"

#include "tm/base/fatal.h"

//===-- Making ------------------------------------------------------------===//

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

//===-- 32-bit offsets ----------------------------------------------------===//

static bool is_empty(const tm_accessor* accessor) {
  for (int32_t i = 0; i < accessor->rank; i++) {
    if (accessor->shape[i] == 0) {
      return true;
    }
  }
  return false;
}

// Stores the offset of the last byte that an accessor reaches, 0 where it has no elements. False
// where 64 bits do not hold it.
static bool last_byte(const tm_accessor* accessor, int64_t* out) {
  int64_t elements = 0;
  *out = 0;
  if (is_empty(accessor)) {
    return true;
  }
  for (int32_t i = 0; i < accessor->rank; i++) {
    int64_t step;
    if (__builtin_mul_overflow(accessor->shape[i] - 1, accessor->stride[i], &step) ||
        __builtin_add_overflow(elements, step, &elements)) {
      return false;
    }
  }
  const int64_t bytes = tm_dtype_bits((tm_dtype)accessor->dtype) / 8;
  return !__builtin_mul_overflow(elements, bytes, &elements) &&
         !__builtin_add_overflow(elements, bytes - 1, out);
}

// What 32 bits do not hold, and where it is one of a dimension, of which; NULL where all fits.
static const char* first_beyond_int32(const tm_accessor* accessor, int64_t* value, int32_t* dim) {
  for (*dim = 0; *dim < accessor->rank; ++*dim) {
    *value = accessor->shape[*dim];
    if (*value > INT32_MAX) {
      return "a size";
    }
    *value = accessor->stride[*dim];
    if (*value > INT32_MAX && accessor->shape[*dim] > 1) {
      return "a stride";
    }
  }
  *dim = -1;
  if (!last_byte(accessor, value)) {
    *value = INT64_MAX;
  }
  return *value > INT32_MAX ? "an offset in bytes" : NULL;
}

bool tm_fits_int32(const tm_accessor* accessor) {
  int64_t value;
  int32_t dim;
  return !first_beyond_int32(accessor, &value, &dim);
}

tm_status tm_accessor_expect_int32_(tm_accessor* accessor) {
  int64_t value;
  int32_t dim;
  const char* what = first_beyond_int32(accessor, &value, &dim);
  if (!what) {
    return TM_OK;
  }
  accessor->data = NULL;
  if (dim < 0) {
    return TM_RAISE(TM_ERR_OVERFLOW, "accessor of 32 bits: the tensor has %s of %lld, over %d",
                    what, (long long)value, INT32_MAX);
  }
  return TM_RAISE(TM_ERR_OVERFLOW, "accessor of 32 bits: dimension %d has %s of %lld, over %d", dim,
                  what, (long long)value, INT32_MAX);
}

//===-- Checks that fail --------------------------------------------------===//

void tm_index_fatal_(int64_t index, int dim, int64_t size, const char* file, int line) {
  tm_fatal_(file, line, "index %lld in dimension %d, whose size is %lld", (long long)index, dim,
            (long long)size);
}

void tm_access_fatal_(const tm_accessor* accessor, tm_dtype dtype, int rank, const char* file,
                      int line) {
  if (accessor->rank != rank) {
    tm_fatal_(file, line, "%d indices for an accessor of rank %d", rank, accessor->rank);
  }
  tm_fatal_(file, line, "an accessor of %s read as %s", tm_dtype_name((tm_dtype)accessor->dtype),
            tm_dtype_name(dtype));
}
