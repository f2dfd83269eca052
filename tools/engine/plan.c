#include "engine/plan.h"

#include <stdbool.h>

#include "engine/counting.h"
#include "engine/engine.h"
#include "engine/kv_cache.h"
#include "engine/scheduler.h"
#include "engine/trace.h"
#include "engine/weights.h"

enum {
  LARGEST_BATCH = 65536,   // sequences; a batch of more is no engine's
  CHUNK_BYTES = 32 << 20,  // in which CUDA memory pools take memory from the device
};

// Allocators over nothing, each of its kind of memory.
typedef struct dry_memory {
  tm_allocator* persistent;   // weights and batches
  tm_allocator* cache;        // KV cache
  tm_allocator* host;         // batches, the host's side
  tm_allocator* activations;  // counting
} dry_memory;

static tm_allocator* make_dry(tm_device_type type) {
  tm_auto_allocator dry = tm_dry_allocator_create((tm_device){.type = type}, NULL);
  return dry ? counting_allocator_create(dry, NULL) : NULL;
}

static bool dry_memory_init(dry_memory* out) {
  out->persistent = make_dry(TM_DEVICE);
  out->cache = make_dry(TM_DEVICE);
  out->host = make_dry(TM_CPU_PINNED);
  out->activations = make_dry(TM_DEVICE);
  return out->persistent && out->cache && out->host && out->activations;
}

static void dry_memory_deinit(dry_memory* memory) {
  tm_allocator_release(memory->persistent);
  tm_allocator_release(memory->cache);
  tm_allocator_release(memory->host);
  tm_allocator_release(memory->activations);
}

static uint64_t live_bytes(tm_allocator* counting) {
  tm_allocator_stats stats;
  return tm_allocator_get_stats(counting, &stats) == TM_OK ? stats.live_bytes : 0;
}

//===-- One plan ----------------------------------------------------------===//

static tm_status check_limits(const model_config* config, const plan_limits* limits) {
  if (limits->batch < 1 || limits->batch > LARGEST_BATCH || limits->sequence < 1 ||
      limits->step_tokens < 1 || limits->step_tokens > INT32_MAX) {
    return TM_RAISE(
        TM_ERR_INVALID, "a plan for a batch of %lld, sequences of %lld tokens, steps of %lld",
        (long long)limits->batch, (long long)limits->sequence, (long long)limits->step_tokens);
  }
  if (limits->sequence > config->max_positions) {
    return TM_RAISE(TM_ERR_INVALID, "sequences of %lld tokens asked; the model takes %lld",
                    (long long)limits->sequence, (long long)config->max_positions);
  }
  return TM_OK;
}

static tm_status weigh(const model_config* config, engine_plan* out) {
  tm_auto_allocator memory = make_dry(TM_DEVICE);
  if (!memory) return tm_last_status();
  TM_USE_ALLOCATOR(memory);
  model_weights weights;
  TM_TRY(model_weights_init(config, &weights));
  out->weights = live_bytes(memory);
  model_weights_deinit(&weights);
  return TM_OK;
}

static uint64_t in_chunks(uint64_t bytes) {
  return (bytes + CHUNK_BYTES - 1) / CHUNK_BYTES * CHUNK_BYTES;
}

static plan_use use_of(const dry_memory* memory, uint64_t activations) {
  return (plan_use){
      .activations = activations,
      .peak = live_bytes(memory->persistent) + live_bytes(memory->cache) + activations,
      .reserved = counting_granule_bytes(memory->persistent) +
                  counting_granule_bytes(memory->cache) + in_chunks(activations),
  };
}

// Runs the step that an engine begins with, and fills in one use.
typedef tm_status (*measure)(engine* e, const dry_memory* memory, plan_use* out);

static tm_status start(engine* e, tm_allocator* activations) {
  const request_trace nothing = {0};
  return engine_start(e, activations, &nothing);
}

static tm_status measure_stack(engine* e, const dry_memory* memory, plan_use* out) {
  const tm_stack_options options = {.initial_bytes = engine_get_memory(e).activation_bytes};
  tm_auto_allocator arena = tm_stack_allocator_create(memory->activations, NULL, &options);
  if (!arena) return tm_last_status();
  TM_TRY(start(e, arena));
  *out = use_of(memory, live_bytes(memory->activations));
  return TM_OK;
}

static tm_status measure_pool(engine* e, const dry_memory* memory, plan_use* out) {
  TM_TRY(start(e, memory->activations));
  *out = use_of(memory, counting_recent_peak(memory->activations));
  return TM_OK;
}

static tm_status with_engine(const model_config* config, const engine_options* options, measure how,
                             plan_use* use, engine_plan* out) {
  dry_memory memory = {0};
  engine_options o = *options;
  engine* e = NULL;
  if (dry_memory_init(&memory)) {
    o.memory = memory.persistent;
    o.cache_memory = memory.cache;
    o.host_memory = memory.host;
    e = engine_create(config, &o);
  }
  tm_status status = e ? how(e, &memory, use) : tm_last_status();
  if (status == TM_OK) {
    out->batches = live_bytes(memory.persistent) - out->weights;
    out->kv_cache = live_bytes(memory.cache);
    out->kv_tokens = engine_get_memory(e).kv_tokens;
  }
  engine_destroy(e);
  dry_memory_deinit(&memory);
  return status;
}

static tm_status measure_all(const model_config* config, const plan_limits* limits,
                             tm_stream* stream, engine_plan* out) {
  int64_t kv_blocks;
  TM_TRY(scheduler_kv_blocks(limits->batch, limits->sequence, &kv_blocks));
  const engine_options options = {
      .stream = stream,
      .kv_tokens = kv_blocks * KV_BLOCK_TOKENS,
      .max_batch = limits->batch,
      .max_tokens = limits->step_tokens,
  };
  TM_TRY(weigh(config, out));
  TM_TRY(with_engine(config, &options, measure_stack, &out->stack, out));
  return with_engine(config, &options, measure_pool, &out->pool, out);
}

tm_status plan_make(const model_config* config, const plan_limits* limits, tm_stream* stream,
                    engine_plan* out) {
  TM_SCOPE("plan");
  *out = (engine_plan){0};
  TM_TRY(check_limits(config, limits));
  const tm_status status = measure_all(config, limits, stream, out);
  if (status != TM_OK) *out = (engine_plan){0};
  return status;
}

//===-- What fits ---------------------------------------------------------===//

static tm_status fits(const model_config* config, const plan_limits* limits, tm_stream* stream,
                      uint64_t memory, bool* out) {
  engine_plan plan;
  *out = false;
  const tm_status status = plan_make(config, limits, stream, &plan);
  if (status == TM_ERR_OVERFLOW) return TM_OK;  // more than any device has
  *out = status == TM_OK && plan.stack.reserved <= memory;
  return status;
}

// Bisects for the largest `*limit`, a member of `limits`, from 1 to `largest` that fits.
static tm_status find_largest(const model_config* config, plan_limits* limits, int64_t* limit,
                              int64_t largest, tm_stream* stream, uint64_t memory, int64_t* out) {
  int64_t fitting = 0;
  *out = 0;
  while (fitting < largest) {
    bool does_fit;
    *limit = fitting + (largest - fitting + 1) / 2;
    TM_TRY(fits(config, limits, stream, memory, &does_fit));
    if (does_fit) {
      fitting = *limit;
    } else {
      largest = *limit - 1;
    }
  }
  *out = fitting;
  return TM_OK;
}

tm_status plan_largest_batch(const model_config* config, const plan_limits* limits,
                             tm_stream* stream, uint64_t memory, int64_t* out) {
  plan_limits tried = *limits;
  *out = 0;
  TM_TRY(check_limits(config, limits));
  return find_largest(config, &tried, &tried.batch, LARGEST_BATCH, stream, memory, out);
}

tm_status plan_longest_sequence(const model_config* config, const plan_limits* limits,
                                tm_stream* stream, uint64_t memory, int64_t* out) {
  plan_limits tried = *limits;
  *out = 0;
  TM_TRY(check_limits(config, limits));
  return find_largest(config, &tried, &tried.sequence, config->max_positions, stream, memory, out);
}
