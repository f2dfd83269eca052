#include "tm/alloc/bookkeeping.h"

#include <stdlib.h>
#include <string.h>

#include "tm/base/checked.h"
#include "tm/base/status.h"

enum { BOOKKEEPING_ALIGNMENT = 64 };  // bytes: a cache line

static uint64_t calls;  // these four are read and written with __atomic
static int64_t live;
static int64_t fail_at;  // the call that fails; 0: none
static const char* failed_site;

void* tm_bookkeeping_alloc(size_t size, const char* what) {
  const uint64_t call = __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
  const int64_t failing = __atomic_load_n(&fail_at, __ATOMIC_RELAXED);
  size_t rounded = 0;
  void* pointer = NULL;
  if ((failing == 0 || call != (uint64_t)failing) &&
      tm_checked_round_up(size ? size : 1, BOOKKEEPING_ALIGNMENT, &rounded)) {
    pointer = aligned_alloc(BOOKKEEPING_ALIGNMENT, rounded);
  }
  if (!pointer) {
    __atomic_store_n(&failed_site, what, __ATOMIC_RELAXED);
    (void)TM_RAISE(TM_ERR_NO_MEMORY, "host: no memory for %s of %zu bytes", what, size);
    return NULL;
  }
  __atomic_fetch_add(&live, 1, __ATOMIC_RELAXED);
  return memset(pointer, 0, rounded);
}

void tm_bookkeeping_free(void* pointer) {
  if (pointer) {
    __atomic_fetch_sub(&live, 1, __ATOMIC_RELAXED);
    free(pointer);
  }
}

void tm_bookkeeping_fail_nth(int64_t nth) {
  const int64_t now = (int64_t)__atomic_load_n(&calls, __ATOMIC_RELAXED);
  __atomic_store_n(&fail_at, nth > 0 ? now + nth : 0, __ATOMIC_RELAXED);
}

const char* tm_bookkeeping_failed_site(void) {
  return __atomic_load_n(&failed_site, __ATOMIC_RELAXED);
}

uint64_t tm_bookkeeping_calls(void) { return __atomic_load_n(&calls, __ATOMIC_RELAXED); }

int64_t tm_bookkeeping_live(void) { return __atomic_load_n(&live, __ATOMIC_RELAXED); }
