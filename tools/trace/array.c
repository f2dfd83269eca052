#include "trace/array.h"

#include <string.h>

enum { FIRST_CAPACITY = 64 };  // items

tm_status array_make_room(void** items, size_t* capacity, size_t count, size_t item_size,
                          const char* what) {
  if (count < *capacity) return TM_OK;
  size_t larger, bytes;
  if (!tm_checked_mul(*capacity ? *capacity : FIRST_CAPACITY / 2, 2, &larger) ||
      !tm_checked_mul(larger, item_size, &bytes)) {
    return TM_RAISE(TM_ERR_OVERFLOW, "%s: more than %zu items of %zu bytes", what, count,
                    item_size);
  }
  void* moved = tm_bookkeeping_alloc(bytes, what);
  if (!moved) return tm_last_status();
  if (count) memcpy(moved, *items, count * item_size);
  tm_bookkeeping_free(*items);
  *items = moved;
  *capacity = larger;
  return TM_OK;
}
