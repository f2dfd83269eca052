#include "alloc/block_table.h"

#include "tm/alloc/bookkeeping.h"
#include "tm/base/status.h"

static size_t bucket_count(const tm_block_table_* table) {
  return table->buckets ? table->bucket_count : TM_BLOCK_TABLE_FIRST_;
}

// The upper bits of a product depend on all bits of the key, of which addresses leave the low ones
// 0.
static size_t bucket_of(uint64_t key, size_t count) {
  return (size_t)((key * 0x9e3779b97f4a7c15u) >> 32) & (count - 1);
}

// Where the bucket of `key` begins.
static tm_block_node_** head_of(tm_block_table_* table, uint64_t key) {
  tm_block_node_** buckets = table->buckets ? table->buckets : table->first;
  return &buckets[bucket_of(key, bucket_count(table))];
}

static tm_block_node_* const* const_head(const tm_block_table_* table, size_t bucket) {
  return table->buckets ? &table->buckets[bucket] : &table->first[bucket];
}

void tm_block_table_deinit_(tm_block_table_* table) {
  tm_bookkeeping_free(table->buckets);
  table->buckets = NULL;
}

//===-- Growing -------------------------------------------------------------===//

static void move_nodes(const tm_block_table_* from, tm_block_node_** to, size_t count) {
  for (size_t i = 0; i < bucket_count(from); i++) {
    tm_block_node_* node = *const_head(from, i);
    while (node) {
      tm_block_node_* next = node->next;
      tm_block_node_** head = &to[bucket_of(node->key, count)];
      node->next = *head;
      *head = node;
      node = next;
    }
  }
}

static void grow(tm_block_table_* table) {
  const tm_error kept = *tm_last_error();
  const size_t count = 2 * bucket_count(table);
  tm_block_node_** buckets = tm_bookkeeping_alloc(count * sizeof *buckets, "a table of blocks");
  if (!buckets) {
    tm_restore_error_(&kept);  // it goes on with longer buckets
    return;
  }
  move_nodes(table, buckets, count);
  tm_bookkeeping_free(table->buckets);
  table->buckets = buckets;
  table->bucket_count = count;
}

//===-- Nodes ---------------------------------------------------------------===//

void tm_block_table_add_(tm_block_table_* table, tm_block_node_* node) {
  if (table->count >= 2 * bucket_count(table)) {
    grow(table);
  }
  tm_block_node_** head = head_of(table, node->key);
  node->next = *head;
  *head = node;
  table->count++;
}

tm_block_node_* tm_block_table_find_(const tm_block_table_* table, uint64_t key) {
  tm_block_node_* node = *const_head(table, bucket_of(key, bucket_count(table)));
  while (node && node->key != key) {
    node = node->next;
  }
  return node;
}

tm_block_node_* tm_block_table_take_(tm_block_table_* table, uint64_t key) {
  tm_block_node_** link = head_of(table, key);
  while (*link && (*link)->key != key) {
    link = &(*link)->next;
  }
  tm_block_node_* node = *link;
  if (node) {
    *link = node->next;
    node->next = NULL;
    table->count--;
  }
  return node;
}

tm_block_node_* tm_block_table_next_(const tm_block_table_* table, const tm_block_node_* node) {
  if (node && node->next) {
    return node->next;
  }
  size_t bucket = node ? bucket_of(node->key, bucket_count(table)) + 1 : 0;
  for (; bucket < bucket_count(table); bucket++) {
    if (*const_head(table, bucket)) {
      return *const_head(table, bucket);
    }
  }
  return NULL;
}
