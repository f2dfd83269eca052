// Where TurboMind goes wrong with batches of copies: one test for each row of the table.
// tests/mutations.sh shows that each of them fails without what it tests.

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#include "tm/context/context.h"
#include "tm/tensor/batch_copy.h"
#include "tm/tensor/tensor.h"

#define ASSERT_OK(call) cr_assert(eq(int, (call), TM_OK), "%s", tm_last_error()->message)

// Memory of its own, as far as anybody can tell by the tensor.
static tm_tensor own(char* data, int64_t bytes) {
  return tm_adopt(data, (size_t)bytes, TM_SHAPE(bytes), TM_U8, tm_device_make(TM_CPU, 0), NULL,
                  NULL);
}

Test(turbomind, batch_copy_merges_inside_one_storage_only_and_refuses_negative_sizes) {
  char from[8] = "abcdefg";
  char to[8] = "";
  tm_auto_batch_copy batch = tm_batch_copy_create();
  tm_auto_tensor from_1 = own(from, 4);
  tm_auto_tensor from_2 = own(from + 4, 4);
  tm_auto_tensor to_1 = own(to, 4);
  tm_auto_tensor to_2 = own(to + 4, 4);
  TM_WITH_COPY_GROUP(batch) {
    ASSERT_OK(tm_batch_copy_add(batch, &from_1, &to_1));
    ASSERT_OK(tm_batch_copy_add(batch, &from_2, &to_2));  // goes on where the other ends
  }
  cr_expect(eq(sz, tm_batch_copy_size(batch), 2));
  ASSERT_OK(tm_batch_copy_run(batch));
  cr_expect(eq(str, to, from));

  tm_auto_tensor source = own(from, 8);
  tm_auto_tensor destination = own(to, 8);
  TM_WITH_COPY_GROUP(batch) {
    for (int i = 0; i < 8; i += 4) {
      tm_auto_tensor a = tm_slice_outer(&source, i, 4);
      tm_auto_tensor b = tm_slice_outer(&destination, i, 4);
      ASSERT_OK(tm_batch_copy_add(batch, &a, &b));
    }
  }
  cr_expect(eq(sz, tm_batch_copy_size(batch), 1));
  tm_batch_copy_clear(batch);

  tm_auto_buffer x = tm_buffer_of(&from_1);
  tm_auto_buffer y = tm_buffer_of(&to_1);
  cr_expect(eq(int, tm_batch_copy_add_buffer_n(batch, &x, -4, &y), TM_ERR_INVALID));
  cr_expect(eq(ptr, TM_BATCH_COPY_ADD_N(batch, from, -4, to), NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
  cr_expect(eq(sz, tm_batch_copy_size(batch), 0));
}

Test(turbomind, batch_copy_run_inside_a_group_is_an_error_and_loses_nothing) {
  char from[8] = "abcdefg";
  char to[8] = "";
  tm_auto_batch_copy batch = tm_batch_copy_create();
  ASSERT_OK(tm_batch_copy_begin_group(batch));
  cr_assert(eq(ptr, TM_BATCH_COPY_ADD_N(batch, from, 8, to), to + 8));
  cr_expect(eq(int, tm_batch_copy_run(batch), TM_ERR_INVALID));
  cr_expect(eq(str, to, (char*)""));
  cr_expect(eq(sz, tm_batch_copy_size(batch), 1));
  ASSERT_OK(tm_batch_copy_end_group(batch));
  ASSERT_OK(tm_batch_copy_run(batch));
  cr_expect(eq(str, to, from));
}
