// Frees that have to wait for the end of a capture. Private to tmcore.
//
// While a stream is being captured into a graph, nothing can be made to wait for the work that was
// queued on it before: an event recorded now would belong to the capture, and whatever waited for
// it would enter that. So a free that has to come after such work is parked, and tried again by
// later calls until it can be ordered. The block is not reused meanwhile.
#ifndef TM_ALLOC_PARKED_H_
#define TM_ALLOC_PARKED_H_

#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>

#include "tm/base/attributes.h"

// A part of whatever is parked, so that parking needs no memory.
typedef struct tm_parked_ {
  STAILQ_ENTRY(tm_parked_) in_queue;
  bool (*retry)(struct tm_parked_* self);  // true: it is freed, and `self` is gone
} tm_parked_;

// Parks `item`, whose `retry` returned false or would.
// Threads: safe. `retry` is called on any thread, with no lock held.
void tm_park_(tm_parked_* item);

extern size_t tm_parked_count_;  // read and written with __atomic
void tm_retry_some_parked_(void);

// Tries parked frees again: all those that can be made up for, unless others that cannot are in the
// way, which a later call gets past. Leaves the error record alone.
static inline void tm_retry_parked_(void) {
  if (TM_UNLIKELY(__atomic_load_n(&tm_parked_count_, __ATOMIC_RELAXED) != 0)) {
    tm_retry_some_parked_();
  }
}

// Between the two, which nest, the calling thread tries no parked free: for whoever holds a lock
// that the free of some other block may need in another order.
void tm_withhold_parked_(void);
void tm_allow_parked_(void);

#endif  // TM_ALLOC_PARKED_H_
