// The lines that the logging adaptor writes, read back and compared with what was done.

#include "tm/alloc/logging_adaptor.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/counting_allocator.h"
#include "tests/support/failing.h"
#include "tests/support/machine.h"
#include "tests/support/random.h"
#include "tm/alloc/cuda_pool.h"
#include "tm/alloc/host.h"
#include "tm/alloc/stream.h"

//===-- A file of the test's --------------------------------------------------===//

static char path[256];

static void make_path(void) {
  const char* folder = getenv("TEST_TMPDIR");
  (void)snprintf(path, sizeof path, "%s/logging.%d.csv", folder ? folder : "/tmp", (int)getpid());
}

static void remove_file(void) { (void)unlink(path); }

TestSuite(logging_adaptor, .init = make_path, .fini = remove_file);

static tm_allocator* create(tm_allocator* upstream) {
  tm_allocator* adaptor = tm_logging_adaptor_create(upstream, path);
  cr_assert(adaptor != NULL, "%s", tm_last_error()->message);
  return adaptor;
}

// A line of the file.
typedef struct line {
  long thread;
  int hours, minutes, seconds, microseconds;
  char action[32];
  uint64_t pointer;
  size_t size;
  uint64_t stream;
} line;

enum { MAX_LINES = 3000 };

static line lines[MAX_LINES];

// Reads a number, and the `end` behind it.
static uint64_t number(const char** text, int base, char end) {
  char* rest;
  const uint64_t value = strtoull(*text, &rest, base);
  cr_assert(rest != *text && *rest == end, "\"%s\" has no '%c'", *text, end);
  *text = rest + 1;
  return value;
}

static void parse(const char* text, line* out) {
  out->thread = (long)number(&text, 10, ',');
  out->hours = (int)number(&text, 10, ':');
  out->minutes = (int)number(&text, 10, ':');
  out->seconds = (int)number(&text, 10, ':');
  cr_assert(eq(sz, strcspn(text, ","), 6));  // microseconds, with the zeros in front
  out->microseconds = (int)number(&text, 10, ',');
  const size_t length = strcspn(text, ",");
  cr_assert(length < sizeof out->action);
  (void)snprintf(out->action, sizeof out->action, "%.*s", (int)length, text);
  text += length + 1;
  cr_assert(strncmp(text, "0x", 2) == 0);
  out->pointer = number(&text, 16, ',');
  out->size = number(&text, 10, ',');
  cr_assert(strncmp(text, "0x", 2) == 0);
  out->stream = number(&text, 16, '\n');
  cr_assert(strlen(text) == 0);
}

// Reads the file, checks its header, and returns how many lines follow.
static int read_log(void) {
  FILE* file = fopen(path, "r");
  cr_assert(file != NULL);
  char text[256];
  cr_assert(fgets(text, sizeof text, file) != NULL);
  cr_expect(eq(str, text, "Thread,Time,Action,Pointer,Size,Stream\n"));
  int count = 0;
  while (fgets(text, sizeof text, file)) {
    cr_assert(count < MAX_LINES);
    parse(text, &lines[count++]);
  }
  (void)fclose(file);
  return count;
}

//===-- Lines -----------------------------------------------------------------===//

Test(logging_adaptor, allocations_failures_and_frees_are_lines) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  upstream.budget = 4096;
  tm_allocator* adaptor = create(&upstream.base);
  void* block;
  void* none;
  cr_assert(eq(int, tm_allocator_alloc(adaptor, 1000, NULL, &block), TM_OK));
  cr_assert(eq(int, tm_allocator_alloc(adaptor, 5000, NULL, &none), TM_ERR_NO_MEMORY));
  tm_allocator_free(adaptor, block, 1000, NULL);
  cr_expect(eq(int, tm_logging_check(adaptor), TM_OK));
  cr_assert(eq(int, read_log(), 4));
  cr_expect(eq(str, lines[0].action, "allocate"));
  cr_expect(eq(u64, lines[0].pointer, (uint64_t)(uintptr_t)block));
  cr_expect(eq(sz, lines[0].size, 1000));  // as asked
  cr_expect(eq(u64, lines[0].stream, 0));
  cr_expect(eq(long, lines[0].thread, syscall(SYS_gettid)));
  cr_expect(eq(str, lines[1].action, "allocate failure"));
  cr_expect(eq(u64, lines[1].pointer, 0));
  cr_expect(eq(sz, lines[1].size, 5000));
  cr_expect(eq(str, lines[2].action, "allocate failure"));  // the second try
  cr_expect(eq(str, lines[3].action, "free"));
  cr_expect(eq(u64, lines[3].pointer, lines[0].pointer));
  cr_expect(eq(sz, lines[3].size, 1000));
  tm_allocator_release(adaptor);
  tm_allocator_release(&upstream.base);
  cr_expect(upstream.destroyed);
}

// Seconds of the day, with the microseconds.
static double time_of(const line* l) {
  return l->hours * 3600.0 + l->minutes * 60.0 + l->seconds + l->microseconds / 1e6;
}

Test(logging_adaptor, times_are_local_and_go_forwards) {
  cr_assert(setenv("TZ", "XYZ-05:30", 1) == 0);
  tzset();
  tm_auto_allocator adaptor = create(tm_host_allocator());
  const time_t before = time(NULL);
  for (int i = 0; i < 5; i++) {
    void* block;
    cr_assert(eq(int, tm_allocator_alloc(adaptor, 10, NULL, &block), TM_OK));
    tm_allocator_free(adaptor, block, 10, NULL);
  }
  cr_assert(eq(int, read_log(), 10));
  const double expected = (double)((before + 19800) % 86400);
  const double off = time_of(&lines[0]) - expected;
  const bool is_now = (off >= 0 && off < 60) || off < -86300;  // or midnight has passed
  cr_expect(is_now, "%f", off);
  for (int i = 1; i < 10; i++) {
    const double step = time_of(&lines[i]) - time_of(&lines[i - 1]);
    cr_expect(step >= 0 || step < -86300);
  }
}

Test(logging_adaptor, the_stream_is_the_one_named_or_the_allocators_own) {
  machine_configure(1, "64MiB");
  machine_require_devices(1);
  tm_auto_stream stream = tm_stream_create(0, 0);
  tm_auto_stream other = tm_stream_create(0, 0);
  tm_auto_allocator pool = tm_cuda_pool_allocator_create(stream, NULL);
  tm_auto_allocator adaptor = create(pool);
  void* block;
  cr_assert(eq(int, tm_allocator_alloc(adaptor, 10, NULL, &block), TM_OK));
  tm_allocator_free(adaptor, block, 10, NULL);
  cr_assert(eq(int, tm_allocator_alloc(adaptor, 10, other, &block), TM_OK));
  tm_allocator_free(adaptor, block, 10, other);
  cr_assert(eq(int, read_log(), 4));
  const uint64_t own = (uint64_t)(uintptr_t)tm_stream_handle(stream);
  cr_expect(eq(u64, lines[0].stream, own));
  cr_expect(eq(u64, lines[1].stream, own));
  cr_expect(eq(u64, lines[2].stream, (uint64_t)(uintptr_t)tm_stream_handle(other)));
  cr_expect(eq(u64, lines[3].stream, own));  // where the free happens
}

// Replays a random sequence from the file.
Test(logging_adaptor, the_file_tells_all_that_was_done) {
  enum { STEPS = 2000, MAX_LIVE = 50 };
  test_random random = test_random_start("logging_adaptor");
  tm_auto_allocator adaptor = create(tm_host_allocator());
  void* live[MAX_LIVE] = {NULL};
  size_t sizes[MAX_LIVE] = {0};
  static line done[STEPS];
  for (int step = 0; step < STEPS; step++) {
    const size_t i = test_random_below(&random, MAX_LIVE);
    const bool taking = !live[i];
    sizes[i] = taking ? 1 + test_random_below(&random, 9999) : sizes[i];
    if (taking) {
      cr_assert(eq(int, tm_allocator_alloc(adaptor, sizes[i], NULL, &live[i]), TM_OK));
    }
    done[step].pointer = (uint64_t)(uintptr_t)live[i];
    done[step].size = sizes[i];
    (void)snprintf(done[step].action, sizeof done[step].action, taking ? "allocate" : "free");
    if (!taking) {
      tm_allocator_free(adaptor, live[i], sizes[i], NULL);
      live[i] = NULL;
    }
  }
  cr_assert(eq(int, read_log(), STEPS));
  for (int step = 0; step < STEPS; step++) {
    cr_assert(eq(str, lines[step].action, done[step].action));
    cr_assert(eq(u64, lines[step].pointer, done[step].pointer));
    cr_assert(eq(sz, lines[step].size, done[step].size));
  }
  for (int i = 0; i < MAX_LIVE; i++) {
    tm_allocator_free(adaptor, live[i], sizes[i], NULL);
  }
}

//===-- Files -----------------------------------------------------------------===//

Test(logging_adaptor, an_earlier_file_is_emptied) {
  FILE* file = fopen(path, "w");
  cr_assert(file != NULL && fputs("old\n", file) > 0);
  cr_assert(fclose(file) == 0);
  tm_auto_allocator adaptor = create(tm_host_allocator());
  cr_expect(eq(int, tm_logging_check(adaptor), TM_OK));
  cr_expect(eq(int, read_log(), 0));
}

Test(logging_adaptor, a_file_that_cannot_be_made_is_an_error) {
  cr_expect(tm_logging_adaptor_create(tm_host_allocator(), "/no/such/folder/log.csv") == NULL);
  cr_expect(eq(int, tm_last_status(), TM_ERR_NOT_FOUND));
  cr_expect(strstr(tm_last_error()->message, "/no/such/folder/log.csv: No such file") != NULL);
  cr_expect(tm_logging_adaptor_create(tm_host_allocator(), "/") == NULL);
  cr_expect(eq(int, tm_last_status(), TM_ERR_IO));
  cr_expect(tm_logging_adaptor_create(tm_host_allocator(), "/dev/full") == NULL);
  cr_expect(eq(int, tm_last_status(), TM_ERR_IO));
  cr_expect(strstr(tm_last_error()->message, "No space left") != NULL, "%s",
            tm_last_error()->message);
}

// Replaces what is open for the log by a device that takes nothing.
static void fill_the_disk(void) {
  char name[64];
  char target[256];
  for (int file = 3; file < 256; file++) {
    (void)snprintf(name, sizeof name, "/proc/self/fd/%d", file);
    const ssize_t length = readlink(name, target, sizeof target - 1);
    if (length > 0) {
      target[length] = '\0';
      if (strstr(target, "logging.")) {
        const int full = open("/dev/full", O_WRONLY);
        cr_assert(dup2(full, file) == file);
        (void)close(full);
      }
    }
  }
}

Test(logging_adaptor, a_full_disk_fails_no_allocation_and_is_told) {
  tm_auto_allocator adaptor = create(tm_host_allocator());
  fill_the_disk();
  void* block;
  cr_assert(eq(int, tm_allocator_alloc(adaptor, 10, NULL, &block), TM_OK));
  tm_allocator_free(adaptor, block, 10, NULL);
  cr_expect(eq(int, tm_logging_check(adaptor), TM_ERR_IO));
  cr_expect(eq(str, (char*)tm_last_error()->message,
               "logging: 2 lines could not be written: No space left on device"));
}

Test(logging_adaptor, misuse_is_an_error) {
  cr_expect(tm_logging_adaptor_create(NULL, path) == NULL);
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
  cr_expect(access(path, F_OK) != 0);  // no file either
  cr_expect(tm_logging_adaptor_create(tm_host_allocator(), NULL) == NULL);
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
  cr_expect(eq(int, tm_logging_check(tm_host_allocator()), TM_ERR_INVALID));
}

static tm_status create_and_use(tm_allocator* upstream) {
  tm_auto_allocator adaptor = tm_logging_adaptor_create(upstream, path);
  if (!adaptor) {
    return tm_last_status();
  }
  void* block;
  TM_TRY(tm_allocator_alloc(adaptor, 100, NULL, &block));
  tm_allocator_free(adaptor, block, 100, NULL);
  return TM_OK;
}

Test(logging_adaptor, survives_every_failure) {
  expect_survives_every_failure_or_retries(create_and_use);
}
