#include "alloc/cached_blocks.h"

#include <stdint.h>

#include "tm/alloc/bookkeeping.h"

enum {
  SLAB_NODES = 64,
  TABLE_LOG2 = 8,  // of the first table
};

struct cached_slab {
  cached_slab* next;
  char padding[56];  // nodes stay on cache lines of their own
};

_Static_assert(sizeof(cached_block) == 64, "a block without extra is one cache line");
_Static_assert(sizeof(cached_slab) == 64, "the first node of a slab is aligned like the others");

//===-- Nodes ---------------------------------------------------------------===//

void cached_blocks_init(cached_blocks* blocks, size_t extra_bytes) {
  *blocks = (cached_blocks){.node_bytes = sizeof(cached_block) + extra_bytes};
  two_level_init(&blocks->index);
  TAILQ_INIT(&blocks->segments);
}

void cached_blocks_deinit(cached_blocks* blocks) {
  while (blocks->slabs) {
    cached_slab* slab = blocks->slabs;
    blocks->slabs = slab->next;
    tm_bookkeeping_free(slab);
  }
  tm_bookkeeping_free(blocks->table);
}

static inline void give_node(cached_blocks* blocks, cached_block* node) {
  node->span.next = blocks->spares ? &blocks->spares->span : NULL;
  blocks->spares = node;
  blocks->spare_count++;
}

static inline cached_block* take_node(cached_blocks* blocks) {
  cached_block* node = blocks->spares;
  blocks->spares = (cached_block*)node->span.next;
  blocks->spare_count--;
  return node;
}

static tm_status add_slab(cached_blocks* blocks) {
  cached_slab* slab =
      tm_bookkeeping_alloc(sizeof *slab + SLAB_NODES * blocks->node_bytes, "a cache's block nodes");
  if (!slab) {
    return tm_last_status();
  }
  slab->next = blocks->slabs;
  blocks->slabs = slab;
  char* nodes = (char*)(slab + 1);
  for (size_t i = SLAB_NODES; i-- > 0;) {
    give_node(blocks, (cached_block*)(void*)(nodes + i * blocks->node_bytes));
  }
  return TM_OK;
}

//===-- Live blocks ---------------------------------------------------------===//

static inline cached_block** bucket_of(cached_block** table, unsigned log2, const void* ptr) {
  const uint64_t hash = ((uint64_t)(uintptr_t)ptr >> TWO_LEVEL_STEP_LOG2) * 0x9e3779b97f4a7c15u;
  return &table[hash >> (64 - log2)];
}

static inline void link_live(cached_block** table, unsigned log2, cached_block* block) {
  cached_block** bucket = bucket_of(table, log2, block->span.base);
  block->span.next = *bucket ? &(*bucket)->span : NULL;
  *bucket = block;
}

static void move_bucket(cached_block* block, cached_block** table, unsigned log2) {
  while (block) {
    cached_block* next = (cached_block*)block->span.next;
    link_live(table, log2, block);
    block = next;
  }
}

static tm_status grow_table(cached_blocks* blocks) {
  const unsigned log2 = blocks->table ? blocks->table_log2 + 1 : TABLE_LOG2;
  cached_block** table =
      tm_bookkeeping_alloc(((size_t)1 << log2) * sizeof *table, "a cache's table of blocks");
  if (!table) {
    return tm_last_status();
  }
  for (size_t i = 0; blocks->table && i < (size_t)1 << blocks->table_log2; i++) {
    move_bucket(blocks->table[i], table, log2);
  }
  tm_bookkeeping_free(blocks->table);
  blocks->table = table;
  blocks->table_log2 = log2;
  return TM_OK;
}

static inline void make_live(cached_blocks* blocks, cached_block* block) {
  block->state = CACHED_LIVE;
  link_live(blocks->table, blocks->table_log2, block);
  blocks->live_count++;
}

cached_block* cached_blocks_set_aside(cached_blocks* blocks, const void* ptr, size_t bytes) {
  if (!blocks->table) {
    return NULL;
  }
  cached_block** bucket = bucket_of(blocks->table, blocks->table_log2, ptr);
  two_level_block* before = NULL;
  for (cached_block* block = *bucket; block; block = (cached_block*)block->span.next) {
    if (block->span.base == ptr && block->span.bytes == bytes) {
      __builtin_prefetch(block->left);  // to join it with them comes next
      __builtin_prefetch(block->right);
      if (before) {
        before->next = block->span.next;
      } else {
        *bucket = (cached_block*)block->span.next;
      }
      block->state = CACHED_ASIDE;
      blocks->live_count--;
      return block;
    }
    before = &block->span;
  }
  return NULL;
}

//===-- Taking --------------------------------------------------------------===//

tm_status cached_blocks_make_room(cached_blocks* blocks) {
  if (blocks->spare_count < CACHED_NODES_TO_TAKE) {
    TM_TRY(add_slab(blocks));
  }
  if (!blocks->table || blocks->live_count >> blocks->table_log2) {
    TM_TRY(grow_table(blocks));
  }
  return TM_OK;
}

// The block alone makes up a segment.
static inline bool is_whole(const cached_block* block) { return !block->left && !block->right; }

static inline void make_free(cached_blocks* blocks, cached_block* block) {
  block->state = CACHED_FREE;
  blocks->free_segment_bytes += is_whole(block) ? block->span.bytes : 0;
  two_level_insert(&blocks->index, &block->span);
}

// Cuts what is beyond the first `bytes` off a block that is in no list, as a free one.
static inline void cut(cached_blocks* blocks, cached_block* block, size_t bytes) {
  if (block->span.bytes == bytes) {
    return;
  }
  cached_block* rest = take_node(blocks);
  rest->span.base = block->span.base + bytes;
  rest->span.bytes = block->span.bytes - bytes;
  rest->left = block;
  rest->right = block->right;
  rest->segment = block->segment;
  if (block->right) {
    block->right->left = rest;
  }
  block->right = rest;
  block->span.bytes = bytes;
  make_free(blocks, rest);
}

cached_block* cached_blocks_take(cached_blocks* blocks, size_t bytes) {
  cached_block* block = (cached_block*)two_level_find(&blocks->index, bytes);
  if (!block) {
    return NULL;
  }
  two_level_remove(&blocks->index, &block->span);
  blocks->free_segment_bytes -= is_whole(block) ? block->span.bytes : 0;
  cut(blocks, block, bytes);
  make_live(blocks, block);
  return block;
}

static cached_block* add_segment(cached_blocks* blocks, cached_segment* segment) {
  cached_block* block = take_node(blocks);
  block->span.base = segment->base;
  block->span.bytes = segment->bytes;
  block->left = NULL;
  block->right = NULL;
  block->segment = segment;
  segment->first = block;
  TAILQ_INSERT_TAIL(&blocks->segments, segment, in_segments);
  blocks->segment_count++;
  return block;
}

cached_block* cached_blocks_take_of_new(cached_blocks* blocks, cached_segment* segment,
                                        size_t bytes) {
  cached_block* block = add_segment(blocks, segment);
  cut(blocks, block, bytes);
  make_live(blocks, block);
  return block;
}

void cached_blocks_add(cached_blocks* blocks, cached_segment* segment) {
  make_free(blocks, add_segment(blocks, segment));
}

//===-- Giving back ---------------------------------------------------------===//

// Two neighbours, both in no list, become the left one.
static inline void join(cached_blocks* blocks, cached_block* left, cached_block* right) {
  left->span.bytes += right->span.bytes;
  left->right = right->right;
  if (right->right) {
    right->right->left = left;
  }
  give_node(blocks, right);
}

void cached_blocks_give(cached_blocks* blocks, cached_block* block) {
  if (block->right && block->right->state == CACHED_FREE) {
    two_level_remove(&blocks->index, &block->right->span);
    join(blocks, block, block->right);
  }
  cached_block* left = block->left;
  if (left && left->state == CACHED_FREE) {
    two_level_remove(&blocks->index, &left->span);
    join(blocks, left, block);
    block = left;
  }
  make_free(blocks, block);
}

bool cached_segment_is_free(const cached_segment* segment) {
  return segment->first->state == CACHED_FREE && is_whole(segment->first);
}

cached_segment* cached_blocks_largest_free_segment(const cached_blocks* blocks, size_t limit) {
  cached_segment* largest = NULL;
  cached_segment* segment;
  if (blocks->free_segment_bytes == 0) {
    return NULL;
  }
  TAILQ_FOREACH(segment, &blocks->segments, in_segments) {
    if (cached_segment_is_free(segment) && segment->bytes <= limit &&
        (!largest || segment->bytes > largest->bytes)) {
      largest = segment;
    }
  }
  return largest;
}

void cached_blocks_remove(cached_blocks* blocks, cached_segment* segment) {
  two_level_remove(&blocks->index, &segment->first->span);
  blocks->free_segment_bytes -= segment->bytes;
  give_node(blocks, segment->first);
  segment->first = NULL;
  TAILQ_REMOVE(&blocks->segments, segment, in_segments);
  blocks->segment_count--;
}

//===-- Validity ------------------------------------------------------------===//

// The blocks of a segment cover it in order, and no two neighbours are both free.
static bool segment_is_valid(const cached_segment* segment, size_t* live) {
  const char* at = segment->base;
  const cached_block* left = NULL;
  for (const cached_block* block = segment->first; block; block = block->right) {
    if (block->span.base != at || block->span.bytes == 0 || block->left != left ||
        block->segment != segment ||
        (left && left->state == CACHED_FREE && block->state == CACHED_FREE)) {
      return false;
    }
    *live += block->state == CACHED_LIVE;
    at += block->span.bytes;
    left = block;
  }
  return at == segment->base + segment->bytes;
}

bool cached_blocks_are_valid(const cached_blocks* blocks) {
  size_t live = 0;
  size_t segments = 0;
  size_t free_bytes = 0;
  const cached_segment* segment;
  TAILQ_FOREACH(segment, &blocks->segments, in_segments) {
    segments++;
    free_bytes += cached_segment_is_free(segment) ? segment->bytes : 0;
    if (!segment_is_valid(segment, &live)) {
      return false;
    }
  }
  return live == blocks->live_count && segments == blocks->segment_count &&
         free_bytes == blocks->free_segment_bytes;
}
