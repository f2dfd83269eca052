// The blocks of a cached allocator: its segments, cut into blocks. Private.
//
//   segment  |-- live --|------ free ------|-- live --|-- set aside --|- free -|
//
// Within a segment no two neighbours are both free: they are joined when they become so. Free
// blocks are in a two-level index, live ones in a hash table by address. All of that is kept
// outside the memory, in nodes that come from slabs, so giving back never fails.
//
// Threads: none of it is safe; the allocator locks.
#ifndef TM_ALLOC_CACHED_BLOCKS_H_
#define TM_ALLOC_CACHED_BLOCKS_H_

#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>

#include "alloc/two_level.h"
#include "tm/base/attributes.h"
#include "tm/base/status.h"

typedef enum cached_state {
  CACHED_FREE,   // in the index
  CACHED_LIVE,   // in the table
  CACHED_ASIDE,  // in neither: its owner knows of it
} cached_state;

typedef struct cached_segment cached_segment;

typedef struct cached_block {
  two_level_block span;       // must be first; its links are those of the list that the block is on
  struct cached_block* left;  // neighbours in the segment, or NULL
  struct cached_block* right;
  cached_segment* segment;
  cached_state state;
} cached_block;

struct cached_segment {
  TAILQ_ENTRY(cached_segment) in_segments;
  char* base;
  size_t bytes;
  cached_block* first;
};

TAILQ_HEAD(cached_segments, cached_segment);

typedef struct cached_slab cached_slab;

typedef struct cached_blocks {
  two_level_index index;
  struct cached_segments segments;
  size_t segment_count;
  size_t free_segment_bytes;  // of the segments that are one free block
  size_t live_count;
  cached_block** table;
  unsigned table_log2;
  cached_slab* slabs;
  cached_block* spares;  // nodes of no block, through span.next
  size_t spare_count;
  size_t node_bytes;
} cached_blocks;

// `extra_bytes` follow each node, for its owner: see cached_block_extra.
void cached_blocks_init(cached_blocks* blocks, size_t extra_bytes);

// Nothing is in use any more, and the segments are gone.
void cached_blocks_deinit(cached_blocks* blocks);

// Zero when the block becomes live, and the caller's to reset before it becomes free.
static inline void* cached_block_extra(cached_block* block) { return block + 1; }

enum { CACHED_NODES_TO_TAKE = 2 };  // that taking one block uses at most

TM_NODISCARD tm_status cached_blocks_make_room(cached_blocks* blocks);

// Makes sure that one block can be taken, from a free one or from a new segment.
// Errors: TM_ERR_NO_MEMORY. On error nothing has changed.
TM_NODISCARD static inline tm_status cached_blocks_prepare(cached_blocks* blocks) {
  return TM_LIKELY(blocks->spare_count >= CACHED_NODES_TO_TAKE && blocks->table &&
                   blocks->live_count >> blocks->table_log2 == 0)
             ? TM_OK
             : cached_blocks_make_room(blocks);
}

// These two want a successful cached_blocks_prepare before. They make a block of exactly `bytes`
// live, out of the free block that fits best, or NULL; and out of a new segment that is large
// enough.
cached_block* cached_blocks_take(cached_blocks* blocks, size_t bytes);
cached_block* cached_blocks_take_of_new(cached_blocks* blocks, cached_segment* segment,
                                        size_t bytes);

// Adds a segment that is all free. Wants a cached_blocks_prepare before.
void cached_blocks_add(cached_blocks* blocks, cached_segment* segment);

// Takes the live block of `bytes` at `ptr` off the table, and sets it aside; NULL where there is
// none.
cached_block* cached_blocks_set_aside(cached_blocks* blocks, const void* ptr, size_t bytes);

// A block that is set aside becomes free, joined with free neighbours.
void cached_blocks_give(cached_blocks* blocks, cached_block* block);

// Whether the segment is one free block. blocks->free_segment_bytes are those of all of them.
bool cached_segment_is_free(const cached_segment* segment);

// The largest segment that is all free and at most `limit` bytes; NULL where there is none.
// O(segments).
cached_segment* cached_blocks_largest_free_segment(const cached_blocks* blocks, size_t limit);

// Takes a segment that is all free off everything. It is the caller's then.
void cached_blocks_remove(cached_blocks* blocks, cached_segment* segment);

// Whether every promise above holds. O(blocks).
bool cached_blocks_are_valid(const cached_blocks* blocks);

#endif  // TM_ALLOC_CACHED_BLOCKS_H_
