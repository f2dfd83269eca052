// Archives: there and back, the bytes themselves, and archives that lie.

#include "tm/tensor/archive.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/failing.h"
#include "tests/support/machine.h"
#include "tm/alloc/bookkeeping.h"
#include "tm/alloc/cuda.h"
#include "tm/alloc/stack.h"
#include "tm/alloc/stream.h"
#include "tm/context/context.h"
#include "tm/tensor/copy.h"

#define ASSERT_OK(call) cr_assert(eq(int, (call), TM_OK), "%s", tm_last_error()->message)

// Byte `i` of such a tensor. No bit behind the last element is set.
static uint8_t byte_of(const tm_tensor* tensor, uint8_t first, size_t i) {
  const size_t bits = (size_t)tm_size(tensor) * (size_t)tm_dtype_bits(tm_dtype_of(tensor));
  const unsigned rest = (unsigned)(bits - 8 * i);  // from this byte on
  return (uint8_t)((first + i) & (rest < 8 ? (1u << rest) - 1 : 255));
}

static tm_tensor make_tensor(tm_shape shape, tm_dtype dtype, uint8_t first) {
  tm_tensor tensor = tm_empty(shape, dtype, TM_CPU);
  cr_assert(tm_ok(&tensor), "%s", tm_last_error()->message);
  for (size_t i = 0; i < tm_byte_size(&tensor); i++) {
    ((uint8_t*)tm_data(&tensor))[i] = byte_of(&tensor, first, i);
  }
  return tensor;
}

static void expect_tensor(const tm_tensor* tensor, tm_shape shape, tm_dtype dtype, uint8_t first) {
  cr_assert(tm_ok(tensor), "%s", tm_last_error()->message);
  const tm_shape there = tm_shape_of(tensor);
  cr_expect(tm_shape_equal(&there, &shape));
  cr_expect(eq(int, tm_dtype_of(tensor), dtype));
  cr_assert(tm_is_contiguous(tensor));
  for (size_t i = 0; i < tm_byte_size(tensor); i++) {
    cr_assert(eq(u8, ((uint8_t*)tm_data(tensor))[i], byte_of(tensor, first, i)));
  }
}

static tm_archive_reader open_it(const tm_archive* archive) {
  tm_archive_reader reader;
  ASSERT_OK(tm_archive_open(tm_archive_data(archive), tm_archive_size(archive), TM_CPU, &reader));
  return reader;
}

//===-- There and back ----------------------------------------------------===//

Test(archive, layouts_come_back_with_their_strides) {
  static const char* const texts[] = {"():()",
                                      "(20,50):(50,1)",
                                      "(4,1):(1,7)",
                                      "(3,0,2):(0,0,9)",
                                      "(1,1,1,1,1,1,1,1):(1,2,3,4,5,6,7,8)",
                                      "(1):(9223372036854775807)"};
  enum { COUNT = sizeof texts / sizeof *texts };
  tm_auto_archive archive = tm_archive_create();
  for (int i = 0; i < COUNT; i++) {
    tm_layout layout;
    ASSERT_OK(tm_layout_parse(texts[i], &layout));
    ASSERT_OK(tm_archive_put_layout(archive, &layout));
  }
  tm_archive_reader reader = open_it(archive);
  for (int i = 0; i < COUNT; i++) {
    tm_layout layout;
    char text[TM_LAYOUT_TEXT_SIZE];
    ASSERT_OK(tm_archive_get_layout(&reader, &layout));
    tm_layout_text(&layout, text, sizeof text);
    cr_expect(eq(str, text, (char*)texts[i]));
  }
  cr_expect(tm_archive_at_end(&reader));
}

Test(archive, buffers_of_every_type_come_back) {
  for (int dtype = TM_DTYPE_NULL + 1; dtype < TM_POINTER; dtype++) {
    for (int64_t size = 0; size < 10; size += 3) {
      tm_auto_archive archive = tm_archive_create();
      tm_auto_tensor values = make_tensor(TM_SHAPE(size), (tm_dtype)dtype, 50);
      tm_auto_buffer buffer = tm_buffer_of(&values);
      ASSERT_OK(tm_archive_put_buffer(archive, &buffer));
      tm_archive_reader reader = open_it(archive);
      tm_auto_buffer back = tm_archive_get_buffer(&reader);
      cr_assert(tm_buffer_ok(&back), "%s", tm_last_error()->message);
      cr_expect(eq(int, back.dtype, dtype));
      cr_assert(eq(i64, back.size, size));
      const size_t bytes = tm_buffer_byte_size(&buffer);
      cr_expect(bytes == 0 || memcmp(tm_buffer_data(&back), tm_buffer_data(&buffer), bytes) == 0);
      cr_expect(tm_archive_at_end(&reader));
    }
  }
}

Test(archive, tensors_come_back_and_are_contiguous) {
  tm_auto_archive archive = tm_archive_create();
  tm_auto_tensor scalar = make_tensor(TM_SHAPE(), TM_F64, 1);
  tm_auto_tensor none = make_tensor(TM_SHAPE(3, 0), TM_F16, 2);
  tm_auto_tensor sixes = make_tensor(TM_SHAPE(1, 3), TM_E3M2, 3);
  tm_auto_tensor turned = tm_t_move(make_tensor(TM_SHAPE(2, 3), TM_U8, 4));
  ASSERT_OK(tm_archive_put_tensor(archive, &scalar));
  ASSERT_OK(tm_archive_put_tensor(archive, &none));
  ASSERT_OK(tm_archive_put_tensor(archive, &sixes));
  ASSERT_OK(tm_archive_put_tensor(archive, &turned));
  tm_archive_reader reader = open_it(archive);
  tm_auto_tensor a = tm_archive_get_tensor(&reader);
  tm_auto_tensor b = tm_archive_get_tensor(&reader);
  tm_auto_tensor c = tm_archive_get_tensor(&reader);
  tm_auto_tensor d = tm_archive_get_tensor(&reader);
  expect_tensor(&a, TM_SHAPE(), TM_F64, 1);
  expect_tensor(&b, TM_SHAPE(3, 0), TM_F16, 2);
  expect_tensor(&c, TM_SHAPE(1, 3), TM_E3M2, 3);
  static const uint8_t expected[] = {4, 7, 5, 8, 6, 9};
  cr_expect(eq(int, (int)tm_dim(&d, 0), 3));
  cr_expect(tm_is_contiguous(&d));
  cr_expect(memcmp(tm_data(&d), expected, sizeof expected) == 0);
  cr_expect(tm_archive_at_end(&reader));
}

static tm_tensor_map* make_map(void) {
  tm_tensor_map* map = tm_tensor_map_create();
  tm_auto_tensor x = make_tensor(TM_SHAPE(2, 2), TM_F32, 10);
  tm_auto_tensor y = make_tensor(TM_SHAPE(5), TM_U4, 20);
  ASSERT_OK(tm_tensor_map_produce(map, "x", &x));
  ASSERT_OK(tm_tensor_map_produce(map, "", &y));
  ASSERT_OK(tm_tensor_map_add_metadata(map, "format", "pt"));
  ASSERT_OK(tm_tensor_map_add_metadata(map, "", ""));
  return map;
}

Test(archive, maps_come_back_in_order_with_their_metadata) {
  tm_auto_archive archive = tm_archive_create();
  tm_auto_tensor_map map = make_map();
  ASSERT_OK(tm_archive_put_map(archive, map));
  tm_archive_reader reader = open_it(archive);
  tm_auto_tensor_map back = tm_archive_get_map(&reader);
  cr_assert(back != NULL, "%s", tm_last_error()->message);
  const tm_tensor_map_entry* x = tm_tensor_map_first(back);
  cr_expect(eq(str, (char*)x->key, "x"));
  expect_tensor(&x->tensor, TM_SHAPE(2, 2), TM_F32, 10);
  expect_tensor(tm_tensor_map_at(back, ""), TM_SHAPE(5), TM_U4, 20);
  cr_expect(eq(int, (int)tm_tensor_map_size(back), 2));
  cr_expect(eq(str, (char*)tm_tensor_map_first_metadata(back)->key, "format"));
  cr_expect(eq(str, (char*)tm_tensor_map_metadata(back, "format"), "pt"));
  cr_expect(eq(str, (char*)tm_tensor_map_metadata(back, ""), ""));
  cr_expect(tm_archive_at_end(&reader));
}

Test(archive, an_archive_grows_as_needed) {
  tm_auto_archive archive = tm_archive_create();
  for (int i = 0; i < 200; i++) {
    tm_auto_tensor tensor = make_tensor(TM_SHAPE(INT64_C(7) * i), TM_I16, (uint8_t)i);
    ASSERT_OK(tm_archive_put_tensor(archive, &tensor));
  }
  tm_archive_reader reader = open_it(archive);
  for (int i = 0; i < 200; i++) {
    tm_auto_tensor tensor = tm_archive_get_tensor(&reader);
    expect_tensor(&tensor, TM_SHAPE(INT64_C(7) * i), TM_I16, (uint8_t)i);
  }
  cr_expect(tm_archive_at_end(&reader));
}

Test(archive, values_go_to_a_device_and_come_back) {
  machine_configure(1, "64MiB");
  machine_require_devices(1);
  tm_auto_stream stream = tm_stream_create(0, 0);
  cr_assert(stream != NULL, "%s", tm_last_error()->message);
  tm_auto_archive archive = tm_archive_create();
  tm_auto_tensor x = make_tensor(TM_SHAPE(300, 7), TM_I32, 9);
  ASSERT_OK(tm_archive_put_tensor(archive, &x));
  TM_WITH_STREAM(stream) {
    tm_archive_reader reader;
    ASSERT_OK(tm_archive_open_from(tm_cuda_allocator(0), tm_archive_data(archive),
                                   tm_archive_size(archive), &reader));
    tm_auto_tensor there = tm_archive_get_tensor(&reader);
    cr_assert(tm_ok(&there), "%s", tm_last_error()->message);
    cr_expect(eq(int, tm_device_of(&there).type, TM_DEVICE));
    tm_auto_buffer buffer = tm_buffer_of(&there);
    tm_auto_archive again = tm_archive_create();
    ASSERT_OK(tm_archive_put_buffer(again, &buffer));
    ASSERT_OK(tm_archive_put_tensor(again, &there));
    tm_archive_reader second = open_it(again);
    tm_auto_buffer back = tm_archive_get_buffer(&second);
    tm_auto_tensor y = tm_archive_get_tensor(&second);
    expect_tensor(&y, TM_SHAPE(300, 7), TM_I32, 9);
    cr_expect(memcmp(tm_buffer_data(&back), tm_data(&x), tm_byte_size(&x)) == 0);
  }
}

//===-- Any tensors -------------------------------------------------------===//

static uint64_t random_state;

static int64_t draw(int64_t below) {
  random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return (int64_t)((random_state >> 33) % (uint64_t)below);
}

// A view of what was drawn; of types narrower than a byte, all of it.
static tm_tensor draw_tensor(void) {
  tm_shape shape = TM_SHAPE();
  tm_shape order = TM_SHAPE();
  shape.rank = order.rank = (int32_t)draw(5);
  const int32_t turn = (int32_t)draw(5);
  for (int32_t i = 0; i < shape.rank; i++) {
    shape.dim[i] = draw(6);
    order.dim[i] = (i + turn) % shape.rank;
  }
  const tm_dtype dtype = (tm_dtype)(1 + draw(TM_POINTER - 1));
  tm_tensor tensor = make_tensor(shape, dtype, (uint8_t)draw(256));
  if (tm_dtype_bits(dtype) < 8) {
    return tensor;
  }
  tensor = tm_permute_move(tensor, order);
  if (shape.rank > 0 && tm_dim(&tensor, 0) > 1) {
    tensor = tm_slice_outer_move(tensor, draw(2), tm_dim(&tensor, 0) - 1);
  }
  cr_assert(tm_ok(&tensor), "%s", tm_last_error()->message);
  return tensor;
}

// The model: element by element, in row-major order.
static void expect_same_elements(const tm_tensor* is, const tm_tensor* was) {
  const tm_shape shape = tm_shape_of(was);
  const size_t bytes = (size_t)tm_dtype_bits(tm_dtype_of(was)) / 8;
  tm_shape index = shape;
  for (int64_t i = 0; i < tm_size(was); i++) {
    int64_t rest = i;
    int64_t offset;
    for (int32_t d = shape.rank - 1; d >= 0; rest /= shape.dim[d], d--) {
      index.dim[d] = rest % shape.dim[d];
    }
    ASSERT_OK(tm_layout_offset(&was->layout, index, &offset));
    cr_assert(memcmp((char*)tm_data(is) + (size_t)i * bytes,
                     (char*)tm_data(was) + (size_t)offset * bytes, bytes) == 0);
  }
}

static void expect_same_tensor(const tm_tensor* is, const tm_tensor* was) {
  const tm_shape is_shape = tm_shape_of(is);
  const tm_shape was_shape = tm_shape_of(was);
  cr_assert(tm_ok(is), "%s", tm_last_error()->message);
  cr_assert(eq(int, tm_dtype_of(is), tm_dtype_of(was)));
  cr_assert(tm_shape_equal(&is_shape, &was_shape));
  cr_assert(tm_is_contiguous(is));
  if (tm_dtype_bits(tm_dtype_of(was)) >= 8) {
    expect_same_elements(is, was);
  } else if (tm_size(was) != 0) {
    cr_assert(memcmp(tm_data(is), tm_data(was), tm_byte_size(was)) == 0);
  }
}

Test(archive, any_map_comes_back) {
  const uint64_t seed = 20240608;
  random_state = seed;
  fprintf(stderr, "seed %" PRIu64 "\n", seed);
  for (int n = 0; n < 500; n++) {
    tm_auto_tensor_map map = tm_tensor_map_create();
    tm_auto_archive archive = tm_archive_create();
    const int64_t count = draw(6);
    for (int64_t i = 0; i < count; i++) {
      const char key[] = {(char)('a' + i), (char)('a' + draw(26)), 0};
      tm_auto_tensor tensor = draw_tensor();
      ASSERT_OK(tm_tensor_map_produce(map, key, &tensor));
    }
    ASSERT_OK(tm_archive_put_map(archive, map));
    tm_archive_reader reader = open_it(archive);
    tm_auto_tensor_map back = tm_archive_get_map(&reader);
    cr_assert(back != NULL, "%s", tm_last_error()->message);
    const tm_tensor_map_entry* is = tm_tensor_map_first(back);
    const tm_tensor_map_entry* was = tm_tensor_map_first(map);
    for (; was; was = tm_tensor_map_next(was), is = tm_tensor_map_next(is)) {
      cr_assert(is != NULL);
      cr_assert(eq(str, (char*)is->key, (char*)was->key));
      expect_same_tensor(&is->tensor, &was->tensor);
    }
    cr_assert(is == NULL);
  }
}

//===-- Devices -----------------------------------------------------------===//

static tm_stream* stream;
static tm_allocator* stack;  // with room, so that allocations in a capture succeed

static void start_device(void) {
  machine_configure(1, "64MiB");
  machine_require_devices(1);
  stream = tm_stream_create(0, 0);
  stack = tm_stack_allocator_create(tm_cuda_allocator(0), stream, NULL);
  cr_assert(stack != NULL, "%s", tm_last_error()->message);
  ASSERT_OK(tm_stack_reserve(stack, 1 << 20));
}

static void finish_device(void) {
  tm_allocator_release(stack);
  tm_stream_release(stream);
}

TestSuite(archive_device, .init = start_device, .fini = finish_device);

static tm_tensor to_device(const tm_tensor* host) {
  tm_tensor device = tm_empty_from(stack, tm_shape_of(host), tm_dtype_of(host));
  cr_assert(tm_ok(&device), "%s", tm_last_error()->message);
  ASSERT_OK(tm_copy(host, &device));
  return device;
}

static tm_archive* put_one(const tm_tensor* tensor) {
  tm_archive* archive = tm_archive_create();
  cr_assert(archive != NULL);
  ASSERT_OK(tm_archive_put_tensor(archive, tensor));
  return archive;
}

static void expect_same_bytes(const tm_archive* a, const tm_archive* b) {
  cr_assert(eq(sz, tm_archive_size(a), tm_archive_size(b)));
  cr_expect(memcmp(tm_archive_data(a), tm_archive_data(b), tm_archive_size(a)) == 0);
}

// Also those of which the last byte holds less than it could.
Test(archive_device, every_type_and_size_goes_there_and_back) {
  for (int dtype = TM_DTYPE_NULL + 1; dtype < TM_POINTER; dtype++) {
    for (int64_t size = 0; size < 10; size++) {
      tm_auto_tensor host = make_tensor(TM_SHAPE(size), (tm_dtype)dtype, 200);
      tm_auto_archive archive = put_one(&host);
      TM_WITH_STREAM(stream) {
        tm_archive_reader reader;
        ASSERT_OK(tm_archive_open_from(stack, tm_archive_data(archive), tm_archive_size(archive),
                                       &reader));
        tm_auto_tensor there = tm_archive_get_tensor(&reader);
        cr_assert(tm_ok(&there), "%lld of %s: %s", (long long)size, tm_dtype_name((tm_dtype)dtype),
                  tm_last_error()->message);
        tm_auto_archive again = put_one(&there);
        expect_same_bytes(archive, again);
      }
    }
  }
}

Test(archive_device, strided_tensors_become_contiguous) {
  TM_WITH_STREAM(stream) {
    tm_auto_tensor host = make_tensor(TM_SHAPE(3, 5, 2), TM_I16, 7);
    tm_auto_tensor there = to_device(&host);
    tm_auto_tensor host_turned = tm_permute(&host, TM_INDEX(2, 0, 1));
    tm_auto_tensor turned = tm_permute(&there, TM_INDEX(2, 0, 1));
    tm_auto_archive expected = put_one(&host_turned);
    tm_auto_archive archive = put_one(&turned);
    expect_same_bytes(archive, expected);
  }
}

Test(archive_device, repeated_elements_are_written_as_often) {
  TM_WITH_STREAM(stream) {
    tm_auto_tensor host = make_tensor(TM_SHAPE(5), TM_I16, 7);
    tm_auto_tensor there = to_device(&host);
    tm_layout layout;
    ASSERT_OK(tm_layout_make_strided(TM_SHAPE(4, 5), TM_SHAPE(0, 1), &layout));
    tm_auto_buffer host_row = tm_buffer_of(&host);
    tm_auto_buffer row = tm_buffer_of(&there);
    tm_auto_tensor host_rows = tm_from_buffer(&host_row, &layout);
    tm_auto_tensor rows = tm_from_buffer(&row, &layout);
    tm_auto_archive expected = put_one(&host_rows);
    tm_auto_archive archive = put_one(&rows);
    expect_same_bytes(archive, expected);
  }
}

Test(archive_device, what_has_no_elements_needs_no_stream) {
  tm_auto_tensor none = tm_empty_from(stack, TM_SHAPE(0, 3), TM_F32);
  tm_auto_archive archive = put_one(&none);
  tm_archive_reader reader;
  ASSERT_OK(
      tm_archive_open_from(stack, tm_archive_data(archive), tm_archive_size(archive), &reader));
  tm_auto_tensor back = tm_archive_get_tensor(&reader);
  cr_expect(tm_ok(&back), "%s", tm_last_error()->message);
  cr_expect(eq(int, tm_device_of(&back).type, TM_DEVICE));
}

static void begin_capture(void) {
  ASSERT_OK(tm_stream_sync(stream));
  const cudaError_t code =
      cudaStreamBeginCapture(tm_stream_handle(stream), cudaStreamCaptureModeGlobal);
  cr_assert(eq(int, code, 0));
}

// The capture is valid and has nothing in it.
static void end_capture(void) {
  cudaGraph_t graph = NULL;
  size_t nodes = 77;
  cr_assert(eq(int, cudaStreamEndCapture(tm_stream_handle(stream), &graph), 0));
  cr_assert(eq(int, cudaGraphGetNodes(graph, NULL, &nodes), 0));
  cr_expect(eq(sz, nodes, 0));
  cr_expect(eq(int, cudaGraphDestroy(graph), 0));
}

Test(archive_device, while_capturing_nothing_is_written) {
  tm_auto_archive archive = tm_archive_create();
  tm_auto_tensor_map map = make_map();
  TM_WITH_STREAM(stream) {
    tm_auto_tensor host = make_tensor(TM_SHAPE(300), TM_F32, 1);
    tm_auto_tensor there = to_device(&host);
    tm_auto_buffer buffer = tm_buffer_of(&there);
    const size_t size = tm_archive_size(archive);
    begin_capture();
    cr_expect(eq(int, tm_archive_put_tensor(archive, &there), TM_ERR_CAPTURING));
    cr_expect(eq(int, tm_archive_put_buffer(archive, &buffer), TM_ERR_CAPTURING));
    ASSERT_OK(tm_tensor_map_produce(map, "there", &there));
    cr_expect(eq(int, tm_archive_put_map(archive, map), TM_ERR_CAPTURING));
    cr_expect(eq(sz, tm_archive_size(archive), size));
    ASSERT_OK(tm_archive_put_tensor(archive, &host));
    end_capture();
    ASSERT_OK(tm_archive_put_map(archive, map));
  }
}

Test(archive_device, while_capturing_nothing_is_read_to_a_device) {
  tm_auto_tensor host = make_tensor(TM_SHAPE(300), TM_F32, 1);
  tm_auto_archive archive = put_one(&host);
  TM_WITH_STREAM(stream) {
    tm_archive_reader reader;
    ASSERT_OK(
        tm_archive_open_from(stack, tm_archive_data(archive), tm_archive_size(archive), &reader));
    begin_capture();
    tm_auto_tensor refused = tm_archive_get_tensor(&reader);
    cr_expect(not(tm_ok(&refused)));
    cr_expect(eq(int, tm_last_status(), TM_ERR_CAPTURING), "%s", tm_last_error()->message);
    tm_archive_reader here = open_it(archive);
    tm_auto_tensor read = tm_archive_get_tensor(&here);
    expect_tensor(&read, TM_SHAPE(300), TM_F32, 1);
    end_capture();
    tm_auto_tensor there = tm_archive_get_tensor(&reader);
    cr_expect(tm_ok(&there), "%s", tm_last_error()->message);
  }
}

//===-- The bytes ---------------------------------------------------------===//

// What lies behind the last element in its byte is not the tensor's, so it is not written.
Test(archive, bits_behind_the_last_element_are_zero) {
  static const tm_dtype dtypes[] = {TM_U2, TM_U4, TM_U6, TM_E2M1, TM_E2M3, TM_E3M2};
  for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
    for (int64_t size = 1; size < 9; size++) {
      uint8_t ones[8];
      memset(ones, 0xff, sizeof ones);
      tm_auto_tensor dirty =
          tm_from_borrowed(ones, TM_SHAPE(size), dtypes[i], tm_device_make(TM_CPU, 0));
      const size_t bits = (size_t)size * (size_t)tm_dtype_bits(dtypes[i]);
      tm_auto_archive archive = put_one(&dirty);
      const uint8_t* const data = tm_archive_data(archive);
      for (size_t bit = 0; bit < 64; bit++) {
        const uint8_t byte = data[tm_archive_size(archive) - 8 + bit / 8];
        cr_assert(eq(int, byte >> bit % 8 & 1, bit < bits), "bit %zu of %lld x %s", bit,
                  (long long)size, tm_dtype_name(dtypes[i]));
      }
      cr_expect(eq(u8, ones[(bits - 1) / 8], 0xff));  // the tensor is as it was
    }
  }
}

// Changing any of these breaks archives that exist: that takes another version.
static const uint8_t golden[] = {
    'T', 'M', 'C', 'O', 'R', 'E', 'A', 'R', 1, 0, 0, 0, 0, 0, 0, 0,  // version
    1,   0,   0,   0,   0,   0,   0,   0,                            // a layout
    1,   0,   0,   0,   0,   0,   0,   0,                            // of rank 1
    5,   0,   0,   0,   0,   0,   0,   0,                            // size
    0,   2,   0,   0,   0,   0,   0,   0,                            // stride
    2,   0,   0,   0,   0,   0,   0,   0,                            // a buffer
    20,  0,   0,   0,   0,   0,   0,   0,                            // of u4
    3,   0,   0,   0,   0,   0,   0,   0,                            // elements
    2,   0,   0,   0,   0,   0,   0,   0,                            // bytes
    7,   8,   0,   0,   0,   0,   0,   0,                            //
    4,   0,   0,   0,   0,   0,   0,   0,                            // a map
    1,   0,   0,   0,   0,   0,   0,   0,                            // of one tensor
    2,   0,   0,   0,   0,   0,   0,   0,                            // bytes of the key
    'a', 'b', 0,   0,   0,   0,   0,   0,                            //
    3,   0,   0,   0,   0,   0,   0,   0,                            // a tensor
    11,  0,   0,   0,   0,   0,   0,   0,                            // of bf16
    2,   0,   0,   0,   0,   0,   0,   0,                            // of rank 2
    1,   0,   0,   0,   0,   0,   0,   0,                            //
    2,   0,   0,   0,   0,   0,   0,   0,                            //
    4,   0,   0,   0,   0,   0,   0,   0,                            // bytes
    5,   6,   7,   8,   0,   0,   0,   0,                            //
    1,   0,   0,   0,   0,   0,   0,   0,                            // one text
    1,   0,   0,   0,   0,   0,   0,   0,                            // bytes of its key
    'k', 0,   0,   0,   0,   0,   0,   0,                            //
    0,   0,   0,   0,   0,   0,   0,   0,                            // bytes of the text
};

static void get_all(tm_archive_reader* reader, tm_layout* layout, tm_buffer* buffer,
                    tm_tensor_map** map) {
  ASSERT_OK(tm_archive_get_layout(reader, layout));
  *buffer = tm_archive_get_buffer(reader);
  cr_assert(tm_buffer_ok(buffer), "%s", tm_last_error()->message);
  *map = tm_archive_get_map(reader);
  cr_assert(map[0] != NULL, "%s", tm_last_error()->message);
  cr_assert(tm_archive_at_end(reader));
}

Test(archive, the_bytes_of_version_1_stay_what_they_are) {
  tm_archive_reader reader;
  tm_layout layout;
  tm_buffer buffer;
  tm_tensor_map* map;
  ASSERT_OK(tm_archive_open(golden, sizeof golden, TM_CPU, &reader));
  get_all(&reader, &layout, &buffer, &map);
  cr_expect(eq(i64, layout.stride[0], 512));
  cr_expect(eq(i64, buffer.size, 3));
  expect_tensor(tm_tensor_map_at(map, "ab"), TM_SHAPE(1, 2), TM_BF16, 5);
  tm_auto_archive again = tm_archive_create();
  ASSERT_OK(tm_archive_put_layout(again, &layout));
  ASSERT_OK(tm_archive_put_buffer(again, &buffer));
  ASSERT_OK(tm_archive_put_map(again, map));
  cr_assert(eq(sz, tm_archive_size(again), sizeof golden));
  cr_expect(memcmp(tm_archive_data(again), golden, sizeof golden) == 0);
  tm_buffer_release(&buffer);
  tm_tensor_map_release(map);
}

//===-- Archives that lie -------------------------------------------------===//

// Reads layout, buffer and map until something fails, which must leave the reader where it is.
static tm_status read_golden(const uint8_t* bytes, size_t size) {
  tm_archive_reader reader;
  tm_layout layout;
  TM_TRY(tm_archive_open(bytes, size, TM_CPU, &reader));
  tm_archive_reader before = reader;
  if (tm_archive_get_layout(&reader, &layout) != TM_OK) {
    cr_expect(tm_layout_is_null(&layout));
    cr_expect(eq(sz, reader.left, before.left));
    return tm_last_status();
  }
  before = reader;
  tm_auto_buffer buffer = tm_archive_get_buffer(&reader);
  if (!tm_buffer_ok(&buffer)) {
    cr_expect(eq(sz, reader.left, before.left));
    return tm_last_status();
  }
  before = reader;
  tm_auto_tensor_map map = tm_archive_get_map(&reader);
  if (!map) {
    cr_expect(eq(sz, reader.left, before.left));
    return tm_last_status();
  }
  return TM_OK;
}

typedef struct lie {
  size_t field;    // of the golden bytes
  uint64_t value;  // put there
  tm_status status;
  const char* words;  // of the message
} lie;

static const lie lies[] = {
    {0, 0, TM_ERR_CORRUPT, "do not begin with TMCOREAR"},
    {1, 0, TM_ERR_CORRUPT, "version 0"},
    {1, 2, TM_ERR_UNAVAILABLE, "version 2, this library reads up to 1"},
    {1, UINT64_MAX, TM_ERR_UNAVAILABLE, "version 18446744073709551615"},
    {2, 2, TM_ERR_CORRUPT, "a layout expected"},
    {2, 0x100000001, TM_ERR_CORRUPT, "a layout expected"},
    {3, 9, TM_ERR_CORRUPT, "a rank of more than 8"},
    {3, UINT64_MAX, TM_ERR_CORRUPT, "a rank of more than 8"},
    {4, 1ull << 63, TM_ERR_CORRUPT, "a number of 2^63 or more"},
    {4, INT64_MAX, TM_ERR_CORRUPT, "archive: "},  // the largest offset overflows
    {6, 3, TM_ERR_CORRUPT, "a buffer expected"},
    {7, 0, TM_ERR_CORRUPT, "an unknown type"},
    {7, TM_POINTER, TM_ERR_CORRUPT, "an unknown type"},
    {7, TM_DTYPES, TM_ERR_CORRUPT, "an unknown type"},
    {7, (1ull << 32) + TM_U4, TM_ERR_CORRUPT, "an unknown type"},
    {7, TM_U6, TM_ERR_CORRUPT, "2 bytes for 3 of u6"},
    {8, 5, TM_ERR_CORRUPT, "2 bytes for 5 of u4"},
    {8, 1ull << 60, TM_ERR_CORRUPT, "2 bytes for 1152921504606846976 of u4"},
    {9, 1, TM_ERR_CORRUPT, "behind a run that are not zero"},
    {10, 0x1807, TM_ERR_CORRUPT, "bits behind the last of 3 u4 that are not zero"},
    {9, 3, TM_ERR_CORRUPT, "3 bytes for 3 of u4"},
    {9, 1ull << 60, TM_ERR_CORRUPT, "a run of 1152921504606846976 bytes, "},
    {9, UINT64_MAX, TM_ERR_CORRUPT, "a run of 18446744073709551615 bytes, "},
    {10, 1ull << 63, TM_ERR_CORRUPT, "behind a run that are not zero"},
    {11, 5, TM_ERR_CORRUPT, "a map expected"},
    {12, 2, TM_ERR_CORRUPT, "archive: "},
    {12, 0, TM_ERR_CORRUPT, "archive: "},
    {12, 1ull << 60, TM_ERR_CORRUPT, "archive: "},
    {13, 1ull << 60, TM_ERR_CORRUPT, "a run of 1152921504606846976 bytes, "},
    {13, 3, TM_ERR_CORRUPT, "a NUL in a string"},
    {15, 2, TM_ERR_CORRUPT, "a tensor expected"},
    {17, 9, TM_ERR_CORRUPT, "a rank of more than 8"},
    {18, 1ull << 62, TM_ERR_CORRUPT, "archive: "},
    {20, 1ull << 60, TM_ERR_CORRUPT, "a run of 1152921504606846976 bytes, "},
    {22, 2, TM_ERR_CORRUPT, "a field expected"},
    {22, UINT64_MAX, TM_ERR_CORRUPT, "a field expected"},
    {25, 1, TM_ERR_CORRUPT, "a run of 1 bytes, 0 are left"},
};

Test(archive, an_archive_that_lies_is_corrupt) {
  for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
    uint8_t bytes[sizeof golden];
    memcpy(bytes, golden, sizeof bytes);
    for (int j = 0; j < 8; j++) bytes[8 * lies[i].field + j] = (uint8_t)(lies[i].value >> (8 * j));
    const int64_t live = tm_bookkeeping_live();
    cr_expect(eq(int, read_golden(bytes, sizeof bytes), lies[i].status), "%zu: %s", i,
              tm_last_error()->message);
    cr_expect(strstr(tm_last_error()->message, lies[i].words) != NULL, "%zu: %s", i,
              tm_last_error()->message);
    cr_expect(eq(i64, tm_bookkeeping_live(), live));
  }
}

Test(archive, a_key_that_is_there_twice_is_corrupt) {
  tm_auto_archive archive = tm_archive_create();
  tm_auto_tensor_map map = make_map();
  tm_auto_tensor y = tm_tensor_map_consume(map, "");
  ASSERT_OK(tm_tensor_map_produce(map, "y", &y));
  ASSERT_OK(tm_archive_put_map(archive, map));
  char* bytes = (char*)tm_archive_data(archive);
  for (size_t i = 0; i < tm_archive_size(archive); i++) {
    if (bytes[i] == 'y') bytes[i] = 'x';
  }
  tm_archive_reader reader = open_it(archive);
  cr_expect(eq(ptr, tm_archive_get_map(&reader), NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_CORRUPT));
  cr_expect(strstr(tm_last_error()->message, "\"x\" is there already") != NULL);
}

Test(archive, every_beginning_of_an_archive_is_corrupt) {
  for (size_t size = 0; size < sizeof golden; size++) {
    uint8_t* cut = malloc(size ? size : 1);  // exactly as large, so that ASan sees a read behind it
    cr_assert(cut != NULL);
    memcpy(cut, golden, size);
    cr_expect(eq(int, read_golden(cut, size), TM_ERR_CORRUPT), "%zu bytes", size);
    free(cut);
  }
}

// Whatever is changed is refused with a status, or read as something else; nothing is left behind.
Test(archive, every_change_of_a_byte_is_survived) {
  const int64_t live = tm_bookkeeping_live();
  for (size_t at = 0; at < sizeof golden; at++) {
    for (unsigned change = 1; change < 256; change++) {
      uint8_t* bytes = malloc(sizeof golden);  // so that ASan sees a read behind it
      cr_assert(bytes != NULL);
      memcpy(bytes, golden, sizeof golden);
      bytes[at] ^= (uint8_t)change;
      const tm_status status = read_golden(bytes, sizeof golden);
      cr_assert(status == TM_OK || status == TM_ERR_CORRUPT || status == TM_ERR_UNAVAILABLE,
                "byte %zu changed by %u: %s", at, change, tm_last_error()->message);
      free(bytes);
    }
  }
  cr_expect(eq(i64, tm_bookkeeping_live(), live));
}

//===-- What cannot be put in ---------------------------------------------===//

Test(archive, a_put_that_fails_changes_nothing) {
  tm_auto_archive archive = tm_archive_create();
  tm_auto_tensor_map map = make_map();
  tm_auto_tensor pointers = make_tensor(TM_SHAPE(2), TM_POINTER, 0);
  cr_expect(eq(int, tm_archive_put_tensor(archive, &pointers), TM_ERR_INVALID));
  ASSERT_OK(tm_archive_put_map(archive, map));
  const size_t size = tm_archive_size(archive);
  ASSERT_OK(tm_tensor_map_produce(map, "pointers", &pointers));
  cr_expect(eq(int, tm_archive_put_map(archive, map), TM_ERR_INVALID));
  cr_expect(strstr(tm_last_error()->message, "pointer") != NULL);
  cr_expect(eq(sz, tm_archive_size(archive), size));
  tm_archive_reader reader = open_it(archive);
  tm_auto_tensor_map back = tm_archive_get_map(&reader);
  cr_expect(back != NULL);
  cr_expect(tm_archive_at_end(&reader));
}

Test(archive, a_put_that_failed_leaves_no_trace_in_the_next) {
  tm_auto_archive archive = tm_archive_create();
  tm_auto_archive fresh = tm_archive_create();
  tm_auto_tensor_map map = make_map();
  tm_auto_tensor pointers = make_tensor(TM_SHAPE(2), TM_POINTER, 0);
  tm_auto_tensor small = make_tensor(TM_SHAPE(1), TM_U8, 1);
  ASSERT_OK(tm_tensor_map_produce(map, "pointers", &pointers));
  cr_expect(eq(int, tm_archive_put_map(archive, map), TM_ERR_INVALID));
  for (int i = 0; i < 3; i++) {
    ASSERT_OK(tm_archive_put_tensor(archive, &small));
    ASSERT_OK(tm_archive_put_tensor(fresh, &small));
  }
  cr_assert(eq(sz, tm_archive_size(archive), tm_archive_size(fresh)));
  cr_expect(memcmp(tm_archive_data(archive), tm_archive_data(fresh), tm_archive_size(fresh)) == 0);
}

Test(archive, null_things_and_layouts_that_are_none_are_errors) {
  tm_auto_archive archive = tm_archive_create();
  tm_auto_tensor x = make_tensor(TM_SHAPE(2), TM_F32, 0);
  const tm_tensor null = tm_null();
  const tm_buffer null_buffer = tm_buffer_null();
  const tm_layout null_layout = {.ranked = 0};
  const tm_layout rank_9 = {.ranked = 10};
  const tm_layout negative = {.ranked = 2, .shape = {-1}, .stride = {1}};
  tm_archive_reader reader;
  cr_expect(eq(int, tm_archive_put_tensor(NULL, &x), TM_ERR_INVALID));
  cr_expect(eq(int, tm_archive_put_tensor(archive, &null), TM_ERR_INVALID));
  cr_expect(eq(int, tm_archive_put_buffer(archive, &null_buffer), TM_ERR_INVALID));
  cr_expect(eq(int, tm_archive_put_layout(archive, &null_layout), TM_ERR_INVALID));
  cr_expect(eq(int, tm_archive_put_layout(archive, &rank_9), TM_ERR_INVALID));
  cr_expect(eq(int, tm_archive_put_layout(archive, &negative), TM_ERR_INVALID));
  cr_expect(eq(int, tm_archive_put_map(archive, NULL), TM_ERR_INVALID));
  tm_layout layout;
  cr_expect(eq(int, tm_archive_get_layout(NULL, &layout), TM_ERR_INVALID));
  cr_expect(tm_layout_is_null(&layout));
  const tm_buffer no_buffer = tm_archive_get_buffer(NULL);
  const tm_tensor no_tensor = tm_archive_get_tensor(NULL);
  cr_expect(not(tm_buffer_ok(&no_buffer)));
  cr_expect(not(tm_ok(&no_tensor)));
  cr_expect(eq(ptr, tm_archive_get_map(NULL), NULL));
  cr_expect(eq(int, tm_archive_open(NULL, 8, TM_CPU, &reader), TM_ERR_INVALID));
  cr_expect(eq(int, tm_archive_open_from(NULL, golden, sizeof golden, &reader), TM_ERR_INVALID));
  cr_expect(tm_archive_at_end(&reader));
  cr_expect(eq(int, tm_archive_open(golden, sizeof golden, TM_CPU, NULL), TM_ERR_INVALID));
  cr_expect(eq(sz, tm_archive_size(archive), 16));
  tm_archive_release(NULL);
}

//===-- Out of memory -----------------------------------------------------===//

static tm_status put_in(tm_archive* archive, tm_allocator* upstream) {
  tm_auto_tensor_map map = tm_tensor_map_create();
  if (!map) return tm_last_status();
  TM_TRY_TENSOR(x, tm_empty_from(upstream, TM_SHAPE(40, 30), TM_U8));
  memset(tm_data(&x), 0, tm_byte_size(&x));
  TM_TRY_TENSOR(t, tm_t(&x));
  TM_TRY_BUFFER(buffer, tm_buffer_of(&x));
  TM_TRY(tm_tensor_map_produce(map, "x", &t));
  TM_TRY(tm_tensor_map_add_metadata(map, "format", "pt"));
  TM_TRY(tm_archive_put_map(archive, map));
  return tm_archive_put_buffer(archive, &buffer);
}

static tm_status there_and_back(tm_allocator* upstream) {
  tm_archive_reader reader;
  tm_auto_archive archive = tm_archive_create();
  if (!archive) return tm_last_status();
  TM_TRY(put_in(archive, upstream));
  TM_TRY(
      tm_archive_open_from(upstream, tm_archive_data(archive), tm_archive_size(archive), &reader));
  tm_auto_tensor_map map = tm_archive_get_map(&reader);
  if (!map) return tm_last_status();
  TM_TRY_BUFFER(back, tm_archive_get_buffer(&reader));
  return TM_OK;
}

Test(archive, survives_every_failure) { expect_survives_every_failure(there_and_back); }

static tm_status there_and_back_by_device(tm_allocator* upstream) {
  tm_archive_reader reader;
  tm_auto_archive archive = tm_archive_create();
  tm_auto_stream order = tm_stream_create(0, 0);
  if (!archive || !order) return tm_last_status();
  TM_USE_STREAM(order);
  TM_TRY(put_in(archive, upstream));
  TM_TRY(tm_archive_open_from(tm_cuda_allocator(0), tm_archive_data(archive),
                              tm_archive_size(archive), &reader));
  tm_auto_tensor_map map = tm_archive_get_map(&reader);
  if (!map) return tm_last_status();
  TM_TRY_TENSOR(x, tm_tensor_map_consume(map, "x"));
  TM_TRY_TENSOR(turned, tm_t(&x));  // fetched whole
  TM_TRY(tm_archive_put_tensor(archive, &turned));
  return tm_archive_put_tensor(archive, &x);
}

Test(archive_device, survives_every_failure) {
  expect_survives_every_failure_or_retries(there_and_back_by_device);
}

Test(archive_device, survives_every_cuda_failure) {
  expect_survives_every_cuda_failure(there_and_back_by_device);
}
