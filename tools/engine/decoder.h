// The decoder: one forward pass of a llama-like model, as far as memory goes.
//
// It names no allocator and no stream: every activation is an implicit tensor of the context it is
// called in. There are no kernels; an operator makes its output and that is all. Temporaries of a
// layer die inside it, so an arena is back where it was after each layer.
//
//   hidden [tokens, hidden] ------------------------------------------------+
//   per layer:  residual                                                    |
//     attention:    normed, qkv, q, k, v, attended, projected   -> residual |  12 tensors
//     feed-forward: normed, gate_up, activated, down            -> hidden <-+
//   per step:   hidden, last, normed, logits, probabilities                     5 tensors
#ifndef ENGINE_DECODER_H_
#define ENGINE_DECODER_H_

#include <stddef.h>
#include <stdint.h>
#include <tm/tm.h>

#include "engine/config.h"
#include "engine/weights.h"

enum {
  TENSORS_PER_LAYER = 12,
  TENSORS_PER_STEP = 5,
};

// Bytes of activations that decoder_forward has at once at most: its high-water mark on an arena
// that rounds each tensor up to a multiple of `alignment` bytes, a power of two. Exact, so that a
// step for which so much is reserved cannot run out. SIZE_MAX where no memory is that large.
size_t decoder_activation_bytes(const model_config* config, int64_t tokens, int64_t sequences,
                                size_t alignment);

typedef struct decoder {
  const model_config* config;    // borrowed
  const model_weights* weights;  // borrowed
  uint64_t tensors;              // made so far
} decoder;

// Tensors that every step that succeeds makes, whatever its batch.
static inline int64_t decoder_tensors_per_step(const model_config* config) {
  return TENSORS_PER_LAYER * config->layers + TENSORS_PER_STEP;
}

// Runs `tokens` tokens of `sequences` sequences through the model, on the context's stream.
// Errors: those of tm_empty; everything made is released then.
tm_status decoder_forward(decoder* d, int64_t tokens, int64_t sequences);

#endif  // ENGINE_DECODER_H_
