// What a stack allocator is made of, and how a block comes from it in the common case: inline,
// since tensors are made thousands of times per step. Private to tmcore; stack.c says how it works.
#ifndef TM_ALLOC_STACK_ALLOCATOR_H_
#define TM_ALLOC_STACK_ALLOCATOR_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "alloc/stack_region.h"
#include "alloc/stack_returns.h"
#include "alloc/thread_identity.h"
#include "tm/alloc/allocator.h"
#include "tm/alloc/storage.h"
#include "tm/base/attributes.h"

extern const tm_allocator_vtable stack_vtable_;

typedef struct stack_allocator {
  tm_allocator base;  // must be first
  // The owner's.
  stack_region* current;      // never NULL: `none` stands for no region
  size_t limit;               // bytes of `current` that are bumped with nothing else to be done
  size_t mark;                // bytes: the high-water mark
  size_t peak;                // bytes: the largest end since the last trim
  size_t unobtainable;        // bytes the upstream had no region of; SIZE_MAX: none is known
  size_t reservation;         // bytes that trimming leaves in one region
  size_t reserved_end;        // where the reservation ends, had everything been one region
  tm_thread_identity* owner;  // atomic; retained; NULL: nobody's
  bool busy;                  // atomic: the owner is inside a free
  uint32_t storage_flags;     // of every block
  bool fenced;                // no membarrier on this system: `busy` is set by an exchange
  uint32_t pins;
  size_t raw_live;  // blocks that are no storage
  size_t reserved;  // bytes held from the upstream
  size_t peak_reserved;
  size_t maximum;  // bytes; SIZE_MAX: no limit
  uint64_t alloc_calls;
  uint64_t upstream_calls;
  tm_allocator* upstream;  // retained
  stack_region* spares;    // through `below`
  stack_region* retired;   // through `below`
  stack_region none;
  stack_record* none_segment;
  // Shared with every thread that returns blocks, so on cache lines of their own.
  stack_returns returns __attribute__((aligned(64)));
  size_t outstanding;  // atomic; of a closed stack: blocks that are still to come back
} stack_allocator;

static inline bool stack_is_owner(const stack_allocator* s) {
  tm_thread_identity* owner = __atomic_load_n(&s->owner, __ATOMIC_RELAXED);
  return TM_LIKELY(owner != NULL && owner == tm_this_thread_);
}

// The bytes that a block of `size` takes.
static inline size_t stack_rounded(const stack_allocator* s, size_t size) {
  return (size + s->base.alignment - 1) & ~(s->base.alignment - 1);
}

// Bumps: the current region has room for `size` bytes and for a record. What is the same for every
// block of a region is in the record already.
static inline stack_record* stack_bump(stack_allocator* s, stack_region* region, size_t size) {
  stack_record* record = region->next_record++;
  record->storage.references = 1;
  record->storage.flags = s->storage_flags;
  record->storage.data = region->base + region->used;
  record->storage.size = size;
  region->used += stack_rounded(s, size);  // fits: what is free is a multiple
  s->alloc_calls++;
  return record;
}

// A storage of `size` bytes, not 0, on the stack's own stream, where that takes no more than a
// bump. NULL in every other case, with nothing changed.
static inline tm_storage* stack_try_alloc(stack_allocator* s, size_t size) {
  stack_region* region = s->current;
  return TM_LIKELY(stack_is_owner(s) && !stack_returns_pending(&s->returns) &&
                   size <= s->limit - region->used && stack_region_has_room_for_record(region))
             ? &stack_bump(s, region, size)->storage
             : NULL;
}

#endif  // TM_ALLOC_STACK_ALLOCATOR_H_
