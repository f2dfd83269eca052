// The lock-free list on which blocks of a stack come back from threads that do not own it. Private
// to the stack.
//
// Any thread pushes; only the owner takes the list, whole, so there is no ABA. A storage brings its
// own link. A raw pointer needs a node, and a free must not fail: the owner makes a node for every
// raw block when it allocates it, and a free takes any one of them.
#ifndef TM_ALLOC_STACK_RETURNS_H_
#define TM_ALLOC_STACK_RETURNS_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tm/alloc/storage.h"

enum { STACK_RETURNS_CHUNKS = 24, STACK_RETURNS_FIRST_CHUNK = 256 };

typedef struct stack_returns {
  tm_storage* head;     // atomic; a mark of its own when the list is closed
  uint64_t free_nodes;  // atomic: a tag in the upper half against ABA, an index + 1 in the lower
  tm_storage* chunks[STACK_RETURNS_CHUNKS];  // of nodes; chunk k has 256 << k
  uint32_t node_count;
  uint32_t chunk_count;
} stack_returns;

// A flag of a node that carries a raw pointer in `data`, as against a storage that came itself.
enum { STACK_RETURNS_RAW = 1u << 31 };

static inline bool stack_returns_pending(const stack_returns* returns) {
  return __atomic_load_n(&returns->head, __ATOMIC_RELAXED) != NULL;
}

// Has at least `count` nodes. On failure raises, and nothing has changed. Owner only.
tm_status stack_returns_ensure_nodes(stack_returns* returns, size_t count);
void stack_returns_deinit(stack_returns* returns);

// Pushes a storage, or a raw pointer. False where the list is closed: nothing was pushed.
bool stack_returns_push(stack_returns* returns, tm_storage* storage);
bool stack_returns_push_raw(stack_returns* returns, void* ptr);

bool stack_returns_is_closed(const stack_returns* returns);

// Takes what has come, linked through link.next, newest first; NULL where nothing has. Owner only.
tm_storage* stack_returns_take(stack_returns* returns);
// The same, and closes the list for good.
tm_storage* stack_returns_close(stack_returns* returns);
// Puts a raw node that was taken back among the free ones.
void stack_returns_give_node(stack_returns* returns, tm_storage* node);

#endif  // TM_ALLOC_STACK_RETURNS_H_
