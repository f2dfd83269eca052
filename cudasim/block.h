// Blocks of device memory. The blocks of an address space tile it; each is live (the program has
// it), or lies free on one shelf.
//
//   |<- live ->|<- small ->|<- unused ->|     |<- live ->|<- pool ->|<- pool, stream 3 ->|<- unused
//   ->|
//
// Neighbours on one shelf are always one block. A shelf hands out the smallest block that fits, of
// those the one at the lowest address. Guarded by the runtime's lock.
#ifndef CUDASIM_BLOCK_H_
#define CUDASIM_BLOCK_H_

#include <stdbool.h>
#include <stdint.h>

#include "cudasim/slab.h"
#include "cudasim/tree.h"

struct device;
struct graph_memory;
struct pool;
struct shelf;
struct stream;

typedef struct block {
  tree_node node;  // must be first; major is the size in bytes, minor the address
  struct block* before;
  struct block* after;         // neighbours in the address space
  struct device* device;       // whose memory it is
  struct pool* pool;           // the pool whose memory it is, or NULL
  struct graph_memory* graph;  // the place of a graph that it is, or NULL
  struct shelf* shelf;         // NULL while live or in between
  struct block* older;
  struct block* newer;  // on the shelf of a stream: in the order of their frees
  uint64_t position;    // on the shelf of a stream: of the free, in that stream
  uint64_t requested;   // live: bytes that were asked for
} block;

// Free blocks that may be used for the same things.
typedef struct shelf {
  tree blocks;
  struct stream* stream;  // blocks freed in this stream, of which the host has not waited; or NULL
  struct pool* pool;      // or NULL
  uint64_t boundary;      // no block reaches over a multiple of it; 0 is no boundary
  block* oldest;
  block* newest;  // with a stream: in the order of their frees
  struct shelf* next_of_pool;
  struct shelf* next_of_stream;
} shelf;

static inline uint64_t block_address(const block* b) { return b->node.minor; }
static inline uint64_t block_size(const block* b) { return b->node.major; }
static inline uint64_t block_end(const block* b) { return b->node.minor + b->node.major; }

// A block without neighbours on no shelf; NULL when the host has no memory.
block* sim_block_create(struct device* device, uint64_t address, uint64_t size);

// Cuts the first `size` bytes off `b`, which is on no shelf and larger, and returns them; NULL,
// with nothing changed, when the host has no memory. A block keeps its identity at its end.
block* sim_block_cut(block* b, uint64_t size);

// Makes sure that the next block that is created or cut off can be. False when the host has no
// memory.
bool sim_block_prepare(void);

// Makes one of `b` and the block after it, both on no shelf, and returns it.
block* sim_block_join(block* b);

// Forgets `last` and all blocks before it, in whatever state they are.
void sim_block_release_all(block* last);

// Frees the bookkeeping of all blocks at once.
void sim_block_drop(void);

// The smallest block of at least `size` bytes, or NULL. It stays on the shelf.
block* sim_shelf_best(const shelf* s, uint64_t size);

// Puts `b` on the shelf as it is, as the newest, or takes it off its shelf.
void sim_shelf_put(shelf* s, block* b, uint64_t position);
void sim_shelf_pull(block* b);

// Puts `b` on the shelf together with its neighbours there, and returns what they became.
block* sim_shelf_give(shelf* s, block* b, uint64_t position);

// Takes the first `size` bytes of `b` off its shelf and leaves the rest there, in its place; NULL,
// with nothing changed, when the host has no memory.
block* sim_shelf_carve(block* b, uint64_t size);

#endif  // CUDASIM_BLOCK_H_
