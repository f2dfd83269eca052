// The operations in the C++ pattern that tmcore stands in for.

#include "tests/bench/cpp_pattern.h"

#include <utility>
#include <vector>

#include "tests/bench/operations.h"

#define NOINLINE __attribute__((noinline))

namespace {

using bench::keep;
using bench::opaque;
using cpp_pattern::device_type;
using cpp_pattern::dtype;

struct world {
  cpp_pattern::allocator host = cpp_pattern::make_host_allocator();
  cpp_pattern::allocator arena = cpp_pattern::make_stack_allocator(host, 1 << 20);
  cpp_pattern::tensor whole{cpp_pattern::layout{{bench::ROWS, 8, 16}}, dtype::f16,
                            device_type::host};
  cpp_pattern::tensor rank4{cpp_pattern::layout{{4, 4, 8, 16}}, dtype::f16, device_type::host};
  cpp_pattern::tensor outer1{cpp_pattern::layout{{1, bench::ROWS, bench::COLUMNS}}, dtype::f16,
                             device_type::host};
};

const world& mine() {
  static thread_local const world value;
  return value;
}

//===-- Scopes ------------------------------------------------------------===//

void scope(long count) {
  const cpp_pattern::allocator& arena = mine().arena;
  for (long i = 0; i < count; i++) {
    const cpp_pattern::context_guard guard{arena};
    keep(nullptr);
  }
}

void two_scopes(long count) {
  const world& w = mine();
  for (long i = 0; i < count; i++) {
    const cpp_pattern::context_guard outer{w.arena};
    const cpp_pattern::context_guard inner{w.host};
    keep(nullptr);
  }
}

void two_guards(long count) {
  const world& w = mine();
  for (long i = 0; i < count; i++) {
    const cpp_pattern::context_guard guard{w.arena, w.host};
    keep(nullptr);
  }
}

void lookup(long count) {
  for (long i = 0; i < count; i++) {
    keep(&cpp_pattern::current(device_type::host));
  }
}

void named_scope(long count) {
  for (long i = 0; i < count; i++) {
    const cpp_pattern::named_scope named{"layer", __FILE__, __LINE__};
    keep(nullptr);
  }
}

NOINLINE void trace_texts_below(int depth, long count) {
  const cpp_pattern::named_scope named{"attention", __FILE__, __LINE__};
  if (depth < bench::TRACE_DEPTH) {
    trace_texts_below(depth + 1, count);
    return;
  }
  for (long i = 0; i < count; i++) {
    const std::string text = cpp_pattern::trace_text();
    keep(&text);
  }
}

void trace_text(long count) { trace_texts_below(1, count); }

//===-- Tensors -----------------------------------------------------------===//

void tensors_of(const cpp_pattern::allocator& allocator, long count) {
  const int64_t rows = opaque(int64_t{bench::ROWS});
  const int64_t columns = opaque(int64_t{bench::COLUMNS});
  const cpp_pattern::context_guard guard{allocator};
  for (long i = 0; i < count; i++) {
    const cpp_pattern::tensor tensor{cpp_pattern::layout{{rows, columns}}, dtype::f16,
                                     device_type::host};
    keep(&tensor);
  }
}

void stack_tensor(long count) { tensors_of(mine().arena, count); }

void host_tensor(long count) { tensors_of(mine().host, count); }

void layer(long count) {
  const cpp_pattern::allocator& arena = mine().arena;
  const int64_t rows = opaque(int64_t{bench::ROWS});
  const int64_t columns = opaque(int64_t{bench::COLUMNS});
  for (long i = 0; i < count; i += bench::TENSORS) {
    const cpp_pattern::context_guard guard{arena};
    cpp_pattern::tensor tensors[bench::TENSORS];
    for (cpp_pattern::tensor& tensor : tensors) {
      tensor = {cpp_pattern::layout{{rows, columns}}, dtype::f16, device_type::host};
    }
    keep(tensors);
  }
}

void share(long count) {
  const cpp_pattern::tensor& whole = mine().rank4;
  for (long i = 0; i < count; i++) {
    const cpp_pattern::tensor shared = whole;
    keep(&shared);
  }
}

void slice(long count) {
  const cpp_pattern::tensor& whole = mine().whole;
  const int64_t first = opaque(int64_t{4});
  for (long i = 0; i < count; i++) {
    const cpp_pattern::tensor part = whole.slice({first, 0, 0}, {8, -1, -1});
    keep(&part);
  }
}

void view(long count) {
  const cpp_pattern::tensor& whole = mine().whole;
  const int64_t columns = opaque(int64_t{bench::COLUMNS});
  for (long i = 0; i < count; i++) {
    const cpp_pattern::tensor flat = whole.view({-1, columns});
    keep(&flat);
  }
}

void transpose(long count) {
  const cpp_pattern::tensor& whole = mine().whole;
  for (long i = 0; i < count; i++) {
    const cpp_pattern::tensor turned = whole.transpose(0, 1);
    keep(&turned);
  }
}

void squeeze(long count) {
  const cpp_pattern::tensor& outer1 = mine().outer1;
  for (long i = 0; i < count; i++) {
    const cpp_pattern::tensor squeezed = outer1.squeeze(0);
    keep(&squeezed);
  }
}

//===-- Layouts -----------------------------------------------------------===//

void layout_view(long count) {
  const cpp_pattern::layout& whole = mine().whole.get_layout();
  const int64_t columns = opaque(int64_t{bench::COLUMNS});
  for (long i = 0; i < count; i++) {
    const cpp_pattern::layout flat = whole.view({-1, columns});
    keep(&flat);
  }
}

void layout_slice(long count) {
  const cpp_pattern::layout& whole = mine().whole.get_layout();
  const int64_t first = opaque(int64_t{4});
  for (long i = 0; i < count; i++) {
    const auto part = whole.slice({first, 0, 0}, {8, -1, -1});
    keep(&part);
  }
}

void layout_coalesce(long count) {
  const cpp_pattern::layout& whole = mine().whole.get_layout();
  for (long i = 0; i < count; i++) {
    const cpp_pattern::layout merged = whole.coalesce();
    keep(&merged);
  }
}

void layout_permute(long count) {
  const cpp_pattern::layout& whole = mine().whole.get_layout();
  const int first = opaque(1);
  for (long i = 0; i < count; i++) {
    const cpp_pattern::layout turned = whole.permute({first, 0, 2});
    keep(&turned);
  }
}

//===-- Batches of copies and maps ----------------------------------------===//

struct copies {
  cpp_pattern::batch_copy batch;
  std::vector<char> source = std::vector<char>(size_t{2} * bench::PIECES * bench::ROW_BYTES);
  std::vector<char> destination = std::vector<char>(source.size());
};

// Rows that are `step` rows apart.
void record(bool in_group, long step, long count) {
  static thread_local copies work;
  for (long done = 0; done < count; done += bench::PIECES) {
    work.batch.set_group(in_group);
    for (long i = 0; i < bench::PIECES && done + i < count; i++) {
      const long first = i * step * bench::ROW_BYTES;
      work.batch.add(work.source.data() + first, bench::ROW_BYTES, work.destination.data() + first);
    }
    work.batch.set_group(false);
    work.batch.clear();
  }
}

void batch_contiguous(long count) { record(true, 1, count); }

void batch_pointers(long count) { record(false, 2, count); }

cpp_pattern::tensor_map make_map() {
  cpp_pattern::tensor_map map;
  for (const char* key : bench::keys) {
    map.produce(key, {cpp_pattern::layout{{4}}, dtype::f16, device_type::host});
  }
  return map;
}

cpp_pattern::tensor_map& my_map() {
  static thread_local cpp_pattern::tensor_map map = make_map();
  return map;
}

void map_find(long count) {
  const cpp_pattern::tensor_map& map = my_map();
  for (long i = 0; i < count; i++) {
    keep(&map.at(opaque(bench::keys[i % bench::key_count])));
  }
}

void map_produce_consume(long count) {
  cpp_pattern::tensor_map& map = my_map();
  const char* const key = opaque(bench::keys[2]);
  cpp_pattern::tensor tensor = map.consume(key);
  for (long i = 0; i < count; i++) {
    map.produce(key, std::move(tensor));
    tensor = map.consume(key);
    keep(&tensor);
  }
  map.produce(key, std::move(tensor));
}

constexpr bench::operation operations[] = {
    {"scope", scope},
    {"two_scopes", two_scopes},
    {"two_guards", two_guards},
    {"lookup", lookup},
    {"named_scope", named_scope},
    {"trace_text", trace_text},
    {"stack_tensor", stack_tensor},
    {"layer", layer},
    {"host_tensor", host_tensor},
    {"share", share},
    {"slice", slice},
    {"view", view},
    {"transpose", transpose},
    {"squeeze", squeeze},
    {"layout_view", layout_view},
    {"layout_slice", layout_slice},
    {"layout_coalesce", layout_coalesce},
    {"layout_permute", layout_permute},
    {"batch_contiguous", batch_contiguous},
    {"batch_scattered", batch_pointers},
    {"batch_pointers", batch_pointers},
    {"map_find", map_find},
    {"map_produce_consume", map_produce_consume},
};

}  // namespace

BENCH_OPERATION_SET(bench_cpp_pattern) { return bench::make_set("C++", operations); }
