// Strided copies and fills on one device: by the kernel, by calls of the runtime, and beside a
// contiguous copy, in GB/s; and which of the two tm_copy takes.
//
//   ./bazelw run -c opt --config=cuda //tests/bench:strided_copy -- 256    (MiB per tensor)
//
// Every result is compared with that of a loop over the elements: "right" or "WRONG", and then the
// exit status is 1. On cudasim the speeds mean nothing, the comparison does.

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "alloc/cuda_runtime.h"
#include "tensor/copy_plan.h"
#include "tensor/memcpy_calls.h"
#include "tensor/strided_copy.h"
#include "tm/tm.h"

enum { MOST_CALLS = 1 << 14 };  // more are not waited for

//===-- The table ---------------------------------------------------------===//

// The destination is contiguous; the source has the same dimensions in memory in `order`, outermost
// first, and `pad` elements after each run of its innermost. One size is 0: as many as make up the
// size asked for.
typedef struct row {
  const char* name;
  tm_dtype dtype;
  int32_t rank;
  int64_t shape[4];
  int32_t order[4];
  int64_t pad;
} row;

static const row rows[] = {
    {"rows of 2 bytes", TM_U8, 2, {0, 2}, {0, 1}, 2},
    {"rows of 16 bytes", TM_U8, 2, {0, 16}, {0, 1}, 16},
    {"rows of 128 bytes", TM_U8, 2, {0, 128}, {0, 1}, 128},
    {"rows of 1 KiB", TM_U8, 2, {0, 1024}, {0, 1}, 128},
    {"rows of 4 KiB", TM_U8, 2, {0, 4096}, {0, 1}, 128},
    {"rows of 16 KiB", TM_U8, 2, {0, 16384}, {0, 1}, 128},
    {"rows of 255 bytes", TM_U8, 2, {0, 255}, {0, 1}, 2},
    {"rows of 4095 bytes", TM_U8, 2, {0, 4095}, {0, 1}, 2},
    {"f32, transposed", TM_F32, 2, {4096, 0}, {1, 0}, 0},
    {"f16, transposed", TM_F16, 2, {4096, 0}, {1, 0}, 0},
    {"u8, transposed", TM_U8, 2, {4096, 0}, {1, 0}, 0},
    {"f64, transposed", TM_F64, 2, {4096, 0}, {1, 0}, 0},
    {"f16, odd, transposed", TM_F16, 2, {4095, 0}, {1, 0}, 1},
    {"u8, odd, transposed", TM_U8, 2, {4095, 0}, {1, 0}, 2},
    {"f32 (n,8), transposed", TM_F32, 2, {8, 0}, {1, 0}, 0},
    {"f32 (8,n), transposed", TM_F32, 2, {0, 8}, {1, 0}, 0},
    {"u8 (n,32), transposed", TM_U8, 2, {32, 0}, {1, 0}, 0},
    {"u8 (n,3), transposed", TM_U8, 2, {3, 0}, {1, 0}, 0},
    {"f16 (b,h,s,d) to (b,s,h,d)", TM_F16, 4, {0, 512, 16, 128}, {0, 2, 1, 3}, 0},
    {"f16 (b,s,h,d) to (b,h,d,s)", TM_F16, 4, {0, 16, 128, 512}, {0, 3, 1, 2}, 0},
};

// The layouts of a row whose tensors have `bytes`, or less by a part of a row.
static tm_status make_layouts(const row* self, int64_t bytes, tm_layout* source,
                              tm_layout* destination) {
  int64_t others = tm_dtype_bits(self->dtype) / 8;
  tm_shape shape = TM_SHAPE(1, 1, 1, 1);
  tm_shape stride = TM_SHAPE(1, 1, 1, 1);
  shape.rank = self->rank;
  stride.rank = self->rank;
  for (int32_t i = 0; i < self->rank; i++) {
    others *= self->shape[i] ? self->shape[i] : 1;
  }
  for (int32_t i = 0; i < self->rank; i++) {
    shape.dim[i] = self->shape[i] ? self->shape[i] : bytes / others;
  }
  int64_t step = 1;
  for (int32_t i = self->rank - 1; i >= 0; i--) {
    stride.dim[self->order[i]] = step;
    step *= shape.dim[self->order[i]];
    step += i == self->rank - 1 ? self->pad : 0;
  }
  TM_TRY(tm_layout_make(shape, destination));
  return tm_layout_make_strided(shape, stride, source);
}

//===-- One row -----------------------------------------------------------===//

typedef struct measured {
  const row* self;
  tm_layout source_layout;
  tm_layout destination_layout;
  tm_buffer source;  // of bytes, as are the others
  tm_buffer destination;
  tm_buffer expected;  // on the host, contiguous
  tm_buffer seen;
  tm_copy_plan_ plan;
  tm_memcpy_calls_ calls;
  int64_t size;  // bytes copied
  bool is_wrong;
} measured;

typedef tm_status (*operation)(measured* self, cudaStream_t stream);

static tm_status by_kernel(measured* self, cudaStream_t stream) {
  bool launched;
  TM_TRY(tm_strided_copy_launch_(&self->plan, self->source.data, self->destination.data, stream,
                                 &launched));
  return launched ? TM_OK : TM_RAISE(TM_ERR_UNAVAILABLE, "there is no kernel for this device");
}

static tm_status by_calls(measured* self, cudaStream_t stream) {
  return tm_memcpy_calls_copy_(&self->calls, self->source.data, self->destination.data,
                               cudaMemcpyDeviceToDevice, stream);
}

static tm_status contiguous(measured* self, cudaStream_t stream) {
  TM_TRY_CUDA(cudaMemcpyAsync(self->destination.data, self->source.data, (size_t)self->size,
                              cudaMemcpyDeviceToDevice, stream));
  return TM_OK;
}

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

// Repeats the operation for some milliseconds after it was done once.
static tm_status measure(measured* self, operation run, double* gigabytes) {
  tm_stream* stream = tm_current_stream();
  int count = 1;
  double took = 0;
  *gigabytes = 0;
  TM_TRY(run(self, tm_stream_handle(stream)));
  TM_TRY(tm_stream_sync(stream));
  for (; took < 0.02; count *= 2) {
    const double begin = seconds();
    for (int i = 0; i < count; i++) {
      TM_TRY(run(self, tm_stream_handle(stream)));
    }
    TM_TRY(tm_stream_sync(stream));
    took = seconds() - begin;
    *gigabytes = (double)self->size * count / took * 1e-9;
  }
  return TM_OK;
}

// Whether the destination is what it should be, after it was emptied and the operation done once.
static tm_status check(measured* self, operation run) {
  tm_stream* stream = tm_current_stream();
  TM_TRY(tm_buffer_fill_bytes(&self->destination, 0x5a));
  TM_TRY(run(self, tm_stream_handle(stream)));
  TM_TRY(tm_buffer_copy(&self->destination, &self->seen));
  TM_TRY(tm_stream_sync(stream));
  self->is_wrong |= memcmp(self->seen.data, self->expected.data, (size_t)self->size) != 0;
  return TM_OK;
}

// The loop over the elements, in the order of the destination.
static void compute_expected(const measured* self, const char* source) {
  const int64_t width = tm_dtype_bits(self->self->dtype) / 8;
  const tm_layout* layout = &self->source_layout;
  const int32_t rank = tm_layout_rank(layout);
  char* to = self->expected.data;
  int64_t index[TM_MAX_RANK] = {0};
  int64_t from = 0;
  for (int64_t n = tm_layout_size(layout); n > 0; n--, to += width) {
    memcpy(to, source + from * width, (size_t)width);
    for (int32_t i = rank - 1; i >= 0; i--) {
      from += layout->stride[i];
      if (++index[i] < layout->shape[i]) {
        break;
      }
      from -= index[i] * layout->stride[i];
      index[i] = 0;
    }
  }
}

static tm_status prepare(measured* self, int64_t bytes) {
  const tm_dtype dtype = self->self->dtype;
  TM_TRY(make_layouts(self->self, bytes, &self->source_layout, &self->destination_layout));
  TM_TRY(tm_copy_plan_make_(dtype, &self->source_layout, &self->destination_layout, &self->plan));
  self->calls = tm_memcpy_calls_make_(&self->plan);
  const int64_t width = tm_dtype_bits(dtype) / 8;
  self->size = tm_layout_size(&self->destination_layout) * width;
  const int64_t reached = tm_layout_cosize(&self->source_layout) * width;
  TM_TRY_BUFFER(image, tm_buffer_empty(reached, TM_U8, TM_CPU));
  uint64_t state = 1;
  for (int64_t i = 0; i < reached; i++) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    ((uint8_t*)image.data)[i] = (uint8_t)(state >> 56);
  }
  self->source = tm_buffer_empty(reached, TM_U8, TM_DEVICE);
  self->destination = tm_buffer_empty(self->size, TM_U8, TM_DEVICE);
  self->expected = tm_buffer_empty(self->size, TM_U8, TM_CPU);
  self->seen = tm_buffer_empty(self->size, TM_U8, TM_CPU);
  if (!tm_buffer_ok(&self->source) || !tm_buffer_ok(&self->destination) ||
      !tm_buffer_ok(&self->expected) || !tm_buffer_ok(&self->seen)) {
    return tm_last_status();
  }
  compute_expected(self, image.data);
  TM_TRY(tm_buffer_copy(&image, &self->source));
  return tm_stream_sync(tm_current_stream());
}

static void release(measured* self) {
  tm_buffer_release(&self->source);
  tm_buffer_release(&self->destination);
  tm_buffer_release(&self->expected);
  tm_buffer_release(&self->seen);
}

static tm_status measure_copy(measured* self) {
  double kernel = 0;
  double calls = 0;
  double straight = 0;
  const bool waits_for_calls = self->calls.count <= MOST_CALLS;
  const bool pays = tm_strided_copy_pays_(&self->calls, self->source.data, self->destination.data);
  TM_TRY(check(self, by_kernel));
  TM_TRY(measure(self, by_kernel, &kernel));
  if (waits_for_calls) {
    TM_TRY(check(self, by_calls));
    TM_TRY(measure(self, by_calls, &calls));
  }
  TM_TRY(measure(self, contiguous, &straight));
  printf("%-28s %10" PRId64 " %8.1f %8.1f %10.1f %5.0f %%  %-6s  %s\n", self->self->name,
         self->calls.count, kernel, calls, straight, straight > 0 ? 100 * kernel / straight : 0,
         pays ? "kernel" : "calls", self->is_wrong ? "WRONG" : "right");
  return TM_OK;
}

//===-- Fills -------------------------------------------------------------===//

enum { VALUE = 0xc3 };

static tm_status fill_by_kernel(measured* self, cudaStream_t stream) {
  bool launched;
  TM_TRY(tm_strided_fill_launch_(&self->plan, VALUE, self->source.data, stream, &launched));
  return launched ? TM_OK : TM_RAISE(TM_ERR_UNAVAILABLE, "there is no kernel for this device");
}

static tm_status fill_by_calls(measured* self, cudaStream_t stream) {
  return tm_memcpy_calls_fill_(&self->calls, VALUE, self->source.data, stream);
}

// Counts the bytes of the value in what was empty.
static tm_status check_fill(measured* self, operation run) {
  TM_TRY(tm_buffer_clear(&self->source));
  TM_TRY(run(self, tm_stream_handle(tm_current_stream())));
  TM_TRY_BUFFER(image, tm_buffer_empty(self->source.size, TM_U8, TM_CPU));
  TM_TRY(tm_buffer_copy(&self->source, &image));
  TM_TRY(tm_stream_sync(tm_current_stream()));
  int64_t set = 0;
  int64_t other = 0;
  for (int64_t i = 0; i < image.size; i++) {
    set += ((const uint8_t*)image.data)[i] == VALUE;
    other += ((const uint8_t*)image.data)[i] == 0;
  }
  self->is_wrong |= set != self->size || set + other != image.size;
  return TM_OK;
}

static tm_status measure_fill(measured* self) {
  double kernel = 0;
  double calls = 0;
  TM_TRY(tm_copy_plan_make_(self->self->dtype, &self->source_layout, &self->source_layout,
                            &self->plan));
  self->calls = tm_memcpy_calls_make_(&self->plan);
  const bool pays = tm_strided_fill_pays_(&self->calls, self->source.data);
  TM_TRY(check_fill(self, fill_by_kernel));
  TM_TRY(check_fill(self, fill_by_calls));
  TM_TRY(measure(self, fill_by_kernel, &kernel));
  TM_TRY(measure(self, fill_by_calls, &calls));
  printf("  fill of them               %10" PRId64 " %8.1f %8.1f %20s%-6s  %s\n", self->calls.count,
         kernel, calls, "", pays ? "kernel" : "calls", self->is_wrong ? "WRONG" : "right");
  return TM_OK;
}

//===-- All rows ----------------------------------------------------------===//

static tm_status measure_row(const row* self, int64_t bytes, bool* is_wrong) {
  measured m = {.self = self};
  tm_status status = prepare(&m, bytes);
  if (status == TM_OK) {
    status = measure_copy(&m);
  }
  if (status == TM_OK && self->pad > 0 && self->order[0] == 0) {
    status = measure_fill(&m);
  }
  *is_wrong |= m.is_wrong;
  release(&m);
  return status;
}

static tm_status measure_all(int64_t bytes, bool* is_wrong) {
  tm_auto_stream stream = tm_stream_create(0, 0);
  tm_allocator* const device = stream ? tm_cuda_allocator(0) : NULL;
  if (!device) {
    return tm_last_status();
  }
  TM_USE_STREAM(stream);
  TM_USE_ALLOCATOR(device);
  printf("%-28s %10s %8s %8s %10s %7s  %-6s\n", "GB/s", "calls", "kernel", "calls", "contiguous",
         "kernel", "taken");
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    TM_TRY(measure_row(&rows[i], bytes, is_wrong));
  }
  return TM_OK;
}

int main(int argc, char** argv) {
  const int64_t mib = argc > 1 ? strtoll(argv[1], NULL, 10) : 2;
  bool is_wrong = false;
  if (mib < 1 || mib > 1 << 14) {
    fprintf(stderr, "usage: strided_copy [MiB per tensor, 1 to 16384]\n");
    return 2;
  }
  if (measure_all(mib << 20, &is_wrong) != TM_OK) {
    fprintf(stderr, "%s\n", tm_last_error()->message);
    return 1;
  }
  return is_wrong;
}
