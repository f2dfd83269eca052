#include "tm/tensor/tensor.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>
#include <string.h>

#include "tests/support/counting_allocator.h"
#include "tests/support/failing.h"
#include "tests/support/machine.h"
#include "tm/alloc/bookkeeping.h"
#include "tm/alloc/callback.h"
#include "tm/alloc/cuda.h"
#include "tm/alloc/host.h"
#include "tm/alloc/stack.h"
#include "tm/context/context.h"

// Sanitizers end the program at a request that no memory can serve, unless told that it may fail.
__attribute__((visibility("default"))) const char* __asan_default_options(void);
const char* __asan_default_options(void) { return "allocator_may_return_null=1"; }
__attribute__((visibility("default"))) const char* __tsan_default_options(void);
const char* __tsan_default_options(void) { return "allocator_may_return_null=1"; }

static counting_allocator memory;  // what the tests allocate from

static void setup(void) { counting_allocator_init(&memory); }

TestSuite(tensor, .init = setup);

static const tm_device cpu = {TM_CPU, 0};

static void expect_null(const tm_tensor* tensor, tm_status status) {
  cr_expect(not(tm_ok(tensor)));
  cr_expect(eq(ptr, tensor->storage, NULL));
  cr_expect(eq(ptr, tensor->data, NULL));
  cr_expect(tm_layout_is_null(&tensor->layout));
  cr_expect(eq(int, tm_last_status(), status), "%s", tm_last_error()->message);
}

// The call gives a null tensor and leaves `status` on record.
#define EXPECT_FAILS(call, status)    \
  do {                                \
    tm_clear_error();                 \
    const tm_tensor failed_ = (call); \
    expect_null(&failed_, (status));  \
  } while (0)

static char* text_of(const tm_tensor* tensor) {
  static char text[TM_LAYOUT_TEXT_SIZE];
  tm_layout_text(&tensor->layout, text, sizeof text);
  return text;
}

#define EXPECT_LAYOUT(tensor, text) cr_expect(eq(str, text_of(&(tensor)), (text)))

static tm_tensor make(tm_shape shape, tm_dtype dtype) {
  tm_tensor tensor = tm_empty_from(&memory.base, shape, dtype);
  cr_assert(tm_ok(&tensor), "%s", tm_last_error()->message);
  return tensor;
}

// A contiguous tensor of i32 that counts 0, 1, 2, ...
static tm_tensor count_up(tm_shape shape) {
  tm_tensor tensor = make(shape, TM_I32);
  for (int64_t i = 0; i < tm_size(&tensor); i++) {
    TM_DATA(int32_t, &tensor)[i] = (int32_t)i;
  }
  return tensor;
}

static int value_at(const tm_tensor* tensor, tm_shape index) {
  int64_t offset = 0;
  cr_assert(eq(int, tm_layout_offset(&tensor->layout, index, &offset), TM_OK));
  return TM_DATA(int32_t, tensor)[offset];
}

//===-- Creating ----------------------------------------------------------===//

Test(tensor, comes_from_the_context) {
  TM_WITH_ALLOCATOR(&memory.base) {
    tm_auto_tensor x = tm_empty(TM_SHAPE(20, 50), TM_F16, TM_CPU);
    cr_expect(tm_ok(&x));
    EXPECT_LAYOUT(x, "(20,50):(50,1)");
    cr_expect(eq(int, tm_rank(&x), 2));
    cr_expect(eq(i64, tm_size(&x), 1000));
    cr_expect(eq(sz, tm_byte_size(&x), 2000));
    cr_expect(eq(int, tm_dtype_of(&x), TM_F16));
    cr_expect(tm_device_equal(tm_device_of(&x), cpu));
    cr_expect(eq(u64, memory.allocs, 1));
    memset(tm_data(&x), 1, 2000);
  }
  cr_expect(eq(u64, memory.frees, 1));
}

static tm_layout layout_of(const char* text) {
  tm_layout layout;
  cr_assert(eq(int, tm_layout_parse(text, &layout), TM_OK), "%s", tm_last_error()->message);
  return layout;
}

Test(tensor, of_a_layout_has_memory_for_all_it_reaches) {
  const tm_layout padded = layout_of("(3,4):(10,2)");
  TM_WITH_ALLOCATOR(&memory.base) {
    tm_auto_tensor x = tm_empty_strided(&padded, TM_I32, TM_CPU);
    EXPECT_LAYOUT(x, "(3,4):(10,2)");
    cr_expect(eq(sz, x.storage->size, 27 * sizeof(int32_t)));
    tm_auto_tensor here = tm_empty_strided_on(&padded, TM_U4, cpu);
    cr_expect(eq(sz, here.storage->size, 14));
    EXPECT_LAYOUT(here, "(3,4):(10,2)");
    EXPECT_FAILS(tm_empty_strided(&padded, TM_I32, TM_DEVICE), TM_ERR_UNAVAILABLE);
  }
  const tm_layout broadcast = layout_of("(1000,5):(0,1)");
  tm_auto_tensor row = tm_empty_strided_from(&memory.base, &broadcast, TM_U8);
  cr_expect(eq(sz, row.storage->size, 5));
  cr_expect(eq(i64, tm_size(&row), 5000));
  const tm_layout nothing = layout_of("(0,5):(7,1)");
  tm_auto_tensor none = tm_empty_strided_from(&memory.base, &nothing, TM_U8);
  cr_expect(tm_ok(&none));
  EXPECT_LAYOUT(none, "(0,5):(7,1)");
  cr_expect(eq(ptr, none.data, NULL));
}

Test(tensor, of_a_layout_that_is_none_fails) {
  const tm_layout null = {0};
  const tm_layout by_hand = {.ranked = 2, .shape = {4}, .stride = {-1}};
  const tm_layout far = layout_of("(2):(4611686018427387904)");
  EXPECT_FAILS(tm_empty_strided_from(&memory.base, &null, TM_U8), TM_ERR_INVALID);
  EXPECT_FAILS(tm_empty_strided_from(&memory.base, &by_hand, TM_U8), TM_ERR_INVALID);
  EXPECT_FAILS(tm_empty_strided_from(&memory.base, &far, TM_F64), TM_ERR_OVERFLOW);
  EXPECT_FAILS(tm_empty_strided_from(NULL, &far, TM_U8), TM_ERR_INVALID);
  cr_expect(eq(u64, memory.allocs, 0));
}

Test(tensor, of_a_whole_buffer_and_what_it_can_grow_into) {
  tm_buffer buffer = tm_buffer_empty_from(&memory.base, 12, TM_I32);
  tm_buffer second_half = tm_buffer_slice(&buffer, 6, -1);
  tm_auto_tensor whole = tm_from_whole_buffer(&second_half);
  EXPECT_LAYOUT(whole, "(6):(1)");
  cr_expect(eq(ptr, whole.data, (int32_t*)buffer.data + 6));
  const tm_layout small = layout_of("(2,2):(3,1)");
  tm_auto_tensor x = tm_from_buffer(&second_half, &small);
  tm_buffer_release(&buffer);
  tm_buffer_release(&second_half);
  tm_auto_buffer reached = tm_buffer_of(&x);
  tm_auto_buffer capacity = tm_buffer_of_capacity(&x);
  cr_expect(eq(i64, reached.size, 5));
  cr_expect(eq(i64, capacity.size, 6));
  cr_expect(eq(ptr, capacity.data, whole.data));
  tm_auto_tensor grown = tm_view_move(tm_from_whole_buffer(&capacity), TM_SHAPE(2, 3));
  EXPECT_LAYOUT(grown, "(2,3):(3,1)");
  cr_expect(eq(u64, memory.frees, 0));
  char bytes[8];
  const tm_tensor foreign = tm_from_borrowed(bytes, TM_SHAPE(5), TM_U8, cpu);
  const tm_buffer foreign_capacity = tm_buffer_of_capacity(&foreign);
  cr_expect(eq(i64, foreign_capacity.size, 5));
  const tm_tensor null = tm_null();
  const tm_buffer null_buffer = tm_buffer_null();
  EXPECT_FAILS(tm_from_whole_buffer(&null_buffer), TM_ERR_INVALID);
  const tm_buffer of_null = tm_buffer_of_capacity(&null);
  cr_expect(not(tm_buffer_ok(&of_null)));
}

Test(tensor, prints_type_device_and_layout) {
  char text[TM_TENSOR_TEXT_SIZE];
  tm_auto_tensor x = make(TM_SHAPE(20, 50), TM_U6);
  tm_tensor_text(&x, text, sizeof text);
  cr_expect(eq(str, text, "u6 cpu (20,50):(50,1)"));
  const tm_tensor far =
      tm_from_borrowed((void*)0x100, TM_SHAPE(), TM_F16, tm_device_make(TM_DEVICE, 3));
  tm_tensor_text(&far, text, sizeof text);
  cr_expect(eq(str, text, "f16 device:3 ():()"));
  const tm_tensor null = tm_null();
  tm_tensor_text(&null, text, sizeof text);
  cr_expect(eq(str, text, "null"));
}

// The hot path has a function for common ranks: all of them against the plain one.
Test(tensor, every_rank_has_the_layout_of_its_shape) {
  const int64_t sizes[] = {3, 1, 4, 1, 5, 2, 1, 2};
  for (int32_t rank = 0; rank <= TM_MAX_RANK; rank++) {
    for (int zero_at = -1; zero_at < rank; zero_at++) {
      tm_shape shape = tm_shape_make(rank, sizes);
      if (zero_at >= 0) {
        shape.dim[zero_at] = 0;
      }
      tm_layout expected;
      cr_assert(eq(int, tm_layout_make(shape, &expected), TM_OK));
      tm_auto_tensor x = make(shape, TM_U8);
      cr_expect(tm_layout_equal(&x.layout, &expected), "%s", text_of(&x));
      cr_expect(eq(int, x.data != NULL, zero_at < 0));
      cr_expect(eq(int, x.flags, 0));
    }
  }
  cr_expect(eq(sz, memory.live_bytes, 0));
}

Test(tensor, takes_as_many_bytes_as_its_elements_rounded_up) {
  static const tm_dtype types[] = {TM_U2, TM_U4, TM_U6, TM_BOOL, TM_F16, TM_F32, TM_POINTER};
  for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
    for (int64_t rows = 1; rows < 20; rows++) {
      tm_auto_tensor x = make(TM_SHAPE(rows, 7), types[i]);
      const size_t bytes = ((size_t)rows * 7 * (size_t)tm_dtype_bits(types[i]) + 7) / 8;
      cr_expect(eq(sz, x.storage->size, bytes));
      cr_expect(eq(sz, tm_byte_size(&x), bytes));
    }
  }
}

Test(tensor, comes_from_the_device_named) {
  TM_WITH_ALLOCATOR(&memory.base) {
    tm_auto_tensor here = tm_empty_on(TM_SHAPE(8), TM_U8, cpu);
    cr_expect(tm_ok(&here));
    cr_expect(eq(u64, memory.allocs, 1));
    EXPECT_FAILS(tm_empty_on(TM_SHAPE(8), TM_U8, tm_device_make(TM_DEVICE, 3)), TM_ERR_UNAVAILABLE);
    EXPECT_FAILS(tm_empty_on(TM_SHAPE(8), TM_U8, tm_device_make(TM_CPU, 5)), TM_ERR_UNAVAILABLE);
    EXPECT_FAILS(tm_empty_on(TM_SHAPE(8), TM_U8, tm_device_make((tm_device_type)7, 0)),
                 TM_ERR_UNAVAILABLE);
  }
}

Test(tensor, without_an_id_it_is_the_innermost_device_and_with_one_exactly_that) {
  machine_configure(2, "64MiB");
  machine_require_devices(2);
  TM_WITH_ALLOCATOR(tm_cuda_allocator(0))
  TM_WITH_ALLOCATOR(tm_cuda_allocator(1)) {
    for (int32_t rank = 0; rank < 6; rank++) {
      const tm_shape shape = tm_shape_make(rank, (const int64_t[]){2, 3, 4, 5, 6, 7});
      tm_auto_tensor innermost = tm_empty(shape, TM_F16, TM_DEVICE);
      tm_auto_tensor outer = tm_empty_on(shape, TM_F16, tm_device_make(TM_DEVICE, 0));
      tm_auto_tensor like = tm_empty_like(&outer);
      cr_expect(eq(int, innermost.device.id, 1));
      cr_expect(eq(int, outer.device.id, 0));
      cr_expect(eq(int, like.device.id, 0));
      cr_expect(eq(int, tm_rank(&outer), rank));
      EXPECT_FAILS(tm_empty_on(shape, TM_F16, tm_device_make(TM_DEVICE, 2)), TM_ERR_UNAVAILABLE);
    }
  }
}

Test(tensor, wrong_arguments_are_invalid_in_every_rank) {
  for (int32_t rank = 1; rank <= TM_MAX_RANK; rank++) {
    tm_shape shape = TM_SHAPE(2, 2, 2, 2, 2, 2, 2, 2);
    shape.rank = rank;
    EXPECT_FAILS(tm_empty_from(&memory.base, shape, TM_DTYPE_NULL), TM_ERR_INVALID);
    EXPECT_FAILS(tm_empty_from(&memory.base, shape, (tm_dtype)TM_DTYPES), TM_ERR_INVALID);
    EXPECT_FAILS(tm_empty_from(NULL, shape, TM_U8), TM_ERR_INVALID);
    EXPECT_FAILS(tm_empty(shape, TM_U8, TM_DEVICE), TM_ERR_UNAVAILABLE);
    EXPECT_FAILS(tm_empty(shape, TM_U8, (tm_device_type)5), TM_ERR_UNAVAILABLE);
    for (int32_t i = 0; i < rank; i++) {
      tm_shape negative = shape;
      negative.dim[i] = -1;
      EXPECT_FAILS(tm_empty_from(&memory.base, negative, TM_U8), TM_ERR_INVALID);
    }
  }
  tm_shape shape = TM_SHAPE(1, 1, 1, 1, 1, 1, 1, 1);
  shape.rank = 9;
  EXPECT_FAILS(tm_empty_from(&memory.base, shape, TM_U8), TM_ERR_INVALID);
  shape.rank = -1;
  EXPECT_FAILS(tm_empty_from(&memory.base, shape, TM_U8), TM_ERR_INVALID);
  cr_expect(eq(u64, memory.allocs, 0));
}

Test(tensor, two_to_the_62_floats_and_two_to_the_32_squared_overflow) {
  const int64_t big = INT64_C(1) << 32;
  EXPECT_FAILS(tm_empty_from(&memory.base, TM_SHAPE(INT64_C(1) << 62), TM_F32), TM_ERR_OVERFLOW);
  EXPECT_FAILS(tm_empty_from(&memory.base, TM_SHAPE(big, big), TM_U8), TM_ERR_OVERFLOW);
  EXPECT_FAILS(tm_empty_from(&memory.base, TM_SHAPE(big, 1, big), TM_U8), TM_ERR_OVERFLOW);
  EXPECT_FAILS(tm_empty_from(&memory.base, TM_SHAPE(2, big, 1, big), TM_U8), TM_ERR_OVERFLOW);
  EXPECT_FAILS(tm_empty_from(&memory.base, TM_SHAPE(big, big / 4, 1), TM_F32), TM_ERR_OVERFLOW);
  EXPECT_FAILS(tm_empty_from(&memory.base, TM_SHAPE(big, big, 0), TM_U8), TM_ERR_OVERFLOW);
  cr_expect(eq(u64, memory.allocs, 0));
}

Test(tensor, bits_that_do_not_fit_are_no_overflow_where_bytes_do) {
  // 2^61 bytes: an allocator may well refuse them, but their number is right.
  EXPECT_FAILS(tm_empty_from(&memory.base, TM_SHAPE(INT64_C(1) << 58), TM_F64), TM_ERR_NO_MEMORY);
  EXPECT_FAILS(tm_empty_from(&memory.base, TM_SHAPE(INT64_C(1) << 29, INT64_C(1) << 29), TM_F64),
               TM_ERR_NO_MEMORY);
}

static void* allocate_on_a_new_thread(void* unused) {
  (void)unused;
  tm_auto_tensor x = tm_empty(TM_SHAPE(3, 4), TM_F32, TM_CPU);
  return (void*)(uintptr_t)(tm_ok(&x) && x.storage->allocator == tm_host_allocator());
}

Test(tensor, the_first_use_of_a_thread_finds_the_host_allocator) {
  pthread_t thread;
  void* ok = NULL;
  cr_assert(eq(int, pthread_create(&thread, NULL, allocate_on_a_new_thread, NULL), 0));
  cr_assert(eq(int, pthread_join(thread, &ok), 0));
  cr_expect(ne(ptr, ok, NULL));
}

Test(tensor, empty_like) {
  tm_auto_tensor whole = make(TM_SHAPE(4, 6), TM_F16);
  tm_auto_tensor model = tm_t(&whole);
  TM_WITH_ALLOCATOR(&memory.base) {
    tm_auto_tensor same = tm_empty_like(&model);
    EXPECT_LAYOUT(same, "(6,4):(4,1)");
    cr_expect(eq(int, tm_dtype_of(&same), TM_F16));
    cr_expect(ne(ptr, same.data, model.data));
    tm_auto_tensor wide = tm_empty_like_as(&model, TM_F64);
    cr_expect(eq(sz, tm_byte_size(&wide), 192));
    tm_auto_tensor here = tm_empty_like_on(&model, TM_CPU);
    cr_expect(tm_ok(&here));
    EXPECT_FAILS(tm_empty_like_on(&model, TM_DEVICE), TM_ERR_UNAVAILABLE);
    tm_auto_tensor both = tm_empty_like_as_on(&model, TM_U4, TM_CPU);
    EXPECT_LAYOUT(both, "(6,4):(4,1)");
    cr_expect(eq(int, tm_dtype_of(&both), TM_U4));
    cr_expect(tm_device_equal(tm_device_of(&both), cpu));
    cr_expect(eq(sz, tm_byte_size(&both), 12));
    EXPECT_FAILS(tm_empty_like_as_on(&model, TM_U4, TM_DEVICE), TM_ERR_UNAVAILABLE);
    EXPECT_FAILS(tm_empty_like_as_on(&model, TM_DTYPE_NULL, TM_CPU), TM_ERR_INVALID);
    EXPECT_FAILS(tm_empty_like_as_on(&model, TM_U4, (tm_device_type)9), TM_ERR_UNAVAILABLE);
  }
}

//===-- Null and empty ----------------------------------------------------===//

Test(tensor, zero_size_is_ok_and_keeps_device_dtype_and_shape) {
  tm_auto_tensor x = make(TM_SHAPE(0, 128), TM_BF16);
  cr_expect(tm_ok(&x));
  cr_expect(eq(ptr, x.data, NULL));
  cr_expect(eq(ptr, x.storage, NULL));
  EXPECT_LAYOUT(x, "(0,128):(128,1)");
  cr_expect(eq(int, tm_dtype_of(&x), TM_BF16));
  cr_expect(tm_device_equal(tm_device_of(&x), cpu));
  cr_expect(eq(i64, tm_size(&x), 0));
  cr_expect(eq(sz, tm_byte_size(&x), 0));
  cr_expect(eq(ptr, tm_data_as(&x, TM_BF16), NULL));
  cr_expect(eq(int, tm_last_status(), TM_OK));
  tm_auto_tensor part = tm_slice(&x, TM_INDEX(0, 64), TM_INDEX(-1, -1));
  EXPECT_LAYOUT(part, "(0,64):(128,1)");
  tm_auto_tensor view = tm_view(&x, TM_SHAPE(-1, 8, 16));
  EXPECT_LAYOUT(view, "(0,8,16):(128,16,1)");
  cr_expect(eq(u64, memory.allocs, 0));
}

Test(tensor, a_scalar_has_one_element) {
  tm_auto_tensor x = make(TM_SHAPE(), TM_F32);
  cr_expect(eq(int, tm_rank(&x), 0));
  cr_expect(eq(i64, tm_size(&x), 1));
  *TM_DATA(float, &x) = 2;
  tm_auto_tensor view = tm_view(&x, TM_SHAPE(1, 1));
  cr_expect(eq(flt, *TM_DATA(float, &view), 2));
  EXPECT_FAILS(tm_slice_outer(&x, 0, 1), TM_ERR_OUT_OF_RANGE);
  EXPECT_FAILS(tm_squeeze(&x, 0), TM_ERR_OUT_OF_RANGE);
}

Test(tensor, null_passes_through_every_operation_and_the_first_failure_stays) {
  tm_auto_tensor x = tm_empty_from(&memory.base, TM_SHAPE(-7), TM_U8);
  const tm_buffer buffer = tm_buffer_of(&x);
  cr_expect(not(tm_buffer_ok(&buffer)));
  tm_tensor results[] = {
      tm_view(&x, TM_SHAPE(1)),
      tm_slice(&x, TM_INDEX(0), TM_INDEX(1)),
      tm_slice_outer(&x, 0, 1),
      tm_permute(&x, TM_INDEX(0)),
      tm_transpose(&x, 0, 1),
      tm_t(&x),
      tm_squeeze(&x, 0),
      tm_unsqueeze(&x, 0),
      tm_share(&x),
      tm_borrow(&x),
      tm_move(&x),
      tm_empty_like(&x),
      tm_empty_like_as(&x, TM_F32),
      tm_empty_like_on(&x, TM_CPU),
      tm_empty_like_as_on(&x, TM_F32, TM_CPU),
      tm_view_move(tm_slice_move(tm_null(), TM_INDEX(0), TM_INDEX(1)), TM_SHAPE(1)),
      tm_slice_outer_move(tm_null(), 0, 1),
      tm_permute_move(tm_null(), TM_INDEX(0)),
      tm_transpose_move(tm_null(), 0, 1),
      tm_t_move(tm_null()),
      tm_squeeze_move(tm_null(), 0),
      tm_unsqueeze_move(tm_null(), 0),
  };
  for (size_t i = 0; i < sizeof results / sizeof results[0]; i++) {
    expect_null(&results[i], TM_ERR_INVALID);
  }
  cr_expect(ne(ptr, (void*)strstr(tm_last_error()->message, "-7"), NULL), "%s",
            tm_last_error()->message);
  cr_expect(eq(i64, tm_size(&x), 0));
  cr_expect(eq(sz, tm_byte_size(&x), 0));
  cr_expect(eq(int, tm_rank(&x), 0));
  cr_expect(eq(i64, tm_dim(&x, 0), -1));
  cr_expect(eq(i64, tm_stride(&x, 0), -1));
  cr_expect(eq(ptr, tm_data(&x), NULL));
  cr_expect(eq(ptr, tm_data_as(&x, TM_U8), NULL));
  cr_expect(eq(int, tm_record_stream(&x, NULL), TM_ERR_INVALID));
  cr_expect(tm_is_contiguous(&x));
  cr_expect(not(tm_is_dry(&x)));
}

Test(tensor, an_operation_on_null_without_an_earlier_failure_names_it) {
  const tm_tensor zeroed = {0};
  EXPECT_FAILS(tm_view(&zeroed, TM_SHAPE(1)), TM_ERR_INVALID);
  cr_expect(eq(str, (char*)tm_last_error()->message, "a tensor is null"));
}

//===-- Out of memory -----------------------------------------------------===//

static tm_status give_no_block(size_t size, tm_stream* stream, void** out, void* user) {
  (void)size;
  (void)stream;
  (void)user;
  *out = NULL;
  return TM_OK;
}

static void free_no_block(void* ptr, size_t size, tm_stream* stream, void* user) {
  (void)ptr;
  (void)size;
  (void)stream;
  (void)user;
}

Test(tensor, four_ways_to_run_out_of_memory_are_one_status_each) {
  machine_configure(1, "64MiB");
  machine_require_devices(1);
  const int64_t tera = INT64_C(1) << 40;
  EXPECT_FAILS(tm_empty_from(tm_host_allocator(), TM_SHAPE(tera, 4096), TM_U8), TM_ERR_NO_MEMORY);
  EXPECT_FAILS(tm_empty_from(tm_cuda_allocator(0), TM_SHAPE(tera), TM_U8), TM_ERR_NO_MEMORY);
  const tm_callback_options options = {.alloc = give_no_block, .free = free_no_block};
  tm_auto_allocator callback = tm_callback_allocator_create(&options);
  EXPECT_FAILS(tm_empty_from(callback, TM_SHAPE(10, 10), TM_U8), TM_ERR_NO_MEMORY);
  EXPECT_FAILS(tm_empty(TM_SHAPE(10, 10), TM_U8, TM_DEVICE), TM_ERR_UNAVAILABLE);
}

Test(tensor, out_of_memory_leaves_everything_as_it_was) {
  memory.budget = 1 << 20;
  tm_auto_tensor x = make(TM_SHAPE(1000), TM_U8);
  memset(x.data, 0x5a, 1000);
  EXPECT_FAILS(tm_empty_from(&memory.base, TM_SHAPE(1024, 1024), TM_F32), TM_ERR_NO_MEMORY);
  cr_expect(eq(int, TM_DATA(uint8_t, &x)[999], 0x5a));
  cr_expect(eq(sz, memory.live_bytes, 1024));
  tm_auto_tensor fits = make(TM_SHAPE(1024, 100), TM_F32);
  cr_expect(tm_ok(&fits));
}

static bool free_the_cache(const tm_oom_request* request, void* user) {
  tm_tensor* cache = user;
  const bool freed = tm_ok(cache) && request->size == 819200;
  tm_release(cache);
  return freed;
}

Test(tensor, handlers_of_the_context_are_asked_before_it_fails) {
  memory.budget = 1 << 20;
  tm_tensor cache = make(TM_SHAPE(500, 1024), TM_U8);
  TM_WITH_ALLOCATOR(&memory.base)
  TM_WITH_OOM_HANDLER(free_the_cache, &cache) {
    tm_auto_tensor x = tm_empty(TM_SHAPE(800, 1024), TM_U8, TM_CPU);
    cr_expect(tm_ok(&x));
    cr_expect(not(tm_ok(&cache)));
    EXPECT_FAILS(tm_empty(TM_SHAPE(800, 1024), TM_U8, TM_CPU), TM_ERR_NO_MEMORY);
  }
}

// Tries to make tensors of the failing device, and one elsewhere.
static bool make_tensors(const tm_oom_request* request, void* user) {
  memory.budget = 4 << 20;
  EXPECT_FAILS(tm_empty(TM_SHAPE(8), TM_U8, TM_CPU), TM_ERR_NO_MEMORY);
  EXPECT_FAILS(tm_empty_from(&memory.base, TM_SHAPE(8), TM_U8), TM_ERR_NO_MEMORY);
  EXPECT_FAILS(tm_empty_from(&memory.base, TM_SHAPE(2, 2, 2), TM_U8), TM_ERR_NO_MEMORY);
  *(int64_t*)user += (int64_t)request->size;
  return true;
}

Test(tensor, inside_a_handler_the_failing_device_gives_no_tensor) {
  memory.budget = 1 << 20;
  int64_t asked = 0;
  TM_WITH_OOM_HANDLER(make_tensors, &asked) {
    tm_auto_tensor x = make(TM_SHAPE(2048, 1024), TM_U8);
    cr_expect(tm_ok(&x));
  }
  cr_expect(eq(i64, asked, (int64_t)2048 * 1024));
}

// Pushes an allocator of the failing device, which has memory, and asks for tensors of every rank.
static bool make_tensors_by_pushing(const tm_oom_request* request, void* user) {
  const int64_t sizes[] = {8, 1, 1, 1, 1, 1, 1, 1};
  TM_WITH_ALLOCATOR((tm_allocator*)user)
  for (int32_t rank = 0; rank <= TM_MAX_RANK; rank++) {
    const tm_shape shape = tm_shape_make(rank, sizes);
    EXPECT_FAILS(tm_empty(shape, TM_U8, TM_CPU), TM_ERR_NO_MEMORY);
    EXPECT_FAILS(tm_empty_on(shape, TM_U8, request->device), TM_ERR_NO_MEMORY);
  }
  return false;
}

Test(tensor, inside_a_handler_no_allocator_of_the_failing_device_gives_a_tensor) {
  memory.budget = 1 << 20;
  tm_auto_allocator stack = tm_stack_allocator_create(tm_host_allocator(), NULL, NULL);
  tm_allocator* const others[] = {tm_host_allocator(), stack};
  for (size_t i = 0; i < 2; i++) {
    TM_WITH_OOM_HANDLER(make_tensors_by_pushing, others[i])
    EXPECT_FAILS(tm_empty_from(&memory.base, TM_SHAPE(2048, 1024), TM_U8), TM_ERR_NO_MEMORY);
  }
}

Test(tensor, every_rank_asks_the_handlers) {
  const int64_t sizes[] = {819200, 1, 1, 1, 1, 1, 1, 1};
  for (int32_t rank = 1; rank <= TM_MAX_RANK; rank++) {
    memory.budget = 1 << 20;
    tm_tensor cache = make(TM_SHAPE(500, 1024), TM_U8);
    TM_WITH_OOM_HANDLER(free_the_cache, &cache) {
      tm_auto_tensor x = make(tm_shape_make(rank, sizes), TM_U8);
      cr_expect(eq(int, tm_rank(&x), rank));
      cr_expect(not(tm_ok(&cache)));
    }
  }
}

//===-- Foreign memory ----------------------------------------------------===//

static int deletions;
static void count_deletion(void* data, size_t size, void* user) {
  cr_expect(eq(ptr, data, user));
  cr_expect(eq(sz, size, 64));
  deletions++;
}

Test(tensor, borrowed_memory_is_seen_and_never_freed) {
  int32_t numbers[6] = {0, 1, 2, 3, 4, 5};
  tm_tensor x = tm_from_borrowed(numbers, TM_SHAPE(2, 3), TM_I32, cpu);
  cr_expect(eq(int, value_at(&x, TM_INDEX(1, 2)), 5));
  tm_tensor t = tm_t(&x);
  tm_release(&x);
  cr_expect(eq(int, value_at(&t, TM_INDEX(0, 1)), 3));
  tm_release(&t);
  EXPECT_FAILS(tm_from_borrowed(NULL, TM_SHAPE(1), TM_I32, cpu), TM_ERR_INVALID);
  EXPECT_FAILS(tm_from_borrowed((char*)numbers + 1, TM_SHAPE(1), TM_I32, cpu), TM_ERR_INVALID);
  EXPECT_FAILS(tm_from_borrowed(numbers, TM_SHAPE(-1), TM_I32, cpu), TM_ERR_INVALID);
  EXPECT_FAILS(tm_from_borrowed(numbers, TM_SHAPE(1), TM_I32, tm_device_make(TM_DEVICE, -1)),
               TM_ERR_INVALID);
}

Test(tensor, adopted_memory_is_deleted_once_with_the_last_reference) {
  char bytes[64] __attribute__((aligned(8)));
  tm_tensor x = tm_adopt(bytes, 64, TM_SHAPE(4, 4), TM_F32, cpu, count_deletion, bytes);
  cr_assert(tm_ok(&x));
  tm_tensor row = tm_slice_outer(&x, 3, 1);
  tm_tensor again = tm_share(&row);
  tm_release(&x);
  tm_release(&row);
  cr_expect(eq(int, deletions, 0));
  tm_release(&again);
  cr_expect(eq(int, deletions, 1));
  EXPECT_FAILS(tm_adopt(bytes, 63, TM_SHAPE(4, 4), TM_F32, cpu, count_deletion, bytes),
               TM_ERR_OUT_OF_RANGE);
  tm_tensor none = tm_adopt(bytes, 64, TM_SHAPE(0, 4), TM_F32, cpu, count_deletion, bytes);
  cr_expect(eq(int, deletions, 1));
  tm_release(&none);
  cr_expect(eq(int, deletions, 2));
}

Test(tensor, a_buffer_under_a_layout) {
  tm_buffer buffer = tm_buffer_empty_from(&memory.base, 12, TM_I32);
  for (int i = 0; i < 12; i++) {
    TM_BUFFER_DATA(int32_t, &buffer)[i] = i;
  }
  tm_layout layout;
  cr_assert(eq(int, tm_layout_make_strided(TM_SHAPE(3, 2, 5), TM_SHAPE(4, 2, 0), &layout), TM_OK));
  tm_tensor x = tm_from_buffer(&buffer, &layout);
  cr_expect(eq(int, value_at(&x, TM_INDEX(2, 1, 4)), 10));
  cr_assert(eq(int, tm_layout_make_strided(TM_SHAPE(3, 2), TM_SHAPE(5, 2), &layout), TM_OK));
  EXPECT_FAILS(tm_from_buffer(&buffer, &layout), TM_ERR_OUT_OF_RANGE);
  tm_layout by_hand = {.ranked = 2, .shape = {4}, .stride = {-1}};
  EXPECT_FAILS(tm_from_buffer(&buffer, &by_hand), TM_ERR_INVALID);
  by_hand.ranked = 12;
  EXPECT_FAILS(tm_from_buffer(&buffer, &by_hand), TM_ERR_INVALID);
  by_hand.ranked = 0;
  EXPECT_FAILS(tm_from_buffer(&buffer, &by_hand), TM_ERR_INVALID);
  tm_buffer_release(&buffer);
  cr_expect(eq(u64, memory.frees, 0));
  tm_buffer back = tm_buffer_of(&x);
  cr_expect(eq(i64, back.size, 11));
  tm_release(&x);
  cr_expect(eq(int, TM_BUFFER_DATA(int32_t, &back)[10], 10));
  tm_buffer_release(&back);
  cr_expect(eq(u64, memory.frees, 1));
}

// It has memory, and no element in it.
Test(tensor, adopted_without_elements_it_can_grow_into_all_that_was_adopted) {
  int64_t numbers[8] = {0};
  tm_auto_tensor x = tm_adopt(numbers, sizeof numbers, TM_SHAPE(0, 3), TM_I32, cpu, NULL, NULL);
  cr_assert(tm_ok(&x), "%s", tm_last_error()->message);
  tm_auto_buffer reached = tm_buffer_of(&x);
  cr_expect(eq(i64, reached.size, 0));
  cr_expect(eq(ptr, reached.data, NULL));
  tm_auto_buffer all = tm_buffer_of_capacity(&x);
  cr_expect(eq(ptr, all.data, numbers));
  cr_expect(eq(i64, all.size, 16));
  tm_auto_tensor nothing = tm_adopt(NULL, 0, TM_SHAPE(0), TM_I32, cpu, NULL, NULL);
  tm_auto_buffer none = tm_buffer_of_capacity(&nothing);
  cr_expect(eq(ptr, none.data, NULL));
  cr_expect(eq(i64, none.size, 0));
}

//===-- Lifetime ----------------------------------------------------------===//

Test(tensor, release_nulls_and_may_be_repeated) {
  tm_tensor x = make(TM_SHAPE(10), TM_U8);
  tm_release(&x);
  expect_null(&x, TM_OK);
  tm_release(&x);
  cr_expect(eq(u64, memory.frees, 1));
}

static tm_tensor make_in_a_function(void) {
  tm_auto_tensor x = count_up(TM_SHAPE(2, 3, 4));
  return tm_move(&x);
}

Test(tensor, a_tensor_is_moved_out_of_the_function_that_made_it) {
  tm_auto_tensor x = make_in_a_function();
  EXPECT_LAYOUT(x, "(2,3,4):(12,4,1)");
  cr_expect(eq(int, value_at(&x, TM_INDEX(1, 2, 3)), 23));
  cr_expect(eq(u64, memory.frees, 0));
}

Test(tensor, share_and_assign_count_references) {
  tm_tensor a = count_up(TM_SHAPE(4, 5));
  tm_tensor b = tm_share(&a);
  EXPECT_LAYOUT(b, "(4,5):(5,1)");
  cr_expect(eq(ptr, b.data, a.data));
  tm_release(&a);
  cr_expect(eq(u64, memory.frees, 0));
  tm_assign(&b, tm_slice_outer(&b, 1, 2));
  cr_expect(eq(u64, memory.frees, 0));
  EXPECT_LAYOUT(b, "(2,5):(5,1)");
  cr_expect(eq(int, value_at(&b, TM_INDEX(0, 0)), 5));
  tm_assign(&b, count_up(TM_SHAPE(3)));
  cr_expect(eq(u64, memory.frees, 1));
  tm_assign(&b, tm_null());
  cr_expect(eq(u64, memory.frees, 2));
  expect_null(&b, TM_OK);
}

Test(tensor, a_borrow_frees_nothing_and_becomes_owned_by_every_operation) {
  tm_tensor owner = count_up(TM_SHAPE(4, 5));
  tm_tensor borrowed = tm_borrow(&owner);
  tm_tensor moved = tm_move(&borrowed);
  tm_tensor shared = tm_share(&moved);
  tm_tensor viewed = tm_view_move(tm_borrow(&owner), TM_SHAPE(20));
  tm_release(&moved);
  tm_release(&owner);
  cr_expect(eq(u64, memory.frees, 0));
  cr_expect(eq(int, value_at(&viewed, TM_INDEX(19)), 19));
  tm_release(&viewed);
  cr_expect(eq(u64, memory.frees, 0));
  cr_expect(eq(int, value_at(&shared, TM_INDEX(3, 4)), 19));
  tm_release(&shared);
  cr_expect(eq(u64, memory.frees, 1));
}

static tm_status try_three(int64_t last) {
  TM_TRY_TENSOR(a, tm_empty_from(&memory.base, TM_SHAPE(10, 10), TM_U8));
  TM_TRY_TENSOR(b, tm_view(&a, TM_SHAPE(100)));
  TM_TRY_TENSOR(c, tm_view(&b, TM_SHAPE(last, -1)));
  return tm_dim(&c, 0) == last ? TM_OK : TM_ERR_CORRUPT;
}

Test(tensor, try_returns_the_status_and_releases_what_came_before) {
  cr_expect(eq(int, try_three(5), TM_OK));
  cr_expect(eq(int, try_three(7), TM_ERR_INVALID));
  cr_expect(eq(u64, memory.allocs, 2));
  cr_expect(eq(u64, memory.frees, 2));
}

Test(tensor, outlives_the_scope_and_the_last_name_of_its_allocator) {
  tm_auto_tensor x = tm_null();
  tm_allocator* stack = tm_stack_allocator_create(&memory.base, NULL, NULL);
  TM_WITH_ALLOCATOR(stack) { tm_assign(&x, tm_empty(TM_SHAPE(100), TM_U8, TM_CPU)); }
  tm_allocator_release(stack);
  memset(tm_data(&x), 7, 100);
  cr_expect(memory.live_bytes > 0);
  tm_release(&x);
  cr_expect(eq(sz, memory.live_bytes, 0));
}

enum { THREADS = 4, ROUNDS = 2000 };

// Takes references to parts of a tensor that other threads do the same with, and reads through
// them.
static void* share_and_release(void* tensor) {
  int64_t sum = 0;
  for (int i = 0; i < ROUNDS; i++) {
    tm_auto_tensor mine = tm_share(tensor);
    tm_auto_tensor part = tm_slice_outer_move(tm_t(&mine), i % 5, 1);
    sum += value_at(&part, TM_INDEX(0, 0));
  }
  return (void*)(intptr_t)sum;
}

Test(tensor, threads_share_one_storage) {
  tm_tensor x = count_up(TM_SHAPE(4, 5));
  tm_tensor borrowed[THREADS];
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; i++) {
    borrowed[i] = tm_borrow(&x);
    cr_assert(eq(int, pthread_create(&threads[i], NULL, share_and_release, &borrowed[i]), 0));
  }
  for (int i = 0; i < THREADS; i++) {
    void* sum = NULL;
    cr_assert(eq(int, pthread_join(threads[i], &sum), 0));
    cr_expect(eq(i64, (intptr_t)sum, (intptr_t)2 * ROUNDS));
  }
  cr_expect(eq(u64, memory.frees, 0));
  tm_release(&x);
  cr_expect(eq(u64, memory.frees, 1));
}

Test(tensor, typed_data_checks_the_dtype) {
  tm_auto_tensor x = make(TM_SHAPE(4), TM_F32);
  cr_expect(eq(ptr, TM_DATA(float, &x), x.data));
  cr_expect(eq(ptr, TM_DATA(int32_t, &x), NULL));
  cr_expect(eq(str, (char*)tm_last_error()->message, "data of a tensor of f32 asked as i32"));
}

Test(tensor, sizes_and_strides_are_asked_from_both_ends) {
  tm_auto_tensor x = make(TM_SHAPE(4, 5, 6), TM_F32);
  cr_expect(eq(i64, tm_dim(&x, 0), 4));
  cr_expect(eq(i64, tm_dim(&x, -1), 6));
  cr_expect(eq(i64, tm_stride(&x, -3), 30));
  cr_expect(eq(int, tm_last_status(), TM_OK));
  cr_expect(eq(i64, tm_dim(&x, 3), -1));
  cr_expect(eq(int, tm_last_status(), TM_ERR_OUT_OF_RANGE));
  cr_expect(eq(i64, tm_stride(&x, -4), -1));
}

//===-- Views -------------------------------------------------------------===//

Test(tensor, views_see_the_same_elements) {
  tm_auto_tensor x = count_up(TM_SHAPE(4, 6));
  tm_auto_tensor view = tm_view(&x, TM_SHAPE(2, -1, 3));
  cr_expect(eq(int, value_at(&view, TM_INDEX(1, 2, 1)), 19));
  tm_auto_tensor part = tm_slice(&x, TM_INDEX(1, 2), TM_INDEX(-1, 3));
  cr_expect(eq(int, value_at(&part, TM_INDEX(2, 2)), 22));
  tm_auto_tensor rows = tm_slice_outer(&x, 2, -1);
  EXPECT_LAYOUT(rows, "(2,6):(6,1)");
  cr_expect(eq(int, value_at(&rows, TM_INDEX(0, 0)), 12));
  tm_auto_tensor turned = tm_t(&part);
  cr_expect(eq(int, value_at(&turned, TM_INDEX(2, 0)), 10));
  tm_auto_tensor swapped = tm_transpose(&view, 0, -1);
  cr_expect(eq(int, value_at(&swapped, TM_INDEX(1, 2, 1)), 19));
  tm_auto_tensor permuted = tm_permute(&view, TM_INDEX(2, 0, 1));
  cr_expect(eq(int, value_at(&permuted, TM_INDEX(1, 1, 2)), 19));
  tm_auto_tensor column = tm_slice(&x, TM_INDEX(0, 5), TM_INDEX(-1, 1));
  tm_auto_tensor line = tm_squeeze(&column, -1);
  EXPECT_LAYOUT(line, "(4):(6)");
  cr_expect(eq(int, value_at(&line, TM_INDEX(3)), 23));
  tm_auto_tensor more = tm_unsqueeze(&line, 0);
  EXPECT_LAYOUT(more, "(1,4):(24,6)");
  cr_expect(eq(u64, memory.allocs, 1));
}

Test(tensor, a_chain_consumes_what_it_is_given) {
  tm_tensor x = tm_unsqueeze_move(
      tm_squeeze_move(
          tm_permute_move(
              tm_slice_move(
                  tm_transpose_move(
                      tm_slice_outer_move(
                          tm_t_move(tm_view_move(count_up(TM_SHAPE(60)), TM_SHAPE(12, 5))), 1, 3),
                      0, 1),
                  TM_INDEX(2, 1), TM_INDEX(1, -1)),
              TM_INDEX(1, 0)),
          -1),
      0);
  cr_assert(tm_ok(&x), "%s", tm_last_error()->message);
  EXPECT_LAYOUT(x, "(1,2):(2,1)");
  cr_expect(eq(int, value_at(&x, TM_INDEX(0, 0)), 12));
  cr_expect(eq(int, value_at(&x, TM_INDEX(0, 1)), 13));
  cr_expect(eq(u64, memory.frees, 0));
  tm_release(&x);
  cr_expect(eq(u64, memory.frees, 1));
}

Test(tensor, a_chain_that_fails_anywhere_leaks_nothing) {
  tm_tensor failed[] = {
      tm_view_move(count_up(TM_SHAPE(6)), TM_SHAPE(4)),
      tm_slice_move(count_up(TM_SHAPE(6)), TM_INDEX(7), TM_INDEX(-1)),
      tm_slice_outer_move(count_up(TM_SHAPE(6)), -1, 1),
      tm_permute_move(count_up(TM_SHAPE(6)), TM_INDEX(1)),
      tm_transpose_move(count_up(TM_SHAPE(6)), 0, 1),
      tm_t_move(count_up(TM_SHAPE(6))),
      tm_squeeze_move(count_up(TM_SHAPE(6)), 0),
      tm_unsqueeze_move(count_up(TM_SHAPE(6)), 2),
      tm_squeeze_move(tm_t_move(tm_view_move(count_up(TM_SHAPE(6)), TM_SHAPE(5))), 9),
  };
  for (size_t i = 0; i < sizeof failed / sizeof failed[0]; i++) {
    cr_expect(not(tm_ok(&failed[i])));
  }
  cr_expect(eq(sz, memory.live_bytes, 0));
}

Test(tensor, a_consumed_tensor_becoming_empty_gives_its_memory_back) {
  tm_tensor x = tm_slice_outer_move(count_up(TM_SHAPE(6)), 6, -1);
  cr_expect(tm_ok(&x));
  cr_expect(eq(ptr, x.storage, NULL));
  cr_expect(eq(sz, memory.live_bytes, 0));
}

Test(tensor, slice_at_minus_a_million_is_out_of_range) {
  tm_auto_tensor x = count_up(TM_SHAPE(4, 6));
  EXPECT_FAILS(tm_slice(&x, TM_INDEX(-1000000, 0), TM_INDEX(1, 1)), TM_ERR_OUT_OF_RANGE);
  EXPECT_FAILS(tm_slice_outer(&x, -1000000, 1), TM_ERR_OUT_OF_RANGE);
  EXPECT_FAILS(tm_slice_outer(&x, 5, -1), TM_ERR_OUT_OF_RANGE);
  EXPECT_FAILS(tm_slice_outer(&x, 1, 4), TM_ERR_OUT_OF_RANGE);
}

Test(tensor, slice_of_a_null_tensor_is_an_error_and_of_an_empty_one_is_empty) {
  const tm_tensor null = tm_null();
  EXPECT_FAILS(tm_slice(&null, TM_INDEX(0), TM_INDEX(0)), TM_ERR_INVALID);
  tm_auto_tensor empty = make(TM_SHAPE(0, 3), TM_F32);
  tm_auto_tensor part = tm_slice_outer(&empty, 0, -1);
  cr_expect(tm_ok(&part));
  EXPECT_FAILS(tm_slice_outer(&empty, 1, 0), TM_ERR_OUT_OF_RANGE);
}

Test(tensor, slice_to_zero_size_is_empty) {
  tm_auto_tensor x = count_up(TM_SHAPE(4, 6));
  tm_auto_tensor part = tm_slice(&x, TM_INDEX(1, 2), TM_INDEX(0, 3));
  cr_expect(tm_ok(&part));
  EXPECT_LAYOUT(part, "(0,3):(6,1)");
  cr_expect(eq(i64, tm_size(&part), 0));
  cr_expect(eq(ptr, part.data, NULL));
}

Test(tensor, sub_byte_slices_share_no_byte_with_what_they_leave_out) {
  tm_auto_tensor x = make(TM_SHAPE(4, 6), TM_U4);
  tm_auto_tensor rows = tm_slice_outer(&x, 1, 2);
  cr_expect(eq(ptr, rows.data, (char*)x.data + 3));
  tm_auto_tensor columns = tm_slice(&x, TM_INDEX(0, 2), TM_INDEX(-1, 4));
  cr_expect(eq(ptr, columns.data, (char*)x.data + 1));
  EXPECT_FAILS(tm_slice(&x, TM_INDEX(0, 1), TM_INDEX(-1, 4)), TM_ERR_INVALID);
  EXPECT_FAILS(tm_slice(&x, TM_INDEX(0, 0), TM_INDEX(1, 3)), TM_ERR_INVALID);
  tm_auto_tensor odd = make(TM_SHAPE(3, 3), TM_U4);
  EXPECT_FAILS(tm_slice_outer(&odd, 1, 1), TM_ERR_INVALID);
  tm_auto_tensor tail = tm_slice_outer(&odd, 2, -1);
  cr_expect(tm_ok(&tail));
  cr_expect(eq(ptr, tail.data, (char*)odd.data + 3));
}

//===-- Failures ----------------------------------------------------------===//

static tm_status adopt_and_look_at(tm_allocator* upstream) {
  static char bytes[64] __attribute__((aligned(64)));
  (void)upstream;
  TM_TRY_TENSOR(adopted, tm_adopt(bytes, 64, TM_SHAPE(4, 4), TM_F32, cpu, NULL, NULL));
  TM_TRY_TENSOR(part, tm_t_move(tm_slice_outer_move(tm_view(&adopted, TM_SHAPE(2, 8)), 1, -1)));
  return TM_OK;
}

Test(tensor, adopting_survives_every_failure) { expect_survives_every_failure(adopt_and_look_at); }

static tm_status use_tensors(tm_allocator* upstream) {
  tm_auto_allocator stack = tm_stack_allocator_create(upstream, NULL, NULL);
  if (!stack) {
    return tm_last_status();
  }
  TM_USE_ALLOCATOR(stack);
  for (int64_t i = 1; i < 64; i *= 4) {
    TM_TRY_TENSOR(x, tm_empty(TM_SHAPE(i, 1 << 16), TM_F32, TM_CPU));
    TM_TRY_TENSOR(y, tm_t_move(tm_view(&x, TM_SHAPE(-1, 16))));
    TM_TRY_TENSOR(z, tm_empty_from(upstream, TM_SHAPE(i, 2, 3, 4, 5), TM_U4));
    TM_TRY_TENSOR(like, tm_empty_like(&y));
    TM_TRY_TENSOR(strided, tm_empty_strided_from(upstream, &y.layout, TM_F64));
    TM_TRY_TENSOR(implicit, tm_empty_strided(&y.layout, TM_U2, TM_CPU));
  }
  return TM_OK;
}

Test(tensor, survives_every_failure) { expect_survives_every_failure_or_retries(use_tensors); }
