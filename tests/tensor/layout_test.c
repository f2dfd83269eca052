#include "tm/tensor/layout.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

static tm_layout parse(const char* text) {
  tm_layout layout;
  cr_assert(eq(int, tm_layout_parse(text, &layout), TM_OK), "%s: %s", text,
            tm_last_error()->message);
  return layout;
}

static char* text_of(const tm_layout* layout) {
  static char text[TM_LAYOUT_TEXT_SIZE];
  tm_layout_text(layout, text, sizeof text);
  return text;
}

#define EXPECT_LAYOUT(layout, text) cr_expect(eq(str, text_of(&(layout)), (text)))

// The status of a call that makes a layout; what it makes must be null where the call fails.
#define EXPECT_STATUS(call, out, status)                              \
  do {                                                                \
    cr_expect(eq(int, (call), (status)));                             \
    cr_expect(eq(int, tm_layout_is_null(&(out)), (status) != TM_OK)); \
  } while (0)

static const tm_layout null_layout;

//===-- Making ------------------------------------------------------------===//

Test(layout, row_major_strides) {
  tm_layout layout;
  EXPECT_STATUS(tm_layout_make(TM_SHAPE(20, 50), &layout), layout, TM_OK);
  EXPECT_LAYOUT(layout, "(20,50):(50,1)");
  cr_expect(eq(i64, tm_layout_size(&layout), 1000));
  cr_expect(eq(i64, tm_layout_cosize(&layout), 1000));
  EXPECT_STATUS(tm_layout_make(TM_SHAPE(2, 3, 4, 5, 6, 7, 8, 9), &layout), layout, TM_OK);
  EXPECT_LAYOUT(layout, "(2,3,4,5,6,7,8,9):(181440,60480,15120,3024,504,72,9,1)");
}

Test(layout, a_scalar_is_not_null) {
  tm_layout layout;
  EXPECT_STATUS(tm_layout_make(TM_SHAPE(), &layout), layout, TM_OK);
  EXPECT_LAYOUT(layout, "():()");
  cr_expect(eq(int, tm_layout_rank(&layout), 0));
  cr_expect(eq(i64, tm_layout_size(&layout), 1));
  cr_expect(eq(i64, tm_layout_cosize(&layout), 1));
  cr_expect(tm_layout_is_contiguous(&layout));
  int64_t offset = -7;
  cr_expect(eq(int, tm_layout_offset(&layout, TM_INDEX(), &offset), TM_OK));
  cr_expect(eq(i64, offset, 0));
}

Test(layout, all_zero_bits_are_the_null_layout_of_size_0) {
  cr_expect(tm_layout_is_null(&null_layout));
  cr_expect(eq(i64, tm_layout_size(&null_layout), 0));
  cr_expect(eq(i64, tm_layout_cosize(&null_layout), 0));
  cr_expect(eq(int, tm_layout_rank(&null_layout), 0));
  cr_expect(eq(str, text_of(&null_layout), "null"));
}

Test(layout, sizes_of_0_keep_the_others_and_count_as_1_in_strides) {
  tm_layout layout;
  EXPECT_STATUS(tm_layout_make(TM_SHAPE(2, 0, 3), &layout), layout, TM_OK);
  EXPECT_LAYOUT(layout, "(2,0,3):(3,3,1)");
  cr_expect(eq(i64, tm_layout_size(&layout), 0));
  cr_expect(eq(i64, tm_layout_cosize(&layout), 0));
}

Test(layout, negative_size_is_invalid) {
  tm_layout layout;
  EXPECT_STATUS(tm_layout_make(TM_SHAPE(3, -1), &layout), layout, TM_ERR_INVALID);
  EXPECT_STATUS(tm_layout_make(TM_SHAPE(-5, 0), &layout), layout, TM_ERR_INVALID);
}

Test(layout, two_to_the_32_squared_overflows) {
  tm_layout layout;
  const int64_t big = INT64_C(1) << 32;
  EXPECT_STATUS(tm_layout_make(TM_SHAPE(big, big), &layout), layout, TM_ERR_OVERFLOW);
  EXPECT_STATUS(tm_layout_make(TM_SHAPE(big, big, 0), &layout), layout, TM_ERR_OVERFLOW);
  EXPECT_STATUS(tm_layout_make(TM_SHAPE(0, big, big), &layout), layout, TM_ERR_OVERFLOW);
  EXPECT_STATUS(tm_layout_make(TM_SHAPE(INT64_MAX), &layout), layout, TM_OK);
  cr_expect(eq(i64, tm_layout_cosize(&layout), INT64_MAX));
}

Test(layout, ranks_are_0_to_8) {
  tm_layout layout;
  tm_shape shape = TM_SHAPE(1, 1, 1, 1, 1, 1, 1, 1);
  shape.rank = 9;
  EXPECT_STATUS(tm_layout_make(shape, &layout), layout, TM_ERR_INVALID);
  shape.rank = -1;
  EXPECT_STATUS(tm_layout_make(shape, &layout), layout, TM_ERR_INVALID);
  shape.rank = INT32_MAX;
  EXPECT_STATUS(tm_layout_make_strided(shape, shape, &layout), layout, TM_ERR_INVALID);
}

Test(layout, strides_are_checked) {
  tm_layout layout;
  EXPECT_STATUS(tm_layout_make_strided(TM_SHAPE(4, 5), TM_SHAPE(0, 1), &layout), layout, TM_OK);
  EXPECT_LAYOUT(layout, "(4,5):(0,1)");
  EXPECT_STATUS(tm_layout_make_strided(TM_SHAPE(4, 5), TM_SHAPE(-5, 1), &layout), layout,
                TM_ERR_INVALID);
  EXPECT_STATUS(tm_layout_make_strided(TM_SHAPE(4, 5), TM_SHAPE(5), &layout), layout,
                TM_ERR_INVALID);
  EXPECT_STATUS(tm_layout_make_strided(TM_SHAPE(3), TM_SHAPE(INT64_MAX / 2), &layout), layout,
                TM_OK);
  cr_expect(eq(i64, tm_layout_cosize(&layout), INT64_MAX / 2 * 2 + 1));
  EXPECT_STATUS(tm_layout_make_strided(TM_SHAPE(3), TM_SHAPE(INT64_MAX / 2 + 1), &layout), layout,
                TM_ERR_OVERFLOW);
  EXPECT_STATUS(tm_layout_make_strided(TM_SHAPE(2, 2), TM_SHAPE(INT64_MAX - 1, 1), &layout), layout,
                TM_ERR_OVERFLOW);
}

//===-- The rows of DESIGN ------------------------------------------------===//

Test(layout, view_with_a_wildcard_beside_0_is_an_error) {
  tm_layout layout = parse("(0,4):(4,1)");
  tm_layout out;
  EXPECT_STATUS(tm_layout_view(&layout, TM_SHAPE(0, -1), &out), out, TM_ERR_INVALID);
  layout = parse("(6,4):(4,1)");
  EXPECT_STATUS(tm_layout_view(&layout, TM_SHAPE(0, -1), &out), out, TM_ERR_INVALID);
}

Test(layout, view_with_negative_sizes_is_an_error) {
  const tm_layout layout = parse("(4,5):(5,1)");
  tm_layout out;
  EXPECT_STATUS(tm_layout_view(&layout, TM_SHAPE(-2, -10), &out), out, TM_ERR_INVALID);
  cr_expect(
      eq(str, (char*)tm_last_error()->message, "view of (4,5):(5,1) as (-2,-10): a negative size"));
  EXPECT_STATUS(tm_layout_view(&layout, TM_SHAPE(-1, -10), &out), out, TM_ERR_INVALID);
  EXPECT_STATUS(tm_layout_view(&layout, TM_SHAPE(-1, -1), &out), out, TM_ERR_INVALID);
}

Test(layout, slice_to_zero_size_is_empty) {
  const tm_layout layout = parse("(4,5):(5,1)");
  tm_layout out;
  int64_t offset = 99;
  EXPECT_STATUS(tm_layout_slice(&layout, TM_INDEX(2, 1), TM_INDEX(0, 3), &out, &offset), out,
                TM_OK);
  EXPECT_LAYOUT(out, "(0,3):(5,1)");
  cr_expect(eq(i64, offset, 0));
  cr_expect(eq(i64, tm_layout_size(&out), 0));
  cr_expect(eq(i64, tm_layout_cosize(&out), 0));
}

Test(layout, permute_with_repeats_is_an_error) {
  const tm_layout layout = parse("(4,5,6):(30,6,1)");
  tm_layout out;
  EXPECT_STATUS(tm_layout_permute(&layout, TM_INDEX(0, 0, 1), &out), out, TM_ERR_INVALID);
  EXPECT_STATUS(tm_layout_permute(&layout, TM_INDEX(0, 2, -1), &out), out, TM_ERR_INVALID);
  EXPECT_STATUS(tm_layout_permute(&layout, TM_INDEX(0, 1, 3), &out), out, TM_ERR_OUT_OF_RANGE);
  EXPECT_STATUS(tm_layout_permute(&layout, TM_INDEX(0, 1, INT64_C(1) << 32), &out), out,
                TM_ERR_OUT_OF_RANGE);
  EXPECT_STATUS(tm_layout_permute(&layout, TM_INDEX(0, 1), &out), out, TM_ERR_INVALID);
}

Test(layout, transpose_counts_from_the_end) {
  const tm_layout layout = parse("(4,5,6):(30,6,1)");
  tm_layout out;
  EXPECT_STATUS(tm_layout_transpose(&layout, -1, 0, &out), out, TM_OK);
  EXPECT_LAYOUT(out, "(6,5,4):(1,6,30)");
  EXPECT_STATUS(tm_layout_transpose(&layout, 1, -1, &out), out, TM_OK);
  EXPECT_LAYOUT(out, "(4,6,5):(30,1,6)");
  EXPECT_STATUS(tm_layout_transpose(&layout, 0, 3, &out), out, TM_ERR_OUT_OF_RANGE);
  EXPECT_STATUS(tm_layout_transpose(&layout, -4, 0, &out), out, TM_ERR_OUT_OF_RANGE);
}

Test(layout, squeeze_counts_from_the_end) {
  const tm_layout layout = parse("(4,5,1):(5,1,1)");
  tm_layout out;
  EXPECT_STATUS(tm_layout_squeeze(&layout, -1, &out), out, TM_OK);
  EXPECT_LAYOUT(out, "(4,5):(5,1)");
  EXPECT_STATUS(tm_layout_squeeze(&layout, 0, &out), out, TM_ERR_INVALID);
  EXPECT_STATUS(tm_layout_squeeze(&layout, 3, &out), out, TM_ERR_OUT_OF_RANGE);
}

Test(layout, offset_of_a_full_index_is_right_and_negative_ones_are_errors) {
  const tm_layout layout = parse("(4,5,6):(30,6,1)");
  int64_t offset;
  cr_expect(eq(int, tm_layout_offset(&layout, TM_INDEX(3, 2, 1), &offset), TM_OK));
  cr_expect(eq(i64, offset, 103));
  cr_expect(eq(int, tm_layout_offset(&layout, TM_INDEX(3, 2), &offset), TM_OK));
  cr_expect(eq(i64, offset, 102));
  cr_expect(eq(int, tm_layout_offset(&layout, TM_INDEX(3, -1, 1), &offset), TM_ERR_OUT_OF_RANGE));
  cr_expect(eq(i64, offset, -1));
  cr_expect(eq(int, tm_layout_offset(&layout, TM_INDEX(4), &offset), TM_ERR_OUT_OF_RANGE));
  cr_expect(eq(int, tm_layout_offset(&layout, TM_INDEX(0, 0, 0, 0), &offset), TM_ERR_INVALID));
}

Test(layout, contiguity_of_the_two_that_were_wrong) {
  const tm_layout gapless_looking = parse("(2,2,2):(3,3,1)");
  const tm_layout column = parse("(4,1):(1,7)");
  cr_expect(not(tm_layout_is_contiguous(&gapless_looking)));
  cr_expect(tm_layout_is_contiguous(&column));
}

Test(layout, coalesce_and_contiguity_of_empty_layouts_are_defined) {
  tm_layout out;
  cr_expect(tm_layout_is_contiguous(&null_layout));
  cr_expect(eq(int, tm_layout_coalesce(&null_layout, &out), TM_OK));
  cr_expect(tm_layout_is_null(&out));
  const tm_layout empty = parse("(3,0,4):(7,9,1)");
  cr_expect(tm_layout_is_contiguous(&empty));
  EXPECT_STATUS(tm_layout_coalesce(&empty, &out), out, TM_OK);
  EXPECT_LAYOUT(out, "(0):(1)");
}

Test(layout, slice_far_outside_is_out_of_range) {
  const tm_layout layout = parse("(4,5):(5,1)");
  tm_layout out;
  int64_t offset = 99;
  EXPECT_STATUS(tm_layout_slice(&layout, TM_INDEX(-1000000, 0), TM_INDEX(1, 1), &out, &offset), out,
                TM_ERR_OUT_OF_RANGE);
  cr_expect(eq(i64, offset, 0));
  EXPECT_STATUS(tm_layout_slice(&layout, TM_INDEX(5, 0), TM_INDEX(-1, -1), &out, &offset), out,
                TM_ERR_OUT_OF_RANGE);
  EXPECT_STATUS(tm_layout_slice(&layout, TM_INDEX(1, 0), TM_INDEX(INT64_MAX, -1), &out, &offset),
                out, TM_ERR_OUT_OF_RANGE);
  EXPECT_STATUS(tm_layout_slice(&layout, TM_INDEX(INT64_MAX, 0), TM_INDEX(1, 1), &out, &offset),
                out, TM_ERR_OUT_OF_RANGE);
  EXPECT_STATUS(tm_layout_slice(&layout, TM_INDEX(1, 0), TM_INDEX(-2, -1), &out, &offset), out,
                TM_ERR_INVALID);
  EXPECT_STATUS(tm_layout_slice(&layout, TM_INDEX(1), TM_INDEX(1), &out, &offset), out,
                TM_ERR_INVALID);
}

//===-- View --------------------------------------------------------------===//

Test(layout, view_fills_the_wildcard) {
  const tm_layout layout = parse("(4,6):(6,1)");
  tm_layout out;
  EXPECT_STATUS(tm_layout_view(&layout, TM_SHAPE(-1), &out), out, TM_OK);
  EXPECT_LAYOUT(out, "(24):(1)");
  EXPECT_STATUS(tm_layout_view(&layout, TM_SHAPE(2, -1, 3), &out), out, TM_OK);
  EXPECT_LAYOUT(out, "(2,4,3):(12,3,1)");
  EXPECT_STATUS(tm_layout_view(&layout, TM_SHAPE(24, -1), &out), out, TM_OK);
  EXPECT_LAYOUT(out, "(24,1):(1,1)");
  EXPECT_STATUS(tm_layout_view(&layout, TM_SHAPE(5, -1), &out), out, TM_ERR_INVALID);
  EXPECT_STATUS(tm_layout_view(&layout, TM_SHAPE(5, 5), &out), out, TM_ERR_INVALID);
}

Test(layout, view_of_an_empty_layout) {
  const tm_layout layout = parse("(0,6):(6,1)");
  tm_layout out;
  EXPECT_STATUS(tm_layout_view(&layout, TM_SHAPE(-1, 3), &out), out, TM_OK);
  EXPECT_LAYOUT(out, "(0,3):(3,1)");
  EXPECT_STATUS(tm_layout_view(&layout, TM_SHAPE(2, 0), &out), out, TM_OK);
  EXPECT_STATUS(tm_layout_view(&layout, TM_SHAPE(2, 3), &out), out, TM_ERR_INVALID);
}

Test(layout, view_of_strided_layouts_where_strides_can_express_it) {
  const tm_layout columns = parse("(4,6):(10,1)");
  tm_layout out;
  EXPECT_STATUS(tm_layout_view(&columns, TM_SHAPE(2, 2, 3, 2), &out), out, TM_OK);
  EXPECT_LAYOUT(out, "(2,2,3,2):(20,10,2,1)");
  EXPECT_STATUS(tm_layout_view(&columns, TM_SHAPE(24), &out), out, TM_ERR_INVALID);
  EXPECT_STATUS(tm_layout_view(&columns, TM_SHAPE(8, 3), &out), out, TM_ERR_INVALID);
  const tm_layout broadcast = parse("(4,6):(0,0)");
  EXPECT_STATUS(tm_layout_view(&broadcast, TM_SHAPE(3, 8), &out), out, TM_OK);
  EXPECT_LAYOUT(out, "(3,8):(0,0)");
}

Test(layout, view_of_sizes_near_the_limit_does_not_overflow) {
  tm_layout layout;
  tm_layout out;
  const int64_t half = INT64_C(1) << 31;
  cr_assert(eq(int, tm_layout_make(TM_SHAPE(half, half), &layout), TM_OK));
  EXPECT_STATUS(tm_layout_view(&layout, TM_SHAPE(-1, half, 2, 1, 1), &out), out, TM_OK);
  cr_expect(eq(i64, tm_layout_size(&out), half * half));
  EXPECT_STATUS(tm_layout_view(&layout, TM_SHAPE(half, half, 2), &out), out, TM_ERR_OVERFLOW);
  EXPECT_STATUS(tm_layout_view(&layout, TM_SHAPE(-1, half, half, half), &out), out, TM_ERR_INVALID);
}

Test(layout, view_to_a_rank_above_8_is_invalid) {
  const tm_layout layout = parse("(4):(1)");
  tm_layout out;
  tm_shape shape = TM_SHAPE(4, 1, 1, 1, 1, 1, 1, 1);
  shape.rank = 9;
  EXPECT_STATUS(tm_layout_view(&layout, shape, &out), out, TM_ERR_INVALID);
  shape.rank = -2;
  EXPECT_STATUS(tm_layout_view(&layout, shape, &out), out, TM_ERR_INVALID);
}

//===-- The others --------------------------------------------------------===//

Test(layout, coalesce_examples) {
  static const char* const examples[][2] = {
      {"():()", "():()"},
      {"(1,1):(5,9)", "():()"},
      {"(4,5):(5,1)", "(20):(1)"},
      {"(4,5):(10,1)", "(4,5):(10,1)"},
      {"(4,1,5):(10,3,1)", "(4,5):(10,1)"},
      {"(2,3,4):(24,4,1)", "(2,12):(24,1)"},
      {"(2,3,4):(12,4,2)", "(6,4):(4,2)"},
      {"(2,3,4):(24,8,2)", "(24):(2)"},
      {"(3,4):(0,0)", "(12):(0)"},
      {"(3,4):(0,1)", "(3,4):(0,1)"},
  };
  for (size_t i = 0; i < sizeof examples / sizeof examples[0]; i++) {
    const tm_layout layout = parse(examples[i][0]);
    tm_layout out;
    EXPECT_STATUS(tm_layout_coalesce(&layout, &out), out, TM_OK);
    EXPECT_LAYOUT(out, (char*)examples[i][1]);
  }
}

Test(layout, coalesce_near_the_limit_does_not_overflow) {
  tm_layout layout;
  tm_layout out;
  EXPECT_STATUS(tm_layout_make_strided(TM_SHAPE(2, 2), TM_SHAPE(0, INT64_C(1) << 62), &layout),
                layout, TM_OK);
  EXPECT_STATUS(tm_layout_coalesce(&layout, &out), out, TM_OK);
  cr_expect(tm_layout_equal(&layout, &out));
}

Test(layout, slice_takes_the_rest_for_minus_one) {
  const tm_layout layout = parse("(4,5,6):(30,6,1)");
  tm_layout out;
  int64_t offset;
  EXPECT_STATUS(tm_layout_slice(&layout, TM_INDEX(1, 0, 2), TM_INDEX(2, -1, -1), &out, &offset),
                out, TM_OK);
  EXPECT_LAYOUT(out, "(2,5,4):(30,6,1)");
  cr_expect(eq(i64, offset, 32));
  EXPECT_STATUS(tm_layout_slice(&layout, TM_INDEX(4, 0, 0), TM_INDEX(-1, -1, -1), &out, &offset),
                out, TM_OK);
  EXPECT_LAYOUT(out, "(0,5,6):(30,6,1)");
  cr_expect(eq(i64, offset, 0));
}

Test(layout, slice_of_the_outermost_dimension) {
  tm_layout layout = parse("(4,5,6):(30,6,1)");
  int64_t offset;
  EXPECT_STATUS(tm_layout_slice_outer(&layout, 1, -1, &layout, &offset), layout, TM_OK);
  EXPECT_LAYOUT(layout, "(3,5,6):(30,6,1)");
  cr_expect(eq(i64, offset, 30));
  const tm_layout scalar = parse("():()");
  EXPECT_STATUS(tm_layout_slice_outer(&scalar, 0, 1, &layout, &offset), layout,
                TM_ERR_OUT_OF_RANGE);
  cr_expect(eq(i64, offset, 0));
}

Test(layout, slice_of_an_empty_layout) {
  const tm_layout layout = parse("(0,6):(6,1)");
  tm_layout out;
  int64_t offset;
  EXPECT_STATUS(tm_layout_slice(&layout, TM_INDEX(0, 5), TM_INDEX(-1, 1), &out, &offset), out,
                TM_OK);
  EXPECT_LAYOUT(out, "(0,1):(6,1)");
  cr_expect(eq(i64, offset, 0));
  EXPECT_STATUS(tm_layout_slice(&layout, TM_INDEX(1, 0), TM_INDEX(-1, 1), &out, &offset), out,
                TM_ERR_OUT_OF_RANGE);
  EXPECT_STATUS(tm_layout_slice(&layout, TM_INDEX(0, 0), TM_INDEX(1, 1), &out, &offset), out,
                TM_ERR_OUT_OF_RANGE);
}

Test(layout, permute_counts_from_the_end) {
  const tm_layout layout = parse("(4,5,6):(30,6,1)");
  tm_layout out;
  EXPECT_STATUS(tm_layout_permute(&layout, TM_INDEX(-1, 0, 1), &out), out, TM_OK);
  EXPECT_LAYOUT(out, "(6,4,5):(1,30,6)");
  const tm_layout scalar = parse("():()");
  EXPECT_STATUS(tm_layout_permute(&scalar, TM_INDEX(), &out), out, TM_OK);
  EXPECT_LAYOUT(out, "():()");
}

Test(layout, unsqueeze_puts_a_one_where_asked) {
  const tm_layout layout = parse("(4,5):(5,1)");
  tm_layout out;
  EXPECT_STATUS(tm_layout_unsqueeze(&layout, 0, &out), out, TM_OK);
  EXPECT_LAYOUT(out, "(1,4,5):(20,5,1)");
  EXPECT_STATUS(tm_layout_unsqueeze(&layout, 1, &out), out, TM_OK);
  EXPECT_LAYOUT(out, "(4,1,5):(5,5,1)");
  EXPECT_STATUS(tm_layout_unsqueeze(&layout, -1, &out), out, TM_OK);
  EXPECT_LAYOUT(out, "(4,5,1):(5,1,1)");
  EXPECT_STATUS(tm_layout_unsqueeze(&layout, -3, &out), out, TM_OK);
  EXPECT_LAYOUT(out, "(1,4,5):(20,5,1)");
  EXPECT_STATUS(tm_layout_unsqueeze(&layout, 3, &out), out, TM_ERR_OUT_OF_RANGE);
  const tm_layout full = parse("(1,1,1,1,1,1,1,1):(1,1,1,1,1,1,1,1)");
  EXPECT_STATUS(tm_layout_unsqueeze(&full, 0, &out), out, TM_ERR_INVALID);
  const tm_layout far = parse("(2):(4611686018427387904)");
  EXPECT_STATUS(tm_layout_unsqueeze(&far, 0, &out), out, TM_OK);
  cr_expect(eq(i64, tm_layout_cosize(&out), tm_layout_cosize(&far)));
}

Test(layout, squeeze_of_the_last_dimension_leaves_a_scalar) {
  const tm_layout layout = parse("(1):(1)");
  tm_layout out;
  EXPECT_STATUS(tm_layout_squeeze(&layout, 0, &out), out, TM_OK);
  EXPECT_LAYOUT(out, "():()");
  EXPECT_STATUS(tm_layout_squeeze(&out, 0, &out), out, TM_ERR_OUT_OF_RANGE);
}

Test(layout, dimensions_are_asked_from_both_ends) {
  const tm_layout layout = parse("(4,5,6):(30,6,1)");
  int64_t value;
  cr_expect(eq(int, tm_layout_dim(&layout, -1, &value), TM_OK));
  cr_expect(eq(i64, value, 6));
  cr_expect(eq(int, tm_layout_stride(&layout, 0, &value), TM_OK));
  cr_expect(eq(i64, value, 30));
  cr_expect(eq(int, tm_layout_dim(&layout, 3, &value), TM_ERR_OUT_OF_RANGE));
  cr_expect(eq(i64, value, -1));
  cr_expect(eq(int, tm_layout_stride(&layout, -4, &value), TM_ERR_OUT_OF_RANGE));
}

Test(layout, an_output_may_be_the_input) {
  int64_t offset;
  tm_layout layout = parse("(4,5,6):(30,6,1)");
  EXPECT_STATUS(tm_layout_slice(&layout, TM_INDEX(0, 0, 0), TM_INDEX(-1, -1, 2), &layout, &offset),
                layout, TM_OK);
  EXPECT_LAYOUT(layout, "(4,5,2):(30,6,1)");
  EXPECT_STATUS(tm_layout_transpose(&layout, 0, 1, &layout), layout, TM_OK);
  EXPECT_LAYOUT(layout, "(5,4,2):(6,30,1)");
  EXPECT_STATUS(tm_layout_permute(&layout, TM_INDEX(1, 0, 2), &layout), layout, TM_OK);
  EXPECT_STATUS(tm_layout_view(&layout, TM_SHAPE(20, 2), &layout), layout, TM_OK);
  EXPECT_LAYOUT(layout, "(20,2):(6,1)");
  EXPECT_STATUS(tm_layout_unsqueeze(&layout, 1, &layout), layout, TM_OK);
  EXPECT_LAYOUT(layout, "(20,1,2):(6,2,1)");
  EXPECT_STATUS(tm_layout_squeeze(&layout, 1, &layout), layout, TM_OK);
  EXPECT_STATUS(tm_layout_coalesce(&layout, &layout), layout, TM_OK);
  EXPECT_LAYOUT(layout, "(20,2):(6,1)");
}

Test(layout, a_null_layout_passes_through_and_the_first_failure_stays) {
  tm_layout out;
  int64_t offset;
  EXPECT_STATUS(tm_layout_make(TM_SHAPE(-1), &out), out, TM_ERR_INVALID);
  EXPECT_STATUS(tm_layout_make(TM_SHAPE(INT64_MAX, 2), &out), out, TM_ERR_OVERFLOW);
  EXPECT_STATUS(tm_layout_view(&out, TM_SHAPE(3), &out), out, TM_ERR_OVERFLOW);
  EXPECT_STATUS(tm_layout_slice(&out, TM_INDEX(0), TM_INDEX(1), &out, &offset), out,
                TM_ERR_OVERFLOW);
  EXPECT_STATUS(tm_layout_slice_outer(&out, 0, 1, &out, &offset), out, TM_ERR_OVERFLOW);
  EXPECT_STATUS(tm_layout_permute(&out, TM_INDEX(0), &out), out, TM_ERR_OVERFLOW);
  EXPECT_STATUS(tm_layout_transpose(&out, 0, 0, &out), out, TM_ERR_OVERFLOW);
  EXPECT_STATUS(tm_layout_squeeze(&out, 0, &out), out, TM_ERR_OVERFLOW);
  EXPECT_STATUS(tm_layout_unsqueeze(&out, 0, &out), out, TM_ERR_OVERFLOW);
  cr_expect(eq(int, tm_layout_offset(&out, TM_INDEX(), &offset), TM_ERR_OVERFLOW));
  cr_expect(eq(int, tm_layout_dim(&out, 0, &offset), TM_ERR_OVERFLOW));
  tm_clear_error();
  EXPECT_STATUS(tm_layout_squeeze(&null_layout, 0, &out), out, TM_ERR_INVALID);
}

Test(layout, a_missing_output_is_invalid) {
  const tm_layout layout = parse("(1,5):(5,1)");
  tm_layout out;
  int64_t offset;
  cr_expect(eq(int, tm_layout_make(TM_SHAPE(1), NULL), TM_ERR_INVALID));
  cr_expect(eq(int, tm_layout_view(&layout, TM_SHAPE(5), NULL), TM_ERR_INVALID));
  cr_expect(eq(int, tm_layout_slice(&layout, TM_INDEX(0, 0), TM_INDEX(1, 1), &out, NULL),
               TM_ERR_INVALID));
  cr_expect(eq(int, tm_layout_slice(&layout, TM_INDEX(0, 0), TM_INDEX(1, 1), NULL, &offset),
               TM_ERR_INVALID));
  cr_expect(eq(int, tm_layout_slice_outer(&layout, 0, 1, NULL, &offset), TM_ERR_INVALID));
  cr_expect(eq(int, tm_layout_slice_outer(&layout, 0, 1, &out, NULL), TM_ERR_INVALID));
  cr_expect(eq(int, tm_layout_permute(&layout, TM_INDEX(0, 1), NULL), TM_ERR_INVALID));
  cr_expect(eq(int, tm_layout_transpose(&layout, 0, 1, NULL), TM_ERR_INVALID));
  cr_expect(eq(int, tm_layout_squeeze(&layout, 0, NULL), TM_ERR_INVALID));
  cr_expect(eq(int, tm_layout_unsqueeze(&layout, 0, NULL), TM_ERR_INVALID));
  cr_expect(eq(int, tm_layout_coalesce(&layout, NULL), TM_ERR_INVALID));
  cr_expect(eq(int, tm_layout_offset(&layout, TM_INDEX(0), NULL), TM_ERR_INVALID));
  cr_expect(eq(int, tm_layout_dim(&layout, 0, NULL), TM_ERR_INVALID));
  cr_expect(eq(int, tm_layout_parse("():()", NULL), TM_ERR_INVALID));
}

//===-- Text --------------------------------------------------------------===//

Test(layout, parse_reads_what_text_writes) {
  static const char* const texts[] = {"():()",
                                      "(5):(1)",
                                      "(20,50):(50,1)",
                                      "(0):(1)",
                                      "(9223372036854775807):(1)",
                                      "(1,2,3,4,5,6,7,8):(0,0,0,0,0,0,0,9)"};
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
    const tm_layout layout = parse(texts[i]);
    EXPECT_LAYOUT(layout, (char*)texts[i]);
  }
}

Test(layout, parse_refuses_what_is_malformed) {
  static const struct {
    const char* text;
    tm_status status;
  } cases[] = {
      {"", TM_ERR_CORRUPT},
      {"null", TM_ERR_CORRUPT},
      {"(1", TM_ERR_CORRUPT},
      {"(1)", TM_ERR_CORRUPT},
      {"(1):", TM_ERR_CORRUPT},
      {"(1):(1", TM_ERR_CORRUPT},
      {"(1):(1)x", TM_ERR_CORRUPT},
      {"(1,):(1,1)", TM_ERR_CORRUPT},
      {"(,1):(1,1)", TM_ERR_CORRUPT},
      {"( 1):(1)", TM_ERR_CORRUPT},
      {"(+1):(1)", TM_ERR_CORRUPT},
      {"(-):(1)", TM_ERR_CORRUPT},
      {"(1 ,2):(1,1)", TM_ERR_CORRUPT},
      {"(1,1,1,1,1,1,1,1,1):(1)", TM_ERR_CORRUPT},
      {"(9223372036854775808):(1)", TM_ERR_OVERFLOW},
      {"(4294967296,4294967296):(1,1)", TM_ERR_OVERFLOW},
      {"(-1):(1)", TM_ERR_INVALID},
      {"(2):(-1)", TM_ERR_INVALID},
      {"(1,2):(1)", TM_ERR_INVALID},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    tm_layout out;
    const tm_status status = tm_layout_parse(cases[i].text, &out);
    cr_expect(eq(int, status, cases[i].status), "\"%s\": %s", cases[i].text,
              tm_last_error()->message);
    cr_expect(tm_layout_is_null(&out));
  }
  tm_layout out;
  cr_expect(eq(int, tm_layout_parse(NULL, &out), TM_ERR_INVALID));
}

Test(layout, errors_name_what_was_asked_and_what_is_there) {
  const tm_layout layout = parse("(20,50):(50,1)");
  tm_layout out;
  int64_t offset;
  cr_expect(eq(int, tm_layout_view(&layout, TM_SHAPE(3, -1), &out), TM_ERR_INVALID));
  cr_expect(ne(ptr, (void*)strstr(tm_last_error()->message, "(20,50):(50,1)"), NULL));
  cr_expect(ne(ptr, (void*)strstr(tm_last_error()->message, "(3,-1)"), NULL));
  cr_expect(eq(int, tm_layout_slice(&layout, TM_INDEX(0, 40), TM_INDEX(1, 11), &out, &offset),
               TM_ERR_OUT_OF_RANGE));
  cr_expect(
      eq(str, (char*)tm_last_error()->message,
         "slice of (20,50):(50,1): 11 elements from 40 on asked of dimension 1, there are 50"));
}
