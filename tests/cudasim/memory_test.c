// Device memory and page-locked host memory: limits, granules, who may touch what, questions.

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cudasim/support.h"

//===-- cudaMalloc ----------------------------------------------------------------------------===//

SIM_TEST(malloc, small_ones_share_granules) {
  size_t before = free_memory();
  void* first = new_device_memory(1);
  cr_expect(eq(sz, before - free_memory(), 2 * MIB));
  cr_expect(eq(sz, (uintptr_t)first % 512, 0));
  void* second = new_device_memory(513);
  cr_expect(eq(ptr, second, (char*)first + 512));
  void* third = new_device_memory(1 * MIB);
  cr_expect(eq(ptr, third, (char*)second + 1024));
  cr_expect(eq(sz, before - free_memory(), 2 * MIB));
  void* fourth = new_device_memory(1 * MIB);  // does not fit there
  cr_expect(eq(sz, before - free_memory(), 4 * MIB));
  OK(cudaFree(first));
  OK(cudaFree(third));
  OK(cudaFree(fourth));
  cr_expect(eq(sz, before - free_memory(), 2 * MIB));
  OK(cudaFree(second));
  cr_expect(eq(sz, free_memory(), before));
}

SIM_TEST(malloc, large_ones_have_their_own) {
  size_t before = free_memory();
  const size_t sizes[] = {2 * MIB, 2 * MIB + 1, 3 * MIB, 10 * MIB, 33 * MIB + 1};
  const size_t taken[] = {2 * MIB, 4 * MIB, 4 * MIB, 10 * MIB, 34 * MIB};
  for (int i = 0; i < 5; ++i) {
    void* p = new_device_memory(sizes[i]);
    cr_expect(eq(sz, before - free_memory(), taken[i]), "%zu bytes", sizes[i]);
    cr_expect(eq(sz, (uintptr_t)p % (2 * MIB), 0));
    OK(cudaFree(p));
  }
  cr_expect(eq(sz, free_memory(), before));
}

SIM_TEST(malloc, nothing_is_nothing) {
  void* p = &p;
  OK(cudaMalloc(&p, 0));
  cr_expect(eq(ptr, p, NULL));
  OK(cudaFree(NULL));
  REFUSED(cudaMalloc(NULL, 1), cudaErrorInvalidValue);
}

SIM_TEST(malloc, ends_at_the_limit_and_goes_on_after_a_free) {
  enum { BLOCKS = 64 };
  void* blocks[BLOCKS];
  for (int i = 0; i < BLOCKS; ++i) blocks[i] = new_device_memory(16 * MIB);
  cr_expect(eq(sz, free_memory(), 0));
  void* p = &p;
  REFUSED(cudaMalloc(&p, 1), cudaErrorMemoryAllocation);
  cr_expect(eq(ptr, p, NULL));
  REFUSED(cudaMalloc(&p, SIZE_MAX), cudaErrorMemoryAllocation);
  REFUSED(cudaMallocAsync(&p, 1, 0), cudaErrorMemoryAllocation);
  cr_expect(eq(int, cudaGetLastError(), cudaErrorMemoryAllocation));
  cr_expect(eq(int, cudaGetLastError(), cudaSuccess));
  OK(cudaFree(blocks[7]));
  OK(cudaMalloc(&p, 16 * MIB));
}

SIM_TEST(malloc, scattered_free_granules_serve_a_large_request) {
  enum { BLOCKS = 64 };
  void* blocks[BLOCKS];
  for (int i = 0; i < BLOCKS; ++i) blocks[i] = new_device_memory(16 * MIB);
  for (int i = 0; i < BLOCKS; i += 2) OK(cudaFree(blocks[i]));
  OK(cudaFree(new_device_memory(512 * MIB)));
}

SIM_TEST(malloc, pitch_is_a_multiple_of_512) {
  const size_t widths[] = {1, 512, 513, 5000};
  const size_t pitches[] = {512, 512, 1024, 5120};
  for (int i = 0; i < 4; ++i) {
    void* p;
    size_t pitch = 0;
    OK(cudaMallocPitch(&p, &pitch, widths[i], 3));
    cr_expect(eq(sz, pitch, pitches[i]));
    OK(cudaMemset2D(p, pitch, 1, pitch, 3));
    struct cudaPitchedPtr box;
    OK(cudaMalloc3D(&box, make_cudaExtent(widths[i], 3, 4)));
    cr_expect(eq(sz, box.pitch, pitches[i]));
    cr_expect(eq(sz, box.ysize, 3));
    OK(cudaMemset3D(box, 1, make_cudaExtent(widths[i], 3, 4)));
  }
  void* p;
  size_t pitch;
  REFUSED(cudaMallocPitch(&p, &pitch, SIZE_MAX, 2), cudaErrorMemoryAllocation);
}

SIM_TEST(free_memory, of_what_was_not_allocated_is_refused) {
  char* p = new_device_memory(4096);
  char host[16];
  REFUSED(cudaFree(p + 1), cudaErrorInvalidValue);
  REFUSED(cudaFree(p + 512), cudaErrorInvalidValue);
  REFUSED(cudaFree(host), cudaErrorInvalidValue);
  REFUSED(cudaFree(new_pinned_memory(16)), cudaErrorInvalidValue);
  REFUSED(cudaFreeAsync(p + 8, 0), cudaErrorInvalidValue);
  REFUSED(cudaFreeAsync(host, 0), cudaErrorInvalidValue);
  OK(cudaFree(p));
  REFUSED(cudaFree(p), cudaErrorInvalidValue);
}

typedef struct opener {
  gate* gate;
  bool* opened;
} opener;

static void* open_after_50_ms(void* argument) {
  opener* o = argument;
  nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
  __atomic_store_n(o->opened, true, __ATOMIC_SEQ_CST);
  open_gate(o->gate);
  return NULL;
}

// What is called while a stream is held up, and whether it has to wait for that.
static bool waits_for_the_device(cudaError_t (*call)(void* p), void* p) {
  gate g = CLOSED_GATE;
  bool opened = false;
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  close_gate(&g, stream);
  pthread_t thread;
  opener o = {&g, &opened};
  cr_assert(eq(int, pthread_create(&thread, NULL, open_after_50_ms, &o), 0));
  cr_expect(eq(int, call(p), cudaSuccess));
  bool waited = __atomic_load_n(&opened, __ATOMIC_SEQ_CST);
  pthread_join(thread, NULL);
  OK(cudaStreamSynchronize(stream));
  return waited;
}

static cudaError_t allocate(void* out) { return cudaMalloc(out, 4 * MIB); }

static cudaError_t allocate_pinned(void* out) { return cudaMallocHost(out, 4096); }

THREADS_TEST(free_memory, waits_for_the_device_where_the_real_one_does) {
  void* p;
  cr_expect(not(waits_for_the_device(allocate, &p)));
  cr_expect(waits_for_the_device(cudaFree, p));
  OK(cudaMallocAsync(&p, 16, cudaStreamPerThread));
  cr_expect(not(waits_for_the_device(cudaFree, p)), "what cudaMallocAsync made");
  cr_expect(not(waits_for_the_device(allocate_pinned, &p)));
  cr_expect(waits_for_the_device(cudaFreeHost, p));
}

THREADS_TEST(free_memory, of_cudaMalloc_can_be_stream_ordered) {
  gate g = CLOSED_GATE;
  size_t before = free_memory();
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  void* p = new_device_memory(8 * MIB);
  close_gate(&g, stream);
  OK(cudaMemsetAsync(p, 1, 8 * MIB, stream));
  OK(cudaFreeAsync(p, stream));
  REFUSED(cudaFree(p), cudaErrorInvalidValue);
  cr_expect(eq(sz, before - free_memory(), 8 * MIB));
  open_gate(&g);
  OK(cudaStreamSynchronize(stream));
  cr_expect(eq(sz, free_memory(), before));
}

SIM_TEST(free_memory, random_order_returns_everything) {
  enum { BLOCKS = 2000 };
  static void* blocks[BLOCKS];
  size_t before = free_memory();
  unsigned seed = 1;
  for (int i = 0; i < 20000; ++i) {
    seed = seed * 1103515245u + 12345u;
    unsigned k = (seed >> 8) % BLOCKS;
    size_t size = (seed >> 4) % 7 ? (seed >> 12) % 5000 + 1 : (seed >> 12) % (3 * MIB) + 1;
    if (blocks[k]) {
      OK(cudaFree(blocks[k]));
      blocks[k] = NULL;
    } else if (cudaMalloc(&blocks[k], size)) {
      cr_expect(eq(int, cudaGetLastError(), cudaErrorMemoryAllocation));
    }
  }
  for (int i = 0; i < BLOCKS; ++i) OK(cudaFree(blocks[i]));
  cr_expect(eq(sz, free_memory(), before));
}

//===-- Protection ----------------------------------------------------------------------------===//

// Lets a wrong access end the process by SIGSEGV under a sanitizer as well.
static void drop_signal_handler(void) { cr_assert(signal(SIGSEGV, SIG_DFL) != SIG_ERR); }

Test(protection, the_host_cannot_read_device_memory, .signal = SIGSEGV) {
  make_machine((cudasim_options){.schedule = "threads"});
  volatile char* p = new_device_memory(4096);
  OK(cudaMemset((void*)(uintptr_t)p, 0, 4096));
  OK(cudaDeviceSynchronize());
  drop_signal_handler();
  (void)p[17];
}

Test(protection, the_host_cannot_write_pool_memory, .signal = SIGSEGV) {
  make_machine((cudasim_options){.schedule = "eager"});
  void* p;
  OK(cudaMallocAsync(&p, 4096, 0));
  OK(cudaStreamSynchronize(0));
  drop_signal_handler();
  *(volatile char*)p = 1;
}

Test(protection, a_handle_cannot_be_followed, .signal = SIGSEGV) {
  make_machine((cudasim_options){.schedule = "eager"});
  drop_signal_handler();
  (void)*(volatile char*)new_stream(0);
}

// What the simulated devices have in host memory now.
static size_t resident_bytes(void) {
  char line[512];
  size_t total = 0;
  bool is_device = false;
  FILE* file = fopen("/proc/self/smaps", "r");
  cr_assert(file != NULL);
  while (fgets(line, sizeof(line), file)) {
    if (strchr(line, '-') && strstr(line, " 00:")) is_device = strstr(line, "/memfd:cudasim");
    if (is_device && strncmp(line, "Rss:", 4) == 0) total += strtoul(line + 4, NULL, 10) * 1024;
  }
  fclose(file);
  return total;
}

Test(protection, memory_costs_nothing_until_it_is_written) {
  make_machine((cudasim_options){.memory = "80GiB", .schedule = "eager"});
  void* p = new_device_memory(70 * GIB);
  OK(cudaMemset(p, 0, 70 * GIB));
  cr_expect(eq(sz, resident_bytes(), 0));
  OK(cudaMemset((char*)p + 69 * GIB, 1, 200 * MIB));
  cr_expect(eq(sz, resident_bytes(), 200 * MIB));
  OK(cudaFree(p));
  cr_expect(eq(sz, resident_bytes(), 0));
  p = new_device_memory(70 * GIB);
  unsigned char seen = 9;
  OK(cudaMemcpy(&seen, (char*)p + 69 * GIB, 1, cudaMemcpyDeviceToHost));
  cr_expect(eq(int, seen, 0), "a page that was returned is new");
}

//===-- Host memory ---------------------------------------------------------------------------===//

SIM_TEST(host_memory, is_page_aligned_and_has_flags) {
  void* p;
  OK(cudaHostAlloc(&p, 100, cudaHostAllocPortable));
  cr_expect(eq(sz, (uintptr_t)p % 4096, 0));
  memset(p, 1, 100);
  unsigned flags = 0;
  OK(cudaHostGetFlags(&flags, p));
  cr_expect(eq(uint, flags, cudaHostAllocPortable | cudaHostAllocMapped));
  void* seen = NULL;
  OK(cudaHostGetDevicePointer(&seen, p, 0));
  cr_expect(eq(ptr, seen, p));
  OK(cudaFreeHost(p));
  OK(cudaHostAlloc(&p, 0, 0));
  cr_expect(eq(ptr, p, NULL));
  OK(cudaFreeHost(NULL));
  REFUSED(cudaHostAlloc(&p, 1, 0x100), cudaErrorInvalidValue);
  REFUSED(cudaHostAlloc(NULL, 1, 0), cudaErrorInvalidValue);
  REFUSED(cudaHostAlloc(&p, (size_t)1 << 60, 0), cudaErrorMemoryAllocation);
}

SIM_TEST(host_memory, wrong_frees_are_refused) {
  char* p = (char*)new_pinned_memory(4096);
  char* q = malloc(4096);
  REFUSED(cudaFreeHost(p + 8), cudaErrorInvalidValue);
  REFUSED(cudaFreeHost(q), cudaErrorInvalidValue);
  REFUSED(cudaFreeHost(new_device_memory(16)), cudaErrorInvalidValue);
  OK(cudaHostRegister(q, 4096, 0));
  REFUSED(cudaFreeHost(q), cudaErrorInvalidValue);
  OK(cudaHostUnregister(q));
  OK(cudaFreeHost(p));
  REFUSED(cudaFreeHost(p), cudaErrorInvalidValue);
  free(q);
}

SIM_TEST(host_memory, registration) {
  static char memory[65536];
  OK(cudaHostRegister(memory + 4096, 8192, 0));
  REFUSED(cudaHostRegister(memory + 4096, 100, 0), cudaErrorHostMemoryAlreadyRegistered);
  REFUSED(cudaHostRegister(memory, 5000, 0), cudaErrorHostMemoryAlreadyRegistered);
  OK(cudaHostRegister(memory + 13, 100, cudaHostRegisterPortable));
  REFUSED(cudaHostUnregister(memory + 5000), cudaErrorInvalidValue);
  OK(cudaHostUnregister(memory + 4096));
  REFUSED(cudaHostUnregister(memory + 4096), cudaErrorHostMemoryNotRegistered);
  OK(cudaHostUnregister(memory + 13));
  void* pinned = new_pinned_memory(100);
  REFUSED(cudaHostUnregister(pinned), cudaErrorInvalidValue);
  REFUSED(cudaHostRegister(pinned, 100, 0), cudaErrorInvalidValue);
  REFUSED(cudaHostRegister(new_device_memory(16), 16, 0), cudaErrorInvalidValue);
  REFUSED(cudaHostRegister(memory, 0, 0), cudaErrorInvalidValue);
  REFUSED(cudaHostRegister(NULL, 1, 0), cudaErrorInvalidValue);
  REFUSED(cudaHostRegister(memory, 1, 0x80), cudaErrorInvalidValue);
}

//===-- Questions -----------------------------------------------------------------------------===//

static void expect_attributes(const void* p, enum cudaMemoryType type, int device,
                              const void* on_device, const void* on_host) {
  struct cudaPointerAttributes a;
  memset(&a, 0x5a, sizeof(a));
  OK(cudaPointerGetAttributes(&a, p));
  cr_expect(eq(int, a.type, type));
  cr_expect(eq(int, a.device, device));
  cr_expect(eq(ptr, a.devicePointer, (void*)(uintptr_t)on_device));
  cr_expect(eq(ptr, a.hostPointer, (void*)(uintptr_t)on_host));
}

Test(pointer_attributes, tell_what_a_pointer_is) {
  make_machine((cudasim_options){.devices = 2});
  OK(cudaSetDevice(1));
  char* p = new_device_memory(1000);
  char* h = (char*)new_pinned_memory(1000);
  void* q;
  OK(cudaMallocAsync(&q, 1000, 0));
  char pageable[16];
  OK(cudaSetDevice(0));
  expect_attributes(p, cudaMemoryTypeDevice, 1, p, NULL);
  expect_attributes(p + 999, cudaMemoryTypeDevice, 1, p + 999, NULL);
  expect_attributes(p + 1500, cudaMemoryTypeUnregistered, -2, NULL, p + 1500);
  expect_attributes(q, cudaMemoryTypeDevice, 1, q, NULL);
  expect_attributes(h + 5, cudaMemoryTypeHost, 1, h + 5, h + 5);
  expect_attributes(pageable, cudaMemoryTypeUnregistered, -2, NULL, pageable);
  expect_attributes(NULL, cudaMemoryTypeUnregistered, -2, NULL, NULL);
  OK(cudaFree(p));
  expect_attributes(p, cudaMemoryTypeUnregistered, -2, NULL, p);
  REFUSED(cudaPointerGetAttributes(NULL, p), cudaErrorInvalidValue);
}
