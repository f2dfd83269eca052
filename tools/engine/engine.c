#include "engine/engine.h"

#include <time.h>
#include <tm/check.h>
#include <tm/tm.h>

#include "engine/batch.h"
#include "engine/decoder.h"
#include "engine/seeds.h"
#include "engine/weights.h"

enum {
  BATCHES = 2,              // one is filled while the device works on the other
  GRANULE_BYTES = 2 << 20,  // in which cudaMalloc takes memory from the device
  CHUNK_BYTES = 32 << 20,   // in which CUDA memory pools do
};

struct engine {
  model_config config;
  engine_options options;     // with references to stream and allocators
  tm_allocator* activations;  // retained; NULL before the start
  tm_allocator* arena;        // the stack that they come from; borrowed from it; NULL: from none
  model_weights weights;
  kv_cache cache;
  prefix_cache prefixes;
  decoder decoder;
  scheduler scheduler;
  batch batches[BATCHES];
  seeds seeds;
  uint64_t turn;  // which batch is next, modulo BATCHES
  size_t activation_bytes;
  engine_counts counts;
};

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

//===-- Forward, timed ----------------------------------------------------===//

static uint64_t now_ns(void) {
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t runtime_ns(const engine* e) {
  return e->options.runtime_clock ? e->options.runtime_clock() : 0;
}

static tm_status forward(engine* e, int64_t tokens, int64_t sequences) {
  const uint64_t made = e->decoder.tensors;
  const uint64_t runtime_start = runtime_ns(e);
  const uint64_t start = now_ns();
  const tm_status status = decoder_forward(&e->decoder, tokens, sequences);
  e->counts.forward_ns += now_ns() - start;
  const uint64_t runtime_end = runtime_ns(e);
  // A clock that is calibrated while it runs may step back a little.
  if (runtime_end > runtime_start) e->counts.runtime_ns += runtime_end - runtime_start;
  if (status == TM_OK) {
    TM_CHECK_EQ((int64_t)(e->decoder.tensors - made), decoder_tensors_per_step(&e->config));
  }
  return status;
}

// The step that is as large as any can be.
static tm_status forward_at_limits(engine* e) {
  const int64_t tokens = e->options.max_tokens;
  return forward(e, tokens, smaller(tokens, e->options.max_batch));
}

//===-- Making ------------------------------------------------------------===//

static tm_status check_options(const engine_options* o) {
  if (!o->stream || !o->memory || !o->cache_memory) {
    return TM_RAISE(TM_ERR_INVALID, "engine: a stream and two allocators are needed");
  }
  if (o->prefix_bytes && !o->prefix_memory) {
    return TM_RAISE(TM_ERR_INVALID, "engine: a prefix cache of %llu bytes, and no allocator for it",
                    (unsigned long long)o->prefix_bytes);
  }
  if (o->max_batch < 1 || o->max_batch > INT32_MAX || o->max_tokens < 1 ||
      o->max_tokens > INT32_MAX) {
    return TM_RAISE(TM_ERR_INVALID, "engine: batch %lld and tokens %lld must be 1 or more",
                    (long long)o->max_batch, (long long)o->max_tokens);
  }
  if (o->kv_tokens < 0) {
    return TM_RAISE(TM_ERR_INVALID, "engine: a KV cache of %lld tokens", (long long)o->kv_tokens);
  }
  if (!o->kv_tokens && !(o->kv_fraction > 0 && o->kv_fraction <= 1)) {
    return TM_RAISE(TM_ERR_INVALID, "engine: the KV cache cannot be %g of the memory",
                    o->kv_fraction);
  }
  return TM_OK;
}

static tm_status make_batches(engine* e) {
  const batch_limits limits = {
      .tokens = e->options.max_tokens,
      .sequences = e->options.max_batch,
      .blocks = e->options.max_batch * kv_blocks_for(e->config.max_positions),
      .vocabulary = e->config.vocabulary,
  };
  TM_USE_ALLOCATOR(e->options.host_memory ? e->options.host_memory : tm_pinned_allocator());
  for (int i = 0; i < BATCHES; i++) TM_TRY(batch_init(&limits, &e->batches[i]));
  return seeds_init(limits.sequences, &e->seeds);
}

// Runs the largest step on an arena of its own, which is dropped: its high-water mark is kept.
static tm_status profile(engine* e) {
  TM_SCOPE("profile");
  tm_auto_allocator arena = tm_stack_allocator_create(e->options.memory, e->options.stream, NULL);
  if (!arena) return tm_last_status();
  TM_WITH_ALLOCATOR(arena) TM_TRY(forward_at_limits(e));
  TM_TRY(tm_stack_high_water_mark(arena, &e->activation_bytes));
  const int64_t tokens = e->options.max_tokens;
  TM_CHECK_EQ(e->activation_bytes,
              decoder_activation_bytes(&e->config, tokens, smaller(tokens, e->options.max_batch),
                                       tm_allocator_alignment(arena)));
  return TM_OK;
}

static tm_status memory_left(const engine* e, int64_t* out) {
  const memory_budget* budget = e->options.budget;
  size_t free_bytes, total_bytes;
  *out = 0;
  TM_TRY(tm_device_memory(tm_stream_device(e->options.stream).id, &free_bytes, &total_bytes));
  if (budget && budget->limit_bytes - budget->used_bytes < free_bytes) {
    free_bytes = budget->limit_bytes - budget->used_bytes;
  }
  const size_t chunks = (e->activation_bytes + CHUNK_BYTES - 1) / CHUNK_BYTES;
  *out = (int64_t)free_bytes - (int64_t)(chunks * CHUNK_BYTES);
  return TM_OK;
}

// What the KV cache may take.
static tm_status cache_bytes(const engine* e, int64_t* out) {
  if (e->options.kv_tokens) {
    const int64_t blocks = kv_blocks_for(e->options.kv_tokens);
    if (!__builtin_mul_overflow(blocks, kv_block_bytes(&e->config), out)) return TM_OK;
    *out = 0;
    return TM_RAISE(TM_ERR_OVERFLOW, "engine: a KV cache of %lld tokens",
                    (long long)e->options.kv_tokens);
  }
  int64_t left;
  *out = 0;
  TM_TRY(memory_left(e, &left));
  if (left > 0) *out = (int64_t)((double)left * e->options.kv_fraction);
  if (*out > GRANULE_BYTES) *out -= *out % GRANULE_BYTES;
  return TM_OK;
}

static tm_status make_cache(engine* e) {
  int64_t bytes;
  TM_TRY(cache_bytes(e, &bytes));
  return kv_cache_init(&e->config, e->options.cache_memory, bytes, &e->cache);
}

static tm_status make_parts(engine* e) {
  TM_USE_STREAM(e->options.stream);
  TM_USE_ALLOCATOR(e->options.memory);
  TM_TRY(model_weights_init(&e->config, &e->weights));
  TM_TRY(make_batches(e));
  e->decoder = (decoder){.config = &e->config, .weights = &e->weights};
  TM_TRY(profile(e));
  return make_cache(e);
}

engine* engine_create(const model_config* config, const engine_options* options) {
  TM_SCOPE("engine");
  if (check_options(options) != TM_OK) return NULL;
  engine* e = tm_bookkeeping_alloc(sizeof(*e), "an engine");
  if (!e) return NULL;
  e->config = *config;
  e->options = *options;
  (void)tm_stream_retain(options->stream);
  (void)tm_allocator_retain(options->memory);
  (void)tm_allocator_retain(options->cache_memory);
  (void)tm_allocator_retain(options->host_memory);
  prefix_cache_init(options->prefix_memory, options->prefix_bytes, &e->prefixes);
  if (make_parts(e) != TM_OK) {
    engine_destroy(e);
    return NULL;
  }
  return e;
}

// The stream is waited for first: queued copies still use the batches.
void engine_destroy(engine* e) {
  if (!e) return;
  (void)!tm_stream_sync(e->options.stream);
  scheduler_deinit(&e->scheduler);
  prefix_cache_deinit(&e->prefixes);
  kv_cache_deinit(&e->cache);
  for (int i = 0; i < BATCHES; i++) batch_deinit(&e->batches[i]);
  seeds_deinit(&e->seeds);
  model_weights_deinit(&e->weights);
  tm_allocator_release(e->activations);
  tm_allocator_release(e->options.cache_memory);
  tm_allocator_release(e->options.host_memory);
  tm_allocator_release(e->options.memory);
  tm_stream_release(e->options.stream);
  tm_bookkeeping_free(e);
}

engine_memory engine_get_memory(const engine* e) {
  return (engine_memory){
      .weight_bytes = (uint64_t)model_weight_bytes(&e->config),
      .kv_bytes = tm_byte_size(&e->cache.memory),
      .kv_tokens = (int64_t)e->cache.block_count * KV_BLOCK_TOKENS,
      .activation_bytes = e->activation_bytes,
  };
}

//===-- The prefix cache --------------------------------------------------===//

// The handler that the context asks when a step finds no memory.
static bool drop_prefixes(const tm_oom_request* asked, void* cache) {
  return asked->device.type == TM_DEVICE && prefix_cache_drop(cache, asked->size) > 0;
}

// NULL, which changes nothing, where there is nothing to drop.
static tm_oom_handler prefix_handler(const engine* e) {
  return prefix_cache_exists(&e->prefixes) ? drop_prefixes : NULL;
}

// Whether the step has computed the last of what the prompt shares with others.
static bool completes_prefix(const scheduler* s, const sequence* q) {
  const uint32_t tokens = prefix_tokens_of(q->request, s->requests[q->request].prompt);
  return q->prefix == 0 && q->computed < tokens && q->computed + q->planned >= tokens;
}

// Before the step is committed: afterwards the blocks may be somebody else's.
static tm_status store_prefixes(engine* e) {
  const scheduler* s = &e->scheduler;
  if (!prefix_cache_exists(&e->prefixes)) return TM_OK;
  for (size_t i = 0; i < s->running_count; i++) {
    const sequence* q = &s->running[i];
    if (!completes_prefix(s, q)) continue;
    TM_TRY(prefix_cache_store(&e->prefixes, q->request, s->requests[q->request].prompt, &e->cache,
                              q->blocks));
  }
  return TM_OK;
}

//===-- Admission ---------------------------------------------------------===//

// The stack that `allocator` is, or stands on; NULL where there is none.
static tm_allocator* find_stack(tm_allocator* allocator) {
  while (allocator && !tm_is_stack(allocator)) allocator = tm_allocator_upstream(allocator);
  return allocator;
}

bool engine_admits(const engine* e) { return e->arena != NULL; }

// Reserves what the activations of a step need. Without an arena every step is admitted. Being
// refused is no failure.
static tm_status admit(engine* e, int64_t tokens, int64_t sequences, bool* admitted) {
  *admitted = true;
  if (!e->arena) return TM_OK;
  TM_USE_OOM_HANDLER(prefix_handler(e), &e->prefixes);
  const size_t bytes =
      decoder_activation_bytes(&e->config, tokens, sequences, tm_allocator_alignment(e->arena));
  const tm_status status = tm_context_reserve(e->arena, bytes);
  *admitted = status == TM_OK;
  if (status != TM_ERR_NO_MEMORY) return status;
  e->counts.reservations_refused++;
  return TM_OK;
}

//===-- Serving -----------------------------------------------------------===//

// The first round, in which all sequences join, does not count: each batch has another.
static tm_status warm_up_batches(engine* e) {
  const int64_t sequences = smaller(e->options.max_tokens, e->options.max_batch);
  for (int round = 0; round <= BATCHES; round++) {
    TM_TRY(batch_warm_up(&e->batches[round % BATCHES], sequences, round, &e->seeds));
  }
  seeds_forget(&e->seeds);
  return TM_OK;
}

// So that what is done once, by an allocator or by copies, is done before requests come.
static tm_status warm_up(engine* e) {
  TM_SCOPE("warm_up");
  TM_USE_STREAM(e->options.stream);
  TM_USE_ALLOCATOR(e->activations);
  const int64_t tokens = e->options.max_tokens;
  bool admitted;
  e->counts = (engine_counts){0};
  TM_TRY(admit(e, tokens, smaller(tokens, e->options.max_batch), &admitted));
  const uint64_t refused = e->counts.reservations_refused;
  const tm_status status = admitted ? forward_at_limits(e) : TM_OK;
  e->counts = (engine_counts){.oom_events = status == TM_ERR_NO_MEMORY ? 1 : 0,
                              .reservations_refused = refused};
  e->decoder.tensors = 0;
  TM_TRY(warm_up_batches(e));
  TM_TRY(tm_stream_sync(e->options.stream));
  return status == TM_ERR_NO_MEMORY ? TM_OK : status;
}

tm_status engine_start(engine* e, tm_allocator* activations, const request_trace* trace) {
  const scheduler_limits limits = {
      .max_batch = e->options.max_batch,
      .max_tokens = e->options.max_tokens,
      .max_positions = e->config.max_positions,
  };
  TM_CHECK(!e->activations);
  e->activations = tm_allocator_retain(activations);
  e->arena = find_stack(activations);
  TM_TRY(warm_up(e));
  TM_TRY(scheduler_init(&limits, &e->cache, trace, &e->scheduler));
  e->scheduler.prefixes = &e->prefixes;
  return TM_OK;
}

bool engine_is_idle(const engine* e) { return scheduler_is_idle(&e->scheduler); }

// Waits for the step that used the batch before, and reads its tokens.
static tm_status collect(engine* e, batch* b) {
  int64_t sampled;
  const tm_status status = batch_wait(b, &sampled);
  e->counts.tokens += (uint64_t)sampled;
  return status;
}

// Queues the planned step.
static tm_status queue_step(engine* e, batch* b) {
  TM_USE_ALLOCATOR(e->activations);
  TM_USE_OOM_HANDLER(prefix_handler(e), &e->prefixes);
  batch_fill(b, e->scheduler.running, e->scheduler.running_count);
  TM_TRY(batch_upload(b, &e->seeds));
  TM_TRY(forward(e, batch_tokens(b), batch_sequences(b)));
  return batch_download(b, &e->seeds);
}

static tm_status run_planned_step(engine* e) {
  batch* b = &e->batches[e->turn++ % BATCHES];
  TM_TRY(collect(e, b));
  const tm_status status = queue_step(e, b);
  // Also where that failed: what was queued still reads the batch.
  const tm_status launched = batch_launch(b, status == TM_OK);
  return status != TM_OK ? status : launched;
}

// The step ran out of memory half-way. With an arena that is not to happen.
static void undo_step(engine* e) {
  e->counts.oom_events++;
  e->counts.failed_after_admission += engine_admits(e) ? 1 : 0;
  scheduler_step_back(&e->scheduler);
}

static tm_status run_admitted_step(engine* e) {
  const tm_status status = run_planned_step(e);
  if (status == TM_ERR_NO_MEMORY) {
    undo_step(e);
    return TM_OK;
  }
  TM_TRY(status);
  TM_TRY(store_prefixes(e));
  e->counts.steps++;
  scheduler_commit(&e->scheduler);
  return TM_OK;
}

tm_status engine_step(engine* e) {
  TM_SCOPE("step");
  TM_USE_STREAM(e->options.stream);
  if (engine_is_idle(e)) return TM_OK;
  scheduler_plan(&e->scheduler);
  bool admitted;
  TM_TRY(admit(e, e->scheduler.planned_tokens, e->scheduler.planned_sequences, &admitted));
  if (admitted) return run_admitted_step(e);
  scheduler_shorten(&e->scheduler);
  return TM_OK;
}

tm_status engine_drain(engine* e) {
  TM_SCOPE("drain");
  for (int i = 0; i < BATCHES; i++) TM_TRY(collect(e, &e->batches[i]));
  return TM_OK;
}

engine_counts engine_get_counts(const engine* e) {
  engine_counts counts = e->counts;
  counts.tensors = e->decoder.tensors;
  counts.requests = e->scheduler.counts;
  counts.prefixes = e->prefixes.counts;
  return counts;
}
