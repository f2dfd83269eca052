// Where TurboMind goes wrong with maps and serialized data: one test for each row of the table.
// tests/mutations.sh shows that each of them fails without what it tests.

#include "tm/tensor/map.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "tm/context/context.h"

#define ASSERT_OK(call) cr_assert(eq(int, (call), TM_OK), "%s", tm_last_error()->message)

Test(turbomind, map_consume_of_a_tensor_that_is_empty_is_an_error_and_it_is_still_there) {
  tm_auto_tensor_map map = tm_tensor_map_create();
  tm_auto_tensor empty = tm_empty(TM_SHAPE(0, 8), TM_F16, TM_CPU);
  ASSERT_OK(tm_tensor_map_produce(map, "x", &empty));
  tm_auto_tensor x = tm_tensor_map_consume(map, "x");
  cr_expect(not(tm_ok(&x)));
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID), "%s", tm_last_error()->message);
  cr_expect(eq(int, (int)tm_tensor_map_size(map), 1));
  const tm_tensor* kept = tm_tensor_map_at(map, "x");
  cr_expect(eq(int, (int)tm_dim(kept, 1), 8));
  cr_expect(eq(int, tm_dtype_of(kept), TM_F16));
}
