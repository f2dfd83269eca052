// Half-open ranges of addresses, each with a number, none of which overlaps another.
#ifndef ENGINE_INTERVAL_MAP_H_
#define ENGINE_INTERVAL_MAP_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <tm/tm.h>

typedef struct interval {
  uintptr_t begin;
  uintptr_t end;  // the first address behind it
  uint64_t id;
} interval;

// All zero is the empty map.
typedef struct interval_map {
  interval* sorted;  // by address
  size_t count;
  size_t capacity;
} interval_map;

// Adds [begin, end). Where it overlaps one that is there, `*overlapped` is that one and nothing is
// added; else `overlapped->end` is 0.
// Errors: TM_ERR_INVALID (an empty range), TM_ERR_NO_MEMORY. On error nothing is added.
// Cost: O(log n), and a move of what lies above.
tm_status interval_map_add(interval_map* map, uintptr_t begin, uintptr_t end, uint64_t id,
                           interval* overlapped);

// Removes the range that begins at `begin` and stores it in `*out`; false where there is none.
bool interval_map_remove(interval_map* map, uintptr_t begin, interval* out);

// Frees what the map holds and empties it.
void interval_map_deinit(interval_map* map);

#endif  // ENGINE_INTERVAL_MAP_H_
