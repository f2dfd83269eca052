// libtorch: at::empty and the views of a tensor.

#include "tests/bench/operations.h"

#if __has_include(<ATen/ATen.h>)

#include <ATen/ATen.h>

namespace {

using bench::keep;
using bench::opaque;

// As an engine's code is, and with neither autograd's bookkeeping nor its dispatch.
struct world {
  at::Tensor whole = at::empty({bench::ROWS, 8, 16}, at::kHalf);
  at::Tensor rank4 = at::empty({4, 4, 8, 16}, at::kHalf);
  at::Tensor outer1 = at::empty({1, bench::ROWS, bench::COLUMNS}, at::kHalf);
};

const world& mine() {
  static thread_local const world value;
  return value;
}

void tensor(long count) {
  const c10::InferenceMode inference;
  const int64_t rows = opaque(int64_t{bench::ROWS});
  const int64_t columns = opaque(int64_t{bench::COLUMNS});
  for (long i = 0; i < count; i++) {
    const at::Tensor made = at::empty({rows, columns}, at::kHalf);
    keep(&made);
  }
}

void layer(long count) {
  const c10::InferenceMode inference;
  const int64_t rows = opaque(int64_t{bench::ROWS});
  const int64_t columns = opaque(int64_t{bench::COLUMNS});
  for (long i = 0; i < count; i += bench::TENSORS) {
    at::Tensor tensors[bench::TENSORS];
    for (at::Tensor& made : tensors) {
      made = at::empty({rows, columns}, at::kHalf);
    }
    keep(tensors);
  }
}

void share(long count) {
  const at::Tensor& whole = mine().rank4;
  for (long i = 0; i < count; i++) {
    const at::Tensor shared = whole;
    keep(&shared);
  }
}

void slice(long count) {
  const c10::InferenceMode inference;
  const at::Tensor& whole = mine().whole;
  const int64_t first = opaque(int64_t{4});
  for (long i = 0; i < count; i++) {
    const at::Tensor part = whole.slice(0, first, first + 8);
    keep(&part);
  }
}

void view(long count) {
  const c10::InferenceMode inference;
  const at::Tensor& whole = mine().whole;
  const int64_t columns = opaque(int64_t{bench::COLUMNS});
  for (long i = 0; i < count; i++) {
    const at::Tensor flat = whole.view({-1, columns});
    keep(&flat);
  }
}

void transpose(long count) {
  const c10::InferenceMode inference;
  const at::Tensor& whole = mine().whole;
  for (long i = 0; i < count; i++) {
    const at::Tensor turned = whole.transpose(0, 1);
    keep(&turned);
  }
}

void squeeze(long count) {
  const c10::InferenceMode inference;
  const at::Tensor& outer1 = mine().outer1;
  for (long i = 0; i < count; i++) {
    const at::Tensor squeezed = outer1.squeeze(0);
    keep(&squeezed);
  }
}

constexpr bench::operation operations[] = {
    {"stack_tensor", tensor}, {"layer", layer}, {"host_tensor", tensor},  {"share", share},
    {"slice", slice},         {"view", view},   {"transpose", transpose}, {"squeeze", squeeze},
};

}  // namespace

BENCH_OPERATION_SET(bench_torch) { return bench::make_set("torch", operations); }

#else

BENCH_OPERATION_SET(bench_torch) { return {"torch", nullptr, 0}; }

#endif
