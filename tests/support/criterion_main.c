// The main of every Criterion test.
//
// Criterion's own main passes when no test was linked into the program, runs tests several at a
// time (and then loses their timeouts), and knows nothing of Bazel's report and filter.

#include <criterion/criterion.h>
#include <criterion/internal/ordered-set.h>
#include <criterion/options.h>
#include <criterion/output.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/sanitizers.h"

#if UNDER_TSAN
// Criterion shares memory with the processes of its tests at an address that must be free in both,
// and draws it with rand_r. TSan reserves most of the address space; these are the values whose
// addresses lie in a part that it leaves alone.
enum { ARENA_FIRST = 0x350000, ARENA_LAST = 0x368000 };

__attribute__((visibility("default"))) int rand_r(unsigned* seed) {
  *seed = *seed * 1103515245u + 12345u;
  return ARENA_FIRST + (int)((*seed >> 8) % (ARENA_LAST - ARENA_FIRST + 1));
}
#endif

// Bazel kills the whole program after $TEST_TIMEOUT seconds. A test that hangs is stopped a little
// earlier, so that the report names it. (criterion_options.timeout is read by nobody.)
static void set_default_timeouts(struct criterion_test_set* set) {
  const char* seconds = getenv("TEST_TIMEOUT");
  if (!seconds) return;
  FOREACH_SET(struct criterion_suite_set * suite, set->suites) {
    FOREACH_SET(struct criterion_test * test, suite->tests) {
      if (test->data->timeout == 0) test->data->timeout = 0.9 * strtod(seconds, NULL);
    }
  }
}

// `--test_filter=suite/name`, with * in either; a filter without a slash is a test's name.
static const char* test_pattern(void) {
  static char pattern[1024];
  const char* filter = getenv("TESTBRIDGE_TEST_ONLY");
  if (!filter || !*filter) return NULL;
  int length = snprintf(pattern, sizeof(pattern), "%s%s", strchr(filter, '/') ? "" : "*/", filter);
  if (length < 0 || (size_t)length >= sizeof(pattern)) {
    fprintf(stderr, "The test filter is too long: %s\n", filter);
    exit(2);
  }
  return pattern;
}

// Visible, because Criterion looks main up in the process of each test, to run the test instead.
__attribute__((visibility("default"))) int main(int argc, char** argv) {
  struct criterion_test_set* set = criterion_initialize();
  if (set->tests == 0) {
    fprintf(stderr, "No test was linked into %s.\n", argc ? argv[0] : "this program");
    return 1;
  }
  set_default_timeouts(set);
  criterion_options.jobs = 1;
  criterion_options.pattern = test_pattern();
  if (!criterion_handle_args(argc, argv, true)) return 0;

  const char* report = getenv("XML_OUTPUT_FILE");
  if (report) criterion_add_output("xml", report);

  bool passed = criterion_run_all_tests(set);
  criterion_finalize(set);
  return passed ? 0 : 1;
}
