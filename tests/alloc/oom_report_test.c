// The report behind a TM_ERR_NO_MEMORY: its figures, its text, and which failure it is of.

#include "tm/alloc/oom_report.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/counting_allocator.h"
#include "tests/support/machine.h"
#include "tm/alloc/allocator.h"
#include "tm/alloc/bookkeeping.h"
#include "tm/alloc/cached.h"
#include "tm/alloc/callback.h"
#include "tm/alloc/cuda.h"
#include "tm/alloc/cuda_pool.h"
#include "tm/alloc/host.h"
#include "tm/alloc/pinned.h"
#include "tm/alloc/stack.h"
#include "tm/alloc/storage.h"
#include "tm/alloc/stream.h"

#define MIB ((size_t)1 << 20)

__attribute__((visibility("default"))) const char* __asan_default_options(void);
const char* __asan_default_options(void) { return "allocator_may_return_null=1"; }
__attribute__((visibility("default"))) const char* __tsan_default_options(void);
const char* __tsan_default_options(void) { return "allocator_may_return_null=1"; }

static void run_out(tm_allocator* allocator, size_t size) {
  void* block = &block;
  cr_assert(eq(int, tm_allocator_alloc(allocator, size, NULL, &block), TM_ERR_NO_MEMORY));
  cr_expect(block == NULL);
  cr_assert(tm_last_oom_report() != NULL, "%s", tm_last_error()->message);
  cr_expect(eq(u64, tm_last_oom_report()->asked_bytes, size));
}

static void expect_message_has(const char* part) {
  cr_expect(strstr(tm_last_error()->message, part) != NULL, "\"%s\" has no \"%s\"",
            tm_last_error()->message, part);
}

static tm_allocator* exhausted_upstream(counting_allocator* upstream, size_t budget) {
  counting_allocator_init(upstream);
  upstream->budget = budget;
  return &upstream->base;
}

//===-- Which failure it is of ----------------------------------------------===//

Test(oom_report, there_is_none_before_memory_runs_out) {
  cr_expect(tm_last_oom_report() == NULL);
  (void)TM_RAISE(TM_ERR_NO_MEMORY, "of something that is no allocation");
  cr_expect(tm_last_oom_report() == NULL);
}

Test(oom_report, it_is_of_the_failure_on_record) {
  counting_allocator upstream;
  tm_allocator* allocator = exhausted_upstream(&upstream, 0);
  run_out(allocator, 100);
  const tm_error failure = *tm_last_error();
  (void)TM_RAISE(TM_ERR_INVALID, "something else");
  cr_expect(tm_last_oom_report() == NULL);
  (void)TM_RAISE(TM_ERR_NO_MEMORY, "of something that is no allocation");
  cr_expect(tm_last_oom_report() == NULL);
  tm_restore_error_(&failure);
  cr_expect(tm_last_oom_report() != NULL);
  run_out(allocator, 200);  // the latest replaces it
  tm_restore_error_(&failure);
  cr_expect(tm_last_oom_report() == NULL);
  tm_clear_error();
  cr_expect(tm_last_oom_report() == NULL);
}

Test(oom_report, success_leaves_it) {
  counting_allocator upstream;
  tm_allocator* allocator = exhausted_upstream(&upstream, 256);
  run_out(allocator, 300);
  void* block;
  cr_assert(eq(int, tm_allocator_alloc(allocator, 256, NULL, &block), TM_OK));
  tm_allocator_free(allocator, block, 256, NULL);
  cr_assert(tm_last_oom_report() != NULL);
  cr_expect(eq(u64, tm_last_oom_report()->asked_bytes, 300));
}

Test(oom_report, storages_and_bookkeeping_that_run_out_report_too) {
  counting_allocator upstream;
  tm_allocator* allocator = exhausted_upstream(&upstream, 0);
  tm_storage* storage = NULL;
  cr_assert(eq(int, tm_storage_alloc(allocator, 77, NULL, &storage), TM_ERR_NO_MEMORY));
  cr_assert(tm_last_oom_report() != NULL);
  cr_expect(eq(u64, tm_last_oom_report()->asked_bytes, 77));
  tm_auto_allocator stack = tm_stack_allocator_create(tm_host_allocator(), NULL, NULL);
  tm_bookkeeping_fail_nth(1);  // the stack's first record of its owner
  const tm_status status = tm_storage_alloc(stack, 88, NULL, &storage);
  tm_bookkeeping_fail_nth(0);
  cr_expect(status == TM_OK || tm_last_oom_report() != NULL);
  tm_storage_release(storage);
}

//===-- Figures -------------------------------------------------------------===//

Test(oom_report, a_full_device_says_what_it_has) {
  machine_configure(1, "64MiB");
  machine_require_devices(1);
  tm_allocator* cuda = tm_cuda_allocator(0);
  size_t free_bytes;
  size_t total_bytes;
  void* block;
  cr_assert(eq(int, tm_allocator_alloc(cuda, 48 * MIB, NULL, &block), TM_OK));
  cr_assert(eq(int, tm_device_memory(0, &free_bytes, &total_bytes), TM_OK));
  run_out(cuda, total_bytes);
  const tm_oom_report* report = tm_last_oom_report();
  cr_expect(eq(str, (char*)report->allocator, "cuda"));
  cr_expect(tm_device_equal(report->device, tm_device_make(TM_DEVICE, 0)));
  cr_expect(report->has_device_memory);
  cr_expect(eq(u64, report->device_free_bytes, free_bytes));
  cr_expect(eq(u64, report->device_total_bytes, total_bytes));
  cr_expect(report->has_stats);
  cr_expect(eq(u64, report->live_bytes, 48 * MIB));
  cr_expect(eq(u64, report->live_blocks, 1));
  cr_expect(eq(u64, report->reserved_bytes, 48 * MIB));
  cr_expect(report->knows_largest_free);
  cr_expect(eq(u64, report->largest_free_bytes, 0));
  expect_message_has("cuda on device:0: ");
  expect_message_has(
      "50331648 live in 1 blocks, 50331648 reserved, largest free block 0; the device");
  expect_message_has("cudaErrorMemoryAllocation");
  tm_allocator_free(cuda, block, 48 * MIB, NULL);
}

Test(oom_report, a_stack_over_a_pool_speaks_for_itself) {
  machine_configure(1, "64MiB");
  machine_require_devices(1);
  tm_auto_stream stream = tm_stream_create(0, 0);
  tm_auto_allocator pool = tm_cuda_pool_allocator_create(stream, NULL);
  tm_auto_allocator inner = tm_stack_allocator_create(pool, NULL, NULL);
  tm_auto_allocator outer = tm_stack_allocator_create(inner, NULL, NULL);
  size_t free_bytes;
  size_t total_bytes;
  cr_assert(eq(int, tm_device_memory(0, &free_bytes, &total_bytes), TM_OK));
  void* block;
  cr_assert(eq(int, tm_allocator_alloc(outer, MIB, NULL, &block), TM_OK));
  run_out(outer, total_bytes);
  const tm_oom_report* report = tm_last_oom_report();
  cr_expect(eq(str, (char*)report->allocator, "stack"));
  cr_expect(eq(u64, report->live_bytes, MIB));
  cr_expect(eq(u64, report->live_blocks, 1));
  cr_expect(eq(u64, report->reserved_bytes, 2 * MIB));
  cr_expect(eq(u64, report->largest_free_bytes, MIB));  // of the region of 2 MiB
  cr_expect(report->has_device_memory);
  cr_expect(eq(u64, report->device_total_bytes, total_bytes));
  expect_message_has("cuda_pool: device 0 has no ");  // who said no
  expect_message_has("stack on device:0: ");
  tm_allocator_free(outer, block, MIB, NULL);
}

Test(oom_report, a_pool_does_not_know_its_largest_block) {
  machine_configure(1, "64MiB");
  machine_require_devices(1);
  tm_auto_stream stream = tm_stream_create(0, 0);
  tm_auto_allocator pool =
      tm_cuda_pool_allocator_create(stream, &(tm_cuda_pool_options){.maximum_bytes = 32 * MIB});
  run_out(pool, (size_t)1 << 46);
  const tm_oom_report* report = tm_last_oom_report();
  cr_expect(report->has_stats);
  cr_expect(not(report->knows_largest_free));
  cr_expect(eq(u64, report->largest_free_bytes, 0));
  cr_expect(eq(u64, report->limit_bytes, 32 * MIB));
  cr_expect(strstr(tm_last_error()->message, "largest free block") == NULL);
  expect_message_has("limit 33554432");
}

Test(oom_report, pinned_memory_is_of_the_host) {
  machine_configure(1, "64MiB");
  machine_require_devices(1);
  void* block;
  cr_assert(eq(int, tm_allocator_alloc(tm_pinned_allocator(), MIB, NULL, &block), TM_OK));
  machine_fail("cudaHostAlloc", 1, 0, cudaErrorMemoryAllocation);
  void* none;
  cr_expect(
      eq(int, tm_allocator_alloc(tm_pinned_allocator(), 8 * MIB, NULL, &none), TM_ERR_NO_MEMORY));
  machine_fail_nothing();
  const tm_oom_report* report = tm_last_oom_report();
  cr_assert(report != NULL);
  cr_expect(eq(str, (char*)report->allocator, "pinned"));
  cr_expect(not(report->has_device_memory));
  cr_expect(eq(u64, report->live_bytes, MIB));
  cr_expect(report->knows_largest_free);
  expect_message_has("pinned on cpu_pinned: 8388608 bytes asked, 1048576 live in 1 blocks");
  tm_allocator_free(tm_pinned_allocator(), block, MIB, NULL);
  tm_allocator_stats stats;
  cr_assert(eq(int, tm_allocator_get_stats(tm_pinned_allocator(), &stats), TM_OK));
  cr_expect(stats.knows_largest_free);
  cr_expect(eq(u64, stats.largest_free_bytes, MIB));  // parked, and idle
}

Test(oom_report, the_host_has_nothing_to_add) {
  run_out(tm_host_allocator(), PTRDIFF_MAX / 2);
  const tm_oom_report* report = tm_last_oom_report();
  cr_expect(eq(str, (char*)report->allocator, "host"));
  cr_expect(not(report->has_stats));
  cr_expect(not(report->has_device_memory));
  cr_expect(eq(u64, report->live_bytes, 0));
  char text[128];
  tm_oom_report_text(report, text, sizeof text);
  cr_expect(eq(str, text, "host on cpu: 4611686018427387903 bytes asked"));
  cr_expect(eq(str, (char*)tm_last_error()->message,
               "host: 4611686018427387904 bytes asked, and libc has no such block"));
}

static tm_status refuse(size_t size, tm_stream* stream, void** out, void* user) {
  (void)size;
  (void)stream;
  (void)out;
  (void)user;
  return TM_ERR_NO_MEMORY;
}

static void never_free(void* ptr, size_t size, tm_stream* stream, void* user) {
  (void)ptr;
  (void)size;
  (void)stream;
  (void)user;
}

Test(oom_report, callbacks_go_by_their_own_names_and_need_not_raise) {
  (void)TM_RAISE(TM_ERR_INVALID, "an older failure");
  tm_auto_allocator allocator = tm_callback_allocator_create(
      &(tm_callback_options){.name = "symmetric heap", .alloc = refuse, .free = never_free});
  run_out(allocator, 64);
  cr_expect(eq(str, (char*)tm_last_oom_report()->allocator, "symmetric heap"));
  cr_expect(strstr(tm_last_error()->message, "older") == NULL);
  expect_message_has("symmetric heap on cpu: 64 bytes asked, 0 live in 0 blocks, 0 reserved");
}

Test(oom_report, of_several_limits_it_has_the_smallest) {
  counting_allocator upstream;
  exhausted_upstream(&upstream, SIZE_MAX);
  tm_auto_allocator narrow = tm_stack_allocator_create(
      &upstream.base, NULL, &(tm_stack_options){.maximum_bytes = 4 * MIB});
  tm_auto_allocator wide =
      tm_stack_allocator_create(narrow, NULL, &(tm_stack_options){.maximum_bytes = 16 * MIB});
  tm_auto_allocator free_of_limits = tm_stack_allocator_create(wide, NULL, NULL);
  run_out(free_of_limits, 8 * MIB);
  cr_expect(eq(u64, tm_last_oom_report()->limit_bytes, 4 * MIB));
  run_out(free_of_limits, 32 * MIB);
  cr_expect(eq(u64, tm_last_oom_report()->limit_bytes, 4 * MIB));
  tm_auto_allocator unlimited = tm_stack_allocator_create(&upstream.base, NULL, NULL);
  upstream.budget = 0;
  run_out(unlimited, 8 * MIB);
  cr_expect(eq(u64, tm_last_oom_report()->limit_bytes, 0));
}

Test(oom_report, a_stack_knows_its_largest_free_block) {
  counting_allocator upstream;
  exhausted_upstream(&upstream, 12 * MIB);
  tm_auto_allocator stack = tm_stack_allocator_create(&upstream.base, NULL, NULL);
  void* low;
  void* high;
  cr_assert(eq(int, tm_allocator_alloc(stack, 3 * MIB, NULL, &low), TM_OK));
  cr_assert(eq(int, tm_allocator_alloc(stack, 5 * MIB, NULL, &high), TM_OK));
  tm_allocator_stats stats;
  cr_assert(eq(int, tm_allocator_get_stats(stack, &stats), TM_OK));
  cr_expect(stats.knows_largest_free);
  cr_expect(eq(u64, stats.largest_free_bytes, 0));  // both regions are full
  tm_allocator_free(stack, high, 5 * MIB, NULL);
  cr_assert(eq(int, tm_allocator_get_stats(stack, &stats), TM_OK));
  cr_expect(eq(u64, stats.largest_free_bytes, 5 * MIB));
  run_out(stack, 10 * MIB);  // which gives the empty region back
  cr_expect(eq(u64, tm_last_oom_report()->largest_free_bytes, 0));
  cr_expect(eq(u64, tm_last_oom_report()->reserved_bytes, 3 * MIB));
  tm_allocator_free(stack, low, 3 * MIB, NULL);
}

//===-- When it can be asked --------------------------------------------------===//

Test(oom_report, a_query_that_fails_leaves_the_figures_unknown_and_no_trace) {
  machine_configure(1, "64MiB");
  machine_require_devices(1);
  tm_allocator* cuda = tm_cuda_allocator(0);
  machine_fail("cudaMemGetInfo", 1, 0, cudaErrorInvalidValue);
  run_out(cuda, (size_t)1 << 46);
  machine_fail_nothing();
  cr_expect(eq(int, tm_last_error()->code, TM_ERR_NO_MEMORY));
  cr_expect(not(tm_last_oom_report()->has_device_memory));
  cr_expect(eq(u64, tm_last_oom_report()->device_total_bytes, 0));
  cr_expect(eq(int, cudaGetLastError(), cudaSuccess));
  expect_message_has("cuda on device:0: ");
}

Test(oom_report, a_capture_stays_valid) {
  machine_configure(1, "64MiB");
  machine_require_devices(1);
  tm_auto_stream stream = tm_stream_create(0, 0);
  tm_auto_allocator pool = tm_cuda_pool_allocator_create(stream, NULL);
  tm_auto_allocator stack =
      tm_stack_allocator_create(pool, NULL, &(tm_stack_options){.maximum_bytes = 4 * MIB});
  void* block;
  cr_assert(eq(int, tm_allocator_alloc(stack, MIB, NULL, &block), TM_OK));
  cudaStream_t handle = tm_stream_handle(stream);
  cr_assert(eq(int, cudaStreamBeginCapture(handle, cudaStreamCaptureModeGlobal), cudaSuccess));
  run_out(stack, 8 * MIB);
  cr_expect(not(tm_last_oom_report()->has_device_memory));
  cudaGraph_t graph;
  cr_assert(eq(int, cudaStreamEndCapture(handle, &graph), cudaSuccess));
  cr_expect(eq(int, cudaGraphDestroy(graph), cudaSuccess));
  run_out(stack, 8 * MIB);
  cr_expect(tm_last_oom_report()->has_device_memory);
  tm_allocator_free(stack, block, MIB, NULL);
}

Test(oom_report, a_process_that_has_used_no_device_does_not_begin_with_this) {
  counting_allocator upstream;
  exhausted_upstream(&upstream, 0);
  tm_allocator device;
  tm_allocator_init_(&device, upstream.base.vtable, tm_device_make(TM_DEVICE, 3), NULL);
  counting_allocator on_device = upstream;
  on_device.base.device = device.device;
  run_out(&on_device.base, 64);
  cr_expect(not(tm_last_oom_report()->has_device_memory));
  cr_expect(eq(int, tm_last_oom_report()->device.id, 3));
}

Test(oom_report, raising_allocates_nothing) {
  counting_allocator upstream;
  exhausted_upstream(&upstream, 0);
  tm_auto_allocator stack = tm_stack_allocator_create(&upstream.base, NULL, NULL);
  run_out(stack, 64);
  const uint64_t calls = tm_bookkeeping_calls();
  run_out(stack, 64);
  cr_expect(eq(u64, tm_bookkeeping_calls(), calls));
}

//===-- Reservations ----------------------------------------------------------===//

// An upstream that has more after it has trimmed itself.
typedef struct trimmable {
  counting_allocator counting;  // must be first
  tm_allocator_vtable vtable;
  int trims;
} trimmable;

static tm_status make_room(tm_allocator* self, size_t keep) {
  (void)keep;
  trimmable* t = (trimmable*)self;
  t->trims++;
  t->counting.budget = 16 * MIB;
  return TM_OK;
}

static void trimmable_init(trimmable* t, size_t budget) {
  counting_allocator_init(&t->counting);
  t->counting.budget = budget;
  t->vtable = *t->counting.base.vtable;
  t->vtable.trim = make_room;
  t->counting.base.vtable = &t->vtable;
  t->trims = 0;
}

Test(oom_report, a_reservation_trims_once_and_tries_again) {
  trimmable upstream;
  trimmable_init(&upstream, 0);
  tm_auto_allocator stack = tm_stack_allocator_create(&upstream.counting.base, NULL, NULL);
  cr_expect(eq(int, tm_stack_reserve(stack, 8 * MIB), TM_OK));
  cr_expect(eq(int, upstream.trims, 1));
  cr_expect(eq(int, tm_stack_reserve(stack, 64 * MIB), TM_ERR_NO_MEMORY));
  cr_expect(eq(int, upstream.trims, 2));
  const tm_oom_report* report = tm_last_oom_report();
  cr_assert(report != NULL);
  cr_expect(eq(u64, report->asked_bytes, 64 * MIB));
  cr_expect(eq(u64, report->reserved_bytes, 8 * MIB));  // the earlier one still holds
  cr_expect(eq(u64, report->largest_free_bytes, 8 * MIB));
}

Test(oom_report, a_pin_that_finds_no_region_reports) {
  counting_allocator upstream;
  exhausted_upstream(&upstream, 4 * MIB);
  tm_auto_allocator stack = tm_stack_allocator_create(&upstream.base, NULL, NULL);
  void* kept;
  void* block;
  cr_assert(eq(int, tm_allocator_alloc(stack, 3 * MIB, NULL, &kept), TM_OK));
  cr_assert(eq(int, tm_stack_reset(stack), TM_OK));  // the next iteration wants 3 MiB again
  upstream.budget = upstream.live_bytes;
  cr_expect(eq(int, tm_stack_pin(stack), TM_ERR_NO_MEMORY));
  cr_assert(tm_last_oom_report() != NULL);
  cr_expect(eq(u64, tm_last_oom_report()->asked_bytes, 3 * MIB));
  cr_expect(eq(u64, tm_last_oom_report()->live_bytes, 3 * MIB));
  tm_allocator_free(stack, kept, 3 * MIB, NULL);
  cr_assert(eq(int, tm_stack_pin(stack), TM_OK));  // in the region that is free again
  cr_expect(eq(int, tm_allocator_alloc(stack, 4 * MIB, NULL, &block), TM_ERR_NO_MEMORY));
  cr_expect(eq(u64, tm_last_oom_report()->asked_bytes, 4 * MIB));
  cr_assert(eq(int, tm_stack_unpin(stack), TM_OK));
}

Test(oom_report, a_stack_that_cannot_begin_says_why) {
  counting_allocator upstream;
  exhausted_upstream(&upstream, MIB);
  cr_expect(tm_stack_allocator_create(&upstream.base, NULL,
                                      &(tm_stack_options){.initial_bytes = 4 * MIB}) == NULL);
  cr_assert(tm_last_oom_report() != NULL);
  cr_expect(eq(u64, tm_last_oom_report()->asked_bytes, 4 * MIB));
  cr_expect(eq(str, (char*)tm_last_oom_report()->allocator, "stack"));
}

Test(oom_report, a_cache_that_cannot_begin_says_why) {
  counting_allocator upstream;
  exhausted_upstream(&upstream, MIB);
  cr_expect(tm_cached_allocator_create(&upstream.base, NULL,
                                       &(tm_cached_options){.initial_bytes = 4 * MIB}) == NULL);
  cr_assert(tm_last_oom_report() != NULL);
  cr_expect(eq(u64, tm_last_oom_report()->asked_bytes, 4 * MIB));
  cr_expect(eq(str, (char*)tm_last_oom_report()->allocator, "cached"));
}

//===-- Holders ---------------------------------------------------------------===//

static uint32_t holders_made;  // by the allocator below
static char scope_text[300];   // of every holder

static uint32_t name_holders(tm_allocator* self, tm_oom_holder* out, uint32_t capacity) {
  (void)self;
  const uint32_t count = holders_made < capacity ? holders_made : capacity;
  for (uint32_t i = 0; i < count; i++) {
    out[i].bytes = 1000 - i;
    out[i].blocks = 10 - i;
    memcpy(out[i].scope, scope_text, sizeof out[i].scope);
    out[i].scope[sizeof out[i].scope - 1] = '\0';
  }
  return count;
}

static void run_out_tracked(uint32_t count, const char* scope, size_t size) {
  static counting_allocator upstream;
  static tm_allocator_vtable vtable;
  exhausted_upstream(&upstream, 0);
  vtable = *upstream.base.vtable;
  vtable.top_holders = name_holders;
  upstream.base.vtable = &vtable;
  holders_made = count;
  snprintf(scope_text, sizeof scope_text, "%s", scope);
  tm_auto_allocator stack = tm_stack_allocator_create(&upstream.base, NULL, NULL);
  run_out(stack, size);
}

Test(oom_report, names_those_who_hold_most_below_the_one_that_was_asked) {
  run_out_tracked(2, "attention < step", 64);
  const tm_oom_report* report = tm_last_oom_report();
  cr_expect(eq(u32, report->holder_count, 2));
  cr_expect(eq(str, (char*)report->holders[0].scope, "attention < step"));
  cr_expect(eq(u64, report->holders[0].bytes, 1000));
  cr_expect(eq(u64, report->holders[1].blocks, 9));
  expect_message_has("; held: 1000 bytes by attention < step; 999 bytes by attention < step");
  run_out_tracked(9, "", 64);
  cr_expect(eq(u32, tm_last_oom_report()->holder_count, TM_OOM_HOLDERS));
  expect_message_has("; held: 1000 bytes by (no scope); 999 bytes by");
}

Test(oom_report, the_message_is_cut_where_the_holders_are) {
  char scope[201];
  memset(scope, 's', 200);
  scope[200] = '\0';
  run_out_tracked(4, scope, PTRDIFF_MAX / 4);
  const char* message = tm_last_error()->message;
  cr_expect(lt(sz, strlen(message), TM_ERROR_MESSAGE_SIZE));
  expect_message_has("bytes asked, 0 live in 0 blocks, 0 reserved, largest free block 0; held: ");
  cr_expect(eq(str, (char*)message + strlen(message) - 3, "..."));
  cr_expect(eq(sz, strlen(tm_last_oom_report()->holders[3].scope), TM_OOM_SCOPE_SIZE - 1));
}

static tm_status say_much(size_t size, tm_stream* stream, void** out, void* user) {
  (void)size;
  (void)stream;
  (void)out;
  (void)user;
  char words[TM_ERROR_MESSAGE_SIZE];
  memset(words, 'w', sizeof words - 1);
  words[sizeof words - 1] = '\0';
  return TM_RAISE(TM_ERR_NO_MEMORY, "%s", words);
}

Test(oom_report, a_long_reason_leaves_room_for_the_figures) {
  tm_auto_allocator allocator =
      tm_callback_allocator_create(&(tm_callback_options){.alloc = say_much, .free = never_free});
  run_out(allocator, 64);
  expect_message_has(
      "www...; callback on cpu: 64 bytes asked, 0 live in 0 blocks, 0 reserved, "
      "largest free block 0");
}

Test(oom_report, a_text_fits_any_buffer) {
  run_out_tracked(4, "attention", 64);
  char whole[512];
  tm_oom_report_text(tm_last_oom_report(), whole, sizeof whole);
  const size_t length = strlen(whole);
  for (size_t size = 1; size <= length + 1; size++) {
    char* text = malloc(size);  // exactly as large, so that ASan sees a write behind it
    tm_oom_report_text(tm_last_oom_report(), text, size);
    cr_expect(eq(sz, strlen(text), size - 1));
    free(text);
  }
  tm_oom_report_text(NULL, whole, sizeof whole);
  cr_expect(eq(str, whole, ""));
  tm_oom_report_text(NULL, NULL, 0);
}

//===-- Threads ---------------------------------------------------------------===//

static tm_allocator* shared;
static pthread_barrier_t all_have_run_out;

static void* run_out_on_a_thread(void* unused) {
  void* block;
  cr_assert(tm_last_oom_report() == NULL);  // another thread's is not seen
  cr_assert(eq(int, tm_allocator_alloc(shared, 64, NULL, &block), TM_ERR_NO_MEMORY));
  const bool has_report = tm_last_oom_report() != NULL;
  cr_assert(has_report == false || tm_last_oom_report()->asked_bytes == 64);
  expect_message_has("64 bytes asked");  // with a report or without
  return has_report ? unused : NULL;
}

static void* run_out_and_wait(void* unused) {
  void* result = run_out_on_a_thread(unused);
  pthread_barrier_wait(&all_have_run_out);
  return result;
}

Test(oom_report, threads_have_their_own_and_give_their_places_back) {
  enum { THREADS = TM_OOM_THREADS + 20 };
  static pthread_t threads[THREADS];
  int reports = 0;
  shared =
      tm_callback_allocator_create(&(tm_callback_options){.alloc = refuse, .free = never_free});
  for (int i = 0; i < THREADS; i++) {  // one after the other
    void* result;
    cr_assert(eq(int, pthread_create(&threads[i], NULL, run_out_on_a_thread, &reports), 0));
    pthread_join(threads[i], &result);
    cr_assert(result != NULL, "thread %d has no report", i);
  }
  pthread_barrier_init(&all_have_run_out, NULL, THREADS);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, (size_t)1 << 18);
  for (int i = 0; i < THREADS; i++) {
    cr_assert(eq(int, pthread_create(&threads[i], &attributes, run_out_and_wait, &reports), 0));
  }
  for (int i = 0; i < THREADS; i++) {
    void* result;
    pthread_join(threads[i], &result);
    reports += result != NULL;
  }
  cr_expect(eq(int, reports, TM_OOM_THREADS));
  cr_expect(tm_last_oom_report() == NULL);
  tm_allocator_release(shared);
}
