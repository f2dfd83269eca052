// Events: what they wait for, what they measure, and how they die.

#include "tests/cudasim/support.h"

static cudaEvent_t new_event(unsigned flags) {
  cudaEvent_t event;
  OK(cudaEventCreateWithFlags(&event, flags));
  return event;
}

SIM_TEST(event, that_was_never_recorded_is_complete) {
  cudaEvent_t event = new_event(cudaEventDisableTiming);
  OK(cudaEventQuery(event));
  OK(cudaEventSynchronize(event));
  OK(cudaStreamWaitEvent(0, event, 0));
  OK(cudaEventDestroy(event));
}

SIM_TEST(event, orders_streams) {
  cudaStream_t a = new_stream(cudaStreamNonBlocking);
  cudaStream_t b = new_stream(cudaStreamNonBlocking);
  cudaEvent_t forth = new_event(cudaEventDisableTiming);
  cudaEvent_t back = new_event(cudaEventDefault);
  unsigned char* host = new_pinned_memory(256);
  void* p = new_device_memory(16);
  for (int i = 0; i < 256; ++i) {
    OK(cudaMemsetAsync(p, i, 16, a));
    OK(cudaEventRecord(forth, a));
    OK(cudaStreamWaitEvent(b, forth, 0));
    OK(cudaMemcpyAsync(host + i, (char*)p + 7, 1, cudaMemcpyDeviceToHost, b));
    OK(cudaEventRecord(back, b));
    OK(cudaStreamWaitEvent(a, back, 0));
  }
  OK(cudaEventSynchronize(back));
  for (int i = 0; i < 256; ++i) cr_expect(eq(int, host[i], i));
}

THREADS_TEST(event, waits_hold_the_stream_not_the_worker) {
  gate g = CLOSED_GATE;
  cudaStream_t source = new_stream(cudaStreamNonBlocking);
  cudaEvent_t event = new_event(cudaEventDisableTiming);
  close_gate(&g, source);
  OK(cudaEventRecord(event, source));
  enum { WAITING = 100 };
  cudaStream_t waiting[WAITING];
  unsigned char* host = new_pinned_memory(WAITING);
  unsigned char* p = new_device_memory(WAITING);
  for (int i = 0; i < WAITING; ++i) {
    waiting[i] = new_stream(cudaStreamNonBlocking);
    OK(cudaStreamWaitEvent(waiting[i], event, 0));
    OK(cudaMemsetAsync(p + i, i, 1, waiting[i]));
    OK(cudaMemcpyAsync(host + i, p + i, 1, cudaMemcpyDeviceToHost, waiting[i]));
  }
  cudaStream_t free = new_stream(cudaStreamNonBlocking);
  void* q = new_device_memory(16);
  OK(cudaMemsetAsync(q, 1, 16, free));
  OK(cudaStreamSynchronize(free));
  for (int i = 0; i < WAITING; ++i) REFUSED(cudaStreamQuery(waiting[i]), cudaErrorNotReady);
  open_gate(&g);
  OK(cudaDeviceSynchronize());
  for (int i = 0; i < WAITING; ++i) cr_expect(eq(int, host[i], i));
}

THREADS_TEST(event, a_wait_means_the_last_recording_before_it) {
  gate first = CLOSED_GATE;
  gate second = CLOSED_GATE;
  cudaStream_t a = new_stream(cudaStreamNonBlocking);
  cudaStream_t b = new_stream(cudaStreamNonBlocking);
  cudaEvent_t event = new_event(cudaEventDisableTiming);
  close_gate(&first, a);
  OK(cudaEventRecord(event, a));
  OK(cudaStreamWaitEvent(b, event, 0));
  close_gate(&second, a);
  OK(cudaEventRecord(event, a));
  open_gate(&first);
  OK(cudaStreamSynchronize(b));
  REFUSED(cudaEventQuery(event), cudaErrorNotReady);
  open_gate(&second);
  OK(cudaEventSynchronize(event));
}

THREADS_TEST(event, may_be_destroyed_while_pending) {
  gate g = CLOSED_GATE;
  cudaStream_t a = new_stream(cudaStreamNonBlocking);
  cudaStream_t b = new_stream(cudaStreamNonBlocking);
  unsigned char* host = new_pinned_memory(1);
  void* p = new_device_memory(1);
  const unsigned flags[] = {cudaEventDisableTiming, cudaEventDefault};
  close_gate(&g, a);
  OK(cudaMemsetAsync(p, 9, 1, a));
  for (int i = 0; i < 2; ++i) {
    cudaEvent_t event = new_event(flags[i]);
    OK(cudaEventRecord(event, a));
    OK(cudaStreamWaitEvent(b, event, 0));
    OK(cudaEventDestroy(event));
    REFUSED(cudaEventQuery(event), cudaErrorInvalidResourceHandle);
    new_event(flags[i]);  // takes the memory over
  }
  OK(cudaMemcpyAsync(host, p, 1, cudaMemcpyDeviceToHost, b));
  REFUSED(cudaStreamQuery(b), cudaErrorNotReady);
  open_gate(&g);
  OK(cudaStreamSynchronize(b));
  cr_expect(eq(int, host[0], 9));
}

THREADS_TEST(event, in_the_legacy_stream_captures_blocking_streams) {
  gate g = CLOSED_GATE;
  cudaStream_t blocking = new_stream(cudaStreamDefault);
  cudaStream_t other = new_stream(cudaStreamNonBlocking);
  cudaEvent_t event = new_event(cudaEventDisableTiming);
  close_gate(&g, blocking);
  OK(cudaEventRecord(event, other));
  OK(cudaEventQuery(event));
  OK(cudaEventRecord(event, 0));
  REFUSED(cudaEventQuery(event), cudaErrorNotReady);
  open_gate(&g);
  OK(cudaEventSynchronize(event));
}

Test(event, orders_streams_of_different_devices) {
  make_machine((cudasim_options){.devices = 2, .schedule = "threads"});
  gate g = CLOSED_GATE;
  cudaStream_t a = new_stream(cudaStreamNonBlocking);
  cudaEvent_t event = new_event(cudaEventDisableTiming);
  close_gate(&g, a);
  OK(cudaEventRecord(event, a));
  OK(cudaSetDevice(1));
  cudaStream_t b = new_stream(cudaStreamNonBlocking);
  OK(cudaStreamWaitEvent(b, event, 0));
  void* p = new_device_memory(16);
  OK(cudaMemsetAsync(p, 1, 16, b));
  REFUSED(cudaStreamQuery(b), cudaErrorNotReady);
  REFUSED(cudaEventRecord(event, b), cudaErrorInvalidResourceHandle);
  open_gate(&g);
  OK(cudaStreamSynchronize(b));
}

//===-- Time ----------------------------------------------------------------------------------===//

static void sleep_20_ms(void* unused) {
  (void)unused;
  nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
}

SIM_TEST(event, measures_what_is_between) {
  cudaStream_t stream = new_stream(0);
  cudaEvent_t start = new_event(cudaEventDefault);
  cudaEvent_t end = new_event(cudaEventBlockingSync);
  OK(cudaEventRecord(start, stream));
  OK(cudaLaunchHostFunc(stream, sleep_20_ms, NULL));
  OK(cudaEventRecord(end, stream));
  OK(cudaEventSynchronize(end));
  float ms = -1;
  OK(cudaEventElapsedTime(&ms, start, end));
  cr_expect(ge(flt, ms, 19.9f));
  OK(cudaEventElapsedTime(&ms, start, start));
  cr_expect(eq(flt, ms, 0.0f));
}

THREADS_TEST(event, measures_nothing_it_cannot) {
  gate g = CLOSED_GATE;
  cudaStream_t stream = new_stream(0);
  cudaEvent_t start = new_event(cudaEventDefault);
  cudaEvent_t end = new_event(cudaEventDefault);
  cudaEvent_t untimed = new_event(cudaEventDisableTiming);
  float ms = -1;
  REFUSED(cudaEventElapsedTime(&ms, start, end), cudaErrorInvalidResourceHandle);
  OK(cudaEventRecord(start, stream));
  OK(cudaEventRecord(untimed, stream));
  REFUSED(cudaEventElapsedTime(&ms, start, end), cudaErrorInvalidResourceHandle);
  REFUSED(cudaEventElapsedTime(&ms, start, untimed), cudaErrorInvalidResourceHandle);
  REFUSED(cudaEventElapsedTime(NULL, start, start), cudaErrorInvalidValue);
  close_gate(&g, stream);
  OK(cudaEventRecord(end, stream));
  REFUSED(cudaEventElapsedTime(&ms, start, end), cudaErrorNotReady);
  cr_expect(eq(flt, ms, -1.0f));
  open_gate(&g);
  OK(cudaStreamSynchronize(stream));
  OK(cudaEventElapsedTime(&ms, start, end));
  cr_expect(ge(flt, ms, 0.0f));
}

//===-- Handles and flags ---------------------------------------------------------------------===//

SIM_TEST(event, wrong_flags_are_refused) {
  cudaEvent_t event;
  REFUSED(cudaEventCreate(NULL), cudaErrorInvalidValue);
  REFUSED(cudaEventCreateWithFlags(&event, 0x40), cudaErrorInvalidValue);
  REFUSED(cudaEventCreateWithFlags(&event, cudaEventInterprocess), cudaErrorInvalidValue);
  event = new_event(cudaEventInterprocess | cudaEventDisableTiming);
  REFUSED(cudaEventRecordWithFlags(event, 0, 7), cudaErrorInvalidValue);
  REFUSED(cudaEventRecordWithFlags(event, 0, cudaEventRecordExternal), cudaErrorIllegalState);
  OK(cudaEventRecordWithFlags(event, 0, cudaEventRecordDefault));
  REFUSED(cudaStreamWaitEvent(0, event, 7), cudaErrorInvalidValue);
  REFUSED(cudaStreamWaitEvent(0, event, cudaEventWaitExternal), cudaErrorIllegalState);
}

SIM_TEST(event, dead_and_wild_handles_are_refused) {
  cudaEvent_t dead = new_event(0);
  OK(cudaEventDestroy(dead));
  const cudaEvent_t wild[] = {NULL, dead, (cudaEvent_t)(uintptr_t)0x1234,
                              (cudaEvent_t)new_stream(0)};
  for (size_t i = 0; i < sizeof(wild) / sizeof(wild[0]); ++i) {
    float ms;
    REFUSED(cudaEventQuery(wild[i]), cudaErrorInvalidResourceHandle);
    REFUSED(cudaEventSynchronize(wild[i]), cudaErrorInvalidResourceHandle);
    REFUSED(cudaEventDestroy(wild[i]), cudaErrorInvalidResourceHandle);
    REFUSED(cudaEventRecord(wild[i], 0), cudaErrorInvalidResourceHandle);
    REFUSED(cudaStreamWaitEvent(0, wild[i], 0), cudaErrorInvalidResourceHandle);
    REFUSED(cudaEventElapsedTime(&ms, wild[i], wild[i]), cudaErrorInvalidResourceHandle);
  }
}

SIM_TEST(event, a_hundred_thousand_are_no_problem) {
  enum { COUNT = 100000 };
  static cudaEvent_t events[COUNT];
  for (int i = 0; i < COUNT; ++i) events[i] = new_event(i % 2 ? cudaEventDisableTiming : 0);
  for (int i = 0; i < COUNT; ++i) OK(cudaEventRecord(events[i], 0));
  for (int i = 0; i < COUNT; ++i) OK(cudaEventQuery(events[i]));
  for (int i = 0; i < COUNT; ++i) OK(cudaEventDestroy(events[i]));
}
