#include "tm/tensor/interval.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { LOW = -6, HIGH = 7 };  // what the model below knows

static const char* text_of(tm_interval interval) {
  static char text[TM_INTERVAL_TEXT_SIZE];
  tm_interval_text(interval, text, sizeof text);
  return text;
}

#define EXPECT_TEXT(interval, expected) cr_expect(eq(str, (char*)text_of(interval), expected))

Test(interval, is_printed) {
  EXPECT_TEXT(tm_interval_make(2, 5), "[2,5)");
  EXPECT_TEXT(tm_interval_from(-2), "[-2,inf)");
  EXPECT_TEXT(tm_interval_make(INT64_MIN, 5), "(-inf,5)");
  EXPECT_TEXT(tm_interval_make(INT64_MIN + 1, INT64_MAX - 1),
              "[-9223372036854775807,9223372036854775806)");
  char cut[4];
  tm_interval_text(tm_interval_make(2, 5), cut, sizeof cut);
  cr_expect(eq(str, cut, "[2,"));
}

Test(interval, is_made_of_a_size) {
  EXPECT_TEXT(tm_interval_sized(3, 4), "[3,7)");
  cr_expect(tm_interval_is_empty(tm_interval_sized(3, 0)));
  cr_expect(tm_interval_is_empty(tm_interval_sized(3, -1)));
  cr_expect(tm_interval_is_empty(tm_interval_sized(INT64_MIN, INT64_MIN)));
  EXPECT_TEXT(tm_interval_sized(INT64_MAX - 1, 5), "[9223372036854775806,inf)");
}

Test(interval, sizes_do_not_overflow) {
  cr_expect(eq(i64, tm_interval_size(tm_interval_make(2, 5)), 3));
  cr_expect(eq(i64, tm_interval_size(tm_interval_make(5, 2)), 0));
  cr_expect(eq(i64, tm_interval_size(tm_interval_make(INT64_MAX, INT64_MIN)), 0));
  cr_expect(eq(i64, tm_interval_size(tm_interval_from(0)), INT64_MAX));
  cr_expect(eq(i64, tm_interval_size(tm_interval_make(INT64_MIN, 0)), INT64_MAX));
  cr_expect(eq(i64, tm_interval_size(tm_interval_make(INT64_MIN + 1, INT64_MAX - 1)), INT64_MAX));
  cr_expect(eq(i64, tm_interval_size(tm_interval_make(-1, INT64_MAX - 1)), INT64_MAX));
}

Test(interval, open_ends_stay_and_others_saturate) {
  EXPECT_TEXT(tm_interval_dilate(tm_interval_from(5), 2, -100), "[3,inf)");
  EXPECT_TEXT(tm_interval_dilate(tm_interval_make(INT64_MIN, 5), -100, 2), "(-inf,7)");
  EXPECT_TEXT(tm_interval_dilate(tm_interval_make(-5, 5), INT64_MAX, INT64_MAX), "(-inf,inf)");
  EXPECT_TEXT(tm_interval_dilate(tm_interval_make(0, 5), INT64_MAX, 0), "[-9223372036854775807,5)");
  cr_expect(tm_interval_is_empty(tm_interval_dilate(tm_interval_make(0, 5), INT64_MIN, 0)));
  cr_expect(tm_interval_is_empty(tm_interval_dilate(tm_interval_make(0, 5), 0, INT64_MIN)));
}

// The model: the same with integers that hold every sum. An open end stays; others stop at the
// ends.
static int64_t moved(int64_t end, __int128 by) {
  const __int128 sum = (__int128)end + by;
  return sum > INT64_MAX ? INT64_MAX : sum < INT64_MIN ? INT64_MIN : (int64_t)sum;
}

static tm_interval dilated(tm_interval a, int64_t left, int64_t right) {
  return tm_interval_make(a.first == INT64_MIN ? INT64_MIN : moved(a.first, -(__int128)left),
                          a.last == INT64_MAX ? INT64_MAX : moved(a.last, right));
}

static void expect_dilates_as_its_model(tm_interval a, int64_t left, int64_t right) {
  const tm_interval expected = dilated(a, left, right);
  const tm_interval is = tm_interval_dilate(a, left, right);
  cr_assert(eq(i64, is.first, expected.first), "[%" PRId64 ", %" PRId64 ") by %" PRId64, a.first,
            a.last, left);
  cr_assert(eq(i64, is.last, expected.last), "[%" PRId64 ", %" PRId64 ") by %" PRId64, a.first,
            a.last, right);
}

Test(interval, dilations_at_the_ends_of_the_range_are_exact) {
  static const int64_t ends[] = {INT64_MIN, INT64_MIN + 1, INT64_MIN + 2, -7,       -1, 0, 1,
                                 5,         INT64_MAX - 2, INT64_MAX - 1, INT64_MAX};
  enum { ENDS = sizeof ends / sizeof *ends };
  for (int n = 0; n < ENDS * ENDS * ENDS * ENDS; n++) {
    expect_dilates_as_its_model(tm_interval_make(ends[n % ENDS], ends[n / ENDS % ENDS]),
                                ends[n / (ENDS * ENDS) % ENDS], ends[n / (ENDS * ENDS * ENDS)]);
  }
}

static int64_t draw(uint64_t* state) {
  *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  const uint64_t bits = *state ^ *state >> 29;
  return (int64_t)(bits << (bits >> 3) % 64);  // of every magnitude
}

Test(interval, dilations_anywhere_are_exact) {
  const uint64_t seed = 20240607;
  uint64_t state = seed;
  fprintf(stderr, "seed %" PRIu64 "\n", seed);
  for (int n = 0; n < 100000; n++) {
    const int64_t first = draw(&state);
    const int64_t last = draw(&state);
    const int64_t left = draw(&state);
    expect_dilates_as_its_model(tm_interval_make(first, last), left, draw(&state));
  }
}

Test(interval, a_dilation_undoes_an_erosion) {
  const tm_interval eroded = tm_interval_dilate(tm_interval_make(2, 5), -4, -4);
  cr_expect(tm_interval_is_empty(eroded));
  EXPECT_TEXT(tm_interval_dilate(eroded, 4, 4), "[2,5)");
}

// The model: which integers it has.
static unsigned set_of(tm_interval interval) {
  unsigned set = 0;
  for (int i = LOW; i < HIGH; i++) {
    set |= (unsigned)tm_interval_contains(interval, i) << (i - LOW);
  }
  return set;
}

// From the lowest bit that is set to the highest.
static unsigned filled(unsigned set) {
  unsigned hull = set;
  for (int i = 0; i < HIGH - LOW; i++) {
    const bool below = set & ((1u << i) - 1);
    const bool above = set >> i;
    hull |= (unsigned)(below && above) << i;
  }
  return hull;
}

static void expect_laws(tm_interval a, tm_interval b) {
  cr_assert(eq(int, tm_interval_size(a), __builtin_popcount(set_of(a))));
  cr_assert(eq(uint, set_of(tm_interval_intersection(a, b)), set_of(a) & set_of(b)));
  cr_assert(eq(uint, set_of(tm_interval_hull(a, b)), filled(set_of(a) | set_of(b))));
  cr_assert(eq(int, tm_interval_equal(a, b), set_of(a) == set_of(b)));
}

Test(interval, every_pair_of_small_ones_obeys_the_laws_of_sets) {
  for (int n = 0; n < 13 * 13 * 13 * 13; n++) {
    const int ends[] = {n % 13 - 6, n / 13 % 13 - 6, n / 169 % 13 - 6, n / 2197 - 6};
    expect_laws(tm_interval_make(ends[0], ends[1]), tm_interval_make(ends[2], ends[3]));
  }
}
