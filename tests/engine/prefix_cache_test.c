// The prefix cache and the scheduler on top of it, without a device: all lies in host memory.

#include "engine/prefix_cache.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tm/tm.h>

#include "engine/counting.h"
#include "engine/scheduler.h"

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

enum { KV_BLOCKS = 64 };

static uint64_t block_bytes(void) { return (uint64_t)kv_block_bytes(&tiny); }

static kv_cache make_kv(void) {
  kv_cache kv;
  cr_assert(eq(int,
               kv_cache_init(&tiny, tm_host_allocator(), KV_BLOCKS * kv_block_bytes(&tiny), &kv),
               TM_OK));
  char* memory = kv.memory.data;
  for (uint64_t i = 0; i < tm_byte_size(&kv.memory); i++) {
    memory[i] = (char)(i / block_bytes());  // each block is full of its number
  }
  return kv;
}

static void store(prefix_cache* cache, const kv_cache* kv, uint32_t number) {
  int32_t blocks[PREFIX_PROMPTS];
  for (int32_t i = 0; i < PREFIX_PROMPTS; i++) blocks[i] = 40 - 3 * i;
  cr_assert(eq(int, prefix_cache_store(cache, number, 4096, kv, blocks), TM_OK));
}

static bool has(const prefix_cache* cache, uint32_t number) {
  return prefix_cache_find(cache, number, 4096) != 0;
}

static prefix_cache make(uint64_t blocks) {
  prefix_cache cache;
  prefix_cache_init(tm_host_allocator(), blocks * block_bytes(), &cache);
  return cache;
}

//===-- What prompts share --------------------------------------------------===//

Test(prefix_cache, a_request_shares_less_than_its_prompt) {
  for (uint32_t number = 0; number < 20; number++) {
    const uint32_t tokens = (number % PREFIX_PROMPTS + 1) * KV_BLOCK_TOKENS;
    cr_expect(eq(u32, prefix_tokens_of(number, tokens + 1), tokens));
    cr_expect(eq(u32, prefix_tokens_of(number, tokens), 0));
    cr_expect(eq(u32, prefix_tokens_of(number, 1), 0));
  }
}

Test(prefix_cache, without_one_nothing_is_found) {
  kv_cache kv = make_kv();
  prefix_cache none = make(0);
  store(&none, &kv, 3);
  cr_expect(not(has(&none, 3)));
  cr_expect(not(has(NULL, 3)));
  cr_expect(eq(u32, prefix_cache_enter(&none, 3, 4096), 0));
  cr_expect(eq(u32, prefix_cache_enter(NULL, 3, 4096), 0));
  cr_expect(eq(u64, none.counts.misses, 0));
  cr_expect(eq(u64, prefix_cache_drop(&none, 1), 0));
  prefix_cache_deinit(&none);
  kv_cache_deinit(&kv);
}

//===-- Entries -------------------------------------------------------------===//

Test(prefix_cache, an_entry_is_a_copy_of_the_blocks) {
  kv_cache kv = make_kv();
  prefix_cache cache = make(100);
  store(&cache, &kv, 10);  // system prompt 2: 3 blocks
  cr_assert(has(&cache, 2));
  const char* memory = cache.entries[2].memory.data;
  cr_assert(eq(u64, tm_byte_size(&cache.entries[2].memory), 3 * block_bytes()));
  for (uint64_t i = 0; i < 3 * block_bytes(); i++) {
    cr_assert(memory[i] == (char)(40 - 3 * (int)(i / block_bytes())));
  }
  cr_expect(eq(u64, cache.held_bytes, 3 * block_bytes()));
  store(&cache, &kv, 2);  // is here
  cr_expect(eq(u64, cache.counts.stored, 1));
  prefix_cache_deinit(&cache);
  kv_cache_deinit(&kv);
}

Test(prefix_cache, hits_and_misses_are_told_apart) {
  kv_cache kv = make_kv();
  prefix_cache cache = make(100);
  cr_expect(eq(u32, prefix_cache_enter(&cache, 9, 500), 0));
  store(&cache, &kv, 1);
  cr_expect(eq(u32, prefix_cache_enter(&cache, 9, 500), 128));
  cr_expect(eq(u32, prefix_cache_enter(&cache, 17, 129), 128));
  cr_expect(eq(u32, prefix_cache_enter(&cache, 17, 128), 0), "nothing to share: no miss either");
  cr_expect(eq(u64, cache.counts.hits, 2));
  cr_expect(eq(u64, cache.counts.misses, 1));
  cr_expect(eq(u64, cache.counts.tokens_saved, 256));
  prefix_cache_deinit(&cache);
  kv_cache_deinit(&kv);
}

Test(prefix_cache, the_least_recently_used_goes_first_and_what_is_in_use_stays) {
  kv_cache kv = make_kv();
  prefix_cache cache = make(100);
  for (uint32_t number = 0; number < 4; number++) store(&cache, &kv, number);
  cr_expect(eq(u32, prefix_cache_enter(&cache, 0, 4096), 64));
  prefix_cache_leave(&cache, 0);  // used, and free again: now the latest
  cr_expect(eq(u32, prefix_cache_enter(&cache, 1, 4096), 128));
  cr_expect(eq(u64, prefix_cache_drop(&cache, 1), 3 * block_bytes()));  // entry 2
  cr_expect(not(has(&cache, 2)));
  cr_expect(eq(u64, prefix_cache_drop(&cache, UINT64_MAX), 5 * block_bytes()));  // 3, then 0
  cr_expect(has(&cache, 1));
  cr_expect(eq(u64, prefix_cache_drop(&cache, 1), 0));
  prefix_cache_leave(&cache, 1);
  cr_expect(eq(u64, prefix_cache_drop(&cache, 1), 2 * block_bytes()));
  cr_expect(eq(u64, cache.held_bytes, 0));
  cr_expect(eq(u64, cache.counts.dropped, 4));
  cr_expect(eq(u64, cache.counts.replaced, 0));
  prefix_cache_deinit(&cache);
  kv_cache_deinit(&kv);
}

Test(prefix_cache, it_holds_no_more_than_it_may) {
  kv_cache kv = make_kv();
  prefix_cache cache = make(5);
  store(&cache, &kv, 0);
  store(&cache, &kv, 1);
  store(&cache, &kv, 2);  // 3 blocks beside 1 and 2: entry 0 goes
  cr_expect(not(has(&cache, 0)));
  cr_expect(has(&cache, 1));
  cr_expect(has(&cache, 2));
  store(&cache, &kv, 7);  // 8 blocks: never
  cr_expect(not(has(&cache, 7)));
  cr_expect(has(&cache, 1), "nothing goes for what does not fit anyway");
  (void)prefix_cache_enter(&cache, 1, 4096);
  (void)prefix_cache_enter(&cache, 2, 4096);
  store(&cache, &kv, 0);
  cr_expect(not(has(&cache, 0)), "all are in use");
  cr_expect(eq(u64, cache.held_bytes, 5 * block_bytes()));
  cr_expect(eq(u64, cache.counts.replaced, 1));
  cr_expect(eq(u64, cache.counts.not_stored, 2));
  prefix_cache_deinit(&cache);
  kv_cache_deinit(&kv);
}

Test(prefix_cache, too_little_memory_is_counted_and_changes_nothing) {
  kv_cache kv = make_kv();
  memory_budget budget = {.limit_bytes = 2 * block_bytes()};
  tm_auto_allocator memory = counting_allocator_create(tm_host_allocator(), &budget);
  prefix_cache cache;
  prefix_cache_init(memory, 100 * block_bytes(), &cache);
  store(&cache, &kv, 1);
  store(&cache, &kv, 2);
  cr_expect(has(&cache, 1));
  cr_expect(not(has(&cache, 2)));
  cr_expect(eq(u64, cache.counts.not_stored, 1));
  cr_expect(eq(u64, cache.held_bytes, 2 * block_bytes()));
  prefix_cache_deinit(&cache);
  cr_expect(eq(u64, budget.used_bytes, 0));
  kv_cache_deinit(&kv);
}

//===-- With a scheduler ----------------------------------------------------===//

static scheduler make_scheduler(kv_cache* kv, prefix_cache* prefixes, const trace_request* requests,
                                size_t count) {
  const scheduler_limits limits = {.max_batch = 8, .max_tokens = 512, .max_positions = 4096};
  const request_trace trace = {.requests = (trace_request*)requests, .count = count};
  scheduler s;
  cr_assert(eq(int, scheduler_init(&limits, kv, &trace, &s), TM_OK));
  s.prefixes = prefixes;
  return s;
}

Test(prefix_cache, a_sequence_begins_behind_its_prefix_and_takes_no_blocks_for_it) {
  const trace_request requests[] = {{1, 1}, {300, 3}};  // the second: system prompt 1, 128 tokens
  kv_cache kv = make_kv();
  prefix_cache cache = make(100);
  store(&cache, &kv, 1);
  scheduler s = make_scheduler(&kv, &cache, requests, 2);
  scheduler_plan(&s);
  cr_assert(eq(sz, s.running_count, 2));
  const sequence* q = &s.running[1];
  cr_expect(eq(u32, q->prefix, 128));
  cr_expect(eq(u32, q->computed, 128));
  cr_expect(eq(u32, q->planned, 172));
  cr_expect(eq(u32, q->block_count, 3), "172 tokens of its own");
  cr_expect(eq(u64, prefix_cache_drop(&cache, UINT64_MAX), 0));
  while (!scheduler_is_idle(&s)) {
    scheduler_commit(&s);
    scheduler_plan(&s);
  }
  cr_expect(eq(u64, s.counts.finished, 2));
  cr_expect(eq(i32, kv.free_count, KV_BLOCKS));
  cr_expect(eq(u64, prefix_cache_drop(&cache, UINT64_MAX), 2 * block_bytes()));
  scheduler_deinit(&s);
  prefix_cache_deinit(&cache);
  kv_cache_deinit(&kv);
}

static uint32_t users_of(const prefix_cache* cache) {
  uint32_t users = 0;
  for (int i = 0; i < PREFIX_PROMPTS; i++) users += cache->entries[i].users;
  return users;
}

static void check_shares(const scheduler* s, const prefix_cache* cache) {
  uint32_t users = 0;
  int32_t held = 0;
  for (size_t i = 0; i < s->running_count; i++) {
    users += s->running[i].prefix ? 1 : 0;
    held += (int32_t)s->running[i].block_count;
    cr_assert(s->running[i].computed >= s->running[i].prefix);
  }
  cr_assert(eq(u32, users_of(cache), users));
  cr_assert(eq(i32, held + s->cache->free_count, s->cache->block_count));
}

static void store_all(const scheduler* s, prefix_cache* cache) {
  for (size_t i = 0; i < s->running_count; i++) {
    const sequence* q = &s->running[i];
    const uint32_t tokens = prefix_tokens_of(q->request, s->requests[q->request].prompt);
    if (q->prefix == 0 && tokens && q->computed + q->planned >= tokens) {
      cr_assert(eq(int,
                   prefix_cache_store(cache, q->request, s->requests[q->request].prompt, s->cache,
                                      q->blocks),
                   TM_OK));
    }
  }
}

// Steps that are done, fail or are refused, entries that are dropped at any time: whatever happens,
// every use of an entry is given back, and every request ends.
Test(prefix_cache, uses_are_given_back_whatever_happens) {
  enum { REQUESTS = 300 };
  static trace_request requests[REQUESTS];
  unsigned seed = 20231116;
  printf("seed %u\n", seed);
  for (size_t i = 0; i < REQUESTS; i++) {
    requests[i] = (trace_request){.prompt_tokens = 1 + (uint32_t)rand_r(&seed) % 700,
                                  .generated_tokens = (uint32_t)rand_r(&seed) % 100};
  }
  kv_cache kv = make_kv();
  prefix_cache cache = make(9);
  scheduler s = make_scheduler(&kv, &cache, requests, REQUESTS);
  while (!scheduler_is_idle(&s)) {
    scheduler_plan(&s);
    check_shares(&s, &cache);
    switch (rand_r(&seed) % 8) {
      case 0:
        scheduler_step_back(&s);
        break;
      case 1:
        scheduler_shorten(&s);
        break;
      case 2:
        (void)prefix_cache_drop(&cache, (uint64_t)rand_r(&seed) % 5 * block_bytes());
        break;
      default:
        store_all(&s, &cache);
        scheduler_commit(&s);
    }
    check_shares(&s, &cache);
  }
  uint64_t ended = s.counts.finished;
  for (int i = 0; i < REFUSALS; i++) ended += s.counts.refused[i];
  cr_expect(eq(u64, ended, REQUESTS));
  cr_expect(cache.counts.hits > 10, "%llu", (unsigned long long)cache.counts.hits);
  cr_expect(cache.counts.dropped > 10, "%llu", (unsigned long long)cache.counts.dropped);
  cr_expect(cache.counts.replaced > 0, "%llu", (unsigned long long)cache.counts.replaced);
  cr_expect(eq(u32, users_of(&cache), 0));
  scheduler_deinit(&s);
  prefix_cache_deinit(&cache);
  kv_cache_deinit(&kv);
}
