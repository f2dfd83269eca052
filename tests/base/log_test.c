// Log lines: what they look like, which are shown, and where they go.

#define _GNU_SOURCE  // posix_openpt, strptime

#include "tm/log.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/child.h"
#include "tests/support/expect_fatal.h"
#include "tm/base/trace.h"

// Behind the time and the thread, which always have the same length but for the thread's number.
static const char* after_thread(const char* line) {
  const size_t time_end = strlen("tmcore: 2026-03-01T09:30:12.004217Z ");
  const char* end = strlen(line) > time_end ? strchr(line + time_end, ' ') : NULL;
  return end ? end + 1 : "(not a line)";
}

//===-- Time --------------------------------------------------------------===//

// The linker gives the library this clock.
static bool stopped;
static struct timespec stopped_at;
int __real_clock_gettime(clockid_t clock, struct timespec* now);  // NOLINT: the linker's names
int __wrap_clock_gettime(clockid_t clock, struct timespec* now);  // NOLINT

int __wrap_clock_gettime(clockid_t clock, struct timespec* now) {  // NOLINT
  if (!stopped) {
    return __real_clock_gettime(clock, now);
  }
  *now = stopped_at;
  return 0;
}

//===-- A sink ------------------------------------------------------------===//

static char kept[2 * TM_LOG_LINE_SIZE];
static tm_log_level kept_level;
static int kept_count;

static void keep(tm_log_level level, const char* line, void* user) {
  snprintf(kept, sizeof kept, "%s", line);
  kept_level = level;
  kept_count++;
  if (user) ++*(int*)user;
}

static void keep_everything(void) {
  tm_set_log_sink(keep, NULL);
  tm_set_log_level(TM_LOG_LEVEL_TRACE);
}

//===-- Lines -------------------------------------------------------------===//

static void log_three_requests(const void* unused) {
  (void)unused;
  tm_set_log_level(TM_LOG_LEVEL_INFO);
  stopped = true;
  stopped_at = (struct timespec){.tv_sec = 1772357412, .tv_nsec = 4217999};
  TM_LOG_INFO("%d requests, %zu bytes", 3, (size_t)4096);
  fprintf(stderr, "%ld\n", (long)syscall(SYS_gettid));
}
enum { THREE_REQUESTS_LINE = __LINE__ - 3 };

Test(log, a_line_has_time_thread_level_place_and_text) {
  char expected[256];
  cr_expect(eq(int, run_in_child(log_three_requests, NULL), 0));
  const long thread = strtol(strchr(child_stderr, '\n') + 1, NULL, 10);
  snprintf(expected, sizeof expected,
           "tmcore: 2026-03-01T09:30:12.004217Z %ld info log_test.c:%d: 3 requests, 4096 bytes\n"
           "%ld\n",
           thread, THREE_REQUESTS_LINE, thread);
  cr_expect(eq(str, child_stderr, expected));
}

Test(log, the_time_is_the_clock_s) {
  keep_everything();
  struct tm parts = {0};
  const time_t before = time(NULL);
  TM_LOG_INFO("now");
  const time_t after = time(NULL);
  cr_assert(ne(ptr, strptime(kept, "tmcore: %Y-%m-%dT%H:%M:%S.", &parts), NULL));
  cr_expect(le(long, before, timegm(&parts)));
  cr_expect(ge(long, after, timegm(&parts)));
}

// Every 13 hours, 7 minutes and a second from 1970 on, over leap days and centuries.
Test(log, every_date_is_the_calendar_s) {
  keep_everything();
  stopped = true;
  for (int64_t at = 0; at < INT64_C(500) * 366 * 86400; at += 13 * 3600 + 7 * 60 + 1) {
    char expected[64];
    struct tm parts;
    stopped_at = (struct timespec){.tv_sec = at, .tv_nsec = (long)(at % 1000000) * 1000};
    (void)gmtime_r(&stopped_at.tv_sec, &parts);
    const size_t length = strftime(expected, sizeof expected, "tmcore: %Y-%m-%dT%H:%M:%S.", &parts);
    snprintf(expected + length, sizeof expected - length, "%06ldZ ", (long)(at % 1000000));
    TM_LOG_INFO("x");
    cr_assert(eq(int, strncmp(kept, expected, strlen(expected)), 0), "%s, not %s", kept, expected);
  }
}

Test(log, a_clock_before_1970_is_shown_as_1970) {
  keep_everything();
  stopped = true;
  stopped_at.tv_sec = -1;
  TM_LOG_INFO("x");
  cr_expect(eq(int, strncmp(kept, "tmcore: 1970-01-01T00:00:00.000000Z ", 36), 0));
}

Test(log, files_are_shown_in_full_where_the_environment_asks) {
  char expected[256];
  setenv("TM_SRC_FULL_PATH", "1", 1);
  keep_everything();
  TM_LOG_INFO("x");
  snprintf(expected, sizeof expected, "info %s:%d: x", __FILE__, __LINE__ - 1);
  cr_expect(eq(str, (char*)after_thread(kept), expected));
}

static void log_a_long_line(const void* unused) {
  (void)unused;
  static char text[2 * TM_LOG_LINE_SIZE];
  memset(text, 'x', sizeof text - 1);
  TM_LOG_ERROR("%s", text);
}

Test(log, a_line_that_is_too_long_is_cut_and_ends_in_dots) {
  setenv("TM_LOG_COLOR", "always", 1);
  cr_expect(eq(int, run_in_child(log_a_long_line, NULL), 0));
  const size_t length = strlen(child_stderr);
  cr_expect(le(sz, length, (size_t)TM_LOG_LINE_SIZE));
  cr_expect(gt(sz, length, (size_t)TM_LOG_LINE_SIZE - 32));
  cr_expect(eq(str, child_stderr + length - 5, "x...\n"));
}

Test(log, errno_is_kept_and_can_be_shown) {
  keep_everything();
  errno = ENOENT;
  TM_LOG_INFO("%m");
  cr_expect(eq(int, errno, ENOENT));
  cr_expect(ne(ptr, strstr(kept, ": No such file or directory"), NULL));
}

static void log_to_nowhere(const void* unused) {
  (void)unused;
  close(STDERR_FILENO);
  errno = E2BIG;
  TM_LOG_ERROR("lost");
  _exit(errno == E2BIG ? 0 : 1);
}

Test(log, a_stderr_that_is_closed_is_no_error) {
  cr_expect(eq(int, run_in_child(log_to_nowhere, NULL), 0));
  cr_expect(eq(str, child_stderr, ""));
}

//===-- Levels ------------------------------------------------------------===//

static void log_at_every_level(const void* unused) {
  (void)unused;
  TM_LOG_TRACE("1");
  TM_LOG_DEBUG("2");
  TM_LOG_INFO("3");
  TM_LOG_WARNING("4");
  TM_LOG_ERROR("5");
}

// The names of the levels shown, and at the end what is in no line.
static void levels_shown(char* names, size_t size) {
  names[0] = '\0';
  for (char* line = strtok(child_stderr, "\n"); line; line = strtok(NULL, "\n")) {
    char level[256] = "";
    const char* text = strstr(line, " instead of ") ? line : after_thread(line);
    sscanf(text, text == line ? "%255[^\n]" : "%255s", level);
    const size_t used = strlen(names);
    snprintf(names + used, size - used, "%s%s", used ? " " : "", level);
  }
}

Test(log, the_environment_chooses_the_level) {
  static const struct {
    const char* setting;
    const char* levels;
  } rows[] = {
      {NULL, "warning error"},
      {"", "warning error"},
      {"trace", "trace debug info warning error"},
      {"debug", "debug info warning error"},
      {"info", "info warning error"},
      {"warning", "warning error"},
      {"warn", "warning error"},
      {"error", "error"},
      {"off", ""},
      {"fatal", ""},
      {"Info", "info warning error"},
      {"WARN", "warning error"},
      {"2",
       "tmcore: TM_LOG_LEVEL is none of trace, debug, info, warning, error, off, fatal; using "
       "warning instead of \"2\" warning error"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    char levels[512];
    unsetenv("TM_LOG_LEVEL");
    if (rows[i].setting) setenv("TM_LOG_LEVEL", rows[i].setting, 1);
    cr_expect(eq(int, run_in_child(log_at_every_level, NULL), 0));
    levels_shown(levels, sizeof levels);
    cr_expect(eq(str, levels, (char*)rows[i].levels), "TM_LOG_LEVEL=%s", rows[i].setting);
  }
}

Test(log, a_level_that_was_set_goes_before_the_environment) {
  setenv("TM_LOG_LEVEL", "trace", 1);
  tm_set_log_level(TM_LOG_LEVEL_ERROR);
  cr_expect(eq(int, tm_get_log_level(), TM_LOG_LEVEL_ERROR));
  tm_set_log_sink(keep, NULL);
  TM_LOG_WARNING("not shown");
  cr_expect(eq(int, kept_count, 0));
  TM_LOG_ERROR("shown");
  cr_expect(eq(int, kept_count, 1));
  cr_expect(eq(int, kept_level, TM_LOG_LEVEL_ERROR));
}

Test(log, the_environment_s_level_can_be_asked_for) {
  setenv("TM_LOG_LEVEL", "debug", 1);
  cr_expect(eq(int, tm_get_log_level(), TM_LOG_LEVEL_DEBUG));
  setenv("TM_LOG_LEVEL", "error", 1);  // read once
  cr_expect(eq(int, tm_get_log_level(), TM_LOG_LEVEL_DEBUG));
}

Test(log, levels_beyond_the_ends_are_the_ends) {
  tm_set_log_level((tm_log_level)17);
  cr_expect(eq(int, tm_get_log_level(), TM_LOG_LEVEL_OFF));
  tm_set_log_level((tm_log_level)-1);
  cr_expect(eq(int, tm_get_log_level(), TM_LOG_LEVEL_TRACE));
}

Test(log, arguments_are_evaluated_only_where_the_line_is_shown) {
  int n = 0;
  tm_set_log_sink(keep, NULL);
  tm_set_log_level(TM_LOG_LEVEL_INFO);
  TM_LOG_DEBUG("%d", ++n);
  cr_expect(eq(int, n, 0));
  TM_LOG_INFO("%d", ++n);
  cr_expect(eq(int, n, 1));
}

//===-- Colours -----------------------------------------------------------===//

static void log_an_error(const void* unused) {
  (void)unused;
  TM_LOG_ERROR("bad");
}

// What `log_an_error` writes to a terminal.
static void run_on_a_terminal(void) {
  const int master = posix_openpt(O_RDWR | O_NOCTTY);
  cr_assert(ge(int, master, 0));
  cr_assert(eq(int, grantpt(master), 0));
  cr_assert(eq(int, unlockpt(master), 0));
  const int terminal = open(ptsname(master), O_RDWR | O_NOCTTY);
  cr_assert(ge(int, terminal, 0));
  cr_expect(eq(int, run_in_child_on(terminal, log_an_error, NULL), 0));
  const ssize_t size = read(master, child_stderr, sizeof child_stderr - 1);
  cr_assert(gt(long, size, 0));
  child_stderr[size] = '\0';
  close(terminal);
  close(master);
}

Test(log, the_environment_and_the_terminal_choose_colours) {
  static const char complaint[] =
      "tmcore: TM_LOG_COLOR is none of always, never, auto; using auto instead of \"red\"";
  static const struct {
    const char* setting;
    bool in_files, on_terminals;
  } rows[] = {
      {NULL, false, true},     {"", false, true},   {"auto", false, true},
      {"always", true, true},  {"1", true, true},   {"Always", true, true},
      {"never", false, false}, {"0", false, false}, {"red", false, true},
  };
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    unsetenv("TM_LOG_COLOR");
    if (rows[i].setting) setenv("TM_LOG_COLOR", rows[i].setting, 1);
    const bool unknown = rows[i].setting && !strcmp(rows[i].setting, "red");
    for (int on_terminal = 0; on_terminal < 2; on_terminal++) {
      if (on_terminal) {
        run_on_a_terminal();
      } else {
        cr_expect(eq(int, run_in_child(log_an_error, NULL), 0));
      }
      const bool coloured = on_terminal ? rows[i].on_terminals : rows[i].in_files;
      const char* line = unknown ? strchr(child_stderr, '\n') + 1 : child_stderr;
      const char* expected = coloured ? "\033[31merror\033[0m log_test.c:" : "error log_test.c:";
      cr_expect(eq(int, strncmp(after_thread(line), expected, strlen(expected)), 0),
                "TM_LOG_COLOR=%s, terminal %d: %s", rows[i].setting, on_terminal, child_stderr);
      const bool complains = strncmp(child_stderr, complaint, strlen(complaint)) == 0;
      cr_expect(eq(int, complains, unknown), "%s", child_stderr);
    }
  }
}

Test(log, each_level_has_its_colour) {
  static const char* const expected[] = {"\033[2mtrace\033[0m ", "\033[2mdebug\033[0m ",
                                         "\033[32minfo\033[0m ", "\033[33mwarning\033[0m ",
                                         "\033[31merror\033[0m "};
  setenv("TM_LOG_COLOR", "always", 1);
  setenv("TM_LOG_LEVEL", "trace", 1);
  cr_expect(eq(int, run_in_child(log_at_every_level, NULL), 0));
  const char* line = child_stderr;
  for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
    cr_assert(eq(int, strncmp(after_thread(line), expected[i], strlen(expected[i])), 0));
    line = strchr(line, '\n') + 1;
  }
  cr_expect(eq(str, (char*)line, ""));
}

//===-- Sinks -------------------------------------------------------------===//

Test(log, a_sink_gets_the_level_the_line_and_its_pointer) {
  int calls = 0;
  char expected[64];
  setenv("TM_LOG_COLOR", "always", 1);  // not for sinks
  tm_set_log_sink(keep, &calls);
  TM_LOG_WARNING("%d blocks", 3);
  snprintf(expected, sizeof expected, "warning log_test.c:%d: 3 blocks", __LINE__ - 1);
  cr_expect(eq(str, (char*)after_thread(kept), expected));
  cr_expect(eq(int, kept_level, TM_LOG_LEVEL_WARNING));
  cr_expect(eq(int, calls, 1));
}

static void log_without_and_with_sink(const void* unused) {
  (void)unused;
  tm_set_log_sink(keep, NULL);
  TM_LOG_ERROR("kept");
  tm_set_log_sink(NULL, NULL);
  TM_LOG_ERROR("shown");
  if (kept_count != 1) _exit(1);
}

Test(log, no_sink_is_stderr_again) {
  cr_expect(eq(int, run_in_child(log_without_and_with_sink, NULL), 0));
  cr_expect(eq(ptr, strstr(child_stderr, ": kept"), NULL));
  cr_expect(ne(ptr, strstr(child_stderr, ": shown\n"), NULL));
}

static void log_inside(tm_log_level level, const char* line, void* user) {
  keep(level, line, user);
  TM_LOG_ERROR("from inside");
}

static void log_inside_a_sink(const void* unused) {
  (void)unused;
  tm_set_log_sink(log_inside, NULL);
  TM_LOG_ERROR("from outside");
  TM_LOG_ERROR("from outside");
  if (kept_count != 2 || !strstr(kept, ": from outside")) _exit(1);
}

Test(log, what_a_sink_logs_itself_goes_to_stderr) {
  cr_expect(eq(int, run_in_child(log_inside_a_sink, NULL), 0));
  const char* first = strstr(child_stderr, ": from inside\n");
  cr_assert(ne(ptr, (void*)first, NULL));
  cr_expect(ne(ptr, strstr(first + 1, ": from inside\n"), NULL));
  cr_expect(eq(ptr, strstr(child_stderr, ": from outside"), NULL));
}

static void replace_itself(tm_log_level level, const char* line, void* user) {
  (void)level;
  (void)line;
  tm_set_log_sink(keep, user);
}

Test(log, a_sink_can_replace_itself) {
  int calls = 0;
  tm_set_log_sink(replace_itself, &calls);
  TM_LOG_ERROR("1");
  cr_expect(eq(int, kept_count, 0));
  TM_LOG_ERROR("2");
  cr_expect(eq(int, calls, 1));
}

static void fork_inside(tm_log_level level, const char* line, void* user) {
  keep(level, line, NULL);
  *(pid_t*)user = fork();
}

Test(log, a_child_made_inside_a_sink_can_log) {
  pid_t child = -1;
  tm_set_log_sink(fork_inside, &child);
  TM_LOG_ERROR("x");
  if (child == 0) {
    alarm(20);  // if it finds the lock held
    tm_set_log_sink(keep, NULL);
    TM_LOG_ERROR("from the child");
    _exit(strstr(kept, ": from the child") ? 7 : 1);
  }
  int status = -1;
  cr_assert(eq(int, waitpid(child, &status, 0), child));
  const bool could_log = WIFEXITED(status) && WEXITSTATUS(status) == 7;
  cr_expect(could_log);
}

//===-- Fatal messages ----------------------------------------------------===//

static void fail(const void* unused) {
  (void)unused;
  tm_set_log_level(TM_LOG_LEVEL_OFF);
  TM_SCOPE("step");
  TM_LOG_FATAL("%d left", 2);
}
enum { FAIL_LINE = __LINE__ - 2 };

Test(log, a_fatal_line_shows_the_scopes_and_ends_the_program) {
  char expected[256];
  cr_expect(child_aborted(run_in_child(fail, NULL)));
  snprintf(expected, sizeof expected,
           "tmcore: fatal: log_test.c:%d: 2 left\n  in step (log_test.c:%d)\n", FAIL_LINE,
           FAIL_LINE - 1);
  cr_expect(eq(str, child_stderr, expected));
}

// A sink that keeps lines until it is told that the program ends.
static void buffer_lines(tm_log_level level, const char* line, void* user) {
  FILE* buffer = user;
  fprintf(buffer, "%s\n", strrchr(line, ':'));
  if (level == TM_LOG_LEVEL_FATAL) fflush(buffer);
}

static void say_dying(const char* message, void* user) {
  (void)message;
  (void)user;
  if (write(STDERR_FILENO, "handler\n", 8) < 0) _exit(1);
}

static void buffer_and_fail(const void* unused) {
  (void)unused;
  FILE* buffer = fdopen(STDERR_FILENO, "w");
  setvbuf(buffer, NULL, _IOFBF, BUFSIZ);
  tm_set_log_sink(buffer_lines, buffer);
  tm_set_fatal_handler(say_dying, NULL);
  TM_LOG_ERROR("first");
  TM_LOG_ERROR("second");
  TM_LOG_FATAL("the end");
}

Test(log, a_sink_that_buffers_is_told_before_the_program_ends) {
  cr_expect(child_aborted(run_in_child(buffer_and_fail, NULL)));
  cr_expect(eq(str, child_stderr, ": first\n: second\n: the end\nhandler\n"));
}

static void fail_inside(tm_log_level level, const char* line, void* user) {
  (void)line;
  (void)user;
  if (level != TM_LOG_LEVEL_FATAL) TM_LOG_FATAL("in the sink");
}

static void fail_inside_a_sink(const void* unused) {
  (void)unused;
  tm_set_log_sink(fail_inside, NULL);
  TM_LOG_ERROR("x");
}

Test(log, what_is_fatal_inside_a_sink_ends_the_program) {
  cr_expect(child_aborted(run_in_child(fail_inside_a_sink, NULL)));
  cr_expect(ne(ptr, strstr(child_stderr, ": in the sink\n"), NULL));
}

static int stuck[2];  // a pipe: something is there when a thread is in the sink

static void get_stuck(tm_log_level level, const char* line, void* user) {
  (void)level;
  (void)line;
  (void)user;
  if (write(stuck[1], "x", 1) < 0) _exit(1);
  for (;;) pause();
}

static void* log_on_a_thread(void* unused) {
  TM_LOG_ERROR("x");
  return unused;
}

Test(log, a_sink_that_is_stuck_does_not_keep_the_program_alive, .timeout = 30) {
  pthread_t thread;
  char byte;
  tm_set_log_sink(get_stuck, NULL);
  cr_assert(eq(int, pipe(stuck), 0));
  cr_assert(eq(int, pthread_create(&thread, NULL, log_on_a_thread, NULL), 0));
  cr_assert(eq(long, read(stuck[0], &byte, 1), 1));
  EXPECT_FATAL(TM_LOG_FATAL("still told"), ": still told");
}
