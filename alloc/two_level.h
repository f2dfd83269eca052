// An index of free blocks by size, in which putting in, taking out and finding a fit are O(1).
// Private.
//
// It is that of TLSF: M. Masmano, I. Ripoll, A. Crespo, J. Real, "TLSF: a New Dynamic Memory
// Allocator for Real-Time Systems", ECRTS 2004. A size falls into a class in two levels: by its
// power of two, then linearly within that. Each class has a list, and bitmaps say which are not
// empty, so that the next larger one is found by counting zeros.
//
//   power of two   ...  1 MiB                          2 MiB                   ...
//   class               [1, 1 1/32) [1 1/32, 1 2/32)..  [2, 2 2/32) ...
//
// TLSF takes any block of the next class, where all fit ("good fit"). Here some blocks of the
// request's own class are looked at first, and then of the next one, and the smallest that fits is
// taken: nearly the best fit, which keeps what is left over small, at a bounded cost.
//
// What sizes come and go is random, so branches on them are mispredicted, which costs more than all
// else: lists end at a block that may be written like the others, and comparing is arithmetic.
//
// The index holds no memory of its own and never touches the memory that the blocks describe.
#ifndef TM_ALLOC_TWO_LEVEL_H_
#define TM_ALLOC_TWO_LEVEL_H_

#include <stddef.h>
#include <stdint.h>

enum {
  TWO_LEVEL_STEP_LOG2 = 6,  // sizes are multiples of 64 bytes, the least alignment
  TWO_LEVEL_SECOND_LOG2 = 5,
  TWO_LEVEL_SECOND = 1 << TWO_LEVEL_SECOND_LOG2,  // classes to a power of two
  TWO_LEVEL_FIRST = 64 - TWO_LEVEL_STEP_LOG2 - TWO_LEVEL_SECOND_LOG2 + 1,
};

// The first member of what is indexed.
typedef struct two_level_block {
  char* base;
  size_t bytes;                   // not 0, a multiple of 64; changes only outside the index
  struct two_level_block* next;   // of its class, while it is in the index
  struct two_level_block** link;  // what points at it there
} two_level_block;

typedef struct two_level_index {
  uint64_t first;                    // a bit for each power of two with blocks
  uint32_t second[TWO_LEVEL_FIRST];  // a bit for each class with blocks
  two_level_block end;               // of every list, and so large that it is nobody's best
  two_level_block* lists[TWO_LEVEL_FIRST][TWO_LEVEL_SECOND];
} two_level_index;

// Makes an empty index, which stays where it is.
void two_level_init(two_level_index* index);

void two_level_insert(two_level_index* index, two_level_block* block);
void two_level_remove(two_level_index* index, two_level_block* block);

// A block of at least `bytes` (a multiple of 64, not 0) that is hardly larger than it must be, the
// last one put in among equals. It stays in the index. NULL where there is none. O(1)
// but where only the request's own class could have one: then all of that is looked at.
two_level_block* two_level_find(two_level_index* index, size_t bytes);

// The bytes of the largest block; 0 where there is none. O(blocks of its class).
size_t two_level_largest(const two_level_index* index);

#endif  // TM_ALLOC_TWO_LEVEL_H_
