#include <stdio.h>
#include <tm/tm.h>

static tm_status softmax(int rows) {
  TM_FUNCTION_SCOPE();
  return rows > 0 ? TM_OK : TM_RAISE(TM_ERR_INVALID, "softmax of %d rows", rows);
}

static tm_status attention(int layer) {
  char name[32];
  snprintf(name, sizeof name, "layer %d", layer);
  TM_SCOPE_COPY(name);      // made at run time, so it is copied
  TM_WITH_SCOPE("heads") {  // a block of its own
    TM_TRY(TM_SCOPE_CALL(softmax(0)));
  }
  return TM_OK;
}

int main(void) {
  TM_SCOPE("step");  // until the end of the enclosing block
  if (attention(7) != TM_OK) {
    printf("%s\n  in %s\n", tm_last_error()->message, tm_last_error()->trace);
  }
  char trace[256];
  tm_trace_text(trace, sizeof trace);
  printf("%zu open: %s\n", tm_trace_depth(), trace);
  return 0;
}
