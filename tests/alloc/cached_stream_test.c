// The cached allocator and streams: what may be used again when, what a capture refuses, and what
// becomes of blocks that a device still uses.

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/support/gate.h"
#include "tests/support/machine.h"
#include "tm/alloc/cached.h"
#include "tm/alloc/cuda.h"
#include "tm/alloc/cuda_pool.h"
#include "tm/alloc/host.h"
#include "tm/alloc/pinned.h"
#include "tm/alloc/storage.h"
#include "tm/alloc/stream.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

static tm_stream* stream;
static tm_stream* other;

static void cuda_ok(cudaError_t code) {
  cr_assert(eq(int, code, cudaSuccess), "%s", cudaGetErrorString(code));
}

static void begin(void) {
  machine_configure(2, "256MiB");
  machine_require_devices(1);
  stream = tm_stream_create(0, 0);
  other = tm_stream_create(0, 0);
  cr_assert(stream && other, "%s", tm_last_error()->message);
}

static void end(void) {
  cr_expect(eq(int, tm_stream_sync(stream), TM_OK));
  cr_expect(eq(int, tm_stream_sync(other), TM_OK));
  tm_stream_release(stream);
  tm_stream_release(other);
  cr_expect(eq(i64, machine_live_allocations(0), 0));
}

static tm_allocator* create(tm_allocator* upstream, tm_stream* own) {
  tm_allocator* cached = tm_cached_allocator_create(upstream, own, NULL);
  cr_assert(cached != NULL, "%s", tm_last_error()->message);
  return cached;
}

static void* take(tm_allocator* cached, size_t size, tm_stream* used_on) {
  void* block = NULL;
  cr_assert(eq(int, tm_allocator_alloc(cached, size, used_on, &block), TM_OK), "%s",
            tm_last_error()->message);
  cr_assert(tm_cached_is_valid(cached));
  return block;
}

static void give(tm_allocator* cached, void* block, size_t size, tm_stream* used_on) {
  tm_allocator_free(cached, block, size, used_on);
  cr_assert(tm_cached_is_valid(cached));
}

static tm_allocator_stats stats_of(tm_allocator* cached) {
  tm_allocator_stats stats;
  cr_assert(eq(int, tm_allocator_get_stats(cached, &stats), TM_OK));
  return stats;
}

static bool is_done(tm_stream* queue) {
  bool done = false;
  cr_assert(eq(int, tm_stream_query(queue, &done), TM_OK));
  return done;
}

//===-- Creation ------------------------------------------------------------===//

Test(cached_stream, device_memory_needs_a_stream_to_order_reuse_on) {
  begin();
  cr_expect(eq(ptr, tm_cached_allocator_create(tm_cuda_allocator(0), NULL, NULL), NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
  cr_expect(strstr(tm_last_error()->message, "needs a stream") != NULL);
  tm_auto_allocator pool = tm_cuda_pool_allocator_create(stream, NULL);
  tm_auto_allocator over_pool = create(pool, NULL);
  cr_expect(eq(ptr, tm_allocator_stream(over_pool), stream));
  tm_allocator_release(over_pool);
  over_pool = NULL;
  tm_allocator_release(pool);
  pool = NULL;
  end();
}

//===-- Device memory -------------------------------------------------------===//

Test(cached_stream, device_memory_is_used_again_on_its_stream_at_once) {
  begin();
  tm_allocator* cached = create(tm_cuda_allocator(0), stream);
  gate closed;
  void* block = take(cached, MIB, NULL);
  gate_close(&closed, stream);
  give(cached, block, MIB, NULL);
  cr_expect(eq(ptr, take(cached, MIB, NULL), block));
  cr_expect(not(is_done(stream)));
  give(cached, block, MIB, NULL);
  gate_open(&closed);
  tm_allocator_release(cached);
  end();
}

Test(cached_stream, device_memory_of_another_stream_is_used_again_behind_its_work) {
  begin();
  tm_allocator* cached = create(tm_cuda_allocator(0), stream);
  gate closed;
  void* block = take(cached, MIB, other);
  gate_close(&closed, other);
  give(cached, block, MIB, other);
  cr_expect(eq(ptr, take(cached, MIB, NULL), block), "the host waits for nothing");
  cuda_ok(cudaMemsetAsync(block, 1, MIB, tm_stream_handle(stream)));
  cr_expect(not(is_done(stream)), "but the device does");
  gate_open(&closed);
  cr_expect(eq(int, tm_stream_sync(stream), TM_OK));
  give(cached, block, MIB, NULL);
  tm_allocator_release(cached);
  end();
}

Test(cached_stream, another_stream_waits_for_the_allocators) {
  begin();
  tm_allocator* cached = create(tm_cuda_allocator(0), stream);
  gate closed;
  void* block = take(cached, MIB, NULL);
  gate_close(&closed, stream);
  give(cached, block, MIB, NULL);
  cr_expect(eq(ptr, take(cached, MIB, other), block));
  cr_expect(not(is_done(other)));
  gate_open(&closed);
  cr_expect(eq(int, tm_stream_sync(other), TM_OK));
  give(cached, block, MIB, other);
  tm_allocator_release(cached);
  end();
}

//===-- Memory that the host writes -----------------------------------------===//

Test(cached_stream, pinned_memory_is_used_again_when_the_host_has_seen_it_done) {
  begin();
  tm_allocator* cached = create(tm_pinned_allocator(), NULL);
  gate closed;
  void* block = take(cached, 64 * KIB, stream);
  gate_close(&closed, stream);
  give(cached, block, 64 * KIB, stream);
  cr_expect(eq(u64, stats_of(cached).live_bytes, 0));
  void* meanwhile = take(cached, 64 * KIB, stream);
  cr_expect(meanwhile != block, "not even on the same stream: the host writes to it now");
  gate_open(&closed);
  cr_expect(eq(int, tm_stream_sync(stream), TM_OK));
  cr_expect(eq(ptr, take(cached, 64 * KIB, other), block));
  give(cached, block, 64 * KIB, other);
  give(cached, meanwhile, 64 * KIB, stream);
  tm_allocator_release(cached);
  end();
}

Test(cached_stream, pinned_memory_without_a_stream_is_used_again_at_once) {
  begin();
  tm_allocator* cached = create(tm_pinned_allocator(), NULL);
  void* block = take(cached, 64 * KIB, NULL);
  give(cached, block, 64 * KIB, NULL);
  cr_expect(eq(ptr, take(cached, 64 * KIB, NULL), block));
  give(cached, block, 64 * KIB, NULL);
  tm_allocator_release(cached);
  end();
}

// What is pending cannot make way; the limit holds all the same.
Test(cached_stream, pending_memory_counts_against_the_limit) {
  begin();
  tm_allocator* cached = tm_cached_allocator_create(tm_pinned_allocator(), NULL,
                                                    &(tm_cached_options){.maximum_bytes = 2 * MIB});
  gate closed;
  void* block = take(cached, 2 * MIB, stream);
  gate_close(&closed, stream);
  give(cached, block, 2 * MIB, stream);
  void* none = &none;
  cr_expect(eq(int, tm_allocator_alloc(cached, MIB, stream, &none), TM_ERR_NO_MEMORY));
  cr_expect(eq(ptr, none, NULL));
  gate_open(&closed);
  cr_expect(eq(int, tm_stream_sync(stream), TM_OK));
  cr_expect(eq(ptr, take(cached, MIB, stream), block));
  give(cached, block, MIB, stream);
  tm_allocator_release(cached);
  end();
}

Test(cached_stream, trim_waits_for_the_stream_of_memory_that_the_host_must_see_done) {
  begin();
  tm_allocator* cached = create(tm_pinned_allocator(), stream);
  void* block = take(cached, MIB, NULL);
  void* device_block = NULL;
  cr_assert(eq(int, tm_allocator_alloc(tm_cuda_allocator(0), MIB, NULL, &device_block), TM_OK));
  for (int i = 0; i < 50; i++) {
    cuda_ok(cudaMemcpyAsync(device_block, block, MIB, cudaMemcpyHostToDevice,
                            tm_stream_handle(stream)));
  }
  give(cached, block, MIB, NULL);
  cr_expect(eq(int, tm_allocator_trim(cached, 0), TM_OK));
  cr_expect(eq(u64, stats_of(cached).reserved_bytes, 0));
  tm_allocator_free(tm_cuda_allocator(0), device_block, MIB, NULL);
  tm_allocator_release(cached);
  end();
}

Test(cached_stream, memory_of_the_host_with_a_stream_is_guarded_too) {
  begin();
  tm_allocator* cached = create(tm_host_allocator(), stream);
  gate closed;
  void* block = take(cached, KIB, NULL);
  gate_close(&closed, stream);
  give(cached, block, KIB, NULL);
  void* meanwhile = take(cached, KIB, NULL);
  cr_expect(meanwhile != block);
  give(cached, meanwhile, KIB, NULL);
  gate_open(&closed);
  tm_allocator_release(cached);
  end();
}

Test(cached_stream, memory_of_a_disowned_stream_is_idle) {
  begin();
  cudaStream_t handle = tm_stream_handle(other);
  tm_stream* adopted = tm_stream_adopt(handle, 0);
  tm_allocator* cached = create(tm_pinned_allocator(), NULL);
  void* block = take(cached, KIB, adopted);
  cr_expect(eq(int, tm_stream_disown(adopted), TM_OK));
  give(cached, block, KIB, adopted);
  cr_expect(eq(ptr, take(cached, KIB, NULL), block));
  give(cached, block, KIB, NULL);
  tm_allocator_release(cached);
  tm_stream_release(adopted);
  end();
}

static uint64_t pinned_live(void) {
  tm_allocator_stats stats;
  cr_assert(eq(int, tm_allocator_get_stats(tm_pinned_allocator(), &stats), TM_OK));
  return stats.live_bytes;
}

// Any call on any allocator makes up for what had to wait.
static void call_an_allocator(void) {
  void* memory = NULL;
  cr_expect(eq(int, tm_allocator_alloc(tm_host_allocator(), 64, NULL, &memory), TM_OK));
  tm_allocator_free(tm_host_allocator(), memory, 64, NULL);
}

Test(cached_stream, released_with_pending_memory_it_goes_when_that_is_over) {
  begin();
  tm_allocator* cached = create(tm_pinned_allocator(), NULL);
  gate closed;
  void* block = take(cached, MIB, stream);
  void* last = take(cached, MIB, stream);
  gate_close(&closed, stream);
  give(cached, block, MIB, stream);
  tm_allocator_release(cached);
  tm_allocator_free(cached, last, MIB, stream);
  call_an_allocator();
  cr_expect(pinned_live() > 0, "nobody else gets it meanwhile");
  gate_open(&closed);
  cr_expect(eq(int, tm_stream_sync(stream), TM_OK));
  call_an_allocator();
  cr_expect(eq(u64, pinned_live(), 0));
  end();
}

Test(cached_stream, pending_memory_of_a_lost_device_is_no_obstacle) {
  begin();
  tm_allocator* cached = create(tm_pinned_allocator(), NULL);
  void* block = take(cached, MIB, stream);
  machine_break_device(0, cudaErrorIllegalAddress);
  cr_expect(eq(int, tm_device_sync(0), TM_ERR_DEVICE_LOST));
  give(cached, block, MIB, stream);
  tm_allocator_release(cached);
  call_an_allocator();
  cr_expect(eq(u64, pinned_live(), 0));
  tm_stream_release(stream);
  tm_stream_release(other);
}

Test(cached_stream, storages_outlive_the_cache_and_order_their_frees) {
  begin();
  tm_allocator* cached = create(tm_cuda_allocator(0), stream);
  tm_storage* storage;
  cr_assert(eq(int, tm_storage_alloc(cached, MIB, other, &storage), TM_OK));
  cuda_ok(cudaMemsetAsync(storage->data, 1, MIB, tm_stream_handle(other)));
  cr_assert(eq(int, tm_storage_record_stream(storage, stream), TM_OK));
  tm_allocator_release(cached);
  tm_storage_release(storage);
  end();
}

//===-- Captures ------------------------------------------------------------===//

static void* captured;  // device memory for the graph's one node

static void begin_capture(void) {
  cr_assert(eq(int, tm_allocator_alloc(tm_cuda_allocator(0), KIB, NULL, &captured), TM_OK));
  cuda_ok(cudaStreamBeginCapture(tm_stream_handle(stream), cudaStreamCaptureModeGlobal));
  cuda_ok(cudaMemsetAsync(captured, 1, KIB, tm_stream_handle(stream)));
}

// The capture must have stayed valid, with the one node that the test queued.
static void end_capture(void) {
  cudaGraph_t graph = NULL;
  cuda_ok(cudaStreamEndCapture(tm_stream_handle(stream), &graph));
  size_t nodes = 0;
  cuda_ok(cudaGraphGetNodes(graph, NULL, &nodes));
  cr_expect(eq(sz, nodes, 1));
  cuda_ok(cudaGraphDestroy(graph));
  tm_allocator_free(tm_cuda_allocator(0), captured, KIB, NULL);
}

static void expect_refused(tm_allocator* cached, size_t size, tm_stream* used_on) {
  void* none = &none;
  cr_expect(eq(int, tm_allocator_alloc(cached, size, used_on, &none), TM_ERR_CAPTURING), "%s",
            tm_last_error()->message);
  cr_expect(eq(ptr, none, NULL));
}

Test(cached_stream, a_capture_is_served_from_what_is_held_and_refused_what_is_not) {
  begin();
  tm_allocator* cached = create(tm_cuda_allocator(0), stream);
  void* block = take(cached, 2 * MIB, NULL);
  give(cached, block, 2 * MIB, NULL);
  begin_capture();
  const uint64_t calls = stats_of(cached).upstream_calls;
  cr_expect(eq(ptr, take(cached, MIB, NULL), block));
  expect_refused(cached, 4 * MIB, NULL);
  cr_expect(eq(int, tm_allocator_trim(cached, 0), TM_ERR_CAPTURING));
  give(cached, block, MIB, NULL);
  cr_expect(eq(u64, stats_of(cached).upstream_calls, calls));
  end_capture();
  give(cached, take(cached, 4 * MIB, NULL), 4 * MIB, NULL);
  tm_allocator_release(cached);
  end();
}

Test(cached_stream, segments_stay_apart_during_a_capture) {
  begin();
  tm_allocator* cached = create(tm_cuda_allocator(0), stream);
  void* a = take(cached, 2 * MIB, NULL);
  void* b = take(cached, 2 * MIB, NULL);
  give(cached, a, 2 * MIB, NULL);
  give(cached, b, 2 * MIB, NULL);
  tm_clear_error();
  begin_capture();
  void* block = take(cached, 2 * MIB, NULL);
  cr_expect(block == a || block == b);
  cr_expect(eq(int, tm_last_status(), TM_OK), "success leaves the record alone");
  give(cached, block, 2 * MIB, NULL);
  end_capture();
  give(cached, take(cached, 4 * MIB, NULL), 4 * MIB, NULL);
  cr_expect(eq(u64, stats_of(cached).reserved_bytes, 4 * MIB));
  tm_allocator_release(cached);
  end();
}

Test(cached_stream, pinned_memory_freed_in_a_capture_waits_for_its_end) {
  begin();
  tm_allocator* cached = create(tm_pinned_allocator(), NULL);
  void* block = take(cached, 2 * MIB, stream);
  begin_capture();
  expect_refused(cached, 2 * MIB, stream);
  give(cached, block, 2 * MIB, stream);
  void* meanwhile = take(cached, 2 * MIB, other);
  cr_expect(meanwhile != block);
  give(cached, meanwhile, 2 * MIB, other);
  end_capture();
  cr_expect(eq(int, tm_stream_sync(other), TM_OK));
  cr_expect(eq(int, tm_allocator_trim(cached, 0), TM_OK));  // records what the free could not
  cr_expect(eq(int, tm_stream_sync(stream), TM_OK));
  cr_expect(eq(int, tm_allocator_trim(cached, 0), TM_OK));
  cr_expect(eq(u64, stats_of(cached).reserved_bytes, 0));
  tm_allocator_release(cached);
  end();
}

//===-- Random use ----------------------------------------------------------===//

// Each block is filled with a value of its own on its stream, and the fill is read back on the
// stream right before the free: what is used again too early reads another value.

enum { STREAMS = 3, LIVE = 24, ROUNDS = 3000, SAMPLES = ROUNDS, WIDTH = 64 };

static const size_t sample_bytes = (size_t)SAMPLES * WIDTH;

typedef struct filled {
  void* ptr;
  size_t size;
  int queue;
  unsigned char value;
} filled;

typedef struct user {
  tm_allocator* cached;
  bool is_on_host;  // then the host fills, and the device reads
  tm_stream* queues[STREAMS];
  uint64_t random;
  filled live[LIVE];
  int count;
  unsigned char* samples;  // pinned: what the device found at the end of each block
  unsigned char expected[SAMPLES];
  int sample_count;
} user;

static uint64_t next_random(user* u) {  // xorshift64*
  u->random ^= u->random >> 12;
  u->random ^= u->random << 25;
  u->random ^= u->random >> 27;
  return u->random * 2685821657736338717u;
}

static void fill_one(user* u) {
  filled* block = &u->live[u->count++];
  block->size = WIDTH + (size_t)(next_random(u) % 200000);
  block->queue = (int)(next_random(u) % STREAMS);
  block->value = (unsigned char)next_random(u);
  block->ptr = take(u->cached, block->size, u->queues[block->queue]);
  if (u->is_on_host) {
    memset(block->ptr, block->value, block->size);
  } else {
    cuda_ok(cudaMemsetAsync(block->ptr, block->value, block->size,
                            tm_stream_handle(u->queues[block->queue])));
  }
}

static void read_and_free_one(user* u) {
  const int i = (int)(next_random(u) % (uint64_t)u->count);
  const filled block = u->live[i];
  u->live[i] = u->live[--u->count];
  tm_stream* queue = u->queues[block.queue];
  cuda_ok(cudaMemcpyAsync(&u->samples[(size_t)u->sample_count * WIDTH],
                          (char*)block.ptr + block.size - WIDTH, WIDTH, cudaMemcpyDefault,
                          tm_stream_handle(queue)));
  u->expected[u->sample_count++] = block.value;
  give(u->cached, block.ptr, block.size, queue);
}

static void use_at_random(user* u) {
  for (int i = 0; i < ROUNDS; i++) {
    if (u->count == 0 || (u->count < LIVE && next_random(u) % 2)) {
      fill_one(u);
    } else {
      read_and_free_one(u);
    }
    if (next_random(u) % 500 == 0) {
      cr_assert(eq(int, tm_allocator_trim(u->cached, 0), TM_OK));
    }
  }
  while (u->count && u->sample_count < SAMPLES) {
    read_and_free_one(u);
  }
}

static void expect_own_values(const user* u) {
  size_t wrong = 0;
  for (int i = 0; i < u->sample_count; i++) {
    for (size_t k = 0; k < WIDTH; k++) {
      wrong += u->samples[(size_t)i * WIDTH + k] != u->expected[i];
    }
  }
  cr_expect(eq(sz, wrong, 0), "%zu bytes were overwritten before they were read", wrong);
}

static void expect_order(tm_allocator* cached, bool is_on_host) {
  static user u;
  const char* text = getenv("TM_TEST_SEED");
  u = (user){.cached = cached, .is_on_host = is_on_host, .queues = {stream, other}};
  u.random = text ? strtoull(text, NULL, 0) : (uint64_t)time(NULL) * 2 + 1;
  printf("TM_TEST_SEED=%llu\n", (unsigned long long)u.random);
  u.queues[2] = tm_stream_create(0, 0);
  void* samples = NULL;
  cr_assert(
      eq(int, tm_allocator_alloc(tm_pinned_allocator(), sample_bytes, NULL, &samples), TM_OK));
  u.samples = samples;
  use_at_random(&u);
  for (int i = 0; i < STREAMS; i++) {
    cr_assert(eq(int, tm_stream_sync(u.queues[i]), TM_OK));
  }
  expect_own_values(&u);
  tm_allocator_free(tm_pinned_allocator(), samples, sample_bytes, NULL);
  tm_stream_release(u.queues[2]);
  cr_expect(eq(int, tm_allocator_trim(cached, 0), TM_OK));
  cr_expect(eq(u64, stats_of(cached).reserved_bytes, 0));
  tm_allocator_release(cached);
}

Test(cached_stream, device_memory_is_never_used_again_too_early) {
  begin();
  expect_order(create(tm_cuda_allocator(0), stream), false);
  end();
}

Test(cached_stream, pinned_memory_is_never_used_again_too_early) {
  begin();
  expect_order(create(tm_pinned_allocator(), NULL), true);
  end();
}
