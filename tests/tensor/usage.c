// Tensors as users write them, in C, C++ and CUDA: compiled with each, and never run.

#include <tm/context/context.h>
#include <tm/tensor/accessor.h>
#include <tm/tensor/batch_copy.h>
#include <tm/tensor/copy.h>
#include <tm/tensor/dispatch.h>
#include <tm/tensor/tensor.h>

TM_EXTERN_C_BEGIN
tm_tensor project(const tm_tensor* x, int64_t heads, unsigned columns);
tm_status attention(tm_stream* stream, tm_allocator* stack, int tokens, size_t hidden);
tm_status add(const tm_tensor* x, const tm_tensor* indices);
tm_status gather(tm_batch_copy* batch, const tm_tensor* x, const tm_tensor* y, int64_t rows);
TM_EXTERN_C_END

tm_tensor project(const tm_tensor* x, int64_t heads, unsigned columns) {
  tm_auto_tensor out = tm_empty(TM_SHAPE(tm_dim(x, 0), heads, columns), tm_dtype_of(x), TM_DEVICE);
  if (!tm_ok(&out)) {
    return tm_null();
  }
  return tm_move(&out);
}

static float sum(const tm_tensor* x) {
  tm_accessor a;
  float total = 0;
  if (tm_accessor_make(x, TM_F32, 2, &a) != TM_OK) {
    return total;
  }
  for (int64_t i = 0; i < a.shape[0]; i++) {
    for (int64_t j = 0; j < a.shape[1]; j++) {
      total += TM_AT(float, a, i, j);
    }
  }
  TM_AT(float, a, 0, 0) = total;
  TM_AT_CHECKED(float, a, 0, 0) += tm_fits_int32(&a) ? 1.f : 0.f;
  return total;
}

tm_status attention(tm_stream* stream, tm_allocator* stack, int tokens, size_t hidden) {
  TM_WITH_STREAM(stream)
  TM_WITH_ALLOCATOR(stack) {
    tm_auto_tensor scalar = tm_empty(TM_SHAPE(), TM_F32, TM_CPU);
    tm_auto_tensor eight = tm_empty(TM_SHAPE(1, 2, 3, 4, 5, 6, 7, 8), TM_F32, TM_CPU);
    TM_TRY_TENSOR(x, tm_empty(TM_SHAPE(tokens, 3 * hidden), TM_F16, TM_DEVICE));
    TM_TRY_TENSOR(q, tm_slice(&x, TM_INDEX(0, 0), TM_INDEX(-1, hidden)));
    TM_TRY_TENSOR(heads, tm_transpose_move(tm_view(&x, TM_SHAPE(tokens, -1, 128)), 0, 1));
    TM_TRY_TENSOR(kept, project(&x, 32, 128u));
    TM_TRY_TENSOR(host, tm_empty_like_on(&q, TM_CPU_PINNED));
    TM_TRY_BUFFER(ids, tm_buffer_empty(tokens, TM_I32, TM_CPU_PINNED));
    tm_assign(&kept, tm_unsqueeze_move(tm_squeeze_move(tm_slice_outer(&heads, 0, 1), 0), -1));
    tm_assign(&kept, tm_share(&heads));
    TM_BUFFER_DATA(int32_t, &ids)[0] = 1;
    TM_TRY(tm_copy(&q, &host));
    TM_TRY(tm_clear(&q));
    if (sum(&scalar) < 0 || tm_rank(&eight) != 8) {
      return TM_RAISE(TM_ERR_INVALID, "a negative sum");
    }
  }
  return TM_OK;
}

tm_status add(const tm_tensor* x, const tm_tensor* indices) {
  if (tm_size(x) > 0)
    return TM_DISPATCH(tm_dtype_of(x), (TM_F32, TM_F64, TM_I8), T, {
      T* values = TM_DATA(T, x);
      const T steps[] = {1, 2, 3};
      TM_TRY(TM_DISPATCH(tm_dtype_of(indices), (TM_I32, TM_I64), Index, {
        const Index* index = TM_DATA(Index, indices);
        for (int64_t i = 0; i < tm_size(indices); i++) {
          values[index[i]] = (T)(values[index[i]] + steps[i % 3]);
        }
      }));
    });
  else
    return TM_OK;
}

tm_status gather(tm_batch_copy* batch, const tm_tensor* x, const tm_tensor* y, int64_t rows) {
  const int32_t from[] = {1, 2, 3};
  int32_t to[3];
  if (rows > 0) TM_WITH_COPY_GROUP(batch)
  for (int64_t i = 0; i < rows; i++) {
    TM_TRY_TENSOR(source, tm_slice_outer(x, i, 1));
    TM_TRY_TENSOR(destination, tm_slice_outer(y, i, 1));
    TM_TRY(tm_batch_copy_add(batch, &source, &destination));
  }
  else return TM_OK;
  TM_WITH_COPY_GROUP(batch) { (void)rows; }
  TM_WITH_COPY_GROUP(batch) { (void)rows; }
  tm_auto_batch_copy other = tm_batch_copy_create();
  const int32_t* end = TM_BATCH_COPY_ADD_N(other, from, 3, to);
  return end == to + 3 ? tm_batch_copy_run(batch) : tm_last_status();
}
