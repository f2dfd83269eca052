#include <stdio.h>
#include <tm/tm.h>

// Fails as its first call that fails does.
static tm_status hidden_states(int64_t tokens, int64_t hidden) {
  TM_SCOPE("hidden_states");
  TM_TRY_TENSOR(x, tm_empty(TM_SHAPE(tokens, hidden), TM_F16, TM_CPU));
  TM_TRY(tm_clear(&x));
  return TM_OK;  // x is released, as on every other way out
}

int main(void) {
  TM_SCOPE("step");
  if (hidden_states(-1, 4096) != TM_OK) {
    const tm_error* e = tm_last_error();
    printf("%s: %s\n  in %s\n", tm_status_name(e->code), e->message, e->trace);
  }
  // A null tensor passes through what follows: one test at the end.
  tm_auto_tensor x = tm_empty(TM_SHAPE(8, 4096), TM_F16, TM_CPU);
  tm_auto_tensor late = tm_slice(&x, TM_INDEX(9, 0), TM_INDEX(1, -1));
  tm_auto_tensor heads = tm_view(&late, TM_SHAPE(1, 32, 128));
  if (!tm_ok(&heads)) {
    printf("%s: %s\n", tm_status_name(tm_last_status()), tm_last_error()->message);
  }
  return 0;
}
