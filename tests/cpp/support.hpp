// What the C++ tests share: an upstream that counts, and plain tests that say where they were.
#ifndef TM_TESTS_CPP_SUPPORT_HPP_
#define TM_TESTS_CPP_SUPPORT_HPP_

#include <tm/check.h>
#include <tm/tmcore.hpp>

extern "C" {
#include "tests/support/counting_allocator.h"
}

// Host memory that is counted. Everything must have been given back at the end of its block.
class counting_upstream {
 public:
  counting_upstream() { counting_allocator_init(&figures_); }
  counting_upstream(const counting_upstream&) = delete;
  counting_upstream& operator=(const counting_upstream&) = delete;
  ~counting_upstream() {
    TM_CHECK_EQ(figures_.live_bytes, 0u);
    tm_allocator_release(&figures_.base);
    TM_CHECK(figures_.destroyed);  // nobody else holds it
  }

  tm_allocator* get() { return &figures_.base; }
  counting_allocator& figures() { return figures_; }

 private:
  counting_allocator figures_;
};

// Runs a test, with its name in the trace of what fails, and checks that it leaves no scope.
inline void run_test(const char* name, void (*test)()) {
  TM_SCOPE_COPY(name);
  test();
  tm_clear_error();
  TM_CHECK_EQ(tm_context_depth(), 0u);
  TM_CHECK_EQ(tm_trace_depth(), 1u);
}
#define RUN_TEST(test) run_test(#test, test)

#endif  // TM_TESTS_CPP_SUPPORT_HPP_
