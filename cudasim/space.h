// The memory of one device: address space that the program sees and cannot touch, the same pages a
// second time for the simulation's own use, and the account of what is taken.
//
//   base                        split                          base + bytes
//    |-- cudaMalloc ------------>|-- pools -------------------->|    blocks; far more address space
//    |   granules of 2 MiB       |   chunks of 32 MiB           |    than memory, as on a device
//
// Addresses and memory are two things: a pool keeps addresses whose memory it has given back. Pages
// cost host memory once they are written; those of memory that was given back are returned to the
// host in batches, and only if they were used. Guarded by the runtime's lock.
#ifndef CUDASIM_SPACE_H_
#define CUDASIM_SPACE_H_

#include <stdbool.h>
#include <stdint.h>

#include "cudasim/block.h"
#include "cudasim/start_map.h"

#define GRANULE_BYTES ((uint64_t)2 << 20)
#define CHUNK_BYTES ((uint64_t)32 << 20)
#define UNIT_BYTES ((uint64_t)512)  // blocks begin at multiples of it

struct device;

// Of each chunk of the pools' addresses: the frees there of which the host may not have waited.
#define CHUNK_FREES 4
typedef struct chunk {
  struct {
    struct stream* stream;  // or NULL
    uint64_t position;      // of its last free here
  } frees[CHUNK_FREES];
  bool is_crowded;   // there are more than these
  uint64_t serial;   // of the last free
  uint64_t devices;  // whose streams did it all: a bit for each
} chunk;

typedef struct space {
  struct device* device;
  uint64_t base;  // address for the program
  uint64_t bytes;
  uint64_t split;  // address
  char* alias;     // where the simulation sees `base`; the same place without protection
  int file;
  uint64_t memory;    // bytes the device has
  uint64_t taken;     // bytes of it in use
  uint64_t occupied;  // bytes of it that other processes hold
  shelf unused;       // addresses below the split
  shelf unused_pool;
  start_map live;     // live blocks
  block* last;        // in the space: the one that is always there
  uint64_t* charged;  // a bit per granule: it is taken
  uint64_t* touched;  // a bit per granule: its pages may hold host memory
  uint64_t stale;     // touched granules that are not taken
  chunk* chunks;      // of all addresses
} space;

// Makes the space of a device with `memory` bytes. False, with nothing left behind, when the host
// refuses.
bool sim_space_open(struct device* d, uint64_t memory, bool protect);
void sim_space_close(space* s);

// Takes `bytes` of memory and addresses, a multiple of the granule, as a block on no shelf; NULL
// when the device or the host has too little. Gives it back.
block* sim_space_take(space* s, uint64_t bytes);
void sim_space_give(space* s, block* b);

// Takes addresses without memory, a multiple of the granule, as a block on no shelf; NULL when
// there are none. Gives them back.
block* sim_space_take_addresses(space* s, uint64_t bytes);
void sim_space_give_addresses(space* s, block* b);

// Takes addresses for a pool, in multiples of the chunk and aligned to it: right after `tail`,
// where sim_space_has_chunks_after said that there is room, or with NULL where there is room to
// grow. Gives them back.
block* sim_space_take_chunks(space* s, uint64_t bytes, const block* tail);
bool sim_space_has_chunks_after(const space* s, const block* tail, uint64_t bytes);
void sim_space_give_chunks(space* s, block* b);

// Takes memory for addresses of whole granules of which none has any, and gives it back.
void sim_space_charge(space* s, uint64_t address, uint64_t bytes);
void sim_space_discharge(space* s, uint64_t address, uint64_t bytes);

// Makes `b` a live block of `requested` bytes; false, with nothing changed, when the host has no
// memory.
bool sim_space_enlist(space* s, block* b, uint64_t requested);
void sim_space_delist(space* s, block* b);

// The live block that begins at, or that holds, the address; NULL if there is none.
block* sim_space_block_at(const space* s, uint64_t address);
block* sim_space_block_around(const space* s, uint64_t address);

static inline uint64_t space_free(const space* s) { return s->memory - s->taken - s->occupied; }

static inline uint64_t space_granule(const space* s, uint64_t address) {
  return (address - s->base) / GRANULE_BYTES;
}

static inline bool space_is_charged(const space* s, uint64_t address) {
  uint64_t granule = space_granule(s, address);
  return s->charged[granule / 64] >> granule % 64 & 1;
}

static inline chunk* space_chunk(const space* s, uint64_t address) {
  return &s->chunks[(address - s->base) / CHUNK_BYTES];
}

static inline bool space_contains(const space* s, uint64_t address) {
  return address - s->base < s->bytes;
}

static inline char* space_alias(const space* s, uint64_t address) {
  return s->alias + (address - s->base);
}

// Notes that the bytes were read or written through the alias.
void sim_space_touch(space* s, uint64_t address, uint64_t bytes);

// Fills the bytes with zeros, at the cost of no host memory where they are many. Needs no lock.
void sim_space_clear(const space* s, uint64_t address, uint64_t bytes);

#endif  // CUDASIM_SPACE_H_
