#include "tests/support/random_workload.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static const size_t largest_size = (size_t)4 << 20;
static const uint64_t most_live = (uint64_t)16000 << 20;
static const unsigned allocation_percent = 73;

typedef struct live_block {
  void* ptr;
  size_t size;
} live_block;

typedef struct workload {
  tm_allocator* allocator;
  uint64_t random;
  live_block* blocks;
  size_t live;
  uint64_t live_bytes;
  size_t allocated;  // so far
} workload;

static uint64_t next_random(workload* w) {  // splitmix64
  uint64_t z = (w->random += 0x9e3779b97f4a7c15u);
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

static tm_status allocate(workload* w, size_t size) {
  void* ptr = NULL;
  if (w->allocator) {
    TM_TRY(tm_allocator_alloc(w->allocator, size, NULL, &ptr));
  }
  w->blocks[w->live++] = (live_block){ptr, size};
  w->live_bytes += size;
  w->allocated++;
  return TM_OK;
}

static void release(workload* w, size_t i) {
  const live_block block = w->blocks[i];
  w->blocks[i] = w->blocks[--w->live];
  w->live_bytes -= block.size;
  if (w->allocator) {
    tm_allocator_free(w->allocator, block.ptr, block.size, NULL);
  }
}

static tm_status operate(workload* w, size_t count) {
  const size_t size = 1 + (size_t)(next_random(w) % largest_size);
  const bool allocates = w->live == 0 || (next_random(w) % 100 < allocation_percent &&
                                          w->allocated < count && w->live_bytes + size < most_live);
  if (allocates) {
    return allocate(w, size);
  }
  release(w, (size_t)(next_random(w) % w->live));
  return TM_OK;
}

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static tm_status operate_all(workload* w, size_t count, random_workload* out) {
  const double before = seconds();
  for (size_t i = 0; i < 2 * count; i++) {
    TM_TRY(operate(w, count));
  }
  const double after = seconds();
  if (w->allocator) {
    tm_allocator_stats stats;
    TM_TRY(tm_allocator_get_stats(w->allocator, &stats));
    out->peak_live_bytes = stats.peak_live_bytes;
    out->peak_reserved_bytes = stats.peak_reserved_bytes;
  }
  out->nanoseconds = (after - before) * 1e9 / (double)(2 * count);
  return TM_OK;
}

tm_status random_workload_run(tm_allocator* allocator, size_t count, uint64_t seed,
                              random_workload* out) {
  memset(out, 0, sizeof *out);
  workload w = {.allocator = allocator, .random = seed};
  w.blocks = calloc(count + 1, sizeof *w.blocks);
  if (!w.blocks) {
    return TM_RAISE(TM_ERR_NO_MEMORY, "random workload: no memory for a list of %zu blocks", count);
  }
  const tm_status status = operate_all(&w, count, out);
  while (w.live) {
    release(&w, w.live - 1);
  }
  free(w.blocks);
  return status;
}
