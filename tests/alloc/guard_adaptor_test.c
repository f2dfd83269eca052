// What the guard finds on the host and on a device.

#include "tm/alloc/guard_adaptor.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/counting_allocator.h"
#include "tests/support/expect_fatal.h"
#include "tests/support/failing.h"
#include "tests/support/machine.h"
#include "tests/support/random.h"
#include "tm/alloc/cuda.h"
#include "tm/alloc/cuda_pool.h"
#include "tm/alloc/device.h"
#include "tm/alloc/host.h"
#include "tm/alloc/pinned.h"
#include "tm/alloc/stack.h"
#include "tm/alloc/statistics_adaptor.h"
#include "tm/alloc/storage.h"
#include "tm/alloc/stream.h"
#include "tm/base/trace.h"

static tm_allocator* create(tm_allocator* upstream) {
  tm_allocator* adaptor = tm_guard_adaptor_create(upstream);
  cr_assert(adaptor != NULL, "%s", tm_last_error()->message);
  return adaptor;
}

static char* take(tm_allocator* allocator, size_t size) {
  void* block = NULL;
  cr_assert(eq(int, tm_allocator_alloc(allocator, size, NULL, &block), TM_OK), "%s",
            tm_last_error()->message);
  return block;
}

static tm_guard_counts counts_of(tm_allocator* adaptor) {
  tm_guard_counts counts;
  cr_assert(eq(int, tm_guard_get(adaptor, &counts), TM_OK));
  return counts;
}

//===-- The host --------------------------------------------------------------===//

Test(guard_adaptor, a_block_that_is_used_as_promised_passes) {
  tm_auto_allocator adaptor = create(tm_host_allocator());
  for (size_t size = 1; size < 300; size++) {
    char* block = take(adaptor, size);
    cr_expect(eq(sz, (uintptr_t)block % 64, 0));
    memset(block, 0xff, size);
    cr_expect(eq(int, tm_guard_check(adaptor), TM_OK));
    tm_allocator_free(adaptor, block, size, NULL);
  }
  cr_expect(eq(u64, counts_of(adaptor).checked, 299));
  cr_expect(eq(u64, counts_of(adaptor).unchecked, 0));
}

// Every byte of the red zones, one at a time.
Test(guard_adaptor, each_byte_outside_of_a_block_is_found) {
  tm_auto_allocator adaptor = create(tm_host_allocator());
  char* block = NULL;
  TM_WITH_SCOPE("prefill") block = take(adaptor, 100);
  for (ptrdiff_t at = -64; at < 192; at++) {
    if (at >= 0 && at < 100) {
      continue;
    }
    const char before = block[at];
    block[at] = 0x11;
    cr_expect(eq(int, tm_guard_check(adaptor), TM_ERR_CORRUPT), "%td", at);
    char words[64];
    (void)snprintf(words, sizeof words, "byte %td %s the block", at < 0 ? -at : at - 99,
                   at < 0 ? "before" : "behind");
    cr_expect(strstr(tm_last_error()->message, words) != NULL, "%s", tm_last_error()->message);
    block[at] = before;
  }
  cr_expect(eq(int, tm_guard_check(adaptor), TM_OK));
  cr_expect(strstr(tm_last_error()->message, "it is 0x11, not 0xfb; allocated in prefill (") !=
            NULL);
  tm_allocator_free(adaptor, block, 100, NULL);
}

Test(guard_adaptor, a_free_of_an_overrun_block_is_fatal_and_leaves_it_live) {
  tm_auto_allocator adaptor = create(tm_host_allocator());
  char* block = take(adaptor, 100);
  const char before = block[100];
  block[100] = 0;
  EXPECT_FATAL(tm_allocator_free(adaptor, block, 100, NULL), "guard: byte 1 behind the block");
  block[100] = before;
  const char front = block[-1];
  block[-1] = 0;
  EXPECT_FATAL(tm_allocator_free(adaptor, block, 100, NULL), "guard: byte 1 before the block");
  block[-1] = front;
  tm_allocator_free(adaptor, block, 100, NULL);
}

Test(guard_adaptor, double_foreign_and_inner_frees_are_told_apart) {
  tm_auto_allocator adaptor = create(tm_host_allocator());
  char* kept = take(adaptor, 100);
  char* block = take(adaptor, 100);
  EXPECT_FATAL(tm_allocator_free(adaptor, block + 64, 36, NULL), "lies 64 bytes inside the block");
  EXPECT_FATAL(tm_allocator_free(adaptor, block, 99, NULL),
               "is freed with 99 bytes, and was allocated with 100");
  tm_allocator_free(adaptor, block, 100, NULL);
  EXPECT_FATAL(tm_allocator_free(adaptor, block, 100, NULL), "was freed before");
  char foreign[64];
  EXPECT_FATAL(tm_allocator_free(adaptor, foreign, 64, NULL), "is no block of this allocator");
  tm_allocator_free(adaptor, kept, 100, NULL);
}

Test(guard_adaptor, a_freed_block_is_poisoned) {
  tm_auto_allocator stack = tm_stack_allocator_create(tm_host_allocator(), NULL, NULL);
  tm_auto_allocator adaptor = create(stack);
  void* below = take(stack, 64);  // so that the memory stays
  unsigned char* block = (unsigned char*)take(adaptor, 100);
  memset(block, 1, 100);
  tm_allocator_free(adaptor, block, 100, NULL);
  for (int i = 0; i < 100; i++) {
    cr_assert(eq(int, block[i], 0xdd), "byte %d", i);
  }
  tm_allocator_free(stack, below, 64, NULL);
}

Test(guard_adaptor, counts_what_was_asked_and_not_its_zones) {
  tm_auto_allocator stack = tm_stack_allocator_create(tm_host_allocator(), NULL, NULL);
  tm_auto_allocator adaptor = create(stack);
  char* block = take(adaptor, 100);
  tm_allocator_stats stats;
  cr_assert(eq(int, tm_allocator_get_stats(adaptor, &stats), TM_OK));
  cr_expect(eq(u64, stats.live_bytes, 128));
  cr_expect(eq(u64, stats.live_blocks, 1));
  cr_expect(eq(u64, stats.reserved_bytes, 2 << 20));
  tm_allocator_free(adaptor, block, 100, NULL);
}

Test(guard_adaptor, under_another_adaptor_it_sees_the_last_byte) {
  tm_auto_allocator adaptor = create(tm_host_allocator());
  tm_auto_allocator above = tm_statistics_adaptor_create(adaptor);
  tm_storage* storage;
  cr_assert(eq(int, tm_storage_alloc(above, 100, NULL, &storage), TM_OK));
  char* data = storage->data;
  const char before = data[100];
  data[100] = 0;
  cr_expect(eq(int, tm_guard_check(adaptor), TM_ERR_CORRUPT));
  data[100] = before;
  tm_storage_release(storage);
}

Test(guard_adaptor, what_is_dry_is_refused_with_the_reason) {
  counting_allocator dry;
  counting_allocator_init(&dry);
  dry.base.is_dry = true;
  cr_expect(tm_guard_adaptor_create(&dry.base) == NULL);
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
  cr_expect(strstr(tm_last_error()->message, "hands out addresses that nothing may touch") != NULL);
  tm_allocator* over = tm_statistics_adaptor_create(&dry.base);
  cr_expect(tm_guard_adaptor_create(over) == NULL);
  tm_allocator_release(over);
  tm_allocator_release(&dry.base);
}

Test(guard_adaptor, misuse_is_an_error) {
  cr_expect(tm_guard_adaptor_create(NULL) == NULL);
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
  cr_expect(eq(int, tm_guard_check(tm_host_allocator()), TM_ERR_INVALID));
  cr_expect(strstr(tm_last_error()->message, "is a host, no guard") != NULL);
  tm_auto_allocator adaptor = create(tm_host_allocator());
  cr_expect(eq(int, tm_guard_get(adaptor, NULL), TM_ERR_INVALID));
  void* block = &block;
  cr_expect(eq(int, tm_allocator_alloc(adaptor, PTRDIFF_MAX, NULL, &block), TM_ERR_INVALID));
  cr_expect(block == NULL);
}

//===-- Devices ---------------------------------------------------------------===//

static void cuda_ok(cudaError_t code) {
  cr_assert(eq(int, code, cudaSuccess), "%s", cudaGetErrorString(code));
}

static void set_up_device(void) {
  machine_configure(1, "64MiB");
  machine_require_devices(1);
}

// Writes a byte of device memory and gives back what it was.
static unsigned char poke(char* at, unsigned char value) {
  unsigned char before;
  cuda_ok(cudaDeviceSynchronize());
  cuda_ok(cudaMemcpy(&before, at, 1, cudaMemcpyDeviceToHost));
  cuda_ok(cudaMemcpy(at, &value, 1, cudaMemcpyHostToDevice));
  cuda_ok(cudaDeviceSynchronize());  // it may return before the byte is there
  return before;
}

static void expect_finds_overruns(tm_allocator* adaptor) {
  static const ptrdiff_t places[] = {-256, -1, 1000, 1023, 1024, 1279};
  char* block = take(adaptor, 1000);
  for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
    cr_expect(eq(int, tm_guard_check(adaptor), TM_OK), "%s", tm_last_error()->message);
    const unsigned char before = poke(block + places[i], 7);
    cr_expect(eq(int, tm_guard_check(adaptor), TM_ERR_CORRUPT), "%td", places[i]);
    EXPECT_FATAL(tm_allocator_free(adaptor, block, 1000, NULL), "was written to");
    (void)poke(block + places[i], before);
  }
  tm_allocator_free(adaptor, block, 1000, NULL);
  cr_expect(eq(u64, counts_of(adaptor).checked, 1));
  EXPECT_FATAL(tm_allocator_free(adaptor, block, 1000, NULL), "was freed before");
}

Test(guard_adaptor, device_memory_is_guarded_by_copies) {
  set_up_device();
  tm_auto_allocator over_cuda = create(tm_cuda_allocator(0));
  expect_finds_overruns(over_cuda);
  tm_auto_stream stream = tm_stream_create(0, 0);
  tm_auto_allocator pool = tm_cuda_pool_allocator_create(stream, NULL);
  tm_auto_allocator over_pool = create(pool);
  expect_finds_overruns(over_pool);
  tm_auto_allocator stack = tm_stack_allocator_create(pool, NULL, NULL);
  tm_auto_allocator over_stack = create(stack);
  expect_finds_overruns(over_stack);
}

// A write that is still queued when the block is freed is seen: the free waits for it.
Test(guard_adaptor, a_free_sees_what_is_queued_on_the_stream) {
  set_up_device();
  tm_auto_stream stream = tm_stream_create(0, 0);
  tm_auto_allocator pool = tm_cuda_pool_allocator_create(stream, NULL);
  tm_auto_allocator adaptor = create(pool);
  char* block = take(adaptor, 1000);
  cuda_ok(cudaMemsetAsync(block, 0, 1001, tm_stream_handle(stream)));
  EXPECT_FATAL(tm_allocator_free(adaptor, block, 1000, NULL), "byte 1 behind the block");
  cuda_ok(cudaMemsetAsync(block + 1000, 0xfb, 1, tm_stream_handle(stream)));
  tm_allocator_free(adaptor, block, 1000, NULL);
}

Test(guard_adaptor, pinned_memory_that_a_copy_uses_is_waited_for) {
  set_up_device();
  tm_auto_stream stream = tm_stream_create(0, 0);
  tm_auto_allocator adaptor = create(tm_pinned_allocator());
  void* source;
  void* target;
  cr_assert(eq(int, tm_allocator_alloc(adaptor, 1000, stream, &source), TM_OK));
  cr_assert(eq(int, tm_allocator_alloc(tm_cuda_allocator(0), 1000, NULL, &target), TM_OK));
  memset(source, 5, 1000);
  cuda_ok(cudaMemcpyAsync(target, source, 1000, cudaMemcpyHostToDevice, tm_stream_handle(stream)));
  tm_allocator_free(adaptor, source, 1000, stream);  // poisons it after the copy
  unsigned char copy[1000];
  cuda_ok(cudaMemcpy(copy, target, 1000, cudaMemcpyDeviceToHost));
  for (int i = 0; i < 1000; i++) {
    cr_assert(eq(int, copy[i], 5));
  }
  cr_expect(eq(u64, counts_of(adaptor).checked, 1));
  tm_allocator_free(tm_cuda_allocator(0), target, 1000, NULL);
}

Test(guard_adaptor, during_a_capture_allocations_are_refused_and_frees_put_off) {
  set_up_device();
  tm_auto_stream stream = tm_stream_create(0, 0);
  tm_auto_allocator pool = tm_cuda_pool_allocator_create(stream, NULL);
  tm_auto_allocator stack =
      tm_stack_allocator_create(pool, NULL, &(tm_stack_options){.initial_bytes = 1 << 20});
  cr_assert(stack != NULL);
  tm_auto_allocator adaptor = create(stack);
  char* block = take(adaptor, 1000);
  cudaStream_t handle = tm_stream_handle(stream);
  cuda_ok(cudaStreamBeginCapture(handle, cudaStreamCaptureModeThreadLocal));
  void* refused = &refused;
  cr_expect(eq(int, tm_allocator_alloc(adaptor, 100, NULL, &refused), TM_ERR_CAPTURING));
  cr_expect(refused == NULL);
  cr_expect(eq(int, tm_guard_check(adaptor), TM_ERR_CAPTURING));
  tm_allocator_free(adaptor, block, 1000, NULL);
  cr_expect(eq(u64, counts_of(adaptor).checked, 0));
  cudaGraph_t graph;
  cuda_ok(cudaStreamEndCapture(handle, &graph));  // it is still valid
  cuda_ok(cudaGraphDestroy(graph));
  cr_expect(eq(int, tm_allocator_trim(adaptor, 0), TM_OK));  // makes up for the free
  cr_expect(eq(u64, counts_of(adaptor).checked, 1));
  cr_expect(eq(u64, counts_of(adaptor).unchecked, 0));
}

// A buffer over cuda memory knows its stream, so its free waits for that one, and other streams may
// be captured meanwhile.
Test(guard_adaptor, a_free_leaves_the_captures_of_other_streams_alone) {
  set_up_device();
  tm_auto_stream captured = tm_stream_create(0, 0);
  tm_auto_stream stream = tm_stream_create(0, 0);
  tm_auto_allocator adaptor = create(tm_cuda_allocator(0));
  tm_storage* storage;
  cr_assert(eq(int, tm_storage_alloc(adaptor, 1000, stream, &storage), TM_OK));
  cr_expect(tm_stream_equal(storage->stream, stream));
  cudaStream_t handle = tm_stream_handle(captured);
  cuda_ok(cudaStreamBeginCapture(handle, cudaStreamCaptureModeThreadLocal));
  cuda_ok(cudaMemsetAsync(storage->data, 0, 1, tm_stream_handle(stream)));
  tm_storage_release(storage);
  cr_expect(eq(u64, counts_of(adaptor).checked, 1));
  cudaGraph_t graph;
  cuda_ok(cudaStreamEndCapture(handle, &graph));
  cuda_ok(cudaGraphDestroy(graph));
}

Test(guard_adaptor, a_freed_block_of_a_pool_is_poisoned_on_the_device) {
  set_up_device();
  tm_auto_stream stream = tm_stream_create(0, 0);
  tm_auto_allocator pool = tm_cuda_pool_allocator_create(stream, NULL);
  tm_auto_allocator stack = tm_stack_allocator_create(pool, NULL, NULL);
  tm_auto_allocator adaptor = create(stack);
  char* block = take(adaptor, 1000);
  tm_allocator_free(adaptor, block, 1000, NULL);
  char* again = take(stack, 2000);  // the same memory, with the zones
  unsigned char copy[1000];
  cuda_ok(
      cudaMemcpyAsync(copy, block, sizeof copy, cudaMemcpyDeviceToHost, tm_stream_handle(stream)));
  cuda_ok(cudaStreamSynchronize(tm_stream_handle(stream)));
  cr_assert(again <= block && block + 1000 <= again + 2000);
  for (int i = 0; i < 1000; i++) {
    cr_assert(eq(int, copy[i], 0xdd), "byte %d", i);
  }
  tm_allocator_free(stack, again, 2000, NULL);
}

Test(guard_adaptor, on_a_lost_device_blocks_are_freed_without_a_look) {
  set_up_device();
  tm_auto_allocator adaptor = create(tm_cuda_allocator(0));
  char* block = take(adaptor, 1000);
  machine_break_device(0, cudaErrorIllegalAddress);
  (void)!tm_device_sync(0);
  tm_allocator_free(adaptor, block, 1000, NULL);
  cr_expect(eq(u64, counts_of(adaptor).unchecked, 1));
  cr_expect(eq(int, tm_guard_check(adaptor), TM_ERR_DEVICE_LOST));
}

//===-- Random overruns -------------------------------------------------------===//

Test(guard_adaptor, finds_each_random_overrun_and_nothing_else) {
  enum { STEPS = 3000, MAX_LIVE = 40 };
  test_random random = test_random_start("guard_adaptor");
  tm_auto_allocator adaptor = create(tm_host_allocator());
  char* live[MAX_LIVE] = {NULL};
  size_t sizes[MAX_LIVE] = {0};
  for (int step = 0; step < STEPS; step++) {
    const size_t i = test_random_below(&random, MAX_LIVE);
    if (live[i]) {
      tm_allocator_free(adaptor, live[i], sizes[i], NULL);
    }
    sizes[i] = 1 + test_random_below(&random, 700);
    live[i] = take(adaptor, sizes[i]);
    memset(live[i], (int)test_random_below(&random, 256), sizes[i]);
    const size_t reach = (sizes[i] + 63) / 64 * 64 + 64 - sizes[i];
    char* outside = test_random_below(&random, 2)
                        ? live[i] - 1 - test_random_below(&random, 64)
                        : live[i] + sizes[i] + test_random_below(&random, reach);
    const char before = *outside;
    *outside = (char)(before + 1 + (char)test_random_below(&random, 255));
    cr_assert(eq(int, tm_guard_check(adaptor), TM_ERR_CORRUPT));
    *outside = before;
    cr_assert(eq(int, tm_guard_check(adaptor), TM_OK));
  }
  for (int i = 0; i < MAX_LIVE; i++) {
    tm_allocator_free(adaptor, live[i], sizes[i], NULL);
  }
}

//===-- Failures --------------------------------------------------------------===//

static tm_status use(tm_allocator* adaptor) {
  void* block;
  TM_TRY(tm_allocator_alloc(adaptor, 100, NULL, &block));
  const tm_status status = tm_guard_check(adaptor);
  tm_allocator_free(adaptor, block, 100, NULL);
  return status;
}

static tm_status create_and_use(tm_allocator* upstream) {
  tm_auto_allocator adaptor = tm_guard_adaptor_create(upstream);
  return adaptor ? use(adaptor) : tm_last_status();
}

Test(guard_adaptor, survives_every_failure) {
  expect_survives_every_failure_or_retries(create_and_use);
}

static tm_status use_on_a_device(tm_allocator* upstream) {
  (void)upstream;
  tm_auto_allocator adaptor = tm_guard_adaptor_create(tm_cuda_allocator(0));
  return adaptor ? use(adaptor) : tm_last_status();
}

Test(guard_adaptor, survives_every_failing_cuda_call) {
  set_up_device();
  expect_survives_every_cuda_failure(use_on_a_device);
}
