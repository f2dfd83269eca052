// A handle is, from the top bit: 0101, 4 bits of kind, 32 bits of generation, 20 bits of slot,
// 0000. The first bits make it no address of x86-64 or AArch64, so that following it crashes.

#include "cudasim/handle.h"

#include <stddef.h>
#include <stdint.h>

#include "cudasim/report.h"
#include "cudasim/slab.h"

#define TAG ((uint64_t)5)
#define CHUNK_SLOTS ((uint32_t)1024)
#define CHUNKS ((uint32_t)1024)
#define NONE UINT32_MAX

typedef struct slot {
  void* object;    // NULL while free
  uint64_t value;  // of the handle that is open here
  site* opened;    // while the checker is on: by what call
  uint32_t next;   // free: the next free slot
} slot;

static struct {
  slot* chunks[CHUNKS];
  uint32_t slots;       // in all chunks together
  uint32_t first_free;  // or NONE; oldest first, so that a slot is reused late
  uint32_t last_free;
  uint32_t generation;  // of the newest handle: survives sim_handle_close_all
} table = {.first_free = NONE, .last_free = NONE};

static slot* slot_at(uint32_t index) {
  return &table.chunks[index / CHUNK_SLOTS][index % CHUNK_SLOTS];
}

static void append_free(uint32_t index) {
  slot_at(index)->next = NONE;
  if (table.first_free == NONE) {
    table.first_free = index;
  } else {
    slot_at(table.last_free)->next = index;
  }
  table.last_free = index;
}

static void grow(void) {
  uint32_t chunk = table.slots / CHUNK_SLOTS;
  if (chunk == CHUNKS) return;
  table.chunks[chunk] = sim_bookkeeping_alloc(CHUNK_SLOTS * sizeof(slot));
  if (!table.chunks[chunk]) return;
  table.slots += CHUNK_SLOTS;
  for (uint32_t i = 0; i < CHUNK_SLOTS; ++i) append_free(chunk * CHUNK_SLOTS + i);
}

void* sim_handle_open(handle_kind kind, void* object) {
  if (table.first_free == NONE) grow();
  if (table.first_free == NONE) return NULL;
  uint32_t index = table.first_free;
  slot* s = slot_at(index);
  table.first_free = s->next;
  s->object = object;
  s->opened = check_is_on() ? sim_site_retain(sim_site_here()) : NULL;
  s->value =
      TAG << 60 | (uint64_t)kind << 56 | (uint64_t)++table.generation << 24 | (uint64_t)index << 4;
  return (void*)(uintptr_t)s->value;
}

static slot* find(const void* handle) {
  uint64_t value = (uintptr_t)handle;
  uint32_t index = (uint32_t)(value >> 4) & (CHUNK_SLOTS * CHUNKS - 1);
  if (value >> 60 != TAG || index >= table.slots) return NULL;
  slot* s = slot_at(index);
  return s->object && s->value == value ? s : NULL;
}

void* sim_handle_object(handle_kind kind, const void* handle) {
  slot* s = find(handle);
  return s && (s->value >> 56 & 15) == (uint64_t)kind ? s->object : NULL;
}

void sim_handle_close(const void* handle) {
  slot* s = find(handle);
  if (!s) return;
  s->object = NULL;
  if (check_is_on()) sim_site_release(s->opened);
  append_free((uint32_t)(s->value >> 4) & (CHUNK_SLOTS * CHUNKS - 1));
}

void sim_handle_for_each(void (*visit)(void* user, handle_kind kind, const void* object,
                                       const site* opened),
                         void* user) {
  for (uint32_t i = 0; i < table.slots; ++i) {
    const slot* s = slot_at(i);
    if (s->object && s->opened)
      visit(user, (handle_kind)(s->value >> 56 & 15), s->object, s->opened);
  }
}

void sim_handle_close_all(void) {
  for (uint32_t i = 0; i < table.slots / CHUNK_SLOTS; ++i) {
    sim_bookkeeping_free(table.chunks[i]);
    table.chunks[i] = NULL;
  }
  table.slots = 0;
  table.first_free = table.last_free = NONE;
}
