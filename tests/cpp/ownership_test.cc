// Who owns what: every reference taken is given back, once, whatever is copied, moved or assigned.

#include <cstdio>
#include <cstring>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "tests/cpp/support.hpp"

static_assert(sizeof(tmcore::allocator) == sizeof(void*), "an owner is a pointer");
static_assert(sizeof(tmcore::allocator_ref) == sizeof(void*), "a reference is a pointer");
static_assert(sizeof(tmcore::buffer) == sizeof(tm_buffer), "nothing beside the C handle");
static_assert(sizeof(tmcore::tensor) == sizeof(tm_tensor), "nothing beside the C handle");
static_assert(sizeof(tmcore::tensor_<float>) == sizeof(tm_tensor), "nothing beside the C handle");
static_assert(std::is_trivially_copyable<tmcore::stream_ref>::value, "passed by value");
static_assert(std::is_nothrow_move_constructible<tmcore::tensor>::value, "vectors move it");
static_assert(std::is_nothrow_move_constructible<tmcore::buffer>::value, "vectors move it");
static_assert(std::is_nothrow_move_constructible<tmcore::allocator>::value, "vectors move it");
static_assert(!std::is_constructible<tmcore::context, tm_context*>::value, "adopt, share");
static_assert(std::is_nothrow_move_assignable<tmcore::context>::value, "it moves");
// An owner neither becomes a raw pointer unasked, nor is made of one without saying how.
static_assert(!std::is_convertible<tmcore::allocator, tm_allocator*>::value, "get()");
static_assert(!std::is_constructible<tmcore::allocator, tm_allocator*>::value, "adopt, share");
static_assert(!std::is_constructible<tmcore::tensor, tm_tensor>::value, "adopt, share");
static_assert(std::is_convertible<tmcore::allocator, tmcore::allocator_ref>::value, "arguments");

// What is left of a handle that was moved is one of the things tested here.
// NOLINTBEGIN(bugprone-use-after-move, clang-analyzer-cplusplus.Move)

namespace {

using tmcore::buffer;
using tmcore::tensor;

int32_t references(const tensor& t) { return t.get()->storage->references; }
int32_t references(const buffer& b) { return b.get()->storage->references; }

//===-- Allocators --------------------------------------------------------===//

void counted_handles_share_and_move() {
  counting_upstream upstream;
  const int32_t before = upstream.figures().base.references;
  auto a = tmcore::allocator::share(upstream.get());
  TM_CHECK_EQ(upstream.figures().base.references, before + 1);
  tmcore::allocator b = a;
  TM_CHECK_EQ(upstream.figures().base.references, before + 2);
  tmcore::allocator c = std::move(a);
  TM_CHECK_EQ(upstream.figures().base.references, before + 2);
  TM_CHECK(!a);
  TM_CHECK(b == c && b.get() == upstream.get());
  tmcore::allocator& itself = b;
  b = itself;
  b = std::move(itself);
  TM_CHECK_EQ(b.get(), upstream.get());
  TM_CHECK_EQ(upstream.figures().base.references, before + 2);
  std::swap(a, b);
  TM_CHECK(a && !b);
  c = b;
  TM_CHECK_EQ(upstream.figures().base.references, before + 1);
  tm_allocator* raw = a.release();
  TM_CHECK(!a);
  TM_CHECK_EQ(upstream.figures().base.references, before + 1);
  const auto back = tmcore::allocator::adopt(raw);
  TM_CHECK_EQ(upstream.figures().base.references, before + 1);
}

void a_stack_keeps_its_upstream() {
  counting_upstream upstream;
  tmcore::allocator outer;
  {
    // The upstream is a temporary: the stack over it holds the only reference.
    outer = tmcore::stack_allocator(tmcore::stack_allocator(upstream.get()));
  }
  void* block = outer.allocate(1000);
  TM_CHECK_NE(block, nullptr);
  TM_CHECK_STREQ(outer.name(), "stack");
  TM_CHECK_EQ(outer.stats().live_blocks, 1u);
  TM_CHECK_GE(outer.stack_high_water_mark(), 1000u);
  TM_CHECK_EQ(tm_stack_upstream(outer.stack_upstream()), upstream.get());
  outer.deallocate(block, 1000);
  outer.stack_reserve(4096);
  outer.stack_pin();
  outer.stack_unpin();
  outer.stack_reset();
  outer.stack_hand_over();
  outer.stack_reserve(0);
  outer.trim();
  TM_CHECK_EQ(upstream.figures().live_bytes, 0u);
}

//===-- Buffers and tensors -----------------------------------------------===//

template <class Handle>
void copies_share_and_moves_do_not(Handle x) {
  TM_CHECK_EQ(references(x), 1);
  Handle y = x;
  TM_CHECK_EQ(references(x), 2);
  TM_CHECK_EQ(y.data(), x.data());
  Handle z = std::move(y);
  TM_CHECK_EQ(references(x), 2);
  TM_CHECK(!y && y.data() == nullptr && y.size() == 0);
  Handle& itself = x;
  x = itself;
  TM_CHECK_EQ(references(x), 2);
  x = std::move(itself);
  TM_CHECK(x);
  TM_CHECK_EQ(references(x), 2);
  std::swap(x, y);
  TM_CHECK(!x && y);
  x = y;
  y = Handle();
  z = x;
  TM_CHECK_EQ(references(x), 2);
  std::vector<Handle> many(3, x);
  many.insert(many.end(), 3, x);  // moves those that are there
  TM_CHECK_EQ(references(x), 8);
  many.erase(many.begin(), many.begin() + 4);
  TM_CHECK_EQ(references(x), 4);
}

void buffers_share() {
  counting_upstream upstream;
  copies_share_and_moves_do_not(buffer(10, TM_F32, upstream.get()));
}

void tensors_share() {
  counting_upstream upstream;
  copies_share_and_moves_do_not(tensor({2, 3}, TM_F32, upstream.get()));
  copies_share_and_moves_do_not(tmcore::tensor_<float>({2, 3}, upstream.get()));
}

void borrowing_counts_nothing() {
  counting_upstream upstream;
  tensor x({4, 4}, TM_I32, upstream.get());
  {
    const tensor lent = x.borrow();
    TM_CHECK_EQ(references(x), 1);
    tensor kept = lent;  // a reference of its own
    TM_CHECK_EQ(references(x), 2);
    kept = kept.view({16});
    TM_CHECK_EQ(references(lent.view({16})), 3);
    TM_CHECK_EQ(references(x), 2);
  }
  TM_CHECK_EQ(references(x), 1);
  const buffer b(4, TM_I32, upstream.get());
  const buffer lent = b.borrow();
  TM_CHECK_EQ(references(b), 1);
  TM_CHECK_EQ(references(lent.slice(1)), 2);
  TM_CHECK_EQ(references(b), 1);
}

void chains_pass_their_reference_on() {
  counting_upstream upstream;
  const tensor x({4, 6}, TM_F32, upstream.get());
  const tensor y = x.slice({0, 2}, {-1, 4}).t().unsqueeze(0).squeeze(0).permute({1, 0});
  TM_CHECK_EQ(references(x), 2);
  TM_CHECK(y.shape() == tmcore::dims(4, 4));
  TM_CHECK_EQ(static_cast<float*>(y.data()) - static_cast<float*>(x.data()), 2);
  tensor z = tensor({8}, TM_F32, upstream.get()).view({2, -1}).transpose(0, -1).slice(1, 2);
  TM_CHECK_EQ(references(z), 1);
  tensor w = std::move(z).slice(0, 1);
  TM_CHECK(!z);
  TM_CHECK_EQ(references(w), 1);
  const buffer b = buffer(16, TM_U8, upstream.get()).slice(8).as(TM_I32).slice(1, 1);
  TM_CHECK_EQ(references(b), 1);
  TM_CHECK_EQ(b.size(), 1);
}

template <class View>
void expect_consumes(View view) {
  counting_upstream upstream;
  tensor x({1, 4}, TM_F32, upstream.get());
  const tensor y = view(std::move(x));
  TM_CHECK(!x);
  TM_CHECK_EQ(references(y), 1);
  TM_CHECK(!view(tensor()));
}

void views_of_what_goes_consume_it() {
  expect_consumes([](tensor&& x) { return std::move(x).view({4}, std::nothrow); });
  expect_consumes([](tensor&& x) { return std::move(x).slice({0, 1}, {1, 2}, std::nothrow); });
  expect_consumes([](tensor&& x) { return std::move(x).slice(0, 1, std::nothrow); });
  expect_consumes([](tensor&& x) { return std::move(x).permute({1, 0}, std::nothrow); });
  expect_consumes([](tensor&& x) { return std::move(x).transpose(0, 1, std::nothrow); });
  expect_consumes([](tensor&& x) { return std::move(x).t(std::nothrow); });
  expect_consumes([](tensor&& x) { return std::move(x).squeeze(0, std::nothrow); });
  expect_consumes([](tensor&& x) { return std::move(x).unsqueeze(0, std::nothrow); });
  buffer b(16, TM_U8, TM_CPU);
  const buffer slice = std::move(b).slice(8);
  TM_CHECK(!b);
  buffer whole = slice;
  const buffer words = std::move(whole).as(TM_I32);
  TM_CHECK(!whole);
  TM_CHECK_EQ(references(words), 2);
}

void a_failed_view_leaks_nothing() {
  counting_upstream upstream;
  const tensor x({4, 6}, TM_F32, upstream.get());
  TM_CHECK(!x.view({5}, std::nothrow));
  TM_CHECK(!tensor(x).view({5}, std::nothrow));
  TM_CHECK(!tensor({3}, TM_F32, upstream.get()).slice(2, 2, std::nothrow));
  TM_CHECK(!buffer(16, TM_U8, upstream.get()).slice(3).as(TM_I32, std::nothrow));
  TM_CHECK_EQ(references(x), 1);
}

void memory_outlives_its_allocator() {
  counting_upstream upstream;
  tensor x;
  {
    const tmcore::allocator stack = tmcore::stack_allocator(upstream.get());
    const tmcore::context_guard guard{stack};
    x = tensor({100}, TM_I64, TM_CPU);
  }
  x.data<int64_t>()[99] = 7;
  TM_CHECK_EQ(x.slice(99).data<int64_t>()[0], 7);
}

//===-- C handles in and out ----------------------------------------------===//

void c_and_cpp_mix() {
  counting_upstream upstream;
  tm_tensor raw = tm_empty_from(upstream.get(), TM_SHAPE(2, 3), TM_F16);
  {
    const tensor shared = tensor::share(&raw);
    TM_CHECK_EQ(references(shared), 2);
  }
  tensor x = tensor::adopt(tm_move(&raw));
  TM_CHECK(!tm_ok(&raw));
  TM_CHECK_EQ(references(x), 1);
  TM_CHECK_EQ(tm_dim(x.get(), 1), 3);
  raw = x.release();
  TM_CHECK(!x && tm_ok(&raw));
  tm_release(&raw);

  tm_buffer c_buffer = tm_buffer_empty_from(upstream.get(), 5, TM_I8);
  TM_CHECK_EQ(references(buffer::share(&c_buffer)), 2);
  buffer b = buffer::adopt(tm_buffer_move(&c_buffer));
  c_buffer = b.release();
  TM_CHECK(!b);
  tm_buffer_release(&c_buffer);
  TM_CHECK(!tensor::adopt(tm_null()) && !buffer::adopt(tm_buffer_null()));
}

void tensors_of_buffers_and_back() {
  counting_upstream upstream;
  const buffer b(12, TM_F32, upstream.get());
  tm_layout layout;
  tmcore::check(tm_layout_make(TM_SHAPE(3, 4), &layout));
  const tensor x(b, layout);
  TM_CHECK_EQ(references(b), 2);
  TM_CHECK_EQ(x.stride(0), 4);
  TM_CHECK_EQ(x.slice(1).memory().size(), 8);
  const tensor like = tmcore::empty_like(x, TM_U8);
  TM_CHECK_EQ(like.byte_size(), 12u);
}

void count_call(void* data, size_t size, void* user) {
  TM_CHECK_EQ(size, 64u);
  ::operator delete(data);
  ++*static_cast<int*>(user);
}

void adopted_memory_is_deleted_once() {
  int calls = 0;
  {
    const tensor x = tensor::adopt_memory(::operator new(64), 64, {4, 4}, TM_F32, tmcore::cpu,
                                          count_call, &calls);
    const tensor y = x.t();
    const buffer b =
        buffer::adopt_memory(::operator new(64), 64, 16, TM_F32, tmcore::cpu, count_call, &calls);
    TM_CHECK_EQ(calls, 0);
  }
  TM_CHECK_EQ(calls, 2);
  void* memory = ::operator new(64);
  TM_CHECK(!tensor::adopt_memory(memory, 64, {17}, TM_F32, tmcore::cpu, count_call, &calls,
                                 std::nothrow));
  TM_CHECK_EQ(calls, 2);  // it stays the caller's
  ::operator delete(memory);
}

void contexts_move_and_share() {
  const int64_t live = tm_bookkeeping_live();
  {
    tmcore::context a = tmcore::context::create();
    TM_CHECK(a);
    tmcore::context b = std::move(a);
    TM_CHECK(!a && b);
    tmcore::context& itself = b;
    b = std::move(itself);
    TM_CHECK(b);
    a = std::move(b);
    std::swap(a, b);
    b = tmcore::context::adopt(b.release());
    TM_CHECK(b);
    a = b;
    TM_CHECK_EQ(a.get(), b.get());
    b = tmcore::context::share(a.get());
  }
  TM_CHECK_EQ(tm_bookkeeping_live(), live);
}

//===-- Streams and events ------------------------------------------------===//

void streams_and_events() {
  int32_t devices;
  if (tm_device_count(&devices) != TM_OK) {
    std::printf("SKIPPED: streams_and_events: %s\n", tm_last_error()->message);
    return;
  }
  tmcore::stream stream = tmcore::stream::create(0);
  const tmcore::stream& other = stream;
  TM_CHECK(stream == other);
  TM_CHECK(tmcore::stream::create(0) != stream);
  TM_CHECK_NE(stream.handle(), nullptr);
  TM_CHECK_EQ(stream.device().type, TM_DEVICE);
  const tmcore::event start = tmcore::event::create(0, true);
  const tmcore::event end = tmcore::event::create(0, true);
  start.record(stream);
  end.record(stream);
  stream.wait(end);
  stream.wait(tmcore::stream::create(0));
  end.sync();
  stream.sync();
  TM_CHECK(stream.query() && end.query());
  TM_CHECK(!stream.is_capturing());
  TM_CHECK_GE(tmcore::elapsed(start, end), 0.f);
  int priority;
  TM_CHECK_OK(stream.priority(&priority, std::nothrow));
  TM_CHECK_EQ(stream.priority(), priority);
  int calls = 0;
  const auto count = [](void* user) { ++*static_cast<int*>(user); };
  stream.call_host(count, &calls);
  TM_CHECK_OK(stream.call_host(count, &calls, std::nothrow));
  stream.sync();
  TM_CHECK_EQ(calls, 2);
  std::ostringstream printed;
  printed << tmcore::stream() << ' ' << tmcore::event() << ' ' << start;
  TM_CHECK_EQ(printed.str(), "stream(null) event(null) " + start.text());
  TM_CHECK(start.text().find(", timing)") != std::string::npos);
  const tmcore::stream foreign = tmcore::stream::adopt(stream.handle(), 0);
  TM_CHECK(foreign == stream);
  TM_CHECK(foreign.text().find("adopted") != std::string::npos);
  foreign.disown();
  TM_CHECK_EQ(foreign.sync(std::nothrow), TM_ERR_INVALID);

  const tmcore::allocator arena =
      tmcore::stack_allocator(tmcore::cuda_pool_allocator(stream), stream);
  const tmcore::context_guard guard{stream, arena};
  const tensor x({64, 64}, TM_I16, TM_DEVICE);
  const tensor back({64, 64}, TM_I16, TM_CPU);
  tmcore::fill_bytes(x, 1);
  x.record_stream(stream);
  tmcore::copy(x, back);
  stream.sync();
  TM_CHECK_EQ(back.data<int16_t>()[4095], 0x0101);
  TM_CHECK(tmcore::to_string(x) == "i16 device:0 (64,64):(64,1)");
}

void a_cache_keeps_its_upstream_and_what_is_freed() {
  counting_upstream upstream;
  {
    const tmcore::allocator cached =
        tmcore::cached_allocator(upstream.get(), nullptr, {1 << 20, 2 << 20});
    TM_CHECK_STREQ(cached.name(), "cached");
    for (int i = 0; i < 10; i++) {
      const tensor x({64, 64}, TM_F32, cached);
      TM_CHECK(tm_is_cached(cached.get()) && cached.stats().live_blocks == 1);
    }
    TM_CHECK_EQ(upstream.figures().allocs, 1u);
    TM_CHECK(!tensor({1 << 20}, TM_F32, cached, std::nothrow));
    TM_CHECK_EQ(tm_last_status(), TM_ERR_NO_MEMORY);
  }
  TM_CHECK_EQ(upstream.figures().live_bytes, 0u);
  TM_CHECK(!tmcore::cached_allocator(nullptr, nullptr, {}, std::nothrow));
}

void planning_needs_no_memory() {
  const tmcore::allocator dry = tmcore::dry_allocator(tmcore::cuda(5));
  const tmcore::allocator arena = tmcore::stack_allocator(dry);
  {
    const tensor x({1 << 20, 1 << 16}, TM_F16, arena);
    TM_CHECK(x.is_dry());
  }
  TM_CHECK_EQ(arena.stats().peak_live_bytes, uint64_t{1} << 37);
  TM_CHECK(!tmcore::dry_allocator(tmcore::cuda(-1), {}, std::nothrow));
}

}  // namespace

// NOLINTEND(bugprone-use-after-move, clang-analyzer-cplusplus.Move)

int main() {
  RUN_TEST(counted_handles_share_and_move);
  RUN_TEST(a_stack_keeps_its_upstream);
  RUN_TEST(buffers_share);
  RUN_TEST(tensors_share);
  RUN_TEST(borrowing_counts_nothing);
  RUN_TEST(chains_pass_their_reference_on);
  RUN_TEST(views_of_what_goes_consume_it);
  RUN_TEST(a_failed_view_leaks_nothing);
  RUN_TEST(memory_outlives_its_allocator);
  RUN_TEST(c_and_cpp_mix);
  RUN_TEST(tensors_of_buffers_and_back);
  RUN_TEST(adopted_memory_is_deleted_once);
  RUN_TEST(contexts_move_and_share);
  RUN_TEST(a_cache_keeps_its_upstream_and_what_is_freed);
  RUN_TEST(planning_needs_no_memory);
  RUN_TEST(streams_and_events);
  return 0;
}
