// A map from what a log calls something by (an address, a thread's id, a stream's handle) to a
// small number.
#ifndef TRACE_HANDLE_MAP_H_
#define TRACE_HANDLE_MAP_H_

#include <stddef.h>
#include <stdint.h>
#include <tm/tm.h>

// What a handle means depends on where it is valid: equal values in two spaces are two handles.
typedef struct log_handle {
  uint64_t value;
  uint32_t space;
} log_handle;

typedef struct handle_entry {
  log_handle handle;
  uint32_t number;
  uint32_t is_used;
} handle_entry;

// All zero is an empty map.
typedef struct handle_map {
  handle_entry* entries;
  size_t capacity;  // a power of two, or 0
  size_t count;
} handle_map;

// Points `*out` to the number of `handle`, which is `fresh` where the map did not have it. The
// pointer is valid until the next call. Errors: TM_ERR_NO_MEMORY, TM_ERR_OVERFLOW. On failure
// `*out` is NULL and the map is as before.
TM_NODISCARD tm_status handle_map_get(handle_map* map, log_handle handle, uint32_t fresh,
                                      uint32_t** out);

void handle_map_deinit(handle_map* map);

#endif  // TRACE_HANDLE_MAP_H_
