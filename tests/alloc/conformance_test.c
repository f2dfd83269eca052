// What every allocator promises, asked of every one that is no adaptor: each case runs once for
// each row. Criterion starts a process for each, so a row begins with a fresh machine.

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stddef.h>

#include "tests/alloc/conformance_cases.h"

static struct criterion_test_params every_row(void) {
  static size_t indices[CONFORMANCE_ROWS];
  for (size_t i = 0; i < CONFORMANCE_ROWS; i++) {
    indices[i] = i;
  }
  return cr_make_param_array(size_t, indices, CONFORMANCE_ROWS);
}

#define CONFORMANCE_TEST(name)                                           \
  ParameterizedTestParameters(conformance, name) { return every_row(); } \
  ParameterizedTest(const size_t* index, conformance, name) { conformance_##name(index); }

CONFORMANCE_CASES(CONFORMANCE_TEST)
CONFORMANCE_FAILURES(CONFORMANCE_TEST)
CONFORMANCE_LAST(CONFORMANCE_TEST)
