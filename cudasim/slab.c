#include "cudasim/slab.h"

#include <stdbool.h>
#include <stdlib.h>

#define CHUNK_BYTES ((size_t)64 << 10)
#define CHUNK_HEADER ((size_t)16)  // the link, and the alignment of what follows

void* sim_bookkeeping_alloc(size_t size) { return calloc(1, size); }

void sim_bookkeeping_free(void* memory) { free(memory); }

static void link_objects(slab* s, char* chunk) {
  size_t count = (CHUNK_BYTES - CHUNK_HEADER) / s->size;
  for (size_t i = count; i-- > 0;) sim_slab_give(s, chunk + CHUNK_HEADER + i * s->size);
}

static void grow(slab* s) {
  s->size = (s->size + 15) & ~(size_t)15;
  void** chunk = sim_bookkeeping_alloc(CHUNK_BYTES);
  if (!chunk) return;
  *chunk = s->chunks;
  s->chunks = chunk;
  link_objects(s, (char*)chunk);
}

void* sim_slab_take(slab* s) {
  if (!s->free) grow(s);
  void** object = s->free;
  if (!object) return NULL;
  s->free = *object;
  *object = NULL;
  return object;
}

void sim_slab_give(slab* s, void* object) {
  *(void**)object = s->free;
  s->free = object;
}

void sim_slab_drop(slab* s) {
  for (void** chunk = s->chunks; chunk;) {
    void** next = *chunk;
    sim_bookkeeping_free(chunk);
    chunk = next;
  }
  s->chunks = s->free = NULL;
}
