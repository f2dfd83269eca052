// A block is carved out of a malloc'd one, because libc's aligned_alloc costs several times as much
// as malloc:
//
//   malloc'd      pad   [ malloc's pointer ] | block, aligned to 64
//   with storage  pad   [ malloc's pointer ] | tm_storage | block, aligned to 64
//
// malloc aligns to 16, so there are always at least 16 bytes before the aligned address.

#include "tm/alloc/host.h"

#include <stdlib.h>

#include "tm/alloc/storage.h"

_Static_assert(sizeof(tm_storage) <= TM_HOST_ALIGNMENT, "a storage fits before its block");
_Static_assert(TM_HOST_ALIGNMENT % _Alignof(max_align_t) == 0, "malloc leaves room for a pointer");

static void* host_carve(size_t size, size_t extra) {
  const size_t overhead = TM_HOST_ALIGNMENT + extra;  // cannot wrap below: size <= PTRDIFF_MAX
  char* base = malloc(size + overhead);
  if (TM_UNLIKELY(!base)) {
    (void)TM_RAISE(TM_ERR_NO_MEMORY, "host: %zu bytes asked, and libc has no such block", size);
    return NULL;
  }
  const uintptr_t aligned =
      ((uintptr_t)base + TM_HOST_ALIGNMENT) & ~(uintptr_t)(TM_HOST_ALIGNMENT - 1);
  char* block = base + (aligned - (uintptr_t)base);
  ((void**)(void*)block)[-1] = base;
  return block;
}

static void host_return(void* block) { free(((void**)block)[-1]); }

static tm_status host_alloc(tm_allocator* self, size_t size, tm_stream* stream, void** out) {
  (void)self;
  (void)stream;
  void* block = host_carve(size, 0);
  if (!block) {
    return TM_ERR_NO_MEMORY;
  }
  *out = block;
  return TM_OK;
}

static void host_free(tm_allocator* self, void* ptr, size_t size, tm_stream* stream) {
  (void)self;
  (void)size;
  (void)stream;
  host_return(ptr);
}

static tm_status host_alloc_storage(tm_allocator* self, size_t size, tm_storage** out) {
  tm_storage* storage = host_carve(size, TM_HOST_ALIGNMENT);
  if (TM_UNLIKELY(!storage)) {
    return TM_ERR_NO_MEMORY;
  }
  storage->references = 1;
  storage->flags = TM_STORAGE_EMBEDDED_;
  storage->data = (char*)storage + TM_HOST_ALIGNMENT;
  storage->size = size;
  storage->allocator = self;
  storage->stream = NULL;
  storage->uses = NULL;
  *out = storage;
  return TM_OK;
}

static void host_free_storage(tm_allocator* self, tm_storage* storage) {
  (void)self;
  __atomic_store_n(&storage->references, 0, __ATOMIC_RELAXED);  // best effort against a second time
  host_return(storage);
}

static void host_destroy(tm_allocator* self) { (void)self; }  // immortal: never called

static const tm_allocator_vtable host_vtable = {
    .name = "host",
    .destroy = host_destroy,
    .alloc = host_alloc,
    .free = host_free,
    .alloc_storage = host_alloc_storage,
    .free_storage = host_free_storage,
};

static tm_allocator host = {
    .vtable = &host_vtable,
    .slots = TM_CPU | TM_CPU << 16,
    .references = TM_IMMORTAL_,
    .device = {TM_CPU, 0},
    .alignment = TM_HOST_ALIGNMENT,
    .ignores_stream = true,
};

tm_allocator* tm_host_allocator(void) { return &host; }
