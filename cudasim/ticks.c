#include "cudasim/ticks.h"

#include <stdatomic.h>

static atomic_ullong first_ns;
static atomic_ullong first_ticks;

void sim_ticks_begin(void) {
  if (atomic_load(&first_ns)) return;
  atomic_store(&first_ticks, ticks_now());
  atomic_store(&first_ns, ticks_ns_now());
}

uint64_t sim_ticks_to_ns(uint64_t ticks) {
  uint64_t ns = ticks_ns_now() - atomic_load(&first_ns);
  uint64_t passed = ticks_now() - atomic_load(&first_ticks);
  return passed ? (uint64_t)((double)ticks * (double)ns / (double)passed) : 0;
}
