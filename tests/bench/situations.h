// Operations at depth, among many live tensors and on many threads; and the cached allocator under
// a random workload. Each is a benchmark of its own, since it needs its surroundings first.
#ifndef TESTS_BENCH_SITUATIONS_H_
#define TESTS_BENCH_SITUATIONS_H_

#include <cstddef>

namespace bench {

// Registers "scale/..." and "random/...".
void register_situations();

// How deep scopes are, how many tensors live, how many threads run, how many blocks are allocated.
constexpr int depths[] = {1, 4, 16, 64, 256, 1024, 4096};
constexpr int live_counts[] = {10, 100, 1000, 10000, 100000, 1000000};
constexpr int thread_counts[] = {1, 2, 4, 8, 16, 32, 64};
constexpr int workload_sizes[] = {1000, 10000, 100000};

}  // namespace bench

#endif  // TESTS_BENCH_SITUATIONS_H_
