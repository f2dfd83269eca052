// Statistics that many threads count at once. Private.
//
// The counters of an allocator are a tm_allocator_stats that is read and written with relaxed
// atomics. Each figure is exact; two figures that are read together may be a call apart.
#ifndef TM_ALLOC_COUNTERS_H_
#define TM_ALLOC_COUNTERS_H_

#include <stddef.h>
#include <stdint.h>

#include "tm/alloc/allocator.h"

// NOLINTNEXTLINE(readability-non-const-parameter): it is written, atomically
static inline void tm_count_peak_(uint64_t* peak, uint64_t now) {
  uint64_t seen = __atomic_load_n(peak, __ATOMIC_RELAXED);
  while (seen < now &&
         !__atomic_compare_exchange_n(peak, &seen, now, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}

// An allocation was asked for.
static inline void tm_count_request_(tm_allocator_stats* counters) {
  __atomic_fetch_add(&counters->alloc_calls, 1, __ATOMIC_RELAXED);
}

// It was served with `size` bytes.
static inline void tm_count_alloc_(tm_allocator_stats* counters, size_t size) {
  __atomic_fetch_add(&counters->live_blocks, 1, __ATOMIC_RELAXED);
  tm_count_peak_(&counters->peak_live_bytes,
                 __atomic_add_fetch(&counters->live_bytes, size, __ATOMIC_RELAXED));
}

static inline void tm_count_free_(tm_allocator_stats* counters, size_t size) {
  __atomic_fetch_sub(&counters->live_blocks, 1, __ATOMIC_RELAXED);
  __atomic_fetch_sub(&counters->live_bytes, size, __ATOMIC_RELAXED);
}

// The upstream was asked for something, served or not.
static inline void tm_count_upstream_call_(tm_allocator_stats* counters) {
  __atomic_fetch_add(&counters->upstream_calls, 1, __ATOMIC_RELAXED);
}

// `size` bytes came from the upstream, or went back.
static inline void tm_count_reserve_(tm_allocator_stats* counters, size_t size) {
  tm_count_peak_(&counters->peak_reserved_bytes,
                 __atomic_add_fetch(&counters->reserved_bytes, size, __ATOMIC_RELAXED));
}

static inline void tm_count_unreserve_(tm_allocator_stats* counters, size_t size) {
  __atomic_fetch_sub(&counters->reserved_bytes, size, __ATOMIC_RELAXED);
}

static inline void tm_count_read_(const tm_allocator_stats* counters, tm_allocator_stats* out) {
  out->live_bytes = __atomic_load_n(&counters->live_bytes, __ATOMIC_RELAXED);
  out->live_blocks = __atomic_load_n(&counters->live_blocks, __ATOMIC_RELAXED);
  out->peak_live_bytes = __atomic_load_n(&counters->peak_live_bytes, __ATOMIC_RELAXED);
  out->reserved_bytes = __atomic_load_n(&counters->reserved_bytes, __ATOMIC_RELAXED);
  out->peak_reserved_bytes = __atomic_load_n(&counters->peak_reserved_bytes, __ATOMIC_RELAXED);
  out->alloc_calls = __atomic_load_n(&counters->alloc_calls, __ATOMIC_RELAXED);
  out->upstream_calls = __atomic_load_n(&counters->upstream_calls, __ATOMIC_RELAXED);
}

#endif  // TM_ALLOC_COUNTERS_H_
