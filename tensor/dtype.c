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

//===-- Codes of others ---------------------------------------------------===//

enum { NO_CODE = -1 };

static const int16_t cuda_codes[TM_DTYPES] = {
    [TM_DTYPE_NULL] = NO_CODE,
    [TM_BOOL] = NO_CODE,
    [TM_U8] = 8,
    [TM_U16] = 22,
    [TM_U32] = 12,
    [TM_U64] = 26,
    [TM_I8] = 3,
    [TM_I16] = 20,
    [TM_I32] = 10,
    [TM_I64] = 24,
    [TM_F16] = 2,
    [TM_BF16] = 14,
    [TM_F32] = 0,
    [TM_F64] = 1,
    [TM_E4M3] = 28,
    [TM_E5M2] = 29,
    [TM_E2M1] = 33,
    [TM_E2M3] = 31,
    [TM_E3M2] = 32,
    [TM_U2] = NO_CODE,
    [TM_U4] = 18,
    [TM_U6] = NO_CODE,
    [TM_POINTER] = NO_CODE,
};

tm_status tm_dtype_to_cuda(tm_dtype dtype, int* out) {
  if (!out) {
    return TM_RAISE(TM_ERR_INVALID, "tm_dtype_to_cuda: out is NULL");
  }
  *out = NO_CODE;
  if (tm_dtype_bits(dtype) == 0) {
    return no_dtype(dtype);
  }
  *out = cuda_codes[dtype];
  return *out != NO_CODE ? TM_OK
                         : TM_RAISE(TM_ERR_NOT_FOUND, "CUDA has no cudaDataType for elements of %s",
                                    tm_dtype_name(dtype));
}

tm_status tm_dtype_from_cuda(int cuda, tm_dtype* out) {
  if (!out) {
    return TM_RAISE(TM_ERR_INVALID, "tm_dtype_from_cuda: out is NULL");
  }
  *out = TM_DTYPE_NULL;
  for (int i = TM_DTYPE_NULL + 1; i < TM_DTYPES; i++) {
    if (cuda >= 0 && cuda_codes[i] == cuda) {
      *out = (tm_dtype)i;
      return TM_OK;
    }
  }
  return TM_RAISE(TM_ERR_NOT_FOUND, "no dtype stands for cudaDataType %d", cuda);
}

// DLPack's DLDataTypeCode; 0 (a signed integer) for the null type, whose bits match nothing.
static const uint8_t dlpack_codes[TM_DTYPES] = {
    [TM_BOOL] = 6, [TM_U8] = 1,    [TM_U16] = 1,   [TM_U32] = 1,     [TM_U64] = 1,   [TM_I8] = 0,
    [TM_I16] = 0,  [TM_I32] = 0,   [TM_I64] = 0,   [TM_F16] = 2,     [TM_BF16] = 4,  [TM_F32] = 2,
    [TM_F64] = 2,  [TM_E4M3] = 10, [TM_E5M2] = 12, [TM_E2M1] = 17,   [TM_E2M3] = 15, [TM_E3M2] = 16,
    [TM_U2] = 1,   [TM_U4] = 1,    [TM_U6] = 1,    [TM_POINTER] = 3,
};

tm_status tm_dtype_to_dlpack(tm_dtype dtype, uint8_t* code, uint8_t* bits) {
  if (code) {
    *code = 0;
  }
  if (bits) {
    *bits = 0;
  }
  if (!code || !bits) {
    return TM_RAISE(TM_ERR_INVALID, "tm_dtype_to_dlpack: %s is NULL", code ? "bits" : "code");
  }
  if (tm_dtype_bits(dtype) == 0) {
    return no_dtype(dtype);
  }
  *code = dlpack_codes[dtype];
  *bits = (uint8_t)tm_dtype_bits(dtype);
  return TM_OK;
}

tm_status tm_dtype_from_dlpack(uint8_t code, uint8_t bits, tm_dtype* out) {
  if (!out) {
    return TM_RAISE(TM_ERR_INVALID, "tm_dtype_from_dlpack: out is NULL");
  }
  *out = TM_DTYPE_NULL;
  for (int i = TM_DTYPE_NULL + 1; i < TM_DTYPES; i++) {
    if (dlpack_codes[i] == code && tm_dtype_bits((tm_dtype)i) == bits) {
      *out = (tm_dtype)i;
      return TM_OK;
    }
  }
  return TM_RAISE(TM_ERR_NOT_FOUND, "no dtype stands for DLPack's type code %d of %d bits", code,
                  bits);
}
