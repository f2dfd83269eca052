// Failures: as exceptions that carry their record, and with std::nothrow as statuses and null
// handles; with everything as it was before.

#include <cstring>
#include <new>
#include <string>
#include <type_traits>

#include "tests/cpp/support.hpp"

// std::exception once, so that it is caught as that.
static_assert(std::is_base_of<std::exception, tmcore::error>::value, "");
static_assert(std::is_base_of<tmcore::error, tmcore::out_of_memory>::value, "");
static_assert(!std::is_base_of<std::bad_alloc, tmcore::out_of_memory>::value, "ambiguous");
static_assert(std::is_nothrow_copy_constructible<tmcore::error>::value, "exceptions are copied");
static_assert(std::is_nothrow_copy_constructible<tmcore::out_of_memory>::value, "likewise");

namespace {

using tmcore::buffer;
using tmcore::tensor;

// The error that `function` throws.
template <class Function>
tmcore::error error_of(Function function) {
  try {
    function();
  } catch (const tmcore::error& e) {
    TM_CHECK_EQ(tm_last_status(), TM_OK);  // the exception has taken it
    return e;
  }
  TM_FATAL("nothing was thrown");
}

template <class Function>
void expect_throws(tm_status code, const char* text, Function function) {
  const tmcore::error e = error_of(function);
  TM_CHECK_EQ(e.code(), code);
  if (!std::strstr(e.what(), text)) {
    TM_FATAL("threw \"%s\", not \"%s\"", e.what(), text);
  }
}

//===-- What is thrown ----------------------------------------------------===//

void an_error_carries_its_record() {
  TM_SCOPE("layer");
  const tensor x({2, 3}, TM_F32, TM_CPU);
  const tmcore::error e = error_of([&] { (void)x.view({5}); });
  TM_CHECK_EQ(e.code(), TM_ERR_INVALID);
  TM_CHECK(std::strstr(e.what(), "(2,3)"));
  TM_CHECK(std::strstr(e.trace(), "layer"));
  TM_CHECK(std::strcmp(e.file(), "layout.c") == 0);
  TM_CHECK_GT(e.line(), 0);
  TM_CHECK_EQ(e.restore(), TM_ERR_INVALID);  // for a C caller
  TM_CHECK_STREQ(tm_last_error()->message, e.what());
  TM_CHECK_EQ(tm_last_error()->line, e.record().line);
}

void every_kind_is_caught_as_std_exception() {
  const tmcore::allocator stack =
      tmcore::stack_allocator(tmcore::host_allocator(), nullptr, {0, 1 << 20});
  int caught = 0;
  try {
    (void)tensor({-1}, TM_F32, TM_CPU);
  } catch (const std::exception& e) {
    caught += std::strlen(e.what()) > 0;
  }
  try {
    (void)tensor({2 << 20}, TM_U8, stack);
  } catch (const std::exception& e) {
    caught += std::strlen(e.what()) > 0;
  }
  try {
    (void)tensor({2 << 20}, TM_U8, stack);
  } catch (const tmcore::out_of_memory& e) {
    caught += e.code() == TM_ERR_NO_MEMORY;
  }
  TM_CHECK_EQ(caught, 3);
}

void statuses_are_thrown_by_check() {
  tmcore::check(TM_OK);
  expect_throws(TM_ERR_INVALID, "tm_stack_pin", [] { tmcore::check(tm_stack_pin(nullptr)); });
  // A function that did not raise: the code tells what there is to tell, not an older record.
  (void)TM_RAISE(TM_ERR_IO, "older");
  expect_throws(TM_ERR_BUSY, "TM_ERR_BUSY", [] { tmcore::check(TM_ERR_BUSY); });
}

//===-- Both forms of everything ------------------------------------------===//

void what_makes_a_handle() {
  const tensor x({2, 3}, TM_F32, TM_CPU);
  const buffer b(10, TM_U8, TM_CPU);
  expect_throws(TM_ERR_INVALID, "", [] { (void)tensor({-1}, TM_F32, TM_CPU); });
  expect_throws(TM_ERR_INVALID, "", [] { (void)buffer(-1, TM_F32, TM_CPU); });
  expect_throws(TM_ERR_OVERFLOW, "", [] { (void)buffer(int64_t{1} << 62, TM_F32, TM_CPU); });
  expect_throws(TM_ERR_UNAVAILABLE, "device", [] { (void)buffer(1, TM_F32, TM_DEVICE); });
  expect_throws(TM_ERR_UNAVAILABLE, "device 1", [] { (void)buffer(1, TM_U8, tmcore::cuda(1)); });
  expect_throws(TM_ERR_OUT_OF_RANGE, "", [&] { (void)b.slice(11); });
  expect_throws(TM_ERR_INVALID, "", [&] { (void)b.as(TM_F32); });
  expect_throws(TM_ERR_OUT_OF_RANGE, "", [&] { (void)x.slice({2, 0}, {1, 1}); });
  expect_throws(TM_ERR_OUT_OF_RANGE, "", [&] { (void)x.slice(1, 2); });
  expect_throws(TM_ERR_INVALID, "", [&] { (void)x.permute({0, 0}); });
  expect_throws(TM_ERR_OUT_OF_RANGE, "", [&] { (void)x.transpose(0, 2); });
  expect_throws(TM_ERR_INVALID, "", [&] { (void)x.view({1, 2, 3}).t(); });
  expect_throws(TM_ERR_INVALID, "", [&] { (void)x.squeeze(0); });
  expect_throws(TM_ERR_OUT_OF_RANGE, "", [&] { (void)x.unsqueeze(5); });
  expect_throws(TM_ERR_OUT_OF_RANGE, "", [&] { (void)x.shape(2); });
  expect_throws(TM_ERR_OUT_OF_RANGE, "", [&] { (void)x.stride(-3); });
  expect_throws(TM_ERR_INVALID, "", [&] { (void)x.access<int, 2>(); });
  expect_throws(TM_ERR_INVALID, "", [] { (void)tmcore::stack_allocator(nullptr); });
  expect_throws(TM_ERR_INVALID, "", [] { (void)tmcore::cuda_pool_allocator(nullptr); });
  expect_throws(TM_ERR_INVALID, "", [] { (void)tmcore::callback_allocator({}); });
  expect_throws(TM_ERR_UNAVAILABLE, "stream", [] { (void)tmcore::require_stream(); });
  expect_throws(TM_ERR_UNAVAILABLE, "", [] { (void)tmcore::require_allocator(TM_CPU_PINNED); });

  TM_CHECK(!tensor({-1}, TM_F32, TM_CPU, std::nothrow));
  TM_CHECK(!buffer(1, TM_F32, TM_DEVICE, std::nothrow));
  TM_CHECK(!b.slice(11, 1, std::nothrow) && !b.as(TM_F32, std::nothrow));
  TM_CHECK(!x.permute({0, 0}, std::nothrow) && !x.transpose(0, 2, std::nothrow));
  TM_CHECK(!x.squeeze(0, std::nothrow) && !x.unsqueeze(5, std::nothrow));
  TM_CHECK_EQ(x.shape(2, std::nothrow), -1);
  TM_CHECK((x.access<int, 2>(std::nothrow).data == nullptr));
  TM_CHECK(!tmcore::stack_allocator(nullptr, nullptr, {}, std::nothrow));
  TM_CHECK(!tmcore::require_stream(std::nothrow));
  TM_CHECK_EQ(tm_last_status(), TM_ERR_UNAVAILABLE);
}

void what_returns_a_status() {
  const tmcore::stream_ref no_stream;
  const tmcore::event_ref no_event;
  const tmcore::allocator_ref no_allocator;
  const tmcore::allocator_ref host = tmcore::host_allocator();
  const tensor x({2, 3}, TM_F32, TM_CPU);
  bool flag;
  size_t size;
  tm_allocator_stats stats;
  float milliseconds;
  expect_throws(TM_ERR_INVALID, "stream is null", [&] { no_stream.sync(); });
  expect_throws(TM_ERR_INVALID, "stream is null", [&] { no_stream.wait(no_event); });
  expect_throws(TM_ERR_INVALID, "", [&] { no_event.record(no_stream); });
  expect_throws(TM_ERR_INVALID, "", [&] { (void)no_event.query(); });
  expect_throws(TM_ERR_INVALID, "", [&] { (void)tmcore::elapsed(no_event, no_event); });
  expect_throws(TM_ERR_INVALID, "", [&] { host.stack_reset(); });
  expect_throws(TM_ERR_INVALID, "", [&] { (void)host.stack_high_water_mark(); });
  expect_throws(TM_ERR_INVALID, "", [&] { (void)no_allocator.allocate(1); });
  expect_throws(TM_ERR_INVALID, "", [&] { no_allocator.trim(); });
  expect_throws(TM_ERR_INVALID, "", [&] { (void)no_allocator.stats(); });
  expect_throws(TM_ERR_INVALID, "", [&] { tmcore::copy(x, x); });
  expect_throws(TM_ERR_INVALID, "", [&] { tmcore::copy(buffer(1, TM_U8, TM_CPU), buffer()); });
  expect_throws(TM_ERR_INVALID, "", [&] { tmcore::clear(tensor()); });
  expect_throws(TM_ERR_INVALID, "", [&] { x.record_stream(no_stream); });

  TM_CHECK_EQ(no_stream.sync(std::nothrow), TM_ERR_INVALID);
  TM_CHECK_EQ(no_stream.query(&flag, std::nothrow), TM_ERR_INVALID);
  TM_CHECK_EQ(no_stream.wait(no_stream, std::nothrow), TM_ERR_INVALID);
  TM_CHECK_EQ(no_event.record(no_stream, std::nothrow), TM_ERR_INVALID);
  TM_CHECK_EQ(no_event.sync(std::nothrow), TM_ERR_INVALID);
  TM_CHECK_EQ(tmcore::elapsed(no_event, no_event, &milliseconds, std::nothrow), TM_ERR_INVALID);
  TM_CHECK_EQ(host.stack_pin(std::nothrow), TM_ERR_INVALID);
  TM_CHECK_EQ(host.stack_unpin(std::nothrow), TM_ERR_INVALID);
  TM_CHECK_EQ(host.stack_reserve(1, std::nothrow), TM_ERR_INVALID);
  TM_CHECK_EQ(host.stack_hand_over(std::nothrow), TM_ERR_INVALID);
  TM_CHECK_EQ(host.stack_high_water_mark(&size, std::nothrow), TM_ERR_INVALID);
  TM_CHECK_EQ(no_allocator.stats(&stats, std::nothrow), TM_ERR_INVALID);
  TM_CHECK_EQ(no_allocator.trim(0, std::nothrow), TM_ERR_INVALID);
  TM_CHECK(no_allocator.allocate(1, {}, std::nothrow) == nullptr);
  TM_CHECK_EQ(tmcore::copy(x, x, std::nothrow), TM_ERR_INVALID);
  TM_CHECK_EQ(tmcore::fill_bytes(tensor(), 1, std::nothrow), TM_ERR_INVALID);
  TM_CHECK_EQ(x.record_stream(no_stream, std::nothrow), TM_ERR_INVALID);
}

//===-- Null --------------------------------------------------------------===//

void null_goes_through_a_chain() {
  const tensor x({2, 3}, TM_F32, TM_CPU);
  const tensor y =
      x.view({7}, std::nothrow).slice(0, 1, std::nothrow).transpose(0, 1, std::nothrow);
  TM_CHECK(!y);
  TM_CHECK(std::strstr(tm_last_error()->message, "(7)"));  // the first failure
  expect_throws(TM_ERR_INVALID, "(7)", [&] { (void)y.view({1}); });
}

void a_caught_failure_is_no_reason_of_later_ones() {
  const tmcore::allocator stack =
      tmcore::stack_allocator(tmcore::host_allocator(), nullptr, {0, 1 << 20});
  try {
    (void)tensor({2 << 20}, TM_U8, stack);
    TM_FATAL("it fits");
  } catch (const tmcore::out_of_memory&) {
    const tensor null;
    expect_throws(TM_ERR_INVALID, "null", [&] { (void)null.view({1}); });
    expect_throws(TM_ERR_INVALID, "null", [&] { (void)null.shape(0); });
    expect_throws(TM_ERR_INVALID, "null", [&] { (void)null.data<float>(); });
    expect_throws(TM_ERR_INVALID, "null", [&] { (void)buffer().slice(0); });
  }
}

//===-- Out of memory -----------------------------------------------------===//

void out_of_memory_carries_its_report() {
  const tmcore::allocator stack =
      tmcore::stack_allocator(tmcore::host_allocator(), {}, {0, std::size_t{4} << 20});
  try {
    (void)stack.allocate(std::size_t{8} << 20);
    TM_FATAL("nothing was thrown");
  } catch (const tmcore::out_of_memory& e) {
    TM_CHECK(!tm_last_oom_report());  // the exception has taken it
    TM_CHECK(e.report());
    TM_CHECK_EQ(e.report()->asked_bytes, std::uint64_t{8} << 20);
    TM_CHECK_EQ(e.report()->limit_bytes, std::uint64_t{4} << 20);
    const tmcore::error& failure = e;
    TM_CHECK_EQ(failure.restore(), TM_ERR_NO_MEMORY);
    TM_CHECK(tm_last_oom_report() && tm_last_oom_report()->asked_bytes == std::uint64_t{8} << 20);
  }
  const tmcore::out_of_memory other(*tm_last_error());
  TM_CHECK(!other.report());
}

void out_of_memory_changes_nothing() {
  counting_upstream upstream;
  const tmcore::allocator stack = tmcore::stack_allocator(upstream.get(), nullptr, {0, 4 << 20});
  const tmcore::context_guard guard{stack};
  tensor x({1 << 20}, TM_U8, TM_CPU);
  void* const data = x.data();
  const tm_allocator_stats before = stack.stats();
  expect_throws(TM_ERR_NO_MEMORY, "stack", [&] { x = tensor({8 << 20}, TM_U8, TM_CPU); });
  TM_CHECK(x.data() == data && x.size() == 1 << 20);
  const tm_allocator_stats after = stack.stats();
  TM_CHECK_EQ(after.live_bytes, before.live_bytes);
  TM_CHECK_EQ(after.live_blocks, before.live_blocks);
  const tensor y({8 << 20}, TM_U8, TM_CPU, std::nothrow);
  TM_CHECK(!y);
  TM_CHECK_EQ(tm_last_status(), TM_ERR_NO_MEMORY);
  TM_CHECK(tensor({1 << 20}, TM_U8, TM_CPU));  // what fits still does
}

// Everything that the library allocates for itself, from one thread with a fresh context.
void body() {
  tmcore::context own = tmcore::context::create();
  const tmcore::context_guard guard{own};
  const tmcore::allocator stack = tmcore::stack_allocator(tmcore::host_allocator());
  tm_callback_options options = {};
  options.alloc = [](size_t size, tm_stream*, void** out, void*) {
    *out = ::operator new (size, std::align_val_t{64}, std::nothrow);
    return *out ? TM_OK : TM_ERR_NO_MEMORY;
  };
  options.free = [](void* block, size_t, tm_stream*, void*) {
    ::operator delete (block, std::align_val_t{64});
  };
  const tmcore::allocator foreign = tmcore::callback_allocator(options);
  const tmcore::context_guard inner{stack, foreign, nullptr};
  const tensor x({64, 64}, TM_F32, TM_CPU);
  const tensor y({64, 64}, TM_F32, stack);
  tmcore::tensor_<float> z = x.view({-1}).slice(0, 100);
  static char memory[64];
  const buffer adopted = buffer::adopt_memory(memory, 64, 64, TM_I8, tmcore::cpu, nullptr, nullptr);
  tmcore::copy(y, x);
  z = tmcore::tensor_<float>({10}, stack);
}

void survives_every_failure_of_bookkeeping() {
  body();  // what is made once is made
  const int64_t live = tm_bookkeeping_live();
  int failures = 0;
  for (int64_t nth = 1;; nth++) {
    bool failed = false;
    const uint64_t calls = tm_bookkeeping_calls();
    tm_bookkeeping_fail_nth(nth);
    try {
      body();
    } catch (const tmcore::out_of_memory& e) {
      TM_CHECK(std::strlen(e.what()) > 0);
      failed = true;
    }
    const bool reached = tm_bookkeeping_calls() - calls >= static_cast<uint64_t>(nth);
    tm_bookkeeping_fail_nth(0);
    TM_CHECK(reached || !failed);
    TM_CHECK_EQ(tm_bookkeeping_live(), live);
    TM_CHECK_EQ(tm_context_depth(), 0u);
    if (!reached) {
      break;
    }
    failures += failed;  // a stack tries again, so not every one
  }
  TM_CHECK_GE(failures, 4);  // a context, two allocators, adopted memory, ...
}

}  // namespace

int main() {
  RUN_TEST(an_error_carries_its_record);
  RUN_TEST(every_kind_is_caught_as_std_exception);
  RUN_TEST(statuses_are_thrown_by_check);
  RUN_TEST(what_makes_a_handle);
  RUN_TEST(what_returns_a_status);
  RUN_TEST(null_goes_through_a_chain);
  RUN_TEST(a_caught_failure_is_no_reason_of_later_ones);
  RUN_TEST(out_of_memory_carries_its_report);
  RUN_TEST(out_of_memory_changes_nothing);
  RUN_TEST(survives_every_failure_of_bookkeeping);
  return 0;
}
