// Page-locked host memory: what cudaHostAlloc made and what cudaHostRegister was told of. Guarded
// by the runtime's lock.
#ifndef CUDASIM_HOST_MEMORY_H_
#define CUDASIM_HOST_MEMORY_H_

#include <stdbool.h>
#include <stdint.h>

#include "cudasim/tree.h"

typedef struct host_range {
  tree_node node;  // must be first; major is the address
  uint64_t bytes;
  unsigned flags;
  int device;             // that was current
  bool is_registered;     // the program's memory
  struct pinned* pinned;  // where it is checked; or NULL
} host_range;

// The range that holds the address, or NULL.
const host_range* sim_host_memory_around(uint64_t address);

// Whether the bytes overlap any range.
bool sim_host_memory_overlaps(uint64_t address, uint64_t bytes);

// Frees all that was allocated and forgets all that was registered.
void sim_host_memory_free_all(void);

#endif  // CUDASIM_HOST_MEMORY_H_
