#include "tm/tensor/dtype.h"

#include <string.h>

static const char* const names[TM_DTYPES] = {
    "null", "bool", "u8",   "u16",  "u32",  "u64",  "i8",   "i16", "i32", "i64", "f16",     "bf16",
    "f32",  "f64",  "e4m3", "e5m2", "e2m1", "e2m3", "e3m2", "u2",  "u4",  "u6",  "pointer",
};

const char* tm_dtype_name(tm_dtype dtype) {
  return (unsigned)dtype < TM_DTYPES ? names[dtype] : "unknown";
}

static TM_COLD tm_status no_dtype(tm_dtype dtype) {
  return TM_RAISE(TM_ERR_INVALID, "dtype %d (%s) has no elements", (int)dtype,
                  tm_dtype_name(dtype));
}

// Bytes of `count` elements; false where they do not fit. Splitting off whole groups of eight keeps
// the product below the result's bits.
static bool bytes_of(int bits, int64_t count, size_t* out) {
  const size_t groups = (size_t)count / 8;
  const size_t rest = ((size_t)count % 8 * (size_t)bits + 7) / 8;
  size_t bytes;
  if (__builtin_mul_overflow(groups, (size_t)bits, &bytes) ||
      __builtin_add_overflow(bytes, rest, &bytes) || bytes > PTRDIFF_MAX) {
    return false;
  }
  *out = bytes;
  return true;
}

tm_status tm_dtype_bytes(tm_dtype dtype, int64_t count, size_t* out) {
  if (!out) {
    return TM_RAISE(TM_ERR_INVALID, "tm_dtype_bytes: out is NULL");
  }
  *out = 0;
  const int bits = tm_dtype_bits(dtype);
  if (bits == 0) {
    return no_dtype(dtype);
  }
  if (count < 0) {
    return TM_RAISE(TM_ERR_INVALID, "%lld elements of %s: a negative count", (long long)count,
                    tm_dtype_name(dtype));
  }
  if (!bytes_of(bits, count, out)) {
    return TM_RAISE(TM_ERR_OVERFLOW, "%lld elements of %s are more bytes than any object can have",
                    (long long)count, tm_dtype_name(dtype));
  }
  return TM_OK;
}

tm_status tm_dtype_count(tm_dtype dtype, size_t bytes, int64_t* out) {
  if (!out) {
    return TM_RAISE(TM_ERR_INVALID, "tm_dtype_count: out is NULL");
  }
  *out = 0;
  const int bits = tm_dtype_bits(dtype);
  if (bits == 0) {
    return no_dtype(dtype);
  }
  // Every group of `bits` bytes holds eight elements.
  const size_t groups = bytes / (size_t)bits;
  const size_t rest = bytes % (size_t)bits * 8 / (size_t)bits;
  size_t count;
  if (__builtin_mul_overflow(groups, (size_t)8, &count) ||
      __builtin_add_overflow(count, rest, &count) || count > INT64_MAX) {
    return TM_RAISE(TM_ERR_OVERFLOW, "%zu bytes hold more elements of %s than int64_t counts",
                    bytes, tm_dtype_name(dtype));
  }
  *out = (int64_t)count;
  return TM_OK;
}

tm_status tm_dtype_parse(const char* name, tm_dtype* out) {
  if (!out) {
    return TM_RAISE(TM_ERR_INVALID, "tm_dtype_parse: out is NULL");
  }
  *out = TM_DTYPE_NULL;
  if (!name) {
    return TM_RAISE(TM_ERR_INVALID, "tm_dtype_parse: the name is NULL");
  }
  for (int i = TM_DTYPE_NULL + 1; i < TM_DTYPES; i++) {
    if (strcmp(name, names[i]) == 0) {
      *out = (tm_dtype)i;
      return TM_OK;
    }
  }
  return TM_RAISE(TM_ERR_NOT_FOUND, "no dtype is called \"%.64s\"", name);
}
