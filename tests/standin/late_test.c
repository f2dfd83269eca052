// The library in a program that loads it when threads run already, unloads it, and ends threads
// that have used it after that.
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define THREADS 8

static const char* path;
static pthread_barrier_t loaded;
static pthread_barrier_t used;
static pthread_barrier_t unloaded;

static void expect(int is_true, const char* what) {
  if (is_true) return;
  fprintf(stderr, "late_test: not so: %s\n", what);
  exit(1);
}

static void* function(void* library, const char* name) {
  void* f = dlsym(library, name);
  expect(f != NULL, name);
  return f;
}

// Makes the thread's own stream, which is closed when the thread ends.
static void use(void* library) {
  cudaError_t (*fill)(void*, int, size_t, cudaStream_t);
  cudaError_t (*allocate)(void**, size_t);
  cudaError_t (*wait)(cudaStream_t);
  cudaError_t (*release)(void*);
  *(void**)(&allocate) = function(library, "cudaMalloc");
  *(void**)(&fill) = function(library, "cudaMemsetAsync");
  *(void**)(&wait) = function(library, "cudaStreamSynchronize");
  *(void**)(&release) = function(library, "cudaFree");
  void* p;
  expect(allocate(&p, 4096) == cudaSuccess, "memory");
  expect(fill(p, 1, 4096, cudaStreamPerThread) == cudaSuccess, "a fill");
  expect(wait(cudaStreamPerThread) == cudaSuccess, "its end");
  expect(release(p) == cudaSuccess, "given back");
}

static void* live(void* unused) {
  (void)unused;
  pthread_barrier_wait(&loaded);
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  expect(library != NULL, "the library is there");
  use(library);
  dlclose(library);
  pthread_barrier_wait(&used);
  pthread_barrier_wait(&unloaded);
  return NULL;
}

int main(int argc, char** argv) {
  expect(argc == 2, "usage: late_test LIBRARY");
  path = argv[1];
  pthread_t threads[THREADS];
  pthread_barrier_init(&loaded, NULL, THREADS + 1);
  pthread_barrier_init(&used, NULL, THREADS + 1);
  pthread_barrier_init(&unloaded, NULL, THREADS + 1);
  for (int i = 0; i < THREADS; ++i)
    expect(!pthread_create(&threads[i], NULL, live, NULL), "threads");
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) fprintf(stderr, "%s\n", dlerror());
  expect(library != NULL, "the library can be loaded late");
  pthread_barrier_wait(&loaded);
  pthread_barrier_wait(&used);
  expect(dlclose(library) == 0, "the library can be closed");
  pthread_barrier_wait(&unloaded);
  for (int i = 0; i < THREADS; ++i) pthread_join(threads[i], NULL);
  library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  expect(library != NULL, "and loaded again");
  use(library);
  dlclose(library);
  return 0;
}
