#define _GNU_SOURCE  // memfd_create, fallocate
#include "cudasim/space.h"

#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cudasim/device.h"
#include "cudasim/slab.h"

// A device gets eight times its memory as address space as long as all devices together stay below
// this and the host has it, else four times or twice.
#if defined(__SANITIZE_THREAD__)
#define ADDRESS_BUDGET ((uint64_t)1 << 40)  // it leaves programs little more
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define ADDRESS_BUDGET ((uint64_t)1 << 40)
#endif
#endif
#ifndef ADDRESS_BUDGET
#define ADDRESS_BUDGET ((uint64_t)1 << 44)
#endif

// Untaken granules that may go on holding host memory: a gigabyte, because a program that frees
// what it has written and allocates it again would otherwise fault in every page anew.
#define STALE_GRANULES ((uint64_t)512)

static uint64_t round_up(uint64_t value, uint64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

//===-- Mapping -------------------------------------------------------------------------------===//

// Reserves `bytes` of address space aligned to a chunk; 0 when there is none.
static uint64_t reserve(uint64_t bytes) {
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* found = mmap(NULL, bytes + CHUNK_BYTES, PROT_NONE, flags, -1, 0);
  if (found == MAP_FAILED) return 0;
  uint64_t start = (uint64_t)(uintptr_t)found;
  uint64_t aligned = round_up(start, CHUNK_BYTES);
  if (aligned > start) munmap(found, aligned - start);
  munmap((void*)(uintptr_t)(aligned + bytes), start + CHUNK_BYTES - aligned);
  return aligned;
}

static bool map(space* s, uint64_t bytes, bool protect) {
  s->file = memfd_create("cudasim", MFD_CLOEXEC);
  if (s->file < 0) return false;
  s->bytes = bytes;
  s->base = ftruncate(s->file, (off_t)bytes) ? 0 : reserve(bytes);
  if (!s->base) return false;
  void* program = (void*)(uintptr_t)s->base;
  int rights = PROT_READ | PROT_WRITE;
  int flags = MAP_SHARED | MAP_NORESERVE;
  void* seen = mmap(program, bytes, protect ? PROT_NONE : rights, flags | MAP_FIXED, s->file, 0);
  void* alias = protect ? mmap(NULL, bytes, rights, flags, s->file, 0) : program;
  if (seen == MAP_FAILED || alias == MAP_FAILED) return false;
  s->alias = alias;
  return true;
}

static void unmap(space* s) {
  if (s->alias && s->alias != (char*)(uintptr_t)s->base) munmap(s->alias, s->bytes);
  if (s->base) munmap((void*)(uintptr_t)s->base, s->bytes);
  if (s->file >= 0) close(s->file);
}

static uint64_t* make_bits(uint64_t bits) {
  return sim_bookkeeping_alloc((bits + 63) / 64 * sizeof(uint64_t));
}

static bool fill(space* s) {
  s->charged = make_bits(s->bytes / GRANULE_BYTES);
  s->touched = make_bits(s->bytes / GRANULE_BYTES);
  s->chunks = sim_bookkeeping_alloc(s->bytes / CHUNK_BYTES * sizeof(chunk));
  s->split = s->base + s->bytes / 2;
  s->last = sim_block_create(s->device, s->base, s->bytes);
  block* first = s->last ? sim_block_cut(s->last, s->bytes / 2) : NULL;
  if (!first || !s->charged || !s->touched || !s->chunks ||
      !sim_start_map_init(&s->live, s->bytes / UNIT_BYTES)) {
    return false;
  }
  sim_shelf_put(&s->unused, first, 0);
  sim_shelf_put(&s->unused_pool, s->last, 0);
  return true;
}

// How many times its memory a device may have as address space.
static uint64_t first_factor(uint64_t memory, bool protect) {
  uint64_t mappings = (uint64_t)sim_device_count() * (protect ? 2 : 1);
  uint64_t factor = 8;
  while (factor > 2 && memory * factor * mappings > ADDRESS_BUDGET) factor /= 2;
  return factor;
}

bool sim_space_open(device* d, uint64_t memory, bool protect) {
  space* s = &d->space;
  uint64_t rounded = round_up(memory, CHUNK_BYTES);
  for (uint64_t factor = first_factor(rounded, protect); factor >= 2; factor /= 2) {
    *s = (space){.device = d, .file = -1, .memory = memory};
    if (map(s, rounded * factor, protect) && fill(s)) return true;
    sim_space_close(s);
  }
  return false;
}

void sim_space_close(space* s) {
  unmap(s);
  if (s->last) sim_block_release_all(s->last);
  sim_bookkeeping_free(s->charged);
  sim_bookkeeping_free(s->touched);
  sim_bookkeeping_free(s->chunks);
  sim_start_map_deinit(&s->live);
  *s = (space){.file = -1};
}

//===-- Granules ------------------------------------------------------------------------------===//

typedef uint64_t (*word_function)(space* s, uint64_t word, uint64_t mask);

// Calls `each` with every word of the bit sets that has granules of the range, and their mask.
static uint64_t for_words(space* s, uint64_t address, uint64_t bytes, word_function each) {
  uint64_t first = space_granule(s, address);
  uint64_t last = space_granule(s, address + bytes - 1);
  uint64_t total = 0;
  for (uint64_t word = first / 64; word <= last / 64; ++word) {
    uint64_t mask = UINT64_MAX;
    if (word == first / 64) mask &= UINT64_MAX << first % 64;
    if (word == last / 64) mask &= UINT64_MAX >> (63 - last % 64);
    total += each(s, word, mask);
  }
  return total;
}

static uint64_t touch(space* s, uint64_t word, uint64_t mask) {
  s->touched[word] |= mask;
  return 0;
}

// How many granules that were charged or discharged are touched.
static uint64_t charge(space* s, uint64_t word, uint64_t mask) {
  s->charged[word] |= mask;
  return (uint64_t)__builtin_popcountll(s->touched[word] & mask);
}

static uint64_t discharge(space* s, uint64_t word, uint64_t mask) {
  s->charged[word] &= ~mask;
  return (uint64_t)__builtin_popcountll(s->touched[word] & mask);
}

static void punch(const space* s, uint64_t address, uint64_t bytes) {
  fallocate(s->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(address - s->base),
            (off_t)bytes);
}

// Returns the pages of the granules in a word that are touched and not taken, run by run.
static void sweep_word(space* s, uint64_t word) {
  uint64_t stale = s->touched[word] & ~s->charged[word];
  s->touched[word] &= s->charged[word];
  while (stale) {
    uint64_t first = (uint64_t)__builtin_ctzll(stale);
    uint64_t rest = ~(stale >> first);
    uint64_t count = rest ? (uint64_t)__builtin_ctzll(rest) : 64;
    punch(s, s->base + (word * 64 + first) * GRANULE_BYTES, count * GRANULE_BYTES);
    stale &= first + count >= 64 ? 0 : UINT64_MAX << (first + count);
  }
}

static void sweep(space* s) {
  uint64_t words = (s->bytes / GRANULE_BYTES + 63) / 64;
  for (uint64_t word = 0; word < words; ++word) sweep_word(s, word);
  s->stale = 0;
}

void sim_space_touch(space* s, uint64_t address, uint64_t bytes) {
  if (bytes) for_words(s, address, bytes, touch);
}

void sim_space_clear(const space* s, uint64_t address, uint64_t bytes) {
  char* at = space_alias(s, address);
  uint64_t first = round_up(address, GRANULE_BYTES);
  uint64_t last = (address + bytes) / GRANULE_BYTES * GRANULE_BYTES;
  if (first >= last) {
    memset(at, 0, bytes);
    return;
  }
  memset(at, 0, first - address);
  punch(s, first, last - first);
  memset(space_alias(s, last), 0, address + bytes - last);
}

//===-- Memory and addresses ------------------------------------------------------------------===//

void sim_space_charge(space* s, uint64_t address, uint64_t bytes) {
  s->taken += bytes;
  // More than was counted, if work that was queued before a free touched granules after it.
  uint64_t touched = for_words(s, address, bytes, charge);
  s->stale -= touched < s->stale ? touched : s->stale;
  sim_device_note_reserved(s->device, s->taken);
}

void sim_space_discharge(space* s, uint64_t address, uint64_t bytes) {
  s->taken -= bytes;
  s->stale += for_words(s, address, bytes, discharge);
  sim_device_note_reserved(s->device, s->taken);
  if (s->stale > STALE_GRANULES) sweep(s);
}

block* sim_space_take_addresses(space* s, uint64_t bytes) {
  block* b = sim_shelf_best(&s->unused, bytes);
  if (!b) b = sim_shelf_best(&s->unused_pool, bytes);
  return b ? sim_shelf_carve(b, bytes) : NULL;
}

void sim_space_give_addresses(space* s, block* b) {
  sim_shelf_give(block_address(b) < s->split ? &s->unused : &s->unused_pool, b, 0);
}

block* sim_space_take(space* s, uint64_t bytes) {
  if (bytes > space_free(s)) return NULL;
  block* taken = sim_space_take_addresses(s, bytes);
  if (taken) sim_space_charge(s, block_address(taken), bytes);
  return taken;
}

void sim_space_give(space* s, block* b) {
  sim_space_discharge(s, block_address(b), block_size(b));
  sim_space_give_addresses(s, b);
}

// Takes [address, address + bytes) out of the unused block `b`.
static block* take_within(space* s, block* b, uint64_t address, uint64_t bytes) {
  uint64_t lead = address - block_address(b);
  if (!lead) return sim_shelf_carve(b, bytes);
  block* front = sim_shelf_carve(b, lead);
  if (!front) return NULL;
  block* taken = sim_shelf_carve(b, bytes);
  if (taken) {
    sim_shelf_put(&s->unused_pool, front, 0);
  } else {
    sim_shelf_give(&s->unused_pool, front, 0);
  }
  return taken;
}

// Where in the gap `b` a pool's first chunks go, or 0 if they do not fit.
static uint64_t place_in_gap(const block* b, uint64_t bytes) {
  uint64_t first = round_up(block_address(b), CHUNK_BYTES);
  uint64_t middle = round_up(block_address(b) + block_size(b) / 2, CHUNK_BYTES);
  bool follows_pool = b->before && b->before->pool;
  uint64_t place = follows_pool && middle + bytes <= block_end(b) ? middle : first;
  return place + bytes <= block_end(b) ? place : 0;
}

static block* largest(const shelf* s) {
  return (block*)sim_tree_at_most(&s->blocks, UINT64_MAX, UINT64_MAX);
}

bool sim_space_has_chunks_after(const space* s, const block* tail, uint64_t bytes) {
  const block* gap = tail->after;
  return gap && gap->shelf == &s->unused_pool && block_size(gap) >= bytes;
}

block* sim_space_take_chunks(space* s, uint64_t bytes, const block* tail) {
  block* gap = tail ? tail->after : largest(&s->unused_pool);
  uint64_t place = tail ? block_end(tail) : gap ? place_in_gap(gap, bytes) : 0;
  return place ? take_within(s, gap, place, bytes) : NULL;
}

void sim_space_give_chunks(space* s, block* b) {
  b->pool = NULL;
  sim_shelf_give(&s->unused_pool, b, 0);
}

//===-- Live blocks ---------------------------------------------------------------------------===//

static uint64_t unit_of(const space* s, uint64_t address) {
  return (address - s->base) / UNIT_BYTES;
}

bool sim_space_enlist(space* s, block* b, uint64_t requested) {
  if (!sim_start_map_prepare(&s->live)) return false;
  sim_start_map_add(&s->live, unit_of(s, block_address(b)), b);
  b->requested = requested;
  return true;
}

void sim_space_delist(space* s, block* b) {
  sim_start_map_remove(&s->live, unit_of(s, block_address(b)));
}

block* sim_space_block_at(const space* s, uint64_t address) {
  return (address - s->base) % UNIT_BYTES ? NULL : sim_start_map_at(&s->live, unit_of(s, address));
}

block* sim_space_block_around(const space* s, uint64_t address) {
  block* b = sim_start_map_at_most(&s->live, unit_of(s, address));
  return b && address < block_end(b) ? b : NULL;
}
