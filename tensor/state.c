#include "tm/tensor/state.h"

#include "tensor/copy_check.h"

static void reset(tm_state* state) {
  tm_reset_(&state->front);
  tm_reset_(&state->back);
}

tm_status tm_state_init_(const tm_shape* shape, tm_dtype dtype, tm_device device,
                         tm_allocator* allocator, tm_state* out) {
  reset(out);
  TM_TRY_TENSOR(front, tm_empty_(shape, dtype, device, allocator));
  TM_TRY_TENSOR(back, tm_empty_(shape, dtype, device, allocator));
  out->front = tm_move(&front);
  out->back = tm_move(&back);
  return TM_OK;
}

tm_status tm_state_init_with(tm_tensor* front, tm_tensor* back, tm_state* out) {
  reset(out);
  TM_TRY(tm_copy_check_pair_(front, back));
  TM_TRY(tm_copy_check_writable_(front));  // it will be the back
  if (!tm_device_equal(front->device, back->device)) {
    char front_text[TM_TENSOR_TEXT_SIZE];
    char back_text[TM_TENSOR_TEXT_SIZE];
    tm_tensor_text(front, front_text, sizeof front_text);
    tm_tensor_text(back, back_text, sizeof back_text);
    return TM_RAISE(TM_ERR_INVALID, "state of %.120s and %.120s: not on one device", front_text,
                    back_text);
  }
  out->front = tm_move(front);
  out->back = tm_move(back);
  return TM_OK;
}

void tm_state_swap(tm_state* state) {
  tm_tensor front = tm_move(&state->front);
  state->front = tm_move(&state->back);
  state->back = tm_move(&front);
}

void tm_state_deinit(tm_state* state) {
  tm_release(&state->front);
  tm_release(&state->back);
}
