// The operations of an engine through tmcore's C API, as a user's optimized program has them: the
// headers' inline functions are inlined, the library is called.

#include <tm/tm.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "tests/bench/operations.h"

#define NOINLINE __attribute__((noinline))

namespace {

using bench::keep;
using bench::opaque;
using bench::PIECES;

[[noreturn]] void fail() {
  (void)std::fprintf(stderr, "bench: %s\n", tm_last_error()->message);
  std::abort();
}

tm_tensor checked(tm_tensor tensor) {
  if (!tm_ok(&tensor)) fail();
  return tensor;
}

// What a thread works with; each has its own.
class world {
 public:
  world() {
    if (!arena_ || tm_stack_reserve(arena_, 1 << 20) != TM_OK) fail();
    TM_USE_ALLOCATOR(tm_host_allocator());
    whole_ = checked(tm_empty(TM_SHAPE(bench::ROWS, 8, 16), TM_F16, TM_CPU));
    rank4_ = checked(tm_empty(TM_SHAPE(4, 4, 8, 16), TM_F16, TM_CPU));
    outer1_ = checked(tm_empty(TM_SHAPE(1, bench::ROWS, bench::COLUMNS), TM_F16, TM_CPU));
  }
  world(const world&) = delete;
  world& operator=(const world&) = delete;
  ~world() {
    tm_release(&whole_);
    tm_release(&rank4_);
    tm_release(&outer1_);
    tm_allocator_release(arena_);
  }

  [[nodiscard]] tm_allocator* arena() const { return arena_; }
  [[nodiscard]] const tm_tensor* whole() const { return &whole_; }  // of rank 3
  [[nodiscard]] const tm_tensor* rank4() const { return &rank4_; }
  [[nodiscard]] const tm_tensor* outer1() const { return &outer1_; }  // its outermost size is 1

 private:
  tm_allocator* arena_ = tm_stack_allocator_create(tm_host_allocator(), nullptr, nullptr);
  tm_tensor whole_ = tm_null();
  tm_tensor rank4_ = tm_null();
  tm_tensor outer1_ = tm_null();
};

world& mine() {
  static thread_local world value;
  return value;
}

//===-- Scopes ------------------------------------------------------------===//

void scope(long count) {
  tm_allocator* const arena = mine().arena();
  for (long i = 0; i < count; i++) {
    TM_WITH_ALLOCATOR(arena) keep(nullptr);
  }
}

void two_scopes(long count) {
  tm_allocator* const arena = mine().arena();
  tm_allocator* const host = tm_host_allocator();
  for (long i = 0; i < count; i++) {
    TM_WITH_ALLOCATOR(arena) TM_WITH_ALLOCATOR(host) keep(nullptr);
  }
}

void two_guards(long count) {
  tm_allocator* const arena = mine().arena();
  tm_allocator* const host = tm_host_allocator();
  for (long i = 0; i < count; i++) {
    TM_USE_ALLOCATOR(arena);
    TM_USE_ALLOCATOR(host);
    keep(nullptr);
  }
}

void lookup(long count) {
  for (long i = 0; i < count; i++) {
    keep(tm_current_allocator(TM_CPU));
  }
}

void lookup_on(long count) {
  const tm_device device = tm_device_make(TM_DEVICE, opaque(int32_t{0}));
  for (long i = 0; i < count; i++) {
    keep(tm_current_allocator_on(device));
  }
}

void named_scope(long count) {
  for (long i = 0; i < count; i++) {
    TM_WITH_SCOPE("layer") keep(nullptr);
  }
}

NOINLINE void trace_texts_below(int depth, long count) {
  TM_SCOPE("attention");
  if (depth < bench::TRACE_DEPTH) {
    trace_texts_below(depth + 1, count);
    return;
  }
  for (long i = 0; i < count; i++) {
    char text[1024];
    tm_trace_text(text, sizeof text);
    keep(text);
  }
}

void trace_text(long count) { trace_texts_below(1, count); }

//===-- Tensors -----------------------------------------------------------===//

void tensors_of(tm_allocator* allocator, long count) {
  const int64_t rows = opaque(int64_t{bench::ROWS});
  const int64_t columns = opaque(int64_t{bench::COLUMNS});
  TM_USE_ALLOCATOR(allocator);
  for (long i = 0; i < count; i++) {
    tm_auto_tensor tensor = tm_empty(TM_SHAPE(rows, columns), TM_F16, TM_CPU);
    keep(&tensor);
  }
}

void stack_tensor(long count) { tensors_of(mine().arena(), count); }

void host_tensor(long count) { tensors_of(tm_host_allocator(), count); }

// As code that uses them has them: variables, which go at the end of their block. Tensors that are
// assigned to an array cost a copy each, which stalls on the stores just made.
void layer(long count) {
  tm_allocator* const arena = mine().arena();
  const int64_t rows = opaque(int64_t{bench::ROWS});
  const int64_t columns = opaque(int64_t{bench::COLUMNS});
  for (long i = 0; i < count; i += bench::TENSORS) {
    TM_WITH_ALLOCATOR(arena) {
      tm_auto_tensor a = tm_empty(TM_SHAPE(rows, columns), TM_F16, TM_CPU);
      tm_auto_tensor b = tm_empty(TM_SHAPE(rows, columns), TM_F16, TM_CPU);
      tm_auto_tensor c = tm_empty(TM_SHAPE(rows, columns), TM_F16, TM_CPU);
      tm_auto_tensor d = tm_empty(TM_SHAPE(rows, columns), TM_F16, TM_CPU);
      tm_auto_tensor e = tm_empty(TM_SHAPE(rows, columns), TM_F16, TM_CPU);
      tm_auto_tensor f = tm_empty(TM_SHAPE(rows, columns), TM_F16, TM_CPU);
      tm_auto_tensor g = tm_empty(TM_SHAPE(rows, columns), TM_F16, TM_CPU);
      tm_auto_tensor h = tm_empty(TM_SHAPE(rows, columns), TM_F16, TM_CPU);
      tm_auto_tensor k = tm_empty(TM_SHAPE(rows, columns), TM_F16, TM_CPU);
      tm_auto_tensor l = tm_empty(TM_SHAPE(rows, columns), TM_F16, TM_CPU);
      keep(&a), keep(&b), keep(&c), keep(&d), keep(&e);
      keep(&f), keep(&g), keep(&h), keep(&k), keep(&l);
    }
  }
}

NOINLINE tm_status make_checked(int64_t rows, int64_t columns) {
  TM_TRY_TENSOR(tensor, tm_empty(TM_SHAPE(rows, columns), TM_F16, TM_CPU));
  keep(&tensor);
  return TM_OK;
}

void checked_tensor(long count) {
  TM_USE_ALLOCATOR(mine().arena());
  for (long i = 0; i < count; i++) {
    (void)!make_checked(bench::ROWS, bench::COLUMNS);
  }
}

void share(long count) {
  const tm_tensor* const whole = mine().rank4();
  for (long i = 0; i < count; i++) {
    tm_auto_tensor shared = tm_share(whole);
    keep(&shared);
  }
}

void slice(long count) {
  const tm_tensor* const whole = mine().whole();
  const int64_t first = opaque(int64_t{4});
  for (long i = 0; i < count; i++) {
    tm_auto_tensor part = tm_slice(whole, TM_INDEX(first, 0, 0), TM_INDEX(8, -1, -1));
    keep(&part);
  }
}

void slice_outer(long count) {
  const tm_tensor* const whole = mine().whole();
  const int64_t first = opaque(int64_t{4});
  for (long i = 0; i < count; i++) {
    tm_auto_tensor part = tm_slice_outer(whole, first, 8);
    keep(&part);
  }
}

void view(long count) {
  const tm_tensor* const whole = mine().whole();
  const int64_t columns = opaque(int64_t{bench::COLUMNS});
  for (long i = 0; i < count; i++) {
    tm_auto_tensor flat = tm_view(whole, TM_SHAPE(-1, columns));
    keep(&flat);
  }
}

void transpose(long count) {
  const tm_tensor* const whole = mine().whole();
  for (long i = 0; i < count; i++) {
    tm_auto_tensor turned = tm_transpose(whole, 0, 1);
    keep(&turned);
  }
}

void squeeze(long count) {
  const tm_tensor* const outer1 = mine().outer1();
  for (long i = 0; i < count; i++) {
    tm_auto_tensor squeezed = tm_squeeze(outer1, 0);
    keep(&squeezed);
  }
}

//===-- Layouts -----------------------------------------------------------===//

// The layout's address is opaque: as a library's code, gcc would look the thread up for it each
// time.
void layout_view(long count) {
  const tm_layout* const whole = opaque(&mine().whole()->layout);
  const int64_t columns = opaque(int64_t{bench::COLUMNS});
  for (long i = 0; i < count; i++) {
    tm_layout flat;
    if (tm_layout_view(whole, TM_SHAPE(-1, columns), &flat) != TM_OK) fail();
    keep(&flat);
  }
}

void layout_slice(long count) {
  const tm_layout* const whole = opaque(&mine().whole()->layout);
  const int64_t first = opaque(int64_t{4});
  for (long i = 0; i < count; i++) {
    tm_layout part;
    int64_t offset;
    if (tm_layout_slice(whole, TM_INDEX(first, 0, 0), TM_INDEX(8, -1, -1), &part, &offset) !=
        TM_OK) {
      fail();
    }
    keep(&part);
    keep(&offset);
  }
}

void layout_coalesce(long count) {
  const tm_layout* const whole = opaque(&mine().whole()->layout);
  for (long i = 0; i < count; i++) {
    tm_layout merged;
    if (tm_layout_coalesce(whole, &merged) != TM_OK) fail();
    keep(&merged);
  }
}

void layout_permute(long count) {
  const tm_layout* const whole = opaque(&mine().whole()->layout);
  const int64_t first = opaque(int64_t{1});
  for (long i = 0; i < count; i++) {
    tm_layout turned;
    if (tm_layout_permute(whole, TM_INDEX(first, 0, 2), &turned) != TM_OK) fail();
    keep(&turned);
  }
}

//===-- Batches of copies -------------------------------------------------===//

// Rows of two buffers in device memory. What is recorded is dropped again every PIECES rows: so the
// references that a batch holds are paid for, taken and given back.
class copies {
 public:
  copies() {
    tm_allocator* const device = tm_cuda_allocator(0);
    if (!device || !batch_) fail();
    const int64_t elements = int64_t{PIECES} * 2 * bench::COLUMNS;
    all_source_ = tm_buffer_empty_from(device, elements, TM_F16);
    all_destination_ = tm_buffer_empty_from(device, elements, TM_F16);
    for (int64_t i = 0; i < PIECES; i++) {
      for (int64_t joined = 0; joined < 2; joined++) {
        const int64_t first = i * (2 - joined) * bench::COLUMNS;
        source_[joined][i] = tm_buffer_slice(&all_source_, first, bench::COLUMNS);
        destination_[joined][i] = tm_buffer_slice(&all_destination_, first, bench::COLUMNS);
        if (!tm_buffer_ok(&destination_[joined][i])) fail();
      }
    }
  }
  copies(const copies&) = delete;
  copies& operator=(const copies&) = delete;
  ~copies() {
    tm_batch_copy_release(batch_);
    for (int i = 0; i < 2 * PIECES; i++) {
      tm_buffer_release(&source_[i / PIECES][i % PIECES]);
      tm_buffer_release(&destination_[i / PIECES][i % PIECES]);
    }
    tm_buffer_release(&all_source_);
    tm_buffer_release(&all_destination_);
  }

  [[nodiscard]] tm_batch_copy* batch() const { return batch_; }

  // `joined`: rows that lie side by side, else with a gap behind each.
  void record(int joined, long count) {
    for (long i = 0; i < count; i++) {
      if (tm_batch_copy_add_buffer(batch_, &source_[joined][i], &destination_[joined][i]) !=
          TM_OK) {
        fail();
      }
    }
  }

  // The same rows with a gap, by pointers.
  void record_pointers(long count) {
    const auto* from = static_cast<const int16_t*>(all_source_.data);
    auto* to = static_cast<int16_t*>(all_destination_.data);
    for (long i = 0; i < count; i++) {
      if (!TM_BATCH_COPY_ADD_N(batch_, from, bench::COLUMNS, to)) fail();
      from += ptrdiff_t{2} * bench::COLUMNS;
      to += ptrdiff_t{2} * bench::COLUMNS;
    }
  }

 private:
  tm_batch_copy* batch_ = tm_batch_copy_create();
  tm_buffer all_source_;
  tm_buffer all_destination_;
  tm_buffer source_[2][PIECES];
  tm_buffer destination_[2][PIECES];
};

copies& my_copies() {
  static thread_local const std::unique_ptr<copies> value = std::make_unique<copies>();
  return *value;
}

void batch_contiguous(long count) {
  copies& work = my_copies();
  for (long done = 0; done < count; done += PIECES) {
    TM_WITH_COPY_GROUP(work.batch()) work.record(1, std::min(count - done, long{PIECES}));
    tm_batch_copy_clear(work.batch());
  }
}

void batch_scattered(long count) {
  copies& work = my_copies();
  for (long done = 0; done < count; done += PIECES) {
    work.record(0, std::min(count - done, long{PIECES}));
    tm_batch_copy_clear(work.batch());
  }
}

void batch_pointers(long count) {
  copies& work = my_copies();
  for (long done = 0; done < count; done += PIECES) {
    work.record_pointers(std::min(count - done, long{PIECES}));
    tm_batch_copy_clear(work.batch());
  }
}

//===-- Maps --------------------------------------------------------------===//

class named_tensors {
 public:
  named_tensors() {
    if (!map_) fail();
    for (const char* key : bench::keys) {
      tm_tensor tensor = checked(tm_empty_from(tm_host_allocator(), TM_SHAPE(4), TM_F16));
      if (tm_tensor_map_produce(map_, key, &tensor) != TM_OK) fail();
    }
  }
  named_tensors(const named_tensors&) = delete;
  named_tensors& operator=(const named_tensors&) = delete;
  ~named_tensors() { tm_tensor_map_release(map_); }

  [[nodiscard]] tm_tensor_map* map() const { return map_; }

 private:
  tm_tensor_map* map_ = tm_tensor_map_create();
};

named_tensors& my_tensors() {
  static thread_local named_tensors value;
  return value;
}

void map_find(long count) {
  const tm_tensor_map* const map = my_tensors().map();
  for (long i = 0; i < count; i++) {
    keep(tm_tensor_map_at(map, opaque(bench::keys[i % bench::key_count])));
  }
}

void map_produce_consume(long count) {
  tm_tensor_map* const map = my_tensors().map();
  const char* const key = opaque(bench::keys[2]);
  tm_tensor tensor = checked(tm_tensor_map_consume(map, key));
  for (long i = 0; i < count; i++) {
    if (tm_tensor_map_produce(map, key, &tensor) != TM_OK) fail();
    tensor = tm_tensor_map_consume(map, key);
    keep(&tensor);
  }
  if (tm_tensor_map_produce(map, key, &tensor) != TM_OK) fail();
}

//===-- All of them -------------------------------------------------------===//

// What fails leaves a record: an operation that did nothing is not measured as a fast one.
template <void (*Run)(long)>
void watched(long count) {
  Run(count);
  if (tm_last_status() != TM_OK) fail();
}

constexpr bench::operation operations[] = {
    {"scope", watched<scope>},
    {"two_scopes", watched<two_scopes>},
    {"two_guards", watched<two_guards>},
    {"lookup", watched<lookup>},
    {"lookup_on", watched<lookup_on>},
    {"named_scope", watched<named_scope>},
    {"trace_text", watched<trace_text>},
    {"stack_tensor", watched<stack_tensor>},
    {"layer", watched<layer>},
    {"host_tensor", watched<host_tensor>},
    {"checked_tensor", watched<checked_tensor>},
    {"share", watched<share>},
    {"slice", watched<slice>},
    {"slice_outer", watched<slice_outer>},
    {"view", watched<view>},
    {"transpose", watched<transpose>},
    {"squeeze", watched<squeeze>},
    {"layout_view", watched<layout_view>},
    {"layout_slice", watched<layout_slice>},
    {"layout_coalesce", watched<layout_coalesce>},
    {"layout_permute", watched<layout_permute>},
    {"batch_contiguous", watched<batch_contiguous>},
    {"batch_scattered", watched<batch_scattered>},
    {"batch_pointers", watched<batch_pointers>},
    {"map_find", watched<map_find>},
    {"map_produce_consume", watched<map_produce_consume>},
};

}  // namespace

BENCH_OPERATION_SET(bench_tmcore) { return bench::make_set("tmcore", operations); }
