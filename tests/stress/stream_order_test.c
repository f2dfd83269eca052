// Blocks that go from stream to stream: what a free or an allocation fails to order shows as wrong
// bytes. Every block is written on one stream and read on another, which are random and often held
// up, and is freed while that is still queued; the next block, on other streams, has its memory.
//
//   stream_order_test [ROUNDS]
//
// Plain: what is checked is data, on cudasim and on a GPU; under ThreadSanitizer cudasim finds
// more.

#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/random.h"
#include "tm/alloc/cached.h"
#include "tm/alloc/cuda.h"
#include "tm/alloc/cuda_pool.h"
#include "tm/alloc/device.h"
#include "tm/alloc/event.h"
#include "tm/alloc/pinned.h"
#include "tm/alloc/stack.h"
#include "tm/alloc/storage.h"
#include "tm/alloc/stream.h"
#include "tm/check.h"

enum { STREAMS = 3, SLOTS = 16, ROUNDS = 60, SIZE = 100000 };

static tm_stream* streams[STREAMS];
static unsigned char* results[SLOTS];  // pinned
static unsigned char expected[SLOTS];
static void* copies[SLOTS];  // on the device, of blocks of pinned memory
static test_random random_numbers;
static unsigned blocks;

static void ok(cudaError_t code) { TM_CHECK_EQ(code, cudaSuccess); }

static size_t below(size_t bound) { return test_random_below(&random_numbers, bound); }

static void sleep_a_little(void* microseconds) {
  (void)usleep((useconds_t)(uintptr_t)microseconds);
}

static void maybe_hold_up(tm_stream* stream) {
  if (below(2) == 0) return;
  const uintptr_t microseconds = 20 + below(100);
  ok(cudaLaunchHostFunc(tm_stream_handle(stream), sleep_a_little, (void*)microseconds));
}

// What is queued on `after` from here on follows what is queued on `before` until now.
static void hand_over(tm_stream* before, tm_stream* after) {
  tm_auto_event event = tm_event_create(0, false);
  TM_CHECK(event != NULL);
  TM_CHECK_OK(tm_event_record(event, before));
  TM_CHECK_OK(tm_stream_wait(after, event));
}

//===-- One block ---------------------------------------------------------===//

// A block, as such or as storage.
typedef struct loan {
  tm_allocator* allocator;
  tm_storage* storage;  // or NULL
  void* data;
} loan;

static loan take(tm_allocator* allocator, tm_stream* stream) {
  loan l = {.allocator = allocator};
  if (below(2)) {
    TM_CHECK_OK(tm_storage_alloc(allocator, SIZE, stream, &l.storage));
    l.data = l.storage->data;
  } else {
    TM_CHECK_OK(tm_allocator_alloc(allocator, SIZE, stream, &l.data));
  }
  return l;
}

// `last` is the stream of its last use.
static void give(const loan* l, tm_stream* last) {
  if (!l->storage) {
    tm_allocator_free(l->allocator, l->data, SIZE, last);
    return;
  }
  TM_CHECK_OK(tm_storage_record_stream(l->storage, last));
  tm_storage_release(l->storage);
}

static void through_device_memory(tm_allocator* allocator, int slot, int value) {
  tm_stream* const writer = streams[below(STREAMS)];
  tm_stream* const reader = streams[below(STREAMS)];
  const loan l = take(allocator, writer);
  maybe_hold_up(writer);
  ok(cudaMemsetAsync(l.data, value, SIZE, tm_stream_handle(writer)));
  hand_over(writer, reader);
  maybe_hold_up(reader);
  ok(cudaMemcpyAsync(results[slot], l.data, SIZE, cudaMemcpyDeviceToHost,
                     tm_stream_handle(reader)));
  give(&l, reader);
}

// The host writes to the block at once.
static void through_pinned_memory(tm_allocator* allocator, int slot, int value) {
  tm_stream* const writer = streams[below(STREAMS)];
  tm_stream* const reader = streams[below(STREAMS)];
  const loan l = take(allocator, writer);
  memset(l.data, value, SIZE);
  maybe_hold_up(writer);
  ok(cudaMemcpyAsync(copies[slot], l.data, SIZE, cudaMemcpyHostToDevice, tm_stream_handle(writer)));
  give(&l, writer);
  hand_over(writer, reader);
  ok(cudaMemcpyAsync(results[slot], copies[slot], SIZE, cudaMemcpyDeviceToHost,
                     tm_stream_handle(reader)));
}

//===-- All blocks --------------------------------------------------------===//

static bool is_all(const unsigned char* bytes, unsigned char value) {
  return bytes[0] == value && memcmp(bytes, bytes + 1, SIZE - 1) == 0;
}

static void run_round(tm_allocator* allocator) {
  const bool on_host = tm_allocator_device(allocator).type != TM_DEVICE;
  for (int i = 0; i < SLOTS; i++) {
    expected[i] = (unsigned char)(1 + blocks++ % 251);
    memset(results[i], 0, SIZE);
    (on_host ? through_pinned_memory : through_device_memory)(allocator, i, expected[i]);
  }
  for (int i = 0; i < STREAMS; i++) {
    TM_CHECK_OK(tm_stream_sync(streams[i]));
  }
}

// Blocks with wrong bytes.
static int count_wrong(void) {
  int wrong = 0;
  for (int i = 0; i < SLOTS; i++) {
    wrong += !is_all(results[i], expected[i]);
  }
  return wrong;
}

static int try_allocator(const char* name, tm_allocator* allocator, int rounds) {
  TM_CHECK(allocator != NULL);
  int wrong = 0;
  for (int i = 0; i < rounds; i++) {
    run_round(allocator);
    wrong += count_wrong();
  }
  printf("%-16s %d blocks, %d wrong\n", name, rounds * SLOTS, wrong);
  return wrong;
}

static int try_all(int rounds) {
  tm_auto_allocator pool = tm_cuda_pool_allocator_create(streams[0], NULL);
  tm_auto_allocator shared_pool =
      tm_cuda_pool_allocator_create(streams[1], &(tm_cuda_pool_options){.default_pool = true});
  tm_auto_allocator cached = tm_cached_allocator_create(tm_cuda_allocator(0), streams[0], NULL);
  tm_auto_allocator stack = tm_stack_allocator_create(pool, NULL, NULL);
  tm_auto_allocator stack_of_cached = tm_stack_allocator_create(cached, streams[1], NULL);
  int wrong = try_allocator("pool", pool, rounds);
  wrong += try_allocator("default pool", shared_pool, rounds);
  wrong += try_allocator("cached(cuda)", cached, rounds);
  wrong += try_allocator("stack(pool)", stack, rounds);
  wrong += try_allocator("stack(cached)", stack_of_cached, rounds);
  wrong += try_allocator("pinned", tm_pinned_allocator(), rounds);
  return wrong;
}

static void make_machine(void) {
  for (int i = 0; i < STREAMS; i++) {
    streams[i] = tm_stream_create(0, 0);
    TM_CHECK(streams[i] != NULL);
  }
  for (int i = 0; i < SLOTS; i++) {
    TM_CHECK_OK(tm_allocator_alloc(tm_pinned_allocator(), SIZE, NULL, (void**)&results[i]));
    TM_CHECK_OK(tm_allocator_alloc(tm_cuda_allocator(0), SIZE, NULL, &copies[i]));
  }
}

static void release_machine(void) {
  for (int i = 0; i < SLOTS; i++) {
    tm_allocator_free(tm_pinned_allocator(), results[i], SIZE, NULL);
    tm_allocator_free(tm_cuda_allocator(0), copies[i], SIZE, NULL);
  }
  for (int i = 0; i < STREAMS; i++) {
    tm_stream_release(streams[i]);
  }
  TM_CHECK_OK(tm_allocator_trim(tm_pinned_allocator(), 0));
}

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? (int)strtol(argv[1], NULL, 10) : ROUNDS;
  int32_t count;
  if (rounds < 1) {
    fprintf(stderr, "usage: stream_order_test [ROUNDS]\n");
    return 2;
  }
  if (tm_device_count(&count) != TM_OK) {
    printf("skipped: %s\n", tm_last_error()->message);
    return 0;
  }
  random_numbers = test_random_start("stream_order");
  make_machine();
  const int wrong = try_all(rounds);
  release_machine();
  return wrong != 0;
}
