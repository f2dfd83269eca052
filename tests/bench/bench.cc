// What tmcore's operations cost beside yardsticks, beside what people use today, and beside the C++
// pattern that it stands in for:
//
//   ./bazelw run -c opt //tests/bench                        (some minutes)
//   ./bazelw run -c opt //tests/bench -- --json /tmp/now.json
//   ./bazelw run -c opt //tests/bench -- --benchmark_filter=stack_tensor
//
// All repetitions of all benchmarks are interleaved at random, and medians are compared: the
// machine's slow phases hit everything alike. Exit status: 0, whatever the table says; 1 where
// something fails.

#include <benchmark/benchmark.h>
#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tests/bench/operations.h"
#include "tests/bench/situations.h"
#include "tests/bench/table.h"

namespace {

enum { BATCH = 1000 };

//===-- A second thread ---------------------------------------------------===//

// Engines have threads, and glibc makes shared pointers and locks cheaper where there is only one.
class idle_thread {
 public:
  idle_thread() = default;
  idle_thread(const idle_thread&) = delete;
  idle_thread& operator=(const idle_thread&) = delete;
  ~idle_thread() {
    {
      const std::lock_guard<std::mutex> lock{mutex_};
      done_ = true;
    }
    wake_.notify_one();
    thread_.join();
  }

 private:
  void wait() {
    std::unique_lock<std::mutex> lock{mutex_};
    wake_.wait(lock, [this] { return done_; });
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  bool done_ = false;
  std::thread thread_{[this] { wait(); }};
};

//===-- What is measured --------------------------------------------------===//

void measure(benchmark::State& state, void (*run)(long)) {
  run(BATCH);  // makes what the thread works with
  while (state.KeepRunningBatch(BATCH)) {
    run(BATCH);
  }
}

void register_set(const std::string& prefix, const bench::operation_set& set) {
  if (set.size == 0) std::cout << "bench: " << prefix << " is not on this machine: skipped\n";
  for (size_t i = 0; i < set.size; i++) {
    void (*run)(long) = set.operations[i].run;
    benchmark::RegisterBenchmark((prefix + "/" + set.operations[i].name).c_str(),
                                 [=](benchmark::State& state) { measure(state, run); });
  }
}

// The operations as a program has them that is linked with libtmcore.so, which lies beside this
// one.
bench::operation_set shared_operations() {
  char path[4096];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
  if (length <= 0) return {"shared", nullptr, 0};
  const std::string program(path, static_cast<size_t>(length));
  const std::string library = program.substr(0, program.rfind('/') + 1) + "libtmcore_operations.so";
  void* const loaded = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  void* const function = loaded ? dlsym(loaded, "bench_tmcore") : nullptr;
  if (!function) {
    std::cout << "bench: " << dlerror() << "\n";
    return {"shared", nullptr, 0};
  }
  return reinterpret_cast<bench::operation_set (*)()>(function)();
}

void register_all() {
  for (const bench::operation_set& set :
       {bench_yardsticks(), bench_tmcore(), bench_cpp_pattern(), bench_glibc(), bench_mimalloc(),
        bench_jemalloc(), bench_pmr_monotonic(), bench_pmr_pool(), bench_talloc(), bench_torch()}) {
    register_set(set.name, set);
  }
  register_set("shared", shared_operations());
  bench::register_situations();
}

//===-- What is reported --------------------------------------------------===//

class collector : public benchmark::BenchmarkReporter {
 public:
  bool ReportContext(const Context& /*context*/) override { return true; }

  void ReportRuns(const std::vector<Run>& runs) override {
    for (const Run& run : runs) {
      if (run.run_type != Run::RT_Iteration || run.error_occurred) continue;
      const bool by_hand = run.run_name.time_type == "manual_time";
      std::string name = run.run_name.function_name;
      if (!run.run_name.threads.empty()) name += "/" + run.run_name.threads;
      // The time of the processor leaves out what other programs took of it.
      figures_.add(name, by_hand ? run.GetAdjustedRealTime() : run.GetAdjustedCPUTime());
    }
  }

  [[nodiscard]] const bench::samples& figures() const { return figures_; }

 private:
  bench::samples figures_;
};

// google-benchmark's JSON with a further member, "ratios".
class json_reporter : public benchmark::JSONReporter {
 public:
  explicit json_reporter(const collector& collected) : collected_{collected} {}

  void Finalize() override {
    GetOutputStream() << "\n  ],\n  \"ratios\": ";
    bench::print_json(collected_.figures(), GetOutputStream());
    GetOutputStream() << "\n}\n";
  }

 private:
  const collector& collected_;
};

//===-- The process -------------------------------------------------------===//

// Libraries that are loaded late find room for their thread-locals only if the loader was told
// before the program began; so it begins again.
void make_room_for_thread_locals(char** argv) {
  const char* const name = "GLIBC_TUNABLES";
  const char* const room = "glibc.rtld.optional_static_tls=16384";
  const char* const given = std::getenv(name);
  if (given && std::strstr(given, room)) return;
  const std::string tunables = given ? std::string(given) + ":" + room : room;
  if (setenv(name, tunables.c_str(), 1) == 0) (void)execv("/proc/self/exe", argv);
}

//===-- The command line --------------------------------------------------===//

// `bazel run` starts the program elsewhere, and says where the caller is.
std::string callers_path(const std::string& path) {
  const char* const folder = std::getenv("BUILD_WORKING_DIRECTORY");
  return folder && path.compare(0, 1, "/") != 0 ? std::string(folder) + "/" + path : path;
}

// Defaults first, so that what the caller says wins; --json FILE becomes google-benchmark's.
std::vector<std::string> arguments_of(int argc, char** argv) {
  std::vector<std::string> result = {argv[0], "--benchmark_enable_random_interleaving=true",
                                     "--benchmark_repetitions=9", "--benchmark_min_time=0.01"};
  for (int i = 1; i < argc; i++) {
    const std::string argument = argv[i];
    if (argument == "--json" && i + 1 < argc) {
      result.push_back("--benchmark_out=" + callers_path(argv[++i]));
    } else if (argument.compare(0, 7, "--json=") == 0) {
      result.push_back("--benchmark_out=" + callers_path(argument.substr(7)));
    } else {
      result.push_back(argument);
    }
  }
  return result;
}

bool is_given(const std::vector<std::string>& arguments, const char* option) {
  return std::any_of(arguments.begin(), arguments.end(), [=](const std::string& argument) {
    return argument.compare(0, std::strlen(option), option) == 0;
  });
}

}  // namespace

int main(int argc, char** argv) {
  make_room_for_thread_locals(argv);
  std::vector<std::string> arguments = arguments_of(argc, argv);
  const bool writes_json = is_given(arguments, "--benchmark_out=");
  std::vector<char*> pointers;
  pointers.reserve(arguments.size());
  for (std::string& argument : arguments) {
    pointers.push_back(argument.data());
  }
  int count = static_cast<int>(pointers.size());
  const idle_thread second;
  benchmark::Initialize(&count, pointers.data());
  if (benchmark::ReportUnrecognizedArguments(count, pointers.data())) return 1;
#ifndef __OPTIMIZE__
  std::cout << "bench: this program is not optimized: its figures say nothing without -c opt\n";
#endif
  register_all();
  collector collected;
  json_reporter json{collected};
  if (benchmark::RunSpecifiedBenchmarks(&collected, writes_json ? &json : nullptr) == 0) return 1;
  const int missing = bench::print_table(collected.figures(), std::cout);
  std::cout
      << "\nns: median of the repetitions, time of the processor. ratio: to the yardstick, to "
         "the linked-in\nlibrary, or to the first of its kind; /peer: to the peer's time. "
      << missing << " miss their target.\n";
  return 0;
}
