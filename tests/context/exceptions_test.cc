// Scopes close when a C++ exception passes through them, in C++ and in C frames.

#include <cstdio>
#include <stdexcept>

#include "tests/context/c_frames.h"
#include "tm/alloc/host.h"
#include "tm/alloc/stack.h"
#include "tm/base/trace.h"
#include "tm/check.h"
#include "tm/context/context.h"

namespace {

void throw_error(void* /*user*/) {
  TM_CHECK_EQ(tm_context_depth(), 3u);
  throw std::runtime_error("from the innermost frame");
}

void throws_through_cpp(tm_allocator* stack) {
  TM_SCOPE("cpp");
  TM_USE_ALLOCATOR(stack);
  TM_WITH_ALLOCATOR(stack) TM_WITH_STREAM(nullptr) throw_error(nullptr);
}

void expect_all_closed() {
  TM_CHECK_EQ(tm_context_depth(), 0u);
  TM_CHECK_EQ(tm_trace_depth(), 0u);
  TM_CHECK_EQ(tm_current_allocator(TM_CPU), tm_host_allocator());
}

template <class Function>
void expect_throws(Function function) {
  bool caught = false;
  try {
    function();
  } catch (const std::runtime_error&) {
    caught = true;
  }
  TM_CHECK(caught);
  expect_all_closed();
}

bool handler_that_throws(const tm_oom_request* /*request*/, void* /*user*/) {
  throw std::runtime_error("handler");
}

void throw_instead_of_aborting(const char* message, void* /*user*/) {
  throw std::runtime_error(message);
}

void make_current_twice(tm_context* context) {
  TM_USE_CONTEXT(context);
  TM_WITH_CONTEXT(context) {}
}

}  // namespace

int main() {
  tm_auto_allocator stack = tm_stack_allocator_create(tm_host_allocator(), nullptr, nullptr);
  TM_CHECK_NE(stack, nullptr);
  expect_throws([&] { throws_through_cpp(stack); });
  expect_throws([&] { call_inside_c_scopes(stack, throw_error, nullptr); });
  // An out-of-memory handler may throw: the handlers that were set are set again.
  const tm_stack_options small = {0, 1 << 20};
  tm_auto_allocator limited = tm_stack_allocator_create(tm_host_allocator(), nullptr, &small);
  expect_throws([&] {
    TM_USE_ALLOCATOR(limited);
    TM_USE_OOM_HANDLER(handler_that_throws, nullptr);
    tm_storage* storage;
    (void)!tm_context_alloc(nullptr, tm_device_make(TM_CPU, 0), 2 << 20, &storage);
  });
  // A fatal handler may throw, also out of a scope that could not be opened.
  tm_context* context = tm_context_create();
  tm_set_fatal_handler(throw_instead_of_aborting, nullptr);
  expect_throws([&] { make_current_twice(context); });
  tm_context_release(context);
  std::puts("exceptions_test: done");
  return 0;
}
