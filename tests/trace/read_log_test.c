// Files of any format: which one it is, what cannot be read, and the real logs where they are
// there.

#include "trace/read_log.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tm/tm.h>
#include <unistd.h>

#include "tests/support/failing.h"
#include "tests/trace/log_check.h"
#include "tests/trace/parse.h"

#define RMM "Thread,Time,Action,Pointer,Size,Stream\n1,0,allocate,0x1,64,0x0\n"
#define MINIMALLOC "id,lower,upper,size\na,0,1,64\n"
#define UMPIRE                                                                        \
  "{\"category\":\"operation\",\"name\":\"allocate\",\"numeric_args\":{\"size\":64}," \
  "\"string_args\":{\"allocator_ref\":\"0xa0\",\"pointer\":\"0x20\"},\"timestamp\":1}\n"

//===-- Formats -----------------------------------------------------------===//

static void expect_format(const char* text, log_format wanted) {
  allocation_log log = parsed(LOG_ANY, text);
  cr_expect(eq(int, log.format, wanted), "%s", text);
  expect_events(&log, wanted == LOG_MINIMALLOC ? "+0:64 -0" : "+0:64");
  allocation_log_deinit(&log);
}

Test(read_log, the_content_says_which_format_it_is) {
  expect_format(RMM, LOG_RMM);
  expect_format("\n" UMPIRE, LOG_UMPIRE);
  expect_format("# comment\n" UMPIRE, LOG_UMPIRE);
  expect_format(MINIMALLOC, LOG_MINIMALLOC);
}

Test(read_log, a_format_can_be_forced) {
  expect_malformed(LOG_UMPIRE, RMM, 1, "column 6");
  expect_malformed(LOG_RMM, UMPIRE, 1, "the first line must be Thread,");
  expect_malformed(LOG_MINIMALLOC, RMM, 1, "a column is not known");
}

Test(read_log, what_is_no_log_is_refused) {
  expect_malformed(LOG_ANY, "", 1, "the file is empty");
  expect_malformed(LOG_ANY, "\n \r\n", 1, "the file is empty");
  expect_malformed(LOG_ANY, "\nTIMESTAMP,ContextTokens,GeneratedTokens\n", 2, "neither RMM's");
}

Test(read_log, formats_have_names) {
  for (int i = 0; i < LOG_FORMATS; i++) {
    cr_expect(eq(int, log_format_find(log_format_name((log_format)i)), i));
  }
  cr_expect(eq(int, log_format_find("csv"), LOG_FORMATS));
}

//===-- Files -------------------------------------------------------------===//

Test(read_log, a_file_that_cannot_be_read_is_named) {
  allocation_log log;
  cr_expect(eq(int, allocation_log_read("/nowhere/x.csv", LOG_ANY, &log), TM_ERR_NOT_FOUND));
  cr_expect(strstr(tm_last_error()->message, "/nowhere/x.csv: No such file") != NULL);
  cr_expect(eq(int, allocation_log_read("/tmp", LOG_ANY, &log), TM_ERR_IO));
  cr_expect(strstr(tm_last_error()->message, "/tmp: Is a directory") != NULL);
  cr_expect(eq(int, allocation_log_read("/dev/null", LOG_ANY, &log), TM_ERR_CORRUPT));
  cr_expect(strstr(tm_last_error()->message, "/dev/null:1: the file is empty") != NULL);
  cr_expect(eq(ptr, log.events, NULL));
}

static char temporary[64];

static void write_temporary(const char* text) {
  (void)snprintf(temporary, sizeof(temporary), "/tmp/read_log_test_XXXXXX");
  const int file = mkstemp(temporary);
  cr_assert(file >= 0);
  cr_assert(write(file, text, strlen(text)) == (ssize_t)strlen(text));
  close(file);
}

static tm_status read_temporary(tm_allocator* upstream) {
  allocation_log log;
  (void)upstream;
  TM_TRY(allocation_log_read(temporary, LOG_ANY, &log));
  allocation_log_deinit(&log);
  return TM_OK;
}

Test(read_log, reading_a_file_survives_every_failure) {
  write_temporary(RMM);
  expect_survives_every_failure(read_temporary);
  unlink(temporary);
}

Test(read_log, a_large_file_is_read_whole) {
  enum { ROWS = 20000 };
  static char text[ROWS * 48];
  size_t at = (size_t)snprintf(text, sizeof(text), "Thread,Time,Action,Pointer,Size,Stream\n");
  for (unsigned i = 1; i <= ROWS; i++) {
    at += (size_t)snprintf(text + at, sizeof(text) - at, "%u,0,allocate,0x%x,1,0x%x\n", i % 7,
                           16 * i, i % 3);
  }
  allocation_log log;
  write_temporary(text);
  cr_assert(eq(int, allocation_log_read(temporary, LOG_ANY, &log), TM_OK), "%s",
            tm_last_error()->message);
  unlink(temporary);
  cr_expect(log_check(&log) == NULL);
  cr_expect(eq(sz, log.event_count, ROWS));
  cr_expect(eq(u32, log.thread_count, 7));
  allocation_log_deinit(&log);
}

//===-- The real logs -----------------------------------------------------===//

// A log in $TM_TEST_DATA, or in ../shared/data beside the workspace; skips the test where it is not
// there.
static allocation_log read_real(const char* name) {
  static char path[PATH_MAX + 64];
  char source[PATH_MAX];
  allocation_log log;
  const char* folder = getenv("TM_TEST_DATA");
  if (folder) {
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
  } else if (realpath("tests/trace/read_log_test.c", source)) {
    (void)snprintf(path, sizeof(path), "%.*s../shared/data/%s",
                   (int)(strlen(source) - strlen("tests/trace/read_log_test.c")), source, name);
  }
  if (access(path, R_OK) != 0) cr_skip_test("%s is not there: set TM_TEST_DATA", name);
  cr_assert(allocation_log_read(path, LOG_ANY, &log) == TM_OK, "%s", tm_last_error()->message);
  cr_assert(log_check(&log) == NULL, "%s", log_check(&log));
  return log;
}

Test(read_log, umpires_tutorial_is_read) {
  allocation_log log = read_real("umpire/tut_replay_log.json");
  cr_expect(eq(int, log.format, LOG_UMPIRE));
  cr_expect(eq(u64, log.allocations, 64));
  cr_expect(eq(u64, log.frees, 64));
  cr_expect(eq(u64, log.failures, 0));
  cr_expect(eq(u64, log.last_live_blocks, 0));
  allocation_log_deinit(&log);
}

// 177 allocations and frees, and those of 42 reallocations that libc did in one.
Test(read_log, umpires_test_log_is_read) {
  allocation_log log = read_real("umpire/output.replay");
  cr_expect(eq(int, log.format, LOG_UMPIRE));
  cr_expect(log.allocations > 177 && log.allocations < 177 + 42, "%llu",
            (unsigned long long)log.allocations);
  cr_expect(eq(u64, log.allocations, log.frees));
  cr_expect(eq(u64, log.last_live_blocks, 0));
  allocation_log_deinit(&log);
}

static void expect_problem(const char* name, uint64_t buffers, uint64_t peak) {
  allocation_log log = read_real(name);
  cr_expect(eq(int, log.format, LOG_MINIMALLOC));
  cr_expect(eq(u64, log.allocations, buffers), "%s", name);
  cr_expect(eq(u64, log.peak_live_bytes, peak), "%s", name);
  cr_expect(eq(u64, log.last_live_blocks, 0));
  allocation_log_deinit(&log);
}

Test(read_log, the_planning_problems_are_read) {
  expect_problem("minimalloc/input.12.csv", 5, 12);
  expect_problem("minimalloc/A.1048576.csv", 154, 1048576);
  expect_problem("minimalloc/B.1048576.csv", 170, 1048576);
  expect_problem("minimalloc/C.1048576.csv", 203, 1039360);
  expect_problem("minimalloc/D.1048576.csv", 213, 986112);
  expect_problem("minimalloc/E.1048576.csv", 215, 1048576);
}
