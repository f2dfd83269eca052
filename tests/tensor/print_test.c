#include "tm/tensor/print.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/failing.h"
#include "tests/support/machine.h"
#include "tm/alloc/cuda_pool.h"
#include "tm/alloc/host.h"
#include "tm/alloc/stream.h"
#include "tm/context/context.h"
#include "tm/tensor/copy.h"

static const tm_device cpu = {TM_CPU, 0};

// What printing writes; `*status` is its result.
static char* printed(const tm_tensor* tensor, tm_status* status) {
  static char text[1 << 16];
  memset(text, 0, sizeof text);
  FILE* file = fmemopen(text, sizeof text, "w");
  cr_assert(file != NULL);
  *status = tm_print(tensor, file);
  fclose(file);
  return text;
}

static void expect_prints(const tm_tensor* tensor, const char* expected) {
  tm_status status;
  char* text = printed(tensor, &status);
  cr_expect(eq(int, status, TM_OK), "%s", tm_last_error()->message);
  cr_expect(eq(str, text, (char*)expected));
}

static tm_tensor count_up(tm_shape shape) {
  tm_tensor x = tm_empty_from(tm_host_allocator(), shape, TM_I32);
  cr_assert(tm_ok(&x));
  for (int64_t i = 0; i < tm_size(&x); i++) {
    TM_DATA(int32_t, &x)[i] = (int32_t)i;
  }
  return x;
}

//===-- Shapes ------------------------------------------------------------===//

Test(print, small_tensors_are_shown_whole) {
  tm_auto_tensor x = count_up(TM_SHAPE(2, 6));
  expect_prints(&x,
                "i32 cpu (2,6):(6,1)\n"
                "[[ 0,  1,  2,  3,  4,  5],\n"
                " [ 6,  7,  8,  9, 10, 11]]\n");
  tm_auto_tensor turned = tm_t(&x);
  tm_auto_tensor part = tm_slice(&turned, TM_INDEX(1, 0), TM_INDEX(2, -1));
  expect_prints(&part,
                "i32 cpu (2,2):(1,6)\n"
                "[[1, 7],\n"
                " [2, 8]]\n");
  tm_auto_tensor cube = tm_view(&x, TM_SHAPE(3, 2, 2));
  expect_prints(&cube,
                "i32 cpu (3,2,2):(4,2,1)\n"
                "[[[ 0,  1],\n"
                "  [ 2,  3]],\n\n"
                " [[ 4,  5],\n"
                "  [ 6,  7]],\n\n"
                " [[ 8,  9],\n"
                "  [10, 11]]]\n");
}

Test(print, scalars_empty_and_null_tensors) {
  double pi = 3.14159265358979;
  const tm_tensor scalar = tm_from_borrowed(&pi, TM_SHAPE(), TM_F64, cpu);
  expect_prints(&scalar, "f64 cpu ():()\n3.14159\n");
  tm_auto_tensor nothing = count_up(TM_SHAPE(3, 0));
  expect_prints(&nothing, "i32 cpu (3,0):(1,1)\n[]\n");
  const tm_tensor null = tm_null();
  expect_prints(&null, "null\n");
}

Test(print, large_tensors_show_the_ends_of_long_dimensions) {
  tm_auto_tensor line = count_up(TM_SHAPE(1001));
  expect_prints(&line, "i32 cpu (1001):(1)\n[   0,    1,    2, ...,  998,  999, 1000]\n");
  tm_auto_tensor matrix = count_up(TM_SHAPE(100, 500));
  expect_prints(&matrix,
                "i32 cpu (100,500):(500,1)\n"
                "[[    0,     1,     2, ...,   497,   498,   499],\n"
                " [  500,   501,   502, ...,   997,   998,   999],\n"
                " [ 1000,  1001,  1002, ...,  1497,  1498,  1499],\n"
                " ...,\n"
                " [48500, 48501, 48502, ..., 48997, 48998, 48999],\n"
                " [49000, 49001, 49002, ..., 49497, 49498, 49499],\n"
                " [49500, 49501, 49502, ..., 49997, 49998, 49999]]\n");
  tm_auto_tensor tall = tm_view(&matrix, TM_SHAPE(-1, 2));
  expect_prints(&tall,
                "i32 cpu (25000,2):(2,1)\n"
                "[[    0,     1],\n [    2,     3],\n [    4,     5],\n ...,\n"
                " [49994, 49995],\n [49996, 49997],\n [49998, 49999]]\n");
}

Test(print, what_is_shown_is_bounded_whatever_the_rank) {
  tm_status status;
  tm_auto_tensor deep = count_up(TM_SHAPE(4, 4, 4, 4, 4, 4, 4, 4));
  char* text = printed(&deep, &status);
  cr_expect(eq(int, status, TM_OK));
  cr_expect(lt(sz, strlen(text), 8192));
  cr_expect(ne(ptr, (void*)strstr(text, "65535"), NULL));
}

Test(print, long_rows_are_wrapped) {
  tm_auto_tensor row = count_up(TM_SHAPE(1000));
  tm_status status;
  char* rest = printed(&row, &status);
  int lines = 0;
  for (char* line = strtok_r(NULL, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
    cr_expect(le(sz, strlen(line), 100), "%s", line);
    lines++;
  }
  cr_expect(eq(int, lines, 1 + 53));  // 19 values of 5 columns each in a line
  cr_expect(eq(int, status, TM_OK));
}

//===-- Types -------------------------------------------------------------===//

static void expect_values(tm_dtype dtype, const void* bytes, int64_t count, const char* expected) {
  char memory[64] __attribute__((aligned(8)));
  memcpy(memory, bytes, sizeof memory);
  const tm_tensor x = tm_from_borrowed(memory, TM_SHAPE(count), dtype, cpu);
  tm_status status;
  char* values = strchr(printed(&x, &status), '\n');
  cr_assert(values != NULL);
  cr_expect(eq(str, values + 1, (char*)expected), "%s", tm_dtype_name(dtype));
}

#define EXPECT_VALUES(dtype, type, text, ...)                            \
  do {                                                                   \
    const type values_[64 / sizeof(type)] = {__VA_ARGS__};               \
    const int64_t count_ = sizeof((type[]){__VA_ARGS__}) / sizeof(type); \
    expect_values((dtype), values_, count_, text);                       \
  } while (0)

Test(print, integers_booleans_and_pointers) {
  EXPECT_VALUES(TM_BOOL, uint8_t, "[false,  true,  true]\n", 0, 1, 7);
  EXPECT_VALUES(TM_U8, uint8_t, "[  0, 255]\n", 0, 255);
  EXPECT_VALUES(TM_I8, int8_t, "[-128,  127]\n", -128, 127);
  EXPECT_VALUES(TM_U16, uint16_t, "[65535]\n", 65535);
  EXPECT_VALUES(TM_I16, int16_t, "[-32768]\n", INT16_MIN);
  EXPECT_VALUES(TM_U32, uint32_t, "[4294967295]\n", UINT32_MAX);
  EXPECT_VALUES(TM_I32, int32_t, "[-2147483648]\n", INT32_MIN);
  EXPECT_VALUES(TM_U64, uint64_t, "[18446744073709551615]\n", UINT64_MAX);
  EXPECT_VALUES(TM_I64, int64_t, "[-9223372036854775808]\n", INT64_MIN);
  EXPECT_VALUES(TM_POINTER, uint64_t, "[       0x0, 0xdeadbeef]\n", 0, 0xdeadbeef);
}

Test(print, floats) {
  EXPECT_VALUES(TM_F32, float, "[ 1.5,   -0, -inf,  nan]\n", 1.5f, -0.0f, -__builtin_inff(),
                __builtin_nanf(""));
  EXPECT_VALUES(TM_F64, double, "[        0.1,      1e+300, 1.23457e-05]\n", 0.1, 1e300,
                1.234567e-5);
}

// Bits and values from the formats' definitions.
Test(print, narrow_floats) {
  EXPECT_VALUES(TM_F16, uint16_t,
                "[          1,          -2,       65504, 5.96046e-08, "
                "6.10352e-05,         inf,         nan]\n",
                0x3c00, 0xc000, 0x7bff, 0x0001, 0x0400, 0x7c00, 0xfe00);
  EXPECT_VALUES(TM_BF16, uint16_t, "[          1, 3.38953e+38, 9.18355e-41,        -inf]\n", 0x3f80,
                0x7f7f, 0x0001, 0xff80);
  EXPECT_VALUES(TM_E4M3, uint8_t,
                "[         1,        448, 0.00195312,       -256,        nan,        nan]\n", 0x38,
                0x7e, 0x01, 0xf8, 0x7f, 0xff);
  EXPECT_VALUES(TM_E5M2, uint8_t,
                "[          1,       57344, 1.52588e-05,         inf,         nan]\n", 0x3c, 0x7b,
                0x01, 0x7c, 0x7d);
}

// Packed from the low bits up.
Test(print, types_narrower_than_a_byte) {
  const uint8_t bytes[64] = {0xe4, 0x21, 0x83};
  expect_values(TM_U2, bytes, 5, "[0, 1, 2, 3, 1]\n");
  expect_values(TM_U4, bytes, 5, "[ 4, 14,  1,  2,  3]\n");
  // 0x8321e4 = 100000 110010 000111 100100
  expect_values(TM_U6, bytes, 4, "[36,  7, 50, 32]\n");
  // 0x4: 2; 0xe: -4; 1: 0.5; 2: 1; 3: 1.5; 8: -0
  expect_values(TM_E2M1, bytes, 6, "[  2,  -4, 0.5,   1, 1.5,  -0]\n");
  // s ee mmm: 1 00 100, 0 00 111, 1 10 010, 1 00 000
  expect_values(TM_E2M3, bytes, 4, "[ -0.5, 0.875,  -2.5,    -0]\n");
  // s eee mm: 1 001 00, 0 001 11, 1 100 10, 1 000 00
  expect_values(TM_E3M2, bytes, 4, "[ -0.25, 0.4375,     -3,     -0]\n");
}

//===-- Devices -----------------------------------------------------------===//

static tm_stream* stream;
static tm_allocator* pool;

static void start_device(void) {
  machine_configure(1, "256MiB");
  machine_require_devices(1);
  stream = tm_stream_create(0, 0);
  pool = stream ? tm_cuda_pool_allocator_create(stream, NULL) : NULL;
  cr_assert(pool != NULL, "%s", tm_last_error()->message);
}

static void finish_device(void) {
  tm_allocator_release(pool);
  tm_stream_release(stream);
}

TestSuite(print_device, .init = start_device, .fini = finish_device);

static tm_tensor to_device(const tm_tensor* host) {
  tm_tensor device = tm_empty_from(pool, tm_shape_of(host), tm_dtype_of(host));
  cr_assert(tm_ok(&device));
  cr_assert(eq(int, tm_copy(host, &device), TM_OK), "%s", tm_last_error()->message);
  return device;
}

// The values of a device tensor print as those of the host's.
static void expect_prints_alike(const tm_tensor* host, const tm_tensor* device) {
  tm_status status;
  char* expected = strdup(strchr(printed(host, &status), '\n'));
  char* text = printed(device, &status);
  cr_expect(eq(int, status, TM_OK), "%s", tm_last_error()->message);
  cr_expect(eq(str, strchr(text, '\n'), expected));
  free(expected);
}

Test(print_device, values_are_fetched_small_and_large_and_strided) {
  TM_WITH_STREAM(stream) {
    tm_auto_tensor small = count_up(TM_SHAPE(3, 5));
    tm_auto_tensor on_device = to_device(&small);
    expect_prints_alike(&small, &on_device);
    tm_auto_tensor large = count_up(TM_SHAPE(300, 400));
    tm_auto_tensor large_on_device = to_device(&large);
    expect_prints_alike(&large, &large_on_device);
    tm_auto_tensor turned = tm_t(&large);
    tm_auto_tensor turned_on_device = tm_t(&large_on_device);
    expect_prints_alike(&turned, &turned_on_device);
  }
}

Test(print_device, without_a_stream_or_while_capturing_nothing_is_written) {
  tm_auto_tensor x = tm_empty_from(pool, TM_SHAPE(3), TM_I32);
  tm_status status;
  cr_expect(eq(str, printed(&x, &status), ""));
  cr_expect(eq(int, status, TM_ERR_UNAVAILABLE));
  cudaGraph_t graph = NULL;
  TM_WITH_STREAM(stream) {
    cr_assert(eq(int, tm_stream_sync(stream), TM_OK));
    cudaStream_t handle = tm_stream_handle(stream);
    cr_assert(eq(int, cudaStreamBeginCapture(handle, cudaStreamCaptureModeThreadLocal), 0));
    cr_expect(eq(str, printed(&x, &status), ""));
    cr_expect(eq(int, status, TM_ERR_CAPTURING));
    cr_expect(eq(int, cudaStreamEndCapture(handle, &graph), 0));
  }
  cr_expect(eq(int, cudaGraphDestroy(graph), 0));
}

//===-- Failures ----------------------------------------------------------===//

Test(print, files_that_cannot_be_written_are_errors) {
  tm_auto_tensor x = count_up(TM_SHAPE(3));
  cr_expect(eq(int, tm_print(&x, NULL), TM_ERR_INVALID));
  FILE* full = fopen("/dev/full", "w");
  cr_assert(full != NULL);
  cr_expect(eq(int, tm_print(&x, full), TM_ERR_IO));
  fclose(full);
}

static tm_status print_numbers(tm_allocator* upstream) {
  char text[256];
  FILE* file = fmemopen(text, sizeof text, "w");
  tm_auto_tensor x = tm_empty_from(upstream, TM_SHAPE(2), TM_U8);
  tm_status status = tm_ok(&x) ? tm_clear(&x) : tm_last_status();
  if (status == TM_OK) {
    status = tm_print(&x, file);
  }
  fclose(file);
  return status;
}

Test(print, survives_every_failure) { expect_survives_every_failure(print_numbers); }

// A new pool each time, so that all it takes is given back.
static tm_status print_numbers_on_a_device(tm_allocator* upstream) {
  (void)upstream;
  char text[256];
  tm_auto_allocator fresh = tm_cuda_pool_allocator_create(stream, NULL);
  if (!fresh) {
    return tm_last_status();
  }
  TM_USE_STREAM(stream);
  TM_TRY_TENSOR(x, tm_empty_from(fresh, TM_SHAPE(2), TM_U8));
  TM_TRY(tm_clear(&x));
  FILE* file = fmemopen(text, sizeof text, "w");
  const tm_status status = tm_print(&x, file);
  fclose(file);
  return status;
}

Test(print_device, survives_every_failure) {
  expect_survives_every_failure_or_retries(print_numbers_on_a_device);
}
