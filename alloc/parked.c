#include "alloc/parked.h"

#include <pthread.h>

#include "alloc/cuda_runtime.h"

enum { CHECKS = 8 };  // frees that a call tries in vain before it goes on with its own work

size_t tm_parked_count_;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static STAILQ_HEAD(, tm_parked_) queue = STAILQ_HEAD_INITIALIZER(queue);

// Not 0: no parked free is tried on this thread. One that is being tried may destroy an allocator,
// which frees: no deeper than that.
static __thread int withheld;

void tm_withhold_parked_(void) { withheld++; }
void tm_allow_parked_(void) { withheld--; }

static void put(tm_parked_* item) {
  pthread_mutex_lock(&lock);
  STAILQ_INSERT_TAIL(&queue, item, in_queue);
  pthread_mutex_unlock(&lock);
}

static tm_parked_* take(void) {
  pthread_mutex_lock(&lock);
  tm_parked_* item = STAILQ_FIRST(&queue);
  if (item) {
    STAILQ_REMOVE_HEAD(&queue, in_queue);
  }
  pthread_mutex_unlock(&lock);
  return item;
}

void tm_park_(tm_parked_* item) {
  (void)__atomic_fetch_add(&tm_parked_count_, 1, __ATOMIC_RELAXED);
  put(item);
}

// One free; false where it stays parked or there is none.
static bool retry_one(void) {
  tm_parked_* item = take();
  if (!item) {
    return false;
  }
  if (!item->retry(item)) {
    put(item);
    return false;
  }
  (void)__atomic_fetch_sub(&tm_parked_count_, 1, __ATOMIC_RELAXED);
  return true;
}

void tm_retry_some_parked_(void) {
  if (withheld || !tm_cuda_usable_()) {
    return;  // after a fork nothing is left to free, and the lock may be held for ever
  }
  tm_withhold_parked_();
  const tm_error kept = *tm_last_error();
  int checks = CHECKS;
  for (size_t n = __atomic_load_n(&tm_parked_count_, __ATOMIC_RELAXED); n > 0 && checks > 0; n--) {
    checks -= !retry_one();
  }
  tm_restore_error_(&kept);
  tm_allow_parked_();
}
