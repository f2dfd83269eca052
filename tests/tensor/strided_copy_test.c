// Copies and fills of any two layouts of one shape, between all kinds of memory.

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <cuda_runtime_api.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tensor/strided_copy_kernel.h"
#include "tests/support/gate.h"
#include "tests/support/machine.h"
#include "tm/alloc/cuda.h"
#include "tm/alloc/cuda_pool.h"
#include "tm/alloc/host.h"
#include "tm/alloc/pinned.h"
#include "tm/alloc/stream.h"
#include "tm/context/context.h"
#include "tm/tensor/copy.h"

static tm_stream* stream;
static tm_allocator* pool;

static void setup(void) {
  machine_configure(2, "256MiB");
  machine_require_devices(1);
  stream = tm_stream_create(0, 0);
  pool = stream ? tm_cuda_pool_allocator_create(stream, NULL) : NULL;
  cr_assert(pool != NULL, "%s", tm_last_error()->message);
}

static void finish(void) {
  tm_allocator_release(pool);
  tm_stream_release(stream);
}

TestSuite(strided_copy, .init = setup, .fini = finish);

#define ASSERT_OK(call) cr_assert(eq(int, (call), TM_OK), "%s", tm_last_error()->message)

//===-- Random layouts ----------------------------------------------------===//

enum { SPACE = 1 << 18 };  // bytes of each memory

static uint64_t random_state;

static int64_t random_below(int64_t limit) {  // splitmix64
  uint64_t z = random_state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return (int64_t)((z ^ (z >> 31)) % (uint64_t)limit);
}

static void seed(void) {
  const char* given = getenv("TM_TEST_SEED");
  random_state = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL) * 1000003u;
  printf("TM_TEST_SEED=%" PRIu64 "\n", random_state);
}

// At most 16384 elements: a matrix, a thin one, or many small dimensions, some of them 1 or 0.
static tm_shape random_shape(void) {
  tm_shape shape = TM_SHAPE(1, 1, 1, 1, 1, 1, 1, 1);
  switch (random_below(4)) {
    case 0:
      return TM_SHAPE(1 + random_below(128), 1 + random_below(128));
    case 1:
      return TM_SHAPE(1 + random_below(3), 1 + random_below(6), 1 + random_below(600));
    default:
      break;
  }
  shape.rank = (int32_t)random_below(9);
  for (int32_t i = 0; i < shape.rank; i++) {
    shape.dim[i] = random_below(60) == 0 ? 0 : 1 + random_below(shape.rank > 4 ? 3 : 10);
  }
  return shape;
}

// A permuted and padded layout; that of a source also broadcasts and overlaps.
static tm_layout random_layout(const tm_shape* shape, bool is_source) {
  tm_shape stride;
  int32_t order[TM_MAX_RANK];
  stride.rank = shape->rank;
  const bool turned = random_below(2) != 0;
  for (int32_t i = 0; i < shape->rank; i++) {
    const int32_t j = turned ? (int32_t)random_below(i + 1) : 0;
    for (int32_t n = i; n > j; n--) {
      order[n] = order[n - 1];
    }
    order[j] = i;
  }
  int64_t step = random_below(3) ? 1 : 1 + random_below(3);
  for (int32_t i = 0; i < shape->rank; i++) {
    stride.dim[order[i]] = is_source && random_below(12) == 0 ? random_below(2) : step;
    step *= shape->dim[order[i]] > 0 ? shape->dim[order[i]] : 1;
    step += random_below(3) ? 0 : random_below(4);
  }
  tm_layout layout;
  ASSERT_OK(tm_layout_make_strided(*shape, stride, &layout));
  return layout;
}

static bool next_index(const tm_shape* shape, tm_shape* index) {
  for (int32_t i = index->rank - 1; i >= 0; i--) {
    if (++index->dim[i] < shape->dim[i]) {
      return true;
    }
    index->dim[i] = 0;
  }
  return false;
}

//===-- The model ---------------------------------------------------------===//

// A part of SPACE bytes, as host memory, in one of the three kinds of memory.
typedef struct side {
  uint8_t* image;
  tm_buffer memory;
  tm_layout layout;
  int64_t start;  // elements
} side;

typedef struct example {
  tm_dtype dtype;
  int64_t width;  // bytes
  tm_shape shape;
  side source;
  side destination;
} example;

static bool fits(const side* where, int64_t width) {
  return (where->start + tm_layout_cosize(&where->layout)) * width <= SPACE;
}

static void make_example(example* e) {
  static const tm_dtype types[] = {TM_U8, TM_I16, TM_F32, TM_F64};
  e->dtype = types[random_below(4)];
  e->width = tm_dtype_bits(e->dtype) / 8;
  do {
    e->shape = random_shape();
    e->source.layout = random_layout(&e->shape, true);
    e->destination.layout = random_layout(&e->shape, false);
    e->source.start = random_below(2) ? 0 : random_below(20);
    e->destination.start = random_below(2) ? 0 : random_below(20);
  } while (!fits(&e->source, e->width) || !fits(&e->destination, e->width));
}

static int64_t offset_of(const side* where, tm_shape index) {
  int64_t offset = -1;
  ASSERT_OK(tm_layout_offset(&where->layout, index, &offset));
  return where->start + offset;
}

// What the destination's image becomes: of `source`, or of the byte `value` where that is NULL.
static void model(const example* e, const uint8_t* source, int value, uint8_t* destination) {
  tm_shape index = TM_INDEX(0, 0, 0, 0, 0, 0, 0, 0);
  index.rank = e->shape.rank;
  if (tm_layout_size(&e->source.layout) == 0) {
    return;
  }
  do {
    uint8_t* to = destination + offset_of(&e->destination, index) * e->width;
    if (source) {
      memcpy(to, source + offset_of(&e->source, index) * e->width, (size_t)e->width);
    } else {
      memset(to, value, (size_t)e->width);
    }
  } while (next_index(&e->shape, &index));
}

static size_t used(const example* e, const side* where) {
  const int64_t end = (where->start + tm_layout_cosize(&where->layout) + 4) * e->width;
  return (size_t)(end < SPACE ? end : SPACE);
}

static tm_tensor view_of(const example* e, const side* where) {
  tm_auto_buffer typed = tm_buffer_as(&where->memory, e->dtype);
  tm_auto_buffer part = tm_buffer_slice(&typed, where->start, -1);
  tm_tensor view = tm_from_buffer(&part, &where->layout);
  cr_assert(tm_ok(&view), "%s", tm_last_error()->message);
  return view;
}

// Moves the first `size` bytes between an image and its memory, wherever that is. cudaMemcpy from
// pageable memory returns when it has read the source; what follows on `stream`, which does not
// wait for the legacy stream, could be overtaken by it.
static void move(const void* from, size_t size, void* to) {
  ASSERT_OK(tm_stream_sync(stream));
  cr_assert(eq(int, cudaMemcpy(to, from, size, cudaMemcpyDefault), cudaSuccess));
  cr_assert(eq(int, cudaDeviceSynchronize(), cudaSuccess));
}

static void expect_image(const example* e, const uint8_t* expected, uint8_t* seen,
                         const char* what) {
  char from[TM_LAYOUT_TEXT_SIZE];
  char to[TM_LAYOUT_TEXT_SIZE];
  const size_t size = used(e, &e->destination);
  move(e->destination.memory.data, size, seen);
  tm_layout_text(&e->source.layout, from, sizeof from);
  tm_layout_text(&e->destination.layout, to, sizeof to);
  cr_assert(memcmp(seen, expected, size) == 0, "%s of %s from %s at %lld (%s) to %s at %lld (%s)",
            what, tm_dtype_name(e->dtype), from, (long long)e->source.start,
            tm_device_type_name(e->source.memory.device.type), to, (long long)e->destination.start,
            tm_device_type_name(e->destination.memory.device.type));
}

static void try_example(const example* e, uint8_t* expected, uint8_t* seen) {
  const size_t size = used(e, &e->destination);
  memset(expected, 0xee, size);
  move(e->source.image, used(e, &e->source), e->source.memory.data);
  move(expected, size, e->destination.memory.data);
  tm_auto_tensor x = view_of(e, &e->source);
  tm_auto_tensor y = view_of(e, &e->destination);
  model(e, e->source.image, 0, expected);
  ASSERT_OK(tm_copy(&x, &y));
  expect_image(e, expected, seen, "copy");
  model(e, NULL, 0x3c, expected);
  ASSERT_OK(tm_fill_bytes(&y, 0x3c));
  expect_image(e, expected, seen, "fill");
}

static tm_buffer make_memory(tm_device_type type) {
  tm_buffer buffer = tm_buffer_empty(SPACE, TM_U8, type);
  cr_assert(tm_buffer_ok(&buffer), "%s", tm_last_error()->message);
  return buffer;
}

// `count` examples from memory of `from` to memory of `to`.
static void try_random(tm_allocator* from_device, tm_device_type from, tm_device_type to,
                       int count) {
  uint8_t* image = malloc(SPACE);
  uint8_t* expected = malloc(SPACE);
  uint8_t* seen = malloc(SPACE);
  cr_assert(image && expected && seen);
  for (int i = 0; i < SPACE; i++) {
    image[i] = (uint8_t)random_below(256);
  }
  TM_WITH_STREAM(stream)
  TM_WITH_ALLOCATOR(tm_pinned_allocator())
  TM_WITH_ALLOCATOR(pool) {
    example e = {.source.image = image};
    e.destination.memory = make_memory(to);
    TM_WITH_ALLOCATOR(from_device) { e.source.memory = make_memory(from); }
    for (int i = 0; i < count; i++) {
      make_example(&e);
      try_example(&e, expected, seen);
    }
    tm_buffer_release(&e.source.memory);
    tm_buffer_release(&e.destination.memory);
  }
  free(image);
  free(expected);
  free(seen);
}

enum { EXAMPLES = 150 };

Test(strided_copy, between_all_kinds_of_memory_does_what_the_model_does) {
  static const tm_device_type types[] = {TM_CPU, TM_CPU_PINNED, TM_DEVICE};
  seed();
  for (int from = 0; from < 3; from++) {
    for (int to = 0; to < 3; to++) {
      try_random(pool, types[from], types[to], EXAMPLES);
    }
  }
}

Test(strided_copy, between_devices_does_what_the_model_does) {
  machine_require_devices(2);
  seed();
  try_random(tm_cuda_allocator(1), TM_DEVICE, TM_DEVICE, EXAMPLES);
}

//===-- Transpositions ----------------------------------------------------===//

// `rows` by `columns` elements of `words` values, transposed, with `pad` and `other_pad` values
// after the rows of either side.
static void make_transposition(example* e, tm_shape shape, int64_t pad, int64_t other_pad) {
  const int64_t rows = shape.dim[0];
  const int64_t columns = shape.dim[1];
  const int64_t words = shape.dim[2];
  e->shape = shape;
  ASSERT_OK(
      tm_layout_make_strided(shape, TM_INDEX(words, rows * words + pad, 1), &e->source.layout));
  ASSERT_OK(tm_layout_make_strided(shape, TM_INDEX(columns * words + other_pad, words, 1),
                                   &e->destination.layout));
  cr_assert(fits(&e->source, e->width) && fits(&e->destination, e->width));
}

// Every size of elements, with and without whole words in rows, in matrices that are tiles, parts
// of tiles, thin and flat.
static void try_transpositions(example* e, uint8_t* expected, uint8_t* seen) {
  static const tm_dtype types[] = {TM_U8, TM_I16, TM_F32, TM_F64, TM_F64};
  static const int64_t sizes[][2] = {{64, 64},  {130, 72}, {3, 1000}, {1000, 3},
                                     {8, 1900}, {1900, 8}, {4, 4},    {5, 257}};
  for (int type = 0; type < 5; type++) {
    e->dtype = types[type];
    e->width = tm_dtype_bits(e->dtype) / 8;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
      const tm_shape shape = TM_SHAPE(sizes[i][0], sizes[i][1], type == 4 ? 2 : 1);
      for (int pads = 0; pads < 4; pads++) {
        e->source.start = pads == 3;
        make_transposition(e, shape, pads & 1, pads >> 1);
        try_example(e, expected, seen);
      }
    }
  }
}

static void try_transpositions_in(tm_device_type type) {
  uint8_t* image = malloc(SPACE);
  uint8_t* expected = malloc(SPACE);
  uint8_t* seen = malloc(SPACE);
  cr_assert(image && expected && seen);
  for (int i = 0; i < SPACE; i++) {
    image[i] = (uint8_t)(i * 7 + i / 256 * 31);
  }
  TM_WITH_STREAM(stream)
  TM_WITH_ALLOCATOR(pool) {
    example e = {.source.image = image};
    e.source.memory = make_memory(type);
    e.destination.memory = make_memory(type);
    try_transpositions(&e, expected, seen);
    tm_buffer_release(&e.source.memory);
    tm_buffer_release(&e.destination.memory);
  }
  free(image);
  free(expected);
  free(seen);
}

Test(strided_copy, transposes_on_the_host) { try_transpositions_in(TM_CPU); }

Test(strided_copy, transposes_on_a_device) { try_transpositions_in(TM_DEVICE); }

//===-- Indices -----------------------------------------------------------===//

static uint64_t random_bits(int most) {
  return ((uint64_t)random_below(INT64_C(1) << 32) << 31 |
          (uint64_t)random_below(INT64_C(1) << 31)) >>
         (64 - 1 - random_below(most));
}

// Loops of at most 2^31 - 1 iterations in all.
static tm_strided_copy_ random_loops(void) {
  tm_strided_copy_ copy = {.is_narrow = 1};
  uint64_t left = INT32_MAX;  // that the loops to come may multiply to
  copy.total = 1;
  copy.rank = 1 + (int32_t)random_below(TM_STRIDED_LOOPS_);
  for (int32_t n = 0; n < copy.rank; n++) {
    const uint64_t wanted = 1 + random_bits(31);
    const uint64_t count = wanted < left ? wanted : left;
    cr_assert(count > 0);
    copy.loop[n] =
        tm_strided_loop_make_(count, random_below(1 << 20), random_below(INT64_C(1) << 30));
    copy.total *= count;
    left /= count;
  }
  return copy;
}

// Divided by multiplication, and in 64 bits: the same places, for totals up to 2^31 - 1.
Test(strided_copy, narrow_indices_are_the_wide_ones) {
  seed();
  for (int i = 0; i < 20000; i++) {
    tm_strided_copy_ narrow = random_loops();
    tm_strided_copy_ wide = narrow;
    wide.is_narrow = 0;
    const uint64_t index = i % 3 ? (uint64_t)random_below((int64_t)narrow.total) : narrow.total - 1;
    const tm_strided_place_ a = tm_strided_find_(&narrow, index);
    const tm_strided_place_ b = tm_strided_find_(&wide, index);
    cr_assert(a.source == b.source && a.destination == b.destination && a.inner == b.inner &&
                  a.second == b.second,
              "%llu of %llu", (unsigned long long)index, (unsigned long long)narrow.total);
  }
}

//===-- Calls of the runtime ----------------------------------------------===//

typedef struct call_row {
  const char* source;
  const char* destination;
  int64_t runs;    // contiguous on both sides
  uint64_t calls;  // that copy them between the host and a device
} call_row;

// The table of docs/tensors.md.
static const call_row call_rows[] = {
    {"(20,50):(50,1)", "(20,50):(50,1)", 1, 1},                 // contiguous
    {"(20,50):(64,1)", "(20,50):(50,1)", 20, 1},                // columns of a matrix
    {"(4,5,10):(240,20,1)", "(4,5,10):(300,30,1)", 20, 1},      // of several
    {"(2,8,3,4):(96,4,32,1)", "(2,8,3,4):(96,12,4,1)", 48, 3},  // (b,s,h,d) from (b,h,s,d)
    {"(3,4,5,10):(2000,240,20,1)", "(3,4,5,10):(1500,300,30,1)", 60, 3},  // three loops
    {"(20,50):(1,20)", "(20,50):(50,1)", 1000, 20},                       // a transposition
    {"(50,20):(1,50)", "(50,20):(20,1)", 1000, 20},                       // the other way round
    {"(3,20):(0,1)", "(3,20):(20,1)", 3, 3},                              // a broadcast
    {"(4,3,20):(20,0,1)", "(4,3,20):(60,20,1)", 12, 3},                   // inside a matrix
    {"(4,5,10):(205,20,1)", "(4,5,10):(50,10,1)", 20, 4},                 // planes between rows
    {"(30):(3)", "(30):(5)", 30, 1},                                      // single elements
    {"():()", "():()", 1, 1},
};

// Copies and fills queued by a copy between buffers of i32.
static machine_work work_of(const tm_buffer* from, const tm_buffer* to, const call_row* row,
                            bool fills) {
  tm_layout source;
  tm_layout destination;
  ASSERT_OK(tm_layout_parse(row->source, &source));
  ASSERT_OK(tm_layout_parse(row->destination, &destination));
  tm_auto_tensor x = tm_from_buffer(from, &source);
  tm_auto_tensor y = tm_from_buffer(to, &destination);
  cr_assert(tm_ok(&x) && tm_ok(&y), "%s", tm_last_error()->message);
  const machine_work before = machine_work_of(0);
  if (fills) {
    ASSERT_OK(tm_clear(&y));
  } else {
    ASSERT_OK(tm_copy(&x, &y));
  }
  const machine_work after = machine_work_of(0);
  return (machine_work){.kernels = after.kernels - before.kernels,
                        .copies = after.copies - before.copies,
                        .fills = after.fills - before.fills};
}

Test(strided_copy, between_host_and_device_makes_the_calls_of_the_table) {
  if (!machine_is_simulated()) {
    machine_skip("a real machine does not count calls");
  }
  tm_auto_buffer host = tm_buffer_empty_from(tm_host_allocator(), 16384, TM_I32);
  tm_auto_buffer pinned = tm_buffer_empty_from(tm_pinned_allocator(), 16384, TM_I32);
  tm_auto_buffer device = tm_buffer_empty_from(pool, 16384, TM_I32);
  TM_WITH_STREAM(stream) {
    for (size_t i = 0; i < sizeof call_rows / sizeof *call_rows; i++) {
      const call_row* row = &call_rows[i];
      cr_expect(row->calls <= (uint64_t)row->runs);
      const uint64_t up = work_of(&host, &device, row, false).copies;
      const uint64_t up_pinned = work_of(&pinned, &device, row, false).copies;
      const uint64_t down = work_of(&device, &pinned, row, false).copies;
      cr_expect(eq(u64, up, row->calls), "%s to %s", row->source, row->destination);
      cr_expect(eq(u64, up_pinned, row->calls), "%s to %s", row->source, row->destination);
      cr_expect(eq(u64, down, row->calls), "%s to %s", row->source, row->destination);
    }
    ASSERT_OK(tm_stream_sync(stream));
  }
}

typedef struct kernel_row {
  const char* source;
  const char* destination;
  machine_work copy;
  machine_work fill;  // of the destination
} kernel_row;

// i32, on one device.
static const kernel_row kernel_rows[] = {
    {"(20,50):(50,1)", "(20,50):(50,1)", {.copies = 1}, {.fills = 1}},         // contiguous
    {"(20,48):(64,1)", "(20,48):(96,1)", {.kernels = 1}, {.kernels = 1}},      // narrow rows
    {"(4,1024):(1024,1)", "(4,1024):(1028,1)", {.kernels = 1}, {.fills = 1}},  // of 4 KiB
    {"(3,4096):(4096,1)", "(3,4096):(4100,1)", {.kernels = 1}, {.fills = 1}},  // of 16 KiB
    {"(3,4100):(4100,1)", "(3,4100):(4104,1)", {.copies = 1}, {.fills = 1}},   // wider
    {"(3,1025):(1026,1)", "(3,1025):(1027,1)", {.copies = 1}, {.fills = 1}},   // in narrow units
    {"(20,50):(1,20)", "(20,50):(50,1)", {.kernels = 1}, {.fills = 1}},        // a transposition
    {"(3,20):(0,1)", "(3,20):(24,1)", {.kernels = 1}, {.kernels = 1}},         // a broadcast
    {"(30):(3)", "(30):(5)", {.kernels = 1}, {.kernels = 1}},
    {"(2,3,1025):(3080,1027,1)", "(2,3,1025):(3077,1025,1)", {.kernels = 1}, {.fills = 1}},
};

static void expect_work(machine_work seen, machine_work expected, const kernel_row* row) {
  cr_expect(seen.copies == expected.copies && seen.fills == expected.fills &&
                seen.kernels == expected.kernels,
            "%s to %s: %d copies, %d fills, %d kernels", row->source, row->destination,
            (int)seen.copies, (int)seen.fills, (int)seen.kernels);
}

Test(strided_copy, on_a_device_is_by_kernel_where_that_is_faster) {
  if (!machine_is_simulated()) {
    machine_skip("a real machine does not count calls");
  }
  tm_auto_buffer from = tm_buffer_empty_from(pool, 16384, TM_I32);
  tm_auto_buffer to = tm_buffer_empty_from(pool, 16384, TM_I32);
  TM_WITH_STREAM(stream) {
    for (size_t i = 0; i < sizeof kernel_rows / sizeof *kernel_rows; i++) {
      const call_row row = {kernel_rows[i].source, kernel_rows[i].destination, 0, 0};
      expect_work(work_of(&from, &to, &row, false), kernel_rows[i].copy, &kernel_rows[i]);
      expect_work(work_of(&from, &to, &row, true), kernel_rows[i].fill, &kernel_rows[i]);
    }
    ASSERT_OK(tm_stream_sync(stream));
  }
}

// Rows that are further apart than a pitch may be are copied one by one.
Test(strided_copy, of_rows_gigabytes_apart) {
  const int64_t far = (INT64_C(1) << 31) + 64;
  tm_layout apart;
  cr_assert(eq(int, tm_layout_make_strided(TM_SHAPE(2, 8), TM_INDEX(far, 1), &apart), TM_OK));
  uint8_t* const memory = calloc(1, (size_t)far + 8);  // its pages come when they are written
  cr_assert(memory != NULL);
  tm_auto_buffer host = tm_buffer_from_borrowed(memory, far + 8, TM_U8, tm_device_make(TM_CPU, 0));
  tm_auto_tensor x = tm_from_buffer(&host, &apart);
  tm_auto_tensor y = tm_empty_from(pool, TM_SHAPE(2, 8), TM_U8);
  memset(memory, 1, 8);
  memset(memory + far, 2, 8);
  TM_WITH_STREAM(stream) { ASSERT_OK(tm_copy(&x, &y)); }
  uint8_t seen[16];
  move(y.data, sizeof seen, seen);
  for (int i = 0; i < 16; i++) {
    cr_expect(eq(int, seen[i], i < 8 ? 1 : 2));
  }
  free(memory);
}

//===-- Captures ----------------------------------------------------------===//

Test(strided_copy, of_a_transposition_is_captured) {
  tm_auto_tensor x = tm_empty_from(pool, TM_SHAPE(20, 50), TM_I32);
  tm_auto_tensor y = tm_empty_from(pool, TM_SHAPE(50, 20), TM_I32);
  tm_auto_tensor turned = tm_t(&x);
  cudaStream_t handle = tm_stream_handle(stream);
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  int32_t numbers[1000];
  for (int i = 0; i < 1000; i++) {
    numbers[i] = i;
  }
  TM_WITH_STREAM(stream) {
    ASSERT_OK(tm_clear(&y));
    ASSERT_OK(tm_stream_sync(stream));
    cr_assert(cudaStreamBeginCapture(handle, cudaStreamCaptureModeGlobal) == cudaSuccess);
    ASSERT_OK(tm_copy(&turned, &y));
    cr_assert(cudaStreamEndCapture(handle, &graph) == cudaSuccess);
  }
  cr_assert(cudaGraphInstantiate(&exec, graph, 0) == cudaSuccess);
  move(numbers, sizeof numbers, x.data);
  cr_assert(cudaGraphLaunch(exec, handle) == cudaSuccess);
  move(y.data, sizeof numbers, numbers);
  for (int i = 0; i < 1000; i++) {
    cr_assert(numbers[i] == i % 20 * 50 + i / 20, "%d: %d", i, numbers[i]);
  }
  cr_expect(cudaGraphExecDestroy(exec) == cudaSuccess);
  cr_expect(cudaGraphDestroy(graph) == cudaSuccess);
}

//===-- Failures ----------------------------------------------------------===//

static tm_tensor filled(tm_shape shape, uint8_t value) {
  tm_tensor tensor = tm_empty_from(pool, shape, TM_I32);
  cr_assert(tm_ok(&tensor), "%s", tm_last_error()->message);
  TM_WITH_STREAM(stream) { ASSERT_OK(tm_fill_bytes(&tensor, value)); }
  return tensor;
}

static int last_value(const tm_tensor* tensor) {
  int value;
  move((const char*)tensor->data + tm_byte_size(tensor) - sizeof value, sizeof value, &value);
  return value;
}

Test(strided_copy, whose_kernel_fails_leaves_the_destination_as_it_was) {
  tm_auto_tensor x = filled(TM_SHAPE(20, 50), 1);
  tm_auto_tensor y = filled(TM_SHAPE(50, 20), 2);
  tm_auto_tensor turned = tm_t(&x);
  tm_auto_tensor part = tm_slice(&y, TM_INDEX(0, 1), TM_INDEX(-1, -1));
  TM_WITH_STREAM(stream) {
    machine_fail("cudaLaunchKernel", 1, 2, cudaErrorUnknown);
    cr_expect(eq(int, tm_copy(&turned, &y), TM_ERR_CUDA));
    cr_expect(ne(ptr, (void*)strstr(tm_last_error()->message, "cudaLaunchKernel"), NULL), "%s",
              tm_last_error()->message);
    cr_expect(eq(int, tm_clear(&part), TM_ERR_CUDA));
    cr_expect(eq(int, last_value(&y), 0x02020202));
    cr_expect(eq(int, cudaGetLastError(), cudaSuccess));
    ASSERT_OK(tm_copy(&turned, &y));
    cr_expect(eq(int, last_value(&y), 0x01010101));
  }
}

// A device that the library has no kernels for, and a driver that makes none of what it has.
Test(strided_copy, on_an_older_device_is_by_calls) {
  static const cudaError_t answers[] = {
      cudaErrorNoKernelImageForDevice, cudaErrorInvalidDeviceFunction,
      cudaErrorUnsupportedPtxVersion,  cudaErrorJitCompilerNotFound,
      cudaErrorJitCompilationDisabled,
  };
  tm_auto_tensor x = filled(TM_SHAPE(20, 50), 1);
  tm_auto_tensor y = filled(TM_SHAPE(50, 20), 2);
  tm_auto_tensor turned = tm_t(&x);
  tm_auto_tensor part = tm_slice(&y, TM_INDEX(0, 1), TM_INDEX(-1, -1));
  TM_WITH_STREAM(stream) {
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
      machine_fail("cudaLaunchKernel", 1, 0, answers[i]);
      const machine_work before = machine_work_of(0);
      ASSERT_OK(tm_copy(&turned, &y));
      cr_expect(eq(int, last_value(&y), 0x01010101));
      ASSERT_OK(tm_fill_bytes(&part, 3));
      cr_expect(eq(int, last_value(&y), 0x03030303));
      cr_expect(eq(int, cudaGetLastError(), cudaSuccess));
      cr_expect(eq(u64, machine_work_of(0).kernels, before.kernels));
      machine_fail_nothing();
    }
  }
}

// Of 20 calls the 5th fails: the error is CUDA's, and nothing else is queued.
Test(strided_copy, that_fails_midway_says_so) {
  tm_auto_tensor x = tm_empty_from(tm_pinned_allocator(), TM_SHAPE(20, 50), TM_I32);
  tm_auto_tensor y = tm_empty_from(pool, TM_SHAPE(50, 20), TM_I32);
  tm_auto_tensor turned = tm_t(&y);
  cr_assert(tm_ok(&x) && tm_ok(&turned));
  TM_WITH_STREAM(stream) {
    ASSERT_OK(tm_clear(&y));
    machine_fail("cudaMemcpy2DAsync", 5, 1, cudaErrorInvalidValue);
    const uint64_t before = machine_work_of(0).copies;
    cr_expect(eq(int, tm_copy(&x, &turned), TM_ERR_CUDA));
    cr_expect(ne(ptr, (void*)strstr(tm_last_error()->message, "cudaMemcpy2DAsync"), NULL), "%s",
              tm_last_error()->message);
    cr_expect(eq(u64, machine_work_of(0).copies - before, 4));
    cr_expect(eq(int, cudaGetLastError(), cudaSuccess));
    ASSERT_OK(tm_copy(&x, &turned));
    ASSERT_OK(tm_stream_sync(stream));
  }
}

// A pinned block is freed while four calls of a copy that failed then are queued on another stream.
Test(strided_copy, that_fails_midway_keeps_the_block_until_what_is_queued_is_done) {
  tm_auto_stream other = tm_stream_create(0, 0);
  tm_auto_tensor y = tm_empty_from(pool, TM_SHAPE(50, 20), TM_I32);
  tm_auto_tensor turned = tm_t(&y);
  tm_tensor x = tm_empty_from(tm_pinned_allocator(), TM_SHAPE(20, 50), TM_I32);
  cr_assert(other && tm_ok(&x) && tm_ok(&turned));
  const void* const block = x.data;
  gate held;
  ASSERT_OK(tm_stream_sync(stream));
  machine_fail("cudaMemcpy2DAsync", 5, 1,
               cudaErrorInvalidValue);  // skips before the gate is closed
  gate_close(&held, other);
  TM_WITH_STREAM(other) { cr_expect(eq(int, tm_copy(&x, &turned), TM_ERR_CUDA)); }
  tm_release(&x);
  tm_auto_tensor next = tm_empty_from(tm_pinned_allocator(), TM_SHAPE(20, 50), TM_I32);
  cr_expect(next.data != block, "the block is taken while it is being read");
  gate_open(&held);
  ASSERT_OK(tm_stream_sync(other));
}
