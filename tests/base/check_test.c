// Checks: which hold, and what is said of those that do not, word for word.

#include "tm/check.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <float.h>
#include <limits.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tm/base/trace.h"

static jmp_buf caught;
static int failures;
static char message[4096];

static void catch_fatal(const char* text, void* user) {
  (void)user;
  failures++;
  snprintf(message, sizeof message, "%s", text);
  longjmp(caught, 1);
}

// What the message says behind its place, which must be one of the three lines that end at `line`:
// compilers differ in where a statement of several lines is.
static const char* said_at(int line) {
  static const char start[] = "tmcore: fatal: check_test.c:";
  static const char verdict[] = ": check failed: ";
  cr_assert(eq(int, strncmp(message, start, strlen(start)), 0), "%s", message);
  char* end;
  const long at = strtol(message + strlen(start), &end, 10);
  cr_expect(at <= line && at >= line - 2, "line %ld, not %d", at, line);
  cr_assert(eq(int, strncmp(end, verdict, strlen(verdict)), 0), "%s", message);
  return end + strlen(verdict);
}

// The statement must fail a check, which says `text`.
#define EXPECT_SAYS(statement, text)                    \
  do {                                                  \
    failures = 0;                                       \
    message[0] = '\0';                                  \
    tm_set_fatal_handler(catch_fatal, NULL);            \
    if (!setjmp(caught)) {                              \
      statement;                                        \
    }                                                   \
    tm_set_fatal_handler(NULL, NULL);                   \
    cr_expect(eq(int, failures, 1));                    \
    cr_expect(eq(str, (char*)said_at(__LINE__), text)); \
  } while (0)

//===-- Conditions --------------------------------------------------------===//

Test(check, a_condition_that_fails_is_shown_as_it_is_written) {
  const int n = 3;
  TM_CHECK(n == 3);
  TM_CHECK(n == 3, "not evaluated");
  EXPECT_SAYS(TM_CHECK(n == 4 && n), "n == 4 && n");
  EXPECT_SAYS(TM_CHECK(n > INT_MAX - 1), "n > INT_MAX - 1");  // no macro is expanded
  EXPECT_SAYS(TM_CHECK(NULL), "NULL");
}

Test(check, a_message_follows) {
  const char* name = "relu";
  EXPECT_SAYS(TM_CHECK(name == NULL, "layer %d of %s", 3, name), "name == NULL: layer 3 of relu");
  EXPECT_SAYS(TM_CHECK(!"this", "100%%"), "!\"this\": 100%");
  EXPECT_SAYS(TM_CHECK(!name, "%s", ""), "!name");  // an empty one is none
  EXPECT_SAYS(TM_CHECK_EQ(1, 2, "rank %d", 5), "1 == 2 (1 vs 2): rank 5");
  EXPECT_SAYS(TM_CHECK_STREQ(name, "x", "%s", "why"), "name == \"x\" (\"relu\" vs \"x\"): why");
  EXPECT_SAYS(TM_CHECK_OK(TM_ERR_IO, "step %d", 1),
              "TM_ERR_IO is TM_ERR_IO: (no message on this thread): step 1");
  EXPECT_SAYS(TM_CHECK_NOTNULL((void*)0, "head %d", 1), "(void*)0 != NULL: head 1");
}

Test(check, a_message_is_evaluated_only_where_the_check_fails) {
  static int n;  // longjmp keeps it
  TM_CHECK(true, "%d", ++n);
  TM_CHECK_EQ(1, 1, "%d", ++n);
  TM_CHECK_STREQ("a", "a", "%d", ++n);
  TM_CHECK_OK(TM_OK, "%d", ++n);
  (void)TM_CHECK_NOTNULL(&n, "%d", ++n);
  cr_expect(eq(int, n, 0));
  EXPECT_SAYS(TM_CHECK(n, "%d", ++n), "n: 1");
  cr_expect(eq(int, n, 1));
}

Test(check, a_long_message_is_cut) {
  char text[1000];
  memset(text, 'x', sizeof text - 1);
  text[sizeof text - 1] = '\0';
  TM_SCOPE("still shown");
  tm_set_fatal_handler(catch_fatal, NULL);
  if (!setjmp(caught)) TM_CHECK(!text[0], "%s", text);
  cr_expect(eq(int, failures, 1));
  cr_expect(ne(ptr, strstr(message, "!text[0]: xxx"), NULL));
  cr_expect(ne(ptr, strstr(message, "x\n  in still shown (check_test.c:"), NULL));
}

//===-- Comparisons -------------------------------------------------------===//

enum { LESS = 1, EQUAL = 2, GREATER = 4, UNORDERED = 8 };

// Which of the comparisons hold must follow from how a and b compare.
#define EXPECT_ORDER(a, order, b)                                                          \
  do {                                                                                     \
    const bool holds[] = {CHECK_HOLDS(TM_CHECK_EQ(a, b)), CHECK_HOLDS(TM_CHECK_NE(a, b)),  \
                          CHECK_HOLDS(TM_CHECK_LT(a, b)), CHECK_HOLDS(TM_CHECK_LE(a, b)),  \
                          CHECK_HOLDS(TM_CHECK_GT(a, b)), CHECK_HOLDS(TM_CHECK_GE(a, b))}; \
    expect_order(#a " and " #b, (order), holds);                                           \
  } while (0)
#define CHECK_HOLDS(check)                                            \
  (tm_set_fatal_handler(catch_fatal, NULL), setjmp(caught) == 0 && ({ \
                                              check;                  \
                                              true;                   \
                                            }))

static void expect_order(const char* what, int order, const bool* holds) {
  static const int wanted[] = {
      EQUAL, LESS | GREATER | UNORDERED, LESS, LESS | EQUAL, GREATER, GREATER | EQUAL};
  static const char* const names[] = {"EQ", "NE", "LT", "LE", "GT", "GE"};
  for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
    cr_expect(eq(int, holds[i], (wanted[i] & order) != 0), "%s of %s", names[i], what);
  }
}

Test(check, integers_compare_by_value_whatever_their_types) {
  EXPECT_ORDER(1, EQUAL, 1);
  EXPECT_ORDER(1, EQUAL, 1u);
  EXPECT_ORDER(-1, LESS, 0u);
  EXPECT_ORDER(0u, GREATER, -1);
  EXPECT_ORDER(-1, LESS, UINT64_MAX);
  EXPECT_ORDER(-1, LESS, SIZE_MAX);
  EXPECT_ORDER(-1L, LESS, UINT_MAX);
  EXPECT_ORDER(INT64_MIN, LESS, INT64_MAX);
  EXPECT_ORDER(INT64_MAX, LESS, UINT64_MAX);
  EXPECT_ORDER(INT64_MIN, LESS, UINT64_C(1) << 63);  // the same bits
  EXPECT_ORDER(UINT64_MAX, EQUAL, UINT64_MAX);
  EXPECT_ORDER((signed char)-1, LESS, (unsigned char)255);
  EXPECT_ORDER((short)-1, EQUAL, -1LL);
  EXPECT_ORDER((unsigned short)65535, EQUAL, 65535L);
  EXPECT_ORDER(true, EQUAL, 1);
  EXPECT_ORDER(true, LESS, 2);
  EXPECT_ORDER('b', GREATER, 'a');
  EXPECT_ORDER((char)-1, LESS, 0u);
}

Test(check, floats_compare_by_value_and_nan_with_nothing) {
  const float float_nan = __builtin_nanf("");
  const double nan = __builtin_nan("");
  EXPECT_ORDER(2.5, LESS, 3);
  EXPECT_ORDER(-1, LESS, 0.0f);
  EXPECT_ORDER(0.0, EQUAL, -0.0);
  EXPECT_ORDER(0.1f, GREATER, 0.1);  // the float is a bit more
  EXPECT_ORDER(UINT64_MAX, LESS, 18446744073709551616.0);
  EXPECT_ORDER(INT64_MAX, LESS, 9223372036854775808.0);
  EXPECT_ORDER((INT64_C(1) << 53) + 1, GREATER, 9007199254740992.0);
  EXPECT_ORDER(true, EQUAL, 1.0);
  EXPECT_ORDER(__builtin_inf(), GREATER, DBL_MAX);
  EXPECT_ORDER(-__builtin_inf(), LESS, INT64_MIN);
  EXPECT_ORDER(1.0L, EQUAL, 1.0f);
  EXPECT_ORDER(nan, UNORDERED, nan);
  EXPECT_ORDER(nan, UNORDERED, 1);
  EXPECT_ORDER(1, UNORDERED, float_nan);
  EXPECT_ORDER((long double)nan, UNORDERED, 1.0L);
}

Test(check, pointers_compare_by_address) {
  int values[2];
  const int* first = &values[0];
  void* second = &values[1];
  char text[] = "abc";
  const char* same = text;
  char equal[] = "abc";
  EXPECT_ORDER(first, LESS, second);
  EXPECT_ORDER(first, EQUAL, values);
  EXPECT_ORDER(second, GREATER, NULL);
  EXPECT_ORDER((int*)NULL, EQUAL, NULL);
  EXPECT_ORDER(same, EQUAL, text);
  TM_CHECK_NE(same, equal);  // not by their text
  EXPECT_ORDER(&expect_order, EQUAL, expect_order);
  EXPECT_ORDER((volatile int*)values, EQUAL, first);
}

struct fields {
  unsigned small : 3;
  int negative : 5;
  long wide : 40;
  unsigned long whole : 64;
  bool flag : 1;
};

Test(check, fields_of_bits_are_numbers) {
  const struct fields fields = {7, -3, -(1L << 39), ULONG_MAX, true};
  EXPECT_ORDER(fields.small, EQUAL, 7);
  EXPECT_ORDER(fields.negative, LESS, 0u);
  EXPECT_ORDER(fields.whole, EQUAL, ULONG_MAX);
  EXPECT_SAYS(TM_CHECK_EQ(fields.small, fields.negative),
              "fields.small == fields.negative (7 vs -3)");
  EXPECT_SAYS(TM_CHECK_EQ(fields.wide, fields.flag),
              "fields.wide == fields.flag (-549755813888 vs true)");
}

typedef enum mode { MODE_NONE, MODE_FAST = 7 } mode;

Test(check, what_is_compared_is_shown_as_what_it_is) {
  const size_t used = 9;
  const bool yes = true;
  const bool no = false;
  const mode m = MODE_FAST;
  const volatile int changing = 4;
  const char letter = 'x';
  EXPECT_SAYS(TM_CHECK_LE(used, 8), "used <= 8 (9 vs 8)");
  EXPECT_SAYS(TM_CHECK_LT(used, 9u), "used < 9u (9 vs 9)");
  EXPECT_SAYS(TM_CHECK_GT(-1, used), "-1 > used (-1 vs 9)");
  EXPECT_SAYS(TM_CHECK_GE(INT64_MIN, UINT64_MAX),
              "INT64_MIN >= UINT64_MAX (-9223372036854775808 vs 18446744073709551615)");
  EXPECT_SAYS(TM_CHECK_NE(used, 9), "used != 9 (9 vs 9)");
  EXPECT_SAYS(TM_CHECK_EQ(yes, no), "yes == no (true vs false)");
  EXPECT_SAYS(TM_CHECK_EQ(yes, 0), "yes == 0 (true vs 0)");
  EXPECT_SAYS(TM_CHECK_EQ(m, MODE_NONE), "m == MODE_NONE (7 vs 0)");
  EXPECT_SAYS(TM_CHECK_EQ(changing, 5), "changing == 5 (4 vs 5)");
  EXPECT_SAYS(TM_CHECK_EQ(letter, (char)10), "letter == (char)10 ('x' (120) vs '\\n' (10))");
  EXPECT_SAYS(TM_CHECK_EQ((unsigned char)'x', letter + 1),
              "(unsigned char)'x' == letter + 1 (120 vs 121)");
  EXPECT_SAYS(TM_CHECK_EQ((void*)0x10, NULL), "(void*)0x10 == NULL (0x10 vs NULL)");
}

Test(check, floats_are_shown_so_that_they_can_be_told_apart) {
  EXPECT_SAYS(TM_CHECK_EQ(2.5, -1), "2.5 == -1 (2.5 vs -1)");
  EXPECT_SAYS(TM_CHECK_EQ(0.1f, 0.1), "0.1f == 0.1 (0.1 vs 0.1)");
  EXPECT_SAYS(TM_CHECK_EQ(0.1 + 0.2, 0.3), "0.1 + 0.2 == 0.3 (0.30000000000000004 vs 0.3)");
  EXPECT_SAYS(TM_CHECK_EQ(16777217.0, 16777216.0f),
              "16777217.0 == 16777216.0f (16777217 vs 16777216)");
  EXPECT_SAYS(TM_CHECK_EQ(1e300, 1.0L), "1e300 == 1.0L (1e+300 vs 1)");
  EXPECT_SAYS(TM_CHECK_LT(__builtin_nan(""), -__builtin_inf()),
              "__builtin_nan(\"\") < -__builtin_inf() (nan vs -inf)");
}

Test(check, operands_are_evaluated_once_and_in_order) {
  static int n;  // longjmp keeps it
  TM_CHECK_EQ(++n, 1);
  TM_CHECK_LT(++n, ++n);
  TM_CHECK_NE((n *= 10), (n += 1));  // the left one first
  cr_expect(eq(int, n, 31));
  EXPECT_SAYS(TM_CHECK_GT(++n, ++n), "++n > ++n (32 vs 33)");
  const char* text = "ab";
  TM_CHECK_STRNE(text++, text++);
  cr_expect(eq(str, (char*)text, ""));
  tm_status statuses[] = {TM_OK, TM_ERR_IO};
  const tm_status* next = statuses;
  TM_CHECK_OK(*next++);
  cr_expect(eq(ptr, (void*)next, &statuses[1]));
  const tm_status* same = TM_CHECK_NOTNULL(next++);
  cr_expect(eq(ptr, (void*)same, &statuses[1]));
  cr_expect(eq(ptr, (void*)next, &statuses[2]));
}

//===-- Strings -----------------------------------------------------------===//

Test(check, strings_compare_by_their_text_and_null_is_only_null) {
  const char* text = "abc";
  char copy[] = "abc";
  TM_CHECK_STREQ(text, copy);
  TM_CHECK_STRNE(text, "abd");
  TM_CHECK_STRNE(text, "ab");
  TM_CHECK_STREQ(NULL, NULL);
  TM_CHECK_STRNE(NULL, "");
  TM_CHECK_STRNE("", NULL);
  EXPECT_SAYS(TM_CHECK_STREQ(text, "ab"), "text == \"ab\" (\"abc\" vs \"ab\")");
  EXPECT_SAYS(TM_CHECK_STRNE(copy, text), "copy != text (\"abc\" vs \"abc\")");
  EXPECT_SAYS(TM_CHECK_STREQ(NULL, text), "NULL == text (NULL vs \"abc\")");
  EXPECT_SAYS(TM_CHECK_STRNE(NULL, NULL), "NULL != NULL (NULL vs NULL)");
}

static void expect_shown(int length) {
  enum { MOST = 96 };
  char text[2 * MOST];
  char expected[4 * MOST];
  memset(text, 'x', sizeof text);
  text[length] = '\0';
  snprintf(expected, sizeof expected, "text == \"\" (\"%.*s\"%s vs \"\")",
           length < MOST ? length : MOST, text, length > MOST ? "..." : "");
  EXPECT_SAYS(TM_CHECK_STREQ(text, ""), expected);
}

Test(check, strings_are_shown_escaped_and_cut) {
  EXPECT_SAYS(TM_CHECK_STREQ("a\n\t\r\"\\\x01\x7f\xc3\xa9", ""),
              "\"a\\n\\t\\r\\\"\\\\\\x01\\x7f\\xc3\\xa9\" == \"\" "
              "(\"a\\n\\t\\r\\\"\\\\\\x01\\x7f\xc3\xa9\" vs \"\")");
  for (int length = 95; length <= 97; length++) {
    expect_shown(length);
  }
}

Test(check, a_pointer_to_chars_is_shown_with_its_text) {
  const char* text = "abc";
  char expected[128];
  snprintf(expected, sizeof expected, "text == NULL (%p \"abc\" vs NULL)", (const void*)text);
  EXPECT_SAYS(TM_CHECK_EQ(text, NULL), expected);
}

// Bytes that are no string, and go on in memory that is not there: compared as a pointer, they are
// not read before they are shown.
Test(check, what_is_not_a_string_is_shown_as_far_as_it_can_be_read) {
  const size_t page = 4096;
  char expected[128];
  char* pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  cr_assert(pages != MAP_FAILED);
  memset(pages, 'x', page);
  cr_assert(eq(int, mprotect(pages + page, page, PROT_NONE), 0));
  const char* last = pages + page - 4;
  snprintf(expected, sizeof expected, "last == NULL (%p (unreadable) vs NULL)", (const void*)last);
  EXPECT_SAYS(TM_CHECK_EQ(last, NULL), expected);
  pages[page - 1] = '\0';
  snprintf(expected, sizeof expected, "last == NULL (%p \"xxx\" vs NULL)", (const void*)last);
  EXPECT_SAYS(TM_CHECK_EQ(last, NULL), expected);
}

//===-- Pointers and statuses ---------------------------------------------===//

Test(check, notnull_gives_back_what_it_checked) {
  int value = 3;
  int* const pointer = &value;
  char text[] = "abc";
  int* volatile same = TM_CHECK_NOTNULL(pointer);
  cr_expect(eq(ptr, same, &value));
  *TM_CHECK_NOTNULL(pointer) = 4;
  cr_expect(eq(int, value, 4));
  cr_expect(eq(chr, TM_CHECK_NOTNULL(TM_CHECK_NOTNULL(text))[1], 'b'));
  void* nothing = NULL;
  EXPECT_SAYS(same = TM_CHECK_NOTNULL(nothing), "nothing != NULL");
  cr_expect(eq(ptr, same, &value));
}

Test(check, check_ok_shows_the_status_and_the_record) {
  TM_CHECK_OK(TM_OK);
  EXPECT_SAYS(TM_CHECK_OK(TM_RAISE(TM_ERR_NO_MEMORY, "%d bytes asked", 3)),
              "TM_RAISE(TM_ERR_NO_MEMORY, \"%d bytes asked\", 3) is TM_ERR_NO_MEMORY: "
              "3 bytes asked");
  tm_status other = TM_ERR_BUSY;  // not what the record is about
  EXPECT_SAYS(TM_CHECK_OK(other), "other is TM_ERR_BUSY: (no message on this thread)");
}

//===-- Where they stand --------------------------------------------------===//

Test(check, is_one_statement_after_if_without_braces) {
  int taken = 0;
  for (int i = 0; i < 2; i++) {
    if (i)
      TM_CHECK(i);
    else
      taken++;
    if (i)
      TM_CHECK_EQ(i, 1, "%d", i);
    else
      taken++;
    if (i)
      TM_CHECK_STREQ("a", "a");
    else
      taken++;
    if (i)
      TM_CHECK_OK(TM_OK);
    else
      taken++;
    if (i)
      TM_CHECK_NOTNULL(&i);
    else
      taken++;
  }
  cr_expect(eq(int, taken, 5));
}

static int same(int a, int b) {
  TM_CHECK_EQ(a, b);
  return a;
}

Test(check, names_of_the_caller_s_are_not_shadowed) {
  const int left = 1, right = 1, a = 1, b = 1, order = 1, value = 1, operand = 1;
  TM_CHECK_EQ(left, right);
  TM_CHECK_EQ(a, b);
  TM_CHECK_EQ(order, value);
  TM_CHECK_EQ(operand, 1);
  TM_CHECK_EQ(same(a, b), 1);
}

Test(check, the_message_names_the_scopes) {
  char expected[256];
  TM_SCOPE("step");
  snprintf(expected, sizeof expected, "2 + 2 == 5\n  in step (check_test.c:%d)", __LINE__ - 1);
  EXPECT_SAYS(TM_CHECK(2 + 2 == 5), expected);
}
