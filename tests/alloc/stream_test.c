#include "tm/alloc/stream.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "tests/alloc/default_stream_per_thread.h"
#include "tests/support/failing.h"
#include "tests/support/gate.h"
#include "tests/support/machine.h"
#include "tm/alloc/event.h"
#include "tm/alloc/host.h"
#include "tm/alloc/storage.h"

static void setup(int devices) {
  machine_configure(devices, "64MiB");
  machine_require_devices(devices);
}

static tm_stream* create(int32_t id) {
  tm_stream* stream = tm_stream_create(id, 0);
  cr_assert(stream != NULL, "%s", tm_last_error()->message);
  return stream;
}

static bool is_done(tm_stream* stream) {
  bool done = false;
  cr_assert(eq(int, tm_stream_query(stream, &done), TM_OK), "%s", tm_last_error()->message);
  return done;
}

//===-- What it is --------------------------------------------------------------===//

Test(stream, a_created_stream_is_non_blocking_and_of_its_device) {
  setup(1);
  tm_auto_stream stream = create(0);
  cr_expect(tm_device_equal(tm_stream_device(stream), (tm_device){TM_DEVICE, 0}));
  unsigned flags = 0;
  cr_assert(cudaStreamGetFlags(tm_stream_handle(stream), &flags) == cudaSuccess);
  cr_expect(eq(uint, flags, cudaStreamNonBlocking));
  bool capturing = true;
  cr_expect(eq(int, tm_stream_is_capturing(stream, &capturing), TM_OK));
  cr_expect(not(capturing));
}

Test(stream, a_priority_is_what_cuda_makes_of_it) {
  setup(1);
  int least = 0;
  int greatest = 0;
  cr_assert(cudaDeviceGetStreamPriorityRange(&least, &greatest) == cudaSuccess);
  tm_auto_stream first = tm_stream_create(0, greatest);
  tm_auto_stream clamped = tm_stream_create(0, greatest - 100);
  tm_auto_stream last = tm_stream_create(0, least);
  int priority = 77;
  cr_expect(eq(int, tm_stream_priority(first, &priority), TM_OK));
  cr_expect(eq(int, priority, greatest));
  cr_expect(eq(int, tm_stream_priority(clamped, &priority), TM_OK));
  cr_expect(eq(int, priority, greatest));
  cr_expect(eq(int, tm_stream_priority(last, &priority), TM_OK));
  cr_expect(eq(int, priority, least));
}

Test(stream, equal_is_the_same_queue) {
  setup(2);
  tm_auto_stream stream = create(0);
  tm_auto_stream other = create(0);
  tm_auto_stream again = tm_stream_adopt(tm_stream_handle(stream), 0);
  tm_auto_stream legacy = tm_stream_adopt(NULL, 0);
  tm_auto_stream legacy_again = tm_stream_adopt(cudaStreamLegacy, 0);
  tm_auto_stream legacy_elsewhere = tm_stream_adopt(NULL, 1);
  cr_expect(tm_stream_equal(stream, stream));
  cr_expect(tm_stream_equal(stream, again));
  cr_expect(not(tm_stream_equal(stream, other)));
  cr_expect(tm_stream_equal(legacy, legacy_again));
  cr_expect(not(tm_stream_equal(legacy, legacy_elsewhere)));
  cr_expect(tm_stream_equal(NULL, NULL));
  cr_expect(not(tm_stream_equal(stream, NULL)));
  cr_assert(eq(int, tm_stream_disown(legacy), TM_OK));
  cr_assert(eq(int, tm_stream_disown(legacy_again), TM_OK));
  cr_expect(not(tm_stream_equal(legacy, legacy_again)));
  cr_expect(tm_stream_equal(legacy, legacy));
}

static void expect_text(const tm_stream* stream, const char* expected) {
  char text[TM_STREAM_TEXT_SIZE];
  tm_stream_text(stream, text, sizeof text);
  cr_expect(eq(str, text, (char*)expected));
}

Test(stream, has_a_text) {
  setup(2);
  char expected[TM_STREAM_TEXT_SIZE];
  tm_auto_stream made = create(1);
  tm_auto_stream adopted = tm_stream_adopt(tm_stream_handle(made), 1);
  tm_auto_stream legacy = tm_stream_adopt(NULL, 0);
  tm_auto_stream per_thread = tm_stream_adopt(cudaStreamPerThread, 1);
  expect_text(NULL, "stream(null)");
  snprintf(expected, sizeof expected, "stream(device 1, %p)", (void*)tm_stream_handle(made));
  expect_text(made, expected);
  snprintf(expected, sizeof expected, "stream(device 1, %p, adopted)",
           (void*)tm_stream_handle(made));
  expect_text(adopted, expected);
  expect_text(legacy, "stream(device 0, legacy)");
  expect_text(per_thread, "stream(device 1, per-thread)");
  cr_assert(eq(int, tm_stream_disown(adopted), TM_OK));
  expect_text(adopted, "stream(device 1, disowned)");
  char cut[] = "##########";
  tm_stream_text(legacy, cut, 7);
  cr_expect(eq(str, cut, "stream"));
  cr_expect(eq(chr, cut[7], '#'));
  tm_stream_text(legacy, cut, 0);
  cr_expect(eq(str, cut, "stream"));
}

Test(stream, retain_and_release_count) {
  setup(1);
  tm_stream* stream = create(0);
  cr_expect(eq(ptr, tm_stream_retain(stream), stream));
  tm_stream_release(stream);
  cr_expect(eq(int, tm_stream_sync(stream), TM_OK));
  tm_stream_release(stream);
  cr_expect(eq(ptr, tm_stream_retain(NULL), NULL));
  tm_stream_release(NULL);
}

Test(stream, a_released_stream_finishes_its_work) {
  setup(1);
  machine_require_calls_that_do_not_wait();
  tm_stream* stream = create(0);
  tm_auto_event event = tm_event_create(0, false);
  gate g;
  gate_close(&g, stream);
  cr_assert(eq(int, tm_event_record(event, stream), TM_OK));
  tm_stream_release(stream);  // does not wait for the gate
  gate_open(&g);
  cr_expect(eq(int, tm_event_sync(event), TM_OK));
}

//===-- Errors ------------------------------------------------------------------===//

static void note(void* user) { __atomic_store_n((int*)user, 1, __ATOMIC_RELEASE); }

Test(stream, null_is_an_error_and_never_a_crash) {
  setup(1);
  tm_auto_stream stream = create(0);
  tm_auto_event event = tm_event_create(0, false);
  int priority = 5;
  bool flag = true;
  tm_clear_error();
  cr_expect(eq(int, tm_stream_sync(NULL), TM_ERR_INVALID));
  cr_expect(eq(int, tm_stream_query(NULL, &flag), TM_ERR_INVALID));
  cr_expect(not(flag));
  flag = true;
  cr_expect(eq(int, tm_stream_is_capturing(NULL, &flag), TM_ERR_INVALID));
  cr_expect(not(flag));
  cr_expect(eq(int, tm_stream_priority(NULL, &priority), TM_ERR_INVALID));
  cr_expect(eq(int, priority, 0));
  cr_expect(eq(int, tm_stream_wait(NULL, event), TM_ERR_INVALID));
  cr_expect(eq(int, tm_stream_wait(stream, NULL), TM_ERR_INVALID));
  cr_expect(eq(int, tm_stream_wait_stream(NULL, stream), TM_ERR_INVALID));
  cr_expect(eq(int, tm_stream_wait_stream(stream, NULL), TM_ERR_INVALID));
  cr_expect(eq(int, tm_stream_disown(NULL), TM_ERR_INVALID));
  cr_expect(eq(int, tm_stream_call_host(stream, NULL, NULL), TM_ERR_INVALID));
  cr_expect(eq(int, tm_stream_call_host(NULL, note, NULL), TM_ERR_INVALID));
  cr_expect(eq(int, tm_stream_query(stream, NULL), TM_ERR_INVALID));
  cr_expect(eq(int, tm_stream_is_capturing(stream, NULL), TM_ERR_INVALID));
  cr_expect(eq(int, tm_stream_priority(stream, NULL), TM_ERR_INVALID));
  cr_expect(eq(ptr, tm_stream_handle(NULL), NULL));
  cr_expect(tm_device_equal(tm_stream_device(NULL), (tm_device){TM_CPU, 0}));
}

Test(stream, a_device_that_is_not_there_is_out_of_range) {
  setup(1);
  static const int32_t ids[] = {-1, 63, 64, 1000000};
  for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
    tm_clear_error();
    cr_expect(eq(ptr, tm_stream_create(ids[i], 0), NULL));
    cr_expect(eq(int, tm_last_status(), TM_ERR_OUT_OF_RANGE), "%d: %s", (int)ids[i],
              tm_last_error()->message);
    cr_expect(eq(ptr, tm_stream_adopt(NULL, ids[i]), NULL));
    cr_expect(eq(int, tm_last_status(), TM_ERR_OUT_OF_RANGE));
  }
  cr_expect(eq(int, cudaGetLastError(), cudaSuccess));
}

Test(stream, a_failure_names_the_call_and_cudas_error_and_clears_it) {
  setup(1);
  tm_auto_stream stream = create(0);
  machine_fail("cudaStreamSynchronize", 1, 1, cudaErrorInvalidResourceHandle);
  cr_expect(eq(int, tm_stream_sync(stream), TM_ERR_CUDA));
  const char* message = tm_last_error()->message;
  cr_expect(strstr(message, "cudaStreamSynchronize") != NULL, "%s", message);
  cr_expect(strstr(message, "cudaErrorInvalidResourceHandle") != NULL, "%s", message);
  cr_expect(strstr(message, cudaGetErrorString(cudaErrorInvalidResourceHandle)) != NULL);
  cr_expect(eq(int, cudaGetLastError(), cudaSuccess));
}

//===-- Adopted streams ---------------------------------------------------------===//

Test(stream, an_adopted_stream_is_used_and_not_destroyed) {
  setup(1);
  cudaStream_t foreign;
  cr_assert(cudaStreamCreate(&foreign) == cudaSuccess);
  tm_stream* stream = tm_stream_adopt(foreign, 0);
  cr_assert(stream != NULL, "%s", tm_last_error()->message);
  cr_expect(eq(ptr, tm_stream_handle(stream), foreign));
  cr_expect(eq(int, tm_stream_sync(stream), TM_OK));
  tm_stream_release(stream);
  cr_expect(cudaStreamSynchronize(foreign) == cudaSuccess);
  cr_expect(cudaStreamDestroy(foreign) == cudaSuccess);
}

Test(stream, a_stream_of_another_device_is_not_adopted) {
  setup(2);
  tm_auto_stream stream = create(1);
  cr_expect(eq(ptr, tm_stream_adopt(tm_stream_handle(stream), 0), NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
}

// On a device, to ask a captured stream for its device ends the capture.
Test(stream, a_captured_stream_is_adopted_and_its_capture_goes_on) {
  setup(1);
  cudaStream_t foreign;
  cr_assert(cudaStreamCreateWithFlags(&foreign, cudaStreamNonBlocking) == cudaSuccess);
  cr_assert(cudaStreamBeginCapture(foreign, cudaStreamCaptureModeGlobal) == cudaSuccess);
  if (machine_is_simulated()) {
    machine_fail("cudaStreamGetDevice", 1, 0, cudaErrorStreamCaptureUnsupported);
  }
  tm_stream* stream = tm_stream_adopt(foreign, 0);
  cr_assert(stream != NULL, "%s", tm_last_error()->message);
  cr_expect(tm_device_equal(tm_stream_device(stream), (tm_device){TM_DEVICE, 0}));
  tm_stream_release(stream);
  cudaGraph_t graph = NULL;
  cr_assert(eq(int, cudaStreamEndCapture(foreign, &graph), cudaSuccess));
  cr_expect(eq(int, cudaGraphDestroy(graph), cudaSuccess));
  cr_expect(eq(int, cudaStreamDestroy(foreign), cudaSuccess));
}

Test(stream, the_default_streams_are_those_of_the_device_named) {
  setup(2);
  static const cudaStream_t handles[] = {0, cudaStreamLegacy, cudaStreamPerThread};
  for (size_t i = 0; i < 3; i++) {
    tm_auto_stream stream = tm_stream_adopt(handles[i], 1);
    cr_assert(stream != NULL, "%s", tm_last_error()->message);
    cr_expect(tm_device_equal(tm_stream_device(stream), (tm_device){TM_DEVICE, 1}));
    tm_auto_event event = tm_event_create(1, false);
    gate g;
    gate_close(&g, stream);
    cr_expect(eq(int, tm_event_record(event, stream), TM_OK));
    cr_assert(cudaSetDevice(1) == cudaSuccess);
    cr_expect(eq(int, cudaStreamQuery(i == 2 ? cudaStreamPerThread : cudaStreamLegacy),
                 cudaErrorNotReady));
    (void)cudaGetLastError();
    cr_assert(cudaSetDevice(0) == cudaSuccess);
    cr_expect(not(is_done(stream)));
    gate_open(&g);
    cr_expect(eq(int, tm_stream_sync(stream), TM_OK));
    cr_expect(is_done(stream));
  }
}

Test(stream, zero_is_the_default_stream_of_the_callers_file) {
  setup(2);
  tm_auto_stream legacy = tm_stream_adopt(NULL, 1);
  tm_auto_stream per_thread = adopt_default_stream_per_thread(1);
  cr_expect(eq(ptr, tm_stream_handle(legacy), cudaStreamLegacy));
  cr_expect(eq(ptr, tm_stream_handle(per_thread), cudaStreamPerThread));
  cr_expect(not(tm_stream_equal(legacy, per_thread)));
}

static void* sync_elsewhere(void* stream) {
  return tm_stream_sync(stream) == TM_OK ? stream : NULL;
}

Test(stream, the_per_thread_stream_is_another_queue_on_another_thread) {
  setup(1);
  tm_auto_stream stream = adopt_default_stream_per_thread(0);
  gate g;
  gate_close(&g, stream);
  pthread_t thread;
  void* result = NULL;
  cr_assert(eq(int, pthread_create(&thread, NULL, sync_elsewhere, stream), 0));
  cr_assert(eq(int, pthread_join(thread, &result), 0));  // did not wait for the gate
  cr_expect(eq(ptr, result, stream));
  cr_expect(not(is_done(stream)));
  gate_open(&g);
  cr_expect(eq(int, tm_stream_sync(stream), TM_OK));
}

Test(stream, a_disowned_stream_is_let_go_of) {
  setup(1);
  cudaStream_t foreign;
  cr_assert(cudaStreamCreate(&foreign) == cudaSuccess);
  tm_auto_stream gone = tm_stream_adopt(foreign, 0);
  tm_auto_stream second = create(0);
  tm_auto_event event = tm_event_create(0, false);
  cr_assert(eq(int, tm_stream_disown(gone), TM_OK));
  cr_assert(cudaStreamDestroy(foreign) == cudaSuccess);
  bool flag = true;
  int priority = 1;
  cr_expect(eq(ptr, tm_stream_handle(gone), NULL));
  cr_expect(eq(int, tm_stream_sync(gone), TM_ERR_INVALID));
  cr_expect(eq(int, tm_stream_query(gone, &flag), TM_ERR_INVALID));
  cr_expect(eq(int, tm_stream_wait(gone, event), TM_ERR_INVALID));
  cr_expect(eq(int, tm_stream_wait_stream(gone, second), TM_ERR_INVALID));
  cr_expect(eq(int, tm_stream_wait_stream(second, gone), TM_ERR_INVALID));
  cr_expect(eq(int, tm_stream_priority(gone, &priority), TM_ERR_INVALID));
  cr_expect(eq(int, tm_event_record(event, gone), TM_ERR_INVALID));
  cr_expect(eq(int, tm_stream_disown(gone), TM_ERR_INVALID));
  cr_expect(eq(int, tm_stream_disown(second), TM_ERR_INVALID));
  cr_expect(eq(int, tm_stream_sync(second), TM_OK));
}

//===-- Order -------------------------------------------------------------------===//

// Multiplies and adds, so that the sum tells the order.
static void append_1(void* user) { *(int*)user = *(int*)user * 10 + 1; }
static void append_2(void* user) { *(int*)user = *(int*)user * 10 + 2; }
static void append_3(void* user) { *(int*)user = *(int*)user * 10 + 3; }

Test(stream, host_functions_run_in_the_order_they_were_queued_in) {
  setup(1);
  tm_auto_stream stream = create(0);
  int order = 0;
  cr_assert(eq(int, tm_stream_call_host(stream, append_3, &order), TM_OK));
  cr_assert(eq(int, tm_stream_call_host(stream, append_1, &order), TM_OK));
  cr_assert(eq(int, tm_stream_call_host(stream, append_2, &order), TM_OK));
  cr_assert(eq(int, tm_stream_sync(stream), TM_OK));
  cr_expect(eq(int, order, 312));
}

Test(stream, a_host_function_runs_after_what_was_queued_before_it) {
  setup(1);
  tm_auto_stream stream = create(0);
  int ran = 0;
  gate g;
  gate_close(&g, stream);
  cr_assert(eq(int, tm_stream_call_host(stream, note, &ran), TM_OK));
  cr_expect(not(is_done(stream)));
  cr_expect(eq(int, __atomic_load_n(&ran, __ATOMIC_ACQUIRE), 0));
  gate_open(&g);
  cr_assert(eq(int, tm_stream_sync(stream), TM_OK));
  cr_expect(eq(int, __atomic_load_n(&ran, __ATOMIC_ACQUIRE), 1));
  cr_expect(is_done(stream));
  cr_expect(eq(int, cudaGetLastError(), cudaSuccess));  // also after "not ready"
}

static void use_host_memory(void* user) {
  tm_storage* storage = NULL;
  if (tm_storage_alloc(tm_host_allocator(), 1000, NULL, &storage) == TM_OK) {
    memset(storage->data, 7, 1000);
    note(user);
  }
  tm_storage_release(storage);
}

Test(stream, a_host_function_may_use_host_memory) {
  setup(1);
  tm_auto_stream stream = create(0);
  int ran = 0;
  cr_assert(eq(int, tm_stream_call_host(stream, use_host_memory, &ran), TM_OK));
  cr_assert(eq(int, tm_stream_sync(stream), TM_OK));
  cr_expect(eq(int, ran, 1));
}

Test(stream, a_host_function_is_not_called_when_queuing_it_fails) {
  setup(1);
  tm_auto_stream stream = create(0);
  int ran = 0;
  machine_fail("cudaLaunchHostFunc", 1, 1, cudaErrorUnknown);
  cr_expect(eq(int, tm_stream_call_host(stream, note, &ran), TM_ERR_CUDA));
  cr_assert(eq(int, tm_stream_sync(stream), TM_OK));
  cr_expect(eq(int, ran, 0));
  cr_assert(eq(int, tm_stream_call_host(stream, note, &ran), TM_OK));
  cr_assert(eq(int, tm_stream_sync(stream), TM_OK));
  cr_expect(eq(int, ran, 1));
}

static void expect_waits(tm_stream* waiting, tm_stream* other) {
  int ran = 0;
  gate g;
  gate_close(&g, other);
  cr_assert(eq(int, tm_stream_wait_stream(waiting, other), TM_OK), "%s", tm_last_error()->message);
  cr_assert(eq(int, tm_stream_call_host(waiting, note, &ran), TM_OK));
  cr_expect(not(is_done(waiting)));
  cr_expect(eq(int, __atomic_load_n(&ran, __ATOMIC_ACQUIRE), 0));
  gate_open(&g);
  cr_assert(eq(int, tm_stream_sync(waiting), TM_OK));
  cr_expect(eq(int, __atomic_load_n(&ran, __ATOMIC_ACQUIRE), 1));
}

Test(stream, a_stream_waits_for_another_also_of_another_device) {
  setup(2);
  tm_auto_stream first = create(0);
  tm_auto_stream second = create(0);
  tm_auto_stream elsewhere = create(1);
  expect_waits(second, first);
  expect_waits(first, second);
  expect_waits(elsewhere, first);
  expect_waits(first, elsewhere);
  cr_expect(eq(int, tm_stream_wait_stream(first, first), TM_OK));
}

Test(stream, what_is_queued_later_is_not_waited_for) {
  setup(1);
  tm_auto_stream waiting = create(0);
  tm_auto_stream other = create(0);
  cr_assert(eq(int, tm_stream_wait_stream(waiting, other), TM_OK));
  gate g;
  gate_close(&g, other);
  cr_expect(eq(int, tm_stream_sync(waiting), TM_OK));
  gate_open(&g);
  cr_expect(eq(int, tm_stream_sync(other), TM_OK));
}

Test(stream, not_ready_leaves_no_error_behind) {
  setup(1);
  tm_auto_stream stream = create(0);
  machine_fail("cudaStreamQuery", 1, 1, cudaErrorNotReady);
  cr_expect(not(is_done(stream)));
  cr_expect(eq(int, cudaGetLastError(), cudaSuccess));
  cr_expect(is_done(stream));
  cr_expect(eq(int, tm_last_status(), TM_OK));
}

Test(stream, a_captured_stream_is_not_disturbed) {
  setup(1);
  tm_auto_stream stream = create(0);
  machine_fail("cudaStreamIsCapturing", 1, 0, cudaErrorStreamCaptureImplicit);
  machine_fail("cudaStreamSynchronize", 1, 0, cudaErrorUnknown);  // it must not be called
  machine_fail("cudaStreamQuery", 1, 0, cudaErrorUnknown);
  bool flag = false;
  cr_expect(eq(int, tm_stream_is_capturing(stream, &flag), TM_OK));
  cr_expect(flag);
  cr_expect(eq(int, tm_stream_sync(stream), TM_ERR_CAPTURING));
  cr_expect(strstr(tm_last_error()->message, "captured") != NULL, "%s", tm_last_error()->message);
  cr_expect(eq(int, tm_stream_query(stream, &flag), TM_ERR_CAPTURING));
  cr_expect(not(flag));
  machine_fail_nothing();
  cr_expect(eq(int, tm_stream_sync(stream), TM_OK));
}

//===-- Failures ----------------------------------------------------------------===//

static tm_status create_and_order(tm_allocator* upstream) {
  (void)upstream;
  tm_auto_stream first = tm_stream_create(0, 0);
  tm_auto_stream second = first ? tm_stream_create(0, 0) : NULL;
  if (!second) {
    return tm_last_status();
  }
  TM_TRY(tm_stream_wait_stream(second, first));
  tm_auto_stream adopted = tm_stream_adopt(tm_stream_handle(second), 0);
  if (!adopted) {
    return tm_last_status();
  }
  TM_TRY(tm_stream_disown(adopted));
  return tm_stream_sync(second);
}

Test(stream, survives_every_failure) {
  setup(1);
  expect_survives_every_failure(create_and_order);
}

Test(stream, survives_every_cuda_failure) {
  setup(1);
  expect_survives_every_cuda_failure(create_and_order);
}
