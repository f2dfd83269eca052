// A step's batch: what the device is told is what comes back.

#include "engine/batch.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <tm/tm.h>

#include "engine/seeds.h"
#include "tests/support/machine.h"

static void small_device(void) {
  machine_configure(1, "64MiB");
  machine_require_devices(1);
}

static const batch_limits limits = {.tokens = 64, .sequences = 4, .blocks = 8, .vocabulary = 1000};

static int32_t blocks_of_first[] = {5, 3};
static int32_t blocks_of_third[] = {7};

// The first computes the last 10 of its tokens, the second nothing, the third 3 of 20.
static const sequence running[] = {
    {.request = 1,
     .known = 70,
     .computed = 60,
     .planned = 10,
     .block_count = 2,
     .blocks = blocks_of_first},
    {.request = 2, .known = 9, .computed = 4, .planned = 0},
    {.request = 3,
     .known = 20,
     .computed = 0,
     .planned = 3,
     .block_count = 1,
     .blocks = blocks_of_third},
};

static batch make_batch(void) {
  batch b;
  TM_USE_ALLOCATOR(tm_pinned_allocator());
  cr_assert(eq(int, batch_init(&limits, &b), TM_OK), "%s", tm_last_error()->message);
  return b;
}

Test(batch, holds_the_planned_tokens_and_blocks, .init = small_device) {
  tm_auto_stream stream = tm_stream_create(0, 0);
  TM_USE_STREAM(stream);
  TM_USE_ALLOCATOR(tm_cuda_allocator(0));
  batch b = make_batch();
  batch_fill(&b, running, 3);
  cr_expect(eq(i64, batch_tokens(&b), 13));
  cr_expect(eq(i64, batch_sequences(&b), 2));
  cr_expect(eq(i32, b.data[BATCH_POSITIONS][0], 60));
  cr_expect(eq(i32, b.data[BATCH_POSITIONS][9], 69));
  cr_expect(eq(i32, b.data[BATCH_POSITIONS][10], 0));
  cr_expect(eq(i32, b.data[BATCH_TOKEN_OFFSETS][1], 10));
  cr_expect(eq(i32, b.data[BATCH_TOKEN_OFFSETS][2], 13));
  cr_expect(eq(i32, b.data[BATCH_LENGTHS][0], 70));
  cr_expect(eq(i32, b.data[BATCH_LENGTHS][1], 3));
  cr_expect(eq(i32, b.data[BATCH_BLOCK_OFFSETS][2], 3));
  cr_expect(eq(i32, b.data[BATCH_BLOCKS][1], 3));
  cr_expect(eq(i32, b.data[BATCH_BLOCKS][2], 7));
  cr_expect(eq(i32, b.data[BATCH_LAST_TOKENS][0], b.data[BATCH_TOKEN_IDS][9]));
  for (int i = 0; i < 13; i++) {
    cr_expect(b.data[BATCH_TOKEN_IDS][i] >= 0 && b.data[BATCH_TOKEN_IDS][i] < 1000);
  }
  batch_deinit(&b);
}

static seeds make_seeds(void) {
  seeds s;
  cr_assert(eq(int, seeds_init(limits.sequences, &s), TM_OK), "%s", tm_last_error()->message);
  return s;
}

// Sends a batch; `spoil` is overwritten on the device in between.
static tm_status send(batch* b, seeds* s, const tm_tensor* spoil, int64_t* sampled) {
  batch_fill(b, running, 3);
  TM_TRY(batch_upload(b, s));
  if (spoil) TM_TRY(tm_fill_bytes(spoil, 0xff));
  TM_TRY(batch_download(b, s));
  TM_TRY(batch_launch(b, true));
  return batch_wait(b, sampled);
}

Test(batch, sampled_tokens_come_back_and_wrong_ones_are_noticed, .init = small_device) {
  tm_auto_stream stream = tm_stream_create(0, 0);
  TM_USE_STREAM(stream);
  TM_USE_ALLOCATOR(tm_cuda_allocator(0));
  batch b = make_batch();
  seeds s = make_seeds();
  int64_t sampled = -1;
  cr_expect(eq(int, send(&b, &s, NULL, &sampled), TM_OK), "%s", tm_last_error()->message);
  cr_expect(eq(i64, sampled, 1), "only the first sequence has computed all it knows");
  cr_expect(eq(int, send(&b, &s, &b.device[BATCH_LAST_TOKENS], &sampled), TM_ERR_CORRUPT));
  cr_expect(eq(i64, sampled, 0));
  cr_expect(eq(int, send(&b, &s, &b.device[BATCH_POSITIONS], &sampled), TM_OK));
  cr_expect(not(b.in_flight));
  seeds_deinit(&s);
  batch_deinit(&b);
}

Test(batch, seeds_that_moved_come_back_and_wrong_ones_are_noticed, .init = small_device) {
  tm_auto_stream stream = tm_stream_create(0, 0);
  TM_USE_STREAM(stream);
  TM_USE_ALLOCATOR(tm_cuda_allocator(0));
  batch b = make_batch();
  seeds s = make_seeds();
  int64_t sampled = -1;
  cr_expect(eq(int, send(&b, &s, NULL, &sampled), TM_OK), "%s", tm_last_error()->message);
  cr_expect(b.has_seeds);
  cr_expect(eq(i32, TM_DATA(int32_t, &b.seeds_host)[0], seeds_of(1)));
  cr_expect(eq(i32, TM_DATA(int32_t, &b.seeds_host)[1], seeds_of(3)));
  cr_expect(eq(int, send(&b, &s, NULL, &sampled), TM_OK));
  cr_expect(not(b.has_seeds), "the same sequences: nothing moves");
  s.count = 1;  // as though the second were new
  batch_fill(&b, running, 3);
  cr_assert(eq(int, batch_upload(&b, &s), TM_OK));
  cr_assert(eq(int, tm_fill_bytes(&s.rows.front, 0xff), TM_OK));
  cr_assert(eq(int, batch_download(&b, &s), TM_OK));
  cr_assert(eq(int, batch_launch(&b, true), TM_OK));
  cr_expect(eq(int, batch_wait(&b, &sampled), TM_ERR_CORRUPT));
  seeds_deinit(&s);
  batch_deinit(&b);
}

Test(batch, waiting_for_what_is_not_in_flight_is_nothing, .init = small_device) {
  tm_auto_stream stream = tm_stream_create(0, 0);
  TM_USE_STREAM(stream);
  TM_USE_ALLOCATOR(tm_cuda_allocator(0));
  batch b = make_batch();
  seeds s = make_seeds();
  int64_t sampled = -1;
  cr_expect(eq(int, batch_wait(&b, &sampled), TM_OK));
  cr_expect(eq(i64, sampled, 0));
  batch_fill(&b, running, 3);
  cr_assert(eq(int, batch_upload(&b, &s), TM_OK));
  cr_assert(eq(int, batch_launch(&b, false), TM_OK));
  cr_expect(b.in_flight);
  cr_expect(eq(int, batch_wait(&b, &sampled), TM_OK));
  cr_expect(eq(i64, sampled, 0), "a step that was undone samples nothing");
  seeds_deinit(&s);
  batch_deinit(&b);
}
