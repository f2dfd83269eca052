// Which block begins at or before an address: the live blocks of one address space.
//
//   a bit per unit, set where a block begins     0 0 1 0 | 0 0 0 0 | 1 0 0 1 | ...
//   a bit per word of those, set where one is         1        0         1
//   and so on, up to a single word
//
// together with a hash table from the beginning to the block. Adding, removing and finding take a
// few instructions per level, whatever the number of blocks. Memory is only taken where bits are
// set.
#ifndef CUDASIM_START_MAP_H_
#define CUDASIM_START_MAP_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define START_MAP_LEVELS 6

typedef struct start_map {
  uint64_t* bits[START_MAP_LEVELS];  // level 0 has the units
  int levels;
  void* memory;  // of all levels
  size_t memory_bytes;
  struct start_entry* entries;  // open addressing, linear probing
  size_t capacity;              // of entries, a power of two or 0
  size_t count;
} start_map;

// Makes the map of `units` units. False when the host has no address space.
bool sim_start_map_init(start_map* m, uint64_t units);
void sim_start_map_deinit(start_map* m);

// Makes room for one more block, so that the next sim_start_map_add cannot fail.
bool sim_start_map_prepare(start_map* m);
void sim_start_map_add(start_map* m, uint64_t unit, void* block);
void sim_start_map_remove(start_map* m, uint64_t unit);

// The block that begins exactly there, or NULL.
void* sim_start_map_at(const start_map* m, uint64_t unit);

// The block with the highest beginning at or before `unit`, or NULL.
void* sim_start_map_at_most(const start_map* m, uint64_t unit);

#endif  // CUDASIM_START_MAP_H_
