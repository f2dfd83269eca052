// Eight devices with 32 streams each, used by eight threads at once.

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "cudasim.h"
#include "tests/cudasim/sequence.h"

#define THREADS 8
#define DEVICES 8
#define STREAMS 32

static unsigned rounds = 3;

// Every thread uses all devices, and 32 streams of its own on each round.
static void* use_all_devices(void* argument) {
  const sequence_options options = {.devices = DEVICES, .streams = STREAMS, .steps = 400};
  unsigned first = *(unsigned*)argument;
  long failed = 0;
  for (unsigned i = 0; i < rounds; ++i) failed += !run_sequence(first + i, &options);
  return (void*)failed;
}

static long run_threads(void) {
  pthread_t threads[THREADS];
  unsigned seeds[THREADS];
  long failed = 0;
  for (unsigned i = 0; i < THREADS; ++i) {
    seeds[i] = 1000 * (i + 1);
    if (pthread_create(&threads[i], NULL, use_all_devices, &seeds[i])) abort();
  }
  for (int i = 0; i < THREADS; ++i) {
    void* result;
    pthread_join(threads[i], &result);
    failed += (long)result;
  }
  return failed;
}

// All streams there are wait for each other in one long chain over all devices.
static long run_chain(void) {
  static cudaStream_t streams[DEVICES * STREAMS];
  cudaEvent_t event = NULL;
  unsigned char* host;
  unsigned char* memory;
  if (cudaSetDevice(0) || cudaMalloc((void**)&memory, 1) || cudaMallocHost((void**)&host, 1)) {
    return 1;
  }
  for (int i = 0; i < DEVICES * STREAMS; ++i) {
    cudaEvent_t before = event;
    if (cudaSetDevice(i % DEVICES)) return 1;
    if (cudaStreamCreateWithFlags(&streams[i], cudaStreamNonBlocking)) return 1;
    if (cudaEventCreateWithFlags(&event, cudaEventDisableTiming)) return 1;
    if (before && (cudaStreamWaitEvent(streams[i], before, 0) || cudaEventDestroy(before)))
      return 1;
    if (cudaMemsetAsync(memory, i, 1, streams[i])) return 1;
    if (cudaMemcpyAsync(host, memory, 1, cudaMemcpyDefault, streams[i])) return 1;
    if (cudaEventRecord(event, streams[i])) return 1;
  }
  if (cudaEventSynchronize(event)) return 1;
  return host[0] != (DEVICES * STREAMS - 1) % 256;
}

static cudaStream_t shared_stream;
static uint64_t shared_count;  // changed by host functions of that stream only

static void count(void* unused) {
  (void)unused;
  ++shared_count;
}

static void* use_shared_stream(void* argument) {
  long failed = 0;
  for (int i = 0; i < 2000; ++i) {
    void* p;
    failed += cudaMallocAsync(&p, 4096, shared_stream) != cudaSuccess;
    failed += cudaLaunchHostFunc(shared_stream, count, NULL) != cudaSuccess;
    failed += cudaMemsetAsync(p, i, 4096, shared_stream) != cudaSuccess;
    failed += cudaFreeAsync(p, shared_stream) != cudaSuccess;
    if (i % 100 == 0) failed += cudaStreamSynchronize(shared_stream) != cudaSuccess;
  }
  *(long*)argument = failed;
  return NULL;
}

// One stream and one pool for all threads.
static long run_shared(void) {
  pthread_t threads[THREADS];
  long failures[THREADS];
  long failed = 0;
  shared_count = 0;
  if (cudaSetDevice(0) || cudaStreamCreate(&shared_stream)) return 1;
  for (int i = 0; i < THREADS; ++i) {
    if (pthread_create(&threads[i], NULL, use_shared_stream, &failures[i])) abort();
  }
  for (int i = 0; i < THREADS; ++i) {
    pthread_join(threads[i], NULL);
    failed += failures[i];
  }
  if (cudaStreamSynchronize(shared_stream)) return 1;
  return failed + (shared_count != THREADS * 2000UL);
}

// stress_test [ROUNDS]
int main(int argc, char** argv) {
  if (argc > 1) rounds = (unsigned)strtoul(argv[1], NULL, 10);
  long failed = 0;
  static const char* const schedules[] = {"threads", "eager", "random:1"};
  for (int i = 0; i < 3; ++i) {
    const cudasim_options machine = {
        .devices = DEVICES, .memory = "1GiB", .schedule = schedules[i]};
    if (cudasim_configure(&machine)) return 1;
    failed += run_chain();
    failed += run_shared();
    failed += run_threads();
    cudasim_reset();
    printf("%s: %ld failed so far\n", schedules[i], failed);
  }
  return failed != 0;
}
