#include <stdio.h>
#include <stdlib.h>
#include <tm/tm.h>

// Adds a row to every row of a matrix: what a kernel does, in C on the host. Both are f32, with any
// strides; that is checked once, here, and not in the loop.
static tm_status add_row(const tm_tensor* row, const tm_tensor* matrix) {
  tm_accessor r;
  tm_accessor m;
  TM_TRY(tm_accessor_make(row, TM_F32, 1, &r));
  TM_TRY(tm_accessor_make(matrix, TM_F32, 2, &m));
  if (r.shape[0] != m.shape[1]) {
    return TM_RAISE(TM_ERR_INVALID, "a row of %lld for rows of %lld", (long long)r.shape[0],
                    (long long)m.shape[1]);
  }
  for (int64_t i = 0; i < m.shape[0]; i++) {
    for (int64_t j = 0; j < m.shape[1]; j++) {
      TM_AT(float, m, i, j) += TM_AT(float, r, j);
    }
  }
  return TM_OK;
}

static tm_status example(void) {
  TM_TRY_TENSOR(x, tm_empty(TM_SHAPE(4, 6), TM_F32, TM_CPU));
  TM_TRY_TENSOR(row, tm_empty(TM_SHAPE(3), TM_F32, TM_CPU));
  TM_TRY(tm_clear(&x));
  for (int i = 0; i < 3; i++) {
    TM_DATA(float, &row)[i] = (float)(i + 1);
  }
  TM_TRY_TENSOR(columns, tm_slice(&x, TM_INDEX(0, 2), TM_INDEX(-1, 3)));  // strided
  TM_TRY(add_row(&row, &columns));
  tm_accessor a;
  TM_TRY(tm_accessor_make(&x, TM_F32, 2, &a));
  printf("%g %g %g\n", TM_AT(float, a, 3, 1), TM_AT(float, a, 3, 2), TM_AT(float, a, 3, 4));
  printf("32-bit offsets: %s\n", tm_fits_int32(&a) ? "yes" : "no");
  if (add_row(&x, &columns) != TM_OK) {
    printf("%s\n", tm_last_error()->message);
  }
  TM_AT_CHECKED(float, a, 3, 6) = 1;  // fatal
  return TM_OK;
}

static void end(const char* message, void* user) {
  (void)user;
  printf("%s\n", message);
  exit(0);
}

int main(void) {
  (void)tm_set_fatal_handler(end, NULL);
  return example() == TM_OK ? 0 : 1;
}
