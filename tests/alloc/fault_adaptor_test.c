// Which requests the fault adaptor refuses.

#include "tm/alloc/fault_adaptor.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <string.h>

#include "tests/support/counting_allocator.h"
#include "tests/support/failing.h"
#include "tm/alloc/host.h"
#include "tm/alloc/stack.h"
#include "tm/alloc/statistics_adaptor.h"
#include "tm/alloc/storage.h"

static tm_allocator* create(tm_allocator* upstream, const tm_fault_options* options) {
  tm_allocator* adaptor = tm_fault_adaptor_create(upstream, options);
  cr_assert(adaptor != NULL, "%s", tm_last_error()->message);
  return adaptor;
}

static tm_status try_one(tm_allocator* allocator, size_t size) {
  void* block = &block;
  const tm_status status = tm_allocator_alloc(allocator, size, NULL, &block);
  if (status == TM_OK) {
    tm_allocator_free(allocator, block, size, NULL);
  } else {
    cr_expect(block == NULL);
  }
  return status;
}

static tm_fault_counts counts_of(tm_allocator* adaptor) {
  tm_fault_counts counts;
  cr_assert(eq(int, tm_fault_get(adaptor, &counts), TM_OK));
  return counts;
}

Test(fault_adaptor, every_nth_request_is_refused_and_the_upstream_not_asked) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  tm_allocator* adaptor = create(&upstream.base, &(tm_fault_options){.every_nth = 3});
  for (int i = 1; i <= 12; i++) {
    cr_expect(eq(int, try_one(adaptor, 100), i % 3 ? TM_OK : TM_ERR_NO_MEMORY), "request %d", i);
  }
  cr_expect(eq(u64, upstream.allocs, 8));
  cr_expect(eq(u64, upstream.failures, 0));
  cr_expect(eq(str, (char*)tm_last_error()->message,
               "fault: 100 bytes asked, refused on purpose (request 12, refusal 4)"));
  tm_allocator_release(adaptor);
  tm_allocator_release(&upstream.base);
  cr_expect(upstream.destroyed);
}

Test(fault_adaptor, a_refusal_holds_for_the_second_try) {
  tm_auto_allocator adaptor = create(tm_host_allocator(), &(tm_fault_options){.every_nth = 2});
  tm_auto_allocator above = tm_statistics_adaptor_create(adaptor);
  cr_expect(eq(int, try_one(above, 64), TM_OK));
  cr_expect(eq(int, try_one(above, 64), TM_ERR_NO_MEMORY));
  cr_expect(eq(u64, counts_of(adaptor).requests, 2));  // the second try is no request of its own
  cr_expect(eq(u64, counts_of(adaptor).refused, 1));
  tm_storage* storage = NULL;
  cr_expect(eq(int, tm_storage_alloc(adaptor, 64, NULL, &storage), TM_OK));
  tm_storage_release(storage);
  cr_expect(eq(int, tm_storage_alloc(adaptor, 64, NULL, &storage), TM_ERR_NO_MEMORY));
  cr_expect(storage == NULL);
  cr_expect(eq(int, tm_allocator_trim(adaptor, 0), TM_OK));
  cr_expect(eq(int, try_one(adaptor, 64), TM_OK));  // a trim of the caller's changes nothing
}

Test(fault_adaptor, other_failures_have_no_second_try) {
  tm_auto_allocator adaptor = create(
      tm_host_allocator(), &(tm_fault_options){.every_nth = 2, .status = TM_ERR_DEVICE_LOST});
  cr_expect(eq(int, try_one(adaptor, 64), TM_OK));
  cr_expect(eq(int, try_one(adaptor, 64), TM_ERR_DEVICE_LOST));
  cr_expect(eq(int, tm_allocator_trim(adaptor, 0), TM_OK));
  cr_expect(eq(int, try_one(adaptor, 64), TM_OK));
  cr_expect(eq(u64, counts_of(adaptor).requests, 3));
}

Test(fault_adaptor, other_rules_know_no_refusal_of_the_rules_before) {
  tm_auto_allocator adaptor = create(tm_host_allocator(), &(tm_fault_options){.every_nth = 1});
  cr_expect(tm_stack_allocator_create(adaptor, NULL, &(tm_stack_options){.initial_bytes = 4096}) ==
            NULL);  // which asks once
  cr_assert(eq(int, tm_fault_set(adaptor, NULL), TM_OK));
  cr_expect(eq(int, tm_allocator_trim(adaptor, 0), TM_OK));
  cr_expect(eq(int, try_one(adaptor, 4096), TM_OK));
  cr_expect(eq(u64, counts_of(adaptor).requests, 1));
  cr_expect(eq(u64, counts_of(adaptor).refused, 0));
}

Test(fault_adaptor, requests_above_a_size_are_refused) {
  tm_auto_allocator adaptor = create(tm_host_allocator(), &(tm_fault_options){.above_bytes = 100});
  cr_expect(eq(int, try_one(adaptor, 100), TM_OK));
  cr_expect(eq(int, try_one(adaptor, 101), TM_ERR_NO_MEMORY));  // as asked, not rounded
  cr_expect(eq(int, try_one(adaptor, 1), TM_OK));
}

// Which of 64 requests are refused.
static uint64_t pattern_of(tm_allocator* adaptor) {
  uint64_t pattern = 0;
  for (int i = 0; i < 64; i++) {
    pattern = pattern << 1 | (try_one(adaptor, 8) != TM_OK);
  }
  return pattern;
}

Test(fault_adaptor, a_seed_refuses_the_same_again) {
  const tm_fault_options options = {.probability = 0.5, .seed = 7};
  tm_auto_allocator adaptor = create(tm_host_allocator(), &options);
  const uint64_t first = pattern_of(adaptor);
  const uint64_t second = pattern_of(adaptor);
  cr_expect(first != second);
  cr_assert(eq(int, tm_fault_set(adaptor, &options), TM_OK));
  cr_expect(eq(u64, counts_of(adaptor).requests, 0));
  cr_expect(eq(u64, pattern_of(adaptor), first));
  cr_assert(
      eq(int, tm_fault_set(adaptor, &(tm_fault_options){.probability = 0.5, .seed = 8}), TM_OK));
  cr_expect(pattern_of(adaptor) != first);
}

Test(fault_adaptor, a_probability_is_about_kept) {
  enum { REQUESTS = 20000 };
  tm_auto_allocator adaptor =
      create(tm_host_allocator(), &(tm_fault_options){.probability = 0.1, .seed = 42});
  for (int i = 0; i < REQUESTS; i++) {
    (void)!try_one(adaptor, 8);
  }
  const uint64_t refused = counts_of(adaptor).refused;  // five deviations of 42
  cr_expect(refused > 1790 && refused < 2210, "%llu", (unsigned long long)refused);
  cr_assert(eq(int, tm_fault_set(adaptor, &(tm_fault_options){.probability = 1}), TM_OK));
  cr_expect(eq(u64, pattern_of(adaptor), UINT64_MAX));
  cr_assert(eq(int, tm_fault_set(adaptor, NULL), TM_OK));
  cr_expect(eq(u64, pattern_of(adaptor), 0));
}

Test(fault_adaptor, fails_with_the_status_that_is_asked_for) {
  tm_auto_allocator adaptor = create(
      tm_host_allocator(), &(tm_fault_options){.every_nth = 1, .status = TM_ERR_DEVICE_LOST});
  cr_expect(eq(int, try_one(adaptor, 8), TM_ERR_DEVICE_LOST));
  cr_expect(eq(int, tm_last_status(), TM_ERR_DEVICE_LOST));
  cr_expect(eq(u64, counts_of(adaptor).requests, 1));
}

Test(fault_adaptor, an_arena_above_says_so_and_goes_on) {
  tm_auto_allocator adaptor = create(tm_host_allocator(), &(tm_fault_options){.every_nth = 1});
  tm_auto_allocator stack = tm_stack_allocator_create(adaptor, NULL, NULL);
  cr_assert(stack != NULL);
  cr_expect(eq(int, try_one(stack, 1000), TM_ERR_NO_MEMORY));
  cr_assert(eq(int, tm_fault_set(adaptor, NULL), TM_OK));
  cr_expect(eq(int, try_one(stack, 1000), TM_OK));
}

Test(fault_adaptor, misuse_is_an_error) {
  cr_expect(tm_fault_adaptor_create(NULL, NULL) == NULL);
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
  tm_clear_error();
  const double bad[] = {-0.1, 1.1, NAN};
  for (int i = 0; i < 3; i++) {
    cr_expect(tm_fault_adaptor_create(tm_host_allocator(),
                                      &(tm_fault_options){.probability = bad[i]}) == NULL);
    cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
  }
  tm_auto_allocator adaptor = create(tm_host_allocator(), &(tm_fault_options){.every_nth = 1});
  cr_expect(
      eq(int, tm_fault_set(adaptor, &(tm_fault_options){.status = (tm_status)99}), TM_ERR_INVALID));
  cr_expect(eq(int, try_one(adaptor, 8), TM_ERR_NO_MEMORY));  // the rules are as they were
  cr_expect(eq(int, tm_fault_set(tm_host_allocator(), NULL), TM_ERR_INVALID));
  cr_expect(strstr(tm_last_error()->message, "is a host, no fault") != NULL);
  cr_expect(eq(int, tm_fault_get(adaptor, NULL), TM_ERR_INVALID));
}

static tm_status create_and_use(tm_allocator* upstream) {
  tm_auto_allocator adaptor = tm_fault_adaptor_create(upstream, NULL);
  return adaptor ? try_one(adaptor, 100) : tm_last_status();
}

Test(fault_adaptor, survives_every_failure) {
  expect_survives_every_failure_or_retries(create_and_use);
}
