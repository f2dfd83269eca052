// Seeds follow their sequences, whatever joins, finishes and makes room.

#include "engine/seeds.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <tm/tm.h>

#include "tests/support/failing.h"
#include "tests/support/machine.h"

enum { MAX_COUNT = 16, STEPS = 3000 };

static void small_device(void) {
  machine_configure(1, "64MiB");
  machine_require_devices(1);
}

static unsigned seed_of_this_run(void) {
  const char* text = getenv("TM_TEST_SEED");
  const unsigned seed = text ? (unsigned)strtoul(text, NULL, 0) : (unsigned)time(NULL);
  printf("TM_TEST_SEED=%u\n", seed);
  return seed;
}

// The sequences of a step: some of those before are gone, some join, and now and then one that was
// in the middle comes back at the end.
static int64_t next_step(uint32_t* requests, int64_t count, uint32_t* next, unsigned* random) {
  int64_t kept = 0;
  uint32_t back = 0;
  for (int64_t i = 0; i < count; i++) {
    const int fate = rand_r(random) % 10;
    if (fate > 1) {
      requests[kept++] = requests[i];
    } else if (fate == 1) {
      back = requests[i];
    }
  }
  while (kept < MAX_COUNT && rand_r(random) % 3) requests[kept++] = ++*next;
  if (back && kept < MAX_COUNT) requests[kept++] = back;
  return kept;
}

// Moves the seeds on the device, and compares all of them.
static void expect_seeds(seeds* s, const uint32_t* requests, int64_t count, const tm_tensor* joined,
                         tm_batch_copy* copies) {
  bool moves = false;
  cr_assert(eq(int, seeds_add(s, requests, count, joined, copies, &moves), TM_OK), "%s",
            tm_last_error()->message);
  cr_assert(eq(int, moves, tm_batch_copy_size(copies) > 0));
  cr_assert(eq(int, tm_batch_copy_run(copies), TM_OK));
  if (moves) seeds_commit(s, requests, count);
  tm_auto_tensor back = tm_empty(TM_SHAPE(MAX_COUNT), TM_I32, TM_CPU_PINNED);
  cr_assert(eq(int, tm_copy(&s->rows.front, &back), TM_OK));
  cr_assert(eq(int, tm_stream_sync(tm_current_stream()), TM_OK));
  for (int64_t i = 0; i < count; i++) {
    cr_assert(eq(i32, TM_DATA(int32_t, &back)[i], seeds_of(requests[i])));
  }
}

Test(seeds, follow_their_sequences, .init = small_device) {
  tm_auto_stream stream = tm_stream_create(0, 0);
  TM_USE_STREAM(stream);
  TM_USE_ALLOCATOR(tm_cuda_allocator(0));
  TM_USE_ALLOCATOR(tm_pinned_allocator());
  tm_auto_tensor joined = tm_empty(TM_SHAPE(MAX_COUNT), TM_I32, TM_CPU_PINNED);
  tm_batch_copy* copies = tm_batch_copy_create();
  seeds s;
  cr_assert(eq(int, seeds_init(MAX_COUNT, &s), TM_OK), "%s", tm_last_error()->message);
  uint32_t requests[MAX_COUNT];
  uint32_t next = 0;
  unsigned random = seed_of_this_run();
  int64_t count = 0;
  for (int i = 0; i < STEPS; i++) {
    count = next_step(requests, count, &next, &random);
    expect_seeds(&s, requests, count, &joined, copies);
  }
  seeds_deinit(&s);
  tm_batch_copy_release(copies);
}

Test(seeds, nothing_is_copied_while_the_same_sequences_run, .init = small_device) {
  tm_auto_stream stream = tm_stream_create(0, 0);
  TM_USE_STREAM(stream);
  TM_USE_ALLOCATOR(tm_cuda_allocator(0));
  TM_USE_ALLOCATOR(tm_pinned_allocator());
  tm_auto_tensor joined = tm_empty(TM_SHAPE(MAX_COUNT), TM_I32, TM_CPU_PINNED);
  tm_batch_copy* copies = tm_batch_copy_create();
  const uint32_t requests[] = {4, 8, 15, 16};
  seeds s;
  cr_assert(eq(int, seeds_init(MAX_COUNT, &s), TM_OK));
  expect_seeds(&s, requests, 4, &joined, copies);
  bool moves = true;
  cr_assert(eq(int, seeds_add(&s, requests, 4, &joined, copies, &moves), TM_OK));
  cr_expect(not(moves));
  cr_assert(eq(int, seeds_add(&s, requests, 2, &joined, copies, &moves), TM_OK));
  cr_expect(not(moves), "the last two have finished");
  cr_assert(eq(int, seeds_add(&s, requests + 1, 3, &joined, copies, &moves), TM_OK));
  cr_expect(moves);
  cr_expect(eq(sz, tm_batch_copy_size(copies), 1), "three rows, side by side");
  seeds_deinit(&s);
  tm_batch_copy_release(copies);
}

static tm_status create_and_release(tm_allocator* upstream) {
  (void)upstream;
  tm_auto_stream stream = tm_stream_create(0, 0);
  if (!stream) return tm_last_status();
  TM_USE_STREAM(stream);
  TM_USE_ALLOCATOR(tm_cuda_allocator(0));
  seeds s;
  const tm_status status = seeds_init(MAX_COUNT, &s);
  if (status == TM_OK) seeds_deinit(&s);
  return status;
}

Test(seeds, creation_survives_every_failure, .init = small_device) {
  expect_survives_every_failure(create_and_release);
}
