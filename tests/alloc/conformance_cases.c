#include "tests/alloc/conformance_cases.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tests/alloc/conformance_rows.h"
#include "tests/support/failing.h"
#include "tests/support/machine.h"
#include "tm/alloc/device.h"
#include "tm/alloc/storage.h"
#include "tm/alloc/stream.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

// A request that is too large for malloc must return NULL, as it does without the sanitizers.
__attribute__((visibility("default"))) const char* __asan_default_options(void);
const char* __asan_default_options(void) { return "allocator_may_return_null=1"; }
__attribute__((visibility("default"))) const char* __tsan_default_options(void);
const char* __tsan_default_options(void) { return "allocator_may_return_null=1"; }

#define CONFORMANCE(name) void conformance_##name(const size_t* index)

// Whether the case is one of several in this process: then leaving it out is no test of its own.
static bool in_bundle;

// Whether the machine has so many devices. A case that it cannot do skips a test of its own, but
// not those that follow it in the same process.
static bool has_devices(int32_t wanted) {
  int32_t count;
  return tm_device_count(&count) == TM_OK && count >= wanted;
}

// Ends a case that the allocator has no part in.
#define SKIP(s, ...)             \
  do {                           \
    subject_release(s);          \
    if (!in_bundle) {            \
      cr_skip_test(__VA_ARGS__); \
    }                            \
    return;                      \
  } while (0)

//===-- The allocator under test ----------------------------------------------===//

typedef struct subject {
  const conformance_row* row;
  tm_allocator* allocator;
  tm_stream* stream;  // to copy on: its own, or one of the test's
} subject;

static conformance_row row_of_case;  // the row of the case that runs

static const conformance_row* start(size_t index, int devices) {
  row_of_case = conformance_row_at(index);
  if (!in_bundle) {
    machine_configure(devices, "256MiB");
  }
  if (row_of_case.uses_device) {
    machine_require_devices(devices);
    cudaError_t code = cudaSetDevice(0);
    cr_assert(code == cudaSuccess, "cudaSetDevice(0): %s", cudaGetErrorName(code));
  }
  return &row_of_case;
}

static subject subject_on(size_t index, int devices) {
  subject s = {.row = start(index, devices)};
  s.allocator = conformance_create(s.row);
  cr_assert(s.allocator != NULL, "%s: %s", s.row->name, tm_last_error()->message);
  if (s.row->has_stream) {
    s.stream = tm_stream_retain(tm_allocator_stream(s.allocator));
  } else if (s.row->uses_device) {
    s.stream = tm_stream_create(0, 0);
    cr_assert(s.stream != NULL, "%s", tm_last_error()->message);
  }
  return s;
}

static subject subject_create(size_t index) { return subject_on(index, 1); }

// Waits for frees that are still queued: the next case begins with all of the memory.
static void subject_release(const subject* s) {
  tm_allocator_release(s->allocator);
  tm_stream_release(s->stream);
  if (in_bundle && s->row->uses_device) {
    (void)!tm_device_sync(0);
  }
}

static void* take(const subject* s, size_t size) {
  void* block = NULL;
  cr_assert(eq(int, tm_allocator_alloc(s->allocator, size, NULL, &block), TM_OK), "%s: %s",
            s->row->name, tm_last_error()->message);
  cr_assert(block != NULL, "%s", s->row->name);
  return block;
}

static void give(const subject* s, void* block, size_t size) {
  tm_allocator_free(s->allocator, block, size, NULL);
}

static tm_allocator_stats stats_of(const subject* s) {
  tm_allocator_stats stats;
  cr_assert(eq(int, tm_allocator_get_stats(s->allocator, &stats), TM_OK), "%s: %s", s->row->name,
            tm_last_error()->message);
  return stats;
}

static void expect_nothing_live(const subject* s) {
  if (s->row->counts) {
    const tm_allocator_stats stats = stats_of(s);
    cr_expect(eq(u64, stats.live_bytes, 0), "%s", s->row->name);
    cr_expect(eq(u64, stats.live_blocks, 0), "%s", s->row->name);
  }
}

//===-- Data ------------------------------------------------------------------===//

static void cuda_ok(cudaError_t code) {
  cr_assert(eq(int, code, cudaSuccess), "%s", cudaGetErrorString(code));
}

static void write_block(const subject* s, void* block, size_t size, int value) {
  if (s->row->is_dry) {
    return;
  }
  if (s->row->device.type != TM_DEVICE) {
    memset(block, value, size);
    return;
  }
  cuda_ok(cudaMemsetAsync(block, value, size, tm_stream_handle(s->stream)));
}

static void expect_block(const subject* s, const void* block, size_t size, int value) {
  if (s->row->is_dry) {
    return;
  }
  char* copy = malloc(size);
  cr_assert(copy != NULL);
  if (s->row->device.type == TM_DEVICE) {
    cudaStream_t stream = tm_stream_handle(s->stream);
    cuda_ok(cudaMemcpyAsync(copy, block, size, cudaMemcpyDeviceToHost, stream));
    cuda_ok(cudaStreamSynchronize(stream));
  } else {
    memcpy(copy, block, size);
  }
  size_t wrong = 0;
  for (size_t i = 0; i < size; i++) {
    wrong += copy[i] != (char)value;
  }
  cr_expect(eq(sz, wrong, 0), "%s: %zu of %zu bytes are not %d", s->row->name, wrong, size, value);
  free(copy);
}

//===-- What it is ------------------------------------------------------------===//

CONFORMANCE(says_what_it_is) {
  subject s = subject_create(*index);
  const tm_device device = tm_allocator_device(s.allocator);
  cr_expect(eq(int, device.type, s.row->device.type), "%s", s.row->name);
  cr_expect(eq(int, device.id, 0), "%s", s.row->name);
  cr_expect(eq(sz, tm_allocator_alignment(s.allocator), s.row->alignment), "%s", s.row->name);
  cr_expect(eq(int, tm_allocator_stream(s.allocator) != NULL, s.row->has_stream), "%s",
            s.row->name);
  const char* name = tm_allocator_name(s.allocator);
  cr_expect(eq(int, strncmp(s.row->name, name, strlen(name)), 0), "%s says %s", s.row->name, name);
  subject_release(&s);
}

CONFORMANCE(keeps_statistics_or_says_that_it_does_not) {
  subject s = subject_create(*index);
  tm_allocator_stats stats;
  memset(&stats, 0xff, sizeof stats);
  const tm_status status = tm_allocator_get_stats(s.allocator, &stats);
  cr_expect(eq(int, status, s.row->counts ? TM_OK : TM_ERR_UNAVAILABLE), "%s", s.row->name);
  cr_expect(eq(u64, stats.live_bytes, 0), "%s", s.row->name);
  cr_expect(eq(int, tm_allocator_get_stats(s.allocator, NULL), TM_ERR_INVALID));
  subject_release(&s);
}

CONFORMANCE(process_wide_allocators_are_not_counted) {
  subject s = subject_create(*index);
  if (s.row->is_process_wide) {
    for (int i = 0; i < 3; i++) {
      tm_allocator_release(s.allocator);
    }
    cr_expect(eq(ptr, conformance_create(s.row), s.allocator));
  } else {
    cr_expect(eq(ptr, tm_allocator_retain(s.allocator), s.allocator));
    tm_allocator_release(s.allocator);
  }
  give(&s, take(&s, 100), 100);
  subject_release(&s);
}

//===-- Blocks ----------------------------------------------------------------===//

static const size_t sizes[] = {1,    63,   64,    65,     255,     256,         257,
                               4095, 4096, 65537, 100000, 2 * MIB, 3 * MIB + 1, 5};
enum { SIZES = sizeof sizes / sizeof *sizes };

CONFORMANCE(every_block_is_aligned_the_first_too) {
  subject s = subject_create(*index);
  void* blocks[SIZES];
  for (int i = 0; i < SIZES; i++) {
    blocks[i] = take(&s, sizes[i]);
    cr_expect(eq(sz, (uintptr_t)blocks[i] % s.row->alignment, 0), "%s: block %d of %zu bytes at %p",
              s.row->name, i, sizes[i], blocks[i]);
  }
  for (int i = SIZES - 1; i >= 0; i--) {
    give(&s, blocks[i], sizes[i]);
  }
  expect_nothing_live(&s);
  subject_release(&s);
}

CONFORMANCE(live_blocks_keep_what_is_written_to_them) {
  subject s = subject_create(*index);
  void* blocks[SIZES];
  for (int i = 0; i < SIZES; i++) {
    blocks[i] = take(&s, sizes[i]);
    write_block(&s, blocks[i], sizes[i], i + 1);
  }
  for (int i = 0; i < SIZES; i += 3) {
    give(&s, blocks[i], sizes[i]);
    blocks[i] = take(&s, sizes[i]);
    write_block(&s, blocks[i], sizes[i], 100 + i);
  }
  for (int i = 0; i < SIZES; i++) {
    expect_block(&s, blocks[i], sizes[i], i % 3 == 0 ? 100 + i : i + 1);
    give(&s, blocks[i], sizes[i]);
  }
  expect_nothing_live(&s);
  subject_release(&s);
}

static int compare_addresses(const void* a, const void* b) {
  const uintptr_t left = *(const uintptr_t*)a;
  const uintptr_t right = *(const uintptr_t*)b;
  return (left > right) - (left < right);
}

CONFORMANCE(live_blocks_do_not_overlap) {
  enum { BLOCKS = 200, SIZE = 1000 };
  subject s = subject_create(*index);
  uintptr_t addresses[BLOCKS];
  for (int i = 0; i < BLOCKS; i++) {
    addresses[i] = (uintptr_t)take(&s, SIZE);
  }
  qsort(addresses, BLOCKS, sizeof *addresses, compare_addresses);
  for (int i = 1; i < BLOCKS; i++) {
    cr_expect(addresses[i] - addresses[i - 1] >= SIZE, "%s", s.row->name);
  }
  for (int i = 0; i < BLOCKS; i++) {
    give(&s, (void*)addresses[i], SIZE);  // not in the order of their allocation
  }
  expect_nothing_live(&s);
  subject_release(&s);
}

CONFORMANCE(no_bytes_are_no_block) {
  subject s = subject_create(*index);
  void* block = &s;
  cr_expect(eq(int, tm_allocator_alloc(s.allocator, 0, NULL, &block), TM_OK));
  cr_expect(eq(ptr, block, NULL));
  tm_allocator_free(s.allocator, NULL, 0, NULL);
  tm_allocator_free(s.allocator, NULL, 100, NULL);
  expect_nothing_live(&s);
  subject_release(&s);
}

CONFORMANCE(huge_request_fails_cleanly) {
  subject s = subject_create(*index);
  void* block = &s;
  const size_t huge = (size_t)PTRDIFF_MAX - 4096;
  cr_expect(eq(int, tm_allocator_alloc(s.allocator, huge, NULL, &block), TM_ERR_NO_MEMORY),
            "%s: %s", s.row->name, tm_last_error()->message);
  cr_expect(eq(ptr, block, NULL));
  cr_expect(strstr(tm_last_error()->message, "bytes") != NULL, "%s: %s", s.row->name,
            tm_last_error()->message);
  block = &s;
  cr_expect(eq(int, tm_allocator_alloc(s.allocator, SIZE_MAX, NULL, &block), TM_ERR_INVALID));
  cr_expect(eq(ptr, block, NULL));
  expect_nothing_live(&s);
  give(&s, take(&s, 1000), 1000);
  if (s.row->uses_device) {
    cr_expect(eq(int, cudaGetLastError(), cudaSuccess));
  }
  subject_release(&s);
}

CONFORMANCE(null_output_is_an_error) {
  subject s = subject_create(*index);
  cr_expect(eq(int, tm_allocator_alloc(s.allocator, 100, NULL, NULL), TM_ERR_INVALID));
  expect_nothing_live(&s);
  subject_release(&s);
}

//===-- Threads and lifetime --------------------------------------------------===//

typedef struct returned_block {
  const subject* s;
  void* block;
  size_t size;
} returned_block;

static void* give_on_thread(void* argument) {
  const returned_block* returned = argument;
  give(returned->s, returned->block, returned->size);
  return NULL;
}

static void on_thread(void* (*function)(void*), void* argument) {
  pthread_t thread;
  cr_assert(pthread_create(&thread, NULL, function, argument) == 0);
  cr_assert(pthread_join(thread, NULL) == 0);
}

CONFORMANCE(blocks_are_freed_on_any_thread) {
  subject s = subject_create(*index);
  for (int i = 0; i < 10; i++) {
    returned_block returned = {&s, take(&s, 3000), 3000};
    void* kept = take(&s, 500);
    on_thread(give_on_thread, &returned);
    give(&s, kept, 500);
  }
  give(&s, take(&s, 1), 1);  // a stack takes in here what came back
  expect_nothing_live(&s);
  subject_release(&s);
}

CONFORMANCE(storage_keeps_its_allocator_alive) {
  subject s = subject_create(*index);
  tm_storage* storage;
  cr_assert(eq(int, tm_storage_alloc(s.allocator, 5000, NULL, &storage), TM_OK));
  tm_allocator_release(s.allocator);
  write_block(&s, storage->data, 5000, 7);
  expect_block(&s, storage->data, 5000, 7);
  tm_storage_release(storage);
  tm_stream_release(s.stream);
  cr_expect(s.row->device.type != TM_DEVICE || machine_live_allocations(0) == 0, "%s", s.row->name);
}

static void* release_storage(void* storage) {
  tm_storage_release(storage);
  return NULL;
}

CONFORMANCE(last_storage_is_released_on_another_thread) {
  subject s = subject_create(*index);
  tm_storage* storage;
  cr_assert(eq(int, tm_storage_alloc(s.allocator, 5000, NULL, &storage), TM_OK));
  tm_allocator_release(s.allocator);
  on_thread(release_storage, storage);
  tm_stream_release(s.stream);
  cr_expect(s.row->device.type != TM_DEVICE || machine_live_allocations(0) == 0, "%s", s.row->name);
}

static void* take_and_give_many(void* argument) {
  const subject* s = argument;
  for (int i = 0; i < 200; i++) {
    const size_t size = sizes[i % SIZES] % 70000;
    void* block = NULL;
    if (tm_allocator_alloc(s->allocator, size, NULL, &block) != TM_OK) {
      return "an allocation failed";
    }
    give(s, block, size);
  }
  return NULL;
}

CONFORMANCE(threads_use_it_at_once_unless_it_has_an_owner) {
  enum { THREADS = 4 };
  subject s = subject_create(*index);
  if (s.row->is_owned) {
    SKIP(&s, "one thread at a time allocates from %s", s.row->name);
  }
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; i++) {
    cr_assert(pthread_create(&threads[i], NULL, take_and_give_many, &s) == 0);
  }
  for (int i = 0; i < THREADS; i++) {
    void* failure = NULL;
    cr_assert(pthread_join(threads[i], &failure) == 0);
    cr_expect(failure == NULL, "%s: %s", s.row->name, (const char*)failure);
  }
  expect_nothing_live(&s);
  subject_release(&s);
}

//===-- Statistics ------------------------------------------------------------===//

CONFORMANCE(statistics_add_up_and_return_to_zero) {
  subject s = subject_create(*index);
  if (!s.row->counts) {
    SKIP(&s, "%s keeps no statistics", s.row->name);
  }
  void* blocks[SIZES];
  uint64_t live = 0;
  for (int i = 0; i < SIZES; i++) {
    blocks[i] = take(&s, sizes[i]);
    live += (sizes[i] + s.row->alignment - 1) / s.row->alignment * s.row->alignment;
    const tm_allocator_stats stats = stats_of(&s);
    cr_expect(eq(u64, stats.live_bytes, live), "%s", s.row->name);
    cr_expect(eq(u64, stats.live_blocks, (uint64_t)i + 1), "%s", s.row->name);
    cr_expect(eq(u64, stats.peak_live_bytes, live), "%s", s.row->name);
    cr_expect(eq(u64, stats.alloc_calls, (uint64_t)i + 1), "%s", s.row->name);
    cr_expect(ge(u64, stats.reserved_bytes, live), "%s", s.row->name);
    cr_expect(ge(u64, stats.peak_reserved_bytes, stats.reserved_bytes), "%s", s.row->name);
    cr_expect(s.row->is_dry || stats.upstream_calls >= 1, "%s", s.row->name);
  }
  for (int i = SIZES - 1; i >= 0; i--) {
    give(&s, blocks[i], sizes[i]);
  }
  expect_nothing_live(&s);
  cr_expect(eq(u64, stats_of(&s).peak_live_bytes, live), "%s", s.row->name);
  subject_release(&s);
}

CONFORMANCE(trim_gives_back_what_is_not_in_use) {
  subject s = subject_create(*index);
  void* kept = take(&s, 1000);
  void* block = take(&s, 4 * MIB);
  write_block(&s, kept, 1000, 5);
  give(&s, block, 4 * MIB);
  cr_expect(eq(int, tm_allocator_trim(s.allocator, 0), TM_OK), "%s: %s", s.row->name,
            tm_last_error()->message);
  expect_block(&s, kept, 1000, 5);
  give(&s, kept, 1000);
  cr_expect(eq(int, tm_allocator_trim(s.allocator, 0), TM_OK));
  if (s.row->counts) {
    cr_expect(eq(u64, stats_of(&s).reserved_bytes, 0), "%s", s.row->name);
  }
  give(&s, take(&s, 1000), 1000);
  subject_release(&s);
}

//===-- Out of memory ---------------------------------------------------------===//

CONFORMANCE(out_of_memory_reports_what_there_is) {
  subject s = subject_create(*index);
  const size_t asked = PTRDIFF_MAX / 2 - 5;
  void* block = take(&s, 3 * MIB);
  void* none = &none;
  cr_expect(eq(int, tm_allocator_alloc(s.allocator, asked, NULL, &none), TM_ERR_NO_MEMORY));
  cr_expect(none == NULL);
  const tm_oom_report* report = tm_last_oom_report();
  cr_assert(report != NULL, "%s: %s", s.row->name, tm_last_error()->message);
  cr_expect(eq(u64, report->asked_bytes, asked));
  cr_expect(eq(str, (char*)report->allocator, (char*)tm_allocator_name(s.allocator)));
  cr_expect(tm_device_equal(report->device, s.row->device));
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  if (s.row->device.type == TM_DEVICE) {
    cr_assert(eq(int, tm_device_memory(0, &free_bytes, &total_bytes), TM_OK));
  }
  cr_expect(eq(int, report->has_device_memory, s.row->device.type == TM_DEVICE));
  cr_expect(eq(u64, report->device_free_bytes, free_bytes));
  cr_expect(eq(u64, report->device_total_bytes, total_bytes));
  tm_allocator_stats stats;
  cr_expect(eq(int, report->has_stats, tm_allocator_get_stats(s.allocator, &stats) == TM_OK));
  cr_expect(eq(u64, report->live_bytes, stats.live_bytes));
  cr_expect(eq(u64, report->live_blocks, stats.live_blocks));
  cr_expect(eq(u64, report->reserved_bytes, stats.reserved_bytes));
  cr_expect(eq(u64, report->largest_free_bytes, stats.largest_free_bytes));
  give(&s, block, 3 * MIB);
  subject_release(&s);
}

// All that the device has free but 2 GiB, in one block, so that little is left to run out of:
// taking and giving back 100 GiB in many blocks, for each of several hundred rows, takes minutes. A
// simulated device has less from the start; then NULL. The caller gives it to cudaFree.
static void* take_most_of_the_device(void) {
  const size_t left = 2048 * MIB;
  size_t available;
  size_t total;
  void* block = NULL;
  cr_assert(eq(int, tm_device_memory(0, &available, &total), TM_OK));
  if (available > left) {
    cuda_ok(cudaMalloc(&block, (available - left) / MIB * MIB));
  }
  return block;
}

CONFORMANCE(out_of_memory_is_an_error_and_a_free_makes_up_for_it) {
  enum { LIMIT = 64 };
  subject s = subject_create(*index);
  if (!s.row->runs_out) {
    SKIP(&s, "%s has the host's memory", s.row->name);
  }
  void* most = take_most_of_the_device();
  size_t available;
  size_t total;
  cr_assert(eq(int, tm_device_memory(0, &available, &total), TM_OK));
  const size_t size = available / 10 / MIB * MIB;
  void* blocks[LIMIT];
  int count = 0;
  tm_status status = TM_OK;
  while (count < LIMIT &&
         (status = tm_allocator_alloc(s.allocator, size, NULL, &blocks[count])) == TM_OK) {
    count++;
  }
  cr_expect(eq(int, status, TM_ERR_NO_MEMORY), "%s: %s", s.row->name, tm_last_error()->message);
  cr_assert(count > 5 && count < LIMIT, "%s: %d blocks fit", s.row->name, count);
  cr_expect(eq(ptr, blocks[count], NULL));
  cr_expect(eq(int, cudaGetLastError(), cudaSuccess));
  give(&s, blocks[count - 1], size);
  blocks[count - 1] = take(&s, size);
  for (int i = count - 1; i >= 0; i--) {
    give(&s, blocks[i], size);
  }
  expect_nothing_live(&s);
  subject_release(&s);
  cuda_ok(cudaFree(most));
}

//===-- Devices and streams ---------------------------------------------------===//

CONFORMANCE(works_whatever_the_current_device_is_and_leaves_it) {
  if (in_bundle && !has_devices(2)) {
    return;
  }
  subject s = subject_on(*index, 2);
  if (!s.row->uses_device) {
    SKIP(&s, "%s needs no device", s.row->name);
  }
  cuda_ok(cudaSetDevice(1));
  void* block = take(&s, 1000);
  tm_storage* storage;
  cr_assert(eq(int, tm_storage_alloc(s.allocator, 5000, NULL, &storage), TM_OK));
  int current = -1;
  cuda_ok(cudaGetDevice(&current));
  cr_expect(eq(int, current, 1), "%s", s.row->name);
  tm_storage_release(storage);
  give(&s, block, 1000);
  cr_expect(eq(int, tm_allocator_trim(s.allocator, 0), TM_OK));
  cuda_ok(cudaGetDevice(&current));
  cr_expect(eq(int, current, 1), "%s", s.row->name);
  subject_release(&s);
  cuda_ok(cudaGetDevice(&current));
  cr_expect(eq(int, current, 1), "%s", s.row->name);
}

CONFORMANCE(serves_any_stream) {
  subject s = subject_create(*index);
  if (!s.row->uses_device) {
    SKIP(&s, "%s knows no streams", s.row->name);
  }
  tm_auto_stream other = tm_stream_create(0, 0);
  cr_assert(other != NULL);
  void* block;
  cr_assert(eq(int, tm_allocator_alloc(s.allocator, 70000, other, &block), TM_OK), "%s",
            tm_last_error()->message);
  subject on_other = s;
  on_other.stream = other;
  write_block(&on_other, block, 70000, 9);
  expect_block(&on_other, block, 70000, 9);
  tm_allocator_free(s.allocator, block, 70000, other);
  tm_storage* storage;
  cr_assert(eq(int, tm_storage_alloc(s.allocator, 70000, other, &storage), TM_OK));
  write_block(&on_other, storage->data, 70000, 3);
  expect_block(&on_other, storage->data, 70000, 3);
  tm_storage_release(storage);
  expect_nothing_live(&s);
  subject_release(&s);
}

CONFORMANCE(a_lost_device_is_an_error_and_frees_do_nothing) {
  subject s = subject_create(*index);
  void* block = take(&s, 1000);
  if (s.row->device.type != TM_DEVICE) {
    give(&s, block, 1000);
    SKIP(&s, "%s is not on the device", s.row->name);
  }
  if (in_bundle && !machine_is_simulated()) {
    give(&s, block, 1000);
    subject_release(&s);
    return;
  }
  machine_break_device(0, cudaErrorIllegalAddress);
  cr_expect(eq(int, tm_device_sync(0), TM_ERR_DEVICE_LOST), "%s", tm_last_error()->message);
  void* next = &s;
  cr_expect(eq(int, tm_allocator_alloc(s.allocator, 4 * MIB, NULL, &next), TM_ERR_DEVICE_LOST),
            "%s: %s", s.row->name, tm_last_error()->message);
  cr_expect(eq(ptr, next, NULL));
  cr_expect(strstr(tm_last_error()->message, "cudaErrorIllegalAddress") != NULL, "%s",
            tm_last_error()->message);
  cr_expect(strstr(tm_last_error()->message, "earlier asynchronous work") != NULL);
  give(&s, block, 1000);
  subject_release(&s);
}

//===-- Failures --------------------------------------------------------------===//

static size_t failing_row;

static tm_status use_storage(tm_allocator* allocator, size_t size) {
  tm_storage* storage;
  TM_TRY(tm_storage_alloc(allocator, size, NULL, &storage));
  tm_storage_release(storage);
  return TM_OK;
}

static tm_status use_block(tm_allocator* allocator, size_t size) {
  void* block;
  TM_TRY(tm_allocator_alloc(allocator, size, NULL, &block));
  tm_allocator_free(allocator, block, size, NULL);
  return TM_OK;
}

static tm_status use_allocator(tm_allocator* allocator, tm_stream* other) {
  TM_TRY(use_block(allocator, 1000));
  TM_TRY(use_storage(allocator, 3 * MIB));
  void* block;
  TM_TRY(tm_allocator_alloc(allocator, 2000, other, &block));
  tm_status status = use_block(allocator, 500);
  tm_allocator_free(allocator, block, 2000, other);
  tm_storage* storage;
  status = status == TM_OK ? tm_storage_alloc(allocator, 700, other, &storage) : status;
  if (status == TM_OK) {
    tm_storage_release(storage);
    status = tm_allocator_trim(allocator, 0);
  }
  return status;
}

static tm_status create_use_and_release(tm_allocator* upstream) {
  (void)upstream;
  const conformance_row row_at = conformance_row_at(failing_row);
  const conformance_row* row = &row_at;
  tm_auto_stream other = row->uses_device ? tm_stream_create(0, 0) : NULL;
  if (row->uses_device && !other) {
    return tm_last_status();
  }
  tm_auto_allocator allocator = conformance_create(row);
  return allocator ? use_allocator(allocator, other) : tm_last_status();
}

CONFORMANCE(survives_every_failing_allocation) {
  failing_row = *index;
  const subject none = {.row = start(*index, 1)};
  if (failing_row == 0) {
    SKIP(&none, "the host allocator is what bookkeeping stands for");
  }
  expect_survives_every_failure_or_retries(create_use_and_release);
}

CONFORMANCE(survives_every_failing_cuda_call) {
  failing_row = *index;
  const subject none = {.row = start(*index, 1)};
  if (!none.row->uses_device) {
    SKIP(&none, "%s calls no CUDA", none.row->name);
  }
  if (in_bundle && !machine_is_simulated()) {
    return;
  }
  expect_survives_every_cuda_failure(create_use_and_release);
}

//===-- All of them -----------------------------------------------------------===//

void conformance_all(const size_t* index, bool with_failures) {
  in_bundle = true;
  machine_configure(2, with_failures ? "256MiB" : "64MiB");  // frees that fail use memory up
#define RUN(name) conformance_##name(index);
  CONFORMANCE_CASES(RUN)
  if (with_failures) {
    CONFORMANCE_FAILURES(RUN)
  }
  CONFORMANCE_LAST(RUN)
#undef RUN
}
