#include "alloc/stack_returns.h"

#include "tm/alloc/bookkeeping.h"
#include "tm/base/fatal.h"

static tm_storage closed_mark;  // its address says that a list is closed

//===-- Nodes -------------------------------------------------------------===//

// A node keeps its own index in `size`, and the index + 1 of the next free node in `references`.

static tm_storage* node_at(const stack_returns* returns, uint32_t index) {
  const uint32_t first = STACK_RETURNS_FIRST_CHUNK;
  const uint32_t chunk = 31u - (uint32_t)__builtin_clz(index / first + 1);
  return &returns->chunks[chunk][index - first * ((1u << chunk) - 1)];
}

void stack_returns_give_node(stack_returns* returns, tm_storage* node) {
  uint64_t old = __atomic_load_n(&returns->free_nodes, __ATOMIC_RELAXED);
  uint64_t wanted;
  do {
    __atomic_store_n(&node->references, (int32_t)(uint32_t)old, __ATOMIC_RELAXED);
    wanted = ((old >> 32) + 1) << 32 | (uint32_t)(node->size + 1);
  } while (!__atomic_compare_exchange_n(&returns->free_nodes, &old, wanted, true, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED));
}

// There always is one: the owner made a node for every raw block.
static tm_storage* take_node(stack_returns* returns) {
  uint64_t old = __atomic_load_n(&returns->free_nodes, __ATOMIC_ACQUIRE);
  uint64_t wanted;
  tm_storage* node;
  do {
    if ((uint32_t)old == 0) {
      TM_FATAL("stack: more raw blocks are freed than are live");
    }
    node = node_at(returns, (uint32_t)old - 1);
    const uint32_t next = (uint32_t)__atomic_load_n(&node->references, __ATOMIC_RELAXED);
    wanted = ((old >> 32) + 1) << 32 | next;
  } while (!__atomic_compare_exchange_n(&returns->free_nodes, &old, wanted, true, __ATOMIC_ACQUIRE,
                                        __ATOMIC_ACQUIRE));
  return node;
}

static tm_status add_chunk(stack_returns* returns) {
  if (returns->chunk_count == STACK_RETURNS_CHUNKS) {
    return TM_RAISE(TM_ERR_NO_MEMORY, "stack: %u raw blocks are live, and there can be no more",
                    returns->node_count);
  }
  const uint32_t count = (uint32_t)STACK_RETURNS_FIRST_CHUNK << returns->chunk_count;
  tm_storage* chunk = tm_bookkeeping_alloc(count * sizeof *chunk, "a stack's return nodes");
  if (!chunk) {
    return tm_last_status();
  }
  returns->chunks[returns->chunk_count++] = chunk;
  for (uint32_t i = 0; i < count; i++) {
    chunk[i].flags = STACK_RETURNS_RAW;
    chunk[i].size = returns->node_count + i;
    stack_returns_give_node(returns, &chunk[i]);
  }
  returns->node_count += count;
  return TM_OK;
}

tm_status stack_returns_ensure_nodes(stack_returns* returns, size_t count) {
  while (returns->node_count < count) {
    TM_TRY(add_chunk(returns));
  }
  return TM_OK;
}

void stack_returns_deinit(stack_returns* returns) {
  for (uint32_t i = 0; i < returns->chunk_count; i++) {
    tm_bookkeeping_free(returns->chunks[i]);
  }
}

//===-- The list ----------------------------------------------------------===//

bool stack_returns_push(stack_returns* returns, tm_storage* storage) {
  tm_storage* head = __atomic_load_n(&returns->head, __ATOMIC_RELAXED);
  do {
    if (head == &closed_mark) {
      return false;
    }
    storage->link.next = head;
  } while (!__atomic_compare_exchange_n(&returns->head, &head, storage, true, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED));
  return true;
}

bool stack_returns_push_raw(stack_returns* returns, void* ptr) {
  tm_storage* node = take_node(returns);
  node->data = ptr;
  if (stack_returns_push(returns, node)) {
    return true;
  }
  stack_returns_give_node(returns, node);
  return false;
}

bool stack_returns_is_closed(const stack_returns* returns) {
  return __atomic_load_n(&returns->head, __ATOMIC_RELAXED) == &closed_mark;
}

tm_storage* stack_returns_take(stack_returns* returns) {
  return __atomic_exchange_n(&returns->head, NULL, __ATOMIC_ACQUIRE);
}

tm_storage* stack_returns_close(stack_returns* returns) {
  return __atomic_exchange_n(&returns->head, &closed_mark, __ATOMIC_ACQ_REL);
}
