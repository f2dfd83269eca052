// The variables of a program's device code: memory on each device that uses them, all zero at
// first, since what they begin with is in the device code.
#include <pthread.h>
#include <stdio.h>

#include "cudasim/runtime.h"
#include "cudasim/slab.h"
#include "cudasim/standin/symbol.h"

#define WEAK __attribute__((weak, visibility("default")))

static pthread_mutex_t making = PTHREAD_MUTEX_INITIALIZER;

static cudaError_t fail(cudaError_t error) {
  sim_thread()->last_error = error;
  return error;
}

static symbol* find(const void* host) {
  sim_lock();
  symbol* s = sim_symbol_find(host);
  sim_unlock();
  return s && s->bytes ? s : NULL;
}

static void tell(symbol* s) {
  if (s->is_told) return;
  s->is_told = true;
  fprintf(stderr, "cudasim: device variable %s begins as zero, whatever the program says\n",
          s->name);
}

// Whether the variable still has its memory there: a reset of the device takes it.
static bool has_memory(const symbol* s, int device_id) {
  struct cudaPointerAttributes attributes;
  return s->memory[device_id] && !cudaPointerGetAttributes(&attributes, s->memory[device_id]) &&
         attributes.type == cudaMemoryTypeDevice;
}

static cudaError_t make_memory(symbol* s, int device_id) {
  if (!s->memory) s->memory = sim_bookkeeping_alloc(CUDASIM_MAX_DEVICES * sizeof(void*));
  if (!s->memory) return fail(cudaErrorMemoryAllocation);
  if (has_memory(s, device_id)) return cudaSuccess;
  tell(s);
  void* memory;
  cudaError_t error = cudaMalloc(&memory, s->bytes);
  if (!error) error = cudaMemset(memory, 0, s->bytes);
  if (!error) s->memory[device_id] = memory;
  return error;
}

// Where the variable is on the current device.
static cudaError_t locate(const void* host, symbol** out, char** memory) {
  symbol* s = find(host);
  if (!s) return fail(cudaErrorInvalidSymbol);
  int device_id;
  cudaError_t error = cudaGetDevice(&device_id);
  if (error) return error;
  pthread_mutex_lock(&making);
  error = make_memory(s, device_id);
  if (!error) *memory = s->memory[device_id];
  pthread_mutex_unlock(&making);
  *out = s;
  return error;
}

// The same for `count` bytes at `offset`.
static cudaError_t locate_bytes(const void* host, size_t count, size_t offset, char** memory) {
  symbol* s;
  cudaError_t error = locate(host, &s, memory);
  if (error) return error;
  if (offset > s->bytes || count > s->bytes - offset) return fail(cudaErrorInvalidValue);
  *memory += offset;
  return cudaSuccess;
}

WEAK cudaError_t cudaGetSymbolAddress(void** pointer, const void* host) {
  if (!pointer) return fail(cudaErrorInvalidValue);
  symbol* s;
  char* memory;
  cudaError_t error = locate(host, &s, &memory);
  if (!error) *pointer = memory;
  return error;
}

WEAK cudaError_t cudaGetSymbolSize(size_t* size, const void* host) {
  const symbol* s = find(host);
  if (!size) return fail(cudaErrorInvalidValue);
  if (!s) return fail(cudaErrorInvalidSymbol);
  *size = s->bytes;
  return cudaSuccess;
}

//===-- Copies --------------------------------------------------------------------------------===//

WEAK cudaError_t cudaMemcpyToSymbol(const void* host, const void* from, size_t count, size_t offset,
                                    enum cudaMemcpyKind kind) {
  char* memory;
  cudaError_t error = locate_bytes(host, count, offset, &memory);
  return error ? error : cudaMemcpy(memory, from, count, kind);
}

WEAK cudaError_t cudaMemcpyFromSymbol(void* to, const void* host, size_t count, size_t offset,
                                      enum cudaMemcpyKind kind) {
  char* memory;
  cudaError_t error = locate_bytes(host, count, offset, &memory);
  return error ? error : cudaMemcpy(to, memory, count, kind);
}

WEAK cudaError_t cudaMemcpyToSymbolAsync(const void* host, const void* from, size_t count,
                                         size_t offset, enum cudaMemcpyKind kind, cudaStream_t in) {
  char* memory;
  cudaError_t error = locate_bytes(host, count, offset, &memory);
  return error ? error : cudaMemcpyAsync(memory, from, count, kind, in);
}

WEAK cudaError_t cudaMemcpyFromSymbolAsync(void* to, const void* host, size_t count, size_t offset,
                                           enum cudaMemcpyKind kind, cudaStream_t in) {
  char* memory;
  cudaError_t error = locate_bytes(host, count, offset, &memory);
  return error ? error : cudaMemcpyAsync(to, memory, count, kind, in);
}

//===-- Per-thread default streams ------------------------------------------------------------===//

static cudaStream_t own(cudaStream_t in) { return in ? in : cudaStreamPerThread; }

WEAK cudaError_t cudaMemcpyToSymbolAsync_ptsz(const void* host, const void* from, size_t count,
                                              size_t offset, enum cudaMemcpyKind kind,
                                              cudaStream_t in) {
  return cudaMemcpyToSymbolAsync(host, from, count, offset, kind, own(in));
}

WEAK cudaError_t cudaMemcpyFromSymbolAsync_ptsz(void* to, const void* host, size_t count,
                                                size_t offset, enum cudaMemcpyKind kind,
                                                cudaStream_t in) {
  return cudaMemcpyFromSymbolAsync(to, host, count, offset, kind, own(in));
}

WEAK cudaError_t cudaMemcpyToSymbol_ptds(const void* host, const void* from, size_t count,
                                         size_t offset, enum cudaMemcpyKind kind) {
  cudaError_t error = cudaMemcpyToSymbolAsync(host, from, count, offset, kind, cudaStreamPerThread);
  return error ? error : cudaStreamSynchronize(cudaStreamPerThread);
}

WEAK cudaError_t cudaMemcpyFromSymbol_ptds(void* to, const void* host, size_t count, size_t offset,
                                           enum cudaMemcpyKind kind) {
  cudaError_t error = cudaMemcpyFromSymbolAsync(to, host, count, offset, kind, cudaStreamPerThread);
  return error ? error : cudaStreamSynchronize(cudaStreamPerThread);
}

//===-- Formats -------------------------------------------------------------------------------===//

// A struct that is returned cannot be an error: there is no array to use it with, but the function
// has to be there.
typedef struct channel_format {
  int x;
  int y;
  int z;
  int w;
  int kind;
} channel_format;

WEAK channel_format cudaCreateChannelDesc(int x, int y, int z, int w, int kind) {
  return (channel_format){x, y, z, w, kind};
}
