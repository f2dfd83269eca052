// A region of a stack: one block of the upstream, and the records of what was bumped from it.
// Private to the stack.
//
//   base              base + used              base + capacity
//    |--- records, in address order ---|---------- free ---------|
//
// Records stay where they are while their block lives, since a record is also the block's storage.
// They come in segments of a fixed size that are kept until the region goes.
#ifndef TM_ALLOC_STACK_REGION_H_
#define TM_ALLOC_STACK_REGION_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tm/alloc/storage.h"

enum { STACK_SEGMENT_RECORDS = 256 };

typedef struct stack_region stack_region;

// A flag of a storage whose block was freed out of order. Only the owner sets it: the references of
// a block that comes back from another thread run out before it arrives.
enum { STACK_RECORD_DEAD = 1 << 30 };

// One block. While its slot is free, what is the same for every block of a region is set already:
// the allocator, its stream, no uses, the region.
typedef struct stack_record {
  tm_storage storage;    // must be first
  stack_region* region;  // what the block was bumped from
} stack_record;

_Static_assert(sizeof(stack_record) == 64, "a record is a cache line");

static inline bool stack_record_is_live(const stack_record* record) {
  return (record->storage.flags & STACK_RECORD_DEAD) == 0;
}

struct stack_region {
  stack_record* next_record;   // the slot the next block takes
  stack_record* segment_end;   // the end of the segment that slot is in
  char* base;                  // from the upstream
  size_t used;                 // bytes, a multiple of the stack's alignment
  size_t capacity;             // bytes, likewise
  size_t virtual_base;         // bytes below this region, had everything been one region
  size_t dead;                 // blocks freed out of order that are still below a live one
  struct stack_region* below;  // the region that is bumped again when this one is empty; or a list
  stack_record** segments;     // segment_count of them
  size_t segment_count;
  size_t segment_index;  // of the one next_record is in
  bool retired;          // set aside by a reset until its last block is free
};

// Makes a region of `allocator` over `base`, with its first segment of records. NULL after raising
// on failure.
stack_region* stack_region_create(char* base, size_t capacity, tm_allocator* allocator);
// Frees the region's bookkeeping; its block is the caller's.
void stack_region_destroy(stack_region* region);

// Makes room for one more record. On failure raises, and the region is unchanged.
tm_status stack_region_add_records(stack_region* region, tm_allocator* allocator);

// The record of the last block, dead or live; NULL in an empty region.
stack_record* stack_region_top(const stack_region* region);
// Takes the top record off, and gives its bytes back.
void stack_region_pop(stack_region* region);

// Blocks that are live.
static inline size_t stack_region_live(const stack_region* region);

// Forgets every record; none may be live.
void stack_region_clear(stack_region* region);

// The live record of the block at `ptr`, or NULL. O(log n).
stack_record* stack_region_find(const stack_region* region, const void* ptr);

// The bytes of its live blocks, each rounded up to `alignment`. O(n).
size_t stack_region_live_bytes(const stack_region* region, size_t alignment);

// Records in use, live or dead.
static inline size_t stack_region_records(const stack_region* region) {
  return region->segment_index * STACK_SEGMENT_RECORDS +
         (size_t)(region->next_record - region->segments[region->segment_index]);
}

static inline size_t stack_region_live(const stack_region* region) {
  return stack_region_records(region) - region->dead;
}

static inline bool stack_region_has_room_for_record(const stack_region* region) {
  return region->next_record != region->segment_end;
}

#endif  // TM_ALLOC_STACK_REGION_H_
