// Does each operation COUNT times, for callgrind to count its instructions (instructions.py):
//
//   count_instructions COUNT
//
// Prints what it was compiled with, and then for each operation the number of the function that ran
// it, measured<NUMBER>: "NUMBER SET OPERATION". What sets with " (thread)" did, they did on a
// second thread.

#include <array>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/bench/operations.h"
#include "tests/support/sanitizers.h"

#define NOINLINE __attribute__((noinline))

namespace {

#if defined(__clang__)
#define COMPILER "clang " STRING(__clang_major__) "." STRING(__clang_minor__)
#else
#define COMPILER "gcc " __VERSION__
#endif
#define STRING(number) STRING2(number)
#define STRING2(number) #number

#if defined(__x86_64__)
#define MACHINE "x86-64"
#elif defined(__aarch64__)
#define MACHINE "aarch64"
#else
#define MACHINE "another machine"
#endif

enum { MOST = 96 };  // operations

using measured_function = void (*)(void (*run)(long), long count);

// One function for each operation, told apart by its name. The number in the code keeps the
// compiler from making them one.
template <size_t Number>
NOINLINE void measured(void (*run)(long), long count) {
  __asm__ volatile("" : : "i"(Number));
  run(count);
  __asm__ volatile("" : : "i"(Number));
}

template <size_t... Numbers>
constexpr std::array<measured_function, MOST> make_all(std::index_sequence<Numbers...> /*all*/) {
  return {measured<Numbers>...};
}

constexpr std::array<measured_function, MOST> all = make_all(std::make_index_sequence<MOST>{});

class counter {
 public:
  explicit counter(long count) : count_{count} {}

  void count_set(const bench::operation_set& set, const char* suffix) {
    for (size_t i = 0; i < set.size; i++) {
      const bench::operation& operation = set.operations[i];
      if (next_ == MOST) std::abort();
      operation.run(100);  // makes what it works with
      all[next_](operation.run, count_);
      (void)std::printf("%zu\t%s%s\t%s\n", next_++, set.name, suffix, operation.name);
    }
  }

 private:
  long count_;
  size_t next_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  const long count = argc == 2 ? std::strtol(argv[1], nullptr, 10) : 0;
  if (count <= 0) {
    (void)std::fprintf(stderr, "usage: count_instructions COUNT\n");
    return 2;
  }
  (void)std::printf("%s, %s%s\n", COMPILER, MACHINE,
                    UNDER_ASAN || UNDER_TSAN ? ", with a sanitizer" : "");
  counter counted{count};
  counted.count_set(bench_yardsticks(), "");
  counted.count_set(bench_tmcore(), "");
  counted.count_set(bench_tmcore_hpp(), "");
  std::thread([&] { counted.count_set(bench_tmcore(), " (thread)"); }).join();
  return 0;
}
