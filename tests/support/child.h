// Runs code in a child process: what ends the process, and what is read once in one, such as the
// environment.
#ifndef TM_TESTS_SUPPORT_CHILD_H_
#define TM_TESTS_SUPPORT_CHILD_H_

#include <stdbool.h>

extern char child_stderr[16384];  // what the latest child wrote there, NUL-terminated

// Calls `function(argument)` in a child, which exits with 0 if it returns. Gives back what waitpid
// says of it.
int run_in_child(void (*function)(const void*), const void* argument);

// The same with `file` as the child's stderr; child_stderr is left as it was.
int run_in_child_on(int file, void (*function)(const void*), const void* argument);

bool child_aborted(int status);

#endif  // TM_TESTS_SUPPORT_CHILD_H_
