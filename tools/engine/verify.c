#include "engine/verify.h"

#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <tm/tm.h>

#include "engine/interval_map.h"

enum {
  EDGE_BYTES = 64,    // stamped at either end
  STAMP_STEP = 4096,  // bytes from one stamp between them to the next
  WORDS_PER_EDGE = EDGE_BYTES / sizeof(uint64_t),
  EDGE_WORDS = 2 * WORDS_PER_EDGE,  // of both edges
  FINDING_SIZE = 256,               // bytes of text, the terminating NUL included
};

struct verifier {
  pthread_mutex_t mutex;  // guards what follows, but for the counts
  interval_map live;
  char first_finding[FINDING_SIZE];
  uint64_t blocks;  // stamped so far; the next block's id. These are read and written with __atomic
  uint64_t findings;
  uint64_t checked;
};

typedef struct verifying {
  tm_allocator base;       // must be first
  tm_allocator* upstream;  // retained
  verifier* verifier;      // borrowed
  verify_depth depth;
} verifying;

// A block's stamps, packed as they lie in pinned memory: both edges, then the words between.
typedef struct stamp_layout {
  char* block;
  size_t size;    // bytes of the block
  size_t middle;  // words between the edges
  cudaStream_t stream;
} stamp_layout;

// What the host function of a check works on; its stamps lie behind it.
typedef struct stamp_check {
  verifier* verifier;
  uint64_t id;
  const void* block;
  size_t size;
  size_t words;
  _Alignas(64) uint64_t stamps[];
} stamp_check;

//===-- Findings ----------------------------------------------------------===//

__attribute__((format(printf, 2, 3))) static void report(verifier* v, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  pthread_mutex_lock(&v->mutex);
  if (__atomic_fetch_add(&v->findings, 1, __ATOMIC_RELAXED) == 0) {
    (void)vsnprintf(v->first_finding, sizeof(v->first_finding), format, arguments);
  }
  pthread_mutex_unlock(&v->mutex);
  va_end(arguments);
}

verifier* verifier_create(void) {
  verifier* v = tm_bookkeeping_alloc(sizeof(*v), "a verifier");
  if (v) pthread_mutex_init(&v->mutex, NULL);
  return v;
}

void verifier_destroy(verifier* v) {
  if (!v) return;
  pthread_mutex_destroy(&v->mutex);
  interval_map_deinit(&v->live);
  tm_bookkeeping_free(v);
}

uint64_t verifier_findings(const verifier* v) {
  return __atomic_load_n(&v->findings, __ATOMIC_RELAXED);
}

uint64_t verifier_checked(const verifier* v) {
  return __atomic_load_n(&v->checked, __ATOMIC_RELAXED);
}

const char* verifier_first_finding(const verifier* v) { return v->first_finding; }

//===-- Ranges ------------------------------------------------------------===//

static tm_status watch(verifier* v, const void* block, size_t size, uint64_t id) {
  interval other;
  const uintptr_t begin = (uintptr_t)block;
  pthread_mutex_lock(&v->mutex);
  const tm_status status = interval_map_add(&v->live, begin, begin + size, id, &other);
  pthread_mutex_unlock(&v->mutex);
  if (status == TM_OK && other.end != 0) {
    report(v, "block %llu (%p, %zu bytes) overlaps live block %llu (%p, %zu bytes)",
           (unsigned long long)id, block, size, (unsigned long long)other.id, (void*)other.begin,
           (size_t)(other.end - other.begin));
  }
  return status;
}

// Returns the block's id; 0 where its range was not kept because it overlapped.
static uint64_t unwatch(verifier* v, const void* block) {
  interval range = {0};
  pthread_mutex_lock(&v->mutex);
  (void)interval_map_remove(&v->live, (uintptr_t)block, &range);
  pthread_mutex_unlock(&v->mutex);
  return range.id;
}

//===-- Stamps ------------------------------------------------------------===//

// No two words of two blocks are the same, as near as 64 bits allow.
static uint64_t stamp_word(uint64_t id, size_t index) {
  const uint64_t mixed = (id + 1) * 0x9e3779b97f4a7c15u + index;
  return (mixed ^ (mixed >> 29)) * 0xbf58476d1ce4e5b9u;
}

static stamp_layout layout_of(void* block, size_t size, tm_stream* stream) {
  return (stamp_layout){
      .block = block,
      .size = size,
      // At 1, 2, ... times the step, below the last edge. Device blocks are at least 256 bytes.
      .middle = (size - EDGE_BYTES - sizeof(uint64_t)) / STAMP_STEP,
      .stream = tm_stream_handle(stream),
  };
}

static size_t words_of(const stamp_layout* l) { return EDGE_WORDS + l->middle; }

static tm_status cuda_status(cudaError_t code, const char* what) {
  if (code == cudaSuccess) return TM_OK;
  (void)cudaGetLastError();
  return TM_RAISE(TM_ERR_CUDA, "verify: %s: %s", what, cudaGetErrorName(code));
}

static tm_status queue_write(const stamp_layout* l, const uint64_t* words) {
  char* block = l->block;
  TM_TRY(cuda_status(cudaMemcpyAsync(block, words, EDGE_BYTES, cudaMemcpyHostToDevice, l->stream),
                     "stamping the front"));
  TM_TRY(cuda_status(cudaMemcpyAsync(block + l->size - EDGE_BYTES, words + WORDS_PER_EDGE,
                                     EDGE_BYTES, cudaMemcpyHostToDevice, l->stream),
                     "stamping the end"));
  if (l->middle == 0) return TM_OK;
  return cuda_status(
      cudaMemcpy2DAsync(block + STAMP_STEP, STAMP_STEP, words + EDGE_WORDS, sizeof(uint64_t),
                        sizeof(uint64_t), l->middle, cudaMemcpyHostToDevice, l->stream),
      "stamping the pages");
}

static tm_status queue_read(const stamp_layout* l, uint64_t* words) {
  const char* block = l->block;
  TM_TRY(cuda_status(cudaMemcpyAsync(words, block, EDGE_BYTES, cudaMemcpyDeviceToHost, l->stream),
                     "reading the front"));
  TM_TRY(cuda_status(cudaMemcpyAsync(words + WORDS_PER_EDGE, block + l->size - EDGE_BYTES,
                                     EDGE_BYTES, cudaMemcpyDeviceToHost, l->stream),
                     "reading the end"));
  if (l->middle == 0) return TM_OK;
  return cuda_status(
      cudaMemcpy2DAsync(words + EDGE_WORDS, sizeof(uint64_t), block + STAMP_STEP, STAMP_STEP,
                        sizeof(uint64_t), l->middle, cudaMemcpyDeviceToHost, l->stream),
      "reading the pages");
}

// The pinned memory is given back on the stream: it is not reused before the copies have read it.
static tm_status stamp(void* block, size_t size, uint64_t id, tm_stream* stream) {
  const stamp_layout layout = layout_of(block, size, stream);
  const size_t bytes = words_of(&layout) * sizeof(uint64_t);
  void* memory;
  TM_TRY(tm_allocator_alloc(tm_pinned_allocator(), bytes, stream, &memory));
  uint64_t* words = memory;
  for (size_t i = 0; i < words_of(&layout); i++) words[i] = stamp_word(id, i);
  const tm_status status = queue_write(&layout, words);
  tm_allocator_free(tm_pinned_allocator(), memory, bytes, stream);
  return status;
}

static size_t offset_of_word(const stamp_check* check, size_t index) {
  if (index < WORDS_PER_EDGE) return index * sizeof(uint64_t);
  if (index < EDGE_WORDS) {
    return check->size - EDGE_BYTES + (index - WORDS_PER_EDGE) * sizeof(uint64_t);
  }
  return (index - EDGE_WORDS + 1) * STAMP_STEP;
}

// Runs on a thread of the runtime, in stream order.
static void compare_stamps(void* user) {
  const stamp_check* check = user;
  for (size_t i = 0; i < check->words; i++) {
    if (check->stamps[i] != stamp_word(check->id, i)) {
      report(check->verifier, "block %llu (%p, %zu bytes) was written by another at byte %zu",
             (unsigned long long)check->id, check->block, check->size, offset_of_word(check, i));
      break;
    }
  }
  __atomic_fetch_add(&check->verifier->checked, 1, __ATOMIC_RELAXED);
}

static tm_status queue_check(verifier* v, void* block, size_t size, uint64_t id,
                             tm_stream* stream) {
  const stamp_layout layout = layout_of(block, size, stream);
  const size_t bytes = sizeof(stamp_check) + words_of(&layout) * sizeof(uint64_t);
  void* memory;
  TM_TRY(tm_allocator_alloc(tm_pinned_allocator(), bytes, stream, &memory));
  stamp_check* check = memory;
  check->verifier = v;
  check->id = id;
  check->block = block;
  check->size = size;
  check->words = words_of(&layout);
  tm_status status = queue_read(&layout, check->stamps);
  if (status == TM_OK) status = tm_stream_call_host(stream, compare_stamps, check);
  tm_allocator_free(tm_pinned_allocator(), memory, bytes, stream);
  return status;
}

//===-- The allocator -----------------------------------------------------===//

static void verifying_destroy(tm_allocator* allocator) {
  verifying* self = (verifying*)allocator;
  tm_allocator_release(self->upstream);
  tm_allocator_deinit_(allocator);
  tm_bookkeeping_free(self);
}

static bool has_stamps(const verifying* self, const tm_stream* stream) {
  return self->depth == VERIFY_STAMPS && self->base.device.type == TM_DEVICE && stream;
}

static tm_status verifying_alloc(tm_allocator* allocator, size_t size, tm_stream* stream,
                                 void** out) {
  verifying* self = (verifying*)allocator;
  const uint64_t id = __atomic_add_fetch(&self->verifier->blocks, 1, __ATOMIC_RELAXED);
  void* block;
  TM_TRY(tm_allocator_alloc_nested_(self->upstream, size, stream, &block));
  tm_status status = watch(self->verifier, block, size, id);
  if (status == TM_OK && has_stamps(self, stream)) status = stamp(block, size, id, stream);
  if (status != TM_OK) {
    (void)unwatch(self->verifier, block);
    tm_allocator_free(self->upstream, block, size, stream);
    return status;
  }
  *out = block;
  return TM_OK;
}

static void verifying_free(tm_allocator* allocator, void* ptr, size_t size, tm_stream* stream) {
  verifying* self = (verifying*)allocator;
  const uint64_t id = unwatch(self->verifier, ptr);
  if (id != 0 && has_stamps(self, stream) &&
      queue_check(self->verifier, ptr, size, id, stream) != TM_OK) {
    report(self->verifier, "block %llu (%p, %zu bytes) could not be checked: %s",
           (unsigned long long)id, ptr, size, tm_last_error()->message);
  }
  tm_allocator_free(self->upstream, ptr, size, stream);
}

static tm_status verifying_trim(tm_allocator* allocator, size_t keep) {
  return tm_allocator_trim(((verifying*)allocator)->upstream, keep);
}

static tm_status verifying_get_stats(tm_allocator* allocator, tm_allocator_stats* out) {
  return tm_allocator_get_stats(((verifying*)allocator)->upstream, out);
}

static const tm_allocator_vtable verifying_vtable = {
    .name = "verify",
    .destroy = verifying_destroy,
    .alloc = verifying_alloc,
    .free = verifying_free,
    .trim = verifying_trim,
    .get_stats = verifying_get_stats,
};

tm_allocator* verify_allocator_create(verifier* v, tm_allocator* upstream, verify_depth depth) {
  if (!v || !upstream) {
    (void)TM_NULL_HANDLE("verify_allocator_create: an argument");
    return NULL;
  }
  verifying* self = tm_bookkeeping_alloc(sizeof(*self), "a verifying allocator");
  if (!self) return NULL;
  tm_allocator_init_(&self->base, &verifying_vtable, tm_allocator_device(upstream),
                     tm_allocator_stream(upstream));
  self->upstream = tm_allocator_retain(upstream);
  self->base.upstream = upstream;
  self->verifier = v;
  self->depth = depth;
  return &self->base;
}
