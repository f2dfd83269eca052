// Guards push their arguments in order and pop exactly those, however the block is left.

#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "tests/cpp/support.hpp"

namespace {

tmcore::allocator_ref current() { return tmcore::current_allocator(TM_CPU); }

// A second kind of host memory, to tell the entries of one guard apart.
tmcore::allocator stack_over_host() { return tmcore::stack_allocator(tmcore::host_allocator()); }

// Device memory that is none, for a stack of its own in the context. It is never asked.
tmcore::allocator device_of(int32_t id) {
  tm_callback_options options = {};
  options.device = tm_device_make(TM_DEVICE, id);
  options.alloc = [](size_t, tm_stream*, void**, void*) { return TM_ERR_NO_MEMORY; };
  options.free = [](void*, size_t, tm_stream*, void*) {};
  return tmcore::callback_allocator(options);
}

//===-- Order -------------------------------------------------------------===//

void a_guard_lasts_to_the_end_of_its_block() {
  const tmcore::allocator stack = stack_over_host();
  {
    const tmcore::context_guard guard{stack};
    TM_CHECK(current() == stack);
    TM_CHECK_EQ(tm_context_depth(), 1u);
  }
  TM_CHECK(current() == tmcore::host_allocator());
}

void arguments_are_pushed_in_order() {
  const tmcore::allocator a = stack_over_host();
  const tmcore::allocator b = stack_over_host();
  const tmcore::allocator d0 = device_of(0);
  const tmcore::allocator d1 = device_of(1);
  const tmcore::context_guard guard{a, d0, b, d1, tmcore::stream()};
  TM_CHECK_EQ(tm_context_depth(), 5u);
  TM_CHECK(current() == b);  // the last one is innermost
  TM_CHECK(tmcore::current_allocator(TM_DEVICE) == d1);
  TM_CHECK(tmcore::current_allocator(tmcore::cuda(0)) == d0);
  TM_CHECK(tmcore::current_allocator(tmcore::cuda(1)) == d1);
  TM_CHECK(tmcore::current_allocator(tmcore::cuda(2)) == nullptr);
  TM_CHECK(tmcore::require_allocator(TM_DEVICE) == d1);
  {
    const tmcore::context_guard inner{d0, a};
    TM_CHECK(current() == a && tmcore::current_allocator(TM_DEVICE) == d0);
    TM_CHECK_EQ(tm_context_depth(), 7u);
  }
  TM_CHECK(current() == b && tmcore::current_allocator(TM_DEVICE) == d1);
}

void null_changes_nothing_and_pops_as_one() {
  const tmcore::allocator stack = stack_over_host();
  const tmcore::context_guard outer{stack};
  {
    tm_allocator* const no_allocator = nullptr;
    tm_context* const no_context = nullptr;
    bool (*const no_handler)(const tm_oom_request&) = nullptr;
    const std::function<bool(const tm_oom_request&)> empty;
    const tmcore::context_guard guard{nullptr,
                                      no_allocator,
                                      tmcore::allocator(),
                                      tmcore::stream(),
                                      no_context,
                                      tmcore::context(),
                                      tmcore::oom_handler{no_handler},
                                      tmcore::oom_handler{empty}};
    TM_CHECK_EQ(tm_context_depth(), 9u);
    TM_CHECK(current() == stack);
    // No handler is asked, or this would call through null.
    const tm_stack_options small = {0, 1 << 20};
    const tmcore::allocator limited =
        tmcore::stack_allocator(tmcore::host_allocator(), nullptr, small);
    TM_CHECK(!tmcore::buffer(2 << 20, TM_U8, limited, std::nothrow));
    TM_CHECK_EQ(tm_last_status(), TM_ERR_NO_MEMORY);
  }
  TM_CHECK_EQ(tm_context_depth(), 1u);
  const tmcore::context_guard nothing{};
  TM_CHECK_EQ(tm_context_depth(), 1u);
}

void mixed_with_the_macros_of_c() {
  const tmcore::allocator a = stack_over_host();
  const tmcore::allocator b = stack_over_host();
  TM_USE_ALLOCATOR(a.get());
  const tmcore::context_guard guard{b};
  TM_WITH_ALLOCATOR(a.get()) {
    const tmcore::context_guard inner{b, nullptr};
    TM_CHECK(current() == b);
    break;
  }
  TM_CHECK(current() == b);
  TM_CHECK_EQ(tm_context_depth(), 2u);
}

//===-- What the guard keeps ----------------------------------------------===//

void what_is_named_is_borrowed() {
  counting_upstream upstream;
  const auto shared = tmcore::allocator::share(upstream.get());
  const int32_t references = upstream.figures().base.references;
  const tmcore::context_guard guard{shared, upstream.get(), tmcore::allocator_ref(shared)};
  TM_CHECK_EQ(upstream.figures().base.references, references);
}

void a_temporary_is_kept() {
  counting_upstream upstream;
  const int32_t references = upstream.figures().base.references;
  {
    const tmcore::context_guard guard{tmcore::allocator::share(upstream.get()),
                                      tmcore::stack_allocator(upstream.get())};
    TM_CHECK_EQ(upstream.figures().base.references, references + 2);
    const tmcore::tensor x({1000}, TM_F32, TM_CPU);
    TM_CHECK_GE(upstream.figures().live_bytes, 4000u);
    TM_CHECK(tmcore::current_allocator(TM_CPU).is_stack());
  }
  TM_CHECK_EQ(upstream.figures().base.references, references);
}

void contexts_become_current() {
  const tmcore::allocator stack = stack_over_host();
  tmcore::context own = tmcore::context::create();
  tm_context* const outer = tm_current_context();
  {
    const tmcore::context_guard guard{stack, own, stack_over_host()};
    TM_CHECK_EQ(tm_current_context(), own.get());
    TM_CHECK_EQ(tm_context_depth(), 1u);  // of the new context
    TM_CHECK(current() != stack && current().is_stack());
  }
  TM_CHECK_EQ(tm_current_context(), outer);
  {
    const tmcore::context_guard guard{stack, tmcore::context::create()};
    TM_CHECK(current() == tmcore::host_allocator());  // nothing is inherited
  }
  const tmcore::context_guard again{own};
  TM_CHECK_EQ(tm_context_depth(), 0u);
}

//===-- Exceptions --------------------------------------------------------===//

void expect_nothing_open() {
  TM_CHECK_EQ(tm_context_depth(), 0u);
  TM_CHECK(current() == tmcore::host_allocator());
}

template <class Function>
void expect_throws(const char* what, Function function) {
  std::string caught;
  try {
    function();
  } catch (const std::exception& e) {
    caught = e.what();
  }
  if (caught.find(what) == std::string::npos) {
    TM_FATAL("threw \"%s\", not \"%s\"", caught.c_str(), what);
  }
  expect_nothing_open();
}

tmcore::allocator throws_instead() { throw std::runtime_error("no allocator"); }

void exceptions_pop_what_was_pushed() {
  const tmcore::allocator stack = stack_over_host();
  expect_throws("from the block", [&] {
    const tmcore::context_guard guard{stack, nullptr, stack_over_host()};
    const tmcore::context_guard inner{stack};
    throw std::runtime_error("from the block");
  });
  // An argument that throws: nothing has been pushed yet.
  expect_throws("no allocator", [&] {
    const tmcore::context_guard guard{stack, throws_instead(), stack};
  });
}

// May be copied so many times; then it throws.
class fragile_handler {
 public:
  explicit fragile_handler(int copies) noexcept : copies_left_(copies) {}
  fragile_handler(const fragile_handler& other) : copies_left_(other.copies_left_ - 1) {
    if (copies_left_ < 0) {
      open_at_the_throw = tm_context_depth();
      throw std::runtime_error("while pushing");
    }
  }
  bool operator()(const tm_oom_request& /*request*/) const { return false; }

  static size_t open_at_the_throw;

 private:
  int copies_left_;
};

size_t fragile_handler::open_at_the_throw;

void an_entry_that_throws_pops_those_before_it() {
  const tmcore::allocator stack = stack_over_host();
  bool opened = false;
  for (int copies = 0; !opened; copies++) {
    try {
      const tmcore::context_guard guard{stack, stack, tmcore::oom_handler{fragile_handler(copies)},
                                        stack};
      TM_CHECK_EQ(tm_context_depth(), 4u);
      opened = true;
    } catch (const std::runtime_error&) {
      expect_nothing_open();
    }
  }
  TM_CHECK_EQ(fragile_handler::open_at_the_throw, 2u);  // the last copy is the one in the entry
  // A fatal handler may throw out of an entry that cannot be opened: a context current twice.
  const tmcore::context own = tmcore::context::create();
  tm_set_fatal_handler([](const char* message, void*) { throw std::runtime_error(message); },
                       nullptr);
  expect_throws("already current", [&] {
    const tmcore::context_guard guard{stack, own, stack, own, stack};
  });
  tm_set_fatal_handler(nullptr, nullptr);
}

void misuse_names_the_guard() {
  tm_set_fatal_handler([](const char* message, void*) { throw std::runtime_error(message); },
                       nullptr);
  tm_frame frame;
  std::string caught;
  {
    const tmcore::context_guard guard{nullptr};
    tm_push_allocator(&frame, tm_host_allocator());
    const int line = __LINE__ + 2;
    try {
      const tmcore::context_guard inner{nullptr};
      tm_pop(&frame);  // but `inner` is the innermost
    } catch (const std::runtime_error& e) {
      caught = e.what();
    }
    tm_pop(&frame);
    TM_CHECK(caught.find("guard_test.cc:" + std::to_string(line)) != std::string::npos);
  }
  tm_set_fatal_handler(nullptr, nullptr);
}

//===-- Out-of-memory handlers --------------------------------------------===//

bool never_helps(const tm_oom_request& /*request*/) { return false; }

void handlers_are_asked_innermost_first() {
  const tm_stack_options small = {0, 4 << 20};
  const tmcore::allocator limited =
      tmcore::stack_allocator(tmcore::host_allocator(), nullptr, small);
  tmcore::buffer cache(3 << 20, TM_U8, limited);
  std::string order;
  auto evict = [&](const tm_oom_request& request) {
    TM_CHECK_GE(request.size, 2u << 20);
    order += "evict ";
    const bool had = static_cast<bool>(cache);
    cache = tmcore::buffer();
    return had;
  };
  const std::function<bool(const tm_oom_request&)> outer = [&](const tm_oom_request&) {
    order += "outer ";
    return false;
  };
  const tmcore::context_guard guard{tmcore::oom_handler{outer}, limited, tmcore::oom_handler{evict},
                                    tmcore::oom_handler{never_helps},
                                    tmcore::oom_handler{[&order](const auto& /*request*/) {
                                      order += "inner ";
                                      return false;
                                    }}};
  const tmcore::tensor x({2 << 20}, TM_U8, TM_CPU);
  TM_CHECK(x && !cache);
  TM_CHECK_STREQ(order.c_str(), "inner evict ");
  // Nothing is left to evict: every handler is asked, and the failure is an ordinary one.
  order.clear();
  TM_CHECK(!tmcore::tensor({3 << 20}, TM_U8, TM_CPU, std::nothrow));
  TM_CHECK_STREQ(order.c_str(), "inner evict outer ");
  TM_CHECK_EQ(tm_last_status(), TM_ERR_NO_MEMORY);
}

void handlers_may_throw() {
  const tm_stack_options small = {0, 1 << 20};
  const tmcore::allocator limited =
      tmcore::stack_allocator(tmcore::host_allocator(), nullptr, small);
  expect_throws("no more", [&] {
    auto refuse = [](const tm_oom_request&) -> bool { throw std::runtime_error("no more"); };
    const tmcore::context_guard guard{limited, tmcore::oom_handler{refuse}};
    const tmcore::tensor x({2 << 20}, TM_U8, TM_CPU, std::nothrow);
  });
}

}  // namespace

static_assert(!std::is_copy_constructible<decltype(tmcore::context_guard{nullptr})>::value, "");
static_assert(!std::is_move_constructible<decltype(tmcore::context_guard{nullptr})>::value, "");
static_assert(!std::is_copy_assignable<decltype(tmcore::context_guard{nullptr})>::value, "");
static_assert(sizeof(decltype(tmcore::context_guard{nullptr})) == sizeof(tm_frame), "a frame");

int main() {
  RUN_TEST(a_guard_lasts_to_the_end_of_its_block);
  RUN_TEST(arguments_are_pushed_in_order);
  RUN_TEST(null_changes_nothing_and_pops_as_one);
  RUN_TEST(mixed_with_the_macros_of_c);
  RUN_TEST(what_is_named_is_borrowed);
  RUN_TEST(a_temporary_is_kept);
  RUN_TEST(contexts_become_current);
  RUN_TEST(exceptions_pop_what_was_pushed);
  RUN_TEST(an_entry_that_throws_pops_those_before_it);
  RUN_TEST(misuse_names_the_guard);
  RUN_TEST(handlers_are_asked_innermost_first);
  RUN_TEST(handlers_may_throw);
  return 0;
}
