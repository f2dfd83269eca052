#include "alloc/two_level.h"

#include <stdbool.h>
#include <stdint.h>

#include "tm/base/attributes.h"

// Blocks of a class that are looked at.
enum {
  FEW = 2,    // more of them hardly make better fits where the next class is not empty;
  SOME = 16,  // where it is, that is worth more
};

typedef struct class_of_size {
  unsigned first;
  unsigned second;
} class_of_size;

// Below 32 steps classes are exact: the first power of two is all of them.
static class_of_size class_of(size_t bytes) {
  const size_t steps = bytes >> TWO_LEVEL_STEP_LOG2;
  if (steps < TWO_LEVEL_SECOND) {
    return (class_of_size){0, (unsigned)steps};
  }
  const unsigned log2 = 63U - (unsigned)__builtin_clzll(steps);
  return (class_of_size){
      log2 - TWO_LEVEL_SECOND_LOG2 + 1,
      (unsigned)(steps >> (log2 - TWO_LEVEL_SECOND_LOG2)) & (TWO_LEVEL_SECOND - 1)};
}

void two_level_init(two_level_index* index) {
  *index = (two_level_index){.end = {.bytes = SIZE_MAX}};
  index->end.next = &index->end;
  for (size_t i = 0; i < TWO_LEVEL_FIRST; i++) {
    for (size_t k = 0; k < TWO_LEVEL_SECOND; k++) {
      index->lists[i][k] = &index->end;
    }
  }
}

void two_level_insert(two_level_index* index, two_level_block* block) {
  const class_of_size c = class_of(block->bytes);
  two_level_block** list = &index->lists[c.first][c.second];
  block->link = list;
  block->next = *list;
  block->next->link = &block->next;
  *list = block;
  index->second[c.first] |= 1U << c.second;
  index->first |= (uint64_t)1 << c.first;
}

static void mark_empty(two_level_index* index, class_of_size c) {
  index->second[c.first] &= ~(1U << c.second);
  if (!index->second[c.first]) {
    index->first &= ~((uint64_t)1 << c.first);
  }
}

void two_level_remove(two_level_index* index, two_level_block* block) {
  block->next->link = block->link;
  *block->link = block->next;
  if (block->next == &index->end) {
    const class_of_size c = class_of(block->bytes);
    if (index->lists[c.first][c.second] == &index->end) {
      mark_empty(index, c);
    }
  }
}

// The best of the first `count` blocks of a list; the end where none of them fits: what does not
// wraps around to more than the end leaves over. By masks, since compilers take branches for
// conditions.
static inline two_level_block* best_of(two_level_index* index, two_level_block* list, size_t bytes,
                                       size_t count) {
  uintptr_t best = (uintptr_t)&index->end;
  size_t least = index->end.bytes - bytes;  // left over
  for (size_t i = 0; i < count && list != &index->end; i++, list = list->next) {
    const size_t left_over = list->bytes - bytes;
    const size_t is_better = 0 - (size_t)(left_over < least);
    least ^= (least ^ left_over) & is_better;
    best ^= (best ^ (uintptr_t)list) & is_better;
  }
  return (two_level_block*)best;
}

// Stores the next larger class that is not empty; false where there is none.
static bool class_above(const two_level_index* index, class_of_size c, class_of_size* out) {
  const uint32_t second = index->second[c.first] & (uint32_t)(~(uint64_t)1 << c.second);
  if (second) {
    *out = (class_of_size){c.first, (unsigned)__builtin_ctz(second)};
    return true;
  }
  const uint64_t first = index->first & (~(uint64_t)1 << c.first);
  if (!first) {
    return false;
  }
  const unsigned above = (unsigned)__builtin_ctzll(first);
  *out = (class_of_size){above, (unsigned)__builtin_ctz(index->second[above])};
  return true;
}

static unsigned number_of(class_of_size c) { return c.first * TWO_LEVEL_SECOND + c.second; }

// The best where none of the few first ones of the request's own class fits; or the end.
static two_level_block* find_further(two_level_index* index, class_of_size c, size_t bytes) {
  two_level_block* own = index->lists[c.first][c.second];
  two_level_block* best = &index->end;
  class_of_size above;
  if (!class_above(index, c, &above)) {
    return best_of(index, own, bytes, SIZE_MAX);
  }
  if (number_of(above) > number_of(c) + 1) {
    best = best_of(index, own, bytes, SOME);
  }
  return best == &index->end ? best_of(index, index->lists[above.first][above.second], bytes, FEW)
                             : best;
}

two_level_block* two_level_find(two_level_index* index, size_t bytes) {
  const class_of_size c = class_of(bytes);
  two_level_block* best = best_of(index, index->lists[c.first][c.second], bytes, FEW);
  if (best == &index->end) {
    best = find_further(index, c, bytes);
  }
  return best == &index->end ? NULL : best;
}

size_t two_level_largest(const two_level_index* index) {
  if (!index->first) {
    return 0;
  }
  const unsigned first = 63U - (unsigned)__builtin_clzll(index->first);
  const unsigned second = 31U - (unsigned)__builtin_clz(index->second[first]);
  size_t largest = 0;
  for (const two_level_block* b = index->lists[first][second]; b != &index->end; b = b->next) {
    largest = b->bytes > largest ? b->bytes : largest;
  }
  return largest;
}
