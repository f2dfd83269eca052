// What every allocator promises, asked of every adaptor over every allocator, of every pair of
// adaptors over a few, and of a stack over every adaptor. A process for each; its cases follow one
// another.

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <criterion/parameterized.h>
#include <stddef.h>
#include <string.h>

#include "tests/alloc/conformance_cases.h"
#include "tests/support/machine.h"
#include "tm/base/status.h"

static size_t
    indices[CONFORMANCE_PAIRS > CONFORMANCE_SINGLES ? CONFORMANCE_PAIRS : CONFORMANCE_SINGLES];

static struct criterion_test_params indices_from(size_t first, size_t count) {
  for (size_t i = 0; i < count; i++) {
    indices[i] = first + i;
  }
  return cr_make_param_array(size_t, indices, count);
}

static void expect_refusal(const conformance_row* row) {
  machine_configure(1, "256MiB");
  if (row->uses_device) {
    machine_require_devices(1);
  }
  cr_expect(conformance_create(row) == NULL, "%s", row->name);
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID), "%s", row->name);
  const char* message = tm_last_error()->message;
  cr_expect(strstr(message, "belongs to the thread") || strstr(message, "nothing may touch"),
            "%s: %s", row->name, message);
}

static void run_row(const size_t* index, bool with_failures) {
  const conformance_row row = conformance_row_at(*index);
  if (row.is_refused) {
    expect_refusal(&row);
  } else {
    conformance_all(index, with_failures);
  }
}

ParameterizedTestParameters(adaptor_conformance, over_every_allocator) {
  return indices_from(CONFORMANCE_FIRST_SINGLE, CONFORMANCE_SINGLES);
}

ParameterizedTest(const size_t* index, adaptor_conformance, over_every_allocator) {
  run_row(index, true);
}

ParameterizedTestParameters(adaptor_conformance, in_pairs) {
  return indices_from(CONFORMANCE_FIRST_PAIR, CONFORMANCE_PAIRS);
}

ParameterizedTest(const size_t* index, adaptor_conformance, in_pairs) { run_row(index, false); }

ParameterizedTestParameters(adaptor_conformance, under_a_stack) {
  return indices_from(CONFORMANCE_FIRST_STACKED, CONFORMANCE_STACKED);
}

ParameterizedTest(const size_t* index, adaptor_conformance, under_a_stack) { run_row(index, true); }
