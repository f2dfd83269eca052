// Allocators beside a stream that is being captured into a graph: what they refuse leaves the
// capture valid, and what is freed meanwhile is given back afterwards, and not before what was
// queued on the captured stream earlier.

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <cuda_runtime_api.h>
#include <pthread.h>
#include <string.h>

#include "tests/support/failing.h"
#include "tests/support/gate.h"
#include "tests/support/machine.h"
#include "tm/alloc/callback.h"
#include "tm/alloc/cuda.h"
#include "tm/alloc/cuda_pool.h"
#include "tm/alloc/host.h"
#include "tm/alloc/limit_adaptor.h"
#include "tm/alloc/locked_adaptor.h"
#include "tm/alloc/pinned.h"
#include "tm/alloc/stack.h"
#include "tm/alloc/statistics_adaptor.h"
#include "tm/alloc/storage.h"
#include "tm/alloc/stream.h"

#define MIB ((size_t)1 << 20)

static tm_stream* stream;
static tm_allocator* pool;
static void* block;  // of the pool, for the graph's one node

static void cuda_ok(cudaError_t code) {
  cr_assert(eq(int, code, cudaSuccess), "%s", cudaGetErrorString(code));
}

static void begin(void) {
  machine_require_devices(1);
  stream = tm_stream_create(0, 0);
  pool = tm_cuda_pool_allocator_create(stream, NULL);
  cr_assert(stream && pool, "%s", tm_last_error()->message);
  cr_assert(eq(int, tm_allocator_alloc(pool, MIB, NULL, &block), TM_OK));
  cr_assert(eq(int, tm_stream_sync(stream), TM_OK));
}

static void begin_capture(void) {
  cuda_ok(cudaStreamBeginCapture(tm_stream_handle(stream), cudaStreamCaptureModeGlobal));
  cuda_ok(cudaMemsetAsync(block, 1, MIB, tm_stream_handle(stream)));
}

// The capture must have stayed valid, with the one node that the test queued.
static void end_capture(void) {
  cudaGraph_t graph = NULL;
  cuda_ok(cudaStreamEndCapture(tm_stream_handle(stream), &graph));
  size_t nodes = 0;
  cuda_ok(cudaGraphGetNodes(graph, NULL, &nodes));
  cr_expect(eq(sz, nodes, 1));
  cuda_ok(cudaGraphDestroy(graph));
}

static void end(void) {
  tm_allocator_free(pool, block, MIB, NULL);
  tm_allocator_release(pool);
  tm_stream_release(stream);
}

static void expect_refused(tm_allocator* allocator, size_t size, tm_stream* used_on) {
  void* none = &none;
  cr_expect(eq(int, tm_allocator_alloc(allocator, size, used_on, &none), TM_ERR_CAPTURING),
            "%s: %s", tm_allocator_name(allocator), tm_last_error()->message);
  cr_expect(eq(ptr, none, NULL));
}

Test(capture, calls_for_the_captured_stream_are_refused) {
  begin();
  tm_allocator* stack = tm_stack_allocator_create(pool, NULL, NULL);
  begin_capture();
  bool capturing = false;
  cr_expect(eq(int, tm_stream_is_capturing(stream, &capturing), TM_OK));
  cr_expect(capturing);
  expect_refused(pool, MIB, NULL);
  expect_refused(tm_cuda_allocator(0), MIB, stream);
  expect_refused(tm_pinned_allocator(), MIB, stream);
  expect_refused(stack, MIB, NULL);
  cr_expect(eq(int, tm_allocator_trim(pool, 0), TM_ERR_CAPTURING));
  cr_expect(eq(int, tm_stream_sync(stream), TM_ERR_CAPTURING));
  bool done;
  cr_expect(eq(int, tm_stream_query(stream, &done), TM_ERR_CAPTURING));
  end_capture();
  tm_allocator_release(stack);
  end();
}

Test(capture, calls_for_other_streams_go_on) {
  begin();
  tm_auto_stream other = tm_stream_create(0, 0);
  void* parked;
  cr_assert(eq(int, tm_allocator_alloc(tm_pinned_allocator(), MIB, other, &parked), TM_OK));
  tm_allocator_free(tm_pinned_allocator(), parked, MIB, other);
  begin_capture();
  void* memory;
  tm_allocator* const allocators[] = {tm_cuda_allocator(0), tm_pinned_allocator()};
  for (int i = 0; i < 2; i++) {
    for (size_t size = MIB; size <= 4 * MIB; size *= 2) {
      cr_assert(eq(int, tm_allocator_alloc(allocators[i], size, other, &memory), TM_OK), "%s",
                tm_last_error()->message);
      tm_allocator_free(allocators[i], memory, size, other);
    }
  }
  tm_allocator* second = tm_cuda_pool_allocator_create(other, NULL);
  cr_assert(second != NULL, "%s", tm_last_error()->message);
  cr_assert(eq(int, tm_allocator_alloc(second, MIB, NULL, &memory), TM_OK));
  tm_allocator_free(second, memory, MIB, NULL);
  cr_expect(eq(int, tm_allocator_trim(second, 0), TM_OK), "%s", tm_last_error()->message);
  tm_allocator_release(second);
  cr_expect(eq(int, tm_stream_sync(other), TM_OK), "%s", tm_last_error()->message);
  cr_expect(eq(int, tm_allocator_trim(tm_pinned_allocator(), 0), TM_OK));
  end_capture();
  end();
}

Test(capture, frees_on_the_captured_stream_happen_afterwards) {
  begin();
  void* memory;
  void* pinned_block;
  cr_assert(eq(int, tm_allocator_alloc(pool, 4 * MIB, NULL, &memory), TM_OK));
  cr_assert(eq(int, tm_allocator_alloc(tm_pinned_allocator(), MIB, stream, &pinned_block), TM_OK));
  cr_assert(eq(int, tm_stream_sync(stream), TM_OK));
  begin_capture();
  tm_allocator_free(pool, memory, 4 * MIB, NULL);
  tm_allocator_free(tm_pinned_allocator(), pinned_block, MIB, stream);
  end_capture();
  void* again;
  cr_assert(eq(int, tm_allocator_alloc(pool, 4 * MIB, NULL, &again), TM_OK));
  cr_expect(eq(ptr, again, memory));
  tm_allocator_free(pool, again, 4 * MIB, NULL);
  cr_assert(eq(int, tm_stream_sync(stream), TM_OK));
  for (int i = 0; i < 2; i++) {  // the first records what the free could not
    cr_expect(eq(int, tm_stream_sync(stream), TM_OK));
    cr_expect(eq(int, tm_allocator_trim(tm_pinned_allocator(), 0), TM_OK));
  }
  tm_allocator_stats stats;
  cr_assert(eq(int, tm_allocator_get_stats(tm_pinned_allocator(), &stats), TM_OK));
  cr_expect(eq(u64, stats.reserved_bytes, 0));
  end();
}

//===-- Frees that wait for the end of a capture ----------------------------===//

// Another stream, and a pool and a stack on it, whose blocks `stream` has used.
static tm_stream* other;
static tm_allocator* other_pool;
static tm_allocator* other_stack;

static void begin_with_another_stream(void) {
  begin();
  other = tm_stream_create(0, 0);
  other_pool = tm_cuda_pool_allocator_create(other, NULL);
  other_stack = tm_stack_allocator_create(other_pool, NULL, NULL);
  cr_assert(other && other_pool && other_stack, "%s", tm_last_error()->message);
}

static void end_with_another_stream(void) {
  cr_expect(eq(int, tm_stream_sync(stream), TM_OK));
  tm_allocator_release(other_stack);
  tm_allocator_release(other_pool);
  tm_stream_release(other);
  end();
  cr_expect(eq(i64, machine_live_allocations(0), 0));
}

static uint64_t live_blocks(tm_allocator* allocator) {
  tm_allocator_stats stats;
  cr_assert(eq(int, tm_allocator_get_stats(allocator, &stats), TM_OK));
  return stats.live_blocks;
}

static tm_storage* storage_on(tm_allocator* allocator, tm_stream* made_on) {
  tm_storage* storage = NULL;
  cr_assert(eq(int, tm_storage_alloc(allocator, MIB, made_on, &storage), TM_OK), "%s",
            tm_last_error()->message);
  return storage;
}

// A call on any allocator makes up for what a capture put off.
static void call_an_allocator(void) {
  void* memory = NULL;
  cr_expect(eq(int, tm_allocator_alloc(tm_host_allocator(), 64, NULL, &memory), TM_OK));
  tm_allocator_free(tm_host_allocator(), memory, 64, NULL);
}

typedef struct victim {
  tm_storage* storage;
  uint64_t live;  // blocks of its allocator without it
} victim;

static victim make_victim(tm_allocator* allocator, tm_stream* made_on) {
  const uint64_t live = live_blocks(allocator);
  return (victim){.storage = storage_on(allocator, made_on), .live = live};
}

static void* release_storage(void* storage) {
  tm_storage_release(storage);
  return NULL;
}

static void release_on_a_thread(tm_storage* storage) {
  pthread_t thread;
  cr_assert(eq(int, pthread_create(&thread, NULL, release_storage, storage), 0));
  pthread_join(thread, NULL);
}

// Releases the victim during a capture of `stream`, with a call of its own in between.
static void expect_put_off(tm_allocator* allocator, victim v, bool record, bool on_a_thread) {
  begin_capture();
  if (record) {
    cr_expect(eq(int, tm_storage_record_stream(v.storage, stream), TM_OK));
  }
  if (on_a_thread) {
    release_on_a_thread(v.storage);
  } else {
    tm_storage_release(v.storage);
  }
  call_an_allocator();
  cr_expect(eq(u64, live_blocks(allocator), v.live + 1), "%s", tm_allocator_name(allocator));
  end_capture();
  call_an_allocator();
  cr_expect(eq(u64, live_blocks(allocator), v.live), "%s", tm_allocator_name(allocator));
}

Test(capture, storages_that_the_captured_stream_uses_are_freed_afterwards) {
  begin_with_another_stream();
  tm_allocator* const allocators[] = {other_pool, other_stack};
  for (int i = 0; i < 4; i++) {
    tm_allocator* allocator = allocators[i % 2];
    expect_put_off(allocator, make_victim(allocator, stream), false, i >= 2);
    expect_put_off(allocator, make_victim(allocator, other), true, i >= 2);
  }
  end_with_another_stream();
}

Test(capture, a_use_recorded_before_the_capture_puts_nothing_off) {
  begin_with_another_stream();
  victim v = make_victim(other_pool, other);
  cr_expect(eq(int, tm_storage_record_stream(v.storage, stream), TM_OK));
  begin_capture();
  tm_storage_release(v.storage);
  cr_expect(eq(u64, live_blocks(other_pool), v.live));
  end_capture();
  end_with_another_stream();
}

static void count_deleter(void* data, size_t size, void* user) {
  (void)data;
  (void)size;
  ++*(int*)user;
}

Test(capture, adopted_memory_that_the_captured_stream_uses_is_deleted_afterwards) {
  begin_with_another_stream();
  char memory[64];
  int deleted = 0;
  tm_storage* storage = NULL;
  cr_assert(eq(int, tm_storage_adopt(memory, 64, count_deleter, &deleted, &storage), TM_OK));
  begin_capture();
  cr_expect(eq(int, tm_storage_record_stream(storage, stream), TM_OK));
  tm_storage_release(storage);
  call_an_allocator();
  cr_expect(eq(int, deleted, 0));
  end_capture();
  call_an_allocator();
  cr_expect(eq(int, deleted, 1));
  end_with_another_stream();
}

Test(capture, raw_blocks_of_the_captured_stream_are_freed_afterwards) {
  begin_with_another_stream();
  const uint64_t live = live_blocks(other_pool);
  enum { BLOCKS = 100 };
  void* blocks[BLOCKS];
  for (int i = 0; i < BLOCKS; i++) {
    cr_assert(eq(int, tm_allocator_alloc(other_pool, 4096, stream, &blocks[i]), TM_OK));
  }
  begin_capture();
  for (int i = 0; i < BLOCKS; i++) {
    tm_allocator_free(other_pool, blocks[i], 4096, stream);
  }
  call_an_allocator();
  cr_expect(eq(u64, live_blocks(other_pool), live + BLOCKS));
  end_capture();
  call_an_allocator();
  cr_expect(eq(u64, live_blocks(other_pool), live));
  end_with_another_stream();
}

Test(capture, an_allocator_lives_until_what_was_put_off_is_freed) {
  begin_with_another_stream();
  tm_auto_stream third = tm_stream_create(0, 0);
  tm_allocator* short_lived = tm_cuda_pool_allocator_create(third, NULL);
  cr_assert(short_lived != NULL, "%s", tm_last_error()->message);
  const int64_t before = machine_live_allocations(0);
  tm_storage* storage = storage_on(short_lived, stream);
  void* raw = NULL;
  cr_assert(eq(int, tm_allocator_alloc(short_lived, MIB, stream, &raw), TM_OK));
  begin_capture();
  tm_storage_release(storage);
  tm_allocator_free(short_lived, raw, MIB, stream);
  tm_allocator_release(short_lived);
  end_capture();
  if (machine_is_simulated()) {
    cr_expect(eq(i64, machine_live_allocations(0), before + 2));
  }
  call_an_allocator();
  cr_expect(eq(int, tm_stream_sync(third), TM_OK));
  cr_expect(eq(i64, machine_live_allocations(0), before));
  end_with_another_stream();
}

// The copy behind the gate reads the block; the next owner of its memory writes other bytes.
Test(capture, what_was_put_off_is_not_reused_before_the_stream_has_read_it) {
  begin_with_another_stream();
  unsigned char* seen = NULL;
  cr_assert(eq(int, tm_allocator_alloc(tm_pinned_allocator(), MIB, NULL, (void**)&seen), TM_OK));
  tm_storage* storage = storage_on(other_pool, stream);
  cuda_ok(cudaMemsetAsync(storage->data, 0x11, MIB, tm_stream_handle(stream)));
  gate closed;
  gate_close(&closed, stream);
  cuda_ok(
      cudaMemcpyAsync(seen, storage->data, MIB, cudaMemcpyDeviceToHost, tm_stream_handle(stream)));
  begin_capture();
  tm_storage_release(storage);
  end_capture();
  tm_storage* next = storage_on(other_pool, other);
  cuda_ok(cudaMemsetAsync(next->data, 0x22, MIB, tm_stream_handle(other)));
  gate_open(&closed);
  cr_expect(eq(int, tm_stream_sync(stream), TM_OK));
  cr_expect(eq(int, tm_stream_sync(other), TM_OK));
  for (size_t i = 0; i < MIB; i++) {
    cr_assert(eq(int, seen[i], 0x11));
  }
  tm_storage_release(next);
  tm_allocator_free(tm_pinned_allocator(), seen, MIB, NULL);
  end_with_another_stream();
}

//===-- Callbacks -----------------------------------------------------------===//

typedef struct calls {
  int allocs;
  int frees;
  char memory[1024] __attribute__((aligned(256)));
} calls;

static tm_status ask(size_t size, tm_stream* on, void** out, void* user) {
  (void)size;
  (void)on;
  calls* c = user;
  c->allocs++;
  *out = c->memory;
  return TM_OK;
}

static void give(void* ptr, size_t size, tm_stream* on, void* user) {
  (void)ptr;
  (void)size;
  (void)on;
  ((calls*)user)->frees++;
}

static tm_allocator* callback_over(calls* c, tm_device device, tm_stream* own) {
  tm_allocator* made = tm_callback_allocator_create(&(tm_callback_options){
      .device = device, .stream = own, .alloc = ask, .free = give, .user = c});
  cr_assert(made != NULL, "%s", tm_last_error()->message);
  return made;
}

Test(capture, a_callback_is_not_called_while_its_stream_is_captured) {
  begin();
  calls c = {0};
  tm_allocator* callback = callback_over(&c, tm_device_make(TM_DEVICE, 0), stream);
  void* memory = NULL;
  cr_assert(eq(int, tm_allocator_alloc(callback, 512, NULL, &memory), TM_OK));
  begin_capture();
  expect_refused(callback, 512, NULL);
  cr_expect(eq(int, c.allocs, 1));
  tm_allocator_free(callback, memory, 512, NULL);
  call_an_allocator();
  cr_expect(eq(int, c.frees, 0));
  end_capture();
  call_an_allocator();
  cr_expect(eq(int, c.frees, 1));
  tm_allocator_release(callback);
  end();
}

Test(capture, a_callback_of_host_memory_knows_no_captures) {
  begin();
  calls c = {0};
  tm_allocator* callback = callback_over(&c, tm_device_make(TM_CPU, 0), NULL);
  begin_capture();
  void* memory = NULL;
  cr_expect(eq(int, tm_allocator_alloc(callback, 512, stream, &memory), TM_OK));
  tm_allocator_free(callback, memory, 512, stream);
  cr_expect(eq(int, c.frees, 1));
  end_capture();
  tm_allocator_release(callback);
  end();
}

//===-- The arena -----------------------------------------------------------===//

Test(capture, a_pinned_stack_serves_a_captured_step_at_the_same_addresses) {
  begin();
  tm_allocator* stack = tm_stack_allocator_create(pool, NULL, NULL);
  cr_assert(eq(int, tm_stack_reserve(stack, 4 * MIB), TM_OK));
  cr_assert(eq(int, tm_stack_pin(stack), TM_OK));
  tm_storage* warm = storage_on(stack, stream);
  void* const address = warm->data;
  tm_storage_release(warm);
  begin_capture();
  tm_storage* captured = storage_on(stack, stream);
  cr_expect(eq(ptr, captured->data, address));
  tm_storage* refused = NULL;
  cr_expect(eq(int, tm_storage_alloc(stack, 8 * MIB, stream, &refused), TM_ERR_NO_MEMORY));
  tm_storage_release(captured);
  cr_expect(eq(int, tm_allocator_trim(stack, 0), TM_OK));  // pinned: there is nothing to do
  end_capture();
  tm_storage* after = storage_on(stack, stream);
  cr_expect(eq(ptr, after->data, address));
  tm_storage_release(after);
  cr_expect(eq(int, tm_stack_unpin(stack), TM_OK));
  tm_allocator_release(stack);
  end();
}

//===-- Failures ------------------------------------------------------------===//

static tm_status use_raw_blocks_across_streams(tm_allocator* upstream) {
  (void)upstream;
  void* memory = NULL;
  TM_TRY(tm_allocator_alloc(other_pool, 4096, stream, &memory));
  tm_allocator_free(other_pool, memory, 4096, stream);
  return tm_stream_sync(other);
}

Test(capture, blocks_across_streams_survive_every_failure) {
  begin_with_another_stream();
  expect_survives_every_failure_or_retries(use_raw_blocks_across_streams);
  end_with_another_stream();
}

//===-- Reservations ----------------------------------------------------------===//

Test(capture, a_commit_that_is_refused_leaves_its_reservation) {
  begin_with_another_stream();
  tm_allocator* limited = tm_limit_adaptor_create(other_pool, 8 * MIB);
  tm_allocator* counted = tm_statistics_adaptor_create(limited);
  tm_limit_reservation room;
  cr_assert(eq(int, tm_limit_reserve(limited, 4 * MIB, &room), TM_OK));
  begin_capture();
  void* none = &none;
  tm_storage* nothing = NULL;
  cr_expect(eq(int, tm_limit_commit(&room, MIB, stream, &none), TM_ERR_CAPTURING));
  cr_expect(eq(sz, room.bytes, 4 * MIB));
  cr_expect(eq(int, tm_limit_commit_storage(&room, MIB, stream, &nothing), TM_ERR_CAPTURING));
  cr_expect(eq(sz, room.bytes, 4 * MIB));
  TM_WITH_RESERVATION(&room) { expect_refused(counted, MIB, stream); }
  cr_expect(eq(sz, room.bytes, 4 * MIB));
  expect_refused(limited, MIB, stream);  // out of the budget this time
  cr_expect(eq(sz, room.bytes, 4 * MIB));
  end_capture();
  call_an_allocator();
  tm_limit_state state;
  cr_assert(eq(int, tm_limit_get(limited, &state), TM_OK));
  cr_expect(eq(sz, state.used, 0));
  cr_expect(eq(sz, state.reserved, 4 * MIB));
  cr_assert(eq(int, tm_limit_commit(&room, 4 * MIB, NULL, &none), TM_OK));
  tm_allocator_free(limited, none, 4 * MIB, NULL);
  tm_limit_cancel(&room);
  tm_allocator_release(counted);
  tm_allocator_release(limited);
  end_with_another_stream();
}

//===-- Locks -----------------------------------------------------------------===//

// What the first of two locked upstreams does when it is asked, and how often the second's free has
// been called by then.
static bool armed;
static int freed;
static int freed_inside;

static tm_status end_capture_inside(size_t size, tm_stream* used_on, void** out, void* user) {
  (void)user;
  (void)used_on;
  if (armed) {
    armed = false;
    end_capture();
    call_an_allocator();
    freed_inside = freed;
  }
  return tm_allocator_alloc(tm_host_allocator(), size, NULL, out);
}

static void count_free(void* ptr, size_t size, tm_stream* used_on, void* user) {
  (void)user;
  (void)used_on;
  freed++;
  tm_allocator_free(tm_host_allocator(), ptr, size, NULL);
}

static tm_allocator* locked_callbacks(void) {
  tm_allocator* foreign = tm_callback_allocator_create(
      &(tm_callback_options){.device = tm_device_make(TM_CPU_PINNED, 0),
                             .stream = other,
                             .alloc = end_capture_inside,
                             .free = count_free});
  tm_allocator* locked = tm_locked_adaptor_create(foreign);
  tm_allocator_release(foreign);
  cr_assert(locked != NULL, "%s", tm_last_error()->message);
  return locked;
}

// Its mutex would be taken with the one of another held, and the other way round by others.
Test(capture, a_free_that_was_put_off_waits_for_the_end_of_a_locked_call) {
  begin_with_another_stream();
  tm_allocator* first = locked_callbacks();
  tm_allocator* second = locked_callbacks();
  void* late;
  cr_assert(eq(int, tm_allocator_alloc(second, 64, stream, &late), TM_OK));
  begin_capture();
  tm_allocator_free(second, late, 64, stream);
  cr_expect(eq(int, freed, 0));
  armed = true;
  void* taken;
  cr_assert(eq(int, tm_allocator_alloc(first, 64, NULL, &taken), TM_OK));
  cr_expect(eq(int, freed_inside, 0));
  call_an_allocator();
  cr_expect(eq(int, freed, 1));
  tm_allocator_free(first, taken, 64, NULL);
  tm_allocator_release(first);
  tm_allocator_release(second);
  end_with_another_stream();
}
