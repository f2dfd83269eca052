// What the host code that nvcc generates calls: it tells of a program's kernels and variables as
// the program starts, and launches. The signatures are those of the toolkit's crt/host_runtime.h.
#include <string.h>

#include "cudasim/kernel.h"
#include "cudasim/runtime.h"
#include "cudasim/slab.h"
#include "cudasim/standin/kernels.h"
#include "cudasim/standin/symbol.h"

// Much of what the compiler tells is of no use without a device.
#pragma GCC diagnostic ignored "-Wunused-parameter"

typedef struct CUkern_st* cudaKernel_t;

//===-- Programs and libraries ----------------------------------------------------------------===//

// A variable that the host sees too, by a pointer in its program.
typedef struct managed {
  struct managed* next;
  void** pointer;
  size_t bytes;
} managed;

CUDASIM_EXPORT_ void** __cudaRegisterFatBinary(void* code) {
  sim_kernels_load();
  return sim_bookkeeping_alloc(sizeof(binary));
}

CUDASIM_EXPORT_ void __cudaRegisterFatBinaryEnd(void** handle) {}

static void forget_managed(binary* b) {
  while (b->managed) {
    managed* m = b->managed;
    b->managed = m->next;
    sim_bookkeeping_free(m);
  }
}

CUDASIM_EXPORT_ void __cudaUnregisterFatBinary(void** handle) {
  binary* b = (binary*)(void*)handle;
  if (!b) return;
  sim_lock();
  for (const symbol* s = b->symbols; s; s = s->next_of_binary) sim_kernel_forget(s->host);
  sim_symbol_remove_all(b);
  forget_managed(b);
  sim_unlock();
  sim_bookkeeping_free(b);
}

// What cannot be remembered is not there when it is used.
static void add(void** handle, const void* host, const char* name, size_t bytes) {
  sim_lock();
  if (handle) sim_symbol_add((binary*)(void*)handle, host, name, bytes);
  sim_unlock();
}

CUDASIM_EXPORT_ void __cudaRegisterFunction(void** handle, const char* host, char* there,
                                            const char* name, int most_threads, void* a, void* b,
                                            void* c, void* d, void* e) {
  add(handle, host, name, 0);
}

CUDASIM_EXPORT_ void __cudaRegisterVar(void** handle, char* host, char* there, const char* name,
                                       int external, size_t bytes, int constant, int global) {
  add(handle, host, name, bytes);
}

CUDASIM_EXPORT_ void __cudaRegisterManagedVar(void** handle, void** pointer, char* there,
                                              const char* name, int external, size_t bytes,
                                              int constant, int global) {
  managed* m = handle ? sim_bookkeeping_alloc(sizeof(*m)) : NULL;
  if (!m) return;
  binary* b = (binary*)(void*)handle;
  *m = (managed){.next = b->managed, .pointer = pointer, .bytes = bytes};
  b->managed = m;
}

static bool give_memory(const managed* m) {
  if (*m->pointer) return true;
  void* memory;
  if (cudaHostAlloc(&memory, m->bytes, cudaHostAllocPortable)) return false;
  *m->pointer = memset(memory, 0, m->bytes);
  return true;
}

// Before the host's first access to a managed variable: it gets memory that devices reach too.
CUDASIM_EXPORT_ char __cudaInitModule(void** handle) {
  static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
  const binary* b = (const binary*)(void*)handle;
  bool is_good = true;
  pthread_mutex_lock(&one_at_a_time);
  for (const managed* m = b ? b->managed : NULL; m; m = m->next) is_good &= give_memory(m);
  pthread_mutex_unlock(&one_at_a_time);
  return (char)is_good;
}

//===-- Launches ------------------------------------------------------------------------------===//

// Between the brackets of a launch and its call. The arguments of a launch may launch.
typedef struct configuration {
  struct configuration* outer;
  dim3 grid_dim;
  dim3 block_dim;
  size_t shared_bytes;
  cudaStream_t stream;
} configuration;

static __thread configuration* innermost;

CUDASIM_EXPORT_ unsigned __cudaPushCallConfiguration(dim3 grid_dim, dim3 block_dim,
                                                     size_t shared_bytes, cudaStream_t in) {
  configuration* c = sim_bookkeeping_alloc(sizeof(*c));
  if (!c) {
    sim_thread()->last_error = cudaErrorMemoryAllocation;
    return cudaErrorMemoryAllocation;
  }
  *c = (configuration){innermost, grid_dim, block_dim, shared_bytes, in};
  innermost = c;
  return cudaSuccess;
}

CUDASIM_EXPORT_ cudaError_t __cudaPopCallConfiguration(dim3* grid_dim, dim3* block_dim,
                                                       size_t* shared_bytes, void* in) {
  configuration* c = innermost;
  if (!c) {
    sim_thread()->last_error = cudaErrorMissingConfiguration;
    return cudaErrorMissingConfiguration;
  }
  innermost = c->outer;
  *grid_dim = c->grid_dim;
  *block_dim = c->block_dim;
  *shared_bytes = c->shared_bytes;
  *(cudaStream_t*)in = c->stream;
  sim_bookkeeping_free(c);
  return cudaSuccess;
}

// A kernel's handle is its function's address: either is good wherever the other is.
CUDASIM_EXPORT_ cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  sim_lock();
  const symbol* s = sim_symbol_find(function);
  sim_unlock();
  bool is_kernel = s && !s->bytes;
  if (kernel) *kernel = (cudaKernel_t)(is_kernel ? s->host : NULL);
  if (is_kernel) return cudaSuccess;
  sim_thread()->last_error = cudaErrorInvalidDeviceFunction;
  return cudaErrorInvalidDeviceFunction;
}

CUDASIM_EXPORT_ cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid_dim, dim3 block_dim,
                                               void** arguments, size_t shared_bytes,
                                               cudaStream_t in) {
  return cudaLaunchKernel(kernel, grid_dim, block_dim, arguments, shared_bytes, in);
}

CUDASIM_EXPORT_ cudaError_t __cudaLaunchKernel_ptsz(cudaKernel_t kernel, dim3 grid_dim,
                                                    dim3 block_dim, void** arguments,
                                                    size_t shared_bytes, cudaStream_t in) {
  return cudaLaunchKernel(kernel, grid_dim, block_dim, arguments, shared_bytes,
                          in ? in : cudaStreamPerThread);
}
