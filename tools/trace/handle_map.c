// Open addressing with linear probing, at most half full. Handles are never removed: a log is
// larger than the map of all that it mentions.
#include "trace/handle_map.h"

enum { FIRST_CAPACITY = 64 };  // entries

// Addresses differ in their middle bits; a multiplication brings those to the top.
static uint64_t hash(log_handle handle) {
  uint64_t h = (handle.value ^ ((uint64_t)handle.space << 48)) * 0x9e3779b97f4a7c15u;
  h ^= h >> 32;
  return h * 0x9e3779b97f4a7c15u >> 20;
}

static handle_entry* find(handle_entry* entries, size_t capacity, log_handle handle) {
  size_t at = hash(handle) & (capacity - 1);
  while (entries[at].is_used &&
         (entries[at].handle.value != handle.value || entries[at].handle.space != handle.space)) {
    at = (at + 1) & (capacity - 1);
  }
  return &entries[at];
}

static tm_status grow(handle_map* map) {
  size_t capacity = FIRST_CAPACITY, bytes;
  if ((map->capacity && !tm_checked_mul(map->capacity, 2, &capacity)) ||
      !tm_checked_mul(capacity, sizeof(handle_entry), &bytes)) {
    return TM_RAISE(TM_ERR_OVERFLOW, "handle map: more than %zu handles", map->count);
  }
  handle_entry* entries = tm_bookkeeping_alloc(bytes, "a map of a log's handles");
  if (!entries) return tm_last_status();
  for (size_t i = 0; i < map->capacity; i++) {
    if (map->entries[i].is_used) *find(entries, capacity, map->entries[i].handle) = map->entries[i];
  }
  tm_bookkeeping_free(map->entries);
  map->entries = entries;
  map->capacity = capacity;
  return TM_OK;
}

tm_status handle_map_get(handle_map* map, log_handle handle, uint32_t fresh, uint32_t** out) {
  *out = NULL;
  if (2 * map->count >= map->capacity) TM_TRY(grow(map));
  handle_entry* entry = find(map->entries, map->capacity, handle);
  if (!entry->is_used) {
    *entry = (handle_entry){.handle = handle, .number = fresh, .is_used = 1};
    map->count++;
  }
  *out = &entry->number;
  return TM_OK;
}

void handle_map_deinit(handle_map* map) {
  tm_bookkeeping_free(map->entries);
  *map = (handle_map){0};
}
