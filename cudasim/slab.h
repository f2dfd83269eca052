// Fixed-size bookkeeping objects: taken and given back in a few instructions, never returned to the
// host's allocator before the slab is dropped. An object's memory therefore stays readable, so that
// a stale reference finds an object of the same kind and not somebody else's data.
#ifndef CUDASIM_SLAB_H_
#define CUDASIM_SLAB_H_

#include <stddef.h>

typedef struct slab {
  size_t size;   // bytes of one object, at least a pointer; set before first use
  void* free;    // given back, linked through their first word
  void* chunks;  // all memory, linked through its first word
} slab;

// Bookkeeping memory, zeroed: everything cudasim needs for itself comes from here. NULL when the
// host has none.
void* sim_bookkeeping_alloc(size_t size);
void sim_bookkeeping_free(void* memory);

// An object with unspecified contents, all zero the first time; NULL when the host has no memory.
void* sim_slab_take(slab* s);
void sim_slab_give(slab* s, void* object);

// Frees all objects at once.
void sim_slab_drop(slab* s);

#endif  // CUDASIM_SLAB_H_
