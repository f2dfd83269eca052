// The operations of hot_paths.c as C++ writes them, for comparing instructions (instructions.sh):
//
//   cpp_paths OPERATION COUNT

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <tm/tmcore.hpp>

#define NOINLINE __attribute__((noinline))

namespace {

// Keeps the compiler from seeing through what was just done.
inline void clobber(const void* p) { __asm__ volatile("" : : "r"(p) : "memory"); }

tmcore::allocator arena;
tmcore::allocator_ref other;
tmcore::tensor whole;

void nothing() { clobber(nullptr); }

NOINLINE void scope() {
  const tmcore::context_guard guard{arena};
  clobber(nullptr);
}

NOINLINE void two_scopes() {
  const tmcore::context_guard outer{arena};
  const tmcore::context_guard inner{tmcore::host_allocator()};
  clobber(nullptr);
}

NOINLINE void guard_of_two() {
  const tmcore::context_guard guard{arena, other};
  clobber(nullptr);
}

NOINLINE void named_scope() {
  TM_SCOPE("layer");
  clobber(nullptr);
}

NOINLINE void lookup() { clobber(tmcore::current_allocator(TM_CPU).get()); }

NOINLINE void tensor_of(int64_t rows, int64_t columns) {
  const tmcore::tensor tensor({rows, columns}, TM_F16, TM_CPU, std::nothrow);
  clobber(&tensor);
}

void stack_tensor() { tensor_of(16, 128); }

NOINLINE void checked_of(int64_t rows, int64_t columns) {
  const tmcore::tensor tensor({rows, columns}, TM_F16, TM_CPU);
  clobber(&tensor);
}

void checked_tensor() { checked_of(16, 128); }

NOINLINE void ten_of(int64_t rows, int64_t columns) {
  tmcore::tensor tensors[10];
  for (tmcore::tensor& tensor : tensors) {
    tensor.~tensor();  // each is made in place, as in C
    new (&tensor) tmcore::tensor({rows, columns}, TM_F16, TM_CPU, std::nothrow);
  }
  clobber(tensors);
}

void ten_stack_tensors() { ten_of(16, 128); }

NOINLINE void sliced(const tmcore::tensor& tensor) {
  const tmcore::tensor part = tensor.slice(4, 8, std::nothrow);
  clobber(&part);
}

void slice() { sliced(whole); }

struct operation {
  const char* name;
  void (*run)();
};

const operation operations[] = {
    {"nothing", nothing},
    {"scope", scope},
    {"two_scopes", two_scopes},
    {"guard_of_two", guard_of_two},
    {"named_scope", named_scope},
    {"lookup", lookup},
    {"stack_tensor", stack_tensor},
    {"checked_tensor", checked_tensor},
    {"ten_stack_tensors", ten_stack_tensors},
    {"slice", slice},
};

bool run(const char* name, long count) {
  for (const operation& candidate : operations) {
    if (std::strcmp(candidate.name, name) == 0) {
      for (long i = 0; i < count; i++) {
        candidate.run();
      }
      return true;
    }
  }
  return false;
}

}  // namespace

int main(int argc, char** argv) {  // NOLINT(bugprone-exception-escape): it ends with its message
  const long count = argc == 3 ? std::strtol(argv[2], nullptr, 10) : 0;
  arena = tmcore::stack_allocator(tmcore::host_allocator());
  arena.stack_reserve(1 << 20);
  other = tmcore::host_allocator();
  const tmcore::context_guard guard{arena};
  ten_stack_tensors();  // the arena learns what it needs
  whole = tmcore::tensor({16, 128}, TM_F16, TM_CPU);
  if (count <= 0 || !run(argv[1], count)) {
    std::fprintf(stderr, "usage: cpp_paths OPERATION COUNT\n");
    return 2;
  }
  return 0;
}
