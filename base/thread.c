#define _GNU_SOURCE  // process_vm_readv, pthread_getattr_np

#include "tm/base/thread.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PAGE = 4096 };  // bytes, or a part of a page where pages are larger

__thread tm_thread tm_thread_ __attribute__((tls_model("initial-exec")));

// The bounds are those that the thread was created with: a fiber's stack lies outside.
bool tm_is_on_unused_stack_(const void* address) {
  const uintptr_t low = tm_stack_low_();
  pthread_attr_t attributes;
  if ((uintptr_t)address >= low || pthread_getattr_np(pthread_self(), &attributes) != 0) {
    return false;
  }
  void* lowest = NULL;
  size_t size = 0;
  (void)pthread_attr_getstack(&attributes, &lowest, &size);
  (void)pthread_attr_destroy(&attributes);
  return (uintptr_t)address >= (uintptr_t)lowest && low - (uintptr_t)lowest < size;
}

// The kernel reads the set before it looks at what to do with it, which is nothing it knows: EFAULT
// tells of an address that cannot be read, EINVAL of one that can. Every sandbox allows this call,
// since libc needs it.
bool tm_is_readable_(const void* address) {
  enum { NO_SUCH_ACTION = 0x7a7a, KERNEL_SET_SIZE = _NSIG / 8 };
  const int before = errno;
  const long result = syscall(SYS_rt_sigprocmask, NO_SUCH_ACTION, address, NULL, KERNEL_SET_SIZE);
  const bool readable = result == -1 && errno == EINVAL;
  errno = before;
  return readable;
}

// In words of the kernel's set, each of which lies in one page.
static bool range_is_readable(uintptr_t first, size_t size) {
  const uintptr_t last = first + size - 1;
  if (last < first) {
    return false;
  }
  for (uintptr_t page = first / PAGE; page <= last / PAGE; page++) {
    if (!tm_is_readable_((const void*)(page * PAGE))) {
      return false;
    }
  }
  return true;
}

void tm_copy_unchecked_(const void* from, void* to, size_t size) {
  const volatile char* source = from;
  for (size_t i = 0; i < size; i++) {
    ((char*)to)[i] = source[i];
  }
}

bool tm_read_memory_(const void* address, void* out, size_t size) {
  const struct iovec local = {.iov_base = out, .iov_len = size};
  const struct iovec remote = {.iov_base = (void*)(uintptr_t)address, .iov_len = size};
  const int before = errno;
  const ssize_t copied = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
  const bool refused = copied < 0 && errno != EFAULT;  // a sandbox, or a kernel without it
  errno = before;
  if (!refused) {
    return copied == (ssize_t)size;
  }
  if (!range_is_readable((uintptr_t)address, size)) {
    return false;
  }
  tm_copy_unchecked_(address, out, size);
  return true;
}
