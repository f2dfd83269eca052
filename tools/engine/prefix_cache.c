#include "engine/prefix_cache.h"

#include <tm/check.h>
#include <tm/tm.h>

void prefix_cache_init(tm_allocator* allocator, uint64_t limit_bytes, prefix_cache* out) {
  *out = (prefix_cache){.limit_bytes = limit_bytes};
  if (limit_bytes) out->allocator = tm_allocator_retain(allocator);
}

void prefix_cache_deinit(prefix_cache* cache) {
  for (int i = 0; i < PREFIX_PROMPTS; i++) tm_release(&cache->entries[i].memory);
  tm_allocator_release(cache->allocator);
  *cache = (prefix_cache){0};
}

//===-- Whose prompt begins how -------------------------------------------===//

uint32_t prefix_tokens_of(uint32_t number, uint32_t prompt) {
  const uint32_t tokens = (number % PREFIX_PROMPTS + 1) * KV_BLOCK_TOKENS;
  return tokens < prompt ? tokens : 0;  // the last token is computed, or nothing could be sampled
}

static prefix_entry* entry_of(prefix_cache* cache, uint32_t number) {
  return &cache->entries[number % PREFIX_PROMPTS];
}

//===-- Using -------------------------------------------------------------===//

uint32_t prefix_cache_find(const prefix_cache* cache, uint32_t number, uint32_t prompt) {
  if (!prefix_cache_exists(cache)) return 0;
  return tm_ok(&cache->entries[number % PREFIX_PROMPTS].memory) ? prefix_tokens_of(number, prompt)
                                                                : 0;
}

uint32_t prefix_cache_enter(prefix_cache* cache, uint32_t number, uint32_t prompt) {
  if (!prefix_cache_exists(cache) || prefix_tokens_of(number, prompt) == 0) return 0;
  const uint32_t tokens = prefix_cache_find(cache, number, prompt);
  if (tokens == 0) {
    cache->counts.misses++;
    return 0;
  }
  prefix_entry* entry = entry_of(cache, number);
  entry->users++;
  entry->last_use = ++cache->clock;
  cache->counts.hits++;
  cache->counts.tokens_saved += tokens;
  return tokens;
}

void prefix_cache_leave(prefix_cache* cache, uint32_t number) {
  prefix_entry* entry = entry_of(cache, number);
  TM_CHECK_GT(entry->users, 0);
  entry->users--;
}

//===-- Dropping ----------------------------------------------------------===//

static prefix_entry* least_recently_used(prefix_cache* cache) {
  prefix_entry* oldest = NULL;
  for (int i = 0; i < PREFIX_PROMPTS; i++) {
    prefix_entry* entry = &cache->entries[i];
    const bool may_go = tm_ok(&entry->memory) && entry->users == 0;
    if (may_go && (!oldest || entry->last_use < oldest->last_use)) oldest = entry;
  }
  return oldest;
}

static uint64_t release(prefix_cache* cache, prefix_entry* entry) {
  const uint64_t bytes = tm_byte_size(&entry->memory);
  tm_release(&entry->memory);
  cache->held_bytes -= bytes;
  return bytes;
}

uint64_t prefix_cache_drop(prefix_cache* cache, uint64_t bytes) {
  uint64_t freed = 0;
  prefix_entry* entry;
  while (freed < bytes && (entry = least_recently_used(cache)) != NULL) {
    freed += release(cache, entry);
    cache->counts.dropped++;
  }
  return freed;
}

//===-- Storing -----------------------------------------------------------===//

// Whether `bytes` more may be held, once others have gone for them.
static bool make_room(prefix_cache* cache, uint64_t bytes) {
  prefix_entry* entry;
  while (bytes <= cache->limit_bytes && cache->held_bytes > cache->limit_bytes - bytes &&
         (entry = least_recently_used(cache)) != NULL) {
    (void)release(cache, entry);
    cache->counts.replaced++;
  }
  return bytes <= cache->limit_bytes && cache->held_bytes <= cache->limit_bytes - bytes;
}

static tm_status copy_blocks(const kv_cache* kv, const int32_t* blocks, int64_t count,
                             const tm_tensor* to) {
  for (int64_t i = 0; i < count; i++) {
    tm_auto_tensor from = tm_slice_outer(&kv->memory, blocks[i], 1);
    tm_auto_tensor into = tm_slice_outer(to, i, 1);
    TM_TRY(tm_copy(&from, &into));
  }
  return TM_OK;
}

// Makes the entry's memory and fills it; on failure the entry stays as it was.
static tm_status fill(prefix_cache* cache, prefix_entry* entry, const kv_cache* kv,
                      const int32_t* blocks, int64_t count) {
  tm_shape shape = tm_shape_of(&kv->memory);
  shape.dim[0] = count;
  TM_TRY_TENSOR(memory, tm_empty_from(cache->allocator, shape, tm_dtype_of(&kv->memory)));
  TM_TRY(copy_blocks(kv, blocks, count, &memory));
  tm_assign(&entry->memory, tm_move(&memory));
  cache->held_bytes += tm_byte_size(&entry->memory);
  return TM_OK;
}

tm_status prefix_cache_store(prefix_cache* cache, uint32_t number, uint32_t prompt,
                             const kv_cache* kv, const int32_t* blocks) {
  TM_SCOPE("prefix_cache");
  prefix_entry* entry = entry_of(cache, number);
  const int64_t count = kv_blocks_for(prefix_tokens_of(number, prompt));
  if (!prefix_cache_exists(cache) || count == 0 || tm_ok(&entry->memory)) return TM_OK;
  const uint64_t block_bytes = tm_byte_size(&kv->memory) / (uint64_t)kv->block_count;
  tm_status status = TM_ERR_NO_MEMORY;
  if (make_room(cache, (uint64_t)count * block_bytes)) {
    status = fill(cache, entry, kv, blocks, count);
  }
  if (status == TM_ERR_NO_MEMORY) {
    cache->counts.not_stored++;
    return TM_OK;
  }
  TM_TRY(status);
  entry->last_use = ++cache->clock;
  cache->counts.stored++;
  return TM_OK;
}
