// Devices: how many there are, which is current, what they say of themselves.

#include <pthread.h>
#include <string.h>

#include "tests/cudasim/support.h"

SIM_TEST(device, count_and_versions) {
  int value = 0;
  OK(cudaGetDeviceCount(&value));
  cr_expect(eq(int, value, 1));
  OK(cudaRuntimeGetVersion(&value));
  cr_expect(eq(int, value, CUDART_VERSION));
  OK(cudaDriverGetVersion(&value));
  cr_expect(eq(int, value, CUDART_VERSION));
  REFUSED(cudaGetDeviceCount(NULL), cudaErrorInvalidValue);
}

static void* current_device_of_a_new_thread(void* out) {
  OK(cudaGetDevice(out));
  OK(cudaSetDevice(2));
  return NULL;
}

Test(device, current_device_belongs_to_the_thread) {
  make_machine((cudasim_options){.devices = 4});
  OK(cudaSetDevice(3));
  int other = -1;
  pthread_t thread;
  cr_assert(eq(int, pthread_create(&thread, NULL, current_device_of_a_new_thread, &other), 0));
  pthread_join(thread, NULL);
  cr_expect(eq(int, other, 0));
  int mine = -1;
  OK(cudaGetDevice(&mine));
  cr_expect(eq(int, mine, 3));
  REFUSED(cudaSetDevice(4), cudaErrorInvalidDevice);
  REFUSED(cudaSetDevice(-1), cudaErrorInvalidDevice);
}

Test(device, memory_may_differ_between_devices) {
  make_machine((cudasim_options){.devices = 4, .memory = "1GiB,512MiB,33554432"});
  const size_t expected[] = {1 * GIB, 512 * MIB, 32 * MIB, 32 * MIB};
  for (int id = 0; id < 4; ++id) {
    OK(cudaSetDevice(id));
    size_t free;
    size_t total;
    OK(cudaMemGetInfo(&free, &total));
    cr_expect(eq(sz, total, expected[id]));
    cr_expect(eq(sz, free, expected[id]));
    struct cudaDeviceProp properties;
    OK(cudaGetDeviceProperties(&properties, id));
    cr_expect(eq(sz, properties.totalGlobalMem, expected[id]));
  }
}

SIM_TEST(device, attributes_and_properties_agree) {
  struct cudaDeviceProp properties;
  OK(cudaGetDeviceProperties(&properties, 0));
  cr_expect(eq(str, properties.name, "cudasim device 0"));
  int value = -1;
  OK(cudaDeviceGetAttribute(&value, cudaDevAttrMemoryPoolsSupported, 0));
  cr_expect(eq(int, value, 1));
  cr_expect(eq(int, properties.memoryPoolsSupported, 1));
  OK(cudaDeviceGetAttribute(&value, cudaDevAttrComputeCapabilityMajor, 0));
  cr_expect(eq(int, value, properties.major));
  OK(cudaDeviceGetAttribute(&value, cudaDevAttrMaxBlockDimZ, 0));
  cr_expect(eq(int, value, properties.maxThreadsDim[2]));
  OK(cudaDeviceGetAttribute(&value, cudaDevAttrManagedMemory, 0));
  cr_expect(eq(int, value, 0));
  REFUSED(cudaDeviceGetAttribute(&value, (enum cudaDeviceAttr)9999, 0), cudaErrorInvalidValue);
  REFUSED(cudaDeviceGetAttribute(&value, cudaDevAttrWarpSize, 1), cudaErrorInvalidDevice);
  REFUSED(cudaGetDeviceProperties(&properties, 1), cudaErrorInvalidDevice);
}

Test(device, peers) {
  make_machine((cudasim_options){.devices = 2});
  int can = -1;
  OK(cudaDeviceCanAccessPeer(&can, 0, 1));
  cr_expect(eq(int, can, 1));
  OK(cudaDeviceCanAccessPeer(&can, 1, 1));
  cr_expect(eq(int, can, 0));
  REFUSED(cudaDeviceCanAccessPeer(&can, 0, 2), cudaErrorInvalidDevice);
  OK(cudaDeviceEnablePeerAccess(1, 0));
  REFUSED(cudaDeviceEnablePeerAccess(1, 0), cudaErrorPeerAccessAlreadyEnabled);
  REFUSED(cudaDeviceEnablePeerAccess(0, 0), cudaErrorPeerAccessUnsupported);
  REFUSED(cudaDeviceEnablePeerAccess(2, 0), cudaErrorInvalidDevice);
  OK(cudaDeviceDisablePeerAccess(1));
  REFUSED(cudaDeviceDisablePeerAccess(1), cudaErrorPeerAccessNotEnabled);
}

SIM_TEST(device, reset_takes_everything_away) {
  cudaStream_t stream = new_stream(cudaStreamDefault);
  cudaEvent_t event;
  OK(cudaEventCreate(&event));
  cudaMemPool_t pool;
  OK(cudaDeviceGetDefaultMemPool(&pool, 0));
  void* p = new_device_memory(MIB);
  void* q;
  OK(cudaMallocAsync(&q, MIB, stream));
  OK(cudaDeviceReset());
  REFUSED(cudaFree(p), cudaErrorInvalidValue);
  REFUSED(cudaFree(q), cudaErrorInvalidValue);
  REFUSED(cudaStreamQuery(stream), cudaErrorInvalidResourceHandle);
  REFUSED(cudaEventQuery(event), cudaErrorInvalidResourceHandle);
  REFUSED(cudaMemPoolTrimTo(pool, 0), cudaErrorInvalidValue);
  cr_expect(eq(sz, free_memory(), GIB));
  OK(cudaFree(new_device_memory(MIB)));
}

SIM_TEST(device, synchronize_waits_for_all_streams) {
  unsigned char* host = new_pinned_memory(8);
  void* p = new_device_memory(8);
  for (int i = 0; i < 8; ++i) {
    cudaStream_t stream = new_stream(i % 2 ? cudaStreamNonBlocking : cudaStreamDefault);
    OK(cudaMemsetAsync((char*)p + i, i + 1, 1, stream));
    OK(cudaMemcpyAsync(host + i, (char*)p + i, 1, cudaMemcpyDeviceToHost, stream));
  }
  OK(cudaDeviceSynchronize());
  for (int i = 0; i < 8; ++i) cr_expect(eq(int, host[i], i + 1));
}

//===-- Configuration -------------------------------------------------------------------------===//

Test(configuration, what_is_not_allowed_is_refused) {
  const cudasim_options wrong[] = {
      {.devices = 65},
      {.devices = -1},
      {.memory = "80GB"},
      {.memory = "1MiB"},
      {.memory = "5TiB"},
      {.memory = "1GiB,"},
      {.memory = "1GiB 2GiB"},
      {.memory = "-1"},
      {.memory = "99999999999999999999"},
      {.schedule = "eagerly"},
      {.schedule = "threads "},
      {.memory = "GiB"},
      {.schedule = "random "},
      {.schedule = "random:"},
      {.schedule = "random:-1"},
      {.schedule = "random:x"},
      {.schedule = "random:1 "},
      {.schedule = "random:1,2"},
      {.schedule = "random:18446744073709551616"},
      {.schedule = "random: 1"},
  };
  for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); ++i) {
    REFUSED(cudasim_configure(&wrong[i]), cudaErrorInvalidValue);
  }
  OK(cudasim_configure(NULL));
}

Test(configuration, seeds_have_64_bits) {
  OK(cudasim_configure(&(cudasim_options){.schedule = "random:0"}));
  OK(cudasim_configure(&(cudasim_options){.schedule = "random:007"}));
  OK(cudasim_configure(&(cudasim_options){.schedule = "random:18446744073709551615"}));
}

Test(configuration, comes_too_late_once_there_is_a_machine) {
  make_machine((cudasim_options){.devices = 2});
  OK(cudaFree(NULL));
  REFUSED(cudasim_configure(&(cudasim_options){.devices = 3}), cudaErrorSetOnActiveProcess);
  cudasim_reset();
  make_machine((cudasim_options){.devices = 3});
  int count;
  OK(cudaGetDeviceCount(&count));
  cr_expect(eq(int, count, 3));
}

Test(configuration, environment_is_read) {
  setenv("CUDASIM_DEVICES", "5", 1);
  setenv("CUDASIM_MEMORY", "64MiB", 1);
  setenv("CUDASIM_SCHEDULE", "eager", 1);
  setenv("CUDASIM_PROTECT", "0", 1);
  int count;
  OK(cudaGetDeviceCount(&count));
  cr_expect(eq(int, count, 5));
  cr_expect(eq(sz, free_memory(), 64 * MIB));
  unsigned char* p = new_device_memory(16);
  OK(cudaMemset(p, 7, 16));
  cr_expect(eq(int, p[15], 7), "without protection the host sees device memory");
}

Test(configuration, wrong_environment_fails_every_call) {
  setenv("CUDASIM_SCHEDULE", "randomly", 1);
  int count = -1;
  REFUSED(cudaGetDeviceCount(&count), cudaErrorInitializationError);
  void* p = NULL;
  REFUSED(cudaMalloc(&p, 1), cudaErrorInitializationError);
  cr_expect(eq(int, cudaGetLastError(), cudaErrorInitializationError));
  setenv("CUDASIM_SCHEDULE", "threads", 1);
  cudasim_reset();
  OK(cudaGetDeviceCount(&count));
}

Test(configuration, reset_is_a_new_machine) {
  make_machine((cudasim_options){.schedule = "threads"});
  for (int round = 0; round < 3; ++round) {
    cudaStream_t stream = new_stream(cudaStreamDefault);
    void* p = new_device_memory(2 * MIB);
    void* q;
    OK(cudaMallocAsync(&q, 3 * MIB, stream));
    unsigned char* host = new_pinned_memory(4096);
    OK(cudaMemcpyAsync(p, host, 4096, cudaMemcpyHostToDevice, stream));
    OK(cudaMemcpyAsync(q, p, 4096, cudaMemcpyDeviceToDevice, stream));
    OK(cudaMemsetAsync((char*)p + 4096, 0, 4096, cudaStreamPerThread));
    OK(cudasim_fail("cudaMalloc", 1, 0, cudaErrorUnknown));
    cudasim_reset();
    make_machine((cudasim_options){.schedule = round ? "threads" : "eager"});
    REFUSED(cudaStreamQuery(stream), cudaErrorInvalidResourceHandle);
    REFUSED(cudaFree(p), cudaErrorInvalidValue);
    REFUSED(cudaFreeHost(host), cudaErrorInvalidValue);
    cudasim_statistics statistics;
    OK(cudasim_stats(0, &statistics));
    cr_expect(eq(u64, statistics.mallocs, 0));
    cr_expect(eq(u64, statistics.reserved_bytes, 0));
  }
}

Test(statistics, count_what_was_done) {
  make_machine((cudasim_options){.schedule = "eager"});
  cudaStream_t stream = new_stream(cudaStreamDefault);
  void* p = new_device_memory(3 * MIB);
  void* q;
  OK(cudaMallocAsync(&q, 100, stream));
  OK(cudaMemsetAsync(q, 0, 100, stream));
  OK(cudaMemcpy(p, q, 100, cudaMemcpyDefault));
  OK(cudaFreeAsync(q, stream));
  OK(cudaFree(p));
  REFUSED(cudaFree(p), cudaErrorInvalidValue);
  OK(cudaMemcpy(p, q, 0, cudaMemcpyDefault));
  cudasim_statistics s;
  OK(cudasim_stats(0, &s));
  cr_expect(eq(u64, s.mallocs, 1));
  cr_expect(eq(u64, s.frees, 1));
  cr_expect(eq(u64, s.async_mallocs, 1));
  cr_expect(eq(u64, s.async_frees, 1));
  cr_expect(eq(u64, s.copies, 1));
  cr_expect(eq(u64, s.fills, 1));
  cr_expect(eq(u64, s.memory_bytes, GIB));
  cr_expect(eq(u64, s.reserved_bytes, 32 * MIB));
  cr_expect(eq(u64, s.peak_reserved_bytes, 36 * MIB));
  OK(cudasim_reset_stats(0));
  OK(cudasim_stats(0, &s));
  cr_expect(eq(u64, s.mallocs, 0));
  cr_expect(eq(u64, s.peak_reserved_bytes, 32 * MIB));
  REFUSED(cudasim_stats(1, &s), cudaErrorInvalidDevice);
  REFUSED(cudasim_stats(0, NULL), cudaErrorInvalidValue);
}

Test(statistics, time_in_calls_is_measured_when_asked_for) {
  make_machine((cudasim_options){.schedule = "eager"});
  void* p = new_device_memory(64 * MIB);
  OK(cudaMemset(p, 1, 64 * MIB));
  cr_expect(eq(u64, cudasim_thread_call_ns(), 0));
  cudasim_measure_calls(1);
  OK(cudaMemset(p, 2, 64 * MIB));
  cudasim_measure_calls(0);
  uint64_t measured = cudasim_thread_call_ns();
  cr_expect(measured > 100000);
  cr_expect(ge(u64, cudasim_call_ns(), measured - measured / 10));
}

//===-- Taking the machine down ---------------------------------------------------------------===//

// What is queued on the last device writes memory of the first, which goes first.
Test(reset, waits_for_all_devices_before_the_first_is_gone) {
  for (int i = 0; i < 20; ++i) {
    make_machine((cudasim_options){.devices = 2, .schedule = "random:1"});
    enum { BYTES = 16 << 20 };
    void* first = new_device_memory(BYTES);
    OK(cudaSetDevice(1));
    void* second = new_device_memory(BYTES);
    cudaStream_t stream = new_stream(cudaStreamNonBlocking);
    for (int k = 0; k < 4; ++k) OK(cudaMemcpyPeerAsync(first, 0, second, 1, BYTES, stream));
    cudasim_reset();
  }
}
