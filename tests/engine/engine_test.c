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

// For what holds of a device of that size only.
static void exactly_small_device(void) {
  small_device();
  if (!machine_is_simulated()) {
    machine_skip("a real device is not made so small");
  }
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

Test(engine, all_allocators_agree_and_the_arena_asks_its_upstream_no_more,
     .init = exactly_small_device) {
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

Test(engine, a_request_longer_than_the_kv_cache_is_refused, .init = exactly_small_device) {
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
  if (!machine_is_simulated()) {
    machine_skip("a real device is not made so small");
  }
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

//===-- The prefix cache ------------------------------------------------------===//

enum {
  SHARING = 120,
  SHARING_BATCH = PREFIX_PROMPTS / 2,  // so that some entries are in no use
  SHARING_LAYERS = 30,                 // so that an entry is larger than a step's activations
};

// Requests with prompts that are longer than what they share with others.
static request_trace make_sharing_trace(void) {
  static trace_request requests[SHARING];
  unsigned seed = 20231116;
  for (size_t i = 0; i < SHARING; i++) {
    requests[i] = (trace_request){.prompt_tokens = 520 + (uint32_t)rand_r(&seed) % 100,
                                  .generated_tokens = 1 + (uint32_t)rand_r(&seed) % 30};
  }
  return (request_trace){.requests = requests, .count = SHARING};
}

// An engine whose prefix cache and activations spend one budget.
typedef struct sharing_fixture {
  memory_budget budget;
  tm_allocator* prefix_memory;
  engine_fixture f;
} sharing_fixture;

static void sharing_start(sharing_fixture* s, activation_source source, uint64_t prefix_bytes) {
  const model_config config = tiny_model(SHARING_LAYERS);
  const request_trace trace = make_sharing_trace();
  *s = (sharing_fixture){.budget.limit_bytes = UINT64_MAX};
  engine_fixture* f = &s->f;
  f->stream = tm_stream_create(0, 0);
  s->prefix_memory = counting_allocator_create(tm_cuda_allocator(0), &s->budget);
  f->engine = engine_create(&config, &(engine_options){.stream = f->stream,
                                                       .memory = tm_cuda_allocator(0),
                                                       .cache_memory = tm_cuda_allocator(0),
                                                       .prefix_memory = s->prefix_memory,
                                                       .prefix_bytes = prefix_bytes,
                                                       .kv_fraction = 0.5,
                                                       .max_batch = SHARING_BATCH,
                                                       .max_tokens = TINY_TOKENS});
  cr_assert(f->engine != NULL, "%s", tm_last_error()->message);
  f->upstream = counting_allocator_create(tm_cuda_allocator(0), &s->budget);
  f->activations = source == FROM_STACK ? tm_stack_allocator_create(f->upstream, f->stream, NULL)
                                        : tm_allocator_retain(f->upstream);
  cr_assert(eq(int, engine_start(f->engine, f->activations, &trace), TM_OK));
}

static engine_counts sharing_finish(sharing_fixture* s) {
  cr_expect(eq(int, fixture_serve(&s->f), TM_OK), "%s", tm_last_error()->message);
  const engine_counts counts = engine_get_counts(s->f.engine);
  fixture_deinit(&s->f);
  tm_allocator_release(s->prefix_memory);
  cr_expect(eq(u64, s->budget.used_bytes, 0));
  cr_expect(eq(i64, machine_live_allocations(0), 0));
  return counts;
}

Test(engine, hits_of_the_prefix_cache_save_steps, .init = small_device) {
  sharing_fixture s;
  sharing_start(&s, FROM_STACK, 0);
  const engine_counts without = sharing_finish(&s);
  sharing_start(&s, FROM_STACK, (uint64_t)16 << 20);
  const engine_counts with = sharing_finish(&s);
  cr_expect(eq(u64, with.requests.finished, SHARING));
  cr_expect(eq(u64, with.tokens, without.tokens));
  cr_expect(eq(u64, with.prefixes.stored, PREFIX_PROMPTS));
  cr_expect(with.prefixes.hits > SHARING / 2);
  cr_expect(with.prefixes.tokens_saved > with.prefixes.hits * 64);
  cr_expect(with.steps < without.steps);
  cr_expect(eq(u64, with.prefixes.dropped, 0));
  cr_expect(eq(u64, without.prefixes.hits + without.prefixes.misses, 0));
}

// Steps until all entries are there, and leaves a byte less than any step needs.
static void fill_the_device(sharing_fixture* s) {
  const model_config config = tiny_model(SHARING_LAYERS);
  const size_t needed = decoder_activation_bytes(&config, 1, 1, TM_DEVICE_ALIGNMENT);
  while (engine_get_counts(s->f.engine).prefixes.stored < PREFIX_PROMPTS) {
    cr_assert(eq(int, engine_step(s->f.engine), TM_OK));
  }
  if (engine_admits(s->f.engine)) {  // what the arena has kept goes back
    cr_assert(eq(int, tm_stack_reserve(s->f.activations, 0), TM_OK));
    cr_assert(eq(int, tm_allocator_trim(s->f.activations, 0), TM_OK));
  }
  s->budget.limit_bytes = s->budget.used_bytes + needed - 1;
}

Test(engine, a_full_device_makes_the_prefix_cache_give_way_to_the_step, .init = small_device) {
  for (int source = FROM_CUDA; source <= FROM_STACK; source += FROM_STACK) {
    sharing_fixture s;
    sharing_start(&s, (activation_source)source, (uint64_t)16 << 20);
    fill_the_device(&s);
    const engine_counts before = engine_get_counts(s.f.engine);
    cr_expect(eq(u64, before.prefixes.dropped, 0));
    cr_assert(eq(int, engine_step(s.f.engine), TM_OK));
    const engine_counts after = engine_get_counts(s.f.engine);
    cr_expect(after.prefixes.dropped > 0);
    cr_expect(eq(u64, after.steps, before.steps + 1), "the step went on");
    cr_expect(eq(u64, after.reservations_refused, 0));
    const engine_counts counts = sharing_finish(&s);
    cr_expect(eq(u64, counts.requests.finished, SHARING));
    cr_expect(eq(u64, counts.failed_after_admission, 0));
  }
}

Test(engine, a_prefix_cache_needs_an_allocator, .init = small_device) {
  const model_config config = tiny_model(1);
  tm_auto_stream stream = tm_stream_create(0, 0);
  cr_expect(eq(ptr,
               engine_create(&config, &(engine_options){.stream = stream,
                                                        .memory = tm_cuda_allocator(0),
                                                        .cache_memory = tm_cuda_allocator(0),
                                                        .prefix_bytes = 1}),
               NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
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
