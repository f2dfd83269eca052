// What is the pinned allocator's own; what every allocator promises is in conformance_test.c.

#include "tm/alloc/pinned.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <cuda_runtime_api.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include "alloc/pinned_class.h"
#include "tests/support/gate.h"
#include "tests/support/machine.h"
#include "tm/alloc/cuda.h"
#include "tm/alloc/storage.h"
#include "tm/alloc/stream.h"
#include "tm/base/fatal.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

static tm_allocator* pinned;
static tm_stream* stream;

static void setup(void) {
  machine_configure(2, "256MiB");
  machine_require_devices(1);
  pinned = tm_pinned_allocator();
  stream = tm_stream_create(0, 0);
  cr_assert(stream != NULL, "%s", tm_last_error()->message);
}

static void* take(size_t size, tm_stream* used_on) {
  void* block = NULL;
  cr_assert(eq(int, tm_allocator_alloc(pinned, size, used_on, &block), TM_OK), "%s",
            tm_last_error()->message);
  return block;
}

static void give(void* block, size_t size, tm_stream* used_on) {
  tm_allocator_free(pinned, block, size, used_on);
}

static tm_allocator_stats stats(void) {
  tm_allocator_stats result;
  cr_assert(eq(int, tm_allocator_get_stats(pinned, &result), TM_OK));
  return result;
}

static void finish(void) {
  cr_expect(eq(int, tm_stream_sync(stream), TM_OK));
  cr_expect(eq(int, tm_allocator_trim(pinned, 0), TM_OK));
  const tm_allocator_stats after = stats();
  cr_expect(eq(u64, after.live_bytes, 0));
  cr_expect(eq(u64, after.reserved_bytes, 0));
  tm_stream_release(stream);
}

//===-- Classes -----------------------------------------------------------------===//

Test(pinned_class, rounds_up_by_an_eighth_at_most) {
  static const size_t cases[][3] = {
      // size, block, class
      {1, 512, 0},
      {512, 512, 0},
      {513, 1024, 1},
      {4096, 4096, 7},
      {4097, 4608, 8},
      {8192, 8192, 15},
      {8193, 9216, 16},
      {16384, 16384, 23},
      {MIB, MIB, 71},
      {MIB + 1, 9 * MIB / 8, 72},
      {3 * MIB, 3 * MIB, 83},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    size_t bytes;
    const int index = pinned_class_of(cases[i][0], &bytes);
    cr_expect(eq(sz, bytes, cases[i][1]), "%zu bytes", cases[i][0]);
    cr_expect(eq(sz, (size_t)index, cases[i][2]), "%zu bytes", cases[i][0]);
  }
  size_t bytes;
  cr_expect(eq(int, pinned_class_of((size_t)PTRDIFF_MAX + 1, &bytes), PINNED_CLASSES - 1));
  cr_expect(eq(sz, bytes, (size_t)1 << 63));
}

Test(pinned_class, a_class_has_one_block_size_and_sizes_grow_with_it) {
  size_t last_bytes = 0;
  int last_class = -1;
  for (size_t size = 1; size < 64 * MIB; size += 1 + size / 100) {
    size_t bytes;
    const int index = pinned_class_of(size, &bytes);
    cr_assert(bytes >= size && (bytes - size) * 8 < (size > 4 * KIB ? size : 4 * KIB), "%zu bytes",
              size);
    cr_assert(index == last_class ? bytes == last_bytes : index > last_class && bytes > last_bytes,
              "%zu bytes", size);
    last_bytes = bytes;
    last_class = index;
  }
}

//===-- Reuse -------------------------------------------------------------------===//

Test(pinned, a_freed_block_is_taken_again_without_a_call) {
  setup();
  char* block = take(100 * KIB, NULL);
  memset(block, 1, 100 * KIB);
  const uint64_t calls = stats().upstream_calls;
  give(block, 100 * KIB, NULL);
  cr_expect(eq(ptr, take(99 * KIB, NULL), block));  // the same class
  cr_expect(eq(u64, stats().upstream_calls, calls));
  cr_expect(eq(u64, stats().live_bytes, 99 * KIB));
  cr_expect(eq(u64, stats().reserved_bytes, 104 * KIB));
  give(block, 99 * KIB, NULL);
  finish();
}

Test(pinned, a_block_that_a_copy_still_reads_is_parked) {
  setup();
  enum { SIZE = 256 * KIB };
  void* device_block;
  tm_allocator* cuda = tm_cuda_allocator(0);
  cr_assert(eq(int, tm_allocator_alloc(cuda, SIZE, NULL, &device_block), TM_OK));
  tm_auto_stream second = tm_stream_create(0, 0);
  char* spare = take(SIZE, second);  // so that nobody asks CUDA while the stream is held up
  char* source = take(SIZE, stream);
  memset(source, 7, SIZE);
  gate g;
  gate_close(&g, stream);
  cr_assert(cudaMemcpyAsync(device_block, source, SIZE, cudaMemcpyHostToDevice,
                            tm_stream_handle(stream)) == cudaSuccess);
  give(source, SIZE, stream);  // parked for longer, and not to be taken
  give(spare, SIZE, second);
  cr_assert(eq(int, tm_stream_sync(second), TM_OK));

  char* next = take(SIZE, NULL);
  memset(next, 9, SIZE);
  gate_open(&g);
  cr_assert(eq(int, tm_stream_sync(stream), TM_OK));
  char* result = take(SIZE, NULL);
  cr_expect(eq(ptr, result, source));  // seen to be done by now
  cr_assert(cudaMemcpy(result, device_block, SIZE, cudaMemcpyDeviceToHost) == cudaSuccess);
  for (int i = 0; i < SIZE; i++) {
    cr_assert(eq(chr, result[i], 7));
  }
  cr_expect(eq(ptr, next, spare));
  give(next, SIZE, NULL);
  give(result, SIZE, NULL);
  tm_allocator_free(cuda, device_block, SIZE, NULL);
  finish();
}

Test(pinned, an_idle_block_is_found_behind_any_number_that_are_not) {
  setup();
  enum { BUSY = 20 };
  void* busy[BUSY];
  for (int i = 0; i < BUSY; i++) {
    busy[i] = take(KIB, stream);
  }
  void* idle = take(KIB, NULL);
  gate g;
  gate_close(&g, stream);
  for (int i = 0; i < BUSY; i++) {
    give(busy[i], KIB, stream);
  }
  give(idle, KIB, NULL);
  cr_expect(eq(ptr, take(KIB, NULL), idle));
  gate_open(&g);
  give(idle, KIB, NULL);
  finish();
}

Test(pinned, trim_leaves_a_block_that_is_in_use) {
  setup();
  void* idle = take(MIB, NULL);
  void* busy = take(2 * MIB, stream);
  give(idle, MIB, NULL);
  give(busy, 2 * MIB, stream);
  cr_expect(eq(u64, stats().reserved_bytes, 3 * MIB));
  machine_fail("cudaEventQuery", 1, 0, cudaErrorNotReady);
  cr_expect(eq(int, tm_allocator_trim(pinned, 0), TM_OK));
  cr_expect(eq(u64, stats().reserved_bytes, 2 * MIB));
  machine_fail_nothing();
  cr_expect(eq(int, tm_stream_sync(stream), TM_OK));
  cr_expect(eq(int, tm_allocator_trim(pinned, 0), TM_OK));
  cr_expect(eq(u64, stats().reserved_bytes, 0));
  finish();
}

Test(pinned, trim_keeps_as_much_as_it_is_told) {
  setup();
  void* blocks[4];
  for (int i = 0; i < 4; i++) {
    blocks[i] = take(MIB, NULL);
  }
  for (int i = 0; i < 4; i++) {
    give(blocks[i], MIB, NULL);
  }
  cr_expect(eq(int, tm_allocator_trim(pinned, 2 * MIB), TM_OK));
  cr_expect(eq(u64, stats().reserved_bytes, 2 * MIB));
  cr_expect(eq(u64, stats().upstream_calls, 4 + 2));
  finish();
}

Test(pinned, the_longest_parked_goes_when_too_much_is_parked) {
  setup();
  tm_pinned_set_cache_limit(3 * MIB);
  void* blocks[5];
  for (int i = 0; i < 5; i++) {
    blocks[i] = take(MIB, NULL);
  }
  for (int i = 0; i < 5; i++) {
    give(blocks[i], MIB, NULL);
  }
  cr_expect(eq(u64, stats().reserved_bytes, 5 * MIB));  // a free asks CUDA for nothing
  void* larger = take(2 * MIB, NULL);
  cr_expect(eq(u64, stats().reserved_bytes, (3 + 2) * MIB));
  for (int i = 0; i < 3; i++) {
    void* next = take(MIB, NULL);
    cr_expect(next == blocks[2] || next == blocks[3] || next == blocks[4]);
  }
  cr_expect(eq(u64, stats().reserved_bytes, (3 + 2) * MIB));
  give(larger, 2 * MIB, NULL);
  tm_pinned_set_cache_limit(0);
  larger = take(3 * MIB, NULL);
  cr_expect(eq(u64, stats().reserved_bytes, (3 + 3) * MIB));
  give(larger, 3 * MIB, NULL);
  for (int i = 2; i < 5; i++) {
    give(blocks[i], MIB, NULL);
  }
  finish();
}

Test(pinned, a_request_that_fails_takes_what_is_parked_and_tries_again) {
  setup();
  void* block = take(MIB, NULL);
  give(block, MIB, NULL);
  machine_fail("cudaHostAlloc", 1, 1, cudaErrorMemoryAllocation);
  void* larger = take(2 * MIB, NULL);
  cr_expect(eq(u64, stats().reserved_bytes, 2 * MIB));
  give(larger, 2 * MIB, NULL);
  machine_fail("cudaHostAlloc", 1, 2, cudaErrorMemoryAllocation);
  void* none = &none;
  cr_expect(eq(int, tm_allocator_alloc(pinned, 3 * MIB, NULL, &none), TM_ERR_NO_MEMORY));
  cr_expect(eq(ptr, none, NULL));
  cr_expect(strstr(tm_last_error()->message, "3145728 bytes") != NULL, "%s",
            tm_last_error()->message);
  machine_fail_nothing();
  finish();
}

//===-- Streams -----------------------------------------------------------------===//

Test(pinned, a_free_whose_event_fails_is_made_up_for_later) {
  setup();
  char* block = take(MIB, stream);
  machine_fail("cudaEventRecord", 1, 0, cudaErrorUnknown);
  give(block, MIB, stream);
  char* other = take(MIB, NULL);
  cr_expect(ne(ptr, other, block));
  machine_fail_nothing();
  cr_expect(eq(int, tm_stream_sync(stream), TM_OK));
  void* next = take(MIB, NULL);  // records what the free could not
  if (next != block) {
    cr_expect(eq(int, tm_stream_sync(stream), TM_OK));
    give(next, MIB, NULL);
    void* first = take(MIB, NULL);
    next = take(MIB, NULL);
    give(first, MIB, NULL);
  }
  cr_expect(eq(ptr, next, block));
  give(next, MIB, NULL);
  give(other, MIB, NULL);
  finish();
}

Test(pinned, a_stream_that_is_captured_is_recorded_after_the_capture) {
  setup();
  char* spare = take(MIB, NULL);
  char* block = take(MIB, stream);
  machine_fail("cudaStreamIsCapturing", 1, 0, cudaErrorStreamCaptureImplicit);
  give(spare, MIB, NULL);
  give(block, MIB, stream);
  cr_expect(eq(ptr, take(MIB, stream), spare));
  void* none = &none;
  cr_expect(eq(int, tm_allocator_alloc(pinned, MIB, stream, &none), TM_ERR_CAPTURING));
  cr_expect(eq(ptr, none, NULL));
  machine_fail_nothing();
  give(spare, MIB, stream);
  finish();  // gives every block back
}

Test(pinned, a_block_goes_from_device_to_device) {
  setup();
  machine_require_devices(2);
  tm_auto_stream second = tm_stream_create(1, 0);
  cr_assert(second != NULL);
  char* block = take(MIB, stream);
  give(block, MIB, second);  // not where it was allocated for: ordered all the same
  cr_assert(eq(int, tm_stream_sync(second), TM_OK));
  cr_expect(eq(ptr, take(MIB, second), block));
  give(block, MIB, stream);
  finish();
}

Test(pinned, a_disowned_stream_has_nothing_to_wait_for) {
  setup();
  tm_auto_stream adopted = tm_stream_adopt(NULL, 0);
  char* block = take(MIB, adopted);
  cr_assert(eq(int, tm_stream_disown(adopted), TM_OK));
  give(block, MIB, adopted);
  cr_expect(eq(ptr, take(MIB, NULL), block));
  give(block, MIB, NULL);
  finish();
}

Test(pinned, a_storage_is_guarded_by_the_streams_it_was_used_on) {
  setup();
  tm_auto_stream second = tm_stream_create(0, 0);
  tm_storage* storage;
  cr_assert(eq(int, tm_storage_alloc(pinned, MIB, stream, &storage), TM_OK));
  void* block = storage->data;
  gate g;
  gate_close(&g, second);
  cr_assert(eq(int, tm_storage_record_stream(storage, second), TM_OK));
  void* spare = take(MIB, NULL);
  give(spare, MIB, NULL);
  tm_storage_release(storage);
  cr_expect(eq(ptr, take(MIB, NULL), spare));
  gate_open(&g);
  cr_assert(eq(int, tm_stream_sync(second), TM_OK));
  cr_assert(eq(int, tm_stream_sync(stream), TM_OK));
  cr_expect(eq(ptr, take(MIB, NULL), block));
  give(block, MIB, NULL);
  give(spare, MIB, NULL);
  finish();
}

static jmp_buf after_fatal;
static char fatal_message[512];

static void note_fatal(const char* message, void* user) {
  (void)user;
  snprintf(fatal_message, sizeof fatal_message, "%s", message);
  longjmp(after_fatal, 1);
}

Test(pinned, freeing_what_is_no_block_is_fatal) {
  setup();
  void* block = take(MIB, NULL);
  give(block, MIB, NULL);
  tm_set_fatal_handler(note_fatal, NULL);
  if (setjmp(after_fatal) == 0) {
    give(block, MIB, NULL);
    cr_fail("a block was freed twice");
  }
  tm_set_fatal_handler(NULL, NULL);
  cr_expect(strstr(fatal_message, "no live block") != NULL, "%s", fatal_message);
  give(take(MIB, NULL), MIB, NULL);
  finish();
}
