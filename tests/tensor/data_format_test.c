#include "tm/tensor/data_format.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

static const char* text_of(const tm_data_format* format) {
  static char text[TM_DATA_FORMAT_TEXT_SIZE];
  tm_data_format_text(format, text, sizeof text);
  return text;
}

static void expect_linear(tm_dtype compute, tm_dtype weights, int32_t in, int32_t out,
                          const char* expected) {
  tm_data_format format;
  cr_assert(eq(int, tm_data_format_linear(compute, weights, in, out, &format), TM_OK), "%s",
            tm_last_error()->message);
  cr_expect(eq(str, (char*)text_of(&format), (char*)expected));
  cr_expect(eq(int, format.rank, 2));
  cr_expect(eq(int, format.block[0], in));
  cr_expect(eq(int, format.block[1], out));
}

Test(data_format, linear_weights_follow_the_rules) {
  expect_linear(TM_F16, TM_F16, 1, 1, "f16");
  expect_linear(TM_BF16, TM_F32, 1, 1, "f32");
  expect_linear(TM_BF16, TM_E4M3, 128, 128, "e4m3 in (128,128), scales f32");
  expect_linear(TM_BF16, TM_E4M3, 128, 1, "e4m3 in (128,1), scales bf16");
  expect_linear(TM_F16, TM_E2M1, 32, 1, "e2m1 in (32,1), scales u8");
  expect_linear(TM_F16, TM_U4, 128, 1, "u4 in (128,1), scales f16, zeros f16");
  expect_linear(TM_F32, TM_U8, 256, 1, "u8 in (256,1), scales f32, zeros f32");
  expect_linear(TM_F16, TM_U8, 1, 1, "u8, scales f16, zeros f16");
}

static void expect_refused(tm_dtype compute, tm_dtype weights, int32_t in, int32_t out,
                           tm_status status, const char* words) {
  tm_data_format format;
  memset(&format, 0x55, sizeof format);
  const tm_data_format none = {0};
  cr_expect(eq(int, tm_data_format_linear(compute, weights, in, out, &format), status));
  cr_expect(strstr(tm_last_error()->message, words) != NULL, "%s", tm_last_error()->message);
  cr_expect(memcmp(&format, &none, sizeof none) == 0);
}

Test(data_format, other_combinations_are_refused_by_name) {
  expect_refused(TM_F16, TM_BF16, 128, 1, TM_ERR_INVALID, "(128,1) for weights of bf16");
  expect_refused(TM_F16, TM_E4M3, 64, 1, TM_ERR_INVALID, "(128,128) or (128,1)");
  expect_refused(TM_F16, TM_E4M3, 128, 64, TM_ERR_INVALID, "(128,64)");
  expect_refused(TM_F16, TM_E2M1, 0, 1, TM_ERR_INVALID, "n > 0");
  expect_refused(TM_F16, TM_E2M1, 32, 32, TM_ERR_INVALID, "(32,32)");
  expect_refused(TM_F16, TM_U4, 257, 1, TM_ERR_INVALID, "from 1 to 256");
  expect_refused(TM_F16, TM_U4, -128, 1, TM_ERR_INVALID, "(-128,1)");
  expect_refused(TM_F16, TM_U6, 128, 1, TM_ERR_UNAVAILABLE, "u6");
  expect_refused(TM_F16, TM_DTYPE_NULL, 1, 1, TM_ERR_UNAVAILABLE, "null");
  expect_refused(TM_U8, TM_U4, 128, 1, TM_ERR_INVALID, "computing in u8");
}

Test(data_format, knows_whether_it_is_quantized) {
  const tm_data_format none = {0};
  const tm_data_format plain = tm_data_format_plain(TM_F16);
  const tm_data_format scaled = {.dtype = TM_F16, .scales = TM_F32};
  const tm_data_format shifted = {.dtype = TM_U8, .zeros = TM_U8};
  const tm_data_format grouped = {.dtype = TM_U8, .rank = 3, .block = {1, 1, 2}};
  cr_expect(tm_data_format_is_quantized(&none) == false);
  cr_expect(tm_data_format_is_quantized(&plain) == false);
  cr_expect(tm_data_format_is_quantized(&scaled));
  cr_expect(tm_data_format_is_quantized(&shifted));
  cr_expect(tm_data_format_is_quantized(&grouped));
  cr_expect(eq(str, (char*)text_of(&grouped), "u8 in (1,1,2)"));
}

Test(data_format, equality_looks_at_what_is_set) {
  tm_data_format a = tm_data_format_plain(TM_F16);
  tm_data_format b = a;
  b.block[5] = 7;
  cr_expect(tm_data_format_equal(&a, &b));
  b.block[1] = 7;
  cr_expect(tm_data_format_equal(&a, &b) == false);
  b = a;
  b.zeros = TM_F16;
  cr_expect(tm_data_format_equal(&a, &b) == false);
  b = a;
  b.rank = 1;
  cr_expect(tm_data_format_equal(&a, &b) == false);
}

static void expect_blocks(tm_shape shape, tm_shape expected) {
  const tm_data_format format = {.dtype = TM_E4M3, .rank = 2, .block = {128, 128}};
  tm_shape blocks;
  cr_assert(eq(int, tm_data_format_blocks(&format, shape, &blocks), TM_OK));
  cr_expect(tm_shape_equal(&blocks, &expected));
}

Test(data_format, every_block_has_a_scale) {
  expect_blocks(TM_SHAPE(4096, 1000), TM_SHAPE(32, 8));
  expect_blocks(TM_SHAPE(1, 128), TM_SHAPE(1, 1));
  expect_blocks(TM_SHAPE(0, INT64_MAX), TM_SHAPE(0, INT64_MAX / 128 + 1));
}

static void expect_no_blocks(const tm_data_format* format, tm_shape shape, const char* words) {
  tm_shape blocks = TM_SHAPE(7);
  cr_expect(eq(int, tm_data_format_blocks(format, shape, &blocks), TM_ERR_INVALID));
  cr_expect(strstr(tm_last_error()->message, words) != NULL, "%s", tm_last_error()->message);
  cr_expect(eq(int, blocks.rank, 0));
}

Test(data_format, what_has_no_blocks_is_refused) {
  const tm_data_format format = {.dtype = TM_E4M3, .rank = 2, .block = {128, 128}};
  expect_no_blocks(&format, TM_SHAPE(128), "rank 1 for a format of rank 2");
  expect_no_blocks(&format, TM_SHAPE(128, -1), "-1 elements in blocks of 128 along dimension 1");
  const tm_data_format broken = {.dtype = TM_E4M3, .rank = 1, .block = {0}};
  expect_no_blocks(&broken, TM_SHAPE(128), "blocks of 0");
  const tm_data_format deep = {.dtype = TM_E4M3, .rank = 9};
  expect_no_blocks(&deep, tm_shape_make(9, (const int64_t[9]){0}), "rank 9");
}

Test(data_format, null_is_an_error) {
  const tm_data_format plain = tm_data_format_plain(TM_F16);
  tm_shape blocks = TM_SHAPE(7);
  cr_expect(eq(int, tm_data_format_linear(TM_F16, TM_F16, 1, 1, NULL), TM_ERR_INVALID));
  cr_expect(eq(int, tm_data_format_blocks(&plain, TM_SHAPE(2, 2), NULL), TM_ERR_INVALID));
  cr_expect(eq(int, tm_data_format_blocks(NULL, TM_SHAPE(2, 2), &blocks), TM_ERR_INVALID));
  cr_expect(eq(int, blocks.rank, 0));
}
