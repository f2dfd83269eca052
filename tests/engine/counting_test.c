// The counting allocator: what it counts, and the budget it may share.

#include "engine/counting.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <tm/tm.h>

static tm_allocator_stats stats_of(tm_allocator* allocator) {
  tm_allocator_stats stats;
  cr_assert(eq(int, tm_allocator_get_stats(allocator, &stats), TM_OK));
  return stats;
}

static void* take(tm_allocator* allocator, size_t size) {
  void* block;
  cr_assert(eq(int, tm_allocator_alloc(allocator, size, NULL, &block), TM_OK));
  return block;
}

Test(counting, counts_calls_and_what_is_live_in_rounded_bytes) {
  tm_auto_allocator counting = counting_allocator_create(tm_host_allocator(), NULL);
  void* a = take(counting, 100);
  void* b = take(counting, 64);
  tm_allocator_free(counting, a, 100, NULL);
  const tm_allocator_stats stats = stats_of(counting);
  cr_expect(eq(u64, stats.live_bytes, 64));
  cr_expect(eq(u64, stats.live_blocks, 1));
  cr_expect(eq(u64, stats.peak_live_bytes, 128 + 64));
  cr_expect(eq(u64, stats.alloc_calls, 2));
  cr_expect(eq(u64, stats.upstream_calls, 3));
  tm_allocator_free(counting, b, 64, NULL);
  cr_expect(eq(u64, stats_of(counting).live_blocks, 0));
}

Test(counting, is_what_its_upstream_is) {
  tm_auto_allocator counting = counting_allocator_create(tm_host_allocator(), NULL);
  cr_expect(tm_device_equal(tm_allocator_device(counting), tm_device_make(TM_CPU, 0)));
  cr_expect(eq(sz, tm_allocator_alignment(counting), tm_allocator_alignment(tm_host_allocator())));
  cr_expect(eq(ptr, counting_allocator_create(NULL, NULL), NULL));
}

static int peaks;
static void note_peak(void) { peaks++; }

Test(counting, recent_peaks_start_anew_and_new_ones_are_told) {
  tm_auto_allocator counting = counting_allocator_create(tm_host_allocator(), NULL);
  counting_on_new_peak(counting, note_peak);
  tm_allocator_free(counting, take(counting, 1024), 1024, NULL);
  cr_expect(eq(u64, counting_recent_peak(counting), 1024));
  counting_restart_peak(counting);
  cr_expect(eq(u64, counting_recent_peak(counting), 0));
  tm_allocator_free(counting, take(counting, 512), 512, NULL);
  cr_expect(eq(u64, counting_recent_peak(counting), 512));
  cr_expect(eq(int, peaks, 1));
  counting_on_new_peak(counting, note_peak);  // smaller ones count again
  tm_allocator_free(counting, take(counting, 256), 256, NULL);
  tm_allocator_free(counting, take(counting, 256), 256, NULL);
  cr_expect(eq(int, peaks, 2));
  void* kept = take(counting, 2048);
  cr_expect(eq(int, peaks, 3));
  counting_on_new_peak(counting, NULL);
  tm_allocator_free(counting, take(counting, 4096), 4096, NULL);
  tm_allocator_free(counting, kept, 2048, NULL);
  cr_expect(eq(int, peaks, 3));
  cr_expect(eq(u64, stats_of(counting).peak_live_bytes, 6144));
}

Test(counting, knows_the_granules_of_what_is_live) {
  tm_auto_allocator counting = counting_allocator_create(tm_host_allocator(), NULL);
  const uint64_t granule = COUNTING_GRANULE;
  void* small = take(counting, 1);
  cr_expect(eq(u64, counting_granule_bytes(counting), granule));
  void* large = take(counting, COUNTING_GRANULE + 1);
  cr_expect(eq(u64, counting_granule_bytes(counting), 3 * granule));
  tm_allocator_free(counting, small, 1, NULL);
  cr_expect(eq(u64, counting_granule_bytes(counting), 2 * granule));
  tm_allocator_free(counting, large, COUNTING_GRANULE + 1, NULL);
  cr_expect(eq(u64, counting_granule_bytes(counting), 0));
}

Test(counting, a_shared_budget_is_a_cap_and_comes_back) {
  memory_budget budget = {.limit_bytes = 1024};
  tm_auto_allocator one = counting_allocator_create(tm_host_allocator(), &budget);
  tm_auto_allocator other = counting_allocator_create(tm_host_allocator(), &budget);
  void* a = take(one, 512);
  void* b = take(other, 512);
  void* refused = &budget;
  cr_expect(eq(int, tm_allocator_alloc(one, 64, NULL, &refused), TM_ERR_NO_MEMORY));
  cr_expect(eq(ptr, refused, NULL));
  tm_allocator_free(other, b, 512, NULL);
  void* c = take(one, 512);
  tm_allocator_free(one, c, 512, NULL);
  tm_allocator_free(one, a, 512, NULL);
  cr_expect(eq(u64, budget.used_bytes, 0));
  cr_expect(eq(u64, stats_of(one).live_blocks, 0));
}

Test(counting, is_dry_where_its_upstream_is) {
  tm_auto_allocator dry = tm_dry_allocator_create(tm_device_make(TM_DEVICE, 0), NULL);
  tm_auto_allocator counting = counting_allocator_create(dry, NULL);
  cr_expect(eq(ptr, tm_allocator_upstream(counting), dry));
  cr_expect(eq(ptr, tm_guard_adaptor_create(counting), NULL), "it would touch the memory");
  tm_auto_allocator stack = tm_stack_allocator_create(counting, NULL, NULL);
  cr_expect(stack != NULL, "needs no stream");
}
