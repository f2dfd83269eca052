// The operations of tmcore_operations.cc as C++ writes them, through <tm/tmcore.hpp>.

#include <tm/tmcore.hpp>

#include "tests/bench/operations.h"

#define NOINLINE __attribute__((noinline))

namespace {

using bench::keep;
using bench::opaque;

class world {
 public:
  world() { arena_.stack_reserve(1 << 20); }

  [[nodiscard]] tmcore::allocator_ref arena() const { return arena_; }
  [[nodiscard]] const tmcore::tensor& whole() const { return whole_; }

 private:
  static tmcore::tensor make_whole() {
    const tmcore::context_guard guard{tmcore::host_allocator()};
    return tmcore::tensor({bench::ROWS, 8, 16}, TM_F16, TM_CPU);
  }

  tmcore::allocator arena_ = tmcore::stack_allocator(tmcore::host_allocator());
  tmcore::tensor whole_ = make_whole();
};

const world& mine() {
  static thread_local const world value;
  return value;
}

void scope(long count) {
  const tmcore::allocator_ref arena = mine().arena();
  for (long i = 0; i < count; i++) {
    const tmcore::context_guard guard{arena};
    keep(nullptr);
  }
}

void two_scopes(long count) {
  const tmcore::allocator_ref arena = mine().arena();
  const tmcore::allocator_ref host = tmcore::host_allocator();
  for (long i = 0; i < count; i++) {
    const tmcore::context_guard outer{arena};
    const tmcore::context_guard inner{host};
    keep(nullptr);
  }
}

void two_guards(long count) {
  const tmcore::allocator_ref arena = mine().arena();
  const tmcore::allocator_ref host = tmcore::host_allocator();
  for (long i = 0; i < count; i++) {
    const tmcore::context_guard guard{arena, host};
    keep(nullptr);
  }
}

void named_scope(long count) {
  for (long i = 0; i < count; i++) {
    TM_SCOPE("layer");
    keep(nullptr);
  }
}

void lookup(long count) {
  for (long i = 0; i < count; i++) {
    keep(tmcore::current_allocator(TM_CPU).get());
  }
}

void stack_tensor(long count) {
  const int64_t rows = opaque(int64_t{bench::ROWS});
  const int64_t columns = opaque(int64_t{bench::COLUMNS});
  const tmcore::context_guard guard{mine().arena()};
  for (long i = 0; i < count; i++) {
    const tmcore::tensor tensor({rows, columns}, TM_F16, TM_CPU, std::nothrow);
    keep(&tensor);
  }
}

NOINLINE void make_checked(int64_t rows, int64_t columns) {
  const tmcore::tensor tensor({rows, columns}, TM_F16, TM_CPU);
  keep(&tensor);
}

void checked_tensor(long count) {
  const tmcore::context_guard guard{mine().arena()};
  for (long i = 0; i < count; i++) {
    make_checked(bench::ROWS, bench::COLUMNS);
  }
}

void layer(long count) {
  const int64_t rows = opaque(int64_t{bench::ROWS});
  const int64_t columns = opaque(int64_t{bench::COLUMNS});
  const tmcore::allocator_ref arena = mine().arena();
  for (long i = 0; i < count; i += bench::TENSORS) {
    const tmcore::context_guard guard{arena};
    const tmcore::tensor a{{rows, columns}, TM_F16, TM_CPU, std::nothrow};
    const tmcore::tensor b{{rows, columns}, TM_F16, TM_CPU, std::nothrow};
    const tmcore::tensor c{{rows, columns}, TM_F16, TM_CPU, std::nothrow};
    const tmcore::tensor d{{rows, columns}, TM_F16, TM_CPU, std::nothrow};
    const tmcore::tensor e{{rows, columns}, TM_F16, TM_CPU, std::nothrow};
    const tmcore::tensor f{{rows, columns}, TM_F16, TM_CPU, std::nothrow};
    const tmcore::tensor g{{rows, columns}, TM_F16, TM_CPU, std::nothrow};
    const tmcore::tensor h{{rows, columns}, TM_F16, TM_CPU, std::nothrow};
    const tmcore::tensor k{{rows, columns}, TM_F16, TM_CPU, std::nothrow};
    const tmcore::tensor l{{rows, columns}, TM_F16, TM_CPU, std::nothrow};
    keep(&a), keep(&b), keep(&c), keep(&d), keep(&e);
    keep(&f), keep(&g), keep(&h), keep(&k), keep(&l);
  }
}

void slice_outer(long count) {
  const tmcore::tensor& whole = mine().whole();
  const int64_t first = opaque(int64_t{4});
  for (long i = 0; i < count; i++) {
    const tmcore::tensor part = whole.slice(first, 8, std::nothrow);
    keep(&part);
  }
}

constexpr bench::operation operations[] = {
    {"scope", scope},
    {"two_scopes", two_scopes},
    {"two_guards", two_guards},
    {"named_scope", named_scope},
    {"lookup", lookup},
    {"stack_tensor", stack_tensor},
    {"checked_tensor", checked_tensor},
    {"layer", layer},
    {"slice_outer", slice_outer},
};

}  // namespace

BENCH_OPERATION_SET(bench_tmcore_hpp) { return bench::make_set("tmcore.hpp", operations); }
