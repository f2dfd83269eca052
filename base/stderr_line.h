// Writes to stderr, without stdio: whole lines whatever other threads and processes write. Private.
#ifndef TM_BASE_STDERR_LINE_H_
#define TM_BASE_STDERR_LINE_H_

#include <stddef.h>

// Writes `size` bytes with one write(2), which keeps them together: on a pipe up to PIPE_BUF (4096)
// of them, in a file opened for appending all. What a signal or a full pipe left over follows; a
// reader that takes nothing for a second loses the rest. Leaves errno.
// Threads: safe, in signal handlers and forked children as well.
void tm_write_stderr_(const char* text, size_t size);

#endif  // TM_BASE_STDERR_LINE_H_
