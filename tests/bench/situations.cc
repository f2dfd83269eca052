#include "tests/bench/situations.h"

#include <benchmark/benchmark.h>
#include <tm/tm.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "tests/bench/operations.h"
#include "tests/support/random_workload.h"

namespace bench {

namespace {

enum { BATCH = 1000 };

[[noreturn]] void fail() {
  (void)std::fprintf(stderr, "bench: %s\n", tm_last_error()->message);
  std::abort();
}

void (*find(const operation_set& set, const std::string& name))(long) {
  for (size_t i = 0; i < set.size; i++) {
    if (set.operations[i].name == name) return set.operations[i].run;
  }
  (void)std::fprintf(stderr, "bench: there is no operation \"%s\"\n", name.c_str());
  std::abort();
}

void repeat(benchmark::State& state, void (*run)(long)) {
  run(BATCH);
  while (state.KeepRunningBatch(BATCH)) {
    run(BATCH);
  }
}

//===-- Depth -------------------------------------------------------------===//

// Runs at `depth` open scopes of `allocator`.
void run_at_depth(tm_allocator* allocator, int depth, benchmark::State& state, void (*run)(long)) {
  TM_USE_ALLOCATOR(allocator);
  if (depth > 1) {
    run_at_depth(allocator, depth - 1, state, run);
  } else {
    repeat(state, run);
  }
}

void at_depth(benchmark::State& state, tm_device device, int depth, const char* name) {
  tm_auto_allocator dry = tm_dry_allocator_create(device, nullptr);
  if (!dry) fail();
  run_at_depth(dry, depth, state, find(bench_tmcore(), name));
}

//===-- Live tensors ------------------------------------------------------===//

void among_live(benchmark::State& state, int count) {
  tm_auto_allocator arena = tm_stack_allocator_create(tm_host_allocator(), nullptr, nullptr);
  if (!arena) fail();
  TM_USE_ALLOCATOR(arena);
  std::vector<tm_tensor> tensors(static_cast<size_t>(count));
  for (tm_tensor& tensor : tensors) {
    tensor = tm_empty(TM_SHAPE(32), TM_F16, TM_CPU);
    if (!tm_ok(&tensor)) fail();
  }
  const int64_t rows = opaque(int64_t{ROWS});
  const int64_t columns = opaque(int64_t{COLUMNS});
  while (state.KeepRunning()) {
    tm_auto_tensor tensor = tm_empty(TM_SHAPE(rows, columns), TM_F16, TM_CPU);
    keep(&tensor);
  }
  while (!tensors.empty()) {
    tm_release(&tensors.back());
    tensors.pop_back();
  }
}

//===-- The random workload -----------------------------------------------===//

// An iteration is a block: allocated and freed. `measured`: else no allocator is called. The
// allocator is kept from one run of the workload to the next, and has seen one before.
void random_blocks(benchmark::State& state, int count, bool measured) {
  tm_auto_allocator dry = tm_dry_allocator_create(tm_device_make(TM_DEVICE, 0), nullptr);
  tm_auto_allocator cached = dry ? tm_cached_allocator_create(dry, nullptr, nullptr) : nullptr;
  if (!cached) fail();
  tm_allocator* const allocator = measured ? cached : nullptr;
  const auto run = [=] {
    random_workload result;
    if (random_workload_run(allocator, static_cast<size_t>(count), 1, &result) != TM_OK) fail();
    return result.nanoseconds * 2 * count;
  };
  (void)run();
  while (state.KeepRunningBatch(count)) {
    state.SetIterationTime(run() * 1e-9);
  }
}

}  // namespace

void register_situations() {
  for (const int depth : depths) {
    const std::string n = std::to_string(depth);
    const auto add = [=](const char* name, tm_device device) {
      benchmark::RegisterBenchmark(
          (std::string("scale/") + name + "/" + n).c_str(),
          [=](benchmark::State& state) { at_depth(state, device, depth, name); });
    };
    add("scope", tm_device_make(TM_CPU, 0));
    add("lookup", tm_device_make(TM_CPU, 0));
    add("lookup_on", tm_device_make(TM_DEVICE, 0));
  }
  for (const int count : live_counts) {
    benchmark::RegisterBenchmark(("scale/live/" + std::to_string(count)).c_str(),
                                 [=](benchmark::State& state) { among_live(state, count); });
  }
  for (const char* name :
       {"scope", "lookup", "stack_tensor", "layer", "host_tensor", "share", "slice"}) {
    for (const int threads : thread_counts) {
      benchmark::RegisterBenchmark(
          (std::string("threads/") + name).c_str(),
          [=](benchmark::State& state) { repeat(state, find(bench_tmcore(), name)); })
          ->Threads(threads);
    }
  }
  for (const int count : workload_sizes) {
    const std::string n = std::to_string(count);
    benchmark::RegisterBenchmark(("random/" + n).c_str(), [=](benchmark::State& state) {
      random_blocks(state, count, true);
    })->UseManualTime();
    benchmark::RegisterBenchmark(("random_null/" + n).c_str(), [=](benchmark::State& state) {
      random_blocks(state, count, false);
    })->UseManualTime();
  }
}

}  // namespace bench
