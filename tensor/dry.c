#include "tm/tensor/dry.h"

static tm_dry_counts counts;

void tm_dry_count_(size_t bytes) {
  __atomic_fetch_add(&counts.operations, 1, __ATOMIC_RELAXED);
  __atomic_fetch_add(&counts.bytes, bytes, __ATOMIC_RELAXED);
}

tm_dry_counts tm_dry_counted(void) {
  tm_dry_counts now;
  now.operations = __atomic_load_n(&counts.operations, __ATOMIC_RELAXED);
  now.bytes = __atomic_load_n(&counts.bytes, __ATOMIC_RELAXED);
  return now;
}
