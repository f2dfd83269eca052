// The limit adaptor has a budget: bytes that may be live at a time, rounded to the alignment. What
// goes beyond it is TM_ERR_NO_MEMORY, and the upstream is not asked. (tm_allocator_alloc then trims
// once, and tries again, as for any allocator; tm_limit_reserve does not.)
//
// For admission, a part of the budget can be reserved. What is allocated out of a reservation
// cannot fail for the budget, whatever others allocate meanwhile (it can for the upstream: what
// cannot fail at all is tm_stack_reserve).
//
//   tm_limit_reservation room;
//   if (tm_limit_reserve(limited, bytes_of(request), &room) == TM_ERR_NO_MEMORY) {
//     return queue(request);
//   }
//   TM_WITH_RESERVATION(&room) {
//     ...                     // what this thread allocates through `limited` comes out of `room`
//   }
//   tm_limit_cancel(&room);   // gives back what was not used
//
// Threads: any, at once, as far as the upstream allows: the adaptor asks it with no lock held.
#ifndef TM_ALLOC_LIMIT_ADAPTOR_H_
#define TM_ALLOC_LIMIT_ADAPTOR_H_

#include <stddef.h>

#include "tm/alloc/allocator.h"
#include "tm/alloc/storage.h"
#include "tm/alloc/stream.h"
#include "tm/base/attributes.h"
#include "tm/base/status.h"

TM_EXTERN_C_BEGIN

// Creates the adaptor with a budget of `bytes`. Returns NULL on failure.
// Ownership: the caller owns one reference; the adaptor retains `upstream`.
// Errors: TM_ERR_INVALID (NULL), TM_ERR_NO_MEMORY.
TM_API TM_NODISCARD tm_allocator* tm_limit_adaptor_create(tm_allocator* upstream, size_t bytes);

typedef struct tm_limit_state {
  size_t budget;    // bytes
  size_t used;      // bytes live
  size_t reserved;  // bytes in reservations, not allocated yet
  size_t peak;      // the largest used + reserved so far
} tm_limit_state;

// The operations below:
// Errors: TM_ERR_INVALID (NULL, or no limit adaptor), and what each says. On error outputs are
//         empty, and nothing has changed.
// Threads: safe; of one reservation, one thread at a time.

TM_API TM_NODISCARD tm_status tm_limit_get(tm_allocator* limit, tm_limit_state* out);

// Another budget from now on. One below what is in use takes nothing away: allocations fail until
// enough is free.
TM_API TM_NODISCARD tm_status tm_limit_set_budget(tm_allocator* limit, size_t bytes);

//===-- Reservations ------------------------------------------------------===//

// A part of a budget. All zero: none. It is moved by assignment, never copied.
typedef struct tm_limit_reservation {
  tm_allocator* limit;  // retained; NULL where there is no reservation
  size_t bytes;         // that are left of it
} tm_limit_reservation;

// Reserves `bytes`, rounded up to the alignment. 0 bytes are a reservation too. Blocks count
// rounded one by one: several of them need the sum of what each rounds to.
// Ownership: the caller pays back by tm_limit_cancel. The reservation retains `limit`.
// Errors: also TM_ERR_NO_MEMORY (not that much of the budget is left), TM_ERR_OVERFLOW.
TM_API TM_NODISCARD tm_status tm_limit_reserve(tm_allocator* limit, size_t bytes,
                                               tm_limit_reservation* out);

// Allocates `size` bytes out of the reservation, as tm_allocator_alloc and tm_storage_alloc do. The
// block is one of the limit adaptor's, and its free gives back to the budget.
// Errors: as there; also TM_ERR_OUT_OF_RANGE (more than is left of the reservation). On error the
//         reservation is as it was, whether the upstream, a stream or bookkeeping failed.
TM_API TM_NODISCARD tm_status tm_limit_commit(tm_limit_reservation* reservation, size_t size,
                                              tm_stream* stream, void** out);
TM_API TM_NODISCARD tm_status tm_limit_commit_storage(tm_limit_reservation* reservation,
                                                      size_t size, tm_stream* stream,
                                                      tm_storage** out);

// Gives what is left back to the budget, and empties the reservation. NULL and an empty one are
// no-ops.
TM_API void tm_limit_cancel(tm_limit_reservation* reservation);

// In the block that follows, what the calling thread allocates through the reservation's limit
// adaptor comes out of the reservation while it lasts, and then out of the budget. The innermost
// one counts. As with every TM_WITH_*, `break` and `continue` leave that block only. A longjmp must
// not leave it: the thread would go on drawing.
#define TM_WITH_RESERVATION(reservation) \
  TM_WITH_RESERVATION_((reservation), TM_UNIQUE_(tm_once_), TM_UNIQUE_(tm_draw_))

// The same until the end of the enclosing block.
#define TM_USE_RESERVATION(reservation) TM_USE_RESERVATION_((reservation), TM_UNIQUE_(tm_draw_))

//===-- What the macros use ------------------------------------------------===//

// What the calling thread draws on; returns what it did before.
TM_API tm_limit_reservation* tm_limit_draw_on_(tm_limit_reservation* reservation);

static inline void tm_limit_draw_as_before_(tm_limit_reservation** before) {
  (void)tm_limit_draw_on_(*before);
}

#define TM_WITH_RESERVATION_(reservation, once, before)                 \
  for (int once = 1; once;)                                             \
    for (__attribute__((cleanup(tm_limit_draw_as_before_), unused))     \
         tm_limit_reservation* before = tm_limit_draw_on_(reservation); \
         once && (once = 0, 1);)

#define TM_USE_RESERVATION_(reservation, before)                                            \
  __attribute__((cleanup(tm_limit_draw_as_before_), unused)) tm_limit_reservation* before = \
      tm_limit_draw_on_(reservation)

TM_EXTERN_C_END

#endif  // TM_ALLOC_LIMIT_ADAPTOR_H_
