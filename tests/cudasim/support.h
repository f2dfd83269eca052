// What tests of cudasim share: a case that runs under every schedule, checks of calls, and a gate
// that holds up a stream.
#ifndef TESTS_CUDASIM_SUPPORT_H_
#define TESTS_CUDASIM_SUPPORT_H_

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "cudasim.h"

#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)

// A test that runs on a machine with one device of 1 GiB under each schedule: with worker threads,
// eagerly, and randomly with two seeds.
#define SIM_TEST(suite, name)                        \
  static void suite##_##name(void);                  \
  SIM_TEST_UNDER_(suite, name, threads, "threads")   \
  SIM_TEST_UNDER_(suite, name, eager, "eager")       \
  SIM_TEST_UNDER_(suite, name, random_1, "random:1") \
  SIM_TEST_UNDER_(suite, name, random_2, "random:2") \
  static void suite##_##name(void)

#define SIM_TEST_UNDER_(suite, name, suffix, schedule_)     \
  Test(suite, name##_##suffix) {                            \
    make_machine((cudasim_options){.schedule = schedule_}); \
    suite##_##name();                                       \
  }

// A test that holds up streams, which only worker threads allow.
#define THREADS_TEST(suite, name)                           \
  static void suite##_##name(void);                         \
  Test(suite, name) {                                       \
    make_machine((cudasim_options){.schedule = "threads"}); \
    suite##_##name();                                       \
  }                                                         \
  static void suite##_##name(void)

#define OK(call) cr_assert(eq(int, (call), cudaSuccess), "%s", #call)
#define REFUSED(call, error) cr_expect(eq(int, (call), (error)), "%s", #call)

// Many of these tests do what the checker reports, to see what the runtime makes of it.
static inline void make_machine(cudasim_options options) {
  if (!options.check) options.check = "off";
  if (!options.memory) options.memory = "1GiB";
  OK(cudasim_configure(&options));
}

//===-- Gates ---------------------------------------------------------------------------------===//

typedef struct gate {
  pthread_mutex_t lock;
  pthread_cond_t change;
  bool is_open;
  bool is_reached;
} gate;

#define CLOSED_GATE \
  { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, false }

static inline void pass_gate(void* argument) {
  gate* g = argument;
  pthread_mutex_lock(&g->lock);
  g->is_reached = true;
  pthread_cond_broadcast(&g->change);
  while (!g->is_open) pthread_cond_wait(&g->change, &g->lock);
  pthread_mutex_unlock(&g->lock);
}

// Holds up `stream` until open_gate.
static inline void close_gate(gate* g, cudaStream_t stream) {
  OK(cudaLaunchHostFunc(stream, pass_gate, g));
}

static inline void open_gate(gate* g) {
  pthread_mutex_lock(&g->lock);
  g->is_open = true;
  pthread_cond_broadcast(&g->change);
  pthread_mutex_unlock(&g->lock);
}

//===-- Memory --------------------------------------------------------------------------------===//

static inline cudaStream_t new_stream(unsigned flags) {
  cudaStream_t stream;
  OK(cudaStreamCreateWithFlags(&stream, flags));
  return stream;
}

static inline void* new_device_memory(size_t bytes) {
  void* p;
  OK(cudaMalloc(&p, bytes));
  return p;
}

static inline unsigned char* new_pinned_memory(size_t bytes) {
  void* p;
  OK(cudaHostAlloc(&p, bytes, cudaHostAllocDefault));
  return p;
}

// The byte that a test expects at `i` of what it filled with `seed`.
static inline unsigned char pattern(size_t i, unsigned seed) {
  return (unsigned char)(i * 31 + i / 251 + (size_t)seed * 17);
}

static inline void fill_pattern(void* p, size_t bytes, unsigned seed) {
  for (size_t i = 0; i < bytes; ++i) ((unsigned char*)p)[i] = pattern(i, seed);
}

// The first byte that is not the pattern's, or `bytes`.
static inline size_t first_difference(const void* p, size_t bytes, unsigned seed) {
  for (size_t i = 0; i < bytes; ++i) {
    if (((const unsigned char*)p)[i] != pattern(i, seed)) return i;
  }
  return bytes;
}

static inline uint64_t pool_bytes(cudaMemPool_t pool, enum cudaMemPoolAttr attribute) {
  uint64_t bytes;
  OK(cudaMemPoolGetAttribute(pool, attribute, &bytes));
  return bytes;
}

static inline size_t free_memory(void) {
  size_t bytes;
  OK(cudaMemGetInfo(&bytes, NULL));
  return bytes;
}

#endif  // TESTS_CUDASIM_SUPPORT_H_
