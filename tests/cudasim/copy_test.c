// Copies and fills: what arrives, what is refused, and who waits.

#include <stdlib.h>
#include <string.h>

#include "tests/cudasim/support.h"

//===-- Values --------------------------------------------------------------------------------===//

SIM_TEST(copy, carries_every_byte_through_every_kind) {
  const size_t sizes[] = {1, 7, 4096, 65536, 65537, 3 * MIB + 5};
  cudaStream_t stream = new_stream(0);
  for (int i = 0; i < 6; ++i) {
    size_t n = sizes[i];
    unsigned char* pageable = malloc(n);
    unsigned char* pinned = new_pinned_memory(n);
    void* a = new_device_memory(n);
    void* b = new_device_memory(n);
    fill_pattern(pageable, n, (unsigned)i);
    OK(cudaMemcpy(a, pageable, n, cudaMemcpyHostToDevice));
    OK(cudaMemcpyAsync(b, a, n, cudaMemcpyDeviceToDevice, stream));
    OK(cudaMemcpyAsync(pinned, b, n, cudaMemcpyDeviceToHost, stream));
    OK(cudaStreamSynchronize(stream));
    cr_expect(eq(sz, first_difference(pinned, n, (unsigned)i), n));
    memset(pageable, 0, n);
    OK(cudaMemcpyAsync(pageable, pinned, n, cudaMemcpyHostToHost, stream));
    cr_expect(eq(sz, first_difference(pageable, n, (unsigned)i), n));
    memset(pageable, 0, n);
    OK(cudaMemcpyAsync(pageable, a, n, cudaMemcpyDefault, stream));
    cr_expect(eq(sz, first_difference(pageable, n, (unsigned)i), n));
    OK(cudaFree(a));
    OK(cudaFree(b));
    OK(cudaFreeHost(pinned));
    free(pageable);
  }
}

SIM_TEST(copy, of_two_dimensions) {
  enum { WIDTH = 37, ROWS = 11, PITCH = 64 };
  unsigned char in[PITCH * ROWS];
  unsigned char out[PITCH * ROWS];
  fill_pattern(in, sizeof(in), 1);
  size_t pitch;
  void* p;
  OK(cudaMallocPitch(&p, &pitch, WIDTH, ROWS));
  OK(cudaMemset2D(p, pitch, 0xee, pitch, ROWS));
  OK(cudaMemcpy2D(p, pitch, in, PITCH, WIDTH, ROWS, cudaMemcpyHostToDevice));
  memset(out, 0, sizeof(out));
  OK(cudaMemcpy2D(out, PITCH, p, pitch, WIDTH, ROWS, cudaMemcpyDeviceToHost));
  for (int i = 0; i < PITCH * ROWS; ++i) {
    cr_expect(eq(int, out[i], i % PITCH < WIDTH ? in[i] : 0), "%d", i);
  }
  unsigned char gap;
  OK(cudaMemcpy(&gap, (char*)p + WIDTH, 1, cudaMemcpyDeviceToHost));
  cr_expect(eq(int, gap, 0xee));
}

SIM_TEST(copy, of_three_dimensions) {
  enum { X = 13, Y = 5, Z = 4, PITCH = 20, ROWS = 7 };
  unsigned char in[PITCH * ROWS * Z];
  unsigned char out[sizeof(in)];
  fill_pattern(in, sizeof(in), 3);
  struct cudaPitchedPtr p;
  OK(cudaMalloc3D(&p, make_cudaExtent(X + 2, Y + 1, Z + 1)));
  OK(cudaMemset3D(p, 0, make_cudaExtent(X + 2, Y + 1, Z + 1)));
  struct cudaMemcpy3DParms there = {.srcPtr = make_cudaPitchedPtr(in, PITCH, X, ROWS),
                                    .srcPos = make_cudaPos(3, 1, 0),
                                    .dstPtr = p,
                                    .dstPos = make_cudaPos(2, 1, 1),
                                    .extent = make_cudaExtent(X, Y, Z),
                                    .kind = cudaMemcpyHostToDevice};
  OK(cudaMemcpy3D(&there));
  memset(out, 0, sizeof(out));
  struct cudaMemcpy3DParms back = {.srcPtr = p,
                                   .srcPos = make_cudaPos(2, 1, 1),
                                   .dstPtr = make_cudaPitchedPtr(out, PITCH, X, ROWS),
                                   .extent = make_cudaExtent(X, Y, Z),
                                   .kind = cudaMemcpyDeviceToHost};
  cudaStream_t stream = new_stream(0);
  OK(cudaMemcpy3DAsync(&back, stream));
  OK(cudaStreamSynchronize(stream));
  for (size_t z = 0; z < Z; ++z) {
    for (size_t y = 0; y < Y; ++y) {
      const unsigned char* expected = in + (z * ROWS + y + 1) * PITCH + 3;
      cr_expect(eq(int, memcmp(out + (z * ROWS + y) * PITCH, expected, X), 0), "%zu %zu", y, z);
    }
  }
  unsigned char corner = 1;
  OK(cudaMemcpy(&corner, p.ptr, 1, cudaMemcpyDeviceToHost));
  cr_expect(eq(int, corner, 0));
}

SIM_TEST(fill, of_any_shape) {
  enum { BYTES = 4096 };
  unsigned char out[BYTES];
  char* p = new_device_memory(BYTES);
  cudaStream_t stream = new_stream(0);
  OK(cudaMemsetAsync(p, 0x1ff, BYTES, stream));  // the low byte
  OK(cudaMemset2DAsync(p + 10, 100, 1, 20, 30, stream));
  struct cudaPitchedPtr box = make_cudaPitchedPtr(p, 16, 16, 8);
  OK(cudaMemset3DAsync(box, 2, make_cudaExtent(4, 3, 2), stream));
  OK(cudaStreamSynchronize(stream));
  OK(cudaMemcpy(out, p, BYTES, cudaMemcpyDeviceToHost));
  for (int i = 0; i < BYTES; ++i) {
    int expected = 0xff;
    if (i >= 10 && (i - 10) / 100 < 30 && (i - 10) % 100 < 20) expected = 1;
    if (i / 128 < 2 && i % 128 / 16 < 3 && i % 16 < 4) expected = 2;
    cr_expect(eq(int, out[i], expected), "%d", i);
  }
}

SIM_TEST(fill, with_zero_of_large_memory) {
  size_t bytes = 9 * MIB + 12345;
  unsigned char* out = malloc(bytes);
  char* p = new_device_memory(bytes);
  OK(cudaMemset(p, 5, bytes));
  OK(cudaMemset(p + 777, 0, bytes - 1000));
  OK(cudaMemcpy(out, p, bytes, cudaMemcpyDeviceToHost));
  for (size_t i = 0; i < bytes; ++i) {
    if (out[i] != (i < 777 || i >= bytes - 223 ? 5 : 0)) cr_fatal("byte %zu is %d", i, out[i]);
  }
  free(out);
}

Test(copy, between_devices) {
  make_machine((cudasim_options){.devices = 3, .schedule = "threads"});
  enum { BYTES = 10000 };
  unsigned char host[BYTES];
  void* p[3];
  for (int id = 0; id < 3; ++id) {
    OK(cudaSetDevice(id));
    p[id] = new_device_memory(BYTES);
  }
  fill_pattern(host, BYTES, 9);
  OK(cudaMemcpy(p[0], host, BYTES, cudaMemcpyHostToDevice));
  OK(cudaMemcpyPeer(p[1], 1, p[0], 0, BYTES));
  cudaStream_t stream = new_stream(0);
  OK(cudaSetDevice(1));
  OK(cudaDeviceSynchronize());
  OK(cudaMemcpyPeerAsync(p[2], 2, p[1], 1, BYTES, stream));
  OK(cudaStreamSynchronize(stream));
  memset(host, 0, BYTES);
  OK(cudaMemcpy(host, p[2], BYTES, cudaMemcpyDefault));
  cr_expect(eq(sz, first_difference(host, BYTES, 9), BYTES));
  struct cudaMemcpy3DPeerParms box = {.srcPtr = make_cudaPitchedPtr(p[2], 100, 100, 10),
                                      .srcDevice = 2,
                                      .dstPtr = make_cudaPitchedPtr(p[0], 100, 100, 10),
                                      .dstPos = make_cudaPos(50, 0, 0),
                                      .dstDevice = 0,
                                      .extent = make_cudaExtent(50, 10, 10)};
  OK(cudaMemcpy3DPeer(&box));
  OK(cudaMemcpy3DPeerAsync(&box, stream));
  OK(cudaStreamSynchronize(stream));
  OK(cudaMemcpy(host, p[0], BYTES, cudaMemcpyDefault));
  for (int i = 0; i < BYTES; ++i) {
    size_t from = i % 100 < 50 ? (size_t)i : (size_t)i - 50;
    cr_expect(eq(int, host[i], pattern(from, 9)), "%d", i);
  }
  REFUSED(cudaMemcpyPeer(p[1], 1, p[0], 3, 1), cudaErrorInvalidDevice);
  REFUSED(cudaMemcpyPeer(p[1], 2, p[0], 0, 1), cudaErrorInvalidValue);
}

THREADS_TEST(copy, between_peers_is_in_order_on_both_devices) {
  cudasim_reset();
  make_machine((cudasim_options){.devices = 2, .schedule = "threads"});
  gate g = CLOSED_GATE;
  void* p = new_device_memory(16);
  OK(cudaSetDevice(1));
  cudaStream_t there = new_stream(0);
  void* q = new_device_memory(16);
  close_gate(&g, there);
  OK(cudaMemsetAsync(q, 7, 16, there));
  OK(cudaSetDevice(0));
  OK(cudaMemcpyPeer(p, 0, q, 1, 16));
  OK(cudaMemsetAsync(q, 8, 16, there));
  REFUSED(cudaStreamQuery(0), cudaErrorNotReady);
  open_gate(&g);
  unsigned char seen;
  OK(cudaMemcpy(&seen, p, 1, cudaMemcpyDeviceToHost));
  cr_expect(eq(int, seen, 7));
  OK(cudaStreamSynchronize(there));
}

//===-- Who waits -----------------------------------------------------------------------------===//

THREADS_TEST(copy, pageable_sources_can_be_reused_at_once) {
  gate g = CLOSED_GATE;
  cudaStream_t stream = new_stream(0);
  unsigned char source[1000];
  unsigned char seen[1000];
  char* p = new_device_memory((size_t)100 * 1000);
  close_gate(&g, stream);
  for (size_t i = 0; i < 100; ++i) {
    fill_pattern(source, 1000, (unsigned)i);
    OK(cudaMemcpyAsync(p + 1000 * i, source, 1000, cudaMemcpyHostToDevice, stream));
  }
  OK(cudaMemcpy2DAsync(p, 100, source, 10, 10, 2, cudaMemcpyHostToDevice, stream));
  memset(source, 0, 1000);
  REFUSED(cudaStreamQuery(stream), cudaErrorNotReady);
  open_gate(&g);
  OK(cudaStreamSynchronize(stream));
  for (size_t i = 1; i < 100; ++i) {
    OK(cudaMemcpy(seen, p + 1000 * i, 1000, cudaMemcpyDeviceToHost));
    cr_expect(eq(sz, first_difference(seen, 1000, (unsigned)i), 1000));
  }
  OK(cudaMemcpy(seen, p + 100, 10, cudaMemcpyDeviceToHost));
  for (size_t i = 0; i < 10; ++i) cr_expect(eq(int, seen[i], pattern(i + 10, 99)));
}

// What follows in a stream that does not wait for the legacy one may be before it.
THREADS_TEST(copy, from_pageable_memory_returns_before_the_data_is_there) {
  size_t large = 128 * MIB;
  char* busy = new_device_memory(2 * large);
  unsigned char* p = (unsigned char*)new_device_memory(1000);
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  unsigned char source[1000];
  unsigned char seen[1000];
  int pending = 0;
  for (unsigned i = 0; i < 20 && pending == 0; ++i) {
    OK(cudaMemcpyAsync(busy, busy + large, large, cudaMemcpyDefault, stream));
    fill_pattern(source, 1000, i);
    OK(cudaMemcpy(p, source, 1000, cudaMemcpyHostToDevice));
    pending += cudaStreamQuery(cudaStreamLegacy) == cudaErrorNotReady;
    memset(source, 0, 1000);
    OK(cudaMemcpy(seen, p, 1000, cudaMemcpyDeviceToHost));
    cr_expect(eq(sz, first_difference(seen, 1000, i), 1000));
    OK(cudaDeviceSynchronize());
  }
  cr_expect(pending > 0);
}

typedef struct delayed {
  gate* gate;
  bool is_open;
} delayed;

static void* open_later(void* argument) {
  delayed* d = argument;
  nanosleep(&(struct timespec){.tv_nsec = 30000000}, NULL);
  __atomic_store_n(&d->is_open, true, __ATOMIC_SEQ_CST);
  open_gate(d->gate);
  return NULL;
}

typedef struct transfer {
  void* to;
  const void* from;
  size_t bytes;
  bool is_async;
} transfer;

// Whether a copy returns only after the work before it.
static bool waits(transfer t) {
  gate g = CLOSED_GATE;
  delayed d = {&g, false};
  cudaStream_t stream = new_stream(0);
  close_gate(&g, stream);
  pthread_t thread;
  cr_assert(eq(int, pthread_create(&thread, NULL, open_later, &d), 0));
  if (t.is_async) {
    OK(cudaMemcpyAsync(t.to, t.from, t.bytes, cudaMemcpyDefault, stream));
  } else {
    OK(cudaMemcpy(t.to, t.from, t.bytes, cudaMemcpyDefault));
  }
  bool waited = __atomic_load_n(&d.is_open, __ATOMIC_SEQ_CST);
  pthread_join(thread, NULL);
  OK(cudaDeviceSynchronize());
  OK(cudaStreamDestroy(stream));
  return waited;
}

THREADS_TEST(copy, waits_where_the_real_one_does) {
  size_t large = 4 * MIB;
  char* device = new_device_memory(2 * large);
  char* pinned = (char*)new_pinned_memory(2 * large);
  char* pageable = calloc(2, large);
  cr_expect(not(waits((transfer){device, pinned, large, true})));
  cr_expect(not(waits((transfer){pinned, device, large, true})));
  cr_expect(not(waits((transfer){device, device + large, large, true})));
  cr_expect(not(waits((transfer){device, pageable, 1000, true})));
  cr_expect(waits((transfer){device, pageable, large, true}));
  cr_expect(waits((transfer){pageable, device, 1, true}));
  cr_expect(waits((transfer){pinned, pinned + large, 1, true}));
  cr_expect(waits((transfer){pageable, pageable + large, 1, true}));
  cr_expect(waits((transfer){device, pinned, 1, false}));
  cr_expect(waits((transfer){pinned, device, 1, false}));
  cr_expect(waits((transfer){device, pageable, 1, false}));
  cr_expect(not(waits((transfer){device, device + large, large, false})));
  free(pageable);
}

THREADS_TEST(fill, waits_for_pinned_memory_only) {
  gate g = CLOSED_GATE;
  delayed d = {&g, false};
  unsigned char* pinned = new_pinned_memory(16);
  memset(pinned, 0, 16);
  void* p = new_device_memory(16);
  cudaStream_t stream = new_stream(0);
  close_gate(&g, stream);
  OK(cudaMemset(p, 1, 16));
  OK(cudaMemsetAsync(pinned, 1, 16, stream));
  cr_expect(eq(int, pinned[0], 0));
  pthread_t thread;
  cr_assert(eq(int, pthread_create(&thread, NULL, open_later, &d), 0));
  OK(cudaMemset(pinned, 2, 16));
  cr_expect(__atomic_load_n(&d.is_open, __ATOMIC_SEQ_CST));
  cr_expect(eq(int, pinned[15], 2));
  pthread_join(thread, NULL);
}

//===-- Refusals ------------------------------------------------------------------------------===//

SIM_TEST(copy, out_of_bounds_is_refused_at_the_call) {
  char* p = new_device_memory(1000);
  void* q;
  OK(cudaMallocAsync(&q, 1000, 0));
  char* h = (char*)new_pinned_memory(1000);
  char* host = calloc(1, 4096);
  REFUSED(cudaMemcpy(p, host, 1001, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  REFUSED(cudaMemcpy(p + 1, host, 1000, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  REFUSED(cudaMemcpy(host, q, 1001, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
  REFUSED(cudaMemcpy(host, p - 1, 1, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
  REFUSED(cudaMemcpy(p, h, 1001, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  REFUSED(cudaMemcpy(p, host, SIZE_MAX, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  REFUSED(cudaMemset(p, 0, 1001), cudaErrorInvalidValue);
  OK(cudaMemcpy(p + 1000, host, 0, cudaMemcpyHostToDevice));
  free(host);
}

SIM_TEST(copy, boxes_out_of_bounds_are_refused) {
  char host[2000] = {0};
  char* p = new_device_memory(1000);
  REFUSED(cudaMemcpy2D(p, 100, host, 100, 100, 11, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  OK(cudaMemcpy2D(p, 100, host, 100, 50, 10, cudaMemcpyHostToDevice));
  OK(cudaMemcpy2D(p + 50, 100, host, 100, 50, 10, cudaMemcpyHostToDevice));
  REFUSED(cudaMemcpy2D(p + 51, 100, host, 100, 50, 10, cudaMemcpyHostToDevice),
          cudaErrorInvalidValue);
  REFUSED(cudaMemset2D(p, SIZE_MAX / 2, 0, 1, 5), cudaErrorInvalidValue);
}

SIM_TEST(copy, of_freed_memory_is_refused) {
  char host[16] = {0};
  void* p = new_device_memory(16);
  void* q;
  OK(cudaMallocAsync(&q, 16, 0));
  OK(cudaFree(p));
  REFUSED(cudaMemcpy(p, host, 1, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  OK(cudaFreeAsync(q, 0));
  REFUSED(cudaMemsetAsync(q, 0, 1, 0), cudaErrorInvalidValue);
}

SIM_TEST(copy, kinds_are_checked_as_the_real_one_does) {
  char* p = new_device_memory(2000);
  char* h = (char*)new_pinned_memory(2000);
  char host[2000] = {0};
  REFUSED(cudaMemcpy(p, host, 1, cudaMemcpyDeviceToDevice), cudaErrorInvalidValue);
  REFUSED(cudaMemcpy(host, p, 1, cudaMemcpyDeviceToDevice), cudaErrorInvalidValue);
  REFUSED(cudaMemcpy(host, p, 1, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  REFUSED(cudaMemcpy(p, host, 1, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
  REFUSED(cudaMemcpy(host, host + 9, 1, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  OK(cudaMemcpy(p, p + 9, 1, cudaMemcpyHostToDevice));
  OK(cudaMemcpy(p, h, 1, cudaMemcpyDeviceToDevice));
  OK(cudaMemcpy(h, p, 1, cudaMemcpyDeviceToDevice));
  REFUSED(cudaMemcpy(p, host, 1, (enum cudaMemcpyKind)7), cudaErrorInvalidMemcpyDirection);
  REFUSED(cudaMemcpyAsync(p, h, 1, (enum cudaMemcpyKind) - 1, 0), cudaErrorInvalidMemcpyDirection);
  REFUSED(cudaMemcpy(p, NULL, 1, cudaMemcpyDefault), cudaErrorInvalidValue);
  REFUSED(cudaMemcpy(NULL, p, 1, cudaMemcpyDefault), cudaErrorInvalidValue);
  OK(cudaMemcpy(NULL, NULL, 0, cudaMemcpyDefault));
  REFUSED(cudaMemset(host, 0, 1), cudaErrorInvalidValue);
  REFUSED(cudaMemset(NULL, 0, 1), cudaErrorInvalidValue);
  OK(cudaMemset(NULL, 0, 0));
}

SIM_TEST(copy, wrong_shapes_are_refused) {
  char host[4096] = {0};
  char* p = new_device_memory(4096);
  REFUSED(cudaMemcpy2D(p, 99, host, 100, 100, 4, cudaMemcpyHostToDevice),
          cudaErrorInvalidPitchValue);
  REFUSED(cudaMemcpy2D(p, 100, host, 99, 100, 4, cudaMemcpyHostToDevice),
          cudaErrorInvalidPitchValue);
  REFUSED(cudaMemcpy2D(p, (size_t)1 << 40, host, 100, 100, 2, cudaMemcpyHostToDevice),
          cudaErrorInvalidValue);
  REFUSED(cudaMemset2D(p, 50, 0, 100, 10), cudaErrorInvalidValue);
  OK(cudaMemset2D(p, 50, 0, 100, 1));
  OK(cudaMemcpy2D(p, 100, host, 100, 0, 4, cudaMemcpyHostToDevice));
  OK(cudaMemcpy2D(p, 100, host, 100, 4, 0, cudaMemcpyHostToDevice));
  REFUSED(cudaMemcpy3D(NULL), cudaErrorInvalidValue);
  struct cudaMemcpy3DParms parms = {.srcPtr = make_cudaPitchedPtr(host, 100, 100, 5),
                                    .dstPtr = make_cudaPitchedPtr(p, 100, 100, 5),
                                    .extent = make_cudaExtent(100, 5, 2),
                                    .kind = cudaMemcpyHostToDevice};
  OK(cudaMemcpy3D(&parms));
  parms.extent.width = 101;
  REFUSED(cudaMemcpy3D(&parms), cudaErrorInvalidPitchValue);
  parms.extent = make_cudaExtent(100, 6, 2);
  REFUSED(cudaMemcpy3D(&parms), cudaErrorInvalidPitchValue);
  parms.extent = make_cudaExtent(100, 5, 9);
  REFUSED(cudaMemcpy3D(&parms), cudaErrorInvalidValue);
  parms.extent = make_cudaExtent(100, 5, 0);
  OK(cudaMemcpy3D(&parms));
  parms.extent = make_cudaExtent(100, 5, 2);
  parms.srcPos.z = SIZE_MAX / 3;
  REFUSED(cudaMemcpy3D(&parms), cudaErrorInvalidValue);
  parms.srcPos.z = 0;
  parms.srcPtr.ptr = NULL;
  REFUSED(cudaMemcpy3D(&parms), cudaErrorInvalidValue);
  parms.srcArray = (cudaArray_t)(uintptr_t)64;
  REFUSED(cudaMemcpy3D(&parms), cudaErrorNotSupported);
}

THREADS_TEST(copy, into_memory_that_is_freed_meanwhile_is_no_crash) {
  gate g = CLOSED_GATE;
  cudaStream_t a = new_stream(cudaStreamNonBlocking);
  cudaStream_t b = new_stream(cudaStreamNonBlocking);
  void* p;
  OK(cudaMallocAsync(&p, 64 * MIB, a));
  close_gate(&g, a);
  OK(cudaMemsetAsync(p, 1, 64 * MIB, a));
  OK(cudaFreeAsync(p, b));  // not ordered behind the fill
  OK(cudaStreamSynchronize(b));
  cudaMemPool_t pool;
  OK(cudaDeviceGetDefaultMemPool(&pool, 0));
  OK(cudaMemPoolTrimTo(pool, 0));
  open_gate(&g);
  OK(cudaStreamSynchronize(a));
  OK(cudaMallocAsync(&p, 64 * MIB, a));
  OK(cudaStreamSynchronize(a));
}

//===-- Batches -------------------------------------------------------------------------------===//

typedef struct batch {
  void* to[3];
  const void* from[3];
  size_t sizes[3];
  struct cudaMemcpyAttributes attributes[2];
  size_t firsts[2];
} batch;

static cudaError_t run_batch(batch* b, size_t count, size_t attributes, cudaStream_t stream) {
  return cudaMemcpyBatchAsync(b->to, b->from, b->sizes, count, b->attributes, b->firsts, attributes,
                              stream);
}

SIM_TEST(batch, copies_all_pieces) {
  cudaStream_t stream = new_stream(0);
  char* p = new_device_memory(300);
  unsigned char* pinned = new_pinned_memory(100);
  unsigned char pageable[100];
  unsigned char seen[300];
  fill_pattern(pinned, 100, 1);
  fill_pattern(pageable, 100, 2);
  OK(cudaMemset(p + 200, 3, 100));
  OK(cudaStreamSynchronize(0));
  batch b = {.to = {p, p + 100, seen + 200},
             .from = {pinned, pageable, p + 200},
             .sizes = {100, 100, 100},
             .attributes = {{.srcAccessOrder = cudaMemcpySrcAccessOrderStream},
                            {.srcAccessOrder = cudaMemcpySrcAccessOrderDuringApiCall}},
             .firsts = {0, 1}};
  OK(run_batch(&b, 3, 2, stream));
  memset(pageable, 0, 100);
  OK(cudaStreamSynchronize(stream));
  OK(cudaMemcpy(seen, p, 200, cudaMemcpyDeviceToHost));
  cr_expect(eq(sz, first_difference(seen, 100, 1), 100));
  cr_expect(eq(sz, first_difference(seen + 100, 100, 2), 100));
  cr_expect(eq(int, seen[299], 3));
}

static batch make_batch(char* to, const unsigned char* from) {
  return (batch){.to = {to, to + 100, to + 200},
                 .from = {from, from + 100, from + 200},
                 .sizes = {100, 100, 100},
                 .attributes = {{.srcAccessOrder = cudaMemcpySrcAccessOrderStream},
                                {.srcAccessOrder = cudaMemcpySrcAccessOrderAny}},
                 .firsts = {0, 2}};
}

// A chain in one batch is the program's mistake, which shows: each piece copies what the one before
// it has written.
SIM_TEST(batch, has_no_order_of_its_own) {
  enum { PIECES = 3, CALLS = 64 };
  cudaStream_t stream = new_stream(0);
  char* p = new_device_memory(400);
  bool seen_in_order = false;
  bool seen_otherwise = false;
  for (int call = 0; call < CALLS; ++call) {
    unsigned char seen[400];
    OK(cudaMemsetAsync(p, 0, 400, stream));
    OK(cudaMemsetAsync(p, 1, 100, stream));
    batch b = {.to = {p + 100, p + 200, p + 300},
               .from = {p, p + 100, p + 200},
               .sizes = {100, 100, 100},
               .attributes = {{.srcAccessOrder = cudaMemcpySrcAccessOrderStream}},
               .firsts = {0}};
    OK(run_batch(&b, PIECES, 1, stream));
    OK(cudaStreamSynchronize(stream));
    OK(cudaMemcpy(seen, p, 400, cudaMemcpyDeviceToHost));
    cr_expect(eq(int, seen[100], 1));
    seen_in_order |= seen[300] == 1;
    seen_otherwise |= seen[300] == 0;
  }
  cr_expect(seen_in_order);
  cr_expect(seen_otherwise);
}

// Pageable memory is read before the call returns only where the program has said so.
THREADS_TEST(batch, reads_pageable_memory_when_it_was_told_to) {
  cudaStream_t stream = new_stream(0);
  char* p = new_device_memory(200);
  unsigned char pageable[200];
  unsigned char seen[200];
  gate g = CLOSED_GATE;
  memset(pageable, 1, 200);
  close_gate(&g, stream);
  batch b = {.to = {p, p + 100},
             .from = {pageable, pageable + 100},
             .sizes = {100, 100},
             .attributes = {{.srcAccessOrder = cudaMemcpySrcAccessOrderDuringApiCall},
                            {.srcAccessOrder = cudaMemcpySrcAccessOrderStream}},
             .firsts = {0, 1}};
  OK(run_batch(&b, 2, 2, stream));
  memset(pageable, 2, 200);
  open_gate(&g);
  OK(cudaStreamSynchronize(stream));
  OK(cudaMemcpy(seen, p, 200, cudaMemcpyDeviceToHost));
  cr_expect(eq(int, seen[99], 1));
  cr_expect(eq(int, seen[199], 2));
}

// As drivers do. Nor do copies to pageable memory wait.
THREADS_TEST(batch, reads_much_pageable_memory_later_whatever_it_was_told) {
  enum { MOST = 65536, SIZE = 2 * MOST + 1 };
  static unsigned char pageable[SIZE];
  static unsigned char seen[SIZE];
  cudaStream_t stream = new_stream(0);
  char* p = new_device_memory(SIZE);
  gate g = CLOSED_GATE;
  memset(pageable, 1, SIZE);
  close_gate(&g, stream);
  batch b = {.to = {p, p + MOST},
             .from = {pageable, pageable + MOST},
             .sizes = {MOST, MOST + 1},
             .attributes = {{.srcAccessOrder = cudaMemcpySrcAccessOrderDuringApiCall}},
             .firsts = {0}};
  OK(run_batch(&b, 2, 1, stream));
  memset(pageable, 2, SIZE);
  open_gate(&g);
  OK(cudaStreamSynchronize(stream));
  OK(cudaMemcpy(seen, p, SIZE, cudaMemcpyDeviceToHost));
  cr_expect(eq(int, seen[MOST - 1], 1));
  cr_expect(eq(int, seen[MOST], 2));
}

SIM_TEST(batch, is_not_for_the_legacy_stream) {
  batch b = make_batch(new_device_memory(300), new_pinned_memory(300));
  REFUSED(run_batch(&b, 3, 2, 0), cudaErrorInvalidValue);
  REFUSED(run_batch(&b, 3, 2, cudaStreamLegacy), cudaErrorInvalidValue);
  OK(run_batch(&b, 3, 2, cudaStreamPerThread));
  OK(cudaStreamSynchronize(cudaStreamPerThread));
}

SIM_TEST(batch, attributes_are_checked) {
  cudaStream_t stream = new_stream(0);
  const batch good = make_batch(new_device_memory(300), new_pinned_memory(300));
  batch b = good;
  REFUSED(run_batch(&b, 0, 2, stream), cudaErrorInvalidValue);
  REFUSED(run_batch(&b, 3, 0, stream), cudaErrorInvalidValue);
  REFUSED(run_batch(&b, 1, 2, stream), cudaErrorInvalidValue);
  REFUSED(run_batch(&b, 2, 2, stream), cudaErrorInvalidValue);
  REFUSED(cudaMemcpyBatchAsync(b.to, b.from, b.sizes, 3, NULL, NULL, 0, stream),
          cudaErrorInvalidValue);
  b.firsts[0] = 1;
  REFUSED(run_batch(&b, 3, 2, stream), cudaErrorInvalidValue);
  b = good;
  b.attributes[1].srcAccessOrder = cudaMemcpySrcAccessOrderInvalid;
  REFUSED(run_batch(&b, 3, 2, stream), cudaErrorInvalidValue);
  b = good;
  b.attributes[0].flags = 16;
  REFUSED(run_batch(&b, 3, 2, stream), cudaErrorInvalidValue);
}

SIM_TEST(batch, is_refused_as_a_whole) {
  cudaStream_t stream = new_stream(0);
  char* p = new_device_memory(300);
  unsigned char* h = new_pinned_memory(300);
  memset(h, 1, 300);
  OK(cudaMemset(p, 0, 300));
  OK(cudaDeviceSynchronize());
  batch b = make_batch(p, h);
  b.sizes[2] = 101;
  REFUSED(run_batch(&b, 3, 2, stream), cudaErrorInvalidValue);
  b.sizes[2] = 0;
  REFUSED(run_batch(&b, 3, 2, stream), cudaErrorInvalidValue);
  OK(cudaStreamSynchronize(stream));
  unsigned char seen[300];
  OK(cudaMemcpy(seen, p, 300, cudaMemcpyDeviceToHost));
  for (int i = 0; i < 300; ++i) cr_expect(eq(int, seen[i], 0));
}
