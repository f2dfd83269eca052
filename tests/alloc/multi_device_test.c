// Several devices in one process: every allocator takes from its own, whatever the thread's current
// device is, leaves that as it was, and goes on when another device is lost.

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <cuda_runtime_api.h>
#include <string.h>

#include "tests/support/gate.h"
#include "tests/support/machine.h"
#include "tm/alloc/callback.h"
#include "tm/alloc/cuda.h"
#include "tm/alloc/cuda_pool.h"
#include "tm/alloc/event.h"
#include "tm/alloc/host.h"
#include "tm/alloc/pinned.h"
#include "tm/alloc/stack.h"
#include "tm/alloc/storage.h"
#include "tm/alloc/stream.h"

enum { DEVICES = 8, SIZE = 3 << 20 };  // bytes: more than a pool's granule

#define EXPECT_OK(call) cr_expect(eq(int, (call), TM_OK), "%s", tm_last_error()->message)
#define ASSERT_OK(call) cr_assert(eq(int, (call), TM_OK), "%s", tm_last_error()->message)

static tm_stream* streams[DEVICES];

static void setup(int devices) {
  machine_configure(devices, "256MiB");
  machine_require_devices(devices);
  for (int i = 0; i < devices; i++) {
    streams[i] = tm_stream_create(i, 0);
    cr_assert(streams[i] != NULL, "%s", tm_last_error()->message);
  }
}

//===-- Kinds of allocator ----------------------------------------------------------===//

static tm_allocator* create_cuda(int id) { return tm_cuda_allocator(id); }

static tm_allocator* create_pool(int id) {
  return tm_cuda_pool_allocator_create(streams[id], NULL);
}

static tm_allocator* create_stack_over_cuda(int id) {
  return tm_stack_allocator_create(tm_cuda_allocator(id), streams[id], NULL);
}

static tm_allocator* create_stack_over_pool(int id) {
  tm_auto_allocator pool = create_pool(id);
  return tm_stack_allocator_create(pool, NULL, NULL);
}

static tm_status ask(size_t size, tm_stream* stream, void** out, void* user) {
  return tm_allocator_alloc(user, size, stream, out);
}

static void give(void* ptr, size_t size, tm_stream* stream, void* user) {
  tm_allocator_free(user, ptr, size, stream);
}

static void drop(void* user) { tm_allocator_release(user); }

static tm_allocator* create_callback(int id) {
  tm_allocator* pool = create_pool(id);
  return tm_callback_allocator_create(&(tm_callback_options){.device = tm_allocator_device(pool),
                                                             .stream = tm_allocator_stream(pool),
                                                             .alloc = ask,
                                                             .free = give,
                                                             .destroy_user = drop,
                                                             .user = pool});
}

typedef struct kind {
  const char* name;
  tm_allocator* (*create)(int id);
  bool has_stream;
} kind;

static const kind kinds[] = {
    {"cuda", create_cuda, false},
    {"cuda_pool", create_pool, true},
    {"stack(cuda)", create_stack_over_cuda, true},
    {"stack(cuda_pool)", create_stack_over_pool, true},
    {"callback(cuda_pool)", create_callback, true},
};

enum { KINDS = sizeof kinds / sizeof *kinds };

//===-- The right device ------------------------------------------------------------===//

static void make_current(int id) { cr_assert(eq(int, cudaSetDevice(id), cudaSuccess)); }

static void expect_current(int id, const char* what) {
  int current = -1;
  cr_assert(eq(int, cudaGetDevice(&current), cudaSuccess));
  cr_expect(eq(int, current, id), "%s", what);
}

// Asked under device 0, which no test breaks.
static int device_of(const void* block) {
  int current = -1;
  cr_assert(eq(int, cudaGetDevice(&current), cudaSuccess));
  make_current(0);
  struct cudaPointerAttributes attributes;
  cr_assert(eq(int, cudaPointerGetAttributes(&attributes, block), cudaSuccess));
  make_current(current);
  return attributes.device;
}

static void expect_bytes(int devices, int id, const char* what) {
  for (int i = 0; machine_is_simulated() && i < devices; i++) {
    const uint64_t there = machine_reserved_bytes(i);
    cr_expect(i == id ? there >= SIZE : there == 0, "%s: device %d holds %llu bytes for device %d",
              what, i, (unsigned long long)there, id);
  }
}

static void take_and_give_back(const kind* k, int devices, int id, int current) {
  make_current(current);
  tm_allocator* allocator = k->create(id);
  cr_assert(allocator != NULL, "%s: %s", k->name, tm_last_error()->message);
  cr_expect(eq(int, tm_allocator_device(allocator).id, id));
  void* block;
  ASSERT_OK(tm_allocator_alloc(allocator, SIZE, NULL, &block));
  expect_current(current, k->name);
  cr_expect(eq(int, device_of(block), id), "%s", k->name);
  expect_bytes(devices, id, k->name);
  tm_allocator_free(allocator, block, SIZE, NULL);
  EXPECT_OK(tm_allocator_trim(allocator, 0));
  tm_allocator_release(allocator);
  expect_current(current, k->name);
}

static void take_on_every_device(int devices) {
  setup(devices);
  for (int k = 0; k < KINDS; k++) {
    for (int id = 0; id < devices; id++) {
      for (int current = 0; current < devices; current++) {
        take_and_give_back(&kinds[k], devices, id, current);
      }
    }
  }
  for (int id = 0; id < devices; id++) {
    cr_expect(eq(i64, machine_live_allocations(id), 0));
  }
}

Test(multi_device, two_devices_serve_their_own_allocators) { take_on_every_device(2); }

Test(multi_device, eight_devices_serve_their_own_allocators) { take_on_every_device(8); }

Test(multi_device, allocators_of_all_devices_are_in_use_at_once) {
  setup(DEVICES);
  tm_allocator* allocators[KINDS][DEVICES];
  void* blocks[KINDS][DEVICES];
  for (int k = 0; k < KINDS; k++) {
    for (int id = 0; id < DEVICES; id++) {
      allocators[k][id] = kinds[k].create(id);
      cr_assert(allocators[k][id] != NULL, "%s", tm_last_error()->message);
      ASSERT_OK(tm_allocator_alloc(allocators[k][id], SIZE, NULL, &blocks[k][id]));
    }
  }
  for (int k = 0; k < KINDS; k++) {
    for (int id = DEVICES - 1; id >= 0; id--) {
      cr_expect(eq(int, device_of(blocks[k][id]), id), "%s", kinds[k].name);
      tm_allocator_free(allocators[k][id], blocks[k][id], SIZE, NULL);
      tm_allocator_release(allocators[k][id]);
    }
  }
  for (int id = 0; id < DEVICES; id++) {
    cr_expect(eq(i64, machine_live_allocations(id), 0));
  }
}

Test(multi_device, pinned_memory_serves_streams_of_every_device) {
  setup(DEVICES);
  tm_allocator* pinned = tm_pinned_allocator();
  for (int id = 0; id < DEVICES; id++) {
    make_current((id + 3) % DEVICES);
    void* block;
    ASSERT_OK(tm_allocator_alloc(pinned, SIZE, streams[id], &block));
    memset(block, id, SIZE);
    gate g;
    gate_close(&g, streams[id]);
    tm_allocator_free(pinned, block, SIZE, streams[id]);
    void* other;
    ASSERT_OK(tm_allocator_alloc(pinned, SIZE, streams[(id + 1) % DEVICES], &other));
    cr_expect(ne(ptr, other, block), "what device %d still uses is given out", id);
    gate_open(&g);
    ASSERT_OK(tm_stream_sync(streams[id]));
    tm_allocator_free(pinned, other, SIZE, NULL);
    expect_current((id + 3) % DEVICES, "pinned");
  }
  cr_expect(eq(i64, machine_live_allocations(0), 0));
}

//===-- Streams of another device ---------------------------------------------------===//

typedef struct relay {
  int written;  // by the allocator's stream
  int seen;     // by the caller's
} relay;

static void write_value(void* user) { ((relay*)user)->written = 42; }
static void read_value(void* user) { ((relay*)user)->seen = ((relay*)user)->written; }

Test(multi_device, a_callers_stream_of_another_device_waits_for_the_allocators) {
  setup(2);
  for (int k = 0; k < KINDS; k++) {
    if (!kinds[k].has_stream) {
      continue;
    }
    relay r = {0};
    tm_auto_allocator allocator = kinds[k].create(0);
    gate g;
    gate_close(&g, streams[0]);
    ASSERT_OK(tm_stream_call_host(streams[0], write_value, &r));
    void* block;
    ASSERT_OK(tm_allocator_alloc(allocator, SIZE, streams[1], &block));
    ASSERT_OK(tm_stream_call_host(streams[1], read_value, &r));
    bool done = true;
    ASSERT_OK(tm_stream_query(streams[1], &done));
    cr_expect(not(done), "%s", kinds[k].name);
    gate_open(&g);
    ASSERT_OK(tm_stream_sync(streams[1]));
    cr_expect(eq(int, r.seen, 42), "%s", kinds[k].name);
    tm_allocator_free(allocator, block, SIZE, streams[1]);
  }
}

Test(multi_device, the_allocators_stream_waits_for_a_free_on_another_device) {
  setup(2);
  for (int k = 0; k < KINDS; k++) {
    if (!kinds[k].has_stream) {
      continue;
    }
    relay r = {0};
    tm_auto_allocator allocator = kinds[k].create(0);
    void* block;
    ASSERT_OK(tm_allocator_alloc(allocator, SIZE, streams[1], &block));
    gate g;
    gate_close(&g, streams[1]);
    ASSERT_OK(tm_stream_call_host(streams[1], write_value, &r));
    tm_allocator_free(allocator, block, SIZE, streams[1]);
    ASSERT_OK(tm_stream_call_host(streams[0], read_value, &r));
    bool done = true;
    ASSERT_OK(tm_stream_query(streams[0], &done));
    cr_expect(not(done), "%s", kinds[k].name);
    gate_open(&g);
    ASSERT_OK(tm_stream_sync(streams[0]));
    cr_expect(eq(int, r.seen, 42), "%s", kinds[k].name);
  }
}

//===-- A lost device ---------------------------------------------------------------===//

typedef struct holding {
  tm_allocator* allocator;
  void* block;
  tm_storage* storage;
} holding;

static holding hold(const kind* k, int id) {
  holding h = {.allocator = k->create(id)};
  cr_assert(h.allocator != NULL, "%s", tm_last_error()->message);
  ASSERT_OK(tm_allocator_alloc(h.allocator, SIZE, NULL, &h.block));
  ASSERT_OK(tm_storage_alloc(h.allocator, 1000, NULL, &h.storage));
  return h;
}

static void let_go(const holding* h) {
  tm_storage_release(h->storage);
  tm_allocator_free(h->allocator, h->block, SIZE, NULL);
  tm_allocator_release(h->allocator);
}

// What a stack already holds it can still hand out; a request over that asks the device.
static void expect_lost(tm_allocator* allocator, const char* name) {
  void* block = &block;
  cr_expect(eq(int, tm_allocator_alloc(allocator, 16 << 20, NULL, &block), TM_ERR_DEVICE_LOST),
            "%s", name);
  cr_expect(eq(ptr, block, NULL));
  const char* message = tm_last_error()->message;
  cr_expect(strstr(message, "earlier asynchronous work") != NULL, "%s: %s", name, message);
}

Test(multi_device, the_loss_of_one_leaves_the_others_going) {
  setup(2);
  holding lost[KINDS];
  for (int k = 0; k < KINDS; k++) {
    lost[k] = hold(&kinds[k], 1);
  }
  tm_auto_event event = tm_event_create(1, false);
  ASSERT_OK(tm_event_record(event, streams[1]));
  const int64_t live = machine_live_allocations(1);
  machine_break_device(1, cudaErrorIllegalAddress);
  cr_expect(eq(int, tm_device_sync(1), TM_ERR_DEVICE_LOST));
  for (int current = 0; current < 2; current++) {
    for (int k = 0; k < KINDS; k++) {
      take_and_give_back(&kinds[k], 1, 0, current);
      expect_lost(lost[k].allocator, kinds[k].name);
      expect_current(current, kinds[k].name);
    }
  }
  cr_expect(eq(int, tm_stream_wait(streams[0], event), TM_ERR_DEVICE_LOST));
  cr_expect(eq(int, tm_stream_wait_stream(streams[0], streams[1]), TM_ERR_DEVICE_LOST));
  for (int k = 0; k < KINDS; k++) {
    let_go(&lost[k]);
  }
  cr_expect(eq(i64, machine_live_allocations(1), live));  // nothing was asked of it
  EXPECT_OK(tm_stream_sync(streams[0]));
  void* block;
  ASSERT_OK(tm_allocator_alloc(tm_host_allocator(), SIZE, NULL, &block));
  tm_allocator_free(tm_host_allocator(), block, SIZE, NULL);
  ASSERT_OK(tm_allocator_alloc(tm_pinned_allocator(), SIZE, streams[0], &block));
  tm_allocator_free(tm_pinned_allocator(), block, SIZE, streams[0]);
}
