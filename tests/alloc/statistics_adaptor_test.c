// What the statistics adaptor counts, level by level.

#include "tm/alloc/statistics_adaptor.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#include "tests/support/counting_allocator.h"
#include "tests/support/failing.h"
#include "tests/support/random.h"
#include "tm/alloc/host.h"
#include "tm/alloc/stack.h"
#include "tm/alloc/storage.h"

static tm_allocator* create(tm_allocator* upstream) {
  tm_allocator* adaptor = tm_statistics_adaptor_create(upstream);
  cr_assert(adaptor != NULL, "%s", tm_last_error()->message);
  return adaptor;
}

static void* take(tm_allocator* allocator, size_t size) {
  void* block = NULL;
  cr_assert(eq(int, tm_allocator_alloc(allocator, size, NULL, &block), TM_OK));
  return block;
}

static tm_statistics_counters counters_of(tm_allocator* adaptor) {
  tm_statistics_counters counters;
  cr_assert(eq(int, tm_statistics_get(adaptor, &counters), TM_OK));
  return counters;
}

static tm_statistics_counters pop(tm_allocator* adaptor) {
  tm_statistics_counters counters;
  cr_assert(eq(int, tm_statistics_pop(adaptor, &counters), TM_OK));
  return counters;
}

Test(statistics_adaptor, counts_rounded_bytes_and_blocks_now_at_most_and_in_total) {
  tm_auto_allocator adaptor = create(tm_host_allocator());
  void* a = take(adaptor, 1);
  void* b = take(adaptor, 65);
  tm_allocator_free(adaptor, a, 1, NULL);
  void* c = take(adaptor, 64);
  const tm_statistics_counters counters = counters_of(adaptor);
  cr_expect(eq(i64, counters.current_bytes, 192));
  cr_expect(eq(i64, counters.peak_bytes, 192));
  cr_expect(eq(u64, counters.total_bytes, 256));
  cr_expect(eq(i64, counters.current_blocks, 2));
  cr_expect(eq(i64, counters.peak_blocks, 2));
  cr_expect(eq(u64, counters.total_blocks, 3));
  cr_expect(eq(u64, counters.failures, 0));
  tm_allocator_free(adaptor, b, 65, NULL);
  tm_allocator_free(adaptor, c, 64, NULL);
  cr_expect(eq(i64, counters_of(adaptor).current_bytes, 0));
  cr_expect(eq(i64, counters_of(adaptor).peak_bytes, 192));
}

Test(statistics_adaptor, a_peak_inside_a_push_is_one_outside_too) {
  tm_auto_allocator adaptor = create(tm_host_allocator());
  void* kept = take(adaptor, 64);
  cr_assert(eq(int, tm_statistics_push(adaptor), TM_OK));
  void* inner = take(adaptor, 640);
  tm_allocator_free(adaptor, inner, 640, NULL);
  tm_allocator_free(adaptor, kept, 64, NULL);
  const tm_statistics_counters inside = pop(adaptor);
  cr_expect(eq(i64, inside.current_bytes, -64));  // it gave back what was taken before
  cr_expect(eq(i64, inside.peak_bytes, 640));
  cr_expect(eq(u64, inside.total_blocks, 1));
  const tm_statistics_counters outside = counters_of(adaptor);
  cr_expect(eq(i64, outside.current_bytes, 0));
  cr_expect(eq(i64, outside.peak_bytes, 704));
  cr_expect(eq(u64, outside.total_bytes, 704));
}

Test(statistics_adaptor, the_life_is_counted_through_pushes) {
  tm_auto_allocator adaptor = create(tm_host_allocator());
  cr_assert(eq(int, tm_statistics_push(adaptor), TM_OK));
  void* block = take(adaptor, 100);
  tm_allocator_stats stats;
  cr_assert(eq(int, tm_allocator_get_stats(adaptor, &stats), TM_OK));
  cr_expect(eq(u64, stats.live_bytes, 128));
  cr_expect(eq(u64, stats.live_blocks, 1));
  cr_expect(eq(u64, stats.alloc_calls, 1));
  tm_allocator_free(adaptor, block, 100, NULL);
}

Test(statistics_adaptor, failures_are_counted_and_change_nothing_else) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  upstream.budget = 0;
  tm_allocator* adaptor = create(&upstream.base);
  void* block = &block;
  cr_expect(eq(int, tm_allocator_alloc(adaptor, 10, NULL, &block), TM_ERR_NO_MEMORY));
  cr_expect(block == NULL);
  cr_expect(strstr(tm_last_error()->message, "counting: 256 bytes") != NULL);
  const tm_statistics_counters counters = counters_of(adaptor);
  cr_expect(counters.failures == 2);  // the second after a trim
  cr_expect(eq(u64, counters.total_blocks, 0));
  cr_expect(eq(i64, counters.peak_bytes, 0));
  tm_allocator_release(adaptor);
  tm_allocator_release(&upstream.base);
  cr_expect(upstream.destroyed);
}

Test(statistics_adaptor, storages_count_and_keep_it_alive) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  tm_allocator* adaptor = create(&upstream.base);
  tm_allocator_release(&upstream.base);
  tm_storage* storage;
  cr_assert(eq(int, tm_storage_alloc(adaptor, 1000, NULL, &storage), TM_OK));
  cr_expect(eq(i64, counters_of(adaptor).current_bytes, 1024));
  tm_allocator_release(adaptor);
  cr_expect(not(upstream.destroyed));
  tm_storage_release(storage);
  cr_expect(upstream.destroyed);
}

Test(statistics_adaptor, misuse_is_an_error) {
  tm_statistics_counters counters;
  memset(&counters, 0xff, sizeof counters);
  cr_expect(tm_statistics_adaptor_create(NULL) == NULL);
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
  tm_clear_error();
  cr_expect(eq(int, tm_statistics_get(NULL, &counters), TM_ERR_INVALID));
  cr_expect(eq(u64, counters.total_bytes, 0));
  cr_expect(eq(int, tm_statistics_push(tm_host_allocator()), TM_ERR_INVALID));
  cr_expect(strstr(tm_last_error()->message, "is a host, no statistics") != NULL);
  tm_auto_allocator adaptor = create(tm_host_allocator());
  cr_expect(eq(int, tm_statistics_get(adaptor, NULL), TM_ERR_INVALID));
  memset(&counters, 0xff, sizeof counters);
  cr_expect(eq(int, tm_statistics_pop(adaptor, &counters), TM_ERR_INVALID));
  cr_expect(eq(u64, counters.total_bytes, 0));
  cr_assert(eq(int, tm_statistics_push(adaptor), TM_OK));
  cr_expect(eq(int, tm_statistics_pop(adaptor, NULL), TM_OK));
  cr_expect(tm_allocator_upstream(adaptor) == tm_host_allocator());
  cr_expect(tm_allocator_upstream(NULL) == NULL);
}

//===-- Against a model -------------------------------------------------------===//

// The model has the history of each open level, and looks at all of it.
enum { STEPS = 4000, LEVELS = 20, MAX_LIVE = 64, HISTORY = 8 * STEPS };

typedef struct model {
  int64_t history[LEVELS][HISTORY / LEVELS];  // changes in bytes
  int length[LEVELS];
  int depth;
} model;

static void expect_level(const model* m, int level, const tm_statistics_counters* counters) {
  int64_t current = 0;
  int64_t peak = 0;
  uint64_t total = 0;
  for (int i = 0; i < m->length[level]; i++) {
    current += m->history[level][i];
    peak = current > peak ? current : peak;
    total += m->history[level][i] > 0 ? (uint64_t)m->history[level][i] : 0;
  }
  cr_assert(eq(i64, counters->current_bytes, current));
  cr_assert(eq(i64, counters->peak_bytes, peak));
  cr_assert(eq(u64, counters->total_bytes, total));
}

static void note(model* m, int64_t change) {
  for (int level = 0; level < m->depth; level++) {
    cr_assert(m->length[level] < HISTORY / LEVELS);
    m->history[level][m->length[level]++] = change;
  }
}

static void change_depth(model* m, tm_allocator* adaptor, test_random* random) {
  if (m->depth < LEVELS && test_random_below(random, 2)) {
    cr_assert(eq(int, tm_statistics_push(adaptor), TM_OK));
    m->length[m->depth++] = 0;
  } else if (m->depth > 1) {
    const tm_statistics_counters counters = pop(adaptor);
    expect_level(m, --m->depth, &counters);
  }
}

Test(statistics_adaptor, is_what_a_model_of_the_whole_history_says) {
  static model m;
  m.depth = 1;
  test_random random = test_random_start("statistics_adaptor");
  tm_auto_allocator adaptor = create(tm_host_allocator());
  void* live[MAX_LIVE] = {NULL};
  size_t sizes[MAX_LIVE] = {0};
  for (int step = 0; step < HISTORY / LEVELS; step++) {
    const size_t i = test_random_below(&random, MAX_LIVE);
    if (live[i]) {
      tm_allocator_free(adaptor, live[i], sizes[i], NULL);
      live[i] = NULL;
      note(&m, -(int64_t)((sizes[i] + 63) / 64 * 64));
    } else {
      sizes[i] = 1 + test_random_below(&random, 5000);
      live[i] = take(adaptor, sizes[i]);
      note(&m, (int64_t)((sizes[i] + 63) / 64 * 64));
    }
    if (step % 7 == 0) {
      change_depth(&m, adaptor, &random);
    }
    const tm_statistics_counters counters = counters_of(adaptor);
    expect_level(&m, m.depth - 1, &counters);
  }
  for (int i = 0; i < MAX_LIVE; i++) {
    tm_allocator_free(adaptor, live[i], sizes[i], NULL);
  }
}

//===-- Failures --------------------------------------------------------------===//

static tm_status push_deep(tm_allocator* upstream) {
  tm_auto_allocator adaptor = tm_statistics_adaptor_create(upstream);
  if (!adaptor) {
    return tm_last_status();
  }
  for (int i = 0; i < 40; i++) {
    TM_TRY(tm_statistics_push(adaptor));
  }
  return TM_OK;
}

Test(statistics_adaptor, survives_every_failure) { expect_survives_every_failure(push_deep); }
