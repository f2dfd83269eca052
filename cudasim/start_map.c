#include "cudasim/start_map.h"

#include <string.h>
#include <sys/mman.h>

#include "cudasim/slab.h"

typedef struct start_entry {
  uint64_t unit;
  void* block;  // NULL: empty
} start_entry;

//===-- Bits ----------------------------------------------------------------------------------===//

static uint64_t words_of(uint64_t bits) { return (bits + 63) / 64; }

bool sim_start_map_init(start_map* m, uint64_t units) {
  uint64_t total = 0;
  for (uint64_t bits = units; bits > 1 || total == 0; bits = words_of(bits))
    total += words_of(bits);
  *m = (start_map){.memory_bytes = total * sizeof(uint64_t)};
  m->memory = mmap(NULL, m->memory_bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (m->memory == MAP_FAILED) return false;
  uint64_t* next = m->memory;
  for (uint64_t bits = units; bits > 1 || m->levels == 0; bits = words_of(bits)) {
    m->bits[m->levels++] = next;
    next += words_of(bits);
  }
  return true;
}

void sim_start_map_deinit(start_map* m) {
  if (m->memory && m->memory != MAP_FAILED) munmap(m->memory, m->memory_bytes);
  sim_bookkeeping_free(m->entries);
  *m = (start_map){0};
}

static void set_bit(start_map* m, uint64_t bit) {
  for (int level = 0; level < m->levels; ++level, bit /= 64) {
    uint64_t* word = &m->bits[level][bit / 64];
    uint64_t before = *word;
    *word |= UINT64_C(1) << bit % 64;
    if (before) return;  // the levels above know already
  }
}

static void clear_bit(start_map* m, uint64_t bit) {
  for (int level = 0; level < m->levels; ++level, bit /= 64) {
    uint64_t* word = &m->bits[level][bit / 64];
    *word &= ~(UINT64_C(1) << bit % 64);
    if (*word) return;
  }
}

static uint64_t highest(uint64_t word) { return 63 - (uint64_t)__builtin_clzll(word); }

// The highest set bit at or below `bit`, or UINT64_MAX.
static uint64_t bit_at_most(const start_map* m, uint64_t bit) {
  int level = 0;
  uint64_t word = m->bits[0][bit / 64] & (UINT64_MAX >> (63 - bit % 64));
  while (!word) {
    bit /= 64;
    if (++level == m->levels) return UINT64_MAX;
    word = bit % 64 ? m->bits[level][bit / 64] & (UINT64_MAX >> (64 - bit % 64)) : 0;
  }
  bit = bit / 64 * 64 + highest(word);
  while (level-- > 0) bit = bit * 64 + highest(m->bits[level][bit]);
  return bit;
}

//===-- Entries -------------------------------------------------------------------------------===//

static size_t home(const start_map* m, uint64_t unit) {
  return (size_t)((unit * 0x9e3779b97f4a7c15u) >> 20) & (m->capacity - 1);
}

static void put_entry(start_map* m, start_entry entry) {
  size_t i = home(m, entry.unit);
  while (m->entries[i].block) i = (i + 1) & (m->capacity - 1);
  m->entries[i] = entry;
}

bool sim_start_map_prepare(start_map* m) {
  if (m->count * 2 < m->capacity) return true;
  size_t capacity = m->capacity ? m->capacity * 2 : 1024;
  start_entry* entries = sim_bookkeeping_alloc(capacity * sizeof(start_entry));
  if (!entries) return false;
  start_map old = *m;
  m->entries = entries;
  m->capacity = capacity;
  for (size_t i = 0; i < old.capacity; ++i) {
    if (old.entries[i].block) put_entry(m, old.entries[i]);
  }
  sim_bookkeeping_free(old.entries);
  return true;
}

static start_entry* find_entry(const start_map* m, uint64_t unit) {
  if (!m->capacity) return NULL;
  for (size_t i = home(m, unit); m->entries[i].block; i = (i + 1) & (m->capacity - 1)) {
    if (m->entries[i].unit == unit) return &m->entries[i];
  }
  return NULL;
}

void* sim_start_map_at(const start_map* m, uint64_t unit) {
  start_entry* entry = find_entry(m, unit);
  return entry ? entry->block : NULL;
}

void* sim_start_map_at_most(const start_map* m, uint64_t unit) {
  uint64_t start = bit_at_most(m, unit);
  return start == UINT64_MAX ? NULL : sim_start_map_at(m, start);
}

void sim_start_map_add(start_map* m, uint64_t unit, void* block) {
  put_entry(m, (start_entry){.unit = unit, .block = block});
  set_bit(m, unit);
  ++m->count;
}

// Closes the gap, so that no search stops short of an entry that had been pushed along.
void sim_start_map_remove(start_map* m, uint64_t unit) {
  size_t gap = (size_t)(find_entry(m, unit) - m->entries);
  size_t mask = m->capacity - 1;
  for (size_t i = (gap + 1) & mask; m->entries[i].block; i = (i + 1) & mask) {
    if (((i - home(m, m->entries[i].unit)) & mask) < ((i - gap) & mask)) continue;
    m->entries[gap] = m->entries[i];
    gap = i;
  }
  m->entries[gap].block = NULL;
  clear_bit(m, unit);
  --m->count;
}
