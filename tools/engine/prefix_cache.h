// The prefix cache: keys and values of prompt beginnings that many requests share, in device memory
// outside the KV cache, for as long as nothing else needs that memory.
//
// The requests of a trace carry no text. So each is given one of PREFIX_PROMPTS made-up system
// prompts, by its number: request n begins with prompt n % 8, which has (n % 8 + 1) * 64 tokens, if
// its own prompt is longer than that. The first request that has computed such a beginning leaves a
// copy of its KV blocks here; later ones begin behind it, take no KV blocks for it, and save its
// tokens. Kernels would read an entry where it lies; there are none.
//
// An entry that sequences use stays. The others go, the least recently used first, when the cache
// is to hold more than it may, and when memory runs out elsewhere (engine.h).
// Threads: one thread at a time.
#ifndef ENGINE_PREFIX_CACHE_H_
#define ENGINE_PREFIX_CACHE_H_

#include <stdbool.h>
#include <stdint.h>
#include <tm/tm.h>

#include "engine/kv_cache.h"

enum { PREFIX_PROMPTS = 8 };

typedef struct prefix_counts {
  uint64_t hits;          // admissions that began behind an entry
  uint64_t misses;        // admissions whose beginning was not there
  uint64_t tokens_saved;  // not computed, thanks to hits
  uint64_t stored;
  uint64_t not_stored;  // for want of memory, or because all entries are in use
  uint64_t replaced;    // entries dropped for others
  uint64_t dropped;     // entries dropped because memory ran out
} prefix_counts;

typedef struct prefix_entry {
  tm_tensor memory;   // [blocks, 2, layers, kv_heads, block_tokens, head_dim]; null: not there
  uint32_t users;     // sequences that run behind it
  uint64_t last_use;  // on the cache's clock
} prefix_entry;

typedef struct prefix_cache {
  tm_allocator* allocator;  // retained; NULL where there is no cache
  uint64_t limit_bytes;
  uint64_t held_bytes;
  uint64_t clock;  // ticks with every use
  prefix_entry entries[PREFIX_PROMPTS];
  prefix_counts counts;
} prefix_cache;

// A cache of at most `limit_bytes` from `allocator`. 0 bytes: none, in which nothing is ever found.
// Ownership: the caller gives it back with prefix_cache_deinit; it retains `allocator`.
void prefix_cache_init(tm_allocator* allocator, uint64_t limit_bytes, prefix_cache* out);

// Releases everything. All zero is a no-op.
void prefix_cache_deinit(prefix_cache* cache);

static inline bool prefix_cache_exists(const prefix_cache* cache) {
  return cache && cache->limit_bytes != 0;
}

// Tokens that the prompt of request `number`, of `prompt` tokens, shares with others: a multiple of
// KV_BLOCK_TOKENS below `prompt`, or 0.
uint32_t prefix_tokens_of(uint32_t number, uint32_t prompt);

// Of these, the tokens that are here: all or 0. NULL: 0.
uint32_t prefix_cache_find(const prefix_cache* cache, uint32_t number, uint32_t prompt);

// The request is admitted and begins behind what prefix_cache_find says, which stays until
// prefix_cache_leave. Returns its tokens. NULL: 0.
uint32_t prefix_cache_enter(prefix_cache* cache, uint32_t number, uint32_t prompt);

// A request that begins behind `tokens` tokens, more than 0, runs no more.
void prefix_cache_leave(prefix_cache* cache, uint32_t number);

// Stores the beginning of request `number`, whose first KV blocks hold it, unless it is here: the
// copy is queued on the context's stream. Where there is no memory for it that is counted, and no
// error. Errors: those of tm_copy but for TM_ERR_NO_MEMORY.
tm_status prefix_cache_store(prefix_cache* cache, uint32_t number, uint32_t prompt,
                             const kv_cache* kv, const int32_t* blocks);

// Drops entries that nothing uses, the least recently used first, until `bytes` have come free.
// Returns what has; 0 where there is no such entry.
uint64_t prefix_cache_drop(prefix_cache* cache, uint64_t bytes);

#endif  // ENGINE_PREFIX_CACHE_H_
