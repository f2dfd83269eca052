#include "cudasim/pool.h"

#include <stddef.h>

#include "cudasim/graph_memory.h"
#include "cudasim/handle.h"
#include "cudasim/runtime.h"
#include "cudasim/slab.h"

// Blocks of one shelf that are looked at for one that is ordered before the allocation.
#define TRIES 64

static slab pools = {.size = sizeof(pool)};
static slab shelves = {.size = sizeof(shelf)};
static uint64_t last_free;  // counts stream-ordered frees

static uint64_t round_up(uint64_t value, uint64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

static uint64_t round_down(uint64_t value, uint64_t multiple) {
  return value / multiple * multiple;
}

static uint64_t lesser(uint64_t a, uint64_t b) { return a < b ? a : b; }

static uint64_t greater(uint64_t a, uint64_t b) { return a > b ? a : b; }

//===-- Memory --------------------------------------------------------------------------------===//

// Bytes that the pool can still reserve.
static uint64_t room(const pool* p) {
  const space* s = &p->device->space;
  return lesser(p->limit - p->reserved, space_free(s));
}

static void charge_chunk(pool* p, uint64_t address) {
  space* s = &p->device->space;
  sim_space_charge(s, address, CHUNK_BYTES);
  *space_chunk(s, address) = (chunk){0};
  p->reserved += CHUNK_BYTES;
  p->reserved_high = greater(p->reserved, p->reserved_high);
}

static void discharge_chunk(pool* p, uint64_t address) {
  sim_space_discharge(&p->device->space, address, CHUNK_BYTES);
  p->reserved -= CHUNK_BYTES;
}

static bool are_streams_observed(const chunk* c) {
  for (int i = 0; i < CHUNK_FREES; ++i) {
    const stream* s = c->frees[i].stream;
    if (s && s->observed < c->frees[i].position) return false;
  }
  return !c->is_crowded;
}

static bool are_devices_observed(const chunk* c) {
  for (uint64_t rest = c->devices; rest; rest &= rest - 1) {
    if (sim_device_at(__builtin_ctzll(rest))->observed_free < c->serial) return false;
  }
  return true;
}

// Whether the host has waited for all frees in the chunk, by stream or by device.
static bool is_observed(const chunk* c) {
  return are_streams_observed(c) || are_devices_observed(c);
}

static void note_free_in_chunk(chunk* c, stream* s, uint64_t position, uint64_t serial) {
  if (is_observed(c)) *c = (chunk){0};
  c->serial = serial;
  c->devices |= UINT64_C(1) << s->device->id;
  for (int i = 0; i < CHUNK_FREES; ++i) {
    if (c->frees[i].stream && c->frees[i].stream != s) continue;
    c->frees[i].stream = s;
    c->frees[i].position = position;
    return;
  }
  c->is_crowded = true;
}

static void note_free(const block* b, stream* s, uint64_t position) {
  uint64_t serial = ++last_free;
  uint64_t first = round_down(block_address(b), CHUNK_BYTES);
  for (uint64_t address = first; address < block_end(b); address += CHUNK_BYTES) {
    note_free_in_chunk(space_chunk(&b->device->space, address), s, position, serial);
  }
}

uint64_t sim_pool_last_free(void) { return last_free; }

// Gives up to `bytes` of memory at free addresses to the device, from their end; how many bytes.
static uint64_t give_within(pool* p, uint64_t start, uint64_t end, uint64_t bytes,
                            bool must_be_observed) {
  const space* s = &p->device->space;
  uint64_t first = round_up(start, CHUNK_BYTES);
  uint64_t given = 0;
  for (end = round_down(end, CHUNK_BYTES); end > first && given < bytes; end -= CHUNK_BYTES) {
    uint64_t address = end - CHUNK_BYTES;
    if (!space_is_charged(s, address)) continue;
    if (must_be_observed && !is_observed(space_chunk(s, address))) continue;
    discharge_chunk(p, address);
    given += CHUNK_BYTES;
  }
  return given;
}

// The same for all blocks on a shelf, the largest first.
static uint64_t give_from(pool* p, const shelf* from, uint64_t bytes, bool must_be_observed) {
  uint64_t given = 0;
  const tree_node* node = sim_tree_at_most(&from->blocks, UINT64_MAX, UINT64_MAX);
  while (node && node->major >= CHUNK_BYTES && given < bytes) {
    const block* b = (const block*)node;
    given += give_within(p, block_address(b), block_end(b), bytes - given, must_be_observed);
    node = sim_tree_at_most(&from->blocks, node->major, node->minor - 1);
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

static void unlink_pending(shelf* s) {
  shelf** link = &s->pool->pending;
  while (*link != s) link = &(*link)->next_of_pool;
  *link = s->next_of_pool;
  link = &s->stream->shelves;
  while (*link != s) link = &(*link)->next_of_stream;
  *link = s->next_of_stream;
}

// Makes everybody's what was freed up to `position`.
static void settle(shelf* from, uint64_t position) {
  while (from->oldest && from->oldest->position <= position) {
    block* b = from->oldest;
    sim_shelf_pull(b);
    sim_shelf_give(&from->pool->done, b, 0);
  }
}

static void settle_done(pool* p) {
  for (shelf* s = p->pending; s; s = s->next_of_pool) {
    settle(s, p->is_opportunistic ? s->stream->completed : s->stream->observed);
  }
}

static bool has_pending(const pool* p) {
  for (const shelf* s = p->pending; s; s = s->next_of_pool) {
    if (s->oldest) return true;
  }
  return false;
}

// Gives the addresses back when nothing is left at any.
static void give_addresses(pool* p) {
  if (p->live || p->reserved || has_pending(p)) return;
  for (block* b; (b = sim_shelf_best(&p->done, 0));) {
    sim_shelf_pull(b);
    sim_space_give_chunks(&p->device->space, b);
  }
  p->tail = NULL;
}

//===-- Runs ----------------------------------------------------------------------------------===//

// Neighbouring free blocks that one allocation may use.
typedef struct run {
  block* first;       // NULL: there is none
  uint64_t size;      // bytes of all
  shelf* home;        // where they go if they are not used after all
  uint64_t position;  // there
  bool is_end;        // the pool's addresses can go on behind it
} run;

static bool is_usable(const pool* p, const shelf* own, const block* b) {
  return b && b->shelf && (b->shelf == &p->done || b->shelf == own);
}

static run run_around(pool* p, shelf* own, block* b) {
  while (is_usable(p, own, b->before)) b = b->before;
  run r = {.first = b, .home = &p->done};
  for (; is_usable(p, own, b); b = b->after) {
    r.size += block_size(b);
    r.is_end |= b == p->tail;
    if (b->shelf != own) continue;
    r.home = own;
    r.position = greater(r.position, b->position);
  }
  return r;
}

static run run_of(const pool* p, block* b) {
  return (run){.first = b,
               .size = block_size(b),
               .home = b->shelf,
               .position = b->position,
               .is_end = b == p->tail};
}

// The smaller run, or the first of equal ones. The end of the pool is as large as memory.
static run smaller(run a, run b) {
  if (!a.first || !b.first) return a.first ? a : b;
  if (a.is_end != b.is_end) return a.is_end ? b : a;
  if (a.size != b.size) return a.size < b.size ? a : b;
  return block_address(a.first) <= block_address(b.first) ? a : b;
}

static block* next_larger(const block* b) {
  return (block*)sim_tree_at_least(&b->shelf->blocks, block_size(b), block_address(b) + 1);
}

static bool is_beside(const shelf* own, const block* b) {
  return own && ((b->before && b->before->shelf == own) || (b->after && b->after->shelf == own));
}

// The run at the end is not for this. Everybody's blocks beside its own ones are found from those.
static run find_own(pool* p, shelf* own, uint64_t size) {
  run best = {0};
  for (block* b = own ? own->oldest : NULL; b; b = b->newer) {
    run r = run_around(p, own, b);
    if (r.size >= size && !r.is_end) best = smaller(best, r);
  }
  block* b = sim_shelf_best(&p->done, size);
  while (b && (b == p->tail || is_beside(own, b))) b = next_larger(b);
  return b ? smaller(best, run_of(p, b)) : best;
}

static run find_ordered(const pool* p, const stream* s, uint64_t size) {
  run best = {0};
  for (const shelf* from = p->pending; from && p->follows_events; from = from->next_of_pool) {
    uint64_t position = from->stream == s ? 0 : sim_history_of(s->known, from->stream->slot);
    if (!from->oldest || from->oldest->position > position) continue;
    block* b = sim_shelf_best(from, size);
    for (int i = 0; b && b->position > position; ++i) b = i < TRIES ? next_larger(b) : NULL;
    if (b) best = smaller(best, run_of(p, b));
  }
  return best;
}

// The run at the end, with further addresses as far as it needs them.
static run find_end(pool* p, shelf* own, uint64_t size) {
  space* s = &p->device->space;
  run end = {0};
  if (is_usable(p, own, p->tail)) end = run_around(p, own, p->tail);
  if (end.size >= size) return end;
  uint64_t more = round_up(size - end.size, CHUNK_BYTES);
  block* b;
  if (p->tail && sim_space_has_chunks_after(s, p->tail, more)) {
    b = sim_space_take_chunks(s, more, p->tail);
  } else {
    b = sim_space_take_chunks(s, round_up(size, CHUNK_BYTES), NULL);
  }
  if (!b) return (run){0};
  b->pool = p;
  p->tail = b;
  return run_around(p, own, sim_shelf_give(&p->done, b, 0));
}

// Takes the first `size` bytes of the run off their shelves. Needs one block at most.
static block* take(const run* r, uint64_t size) {
  block* taken = NULL;
  for (block* b = r->first; size;) {
    uint64_t part = lesser(size, block_size(b));
    block* piece = sim_shelf_carve(b, part);
    b = piece->after;
    size -= part;
    taken = taken ? sim_block_join(taken) : piece;
  }
  return taken;
}

//===-- Allocating ----------------------------------------------------------------------------===//

// Takes up to `bytes` of memory from the free runs of the last addresses, from their end: the same
// chunks whether or not the stream has done its frees.
static void give_from_runs(pool* p, const shelf* own, uint64_t bytes) {
  uint64_t end = 0;
  for (const block* b = p->tail; b && b->pool == p && bytes; b = b->before) {
    if (!is_usable(p, own, b)) continue;
    if (!is_usable(p, own, b->after)) end = block_end(b);
    if (is_usable(p, own, b->before)) continue;
    bytes -= give_within(p, block_address(b), end, bytes, false);
  }
}

// Makes `need` bytes of memory available to the pool, if that can be.
static bool find_memory(pool* p, const shelf* own, uint64_t need) {
  give_from_runs(p, own, need);
  if (room(p) < need) give_from(p, &p->done, need - room(p), false);
  if (room(p) < need && p->limit - p->reserved >= need) sim_pool_relieve(p->device, p);
  return room(p) >= need;
}

// Sees to it that all of `b` has memory.
static bool charge(pool* p, const shelf* own, const block* b) {
  const space* s = &p->device->space;
  uint64_t first = round_down(block_address(b), CHUNK_BYTES);
  uint64_t need = 0;
  for (uint64_t address = first; address < block_end(b); address += CHUNK_BYTES) {
    if (!space_is_charged(s, address)) need += CHUNK_BYTES;
  }
  if (!need) return true;
  if (!find_memory(p, own, need)) return false;
  for (uint64_t address = first; address < block_end(b); address += CHUNK_BYTES) {
    if (!space_is_charged(s, address)) charge_chunk(p, address);
  }
  return true;
}

static block* take_charged(pool* p, const shelf* own, run r, uint64_t size) {
  if (!r.first) return NULL;
  block* b = take(&r, size);
  if (charge(p, own, b)) return b;
  sim_shelf_give(r.home, b, r.position);
  return NULL;
}

// Takes what another stream has not done yet, and puts `s` behind that.
static block* take_dependent(pool* p, stream* s, uint64_t size) {
  run best = {0};
  for (const shelf* from = p->pending; from && p->adds_dependencies; from = from->next_of_pool) {
    block* b = from->stream == s ? NULL : sim_shelf_best(from, size);
    if (b) best = smaller(best, run_of(p, b));
  }
  if (!best.first) return NULL;
  if (sim_stream_follow(s, best.home->stream, best.position, NULL)) return NULL;
  return take_charged(p, NULL, best, size);
}

static block* obtain(pool* p, stream* s, uint64_t size) {
  if (!sim_block_prepare()) return NULL;
  settle_done(p);
  shelf* own = pending_of(p, s);
  run r = smaller(find_own(p, own, size), find_ordered(p, s, size));
  if (!r.first) r = find_end(p, own, size);
  block* b = take_charged(p, own, r, size);
  return b || !sim_block_prepare() ? b : take_dependent(p, s, size);
}

static cudaError_t refuse_memory(const pool* p, uint64_t size) {
  return sim_refuse(cudaErrorMemoryAllocation,
                    "%llu bytes asked of a pool with %llu used of %llu reserved; %llu of %llu of "
                    "device %d taken",
                    (unsigned long long)size, (unsigned long long)p->used,
                    (unsigned long long)p->reserved, (unsigned long long)p->device->space.taken,
                    (unsigned long long)p->device->space.memory, p->device->id);
}

cudaError_t sim_pool_alloc(pool* p, stream* s, uint64_t size, void** out) {
  *out = NULL;
  if (size > p->device->space.memory) return refuse_memory(p, size);
  cudaError_t error = sim_stream_enter(s);
  if (error) return error;
  block* b = obtain(p, s, round_up(size, UNIT_BYTES));
  if (!b) return refuse_memory(p, size);
  if (!sim_space_enlist(&p->device->space, b, size)) {
    sim_shelf_give(&p->done, b, 0);
    return cudaErrorMemoryAllocation;
  }
  sim_stream_mark(s);
  p->used += size;
  p->used_high = greater(p->used, p->used_high);
  ++p->live;
  *out = (void*)(uintptr_t)block_address(b);
  return cudaSuccess;
}

//===-- Freeing and trimming ------------------------------------------------------------------===//

static void reap(pool* p);

cudaError_t sim_pool_free(block* b, stream* s) {
  pool* p = b->pool;
  cudaError_t error = s ? sim_stream_enter(s) : cudaSuccess;
  shelf* own = s && !error ? make_pending(p, s) : NULL;
  if (s && !own) return cudaErrorMemoryAllocation;
  sim_space_delist(&p->device->space, b);
  p->used -= b->requested;
  --p->live;
  uint64_t position = s ? sim_stream_mark(s) : 0;
  if (s) note_free(b, s, position);
  bool is_done = !s || (p->is_opportunistic && stream_is_done(s, position));
  sim_shelf_give(is_done ? &p->done : own, b, position);
  if (!p->handle) reap(p);
  return cudaSuccess;
}

void sim_pool_dissolve(shelf* from) {
  pool* p = from->pool;
  settle(from, UINT64_MAX);
  unlink_pending(from);
  sim_slab_give(&shelves, from);
  reap(p);
}

void sim_pool_trim(pool* p, uint64_t keep) {
  if (p->reserved <= keep) return;
  settle_done(p);
  give_from(p, &p->done, round_down(p->reserved - keep, CHUNK_BYTES), true);
  give_addresses(p);
}

void sim_pool_trim_to_thresholds(device* d) {
  for (pool *p = d->pools, *next; p; p = next) {
    next = p->next_of_device;
    if (p->reserved > p->threshold) {
      settle_done(p);
      give_from(p, &p->done, p->reserved - p->threshold, true);
      give_addresses(p);
    }
    reap(p);
  }
}

void sim_pool_relieve(device* d, const pool* except) {
  sim_graph_memory_trim(d);
  for (pool* p = d->pools; p; p = p->next_of_device) {
    if (p == except) continue;
    settle_done(p);
    give_from(p, &p->done, UINT64_MAX, false);
  }
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
  p->done.pool = p;
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

static void drop_shelves(pool* p) {
  while (p->pending) {
    shelf* s = p->pending;
    unlink_pending(s);
    sim_slab_give(&shelves, s);
  }
}

// Ends a closed pool once nothing of it is live or pending.
static void reap(pool* p) {
  if (p->handle || p->live) return;
  settle_done(p);
  if (has_pending(p)) return;
  give_from(p, &p->done, UINT64_MAX, false);
  give_addresses(p);
  drop_shelves(p);
  unlink_pool(p);
  sim_slab_give(&pools, p);
}

void sim_pool_close(pool* p) {
  sim_handle_close(p->handle);
  p->handle = NULL;
  if (p->device->pool == p) p->device->pool = p->device->default_pool;
  reap(p);
}

void sim_pool_forget_all(device* d) {
  while (d->pools) {
    pool* p = d->pools;
    sim_handle_close(p->handle);
    drop_shelves(p);  // of streams of other devices
    unlink_pool(p);
    sim_slab_give(&pools, p);
  }
}

void sim_pool_drop(void) {
  sim_slab_drop(&pools);
  sim_slab_drop(&shelves);
}
