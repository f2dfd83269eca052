// Checks of CUDA calls: what is said of those that fail, and what they leave behind.

#include "tm/cuda_check.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <cuda_runtime_api.h>
#include <stdio.h>

#include "tests/support/expect_fatal.h"
#include "tests/support/machine.h"
#include "tm/alloc/stream.h"
#include "tm/base/trace.h"

enum { NO_DEVICE = 999 };

static void make_machine(void) {
  machine_configure(1, "64MiB");
  machine_require_devices(1);
}

// The whole message of a check on `line`.
static void expect_message(int line, const char* call, cudaError_t error, const char* rest) {
  char expected[512];
  snprintf(expected, sizeof expected,
           "tmcore: fatal: cuda_check_test.c:%d: check failed: %s: %s: %s%s", line, call,
           cudaGetErrorName(error), cudaGetErrorString(error), rest);
  cr_expect(eq(str, expect_fatal_message, expected));
}

Test(cuda_check, a_call_that_fails_is_shown_with_its_error, .init = make_machine) {
  EXPECT_FATAL(TM_CUDA_CHECK(cudaSetDevice(NO_DEVICE)), "cudaErrorInvalidDevice");
  expect_message(__LINE__ - 1, "cudaSetDevice(NO_DEVICE)", cudaErrorInvalidDevice, "");
}

Test(cuda_check, a_message_follows, .init = make_machine) {
  EXPECT_FATAL(TM_CUDA_CHECK(cudaSetDevice(NO_DEVICE), "layer %d of %s", 3, "x"), "layer 3");
  expect_message(__LINE__ - 1, "cudaSetDevice(NO_DEVICE)", cudaErrorInvalidDevice,
                 ": layer 3 of x");
}

Test(cuda_check, the_scopes_are_shown, .init = make_machine) {
  char scopes[64];
  TM_SCOPE("step");
  snprintf(scopes, sizeof scopes, "\n  in step (cuda_check_test.c:%d)", __LINE__ - 1);
  EXPECT_FATAL(TM_CUDA_CHECK(cudaSetDevice(NO_DEVICE)), scopes);
}

Test(cuda_check, calls_that_succeed_are_made_once_and_nothing_else_happens, .init = make_machine) {
  int calls = 0;
  int messages = 0;
  int device = -1;
  TM_CUDA_CHECK((calls++, cudaGetDevice(&device)));
  TM_CUDA_CHECK(cudaGetDevice(&device), "%d", ++messages);
  TM_CUDA_CHECK_LAST("%d", ++messages);
  cr_expect(eq(int, calls, 1));
  cr_expect(eq(int, device, 0));
  cr_expect(eq(int, messages, 0));
}

Test(cuda_check, a_call_that_fails_is_made_once, .init = make_machine) {
  static int calls;
  EXPECT_FATAL(TM_CUDA_CHECK((calls++, cudaSetDevice(NO_DEVICE))), "calls++");
  cr_expect(eq(int, calls, 1));
}

Test(cuda_check, the_runtime_s_own_record_is_cleared, .init = make_machine) {
  EXPECT_FATAL(TM_CUDA_CHECK(cudaSetDevice(NO_DEVICE)), "cudaErrorInvalidDevice");
  cr_expect(eq(int, cudaPeekAtLastError(), cudaSuccess));
}

Test(cuda_check, not_ready_is_no_success, .init = make_machine) {
  machine_fail("cudaStreamQuery", 1, 1, cudaErrorNotReady);
  EXPECT_FATAL(TM_CUDA_CHECK(cudaStreamQuery(NULL)), "cudaErrorNotReady");
  cr_expect(eq(int, cudaPeekAtLastError(), cudaSuccess));
}

Test(cuda_check, last_reports_an_earlier_failure_once, .init = make_machine) {
  TM_CUDA_CHECK_LAST();
  (void)cudaSetDevice(NO_DEVICE);
  EXPECT_FATAL(TM_CUDA_CHECK_LAST("layer %d", 4), "");
  expect_message(__LINE__ - 1, "the launch, or an earlier call on this thread",
                 cudaErrorInvalidDevice, ": layer 4");
  TM_CUDA_CHECK_LAST();
}

Test(cuda_check, a_lost_device_is_lost_to_our_calls_too, .init = make_machine) {
  machine_break_device(0, cudaErrorIllegalAddress);
  EXPECT_FATAL(TM_CUDA_CHECK(cudaDeviceSynchronize()), "cudaErrorIllegalAddress");
  cr_expect(eq(ptr, tm_stream_create(0, 0), NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_DEVICE_LOST));
}

// The toolkit calls it an unknown internal error, and does not say that it stays.
Test(cuda_check, an_unknown_error_loses_no_device, .init = make_machine) {
  machine_fail("cudaDeviceSynchronize", 1, 1, cudaErrorUnknown);
  EXPECT_FATAL(TM_CUDA_CHECK(cudaDeviceSynchronize()), "cudaErrorUnknown");
  tm_stream* stream = tm_stream_create(0, 0);
  cr_expect(ne(ptr, stream, NULL));
  tm_stream_release(stream);
}

Test(cuda_check, is_one_statement_after_if_without_braces, .init = make_machine) {
  int device = 7;
  int others = 0;
  for (int i = 0; i < 2; i++) {
    if (i)
      TM_CUDA_CHECK(cudaGetDevice(&device));
    else
      others++;
    if (i)
      TM_CUDA_CHECK_LAST();
    else
      others++;
  }
  cr_expect(eq(int, device, 0));
  cr_expect(eq(int, others, 2));
}
