// Checks, the fatal handler and the log in C++: which types compare, what is said, and exceptions.

#include "tm/check.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "tm/log.h"

namespace {

struct failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

void throw_failure(const char* message, void* /*user*/) { throw failure(message); }

int wrong;

void expect(bool holds, int line, const char* what, const std::string& said) {
  if (holds) return;
  std::fprintf(stderr, "check_cpp_test.cc:%d: %s: %s\n", line, what, said.c_str());
  wrong++;
}

#define EXPECT(x) expect((x), __LINE__, #x, "does not hold")

// The statement must fail a check, which says `text`.
#define EXPECT_SAYS(statement, text)                                                      \
  do {                                                                                    \
    std::string said = "nothing";                                                         \
    const tm_fatal_hook before = tm_set_fatal_handler(throw_failure, nullptr);            \
    try {                                                                                 \
      statement;                                                                          \
    } catch (const failure& caught) {                                                     \
      said = caught.what();                                                               \
    }                                                                                     \
    tm_set_fatal_handler(before.handler, before.user);                                    \
    const std::string start = "tmcore: fatal: check_cpp_test.cc:";                        \
    const size_t verdict = said.find(": check failed: ");                                 \
    expect(said.compare(0, start.size(), start) == 0, __LINE__, "place", said);           \
    expect(verdict != std::string::npos && said.substr(verdict + 16) == (text), __LINE__, \
           #statement, said);                                                             \
  } while (0)

enum class mode : unsigned char { none, fast = 7 };
enum plain : int { PLAIN = -3 };
struct fields {
  unsigned small : 3;
  int negative : 5;
};

void numbers_compare_by_value_and_are_shown_as_what_they_are() {
  const fields bits = {7, -3};
  const size_t used = 9;
  TM_CHECK_LT(-1, used);
  TM_CHECK_LT(-1, 0u);
  TM_CHECK_EQ(mode::fast, mode::fast);
  TM_CHECK_LT(bits.negative, 0u);
  TM_CHECK_NE(__builtin_nan(""), __builtin_nan(""));
  EXPECT_SAYS(TM_CHECK_LE(used, 8), "used <= 8 (9 vs 8)");
  EXPECT_SAYS(TM_CHECK_EQ(true, false), "true == false (true vs false)");
  EXPECT_SAYS(TM_CHECK_EQ('a', 'b'), "'a' == 'b' ('a' (97) vs 'b' (98))");
  EXPECT_SAYS(TM_CHECK_EQ(mode::fast, mode::none), "mode::fast == mode::none (7 vs 0)");
  EXPECT_SAYS(TM_CHECK_EQ(PLAIN, 0u), "PLAIN == 0u (-3 vs 0)");
  EXPECT_SAYS(TM_CHECK_EQ(bits.small, bits.negative), "bits.small == bits.negative (7 vs -3)");
  EXPECT_SAYS(TM_CHECK_EQ(0.1f, 1.5L), "0.1f == 1.5L (0.1 vs 1.5)");
  EXPECT_SAYS(TM_CHECK_EQ(__builtin_nan(""), 1), "__builtin_nan(\"\") == 1 (nan vs 1)");
}

void pointers_compare_by_address() {
  int value = 0;
  int* pointer = &value;
  const std::unique_ptr<int> none;
  const auto shared = std::make_shared<int>(1);
  const auto& same = shared;
  TM_CHECK_EQ(pointer, &value);
  TM_CHECK_NE(pointer, nullptr);
  TM_CHECK_NE(pointer, NULL);
  TM_CHECK_EQ(none, nullptr);
  TM_CHECK_EQ(shared, same);
  TM_CHECK_EQ(&pointers_compare_by_address, pointers_compare_by_address);
  EXPECT_SAYS(TM_CHECK_NE(none, nullptr), "none != nullptr (NULL vs NULL)");
  EXPECT_SAYS(TM_CHECK_EQ(reinterpret_cast<int*>(16), none),
              "reinterpret_cast<int*>(16) == none (0x10 vs NULL)");
}

void strings_compare_by_their_text() {
  const std::string text = "abc";
  const std::string zero("a\0b", 3);
  TM_CHECK_EQ(text, "abc");
  TM_CHECK_EQ("abc", text);
  TM_CHECK_EQ(std::string_view(text), text);
  TM_CHECK_LT(text, "abd");
  TM_CHECK_LT("ab", text);
  TM_CHECK_NE(zero, "a");
  TM_CHECK_EQ(std::string_view(), "");
  TM_CHECK_NE(text, static_cast<const char*>(nullptr));
  TM_CHECK_STREQ(text.c_str(), "abc");
  TM_CHECK_STREQ(nullptr, nullptr);
  EXPECT_SAYS(TM_CHECK_EQ(zero, std::string("x") + "y"),
              "zero == std::string(\"x\") + \"y\" (\"a\\x00b\" vs \"xy\")");
  EXPECT_SAYS(TM_CHECK_STRNE(text.c_str(), "abc"), "text.c_str() != \"abc\" (\"abc\" vs \"abc\")");
  EXPECT_SAYS(TM_CHECK_STREQ(nullptr, "x", "layer %d", 3),
              "nullptr == \"x\" (NULL vs \"x\"): layer 3");
}

void operands_are_evaluated_once() {
  int n = 0;
  TM_CHECK_LT(++n, ++n);
  EXPECT(n == 2);
  EXPECT_SAYS(TM_CHECK_GT(++n, ++n), "++n > ++n (3 vs 4)");
  EXPECT_SAYS(TM_CHECK(++n == 0, "%d", n), "++n == 0: 5");
  TM_CHECK(true, "%d", ++n);
  EXPECT(n == 5);
}

// A comma in a template's arguments is one of the macro's too, unless it stands in parentheses.
void templates_stand_in_parentheses() {
  TM_CHECK((std::is_same<int, int>::value));
  EXPECT_SAYS(TM_CHECK((std::is_same<int, long>::value)), "(std::is_same<int, long>::value)");
}

//===-- Not null ----------------------------------------------------------===//

int outside_value = 3;
int* const outside = TM_CHECK_NOTNULL(&outside_value);  // NOLINT(cert-err58-cpp): may throw

std::unique_ptr<int> make(int value) { return std::make_unique<int>(value); }

void notnull_gives_back_what_it_checked() {
  int value = 1;
  int* pointer = &value;
  EXPECT(outside == &outside_value);
  EXPECT(TM_CHECK_NOTNULL(pointer) == &value);
  TM_CHECK_NOTNULL(pointer) = &outside_value;  // of a variable it is a reference
  EXPECT(pointer == &outside_value);
  const std::unique_ptr<int> owned = TM_CHECK_NOTNULL(make(4));  // a temporary moves on
  EXPECT(*owned == 4);
  EXPECT(*TM_CHECK_NOTNULL(owned, "never") == 4);
  EXPECT(owned != nullptr);
  EXPECT_SAYS((void)TM_CHECK_NOTNULL(std::unique_ptr<int>()), "std::unique_ptr<int>() != NULL");
  pointer = nullptr;
  EXPECT_SAYS((void)TM_CHECK_NOTNULL(pointer, "head %d", 2), "pointer != NULL: head 2");
#define EXPANDED pointer
  EXPECT_SAYS((void)TM_CHECK_NOTNULL(EXPANDED), "EXPANDED != NULL");  // as it is written
  EXPECT_SAYS((void)TM_CHECK_NOTNULL(EXPANDED, "%d%d%d%d%d%d%d", 1, 2, 3, 4, 5, 6, 7),
              "EXPANDED != NULL: 1234567");
#undef EXPANDED
}

void is_one_statement_after_if_without_braces() {
  int others = 0;
  for (int i = 0; i < 2; i++) {
    if (i)
      TM_CHECK_EQ(i, 1);
    else
      others++;
    if (i)
      TM_CHECK(i);
    else
      others++;
    if (i)
      TM_CHECK_OK(TM_OK);
    else
      others++;
  }
  EXPECT(others == 3);
}

//===-- Exceptions --------------------------------------------------------===//

int fatal_calls;
void count_and_throw(const char* message, void* /*user*/) {
  fatal_calls++;
  throw failure(message);
}

// A handler that an exception left is not running: each failure is the first one to it.
void a_handler_may_throw_any_number_of_times() {
  tm_set_fatal_handler(count_and_throw, nullptr);
  for (int i = 0; i < 100; i++) {
    try {
      TM_CHECK_EQ(i, -1);
    } catch (const failure&) {
    }
  }
  tm_set_fatal_handler(nullptr, nullptr);
  EXPECT(fatal_calls == 100);
}

void throw_line(tm_log_level /*level*/, const char* line, void* /*user*/) { throw failure(line); }
void keep_line(tm_log_level /*level*/, const char* line, void* user) {
  *static_cast<std::string*>(user) = line;
}

// It would otherwise hold its lock for ever.
void a_sink_may_throw() {
  tm_set_log_sink(throw_line, nullptr);
  for (int i = 0; i < 2; i++) {
    std::string thrown;
    try {
      TM_LOG_ERROR("line %d", i);
    } catch (const failure& caught) {
      thrown = caught.what();
    }
    EXPECT(thrown.substr(thrown.rfind(':')) == ": line " + std::to_string(i));
  }
  std::string kept;
  tm_set_log_sink(keep_line, &kept);
  TM_LOG_ERROR("%s", "kept");
  EXPECT(kept.substr(kept.rfind(':')) == ": kept");
  tm_set_log_sink(nullptr, nullptr);
}

}  // namespace

int main() {
  numbers_compare_by_value_and_are_shown_as_what_they_are();
  pointers_compare_by_address();
  strings_compare_by_their_text();
  operands_are_evaluated_once();
  templates_stand_in_parentheses();
  notnull_gives_back_what_it_checked();
  is_one_statement_after_if_without_braces();
  a_handler_may_throw_any_number_of_times();
  a_sink_may_throw();
  std::printf("check_cpp_test: %d wrong\n", wrong);
  return wrong != 0;
}
