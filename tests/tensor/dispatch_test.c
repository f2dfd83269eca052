#include "tm/tensor/dispatch.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#define EVERY_TYPE_OF_C                                                                   \
  (TM_BOOL, TM_U8, TM_U16, TM_U32, TM_U64, TM_I8, TM_I16, TM_I32, TM_I64, TM_F32, TM_F64, \
   TM_POINTER)

static int evaluations;

static tm_dtype once(tm_dtype dtype) {
  evaluations++;
  return dtype;
}

Test(dispatch, the_type_is_that_of_the_dtype) {
  int in_the_set = 0;
  for (int i = 0; i < TM_DTYPES; i++) {
    const tm_dtype dtype = (tm_dtype)i;
    tm_dtype ran = TM_DTYPE_NULL;
    size_t bits = 0;
    const tm_status status = TM_DISPATCH(once(dtype), EVERY_TYPE_OF_C, T, {
      ran = TM_DTYPE_OF(T);
      bits = sizeof(T) * 8;
    });
    if (status == TM_OK) {
      cr_expect(eq(int, ran, dtype));
      cr_expect(eq(sz, bits, (size_t)tm_dtype_bits(dtype)));
      in_the_set++;
    } else {
      cr_expect(eq(int, status, TM_ERR_INVALID));
      cr_expect(eq(int, ran, TM_DTYPE_NULL), "the body ran for %s", tm_dtype_name(dtype));
    }
  }
  cr_expect(eq(int, in_the_set, 12));
  cr_expect(eq(int, evaluations, TM_DTYPES));
}

Test(dispatch, others_are_refused_and_the_set_is_listed) {
  cr_expect(
      eq(int, TM_DISPATCH(TM_F16, (TM_F32, TM_I64), T, { (void)sizeof(T); }), TM_ERR_INVALID));
  cr_expect(eq(str, (char*)tm_last_error()->message, "dtype f16 is none of f32, i64"));
  cr_expect(eq(int, TM_DISPATCH(TM_U4, (TM_U8), T, { (void)sizeof(T); }), TM_ERR_INVALID));
  cr_expect(eq(str, (char*)tm_last_error()->message, "dtype u4 is none of u8"));
  cr_expect(eq(int, TM_DISPATCH(TM_DTYPE_NULL, EVERY_TYPE_OF_C, T, {}), TM_ERR_INVALID));
  cr_expect(eq(str, (char*)tm_last_error()->message,
               "dtype null is none of bool, u8, u16, u32, u64, i8, i16, i32, i64, f32, f64, "
               "pointer"));
  cr_expect(eq(str, (char*)tm_last_error()->file, "dispatch_test.c"));
}

// Sums as a user would, with commas in the body and a return out of it.
static tm_status sum(tm_dtype dtype, const void* data, int count, double* out) {
  double total = 0;
  TM_TRY(TM_DISPATCH(dtype, (TM_I32, TM_U8, TM_F64), T, {
    const T* values = data;
    T extremes[2] = {values[0], values[0]};
    for (int i = 0; i < count; i++) {
      if (values[i] > 100) {
        return TM_RAISE(TM_ERR_OUT_OF_RANGE, "too large");
      }
      total += (double)values[i];
      extremes[1] = values[i];
    }
    total += (double)extremes[1];
  }));
  *out = total;
  return TM_OK;
}

Test(dispatch, the_body_computes_with_the_type_and_may_return) {
  const int32_t numbers[] = {-1, 2, 30};
  const uint8_t bytes[] = {255, 2};
  const double doubles[] = {0.5, 0.25};
  double total = 0;
  cr_expect(eq(int, sum(TM_I32, numbers, 3, &total), TM_OK));
  cr_expect(eq(dbl, total, 61));
  cr_expect(eq(int, sum(TM_F64, doubles, 2, &total), TM_OK));
  cr_expect(eq(dbl, total, 1));
  cr_expect(eq(int, sum(TM_U8, bytes, 2, &total), TM_ERR_OUT_OF_RANGE));
  cr_expect(eq(int, sum(TM_F32, bytes, 2, &total), TM_ERR_INVALID));
  cr_expect(eq(dbl, total, 1));
}

static tm_status sizes(tm_dtype a, tm_dtype b, size_t* out) {
  return TM_DISPATCH(a, (TM_U8, TM_I64), A, {
    const tm_status inner =
        TM_DISPATCH(b, (TM_U16, TM_F32, TM_F64), B, { *out = sizeof(A) * 16 + sizeof(B); });
    if (inner != TM_OK) {
      return inner;
    }
    break;
  });
}

Test(dispatch, nests_and_breaks) {
  size_t size = 0;
  cr_expect(eq(int, sizes(TM_I64, TM_F32, &size), TM_OK));
  cr_expect(eq(sz, size, 8 * 16 + 4));
  cr_expect(eq(int, sizes(TM_U8, TM_U16, &size), TM_OK));
  cr_expect(eq(sz, size, 16 + 2));
  cr_expect(eq(int, sizes(TM_U8, TM_U8, &size), TM_ERR_INVALID));
  cr_expect(eq(str, (char*)tm_last_error()->message, "dtype u8 is none of u16, f32, f64"));
  cr_expect(eq(sz, size, 16 + 2));
}
