#include "engine/interval_map.h"

#include <string.h>
#include <tm/tm.h>

enum { FIRST_CAPACITY = 256 };  // intervals

// The position of the first range that begins at or above `begin`.
static size_t position_of(const interval_map* map, uintptr_t begin) {
  size_t low = 0;
  size_t high = map->count;
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (map->sorted[middle].begin < begin) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

static tm_status make_room(interval_map* map) {
  if (map->count < map->capacity) return TM_OK;
  const size_t capacity = map->capacity ? 2 * map->capacity : FIRST_CAPACITY;
  interval* sorted = tm_bookkeeping_alloc(capacity * sizeof(*sorted), "an interval map");
  if (!sorted) return tm_last_status();
  if (map->count) memcpy(sorted, map->sorted, map->count * sizeof(*sorted));
  tm_bookkeeping_free(map->sorted);
  map->sorted = sorted;
  map->capacity = capacity;
  return TM_OK;
}

tm_status interval_map_add(interval_map* map, uintptr_t begin, uintptr_t end, uint64_t id,
                           interval* overlapped) {
  *overlapped = (interval){0};
  if (begin >= end) {
    return TM_RAISE(TM_ERR_INVALID, "interval map: an empty range at %#zx", (size_t)begin);
  }
  const size_t at = position_of(map, begin);
  if (at > 0 && map->sorted[at - 1].end > begin) {
    *overlapped = map->sorted[at - 1];
    return TM_OK;
  }
  if (at < map->count && map->sorted[at].begin < end) {
    *overlapped = map->sorted[at];
    return TM_OK;
  }
  TM_TRY(make_room(map));
  memmove(&map->sorted[at + 1], &map->sorted[at], (map->count - at) * sizeof(interval));
  map->sorted[at] = (interval){.begin = begin, .end = end, .id = id};
  map->count++;
  return TM_OK;
}

bool interval_map_remove(interval_map* map, uintptr_t begin, interval* out) {
  const size_t at = position_of(map, begin);
  if (at == map->count || map->sorted[at].begin != begin) return false;
  *out = map->sorted[at];
  map->count--;
  memmove(&map->sorted[at], &map->sorted[at + 1], (map->count - at) * sizeof(interval));
  return true;
}

void interval_map_deinit(interval_map* map) {
  tm_bookkeeping_free(map->sorted);
  *map = (interval_map){0};
}
