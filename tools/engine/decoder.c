#include "engine/decoder.h"

#include <stdbool.h>
#include <tm/tm.h>

//===-- Operators ---------------------------------------------------------===//

// Each makes its output, which is null where an input is: a chain is checked once, at its end.

static tm_tensor activation(decoder* d, tm_shape shape, tm_dtype dtype) {
  tm_tensor made = tm_empty(shape, dtype, TM_DEVICE);
  d->tensors += tm_ok(&made) ? 1 : 0;
  return made;
}

static tm_tensor same_shape(decoder* d, const tm_tensor* x) {
  return tm_ok(x) ? activation(d, tm_shape_of(x), tm_dtype_of(x)) : tm_null();
}

// [tokens] -> [tokens, hidden]
static tm_tensor embed(decoder* d, int64_t tokens) {
  return activation(d, TM_SHAPE(tokens, tm_dim(&d->weights->embedding, 1)), d->config->dtype);
}

// [rows, n] -> [rows, n]
static tm_tensor rms_norm(decoder* d, const tm_tensor* x) { return same_shape(d, x); }

// [rows, n] x [m, n] -> [rows, m]
static tm_tensor linear(decoder* d, const tm_tensor* x, const tm_tensor* weight) {
  if (!tm_ok(x)) return tm_null();
  return activation(d, TM_SHAPE(tm_dim(x, 0), tm_dim(weight, 0)), tm_dtype_of(x));
}

// [tokens, qkv] -> [tokens, heads, head_dim]: some of the heads, with their positions rotated in.
static tm_tensor take_heads(decoder* d, const tm_tensor* qkv, int64_t heads) {
  if (!tm_ok(qkv)) return tm_null();
  return activation(d, TM_SHAPE(tm_dim(qkv, 0), heads, d->config->head_dim), tm_dtype_of(qkv));
}

// [tokens, heads, head_dim] -> [tokens, heads * head_dim]; k and v go into the cache.
static tm_tensor attend(decoder* d, const tm_tensor* q, const tm_tensor* k, const tm_tensor* v) {
  if (!tm_ok(q) || !tm_ok(k) || !tm_ok(v)) return tm_null();
  return activation(d, TM_SHAPE(tm_dim(q, 0), tm_dim(q, 1) * tm_dim(q, 2)), tm_dtype_of(q));
}

// [tokens, 2 * n] -> [tokens, n]: the first half gates the second.
static tm_tensor silu_and_multiply(decoder* d, const tm_tensor* gate_up) {
  if (!tm_ok(gate_up)) return tm_null();
  return activation(d, TM_SHAPE(tm_dim(gate_up, 0), tm_dim(gate_up, 1) / 2), tm_dtype_of(gate_up));
}

// [tokens, n] -> [sequences, n]: the last token of each sequence.
static tm_tensor last_rows(decoder* d, const tm_tensor* x, int64_t sequences) {
  if (!tm_ok(x)) return tm_null();
  return activation(d, TM_SHAPE(sequences, tm_dim(x, 1)), tm_dtype_of(x));
}

// [sequences, vocabulary] -> [sequences, vocabulary]
static tm_tensor softmax(decoder* d, const tm_tensor* logits) {
  return tm_ok(logits) ? activation(d, tm_shape_of(logits), TM_F32) : tm_null();
}

//===-- The model ---------------------------------------------------------===//

// Status of the chain that ends in `x`.
static tm_status chain_status(const tm_tensor* x) {
  return tm_ok(x) ? TM_OK : TM_NULL_HANDLE("an activation");
}

static tm_status attention(decoder* d, const layer_weights* w, const tm_tensor* hidden) {
  TM_SCOPE("attention");
  tm_auto_tensor normed = rms_norm(d, hidden);
  tm_auto_tensor qkv = linear(d, &normed, &w->qkv);
  tm_auto_tensor q = take_heads(d, &qkv, d->config->heads);
  tm_auto_tensor k = take_heads(d, &qkv, d->config->kv_heads);
  tm_auto_tensor v = take_heads(d, &qkv, d->config->kv_heads);
  tm_auto_tensor attended = attend(d, &q, &k, &v);
  tm_auto_tensor projected = linear(d, &attended, &w->output);
  return chain_status(&projected);
}

static tm_status feed_forward(decoder* d, const layer_weights* w, const tm_tensor* hidden) {
  TM_SCOPE("feed_forward");
  tm_auto_tensor normed = rms_norm(d, hidden);
  tm_auto_tensor gate_up = linear(d, &normed, &w->gate_up);
  tm_auto_tensor activated = silu_and_multiply(d, &gate_up);
  tm_auto_tensor down = linear(d, &activated, &w->down);
  return chain_status(&down);
}

static tm_status layer(decoder* d, const layer_weights* w, const tm_tensor* hidden) {
  TM_SCOPE("layer");
  tm_auto_tensor residual = same_shape(d, hidden);  // hidden + attention(hidden)
  TM_TRY(chain_status(&residual));
  TM_TRY(attention(d, w, hidden));
  return feed_forward(d, w, &residual);  // hidden = residual + feed_forward(residual)
}

static tm_status head(decoder* d, const tm_tensor* hidden, int64_t sequences) {
  TM_SCOPE("head");
  tm_auto_tensor last = last_rows(d, hidden, sequences);
  tm_auto_tensor normed = rms_norm(d, &last);
  tm_auto_tensor logits = linear(d, &normed, &d->weights->head);
  tm_auto_tensor probabilities = softmax(d, &logits);
  return chain_status(&probabilities);
}

tm_status decoder_forward(decoder* d, int64_t tokens, int64_t sequences) {
  TM_SCOPE("forward");
  TM_TRY_TENSOR(hidden, embed(d, tokens));
  for (int64_t i = 0; i < d->weights->layer_count; i++) {
    TM_TRY(layer(d, &d->weights->layers[i], &hidden));
  }
  return head(d, &hidden, sequences);
}

//===-- What it needs -----------------------------------------------------===//

// Tensors that are alive together. Once something does not fit a size, the sum is SIZE_MAX.
typedef struct extent {
  size_t bytes;
  size_t alignment;
} extent;

// Adds `count` tensors of [rows, columns].
static void add(extent* e, int count, int64_t rows, int64_t columns, tm_dtype dtype) {
  size_t elements, size;
  bool fits = tm_checked_mul((size_t)rows, (size_t)columns, &elements) && elements <= INT64_MAX &&
              tm_dtype_bytes(dtype, (int64_t)elements, &size) == TM_OK &&
              tm_checked_round_up(size, e->alignment, &size);
  for (int i = 0; i < count && fits; i++) fits = tm_checked_add(e->bytes, size, &e->bytes);
  if (!fits) e->bytes = SIZE_MAX;
}

// normed, qkv, q, k, v, attended, projected
static size_t attention_bytes(const model_config* c, int64_t tokens, extent e) {
  add(&e, 2, tokens, c->hidden, c->dtype);
  add(&e, 1, tokens, model_qkv_width(c), c->dtype);
  add(&e, 2, tokens, c->heads * c->head_dim, c->dtype);
  add(&e, 2, tokens, c->kv_heads * c->head_dim, c->dtype);
  return e.bytes;
}

// normed, gate_up, activated, down
static size_t feed_forward_bytes(const model_config* c, int64_t tokens, extent e) {
  add(&e, 2, tokens, c->hidden, c->dtype);
  add(&e, 1, tokens, 2 * c->intermediate, c->dtype);
  add(&e, 1, tokens, c->intermediate, c->dtype);
  return e.bytes;
}

// last, normed, logits, probabilities
static size_t head_bytes(const model_config* c, int64_t sequences, extent e) {
  add(&e, 2, sequences, c->hidden, c->dtype);
  add(&e, 1, sequences, c->vocabulary, c->dtype);
  add(&e, 1, sequences, c->vocabulary, TM_F32);
  return e.bytes;
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

// Hidden is alive throughout. Beside it are the residual and either attention's or the feed-forward
// network's tensors; and in the end, when the residual is gone, the head's.
size_t decoder_activation_bytes(const model_config* config, int64_t tokens, int64_t sequences,
                                size_t alignment) {
  extent e = {.alignment = alignment};
  add(&e, 1, tokens, config->hidden, config->dtype);
  const size_t head = head_bytes(config, sequences, e);
  add(&e, 1, tokens, config->hidden, config->dtype);
  return larger(head,
                larger(attention_bytes(config, tokens, e), feed_forward_bytes(config, tokens, e)));
}
