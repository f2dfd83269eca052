#include "tm/tensor/accessor.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tests/support/expect_fatal.h"
#include "tm/alloc/host.h"
#include "tm/tensor/buffer.h"
#include "tm/tensor/layout.h"

static tm_tensor count_up(tm_shape shape) {
  tm_tensor tensor = tm_empty_from(tm_host_allocator(), shape, TM_I32);
  cr_assert(tm_ok(&tensor), "%s", tm_last_error()->message);
  for (int64_t i = 0; i < tm_size(&tensor); i++) {
    TM_DATA(int32_t, &tensor)[i] = (int32_t)i;
  }
  return tensor;
}

Test(accessor, indexes_one_to_four_dimensions) {
  tm_auto_tensor x = count_up(TM_SHAPE(2, 3, 4, 5));
  tm_accessor four;
  cr_assert(eq(int, tm_accessor_make(&x, TM_I32, 4, &four), TM_OK));
  cr_expect(eq(int, TM_AT(int32_t, four, 1, 2, 3, 4), 119));
  cr_expect(eq(i64, four.shape[1], 3));
  tm_auto_tensor cube = tm_slice_outer(&x, 1, 1);
  tm_auto_tensor three_dimensions = tm_squeeze(&cube, 0);
  tm_accessor three;
  cr_assert(eq(int, tm_accessor_make(&three_dimensions, TM_I32, 3, &three), TM_OK));
  cr_expect(eq(int, TM_AT(int32_t, three, 0, 1, 2), 67));
  tm_auto_tensor line = tm_view(&x, TM_SHAPE(-1));
  tm_accessor one;
  cr_assert(eq(int, tm_accessor_make(&line, TM_I32, 1, &one), TM_OK));
  cr_expect(eq(int, TM_AT(int32_t, one, 77), 77));
}

Test(accessor, follows_strides_and_writes) {
  tm_auto_tensor x = count_up(TM_SHAPE(4, 6));
  tm_auto_tensor part = tm_t_move(tm_slice(&x, TM_INDEX(1, 2), TM_INDEX(2, 3)));
  tm_accessor a;
  cr_assert(eq(int, tm_accessor_make(&part, TM_I32, 2, &a), TM_OK));
  for (int64_t i = 0; i < a.shape[0]; i++) {
    for (int64_t j = 0; j < a.shape[1]; j++) {
      cr_expect(eq(int, TM_AT(int32_t, a, i, j), (int)(6 * (j + 1) + i + 2)));
    }
  }
  TM_AT(int32_t, a, 2, 1) = -5;
  cr_expect(eq(int, TM_DATA(int32_t, &x)[16], -5));
}

Test(accessor, of_a_scalar_and_of_an_empty_tensor) {
  tm_auto_tensor scalar = count_up(TM_SHAPE());
  tm_auto_tensor empty = count_up(TM_SHAPE(0, 3));
  tm_accessor a;
  cr_expect(eq(int, tm_accessor_make(&scalar, TM_I32, 0, &a), TM_OK));
  cr_expect(eq(ptr, a.data, scalar.data));
  cr_expect(eq(int, tm_accessor_make(&empty, TM_I32, 2, &a), TM_OK));
  cr_expect(eq(ptr, a.data, NULL));
  cr_expect(eq(i64, a.shape[1], 3));
}

Test(accessor, checks_dtype_and_rank) {
  tm_auto_tensor x = count_up(TM_SHAPE(4, 6));
  tm_accessor a;
  cr_expect(eq(int, tm_accessor_make(&x, TM_F32, 2, &a), TM_ERR_INVALID));
  cr_expect(
      eq(str, (char*)tm_last_error()->message, "accessor of f32 asked, the tensor is of i32"));
  cr_expect(eq(ptr, a.data, NULL));
  cr_expect(eq(int, tm_accessor_make(&x, TM_I32, 3, &a), TM_ERR_INVALID));
  cr_expect(
      eq(str, (char*)tm_last_error()->message, "accessor of rank 3 asked, the tensor has rank 2"));
  cr_expect(eq(int, a.rank, 0));
  cr_expect(eq(int, tm_accessor_make(&x, TM_I32, 2, NULL), TM_ERR_INVALID));
}

Test(accessor, refuses_null_tensors_and_elements_without_addresses) {
  const tm_tensor null = tm_null();
  tm_auto_tensor narrow = tm_empty_from(tm_host_allocator(), TM_SHAPE(4), TM_U4);
  tm_accessor a;
  cr_expect(eq(int, tm_accessor_make(&null, TM_I32, 1, &a), TM_ERR_INVALID));
  cr_expect(eq(int, tm_accessor_make(&narrow, TM_U4, 1, &a), TM_ERR_INVALID));
}

//===-- All ranks ---------------------------------------------------------===//

Test(accessor, indexes_no_to_eight_dimensions) {
  tm_auto_tensor x = count_up(TM_SHAPE(2, 2, 2, 2, 2, 2, 2, 3));
  tm_accessor a[TM_MAX_RANK + 1];
  for (int rank = 0; rank <= TM_MAX_RANK; rank++) {
    int64_t sizes[TM_MAX_RANK] = {0};
    for (int i = 0; i < rank; i++) {
      sizes[i] = i == rank - 1 ? 3 : 2;
    }
    tm_auto_tensor start =
        tm_slice_outer_move(tm_view(&x, TM_SHAPE(-1)), 0, rank ? (int64_t)3 << (rank - 1) : 1);
    tm_auto_tensor part = tm_view(&start, tm_shape_make(rank, sizes));
    cr_assert(eq(int, tm_accessor_make(&part, TM_I32, rank, &a[rank]), TM_OK));
  }
  cr_expect(eq(int, TM_AT(int32_t, a[0]), 0));
  cr_expect(eq(int, TM_AT(int32_t, a[1], 2), 2));
  cr_expect(eq(int, TM_AT(int32_t, a[2], 1, 1), 4));
  cr_expect(eq(int, TM_AT(int32_t, a[3], 1, 0, 1), 7));
  cr_expect(eq(int, TM_AT(int32_t, a[4], 1, 0, 1, 2), 17));
  cr_expect(eq(int, TM_AT(int32_t, a[5], 1, 0, 1, 0, 1), 31));
  cr_expect(eq(int, TM_AT(int32_t, a[6], 1, 0, 1, 0, 1, 2), 65));
  cr_expect(eq(int, TM_AT(int32_t, a[7], 1, 0, 1, 0, 1, 0, 1), 127));
  cr_expect(eq(int, TM_AT(int32_t, a[8], 1, 0, 1, 0, 1, 0, 1, 2), 257));
  cr_expect(eq(int, TM_AT_CHECKED(int32_t, a[0]), 0));
  cr_expect(eq(int, TM_AT_CHECKED(int32_t, a[5], 1, 0, 1, 0, 1), 31));
  cr_expect(eq(int, TM_AT_CHECKED(int32_t, a[8], 1, 0, 1, 0, 1, 0, 1, 2), 257));
}

// The address that `layout` has for an index, against both macros.
static void expect_element(const tm_accessor* a, const tm_layout* layout, const int64_t* i) {
  int64_t offset;
  cr_assert(eq(int, tm_layout_offset(layout, tm_shape_make(8, i), &offset), TM_OK));
  int32_t* expected = (int32_t*)a->data + offset;
  cr_assert(eq(ptr, &TM_AT(int32_t, *a, i[0], i[1], i[2], i[3], i[4], i[5], i[6], i[7]), expected));
  cr_assert(eq(ptr, &TM_AT_CHECKED(int32_t, *a, i[0], i[1], i[2], i[3], i[4], i[5], i[6], i[7]),
               expected));
}

// Any strides, 0 among them, against tm_layout_offset. TM_TEST_SEED repeats a run.
Test(accessor, offsets_are_those_of_the_layout) {
  const char* given = getenv("TM_TEST_SEED");
  const unsigned seed = given ? (unsigned)strtoul(given, NULL, 10) : (unsigned)time(NULL);
  unsigned short state[3] = {(unsigned short)seed, (unsigned short)(seed >> 16), 1};
  printf("TM_TEST_SEED=%u\n", seed);
  static int32_t memory[1];  // never read: only addresses are compared
  tm_auto_buffer all =
      tm_buffer_from_borrowed(memory, (int64_t)1 << 40, TM_I32, tm_device_make(TM_CPU, 0));
  for (int round = 0; round < 20000; round++) {
    int64_t sizes[TM_MAX_RANK];
    int64_t strides[TM_MAX_RANK];
    int64_t index[TM_MAX_RANK];
    for (int i = 0; i < TM_MAX_RANK; i++) {
      sizes[i] = 1 + nrand48(state) % 5;
      strides[i] = nrand48(state) % 4 ? nrand48(state) : 0;
      index[i] = nrand48(state) % sizes[i];
    }
    tm_layout layout;
    cr_assert(
        eq(int, tm_layout_make_strided(tm_shape_make(8, sizes), tm_shape_make(8, strides), &layout),
           TM_OK));
    tm_auto_tensor x = tm_from_buffer(&all, &layout);
    tm_accessor a;
    cr_assert(eq(int, tm_accessor_make(&x, TM_I32, 8, &a), TM_OK), "%s", tm_last_error()->message);
    expect_element(&a, &layout, index);
  }
}

Test(accessor, evaluates_what_it_is_given_once) {
  tm_auto_tensor x = count_up(TM_SHAPE(4, 6));
  tm_accessor a[2];
  cr_assert(eq(int, tm_accessor_make(&x, TM_I32, 2, &a[0]), TM_OK));
  int at = 0;
  int i = 0;
  cr_expect(eq(int, TM_AT(int32_t, a[at++], i++, 1), 1));
  cr_expect(eq(int, TM_AT_CHECKED(int32_t, a[at++ - 1], i++, 1), 7));
  cr_expect(eq(int, at, 2));
  cr_expect(eq(int, i, 2));
}

//===-- Checked -----------------------------------------------------------===//

Test(accessor, checked_indices_out_of_range_are_fatal) {
  tm_auto_tensor x = count_up(TM_SHAPE(4, 6));
  tm_accessor a;
  cr_assert(eq(int, tm_accessor_make(&x, TM_I32, 2, &a), TM_OK));
  TM_AT_CHECKED(int32_t, a, 3, 5) = -1;
  cr_expect(eq(int, TM_DATA(int32_t, &x)[23], -1));
  EXPECT_FATAL(TM_AT_CHECKED(int32_t, a, 4, 0) = 1, "index 4 in dimension 0, whose size is 4");
  EXPECT_FATAL(TM_AT_CHECKED(int32_t, a, 0, 6) = 1, "index 6 in dimension 1, whose size is 6");
  EXPECT_FATAL(TM_AT_CHECKED(int32_t, a, -1, 0) = 1, "index -1 in dimension 0, whose size is 4");
  EXPECT_FATAL(TM_AT_CHECKED(int32_t, a, 0, INT64_MIN) = 1, "index -9223372036854775808");
  EXPECT_FATAL(TM_AT_CHECKED(int32_t, a, 0, 6) = 1, "accessor_test.c:");
}

Test(accessor, checked_reads_of_another_type_or_rank_are_fatal) {
  tm_auto_tensor x = count_up(TM_SHAPE(4, 6));
  tm_accessor a;
  cr_assert(eq(int, tm_accessor_make(&x, TM_I32, 2, &a), TM_OK));
  cr_expect(eq(int, TM_AT_CHECKED(const int32_t, a, 1, 1), 7));
  EXPECT_FATAL(TM_AT_CHECKED(float, a, 0, 0) = 1, "an accessor of i32 read as f32");
  EXPECT_FATAL(TM_AT_CHECKED(uint16_t, a, 0, 0) = 1, "an accessor of i32 read as u16");
  EXPECT_FATAL(TM_AT_CHECKED(int32_t, a, 0) = 1, "1 indices for an accessor of rank 2");
  EXPECT_FATAL(TM_AT_CHECKED(int32_t, a) = 1, "0 indices for an accessor of rank 2");
  cr_assert(eq(int, tm_accessor_make(&x, TM_F32, 2, &a), TM_ERR_INVALID));
  EXPECT_FATAL(TM_AT_CHECKED(float, a) = 1, "an accessor of null read as f32");
}

Test(accessor, nothing_of_an_empty_tensor_passes_a_check) {
  tm_auto_tensor empty = count_up(TM_SHAPE(0, 3));
  tm_accessor a;
  cr_assert(eq(int, tm_accessor_make(&empty, TM_I32, 2, &a), TM_OK));
  EXPECT_FATAL(TM_AT_CHECKED(int32_t, a, 0, 0) = 1, "index 0 in dimension 0, whose size is 0");
}

Test(accessor, narrow_floats_are_read_as_their_bits) {
  static const struct {
    tm_dtype dtype;
    bool as_u16;
    bool as_u8;
  } rows[] = {{TM_F16, true, false},
              {TM_BF16, true, false},
              {TM_E4M3, false, true},
              {TM_E5M2, false, true},
              {TM_I16, false, false}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    tm_auto_tensor x = tm_empty_from(tm_host_allocator(), TM_SHAPE(4), rows[i].dtype);
    tm_accessor a;
    cr_assert(eq(int, tm_accessor_make(&x, rows[i].dtype, 1, &a), TM_OK));
    if (rows[i].as_u16) {
      TM_AT_CHECKED(uint16_t, a, 3) = 0x3c00;
      cr_expect(eq(int, ((uint16_t*)x.data)[3], 0x3c00));
    } else {
      EXPECT_FATAL(TM_AT_CHECKED(uint16_t, a, 3) = 0, "read as u16");
    }
    if (rows[i].as_u8) {
      TM_AT_CHECKED(uint8_t, a, 3) = 0x38;
      cr_expect(eq(int, ((uint8_t*)x.data)[3], 0x38));
    } else {
      EXPECT_FATAL(TM_AT_CHECKED(uint8_t, a, 3) = 0, "read as u8");
    }
  }
}

//===-- 32-bit offsets ----------------------------------------------------===//

// An accessor of memory that is never touched.
static tm_accessor accessor_of(tm_shape shape, tm_shape stride, tm_dtype dtype) {
  static int64_t memory[1];
  tm_layout layout;
  cr_assert(eq(int, tm_layout_make_strided(shape, stride, &layout), TM_OK));
  tm_auto_buffer all =
      tm_buffer_from_borrowed(memory, (int64_t)1 << 50, dtype, tm_device_make(TM_CPU, 0));
  tm_auto_tensor x = tm_from_buffer(&all, &layout);
  tm_accessor a;
  cr_assert(eq(int, tm_accessor_make(&x, dtype, shape.rank, &a), TM_OK), "%s",
            tm_last_error()->message);
  return a;
}

Test(accessor, fits_int32_iff_every_byte_reached_has_such_an_offset) {
  const int64_t gib = (int64_t)1 << 30;
  const int64_t huge = (int64_t)1 << 33;
  const struct {
    tm_shape shape;
    tm_shape stride;
    tm_dtype dtype;
    bool expected;
  } rows[] = {
      {TM_SHAPE(), TM_SHAPE(), TM_F64, true},
      {TM_SHAPE(2 * gib - 1), TM_SHAPE(1), TM_U8, true},
      {TM_SHAPE(2 * gib), TM_SHAPE(1), TM_U8, false},          // the size
      {TM_SHAPE(2, gib), TM_SHAPE(gib, 1), TM_U8, true},       // the last byte is at 2^31 - 1
      {TM_SHAPE(2, gib + 1), TM_SHAPE(gib, 1), TM_U8, false},  // at 2^31
      {TM_SHAPE(gib), TM_SHAPE(1), TM_F16, true},
      {TM_SHAPE(gib + 1), TM_SHAPE(1), TM_F16, false},
      {TM_SHAPE(gib / 2), TM_SHAPE(1), TM_F32, true},
      {TM_SHAPE(gib / 2 + 1), TM_SHAPE(1), TM_F32, false},
      {TM_SHAPE(2, gib / 2), TM_SHAPE(0, 1), TM_F32, true},  // a broadcast reaches no further
      {TM_SHAPE(2, 4), TM_SHAPE(huge, 1), TM_U8, false},
      {TM_SHAPE(1, 4), TM_SHAPE(huge, 1), TM_U8, true},  // nothing is multiplied with that stride
      {TM_SHAPE(0, 2 * gib), TM_SHAPE(1, 1), TM_U8, false},  // a size that 32 bits do not hold
      {TM_SHAPE(0, 1000000, 1000000), TM_SHAPE(1, 1000000, 1), TM_F64, true},  // reaches nothing
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    const tm_accessor a = accessor_of(rows[i].shape, rows[i].stride, rows[i].dtype);
    cr_expect(eq(int, tm_fits_int32(&a), rows[i].expected), "row %zu", i);
  }
}
