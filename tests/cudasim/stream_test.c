// Streams: order within one, order between them, the legacy stream's rules, handles.

#include <stdlib.h>
#include <string.h>

#include "tests/cudasim/support.h"

typedef struct note {
  int* next;
  int* order;
  int value;
} note;

static void take_note(void* argument) {
  note* n = argument;
  n->order[(*n->next)++] = n->value;
}

SIM_TEST(stream, host_functions_run_in_order) {
  enum { COUNT = 100 };
  static note notes[COUNT];
  int order[COUNT];
  int next = 0;
  cudaStream_t stream = new_stream(cudaStreamDefault);
  for (int i = 0; i < COUNT; ++i) {
    notes[i] = (note){&next, order, i};
    OK(cudaLaunchHostFunc(stream, take_note, &notes[i]));
  }
  OK(cudaStreamSynchronize(stream));
  cr_assert(eq(int, next, COUNT));
  for (int i = 0; i < COUNT; ++i) cr_expect(eq(int, order[i], i));
}

SIM_TEST(stream, copies_and_fills_run_in_order) {
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  unsigned char* host = new_pinned_memory(256);
  void* p = new_device_memory(256);
  void* q = new_device_memory(256);
  for (int i = 0; i < 200; ++i) {
    OK(cudaMemsetAsync(p, i, 256, stream));
    OK(cudaMemcpyAsync(q, p, 256, cudaMemcpyDeviceToDevice, stream));
    OK(cudaMemcpyAsync(host + i, (char*)q + i, 1, cudaMemcpyDeviceToHost, stream));
  }
  OK(cudaStreamSynchronize(stream));
  for (int i = 0; i < 200; ++i) cr_expect(eq(int, host[i], i));
}

THREADS_TEST(stream, calls_return_before_the_work_is_done) {
  gate g = CLOSED_GATE;
  cudaStream_t stream = new_stream(cudaStreamDefault);
  unsigned char* host = new_pinned_memory(16);
  void* p = new_device_memory(16);
  memset(host, 1, 16);
  close_gate(&g, stream);
  OK(cudaMemcpyAsync(p, host, 16, cudaMemcpyHostToDevice, stream));
  REFUSED(cudaStreamQuery(stream), cudaErrorNotReady);
  memset(host, 2, 16);  // a pinned source is read when the stream gets there
  open_gate(&g);
  OK(cudaStreamSynchronize(stream));
  OK(cudaStreamQuery(stream));
  unsigned char seen[16];
  OK(cudaMemcpy(seen, p, 16, cudaMemcpyDeviceToHost));
  cr_expect(eq(int, seen[0], 2));
}

THREADS_TEST(stream, a_blocked_host_function_holds_up_its_stream_only) {
  gate g = CLOSED_GATE;
  cudaStream_t blocked = new_stream(cudaStreamNonBlocking);
  cudaStream_t other = new_stream(cudaStreamNonBlocking);
  void* p = new_device_memory(16);
  close_gate(&g, blocked);
  OK(cudaMemsetAsync(p, 3, 16, other));
  OK(cudaStreamSynchronize(other));
  REFUSED(cudaStreamQuery(blocked), cudaErrorNotReady);
  open_gate(&g);
  OK(cudaStreamSynchronize(blocked));
}

THREADS_TEST(stream, work_goes_on_without_the_host) {
  cudaStream_t stream = new_stream(cudaStreamDefault);
  void* p = new_device_memory(MIB);
  OK(cudaMemsetAsync(p, 1, MIB, stream));
  while (cudaStreamQuery(stream) == cudaErrorNotReady) {
    nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
  }
  OK(cudaStreamQuery(stream));
}

static void count(void* argument) { ++*(uint64_t*)argument; }

THREADS_TEST(stream, a_million_queued_operations_do_not_exhaust_memory) {
  uint64_t done = 0;
  cudaStream_t stream = new_stream(cudaStreamDefault);
  for (int i = 0; i < 1000000; ++i) OK(cudaLaunchHostFunc(stream, count, &done));
  OK(cudaStreamSynchronize(stream));
  cr_expect(eq(u64, done, 1000000));
}

//===-- Properties ----------------------------------------------------------------------------===//

SIM_TEST(stream, has_the_properties_it_was_made_with) {
  int least;
  int greatest;
  OK(cudaDeviceGetStreamPriorityRange(&least, &greatest));
  cr_expect(eq(int, least, 0));
  cr_expect(eq(int, greatest, -5));
  const int asked[] = {-100, -5, -2, 0, 7};
  const int expected[] = {-5, -5, -2, 0, 0};
  for (int i = 0; i < 5; ++i) {
    cudaStream_t stream;
    OK(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, asked[i]));
    int priority = 99;
    OK(cudaStreamGetPriority(stream, &priority));
    cr_expect(eq(int, priority, expected[i]));
    unsigned flags = 99;
    OK(cudaStreamGetFlags(stream, &flags));
    cr_expect(eq(uint, flags, cudaStreamNonBlocking));
    int device = 99;
    OK(cudaStreamGetDevice(stream, &device));
    cr_expect(eq(int, device, 0));
  }
  cudaStream_t stream;
  REFUSED(cudaStreamCreateWithFlags(&stream, 2), cudaErrorInvalidValue);
  REFUSED(cudaStreamCreate(NULL), cudaErrorInvalidValue);
}

SIM_TEST(stream, ids_are_unique) {
  cudaStream_t streams[] = {0, cudaStreamPerThread, new_stream(0), new_stream(0)};
  unsigned long long ids[4];
  for (int i = 0; i < 4; ++i) OK(cudaStreamGetId(streams[i], &ids[i]));
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < i; ++j) cr_expect(ne(ullong, ids[i], ids[j]));
  }
  unsigned long long legacy;
  OK(cudaStreamGetId(cudaStreamLegacy, &legacy));
  cr_expect(eq(ullong, legacy, ids[0]));
}

//===-- Handles -------------------------------------------------------------------------------===//

SIM_TEST(stream, dead_and_wild_handles_are_refused) {
  cudaStream_t dead = new_stream(0);
  OK(cudaStreamDestroy(dead));
  cudaStream_t again = new_stream(0);
  cr_expect(ne(ptr, dead, again));
  cudaEvent_t event;
  OK(cudaEventCreate(&event));
  const cudaStream_t wild[] = {dead, (cudaStream_t)3, (cudaStream_t)(uintptr_t)0xdeadbeef,
                               (cudaStream_t)(uintptr_t)UINT64_MAX, (cudaStream_t)event};
  void* p = new_device_memory(16);
  for (size_t i = 0; i < sizeof(wild) / sizeof(wild[0]); ++i) {
    int value;
    REFUSED(cudaStreamQuery(wild[i]), cudaErrorInvalidResourceHandle);
    REFUSED(cudaStreamSynchronize(wild[i]), cudaErrorInvalidResourceHandle);
    REFUSED(cudaStreamDestroy(wild[i]), cudaErrorInvalidResourceHandle);
    REFUSED(cudaStreamGetPriority(wild[i], &value), cudaErrorInvalidResourceHandle);
    REFUSED(cudaMemsetAsync(p, 0, 16, wild[i]), cudaErrorInvalidResourceHandle);
    REFUSED(cudaMemcpyAsync(p, p, 0, cudaMemcpyDefault, wild[i]), cudaErrorInvalidResourceHandle);
    REFUSED(cudaLaunchHostFunc(wild[i], count, NULL), cudaErrorInvalidResourceHandle);
    REFUSED(cudaEventRecord(event, wild[i]), cudaErrorInvalidResourceHandle);
    REFUSED(cudaStreamWaitEvent(wild[i], event, 0), cudaErrorInvalidResourceHandle);
    void* q = &q;
    REFUSED(cudaMallocAsync(&q, 16, wild[i]), cudaErrorInvalidResourceHandle);
    cr_expect(eq(ptr, q, NULL));
    REFUSED(cudaFreeAsync(p, wild[i]), cudaErrorInvalidResourceHandle);
  }
  const cudaStream_t fixed[] = {0, cudaStreamLegacy, cudaStreamPerThread};
  for (int i = 0; i < 3; ++i) REFUSED(cudaStreamDestroy(fixed[i]), cudaErrorInvalidResourceHandle);
}

THREADS_TEST(stream, destroyed_with_work_pending_finishes_it) {
  gate g = CLOSED_GATE;
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  unsigned char* host = new_pinned_memory(16);
  void* p = new_device_memory(16);
  close_gate(&g, stream);
  OK(cudaMemsetAsync(p, 5, 16, stream));
  OK(cudaMemcpyAsync(host, p, 16, cudaMemcpyDeviceToHost, stream));
  cudaEvent_t event;
  OK(cudaEventCreate(&event));
  OK(cudaEventRecord(event, stream));
  OK(cudaStreamDestroy(stream));
  REFUSED(cudaEventQuery(event), cudaErrorNotReady);
  open_gate(&g);
  OK(cudaEventSynchronize(event));
  cr_expect(eq(int, host[15], 5));
}

SIM_TEST(stream, many_can_come_and_go) {
  for (int i = 0; i < 20000; ++i) OK(cudaStreamDestroy(new_stream(0)));
}

//===-- The legacy stream ---------------------------------------------------------------------===//

THREADS_TEST(legacy, waits_for_blocking_streams_only) {
  gate g = CLOSED_GATE;
  cudaStream_t blocking = new_stream(cudaStreamDefault);
  cudaStream_t other = new_stream(cudaStreamNonBlocking);
  void* p = new_device_memory(16);
  gate h = CLOSED_GATE;
  close_gate(&h, other);
  OK(cudaMemset(p, 1, 16));
  OK(cudaStreamSynchronize(cudaStreamLegacy));  // is not behind `other`
  close_gate(&g, blocking);
  OK(cudaMemsetAsync(p, 2, 16, 0));
  REFUSED(cudaStreamQuery(0), cudaErrorNotReady);
  open_gate(&g);
  OK(cudaStreamSynchronize(0));
  open_gate(&h);
  OK(cudaDeviceSynchronize());
}

THREADS_TEST(legacy, blocking_streams_wait_for_it) {
  gate g = CLOSED_GATE;
  cudaStream_t blocking = new_stream(cudaStreamDefault);
  cudaStream_t other = new_stream(cudaStreamNonBlocking);
  void* p = new_device_memory(32);
  close_gate(&g, cudaStreamLegacy);
  OK(cudaStreamQuery(blocking));
  OK(cudaMemsetAsync(p, 2, 16, blocking));
  OK(cudaMemsetAsync((char*)p + 16, 2, 16, other));
  OK(cudaStreamSynchronize(other));
  REFUSED(cudaStreamQuery(blocking), cudaErrorNotReady);
  OK(cudaMemsetAsync(p, 3, 16, cudaStreamPerThread));
  REFUSED(cudaStreamQuery(cudaStreamPerThread), cudaErrorNotReady);
  open_gate(&g);
  OK(cudaStreamSynchronize(blocking));
  OK(cudaStreamSynchronize(cudaStreamPerThread));
}

THREADS_TEST(legacy, is_one_for_each_device) {
  cudasim_reset();
  make_machine((cudasim_options){.devices = 2, .schedule = "threads"});
  gate g = CLOSED_GATE;
  close_gate(&g, 0);
  OK(cudaSetDevice(1));
  OK(cudaStreamSynchronize(0));
  void* p = new_device_memory(16);
  OK(cudaMemset(p, 1, 16));
  OK(cudaDeviceSynchronize());
  OK(cudaSetDevice(0));
  REFUSED(cudaStreamQuery(0), cudaErrorNotReady);
  open_gate(&g);
  OK(cudaDeviceSynchronize());
}

SIM_TEST(legacy, synchronous_copies_see_blocking_streams) {
  cudaStream_t a = new_stream(cudaStreamDefault);
  cudaStream_t b = new_stream(cudaStreamDefault);
  unsigned char* p = new_device_memory(2);
  for (int i = 0; i < 100; ++i) {
    OK(cudaMemsetAsync(p, i, 1, a));
    OK(cudaMemsetAsync(p + 1, i + 100, 1, b));
    unsigned char seen[2];
    OK(cudaMemcpy(seen, p, 2, cudaMemcpyDeviceToHost));
    cr_expect(eq(int, seen[0], i));
    cr_expect(eq(int, seen[1], i + 100));
  }
}

static void* stream_of_this_thread(void* out) {
  OK(cudaStreamGetId(cudaStreamPerThread, out));
  void* p;
  OK(cudaMallocAsync(&p, 16, cudaStreamPerThread));
  OK(cudaFreeAsync(p, cudaStreamPerThread));
  return NULL;
}

SIM_TEST(legacy, per_thread_streams_belong_to_their_thread) {
  unsigned long long mine;
  OK(cudaStreamGetId(cudaStreamPerThread, &mine));
  for (int i = 0; i < 50; ++i) {
    unsigned long long other = 0;
    pthread_t thread;
    cr_assert(eq(int, pthread_create(&thread, NULL, stream_of_this_thread, &other), 0));
    pthread_join(thread, NULL);
    cr_expect(ne(ullong, other, mine));
  }
}

//===-- Host functions ------------------------------------------------------------------------===//

static void call_the_runtime(void* argument) {
  cudaError_t* errors = argument;
  void* p = NULL;
  int device;
  errors[0] = cudaMalloc(&p, 16);
  errors[1] = cudaStreamQuery(0);
  errors[2] = cudaGetDevice(&device);
  errors[3] = cudaDeviceSynchronize();
}

SIM_TEST(host_function, may_not_call_the_runtime) {
  cudaError_t errors[4] = {0};
  OK(cudaLaunchHostFunc(cudaStreamPerThread, call_the_runtime, errors));
  OK(cudaStreamSynchronize(cudaStreamPerThread));
  for (int i = 0; i < 4; ++i) cr_expect(eq(int, errors[i], cudaErrorNotPermitted));
  OK(cudaFree(NULL));
  REFUSED(cudaLaunchHostFunc(0, NULL, NULL), cudaErrorInvalidValue);
}

typedef struct kernel {
  const unsigned char* in;
  unsigned char* out;
  size_t count;
} kernel;

static void add_one(void* argument) {
  const kernel* k = argument;
  for (size_t i = 0; i < k->count; ++i) k->out[i] = (unsigned char)(k->in[i] + 1);
}

SIM_TEST(host_function, can_stand_in_for_a_kernel) {
  cudaStream_t stream = new_stream(0);
  unsigned char seen[64];
  void* p = new_device_memory(64);
  void* q = new_device_memory(64);
  kernel k = {cudasim_device_memory(p, 64), cudasim_device_memory(q, 64), 64};
  OK(cudaMemsetAsync(p, 41, 64, stream));
  OK(cudaLaunchHostFunc(stream, add_one, &k));
  OK(cudaMemcpyAsync(seen, q, 64, cudaMemcpyDeviceToHost, stream));
  OK(cudaStreamSynchronize(stream));
  for (int i = 0; i < 64; ++i) cr_expect(eq(int, seen[i], 42));
  cr_expect(eq(ptr, cudasim_device_memory(p, 65), NULL));
  cr_expect(eq(ptr, cudasim_device_memory(seen, 1), NULL));
  OK(cudaFree(p));
  cr_expect(eq(ptr, cudasim_device_memory(p, 1), NULL));
}
