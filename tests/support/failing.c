#include "tests/support/failing.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "alloc/event_cache.h"
#include "tests/support/machine.h"
#include "tm/alloc/bookkeeping.h"
#include "tm/alloc/callback.h"
#include "tm/alloc/device.h"
#include "tm/alloc/pinned.h"

enum { NTH_LIMIT = 10000, CUDA_CALLS = 8, DEVICES = 2 };

//===-- One run -------------------------------------------------------------===//

typedef struct run {
  failing_body body;
  tm_allocator* upstream;
  tm_status status;
  tm_error error;
} run;

static void* run_body(void* argument) {
  run* self = argument;
  self->status = self->body(self->upstream);
  self->error = *tm_last_error();
  return NULL;
}

// On a new thread, so that no cache of a thread hides a failure or counts as a leak.
static void run_on_thread(run* self) {
  pthread_t thread;
  cr_assert(pthread_create(&thread, NULL, run_body, self) == 0);
  cr_assert(pthread_join(thread, NULL) == 0);
}

// Empties the caches of the process, for the same reason.
static void empty_caches(void) {
  cr_assert(tm_allocator_trim(tm_pinned_allocator(), 0) == TM_OK);
  tm_event_cache_clear_();
}

//===-- What is left --------------------------------------------------------===//

typedef struct holdings {
  int64_t bookkeeping;
  int64_t device;
  uint64_t device_bytes;
  uint64_t pinned_bytes;
} holdings;

static void wait_for_devices(void) {
  int devices = 0;
  (void)cudaGetDeviceCount(&devices);
  for (int i = 0; i < devices && i < DEVICES; i++) {
    (void)!tm_device_sync(i);
  }
}

static holdings count_holdings(void) {
  empty_caches();
  tm_allocator_stats pinned;
  cr_assert(tm_allocator_get_stats(tm_pinned_allocator(), &pinned) == TM_OK);
  if (pinned.reserved_bytes > 0) {  // a stream may still have it
    wait_for_devices();
    empty_caches();
    cr_assert(tm_allocator_get_stats(tm_pinned_allocator(), &pinned) == TM_OK);
  }
  holdings result = {.bookkeeping = tm_bookkeeping_live(), .pinned_bytes = pinned.reserved_bytes};
  int devices = 0;
  (void)cudaGetDeviceCount(&devices);
  for (int i = 0; i < devices && i < DEVICES; i++) {
    result.device += machine_live_allocations(i);
    result.device_bytes += machine_reserved_bytes(i);
  }
  return result;
}

static void expect_same_holdings(const holdings* before, const char* what, uint64_t nth) {
  const holdings after = count_holdings();
  cr_expect(after.bookkeeping == before->bookkeeping, "%s %llu leaves %lld blocks of bookkeeping",
            what, (unsigned long long)nth, (long long)(after.bookkeeping - before->bookkeeping));
  cr_expect(after.device == before->device, "%s %llu leaves %lld device blocks", what,
            (unsigned long long)nth, (long long)(after.device - before->device));
  cr_expect(after.device_bytes == before->device_bytes, "%s %llu leaves %lld bytes of a device",
            what, (unsigned long long)nth, (long long)(after.device_bytes - before->device_bytes));
  cr_expect(after.pinned_bytes == before->pinned_bytes, "%s %llu leaves pinned memory", what,
            (unsigned long long)nth);
}

static void expect_raised(const run* self, const char* what, uint64_t nth) {
  cr_expect(self->error.code == self->status && self->error.message[0],
            "%s %llu returns %s, and the record says %s: \"%s\"", what, (unsigned long long)nth,
            tm_status_name(self->status), tm_status_name(self->error.code), self->error.message);
}

//===-- Memory --------------------------------------------------------------===//

static tm_status upstream_alloc(size_t size, tm_stream* stream, void** out, void* user) {
  (void)stream;
  (void)user;
  *out = tm_bookkeeping_alloc(size, "a block of a test's upstream");
  return *out ? TM_OK : TM_ERR_NO_MEMORY;
}

static void upstream_free(void* ptr, size_t size, tm_stream* stream, void* user) {
  (void)size;
  (void)stream;
  (void)user;
  tm_bookkeeping_free(ptr);
}

static tm_allocator* create_upstream(void) {
  const tm_callback_options options = {.alloc = upstream_alloc, .free = upstream_free};
  tm_allocator* upstream = tm_callback_allocator_create(&options);
  cr_assert(upstream != NULL);
  return upstream;
}

// For tools/allocation_sites.py, which looks whether every call of the library was made to fail.
static void print_failed_site(void) {
  static const char* printed;
  const char* site = tm_bookkeeping_failed_site();
  if (site && site != printed) {
    printf("allocation made to fail: %s\n", site);
  }
  printed = site;
}

static void expect_success(run* self) {
  run_on_thread(self);
  cr_assert(self->status == TM_OK, "without a failure: %s: %s", tm_status_name(self->status),
            self->error.message);
}

// Returns whether the nth allocation was reached.
static bool fail_one(run* self, uint64_t nth, bool may_succeed) {
  static const char what[] = "failing allocation";
  const holdings before = count_holdings();
  const uint64_t calls = tm_bookkeeping_calls();
  tm_bookkeeping_fail_nth((int64_t)nth);
  run_on_thread(self);
  tm_bookkeeping_fail_nth(0);
  const bool reached = tm_bookkeeping_calls() - calls >= nth;
  print_failed_site();
  if (reached && !(may_succeed && self->status == TM_OK)) {
    cr_expect(self->status == TM_ERR_NO_MEMORY, "%s %llu returns %s: %s", what,
              (unsigned long long)nth, tm_status_name(self->status), self->error.message);
    expect_raised(self, what, nth);
  } else {
    cr_expect(self->status == TM_OK);
  }
  expect_same_holdings(&before, what, nth);
  return reached;
}

static void fail_each(failing_body body, bool may_succeed) {
  run self = {.body = body, .upstream = create_upstream()};
  expect_success(&self);
  uint64_t nth = 1;
  while (fail_one(&self, nth, may_succeed)) {
    nth++;
    cr_assert(nth < NTH_LIMIT, "the body never gets by without its nth allocation");
  }
  cr_expect(nth > 1, "the body allocates nothing");
  tm_allocator_release(self.upstream);
}

void expect_survives_every_failure(failing_body body) { fail_each(body, false); }

void expect_survives_every_failure_or_retries(failing_body body) { fail_each(body, true); }

//===-- CUDA ----------------------------------------------------------------===//

typedef enum failure_effect {
  REPORTED,  // the status says so, unless something tries again
  IGNORED,   // nobody can be told, and memory may stay behind
} failure_effect;

typedef struct cuda_function {
  const char* name;
  cudaError_t error;
  failure_effect effect;
} cuda_function;

static const cuda_function functions[] = {
    {"cudaGetDevice", cudaErrorUnknown, IGNORED},
    {"cudaSetDevice", cudaErrorUnknown, IGNORED},
    {"cudaDeviceGetAttribute", cudaErrorUnknown, REPORTED},
    {"cudaStreamCreateWithPriority", cudaErrorMemoryAllocation, REPORTED},
    {"cudaStreamDestroy", cudaErrorUnknown, IGNORED},
    {"cudaStreamIsCapturing", cudaErrorUnknown, REPORTED},
    {"cudaStreamSynchronize", cudaErrorUnknown, REPORTED},
    {"cudaStreamWaitEvent", cudaErrorUnknown, REPORTED},
    {"cudaLaunchKernel", cudaErrorUnknown, REPORTED},
    {"cudaEventCreateWithFlags", cudaErrorMemoryAllocation, REPORTED},
    {"cudaEventDestroy", cudaErrorUnknown, IGNORED},
    {"cudaEventRecord", cudaErrorUnknown, REPORTED},
    {"cudaEventQuery", cudaErrorUnknown, REPORTED},
    {"cudaMalloc", cudaErrorMemoryAllocation, REPORTED},
    {"cudaFree", cudaErrorUnknown, IGNORED},
    {"cudaHostAlloc", cudaErrorMemoryAllocation, REPORTED},
    {"cudaFreeHost", cudaErrorUnknown, IGNORED},
    {"cudaMallocFromPoolAsync", cudaErrorMemoryAllocation, REPORTED},
    {"cudaFreeAsync", cudaErrorUnknown, IGNORED},
    {"cudaMemPoolCreate", cudaErrorMemoryAllocation, REPORTED},
    {"cudaMemPoolDestroy", cudaErrorUnknown, IGNORED},
    {"cudaMemPoolSetAttribute", cudaErrorUnknown, REPORTED},
    {"cudaMemPoolTrimTo", cudaErrorUnknown, REPORTED},
    {"cudaDeviceGetDefaultMemPool", cudaErrorUnknown, REPORTED},
};

static void fail_cuda_call(run* self, const cuda_function* function, uint64_t nth) {
  const holdings before = count_holdings();
  machine_fail(function->name, nth, 1, function->error);
  run_on_thread(self);
  machine_fail_nothing();
  const tm_status expected =
      function->error == cudaErrorMemoryAllocation ? TM_ERR_NO_MEMORY : TM_ERR_CUDA;
  cr_expect(self->status == TM_OK || self->status == expected, "failing %s %llu returns %s: %s",
            function->name, (unsigned long long)nth, tm_status_name(self->status),
            self->error.message);
  if (self->status != TM_OK) {
    expect_raised(self, function->name, nth);
  }
  if (function->effect == REPORTED) {
    expect_same_holdings(&before, function->name, nth);
  } else {
    cr_expect(count_holdings().bookkeeping == before.bookkeeping);
  }
}

void expect_survives_every_cuda_failure(failing_body body) {
  run self = {.body = body, .upstream = create_upstream()};
  expect_success(&self);
  for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
    for (uint64_t nth = 1; nth <= CUDA_CALLS; nth++) {
      fail_cuda_call(&self, &functions[i], nth);
    }
  }
  expect_success(&self);
  tm_allocator_release(self.upstream);
}
