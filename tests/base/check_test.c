// Checks, the fatal handler and the log.

#include "tm/check.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "tm/base/trace.h"
#include "tm/log.h"

static jmp_buf caught;
static char message[4096];

static void catch_fatal(const char* text, void* user) {
  snprintf(message, sizeof message, "%s", text);
  *(int*)user += 1;
  longjmp(caught, 1);
}

// Runs a statement that must be fatal, and leaves the message in `message`.
#define EXPECT_FATAL(statement)                      \
  do {                                               \
    static int fatal_count;                          \
    fatal_count = 0;                                 \
    tm_set_fatal_handler(catch_fatal, &fatal_count); \
    if (!setjmp(caught)) {                           \
      statement;                                     \
    }                                                \
    cr_expect(eq(int, fatal_count, 1));              \
  } while (0)

Test(check, passing_checks_do_nothing) {
  TM_CHECK(1 < 2);
  TM_CHECK_EQ(1, 1u);
  TM_CHECK_NE(message, NULL);
  TM_CHECK_LT(-1, 0u);  // by value: no sign surprise
  TM_CHECK_LE(2.5, 3);
  TM_CHECK_GT(UINT64_MAX, -1);
  TM_CHECK_GE(INT64_MAX, INT64_MAX);
  TM_CHECK_OK(TM_OK);
}

Test(check, a_failing_comparison_prints_both_operands) {
  size_t used = 9;
  EXPECT_FATAL(TM_CHECK_LE(used, 8));
  cr_expect(strstr(message, "used <= 8 (9 vs 8)") != NULL);
  EXPECT_FATAL(TM_CHECK_EQ(-1, 2.5));
  cr_expect(strstr(message, "(-1 vs 2.5)") != NULL);
  EXPECT_FATAL(TM_CHECK_EQ((void*)0x10, NULL));
  cr_expect(strstr(message, "(0x10 vs NULL)") != NULL);
}

Test(check, the_message_names_the_place_and_the_scopes) {
  TM_SCOPE("step");
  EXPECT_FATAL(TM_CHECK(2 + 2 == 5));
  cr_expect(strstr(message, "check_test.c:") != NULL);
  cr_expect(strstr(message, "2 + 2 == 5") != NULL);
  cr_expect(strstr(message, "in step (check_test.c:") != NULL);
}

Test(check, check_ok_prints_the_error_record) {
  EXPECT_FATAL(TM_CHECK_OK(TM_RAISE(TM_ERR_NO_MEMORY, "3 bytes asked")));
  cr_expect(strstr(message, "TM_ERR_NO_MEMORY: 3 bytes asked") != NULL);
}

Test(check, nan_equals_nothing) {
  const double nan = __builtin_nan("");
  TM_CHECK_NE(nan, nan);
  EXPECT_FATAL(TM_CHECK_EQ(nan, nan));
  EXPECT_FATAL(TM_CHECK_LE(nan, 1));
}

Test(check, operands_are_evaluated_once) {
  int n = 0;
  TM_CHECK_EQ(++n, 1);
  cr_expect(eq(int, n, 1));
}

Test(check, is_one_statement_after_if_without_braces) {
  int taken = 0;
  if (taken)
    TM_CHECK(taken);
  else
    taken = 1;
  cr_expect(eq(int, taken, 1));
}

Test(fatal, the_default_handler_aborts, .signal = SIGABRT) { TM_CHECK(!"reached"); }

static void return_from_handler(const char* text, void* user) {
  (void)text;
  (void)user;
}

Test(fatal, a_handler_that_returns_is_followed_by_abort, .signal = SIGABRT) {
  tm_set_fatal_handler(return_from_handler, NULL);
  TM_FATAL("x");
}

Test(fatal, setting_a_handler_returns_the_one_before) {
  cr_expect(tm_set_fatal_handler(return_from_handler, NULL).handler == NULL);
  cr_expect(tm_set_fatal_handler(NULL, NULL).handler == return_from_handler);
}

static char logged[1024];
static int lines;

static void keep_line(tm_log_level level, const char* line, void* user) {
  (void)level;
  (void)user;
  snprintf(logged, sizeof logged, "%s", line);
  lines++;
}

Test(log, lines_below_the_level_are_dropped) {
  tm_set_log_sink(keep_line, NULL);
  tm_set_log_level(TM_LOG_LEVEL_WARNING);
  TM_LOG_INFO("not shown");
  cr_expect(eq(int, lines, 0));
  TM_LOG_WARNING("%d blocks", 3);
  cr_expect(eq(int, lines, 1));
  cr_expect(strstr(logged, "warning") != NULL);
  cr_expect(strstr(logged, "check_test.c:") != NULL);
  cr_expect(strstr(logged, "3 blocks") != NULL);
  tm_set_log_level(TM_LOG_LEVEL_OFF);
  TM_LOG_ERROR("not shown");
  cr_expect(eq(int, lines, 1));
}
