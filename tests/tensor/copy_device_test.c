// Copies and fills where a device is involved.

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <cuda_runtime_api.h>
#include <string.h>

#include "tests/support/failing.h"
#include "tests/support/gate.h"
#include "tests/support/machine.h"
#include "tm/alloc/bookkeeping.h"
#include "tm/alloc/cuda.h"
#include "tm/alloc/cuda_pool.h"
#include "tm/alloc/host.h"
#include "tm/alloc/pinned.h"
#include "tm/alloc/stack.h"
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

TestSuite(copy_device, .init = setup, .fini = finish);

#define EXPECT_OK(call) cr_expect(eq(int, (call), TM_OK), "%s", tm_last_error()->message)
#define ASSERT_OK(call) cr_assert(eq(int, (call), TM_OK), "%s", tm_last_error()->message)

#define WITH_ALL()        \
  TM_WITH_STREAM(stream)  \
  TM_WITH_ALLOCATOR(pool) \
  TM_WITH_ALLOCATOR(tm_pinned_allocator())

static tm_tensor make(tm_shape shape, tm_device_type type) {
  tm_tensor tensor = tm_empty(shape, TM_I32, type);
  cr_assert(tm_ok(&tensor), "%s", tm_last_error()->message);
  return tensor;
}

static tm_tensor count_up(tm_shape shape, tm_device_type type) {
  tm_tensor tensor = make(shape, type);
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

// Copies a device tensor of i32 to contiguous host memory, and waits.
static tm_tensor fetch(const tm_tensor* tensor) {
  tm_tensor host = make(tm_shape_of(tensor), TM_CPU);
  ASSERT_OK(tm_copy(tensor, &host));
  ASSERT_OK(tm_stream_sync(stream));
  return host;
}

//===-- Contiguous --------------------------------------------------------===//

Test(copy_device, every_combination_of_places_carries_the_values) {
  static const tm_device_type types[] = {TM_CPU, TM_CPU_PINNED, TM_DEVICE};
  WITH_ALL() {
    for (int from = 0; from < 3; from++) {
      for (int to = 0; to < 3; to++) {
        tm_auto_tensor source = count_up(TM_SHAPE(40, 50), TM_CPU_PINNED);
        tm_auto_tensor x = make(TM_SHAPE(40, 50), types[from]);
        tm_auto_tensor y = make(TM_SHAPE(40, 50), types[to]);
        EXPECT_OK(tm_copy(&source, &x));
        ASSERT_OK(tm_stream_sync(stream));
        EXPECT_OK(tm_copy(&x, &y));
        ASSERT_OK(tm_stream_sync(stream));
        tm_auto_tensor result = fetch(&y);
        cr_expect(eq(int, memcmp(result.data, source.data, 8000), 0), "%d to %d", from, to);
      }
    }
  }
}

Test(copy_device, without_a_current_stream_is_unavailable_and_says_so) {
  tm_auto_tensor x = tm_empty_from(pool, TM_SHAPE(10), TM_I32);
  tm_auto_tensor host = tm_empty_from(tm_host_allocator(), TM_SHAPE(10), TM_I32);
  cr_expect(eq(int, tm_copy(&host, &x), TM_ERR_UNAVAILABLE));
  cr_expect(ne(ptr, (void*)strstr(tm_last_error()->message, "stream"), NULL), "%s",
            tm_last_error()->message);
  cr_expect(eq(int, tm_copy(&x, &host), TM_ERR_UNAVAILABLE));
  cr_expect(eq(int, tm_clear(&x), TM_ERR_UNAVAILABLE));
}

Test(copy_device, on_a_disowned_stream_is_invalid) {
  tm_auto_stream owner = tm_stream_create(0, 0);
  tm_auto_stream adopted = tm_stream_adopt(tm_stream_handle(owner), 0);
  ASSERT_OK(tm_stream_disown(adopted));
  tm_auto_tensor x = tm_empty_from(pool, TM_SHAPE(10), TM_I32);
  TM_WITH_STREAM(adopted) { cr_expect(eq(int, tm_clear(&x), TM_ERR_INVALID)); }
  // Memory without a storage has no use to record, which would find out as well.
  tm_auto_tensor foreign = tm_from_borrowed(x.data, TM_SHAPE(10), TM_I32, x.device);
  TM_WITH_STREAM(adopted) {
    cr_expect(eq(int, tm_clear(&foreign), TM_ERR_INVALID));
    cr_expect(ne(ptr, (void*)strstr(tm_last_error()->message, "disowned"), NULL), "%s",
              tm_last_error()->message);
  }
}

Test(copy_device, returns_before_the_copy_is_done) {
  gate held;
  WITH_ALL() {
    tm_auto_tensor x = count_up(TM_SHAPE(100), TM_CPU_PINNED);
    tm_auto_tensor y = make(TM_SHAPE(100), TM_DEVICE);
    tm_auto_tensor back = make(TM_SHAPE(100), TM_CPU_PINNED);
    EXPECT_OK(tm_clear(&y));
    memset(back.data, 0xff, 400);
    ASSERT_OK(tm_stream_sync(stream));
    gate_close(&held, stream);
    EXPECT_OK(tm_copy(&x, &y));
    EXPECT_OK(tm_copy(&y, &back));
    bool done = true;
    EXPECT_OK(tm_stream_query(stream, &done));
    cr_expect(not(done));
    cr_expect(eq(int, value_at(&back, TM_INDEX(99)), -1));
    gate_open(&held);
    ASSERT_OK(tm_stream_sync(stream));
    cr_expect(eq(int, value_at(&back, TM_INDEX(99)), 99));
  }
}

Test(copy_device, pageable_memory_may_be_reused_when_the_copy_returns) {
  WITH_ALL() {
    tm_auto_tensor x = count_up(TM_SHAPE(1 << 16), TM_CPU);
    tm_auto_tensor y = make(TM_SHAPE(1 << 16), TM_DEVICE);
    EXPECT_OK(tm_copy(&x, &y));
    memset(x.data, 0, tm_byte_size(&x));
    tm_auto_tensor back = fetch(&y);
    cr_expect(eq(int, value_at(&back, TM_INDEX(65535)), 65535));
  }
}

Test(copy_device, to_pageable_memory_has_the_values_when_it_returns) {
  WITH_ALL() {
    tm_auto_tensor x = count_up(TM_SHAPE(1 << 16), TM_CPU);
    tm_auto_tensor y = make(TM_SHAPE(1 << 16), TM_DEVICE);
    tm_auto_tensor back = make(TM_SHAPE(1 << 16), TM_CPU);
    EXPECT_OK(tm_copy(&x, &y));
    EXPECT_OK(tm_copy(&y, &back));
    cr_expect(eq(int, value_at(&back, TM_INDEX(65535)), 65535));
  }
}

Test(copy_device, leaves_the_threads_current_device_alone) {
  machine_require_devices(2);
  cr_assert(eq(int, cudaSetDevice(1), cudaSuccess));
  WITH_ALL() {
    tm_auto_tensor x = count_up(TM_SHAPE(10), TM_CPU);
    tm_auto_tensor y = make(TM_SHAPE(10), TM_DEVICE);
    EXPECT_OK(tm_copy(&x, &y));
    EXPECT_OK(tm_clear(&y));
  }
  int device = -1;
  cr_assert(eq(int, cudaGetDevice(&device), cudaSuccess));
  cr_expect(eq(int, device, 1));
}

Test(copy_device, goes_from_one_device_to_another) {
  machine_require_devices(2);
  WITH_ALL() {
    tm_auto_tensor x = count_up(TM_SHAPE(40, 50), TM_CPU);
    tm_auto_tensor here = make(TM_SHAPE(40, 50), TM_DEVICE);
    tm_auto_tensor there = tm_empty_from(tm_cuda_allocator(1), TM_SHAPE(40, 50), TM_I32);
    EXPECT_OK(tm_copy(&x, &here));
    EXPECT_OK(tm_copy(&here, &there));
    EXPECT_OK(tm_clear(&here));
    EXPECT_OK(tm_copy(&there, &here));
    tm_auto_tensor back = fetch(&here);
    cr_expect(eq(int, memcmp(back.data, x.data, 8000), 0));
  }
}

Test(copy_device, refuses_overlapping_ranges) {
  WITH_ALL() {
    tm_auto_tensor x = make(TM_SHAPE(10), TM_DEVICE);
    tm_auto_tensor head = tm_slice_outer(&x, 0, 6);
    tm_auto_tensor tail = tm_slice_outer(&x, 4, 6);
    cr_expect(eq(int, tm_copy(&head, &tail), TM_ERR_INVALID));
  }
}

Test(copy_device, pointers_are_found_wherever_they_lie) {
  enum { COUNT = 100 };
  WITH_ALL() {
    tm_auto_tensor pinned = count_up(TM_SHAPE(COUNT), TM_CPU_PINNED);
    tm_auto_tensor device = make(TM_SHAPE(COUNT), TM_DEVICE);
    tm_auto_tensor second = make(TM_SHAPE(COUNT), TM_DEVICE);
    int32_t host[COUNT] = {0};
    int32_t* x = TM_DATA(int32_t, &device);
    int32_t* y = TM_DATA(int32_t, &second);
    cr_expect(eq(ptr, TM_COPY_N(TM_DATA(int32_t, &pinned), COUNT, x), x + COUNT), "%s",
              tm_last_error()->message);
    cr_expect(eq(ptr, TM_COPY_N(x + 50, 50, TM_COPY_N(x, 50, y)), y + COUNT));
    cr_expect(eq(ptr, TM_COPY_N(y + 10, 90, host), host + 90));
    ASSERT_OK(tm_stream_sync(stream));
    cr_expect(eq(int, memcmp(host, TM_DATA(int32_t, &pinned) + 10, 90 * sizeof *host), 0));
    cr_expect(eq(ptr, TM_COPY_N(host, 50, host + 50), host + COUNT));
    cr_expect(eq(int, host[50 + 7], 17));
    cr_expect(eq(ptr, TM_COPY_N(x, 60, x + 40), NULL));  // they overlap
    cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
    ASSERT_OK(tm_stream_sync(stream));
  }
  tm_auto_tensor device = tm_empty_from(pool, TM_SHAPE(4), TM_I32);
  int32_t host[4];
  cr_expect(eq(ptr, TM_COPY_N(TM_DATA(int32_t, &device), 4, host), NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_UNAVAILABLE));  // no current stream
}

Test(copy_device, buffers_and_fills) {
  WITH_ALL() {
    tm_auto_buffer x = tm_buffer_empty(1000, TM_U8, TM_CPU);
    tm_auto_buffer y = tm_buffer_empty(1000, TM_U8, TM_DEVICE);
    tm_auto_buffer back = tm_buffer_empty(1000, TM_U8, TM_CPU);
    memset(x.data, 9, 1000);
    EXPECT_OK(tm_buffer_copy(&x, &y));
    tm_auto_buffer half = tm_buffer_slice(&y, 0, 500);
    EXPECT_OK(tm_buffer_clear(&half));
    EXPECT_OK(tm_buffer_copy(&y, &back));
    ASSERT_OK(tm_stream_sync(stream));
    cr_expect(eq(int, TM_BUFFER_DATA(uint8_t, &back)[499], 0));
    cr_expect(eq(int, TM_BUFFER_DATA(uint8_t, &back)[500], 9));
  }
}

//===-- Streams -----------------------------------------------------------===//

// A pinned block goes back while a copy on another stream than its own still reads it: it must not
// be handed out again before that is done.
Test(copy_device, a_side_of_another_stream_records_the_copys) {
  tm_auto_stream other = tm_stream_create(0, 0);
  gate held;
  WITH_ALL() {
    tm_auto_tensor y = make(TM_SHAPE(1000), TM_DEVICE);
    tm_tensor x = count_up(TM_SHAPE(1000), TM_CPU_PINNED);
    void* const block = x.data;
    ASSERT_OK(tm_stream_sync(stream));
    gate_close(&held, other);
    TM_WITH_STREAM(other) { EXPECT_OK(tm_copy(&x, &y)); }
    tm_release(&x);
    tm_auto_tensor next = make(TM_SHAPE(1000), TM_CPU_PINNED);
    cr_expect(ne(ptr, next.data, block), "the block is taken while it is being read");
    memset(next.data, 0xff, 4000);
    gate_open(&held);
    ASSERT_OK(tm_stream_sync(other));
    tm_auto_tensor back = fetch(&y);
    cr_expect(eq(int, value_at(&back, TM_INDEX(999)), 999));
  }
}

// The stream is idle here when the copy is queued, so a record from before would be done at once.
// The copy takes milliseconds; an attempt in which it is done before the block is asked for shows
// nothing.
Test(copy_device, what_is_recorded_covers_the_copy_itself) {
  machine_require_threads();
  tm_auto_stream other = tm_stream_create(0, 0);
  const int64_t size = INT64_C(1) << 24;
  bool held = false;
  WITH_ALL() {
    tm_auto_tensor y = make(TM_SHAPE(size), TM_DEVICE);
    ASSERT_OK(tm_stream_sync(stream));
    for (int attempt = 0; attempt < 50 && !held; attempt++) {
      tm_tensor x = make(TM_SHAPE(size), TM_CPU_PINNED);
      void* const block = x.data;
      ASSERT_OK(tm_stream_sync(stream));
      TM_WITH_STREAM(other) { EXPECT_OK(tm_copy(&y, &x)); }
      tm_release(&x);
      tm_auto_tensor next = make(TM_SHAPE(size), TM_CPU_PINNED);
      held = next.data != block;
      ASSERT_OK(tm_stream_sync(other));
    }
  }
  cr_expect(held, "the block is taken while it is being written");
}

Test(copy_device, a_use_that_cannot_be_recorded_leaves_the_destination_as_it_was) {
  tm_auto_stream other = tm_stream_create(0, 0);
  WITH_ALL() {
    tm_auto_tensor x = make(TM_SHAPE(100), TM_DEVICE);
    tm_auto_tensor y = make(TM_SHAPE(100), TM_CPU_PINNED);
    EXPECT_OK(tm_fill_bytes(&x, 0x11));
    ASSERT_OK(tm_stream_sync(stream));
    memset(y.data, 0x22, 400);
    TM_WITH_STREAM(other) {
      for (int nth = 1; nth <= 2; nth++) {  // the source's use, the destination's
        tm_bookkeeping_fail_nth(nth);
        cr_expect(eq(int, tm_copy(&x, &y), TM_ERR_NO_MEMORY));
        tm_bookkeeping_fail_nth(0);
        ASSERT_OK(tm_stream_sync(other));
        cr_expect(eq(int, value_at(&y, TM_INDEX(99)), 0x22222222));
      }
      EXPECT_OK(tm_copy(&x, &y));
      ASSERT_OK(tm_stream_sync(other));
      cr_expect(eq(int, value_at(&y, TM_INDEX(99)), 0x11111111));
    }
  }
}

// The same for a device block of the pool, whose next owner writes on the pool's stream.
Test(copy_device, a_device_block_is_not_reused_under_a_copy_of_another_stream) {
  machine_require_calls_that_do_not_wait();
  tm_auto_stream other = tm_stream_create(0, 0);
  gate held;
  WITH_ALL() {
    tm_auto_tensor numbers = count_up(TM_SHAPE(1 << 18), TM_CPU);
    tm_auto_tensor seen = make(TM_SHAPE(1 << 18), TM_CPU_PINNED);
    tm_tensor x = make(TM_SHAPE(1 << 18), TM_DEVICE);
    void* const block = x.data;
    EXPECT_OK(tm_copy(&numbers, &x));
    ASSERT_OK(tm_stream_sync(stream));
    gate_close(&held, other);
    TM_WITH_STREAM(other) { EXPECT_OK(tm_copy(&x, &seen)); }
    tm_release(&x);
    tm_auto_tensor next = make(TM_SHAPE(1 << 18), TM_DEVICE);
    EXPECT_OK(tm_fill_bytes(&next, 0xff));
    if (machine_is_simulated()) {
      cr_expect(eq(ptr, next.data, block), "nothing is shown where another block is taken");
    }
    gate_open(&held);
    ASSERT_OK(tm_stream_sync(other));
    ASSERT_OK(tm_stream_sync(stream));
    cr_expect(eq(int, value_at(&seen, TM_INDEX((1 << 18) - 1)), (1 << 18) - 1));
  }
}

Test(copy_device, record_stream_holds_the_block_for_kernels_on_a_third_stream) {
  tm_auto_stream third = tm_stream_create(0, 0);
  gate held;
  WITH_ALL() {
    tm_tensor x = make(TM_SHAPE(1000), TM_CPU_PINNED);
    tm_tensor part = tm_slice_outer(&x, 10, 20);
    void* const block = x.data;
    gate_close(&held, third);
    EXPECT_OK(tm_record_stream(&part, third));
    tm_release(&x);
    tm_release(&part);
    tm_auto_tensor next = make(TM_SHAPE(1000), TM_CPU_PINNED);
    cr_expect(ne(ptr, next.data, block));
    gate_open(&held);
    ASSERT_OK(tm_stream_sync(third));
  }
}

//===-- Strided -----------------------------------------------------------===//

// Copies a part of host memory to a part of device memory and back, and looks at every element.
static void expect_round_trip(const char* host_layout, const char* device_layout) {
  tm_layout from;
  tm_layout to;
  ASSERT_OK(tm_layout_parse(host_layout, &from));
  ASSERT_OK(tm_layout_parse(device_layout, &to));
  tm_auto_buffer host = tm_buffer_empty(4096, TM_I32, TM_CPU);
  tm_auto_buffer back = tm_buffer_empty(4096, TM_I32, TM_CPU);
  tm_auto_buffer device = tm_buffer_empty(4096, TM_I32, TM_DEVICE);
  for (int i = 0; i < 4096; i++) {
    TM_BUFFER_DATA(int32_t, &host)[i] = i;
  }
  memset(back.data, 0xff, tm_buffer_byte_size(&back));
  tm_auto_tensor x = tm_from_buffer(&host, &from);
  tm_auto_tensor y = tm_from_buffer(&device, &to);
  tm_auto_tensor z = tm_from_buffer(&back, &from);
  cr_assert(tm_ok(&x) && tm_ok(&y) && tm_ok(&z), "%s", tm_last_error()->message);
  EXPECT_OK(tm_clear(&y));
  EXPECT_OK(tm_copy(&x, &y));
  EXPECT_OK(tm_copy(&y, &z));
  ASSERT_OK(tm_stream_sync(stream));
  tm_auto_tensor inside = tm_empty_from(tm_host_allocator(), tm_shape_of(&x), TM_I32);
  tm_auto_tensor outside = tm_empty_from(tm_host_allocator(), tm_shape_of(&x), TM_I32);
  EXPECT_OK(tm_copy(&x, &inside));
  EXPECT_OK(tm_copy(&z, &outside));
  cr_expect(eq(int, memcmp(inside.data, outside.data, tm_byte_size(&inside)), 0), "%s",
            host_layout);
  int64_t written = 0;
  for (int i = 0; i < 4096; i++) {
    written += TM_BUFFER_DATA(int32_t, &back)[i] != -1;
  }
  cr_expect(eq(i64, written, tm_size(&x)), "%s", host_layout);
}

Test(copy_device, layouts_that_are_one_memcpy) {
  WITH_ALL() {
    expect_round_trip("(20,50):(50,1)", "(20,50):(50,1)");
    expect_round_trip("(20,50):(64,1)", "(20,50):(50,1)");
    expect_round_trip("(20,50):(64,1)", "(20,50):(80,1)");
    expect_round_trip("(4,5,10):(200,20,1)", "(4,5,10):(50,10,1)");
    expect_round_trip("(4,5,10):(240,20,1)", "(4,5,10):(300,30,1)");
    expect_round_trip("(4,5,10):(50,10,1)", "(4,5,10):(280,20,1)");
    expect_round_trip("(50,20):(1,50)", "(50,20):(1,64)");  // both turned
    expect_round_trip("(30):(3)", "(30):(5)");  // elements one by one, in rows of 4 bytes
    expect_round_trip("(3,1,7,5):(70,9,10,1)", "(3,1,7,5):(35,1,5,1)");
    expect_round_trip("():()", "():()");
  }
}

Test(copy_device, layouts_that_are_several_memcpys) {
  WITH_ALL() {
    expect_round_trip("(20,50):(1,20)", "(20,50):(50,1)");                   // a transposition
    expect_round_trip("(2,3,4,5):(500,100,12,1)", "(2,3,4,5):(60,20,5,1)");  // three loops
    expect_round_trip("(4,5,10):(205,20,1)", "(4,5,10):(50,10,1)");          // planes between rows
    expect_round_trip("(2,3,4,5):(60,20,5,1)", "(2,3,4,5):(1,2,6,24)");      // all turned round
  }
}

Test(copy_device, fills_of_parts_touch_nothing_else) {
  static const char* const layouts[] = {"(1000):(1)", "(20,30):(40,1)", "(3,4,5):(200,20,1)"};
  WITH_ALL() {
    for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++) {
      tm_layout layout;
      ASSERT_OK(tm_layout_parse(layouts[i], &layout));
      tm_auto_buffer device = tm_buffer_empty(1000, TM_I32, TM_DEVICE);
      tm_auto_buffer host = tm_buffer_empty(1000, TM_I32, TM_CPU);
      tm_auto_tensor part = tm_from_buffer(&device, &layout);
      EXPECT_OK(tm_buffer_clear(&device));
      EXPECT_OK(tm_fill_bytes(&part, 0xff));
      EXPECT_OK(tm_buffer_copy(&device, &host));
      ASSERT_OK(tm_stream_sync(stream));
      tm_auto_tensor seen = tm_from_buffer(&host, &layout);
      tm_auto_tensor packed = tm_empty_from(tm_host_allocator(), tm_shape_of(&seen), TM_I32);
      EXPECT_OK(tm_copy(&seen, &packed));
      int64_t inside = 0;
      int64_t everywhere = 0;
      for (int64_t n = 0; n < tm_size(&packed); n++) {
        inside += TM_DATA(int32_t, &packed)[n] == -1;
      }
      for (int64_t n = 0; n < 1000; n++) {
        everywhere += TM_BUFFER_DATA(int32_t, &host)[n] == -1;
      }
      cr_expect(eq(i64, inside, tm_size(&seen)), "%s", layouts[i]);
      cr_expect(eq(i64, everywhere, tm_size(&seen)), "%s", layouts[i]);
    }
  }
}

//===-- Failures ----------------------------------------------------------===//

Test(copy_device, a_runtime_failure_keeps_cudas_name_and_leaves_no_error_behind) {
  WITH_ALL() {
    tm_auto_tensor x = count_up(TM_SHAPE(10), TM_CPU);
    tm_auto_tensor y = make(TM_SHAPE(10), TM_DEVICE);
    machine_fail("cudaMemcpyAsync", 1, 1, cudaErrorInvalidValue);
    cr_expect(eq(int, tm_copy(&x, &y), TM_ERR_CUDA));
    cr_expect(ne(ptr, (void*)strstr(tm_last_error()->message, "cudaErrorInvalidValue"), NULL));
    cr_expect(ne(ptr, (void*)strstr(tm_last_error()->message, "cudaMemcpyAsync"), NULL));
    cr_expect(eq(int, cudaGetLastError(), cudaSuccess));
    EXPECT_OK(tm_copy(&x, &y));
  }
}

Test(copy_device, a_lost_device_is_said_to_be_lost) {
  WITH_ALL() {
    tm_auto_tensor x = count_up(TM_SHAPE(10), TM_CPU);
    tm_auto_tensor y = make(TM_SHAPE(10), TM_DEVICE);
    machine_break_device(0, cudaErrorIllegalAddress);
    cr_expect(eq(int, tm_copy(&x, &y), TM_ERR_DEVICE_LOST));
    cr_expect(eq(int, tm_clear(&y), TM_ERR_DEVICE_LOST));
    tm_auto_tensor z = make(TM_SHAPE(10), TM_CPU);
    EXPECT_OK(tm_copy(&x, &z));
  }
}

static tm_status copy_around(tm_allocator* upstream) {
  tm_auto_stream earlier = tm_stream_create(0, 0);
  tm_auto_stream later = tm_stream_create(0, 0);
  if (!earlier || !later) {
    return tm_last_status();
  }
  tm_allocator* const device = tm_cuda_allocator(0);
  if (!device) {
    return tm_last_status();
  }
  TM_USE_ALLOCATOR(upstream);
  TM_USE_ALLOCATOR(device);
  TM_USE_ALLOCATOR(tm_pinned_allocator());
  TM_USE_STREAM(earlier);
  TM_TRY_TENSOR(host, tm_empty(TM_SHAPE(8, 16), TM_F32, TM_CPU));
  TM_TRY_TENSOR(pinned, tm_empty(TM_SHAPE(8, 16), TM_F32, TM_CPU_PINNED));
  TM_TRY_TENSOR(x, tm_empty(TM_SHAPE(8, 16), TM_F32, TM_DEVICE));
  TM_TRY_TENSOR(part, tm_slice(&x, TM_INDEX(0, 4), TM_INDEX(-1, 8)));
  TM_TRY_TENSOR(narrow, tm_empty(TM_SHAPE(8, 8), TM_F32, TM_CPU));
  TM_TRY(tm_clear(&host));
  TM_TRY(tm_copy(&host, &pinned));
  TM_TRY(tm_copy(&pinned, &x));
  TM_TRY(tm_copy(&part, &narrow));
  TM_TRY(tm_fill_bytes(&part, 1));
  TM_USE_STREAM(later);
  TM_TRY(tm_stream_wait_stream(later, earlier));
  TM_TRY(tm_copy(&x, &pinned));
  TM_TRY(tm_stream_sync(later));
  return TM_OK;
}

Test(copy_device, survives_every_failure) { expect_survives_every_failure_or_retries(copy_around); }

Test(copy_device, survives_every_cuda_failure) { expect_survives_every_cuda_failure(copy_around); }
