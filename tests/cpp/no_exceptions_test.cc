// Compiled with -fno-exceptions and -fno-rtti: std::nothrow works as ever, and a failure of the
// other form is fatal, with the record's words.

#include <csetjmp>
#include <cstring>

#include "tests/cpp/support.hpp"

#ifdef __cpp_exceptions
#error "this test is about code without exceptions"
#endif

namespace {

jmp_buf after;
char fatal_message[1024];

[[noreturn]] void leave(const char* message, void* /*user*/) {
  std::strncpy(fatal_message, message, sizeof fatal_message - 1);
  std::longjmp(after, 1);  // NOLINT(cert-err52-cpp): there are no exceptions
}

template <class Function>
void expect_fatal(const char* text, Function function) {
  fatal_message[0] = '\0';
  tm_set_fatal_handler(leave, nullptr);
  if (setjmp(after) == 0) {  // NOLINT(cert-err52-cpp)
    function();
  }
  tm_set_fatal_handler(nullptr, nullptr);
  if (!std::strstr(fatal_message, text)) {
    TM_FATAL("\"%s\" is not about \"%s\"", fatal_message, text);
  }
}

void nothrow_works() {
  const tmcore::allocator stack =
      tmcore::stack_allocator(tmcore::host_allocator(), nullptr, {0, 1 << 20}, std::nothrow);
  TM_CHECK(stack);
  int asked = 0;
  auto count = [&](const tm_oom_request& /*request*/) {
    asked++;
    return false;
  };
  const tmcore::context_guard guard{stack, tmcore::oom_handler{count}};
  TM_CHECK(!tmcore::tensor({2 << 20}, TM_U8, TM_CPU, std::nothrow));
  TM_CHECK_EQ(tm_last_status(), TM_ERR_NO_MEMORY);
  TM_CHECK_EQ(asked, 1);
  const tmcore::tensor_<float> x({2, 3}, TM_CPU, std::nothrow);
  TM_CHECK(x);
  TM_CHECK(!tmcore::tensor_<int>(x, std::nothrow));
  TM_CHECK(!x.view({7}, std::nothrow).t(std::nothrow));
  TM_CHECK_EQ(tmcore::copy(x, x.t(std::nothrow), std::nothrow), TM_ERR_INVALID);
  TM_CHECK_EQ(tmcore::stream().sync(std::nothrow), TM_ERR_INVALID);
}

void what_would_throw_is_fatal() {
  expect_fatal("TM_ERR_INVALID: tm_stack_pin", [] { tmcore::host_allocator().stack_pin(); });
  expect_fatal("TM_ERR_UNAVAILABLE: no stream", [] { (void)tmcore::require_stream(); });
  expect_fatal("context.c", [] { (void)tmcore::require_stream(); });  // where it was raised
  expect_fatal("TM_ERR_OVERFLOW", [] { (void)tmcore::buffer(int64_t{1} << 62, TM_F32, TM_CPU); });
}

}  // namespace

int main() {
  RUN_TEST(nothrow_works);
  RUN_TEST(what_would_throw_is_fatal);
  return 0;
}
