#include <stdio.h>
#include <tm/tm.h>

enum { ROWS = 4, OLD_ROWS = 3 };

// Rows 0 and 1 of the new step are rows 2 and 0 of the old one; row 2 joins.
static tm_status next_step(tm_batch_copy* batch, tm_state* state, const tm_tensor* joining) {
  TM_TRY_BUFFER(perm, tm_buffer_empty(3, TM_I32, TM_CPU));
  int32_t* number = TM_BUFFER_DATA(int32_t, &perm);
  number[0] = 2;
  number[1] = 0;
  number[2] = OLD_ROWS;
  TM_TRY(tm_warp_or(batch, &state->front, OLD_ROWS, &perm, joining, &state->back));
  TM_TRY(tm_batch_copy_run(batch));
  tm_state_swap(state);  // the next step reads what this one has made
  return TM_OK;
}

static tm_status serve(tm_stream* stream) {
  tm_auto_batch_copy batch = tm_batch_copy_create();
  tm_auto_state state;
  TM_TRY(tm_state_init(TM_SHAPE(ROWS, 2), TM_F32, TM_DEVICE, &state));
  TM_TRY_TENSOR(host, tm_empty(TM_SHAPE(ROWS, 2), TM_F32, TM_CPU_PINNED));
  TM_TRY_TENSOR(joining, tm_empty(TM_SHAPE(ROWS, 2), TM_F32, TM_CPU_PINNED));
  TM_TRY(tm_clear(&joining));
  float* value = TM_DATA(float, &host);
  for (int i = 0; i < 2 * ROWS; i++) value[i] = (float)i;

  TM_WITH_COPY_GROUP(batch) {
    for (int i = 0; i < OLD_ROWS; i++) {  // neighbours in one storage: one piece
      TM_TRY_TENSOR(from, tm_slice_outer(&host, i, 1));
      TM_TRY_TENSOR(to, tm_slice_outer(&state.front, i, 1));
      TM_TRY(tm_batch_copy_add(batch, &from, &to));
    }
  }
  printf("%zu piece\n", tm_batch_copy_size(batch));
  TM_TRY(tm_batch_copy_run(batch));
  TM_TRY(next_step(batch, &state, &joining));

  TM_TRY(tm_batch_copy_add(batch, &state.front, &host));
  TM_TRY(tm_batch_copy_run(batch));
  TM_TRY(tm_stream_sync(stream));
  printf("%g %g | %g %g | %g %g\n", value[0], value[1], value[2], value[3], value[4], value[5]);
  const tm_batch_copy_counts counts = tm_batch_copy_counted(batch);
  printf("%d copies, %d pieces, %d calls\n", (int)counts.added, (int)counts.pieces,
         (int)counts.calls);
  return TM_OK;
}

int main(void) {
  tm_auto_stream stream = tm_stream_create(0, 0);
  tm_auto_allocator pool = tm_cuda_pool_allocator_create(stream, NULL);
  TM_WITH_STREAM(stream)
  TM_WITH_ALLOCATOR(pool)
  TM_WITH_ALLOCATOR(tm_pinned_allocator()) {
    if (serve(stream) == TM_OK) {
      return 0;
    }
  }
  fprintf(stderr, "%s\n", tm_last_error()->message);
  return 1;
}
