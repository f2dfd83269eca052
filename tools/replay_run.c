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
//   activations:  [verify stamps] - [stack or cached] - counting - cuda or own pool
typedef struct run_parts {
  tm_stream* stream;
  verifier* verifier;    // NULL without --verify
  memory_budget budget;  // where only a part of the device may be used
  tm_allocator* memory;
  tm_allocator* cache;
  tm_allocator* upstream;     // counting: calls are counted here
  tm_allocator* activations;  // the one under test, as the engine sees it
  tm_allocator* tested;       // the same without verification; borrowed
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

static tm_status make_persistent_allocators(run_parts* p, const backend_device* device) {
  p->memory = verified(p, counted(p, device, tm_cuda_allocator(0)), VERIFY_RANGES);
  if (!p->memory) return tm_last_status();
  p->cache = verified(p, counted(p, device, tm_cuda_allocator(0)), VERIFY_RANGES);
  return p->cache ? TM_OK : tm_last_status();
}

// An arena that has what the largest step needs. Where that is not to be had it starts empty: steps
// then find memory or not, which is the engine's to handle.
static tm_allocator* make_arena(run_parts* p) {
  tm_allocator* arena = tm_stack_allocator_create(p->upstream, p->stream, NULL);
  if (!arena) return NULL;
  const tm_status status = tm_stack_reserve(arena, engine_get_memory(p->engine).activation_bytes);
  if (status == TM_OK || status == TM_ERR_NO_MEMORY) return arena;
  tm_allocator_release(arena);
  return NULL;
}

static bool is_over_cuda(replay_allocator allocator) {
  return allocator == REPLAY_CUDA || allocator == REPLAY_CACHED;
}

static tm_allocator* make_tested(run_parts* p, replay_allocator allocator) {
  switch (allocator) {
    case REPLAY_CACHED:
      return tm_cached_allocator_create(p->upstream, p->stream, NULL);
    case REPLAY_STACK:
      return make_arena(p);
    default:
      return tm_allocator_retain(p->upstream);
  }
}

static tm_status make_activations(run_parts* p, const backend_device* device,
                                  replay_allocator allocator) {
  tm_allocator* source = is_over_cuda(allocator) ? tm_cuda_allocator(0)
                                                 : tm_cuda_pool_allocator_create(p->stream, NULL);
  p->upstream = counted(p, device, source);
  if (!p->upstream) return tm_last_status();
  counting_on_new_peak(p->upstream, backend_sample_peak);
  p->tested = make_tested(p, allocator);
  p->activations = verified(p, p->tested, VERIFY_STAMPS);
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

static void gather(const run_parts* p, uint64_t calls_of_warmup, replay_run* out) {
  out->counts = engine_get_counts(p->engine);
  out->peak_live_bytes = peak_live(p);
  out->upstream_calls = upstream_calls(p);
  out->upstream_calls_after_warmup = out->upstream_calls - calls_of_warmup;
}

//===-- The run -----------------------------------------------------------===//

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
  TM_TRY(make_persistent_allocators(p, device));
  TM_TRY(make_engine(p, options, config, out));
  out->memory = engine_get_memory(p->engine);
  backend_restart_peak();
  const uint64_t base = backend_reserved();
  TM_TRY(make_activations(p, device, allocator));
  TM_TRY(engine_start(p->engine, p->activations, trace));
  watch_peak(p, base, out);
  const uint64_t calls_of_warmup = upstream_calls(p);
  backend_restart_peak();  // from here on it is the steady state's
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

static void check_for_leaks(const run_parts* p, replay_run* out) {
  tm_allocator_stats stats;
  if (out->failed || !p->upstream || !p->tested) return;
  if (tm_allocator_get_stats(p->tested, &stats) == TM_OK && stats.live_blocks != 0) {
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
  tm_allocator_release(p->upstream);
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
  };
  if (run(&parts, options, config, trace, device, allocator, out) != TM_OK) {
    out->failed = true;
    say(out, tm_last_error()->message);
  }
  tear_down(&parts, out);
}
