#include "tm/tensor/dtype.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

static size_t bytes_of(tm_dtype dtype, int64_t count) {
  size_t bytes = 12345;
  cr_assert(eq(int, tm_dtype_bytes(dtype, count, &bytes), TM_OK), "%s", tm_last_error()->message);
  return bytes;
}

static int64_t count_in(tm_dtype dtype, size_t bytes) {
  int64_t count = -12345;
  cr_assert(eq(int, tm_dtype_count(dtype, bytes, &count), TM_OK), "%s", tm_last_error()->message);
  return count;
}

// What every type must be: the table is written out a second time, by hand.
static const struct {
  tm_dtype dtype;
  int bits;
  const char* name;
} expected[] = {
    {TM_BOOL, 8, "bool"},  {TM_U8, 8, "u8"},
    {TM_U16, 16, "u16"},   {TM_U32, 32, "u32"},
    {TM_U64, 64, "u64"},   {TM_I8, 8, "i8"},
    {TM_I16, 16, "i16"},   {TM_I32, 32, "i32"},
    {TM_I64, 64, "i64"},   {TM_F16, 16, "f16"},
    {TM_BF16, 16, "bf16"}, {TM_F32, 32, "f32"},
    {TM_F64, 64, "f64"},   {TM_E4M3, 8, "e4m3"},
    {TM_E5M2, 8, "e5m2"},  {TM_E2M1, 4, "e2m1"},
    {TM_E2M3, 6, "e2m3"},  {TM_E3M2, 6, "e3m2"},
    {TM_U2, 2, "u2"},      {TM_U4, 4, "u4"},
    {TM_U6, 6, "u6"},      {TM_POINTER, 64, "pointer"},
};
enum { EXPECTED = sizeof expected / sizeof expected[0] };

Test(dtype, every_type_has_its_bits_and_its_name) {
  cr_expect(eq(int, EXPECTED, TM_DTYPES - 1));
  for (int i = 0; i < EXPECTED; i++) {
    cr_expect(eq(int, tm_dtype_bits(expected[i].dtype), expected[i].bits));
    cr_expect(eq(str, (char*)tm_dtype_name(expected[i].dtype), (char*)expected[i].name));
  }
}

Test(dtype, names_parse_to_their_type) {
  for (int i = 0; i < EXPECTED; i++) {
    tm_dtype parsed = TM_DTYPE_NULL;
    cr_expect(eq(int, tm_dtype_parse(expected[i].name, &parsed), TM_OK));
    cr_expect(eq(int, parsed, expected[i].dtype));
  }
}

Test(dtype, unknown_names_are_not_found) {
  const char* names[] = {"", "null", "f8", "U8", "u8 ", "float", "u66"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    tm_dtype parsed = TM_F32;
    cr_expect(eq(int, tm_dtype_parse(names[i], &parsed), TM_ERR_NOT_FOUND));
    cr_expect(eq(int, parsed, TM_DTYPE_NULL));
  }
  tm_dtype parsed = TM_F32;
  cr_expect(eq(int, tm_dtype_parse(NULL, &parsed), TM_ERR_INVALID));
  cr_expect(eq(int, parsed, TM_DTYPE_NULL));
  cr_expect(eq(int, tm_dtype_parse("u8", NULL), TM_ERR_INVALID));
}

Test(dtype, null_and_foreign_values_have_no_bits) {
  cr_expect(eq(int, tm_dtype_bits(TM_DTYPE_NULL), 0));
  cr_expect(eq(int, tm_dtype_bits((tm_dtype)TM_DTYPES), 0));
  cr_expect(eq(int, tm_dtype_bits((tm_dtype)200), 0));
  cr_expect(eq(str, (char*)tm_dtype_name(TM_DTYPE_NULL), "null"));
  cr_expect(eq(str, (char*)tm_dtype_name((tm_dtype)200), "unknown"));
}

// The rows of DESIGN about sub-byte sizes and names.

Test(dtype, three_u4_are_two_bytes_and_one_u6_is_one) {
  cr_expect(eq(sz, bytes_of(TM_U4, 3), 2));
  cr_expect(eq(sz, bytes_of(TM_U6, 1), 1));
}

Test(dtype, u6_is_called_u6_and_six_bit_floats_have_sizes_and_names) {
  cr_expect(eq(str, (char*)tm_dtype_name(TM_U6), "u6"));
  cr_expect(eq(str, (char*)tm_dtype_name(TM_E2M3), "e2m3"));
  cr_expect(eq(str, (char*)tm_dtype_name(TM_E3M2), "e3m2"));
  cr_expect(eq(sz, bytes_of(TM_E2M3, 4), 3));
  cr_expect(eq(sz, bytes_of(TM_E3M2, 5), 4));
}

Test(dtype, bytes_round_up_and_counts_round_down) {
  for (int i = 0; i < EXPECTED; i++) {
    const size_t bits = (size_t)expected[i].bits;
    for (int64_t count = 0; count < 200; count++) {
      cr_expect(eq(sz, bytes_of(expected[i].dtype, count), ((size_t)count * bits + 7) / 8));
    }
    for (size_t bytes = 0; bytes < 200; bytes++) {
      cr_expect(eq(i64, count_in(expected[i].dtype, bytes), (int64_t)(bytes * 8 / bits)));
    }
  }
}

Test(dtype, sizes_that_do_not_fit_are_overflow) {
  size_t bytes = 1;
  cr_expect(eq(int, tm_dtype_bytes(TM_F32, INT64_C(1) << 62, &bytes), TM_ERR_OVERFLOW));
  cr_expect(eq(sz, bytes, 0));
  cr_expect(eq(int, tm_dtype_bytes(TM_F64, INT64_MAX / 8 + 1, &bytes), TM_ERR_OVERFLOW));
  cr_expect(eq(int, tm_dtype_bytes(TM_U16, INT64_MAX, &bytes), TM_ERR_OVERFLOW));
  // The largest that do fit, where the bits would not.
  cr_expect(eq(sz, bytes_of(TM_F64, INT64_MAX / 8), (size_t)(INT64_MAX / 8) * 8));
  cr_expect(eq(sz, bytes_of(TM_U8, INT64_MAX), (size_t)INT64_MAX));
  cr_expect(eq(sz, bytes_of(TM_U4, INT64_MAX), ((size_t)INT64_MAX + 1) / 2));
  int64_t count = 1;
  cr_expect(eq(int, tm_dtype_count(TM_U8, SIZE_MAX, &count), TM_ERR_OVERFLOW));
  cr_expect(eq(i64, count, 0));
  cr_expect(eq(int, tm_dtype_count(TM_U2, (size_t)INT64_MAX, &count), TM_ERR_OVERFLOW));
  cr_expect(eq(i64, count_in(TM_F64, SIZE_MAX), INT64_MAX / 4));
}

Test(dtype, arguments_that_are_wrong_are_invalid) {
  size_t bytes = 1;
  int64_t count = 1;
  cr_expect(eq(int, tm_dtype_bytes(TM_F32, -1, &bytes), TM_ERR_INVALID));
  cr_expect(eq(sz, bytes, 0));
  cr_expect(eq(int, tm_dtype_bytes(TM_DTYPE_NULL, 1, &bytes), TM_ERR_INVALID));
  cr_expect(eq(int, tm_dtype_bytes((tm_dtype)99, 1, &bytes), TM_ERR_INVALID));
  cr_expect(eq(int, tm_dtype_bytes(TM_F32, 1, NULL), TM_ERR_INVALID));
  cr_expect(eq(int, tm_dtype_count(TM_DTYPE_NULL, 1, &count), TM_ERR_INVALID));
  cr_expect(eq(i64, count, 0));
  cr_expect(eq(int, tm_dtype_count(TM_F32, 1, NULL), TM_ERR_INVALID));
}

Test(dtype, types_of_the_language_are_found) {
  cr_expect(eq(int, TM_DTYPE_OF(bool), TM_BOOL));
  cr_expect(eq(int, TM_DTYPE_OF(uint8_t), TM_U8));
  cr_expect(eq(int, TM_DTYPE_OF(uint16_t), TM_U16));
  cr_expect(eq(int, TM_DTYPE_OF(uint32_t), TM_U32));
  cr_expect(eq(int, TM_DTYPE_OF(uint64_t), TM_U64));
  cr_expect(eq(int, TM_DTYPE_OF(int8_t), TM_I8));
  cr_expect(eq(int, TM_DTYPE_OF(int16_t), TM_I16));
  cr_expect(eq(int, TM_DTYPE_OF(int32_t), TM_I32));
  cr_expect(eq(int, TM_DTYPE_OF(int64_t), TM_I64));
  cr_expect(eq(int, TM_DTYPE_OF(long long), TM_I64));
  cr_expect(eq(int, TM_DTYPE_OF(unsigned long long), TM_U64));
  cr_expect(eq(int, TM_DTYPE_OF(float), TM_F32));
  cr_expect(eq(int, TM_DTYPE_OF(const double), TM_F64));
  cr_expect(eq(int, TM_DTYPE_OF(void*), TM_POINTER));
  cr_expect(eq(int, TM_DTYPE_OF(const float*), TM_POINTER));
  cr_expect(eq(int, TM_DTYPE_OF(long double), TM_DTYPE_NULL));
  cr_expect(eq(int, TM_DTYPE_OF(char), TM_DTYPE_OF(signed char)));  // on the machines we run on
}

//===-- Codes of others ---------------------------------------------------===//

// Written out a second time, by hand, from library_types.h of CUDA 13 and dlpack.h 1.1.
static const struct {
  tm_dtype dtype;
  int cuda;  // -1: none
  uint8_t code;
} codes[] = {
    {TM_BOOL, -1, 6},  {TM_U8, 8, 1},       {TM_U16, 22, 1},   {TM_U32, 12, 1},   {TM_U64, 26, 1},
    {TM_I8, 3, 0},     {TM_I16, 20, 0},     {TM_I32, 10, 0},   {TM_I64, 24, 0},   {TM_F16, 2, 2},
    {TM_BF16, 14, 4},  {TM_F32, 0, 2},      {TM_F64, 1, 2},    {TM_E4M3, 28, 10}, {TM_E5M2, 29, 12},
    {TM_E2M1, 33, 17}, {TM_E2M3, 31, 15},   {TM_E3M2, 32, 16}, {TM_U2, -1, 1},    {TM_U4, 18, 1},
    {TM_U6, -1, 1},    {TM_POINTER, -1, 3},
};

Test(dtype, cuda_codes_are_cudas_both_ways) {
  cr_assert(eq(sz, sizeof codes / sizeof codes[0], TM_DTYPES - 1));
  for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
    const char* name = tm_dtype_name(codes[i].dtype);
    int cuda = 12345;
    const tm_status expected_status = codes[i].cuda == -1 ? TM_ERR_NOT_FOUND : TM_OK;
    cr_expect(eq(int, tm_dtype_to_cuda(codes[i].dtype, &cuda), expected_status), "%s", name);
    cr_expect(eq(int, cuda, codes[i].cuda), "%s", name);
    tm_dtype back = TM_F32;
    cr_expect(eq(int, tm_dtype_from_cuda(codes[i].cuda, &back), expected_status), "%s", name);
    cr_expect(eq(int, back, codes[i].cuda == -1 ? TM_DTYPE_NULL : codes[i].dtype), "%s", name);
  }
}

Test(dtype, cuda_codes_of_nothing_here_are_not_found) {
  const int others[] = {-2, 4, 5, 6, 7, 16, 17, 30, 34, 1000, -128 + 256};
  for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
    tm_dtype dtype = TM_F32;
    cr_expect(eq(int, tm_dtype_from_cuda(others[i], &dtype), TM_ERR_NOT_FOUND), "%d", others[i]);
    cr_expect(eq(int, dtype, TM_DTYPE_NULL));
  }
  int cuda = 5;
  cr_expect(eq(int, tm_dtype_to_cuda(TM_DTYPE_NULL, &cuda), TM_ERR_INVALID));
  cr_expect(eq(int, cuda, -1));
  cr_expect(eq(int, tm_dtype_to_cuda((tm_dtype)99, &cuda), TM_ERR_INVALID));
  cr_expect(eq(int, tm_dtype_to_cuda(TM_F32, NULL), TM_ERR_INVALID));
  cr_expect(eq(int, tm_dtype_from_cuda(0, NULL), TM_ERR_INVALID));
}

Test(dtype, dlpack_codes_are_dlpacks_both_ways) {
  for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
    const char* name = tm_dtype_name(codes[i].dtype);
    uint8_t code = 255;
    uint8_t bits = 255;
    cr_expect(eq(int, tm_dtype_to_dlpack(codes[i].dtype, &code, &bits), TM_OK), "%s", name);
    cr_expect(eq(int, code, codes[i].code), "%s", name);
    cr_expect(eq(int, bits, tm_dtype_bits(codes[i].dtype)), "%s", name);
    tm_dtype back = TM_DTYPE_NULL;
    cr_expect(eq(int, tm_dtype_from_dlpack(code, bits, &back), TM_OK), "%s", name);
    cr_expect(eq(int, back, codes[i].dtype), "%s", name);
  }
}

// Every pair of numbers is either one of the table or refused.
Test(dtype, dlpack_codes_of_nothing_here_are_not_found) {
  int found = 0;
  for (int code = 0; code < 256; code++) {
    for (int bits = 0; bits < 256; bits++) {
      tm_dtype dtype = TM_F32;
      const tm_status status = tm_dtype_from_dlpack((uint8_t)code, (uint8_t)bits, &dtype);
      cr_expect(eq(int, status, dtype == TM_DTYPE_NULL ? TM_ERR_NOT_FOUND : TM_OK));
      found += status == TM_OK;
    }
  }
  cr_expect(eq(int, found, TM_DTYPES - 1));
  uint8_t code = 9;
  uint8_t bits = 9;
  cr_expect(eq(int, tm_dtype_to_dlpack(TM_DTYPE_NULL, &code, &bits), TM_ERR_INVALID));
  cr_expect(eq(int, code + bits, 0));
  cr_expect(eq(int, tm_dtype_to_dlpack(TM_F32, NULL, &bits), TM_ERR_INVALID));
  cr_expect(eq(int, tm_dtype_to_dlpack(TM_F32, &code, NULL), TM_ERR_INVALID));
  cr_expect(eq(int, tm_dtype_from_dlpack(2, 32, NULL), TM_ERR_INVALID));
}
