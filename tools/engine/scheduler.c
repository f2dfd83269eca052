#include "engine/scheduler.h"

#include <tm/check.h>
#include <tm/tm.h>

enum {
  // A chunk of 2^24 tokens is one token after 24 halvings; what fails more often fails for good.
  MAX_LONE_FAILURES = 32,
  // One in so many KV blocks is kept for sequences that run when others are admitted, or a sequence
  // would be pre-empted soon after its admission.
  KV_RESERVE = 100,
};

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

static bool decodes(const sequence* q) { return q->known - q->computed == 1; }

//===-- Leaving the batch -------------------------------------------------===//

static void give_blocks(scheduler* s, sequence* q) {
  kv_cache_give(s->cache, q->block_count, q->blocks);
  q->block_count = 0;
  if (q->prefix) prefix_cache_leave(s->prefixes, q->request);
  q->prefix = 0;
}

static sequence* latest(scheduler* s) { return &s->running[s->running_count - 1]; }

static void preempt_latest(scheduler* s) {
  sequence* q = latest(s);
  give_blocks(s, q);
  request_queue_put_back(&s->queue, q->request);
  s->running_count--;
}

static void refuse_latest(scheduler* s) {
  give_blocks(s, latest(s));
  s->running_count--;
  s->counts.refused[REFUSED_MEMORY]++;
}

//===-- Planning ----------------------------------------------------------===//

static bool has_room_for(scheduler* s, sequence* q, int64_t tokens) {
  const int64_t missing = kv_blocks_for(tokens - q->prefix) - q->block_count;
  if (missing <= 0) return true;
  if (!kv_cache_take(s->cache, missing, q->blocks + q->block_count)) return false;
  q->block_count += (uint32_t)missing;
  return true;
}

// Plans one token of every sequence that decodes. Those that find no KV block pre-empt the latest,
// which may be themselves.
static void plan_decodes(scheduler* s) {
  for (size_t i = 0; i < s->running_count; i++) {
    sequence* q = &s->running[i];
    q->planned = 0;
    if (!decodes(q) || s->planned_tokens == s->token_limit) continue;
    while (i < s->running_count && !has_room_for(s, q, q->computed + 1)) {
      preempt_latest(s);
      s->counts.preempted_for_kv++;
      s->admission_closed = true;
    }
    if (i == s->running_count) break;
    q->planned = 1;
    s->planned_tokens++;
    s->planned_sequences++;
  }
}

static void plan_chunk(scheduler* s, sequence* q) {
  const int64_t left = s->token_limit - s->planned_tokens;
  const int64_t wanted = smaller(q->known - q->computed, s->chunk_limit);
  q->planned = (uint32_t)smaller(left, wanted);
  s->planned_tokens += q->planned;
  s->planned_sequences += q->planned ? 1 : 0;
}

static void plan_prompts(scheduler* s) {
  for (size_t i = 0; i < s->running_count; i++) {
    if (!decodes(&s->running[i])) plan_chunk(s, &s->running[i]);
  }
}

// Blocks that are kept back while sequences run.
static int64_t kept_back(int64_t blocks) { return blocks / KV_RESERVE + 1; }

// The next sequence, with blocks for all tokens it knows; false where something does not allow it.
static bool admit(scheduler* s) {
  const uint32_t number = request_queue_peek(&s->queue);
  const request* r = &s->requests[number];
  sequence* q = &s->running[s->running_count];
  const int64_t reserve = s->running_count ? kept_back(s->cache->block_count) : 0;
  const uint32_t known = r->prompt + r->generated;
  const int64_t own = known - prefix_cache_find(s->prefixes, number, r->prompt);
  q->prefix = 0;
  if (kv_blocks_for(own) + reserve > s->cache->free_count || !has_room_for(s, q, own)) {
    return false;
  }
  (void)request_queue_take(&s->queue);
  q->request = number;
  q->known = known;
  q->prefix = prefix_cache_enter(s->prefixes, number, r->prompt);
  q->computed = q->prefix;
  s->running_count++;
  plan_chunk(s, q);
  return true;
}

void scheduler_plan(scheduler* s) {
  s->planned_tokens = 0;
  s->planned_sequences = 0;
  plan_decodes(s);
  plan_prompts(s);
  while ((!s->admission_closed || s->running_count == 0) && !request_queue_is_empty(&s->queue) &&
         (int64_t)s->running_count < s->limits.max_batch && s->planned_tokens < s->token_limit &&
         admit(s)) {
  }
}

tm_status scheduler_kv_blocks(int64_t sequences, int64_t tokens, int64_t* out) {
  *out = 0;
  int64_t blocks;
  if (__builtin_mul_overflow(sequences, kv_blocks_for(tokens), &blocks) || blocks > INT32_MAX) {
    return TM_RAISE(TM_ERR_OVERFLOW, "scheduler: KV blocks of %lld sequences of %lld tokens",
                    (long long)sequences, (long long)tokens);
  }
  int64_t with_reserve = blocks;
  while (sequences > 1 && with_reserve - kept_back(with_reserve) < blocks) {
    with_reserve = blocks + kept_back(with_reserve);
  }
  *out = with_reserve;
  return TM_OK;
}

//===-- What became of the step -------------------------------------------===//

// Advances a sequence by what was planned; whether it is finished.
static bool advance(scheduler* s, sequence* q) {
  request* r = &s->requests[q->request];
  q->computed += q->planned;
  if (q->planned == 0 || q->computed < q->known) return false;
  if (r->generated < r->wanted) r->generated++;
  q->known++;
  s->chunk_limit = s->limits.max_tokens;
  return r->generated == r->wanted;
}

static void swap_sequences(sequence* a, sequence* b) {
  const sequence kept = *a;
  *a = *b;
  *b = kept;
}

// Sequences that go on close ranks, in their order. Rows of the block table move along.
void scheduler_commit(scheduler* s) {
  size_t kept = 0;
  for (size_t i = 0; i < s->running_count; i++) {
    if (advance(s, &s->running[i])) {
      give_blocks(s, &s->running[i]);
      s->counts.finished++;
    } else {
      if (kept != i) swap_sequences(&s->running[kept], &s->running[i]);
      kept++;
    }
  }
  s->running_count = kept;
  s->admission_closed = false;
  s->lone_failures = 0;
  s->token_limit = smaller(s->token_limit + s->token_limit / 16 + 1, s->limits.max_tokens);
}

void scheduler_step_back(scheduler* s) {
  s->admission_closed = true;
  if (s->running_count > 1) {
    preempt_latest(s);
    s->counts.preempted_for_memory++;
  } else if (++s->lone_failures >= MAX_LONE_FAILURES) {
    refuse_latest(s);
    s->lone_failures = 0;
  } else {
    s->chunk_limit = s->planned_tokens > 1 ? s->planned_tokens / 2 : 1;
  }
}

void scheduler_shorten(scheduler* s) {
  if (s->planned_tokens <= 1) {
    scheduler_step_back(s);
    return;
  }
  s->admission_closed = true;
  s->token_limit = s->planned_tokens / 2;
  s->counts.shortened++;
}

//===-- Making ------------------------------------------------------------===//

// Refuses what can never be served, queues the rest.
static void enqueue(scheduler* s, uint32_t number, trace_request from) {
  const int64_t tokens = (int64_t)from.prompt_tokens + from.generated_tokens;
  s->requests[number] = (request){.prompt = from.prompt_tokens, .wanted = from.generated_tokens};
  if (tokens > s->limits.max_positions) {
    s->counts.refused[REFUSED_POSITIONS]++;
  } else if (kv_blocks_for(tokens) > s->cache->block_count) {
    s->counts.refused[REFUSED_KV_CACHE]++;
  } else {
    request_queue_add(&s->queue, number);
  }
}

static tm_status make_arrays(scheduler* s, size_t request_count) {
  // No more sequences run than there are requests; a plan has none.
  const size_t batch = (size_t)smaller(s->limits.max_batch, (int64_t)request_count);
  const size_t row = (size_t)smaller(kv_blocks_for(s->limits.max_positions), s->cache->block_count);
  TM_TRY(request_queue_init(request_count, &s->queue));
  s->requests = tm_bookkeeping_alloc(request_count * sizeof(*s->requests), "requests");
  s->running = tm_bookkeeping_alloc(batch * sizeof(*s->running), "sequences");
  s->block_table = tm_bookkeeping_alloc(batch * row * sizeof(int32_t), "a block table");
  if (!s->requests || !s->running || !s->block_table) return tm_last_status();
  for (size_t i = 0; i < batch; i++) s->running[i].blocks = s->block_table + i * row;
  s->request_count = request_count;
  return TM_OK;
}

tm_status scheduler_init(const scheduler_limits* limits, kv_cache* cache,
                         const request_trace* trace, scheduler* out) {
  *out = (scheduler){.limits = *limits,
                     .cache = cache,
                     .chunk_limit = limits->max_tokens,
                     .token_limit = limits->max_tokens};
  const tm_status status = make_arrays(out, trace->count);
  if (status != TM_OK) {
    scheduler_deinit(out);
    return status;
  }
  for (size_t i = 0; i < trace->count; i++) enqueue(out, (uint32_t)i, trace->requests[i]);
  return TM_OK;
}

void scheduler_deinit(scheduler* s) {
  request_queue_deinit(&s->queue);
  tm_bookkeeping_free(s->requests);
  tm_bookkeeping_free(s->running);
  tm_bookkeeping_free(s->block_table);
  *s = (scheduler){0};
}
