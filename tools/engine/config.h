// A model's shape, from a config.json with Hugging Face's keys.
//
// Decoders of the llama family are understood: model_type "llama", "mistral" or "qwen2" (or none).
// What would make the sizes wrong without anybody noticing is an error: an unknown family, mixture
// of experts, quantized weights, biases that the family does not have.
#ifndef ENGINE_CONFIG_H_
#define ENGINE_CONFIG_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <tm/tm.h>

typedef struct model_config {
  int64_t layers;         // num_hidden_layers
  int64_t hidden;         // hidden_size, elements
  int64_t heads;          // num_attention_heads
  int64_t kv_heads;       // num_key_value_heads; without it, as many as heads
  int64_t head_dim;       // head_dim; without it, hidden / heads
  int64_t intermediate;   // intermediate_size, elements
  int64_t vocabulary;     // vocab_size
  int64_t max_positions;  // max_position_embeddings: the longest sequence, in tokens
  tm_dtype dtype;         // torch_dtype, or dtype: of weights, activations and the KV cache
  bool tied_embeddings;   // tie_word_embeddings: the output layer is the embedding
  bool qkv_bias;          // the family has biases on q, k and v
} model_config;

// Reads a config from `size` bytes of JSON. `file` is what messages call it.
// Errors: TM_ERR_CORRUPT (no JSON, a key missing or with a bad value; "file:line: ..." where there
//         is a line). On error `*out` is all zero.
tm_status model_config_parse(const char* text, size_t size, const char* file, model_config* out);

// Reads a config from a file.
// Errors: as model_config_parse, TM_ERR_NOT_FOUND, TM_ERR_IO, TM_ERR_NO_MEMORY.
tm_status model_config_read(const char* path, model_config* out);

// Bytes of one element of weights and activations.
static inline int64_t model_element_bytes(const model_config* config) {
  return tm_dtype_bits(config->dtype) / 8;
}

// Columns of the fused q, k and v.
static inline int64_t model_qkv_width(const model_config* config) {
  return (config->heads + 2 * config->kv_heads) * config->head_dim;
}

// Bytes that one token's keys and values take in all layers.
static inline int64_t model_kv_bytes_per_token(const model_config* config) {
  return 2 * config->layers * config->kv_heads * config->head_dim * model_element_bytes(config);
}

#endif  // ENGINE_CONFIG_H_
