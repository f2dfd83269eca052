#include "tm/tensor/shape.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

static char* text_of(tm_shape shape) {
  static char text[TM_SHAPE_TEXT_SIZE];
  tm_shape_text(&shape, text, sizeof text);
  return text;
}

Test(shape, the_macro_counts_its_arguments) {
  cr_expect(eq(str, text_of(TM_SHAPE()), "()"));
  cr_expect(eq(str, text_of(TM_SHAPE(1)), "(1)"));
  cr_expect(eq(str, text_of(TM_SHAPE(1, 2)), "(1,2)"));
  cr_expect(eq(str, text_of(TM_SHAPE(1, 2, 3)), "(1,2,3)"));
  cr_expect(eq(str, text_of(TM_SHAPE(1, 2, 3, 4)), "(1,2,3,4)"));
  cr_expect(eq(str, text_of(TM_SHAPE(1, 2, 3, 4, 5)), "(1,2,3,4,5)"));
  cr_expect(eq(str, text_of(TM_SHAPE(1, 2, 3, 4, 5, 6)), "(1,2,3,4,5,6)"));
  cr_expect(eq(str, text_of(TM_SHAPE(1, 2, 3, 4, 5, 6, 7)), "(1,2,3,4,5,6,7)"));
  cr_expect(eq(str, text_of(TM_SHAPE(1, 2, 3, 4, 5, 6, 7, 8)), "(1,2,3,4,5,6,7,8)"));
}

Test(shape, every_integer_type_becomes_int64) {
  const uint8_t narrow = 200;
  const size_t wide = (size_t)1 << 40;
  const unsigned plain = 4000000000u;
  cr_expect(
      eq(str, text_of(TM_SHAPE(narrow, wide, plain, -1)), "(200,1099511627776,4000000000,-1)"));
}

Test(shape, arguments_are_evaluated_once_in_order) {
  int calls = 0;
  const tm_shape shape = TM_SHAPE((calls++, 7), 8);
  cr_expect(eq(int, calls, 1));
  cr_expect(eq(i64, shape.dim[0], 7));
}

Test(shape, only_the_entries_in_use_are_compared) {
  tm_shape a = TM_SHAPE(3, 4);
  tm_shape b = TM_SHAPE(3, 4);
  memset(&a.dim[2], 0x11, sizeof a.dim - 2 * sizeof a.dim[0]);
  memset(&b.dim[2], 0x22, sizeof b.dim - 2 * sizeof b.dim[0]);
  cr_expect(tm_shape_equal(&a, &b));
  b.dim[1] = 5;
  cr_expect(not(tm_shape_equal(&a, &b)));
  b = TM_SHAPE(3);
  cr_expect(not(tm_shape_equal(&a, &b)));
}

Test(shape, made_at_run_time_equals_made_by_the_macro) {
  const int64_t sizes[] = {5, 0, 7};
  const tm_shape made = tm_shape_make(3, sizes);
  const tm_shape same = TM_SHAPE(5, 0, 7);
  cr_expect(tm_shape_equal(&made, &same));
  const tm_shape scalar = tm_shape_make(0, NULL);
  cr_expect(eq(str, text_of(scalar), "()"));
}

Test(shape, a_wrong_rank_is_kept_and_reads_no_entry_too_many) {
  const int64_t sizes[TM_MAX_RANK] = {1, 1, 1, 1, 1, 1, 1, 1};
  cr_expect(eq(int, tm_shape_make(9, sizes).rank, 9));
  cr_expect(eq(str, text_of(tm_shape_make(9, sizes)), "(1,1,1,1,1,1,1,1)"));
  cr_expect(eq(str, text_of(tm_shape_make(-3, NULL)), "()"));
}

Test(shape, the_longest_text_fits_and_a_short_buffer_cuts) {
  char text[TM_SHAPE_TEXT_SIZE];
  const int64_t m = INT64_MIN;
  const tm_shape longest = TM_SHAPE(m, m, m, m, m, m, m, m);
  tm_shape_text(&longest, text, sizeof text);
  cr_expect(eq(sz, strlen(text), 8 * strlen("-9223372036854775808") + 7 + 2));
  const tm_shape shape = TM_SHAPE(20, 50);
  tm_shape_text(&shape, text, 4);
  cr_expect(eq(str, text, "(20"));
  tm_shape_text(&shape, text, 1);
  cr_expect(eq(str, text, ""));
}
