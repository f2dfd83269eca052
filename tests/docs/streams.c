#include <stdio.h>
#include <tm/tm.h>

static void say(void* user) { printf("%s\n", (const char*)user); }

// Copies on one stream while another computes; each waits for the other on the device only.
static tm_status exchange(tm_stream* compute, tm_stream* copies) {
  tm_auto_event ready = tm_event_create(0, false);
  TM_TRY_TENSOR(x, tm_empty(TM_SHAPE(1024), TM_F32, TM_DEVICE));
  TM_TRY_TENSOR(out, tm_empty(TM_SHAPE(1024), TM_F32, TM_CPU_PINNED));
  TM_TRY(tm_clear(&x));  // on the current stream, which is `compute`
  TM_TRY(tm_event_record(ready, compute));
  TM_TRY(tm_stream_wait(copies, ready));
  TM_WITH_STREAM(copies) { TM_TRY(tm_copy(&x, &out)); }
  TM_TRY(tm_stream_call_host(copies, say, "copied"));
  TM_TRY(tm_stream_sync(copies));
  printf("the last of %d is %g\n", 1024, TM_DATA(float, &out)[1023]);
  return TM_OK;
}

int main(void) {
  tm_auto_stream compute = tm_stream_create(0, 0);
  tm_auto_stream copies = tm_stream_create(0, -1);  // runs first where both could
  tm_auto_allocator pool = tm_cuda_pool_allocator_create(compute, NULL);
  tm_status status = TM_ERR_UNAVAILABLE;
  TM_WITH_STREAM(compute)
  TM_WITH_ALLOCATOR(pool)
  TM_WITH_ALLOCATOR(tm_pinned_allocator()) { status = exchange(compute, copies); }
  tm_stream* none = NULL;
  if (tm_stream_sync(none) != TM_OK) {
    printf("%s\n", tm_last_error()->message);
  }
  return status == TM_OK ? 0 : 1;
}
