// A plan says, byte for byte, what the engine then asks for.

#include "engine/plan.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <tm/tm.h>

#include "engine/builtin_models.h"
#include "engine/counting.h"
#include "engine/engine.h"
#include "engine/kv_cache.h"
#include "tests/engine/fixture.h"
#include "tests/support/machine.h"

#define GIB ((uint64_t)1 << 30)

static tm_stream* stream;

static void setup_with(const char* memory) {
  machine_configure(1, memory);
  machine_require_devices(1);
  if (!machine_is_simulated()) {
    machine_skip("the largest of the models does not fit a real device");
  }
  stream = tm_stream_create(0, 0);
  cr_assert(stream != NULL, "%s", tm_last_error()->message);
}

static void setup(void) { setup_with("1GiB"); }
static void large_setup(void) { setup_with("160GiB"); }

//===-- A real run --------------------------------------------------------===//

typedef struct real_run {
  tm_allocator* persistent;  // counting: weights and batches
  tm_allocator* cache;       // counting
  tm_allocator* upstream;    // counting: of the activations
  tm_allocator* activations;
  engine* engine;
  uint64_t taken_before;  // bytes of the device
} real_run;

static tm_allocator* counted(tm_allocator* upstream) {
  tm_allocator* counting = counting_allocator_create(upstream, NULL);
  cr_assert(counting != NULL, "%s", tm_last_error()->message);
  return counting;
}

static void create_engine(real_run* r, const model_config* config, const plan_limits* limits,
                          int64_t kv_tokens) {
  const engine_options options = {
      .stream = stream,
      .memory = r->persistent,
      .cache_memory = r->cache,
      .kv_tokens = kv_tokens,
      .max_batch = limits->batch,
      .max_tokens = limits->step_tokens,
  };
  r->engine = engine_create(config, &options);
  cr_assert(r->engine != NULL, "%s", tm_last_error()->message);
}

static real_run begin(const model_config* config, const plan_limits* limits, int64_t kv_tokens,
                      bool on_stack) {
  real_run r = {.taken_before = machine_reserved_bytes(0)};
  r.persistent = counted(tm_cuda_allocator(0));
  r.cache = counted(tm_cuda_allocator(0));
  tm_auto_allocator pool = tm_cuda_pool_allocator_create(stream, NULL);
  r.upstream = counted(pool);
  create_engine(&r, config, limits, kv_tokens);
  const tm_stack_options options = {
      .initial_bytes = engine_get_memory(r.engine).activation_bytes,
  };
  r.activations = on_stack ? tm_stack_allocator_create(r.upstream, stream, &options)
                           : tm_allocator_retain(r.upstream);
  cr_assert(r.activations != NULL, "%s", tm_last_error()->message);
  return r;
}

static void end(real_run* r) {
  engine_destroy(r->engine);
  tm_allocator_release(r->activations);
  tm_allocator_release(r->upstream);
  tm_allocator_release(r->cache);
  tm_allocator_release(r->persistent);
}

static uint64_t live(tm_allocator* allocator) {
  tm_allocator_stats stats;
  cr_assert(eq(int, tm_allocator_get_stats(allocator, &stats), TM_OK));
  return stats.live_bytes;
}

// Serves as many requests as the batch has sequences, each as long as planned, and returns the most
// that was asked of the device from the first step on.
static uint64_t serve(real_run* r, const plan_limits* limits) {
  static trace_request requests[64];
  cr_assert(limits->batch <= 64);
  for (int64_t i = 0; i < limits->batch; i++) {
    requests[i] = (trace_request){(uint32_t)limits->sequence - 3, 3};
  }
  const request_trace trace = {.requests = requests, .count = (size_t)limits->batch};
  cr_assert(eq(int, engine_start(r->engine, r->activations, &trace), TM_OK));
  uint64_t peak = 0;
  while (!engine_is_idle(r->engine)) {
    cr_assert(eq(int, engine_step(r->engine), TM_OK), "%s", tm_last_error()->message);
    const uint64_t now = live(r->persistent) + live(r->cache) + counting_recent_peak(r->upstream);
    peak = now > peak ? now : peak;
  }
  cr_assert(eq(int, engine_drain(r->engine), TM_OK));
  const engine_counts counts = engine_get_counts(r->engine);
  cr_expect(eq(u64, counts.requests.finished, (uint64_t)limits->batch));
  cr_expect(eq(u64, counts.requests.preempted_for_kv, 0));
  cr_expect(eq(u64, counts.oom_events, 0));
  return peak;
}

static void expect_as_planned(const model_config* config, const plan_limits* limits,
                              const char* name) {
  engine_plan plan;
  cr_assert(eq(int, plan_make(config, limits, stream, &plan), TM_OK), "%s",
            tm_last_error()->message);
  real_run r = begin(config, limits, plan.kv_tokens, true);
  const uint64_t peak = serve(&r, limits);
  cr_expect(eq(u64, plan.stack.peak, peak), "%s", name);
  cr_expect(eq(u64, plan.weights + plan.batches, live(r.persistent)), "%s", name);
  cr_expect(eq(u64, plan.kv_cache, live(r.cache)), "%s", name);
  cr_expect(eq(u64, plan.stack.activations, live(r.upstream)), "%s", name);
  cr_expect(eq(u64, plan.stack.reserved, machine_reserved_bytes(0) - r.taken_before), "%s", name);
  end(&r);
  r = begin(config, limits, plan.kv_tokens, false);
  cr_expect(eq(u64, plan.pool.peak, serve(&r, limits)), "%s, a pool", name);
  cr_expect(plan.pool.reserved <= machine_reserved_bytes(0) - r.taken_before, "%s", name);
  end(&r);
}

Test(plan, is_what_the_engine_asks_for_byte_for_byte, .init = large_setup) {
  static const plan_limits limits[] = {{1, 100, 64}, {7, 1000, 512}, {32, 2048, 8192}};
  for (size_t i = 0; i < builtin_model_count(); i++) {
    model_config config;
    cr_assert(builtin_model_find(builtin_model_name(i), &config));
    for (size_t k = 0; k < sizeof limits / sizeof *limits; k++) {
      expect_as_planned(&config, &limits[k], builtin_model_name(i));
    }
  }
  tm_stream_release(stream);
}

Test(plan, holds_for_a_model_of_odd_sizes, .init = setup) {
  const model_config config = tiny_model(3);
  expect_as_planned(&config, &(plan_limits){5, 777, 33}, "tiny");
  expect_as_planned(&config, &(plan_limits){TINY_BATCH, 1000, TINY_TOKENS}, "tiny");
  tm_stream_release(stream);
}

//===-- What fits ---------------------------------------------------------===//

static uint64_t reserved(const model_config* config, const plan_limits* limits) {
  engine_plan plan;
  cr_assert(eq(int, plan_make(config, limits, stream, &plan), TM_OK));
  return plan.stack.reserved;
}

Test(plan, finds_the_largest_batch_and_the_longest_sequence_that_fit, .init = setup) {
  model_config config;
  cr_assert(builtin_model_find("llama-3-8b", &config));
  plan_limits limits = {16, 2048, 4096};
  int64_t batch, longest;
  cr_assert(eq(int, plan_largest_batch(&config, &limits, stream, 24 * GIB, &batch), TM_OK));
  cr_assert(eq(int, plan_longest_sequence(&config, &limits, stream, 24 * GIB, &longest), TM_OK));
  cr_assert(batch > 1 && longest > 1 && longest < config.max_positions);
  limits.batch = batch;
  cr_expect(reserved(&config, &limits) <= 24 * GIB);
  limits.batch = batch + 1;
  cr_expect(reserved(&config, &limits) > 24 * GIB);
  limits.batch = 16;
  limits.sequence = longest;
  cr_expect(reserved(&config, &limits) <= 24 * GIB);
  limits.sequence = longest + 1;
  cr_expect(reserved(&config, &limits) > 24 * GIB);
  cr_assert(eq(int, plan_largest_batch(&config, &limits, stream, 14 * GIB, &batch), TM_OK));
  cr_expect(eq(i64, batch, 0));  // not even the weights
  cr_assert(eq(int, plan_longest_sequence(&config, &limits, stream, 400 * GIB, &longest), TM_OK));
  cr_expect(eq(i64, longest, config.max_positions));
  tm_stream_release(stream);
}

Test(plan, limits_that_cannot_be_are_errors, .init = setup) {
  const model_config config = tiny_model(2);
  static const plan_limits wrong[] = {{0, 10, 10}, {1, 0, 10},    {1, 10, 0},
                                      {-1, 1, 1},  {1, 1001, 10}, {1 << 20, 10, 10}};
  engine_plan plan;
  int64_t found = 7;
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    cr_expect(eq(int, plan_make(&config, &wrong[i], stream, &plan), TM_ERR_INVALID));
    cr_expect(eq(u64, plan.stack.peak, 0));
    cr_expect(eq(int, plan_largest_batch(&config, &wrong[i], stream, GIB, &found), TM_ERR_INVALID));
    cr_expect(eq(i64, found, 0));
  }
  tm_stream_release(stream);
}
