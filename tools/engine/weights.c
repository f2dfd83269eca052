#include "engine/weights.h"

#include <stdbool.h>
#include <tm/tm.h>

// Makes one weight, and says whether that worked.
static bool make(tm_shape shape, const model_config* config, tm_tensor* out) {
  *out = tm_empty(shape, config->dtype, TM_DEVICE);
  return tm_ok(out);
}

static bool make_layer(const model_config* c, layer_weights* out) {
  const int64_t qkv_width = model_qkv_width(c);
  return make(TM_SHAPE(c->hidden), c, &out->attention_norm) &&
         make(TM_SHAPE(qkv_width, c->hidden), c, &out->qkv) &&
         (!c->qkv_bias || make(TM_SHAPE(qkv_width), c, &out->qkv_bias)) &&
         make(TM_SHAPE(c->hidden, c->heads * c->head_dim), c, &out->output) &&
         make(TM_SHAPE(c->hidden), c, &out->feed_forward_norm) &&
         make(TM_SHAPE(2 * c->intermediate, c->hidden), c, &out->gate_up) &&
         make(TM_SHAPE(c->hidden, c->intermediate), c, &out->down);
}

static bool make_head(const model_config* c, model_weights* out) {
  if (!c->tied_embeddings) return make(TM_SHAPE(c->vocabulary, c->hidden), c, &out->head);
  out->head = tm_share(&out->embedding);
  return true;
}

static bool make_all(const model_config* c, model_weights* out) {
  out->layers = tm_bookkeeping_alloc((size_t)c->layers * sizeof(*out->layers), "layer weights");
  if (!out->layers || !make(TM_SHAPE(c->vocabulary, c->hidden), c, &out->embedding)) return false;
  for (; out->layer_count < c->layers; out->layer_count++) {
    if (!make_layer(c, &out->layers[out->layer_count])) return false;
  }
  return make(TM_SHAPE(c->hidden), c, &out->norm) && make_head(c, out);
}

tm_status model_weights_init(const model_config* config, model_weights* out) {
  TM_SCOPE("weights");
  *out = (model_weights){0};
  if (make_all(config, out)) return TM_OK;
  const tm_status status = tm_last_status();
  out->layer_count = out->layers ? config->layers : 0;  // the one that failed is partly made
  model_weights_deinit(out);
  return status;
}

static void release_layer(layer_weights* layer) {
  tm_release(&layer->attention_norm);
  tm_release(&layer->qkv);
  tm_release(&layer->qkv_bias);
  tm_release(&layer->output);
  tm_release(&layer->feed_forward_norm);
  tm_release(&layer->gate_up);
  tm_release(&layer->down);
}

void model_weights_deinit(model_weights* weights) {
  tm_release(&weights->embedding);
  for (int64_t i = 0; i < weights->layer_count; i++) release_layer(&weights->layers[i]);
  tm_release(&weights->norm);
  tm_release(&weights->head);
  tm_bookkeeping_free(weights->layers);
  *weights = (model_weights){0};
}

int64_t model_parameters(const model_config* c) {
  const int64_t attention =
      model_qkv_width(c) * (c->hidden + (c->qkv_bias ? 1 : 0)) + c->hidden * c->heads * c->head_dim;
  const int64_t feed_forward = 3 * c->hidden * c->intermediate;
  const int64_t embeddings = c->vocabulary * c->hidden * (c->tied_embeddings ? 1 : 2);
  return c->layers * (attention + feed_forward + 2 * c->hidden) + embeddings + c->hidden;
}

int64_t model_weight_bytes(const model_config* config) {
  return model_parameters(config) * model_element_bytes(config);
}
