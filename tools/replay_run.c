#include "tools/replay_run.h"

#include <stdio.h>
#include <tm/tm.h>

#include "engine/counting.h"
#include "engine/engine.h"
#include "engine/verify.h"
#include "tools/progress.h"

const double replay_kv_fraction = 0.9;

// What a run holds. From the device upwards:
//
//   memory:       [verify ranges] - counting - cuda          weights, batches, the profile
//   cache:        [verify ranges] - counting - cuda          KV cache
//   prefixes:     [verify ranges] - [fault] - counting - cuda          prefix cache
//   activations:  [verify stamps] - [tracking] - [stack or cached] - [fault] - counting - cuda or
//   own pool
//
// Fault and tracking are there with --fail-rate. Weights, batches and KV cache are spared: a server
// that has not got them does not start.
typedef struct run_parts {
  tm_stream* stream;
  verifier* verifier;    // NULL without --verify
  memory_budget budget;  // where only a part of the device may be used
  double fail_rate;
  uint64_t seed;
  tm_allocator* memory;
  tm_allocator* cache;
  tm_allocator* prefixes;
  tm_allocator* prefix_faults;  // NULL without --fail-rate
  tm_allocator* upstream;       // counting: calls are counted here
  tm_allocator* faults;         // over it; NULL without --fail-rate
  tm_allocator* tested;         // the one under test
  tm_allocator* tracking;       // over it; NULL without --fail-rate
  tm_allocator* activations;    // the same as the engine sees it
  engine* engine;
} run_parts;

//===-- Allocators --------------------------------------------------------===//

// Each takes over the reference to what it wraps, and returns NULL on failure.

static tm_allocator* counted(run_parts* p, const backend_device* device, tm_allocator* upstream) {
  tm_allocator* counting =
      counting_allocator_create(upstream, device->is_capped ? &p->budget : NULL);
  tm_allocator_release(upstream);
  return counting;
}

static tm_allocator* verified(run_parts* p, tm_allocator* upstream, verify_depth depth) {
  if (!p->verifier || !upstream) return upstream;
  tm_allocator* verifying = verify_allocator_create(p->verifier, upstream, depth);
  tm_allocator_release(upstream);
  return verifying;
}

// Over `upstream`, which is retained: an allocator that refuses some requests, kept in `*faults`.
static tm_allocator* unreliable(const run_parts* p, tm_allocator* upstream, uint64_t stream,
                                tm_allocator** faults) {
  if (p->fail_rate == 0 || !upstream) return tm_allocator_retain(upstream);
  *faults = tm_fault_adaptor_create(
      upstream, &(tm_fault_options){.probability = p->fail_rate, .seed = p->seed + stream});
  return tm_allocator_retain(*faults);
}

// Over `upstream`, which is retained: an allocator that knows what is out, kept in p->tracking.
static tm_allocator* tracked(run_parts* p, tm_allocator* upstream) {
  if (p->fail_rate == 0 || !upstream) return tm_allocator_retain(upstream);
  p->tracking = tm_tracking_adaptor_create(upstream, &(tm_tracking_options){.quiet = true});
  return tm_allocator_retain(p->tracking);
}

static tm_status make_prefix_allocator(run_parts* p, const backend_device* device) {
  tm_allocator* counting = counted(p, device, tm_cuda_allocator(0));
  p->prefixes = verified(p, unreliable(p, counting, 1, &p->prefix_faults), VERIFY_RANGES);
  tm_allocator_release(counting);
  return p->prefixes ? TM_OK : tm_last_status();
}

static tm_status make_persistent_allocators(run_parts* p, const backend_device* device) {
  p->memory = verified(p, counted(p, device, tm_cuda_allocator(0)), VERIFY_RANGES);
  if (!p->memory) return tm_last_status();
  p->cache = verified(p, counted(p, device, tm_cuda_allocator(0)), VERIFY_RANGES);
  return p->cache ? make_prefix_allocator(p, device) : tm_last_status();
}

// An arena that has what the largest step needs. Where that is not to be had it starts empty: steps
// then find memory or not, which is the engine's to handle.
static tm_allocator* make_arena(run_parts* p, tm_allocator* upstream) {
  tm_allocator* arena = tm_stack_allocator_create(upstream, p->stream, NULL);
  if (!arena) return NULL;
  const tm_status status = tm_stack_reserve(arena, engine_get_memory(p->engine).activation_bytes);
  if (status == TM_OK || status == TM_ERR_NO_MEMORY) return arena;
  tm_allocator_release(arena);
  return NULL;
}

static bool is_over_cuda(replay_allocator allocator) {
  return allocator == REPLAY_CUDA || allocator == REPLAY_CACHED;
}

static tm_allocator* make_tested(run_parts* p, replay_allocator allocator, tm_allocator* upstream) {
  switch (allocator) {
    case REPLAY_CACHED:
      return tm_cached_allocator_create(upstream, p->stream, NULL);
    case REPLAY_STACK:
      return make_arena(p, upstream);
    default:
      return tm_allocator_retain(upstream);
  }
}

static tm_status make_activations(run_parts* p, const backend_device* device,
                                  replay_allocator allocator) {
  tm_allocator* source = is_over_cuda(allocator) ? tm_cuda_allocator(0)
                                                 : tm_cuda_pool_allocator_create(p->stream, NULL);
  p->upstream = counted(p, device, source);
  if (!p->upstream) return tm_last_status();
  counting_on_new_peak(p->upstream, backend_sample_peak);
  tm_allocator* below = unreliable(p, p->upstream, 0, &p->faults);
  if (!below) return tm_last_status();
  p->tested = make_tested(p, allocator, below);
  tm_allocator_release(below);
  p->activations = verified(p, tracked(p, p->tested), VERIFY_STAMPS);
  return p->activations ? TM_OK : tm_last_status();
}

//===-- Measuring ---------------------------------------------------------===//

static uint64_t upstream_calls(const run_parts* p) {
  tm_allocator_stats stats;
  return tm_allocator_get_stats(p->upstream, &stats) == TM_OK ? stats.upstream_calls : 0;
}

static uint64_t peak_live(const run_parts* p) {
  tm_allocator_stats stats;
  return tm_allocator_get_stats(p->tested, &stats) == TM_OK ? stats.peak_live_bytes : 0;
}

static uint64_t live_bytes(tm_allocator* allocator) {
  tm_allocator_stats stats;
  return tm_allocator_get_stats(allocator, &stats) == TM_OK ? stats.live_bytes : 0;
}

// The most that was live in the latest step. That of a stack or a cache is the one of all steps.
static uint64_t step_peak_live(const run_parts* p) {
  return p->tested == p->upstream ? counting_recent_peak(p->upstream) : peak_live(p);
}

// After each step: whether the driver's count has a new peak, or is at it still, and what was live.
// `base` was reserved before the activations' allocator was made.
static void watch_peak(const run_parts* p, uint64_t base, replay_run* out) {
  const uint64_t peak = backend_peak_reserved() - base;
  out->steady_reserved_bytes = peak;
  const uint64_t live = step_peak_live(p);
  if (peak > out->peak_reserved_bytes) {
    out->peak_reserved_bytes = peak;
    out->live_at_peak_bytes = live;
  } else if (live > out->live_at_peak_bytes && backend_reserved() - base == peak) {
    out->live_at_peak_bytes = live;
  }
  counting_restart_peak(p->upstream);
}

static uint64_t refused_by(tm_allocator* faults) {
  tm_fault_counts counts = {0};
  if (faults) (void)!tm_fault_get(faults, &counts);
  return counts.refused;
}

static void gather(const run_parts* p, uint64_t calls_of_warmup, replay_run* out) {
  out->counts = engine_get_counts(p->engine);
  out->admits = engine_admits(p->engine);
  out->peak_live_bytes = peak_live(p);
  out->upstream_calls = upstream_calls(p);
  out->upstream_calls_after_warmup = out->upstream_calls - calls_of_warmup;
  out->refused_on_purpose = refused_by(p->faults) + refused_by(p->prefix_faults);
}

//===-- The run -----------------------------------------------------------===//

// An arena keeps what it has, so nothing below it would be asked that could be refused. With faults
// it gives all of it back after each step.
static tm_status empty_arena(const run_parts* p) {
  if (!p->faults || !tm_is_stack(p->tested)) return TM_OK;
  TM_TRY(tm_stack_reserve(p->tested, 0));
  return tm_allocator_trim(p->tested, 0);
}

static uint64_t requests_done(const engine* e) {
  const engine_counts counts = engine_get_counts(e);
  uint64_t done = counts.requests.finished;
  for (int i = 0; i < REFUSALS; i++) done += counts.requests.refused[i];
  return done;
}

static tm_status serve(run_parts* p, uint64_t base, replay_run* out) {
  progress bar = progress_begin(out->allocator, "requests", out->requests);
  tm_status status = TM_OK;
  while (status == TM_OK && !engine_is_idle(p->engine)) {
    status = engine_step(p->engine);
    if (status == TM_OK) status = empty_arena(p);
    watch_peak(p, base, out);
    progress_update(&bar, requests_done(p->engine));
  }
  if (status == TM_OK) status = engine_drain(p->engine);
  out->seconds = progress_end(&bar);
  return status;
}

static tm_status make_engine(run_parts* p, const replay_options* o, const model_config* config,
                             replay_run* out) {
  const engine_options options = {
      .stream = p->stream,
      .memory = p->memory,
      .cache_memory = p->cache,
      .prefix_memory = p->prefixes,
      .prefix_bytes = o->prefix_cache,
      .budget = p->budget.limit_bytes ? &p->budget : NULL,
      .kv_fraction = replay_kv_fraction,
      .max_batch = o->max_batch,
      .max_tokens = o->max_tokens,
      .runtime_clock = backend_runtime_clock(),
  };
  p->engine = engine_create(config, &options);
  if (p->engine) return TM_OK;
  out->does_not_fit =
      tm_last_status() == TM_ERR_NO_MEMORY || tm_last_status() == TM_ERR_OUT_OF_RANGE;
  return tm_last_status();
}

static tm_status run(run_parts* p, const replay_options* options, const model_config* config,
                     const request_trace* trace, const backend_device* device,
                     replay_allocator allocator, replay_run* out) {
  p->stream = tm_stream_create(0, 0);
  if (!p->stream) return tm_last_status();
  if (options->verify && !(p->verifier = verifier_create())) return tm_last_status();
  if (device->is_capped) p->budget.limit_bytes = device->memory_bytes;
  p->fail_rate = options->fail_rate;
  p->seed = options->seed;
  TM_TRY(make_persistent_allocators(p, device));
  const uint64_t before = backend_reserved();
  TM_TRY(make_engine(p, options, config, out));
  out->memory = engine_get_memory(p->engine);
  backend_restart_peak();
  const uint64_t base = backend_reserved();
  out->persistent_reserved_bytes = base - before;
  out->persistent_live_bytes = live_bytes(p->memory) + live_bytes(p->cache);
  TM_TRY(make_activations(p, device, allocator));
  TM_TRY(engine_start(p->engine, p->activations, trace));
  watch_peak(p, base, out);
  const uint64_t calls_of_warmup = upstream_calls(p);
  backend_restart_peak();  // from here on it is the steady state's, which seldom needs as much
  counting_on_new_peak(p->upstream, backend_sample_peak);
  const tm_status status = serve(p, base, out);
  gather(p, calls_of_warmup, out);
  return status;
}

//===-- The end -----------------------------------------------------------===//

// What does not fit, fits with no allocator: its name would mislead.
static void say(replay_run* out, const char* what) {
  (void)snprintf(out->message, sizeof(out->message), "%s%s%s",
                 out->does_not_fit ? "" : out->allocator, out->does_not_fit ? "" : ": ", what);
}

static uint64_t live_blocks(tm_allocator* allocator) {
  tm_allocator_stats stats = {0};
  return allocator && tm_allocator_get_stats(allocator, &stats) == TM_OK ? stats.live_blocks : 0;
}

// The engine is gone: nothing is out but what an arena keeps.
static void check_for_leaks(const run_parts* p, replay_run* out) {
  size_t blocks = 0;
  size_t bytes = 0;
  if (p->tracking) (void)!tm_tracking_totals(p->tracking, &blocks, &bytes);
  out->outstanding = blocks + live_blocks(p->prefix_faults);
  if (out->failed || !p->upstream || !p->tested) return;
  if (out->outstanding || live_blocks(p->tested)) {
    out->failed = true;
    say(out, "activations are still alive at the end");
  }
}

static void judge(const run_parts* p, replay_run* out) {
  if (!p->verifier) return;
  out->findings = verifier_findings(p->verifier);
  out->checked = verifier_checked(p->verifier);
  out->verified = out->findings ? FOUND_SOMETHING : VERIFIED;
  if (out->failed) return;
  if (out->findings) {
    say(out, verifier_first_finding(p->verifier));
  } else if (out->checked < out->counts.tensors) {
    out->failed = true;
    say(out, "not every tensor was checked");
  }
}

// Everything is given back before the verdict: what is released last is checked as well.
static void tear_down(run_parts* p, replay_run* out) {
  engine_destroy(p->engine);
  check_for_leaks(p, out);
  tm_allocator_release(p->activations);
  tm_allocator_release(p->tracking);
  tm_allocator_release(p->tested);
  tm_allocator_release(p->faults);
  tm_allocator_release(p->upstream);
  tm_allocator_release(p->prefixes);
  tm_allocator_release(p->prefix_faults);
  tm_allocator_release(p->cache);
  tm_allocator_release(p->memory);
  if (p->stream) (void)!tm_stream_sync(p->stream);
  judge(p, out);
  verifier_destroy(p->verifier);
  tm_stream_release(p->stream);
}

void replay_run_allocator(const replay_options* options, const model_config* config,
                          const request_trace* trace, const backend_device* device,
                          replay_allocator allocator, replay_run* out) {
  run_parts parts = {0};
  *out = (replay_run){
      .allocator = replay_allocator_name(allocator),
      .requests = trace->count,
      .has_runtime_share = backend_runtime_clock() != NULL,
      .has_prefix_cache = options->prefix_cache != 0,
  };
  if (run(&parts, options, config, trace, device, allocator, out) != TM_OK) {
    out->failed = true;
    say(out, tm_last_error()->message);
  }
  tear_down(&parts, out);
}
