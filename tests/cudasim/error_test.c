// Errors: names, the thread's last one, those that stay, and those that tests ask for.

#include <string.h>

#include "tests/cudasim/support.h"

Test(error, has_a_name_and_a_description) {
  cr_expect(eq(str, (char*)cudaGetErrorName(cudaSuccess), "cudaSuccess"));
  cr_expect(
      eq(str, (char*)cudaGetErrorName(cudaErrorMemoryAllocation), "cudaErrorMemoryAllocation"));
  cr_expect(eq(str, (char*)cudaGetErrorName(cudaErrorUnknown), "cudaErrorUnknown"));
  cr_expect(eq(str, (char*)cudaGetErrorString(cudaErrorMemoryAllocation), "out of memory"));
  cr_expect(eq(str, (char*)cudaGetErrorName((cudaError_t)5000), "unrecognized error code"));
  cr_expect(eq(str, (char*)cudaGetErrorString((cudaError_t)-1), "unrecognized error code"));
  int named = 0;
  for (int code = 0; code < 1000; ++code) {
    named += strncmp(cudaGetErrorName((cudaError_t)code), "cuda", 4) == 0;
  }
  cr_expect(eq(int, named, 133));
}

//===-- The last error ------------------------------------------------------------------------===//

static void* last_error_of_a_new_thread(void* out) {
  *(cudaError_t*)out = cudaGetLastError();
  return NULL;
}

SIM_TEST(last_error, stays_until_it_is_asked_for) {
  REFUSED(cudaSetDevice(7), cudaErrorInvalidDevice);
  OK(cudaFree(NULL));
  cr_expect(eq(int, cudaPeekAtLastError(), cudaErrorInvalidDevice));
  REFUSED(cudaFree((void*)8), cudaErrorInvalidValue);
  cudaError_t other = cudaErrorUnknown;
  pthread_t thread;
  cr_assert(eq(int, pthread_create(&thread, NULL, last_error_of_a_new_thread, &other), 0));
  pthread_join(thread, NULL);
  cr_expect(eq(int, other, cudaSuccess));
  cr_expect(eq(int, cudaGetLastError(), cudaErrorInvalidValue));
  cr_expect(eq(int, cudaGetLastError(), cudaSuccess));
}

THREADS_TEST(last_error, is_never_not_ready) {
  gate g = CLOSED_GATE;
  cudaStream_t stream = new_stream(0);
  cudaEvent_t event;
  OK(cudaEventCreate(&event));
  close_gate(&g, stream);
  OK(cudaEventRecord(event, stream));
  REFUSED(cudaStreamQuery(stream), cudaErrorNotReady);
  REFUSED(cudaEventQuery(event), cudaErrorNotReady);
  cr_expect(eq(int, cudaPeekAtLastError(), cudaSuccess));
  open_gate(&g);
  OK(cudaStreamSynchronize(stream));
}

//===-- Broken devices ------------------------------------------------------------------------===//

SIM_TEST(broken_device, fails_every_call) {
  void* p = new_device_memory(16);
  cudaStream_t stream = new_stream(0);
  OK(cudasim_break_device(0, cudaErrorIllegalAddress));
  void* q;
  REFUSED(cudaMalloc(&q, 1), cudaErrorIllegalAddress);
  REFUSED(cudaFree(p), cudaErrorIllegalAddress);
  REFUSED(cudaMallocAsync(&q, 1, stream), cudaErrorIllegalAddress);
  REFUSED(cudaMemcpy(p, p, 1, cudaMemcpyDefault), cudaErrorIllegalAddress);
  REFUSED(cudaStreamQuery(stream), cudaErrorIllegalAddress);
  REFUSED(cudaStreamSynchronize(stream), cudaErrorIllegalAddress);
  REFUSED(cudaDeviceSynchronize(), cudaErrorIllegalAddress);
  cr_expect(eq(int, cudaGetLastError(), cudaErrorIllegalAddress));
  cr_expect(eq(int, cudaGetLastError(), cudaErrorIllegalAddress));
  int count;
  OK(cudaGetDeviceCount(&count));
}

SIM_TEST(broken_device, is_unavailable_once_it_is_reset) {
  void* p = new_device_memory(16);
  OK(cudasim_break_device(0, cudaErrorIllegalAddress));
  OK(cudaDeviceReset());
  REFUSED(cudaFree(p), cudaErrorDevicesUnavailable);
  REFUSED(cudaMalloc(&p, 1), cudaErrorDevicesUnavailable);
  REFUSED(cudaDeviceReset(), cudaErrorDevicesUnavailable);
  REFUSED(cudaDeviceSynchronize(), cudaErrorDevicesUnavailable);
  OK(cudasim_break_device(0, cudaErrorIllegalAddress));
  REFUSED(cudaMalloc(&p, 1), cudaErrorDevicesUnavailable);
  cudasim_reset();
  OK(cudaMalloc(&p, 1));
  cr_expect(eq(int, cudaGetLastError(), cudaSuccess));
}

Test(broken_device, is_found_broken_at_its_first_use) {
  make_machine((cudasim_options){.devices = 2, .schedule = "threads"});
  OK(cudasim_break_device(1, cudaErrorECCUncorrectable));
  void* p;
  OK(cudaMalloc(&p, 1));
  OK(cudaSetDevice(1));
  REFUSED(cudaMalloc(&p, 1), cudaErrorECCUncorrectable);
}

Test(broken_device, leaves_the_others_alone) {
  make_machine((cudasim_options){.devices = 2, .schedule = "threads"});
  OK(cudasim_break_device(1, cudaErrorLaunchFailure));
  OK(cudaFree(new_device_memory(16)));
  OK(cudaSetDevice(1));
  void* p;
  REFUSED(cudaMalloc(&p, 1), cudaErrorLaunchFailure);
  OK(cudaSetDevice(0));
  cr_expect(eq(int, cudaGetLastError(), cudaErrorLaunchFailure));
  cr_expect(eq(int, cudaGetLastError(), cudaSuccess));
  REFUSED(cudasim_break_device(2, cudaErrorLaunchFailure), cudaErrorInvalidDevice);
  REFUSED(cudasim_break_device(0, cudaSuccess), cudaErrorInvalidValue);
}

THREADS_TEST(broken_device, drops_what_is_queued) {
  gate g = CLOSED_GATE;
  cudaStream_t stream = new_stream(0);
  unsigned char* h = new_pinned_memory(16);
  memset(h, 0, 16);
  void* p = new_device_memory(16);
  close_gate(&g, stream);
  OK(cudaMemsetAsync(p, 9, 16, stream));
  OK(cudaMemcpyAsync(h, p, 16, cudaMemcpyDeviceToHost, stream));
  OK(cudasim_break_device(0, cudaErrorIllegalAddress));
  open_gate(&g);
  REFUSED(cudaStreamSynchronize(stream), cudaErrorIllegalAddress);
  OK(cudaDeviceReset());
  cr_expect(eq(int, h[0], 0));
}

//===-- Faults --------------------------------------------------------------------------------===//

SIM_TEST(fault, hits_the_nth_call) {
  OK(cudasim_fail("cudaMalloc", 3, 2, cudaErrorMemoryAllocation));
  for (int i = 1; i <= 6; ++i) {
    void* p = NULL;
    cudaError_t expected = i == 3 || i == 4 ? cudaErrorMemoryAllocation : cudaSuccess;
    REFUSED(cudaMalloc(&p, 16), expected);
    OK(cudaMallocAsync(&p, 16, 0));
  }
}

SIM_TEST(fault, hits_every_call_until_it_is_lifted) {
  void* p = new_device_memory(16);
  OK(cudasim_fail("cudaFree", 1, 0, cudaErrorUnknown));
  for (int i = 0; i < 10; ++i) REFUSED(cudaFree(p), cudaErrorUnknown);
  cr_expect(eq(int, cudaGetLastError(), cudaErrorUnknown));
  OK(cudasim_fail("cudaFree", 1, 0, cudaSuccess));
  OK(cudaFree(p));
  OK(cudasim_fail("cudaFree", 1, 0, cudaErrorUnknown));
  OK(cudasim_fail("cudaGetDevice", 1, 0, cudaErrorUnknown));
  cudasim_fail_nothing();
  OK(cudaFree(NULL));
  int device;
  OK(cudaGetDevice(&device));
}

SIM_TEST(fault, leaves_everything_as_it_was) {
  cudaStream_t stream = new_stream(0);
  unsigned char* p = new_device_memory(1);
  OK(cudaMemset(p, 1, 1));
  size_t before = free_memory();
  OK(cudasim_fail("cudaMemsetAsync", 1, 1, cudaErrorLaunchFailure));
  OK(cudasim_fail("cudaMalloc", 1, 1, cudaErrorMemoryAllocation));
  REFUSED(cudaMemsetAsync(p, 2, 1, stream), cudaErrorLaunchFailure);
  void* q;
  REFUSED(cudaMalloc(&q, 16 * MIB), cudaErrorMemoryAllocation);
  cr_expect(eq(sz, free_memory(), before));
  unsigned char seen;
  OK(cudaMemcpy(&seen, p, 1, cudaMemcpyDeviceToHost));
  cr_expect(eq(int, seen, 1));
}

Test(fault, orders_are_checked) {
  make_machine((cudasim_options){.schedule = "eager"});
  REFUSED(cudasim_fail("cudaMallocc", 1, 1, cudaErrorUnknown), cudaErrorInvalidValue);
  REFUSED(cudasim_fail(NULL, 1, 1, cudaErrorUnknown), cudaErrorInvalidValue);
  REFUSED(cudasim_fail("cudaMalloc", 0, 1, cudaErrorUnknown), cudaErrorInvalidValue);
}
