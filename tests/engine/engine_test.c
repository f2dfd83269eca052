// The engine end to end, on a tiny model: it serves everything, the same with every allocator, and
// survives whatever fails.

#include "engine/engine.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdlib.h>
#include <string.h>
#include <tm/tm.h>

#include "engine/counting.h"
#include "engine/decoder.h"
#include "tests/engine/fixture.h"
#include "tests/support/failing.h"
#include "tests/support/machine.h"

static void small_device(void) {
  machine_configure(1, "256MiB");
  machine_require_devices(1);
}

enum { REQUESTS = 60 };

// Requests of up to 300 tokens, and two that can never be served.
static request_trace make_trace(void) {
  static trace_request requests[REQUESTS];
  unsigned seed = 20231116;
  for (size_t i = 0; i < REQUESTS; i++) {
    requests[i] = (trace_request){.prompt_tokens = 1 + (uint32_t)rand_r(&seed) % 250,
                                  .generated_tokens = 1 + (uint32_t)rand_r(&seed) % 50};
  }
  requests[7].prompt_tokens = 5000;
  requests[9].generated_tokens = 5000;
  return (request_trace){.requests = requests, .count = REQUESTS};
}

static uint64_t tokens_wanted(const request_trace* trace) {
  uint64_t tokens = 0;
  for (size_t i = 0; i < trace->count; i++) {
    const trace_request* r = &trace->requests[i];
    if (r->prompt_tokens + r->generated_tokens <= 1000) tokens += r->generated_tokens;
  }
  return tokens;
}

static uint64_t upstream_calls(const engine_fixture* f) {
  tm_allocator_stats stats;
  cr_assert(eq(int, tm_allocator_get_stats(f->upstream, &stats), TM_OK));
  return stats.upstream_calls;
}

// `kv_fraction` decides whether KV blocks are scarce.
static engine_counts serve(activation_source source, double kv_fraction, uint64_t* later_calls) {
  const model_config config = tiny_model(3);
  const request_trace trace = make_trace();
  engine_fixture f;
  cr_assert(eq(int, fixture_init(&f, &config, kv_fraction), TM_OK), "%s", tm_last_error()->message);
  cr_assert(eq(int, fixture_start(&f, source, &trace), TM_OK), "%s", tm_last_error()->message);
  const uint64_t calls = upstream_calls(&f);
  cr_assert(eq(int, fixture_serve(&f), TM_OK), "%s", tm_last_error()->message);
  *later_calls = upstream_calls(&f) - calls;
  const engine_counts counts = engine_get_counts(f.engine);
  fixture_deinit(&f);
  return counts;
}

//===-- Serving -----------------------------------------------------------===//

Test(engine, serves_every_request_and_reads_every_token, .init = small_device) {
  const request_trace trace = make_trace();
  const model_config config = tiny_model(3);
  uint64_t calls;
  const engine_counts counts = serve(FROM_CUDA, 0.5, &calls);
  cr_expect(eq(u64, counts.requests.finished, REQUESTS - 2));
  cr_expect(eq(u64, counts.requests.refused[REFUSED_POSITIONS], 2));
  cr_expect(eq(u64, counts.tokens, tokens_wanted(&trace)));
  cr_expect(eq(u64, counts.tensors, counts.steps * (uint64_t)decoder_tensors_per_step(&config)));
  cr_expect(eq(u64, counts.oom_events, 0));
  cr_expect(eq(u64, calls, 2 * counts.tensors), "each tensor is a cudaMalloc and a cudaFree");
  cr_expect(counts.forward_ns > 0);
}

Test(engine, all_allocators_agree_and_the_arena_asks_its_upstream_no_more, .init = small_device) {
  static const double fractions[] = {0.5, 0.0017};  // plenty of KV blocks, and few
  for (int i = 0; i < 2; i++) {
    engine_counts counts[ACTIVATION_SOURCES];
    uint64_t calls[ACTIVATION_SOURCES];
    for (int source = 0; source < ACTIVATION_SOURCES; source++) {
      counts[source] = serve((activation_source)source, fractions[i], &calls[source]);
      counts[source].forward_ns = 0;
      cr_expect(eq(int, memcmp(&counts[source], &counts[0], sizeof(counts[0])), 0));
    }
    cr_expect(eq(u64, calls[FROM_STACK], 0));
    cr_expect(eq(u64, calls[FROM_POOL], calls[FROM_CUDA]));
    cr_expect(eq(int, counts[0].requests.preempted_for_kv > 0, i == 1));
    cr_expect(eq(u64, counts[0].requests.finished, REQUESTS - 2));
  }
}

Test(engine, a_request_longer_than_the_kv_cache_is_refused, .init = small_device) {
  const model_config config = tiny_model(3);
  const trace_request requests[] = {{900, 50}, {10, 10}};
  const request_trace trace = {.requests = (trace_request*)requests, .count = 2};
  engine_fixture f;
  cr_assert(eq(int, fixture_init(&f, &config, 0.0012), TM_OK), "%s", tm_last_error()->message);
  cr_assert(engine_get_memory(f.engine).kv_tokens < 950);
  cr_assert(eq(int, fixture_start(&f, FROM_STACK, &trace), TM_OK));
  cr_assert(eq(int, fixture_serve(&f), TM_OK));
  const engine_counts counts = engine_get_counts(f.engine);
  cr_expect(eq(u64, counts.requests.refused[REFUSED_KV_CACHE], 1));
  cr_expect(eq(u64, counts.requests.finished, 1));
  fixture_deinit(&f);
}

//===-- Making ------------------------------------------------------------===//

static void tiny_device(void) {
  machine_configure(1, "2MiB");
  machine_require_devices(1);
}

Test(engine, too_little_memory_is_an_error_that_leaves_nothing, .init = tiny_device) {
  const model_config config = tiny_model(40);
  engine_fixture f;
  cr_expect(eq(int, fixture_init(&f, &config, 0.9), TM_ERR_NO_MEMORY));
  cr_expect(eq(ptr, f.engine, NULL));
  fixture_deinit(&f);
  cr_expect(eq(i64, machine_live_allocations(0), 0));
}

Test(engine, impossible_options_are_errors, .init = small_device) {
  const model_config config = tiny_model(1);
  engine_options options = {0};
  cr_expect(eq(ptr, engine_create(&config, &options), NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
  engine_fixture f;
  cr_expect(eq(int, fixture_init(&f, &config, 1.5), TM_ERR_INVALID));
  fixture_deinit(&f);
  cr_expect(eq(int, fixture_init(&f, &config, 0), TM_ERR_INVALID));
  fixture_deinit(&f);
}

//===-- What fails --------------------------------------------------------===//

// Serves while every third step runs out of memory at one of its first `every` allocations.
static engine_counts serve_with_failures(activation_source source, const char* function,
                                         uint64_t every) {
  const model_config config = tiny_model(3);
  const request_trace trace = make_trace();
  engine_fixture f;
  cr_assert(eq(int, fixture_init(&f, &config, 0.5), TM_OK));
  cr_assert(eq(int, fixture_start(&f, source, &trace), TM_OK));
  for (uint64_t step = 0; !engine_is_idle(f.engine); step++) {
    if (step % 3 == 0) machine_fail(function, 1 + step * 7 % every, 0, cudaErrorMemoryAllocation);
    cr_assert(eq(int, engine_step(f.engine), TM_OK), "%s", tm_last_error()->message);
    machine_fail_nothing();
  }
  cr_assert(eq(int, engine_drain(f.engine), TM_OK));
  const engine_counts counts = engine_get_counts(f.engine);
  fixture_deinit(&f);
  cr_expect(eq(i64, machine_live_allocations(0), 0));
  return counts;
}

Test(engine, goes_on_when_activations_find_no_memory, .init = small_device) {
  static const char* const functions[] = {"cudaMalloc", "cudaMallocFromPoolAsync"};
  for (int source = FROM_CUDA; source <= FROM_POOL; source++) {
    const engine_counts counts =
        serve_with_failures((activation_source)source, functions[source], 60);
    cr_expect(counts.oom_events > 10);
    cr_expect(counts.requests.preempted_for_memory > 0);
    cr_expect(eq(u64, counts.requests.finished, REQUESTS - 2));
    cr_expect(eq(u64, counts.requests.refused[REFUSED_MEMORY], 0));
  }
}

Test(engine, refuses_everything_when_there_is_no_memory_at_all, .init = small_device) {
  const model_config config = tiny_model(3);
  const request_trace trace = make_trace();
  engine_fixture f;
  cr_assert(eq(int, fixture_init(&f, &config, 0.5), TM_OK));
  machine_fail("cudaMalloc", 1, 0, cudaErrorMemoryAllocation);
  cr_assert(eq(int, fixture_start(&f, FROM_CUDA, &trace), TM_OK));
  cr_assert(eq(int, fixture_serve(&f), TM_OK));
  machine_fail_nothing();
  const engine_counts counts = engine_get_counts(f.engine);
  cr_expect(eq(u64, counts.steps, 0));
  cr_expect(eq(u64, counts.requests.refused[REFUSED_MEMORY], REQUESTS - 2));
  fixture_deinit(&f);
  cr_expect(eq(i64, machine_live_allocations(0), 0));
}

//===-- Admission -----------------------------------------------------------===//

// Serves with an arena that may hold `budget_bytes`, below what the largest step needs.
static engine_counts serve_within(uint64_t budget_bytes) {
  const model_config config = tiny_model(3);
  const request_trace trace = make_trace();
  memory_budget budget = {.limit_bytes = budget_bytes};
  engine_fixture f;
  cr_assert(eq(int, fixture_init(&f, &config, 0.5), TM_OK));
  f.upstream = counting_allocator_create(tm_cuda_allocator(0), &budget);
  f.activations = tm_stack_allocator_create(f.upstream, f.stream, NULL);
  cr_assert(eq(int, engine_start(f.engine, f.activations, &trace), TM_OK));
  cr_expect(engine_admits(f.engine));
  cr_expect(eq(int, fixture_serve(&f), TM_OK), "%s", tm_last_error()->message);
  const engine_counts counts = engine_get_counts(f.engine);
  fixture_deinit(&f);
  cr_expect(eq(u64, budget.used_bytes, 0));
  cr_expect(eq(i64, machine_live_allocations(0), 0));
  return counts;
}

Test(engine, a_step_is_admitted_or_planned_smaller_and_none_fails_later, .init = small_device) {
  const model_config config = tiny_model(3);
  for (int64_t tokens = 1; tokens <= TINY_TOKENS; tokens *= 4) {
    const size_t bytes =
        decoder_activation_bytes(&config, tokens, tokens < 8 ? tokens : 8, TM_DEVICE_ALIGNMENT);
    const engine_counts counts = serve_within(bytes);
    cr_expect(eq(u64, counts.requests.finished, REQUESTS - 2), "%lld tokens", (long long)tokens);
    cr_expect(eq(u64, counts.oom_events, 0));
    cr_expect(eq(u64, counts.failed_after_admission, 0));
    cr_expect(eq(int, counts.reservations_refused > 0, tokens < TINY_TOKENS));
    cr_expect(eq(int, counts.requests.shortened > 0, tokens < TINY_TOKENS));
    cr_expect(eq(u64, counts.tensors, counts.steps * (uint64_t)decoder_tensors_per_step(&config)),
              "no step was begun that was not done");
  }
}

Test(engine, what_no_step_has_memory_for_is_refused_before_any_begins, .init = small_device) {
  const model_config config = tiny_model(3);
  const engine_counts counts =
      serve_within(decoder_activation_bytes(&config, 1, 1, TM_DEVICE_ALIGNMENT) - 1);
  cr_expect(eq(u64, counts.requests.refused[REFUSED_MEMORY], REQUESTS - 2));
  cr_expect(eq(u64, counts.steps, 0));
  cr_expect(eq(u64, counts.tensors, 0));
  cr_expect(eq(u64, counts.failed_after_admission, 0));
  cr_expect(counts.reservations_refused > 0);
}

Test(engine, only_an_arena_admits, .init = small_device) {
  const model_config config = tiny_model(3);
  const request_trace trace = make_trace();
  for (int source = 0; source < ACTIVATION_SOURCES; source++) {
    engine_fixture f;
    cr_assert(eq(int, fixture_init(&f, &config, 0.5), TM_OK));
    cr_assert(eq(int, fixture_start(&f, (activation_source)source, &trace), TM_OK));
    cr_expect(eq(int, engine_admits(f.engine), source == FROM_STACK));
    fixture_deinit(&f);
  }
}

//===-- The device is lost ----------------------------------------------------===//

Test(engine, a_lost_device_ends_it_with_a_status, .init = small_device) {
  const model_config config = tiny_model(3);
  const request_trace trace = make_trace();
  engine_fixture f;
  cr_assert(eq(int, fixture_init(&f, &config, 0.5), TM_OK));
  cr_assert(eq(int, fixture_start(&f, FROM_STACK, &trace), TM_OK));
  for (int i = 0; i < 5; i++) cr_assert(eq(int, engine_step(f.engine), TM_OK));
  machine_break_device(0, cudaErrorIllegalAddress);
  cr_expect(eq(int, fixture_serve(&f), TM_ERR_DEVICE_LOST));
  fixture_deinit(&f);
}

static tm_status make_and_serve(tm_allocator* unused) {
  (void)unused;
  const model_config config = tiny_model(2);
  const trace_request requests[] = {{300, 5}, {20, 5}};
  const request_trace trace = {.requests = (trace_request*)requests, .count = 2};
  engine_fixture f;
  tm_status status = fixture_init(&f, &config, 0.05);
  if (status == TM_OK) status = fixture_start(&f, FROM_STACK, &trace);
  if (status == TM_OK) status = fixture_serve(&f);
  const tm_error error = *tm_last_error();
  fixture_deinit(&f);
  if (status != TM_OK) (void)TM_RAISE(status, "%s", error.message);
  return status;
}

// What a call that frees leaves behind when it fails adds up.
static void large_device(void) {
  machine_configure(1, "16GiB");
  machine_require_devices(1);
}

// What runs out in a step is the engine's to handle, so the body may succeed.
Test(engine, survives_every_failing_allocation_of_bookkeeping, .init = large_device) {
  expect_survives_every_failure_or_retries(make_and_serve);
}

Test(engine, survives_every_failing_cuda_call, .init = large_device) {
  expect_survives_every_cuda_failure(make_and_serve);
}
