#define _GNU_SOURCE  // memfd_create, fallocate
#include "cudasim/pinned.h"

#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cudasim/slab.h"

#if defined(__SANITIZE_THREAD__)
#define MOST_ADDRESSES ((uint64_t)1 << 36)  // it leaves programs little more
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define MOST_ADDRESSES ((uint64_t)1 << 36)
#endif
#endif
#ifndef MOST_ADDRESSES
#define MOST_ADDRESSES ((uint64_t)1 << 40)
#endif
#define FEWEST_ADDRESSES ((uint64_t)1 << 30)

// Each takes two mappings of the host's 65530, and a copy in the middle of one two more.
#define MOST_BLOCKS 12000

// Freed blocks that stay forbidden, as long as they have no more than half of the addresses.
#define MOST_FREED 1024

// From here on, it is asked whether the host has the memory at all: the file would never say no.
#define LARGE ((uint64_t)1 << 30)

static struct {
  atomic_flag busy;
  _Atomic(uint64_t) base;  // 0 while there is none
  uint64_t bytes;
  char* alias;
  int file;
  bool is_refused;  // by the host: not tried again
  bool is_noted;    // that some memory is not checked
  shelf unused;
  block* last;  // in the range: the one that is always there
  tree blocks;
  unsigned live;
  pinned* oldest;
  pinned* newest;  // freed
  unsigned freed;
  uint64_t freed_bytes;
} arena = {.busy = ATOMIC_FLAG_INIT, .file = -1};

static slab records = {.size = sizeof(pinned)};

static uint64_t page_up(uint64_t bytes) {
  return (bytes + PINNED_PAGE - 1) / PINNED_PAGE * PINNED_PAGE;
}

static void* pointer(uint64_t address) { return (void*)(uintptr_t)address; }

void sim_pinned_lock(void) {
  while (atomic_flag_test_and_set_explicit(&arena.busy, memory_order_acquire)) sched_yield();
}

void sim_pinned_unlock(void) { atomic_flag_clear_explicit(&arena.busy, memory_order_release); }

//===-- Addresses -----------------------------------------------------------------------------===//

// A child of fork() has no use for the alias, and must not write through it.
static bool map(uint64_t bytes) {
  const int flags = MAP_SHARED | MAP_NORESERVE;
  void* seen = mmap(NULL, bytes, PROT_NONE, flags, arena.file, 0);
  void* alias = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, arena.file, 0);
  if (seen != MAP_FAILED && alias != MAP_FAILED) {
    madvise(alias, bytes, MADV_DONTFORK);
    arena.alias = alias;
    arena.bytes = bytes;
    atomic_store(&arena.base, (uint64_t)(uintptr_t)seen);
    return true;
  }
  if (seen != MAP_FAILED) munmap(seen, bytes);
  if (alias != MAP_FAILED) munmap(alias, bytes);
  return false;
}

static bool open_file(void) {
  arena.file = memfd_create("cudasim pinned", MFD_CLOEXEC);
  if (arena.file < 0 || ftruncate(arena.file, (off_t)MOST_ADDRESSES)) return false;
  for (uint64_t bytes = MOST_ADDRESSES; bytes >= FEWEST_ADDRESSES; bytes /= 4) {
    if (map(bytes)) return true;
  }
  return false;
}

static bool is_open(void) {
  if (arena.base || arena.is_refused) return !arena.is_refused;
  arena.is_refused = !open_file();
  if (arena.is_refused) return false;
  arena.last = sim_block_create(NULL, arena.base, arena.bytes);
  arena.is_refused = !arena.last;
  if (arena.last) sim_shelf_put(&arena.unused, arena.last, 0);
  return !arena.is_refused;
}

char* sim_pinned_alias(uint64_t address) { return arena.alias + (address - arena.base); }

bool sim_pinned_holds(uint64_t address) {
  uint64_t base = atomic_load_explicit(&arena.base, memory_order_relaxed);
  return base && address - base < arena.bytes;
}

bool sim_pinned_protect(uint64_t address, uint64_t bytes, int rights) {
  return mprotect(pointer(address), bytes, rights) == 0;
}

static void punch(uint64_t address, uint64_t bytes) {
  fallocate(arena.file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(address - arena.base),
            (off_t)bytes);
}

//===-- Blocks --------------------------------------------------------------------------------===//

pinned* sim_pinned_before(uint64_t address) {
  return (pinned*)sim_tree_at_most(&arena.blocks, address, 0);
}

pinned* sim_pinned_around(uint64_t address) {
  if (!sim_pinned_holds(address)) return NULL;
  pinned* p = sim_pinned_before(address);
  bool is_inside = p && !p->is_freed && address - pinned_address(p) < p->bytes;
  return is_inside ? p : NULL;
}

static void release(pinned* p) {
  sim_site_release(p->allocated);
  sim_site_release(p->freed);
  sim_bookkeeping_free(p->open);
  sim_slab_give(&records, p);
}

// Lets others have the addresses of the block that was freed first. What the program wrote there in
// spite of all goes.
static void recycle_oldest(void) {
  pinned* p = arena.oldest;
  sim_pinned_lock();
  arena.oldest = p->newer;
  if (!arena.oldest) arena.newest = NULL;
  sim_tree_remove(&arena.blocks, &p->node);
  sim_pinned_protect(p->node.major, block_size(p->place), PROT_NONE);
  sim_pinned_unlock();
  punch(p->node.major, block_size(p->place));
  --arena.freed;
  arena.freed_bytes -= block_size(p->place);
  sim_shelf_give(&arena.unused, p->place, 0);
  release(p);
}

static bool host_has(uint64_t bytes) {
  if (bytes < LARGE) return true;
  void* p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return p != MAP_FAILED && munmap(p, bytes) == 0;
}

static void note_unchecked(void) {
  if (arena.is_noted) return;
  arena.is_noted = true;
  fprintf(stderr, "cudasim: too much page-locked memory: not all of it is checked\n");
}

static block* take_place(uint64_t bytes) {
  block* b = sim_shelf_best(&arena.unused, bytes);
  while (!b && arena.oldest) {
    recycle_oldest();
    b = sim_shelf_best(&arena.unused, bytes);
  }
  return b ? sim_shelf_carve(b, bytes) : NULL;
}

// A record with its bits; NULL when the host has no memory.
static pinned* make(uint64_t bytes) {
  pinned* p = sim_slab_take(&records);
  if (!p) return NULL;
  *p = (pinned){.bytes = bytes};
  p->open = sim_bookkeeping_alloc((page_up(bytes) / PINNED_PAGE + 63) / 64 * sizeof(uint64_t));
  if (p->open) return p;
  release(p);
  return NULL;
}

static void enlist(pinned* p) {
  p->node.major = block_address(p->place);
  p->allocated = sim_site_retain(sim_site_here());
  sim_pinned_lock();
  sim_tree_insert(&arena.blocks, &p->node);
  sim_pinned_unlock();
  ++arena.live;
}

pinned* sim_pinned_take(uint64_t bytes) {
  if (!host_has(bytes) || !is_open()) return NULL;
  uint64_t pages = page_up(bytes);
  pinned* p = arena.live < MOST_BLOCKS ? make(bytes) : NULL;
  if (p) p->place = take_place(pages + PINNED_PAGE);
  bool is_usable =
      p && p->place &&
      sim_pinned_protect(block_address(p->place) + PINNED_PAGE, pages, PROT_READ | PROT_WRITE);
  if (is_usable) {
    enlist(p);
    return p;
  }
  note_unchecked();
  if (p && p->place) sim_shelf_give(&arena.unused, p->place, 0);
  if (p) release(p);
  return NULL;
}

void sim_pinned_give(pinned* p) {
  sim_pinned_lock();
  p->freed = sim_site_retain(sim_site_here());
  p->is_freed = true;
  sim_pinned_protect(p->node.major, block_size(p->place), PROT_NONE);
  *(arena.newest ? &arena.newest->newer : &arena.oldest) = p;
  arena.newest = p;
  sim_pinned_unlock();
  punch(p->node.major, block_size(p->place));
  --arena.live;
  ++arena.freed;
  arena.freed_bytes += block_size(p->place);
  while (arena.freed > MOST_FREED || arena.freed_bytes > arena.bytes / 2) recycle_oldest();
}

//===-- All -----------------------------------------------------------------------------------===//

// With one mapping for everything, so that no count of them stands in the way.
void sim_pinned_forgive(void) {
  if (arena.base) sim_pinned_protect(arena.base, arena.bytes, PROT_READ | PROT_WRITE);
}

// Pages that the child writes become its own. Those it only reads are still the parent's;
// so are all where the kernel has no memory for the mapping.
void sim_pinned_separate(void) {
  if (!arena.base) return;
  (void)mmap(pointer(arena.base), arena.bytes, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, arena.file, 0);
}

void sim_pinned_drop(void) {
  if (arena.base) {
    munmap(pointer(arena.base), arena.bytes);
    munmap(arena.alias, arena.bytes);
  }
  if (arena.file >= 0) close(arena.file);
  while (arena.blocks.root) {
    pinned* p = (pinned*)arena.blocks.root;
    sim_tree_remove(&arena.blocks, &p->node);
    release(p);
  }
  sim_slab_drop(&records);
  if (arena.last) sim_block_release_all(arena.last);
  atomic_store(&arena.base, 0);
  arena.alias = NULL;
  arena.file = -1;
  arena.is_refused = arena.is_noted = false;
  arena.unused = (shelf){0};
  arena.last = NULL;
  arena.live = arena.freed = 0;
  arena.oldest = arena.newest = NULL;
  arena.freed_bytes = 0;
}
