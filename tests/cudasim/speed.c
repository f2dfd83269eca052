// What calls cost: nanoseconds for one, or for a pair, on an idle machine and under every schedule.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "cudasim.h"

#define ROUNDS 5  // of which the fastest counts

static cudaStream_t stream;
static cudaEvent_t event;
static cudaMemPool_t pool;
static void* device_memory;
static void* pinned;

enum { LIVE = 10000 };
static void* live[LIVE];

static void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  fprintf(stderr, "%s\n", cudaGetErrorName(error));
  exit(1);
}

//===-- What is measured ----------------------------------------------------------------------===//

static void async_pair(int i) {
  void* p;
  check(cudaMallocAsync(&p, 4096 + (size_t)(i % 64) * 4096, stream));
  check(cudaFreeAsync(p, stream));
}

static void pool_pair(int i) {
  void* p;
  check(cudaMallocFromPoolAsync(&p, 4096 + (size_t)(i % 64) * 4096, pool, stream));
  check(cudaFreeAsync(p, stream));
}

static void nested_async_pairs(int i) {
  void* p[8];
  for (int k = 0; k < 8; ++k)
    check(cudaMallocAsync(&p[k], (size_t)(1 + (i + k) % 5) << 20, stream));
  for (int k = 8; k-- > 0;) check(cudaFreeAsync(p[k], stream));
}

static void random_async_pair(int i) {
  static unsigned seed = 1;
  seed = seed * 1664525u + 1013904223u;
  (void)i;
  void** p = &live[(seed >> 4) % LIVE];
  check(cudaFreeAsync(*p, stream));
  check(cudaMallocAsync(p, ((size_t)(seed >> 8) % 1000 + 1) * 512, stream));
}

static void small_pair(int i) {
  void* p;
  (void)i;
  check(cudaMalloc(&p, 4096));
  check(cudaFree(p));
}

static void large_pair(int i) {
  void* p;
  (void)i;
  check(cudaMalloc(&p, (size_t)4 << 20));
  check(cudaFree(p));
}

static void record_and_wait(int i) {
  (void)i;
  check(cudaEventRecord(event, stream));
  check(cudaStreamWaitEvent(stream, event, 0));
}

static void async_copy(int i) {
  (void)i;
  check(cudaMemcpyAsync(device_memory, pinned, 64, cudaMemcpyHostToDevice, stream));
}

static void async_copy_and_wait(int i) {
  async_copy(i);
  check(cudaStreamSynchronize(stream));
}

static void copy(int i) {
  (void)i;
  check(cudaMemcpy(device_memory, pinned, 64, cudaMemcpyHostToDevice));
}

//===-- Measuring -----------------------------------------------------------------------------===//

static double now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static void measure(const char* name, void (*run)(int i), int count) {
  double best = 1e18;
  for (int round = 0; round < ROUNDS; ++round) {
    double start = now_ns();
    for (int i = 0; i < count; ++i) run(i);
    double ns = (now_ns() - start) / count;
    check(cudaStreamSynchronize(stream));
    if (ns < best) best = ns;
  }
  printf("  %-48s %8.1f ns\n", name, best);
}

static void measure_all(const char* schedule) {
  check(cudasim_configure(&(cudasim_options){.schedule = schedule}));
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  check(cudaMalloc(&device_memory, 4096));
  check(cudaHostAlloc(&pinned, 4096, cudaHostAllocDefault));
  const struct cudaMemPoolProps props = {.allocType = cudaMemAllocationTypePinned,
                                         .location = {cudaMemLocationTypeDevice, 0}};
  check(cudaMemPoolCreate(&pool, &props));
  printf("%s\n", schedule);
  measure("cudaMallocAsync + cudaFreeAsync", async_pair, 1000000);
  measure("cudaMallocFromPoolAsync + cudaFreeAsync", pool_pair, 1000000);
  measure("8 nested pairs of 1 to 5 MiB", nested_async_pairs, 200000);
  for (int i = 0; i < LIVE; ++i) check(cudaMallocAsync(&live[i], 512, stream));
  measure("a pair among 10000 live ones, random", random_async_pair, 500000);
  measure("cudaMalloc + cudaFree, 4 KiB", small_pair, 1000000);
  measure("cudaMalloc + cudaFree, 4 MiB", large_pair, 1000000);
  measure("cudaEventRecord + cudaStreamWaitEvent", record_and_wait, 1000000);
  measure("cudaMemcpyAsync, 64 bytes", async_copy, 200000);
  measure("cudaMemcpyAsync + cudaStreamSynchronize", async_copy_and_wait, 200000);
  measure("cudaMemcpy, 64 bytes", copy, 200000);
  cudasim_reset();
}

int main(void) {
  measure_all("eager");
  measure_all("threads");
  measure_all("random:1");
  return 0;
}
