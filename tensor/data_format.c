#include "tm/tensor/data_format.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static tm_data_format matrix(tm_dtype dtype, int32_t block_in, int32_t block_out) {
  return (tm_data_format){.dtype = dtype, .rank = 2, .block = {block_in, block_out}};
}

tm_data_format tm_data_format_plain(tm_dtype dtype) { return matrix(dtype, 1, 1); }

//===-- Linear layers -----------------------------------------------------===//

static bool is_compute_type(tm_dtype dtype) {
  return dtype == TM_F16 || dtype == TM_BF16 || dtype == TM_F32;
}

static tm_status refuse_blocks(const tm_data_format* asked, const char* allowed) {
  return TM_RAISE(TM_ERR_INVALID,
                  "tm_data_format_linear: blocks of (%" PRId32 ",%" PRId32
                  ") for weights of %s, which take %s",
                  asked->block[0], asked->block[1], tm_dtype_name(asked->dtype), allowed);
}

static tm_status floats(tm_data_format* format) {
  const bool legal = format->block[0] == 1 && format->block[1] == 1;
  return legal ? TM_OK : refuse_blocks(format, "(1,1)");
}

static tm_status fp8(tm_data_format* format, tm_dtype compute) {
  const bool grouped = format->block[1] == 1;
  if (format->block[0] != 128 || (!grouped && format->block[1] != 128)) {
    return refuse_blocks(format, "(128,128) or (128,1)");
  }
  format->scales = grouped ? compute : TM_F32;
  return TM_OK;
}

static tm_status fp4(tm_data_format* format) {
  if (format->block[0] < 1 || format->block[1] != 1) {
    return refuse_blocks(format, "(n,1) with n > 0");
  }
  format->scales = TM_U8;
  return TM_OK;
}

static tm_status integers(tm_data_format* format, tm_dtype compute) {
  if (format->block[0] < 1 || format->block[0] > 256 || format->block[1] != 1) {
    return refuse_blocks(format, "(n,1) with n from 1 to 256");
  }
  format->scales = compute;
  format->zeros = compute;
  return TM_OK;
}

static tm_status resolve(tm_data_format* format, tm_dtype compute) {
  switch (format->dtype) {
    case TM_F16:
    case TM_BF16:
    case TM_F32:
      return floats(format);
    case TM_E4M3:
      return fp8(format, compute);
    case TM_E2M1:
      return fp4(format);
    case TM_U4:
    case TM_U8:
      return integers(format, compute);
    default:
      return TM_RAISE(TM_ERR_UNAVAILABLE,
                      "tm_data_format_linear: no linear layer has weights of %s: it is f16, bf16, "
                      "f32, e4m3, e2m1, u4 or u8",
                      tm_dtype_name(format->dtype));
  }
}

tm_status tm_data_format_linear(tm_dtype compute, tm_dtype weights, int32_t block_in,
                                int32_t block_out, tm_data_format* out) {
  if (!out) {
    return TM_RAISE(TM_ERR_INVALID, "tm_data_format_linear: out is NULL");
  }
  memset(out, 0, sizeof *out);
  if (!is_compute_type(compute)) {
    return TM_RAISE(TM_ERR_INVALID,
                    "tm_data_format_linear: computing in %s: it is f16, bf16 or f32",
                    tm_dtype_name(compute));
  }
  tm_data_format format = matrix(weights, block_in, block_out);
  TM_TRY(resolve(&format, compute));
  *out = format;
  return TM_OK;
}

//===-- What it says ------------------------------------------------------===//

static bool has_blocks(const tm_data_format* format) {
  bool grouped = false;
  for (int32_t i = 0; i < format->rank; i++) {
    grouped = grouped || format->block[i] > 1;
  }
  return grouped;
}

bool tm_data_format_is_quantized(const tm_data_format* format) {
  return format->scales != TM_DTYPE_NULL || format->zeros != TM_DTYPE_NULL || has_blocks(format);
}

bool tm_data_format_equal(const tm_data_format* a, const tm_data_format* b) {
  bool equal =
      a->dtype == b->dtype && a->scales == b->scales && a->zeros == b->zeros && a->rank == b->rank;
  for (int32_t i = 0; equal && i < a->rank; i++) {
    equal = a->block[i] == b->block[i];
  }
  return equal;
}

static tm_status count_blocks(const tm_data_format* format, const tm_shape* shape, tm_shape* out) {
  if (shape->rank != format->rank || shape->rank < 0 || shape->rank > TM_MAX_RANK) {
    return TM_RAISE(TM_ERR_INVALID,
                    "tm_data_format_blocks: a shape of rank %" PRId32
                    " for a format of rank %" PRId32,
                    shape->rank, format->rank);
  }
  for (int32_t i = 0; i < shape->rank; i++) {
    if (shape->dim[i] < 0 || format->block[i] < 1) {
      return TM_RAISE(TM_ERR_INVALID,
                      "tm_data_format_blocks: %" PRId64 " elements in blocks of %" PRId32
                      " along dimension %" PRId32,
                      shape->dim[i], format->block[i], i);
    }
    // Rounded up, without the sum that could overflow.
    out->dim[i] = shape->dim[i] / format->block[i] + (shape->dim[i] % format->block[i] != 0);
  }
  out->rank = shape->rank;
  return TM_OK;
}

tm_status tm_data_format_blocks(const tm_data_format* format, tm_shape shape, tm_shape* out) {
  tm_shape blocks = TM_SHAPE();
  if (!out) {
    return TM_RAISE(TM_ERR_INVALID, "tm_data_format_blocks: out is NULL");
  }
  const tm_status status = format
                               ? count_blocks(format, &shape, &blocks)
                               : TM_RAISE(TM_ERR_INVALID, "tm_data_format_blocks: format is NULL");
  *out = status == TM_OK ? blocks : TM_SHAPE();
  return status;
}

void tm_data_format_text(const tm_data_format* format, char* text, size_t size) {
  char whole[TM_DATA_FORMAT_TEXT_SIZE];
  size_t used = (size_t)snprintf(whole, sizeof whole, "%s", tm_dtype_name(format->dtype));
  if (has_blocks(format)) {
    used += (size_t)snprintf(whole + used, sizeof whole - used, " in (");
    for (int32_t i = 0; i < format->rank; i++) {
      used += (size_t)snprintf(whole + used, sizeof whole - used, "%s%" PRId32, i ? "," : "",
                               format->block[i]);
    }
    used += (size_t)snprintf(whole + used, sizeof whole - used, ")");
  }
  if (format->scales != TM_DTYPE_NULL) {
    used += (size_t)snprintf(whole + used, sizeof whole - used, ", scales %s",
                             tm_dtype_name(format->scales));
  }
  if (format->zeros != TM_DTYPE_NULL) {
    (void)snprintf(whole + used, sizeof whole - used, ", zeros %s", tm_dtype_name(format->zeros));
  }
  snprintf(text, size, "%s", whole);
}
