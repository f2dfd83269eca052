// Batches of copies: the result is that of the copies one after another, whatever they depend on.

#include "tm/tensor/batch_copy.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/support/expect_fatal.h"
#include "tests/support/failing.h"
#include "tests/support/gate.h"
#include "tests/support/machine.h"
#include "tm/alloc/bookkeeping.h"
#include "tm/alloc/cuda.h"
#include "tm/alloc/cuda_pool.h"
#include "tm/alloc/host.h"
#include "tm/alloc/pinned.h"
#include "tm/alloc/stream.h"
#include "tm/context/context.h"
#include "tm/tensor/copy.h"
#include "tm/tensor/dry.h"

static tm_stream* stream;
static tm_allocator* pool;
static tm_batch_copy* batch;

static void setup(void) {
  machine_configure(2, "256MiB");
  machine_require_devices(1);
  stream = tm_stream_create(0, 0);
  pool = stream ? tm_cuda_pool_allocator_create(stream, NULL) : NULL;
  batch = tm_batch_copy_create();
  cr_assert(pool != NULL && batch != NULL, "%s", tm_last_error()->message);
}

static void finish(void) {
  tm_batch_copy_release(batch);
  tm_allocator_release(pool);
  tm_stream_release(stream);
}

TestSuite(batch_copy, .init = setup, .fini = finish);

#define EXPECT_OK(call) cr_expect(eq(int, (call), TM_OK), "%s", tm_last_error()->message)
#define ASSERT_OK(call) cr_assert(eq(int, (call), TM_OK), "%s", tm_last_error()->message)
#define EXPECT_SAYS(text) \
  cr_expect(strstr(tm_last_error()->message, (text)) != NULL, "%s", tm_last_error()->message)

#define WITH_ALL()        \
  TM_WITH_STREAM(stream)  \
  TM_WITH_ALLOCATOR(pool) \
  TM_WITH_ALLOCATOR(tm_pinned_allocator())

static tm_tensor make(int64_t bytes, tm_device_type type) {
  tm_tensor tensor = tm_empty(TM_SHAPE(bytes), TM_U8, type);
  cr_assert(tm_ok(&tensor), "%s", tm_last_error()->message);
  return tensor;
}

static tm_tensor count_up(int64_t bytes, tm_device_type type) {
  tm_tensor tensor = make(bytes, type);
  for (int64_t i = 0; i < bytes; i++) {
    TM_DATA(uint8_t, &tensor)[i] = (uint8_t)i;
  }
  return tensor;
}

// What is in a tensor, wherever it is.
static void fetch(const tm_tensor* tensor, uint8_t* out) {
  tm_auto_tensor host =
      tm_from_borrowed(out, TM_SHAPE(tm_size(tensor)), TM_U8, tm_device_make(TM_CPU, 0));
  ASSERT_OK(tm_copy(tensor, &host));
  ASSERT_OK(tm_stream_sync(stream));
}

static tm_status add_slice(const tm_tensor* source, int64_t from, const tm_tensor* destination,
                           int64_t to, int64_t bytes) {
  tm_auto_tensor x = tm_slice_outer(source, from, bytes);
  tm_auto_tensor y = tm_slice_outer(destination, to, bytes);
  return tm_batch_copy_add(batch, &x, &y);
}

// The same through buffers, where bytes are elements.
static tm_status add_part_of(tm_batch_copy* to, const tm_buffer* source, int64_t from,
                             const tm_buffer* destination, int64_t there, int64_t count) {
  tm_auto_buffer x = tm_buffer_slice(source, from, count);
  tm_auto_buffer y = tm_buffer_slice(destination, there, count);
  return tm_batch_copy_add_buffer(to, &x, &y);
}

static uint64_t calls_made(void) { return tm_batch_copy_counted(batch).calls; }

//===-- One call ----------------------------------------------------------===//

Test(batch_copy, pieces_of_every_kind_are_one_call) {
  static const tm_device_type types[] = {TM_CPU, TM_CPU_PINNED, TM_DEVICE};
  WITH_ALL() {
    tm_auto_tensor on_device = make(256, TM_DEVICE);
    tm_auto_tensor numbers = count_up(256, TM_CPU);
    EXPECT_OK(tm_copy(&numbers, &on_device));
    ASSERT_OK(tm_stream_sync(stream));
    tm_tensor to[9];
    for (int i = 0; i < 9; i++) {
      to[i] = make(100, types[i % 3]);
      tm_auto_tensor from = types[i / 3] == TM_DEVICE ? tm_slice_outer(&on_device, i, 100)
                                                      : count_up(100, types[i / 3]);
      EXPECT_OK(tm_batch_copy_add(batch, &from, &to[i]));  // which keeps `from`
    }
    cr_expect(eq(sz, tm_batch_copy_size(batch), 9));
    EXPECT_OK(tm_batch_copy_run(batch));
    cr_expect(eq(sz, tm_batch_copy_size(batch), 0));
    ASSERT_OK(tm_stream_sync(stream));
    const tm_batch_copy_counts counts = tm_batch_copy_counted(batch);
    cr_expect(eq(u64, counts.added, 9));
    cr_expect(eq(u64, counts.pieces, 9));
    cr_expect(eq(u64, counts.calls, 1));
    for (int i = 0; i < 9; i++) {
      uint8_t seen[100];
      fetch(&to[i], seen);
      cr_expect(seen[99] == (i / 3 == 2 ? 99 + i : 99), "%d: %d", i, seen[99]);
      tm_release(&to[i]);
    }
  }
}

Test(batch_copy, a_batch_of_the_host_needs_no_stream_and_no_call) {
  tm_auto_tensor x = count_up(100, TM_CPU);
  tm_auto_tensor y = make(100, TM_CPU);
  tm_auto_tensor z = make(100, TM_CPU);
  EXPECT_OK(tm_batch_copy_add(batch, &x, &y));
  EXPECT_OK(tm_batch_copy_add(batch, &y, &z));  // in the order of adding
  EXPECT_OK(tm_batch_copy_run(batch));
  cr_expect(eq(int, TM_DATA(uint8_t, &z)[99], 99));
  cr_expect(eq(u64, calls_made(), 0));
  EXPECT_OK(tm_batch_copy_run(batch));  // nothing waits
}

Test(batch_copy, without_a_stream_is_unavailable_and_keeps_its_copies) {
  tm_auto_tensor x = tm_empty_from(pool, TM_SHAPE(100), TM_U8);
  tm_auto_tensor host = count_up(100, TM_CPU);
  tm_auto_tensor other = make(100, TM_CPU);
  memset(other.data, 0xff, 100);
  EXPECT_OK(tm_batch_copy_add(batch, &host, &other));
  EXPECT_OK(tm_batch_copy_add(batch, &host, &x));
  cr_expect(eq(int, tm_batch_copy_run(batch), TM_ERR_UNAVAILABLE));
  cr_expect(eq(sz, tm_batch_copy_size(batch), 2));
  cr_expect(eq(int, TM_DATA(uint8_t, &other)[5], 0xff), "the host's part was done");
  TM_WITH_STREAM(stream) { EXPECT_OK(tm_batch_copy_run(batch)); }
  cr_expect(eq(int, TM_DATA(uint8_t, &other)[5], 5));
  ASSERT_OK(tm_stream_sync(stream));
}

Test(batch_copy, pageable_memory_may_be_changed_when_it_returns) {
  WITH_ALL() {
    tm_auto_tensor x = count_up(4096, TM_CPU);
    tm_auto_tensor y = make(4096, TM_DEVICE);
    gate held;
    ASSERT_OK(tm_stream_sync(stream));
    EXPECT_OK(add_slice(&x, 0, &y, 0, 2048));
    EXPECT_OK(add_slice(&x, 2048, &y, 2048, 2048));
    // A real driver may read the memory in the stream's order, and wait for that.
    if (machine_is_simulated()) gate_close(&held, stream);
    EXPECT_OK(tm_batch_copy_run(batch));
    memset(x.data, 0xff, 4096);
    if (machine_is_simulated()) gate_open(&held);
    uint8_t seen[4096];
    fetch(&y, seen);
    cr_expect(eq(int, seen[4095], 255));
    cr_expect(eq(int, seen[4094], 254));
  }
}

Test(batch_copy, strided_copies_are_pieces) {
  WITH_ALL() {
    tm_auto_tensor x = tm_empty(TM_SHAPE(10, 8), TM_U8, TM_CPU_PINNED);
    for (int i = 0; i < 80; i++) TM_DATA(uint8_t, &x)[i] = (uint8_t)i;
    tm_auto_tensor y = tm_empty(TM_SHAPE(10, 3), TM_U8, TM_DEVICE);
    tm_auto_tensor columns = tm_slice(&x, TM_INDEX(0, 2), TM_INDEX(-1, 3));
    EXPECT_OK(tm_batch_copy_add(batch, &columns, &y));
    cr_expect(eq(sz, tm_batch_copy_size(batch), 10));
    EXPECT_OK(tm_batch_copy_run(batch));
    cr_expect(eq(u64, tm_batch_copy_counted(batch).added, 1));
    cr_expect(eq(u64, calls_made(), 1));
    tm_auto_tensor flat = tm_view(&y, TM_SHAPE(30));
    uint8_t seen[30];
    fetch(&flat, seen);
    for (int i = 0; i < 30; i++) cr_expect(seen[i] == i / 3 * 8 + 2 + i % 3, "%d", i);

    tm_auto_tensor turned = tm_empty(TM_SHAPE(8, 10), TM_U8, TM_DEVICE);
    tm_auto_tensor t = tm_t(&x);
    EXPECT_OK(tm_batch_copy_add(batch, &t, &turned));  // every element a piece
    cr_expect(eq(sz, tm_batch_copy_size(batch), 80));
    EXPECT_OK(tm_batch_copy_run(batch));
    tm_auto_tensor turned_flat = tm_view(&turned, TM_SHAPE(80));
    uint8_t all[80];
    fetch(&turned_flat, all);
    for (int i = 0; i < 80; i++) cr_expect(all[i] == i % 10 * 8 + i / 10, "%d", i);
  }
}

Test(batch_copy, buffers_and_pointers) {
  WITH_ALL() {
    tm_auto_buffer x = tm_buffer_empty(100, TM_I32, TM_CPU);
    tm_auto_buffer y = tm_buffer_empty(100, TM_I32, TM_DEVICE);
    int32_t back[100] = {0};
    for (int i = 0; i < 100; i++) TM_BUFFER_DATA(int32_t, &x)[i] = i;
    EXPECT_OK(tm_batch_copy_add_buffer(batch, &x, &y));
    EXPECT_OK(tm_batch_copy_run(batch));
    int32_t* data = TM_BUFFER_DATA(int32_t, &y);
    int32_t* end = TM_BATCH_COPY_ADD_N(batch, data, 60, back);
    cr_expect(eq(ptr, end, back + 60));
    cr_expect(eq(ptr, TM_BATCH_COPY_ADD_N(batch, data + 60, 40, end), back + 100));
    cr_expect(eq(ptr, TM_BATCH_COPY_ADD_N(batch, data, 0, back), back));
    cr_expect(eq(sz, tm_batch_copy_size(batch), 2));
    EXPECT_OK(tm_batch_copy_run(batch));
    ASSERT_OK(tm_stream_sync(stream));
    cr_expect(eq(int, memcmp(back, x.data, sizeof back), 0));
    memset(back, 0, sizeof back);
    EXPECT_OK(tm_batch_copy_add_buffer_n(batch, &x, 10, &y));
    EXPECT_OK(tm_batch_copy_add_buffer_n(batch, &x, 0, &y));
    EXPECT_OK(tm_batch_copy_run(batch));
    cr_expect(eq(int, tm_batch_copy_add_buffer_n(batch, &x, 101, &y), TM_ERR_OUT_OF_RANGE));
    cr_expect(eq(int, tm_batch_copy_add_buffer_n(batch, &x, -4, &y), TM_ERR_INVALID));
    cr_expect(eq(ptr, TM_BATCH_COPY_ADD_N(batch, data, -4, back), NULL));
    cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
    cr_expect(eq(ptr, TM_BATCH_COPY_ADD_N(batch, data, INT64_MAX, back), NULL));
    cr_expect(eq(int, tm_last_status(), TM_ERR_OVERFLOW));
    cr_expect(eq(ptr, TM_BATCH_COPY_ADD_N(batch, (int32_t*)NULL, 1, back), NULL));
    cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
    cr_expect(eq(ptr, TM_BATCH_COPY_ADD_N(batch, data, 60, data + 40), NULL), "they overlap");
    cr_expect(eq(sz, tm_batch_copy_size(batch), 0));
  }
}

Test(batch_copy, refuses_what_no_copy_can_be) {
  tm_auto_tensor x = count_up(100, TM_CPU);
  tm_auto_tensor y = make(50, TM_CPU);
  tm_auto_tensor head = tm_slice_outer(&x, 0, 50);
  tm_auto_tensor middle = tm_slice_outer(&x, 25, 50);
  tm_auto_tensor none = tm_null();
  tm_auto_tensor empty = make(0, TM_CPU);
  tm_auto_tensor other = tm_empty(TM_SHAPE(50), TM_I8, TM_CPU);
  cr_expect(eq(int, tm_batch_copy_add(batch, &x, &y), TM_ERR_INVALID));
  cr_expect(eq(int, tm_batch_copy_add(batch, &head, &other), TM_ERR_INVALID));
  cr_expect(eq(int, tm_batch_copy_add(batch, &head, &middle), TM_ERR_INVALID));
  cr_expect(eq(int, tm_batch_copy_add(batch, &none, &y), TM_ERR_INVALID));
  cr_expect(eq(int, tm_batch_copy_add(batch, &head, &none), TM_ERR_INVALID));
  EXPECT_OK(tm_batch_copy_add(batch, &empty, &empty));
  cr_expect(eq(sz, tm_batch_copy_size(batch), 0));
}

Test(batch_copy, no_batch_is_an_error_everywhere) {
  tm_auto_tensor x = count_up(10, TM_CPU);
  tm_auto_tensor y = make(10, TM_CPU);
  uint8_t to[10];
  tm_clear_error();
  cr_expect(eq(int, tm_batch_copy_add(NULL, &x, &y), TM_ERR_INVALID));
  cr_expect(eq(int, tm_batch_copy_run(NULL), TM_ERR_INVALID));
  cr_expect(eq(int, tm_batch_copy_begin_group(NULL), TM_ERR_INVALID));
  cr_expect(eq(int, tm_batch_copy_end_group(NULL), TM_ERR_INVALID));
  cr_expect(eq(ptr, TM_BATCH_COPY_ADD_N(NULL, TM_DATA(uint8_t, &x), 10, to), NULL));
  cr_expect(eq(sz, tm_batch_copy_size(NULL), 0));
  cr_expect(eq(u64, tm_batch_copy_counted(NULL).calls, 0));
  tm_batch_copy_clear(NULL);
  tm_batch_copy_release(NULL);
}

Test(batch_copy, clear_drops_what_waits) {
  tm_auto_tensor x = count_up(10, TM_CPU);
  tm_auto_tensor y = make(10, TM_CPU);
  memset(y.data, 7, 10);
  EXPECT_OK(tm_batch_copy_add(batch, &x, &y));
  cr_expect(eq(int, y.storage->references, 2), "the batch keeps what it copies to");
  tm_batch_copy_clear(batch);
  cr_expect(eq(int, y.storage->references, 1));
  EXPECT_OK(tm_batch_copy_run(batch));
  cr_expect(eq(int, TM_DATA(uint8_t, &y)[9], 7));
}

Test(batch_copy, running_the_same_sizes_again_takes_no_memory) {
  WITH_ALL() {
    tm_auto_tensor x = count_up(100, TM_CPU_PINNED);
    tm_auto_tensor y = make(100, TM_DEVICE);
    uint64_t before = 0;
    for (int round = 0; round < 3; round++) {
      before = tm_bookkeeping_calls();
      for (int64_t i = 0; i < 50; i++) EXPECT_OK(add_slice(&x, 2 * i, &y, 2 * (49 - i), 2));
      EXPECT_OK(tm_batch_copy_run(batch));
    }
    cr_expect(eq(u64, tm_bookkeeping_calls(), before));
    cr_expect(eq(u64, calls_made(), 3));
    ASSERT_OK(tm_stream_sync(stream));
  }
}

Test(batch_copy, dry_memory_is_counted_and_not_touched) {
  tm_auto_tensor x = make(100, TM_CPU);
  memset(x.data, 0xff, 100);
  x.storage->flags |= TM_STORAGE_DRY_;
  tm_auto_tensor y = count_up(100, TM_CPU);
  const tm_dry_counts before = tm_dry_counted();
  EXPECT_OK(tm_batch_copy_add(batch, &y, &x));
  EXPECT_OK(tm_batch_copy_add(batch, &x, &y));
  cr_expect(eq(u64, tm_dry_counted().operations, before.operations));
  EXPECT_OK(tm_batch_copy_run(batch));  // without a stream
  cr_expect(eq(u64, tm_dry_counted().operations, before.operations + 2));
  cr_expect(eq(u64, tm_dry_counted().bytes, before.bytes + 200));
  cr_expect(eq(int, TM_DATA(uint8_t, &y)[99], 99));
  EXPECT_OK(tm_batch_copy_run(batch));
  cr_expect(eq(u64, tm_dry_counted().operations, before.operations + 2));
  x.storage->flags &= ~(uint32_t)TM_STORAGE_DRY_;
  cr_expect(eq(int, TM_DATA(uint8_t, &x)[99], 0xff));
}

//===-- Groups ------------------------------------------------------------===//

Test(batch_copy, a_group_merges_what_continues_and_only_that) {
  tm_auto_tensor x = count_up(100, TM_CPU);
  tm_auto_tensor y = make(100, TM_CPU);
  TM_WITH_COPY_GROUP(batch) {
    EXPECT_OK(add_slice(&x, 0, &y, 10, 5));
    EXPECT_OK(add_slice(&x, 5, &y, 15, 5));   // continues
    EXPECT_OK(add_slice(&x, 10, &y, 20, 5));  // continues
    cr_expect(eq(sz, tm_batch_copy_size(batch), 1));
    EXPECT_OK(add_slice(&x, 15, &y, 26, 5));  // a gap at the destination
    EXPECT_OK(add_slice(&x, 21, &y, 31, 5));  // a gap at the source
    EXPECT_OK(add_slice(&x, 16, &y, 26, 5));  // backwards
    cr_expect(eq(sz, tm_batch_copy_size(batch), 4));
  }
  EXPECT_OK(add_slice(&x, 21, &y, 31, 5));  // would continue, but no group is open
  EXPECT_OK(add_slice(&x, 26, &y, 36, 5));
  cr_expect(eq(sz, tm_batch_copy_size(batch), 6));
  TM_WITH_COPY_GROUP(batch) {
    EXPECT_OK(add_slice(&x, 31, &y, 41, 5));  // what it would continue is not of this group
    cr_expect(eq(sz, tm_batch_copy_size(batch), 7));
  }
  EXPECT_OK(tm_batch_copy_run(batch));
  cr_expect(eq(u64, tm_batch_copy_counted(batch).added, 9));
  cr_expect(eq(u64, tm_batch_copy_counted(batch).pieces, 7));
  cr_expect(eq(int, TM_DATA(uint8_t, &y)[24], 14));
  cr_expect(eq(int, TM_DATA(uint8_t, &y)[26], 16));
  cr_expect(eq(int, TM_DATA(uint8_t, &y)[45], 35));
}

// [0,4) to [4,8) and then [4,8) to [8,12): as one copy it would overlap itself.
Test(batch_copy, what_would_overlap_itself_is_not_merged) {
  tm_auto_tensor x = count_up(12, TM_CPU);
  TM_WITH_COPY_GROUP(batch) {
    EXPECT_OK(add_slice(&x, 0, &x, 4, 4));
    EXPECT_OK(add_slice(&x, 4, &x, 8, 4));
  }
  cr_expect(eq(sz, tm_batch_copy_size(batch), 2));
  EXPECT_OK(tm_batch_copy_run(batch));
  cr_expect(eq(int, TM_DATA(uint8_t, &x)[11], 3));
}

Test(batch_copy, pointers_are_never_merged) {
  uint8_t from[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  uint8_t to[8] = {0};
  TM_WITH_COPY_GROUP(batch) {
    uint8_t* end = TM_BATCH_COPY_ADD_N(batch, from, 4, to);
    cr_expect(eq(ptr, TM_BATCH_COPY_ADD_N(batch, from + 4, 4, end), to + 8));
  }
  cr_expect(eq(sz, tm_batch_copy_size(batch), 2));
  EXPECT_OK(tm_batch_copy_run(batch));
  cr_expect(eq(int, memcmp(from, to, 8), 0));
}

Test(batch_copy, groups_are_not_nested_and_are_ended_once) {
  cr_expect(eq(int, tm_batch_copy_end_group(batch), TM_ERR_INVALID));
  EXPECT_OK(tm_batch_copy_begin_group(batch));
  cr_expect(eq(int, tm_batch_copy_begin_group(batch), TM_ERR_INVALID));
  EXPECT_OK(tm_batch_copy_end_group(batch));
  cr_expect(eq(int, tm_batch_copy_end_group(batch), TM_ERR_INVALID));
}

static void open_twice(void) {
  TM_WITH_COPY_GROUP(batch) {
    TM_WITH_COPY_GROUP(batch) { cr_expect(false, "a group inside a group"); }
  }
}

Test(batch_copy, a_block_inside_a_group_is_fatal) { EXPECT_FATAL(open_twice(), "inside a group"); }

static tm_status leave_early(void) {
  TM_WITH_COPY_GROUP(batch) { return TM_OK; }
  return TM_ERR_INVALID;
}

Test(batch_copy, a_block_is_left_by_return_and_by_break) {
  EXPECT_OK(leave_early());
  EXPECT_OK(tm_batch_copy_run(batch));
  TM_WITH_COPY_GROUP(batch) { break; }
  EXPECT_OK(tm_batch_copy_run(batch));
}

//===-- Buffers like the last ones ----------------------------------------===//

static tm_buffer make_buffer(int64_t count, tm_dtype dtype) {
  tm_buffer buffer = tm_buffer_empty(count, dtype, TM_CPU);
  cr_assert(tm_buffer_ok(&buffer), "%s", tm_last_error()->message);
  for (size_t i = 0; i < tm_buffer_byte_size(&buffer); i++) ((uint8_t*)buffer.data)[i] = (uint8_t)i;
  return buffer;
}

Test(batch_copy, buffers_of_one_storage_are_held_once_and_until_it_has_run) {
  tm_auto_buffer x = make_buffer(100, TM_I32);
  tm_auto_buffer y = make_buffer(100, TM_I32);
  for (int64_t i = 0; i < 40; i++) EXPECT_OK(add_part_of(batch, &x, 2 * i, &y, 2 * i, 1));
  cr_expect(eq(sz, tm_batch_copy_size(batch), 40));
  cr_expect(eq(int, x.storage->references, 2));
  cr_expect(eq(int, y.storage->references, 2));
  memset(y.data, 0xff, 400);
  EXPECT_OK(tm_batch_copy_run(batch));
  cr_expect(eq(int, y.storage->references, 1));
  for (int i = 0; i < 100; i++) {
    const int32_t expected = TM_BUFFER_DATA(int32_t, &x)[i];
    cr_expect(eq(int, TM_BUFFER_DATA(int32_t, &y)[i], i < 80 && i % 2 == 0 ? expected : -1), "%d",
              i);
  }
  EXPECT_OK(add_part_of(batch, &x, 0, &y, 0, 1));  // whose last copy is forgotten
  cr_expect(eq(int, y.storage->references, 2));
  tm_batch_copy_clear(batch);
  cr_expect(eq(int, y.storage->references, 1));
  EXPECT_OK(add_part_of(batch, &x, 0, &y, 0, 1));
  cr_expect(eq(int, y.storage->references, 2));
}

Test(batch_copy, buffers_like_the_last_ones_are_looked_at_all_the_same) {
  tm_auto_buffer x = make_buffer(64, TM_I16);
  tm_auto_buffer y = make_buffer(64, TM_I16);
  tm_auto_buffer other = tm_buffer_as(&y, TM_U16);
  tm_auto_buffer half = tm_buffer_slice(&y, 0, 32);
  tm_auto_buffer none = tm_buffer_slice(&y, 64, 0);
  tm_auto_buffer null = tm_buffer_null();
  EXPECT_OK(add_part_of(batch, &x, 0, &y, 0, 2));
  cr_expect(eq(int, tm_batch_copy_add_buffer(batch, &x, &half), TM_ERR_INVALID));
  cr_expect(eq(int, tm_batch_copy_add_buffer(batch, &x, &other), TM_ERR_INVALID));
  cr_expect(eq(int, tm_batch_copy_add_buffer(batch, &null, &null), TM_ERR_INVALID));
  cr_expect(eq(int, tm_batch_copy_add_buffer(batch, &x, &null), TM_ERR_INVALID));
  cr_expect(eq(int, tm_batch_copy_add_buffer(NULL, &x, &y), TM_ERR_INVALID));
  cr_expect(eq(int, tm_batch_copy_add_buffer_n(NULL, &x, 1, &y), TM_ERR_INVALID));
  cr_expect(eq(int, tm_batch_copy_add_buffer_n(batch, &x, 65, &y), TM_ERR_OUT_OF_RANGE));
  cr_expect(eq(int, tm_batch_copy_add_buffer_n(batch, &x, 33, &half), TM_ERR_OUT_OF_RANGE));
  cr_expect(eq(int, tm_batch_copy_add_buffer_n(batch, &x, -1, &y), TM_ERR_INVALID));
  cr_expect(eq(int, tm_batch_copy_add_buffer_n(batch, &x, INT64_MIN, &y), TM_ERR_INVALID));
  cr_expect(eq(int, tm_batch_copy_add_buffer_n(batch, &x, INT64_MIN / 2 + 1, &y), TM_ERR_INVALID));
  EXPECT_OK(tm_batch_copy_add_buffer_n(batch, &x, 0, &y));
  EXPECT_OK(tm_batch_copy_add_buffer(batch, &none, &none));
  cr_expect(eq(sz, tm_batch_copy_size(batch), 1));
  EXPECT_OK(tm_batch_copy_add_buffer_n(batch, &x, 32, &half));
  EXPECT_OK(tm_batch_copy_add_buffer_n(batch, &x, 64, &y));
  cr_expect(eq(sz, tm_batch_copy_size(batch), 3));
}

Test(batch_copy, buffers_of_one_storage_that_overlap_are_refused) {
  tm_auto_buffer x = make_buffer(64, TM_I32);
  EXPECT_OK(add_part_of(batch, &x, 0, &x, 32, 8));
  EXPECT_OK(add_part_of(batch, &x, 8, &x, 16, 8));
  EXPECT_OK(add_part_of(batch, &x, 16, &x, 8, 8));
  cr_expect(eq(int, add_part_of(batch, &x, 8, &x, 15, 8), TM_ERR_INVALID));
  cr_expect(eq(int, add_part_of(batch, &x, 15, &x, 8, 8), TM_ERR_INVALID));
  cr_expect(eq(int, add_part_of(batch, &x, 8, &x, 8, 8), TM_ERR_INVALID));
  cr_expect(eq(sz, tm_batch_copy_size(batch), 3));
}

// The room for pieces is 16 first.
Test(batch_copy, buffers_fill_the_room_and_more) {
  tm_auto_buffer x = make_buffer(2000, TM_U8);
  tm_auto_buffer y = make_buffer(2000, TM_U8);
  memset(y.data, 0, 2000);
  for (int64_t i = 0; i < 1000; i++) {
    EXPECT_OK(add_part_of(batch, &x, 2 * i, &y, 2 * i, 1));
    cr_assert(eq(sz, tm_batch_copy_size(batch), (size_t)i + 1));
  }
  EXPECT_OK(tm_batch_copy_run(batch));
  cr_expect(eq(u64, tm_batch_copy_counted(batch).added, 1000));
  for (int i = 0; i < 2000; i++) {
    cr_assert(eq(int, TM_BUFFER_DATA(uint8_t, &y)[i], i % 2 ? 0 : (uint8_t)i));
  }
}

// [0,4) to [12,16), on to [8,12) to [20,24): what would follow reads what the first has written.
Test(batch_copy, buffers_are_merged_in_groups_up_to_where_they_overlap) {
  tm_auto_buffer x = make_buffer(64, TM_I32);
  TM_WITH_COPY_GROUP(batch) {
    for (int64_t i = 0; i < 24; i += 4) EXPECT_OK(add_part_of(batch, &x, i, &x, i + 12, 4));
    cr_expect(eq(sz, tm_batch_copy_size(batch), 2));
    EXPECT_OK(add_part_of(batch, &x, 40, &x, 36, 4));  // backwards
    EXPECT_OK(add_part_of(batch, &x, 44, &x, 40, 4));
    cr_expect(eq(sz, tm_batch_copy_size(batch), 4));
  }
  EXPECT_OK(add_part_of(batch, &x, 48, &x, 44, 4));  // of no group
  TM_WITH_COPY_GROUP(batch) {
    EXPECT_OK(add_part_of(batch, &x, 52, &x, 48, 4));
    EXPECT_OK(add_part_of(batch, &x, 56, &x, 52, 4));
  }
  cr_expect(eq(sz, tm_batch_copy_size(batch), 7));
  EXPECT_OK(tm_batch_copy_run(batch));
  cr_expect(eq(u64, tm_batch_copy_counted(batch).added, 11));
  cr_expect(eq(u64, tm_batch_copy_counted(batch).pieces, 7));
}

Test(batch_copy, a_group_that_was_cleared_goes_on) {
  tm_auto_buffer x = make_buffer(64, TM_U8);
  tm_auto_buffer y = make_buffer(64, TM_U8);
  TM_WITH_COPY_GROUP(batch) {
    EXPECT_OK(add_part_of(batch, &x, 0, &y, 0, 4));
    EXPECT_OK(add_part_of(batch, &x, 4, &y, 4, 4));
    tm_batch_copy_clear(batch);
    EXPECT_OK(add_part_of(batch, &x, 8, &y, 8, 4));
    EXPECT_OK(add_part_of(batch, &x, 12, &y, 12, 4));
    cr_expect(eq(sz, tm_batch_copy_size(batch), 1));
  }
  memset(y.data, 0xff, 64);
  EXPECT_OK(tm_batch_copy_run(batch));
  cr_expect(eq(u64, tm_batch_copy_counted(batch).added, 2));
  for (int i = 0; i < 64; i++) {
    cr_expect(eq(int, TM_BUFFER_DATA(uint8_t, &y)[i], i / 8 == 1 ? i : 0xff));
  }
}

//===-- Order -------------------------------------------------------------===//

Test(batch_copy, a_chain_on_the_device_is_a_call_per_link) {
  WITH_ALL() {
    tm_auto_tensor x = count_up(64, TM_CPU_PINNED);
    tm_auto_tensor y = make(64, TM_DEVICE);
    tm_auto_tensor back = make(64, TM_CPU_PINNED);
    EXPECT_OK(add_slice(&x, 0, &y, 0, 16));
    EXPECT_OK(add_slice(&y, 0, &y, 16, 16));
    EXPECT_OK(add_slice(&x, 16, &y, 48, 16));  // in the first call, with the first
    EXPECT_OK(add_slice(&y, 16, &back, 0, 16));
    EXPECT_OK(add_slice(&x, 32, &y, 0, 16));  // over what the second read: with the third
    EXPECT_OK(tm_batch_copy_run(batch));
    cr_expect(eq(u64, calls_made(), 3));
    ASSERT_OK(tm_stream_sync(stream));
    cr_expect(eq(int, TM_DATA(uint8_t, &back)[15], 15));
    uint8_t seen[64];
    fetch(&y, seen);
    cr_expect(eq(int, seen[0], 32));
    cr_expect(eq(int, seen[31], 15));
    cr_expect(eq(int, seen[63], 31));
  }
}

Test(batch_copy, what_the_host_does_after_a_stream_is_refused) {
  WITH_ALL() {
    tm_auto_tensor host = count_up(16, TM_CPU);
    tm_auto_tensor pinned = count_up(16, TM_CPU_PINNED);
    tm_auto_tensor y = make(16, TM_DEVICE);
    tm_auto_tensor z = make(16, TM_DEVICE);
    EXPECT_OK(tm_clear(&y));
    EXPECT_OK(tm_batch_copy_add(batch, &y, &pinned));
    EXPECT_OK(tm_batch_copy_add(batch, &pinned, &host));  // reads what the stream writes
    cr_expect(eq(int, tm_batch_copy_run(batch), TM_ERR_INVALID));
    EXPECT_SAYS("by the host");
    cr_expect(eq(sz, tm_batch_copy_size(batch), 2));
    cr_expect(eq(int, TM_DATA(uint8_t, &host)[9], 9));
    tm_batch_copy_clear(batch);

    EXPECT_OK(tm_batch_copy_add(batch, &pinned, &y));
    EXPECT_OK(tm_batch_copy_add(batch, &host, &pinned));  // writes what the stream reads
    cr_expect(eq(int, tm_batch_copy_run(batch), TM_ERR_INVALID));
    tm_batch_copy_clear(batch);

    EXPECT_OK(tm_batch_copy_add(batch, &y, &host));
    EXPECT_OK(tm_batch_copy_add(batch, &host, &z));  // pageable memory is read at once
    cr_expect(eq(int, tm_batch_copy_run(batch), TM_ERR_INVALID));
    tm_batch_copy_clear(batch);

    EXPECT_OK(tm_batch_copy_add(batch, &host, &pinned));  // first the host, then the stream
    EXPECT_OK(tm_batch_copy_add(batch, &pinned, &y));
    EXPECT_OK(tm_batch_copy_run(batch));
    ASSERT_OK(tm_stream_sync(stream));
  }
}

//===-- Against a model ---------------------------------------------------===//

enum { REGIONS = 5, REGION = 128, MOST_PIECES = 70 };

static const tm_device_type region_types[REGIONS] = {TM_CPU, TM_CPU_PINNED, TM_CPU_PINNED,
                                                     TM_DEVICE, TM_DEVICE};

typedef struct model {
  tm_tensor memory[REGIONS];
  uint8_t bytes[REGIONS][REGION];
  int written[REGIONS][REGION];  // the last wave that writes, and reads, each byte
  int read[REGIONS][REGION];
  int waves;
  bool refused;
} model;

static uint64_t state;

static int64_t below(int64_t limit) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (int64_t)((state >> 33) % (uint64_t)limit);
}

static bool on_host(int region) { return region_types[region] != TM_DEVICE; }

static int most(const int* waves, int64_t first, int64_t count) {
  int result = 0;
  for (int64_t i = first; i < first + count; i++) result = waves[i] > result ? waves[i] : result;
  return result;
}

static int larger(int a, int b) { return a > b ? a : b; }

// One copy after the others, byte by byte.
static void model_add(model* m, int from, int64_t at, int to, int64_t there, int64_t count) {
  const int source = most(m->written[from], at, count);
  const int last =
      larger(source, larger(most(m->written[to], there, count), most(m->read[to], there, count)));
  const bool by_host = on_host(from) && on_host(to);
  m->refused |= (by_host && last > 0) || (region_types[from] == TM_CPU && source > 0);
  for (int64_t i = 0; i < count; i++) {
    m->bytes[to][there + i] = m->bytes[from][at + i];
    if (!by_host) {
      m->read[from][at + i] = larger(m->read[from][at + i], last + 1);
      m->written[to][there + i] = last + 1;
    }
  }
  m->waves = larger(m->waves, by_host ? 0 : last + 1);
}

static void model_reset(model* m) {
  memset(m->written, 0, sizeof m->written);
  memset(m->read, 0, sizeof m->read);
  m->waves = 0;
  m->refused = false;
  for (int r = 0; r < REGIONS; r++) {
    for (int i = 0; i < REGION; i++) m->bytes[r][i] = (uint8_t)below(256);
    tm_auto_tensor host =
        tm_from_borrowed(m->bytes[r], TM_SHAPE(REGION), TM_U8, tm_device_make(TM_CPU, 0));
    ASSERT_OK(tm_copy(&host, &m->memory[r]));
  }
  ASSERT_OK(tm_stream_sync(stream));
}

static void expect_bytes(const model* m, uint8_t const (*bytes)[REGION], uint64_t seed) {
  for (int r = 0; r < REGIONS; r++) {
    uint8_t seen[REGION];
    fetch(&m->memory[r], seen);
    cr_assert(eq(int, memcmp(seen, bytes[r], REGION), 0), "seed %llu: region %d",
              (unsigned long long)seed, r);
  }
}

// As tensors or as buffers.
static tm_status add_either_way(const tm_tensor* source, int64_t from, const tm_tensor* destination,
                                int64_t to, int64_t bytes) {
  if (below(2) == 0) {
    return add_slice(source, from, destination, to, bytes);
  }
  tm_auto_buffer x = tm_buffer_of(source);
  tm_auto_buffer y = tm_buffer_of(destination);
  return add_part_of(batch, &x, from, &y, to, bytes);
}

// Adds random pieces; every other round only such as never depend on a stream at the host.
static void add_random(model* m, bool for_device) {
  const int64_t pieces = 1 + below(MOST_PIECES);
  const int64_t longest = 1 + below(24);
  int64_t at = 0;
  int64_t there = 0;
  int64_t count = 0;
  int from = 0;
  int to = 0;
  for (int64_t i = 0; i < pieces; i++) {
    at += count;
    there += count;
    if (count == 0 || below(3) > 0 || larger((int)at, (int)there) + count > REGION) {
      count = 1 + below(longest);
      from = (int)below(REGIONS);
      to = for_device ? 1 + (int)below(REGIONS - 1) : (int)below(REGIONS);
      to = for_device && on_host(from) ? 3 + (int)below(2) : to;
      at = below(REGION - count + 1);
      there = below(REGION - count + 1);
    }
    const tm_status status = add_either_way(&m->memory[from], at, &m->memory[to], there, count);
    if (from == to && at < there + count && there < at + count) {
      cr_expect(eq(int, status, TM_ERR_INVALID));
      count = 0;
    } else {
      ASSERT_OK(status);
      model_add(m, from, at, to, there, count);
    }
  }
}

static void try_random(model* m, uint64_t seed, bool grouped) {
  uint8_t before[REGIONS][REGION];
  state = seed;
  model_reset(m);
  memcpy(before, m->bytes, sizeof before);
  const uint64_t calls = calls_made();
  if (grouped) ASSERT_OK(tm_batch_copy_begin_group(batch));
  add_random(m, seed % 2 == 0);
  if (grouped) ASSERT_OK(tm_batch_copy_end_group(batch));
  const tm_status status = tm_batch_copy_run(batch);
  cr_assert(eq(int, status, m->refused ? TM_ERR_INVALID : TM_OK), "seed %llu: %s",
            (unsigned long long)seed, tm_last_error()->message);
  ASSERT_OK(tm_stream_sync(stream));
  expect_bytes(m, (uint8_t const(*)[REGION])(m->refused ? before : m->bytes), seed);
  if (!m->refused && !grouped) {
    cr_expect(eq(u64, calls_made() - calls, (uint64_t)m->waves), "seed %llu",
              (unsigned long long)seed);
  }
  tm_batch_copy_clear(batch);
}

static int random_rounds(bool grouped) {
  const char* given = getenv("BATCH_COPY_SEED");
  const uint64_t first = given ? strtoull(given, NULL, 10) : 1;
  int done = 0;
  WITH_ALL() {
    model* m = malloc(sizeof *m);
    for (int r = 0; r < REGIONS; r++) m->memory[r] = make(REGION, region_types[r]);
    for (uint64_t seed = first; seed < first + 400; seed++) {
      try_random(m, seed, grouped);
      done += m->refused ? 0 : 1;
    }
    for (int r = 0; r < REGIONS; r++) tm_release(&m->memory[r]);
    free(m);
  }
  return done;
}

Test(batch_copy, is_as_the_copies_one_after_another) {
  const int done = random_rounds(false);
  cr_expect(done > 200, "only %d of 400 were no refusals", done);
}

Test(batch_copy, is_as_the_copies_one_after_another_also_in_groups) {
  const int done = random_rounds(true);
  cr_expect(done > 200, "only %d of 400 were no refusals", done);
}

// Which way copies are added makes no difference to the pieces.
Test(batch_copy, buffers_become_the_same_pieces_as_tensors) {
  tm_auto_batch_copy other = tm_batch_copy_create();
  tm_tensor memory[2] = {count_up(256, TM_CPU), count_up(256, TM_CPU)};
  tm_buffer buffers[2] = {tm_buffer_of(&memory[0]), tm_buffer_of(&memory[1])};
  state = (uint64_t)time(NULL);
  printf("seed %llu\n", (unsigned long long)state);
  int64_t at[2] = {0, 0};
  for (int i = 0; i < 20000; i++) {
    const int64_t count = below(5);
    const size_t from = (size_t)below(8) / 7;
    const size_t to = (size_t)below(8) / 7 ^ 1;
    for (int k = 0; k < 2; k++) at[k] = below(8) && at[k] + count <= 256 ? at[k] : below(250);
    if (below(30) == 0) {
      const bool ends = tm_batch_copy_end_group(other) == TM_OK;
      cr_assert(eq(int, tm_batch_copy_end_group(batch) == TM_OK, ends));
    }
    if (below(30) == 0) {
      const bool begins = tm_batch_copy_begin_group(other) == TM_OK;
      cr_assert(eq(int, tm_batch_copy_begin_group(batch) == TM_OK, begins));
    }
    cr_assert(eq(int, add_part_of(other, &buffers[from], at[0], &buffers[to], at[1], count),
                 add_slice(&memory[from], at[0], &memory[to], at[1], count)));
    cr_assert(eq(sz, tm_batch_copy_size(other), tm_batch_copy_size(batch)), "%d", i);
    if (below(200) == 0) {
      tm_batch_copy_clear(other);
      tm_batch_copy_clear(batch);
    }
    for (int k = 0; k < 2; k++) at[k] += count;
  }
  tm_buffer_release(&buffers[0]);
  tm_buffer_release(&buffers[1]);
  tm_release(&memory[0]);
  tm_release(&memory[1]);
}

//===-- Streams -----------------------------------------------------------===//

static void run_two_on(tm_stream* on, uint64_t expected_calls) {
  const uint64_t before = calls_made();
  TM_WITH_STREAM(on)
  TM_WITH_ALLOCATOR(tm_cuda_allocator(0)) {
    tm_auto_tensor x = count_up(64, TM_CPU);
    tm_auto_tensor y = make(64, TM_DEVICE);
    EXPECT_OK(add_slice(&x, 0, &y, 0, 32));
    EXPECT_OK(add_slice(&x, 32, &y, 32, 32));
    EXPECT_OK(tm_batch_copy_run(batch));
    ASSERT_OK(tm_stream_sync(on));
    tm_auto_tensor back = make(64, TM_CPU);
    EXPECT_OK(tm_copy(&y, &back));
    ASSERT_OK(tm_stream_sync(on));
    cr_expect(eq(int, memcmp(back.data, x.data, 64), 0));
  }
  cr_expect(eq(u64, calls_made() - before, expected_calls));
}

Test(batch_copy, default_streams) {
  tm_auto_stream legacy = tm_stream_adopt(cudaStreamLegacy, 0);
  tm_auto_stream per_thread = tm_stream_adopt(cudaStreamPerThread, 0);
  run_two_on(legacy, 2);  // one by one
  run_two_on(per_thread, 1);
}

Test(batch_copy, of_a_runtime_that_has_no_batches) {
  machine_fail("cudaMemcpyBatchAsync", 1, 0, cudaErrorNotSupported);
  run_two_on(stream, 2);
  machine_fail("cudaMemcpyBatchAsync", 1, 0, cudaErrorCallRequiresNewerDriver);
  run_two_on(stream, 2);
  cr_expect(eq(int, cudaGetLastError(), cudaSuccess));
}

// What the batch does, as a graph.
static cudaGraphExec_t run_into_a_graph(void) {
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  cudaStream_t handle = tm_stream_handle(stream);
  ASSERT_OK(tm_stream_sync(stream));
  cr_assert(eq(int, cudaStreamBeginCapture(handle, cudaStreamCaptureModeGlobal), cudaSuccess));
  EXPECT_OK(tm_batch_copy_run(batch));
  cr_assert(eq(int, cudaStreamEndCapture(handle, &graph), cudaSuccess));
  cr_assert(eq(int, cudaGraphInstantiate(&exec, graph, 0), cudaSuccess));
  cr_expect(eq(int, cudaGraphDestroy(graph), cudaSuccess));
  return exec;
}

Test(batch_copy, into_a_graph) {
  WITH_ALL() {
    tm_auto_tensor x = count_up(64, TM_CPU_PINNED);
    tm_auto_tensor y = make(64, TM_DEVICE);
    EXPECT_OK(tm_clear(&y));
    EXPECT_OK(add_slice(&x, 0, &y, 32, 32));
    EXPECT_OK(add_slice(&x, 32, &y, 0, 32));
    cudaGraphExec_t exec = run_into_a_graph();
    cr_expect(eq(u64, calls_made(), 2));
    uint8_t seen[64];
    fetch(&y, seen);
    cr_expect(eq(int, seen[40], 0), "nothing is copied before the graph is launched");
    cr_assert(eq(int, cudaGraphLaunch(exec, tm_stream_handle(stream)), cudaSuccess));
    fetch(&y, seen);
    cr_expect(eq(int, seen[40], 8));
    cr_expect(eq(int, seen[8], 40));
    cr_expect(eq(int, cudaGraphExecDestroy(exec), cudaSuccess));
  }
}

// Memory that has no stream and is the host's, and what it held when it was freed.
typedef struct witness {
  uint8_t bytes[64];
  uint8_t last;  // of the bytes, when they were given back
  gate held;
} witness;

static void bear_witness(void* data, size_t size, void* user) {
  witness* self = user;
  self->last = ((const uint8_t*)data)[size - 1];
}

static void* open_later(void* user) {
  witness* self = user;
  const struct timespec while_the_batch_is_queued = {0, 20000000};
  (void)nanosleep(&while_the_batch_is_queued, NULL);
  gate_open(&self->held);
  return NULL;
}

// What drivers read of a batch's pageable memory before the call returns is no more than 64 KiB a
// piece.
Test(batch_copy, much_pageable_memory_may_be_changed_when_it_returns) {
  enum { MOST = 65536, ALL = 3 * MOST };
  static witness w;
  static uint8_t seen[ALL];
  static const int64_t sizes[] = {MOST, MOST + 1, 64, 1000};
  WITH_ALL() {
    tm_auto_tensor x = make(ALL, TM_CPU);
    tm_auto_tensor y = make(ALL, TM_DEVICE);
    memset(x.data, 1, ALL);
    EXPECT_OK(tm_clear(&y));
    int64_t end = 0;
    for (int i = 0; i < 4; i++) {
      EXPECT_OK(add_slice(&x, end, &y, end, sizes[i]));
      end += sizes[i];
    }
    pthread_t opener;
    gate_close(&w.held, stream);
    cr_assert(eq(int, pthread_create(&opener, NULL, open_later, &w), 0));
    EXPECT_OK(tm_batch_copy_run(batch));
    memset(x.data, 2, ALL);
    cr_assert(eq(int, pthread_join(opener, NULL), 0));
    fetch(&y, seen);
    for (int64_t i = 0; i < ALL; i++) {
      cr_assert(seen[i] == (i < end), "byte %d is %d", (int)i, seen[i]);
    }
    cr_expect(eq(u64, calls_made(), 2), "one for all that are small");
  }
}

Test(batch_copy, in_a_graph_reads_pageable_memory_when_that_runs) {
  WITH_ALL() {
    tm_auto_tensor x = count_up(64, TM_CPU);
    tm_auto_tensor y = make(64, TM_DEVICE);
    EXPECT_OK(add_slice(&x, 0, &y, 0, 32));
    EXPECT_OK(add_slice(&x, 32, &y, 32, 32));
    cudaGraphExec_t exec = run_into_a_graph();
    TM_DATA(uint8_t, &x)[63] = 200;
    cr_assert(eq(int, cudaGraphLaunch(exec, tm_stream_handle(stream)), cudaSuccess));
    uint8_t seen[64];
    fetch(&y, seen);
    cr_expect(eq(int, seen[63], 200));
    cr_expect(eq(int, seen[62], 62));
    cr_expect(eq(int, cudaGraphExecDestroy(exec), cudaSuccess));
  }
}

Test(batch_copy, records_its_stream_on_both_sides) {
  tm_auto_stream other = tm_stream_create(0, 0);
  gate held;
  WITH_ALL() {
    tm_auto_tensor y = make(1000, TM_DEVICE);
    tm_auto_tensor z = make(1000, TM_DEVICE);
    tm_tensor x = count_up(1000, TM_CPU_PINNED);
    void* const block = x.data;
    ASSERT_OK(tm_stream_sync(stream));
    gate_close(&held, other);
    EXPECT_OK(tm_batch_copy_add(batch, &x, &y));
    EXPECT_OK(tm_batch_copy_add(batch, &x, &z));
    TM_WITH_STREAM(other) { EXPECT_OK(tm_batch_copy_run(batch)); }
    tm_release(&x);
    tm_auto_tensor next = make(1000, TM_CPU_PINNED);
    cr_expect(ne(ptr, next.data, block), "the block is taken while it is being read");
    memset(next.data, 0xff, 1000);
    gate_open(&held);
    ASSERT_OK(tm_stream_sync(other));
    uint8_t seen[1000];
    fetch(&z, seen);
    cr_expect(eq(int, seen[999], 999 % 256));
  }
}

// The stream is idle when the copies are queued, so a record from before would be done at once.
// They take milliseconds; an attempt in which they are done before the block is asked for shows
// nothing.
Test(batch_copy, what_is_recorded_covers_the_copies_themselves) {
  machine_require_threads();
  tm_auto_stream other = tm_stream_create(0, 0);
  const int64_t half = INT64_C(1) << 25;
  bool held = false;
  WITH_ALL() {
    tm_auto_tensor y = make(2 * half, TM_DEVICE);
    ASSERT_OK(tm_stream_sync(stream));
    for (int attempt = 0; attempt < 50 && !held; attempt++) {
      tm_tensor x = make(2 * half, TM_CPU_PINNED);
      void* const block = x.data;
      ASSERT_OK(tm_stream_sync(stream));
      EXPECT_OK(add_slice(&y, 0, &x, half, half));
      EXPECT_OK(add_slice(&y, half, &x, 0, half));
      TM_WITH_STREAM(other) { EXPECT_OK(tm_batch_copy_run(batch)); }
      tm_release(&x);
      tm_auto_tensor next = make(2 * half, TM_CPU_PINNED);
      held = next.data != block;
      ASSERT_OK(tm_stream_sync(other));
    }
  }
  cr_expect(held, "the block is taken while it is being written");
}

Test(batch_copy, a_use_that_cannot_be_recorded_leaves_everything_as_it_was) {
  tm_auto_stream other = tm_stream_create(0, 0);
  WITH_ALL() {
    tm_auto_tensor x = make(100, TM_DEVICE);
    tm_auto_tensor y = make(100, TM_CPU_PINNED);
    tm_auto_tensor from = count_up(10, TM_CPU);
    tm_auto_tensor to = make(10, TM_CPU);
    EXPECT_OK(tm_fill_bytes(&x, 0x11));
    ASSERT_OK(tm_stream_sync(stream));
    memset(y.data, 0x22, 100);
    memset(to.data, 0x22, 10);
    EXPECT_OK(tm_batch_copy_add(batch, &x, &y));
    EXPECT_OK(tm_batch_copy_add(batch, &from, &to));
    TM_WITH_STREAM(other) {
      for (int nth = 1; nth <= 3; nth++) {  // the calls, the source's use, the destination's
        tm_bookkeeping_fail_nth(nth == 1 ? 1 : nth - 1);
        cr_expect(eq(int, tm_batch_copy_run(batch), TM_ERR_NO_MEMORY), "%d", nth);
        tm_bookkeeping_fail_nth(0);
        ASSERT_OK(tm_stream_sync(other));
        cr_expect(eq(int, TM_DATA(uint8_t, &y)[99], 0x22));
        cr_expect(eq(int, TM_DATA(uint8_t, &to)[9], 0x22));
        cr_expect(eq(sz, tm_batch_copy_size(batch), 2));
      }
      EXPECT_OK(tm_batch_copy_run(batch));
      ASSERT_OK(tm_stream_sync(other));
      cr_expect(eq(int, TM_DATA(uint8_t, &y)[99], 0x11));
      cr_expect(eq(int, TM_DATA(uint8_t, &to)[9], 9));
    }
  }
}

// One call of a batch need not wait for copies to pageable memory, as cudaMemcpyAsync does.
Test(batch_copy, pageable_memory_is_not_freed_while_it_is_written) {
  static witness w;
  WITH_ALL() {
    tm_auto_tensor numbers = count_up(64, TM_CPU);
    tm_auto_tensor x = make(64, TM_DEVICE);
    EXPECT_OK(tm_copy(&numbers, &x));
    ASSERT_OK(tm_stream_sync(stream));
    tm_tensor y =
        tm_adopt(w.bytes, 64, TM_SHAPE(64), TM_U8, tm_device_make(TM_CPU, 0), bear_witness, &w);
    EXPECT_OK(add_slice(&x, 0, &y, 0, 32));
    EXPECT_OK(add_slice(&x, 32, &y, 32, 32));
    pthread_t opener;
    gate_close(&w.held, stream);
    cr_assert(eq(int, pthread_create(&opener, NULL, open_later, &w), 0));
    EXPECT_OK(tm_batch_copy_run(batch));
    tm_release(&y);
    cr_expect(eq(int, w.last, 63), "the memory is given back while it is being written");
    cr_assert(eq(int, pthread_join(opener, NULL), 0));
    ASSERT_OK(tm_stream_sync(stream));
  }
}

Test(batch_copy, between_devices) {
  machine_require_devices(2);
  WITH_ALL() {
    tm_auto_tensor x = count_up(64, TM_CPU_PINNED);
    tm_auto_tensor here = make(64, TM_DEVICE);
    tm_auto_tensor there = tm_empty_from(tm_cuda_allocator(1), TM_SHAPE(64), TM_U8);
    tm_auto_tensor back = make(64, TM_DEVICE);
    EXPECT_OK(tm_batch_copy_add(batch, &x, &here));
    EXPECT_OK(tm_batch_copy_add(batch, &here, &there));
    EXPECT_OK(tm_batch_copy_add(batch, &there, &back));
    EXPECT_OK(tm_batch_copy_run(batch));
    uint8_t seen[64];
    fetch(&back, seen);
    cr_expect(eq(int, seen[63], 63));

    EXPECT_OK(tm_batch_copy_add(batch, &x, &there));  // not on a stream of device 0
    cr_expect(eq(int, tm_batch_copy_run(batch), TM_ERR_INVALID));
    EXPECT_SAYS("device 1");
    EXPECT_SAYS("device 0");
    cr_expect(eq(sz, tm_batch_copy_size(batch), 1));
    tm_auto_stream second = tm_stream_create(1, 0);
    TM_WITH_STREAM(second) { EXPECT_OK(tm_batch_copy_run(batch)); }
    ASSERT_OK(tm_stream_sync(second));
  }
}

//===-- Failures ----------------------------------------------------------===//

Test(batch_copy, a_call_that_fails_keeps_cudas_name_and_the_copies) {
  WITH_ALL() {
    tm_auto_tensor x = count_up(64, TM_CPU);
    tm_auto_tensor y = make(64, TM_DEVICE);
    EXPECT_OK(add_slice(&x, 0, &y, 0, 32));
    EXPECT_OK(add_slice(&x, 32, &y, 32, 32));
    machine_fail("cudaMemcpyBatchAsync", 1, 1, cudaErrorInvalidValue);
    cr_expect(eq(int, tm_batch_copy_run(batch), TM_ERR_CUDA));
    EXPECT_SAYS("cudaErrorInvalidValue");
    EXPECT_SAYS("cudaMemcpyBatchAsync");
    cr_expect(eq(int, cudaGetLastError(), cudaSuccess));
    cr_expect(eq(u64, calls_made(), 0));
    EXPECT_OK(tm_batch_copy_run(batch));
    uint8_t seen[64];
    fetch(&y, seen);
    cr_expect(eq(int, seen[63], 63));
  }
}

static tm_status add_rows(tm_batch_copy* to, const tm_tensor* x, const tm_tensor* y) {
  TM_WITH_COPY_GROUP(to) {
    for (int i = 0; i < 40; i++) {
      TM_TRY_TENSOR(a, tm_slice_outer(x, i, 1));
      TM_TRY_TENSOR(b, tm_slice_outer(y, i % 2 ? i - 1 : i + 1, 1));
      TM_TRY(tm_batch_copy_add(to, &a, &b));
    }
  }
  return TM_OK;
}

static tm_status copy_rows(tm_allocator* upstream) {
  tm_auto_stream earlier = tm_stream_create(0, 0);
  tm_auto_stream later = tm_stream_create(0, 0);
  tm_auto_batch_copy made = tm_batch_copy_create();
  tm_allocator* const device = tm_cuda_allocator(0);
  if (!earlier || !later || !made || !device) {
    return tm_last_status();
  }
  TM_USE_ALLOCATOR(upstream);
  TM_USE_ALLOCATOR(device);
  TM_USE_ALLOCATOR(tm_pinned_allocator());
  TM_USE_STREAM(earlier);
  TM_TRY_TENSOR(host, tm_empty(TM_SHAPE(40, 16), TM_F32, TM_CPU));
  TM_TRY_TENSOR(pinned, tm_empty(TM_SHAPE(40, 16), TM_F32, TM_CPU_PINNED));
  TM_TRY_TENSOR(x, tm_empty(TM_SHAPE(40, 16), TM_F32, TM_DEVICE));
  TM_TRY_TENSOR(y, tm_empty(TM_SHAPE(40, 16), TM_F32, TM_DEVICE));
  TM_TRY(tm_clear(&host));
  TM_TRY(tm_copy(&host, &pinned));
  TM_TRY(add_rows(made, &pinned, &x));
  TM_TRY(add_rows(made, &x, &y));
  TM_USE_STREAM(later);
  TM_TRY(tm_stream_wait_stream(later, earlier));
  TM_TRY(tm_batch_copy_run(made));
  TM_TRY(tm_stream_sync(later));
  return TM_OK;
}

Test(batch_copy, survives_every_failure) { expect_survives_every_failure_or_retries(copy_rows); }

Test(batch_copy, survives_every_cuda_failure) { expect_survives_every_cuda_failure(copy_rows); }

Test(batch_copy, adding_that_fails_leaves_the_batch_as_it_was) {
  tm_auto_tensor x = count_up(100, TM_CPU);
  tm_auto_tensor y = make(100, TM_CPU);
  memset(y.data, 0xff, 100);
  EXPECT_OK(add_slice(&x, 0, &y, 0, 1));
  tm_auto_tensor odd = tm_view(&x, TM_SHAPE(50, 2));
  tm_auto_tensor all = tm_view(&y, TM_SHAPE(50, 2));
  tm_auto_tensor from = tm_slice(&odd, TM_INDEX(0, 1), TM_INDEX(-1, 1));
  tm_auto_tensor to = tm_slice(&all, TM_INDEX(0, 1), TM_INDEX(-1, 1));
  tm_bookkeeping_fail_nth(1);
  cr_expect(eq(int, tm_batch_copy_add(batch, &from, &to), TM_ERR_NO_MEMORY));
  tm_bookkeeping_fail_nth(0);
  cr_expect(eq(sz, tm_batch_copy_size(batch), 1));
  EXPECT_OK(tm_batch_copy_run(batch));
  cr_expect(eq(int, TM_DATA(uint8_t, &y)[0], 0));
  cr_expect(eq(int, TM_DATA(uint8_t, &y)[1], 0xff));
}
