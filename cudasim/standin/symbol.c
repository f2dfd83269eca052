#include "cudasim/standin/symbol.h"

#include <stdint.h>

#include "cudasim/slab.h"

static struct {
  symbol** buckets;
  size_t capacity;  // a power of two, or 0
  size_t count;
} table;

static slab symbols = {.size = sizeof(symbol)};

static symbol** bucket_of(const void* host) {
  uint64_t hash = (uint64_t)(uintptr_t)host * UINT64_C(0x9e3779b97f4a7c15);
  return &table.buckets[(hash >> 32) & (table.capacity - 1)];
}

static void link(symbol* s) {
  symbol** bucket = bucket_of(s->host);
  s->next = *bucket;
  *bucket = s;
}

// Makes room for one more; a full table goes on with longer chains when the host has no memory.
static bool grow(void) {
  if (table.count < table.capacity) return true;
  size_t capacity = table.capacity ? 2 * table.capacity : 64;
  symbol** buckets = sim_bookkeeping_alloc(capacity * sizeof(symbol*));
  if (!buckets) return table.capacity > 0;
  symbol** old = table.buckets;
  size_t old_capacity = table.capacity;
  table.buckets = buckets;
  table.capacity = capacity;
  for (size_t i = 0; i < old_capacity; ++i) {
    for (symbol* s = old[i]; s;) {
      symbol* next = s->next;
      link(s);
      s = next;
    }
  }
  sim_bookkeeping_free(old);
  return true;
}

symbol* sim_symbol_add(binary* b, const void* host, const char* name, size_t bytes) {
  symbol* s = grow() ? sim_slab_take(&symbols) : NULL;
  if (!s) return NULL;
  *s = (symbol){.next_of_binary = b->symbols, .host = host, .name = name, .bytes = bytes};
  b->symbols = s;
  link(s);
  ++table.count;
  return s;
}

symbol* sim_symbol_find(const void* host) {
  symbol* s = table.capacity ? *bucket_of(host) : NULL;
  while (s && s->host != host) s = s->next;
  return s;
}

static void forget(symbol* s) {
  symbol** in = bucket_of(s->host);
  while (*in != s) in = &(*in)->next;
  *in = s->next;
  --table.count;
  sim_bookkeeping_free(s->memory);
  sim_slab_give(&symbols, s);
}

void sim_symbol_remove_all(binary* b) {
  for (symbol* s = b->symbols; s;) {
    symbol* next = s->next_of_binary;
    forget(s);
    s = next;
  }
  b->symbols = NULL;
}
