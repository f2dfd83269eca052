// What a process that exits says of the blocks that a tracking adaptor still has out. A plain
// program, since what is tested is how one ends.

#define _GNU_SOURCE  // memfd_create

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tm/alloc/host.h"
#include "tm/alloc/tracking_adaptor.h"
#include "tm/base/trace.h"
#include "tm/check.h"

static tm_allocator* adaptor;
static void* freed_late;
static void* leaked;

static void take_two(bool quiet) {
  adaptor = tm_tracking_adaptor_create(tm_host_allocator(), &(tm_tracking_options){.quiet = quiet});
  TM_CHECK(adaptor != NULL);
  TM_WITH_SCOPE("a global") TM_CHECK_OK(tm_allocator_alloc(adaptor, 77, NULL, &freed_late));
  TM_WITH_SCOPE("a leak") TM_CHECK_OK(tm_allocator_alloc(adaptor, 1234, NULL, &leaked));
}

static void free_late(void) { tm_allocator_free(adaptor, freed_late, 77, NULL); }

static void exit_with_a_leak(void) {
  (void)atexit(free_late);  // as the destructor of a global does
  take_two(false);
  exit(0);
}

// A child that exits has not leaked what its parent still uses.
static void exit_after_a_child(void) {
  (void)atexit(free_late);
  take_two(false);
  const pid_t child = fork();
  if (child == 0) {
    exit(0);
  }
  TM_CHECK_EQ(waitpid(child, NULL, 0), child);
  exit(0);
}

static const char* after(const char* text, const char* what) {
  const char* found = text ? strstr(text, what) : NULL;
  return found ? found + strlen(what) : NULL;
}

static void exit_quietly(void) {
  take_two(true);
  exit(0);
}

static void exit_clean(void) {
  take_two(false);
  free_late();
  tm_allocator_free(adaptor, leaked, 1234, NULL);
  exit(0);
}

// Runs `function` in a child, and stores what that wrote to stderr.
static void run(void (*function)(void), char* text, size_t size) {
  const int file = memfd_create("stderr", 0);
  TM_CHECK_GE(file, 0);
  (void)fflush(stdout);
  const pid_t child = fork();
  TM_CHECK_GE(child, 0);
  if (child == 0) {
    (void)dup2(file, STDERR_FILENO);
    function();
  }
  int status = -1;
  TM_CHECK_EQ(waitpid(child, &status, 0), child);
  TM_CHECK_EQ(status, 0);
  const ssize_t length = pread(file, text, size - 1, 0);
  TM_CHECK_GE(length, 0);
  text[length] = '\0';
  (void)close(file);
}

int main(void) {
  char text[4096];
  run(exit_with_a_leak, text, sizeof text);
  TM_CHECK(strstr(text, "tmcore: at exit: tracking: 1 block of 1234 bytes in all is outstanding\n"),
           "%s", text);
  TM_CHECK(strstr(text, ": a leak (leak_report_test.c:"), "%s", text);
  TM_CHECK(!strstr(text, "a global"), "%s", text);
  run(exit_after_a_child, text, sizeof text);
  TM_CHECK(after(text, "at exit:"), "%s", text);
  TM_CHECK(!after(after(text, "at exit:"), "at exit:"), "%s", text);
  run(exit_quietly, text, sizeof text);
  TM_CHECK_STREQ(text, "");
  run(exit_clean, text, sizeof text);
  TM_CHECK_STREQ(text, "");
  printf("leaks are reported at exit, and nothing else\n");
  return 0;
}
