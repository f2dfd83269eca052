// A table of nodes that bring their own links, by a key such as the address of a block. Private to
// the adaptors that remember blocks.
//
// Adding cannot fail: a table that cannot grow gets slower.
#ifndef TM_ALLOC_BLOCK_TABLE_H_
#define TM_ALLOC_BLOCK_TABLE_H_

#include <stddef.h>
#include <stdint.h>

enum { TM_BLOCK_TABLE_FIRST_ = 64 };  // buckets, a power of two

typedef struct tm_block_node_ {
  struct tm_block_node_* next;  // in its bucket
  uint64_t key;
} tm_block_node_;

// All zero: empty.
typedef struct tm_block_table_ {
  tm_block_node_** buckets;  // bucket_count of them; NULL: `first`
  size_t bucket_count;       // a power of two; 0: as many as `first` has
  size_t count;              // nodes
  tm_block_node_* first[TM_BLOCK_TABLE_FIRST_];
} tm_block_table_;

// Frees the buckets; the nodes are the caller's.
void tm_block_table_deinit_(tm_block_table_* table);

// `node`, with its key set, which no other node of the table has.
void tm_block_table_add_(tm_block_table_* table, tm_block_node_* node);

// NULL where there is none.
tm_block_node_* tm_block_table_find_(const tm_block_table_* table, uint64_t key);

// The same, and takes the node out.
tm_block_node_* tm_block_table_take_(tm_block_table_* table, uint64_t key);

// The node after `node` in no particular order; the first for NULL; NULL after the last.
tm_block_node_* tm_block_table_next_(const tm_block_table_* table, const tm_block_node_* node);

static inline uint64_t tm_block_key_(const void* ptr) { return (uint64_t)(uintptr_t)ptr; }

#endif  // TM_ALLOC_BLOCK_TABLE_H_
