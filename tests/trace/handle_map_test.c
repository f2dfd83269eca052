// The map of handles, against a table.

#include "trace/handle_map.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdlib.h>
#include <time.h>

#include "tests/support/failing.h"

enum { VALUES = 500, SPACES = 3, CALLS = 20000 };

Test(handle_map, numbers_are_those_of_a_table) {
  static uint32_t table[SPACES][VALUES];  // number + 1; 0: not there yet
  handle_map map = {0};
  unsigned seed = (unsigned)time(NULL);
  const unsigned printed_seed = seed;
  uint32_t fresh = 0;
  for (int i = 0; i < CALLS; i++) {
    const log_handle handle = {.value = (uint64_t)4096 * ((unsigned)rand_r(&seed) % VALUES),
                               .space = (unsigned)rand_r(&seed) % SPACES};
    uint32_t* known = &table[handle.space][handle.value / 4096];
    uint32_t* number;
    if (!*known) *known = ++fresh;
    cr_assert(eq(int, handle_map_get(&map, handle, fresh - 1, &number), TM_OK));
    cr_assert(eq(u32, *number, *known - 1), "seed %u, call %d", printed_seed, i);
  }
  cr_expect(eq(sz, map.count, fresh));
  handle_map_deinit(&map);
}

static tm_status fill(tm_allocator* upstream) {
  handle_map map = {0};
  tm_status status = TM_OK;
  (void)upstream;
  for (uint32_t i = 0; i < 100 && status == TM_OK; i++) {
    uint32_t* number;
    status = handle_map_get(&map, (log_handle){.value = i}, i, &number);
    if ((status == TM_OK) != (number != NULL)) status = TM_ERR_INVALID;
  }
  handle_map_deinit(&map);
  return status;
}

Test(handle_map, survives_every_failure) { expect_survives_every_failure(fill); }
