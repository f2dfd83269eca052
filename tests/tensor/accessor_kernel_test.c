// The kernel that takes accessors, run on a device and compared with the host.

#include "tests/tensor/accessor_kernel.h"

#include <stdio.h>

#include "tm/alloc/cuda_pool.h"
#include "tm/alloc/device.h"
#include "tm/alloc/pinned.h"
#include "tm/check.h"
#include "tm/context/context.h"
#include "tm/tensor/accessor.h"
#include "tm/tensor/copy.h"

enum { ROWS = 37, COLUMNS = 53 };

static tm_tensor count_up(void) {
  tm_tensor tensor = tm_empty(TM_SHAPE(ROWS, COLUMNS), TM_F32, TM_CPU_PINNED);
  TM_CHECK(tm_ok(&tensor));
  for (int64_t i = 0; i < tm_size(&tensor); i++) {
    TM_DATA(float, &tensor)[i] = (float)i;
  }
  return tensor;
}

// out = 2 * x + y, where x is a turned tensor and y one row for all.
static tm_status scaled_add_of_strided_tensors(tm_stream* stream) {
  tm_auto_tensor numbers = count_up();
  TM_TRY_TENSOR(x, tm_empty(TM_SHAPE(ROWS, COLUMNS), TM_F32, TM_DEVICE));
  TM_TRY_TENSOR(out, tm_empty(TM_SHAPE(COLUMNS, ROWS), TM_F32, TM_DEVICE));
  TM_TRY(tm_copy(&numbers, &x));
  TM_TRY_TENSOR(turned, tm_t(&x));
  tm_buffer memory = tm_buffer_of(&x);
  tm_layout broadcast;
  TM_TRY(tm_layout_make_strided(TM_SHAPE(COLUMNS, ROWS), TM_SHAPE(0, 1), &broadcast));
  TM_TRY_TENSOR(row, tm_from_buffer(&memory, &broadcast));
  tm_buffer_release(&memory);
  TM_TRY(scaled_add(&turned, 2, &row, &out, stream));
  TM_TRY_TENSOR(back, tm_empty_like_on(&out, TM_CPU_PINNED));
  TM_TRY(tm_copy(&out, &back));
  TM_TRY(tm_stream_sync(stream));
  tm_accessor seen;
  TM_TRY(tm_accessor_make(&back, TM_F32, 2, &seen));
  for (int i = 0; i < COLUMNS; i++) {
    for (int j = 0; j < ROWS; j++) {
      TM_CHECK_EQ(TM_AT(float, seen, i, j), 2.f * (float)(j * COLUMNS + i) + (float)j);
    }
  }
  TM_CHECK_EQ(scaled_add(&x, 2, &row, &out, stream), TM_ERR_INVALID);
  TM_CHECK_EQ(scaled_add_half(&turned, 2, &row, &out, stream), TM_ERR_INVALID);
  return TM_OK;
}

int main(void) {
  int32_t devices;
  if (tm_device_count(&devices) != TM_OK) {
    printf("skipped: %s\n", tm_last_error()->message);
    return 0;
  }
  tm_auto_stream stream = tm_stream_create(0, 0);
  tm_auto_allocator pool = tm_cuda_pool_allocator_create(stream, NULL);
  TM_CHECK(pool != NULL);
  TM_WITH_STREAM(stream)
  TM_WITH_ALLOCATOR(tm_pinned_allocator())
  TM_WITH_ALLOCATOR(pool) { TM_CHECK_OK(scaled_add_of_strided_tensors(stream)); }
  printf("passed on %d device(s)\n", devices);
  return 0;
}
