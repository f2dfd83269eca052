#include "engine/counting.h"

#include <stdbool.h>
#include <tm/tm.h>

typedef struct counting {
  tm_allocator base;       // must be first
  tm_allocator* upstream;  // retained
  memory_budget* budget;   // borrowed; may be NULL
  void (*on_new_peak)(void);
  // These are read and written with __atomic.
  uint64_t live_bytes;
  uint64_t small_bytes;    // live, in blocks that share granules
  uint64_t granule_bytes;  // of live blocks that have granules of their own
  uint64_t peak_bytes;
  uint64_t told_peak_bytes;  // since on_new_peak was set
  uint64_t recent_peak_bytes;
  uint64_t alloc_calls;
  uint64_t failed_calls;
  uint64_t free_calls;
} counting;

//===-- Counting ----------------------------------------------------------===//

static uint64_t load(const uint64_t* value) { return __atomic_load_n(value, __ATOMIC_RELAXED); }

// Whether `value` is the largest so far.
static bool raise_to(uint64_t* peak, uint64_t value) {
  uint64_t seen = load(peak);
  while (seen < value) {
    if (__atomic_compare_exchange_n(peak, &seen, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
      return true;
    }
  }
  return false;
}

static uint64_t round_up(uint64_t value, uint64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Adds (`sign` 1) or takes away (-1) what cudaMalloc needs for a block.
static void count_granules(counting* self, size_t size, int sign) {
  const bool is_small = size <= COUNTING_GRANULE - COUNTING_UNIT;
  uint64_t* count = is_small ? &self->small_bytes : &self->granule_bytes;
  const uint64_t bytes = round_up(size, is_small ? COUNTING_UNIT : COUNTING_GRANULE);
  __atomic_fetch_add(count, sign > 0 ? bytes : -bytes, __ATOMIC_RELAXED);
}

static void count_alloc(counting* self, size_t size) {
  count_granules(self, size, 1);
  const uint64_t live = __atomic_add_fetch(&self->live_bytes, size, __ATOMIC_RELAXED);
  (void)raise_to(&self->recent_peak_bytes, live);
  (void)raise_to(&self->peak_bytes, live);
  if (self->on_new_peak && raise_to(&self->told_peak_bytes, live)) self->on_new_peak();
}

//===-- The budget --------------------------------------------------------===//

static tm_status spend(memory_budget* budget, size_t size) {
  if (!budget) return TM_OK;
  const uint64_t used = __atomic_add_fetch(&budget->used_bytes, size, __ATOMIC_RELAXED);
  if (used <= budget->limit_bytes) return TM_OK;
  __atomic_fetch_sub(&budget->used_bytes, size, __ATOMIC_RELAXED);
  return TM_RAISE(TM_ERR_NO_MEMORY,
                  "counting: %zu bytes asked, %llu of the %llu allowed are in use", size,
                  (unsigned long long)(used - size), (unsigned long long)budget->limit_bytes);
}

static void refund(memory_budget* budget, size_t size) {
  if (budget) __atomic_fetch_sub(&budget->used_bytes, size, __ATOMIC_RELAXED);
}

//===-- The allocator -----------------------------------------------------===//

static void counting_destroy(tm_allocator* allocator) {
  counting* self = (counting*)allocator;
  tm_allocator_release(self->upstream);
  tm_allocator_deinit_(allocator);
  tm_bookkeeping_free(self);
}

static tm_status counting_alloc(tm_allocator* allocator, size_t size, tm_stream* stream,
                                void** out) {
  counting* self = (counting*)allocator;
  __atomic_fetch_add(&self->alloc_calls, 1, __ATOMIC_RELAXED);
  tm_status status = spend(self->budget, size);
  if (status != TM_OK) {
    __atomic_fetch_add(&self->failed_calls, 1, __ATOMIC_RELAXED);
    return status;
  }
  status = tm_allocator_alloc_nested_(self->upstream, size, stream, out);
  if (status == TM_OK) {
    count_alloc(self, size);
  } else {
    __atomic_fetch_add(&self->failed_calls, 1, __ATOMIC_RELAXED);
    refund(self->budget, size);
  }
  return status;
}

static void counting_free(tm_allocator* allocator, void* ptr, size_t size, tm_stream* stream) {
  counting* self = (counting*)allocator;
  __atomic_fetch_add(&self->free_calls, 1, __ATOMIC_RELAXED);
  __atomic_fetch_sub(&self->live_bytes, size, __ATOMIC_RELAXED);
  count_granules(self, size, -1);
  tm_allocator_free(self->upstream, ptr, size, stream);
  refund(self->budget, size);
}

static tm_status counting_trim(tm_allocator* allocator, size_t keep) {
  return tm_allocator_trim(((counting*)allocator)->upstream, keep);
}

static tm_status counting_get_stats(tm_allocator* allocator, tm_allocator_stats* out) {
  const counting* self = (const counting*)allocator;
  const uint64_t allocs = load(&self->alloc_calls);
  const uint64_t frees = load(&self->free_calls);
  *out = (tm_allocator_stats){
      .live_bytes = load(&self->live_bytes),
      .live_blocks = allocs - load(&self->failed_calls) - frees,
      .peak_live_bytes = load(&self->peak_bytes),
      .reserved_bytes = load(&self->live_bytes),
      .peak_reserved_bytes = load(&self->peak_bytes),
      .alloc_calls = allocs,
      .upstream_calls = allocs + frees,
      .limit_bytes = self->budget ? self->budget->limit_bytes : 0,
      .knows_largest_free = true,  // nothing is held that is not in use
  };
  return TM_OK;
}

static const tm_allocator_vtable counting_vtable = {
    .name = "counting",
    .destroy = counting_destroy,
    .alloc = counting_alloc,
    .free = counting_free,
    .trim = counting_trim,
    .get_stats = counting_get_stats,
};

tm_allocator* counting_allocator_create(tm_allocator* upstream, memory_budget* budget) {
  if (!upstream) {
    (void)TM_NULL_HANDLE("counting_allocator_create: the upstream");
    return NULL;
  }
  counting* self = tm_bookkeeping_alloc(sizeof(*self), "a counting allocator");
  if (!self) return NULL;
  tm_allocator_init_(&self->base, &counting_vtable, tm_allocator_device(upstream),
                     tm_allocator_stream(upstream));
  self->base.ignores_stream = upstream->ignores_stream;
  self->base.is_dry = upstream->is_dry;
  self->base.upstream = upstream;
  self->upstream = tm_allocator_retain(upstream);
  self->base.upstream = upstream;
  self->budget = budget;
  return &self->base;
}

uint64_t counting_recent_peak(tm_allocator* allocator) {
  return load(&((counting*)allocator)->recent_peak_bytes);
}

uint64_t counting_granule_bytes(tm_allocator* allocator) {
  const counting* self = (const counting*)allocator;
  return load(&self->granule_bytes) + round_up(load(&self->small_bytes), COUNTING_GRANULE);
}

void counting_restart_peak(tm_allocator* allocator) {
  counting* self = (counting*)allocator;
  __atomic_store_n(&self->recent_peak_bytes, load(&self->live_bytes), __ATOMIC_RELAXED);
}

void counting_on_new_peak(tm_allocator* allocator, void (*hook)(void)) {
  counting* self = (counting*)allocator;
  __atomic_store_n(&self->told_peak_bytes, load(&self->live_bytes), __ATOMIC_RELAXED);
  self->on_new_peak = hook;
}
