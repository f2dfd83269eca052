#include "cudasim/pool.h"

#include <stddef.h>

#include "cudasim/handle.h"
#include "cudasim/runtime.h"
#include "cudasim/slab.h"

// Blocks of one shelf that are looked at for one that is done.
#define TRIES 64

static slab pools = {.size = sizeof(pool)};
static slab shelves = {.size = sizeof(shelf)};

static uint64_t round_up(uint64_t value, uint64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

//===-- Chunks --------------------------------------------------------------------------------===//

static void note_reserved(pool* p, int64_t change) {
  p->reserved += (uint64_t)change;
  if (p->reserved > p->reserved_high) p->reserved_high = p->reserved;
}

// The part of a block that is whole chunks.
static uint64_t first_chunk(const block* b) { return round_up(block_address(b), CHUNK_BYTES); }

static uint64_t chunk_bytes(const block* b) {
  uint64_t first = first_chunk(b);
  uint64_t last = block_end(b) / CHUNK_BYTES * CHUNK_BYTES;
  return last > first ? last - first : 0;
}

// Gives the middle of `b`, which is on no shelf, to the device, and the rest back to the shelf.
// False when the host has no memory: then all of it goes back to the shelf.
static bool give_middle(pool* p, block* b, uint64_t address, uint64_t bytes) {
  uint64_t lead = address - block_address(b);
  block* front = lead ? sim_block_cut(b, lead) : NULL;
  bool has_rest = block_end(b) > address + bytes;
  block* middle = b;
  if (lead && !front) {
    sim_shelf_put(&p->settled, b, 0);
    return false;
  }
  if (has_rest) middle = sim_block_cut(b, bytes);
  if (front) sim_shelf_put(&p->settled, front, 0);
  if (has_rest) sim_shelf_give(&p->settled, b, 0);
  if (!middle) return false;
  if (middle == p->tail)
    p->tail = middle->before && middle->before->pool == p ? middle->before : NULL;
  note_reserved(p, -(int64_t)bytes);
  sim_space_give(&p->device->space, middle);
  return true;
}

// Gives up to `bytes` of whole unused chunks to the device, but none of `spared`; how many bytes.
static uint64_t give_chunks(pool* p, uint64_t bytes, const block* spared) {
  uint64_t given = 0;
  uint64_t size = UINT64_MAX;
  uint64_t address = UINT64_MAX;
  while (given < bytes) {
    block* b = (block*)sim_tree_at_most(&p->settled.blocks, size, address);
    if (!b || block_size(b) < CHUNK_BYTES) break;
    size = block_size(b);
    address = block_address(b) - 1;
    uint64_t part = chunk_bytes(b);
    if (part > bytes - given) part = bytes - given;
    if (!part || b == spared) continue;
    uint64_t first = first_chunk(b);
    sim_shelf_pull(b);
    if (!give_middle(p, b, first, part)) break;
    given += part;
  }
  return given;
}

void sim_pool_trim(pool* p, uint64_t keep) {
  if (p->reserved <= keep) return;
  give_chunks(p, (p->reserved - keep) / CHUNK_BYTES * CHUNK_BYTES, NULL);
}

// Puts on the settled shelf what the streams have done by now.
static void settle_done(pool* p) {
  for (shelf* s = p->pending; s; s = s->next_of_pool) sim_pool_settle(s, s->stream->completed);
}

bool sim_pool_relieve(device* d) {
  uint64_t given = 0;
  for (pool* p = d->pools; p; p = p->next_of_device) {
    settle_done(p);
    given += give_chunks(p, p->reserved, NULL);
  }
  return given;
}

//===-- Shelves -------------------------------------------------------------------------------===//

static shelf* pending_of(pool* p, stream* s) {
  for (shelf* found = s->shelves; found; found = found->next_of_stream) {
    if (found->pool == p) return found;
  }
  return NULL;
}

static shelf* make_pending(pool* p, stream* s) {
  shelf* made = pending_of(p, s);
  if (made) return made;
  made = sim_slab_take(&shelves);
  if (!made) return NULL;
  *made = (shelf){.stream = s, .pool = p, .next_of_pool = p->pending, .next_of_stream = s->shelves};
  p->pending = s->shelves = made;
  return made;
}

void sim_pool_settle(shelf* from, uint64_t position) {
  while (from->oldest && from->oldest->position <= position) {
    block* b = from->oldest;
    sim_shelf_pull(b);
    sim_shelf_give(&from->pool->settled, b, 0);
  }
}

static void unlink_pending(shelf* s) {
  shelf** link = &s->pool->pending;
  while (*link != s) link = &(*link)->next_of_pool;
  *link = s->next_of_pool;
  link = &s->stream->shelves;
  while (*link != s) link = &(*link)->next_of_stream;
  *link = s->next_of_stream;
}

static void reap(pool* p);

void sim_pool_dissolve(shelf* from) {
  pool* p = from->pool;
  sim_pool_settle(from, UINT64_MAX);
  unlink_pending(from);
  sim_slab_give(&shelves, from);
  reap(p);
}

//===-- Finding a block -----------------------------------------------------------------------===//

static block* smaller(block* a, block* b) {
  if (!a || !b) return a ? a : b;
  if (block_size(a) != block_size(b)) return block_size(a) < block_size(b) ? a : b;
  return block_address(a) < block_address(b) ? a : b;
}

// Up to which position of its stream the memory on a shelf may be used in `s` as it is.
static uint64_t usable_position(const pool* p, const shelf* from, const stream* s) {
  uint64_t done = p->is_opportunistic ? from->stream->completed : 0;
  uint64_t known = p->follows_events ? sim_history_of(s->known, from->stream->slot) : 0;
  return done > known ? done : known;
}

static block* find_done(const shelf* from, uint64_t size, uint64_t position) {
  block* b = sim_shelf_best(from, size);
  for (int i = 0; b && i < TRIES; ++i) {
    if (b->position <= position) return b;
    b = (block*)sim_tree_at_least(&from->blocks, block_size(b), block_address(b) + 1);
  }
  return NULL;
}

static block* find_of_others(const pool* p, const stream* s, uint64_t size) {
  block* best = NULL;
  for (const shelf* from = p->pending; from; from = from->next_of_pool) {
    if (from->stream == s) continue;
    best = smaller(best, find_done(from, size, usable_position(p, from, s)));
  }
  return best;
}

static bool is_usable(const pool* p, const shelf* own, const block* b) {
  return b && b->shelf && (b->shelf == &p->settled || b->shelf == own);
}

// Bytes of the run of usable blocks around `b`, a usable block.
static uint64_t run_size(const pool* p, const shelf* own, const block* b) {
  uint64_t size = block_size(b);
  for (const block* n = b->before; is_usable(p, own, n); n = n->before) size += block_size(n);
  for (const block* n = b->after; is_usable(p, own, n); n = n->after) size += block_size(n);
  return size;
}

// Makes one block of the run around `b`. It is the stream's if any of it was.
static block* gather(pool* p, shelf* own, block* b) {
  while (is_usable(p, own, b->before)) b = b->before;
  uint64_t position = b->shelf == own ? b->position : 0;
  sim_shelf_pull(b);
  while (is_usable(p, own, b->after)) {
    const block* next = b->after;
    if (next->shelf == own && next->position > position) position = next->position;
    sim_shelf_pull(b->after);
    b = sim_block_join(b);
  }
  sim_shelf_put(position ? own : &p->settled, b, position);
  return b;
}

static block* find_run(pool* p, shelf* own, uint64_t size) {
  if (!own) return NULL;
  for (block* b = own->oldest; b; b = b->newer) {
    if (run_size(p, own, b) >= size) return gather(p, own, b);
  }
  return NULL;
}

static block* find(pool* p, stream* s, shelf* own, uint64_t size) {
  block* b = sim_shelf_best(&p->settled, size);
  if (own) b = smaller(b, sim_shelf_best(own, size));
  if (!b) b = find_of_others(p, s, size);
  return b ? b : find_run(p, own, size);
}

// Takes chunks so that the pool's end has room for `size` bytes.
static block* grow(pool* p, shelf* own, uint64_t size) {
  space* memory = &p->device->space;
  block* end = is_usable(p, own, p->tail) ? gather(p, own, p->tail) : NULL;
  uint64_t more = round_up(size - (end ? block_size(end) : 0), CHUNK_BYTES);
  bool extends = p->tail && sim_space_has_chunks_after(memory, p->tail, more);
  if (!extends) more = round_up(size, CHUNK_BYTES);
  give_chunks(p, more, end);
  if (more > p->limit - p->reserved) return NULL;
  block* b = sim_space_take_chunks(memory, more, extends ? p->tail : NULL);
  if (!b) return NULL;
  b->pool = p;
  p->tail = b;
  note_reserved(p, (int64_t)more);
  sim_shelf_put(&p->settled, b, 0);
  return gather(p, own, b);
}

// A block that is not done, of a stream that `s` is put behind.
static block* find_dependent(pool* p, stream* s, uint64_t size) {
  block* best = NULL;
  for (const shelf* from = p->pending; from && p->adds_dependencies; from = from->next_of_pool) {
    best = smaller(best, sim_shelf_best(from, size));
  }
  if (!best) return NULL;
  return sim_stream_follow(s, best->shelf->stream, best->position, NULL) ? NULL : best;
}

//===-- Allocating and freeing ----------------------------------------------------------------===//

static block* obtain(pool* p, stream* s, uint64_t size) {
  shelf* own = pending_of(p, s);
  block* b = find(p, s, own, size);
  if (!b) b = grow(p, own, size);
  if (!b && sim_pool_relieve(p->device)) {
    b = find(p, s, own, size);
    if (!b) b = grow(p, own, size);
  }
  if (!b) b = find_dependent(p, s, size);
  return b ? sim_shelf_carve(b, size) : NULL;
}

cudaError_t sim_pool_alloc(pool* p, stream* s, uint64_t size, void** out) {
  *out = NULL;
  if (size > p->device->space.bytes) {
    return sim_refuse(cudaErrorMemoryAllocation, "%llu bytes asked, the device has %llu",
                      (unsigned long long)size, (unsigned long long)p->device->space.memory);
  }
  cudaError_t error = sim_stream_enter(s);
  if (error) return error;
  block* b = obtain(p, s, round_up(size, UNIT_BYTES));
  if (!b) {
    return sim_refuse(cudaErrorMemoryAllocation,
                      "%llu bytes asked of a pool; it has %llu reserved and %llu used, the device "
                      "%llu of %llu taken",
                      (unsigned long long)size, (unsigned long long)p->reserved,
                      (unsigned long long)p->used, (unsigned long long)p->device->space.taken,
                      (unsigned long long)p->device->space.memory);
  }
  if (!sim_space_enlist(&p->device->space, b, size)) {
    sim_shelf_give(&p->settled, b, 0);
    return cudaErrorMemoryAllocation;
  }
  sim_stream_mark(s);
  p->used += size;
  if (p->used > p->used_high) p->used_high = p->used;
  ++p->live;
  *out = (void*)(uintptr_t)block_address(b);
  return cudaSuccess;
}

cudaError_t sim_pool_free(block* b, stream* s) {
  pool* p = b->pool;
  shelf* to = &p->settled;
  if (s) {
    cudaError_t error = sim_stream_enter(s);
    to = error ? NULL : make_pending(p, s);
    if (!to) return cudaErrorMemoryAllocation;
  }
  sim_space_delist(&p->device->space, b);
  p->used -= b->requested;
  --p->live;
  sim_shelf_give(to, b, s ? sim_stream_mark(s) : 0);
  reap(p);
  return cudaSuccess;
}

//===-- Lifetime ------------------------------------------------------------------------------===//

pool* sim_pool_create(device* d, uint64_t limit) {
  pool* p = sim_slab_take(&pools);
  if (!p) return NULL;
  *p = (pool){.device = d,
              .limit = limit,
              .follows_events = 1,
              .is_opportunistic = 1,
              .adds_dependencies = 1,
              .accessible = UINT64_C(1) << d->id};
  p->settled.pool = p;
  p->handle = sim_handle_open(HANDLE_POOL, p);
  if (!p->handle) {
    sim_slab_give(&pools, p);
    return NULL;
  }
  p->next_of_device = d->pools;
  d->pools = p;
  return p;
}

pool* sim_pool_of(cudaMemPool_t handle) { return sim_handle_object(HANDLE_POOL, handle); }

static void unlink_pool(pool* p) {
  pool** link = &p->device->pools;
  while (*link != p) link = &(*link)->next_of_device;
  *link = p->next_of_device;
}

// Ends a closed pool once nothing of it is live or pending.
static void reap(pool* p) {
  if (p->handle || p->live) return;
  settle_done(p);
  for (const shelf* s = p->pending; s; s = s->next_of_pool) {
    if (s->oldest) return;
  }
  while (p->pending) {
    shelf* s = p->pending;
    unlink_pending(s);
    sim_slab_give(&shelves, s);
  }
  give_chunks(p, p->reserved, NULL);
  if (p->reserved) return;  // the host has no memory for it: with the next wait
  unlink_pool(p);
  sim_slab_give(&pools, p);
}

void sim_pool_close(pool* p) {
  sim_handle_close(p->handle);
  p->handle = NULL;
  if (p->device->pool == p) p->device->pool = p->device->default_pool;
  reap(p);
}

void sim_pool_trim_to_thresholds(device* d) {
  for (pool *p = d->pools, *next; p; p = next) {
    next = p->next_of_device;
    sim_pool_trim(p, p->threshold);
    reap(p);
  }
}

void sim_pool_forget_all(device* d) {
  while (d->pools) {
    pool* p = d->pools;
    sim_handle_close(p->handle);
    unlink_pool(p);
    sim_slab_give(&pools, p);
  }
}

void sim_pool_drop(void) {
  sim_slab_drop(&pools);
  sim_slab_drop(&shelves);
}
