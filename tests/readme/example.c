#include <stdio.h>
#include <tm/tm.h>

// One layer of a model: it names no allocator and no stream.
static tm_status layer(int64_t tokens, int64_t hidden) {
  TM_SCOPE("layer");
  TM_TRY_TENSOR(x, tm_empty(TM_SHAPE(tokens, hidden), TM_F16, TM_DEVICE));
  TM_TRY_TENSOR(qkv, tm_empty(TM_SHAPE(tokens, 3 * hidden), TM_F16, TM_DEVICE));
  TM_TRY_TENSOR(q, tm_slice(&qkv, TM_INDEX(0, 0), TM_INDEX(-1, hidden)));  // the same memory
  TM_TRY(tm_clear(&x));  // asynchronous, on the current stream
  return TM_OK;          // qkv and x go back to the stack, in reverse order
}

int main(void) {
  tm_auto_stream stream = tm_stream_create(0, 0);
  tm_auto_allocator pool = tm_cuda_pool_allocator_create(stream, NULL);
  tm_auto_allocator stack = tm_stack_allocator_create(pool, stream, NULL);
  tm_status status = TM_ERR_UNAVAILABLE;
  TM_WITH_STREAM(stream)
  TM_WITH_ALLOCATOR(stack) {  // both are current for everything called inside
    status = layer(8192, 4096);
  }
  if (status != TM_OK) {
    fprintf(stderr, "%s: %s\n", tm_status_name(status), tm_last_error()->message);
    return 1;
  }
  return 0;
}
