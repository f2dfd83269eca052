// Warps and appends against the loops that their header shows.

#include "tm/tensor/warp.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/failing.h"
#include "tests/support/machine.h"
#include "tm/alloc/bookkeeping.h"
#include "tm/alloc/cuda_pool.h"
#include "tm/alloc/host.h"
#include "tm/alloc/stream.h"
#include "tm/context/context.h"
#include "tm/tensor/copy.h"

static tm_batch_copy* batch;

static void setup(void) {
  batch = tm_batch_copy_create();
  cr_assert(batch != NULL);
}

static void finish(void) { tm_batch_copy_release(batch); }

TestSuite(warp, .init = setup, .fini = finish);

#define EXPECT_OK(call) cr_expect(eq(int, (call), TM_OK), "%s", tm_last_error()->message)
#define ASSERT_OK(call) cr_assert(eq(int, (call), TM_OK), "%s", tm_last_error()->message)
#define EXPECT_SAYS(text) \
  cr_expect(strstr(tm_last_error()->message, (text)) != NULL, "%s", tm_last_error()->message)

static tm_tensor make(tm_shape shape) {
  tm_tensor tensor = tm_empty(shape, TM_U8, TM_CPU);
  cr_assert(tm_ok(&tensor), "%s", tm_last_error()->message);
  return tensor;
}

// Bytes from `first` on.
static tm_tensor count_from(int first, tm_shape shape) {
  tm_tensor tensor = make(shape);
  for (int64_t i = 0; i < tm_size(&tensor); i++) {
    TM_DATA(uint8_t, &tensor)[i] = (uint8_t)(first + i);
  }
  return tensor;
}

static tm_tensor filled(tm_shape shape) {
  tm_tensor tensor = make(shape);
  memset(tensor.data, 0xee, tm_byte_size(&tensor));
  return tensor;
}

static tm_buffer numbers(const int32_t* values, int64_t count) {
  tm_buffer buffer = tm_buffer_empty(count, TM_I32, TM_CPU);
  cr_assert(tm_buffer_ok(&buffer), "%s", tm_last_error()->message);
  if (count > 0) memcpy(buffer.data, values, (size_t)count * sizeof *values);
  return buffer;
}
#define NUMBERS(...)                      \
  numbers((const int32_t[]){__VA_ARGS__}, \
          (int64_t)(sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t)))

static void expect_bytes(const tm_tensor* tensor, const char* expected) {
  cr_expect(eq(int, memcmp(tensor->data, expected, tm_byte_size(tensor)), 0));
}

//===-- By example --------------------------------------------------------===//

Test(warp, moves_the_rows_that_stay) {
  tm_auto_tensor old = count_from(0, TM_SHAPE(4, 2));
  tm_auto_tensor to = filled(TM_SHAPE(4, 2));
  tm_auto_buffer perm = NUMBERS(3, 0, 4);
  EXPECT_OK(tm_warp(batch, &old, 4, &perm, &to));
  EXPECT_OK(tm_batch_copy_run(batch));
  expect_bytes(&to, "\6\7\0\1\xee\xee\xee\xee");
}

Test(warp, takes_rows_that_join_from_the_added_ones) {
  tm_auto_tensor old = count_from(0, TM_SHAPE(4, 2));
  tm_auto_tensor added = count_from(10, TM_SHAPE(3, 2));
  tm_auto_tensor to = filled(TM_SHAPE(4, 2));
  tm_auto_buffer perm = NUMBERS(3, 0, 4);
  EXPECT_OK(tm_warp_or(batch, &old, 4, &perm, &added, &to));
  EXPECT_OK(tm_batch_copy_run(batch));
  expect_bytes(&to, "\6\7\0\1\xe\xf\xee\xee");
}

// Row 3 is there, but not among the old rows that count.
Test(warp, old_rows_says_which_stay) {
  tm_auto_tensor old = count_from(0, TM_SHAPE(4, 1));
  tm_auto_tensor added = count_from(10, TM_SHAPE(2, 1));
  tm_auto_tensor to = filled(TM_SHAPE(2, 1));
  tm_auto_buffer perm = NUMBERS(3, 2);
  EXPECT_OK(tm_warp_or(batch, &old, 3, &perm, &added, &to));
  EXPECT_OK(tm_batch_copy_run(batch));
  expect_bytes(&to, "\xa\2");
}

Test(warp, packs_packed_rows_again) {
  tm_auto_tensor old = count_from(0, TM_SHAPE(6));
  tm_auto_buffer old_offsets = NUMBERS(0, 1, 3, 6);
  tm_auto_tensor added = count_from(10, TM_SHAPE(5));
  tm_auto_buffer added_offsets = NUMBERS(0, 0, 4, 5, 5);
  tm_auto_tensor to = filled(TM_SHAPE(10));
  tm_auto_buffer offsets = NUMBERS(9, 9, 9, 9, 9, 9);
  tm_auto_buffer perm = NUMBERS(2, 3, 0, 7);
  const tm_packed_rows from = {&old, &old_offsets};
  const tm_packed_rows joining = {&added, &added_offsets};
  const tm_packed_rows packed = {&to, &offsets};
  EXPECT_OK(tm_warp_packed(batch, &from, 3, &perm, &joining, &packed));
  EXPECT_OK(tm_batch_copy_run(batch));
  expect_bytes(&to, "\3\4\5\xa\xb\xc\xd\0\xee\xee");
  const int32_t expected[] = {0, 3, 7, 8, 8, 9};
  cr_expect(eq(int, memcmp(offsets.data, expected, sizeof expected), 0));
}

Test(append, lengthens_rows_that_stay_and_takes_those_that_join) {
  tm_auto_tensor old = count_from(0, TM_SHAPE(2, 4));
  tm_auto_buffer old_sizes = NUMBERS(3, 0);
  tm_auto_tensor last = count_from(20, TM_SHAPE(2));
  tm_auto_tensor added = count_from(10, TM_SHAPE(5));
  tm_auto_buffer added_offsets = NUMBERS(0, 0, 0, 5);
  tm_auto_tensor to = filled(TM_SHAPE(3, 5));
  tm_auto_buffer sizes = NUMBERS(9, 9, 9, 9);
  tm_auto_buffer perm = NUMBERS(1, 0, 2);
  tm_auto_batch_copy copies = tm_batch_copy_create();
  const tm_padded_rows from = {&old, &old_sizes};
  const tm_packed_rows joining = {&added, &added_offsets};
  const tm_padded_rows grown = {&to, &sizes};
  EXPECT_OK(tm_append(copies, &from, &last, 2, &perm, &joining, &grown));
  EXPECT_OK(tm_batch_copy_run(copies));
  expect_bytes(&to, "\x15\xee\xee\xee\xee\0\1\2\x14\xee\xa\xb\xc\xd\xe");
  const int32_t expected[] = {1, 4, 5, 9};
  cr_expect(eq(int, memcmp(sizes.data, expected, sizeof expected), 0));
}

Test(warp, rows_that_stay_side_by_side_are_one_piece) {
  tm_auto_tensor old = count_from(0, TM_SHAPE(100, 2));
  tm_auto_tensor to = filled(TM_SHAPE(100, 2));
  int32_t shifted[99];
  for (int i = 0; i < 99; i++) shifted[i] = i < 50 ? i : i + 1;
  tm_auto_buffer perm = numbers(shifted, 99);
  EXPECT_OK(tm_warp(batch, &old, 100, &perm, &to));
  cr_expect(eq(sz, tm_batch_copy_size(batch), 2));
  EXPECT_OK(tm_batch_copy_run(batch));
  cr_expect(eq(int, TM_DATA(uint8_t, &to)[196], 198));
}

Test(warp, joins_the_callers_group) {
  tm_auto_tensor old = count_from(0, TM_SHAPE(4, 2));
  tm_auto_tensor to = filled(TM_SHAPE(4, 2));
  tm_auto_buffer perm = NUMBERS(0, 1);
  TM_WITH_COPY_GROUP(batch) {
    EXPECT_OK(tm_warp(batch, &old, 4, &perm, &to));
    cr_expect(eq(int, tm_batch_copy_begin_group(batch), TM_ERR_INVALID), "the group was closed");
  }
  EXPECT_OK(tm_warp(batch, &old, 4, &perm, &to));
  EXPECT_OK(tm_batch_copy_run(batch));
}

Test(warp, no_rows_are_fine) {
  tm_auto_tensor old = make(TM_SHAPE(0, 2));
  tm_auto_tensor to = make(TM_SHAPE(0, 2));
  tm_auto_buffer perm = tm_buffer_empty(0, TM_I32, TM_CPU);
  EXPECT_OK(tm_warp(batch, &old, 0, &perm, &to));
  EXPECT_OK(tm_warp_or(batch, &old, 0, &perm, &old, &to));
  tm_auto_tensor thin = count_from(0, TM_SHAPE(3, 0));
  tm_auto_tensor thin_to = make(TM_SHAPE(3, 0));
  tm_auto_buffer some = NUMBERS(2, 1, 0);
  EXPECT_OK(tm_warp(batch, &thin, 3, &some, &thin_to));
  cr_expect(eq(sz, tm_batch_copy_size(batch), 0));
}

//===-- Refusals ----------------------------------------------------------===//

#define EXPECT_REFUSED(call, status, text)                                \
  do {                                                                    \
    tm_clear_error();                                                     \
    cr_expect(eq(int, (call), (status)), "%s", tm_last_error()->message); \
    EXPECT_SAYS(text);                                                    \
    cr_expect(eq(sz, tm_batch_copy_size(batch), 0));                      \
  } while (0)

Test(warp, refuses_indices_that_are_nothing) {
  tm_auto_tensor old = count_from(0, TM_SHAPE(4, 2));
  tm_auto_tensor added = count_from(0, TM_SHAPE(1, 2));
  tm_auto_tensor to = filled(TM_SHAPE(3, 2));
  tm_auto_buffer negative = NUMBERS(0, -5, 1);
  tm_auto_buffer joining = NUMBERS(0, 4, 1);
  tm_auto_buffer four = NUMBERS(0, 1, 2, 3);
  EXPECT_REFUSED(tm_warp(batch, &old, 4, &negative, &to), TM_ERR_INVALID, "perm[1] is -5");
  EXPECT_REFUSED(tm_warp(batch, &old, 5, &joining, &to), TM_ERR_OUT_OF_RANGE, "5 old rows");
  EXPECT_REFUSED(tm_warp(batch, &old, -1, &joining, &to), TM_ERR_INVALID, "-1 old rows");
  EXPECT_REFUSED(tm_warp(batch, &old, 4, &four, &to), TM_ERR_OUT_OF_RANGE, "perm has 4 rows");
  EXPECT_REFUSED(tm_warp_or(batch, &old, 4, &joining, &added, &to), TM_ERR_OUT_OF_RANGE,
                 "perm[1] is 4");
}

Test(warp, refuses_tensors_that_do_not_fit) {
  tm_auto_tensor old = count_from(0, TM_SHAPE(4, 2));
  tm_auto_tensor wide = filled(TM_SHAPE(4, 3));
  tm_auto_tensor deep = filled(TM_SHAPE(4, 2, 1));
  tm_auto_tensor scalar = filled(TM_SHAPE());
  tm_auto_tensor typed = tm_empty(TM_SHAPE(4, 2), TM_I8, TM_CPU);
  tm_auto_tensor part = tm_slice_outer(&old, 1, 2);
  tm_auto_tensor to = filled(TM_SHAPE(4, 2));
  tm_auto_tensor none = tm_null();
  tm_auto_buffer perm = NUMBERS(0, 1);
  tm_auto_buffer wrong = tm_buffer_empty(2, TM_I64, TM_CPU);
  tm_auto_buffer missing = tm_buffer_null();
  EXPECT_REFUSED(tm_warp(batch, &old, 4, &perm, &wide), TM_ERR_INVALID, "differ");
  EXPECT_REFUSED(tm_warp(batch, &old, 4, &perm, &deep), TM_ERR_INVALID, "differ");
  EXPECT_REFUSED(tm_warp(batch, &old, 4, &perm, &typed), TM_ERR_INVALID, "differ");
  EXPECT_REFUSED(tm_warp(batch, &scalar, 1, &perm, &scalar), TM_ERR_INVALID, "rank 0");
  EXPECT_REFUSED(tm_warp(batch, &old, 4, &perm, &part), TM_ERR_INVALID, "overlap");
  EXPECT_REFUSED(tm_warp_or(batch, &to, 4, &perm, &part, &old), TM_ERR_INVALID, "overlap");
  EXPECT_REFUSED(tm_warp(batch, &none, 4, &perm, &to), TM_ERR_INVALID, "old");
  EXPECT_REFUSED(tm_warp(batch, NULL, 4, &perm, &to), TM_ERR_INVALID, "old");
  EXPECT_REFUSED(tm_warp(batch, &old, 4, &perm, &none), TM_ERR_INVALID, "destination");
  EXPECT_REFUSED(tm_warp(batch, &old, 4, &wrong, &to), TM_ERR_INVALID, "i64");
  EXPECT_REFUSED(tm_warp(batch, &old, 4, &missing, &to), TM_ERR_INVALID, "perm");
  EXPECT_REFUSED(tm_warp(NULL, &old, 4, &perm, &to), TM_ERR_INVALID, "batch");
}

Test(warp, refuses_rows_that_begin_inside_a_byte) {
  tm_auto_tensor old = tm_empty(TM_SHAPE(4, 3), TM_U4, TM_CPU);
  tm_auto_tensor to = tm_empty(TM_SHAPE(4, 3), TM_U4, TM_CPU);
  tm_auto_tensor even = tm_empty(TM_SHAPE(4, 2), TM_U4, TM_CPU);
  tm_auto_tensor even_to = tm_empty(TM_SHAPE(4, 2), TM_U4, TM_CPU);
  memcpy(even.data, "abcd", 4);
  tm_auto_buffer perm = NUMBERS(3, 2, 1, 0);
  EXPECT_REFUSED(tm_warp(batch, &old, 4, &perm, &to), TM_ERR_INVALID, "no whole bytes");
  EXPECT_OK(tm_warp(batch, &even, 4, &perm, &even_to));
  EXPECT_OK(tm_batch_copy_run(batch));
  expect_bytes(&even_to, "dcba");
}

typedef struct packed_case {
  int32_t old_offsets[4];
  int32_t added_offsets[4];
  tm_status status;
  const char* text;
} packed_case;

Test(warp, refuses_offsets_that_are_nothing) {
  static const packed_case cases[] = {
      {{0, 1, 3, 6}, {0, 1, 2, 3}, TM_OK, ""},
      {{0, 1, 0, 6}, {0, 1, 2, 3}, TM_ERR_OUT_OF_RANGE, "row 1 of the old ones (perm[0] is 1)"},
      {{0, -1, 3, 6}, {0, 1, 2, 3}, TM_ERR_OUT_OF_RANGE, "from -1 to 3"},
      {{0, 1, 7, 6}, {0, 1, 2, 3}, TM_ERR_OUT_OF_RANGE, "from 1 to 7 of 6"},
      {{0, 1, 3, 6}, {0, 3, 2, 3}, TM_ERR_OUT_OF_RANGE, "row 1 of the added ones (perm[1] is 3)"},
      {{0, 1, 3, 6}, {0, 0, 5, 3}, TM_ERR_OUT_OF_RANGE, "row 1 (perm[1] is 3) is from 2 to 7 of 6"},
  };
  tm_auto_tensor old = count_from(0, TM_SHAPE(6));
  tm_auto_tensor added = count_from(10, TM_SHAPE(5));
  tm_auto_tensor to = filled(TM_SHAPE(6));
  tm_auto_buffer offsets = NUMBERS(9, 9, 9);
  tm_auto_buffer perm = NUMBERS(1, 3);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    tm_auto_buffer old_offsets = numbers(cases[i].old_offsets, 4);
    tm_auto_buffer added_offsets = numbers(cases[i].added_offsets, 4);
    const tm_packed_rows from = {&old, &old_offsets};
    const tm_packed_rows joining = {&added, &added_offsets};
    const tm_packed_rows packed = {&to, &offsets};
    memset(offsets.data, 0x11, 12);
    tm_clear_error();
    cr_expect(eq(int, tm_warp_packed(batch, &from, 3, &perm, &joining, &packed), cases[i].status),
              "%zu: %s", i, tm_last_error()->message);
    EXPECT_SAYS(cases[i].text);
    cr_expect(eq(int, *(int32_t*)offsets.data, cases[i].status == TM_OK ? 0 : 0x11111111));
    cr_expect(eq(sz, tm_batch_copy_size(batch), cases[i].status == TM_OK ? 2 : 0), "%zu", i);
    tm_batch_copy_clear(batch);
  }
}

Test(warp, refuses_numbers_that_overlap_and_too_few) {
  tm_auto_tensor old = count_from(0, TM_SHAPE(6));
  tm_auto_tensor added = count_from(10, TM_SHAPE(5));
  tm_auto_tensor to = filled(TM_SHAPE(12));
  tm_auto_buffer old_offsets = NUMBERS(0, 1, 3, 6);
  tm_auto_buffer added_offsets = NUMBERS(0, 1, 2, 3);
  tm_auto_buffer few = NUMBERS(0, 0);
  tm_auto_buffer perm = NUMBERS(1, 3, 0);
  const tm_packed_rows from = {&old, &old_offsets};
  const tm_packed_rows joining = {&added, &added_offsets};
  const tm_packed_rows over_old = {&to, &old_offsets};
  const tm_packed_rows over_added = {&to, &added_offsets};
  const tm_packed_rows too_few = {&to, &few};
  const tm_packed_rows short_old = {&old, &few};
  tm_auto_buffer offsets = NUMBERS(0, 0, 0, 0);
  const tm_packed_rows packed = {&to, &offsets};
  EXPECT_REFUSED(tm_warp_packed(batch, &from, 3, &perm, &joining, &over_old), TM_ERR_INVALID,
                 "overlap the old offsets");
  EXPECT_REFUSED(tm_warp_packed(batch, &from, 3, &perm, &joining, &over_added), TM_ERR_INVALID,
                 "overlap the added offsets");
  EXPECT_REFUSED(tm_warp_packed(batch, &from, 3, &perm, &joining, &too_few), TM_ERR_OUT_OF_RANGE,
                 "4 numbers into 2");
  EXPECT_REFUSED(tm_warp_packed(batch, &short_old, 3, &perm, &joining, &packed),
                 TM_ERR_OUT_OF_RANGE, "of 2 offsets");
  EXPECT_REFUSED(tm_warp_packed(batch, NULL, 3, &perm, &joining, &packed), TM_ERR_INVALID, "old");
  EXPECT_REFUSED(tm_warp_packed(batch, &from, 3, &perm, NULL, &packed), TM_ERR_INVALID, "added");
  EXPECT_REFUSED(tm_warp_packed(batch, &from, 3, &perm, &joining, NULL), TM_ERR_INVALID,
                 "destination");
}

// A buffer of the first numbers that lie in the memory of a tensor of i32.
static tm_buffer inside(const tm_tensor* values, int64_t count) {
  tm_auto_buffer all = tm_buffer_of(values);
  return tm_buffer_slice(&all, 0, count);
}

// They would be overwritten before they are copied.
Test(warp, refuses_numbers_that_overlap_values) {
  tm_tensor values[3];
  for (int i = 0; i < 3; i++) {
    values[i] = tm_empty(TM_SHAPE(6), TM_I32, TM_CPU);
    EXPECT_OK(tm_clear(&values[i]));
  }
  tm_auto_buffer old_offsets = NUMBERS(0, 1, 3, 6);
  tm_auto_buffer added_offsets = NUMBERS(0, 1, 2, 3);
  tm_auto_buffer perm = NUMBERS(1, 3, 0);
  const tm_packed_rows from = {&values[0], &old_offsets};
  const tm_packed_rows joining = {&values[1], &added_offsets};
  static const char* const names[] = {"overlap the old values", "overlap the added values",
                                      "overlap its values"};
  for (int i = 0; i < 3; i++) {
    tm_auto_buffer offsets = inside(&values[i], 4);
    const tm_packed_rows packed = {&values[2], &offsets};
    EXPECT_REFUSED(tm_warp_packed(batch, &from, 3, &perm, &joining, &packed), TM_ERR_INVALID,
                   names[i]);
  }
  for (int i = 0; i < 3; i++) tm_release(&values[i]);
}

Test(append, refuses_sizes_that_overlap_values, .init = setup, .fini = finish) {
  tm_tensor values[4];
  for (int i = 0; i < 4; i++) {
    values[i] =
        i % 2 ? tm_empty(TM_SHAPE(2), TM_I32, TM_CPU) : tm_empty(TM_SHAPE(2, 4), TM_I32, TM_CPU);
    EXPECT_OK(tm_clear(&values[i]));
  }
  tm_auto_buffer old_sizes = NUMBERS(1, 2);
  tm_auto_buffer added_offsets = NUMBERS(0, 1, 2);
  tm_auto_buffer perm = NUMBERS(1, 2);
  const tm_padded_rows from = {&values[0], &old_sizes};
  const tm_packed_rows joining = {&values[3], &added_offsets};
  static const char* const names[] = {"overlap the old values", "overlap last",
                                      "overlap its values", "overlap the added values"};
  for (int i = 0; i < 4; i++) {
    tm_auto_buffer sizes = inside(&values[i], 2);
    const tm_padded_rows grown = {&values[2], &sizes};
    EXPECT_REFUSED(tm_append(batch, &from, &values[1], 2, &perm, &joining, &grown), TM_ERR_INVALID,
                   names[i]);
  }
  for (int i = 0; i < 4; i++) tm_release(&values[i]);
}

// The old row 1 has `size` elements; `room` is what the destination's rows have.
static tm_status append_with(int32_t size, int64_t room, int32_t joining_size) {
  tm_auto_tensor old = count_from(0, TM_SHAPE(2, 4));
  tm_auto_buffer old_sizes = NUMBERS(3, size);
  tm_auto_tensor last = count_from(20, TM_SHAPE(2));
  tm_auto_tensor added = count_from(10, TM_SHAPE(8));
  tm_auto_buffer added_offsets = NUMBERS(0, 0, joining_size);
  tm_auto_tensor to = filled(TM_SHAPE(2, room));
  tm_auto_buffer sizes = NUMBERS(9, 9);
  tm_auto_buffer perm = NUMBERS(1, 2);
  const tm_padded_rows from = {&old, &old_sizes};
  const tm_packed_rows joining = {&added, &added_offsets};
  const tm_padded_rows grown = {&to, &sizes};
  const tm_status status = tm_append(batch, &from, &last, 2, &perm, &joining, &grown);
  cr_expect(eq(int, *(int32_t*)sizes.data, status == TM_OK ? size + 1 : 9));
  tm_auto_tensor untouched = filled(TM_SHAPE(2, room));
  cr_expect(eq(int, memcmp(to.data, untouched.data, tm_byte_size(&to)), 0), "before it is run");
  if (status == TM_OK) tm_batch_copy_clear(batch);
  return status;
}

Test(append, refuses_lengths_that_do_not_fit, .init = setup, .fini = finish) {
  EXPECT_OK(append_with(3, 4, 4));
  EXPECT_OK(append_with(4, 5, 5));
  EXPECT_REFUSED(append_with(4, 4, 4), TM_ERR_OUT_OF_RANGE,
                 "5 elements, the destination room for 4");
  EXPECT_REFUSED(append_with(-1, 4, 4), TM_ERR_OUT_OF_RANGE, "old size -1 (row 1, perm[0])");
  EXPECT_REFUSED(append_with(5, 8, 4), TM_ERR_OUT_OF_RANGE, "old size 5");
  EXPECT_REFUSED(append_with(3, 4, 5), TM_ERR_OUT_OF_RANGE, "perm[1] is 2) has 5 elements");
  EXPECT_REFUSED(append_with(3, 9, 9), TM_ERR_OUT_OF_RANGE, "from 0 to 9 of 8");
}

//===-- At random ---------------------------------------------------------===//

static uint64_t state;

static int32_t below(int32_t limit) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (int32_t)((state >> 33) % (uint32_t)limit);
}

enum { MOST = 12, LONGEST = 6, WIDTH = 3, PACKED = MOST * LONGEST };

// A step: what stays and what joins.
typedef struct step {
  int32_t old_rows;
  int32_t rows;
  int32_t perm[MOST];
  int32_t old_offsets[MOST + 1];
  int32_t added_offsets[MOST + 1];
  int32_t old_sizes[MOST];
  uint8_t old[PACKED][WIDTH];
  uint8_t last[MOST][WIDTH];
  uint8_t added[PACKED][WIDTH];
} step;

static void make_offsets(int32_t* offsets) {
  offsets[0] = 0;
  for (int i = 0; i < MOST; i++) offsets[i + 1] = offsets[i] + below(LONGEST);
}

static void make_step(step* s) {
  s->old_rows = below(MOST + 1);
  s->rows = below(MOST + 1);
  const int32_t limit = 2 * s->old_rows + 1;
  for (int i = 0; i < MOST; i++) {
    s->perm[i] = below(4) == 0 && i > 0 ? s->perm[i - 1] + 1 : below(limit);
    s->old_sizes[i] = below(LONGEST);
    for (int k = 0; k < WIDTH; k++) s->last[i][k] = (uint8_t)below(256);
  }
  make_offsets(s->old_offsets);
  make_offsets(s->added_offsets);
  for (int i = 0; i < PACKED; i++) {
    for (int k = 0; k < WIDTH; k++) {
      s->old[i][k] = (uint8_t)below(256);
      s->added[i][k] = (uint8_t)below(256);
    }
  }
}

static tm_device_type place;  // of the values

// Values at `place`.
static tm_tensor placed(const void* values, tm_shape shape) {
  tm_auto_tensor host =
      tm_from_borrowed((void*)(uintptr_t)values, shape, TM_U8, tm_device_make(TM_CPU, 0));
  tm_tensor tensor = tm_empty(shape, TM_U8, place);
  cr_assert(tm_ok(&tensor), "%s", tm_last_error()->message);
  ASSERT_OK(tm_copy(&host, &tensor));
  return tensor;
}

static void expect_values(const tm_tensor* tensor, const void* expected, uint64_t seed) {
  static uint8_t seen[MOST * LONGEST * WIDTH];
  tm_auto_tensor host =
      tm_from_borrowed(seen, tm_shape_of(tensor), TM_U8, tm_device_make(TM_CPU, 0));
  ASSERT_OK(tm_batch_copy_run(batch));
  ASSERT_OK(tm_copy(tensor, &host));
  if (place == TM_DEVICE) ASSERT_OK(tm_stream_sync(tm_current_stream()));
  cr_assert(eq(int, memcmp(seen, expected, tm_byte_size(tensor)), 0), "seed %llu",
            (unsigned long long)seed);
}

static void try_rows(const step* s, uint64_t seed) {
  uint8_t expected[MOST][WIDTH];
  memset(expected, 0xee, sizeof expected);
  tm_auto_buffer perm = numbers(s->perm, s->rows);
  tm_auto_tensor old = placed(s->old, TM_SHAPE(MOST, WIDTH));
  tm_auto_tensor added = placed(s->added, TM_SHAPE(MOST, WIDTH));
  tm_auto_tensor to = placed(expected, TM_SHAPE(MOST, WIDTH));
  EXPECT_OK(tm_warp(batch, &old, s->old_rows, &perm, &to));
  for (int i = 0; i < s->rows; i++) {
    if (s->perm[i] < s->old_rows) memcpy(expected[i], s->old[s->perm[i]], WIDTH);
  }
  expect_values(&to, expected, seed);
  EXPECT_OK(tm_warp_or(batch, &old, s->old_rows, &perm, &added, &to));
  for (int i = 0; i < s->rows; i++) {
    if (s->perm[i] >= s->old_rows) memcpy(expected[i], s->added[i], WIDTH);
  }
  expect_values(&to, expected, seed);
}

static void try_packed(const step* s, uint64_t seed) {
  uint8_t expected[PACKED][WIDTH];
  int32_t expected_offsets[MOST + 1] = {0};
  memset(expected, 0xee, sizeof expected);
  tm_auto_buffer perm = numbers(s->perm, s->rows);
  tm_auto_tensor old = placed(s->old, TM_SHAPE(PACKED, WIDTH));
  tm_auto_tensor added = placed(s->added, TM_SHAPE(PACKED, WIDTH));
  tm_auto_tensor to = placed(expected, TM_SHAPE(PACKED, WIDTH));
  tm_auto_buffer old_offsets = numbers(s->old_offsets, MOST + 1);
  tm_auto_buffer added_offsets = numbers(s->added_offsets, MOST + 1);
  tm_auto_buffer offsets = tm_buffer_empty(MOST + 1, TM_I32, TM_CPU);
  const tm_packed_rows from = {&old, &old_offsets};
  const tm_packed_rows joining = {&added, &added_offsets};
  const tm_packed_rows packed = {&to, &offsets};
  EXPECT_OK(tm_warp_packed(batch, &from, s->old_rows, &perm, &joining, &packed));
  for (int i = 0; i < s->rows; i++) {
    const bool stays = s->perm[i] < s->old_rows;
    const int32_t* at = stays ? &s->old_offsets[s->perm[i]] : &s->added_offsets[i];
    expected_offsets[i + 1] = expected_offsets[i];
    for (int32_t row = at[0]; row < at[1]; row++) {
      memcpy(expected[expected_offsets[i + 1]++], stays ? s->old[row] : s->added[row], WIDTH);
    }
  }
  expect_values(&to, expected, seed);
  cr_expect(eq(int, memcmp(offsets.data, expected_offsets, 4 * ((size_t)s->rows + 1)), 0));
}

static void try_append(const step* s, uint64_t seed) {
  uint8_t expected[MOST][LONGEST][WIDTH];
  int32_t expected_sizes[MOST] = {0};
  memset(expected, 0xee, sizeof expected);
  tm_auto_buffer perm = numbers(s->perm, s->rows);
  tm_auto_tensor old = placed(s->old, TM_SHAPE(MOST, LONGEST, WIDTH));
  tm_auto_tensor last = placed(s->last, TM_SHAPE(MOST, WIDTH));
  tm_auto_tensor added = placed(s->added, TM_SHAPE(PACKED, WIDTH));
  tm_auto_tensor to = placed(expected, TM_SHAPE(MOST, LONGEST, WIDTH));
  tm_auto_buffer old_sizes = numbers(s->old_sizes, MOST);
  tm_auto_buffer added_offsets = numbers(s->added_offsets, MOST + 1);
  tm_auto_buffer sizes = tm_buffer_empty(MOST, TM_I32, TM_CPU);
  const tm_padded_rows from = {&old, &old_sizes};
  const tm_packed_rows joining = {&added, &added_offsets};
  const tm_padded_rows grown = {&to, &sizes};
  EXPECT_OK(tm_append(batch, &from, &last, s->old_rows, &perm, &joining, &grown));
  for (int i = 0; i < s->rows; i++) {
    const int32_t row = s->perm[i];
    int32_t* size = &expected_sizes[i];
    if (row < s->old_rows) {
      for (; *size < s->old_sizes[row]; ++*size) {
        memcpy(expected[i][*size], s->old[row * LONGEST + *size], WIDTH);
      }
      memcpy(expected[i][(*size)++], s->last[row], WIDTH);
    } else {
      for (int32_t k = s->added_offsets[i]; k < s->added_offsets[i + 1]; k++) {
        memcpy(expected[i][(*size)++], s->added[k], WIDTH);
      }
    }
  }
  expect_values(&to, expected, seed);
  cr_expect(eq(int, memcmp(sizes.data, expected_sizes, 4 * (size_t)s->rows), 0));
}

static void try_at_random(void) {
  const char* given = getenv("WARP_SEED");
  const uint64_t first = given ? strtoull(given, NULL, 10) : 1;
  static step s;
  for (uint64_t seed = first; seed < first + 200; seed++) {
    state = seed;
    make_step(&s);
    try_rows(&s, seed);
    try_packed(&s, seed);
    try_append(&s, seed);
  }
}

Test(warp, is_the_loop_of_its_header_on_the_host) {
  place = TM_CPU;
  try_at_random();
}

Test(warp, is_the_loop_of_its_header_on_a_device) {
  machine_configure(1, "64MiB");
  machine_require_devices(1);
  tm_auto_stream stream = tm_stream_create(0, 0);
  tm_auto_allocator pool = tm_cuda_pool_allocator_create(stream, NULL);
  place = TM_DEVICE;
  TM_WITH_STREAM(stream)
  TM_WITH_ALLOCATOR(pool) { try_at_random(); }
}

//===-- Failures ----------------------------------------------------------===//

static tm_status warp_and_append(tm_allocator* upstream) {
  tm_auto_batch_copy copies = tm_batch_copy_create();
  if (!copies) {
    return tm_last_status();
  }
  TM_USE_ALLOCATOR(upstream);
  TM_TRY_TENSOR(old, tm_empty(TM_SHAPE(40, 4), TM_U8, TM_CPU));
  TM_TRY_TENSOR(last, tm_empty(TM_SHAPE(40), TM_U8, TM_CPU));
  TM_TRY_TENSOR(to, tm_empty(TM_SHAPE(40, 4), TM_U8, TM_CPU));
  TM_TRY_BUFFER(perm, tm_buffer_empty(40, TM_I32, TM_CPU));
  TM_TRY_BUFFER(sizes, tm_buffer_empty(41, TM_I32, TM_CPU));
  TM_TRY_BUFFER(grown_sizes, tm_buffer_empty(41, TM_I32, TM_CPU));
  TM_TRY(tm_clear(&old));
  TM_TRY(tm_clear(&last));
  TM_TRY(tm_buffer_clear(&sizes));
  for (int i = 0; i < 40; i++) TM_BUFFER_DATA(int32_t, &perm)[i] = 39 - i;
  TM_TRY(tm_warp(copies, &old, 40, &perm, &to));
  const tm_padded_rows from = {&old, &sizes};
  const tm_packed_rows joining = {&last, &sizes};
  const tm_padded_rows grown = {&to, &grown_sizes};
  TM_TRY(tm_append(copies, &from, &last, 40, &perm, &joining, &grown));
  return tm_batch_copy_run(copies);
}

Test(warp, survives_every_failure) { expect_survives_every_failure(warp_and_append); }

Test(warp, that_fails_in_the_middle_adds_nothing) {
  tm_auto_tensor old = count_from(0, TM_SHAPE(200));
  tm_auto_tensor to = filled(TM_SHAPE(200));
  int32_t reversed[100];
  for (int i = 0; i < 100; i++) reversed[i] = 100 - i;
  tm_auto_buffer perm = numbers(reversed, 100);
  tm_auto_tensor head = tm_slice_outer(&old, 0, 1);
  tm_auto_tensor place_of_head = tm_slice_outer(&to, 150, 1);
  EXPECT_OK(tm_batch_copy_add(batch, &head, &place_of_head));
  tm_bookkeeping_fail_nth(2);
  cr_expect(eq(int, tm_warp(batch, &old, 200, &perm, &to), TM_ERR_NO_MEMORY));
  tm_bookkeeping_fail_nth(0);
  cr_expect(eq(sz, tm_batch_copy_size(batch), 1));
  cr_expect(eq(int, old.storage->references, 3), "the tensor, its slice, the batch");
  EXPECT_OK(tm_batch_copy_run(batch));
  cr_expect(eq(int, TM_DATA(uint8_t, &to)[0], 0xee));
  cr_expect(eq(int, TM_DATA(uint8_t, &to)[150], 0));
}
