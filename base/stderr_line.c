#include "tm/base/stderr_line.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <unistd.h>

enum { PATIENCE_MS = 1000 };

// Whether it is worth trying again after a write that failed.
static bool wait_for_room(int error) {
  if (error == EINTR) {
    return true;
  }
  struct pollfd stderr_poll = {.fd = STDERR_FILENO, .events = POLLOUT};
  return error == EAGAIN && poll(&stderr_poll, 1, PATIENCE_MS) > 0;
}

void tm_write_stderr_(const char* text, size_t size) {
  const int before = errno;
  while (size > 0) {
    const ssize_t written = write(STDERR_FILENO, text, size);
    if (written >= 0) {
      text += written;
      size -= (size_t)written;
    } else if (!wait_for_room(errno)) {
      break;
    }
  }
  errno = before;
}
