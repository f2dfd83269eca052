#include <stdio.h>
#include <tm/tensor/dlpack_abi.h>
#include <tm/tm.h>

// What another program does with a tensor of ours: reads it, and says that it is done.
static void consume(DLManagedTensorVersioned* managed) {
  const DLTensor* x = &managed->dl_tensor;
  const float* data = (const float*)((const char*)x->data + x->byte_offset);
  printf("(%d,%d), [2][1] is %g\n", (int)x->shape[0], (int)x->shape[1],
         data[2 * x->strides[0] + 1 * x->strides[1]]);
  managed->deleter(managed);
}

// What it does to hand one to us: a matrix that is its own.
static float matrix[2][3] = {{0, 1, 2}, {3, 4, 5}};
static int64_t sizes[] = {2, 3};
static void drop(DLManagedTensor* self) {
  printf("dropped at %g\n", *(float*)self->dl_tensor.data);
}
static DLManagedTensor produced = {
    .dl_tensor = {matrix, {1, 0}, 2, {2, 32, 1}, sizes, NULL, 0},
    .deleter = drop,
};

static tm_status both_ways(void) {
  TM_TRY_TENSOR(x, tm_from_dlpack_legacy(&produced));  // no copy: x is the matrix
  TM_TRY_TENSOR(turned, tm_t(&x));
  DLManagedTensorVersioned* managed = tm_to_dlpack(&turned, 0);
  if (!managed) {
    return tm_last_status();
  }
  consume(managed);
  TM_DATA(float, &x)[0] = 7;
  return TM_OK;
}

int main(void) {
  const tm_status status = both_ways();
  produced.dl_tensor.dtype.lanes = 4;
  tm_auto_tensor refused = tm_from_dlpack_legacy(&produced);
  if (!tm_ok(&refused)) {
    printf("%s\n", tm_last_error()->message);
  }
  return status == TM_OK ? 0 : 1;
}
