// The KV cache: device memory cut into blocks of a fixed number of tokens, taken and given back by
// number.
//
// It is one tensor, [blocks, 2, layers, kv_heads, block_tokens, head_dim], from an allocator of its
// own. A sequence holds as many blocks as its tokens need; kernels find them through block tables.
#ifndef ENGINE_KV_CACHE_H_
#define ENGINE_KV_CACHE_H_

#include <stdbool.h>
#include <stdint.h>
#include <tm/tm.h>

#include "engine/config.h"

enum { KV_BLOCK_TOKENS = 64 };

typedef struct kv_cache {
  tm_tensor memory;
  int32_t* free_blocks;  // a stack of block numbers; the first `free_count` are free
  int32_t free_count;
  int32_t block_count;
} kv_cache;

// Bytes of one block.
int64_t kv_block_bytes(const model_config* config);

// Blocks that `tokens` tokens take.
static inline int64_t kv_blocks_for(int64_t tokens) {
  return (tokens + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
}

// Makes a cache of as many blocks as fit in `bytes`, from `allocator`.
// Ownership: the caller gives it back with kv_cache_deinit.
// Errors: TM_ERR_OUT_OF_RANGE (not one block fits), and those of tm_empty_from. On error `*out` is
//         all zero.
tm_status kv_cache_init(const model_config* config, tm_allocator* allocator, int64_t bytes,
                        kv_cache* out);

// Releases the memory. All zero is a no-op.
void kv_cache_deinit(kv_cache* cache);

// Takes `count` blocks and stores their numbers; takes none and returns false where there are
// fewer.
bool kv_cache_take(kv_cache* cache, int64_t count, int32_t* blocks);

// Gives `count` blocks back.
void kv_cache_give(kv_cache* cache, int64_t count, const int32_t* blocks);

#endif  // ENGINE_KV_CACHE_H_
