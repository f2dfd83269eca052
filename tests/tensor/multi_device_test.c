// Tensors on several devices: where the context puts them, and copies between them.

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <cuda_runtime_api.h>

#include "tests/support/machine.h"
#include "tm/alloc/cuda.h"
#include "tm/alloc/cuda_pool.h"
#include "tm/alloc/host.h"
#include "tm/alloc/stack.h"
#include "tm/alloc/stream.h"
#include "tm/context/context.h"
#include "tm/tensor/copy.h"

enum { DEVICES = 8 };

#define EXPECT_OK(call) cr_expect(eq(int, (call), TM_OK), "%s", tm_last_error()->message)
#define ASSERT_OK(call) cr_assert(eq(int, (call), TM_OK), "%s", tm_last_error()->message)

static tm_stream* streams[DEVICES];
static tm_allocator* pools[DEVICES];
static tm_allocator* stacks[DEVICES];

static void setup(int devices) {
  machine_configure(devices, "256MiB");
  machine_require_devices(devices);
  for (int id = 0; id < devices; id++) {
    streams[id] = tm_stream_create(id, 0);
    pools[id] = streams[id] ? tm_cuda_pool_allocator_create(streams[id], NULL) : NULL;
    stacks[id] = pools[id] ? tm_stack_allocator_create(pools[id], NULL, NULL) : NULL;
    cr_assert(stacks[id] != NULL, "%s", tm_last_error()->message);
  }
}

static void finish(void) {
  for (int id = 0; id < DEVICES; id++) {
    tm_allocator_release(stacks[id]);
    tm_allocator_release(pools[id]);
    tm_stream_release(streams[id]);
  }
}

TestSuite(multi_device_tensors, .fini = finish);

static tm_device device_at(int id) { return tm_device_make(TM_DEVICE, id); }

//===-- Lookup ----------------------------------------------------------------------===//

static int device_of(const tm_tensor* tensor) {
  struct cudaPointerAttributes attributes;
  cr_assert(eq(int, cudaPointerGetAttributes(&attributes, tensor->data), cudaSuccess));
  return attributes.device;
}

static void expect_made_on(tm_tensor made, int id) {
  tm_auto_tensor tensor = made;
  cr_assert(tm_ok(&tensor), "%s", tm_last_error()->message);
  cr_expect(tm_device_equal(tm_device_of(&tensor), device_at(id)));
  cr_expect(eq(int, device_of(&tensor), id));
}

// What is current on each device after the pushes of `order`.
static void expect_innermost(tm_allocator* const* pushed, const int* order, int count) {
  expect_made_on(tm_empty(TM_SHAPE(5), TM_F32, TM_DEVICE), order[count - 1]);
  for (int id = 0; id < DEVICES; id++) {
    int last = count - 1;
    while (last >= 0 && order[last] != id) {
      last--;
    }
    tm_allocator* expected = last < 0 ? NULL : pushed[last];
    cr_expect(eq(ptr, tm_current_allocator_on(device_at(id)), expected), "device %d", id);
    if (expected) {
      expect_made_on(tm_empty_on(TM_SHAPE(5), TM_F32, device_at(id)), id);
    } else {
      tm_auto_tensor none = tm_empty_on(TM_SHAPE(5), TM_F32, device_at(id));
      cr_expect(not(tm_ok(&none)));
      cr_expect(eq(int, tm_last_status(), TM_ERR_UNAVAILABLE));
    }
  }
}

Test(multi_device_tensors, come_from_the_innermost_or_from_the_device_named) {
  static const int order[] = {0, 3, 1, 2, 3, 7, 6, 0, 5, 4, 4, 1};
  enum { PUSHES = sizeof order / sizeof *order };
  setup(DEVICES);
  tm_frame frames[PUSHES];
  tm_allocator* pushed[PUSHES];
  for (int i = 0; i < PUSHES; i++) {
    pushed[i] = i % 2 ? stacks[order[i]] : pools[order[i]];
    tm_push_allocator(&frames[i], pushed[i]);
    expect_innermost(pushed, order, i + 1);
  }
  for (int i = PUSHES - 1; i > 0; i--) {
    tm_pop(&frames[i]);
    expect_innermost(pushed, order, i);
  }
  tm_pop(&frames[0]);
  cr_expect(eq(ptr, tm_current_allocator(TM_DEVICE), NULL));
}

//===-- Copies ----------------------------------------------------------------------===//

static tm_allocator* allocator_of(int kind, int id) {
  switch (kind) {
    case 0:
      return tm_cuda_allocator(id);
    case 1:
      return pools[id];
    default:
      return stacks[id];
  }
}

static tm_tensor make_from(tm_allocator* allocator) {
  tm_tensor tensor = tm_empty_from(allocator, TM_SHAPE(6, 8, 10), TM_I32);
  cr_assert(tm_ok(&tensor), "%s", tm_last_error()->message);
  return tensor;
}

// Parts that take no loop of rows, one and two.
static tm_tensor part_of(const tm_tensor* tensor, int rank) {
  switch (rank) {
    case 0:
      return tm_slice_outer(tensor, 1, 3);
    case 1:
      return tm_slice(tensor, TM_INDEX(1, 0, 2), TM_INDEX(3, -1, 5));
    default:
      return tm_slice(tensor, TM_INDEX(1, 2, 2), TM_INDEX(3, 4, 5));
  }
}

static void sync_all(int devices) {
  for (int id = 0; id < devices; id++) {
    ASSERT_OK(tm_stream_sync(streams[id]));
  }
}

static int wrong_values(const tm_tensor* result, const tm_tensor* expected) {
  int wrong = 0;
  for (int64_t i = 0; i < tm_size(result); i++) {
    wrong += TM_DATA(int32_t, result)[i] != TM_DATA(int32_t, expected)[i];
  }
  return wrong;
}

// Counts up on `from`, copies a part to a cleared tensor on `to`, and compares with the same done
// on the host.
static void copy_part(int kind, int rank, int from, int to, int on) {
  tm_auto_tensor numbers = make_from(tm_host_allocator());
  tm_auto_tensor expected = make_from(tm_host_allocator());
  tm_auto_tensor result = make_from(tm_host_allocator());
  for (int64_t i = 0; i < tm_size(&numbers); i++) {
    TM_DATA(int32_t, &numbers)[i] = (int32_t)i;
  }
  tm_auto_tensor source = make_from(allocator_of(kind, from));
  tm_auto_tensor target = make_from(allocator_of(kind, to));
  TM_WITH_STREAM(streams[from]) ASSERT_OK(tm_copy(&numbers, &source));
  TM_WITH_STREAM(streams[to]) ASSERT_OK(tm_clear(&target));
  sync_all(2);
  tm_auto_tensor source_part = part_of(&source, rank);
  tm_auto_tensor target_part = part_of(&target, rank);
  TM_WITH_STREAM(streams[on]) ASSERT_OK(tm_copy(&source_part, &target_part));
  sync_all(2);
  TM_WITH_STREAM(streams[to]) ASSERT_OK(tm_copy(&target, &result));
  sync_all(2);
  tm_auto_tensor numbers_part = part_of(&numbers, rank);
  tm_auto_tensor expected_part = part_of(&expected, rank);
  ASSERT_OK(tm_clear(&expected));
  ASSERT_OK(tm_copy(&numbers_part, &expected_part));
  cr_expect(eq(int, wrong_values(&result, &expected), 0),
            "memory %d, %d loops, from %d to %d on a stream of %d", kind, rank, from, to, on);
}

Test(multi_device_tensors, are_copied_between_devices_whatever_is_current) {
  setup(2);
  for (int kind = 0; kind < 3; kind++) {
    for (int rank = 0; rank < 3; rank++) {
      for (int bits = 0; bits < 16; bits++) {
        cr_assert(eq(int, cudaSetDevice(bits >> 3), cudaSuccess));
        copy_part(kind, rank, bits & 1, bits >> 1 & 1, bits >> 2 & 1);
        int current = -1;
        cr_assert(eq(int, cudaGetDevice(&current), cudaSuccess));
        cr_expect(eq(int, current, bits >> 3));
      }
    }
  }
}

// The other calls do not reach the pools of another device: cudaErrorInvalidValue on an H100.
Test(multi_device_tensors, are_copied_between_devices_by_peer_calls) {
  setup(2);
  tm_auto_tensor here = make_from(pools[0]);
  tm_auto_tensor there = make_from(pools[1]);
  sync_all(2);  // the allocation there comes before the copies here
  machine_fail("cudaMemcpyAsync", 1, 0, cudaErrorInvalidValue);
  machine_fail("cudaMemcpy2DAsync", 1, 0, cudaErrorInvalidValue);
  machine_fail("cudaMemcpy3DAsync", 1, 0, cudaErrorInvalidValue);
  TM_WITH_STREAM(streams[0]) {
    for (int rank = 0; rank < 3; rank++) {
      tm_auto_tensor from = part_of(&here, rank);
      tm_auto_tensor to = part_of(&there, rank);
      EXPECT_OK(tm_copy(&from, &to));
      EXPECT_OK(tm_copy(&to, &from));
    }
  }
  machine_fail_nothing();
  sync_all(2);
}

// It works for some memory only, and on real machines only: never is better than that.
Test(multi_device_tensors, are_filled_read_and_written_on_a_stream_of_their_own_device) {
  setup(2);
  tm_auto_tensor host = make_from(tm_host_allocator());
  tm_auto_tensor there = make_from(pools[1]);
  TM_WITH_STREAM(streams[0]) {
    cr_expect(eq(int, tm_clear(&there), TM_ERR_INVALID));
    cr_expect(eq(int, tm_copy(&host, &there), TM_ERR_INVALID));
    cr_expect(eq(int, tm_copy(&there, &host), TM_ERR_INVALID), "%s", tm_last_error()->message);
  }
  TM_WITH_STREAM(streams[1]) EXPECT_OK(tm_clear(&there));
  sync_all(2);
}

//===-- A lost device ---------------------------------------------------------------===//

Test(multi_device_tensors, of_a_lost_device_leave_the_others_alone) {
  setup(2);
  tm_auto_tensor here = make_from(pools[0]);
  tm_tensor there = make_from(pools[1]);
  machine_break_device(1, cudaErrorIllegalAddress);
  cr_expect(eq(int, tm_device_sync(1), TM_ERR_DEVICE_LOST));
  cr_assert(eq(int, cudaSetDevice(1), cudaSuccess));
  TM_WITH_STREAM(streams[0]) {
    cr_expect(eq(int, tm_copy(&here, &there), TM_ERR_DEVICE_LOST));
    cr_expect(eq(int, tm_copy(&there, &here), TM_ERR_DEVICE_LOST));
    EXPECT_OK(tm_clear(&here));
    tm_release(&there);
    tm_auto_tensor host = make_from(tm_host_allocator());
    EXPECT_OK(tm_copy(&here, &host));
    ASSERT_OK(tm_stream_sync(streams[0]));
    cr_expect(eq(int, TM_DATA(int32_t, &host)[479], 0));
  }
}
