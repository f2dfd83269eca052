// Where TurboMind goes wrong with types, layouts and tensors: one test for each row of the table.
// tests/mutations.sh shows that each of them fails without what it tests.

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#include "tm/context/context.h"
#include "tm/tensor/buffer.h"
#include "tm/tensor/copy.h"
#include "tm/tensor/dtype.h"
#include "tm/tensor/layout.h"
#include "tm/tensor/tensor.h"

#define ASSERT_OK(call) cr_assert(eq(int, (call), TM_OK), "%s", tm_last_error()->message)

static tm_layout parse(const char* text) {
  tm_layout layout;
  ASSERT_OK(tm_layout_parse(text, &layout));
  return layout;
}

static void expect_text(const tm_layout* layout, const char* expected) {
  char text[TM_LAYOUT_TEXT_SIZE];
  tm_layout_text(layout, text, sizeof text);
  cr_expect(eq(str, text, (char*)expected));
}

// What failed is null and says why.
static void expect_null(tm_tensor made, tm_status expected) {
  tm_auto_tensor tensor = made;
  cr_expect(not(tm_ok(&tensor)));
  cr_expect(eq(int, tm_last_status(), expected), "%s", tm_last_error()->message);
  tm_clear_error();
}

static void expect_null_buffer(tm_buffer made, tm_status expected) {
  tm_auto_buffer buffer = made;
  cr_expect(not(tm_buffer_ok(&buffer)));
  cr_expect(eq(int, tm_last_status(), expected), "%s", tm_last_error()->message);
  tm_clear_error();
}

//===-- Types -----------------------------------------------------------------------===//

Test(turbomind, cpu_to_cpu_copy_without_a_stream_copies) {
  cr_assert(tm_current_stream() == NULL);
  tm_auto_tensor x = tm_empty(TM_SHAPE(3, 5), TM_I32, TM_CPU);
  tm_auto_tensor y = tm_empty(TM_SHAPE(3, 5), TM_I32, TM_CPU);
  for (int i = 0; i < 15; i++) {
    TM_DATA(int32_t, &x)[i] = 100 + i;
    TM_DATA(int32_t, &y)[i] = 0;
  }
  ASSERT_OK(tm_copy(&x, &y));
  for (int i = 0; i < 15; i++) {
    cr_expect(eq(int, TM_DATA(int32_t, &y)[i], 100 + i));
  }
}

Test(turbomind, u4_x_3_are_2_bytes_and_u6_x_1_is_1_byte) {
  static const struct {
    tm_dtype dtype;
    int64_t count;
    size_t bytes;
  } rows[] = {{TM_U4, 3, 2}, {TM_U6, 1, 1}, {TM_U2, 5, 2}, {TM_U6, 4, 3}, {TM_U4, 4, 2}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    size_t bytes = 77;
    ASSERT_OK(tm_dtype_bytes(rows[i].dtype, rows[i].count, &bytes));
    cr_expect(eq(sz, bytes, rows[i].bytes));
    tm_auto_tensor tensor = tm_empty(TM_SHAPE(rows[i].count), rows[i].dtype, TM_CPU);
    cr_expect(eq(sz, tm_byte_size(&tensor), rows[i].bytes));
  }
}

Test(turbomind, u6_and_f6_types_have_their_sizes_and_names) {
  static const struct {
    tm_dtype dtype;
    const char* name;
  } rows[] = {{TM_U6, "u6"}, {TM_E2M3, "e2m3"}, {TM_E3M2, "e3m2"}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    tm_dtype parsed;
    cr_expect(eq(str, (char*)tm_dtype_name(rows[i].dtype), (char*)rows[i].name));
    cr_expect(eq(int, tm_dtype_bits(rows[i].dtype), 6));
    ASSERT_OK(tm_dtype_parse(rows[i].name, &parsed));
    cr_expect(eq(int, parsed, rows[i].dtype));
  }
}

//===-- Buffers ---------------------------------------------------------------------===//

Test(turbomind, buffer_slice_over_its_size_or_at_a_negative_base_is_out_of_range) {
  tm_auto_buffer buffer = tm_buffer_empty(10, TM_I32, TM_CPU);
  expect_null_buffer(tm_buffer_slice(&buffer, 11, -1), TM_ERR_OUT_OF_RANGE);
  expect_null_buffer(tm_buffer_slice(&buffer, -1, 3), TM_ERR_OUT_OF_RANGE);
  expect_null_buffer(tm_buffer_slice(&buffer, -1, -1), TM_ERR_OUT_OF_RANGE);
  expect_null_buffer(tm_buffer_slice(&buffer, 8, 3), TM_ERR_OUT_OF_RANGE);
  tm_auto_buffer rest = tm_buffer_slice(&buffer, 4, -1);
  cr_expect(eq(i64, rest.size, 6));
  cr_expect(eq(ptr, rest.data, (int32_t*)buffer.data + 4));
  tm_auto_buffer nothing = tm_buffer_slice(&buffer, 10, -1);
  cr_expect(tm_buffer_ok(&nothing));
  cr_expect(eq(i64, nothing.size, 0));
}

Test(turbomind, view_of_u8_at_base_3_as_i32_is_an_error) {
  tm_auto_buffer bytes = tm_buffer_empty(16, TM_U8, TM_CPU);
  tm_auto_buffer at_3 = tm_buffer_slice(&bytes, 3, 8);
  expect_null_buffer(tm_buffer_as(&at_3, TM_I32), TM_ERR_INVALID);
  tm_auto_buffer at_4 = tm_buffer_slice(&bytes, 4, 8);
  tm_auto_buffer as_i32 = tm_buffer_as(&at_4, TM_I32);
  cr_expect(eq(i64, as_i32.size, 2));
  cr_expect(eq(ptr, as_i32.data, (char*)bytes.data + 4));
}

//===-- Layouts ---------------------------------------------------------------------===//

Test(turbomind, layout_view_of_0_and_a_wildcard_or_of_negatives_is_an_error) {
  const tm_layout empty = parse("(0,20):(20,1)");
  const tm_layout twenty = parse("(20):(1)");
  tm_layout view;
  cr_expect(eq(int, tm_layout_view(&empty, TM_SHAPE(0, -1), &view), TM_ERR_INVALID));
  cr_expect(tm_layout_is_null(&view));
  cr_expect(eq(int, tm_layout_view(&twenty, TM_SHAPE(-2, -10), &view), TM_ERR_INVALID));
  cr_expect(tm_layout_is_null(&view));
  ASSERT_OK(tm_layout_view(&twenty, TM_SHAPE(4, -1), &view));
  expect_text(&view, "(4,5):(5,1)");
}

Test(turbomind, slice_to_zero_size_is_empty) {
  const tm_layout layout = parse("(4,6):(6,1)");
  tm_layout part;
  int64_t offset = 77;
  ASSERT_OK(tm_layout_slice(&layout, TM_INDEX(1, 2), TM_SHAPE(0, 3), &part, &offset));
  cr_expect(eq(i64, tm_layout_size(&part), 0));
  cr_expect(eq(i64, tm_layout_cosize(&part), 0));
  cr_expect(eq(i64, offset, 0));
  tm_auto_buffer buffer = tm_buffer_empty(24, TM_F32, TM_CPU);
  tm_auto_buffer nothing = tm_buffer_slice(&buffer, 3, 0);
  cr_expect(tm_buffer_ok(&nothing));
  cr_expect(eq(i64, nothing.size, 0));
  cr_expect(eq(sz, tm_buffer_byte_size(&nothing), 0));
}

Test(turbomind, permute_with_repeats_is_an_error_and_dimensions_count_from_the_end) {
  const tm_layout layout = parse("(2,3,1):(3,1,1)");
  tm_layout out;
  cr_expect(eq(int, tm_layout_permute(&layout, TM_INDEX(0, 0, 1), &out), TM_ERR_INVALID));
  cr_expect(tm_layout_is_null(&out));
  ASSERT_OK(tm_layout_permute(&layout, TM_INDEX(2, 0, 1), &out));
  expect_text(&out, "(1,2,3):(1,3,1)");
  ASSERT_OK(tm_layout_transpose(&layout, -1, 0, &out));
  expect_text(&out, "(1,3,2):(1,1,3)");
  ASSERT_OK(tm_layout_squeeze(&layout, -1, &out));
  expect_text(&out, "(2,3):(3,1)");
}

Test(turbomind, offset_with_a_full_index_is_right_and_with_a_negative_one_an_error) {
  const tm_layout layout = parse("(4,5):(7,1)");
  int64_t offset = 77;
  ASSERT_OK(tm_layout_offset(&layout, TM_INDEX(3, 4), &offset));
  cr_expect(eq(i64, offset, 25));
  ASSERT_OK(tm_layout_offset(&layout, TM_INDEX(2), &offset));
  cr_expect(eq(i64, offset, 14));
  cr_expect(eq(int, tm_layout_offset(&layout, TM_INDEX(-1, 0), &offset), TM_ERR_OUT_OF_RANGE));
  cr_expect(eq(i64, offset, -1));
}

Test(turbomind, is_contiguous_is_right) {
  static const struct {
    const char* layout;
    bool expected;
  } rows[] = {
      {"(2,2,2):(3,3,1)", false}, {"(4,1):(1,7)", true}, {"(2,3):(3,1)", true},
      {"(2,3):(1,2)", false},     {"(1,4):(9,1)", true}, {"(2,3):(4,1)", false},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    const tm_layout layout = parse(rows[i].layout);
    cr_expect(eq(int, tm_layout_is_contiguous(&layout), rows[i].expected), "%s", rows[i].layout);
  }
}

//===-- Tensors ---------------------------------------------------------------------===//

Test(turbomind, negative_sizes_and_sizes_that_overflow_are_errors) {
  const int64_t huge = (int64_t)1 << 32;
  expect_null(tm_empty(TM_SHAPE(4, -4), TM_F32, TM_CPU), TM_ERR_INVALID);
  expect_null(tm_empty(TM_SHAPE(-4), TM_F32, TM_CPU), TM_ERR_INVALID);
  expect_null(tm_empty(TM_SHAPE(-4, -4), TM_F32, TM_CPU), TM_ERR_INVALID);
  expect_null(tm_empty(TM_SHAPE((int64_t)1 << 62), TM_F32, TM_CPU), TM_ERR_OVERFLOW);
  expect_null(tm_empty(TM_SHAPE(huge, huge), TM_U8, TM_CPU), TM_ERR_OVERFLOW);
  expect_null_buffer(tm_buffer_empty(-4, TM_F32, TM_CPU), TM_ERR_INVALID);
  expect_null_buffer(tm_buffer_empty((int64_t)1 << 62, TM_F32, TM_CPU), TM_ERR_OVERFLOW);
}

Test(turbomind, slice_of_an_empty_tensor_is_an_error_and_empty_layouts_are_defined) {
  const tm_tensor null = tm_null();
  tm_clear_error();
  expect_null(tm_slice(&null, TM_INDEX(0), TM_SHAPE(1)), TM_ERR_INVALID);
  expect_null(tm_slice_outer(&null, 0, 1), TM_ERR_INVALID);
  tm_auto_tensor empty = tm_empty(TM_SHAPE(0, 4), TM_F32, TM_CPU);
  expect_null(tm_slice(&empty, TM_INDEX(0, 0), TM_SHAPE(1, 4)), TM_ERR_OUT_OF_RANGE);
  const tm_layout nothing = null.layout;
  tm_layout out;
  ASSERT_OK(tm_layout_coalesce(&nothing, &out));
  cr_expect(tm_layout_is_null(&out));
  cr_expect(tm_layout_is_contiguous(&nothing));
  ASSERT_OK(tm_layout_coalesce(&empty.layout, &out));
  expect_text(&out, "(0):(1)");
  cr_expect(tm_layout_is_contiguous(&empty.layout));
}

Test(turbomind, tensor_slice_at_minus_a_million_is_out_of_range) {
  tm_auto_tensor tensor = tm_empty(TM_SHAPE(4, 4096), TM_F32, TM_CPU);
  expect_null(tm_slice(&tensor, TM_INDEX(-1000000, 0), TM_SHAPE(1, 4096)), TM_ERR_OUT_OF_RANGE);
  expect_null(tm_slice_outer(&tensor, -1000000, 1), TM_ERR_OUT_OF_RANGE);
  tm_auto_tensor last = tm_slice_outer(&tensor, 3, 1);
  cr_expect(eq(ptr, tm_data(&last), (char*)tm_data(&tensor) + (size_t)3 * 4096 * 4));
}
