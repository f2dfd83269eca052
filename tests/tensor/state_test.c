// Double-buffered state.

#include "tm/tensor/state.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#include "tests/support/failing.h"
#include "tm/alloc/host.h"
#include "tm/context/context.h"

#define EXPECT_OK(call) cr_expect(eq(int, (call), TM_OK), "%s", tm_last_error()->message)

Test(state, has_two_tensors_apart_and_swaps_them) {
  tm_auto_state state;
  EXPECT_OK(tm_state_init(TM_SHAPE(4, 8), TM_F32, TM_CPU, &state));
  void* const front = tm_data(&state.front);
  void* const back = tm_data(&state.back);
  cr_expect(ne(ptr, front, back));
  cr_expect(eq(i64, tm_dim(&state.back, 1), 8));
  cr_expect(eq(int, tm_dtype_of(&state.front), TM_F32));
  tm_state_swap(&state);
  cr_expect(eq(ptr, tm_data(&state.front), back));
  cr_expect(eq(ptr, tm_data(&state.back), front));
  cr_expect(eq(int, state.front.storage->references, 1));
}

Test(state, comes_from_an_allocator_that_is_named) {
  tm_auto_state state;
  EXPECT_OK(tm_state_init_from(tm_host_allocator(), TM_SHAPE(3), TM_U8, &state));
  cr_expect(eq(ptr, state.back.storage->allocator, tm_host_allocator()));
}

Test(state, without_rows_is_no_null) {
  tm_auto_state state;
  EXPECT_OK(tm_state_init(TM_SHAPE(0, 8), TM_F32, TM_CPU, &state));
  cr_expect(tm_ok(&state.front) && tm_ok(&state.back));
}

Test(state, that_fails_is_null_and_can_be_deinitialized) {
  tm_state state;
  memset(&state, 0x5a, sizeof state);
  cr_expect(eq(int, tm_state_init(TM_SHAPE(-4), TM_F32, TM_CPU, &state), TM_ERR_INVALID));
  cr_expect(not(tm_ok(&state.front)));
  cr_expect(not(tm_ok(&state.back)));
  cr_expect(eq(int, tm_state_init(TM_SHAPE(4), TM_F32, TM_DEVICE, &state), TM_ERR_UNAVAILABLE));
  tm_state_deinit(&state);
  tm_state_deinit(&state);
}

Test(state, of_tensors_made_elsewhere_takes_them_over) {
  tm_tensor a = tm_empty(TM_SHAPE(4, 8), TM_F32, TM_CPU);
  tm_tensor b = tm_empty(TM_SHAPE(4, 8), TM_F32, TM_CPU);
  void* const data = tm_data(&b);
  tm_auto_state state;
  EXPECT_OK(tm_state_init_with(&a, &b, &state));
  cr_expect(not(tm_ok(&a)));
  cr_expect(not(tm_ok(&b)));
  cr_expect(eq(ptr, tm_data(&state.back), data));
}

static void expect_refused(tm_tensor* a, tm_tensor* b) {
  tm_state state;
  cr_expect(eq(int, tm_state_init_with(a, b, &state), TM_ERR_INVALID));
  cr_expect(tm_ok(a));
  cr_expect(not(tm_ok(&state.front)));
  cr_expect(not(tm_ok(&state.back)));
}

Test(state, of_tensors_that_are_no_pair_is_refused) {
  tm_auto_tensor a = tm_empty(TM_SHAPE(4, 8), TM_F32, TM_CPU);
  tm_auto_tensor other_shape = tm_empty(TM_SHAPE(8, 4), TM_F32, TM_CPU);
  tm_auto_tensor other_type = tm_empty(TM_SHAPE(4, 8), TM_I32, TM_CPU);
  tm_auto_tensor same = tm_share(&a);
  tm_auto_tensor none = tm_null();
  tm_layout one_row;
  cr_assert(eq(int, tm_layout_parse("(4,8):(0,1)", &one_row), TM_OK));
  tm_auto_tensor row = tm_empty(TM_SHAPE(8), TM_F32, TM_CPU);
  tm_auto_buffer row_memory = tm_buffer_of(&row);
  tm_auto_tensor shared = tm_from_buffer(&row_memory, &one_row);
  float pinned[32];
  tm_auto_tensor elsewhere =
      tm_from_borrowed(pinned, TM_SHAPE(4, 8), TM_F32, tm_device_make(TM_CPU_PINNED, 0));
  tm_clear_error();
  expect_refused(&a, &none);
  expect_refused(&a, &other_shape);
  expect_refused(&a, &other_type);
  expect_refused(&a, &same);
  expect_refused(&a, &shared);
  expect_refused(&shared, &a);
  expect_refused(&a, &elsewhere);
}

static tm_status make_and_swap(tm_allocator* upstream) {
  tm_auto_state state;
  TM_TRY(tm_state_init_from(upstream, TM_SHAPE(4, 8), TM_F32, &state));
  tm_state_swap(&state);
  return TM_OK;
}

Test(state, survives_every_failure) { expect_survives_every_failure(make_and_swap); }
