#include "tm/tensor/accessor.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "tm/alloc/host.h"

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
