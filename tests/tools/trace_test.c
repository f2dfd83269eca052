// tm trace's JSON, on the real logs where they are there.

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HOST                                                                  \
  "--allocators host --allocators 'stack(host)' --allocators 'cached(host)' " \
  "--allocators 'limit:1GiB(statistics(host))' --allocators 'stack(cached(dry))' "
#define DEVICE                                                                          \
  "--allocators cuda --allocators pool --allocators 'stack(pool)' --allocators pinned " \
  "--allocators 'limit:8GiB(cached(cuda))' --allocators 'stack(cached(cuda))' "

//===-- Running -----------------------------------------------------------===//

// Skips the test where there is no device, with the driver's reason.
static void require_device(void) {
  char line[256];
  FILE* info = popen("tools/tm info", "r");  // NOLINT(cert-env33-c): the command is the test's own
  cr_assert(info != NULL);
  bool has_device = false;
  while (!has_device && fgets(line, sizeof(line), info)) {
    has_device = strncmp(line, "device 0", strlen("device 0")) == 0;
  }
  (void)pclose(info);
  if (!has_device) cr_skip_test("%s", line);
}

// A log in $TM_TEST_DATA, or in ../shared/data beside the workspace; skips the test where it is not
// there.
static const char* real_log(const char* name) {
  static char path[PATH_MAX + 64];
  char source[PATH_MAX];
  const char* folder = getenv("TM_TEST_DATA");
  path[0] = '\0';
  if (folder) {
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
  } else if (realpath("tests/tools/trace_test.c", source)) {
    (void)snprintf(path, sizeof(path), "%.*s../shared/data/%s",
                   (int)(strlen(source) - strlen("tests/tools/trace_test.c")), source, name);
  }
  if (access(path, R_OK) != 0) cr_skip_test("%s is not there: set TM_TEST_DATA", name);
  return path;
}

// The program's JSON, which the caller gives back.
static json_t* trace(const char* log, const char* arguments, int wanted_status) {
  char command[PATH_MAX + 512];
  json_error_t error;
  (void)snprintf(command, sizeof(command), "tools/tm trace --json %s '%s'%s", arguments, log,
                 wanted_status ? " 2>/dev/null" : "");
  FILE* output = popen(command, "r");  // NOLINT(cert-env33-c): the command is the test's own
  cr_assert(output != NULL);
  json_t* root = json_loadf(output, JSON_REJECT_DUPLICATES, &error);
  cr_assert(root != NULL, "%s: line %d: %s", command, error.line, error.text);
  const int status = pclose(output);
  cr_assert(status == wanted_status << 8, "%s: status %x", command, (unsigned)status);
  return root;
}

static const json_t* run_of(const json_t* root, size_t index) {
  return json_array_get(json_object_get(root, "runs"), index);
}

static size_t run_count(const json_t* root) {
  return json_array_size(json_object_get(root, "runs"));
}

static int64_t integer(const json_t* object, const char* key) {
  const json_t* value = json_object_get(object, key);
  cr_assert(value && json_is_integer(value), "\"%s\" is no integer", key);
  return json_integer_value(value);
}

static double number(const json_t* object, const char* key) {
  const json_t* value = json_object_get(object, key);
  cr_assert(value && json_is_number(value), "\"%s\" is no number", key);
  return json_number_value(value);
}

static const char* text(const json_t* object, const char* key) {
  const json_t* value = json_object_get(object, key);
  cr_assert(value && json_is_string(value), "\"%s\" is no string", key);
  return json_string_value(value);
}

static bool is_null(const json_t* object, const char* key) {
  const json_t* value = json_object_get(object, key);
  cr_assert(value != NULL, "\"%s\" is missing", key);
  return json_is_null(value);
}

//===-- What must hold of every run ---------------------------------------===//

static void expect_run(const json_t* root, const json_t* run) {
  const json_t* log = json_object_get(root, "log");
  const int64_t reserved = integer(run, "peak_reserved_bytes");
  const int64_t live = integer(run, "live_at_peak_bytes");
  cr_expect(eq(int, json_is_true(json_object_get(run, "failed")), 0));
  cr_expect(eq(i64, integer(run, "served"), integer(log, "allocations")));
  cr_expect(eq(i64, integer(run, "not_served"), 0));
  cr_expect(eq(i64, integer(run, "peak_live_bytes"), integer(log, "peak_live_bytes")));
  cr_expect(live <= integer(run, "peak_live_bytes"));
  cr_expect(reserved >= live);
  cr_expect(number(run, "fragmentation") >= 0 && number(run, "fragmentation") < 1);
  cr_expect(number(run, "reserved_by_live") >= 1);
  cr_expect(eq(i64, integer(run, "operations"),
               integer(root, "repeat") * (integer(log, "allocations") + integer(log, "frees"))));
  cr_expect(number(run, "ns_per_operation") > 0);
  cr_expect(number(run, "seconds") > 0);
  const bool has_arena = strncmp(text(run, "allocators"), "stack", 5) == 0;
  cr_expect(eq(int, is_null(run, "high_water_bytes"), !has_arena));
  if (has_arena) {
    cr_expect(integer(run, "high_water_bytes") >= integer(run, "peak_live_bytes"));
    cr_expect(eq(i64, integer(run, "upstream_calls_last_pass"), 0), "it has learned");
  }
}

static json_t* trace_well(const char* log, const char* arguments) {
  json_t* root = trace(log, arguments, 0);
  for (size_t i = 0; i < run_count(root); i++) expect_run(root, run_of(root, i));
  return root;
}

//===-- Umpire's logs -----------------------------------------------------===//

static void expect_umpire(const char* name, int64_t allocations) {
  json_t* root = trace_well(real_log(name), HOST "--repeat 3");
  const json_t* log = json_object_get(root, "log");
  cr_expect(strcmp(text(log, "format"), "umpire") == 0);
  cr_expect(eq(i64, integer(log, "allocations"), allocations));
  cr_expect(eq(i64, integer(log, "frees"), allocations));
  cr_expect(eq(i64, integer(log, "last_live_blocks"), 0));
  cr_expect(is_null(root, "device"));
  cr_expect(is_null(root, "capacity_bytes"));
  cr_expect(eq(sz, run_count(root), 5));
  json_decref(root);
}

Test(trace, umpires_logs_are_served_by_the_host) {
  expect_umpire("umpire/tut_replay_log.json", 64);
  expect_umpire("umpire/output.replay", 204);
}

static void expect_served_by_device(const char* name) {
  json_t* root = trace_well(real_log(name), DEVICE "--repeat 3");
  cr_expect(strlen(text(json_object_get(root, "device"), "name")) > 0);
  cr_expect(eq(sz, run_count(root), 6));
  json_decref(root);
}

Test(trace, umpires_logs_are_served_by_the_device) {
  require_device();
  expect_served_by_device("umpire/tut_replay_log.json");
  expect_served_by_device("umpire/output.replay");
}

Test(trace, what_is_not_served_is_named) {
  json_t* root = trace(real_log("umpire/tut_replay_log.json"),
                       "--allocators host --allocators 'stack:maximum=4KiB(host)'", 1);
  const json_t* run = run_of(root, 1);
  expect_run(root, run_of(root, 0));
  const json_t* lines = json_object_get(run, "not_served_lines");
  cr_expect(integer(run, "not_served") > 10);
  cr_expect(eq(i64, integer(run, "served") + integer(run, "not_served"), 64));
  cr_assert(eq(sz, json_array_size(lines), 10));
  for (size_t i = 1; i < 10; i++) {
    cr_expect(json_integer_value(json_array_get(lines, i)) >
              json_integer_value(json_array_get(lines, i - 1)));
  }
  cr_expect(integer(run, "peak_live_bytes") <= 4096);
  cr_expect(eq(i64, integer(run, "peak_reserved_bytes"), 4096));
  json_decref(root);
}

//===-- Planning problems -------------------------------------------------===//

static void expect_problem(const char* name, int64_t capacity) {
  json_t* root = trace_well(real_log(name), HOST "--repeat 3");
  cr_expect(eq(i64, integer(root, "capacity_bytes"), capacity));
  for (size_t i = 0; i < 2; i++) {
    const json_t* run = run_of(root, i);
    const double wanted = (double)integer(run, "peak_reserved_bytes") / (double)capacity;
    cr_expect(number(run, "reserved_by_capacity") > 0.999 * wanted);
    cr_expect(number(run, "reserved_by_capacity") < 1.001 * wanted);
  }
  // Sizes are multiples of 256: nothing is rounded, and libc keeps no holes that are counted.
  if (capacity > 12) cr_expect(number(run_of(root, 0), "reserved_by_live") < 1.000001);
  json_decref(root);
}

Test(trace, planning_problems_are_compared_with_their_capacity) {
  expect_problem("minimalloc/A.1048576.csv", 1048576);
  expect_problem("minimalloc/E.1048576.csv", 1048576);
  expect_problem("minimalloc/input.12.csv", 12);
}

//===-- A log with threads ------------------------------------------------===//

// Deterministic figures must not depend on timing.
static const char* const figures[] = {
    "peak_live_bytes",  "peak_reserved_bytes", "live_at_peak_bytes",
    "high_water_bytes", "upstream_calls",      "upstream_calls_last_pass",
    "served",
};

enum { ROWS = 2000 };

static const char* write_threads(void) {
  static char path[] = "/tmp/trace_test_XXXXXX";
  bool is_live[16] = {false};
  unsigned seed = 7;
  FILE* file = fdopen(mkstemp(path), "w");
  cr_assert(file != NULL);
  (void)fprintf(file, "Thread,Time,Action,Pointer,Size,Stream\n");
  for (int i = 0; i < ROWS; i++) {
    const unsigned slot = (unsigned)rand_r(&seed) % 16;
    (void)fprintf(file, "%u,0,%s,0x%x,%u,0x%x\n", (unsigned)rand_r(&seed) % 4,
                  is_live[slot] ? "free" : "allocate", slot + 1, 100 * slot,
                  (unsigned)rand_r(&seed) % 3 * 16);
    is_live[slot] = !is_live[slot];
  }
  (void)fclose(file);
  return path;
}

Test(trace, in_the_logs_order_threads_give_the_same_figures_every_time) {
  require_device();
  const char* log = write_threads();
  json_t* first = trace(log, HOST DEVICE, 0);
  json_t* second = trace(log, HOST DEVICE, 0);
  json_t* concurrent = trace(log, HOST DEVICE "--concurrent", 0);
  unlink(log);
  for (size_t i = 0; i < run_count(first); i++) {
    const json_t* run = run_of(first, i);
    cr_expect(eq(i64, integer(run, "not_served"), 0));
    cr_expect(eq(i64, integer(run_of(concurrent, i), "not_served"), 0));
    cr_expect(eq(i64, integer(run_of(concurrent, i), "operations"), integer(run, "operations")));
    for (size_t f = 0; f < sizeof(figures) / sizeof(figures[0]); f++) {
      cr_expect(json_equal(json_object_get(run, figures[f]),
                           json_object_get(run_of(second, i), figures[f])),
                "%s of %s", figures[f], text(run, "allocators"));
    }
  }
  json_decref(first);
  json_decref(second);
  json_decref(concurrent);
}
