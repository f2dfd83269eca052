#include "cudasim/block.h"

#include <stddef.h>

static slab blocks = {.size = sizeof(block)};

//===-- Blocks --------------------------------------------------------------------------------===//

block* sim_block_create(struct device* device, uint64_t address, uint64_t size) {
  block* b = sim_slab_take(&blocks);
  if (!b) return NULL;
  *b = (block){.device = device};
  b->node.major = size;
  b->node.minor = address;
  return b;
}

bool sim_block_prepare(void) {
  void* b = sim_slab_take(&blocks);
  if (b) sim_slab_give(&blocks, b);
  return b;
}

block* sim_block_cut(block* b, uint64_t size) {
  block* front = sim_block_create(b->device, block_address(b), size);
  if (!front) return NULL;
  front->pool = b->pool;
  front->before = b->before;
  front->after = b;
  if (front->before) front->before->after = front;
  b->before = front;
  b->node.minor += size;
  b->node.major -= size;
  return front;
}

block* sim_block_join(block* b) {
  block* joined = b->after;
  joined->node.minor = block_address(b);
  joined->node.major += block_size(b);
  joined->before = b->before;
  if (joined->before) joined->before->after = joined;
  sim_slab_give(&blocks, b);
  return joined;
}

void sim_block_release_all(block* last) {
  while (last) {
    block* before = last->before;
    sim_slab_give(&blocks, last);
    last = before;
  }
}

void sim_block_drop(void) { sim_slab_drop(&blocks); }

//===-- Shelves -------------------------------------------------------------------------------===//

block* sim_shelf_best(const shelf* s, uint64_t size) {
  return (block*)sim_tree_at_least(&s->blocks, size, 0);
}

static void append_newest(shelf* s, block* b, uint64_t position) {
  b->position = position;
  b->older = s->newest;
  b->newer = NULL;
  *(s->newest ? &s->newest->newer : &s->oldest) = b;
  s->newest = b;
}

static void unlink_in_order(shelf* s, block* b) {
  *(b->older ? &b->older->newer : &s->oldest) = b->newer;
  *(b->newer ? &b->newer->older : &s->newest) = b->older;
}

void sim_shelf_put(shelf* s, block* b, uint64_t position) {
  b->shelf = s;
  sim_tree_insert(&s->blocks, &b->node);
  if (s->stream) append_newest(s, b, position);
}

void sim_shelf_pull(block* b) {
  sim_tree_remove(&b->shelf->blocks, &b->node);
  if (b->shelf->stream) unlink_in_order(b->shelf, b);
  b->shelf = NULL;
}

static bool is_boundary(const shelf* s, uint64_t address) {
  return s->boundary && address % s->boundary == 0;
}

block* sim_shelf_give(shelf* s, block* b, uint64_t position) {
  if (b->before && b->before->shelf == s && !is_boundary(s, block_address(b))) {
    sim_shelf_pull(b->before);
    b = sim_block_join(b->before);
  }
  if (b->after && b->after->shelf == s && !is_boundary(s, block_end(b))) {
    sim_shelf_pull(b->after);
    b = sim_block_join(b);
  }
  sim_shelf_put(s, b, position);
  return b;
}

block* sim_shelf_carve(block* b, uint64_t size) {
  shelf* s = b->shelf;
  if (block_size(b) == size) {
    sim_shelf_pull(b);
    return b;
  }
  sim_tree_remove(&s->blocks, &b->node);
  block* front = sim_block_cut(b, size);
  sim_tree_insert(&s->blocks, &b->node);
  return front;
}
