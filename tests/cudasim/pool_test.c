// Memory pools. What is expected here, sizes included, was seen on a real device (H200, CUDA 13.0).

#include <stdlib.h>

#include "tests/cudasim/support.h"

static cudaMemPool_t new_pool(size_t limit) {
  const struct cudaMemPoolProps props = {.allocType = cudaMemAllocationTypePinned,
                                         .location = {cudaMemLocationTypeDevice, 0},
                                         .maxSize = limit};
  cudaMemPool_t pool;
  OK(cudaMemPoolCreate(&pool, &props));
  return pool;
}

static void set_threshold(cudaMemPool_t pool, uint64_t bytes) {
  OK(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &bytes));
}

static cudaMemPool_t new_keeping_pool(void) {
  cudaMemPool_t pool = new_pool(0);
  set_threshold(pool, UINT64_MAX);
  return pool;
}

static char* take(cudaMemPool_t pool, size_t bytes, cudaStream_t stream) {
  void* p = NULL;
  OK(cudaMallocFromPoolAsync(&p, bytes, pool, stream));
  return p;
}

static uint64_t reserved_mib(cudaMemPool_t pool) {
  return pool_bytes(pool, cudaMemPoolAttrReservedMemCurrent) / MIB;
}

//===-- Sizes ---------------------------------------------------------------------------------===//

SIM_TEST(pool, reserves_chunks_and_counts_what_was_asked_for) {
  cudaMemPool_t pool;
  OK(cudaDeviceGetDefaultMemPool(&pool, 0));
  cudaStream_t stream = new_stream(0);
  const size_t sizes[] = {1, 1, 512, 513, 4096, 3 * MIB, 20 * MIB, 33 * MIB, 40 * MIB};
  const uint64_t reserved[] = {32, 32, 32, 32, 32, 32, 32, 64, 128};
  void* blocks[9];
  uint64_t used = 0;
  for (int i = 0; i < 9; ++i) {
    OK(cudaMallocAsync(&blocks[i], sizes[i], stream));
    used += sizes[i];
    cr_expect(eq(u64, reserved_mib(pool), reserved[i]), "%zu", sizes[i]);
    cr_expect(eq(u64, pool_bytes(pool, cudaMemPoolAttrUsedMemCurrent), used));
  }
  cr_expect(eq(ptr, blocks[1], (char*)blocks[0] + 512));
  cr_expect(eq(ptr, blocks[4], (char*)blocks[3] + 1024));
  for (int i = 0; i < 9; ++i) OK(cudaFreeAsync(blocks[i], stream));
  cr_expect(eq(u64, pool_bytes(pool, cudaMemPoolAttrUsedMemCurrent), 0));
  cr_expect(eq(u64, pool_bytes(pool, cudaMemPoolAttrUsedMemHigh), used));
  cr_expect(eq(u64, reserved_mib(pool), 128));
  OK(cudaStreamSynchronize(stream));
  cr_expect(eq(u64, reserved_mib(pool), 0));
  cr_expect(eq(u64, pool_bytes(pool, cudaMemPoolAttrReservedMemHigh), 128 * MIB));
  uint64_t zero = 0;
  OK(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReservedMemHigh, &zero));
  cr_expect(eq(u64, pool_bytes(pool, cudaMemPoolAttrReservedMemHigh), 0));
}

SIM_TEST(pool, takes_the_smallest_hole_that_fits) {
  cudaMemPool_t pool = new_keeping_pool();
  cudaStream_t stream = new_stream(0);
  char* base = take(pool, 8 * MIB, stream);
  char* holes[3] = {base};
  take(pool, MIB, stream);
  holes[1] = take(pool, 4 * MIB, stream);
  take(pool, MIB, stream);
  holes[2] = take(pool, 6 * MIB, stream);
  take(pool, MIB, stream);
  for (int i = 0; i < 3; ++i) OK(cudaFreeAsync(holes[i], stream));
  cr_expect(eq(ptr, take(pool, 7 * MIB, stream), holes[0]));
  cr_expect(eq(ptr, take(pool, 5 * MIB, stream), holes[2]));
  cr_expect(eq(ptr, take(pool, 3 * MIB, stream), holes[1]));
  cr_expect(eq(ptr, take(pool, MIB / 2, stream), holes[0] + 7 * MIB));
  cr_expect(eq(u64, reserved_mib(pool), 32));
}

SIM_TEST(pool, moves_unused_memory_to_where_addresses_are_free) {
  cudaMemPool_t pool = new_keeping_pool();
  cudaStream_t stream = new_stream(0);
  char* a = take(pool, 90 * MIB, stream);
  char* b = take(pool, 90 * MIB, stream);
  char* c = take(pool, 90 * MIB, stream);
  cr_expect(eq(u64, reserved_mib(pool), 288));
  OK(cudaFreeAsync(a, stream));
  OK(cudaFreeAsync(c, stream));
  cr_expect(eq(ptr, take(pool, 150 * MIB, stream), c));
  cr_expect(eq(u64, reserved_mib(pool), 288));
  cr_expect(eq(ptr, take(pool, 20 * MIB, stream), a));
  cr_expect(eq(u64, reserved_mib(pool), 320));
  cr_expect(eq(ptr, take(pool, 80 * MIB, stream), c + 150 * MIB));
  cr_expect(eq(u64, reserved_mib(pool), 384));
  (void)b;
}

SIM_TEST(pool, nothing_is_nothing) {
  void* p = &p;
  OK(cudaMallocAsync(&p, 0, 0));
  cr_expect(eq(ptr, p, NULL));
  OK(cudaFreeAsync(NULL, 0));
  REFUSED(cudaMallocAsync(NULL, 1, 0), cudaErrorInvalidValue);
  p = &p;
  REFUSED(cudaMallocAsync(&p, SIZE_MAX, 0), cudaErrorMemoryAllocation);
  cr_expect(eq(ptr, p, NULL));
}

//===-- Giving back ---------------------------------------------------------------------------===//

SIM_TEST(pool, gives_back_what_the_host_has_waited_for) {
  cudaMemPool_t pool = new_pool(0);
  cudaStream_t stream = new_stream(0);
  cudaStream_t other = new_stream(0);
  cudaEvent_t event;
  OK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  for (int way = 0; way < 5; ++way) {
    size_t before = free_memory();
    OK(cudaFreeAsync(take(pool, 40 * MIB, stream), stream));
    while (cudaStreamQuery(stream) == cudaErrorNotReady) {
    }
    OK(cudaStreamSynchronize(other));  // says nothing of `stream`
    OK(cudaMemPoolTrimTo(pool, 0));
    cr_expect(eq(u64, reserved_mib(pool), 64), "way %d", way);
    OK(cudaEventRecord(event, stream));
    OK(cudaStreamWaitEvent(other, event, 0));
    if (way == 0) OK(cudaStreamSynchronize(stream));
    if (way == 1) OK(cudaEventSynchronize(event));
    if (way == 2) OK(cudaDeviceSynchronize());
    if (way == 3) OK(cudaStreamSynchronize(other));  // is behind the event
    if (way == 4) OK(cudaStreamSynchronize(0));      // is behind all blocking streams
    cr_expect(eq(u64, reserved_mib(pool), 0), "way %d", way);
    cr_expect(eq(sz, free_memory(), before));
  }
}

SIM_TEST(pool, keeps_what_its_threshold_allows) {
  cudaMemPool_t pool = new_pool(0);
  cudaStream_t stream = new_stream(0);
  const uint64_t thresholds[] = {10 * MIB, 40 * MIB, 64 * MIB, UINT64_MAX};
  const uint64_t kept[] = {0, 32, 64, 128};
  for (int i = 0; i < 4; ++i) {
    set_threshold(pool, thresholds[i]);
    OK(cudaFreeAsync(take(pool, 100 * MIB, stream), stream));
    cr_expect(eq(u64, reserved_mib(pool), 128));
    OK(cudaStreamSynchronize(stream));
    cr_expect(eq(u64, reserved_mib(pool), kept[i]), "threshold %d", i);
  }
  OK(cudaMemPoolTrimTo(pool, 33 * MIB));
  cr_expect(eq(u64, reserved_mib(pool), 64));
  OK(cudaMemPoolTrimTo(pool, 10 * MIB));
  cr_expect(eq(u64, reserved_mib(pool), 32));
  OK(cudaMemPoolTrimTo(pool, UINT64_MAX));
  cr_expect(eq(u64, reserved_mib(pool), 32));
  OK(cudaMemPoolTrimTo(pool, 0));
  cr_expect(eq(u64, reserved_mib(pool), 0));
}

SIM_TEST(pool, keeps_chunks_that_are_in_use) {
  cudaMemPool_t pool = new_pool(0);
  cudaStream_t stream = new_stream(0);
  char* p = take(pool, 100 * MIB, stream);
  char* q = take(pool, 1, stream);
  OK(cudaFreeAsync(p, stream));
  OK(cudaStreamSynchronize(stream));
  cr_expect(eq(u64, reserved_mib(pool), 32));
  OK(cudaMemPoolTrimTo(pool, 0));
  cr_expect(eq(u64, reserved_mib(pool), 32));
  OK(cudaFree(q));  // as free as if the host had waited
  OK(cudaMemPoolTrimTo(pool, 0));
  cr_expect(eq(u64, reserved_mib(pool), 0));
}

SIM_TEST(pool, gives_way_to_cudaMalloc_and_other_pools) {
  cudaMemPool_t pool = new_keeping_pool();
  cudaStream_t stream = new_stream(0);
  for (int i = 0; i < 2; ++i) {
    OK(cudaFreeAsync(take(pool, 768 * MIB, stream), stream));
    OK(cudaStreamSynchronize(stream));
    cr_expect(eq(u64, reserved_mib(pool), 768));
    void* p = NULL;
    OK(i ? cudaMallocAsync(&p, 900 * MIB, stream) : cudaMalloc(&p, 900 * MIB));
    cr_expect(eq(u64, reserved_mib(pool), 0));
    OK(cudaFree(p));
    OK(cudaStreamSynchronize(stream));
  }
}

//===-- Limits --------------------------------------------------------------------------------===//

SIM_TEST(pool, max_size_is_rounded_up_to_chunks) {
  cudaStream_t stream = new_stream(0);
  cudaMemPool_t pool = new_pool(10 * MIB);
  take(pool, 11 * MIB, stream);
  void* p;
  REFUSED(cudaMallocFromPoolAsync(&p, 33 * MIB, pool, stream), cudaErrorMemoryAllocation);
  take(pool, 21 * MIB, stream);
  REFUSED(cudaMallocFromPoolAsync(&p, 1, pool, stream), cudaErrorMemoryAllocation);
  cr_expect(eq(u64, reserved_mib(pool), 32));
}

SIM_TEST(pool, a_full_device_is_an_ordinary_error) {
  cudaStream_t stream = new_stream(0);
  cudaMemPool_t pool = new_keeping_pool();
  enum { BLOCKS = 32 };
  char* blocks[BLOCKS];
  for (int i = 0; i < BLOCKS; ++i) blocks[i] = take(pool, 32 * MIB, stream);
  cr_expect(eq(sz, free_memory(), 0));
  void* p = &p;
  REFUSED(cudaMallocFromPoolAsync(&p, 1, pool, stream), cudaErrorMemoryAllocation);
  cr_expect(eq(ptr, p, NULL));
  cr_expect(eq(u64, pool_bytes(pool, cudaMemPoolAttrUsedMemCurrent), GIB));
  for (int i = 0; i < BLOCKS; i += 2) OK(cudaFreeAsync(blocks[i], stream));
  // Half of the memory is free, in pieces, and none of it has been waited for.
  p = take(pool, 512 * MIB, stream);
  cr_expect(eq(sz, free_memory(), 0));
}

//===-- Order ---------------------------------------------------------------------------------===//

THREADS_TEST(reuse, is_immediate_in_the_same_stream) {
  gate g = CLOSED_GATE;
  cudaMemPool_t pool = new_keeping_pool();
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  char* p = take(pool, 40 * MIB, stream);
  close_gate(&g, stream);
  OK(cudaFreeAsync(p, stream));
  cr_expect(eq(ptr, take(pool, 40 * MIB, stream), p));
  open_gate(&g);
  OK(cudaStreamSynchronize(stream));
}

THREADS_TEST(reuse, in_another_stream_waits_for_the_free) {
  gate g = CLOSED_GATE;
  cudaMemPool_t pool = new_keeping_pool();
  cudaStream_t a = new_stream(cudaStreamNonBlocking);
  cudaStream_t b = new_stream(cudaStreamNonBlocking);
  char* p = take(pool, 40 * MIB, a);
  close_gate(&g, a);
  OK(cudaFreeAsync(p, a));
  char* q = take(pool, 40 * MIB, b);
  cr_expect(ne(ptr, q, p));
  cr_expect(eq(u64, reserved_mib(pool), 96));
  open_gate(&g);
  while (cudaStreamQuery(a) == cudaErrorNotReady) {
  }
  cr_expect(eq(ptr, take(pool, 40 * MIB, b), p), "it happens to be done");
}

THREADS_TEST(reuse, follows_events) {
  gate g = CLOSED_GATE;
  cudaMemPool_t pool = new_keeping_pool();
  cudaStream_t a = new_stream(cudaStreamNonBlocking);
  cudaStream_t b = new_stream(cudaStreamNonBlocking);
  cudaStream_t c = new_stream(cudaStreamNonBlocking);
  cudaEvent_t event;
  OK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  char* p = take(pool, 40 * MIB, a);
  close_gate(&g, a);
  OK(cudaEventRecord(event, a));
  OK(cudaStreamWaitEvent(b, event, 0));
  OK(cudaFreeAsync(p, a));
  cr_expect(ne(ptr, take(pool, 40 * MIB, b), p), "the event was before the free");
  OK(cudaEventRecord(event, a));
  OK(cudaStreamWaitEvent(b, event, 0));
  OK(cudaEventRecord(event, b));
  OK(cudaStreamWaitEvent(c, event, 0));
  int off = 0;
  OK(cudaMemPoolSetAttribute(pool, cudaMemPoolReuseFollowEventDependencies, &off));
  cr_expect(ne(ptr, take(pool, 40 * MIB, c), p));
  int on = 1;
  OK(cudaMemPoolSetAttribute(pool, cudaMemPoolReuseFollowEventDependencies, &on));
  cr_expect(eq(ptr, take(pool, 40 * MIB, c), p), "a before b before c");
  open_gate(&g);
  OK(cudaDeviceSynchronize());
}

THREADS_TEST(reuse, follows_the_legacy_stream) {
  gate g = CLOSED_GATE;
  cudaMemPool_t pool = new_keeping_pool();
  cudaStream_t a = new_stream(cudaStreamDefault);
  char* p = take(pool, 40 * MIB, a);
  close_gate(&g, a);
  OK(cudaFreeAsync(p, a));
  cr_expect(eq(ptr, take(pool, 40 * MIB, cudaStreamLegacy), p));
  OK(cudaFreeAsync(p, cudaStreamLegacy));
  cr_expect(eq(ptr, take(pool, 40 * MIB, cudaStreamPerThread), p));
  open_gate(&g);
  OK(cudaDeviceSynchronize());
}

THREADS_TEST(reuse, without_opportunism_needs_the_host_to_wait) {
  cudaMemPool_t pool = new_keeping_pool();
  int off = 0;
  OK(cudaMemPoolSetAttribute(pool, cudaMemPoolReuseAllowOpportunistic, &off));
  cudaStream_t a = new_stream(cudaStreamNonBlocking);
  cudaStream_t b = new_stream(cudaStreamNonBlocking);
  char* p = take(pool, 40 * MIB, a);
  OK(cudaFreeAsync(p, a));
  while (cudaStreamQuery(a) == cudaErrorNotReady) {
  }
  cr_expect(ne(ptr, take(pool, 40 * MIB, b), p));
  OK(cudaStreamSynchronize(a));
  cr_expect(eq(ptr, take(pool, 40 * MIB, b), p));
}

THREADS_TEST(reuse, adds_a_dependency_before_it_fails) {
  gate g = CLOSED_GATE;
  cudaMemPool_t pool = new_pool(64 * MIB);
  cudaStream_t a = new_stream(cudaStreamNonBlocking);
  cudaStream_t b = new_stream(cudaStreamNonBlocking);
  char* p = take(pool, 40 * MIB, a);
  close_gate(&g, a);
  OK(cudaFreeAsync(p, a));
  int off = 0;
  OK(cudaMemPoolSetAttribute(pool, cudaMemPoolReuseAllowInternalDependencies, &off));
  void* q = NULL;
  REFUSED(cudaMallocFromPoolAsync(&q, 40 * MIB, pool, b), cudaErrorMemoryAllocation);
  OK(cudaStreamQuery(b));
  int on = 1;
  OK(cudaMemPoolSetAttribute(pool, cudaMemPoolReuseAllowInternalDependencies, &on));
  cr_expect(eq(ptr, take(pool, 40 * MIB, b), p));
  REFUSED(cudaStreamQuery(b), cudaErrorNotReady);
  open_gate(&g);
  OK(cudaStreamSynchronize(b));
}

// One stream gets the same memory whether its work is done quickly or slowly.
static uint64_t trace_of_one_stream(const char* schedule) {
  cudasim_reset();
  make_machine((cudasim_options){.schedule = schedule});
  cudaMemPool_t pool = new_keeping_pool();
  cudaStream_t stream = new_stream(0);
  void* work = new_device_memory(MIB);
  enum { LIVE = 50 };
  char* live[LIVE] = {NULL};
  char* base = take(pool, 1, stream);
  uint64_t trace = 0;
  unsigned seed = 7;
  for (int i = 0; i < 2000; ++i) {
    seed = seed * 1103515245u + 12345u;
    unsigned k = (seed >> 8) % LIVE;
    OK(cudaMemsetAsync(work, i, MIB, stream));
    if (live[k]) {
      OK(cudaFreeAsync(live[k], stream));
      live[k] = NULL;
    } else {
      void* p = NULL;
      cudaError_t error = cudaMallocFromPoolAsync(&p, (seed >> 10) % (40 * MIB) + 1, pool, stream);
      live[k] = p;
      trace = trace * 1000003 + (p ? (uint64_t)((char*)p - base) : (uint64_t)error);
    }
    trace = trace * 1000003 + pool_bytes(pool, cudaMemPoolAttrReservedMemCurrent);
    if (i % 500 == 499) OK(cudaStreamSynchronize(stream));
  }
  return trace;
}

Test(reuse, of_one_stream_is_the_same_under_every_schedule) {
  uint64_t eager = trace_of_one_stream("eager");
  cr_expect(eq(u64, trace_of_one_stream("threads"), eager));
  cr_expect(eq(u64, trace_of_one_stream("threads"), eager));
  cr_expect(eq(u64, trace_of_one_stream("random:1"), eager));
  cr_expect(eq(u64, trace_of_one_stream("random:2"), eager));
}

//===-- Properties ----------------------------------------------------------------------------===//

SIM_TEST(pool, attributes_have_defaults_and_rules) {
  cudaMemPool_t pool = new_pool(0);
  for (int policy = 1; policy <= 3; ++policy) {
    int value = 9;
    OK(cudaMemPoolGetAttribute(pool, (enum cudaMemPoolAttr)policy, &value));
    cr_expect(eq(int, value, 1));
  }
  for (int bytes = 4; bytes <= 8; ++bytes) {
    cr_expect(eq(u64, pool_bytes(pool, (enum cudaMemPoolAttr)bytes), 0));
  }
  uint64_t zero = 0;
  uint64_t one = 1;
  REFUSED(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &zero),
          cudaErrorInvalidValue);
  REFUSED(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &zero),
          cudaErrorInvalidValue);
  REFUSED(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrUsedMemHigh, &one), cudaErrorInvalidValue);
  REFUSED(cudaMemPoolGetAttribute(pool, (enum cudaMemPoolAttr)99, &zero), cudaErrorInvalidValue);
  REFUSED(cudaMemPoolGetAttribute(NULL, cudaMemPoolAttrUsedMemHigh, &zero), cudaErrorInvalidValue);
  REFUSED(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemHigh, NULL), cudaErrorInvalidValue);
}

SIM_TEST(pool, wrong_properties_are_refused) {
  struct cudaMemPoolProps props = {.allocType = cudaMemAllocationTypePinned,
                                   .location = {cudaMemLocationTypeDevice, 0}};
  cudaMemPool_t pool;
  REFUSED(cudaMemPoolCreate(NULL, &props), cudaErrorInvalidValue);
  REFUSED(cudaMemPoolCreate(&pool, NULL), cudaErrorInvalidValue);
  props.location.id = 1;
  REFUSED(cudaMemPoolCreate(&pool, &props), cudaErrorInvalidValue);
  props.location.id = 0;
  props.location.type = cudaMemLocationTypeHost;
  REFUSED(cudaMemPoolCreate(&pool, &props), cudaErrorNotSupported);
  props.location.type = cudaMemLocationTypeInvalid;
  REFUSED(cudaMemPoolCreate(&pool, &props), cudaErrorInvalidValue);
  props.location.type = cudaMemLocationTypeDevice;
  props.handleTypes = cudaMemHandleTypePosixFileDescriptor;
  REFUSED(cudaMemPoolCreate(&pool, &props), cudaErrorNotSupported);
  props.handleTypes = cudaMemHandleTypeNone;
  props.allocType = cudaMemAllocationTypeInvalid;
  REFUSED(cudaMemPoolCreate(&pool, &props), cudaErrorInvalidValue);
}

Test(pool, access_of_other_devices) {
  make_machine((cudasim_options){.devices = 2, .schedule = "eager"});
  cudaMemPool_t pool = new_pool(0);
  struct cudaMemAccessDesc desc = {{cudaMemLocationTypeDevice, 1}, cudaMemAccessFlagsProtReadWrite};
  enum cudaMemAccessFlags flags;
  OK(cudaMemPoolGetAccess(&flags, pool, &desc.location));
  cr_expect(eq(int, flags, cudaMemAccessFlagsProtNone));
  OK(cudaMemPoolSetAccess(pool, &desc, 1));
  OK(cudaMemPoolGetAccess(&flags, pool, &desc.location));
  cr_expect(eq(int, flags, cudaMemAccessFlagsProtReadWrite));
  desc.flags = cudaMemAccessFlagsProtRead;
  REFUSED(cudaMemPoolSetAccess(pool, &desc, 1), cudaErrorNotSupported);
  desc.flags = cudaMemAccessFlagsProtNone;
  desc.location.id = 0;
  REFUSED(cudaMemPoolSetAccess(pool, &desc, 1), cudaErrorInvalidDevice);
  desc.location.id = 2;
  REFUSED(cudaMemPoolSetAccess(pool, &desc, 1), cudaErrorInvalidDevice);
  REFUSED(cudaMemPoolGetAccess(&flags, pool, &desc.location), cudaErrorInvalidValue);
}

SIM_TEST(pool, the_current_one_serves_cudaMallocAsync) {
  cudaMemPool_t usual;
  cudaMemPool_t pool = new_pool(0);
  cudaMemPool_t current;
  OK(cudaDeviceGetDefaultMemPool(&usual, 0));
  OK(cudaDeviceGetMemPool(&current, 0));
  cr_expect(eq(ptr, current, usual));
  OK(cudaDeviceSetMemPool(0, pool));
  OK(cudaDeviceGetMemPool(&current, 0));
  cr_expect(eq(ptr, current, pool));
  void* p;
  OK(cudaMallocAsync(&p, 100, 0));
  cr_expect(eq(u64, pool_bytes(pool, cudaMemPoolAttrUsedMemCurrent), 100));
  OK(cudaFreeAsync(p, 0));
  OK(cudaMemPoolDestroy(pool));
  OK(cudaDeviceGetMemPool(&current, 0));
  cr_expect(eq(ptr, current, usual));
  REFUSED(cudaMemPoolDestroy(usual), cudaErrorInvalidValue);
  REFUSED(cudaDeviceSetMemPool(0, NULL), cudaErrorInvalidValue);
  REFUSED(cudaDeviceSetMemPool(0, pool), cudaErrorInvalidValue);
  REFUSED(cudaDeviceGetDefaultMemPool(&current, 7), cudaErrorInvalidDevice);
}

SIM_TEST(pool, the_current_one_of_a_location) {
  struct cudaMemLocation location = {cudaMemLocationTypeDevice, 0};
  cudaMemPool_t pool = new_pool(0);
  cudaMemPool_t usual;
  cudaMemPool_t current;
  OK(cudaDeviceGetDefaultMemPool(&usual, 0));
  OK(cudaMemSetMemPool(&location, cudaMemAllocationTypePinned, pool));
  OK(cudaMemGetMemPool(&current, &location, cudaMemAllocationTypePinned));
  cr_expect(eq(ptr, current, pool));
  OK(cudaMemGetDefaultMemPool(&current, &location, cudaMemAllocationTypePinned));
  cr_expect(eq(ptr, current, usual));
  location.type = cudaMemLocationTypeHost;
  REFUSED(cudaMemGetDefaultMemPool(&current, &location, cudaMemAllocationTypePinned),
          cudaErrorNotSupported);
}

SIM_TEST(pool, destroyed_with_live_blocks_goes_with_the_last) {
  size_t before = free_memory();
  cudaStream_t stream = new_stream(0);
  cudaMemPool_t pool = new_keeping_pool();
  char* p = take(pool, 40 * MIB, stream);
  char* q = take(pool, 40 * MIB, stream);
  OK(cudaMemPoolDestroy(pool));
  REFUSED(cudaMemPoolTrimTo(pool, 0), cudaErrorInvalidValue);
  void* r;
  REFUSED(cudaMallocFromPoolAsync(&r, 1, pool, stream), cudaErrorInvalidValue);
  REFUSED(cudaMemPoolDestroy(pool), cudaErrorInvalidValue);
  OK(cudaMemsetAsync(p, 1, 40 * MIB, stream));
  OK(cudaFreeAsync(p, stream));
  OK(cudaStreamSynchronize(stream));
  cr_expect(lt(sz, free_memory(), before));
  OK(cudaFreeAsync(q, stream));
  OK(cudaStreamSynchronize(stream));
  cr_expect(eq(sz, free_memory(), before));
}

Test(pool, of_another_device_than_the_stream) {
  make_machine((cudasim_options){.devices = 2, .schedule = "threads"});
  cudaMemPool_t pool = new_keeping_pool();
  OK(cudaSetDevice(1));
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  char* p = take(pool, MIB, stream);
  struct cudaPointerAttributes attributes;
  OK(cudaPointerGetAttributes(&attributes, p));
  cr_expect(eq(int, attributes.device, 0));
  OK(cudaMemsetAsync(p, 1, MIB, stream));
  OK(cudaFreeAsync(p, stream));
  OK(cudaStreamSynchronize(stream));
  OK(cudaMemPoolTrimTo(pool, 0));
  cr_expect(eq(u64, reserved_mib(pool), 0));
}

//===-- Between devices -----------------------------------------------------------------------===//

// A stream of one device has freed memory of another's pool, and goes after that pool.
Test(pool, a_device_is_reset_under_a_stream_of_another_that_freed_its_memory) {
  make_machine((cudasim_options){.devices = 2});
  OK(cudaSetDevice(1));
  cudaStream_t stream = new_stream(0);
  cudaMemPool_t pool;
  OK(cudaDeviceGetDefaultMemPool(&pool, 0));
  void* p;
  OK(cudaMallocFromPoolAsync(&p, 64, pool, stream));
  OK(cudaFreeAsync(p, stream));
  OK(cudaSetDevice(0));
  OK(cudaDeviceReset());
  OK(cudaDeviceGetDefaultMemPool(&pool, 0));
  OK(cudaMallocFromPoolAsync(&p, 64, pool, cudaStreamPerThread));
  OK(cudaFreeAsync(p, cudaStreamPerThread));
  OK(cudaStreamDestroy(stream));
  OK(cudaDeviceSynchronize());
  cr_expect(eq(sz, pool_bytes(pool, cudaMemPoolAttrUsedMemCurrent), 0));
}
