// Arrays that grow: the bookkeeping of the readers.
#ifndef TRACE_ARRAY_H_
#define TRACE_ARRAY_H_

#include <stddef.h>
#include <tm/tm.h>

// Makes room for one more item behind `count`: `*items` has room for `*capacity` of them, each
// `item_size` bytes, and moves when it must. `what` is a noun phrase for the message.
// Ownership: the caller frees `*items` with tm_bookkeeping_free.
// Errors: TM_ERR_NO_MEMORY, TM_ERR_OVERFLOW; then nothing has changed.
TM_NODISCARD tm_status array_make_room(void** items, size_t* capacity, size_t count,
                                       size_t item_size, const char* what);

#endif  // TRACE_ARRAY_H_
