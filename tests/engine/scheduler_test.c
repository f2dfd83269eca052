// The scheduler and the KV cache, without a device: the cache lies in host memory.

#include "engine/scheduler.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdlib.h>
#include <string.h>
#include <tm/tm.h>

static const model_config tiny = {
    .layers = 1,
    .hidden = 8,
    .heads = 1,
    .kv_heads = 1,
    .head_dim = 8,
    .intermediate = 8,
    .vocabulary = 8,
    .max_positions = 4096,
    .dtype = TM_F16,
};

static kv_cache make_cache(int64_t blocks) {
  kv_cache cache;
  const tm_status status =
      kv_cache_init(&tiny, tm_host_allocator(), blocks * kv_block_bytes(&tiny), &cache);
  cr_assert(eq(int, status, TM_OK), "%s", tm_last_error()->message);
  cr_assert(eq(i32, cache.block_count, (int32_t)blocks));
  return cache;
}

static scheduler make(kv_cache* cache, int64_t max_batch, int64_t max_tokens,
                      const trace_request* requests, size_t count) {
  const scheduler_limits limits = {
      .max_batch = max_batch, .max_tokens = max_tokens, .max_positions = tiny.max_positions};
  const request_trace trace = {.requests = (trace_request*)requests, .count = count};
  scheduler s;
  cr_assert(eq(int, scheduler_init(&limits, cache, &trace, &s), TM_OK));
  return s;
}

//===-- The KV cache ------------------------------------------------------===//

Test(kv_cache, every_block_is_handed_out_once) {
  kv_cache cache = make_cache(10);
  int32_t blocks[10];
  bool seen[10] = {false};
  cr_assert(kv_cache_take(&cache, 4, blocks));
  cr_assert(kv_cache_take(&cache, 6, blocks + 4));
  for (int i = 0; i < 10; i++) {
    cr_assert(blocks[i] >= 0 && blocks[i] < 10 && !seen[blocks[i]]);
    seen[blocks[i]] = true;
  }
  cr_expect(not(kv_cache_take(&cache, 1, blocks)));
  kv_cache_give(&cache, 10, blocks);
  cr_expect(eq(i32, cache.free_count, 10));
  kv_cache_deinit(&cache);
}

Test(kv_cache, too_little_memory_for_one_block_is_an_error) {
  kv_cache cache;
  cr_expect(eq(int, kv_cache_init(&tiny, tm_host_allocator(), kv_block_bytes(&tiny) - 1, &cache),
               TM_ERR_OUT_OF_RANGE));
  cr_expect(not(tm_ok(&cache.memory)));
}

//===-- One request -------------------------------------------------------===//

// A plan has no request at all, and limits that no device has memory for.
Test(scheduler, needs_no_more_memory_than_its_requests_can_use) {
  const trace_request requests[2] = {{64, 4}, {64, 4}};
  kv_cache cache = make_cache(64);
  for (size_t count = 0; count <= 2; count++) {
    scheduler s = make(&cache, INT32_MAX, 1024, requests, count);
    scheduler_plan(&s);
    cr_expect(eq(sz, s.running_count, count));
    while (!scheduler_is_idle(&s)) {
      scheduler_commit(&s);
      scheduler_plan(&s);
    }
    cr_expect(eq(u64, s.counts.finished, (uint64_t)count));
    cr_expect(eq(i32, cache.free_count, 64));
    scheduler_deinit(&s);
  }
  kv_cache_deinit(&cache);
}

Test(scheduler, knows_how_many_blocks_admit_a_whole_batch) {
  int64_t blocks;
  cr_expect(eq(int, scheduler_kv_blocks(1, 65, &blocks), TM_OK));
  cr_expect(eq(i64, blocks, 2));  // alone, a sequence may take all
  cr_expect(eq(int, scheduler_kv_blocks(500, 640, &blocks), TM_OK));
  cr_expect(eq(i64, blocks - (blocks / 100 + 1), 5000));
  cr_expect(eq(int, scheduler_kv_blocks(INT64_MAX / 2, 640, &blocks), TM_ERR_OVERFLOW));
  cr_expect(eq(i64, blocks, 0));
  cr_expect(eq(int, scheduler_kv_blocks(1 << 20, 1 << 20, &blocks), TM_ERR_OVERFLOW));
}

Test(scheduler, a_prompt_is_computed_in_chunks_then_tokens_one_by_one) {
  const trace_request one = {.prompt_tokens = 250, .generated_tokens = 3};
  kv_cache cache = make_cache(8);
  scheduler s = make(&cache, 4, 100, &one, 1);
  static const int64_t planned[] = {100, 100, 50, 1, 1};
  for (size_t i = 0; i < sizeof(planned) / sizeof(planned[0]); i++) {
    cr_assert(not(scheduler_is_idle(&s)));
    scheduler_plan(&s);
    cr_expect(eq(i64, s.planned_tokens, planned[i]), "step %zu", i);
    scheduler_commit(&s);
  }
  cr_expect(scheduler_is_idle(&s));
  cr_expect(eq(u64, s.counts.finished, 1));
  cr_expect(eq(i32, cache.free_count, 8), "all blocks came back");
  scheduler_deinit(&s);
  kv_cache_deinit(&cache);
}

Test(scheduler, a_request_that_generates_nothing_ends_with_its_prompt) {
  const trace_request one = {.prompt_tokens = 5, .generated_tokens = 0};
  kv_cache cache = make_cache(8);
  scheduler s = make(&cache, 4, 100, &one, 1);
  scheduler_plan(&s);
  scheduler_commit(&s);
  cr_expect(scheduler_is_idle(&s));
  cr_expect(eq(u64, s.counts.finished, 1));
  scheduler_deinit(&s);
  kv_cache_deinit(&cache);
}

//===-- Limits ------------------------------------------------------------===//

Test(scheduler, tokens_of_a_step_and_batch_are_limited_and_mixed) {
  const trace_request requests[] = {{10, 5}, {10, 5}, {95, 5}, {10, 5}};
  kv_cache cache = make_cache(64);
  scheduler s = make(&cache, 3, 100, requests, 4);
  scheduler_plan(&s);  // 10 + 10 + 80 of the third
  cr_expect(eq(i64, s.planned_tokens, 100));
  cr_expect(eq(sz, s.running_count, 3));
  scheduler_commit(&s);
  scheduler_plan(&s);  // two decode, the third goes on; the batch is full
  cr_expect(eq(i64, s.planned_tokens, 1 + 1 + 15));
  cr_expect(eq(sz, s.running_count, 3));
  scheduler_deinit(&s);
  kv_cache_deinit(&cache);
}

Test(scheduler, requests_that_can_never_run_are_refused_at_once) {
  const trace_request requests[] = {{4090, 6}, {4090, 7}, {600, 41}, {600, 40}};
  kv_cache large = make_cache(100);
  scheduler s = make(&large, 4, 100, requests, 2);
  cr_expect(eq(u64, s.counts.refused[REFUSED_POSITIONS], 1));
  scheduler_deinit(&s);
  kv_cache_deinit(&large);
  kv_cache small = make_cache(10);  // 640 tokens
  s = make(&small, 4, 100, requests, 4);
  cr_expect(eq(u64, s.counts.refused[REFUSED_POSITIONS], 1));
  cr_expect(eq(u64, s.counts.refused[REFUSED_KV_CACHE], 2));
  scheduler_deinit(&s);
  kv_cache_deinit(&small);
}

//===-- Making room -------------------------------------------------------===//

Test(scheduler, the_latest_makes_room_when_blocks_run_out_and_finishes_later) {
  const trace_request requests[] = {{64, 200}, {64, 200}, {64, 200}};
  kv_cache cache = make_cache(6);  // each needs 5 in the end
  scheduler s = make(&cache, 3, 1000, requests, 3);
  uint32_t latest_finished = 0;
  while (!scheduler_is_idle(&s)) {
    scheduler_plan(&s);
    cr_assert(s.planned_tokens > 0);
    scheduler_commit(&s);
    for (size_t i = 1; i < s.running_count; i++) {
      cr_assert(s.running[i - 1].request < s.running[i].request, "order of admission is kept");
    }
    if (s.counts.finished > latest_finished) latest_finished++;
  }
  cr_expect(eq(u64, s.counts.finished, 3));
  cr_expect(s.counts.preempted_for_kv > 0);
  cr_expect(eq(i32, cache.free_count, 6));
  scheduler_deinit(&s);
  kv_cache_deinit(&cache);
}

Test(scheduler, a_preempted_request_keeps_what_it_generated) {
  const trace_request requests[] = {{10, 20}, {10, 20}};
  kv_cache cache = make_cache(16);
  scheduler s = make(&cache, 2, 1000, requests, 2);
  for (int i = 0; i < 6; i++) {
    scheduler_plan(&s);
    scheduler_commit(&s);
  }
  scheduler_plan(&s);
  scheduler_step_back(&s);  // the second makes room
  cr_expect(eq(sz, s.running_count, 1));
  cr_expect(eq(u64, s.counts.preempted_for_memory, 1));
  scheduler_plan(&s);  // without it: nothing is admitted until a step succeeds
  cr_expect(eq(sz, s.running_count, 1));
  scheduler_commit(&s);
  scheduler_plan(&s);
  cr_assert(eq(sz, s.running_count, 2));
  cr_expect(eq(u32, s.running[1].request, 1));
  cr_expect(eq(u32, s.running[1].known, 16), "10 of the prompt and 6 generated");
  cr_expect(eq(u32, s.running[1].planned, 16), "all are computed again");
  scheduler_deinit(&s);
  kv_cache_deinit(&cache);
}

Test(scheduler, one_that_is_alone_tries_shorter_chunks_then_is_refused) {
  const trace_request one = {.prompt_tokens = 400, .generated_tokens = 1};
  kv_cache cache = make_cache(16);
  scheduler s = make(&cache, 2, 1000, &one, 1);
  scheduler_plan(&s);
  cr_expect(eq(i64, s.planned_tokens, 400));
  scheduler_step_back(&s);
  scheduler_plan(&s);
  cr_expect(eq(i64, s.planned_tokens, 200));
  scheduler_step_back(&s);
  scheduler_plan(&s);
  cr_expect(eq(i64, s.planned_tokens, 100));
  scheduler_commit(&s);  // what works is kept up
  scheduler_plan(&s);
  cr_expect(eq(i64, s.planned_tokens, 100));
  for (int i = 0; i < 100 && !scheduler_is_idle(&s); i++) {
    scheduler_plan(&s);
    scheduler_step_back(&s);
  }
  cr_expect(scheduler_is_idle(&s));
  cr_expect(eq(u64, s.counts.refused[REFUSED_MEMORY], 1));
  cr_expect(eq(i32, cache.free_count, 16));
  scheduler_deinit(&s);
  kv_cache_deinit(&cache);
}

Test(scheduler, a_step_that_is_refused_its_memory_is_planned_with_half_the_tokens) {
  const trace_request requests[] = {{400, 30}, {300, 30}};
  kv_cache cache = make_cache(16);
  scheduler s = make(&cache, 2, 1000, requests, 2);
  scheduler_plan(&s);
  cr_expect(eq(i64, s.planned_tokens, 700));
  cr_expect(eq(i64, s.planned_sequences, 2));
  scheduler_shorten(&s);
  scheduler_plan(&s);
  cr_expect(eq(i64, s.planned_tokens, 350));
  cr_expect(eq(i64, s.planned_sequences, 1), "the second waits, and nobody is pre-empted");
  cr_expect(eq(sz, s.running_count, 2));
  cr_expect(eq(u64, s.counts.preempted_for_memory, 0));
  cr_expect(eq(u64, s.counts.shortened, 1));
  scheduler_commit(&s);
  cr_expect(eq(i64, s.token_limit, 350 + 21 + 1), "a sixteenth more with each step");
  while (!scheduler_is_idle(&s)) {
    scheduler_plan(&s);
    cr_assert(s.planned_tokens > 0 && s.planned_tokens <= s.token_limit);
    scheduler_commit(&s);
  }
  cr_expect(eq(i64, s.token_limit, 1000));
  cr_expect(eq(u64, s.counts.finished, 2));
  scheduler_deinit(&s);
  kv_cache_deinit(&cache);
}

Test(scheduler, a_single_token_that_is_refused_for_long_refuses_its_request) {
  const trace_request requests[] = {{10, 5}, {10, 5}};
  kv_cache cache = make_cache(16);
  scheduler s = make(&cache, 2, 1000, requests, 2);
  for (int i = 0; i < 200 && !scheduler_is_idle(&s); i++) {
    scheduler_plan(&s);
    scheduler_shorten(&s);
  }
  cr_expect(scheduler_is_idle(&s));
  cr_expect(eq(u64, s.counts.refused[REFUSED_MEMORY], 2));
  cr_expect(eq(i32, cache.free_count, 16));
  scheduler_deinit(&s);
  kv_cache_deinit(&cache);
}

// Random requests, and one step in eight fails, one in eight is refused: every request ends, no
// block is lost or held twice.
Test(scheduler, serves_everything_whatever_fails) {
  enum { REQUESTS = 300 };
  static trace_request requests[REQUESTS];
  unsigned seed = 20231116;
  for (size_t i = 0; i < REQUESTS; i++) {
    requests[i] = (trace_request){.prompt_tokens = 1 + (uint32_t)rand_r(&seed) % 700,
                                  .generated_tokens = (uint32_t)rand_r(&seed) % 100};
  }
  kv_cache cache = make_cache(40);
  scheduler s = make(&cache, 16, 512, requests, REQUESTS);
  while (!scheduler_is_idle(&s)) {
    scheduler_plan(&s);
    cr_assert(s.planned_tokens > 0 && s.planned_tokens <= 512);
    int32_t held = 0;
    for (size_t i = 0; i < s.running_count; i++) held += (int32_t)s.running[i].block_count;
    cr_assert(eq(i32, held + cache.free_count, cache.block_count));
    const int outcome = rand_r(&seed) % 8;
    if (outcome == 0) {
      scheduler_step_back(&s);
    } else if (outcome == 1) {
      scheduler_shorten(&s);
    } else {
      scheduler_commit(&s);
    }
  }
  uint64_t ended = s.counts.finished;
  for (int i = 0; i < REFUSALS; i++) ended += s.counts.refused[i];
  cr_expect(eq(u64, ended, REQUESTS));
  cr_expect(eq(u64, s.counts.refused[REFUSED_MEMORY], 0));
  cr_expect(eq(i32, cache.free_count, 40));
  scheduler_deinit(&s);
  kv_cache_deinit(&cache);
}
