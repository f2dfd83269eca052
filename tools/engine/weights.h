// A model's weights: persistent tensors, made before anything else and never written.
//
// Projections that read the same input are one matrix, as engines fuse them: q, k and v; gate and
// up.
#ifndef ENGINE_WEIGHTS_H_
#define ENGINE_WEIGHTS_H_

#include <stddef.h>
#include <stdint.h>
#include <tm/tm.h>

#include "engine/config.h"

typedef struct layer_weights {
  tm_tensor attention_norm;     // [hidden]
  tm_tensor qkv;                // [(heads + 2 * kv_heads) * head_dim, hidden]
  tm_tensor qkv_bias;           // [(heads + 2 * kv_heads) * head_dim]; null where there is none
  tm_tensor output;             // [hidden, heads * head_dim]
  tm_tensor feed_forward_norm;  // [hidden]
  tm_tensor gate_up;            // [2 * intermediate, hidden]
  tm_tensor down;               // [hidden, intermediate]
} layer_weights;

typedef struct model_weights {
  tm_tensor embedding;    // [vocabulary, hidden]
  layer_weights* layers;  // as many as `layer_count`
  int64_t layer_count;
  tm_tensor norm;  // [hidden]
  tm_tensor head;  // [vocabulary, hidden]; the embedding where they are tied
} model_weights;

// Makes all weights from the context's device allocator.
// Ownership: the caller gives them back with model_weights_deinit.
// Errors: those of tm_empty. On error `*out` is all zero and nothing is held.
tm_status model_weights_init(const model_config* config, model_weights* out);

// Releases the weights. All zero is a no-op.
void model_weights_deinit(model_weights* weights);

// Parameters of the model, and the bytes they take.
int64_t model_parameters(const model_config* config);
int64_t model_weight_bytes(const model_config* config);

#endif  // ENGINE_WEIGHTS_H_
