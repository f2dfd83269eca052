// Many threads log at once, to what takes lines in pieces where it can: every line arrives whole,
// once and in its thread's order. Threads that fork while others are in the sink leave no child
// waiting.

#define _GNU_SOURCE  // F_SETPIPE_SZ

#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tm/check.h"
#include "tm/log.h"

enum { THREADS = 8, LINES = 500, FORKS = 50, CHILD_SECONDS = 20, FORKS_SECONDS = 40 };

//===-- Logging -----------------------------------------------------------===//

// The lengths go up and down, a few of them to the longest that there is.
static int length_of(long line) { return line % 50 ? (int)(line * 7 % 400) : TM_LOG_LINE_SIZE; }

static void* log_lines(void* argument) {
  char filler[TM_LOG_LINE_SIZE];
  memset(filler, 'x', sizeof filler);
  for (int line = 0; line < LINES; line++) {
    TM_LOG_ERROR("thread %d line %d %.*s|", (int)(intptr_t)argument, line, length_of(line), filler);
  }
  return NULL;
}

static void log_from_all_threads(void) {
  pthread_t threads[THREADS];
  for (intptr_t i = 0; i < THREADS; i++) {
    TM_CHECK_EQ(pthread_create(&threads[i], NULL, log_lines, (void*)i), 0);
  }
  for (int i = 0; i < THREADS; i++) {
    TM_CHECK_EQ(pthread_join(threads[i], NULL), 0);
  }
}

//===-- Reading what arrived ----------------------------------------------===//

static void check_line(const char* line, int* next) {
  TM_CHECK_EQ(strncmp(line, "tmcore: 2", 9), 0, "%s", line);
  const char* text = TM_CHECK_NOTNULL(strstr(line, ": thread "), "%s", line);
  char* after_thread;
  char* after_number;
  const long thread = strtol(text + strlen(": thread "), &after_thread, 10);
  TM_CHECK(thread >= 0 && thread < THREADS && strncmp(after_thread, " line ", 6) == 0, "%s", line);
  const long number = strtol(after_thread + strlen(" line "), &after_number, 10);
  TM_CHECK_EQ(number, next[thread]++, "%s", line);
  const char* filler = after_number + 1;
  const size_t length = strspn(filler, "x");
  const char* end = length_of(number) == TM_LOG_LINE_SIZE ? "..." : "|";
  TM_CHECK_STREQ(filler + length, end);
  TM_CHECK(*end == '.' || length == (size_t)length_of(number), "%s", line);
}

static void check_lines(FILE* from) {
  static char line[2 * TM_LOG_LINE_SIZE];
  int next[THREADS] = {0};
  while (fgets(line, sizeof line, from)) {
    char* end = strchr(line, '\n');
    TM_CHECK_NOTNULL(end, "%s", line);
    *end = '\0';
    check_line(line, next);
  }
  for (int i = 0; i < THREADS; i++) {
    TM_CHECK_EQ(next[i], LINES, "thread %d", i);
  }
}

// Runs `log_from_all_threads` with `file` as stderr.
static void log_to(int file) {
  const int before = dup(STDERR_FILENO);
  TM_CHECK_EQ(dup2(file, STDERR_FILENO), STDERR_FILENO);
  log_from_all_threads();
  TM_CHECK_EQ(dup2(before, STDERR_FILENO), STDERR_FILENO);
  (void)close(before);
}

static void lines_in_a_file_are_whole(void) {
  FILE* lines = TM_CHECK_NOTNULL(tmpfile());
  log_to(fileno(lines));
  rewind(lines);
  check_lines(lines);
  (void)fclose(lines);
}

static void* read_pipe(void* end) {
  FILE* lines = TM_CHECK_NOTNULL(fdopen((int)(intptr_t)end, "r"));
  check_lines(lines);
  (void)fclose(lines);
  return NULL;
}

// A pipe so small that it is full nearly always.
static void lines_in_a_pipe_are_whole(bool blocks) {
  int ends[2];
  pthread_t reader;
  TM_CHECK_EQ(pipe(ends), 0);
  TM_CHECK_GE(fcntl(ends[1], F_SETPIPE_SZ, 4096), 4096);
  TM_CHECK_EQ(fcntl(ends[1], F_SETFL, blocks ? 0 : O_NONBLOCK), 0);
  TM_CHECK_EQ(pthread_create(&reader, NULL, read_pipe, (void*)(intptr_t)ends[0]), 0);
  log_to(ends[1]);
  (void)close(ends[1]);
  TM_CHECK_EQ(pthread_join(reader, NULL), 0);
}

//===-- Sinks -------------------------------------------------------------===//

static int inside;
static long received;

// Calls are serialized, so these need no atomics; ThreadSanitizer says where that does not hold.
static void count(tm_log_level level, const char* line, void* user) {
  (void)level;
  TM_CHECK_EQ(inside++, 0);
  TM_CHECK_NOTNULL(strstr(line, ": thread "));
  ++*(long*)user;
  inside--;
}

static void calls_of_a_sink_are_serialized(void) {
  tm_set_log_sink(count, &received);
  log_from_all_threads();
  tm_set_log_sink(NULL, NULL);
  TM_CHECK_EQ(received, (long)THREADS * LINES);
}

// When tm_set_log_sink returns, the sink before is not running any more: its pointer may go.
static void a_sink_that_was_replaced_is_not_called(void) {
  pthread_t thread;
  long* counts[64];
  tm_set_log_sink(count, &received);
  TM_CHECK_EQ(pthread_create(&thread, NULL, log_lines, (void*)0), 0);
  for (int i = 0; i < 64; i++) {
    counts[i] = TM_CHECK_NOTNULL(calloc(1, sizeof **counts));
    tm_set_log_sink(count, counts[i]);
    if (i) free(counts[i - 1]);
  }
  TM_CHECK_EQ(pthread_join(thread, NULL), 0);
  tm_set_log_sink(NULL, NULL);
  free(counts[63]);
}

static bool stop;

static void* log_until_told(void* unused) {
  while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
    TM_LOG_ERROR(": thread");
  }
  return unused;
}

// Nearly always some thread is in it. It takes another lock that forks take.
static void dawdle(tm_log_level level, const char* line, void* user) {
  (void)level;
  (void)line;
  (void)user;
  (void)usleep(100);
  (void)tm_set_fatal_handler(NULL, NULL);
}

static void log_as_child(void) {
  alarm(CHILD_SECONDS);
  TM_LOG_ERROR("x");
  tm_set_log_sink(dawdle, NULL);
  TM_LOG_ERROR("x");
  _exit(0);
}

static void children_of_threads_that_log_can_log(void) {
  pthread_t threads[2];
  (void)alarm(FORKS_SECONDS);  // for a fork that never returns
  tm_set_log_sink(dawdle, NULL);
  for (int i = 0; i < 2; i++) {
    TM_CHECK_EQ(pthread_create(&threads[i], NULL, log_until_told, NULL), 0);
  }
  for (int i = 0; i < FORKS; i++) {
    const pid_t child = fork();
    if (child == 0) log_as_child();
    int status = -1;
    TM_CHECK_EQ(waitpid(child, &status, 0), child);
    TM_CHECK_EQ(status, 0, "a child waits for a lock, fork %d", i);
  }
  __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
  for (int i = 0; i < 2; i++) {
    TM_CHECK_EQ(pthread_join(threads[i], NULL), 0);
  }
  (void)alarm(0);
  tm_set_log_sink(NULL, NULL);
}

int main(void) {
  lines_in_a_file_are_whole();
  lines_in_a_pipe_are_whole(true);
  lines_in_a_pipe_are_whole(false);
  calls_of_a_sink_are_serialized();
  a_sink_that_was_replaced_is_not_called();
  children_of_threads_that_log_can_log();
  puts("log_threads_test: done");
  return 0;
}
