// The interval map, against a plain list.

#include "engine/interval_map.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdlib.h>

static bool add(interval_map* map, uintptr_t begin, uintptr_t end, uint64_t id) {
  interval overlapped;
  cr_assert(eq(int, interval_map_add(map, begin, end, id, &overlapped), TM_OK));
  return overlapped.end == 0;
}

Test(interval_map, neighbours_do_not_overlap) {
  interval_map map = {0};
  cr_expect(add(&map, 100, 200, 1));
  cr_expect(add(&map, 200, 300, 2));
  cr_expect(add(&map, 50, 100, 3));
  cr_expect(eq(sz, map.count, 3));
  interval_map_deinit(&map);
}

Test(interval_map, every_kind_of_overlap_is_seen_and_not_added) {
  static const uintptr_t overlapping[][2] = {
      {150, 160}, {100, 200}, {50, 101}, {199, 300}, {50, 300}};
  interval_map map = {0};
  cr_assert(add(&map, 100, 200, 7));
  for (size_t i = 0; i < sizeof(overlapping) / sizeof(overlapping[0]); i++) {
    interval found;
    cr_expect(
        eq(int, interval_map_add(&map, overlapping[i][0], overlapping[i][1], 8, &found), TM_OK));
    cr_expect(eq(u64, found.id, 7));
    cr_expect(eq(sz, map.count, 1));
  }
  interval_map_deinit(&map);
}

Test(interval_map, an_empty_range_is_an_error) {
  interval_map map = {0};
  interval found;
  cr_expect(eq(int, interval_map_add(&map, 5, 5, 1, &found), TM_ERR_INVALID));
  cr_expect(eq(sz, map.count, 0));
  interval_map_deinit(&map);
}

Test(interval_map, removing_gives_the_range_back_once) {
  interval_map map = {0};
  interval range;
  cr_assert(add(&map, 100, 200, 7));
  cr_expect(not(interval_map_remove(&map, 101, &range)));
  cr_assert(interval_map_remove(&map, 100, &range));
  cr_expect(eq(u64, range.id, 7));
  cr_expect(eq(u64, range.end, 200));
  cr_expect(not(interval_map_remove(&map, 100, &range)));
  interval_map_deinit(&map);
}

enum { CELLS = 2000, ROUNDS = 100000 };

static bool is_free(const uint64_t* owner, size_t begin, size_t end) {
  for (size_t i = begin; i < end; i++) {
    if (owner[i]) return false;
  }
  return true;
}

static void set(uint64_t* owner, size_t begin, size_t end, uint64_t id) {
  for (size_t i = begin; i < end; i++) owner[i] = id;
}

// owner[i] is the id of the range that holds cell i, 0 for none.
static void one_round(interval_map* map, uint64_t* owner, uint64_t id, unsigned* seed) {
  const size_t begin = (size_t)rand_r(seed) % (CELLS - 1);
  const size_t end =
      begin + 1 + (size_t)rand_r(seed) % (CELLS - begin - 1 < 16 ? CELLS - begin - 1 : 16);
  interval found;
  if (rand_r(seed) % 2) {
    const bool fits = is_free(owner, begin, end);
    cr_assert(eq(int, interval_map_add(map, begin, end, id, &found), TM_OK));
    cr_assert(eq(int, found.end == 0, fits));
    if (fits) set(owner, begin, end, id);
  } else {
    const bool begins = owner[begin] && (begin == 0 || owner[begin - 1] != owner[begin]);
    cr_assert(eq(int, interval_map_remove(map, begin, &found), begins));
    if (begins) set(owner, found.begin, found.end, 0);
  }
}

Test(interval_map, agrees_with_a_plain_list) {
  static uint64_t owner[CELLS];
  interval_map map = {0};
  unsigned seed = 20231116;
  for (uint64_t i = 1; i <= ROUNDS; i++) one_round(&map, owner, i, &seed);
  interval_map_deinit(&map);
}
