#include "tests/engine/heap_calls.h"

#include <errno.h>
#include <execinfo.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <tm/base/attributes.h>
#include <unistd.h>

#include "tests/support/sanitizers.h"

enum {
  SITES = 16,      // that are remembered; calls from further ones are only counted
  FRAMES = 12,     // of a site
  OUR_FRAMES = 2,  // remember() and the heap function itself
};

typedef struct heap_site {
  const char* function;  // of the heap
  uint64_t calls;
  int depth;
  void* frames[FRAMES];  // return addresses, innermost first
} heap_site;

typedef struct heap_count {
  bool on;
  uint64_t calls;
  int site_count;
  heap_site sites[SITES];
} heap_count;

static _Thread_local heap_count count;

//===-- Counting ----------------------------------------------------------===//

#if UNDER_ASAN || UNDER_TSAN

bool heap_calls_are_counted(void) { return false; }

#else

bool heap_calls_are_counted(void) { return true; }

static bool is_same(const heap_site* a, const heap_site* b) {
  return a->function == b->function && a->depth == b->depth &&
         memcmp(a->frames, b->frames, (size_t)a->depth * sizeof(*a->frames)) == 0;
}

static void add_site(const heap_site* site) {
  for (int i = 0; i < count.site_count; i++) {
    if (is_same(&count.sites[i], site)) {
      count.sites[i].calls++;
      return;
    }
  }
  if (count.site_count < SITES) count.sites[count.site_count++] = *site;
}

static __attribute__((noinline)) void remember(const char* function) {
  void* frames[OUR_FRAMES + FRAMES];
  count.on = false;  // in case the unwinder asks the heap
  heap_site site = {.function = function, .calls = 1};
  site.depth = backtrace(frames, OUR_FRAMES + FRAMES) - OUR_FRAMES;
  if (site.depth < 0) site.depth = 0;
  memcpy(site.frames, frames + OUR_FRAMES, (size_t)site.depth * sizeof(*frames));
  add_site(&site);
  count.calls++;
  count.on = true;
}

static inline __attribute__((always_inline)) void note(const char* function) {
  if (__builtin_expect(count.on, false)) remember(function);
}

//===-- The heap's functions ----------------------------------------------===//

// What glibc's are called besides.
extern void* __libc_malloc(size_t size);
extern void* __libc_calloc(size_t elements, size_t size);
extern void* __libc_realloc(void* memory, size_t size);
extern void __libc_free(void* memory);
extern void* __libc_memalign(size_t alignment, size_t size);

// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): glibc's are reserved names

TM_API void* malloc(size_t size) {
  note("malloc");
  return __libc_malloc(size);
}

TM_API void* calloc(size_t elements, size_t size) {
  note("calloc");
  return __libc_calloc(elements, size);
}

TM_API void* realloc(void* memory, size_t size) {
  note("realloc");
  return __libc_realloc(memory, size);
}

TM_API void free(void* memory) {
  note("free");
  __libc_free(memory);
}

TM_API void* memalign(size_t alignment, size_t size) {
  note("memalign");
  return __libc_memalign(alignment, size);
}

TM_API void* aligned_alloc(size_t alignment, size_t size) {
  note("aligned_alloc");
  return __libc_memalign(alignment, size);
}

TM_API int posix_memalign(void** out, size_t alignment, size_t size) {
  note("posix_memalign");
  if (alignment % sizeof(void*) != 0 || alignment == 0 || (alignment & (alignment - 1)) != 0) {
    return EINVAL;
  }
  void* memory = __libc_memalign(alignment, size);
  if (!memory) return ENOMEM;
  *out = memory;
  return 0;
}

// NOLINTEND(readability-inconsistent-declaration-parameter-name)

#endif  // the heap is not the sanitizer's

void heap_calls_begin(void) {
  void* frame;
  (void)backtrace(&frame, 1);  // the first one loads the unwinder, with heap calls of its own
  count.calls = 0;
  count.site_count = 0;
  count.on = true;
}

uint64_t heap_calls_end(void) {
  count.on = false;
  return count.calls;
}

//===-- Printing ----------------------------------------------------------===//

// Where the linker says that the program begins: file offsets and addresses differ by it.
extern const char __executable_start[];  // NOLINT(readability-identifier-naming): its name

// Appends the address of the call before return address `frame`, as addr2line takes it.
static size_t append_address(char* text, size_t size, size_t used, const void* frame) {
  const ptrdiff_t offset = (const char*)frame - __executable_start - 1;
  const int length = snprintf(text + used, size - used, " 0x%tx", offset);
  return length > 0 && (size_t)length < size - used ? used + (size_t)length : used;
}

// Cuts off "at FILE:?", which is what addr2line guesses where lines are not known.
static void drop_guess(char* line) {
  char* at = strstr(line, " at ");
  const size_t length = strlen(line);
  if (at && length > 2 && strcmp(line + length - 3, ":?\n") == 0) {
    at[0] = '\n';
    at[1] = '\0';
  }
}

// Frames outside the program have no names: "??".
static void print_frames(FILE* to, const heap_site* site) {
  char program[512];
  char command[1024];
  char line[512];
  const ssize_t length = readlink("/proc/self/exe", program, sizeof(program) - 1);
  program[length > 0 ? length : 0] = '\0';
  size_t used = (size_t)snprintf(command, sizeof(command), "addr2line -s -f -p -e '%s'", program);
  for (int i = 0; i < site->depth; i++) {
    used = append_address(command, sizeof(command), used, site->frames[i]);
  }
  (void)fflush(to);
  FILE* names = popen(command, "r");  // NOLINT(cert-env33-c): a diagnosis of our own program
  if (!names) return;
  while (fgets(line, sizeof(line), names)) {
    drop_guess(line);
    (void)fprintf(to, "      %s", line);
  }
  (void)pclose(names);
}

void heap_calls_print(FILE* to) {
  for (int i = 0; i < count.site_count; i++) {
    const heap_site* site = &count.sites[i];
    (void)fprintf(to, "    %s, %llu times, called by\n", site->function,
                  (unsigned long long)site->calls);
    print_frames(to, site);
  }
}
