#include "alloc/two_level.h"

#include <stdbool.h>
#include <stdint.h>

enum { LOOKED_AT = 16 };  // blocks of a class, at most, while there is another class to look at

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

void two_level_insert(two_level_index* index, two_level_block* block) {
  const class_of_size c = class_of(block->bytes);
  two_level_block** list = &index->lists[c.first][c.second];
  block->previous = NULL;
  block->next = *list;
  if (*list) {
    (*list)->previous = block;
  }
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
  if (block->next) {
    block->next->previous = block->previous;
  }
  if (block->previous) {
    block->previous->next = block->next;
    return;
  }
  const class_of_size c = class_of(block->bytes);
  index->lists[c.first][c.second] = block->next;
  if (!block->next) {
    mark_empty(index, c);
  }
}

static bool is_better(const two_level_block* block, const two_level_block* best) {
  return !best || block->bytes < best->bytes ||
         (block->bytes == best->bytes && block->base < best->base);
}

// The best of the first `count` blocks of a list; NULL where none of them fits.
static two_level_block* best_of(two_level_block* list, size_t bytes, size_t count) {
  two_level_block* best = NULL;
  for (two_level_block* block = list; block && count > 0; block = block->next, count--) {
    if (block->bytes >= bytes && is_better(block, best)) {
      best = block;
    }
  }
  return best;
}

// The list of the next larger class that is not empty; NULL where there is none.
static two_level_block* list_above(const two_level_index* index, class_of_size c) {
  const uint32_t second = index->second[c.first] & (uint32_t)(~(uint64_t)1 << c.second);
  if (second) {
    return index->lists[c.first][__builtin_ctz(second)];
  }
  const uint64_t first = index->first & (~(uint64_t)1 << c.first);
  if (!first) {
    return NULL;
  }
  const int above = __builtin_ctzll(first);
  return index->lists[above][__builtin_ctz(index->second[above])];
}

two_level_block* two_level_find(const two_level_index* index, size_t bytes) {
  const class_of_size c = class_of(bytes);
  two_level_block* own = index->lists[c.first][c.second];
  two_level_block* best = best_of(own, bytes, LOOKED_AT);
  if (best) {
    return best;
  }
  two_level_block* above = list_above(index, c);
  return above ? best_of(above, bytes, LOOKED_AT) : best_of(own, bytes, SIZE_MAX);
}

size_t two_level_largest(const two_level_index* index) {
  if (!index->first) {
    return 0;
  }
  const unsigned first = 63U - (unsigned)__builtin_clzll(index->first);
  const unsigned second = 31U - (unsigned)__builtin_clz(index->second[first]);
  size_t largest = 0;
  for (const two_level_block* b = index->lists[first][second]; b; b = b->next) {
    largest = b->bytes > largest ? b->bytes : largest;
  }
  return largest;
}
