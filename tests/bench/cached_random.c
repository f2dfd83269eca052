// RMM's random workload on the cached allocator: how much more is held than is live at the peak,
// and what an operation costs. The upstream is dry, so that 16,000 MiB need no memory.
//
//   ./bazelw run -c opt //tests/bench:cached_random -- [SEED...]
//
// An ideal best fit in one unbounded region reaches 1.017, 1.010 and 1.036.

#include <stdio.h>
#include <stdlib.h>
#include <tm/tm.h>

#include "tests/support/random_workload.h"

static int run(size_t count, uint64_t seed) {
  tm_auto_allocator dry = tm_dry_allocator_create(tm_device_make(TM_DEVICE, 0), NULL);
  tm_auto_allocator cached = tm_cached_allocator_create(dry, NULL, NULL);
  random_workload result;
  if (!cached || random_workload_run(cached, count, seed, &result) != TM_OK) {
    (void)fprintf(stderr, "cached_random: %s\n", tm_last_error()->message);
    return 1;
  }
  tm_allocator_stats stats;
  if (tm_allocator_get_stats(cached, &stats) != TM_OK) return 1;
  printf("%10zu %8llu %14.1f %14.1f %9.4f %7.0f %10llu\n", count, (unsigned long long)seed,
         (double)result.peak_live_bytes / (1 << 20), (double)result.peak_reserved_bytes / (1 << 20),
         (double)result.peak_reserved_bytes / (double)result.peak_live_bytes, result.nanoseconds,
         (unsigned long long)stats.upstream_calls);
  return 0;
}

int main(int argc, char** argv) {
  static const size_t counts[] = {1000, 10000, 100000};
  printf("%10s %8s %14s %14s %9s %7s %10s\n", "N", "seed", "peak live MiB", "reserved MiB", "ratio",
         "ns/op", "upstream");
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
    for (int k = 1; k == 1 || k < argc; k++) {
      if (run(counts[i], argc > 1 ? strtoull(argv[k], NULL, 0) : 1) != 0) return 1;
    }
  }
  return 0;
}
