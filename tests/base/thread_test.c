// Reading memory that may not be there.

#define _GNU_SOURCE  // process_vm_readv

#include "tm/base/thread.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PAGE = 4096 };

// A readable page that an unreadable one follows.
static char* page_before_a_hole(void) {
  char* pages = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  cr_assert(pages != MAP_FAILED);
  memset(pages, 'x', 2 * PAGE);
  cr_assert(eq(int, mprotect(pages + PAGE, PAGE, PROT_NONE), 0));
  return pages;
}

static void expect_reads_only_what_is_there(void) {
  char* pages = page_before_a_hole();
  char out[64] = "";
  errno = E2BIG;
  cr_expect(tm_read_memory_(pages + PAGE - 64, out, 64));
  cr_expect(eq(chr, out[63], 'x'));
  cr_expect(not(tm_read_memory_(pages + PAGE - 63, out, 64)));
  cr_expect(not(tm_read_memory_(pages + PAGE, out, 1)));
  cr_expect(tm_read_memory_(pages + PAGE - 1, out, 1));
  cr_expect(not(tm_read_memory_(NULL, out, 8)));
  cr_expect(not(tm_read_memory_((void*)(UINTPTR_MAX - 7), out, 16)));
  munmap(pages, PAGE);
  cr_expect(not(tm_read_memory_(pages, out, 8)));
  cr_expect(eq(int, errno, E2BIG));
}

Test(thread, reads_only_what_is_there) { expect_reads_only_what_is_there(); }

// What container runtimes do by default.
static void forbid_process_vm_readv(void) {
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {.len = sizeof filter / sizeof filter[0], .filter = filter};
  cr_assert(eq(int, prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0));
  cr_assert(eq(int, prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0));
  char byte = 'b';
  const struct iovec piece = {.iov_base = &byte, .iov_len = 1};
  cr_assert(eq(int, (int)process_vm_readv(getpid(), &piece, 1, &piece, 1, 0), -1));
}

Test(thread, reads_the_same_where_a_sandbox_forbids_process_vm_readv) {
  forbid_process_vm_readv();
  expect_reads_only_what_is_there();
}
