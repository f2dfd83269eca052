#include "engine/kv_cache.h"

#include <string.h>
#include <tm/check.h>
#include <tm/tm.h>

int64_t kv_block_bytes(const model_config* config) {
  return KV_BLOCK_TOKENS * model_kv_bytes_per_token(config);
}

static tm_status make_free_list(kv_cache* cache, int32_t blocks) {
  cache->free_blocks = tm_bookkeeping_alloc((size_t)blocks * sizeof(int32_t), "KV block numbers");
  if (!cache->free_blocks) return tm_last_status();
  cache->block_count = blocks;
  cache->free_count = blocks;
  for (int32_t i = 0; i < blocks; i++) cache->free_blocks[i] = blocks - 1 - i;  // 0 goes first
  return TM_OK;
}

static tm_status make_cache(const model_config* c, tm_allocator* allocator, int64_t blocks,
                            kv_cache* out) {
  out->memory = tm_empty_from(
      allocator, TM_SHAPE(blocks, 2, c->layers, c->kv_heads, KV_BLOCK_TOKENS, c->head_dim),
      c->dtype);
  if (!tm_ok(&out->memory)) return tm_last_status();
  return make_free_list(out, (int32_t)blocks);
}

tm_status kv_cache_init(const model_config* config, tm_allocator* allocator, int64_t bytes,
                        kv_cache* out) {
  TM_SCOPE("kv_cache");
  *out = (kv_cache){0};
  const int64_t block_bytes = kv_block_bytes(config);
  const int64_t blocks = block_bytes > 0 ? bytes / block_bytes : 0;
  if (blocks < 1 || blocks > INT32_MAX) {
    return TM_RAISE(TM_ERR_OUT_OF_RANGE,
                    "%lld bytes are left for the KV cache; a block of %d tokens takes %lld",
                    (long long)bytes, KV_BLOCK_TOKENS, (long long)block_bytes);
  }
  const tm_status status = make_cache(config, allocator, blocks, out);
  if (status != TM_OK) kv_cache_deinit(out);
  return status;
}

void kv_cache_deinit(kv_cache* cache) {
  tm_release(&cache->memory);
  tm_bookkeeping_free(cache->free_blocks);
  *cache = (kv_cache){0};
}

bool kv_cache_take(kv_cache* cache, int64_t count, int32_t* blocks) {
  if (count > cache->free_count) return false;
  for (int64_t i = 0; i < count; i++) blocks[i] = cache->free_blocks[--cache->free_count];
  return true;
}

void kv_cache_give(kv_cache* cache, int64_t count, const int32_t* blocks) {
  TM_CHECK_LE(cache->free_count + count, cache->block_count);
  for (int64_t i = count; i > 0; i--) cache->free_blocks[cache->free_count++] = blocks[i - 1];
}
