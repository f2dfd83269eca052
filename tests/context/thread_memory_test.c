// What the library keeps per thread must fit what the loader sets aside for libraries that dlopen
// loads: a Python module that has tmcore in it, for instance. Since a part of it is initial-exec,
// all of it counts.

#define _GNU_SOURCE  // dl_iterate_phdr

#include <link.h>
#include <stddef.h>
#include <stdio.h>

#include "tests/support/machine.h"
#include "tests/support/sanitizers.h"
#include "tm/alloc/fault_adaptor.h"
#include "tm/alloc/host.h"
#include "tm/alloc/limit_adaptor.h"
#include "tm/context/context.h"

// Bytes: glibc's reserve is 1664; what is the simulated device's is not in a real program.
enum { LIMIT = 1664 + 96 };

static size_t thread_locals;  // bytes

static int look_at_the_program(struct dl_phdr_info* info, size_t size, void* user) {
  (void)size;
  (void)user;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    if (info->dlpi_phdr[i].p_type == PT_TLS) {
      thread_locals = info->dlpi_phdr[i].p_memsz;
    }
  }
  return 1;  // the program comes first, and the library is linked into it
}

// What has thread-locals of its own and nothing below refers to.
static void link_adaptors(void) {
  tm_auto_allocator limit = tm_limit_adaptor_create(tm_host_allocator(), 1024);
  tm_auto_allocator fault = tm_fault_adaptor_create(limit, NULL);
  tm_allocator_free(fault, NULL, 0, NULL);
}

int main(void) {
  link_adaptors();
  tm_context* token = tm_context_capture();
  TM_WITH_CONTEXT(token) { (void)dl_iterate_phdr(look_at_the_program, NULL); }
  tm_context_release(token);
  printf("%zu bytes of thread-locals, of at most %d\n", thread_locals, LIMIT);
  if (UNDER_ASAN || UNDER_TSAN || !machine_is_simulated()) {
    printf("SKIPPED: a sanitizer's or the CUDA runtime's are counted as well\n");
    return 0;
  }
  return thread_locals > 0 && thread_locals <= LIMIT ? 0 : 1;
}
