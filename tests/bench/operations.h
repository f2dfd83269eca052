// What is measured: sets of operations, each set one way to do them. Operations of the same name in
// different sets do the same work, so that their times and instructions can be compared.
#ifndef TESTS_BENCH_OPERATIONS_H_
#define TESTS_BENCH_OPERATIONS_H_

#include <cstddef>
#include <cstdint>

namespace bench {

struct operation {
  const char* name;
  void (*run)(long count);  // does it `count` times; any thread may call it
};

struct operation_set {
  const char* name;
  const operation* operations;
  size_t size;  // 0: what it needs is not on this machine
};

// The work. A tensor has ROWS x COLUMNS elements of 2 bytes, 4 KiB; a layer has TENSORS of them.
enum { ROWS = 16, COLUMNS = 128, BYTES = ROWS * COLUMNS * 2, TENSORS = 10, TRACE_DEPTH = 8 };

// A batch has PIECES copies of a row before it is emptied; a map has the tensors of `keys`.
enum { PIECES = 1024, ROW_BYTES = COLUMNS * 2 };
constexpr const char* keys[] = {
    "input_ids",    "positions",     "hidden_states",   "residual",
    "q_cu_seqlens", "k_cu_seqlens",  "block_ptrs",      "cu_block_counts",
    "rope_base",    "finished",      "logits",          "last_token",
    "sampled_ids",  "sampled_probs", "sequence_length", "output_ids",
};
constexpr size_t key_count = sizeof keys / sizeof *keys;

// Keeps the compiler from seeing through what was just done: `pointer` escapes, and all that lies
// in memory may have changed.
inline void keep(const void* pointer) { __asm__ volatile("" : : "r"(pointer) : "memory"); }

// A value that the compiler does not know.
template <typename T>
inline T opaque(T value) {
  __asm__ volatile("" : "+r"(value));
  return value;
}

template <size_t N>
constexpr operation_set make_set(const char* name, const operation (&operations)[N]) {
  return {name, operations, N};
}

}  // namespace bench

// The set as an array of operations; C linkage and visible, because one is looked up in a library.
#define BENCH_OPERATION_SET(function) \
  extern "C" __attribute__((visibility("default"))) bench::operation_set function()

BENCH_OPERATION_SET(bench_yardsticks);
BENCH_OPERATION_SET(bench_tmcore);       // through the C API
BENCH_OPERATION_SET(bench_tmcore_hpp);   // through tmcore.hpp
BENCH_OPERATION_SET(bench_cpp_pattern);  // in TurboMind's way
BENCH_OPERATION_SET(bench_glibc);
BENCH_OPERATION_SET(bench_mimalloc);
BENCH_OPERATION_SET(bench_jemalloc);
BENCH_OPERATION_SET(bench_pmr_monotonic);
BENCH_OPERATION_SET(bench_pmr_pool);
BENCH_OPERATION_SET(bench_torch);
BENCH_OPERATION_SET(bench_talloc);

#endif  // TESTS_BENCH_OPERATIONS_H_
