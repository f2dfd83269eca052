// What the machine takes for the least that an operation could be. Out of line like a library's
// functions, where that is what it is compared with.

#include <atomic>
#include <cstdlib>

#include "tests/bench/operations.h"

// As if in a library: the compiler knows nothing of the function where it is called.
#if __has_attribute(noipa)
#define OUT_OF_LINE __attribute__((noipa))
#else
#define OUT_OF_LINE __attribute__((noinline))
#endif

namespace {

using bench::keep;
using bench::opaque;

//===-- A thread-local stack ----------------------------------------------===//

struct pushed_values {
  void* slot[64];
  int depth;
  void* top;
};

thread_local pushed_values pushed;

OUT_OF_LINE void push(void* value) {
  pushed.slot[pushed.depth++] = value;
  pushed.top = value;
  keep(&pushed);
}

OUT_OF_LINE void pop() {
  pushed.depth--;
  pushed.top = pushed.slot[pushed.depth];
  keep(&pushed);
}

void push_pop(long count) {
  for (long i = 0; i < count; i++) {
    push(&pushed);
    pop();
  }
}

void thread_local_read(long count) {
  for (long i = 0; i < count; i++) {
    keep(pushed.top);
  }
}

//===-- Bumping -----------------------------------------------------------===//

alignas(256) char region[1 << 20];
thread_local size_t bumped;

OUT_OF_LINE void* bump(size_t bytes) {
  bytes = (bytes + 255) & ~size_t{255};
  if (bytes > sizeof region - bumped) return nullptr;
  void* const block = region + bumped;
  bumped += bytes;
  return block;
}

OUT_OF_LINE void rewind_to(const void* block) {
  bumped = static_cast<size_t>(static_cast<const char*>(block) - region);
}

void bump_rewind(long count) {
  const size_t bytes = opaque(size_t{bench::BYTES});
  for (long i = 0; i < count; i++) {
    const void* const block = bump(bytes);
    keep(block);
    rewind_to(block);
  }
}

//===-- A tensor that is nothing but its fields ---------------------------===//

struct ideal {
  void* data;
  int64_t shape[8];
  int64_t stride[8];
  int rank;
};

OUT_OF_LINE bool make(ideal* tensor, const int64_t* shape, int rank, size_t bits) {
  int64_t size = 1;
  tensor->rank = rank;
  for (int i = rank - 1; i >= 0; i--) {
    tensor->shape[i] = shape[i];
    tensor->stride[i] = size;
    if (__builtin_mul_overflow(size, shape[i], &size)) return false;
  }
  size_t bytes;
  if (__builtin_mul_overflow(static_cast<size_t>(size), bits / 8, &bytes)) return false;
  bytes = (bytes + 255) & ~size_t{255};
  if (bytes > sizeof region - bumped) return false;
  tensor->data = region + bumped;
  bumped += bytes;
  return true;
}

OUT_OF_LINE void release(const ideal* tensor) {
  bumped = static_cast<size_t>(static_cast<char*>(tensor->data) - region);
}

void ideal_tensor(long count) {
  const int64_t rows = opaque(int64_t{bench::ROWS});
  const int64_t columns = opaque(int64_t{bench::COLUMNS});
  for (long i = 0; i < count; i++) {
    const int64_t shape[] = {rows, columns};
    ideal tensor;
    if (!make(&tensor, shape, 2, 16)) abort();
    keep(&tensor);
    release(&tensor);
  }
}

void ideal_layer(long count) {
  const int64_t rows = opaque(int64_t{bench::ROWS});
  const int64_t columns = opaque(int64_t{bench::COLUMNS});
  for (long i = 0; i < count; i += bench::TENSORS) {
    const int64_t shape[] = {rows, columns};
    ideal tensors[bench::TENSORS];
    for (ideal& tensor : tensors) {
      if (!make(&tensor, shape, 2, 16)) abort();
    }
    keep(tensors);
    for (int k = bench::TENSORS - 1; k >= 0; k--) {
      release(&tensors[k]);
    }
  }
}

//===-- The rest ----------------------------------------------------------===//

void nothing(long count) {
  for (long i = 0; i < count; i++) {
    keep(nullptr);
  }
}

// Each thread has its own: nobody contends.
void atomic_pair(long count) {
  static thread_local std::atomic<int64_t> counter;
  for (long i = 0; i < count; i++) {
    counter.fetch_add(1, std::memory_order_relaxed);
    keep(&counter);
    counter.fetch_sub(1, std::memory_order_acq_rel);
  }
}

constexpr bench::operation operations[] = {
    {"nothing", nothing},
    {"push_pop", push_pop},
    {"thread_local_read", thread_local_read},
    {"bump_rewind", bump_rewind},
    {"ideal_tensor", ideal_tensor},
    {"ideal_layer", ideal_layer},
    {"atomic_pair", atomic_pair},
};

}  // namespace

BENCH_OPERATION_SET(bench_yardsticks) { return bench::make_set("yardstick", operations); }
