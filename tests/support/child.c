#define _GNU_SOURCE  // memfd_create

#include "tests/support/child.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

char child_stderr[16384];

int run_in_child_on(int file, void (*function)(const void*), const void* argument) {
  const pid_t child = fork();
  cr_assert(ge(int, child, 0));
  if (child == 0) {
    dup2(file, STDERR_FILENO);
    function(argument);
    _exit(0);
  }
  int status = -1;
  cr_assert(eq(int, waitpid(child, &status, 0), child));
  return status;
}

int run_in_child(void (*function)(const void*), const void* argument) {
  const int file = memfd_create("stderr", 0);
  cr_assert(ge(int, file, 0));
  const int status = run_in_child_on(file, function, argument);
  const ssize_t size = pread(file, child_stderr, sizeof child_stderr - 1, 0);
  cr_assert(ge(long, size, 0));
  child_stderr[size] = '\0';
  close(file);
  return status;
}

bool child_aborted(int status) { return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT; }
