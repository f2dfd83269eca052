// The decoder: how many tensors, how much memory, and what is left.

#include "engine/decoder.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <tm/tm.h>

#include "engine/builtin_models.h"
#include "tests/engine/fixture.h"
#include "tests/support/machine.h"

static void require_device(void) {
  machine_configure(1, "256MiB");
  machine_require_devices(1);
}

// Makes weights of a model and runs one step on an arena; both are the caller's.
static tm_allocator* run_step(const model_config* config, tm_stream* stream, int64_t tokens,
                              int64_t sequences, uint64_t* tensors) {
  model_weights weights;
  TM_USE_STREAM(stream);
  TM_USE_ALLOCATOR(tm_cuda_allocator(0));
  cr_assert(eq(int, model_weights_init(config, &weights), TM_OK), "%s", tm_last_error()->message);
  tm_allocator* arena = tm_stack_allocator_create(tm_cuda_allocator(0), stream, NULL);
  decoder d = {.config = config, .weights = &weights};
  TM_WITH_ALLOCATOR(arena) { cr_assert(eq(int, decoder_forward(&d, tokens, sequences), TM_OK)); }
  *tensors = d.tensors;
  model_weights_deinit(&weights);
  return arena;
}

Test(decoder, makes_as_many_tensors_as_its_header_says, .init = require_device) {
  static const int64_t layers[] = {1, 2, 7, 32};
  tm_auto_stream stream = tm_stream_create(0, 0);
  for (size_t i = 0; i < sizeof(layers) / sizeof(layers[0]); i++) {
    const model_config config = tiny_model(layers[i]);
    uint64_t tensors;
    tm_allocator_release(run_step(&config, stream, 37, 5, &tensors));
    cr_expect(eq(u64, tensors, (uint64_t)(12 * layers[i] + 5)));
    cr_expect(eq(i64, decoder_tensors_per_step(&config), 12 * layers[i] + 5));
  }
}

static size_t rounded(int64_t elements, int64_t bytes) {
  return (size_t)(elements * bytes + 255) / 256 * 256;
}

// Hidden and residual live throughout a layer; beside them either attention's temporaries or the
// feed-forward network's. The head comes when the residual is gone.
static size_t expected_peak(const model_config* c, int64_t tokens, int64_t sequences) {
  const size_t row = rounded(tokens * c->hidden, 2);
  const size_t heads = rounded(tokens * c->heads * c->head_dim, 2);
  const size_t kv = rounded(tokens * c->kv_heads * c->head_dim, 2);
  const size_t attention = 2 * row + rounded(tokens * model_qkv_width(c), 2) + 2 * heads + 2 * kv;
  const size_t feed_forward =
      2 * row + rounded(tokens * 2 * c->intermediate, 2) + rounded(tokens * c->intermediate, 2);
  const size_t head = row + 2 * rounded(sequences * c->hidden, 2) +
                      rounded(sequences * c->vocabulary, 2) + rounded(sequences * c->vocabulary, 4);
  const size_t layer = 2 * row + (attention > feed_forward ? attention : feed_forward);
  return layer > head ? layer : head;
}

Test(decoder, an_arena_is_back_after_each_layer, .init = require_device) {
  tm_auto_stream stream = tm_stream_create(0, 0);
  for (int64_t layers = 1; layers <= 9; layers += 4) {
    const model_config config = tiny_model(layers);
    uint64_t tensors;
    size_t mark;
    tm_auto_allocator arena = run_step(&config, stream, 300, 6, &tensors);
    cr_assert(eq(int, tm_stack_high_water_mark(arena, &mark), TM_OK));
    cr_expect(eq(sz, mark, expected_peak(&config, 300, 6)), "%lld layers", (long long)layers);
  }
}

//===-- What a step needs, without memory ---------------------------------===//

// Addresses for a device that has any amount of memory: tensors do not look at it.
static tm_status hand_out(size_t size, tm_stream* stream, void** out, void* user) {
  (void)stream;
  uintptr_t* next = user;
  *out = (void*)*next;  // NOLINT(performance-no-int-to-ptr)
  *next += size;
  return TM_OK;
}

static void take_back(void* ptr, size_t size, tm_stream* stream, void* user) {
  (void)ptr;
  (void)size;
  (void)stream;
  (void)user;
}

// The high-water mark of one step on an arena over such a device.
static size_t mark_of_step(const model_config* config, const model_weights* weights,
                           tm_allocator* endless, int64_t tokens, int64_t sequences) {
  size_t mark;
  decoder d = {.config = config, .weights = weights};
  tm_auto_allocator arena = tm_stack_allocator_create(endless, NULL, NULL);
  cr_assert(arena != NULL, "%s", tm_last_error()->message);
  TM_WITH_ALLOCATOR(arena) {
    cr_assert(eq(int, decoder_forward(&d, tokens, sequences), TM_OK), "%s",
              tm_last_error()->message);
  }
  cr_assert(eq(int, tm_stack_high_water_mark(arena, &mark), TM_OK));
  return mark;
}

// Steps of random sizes, those at the ends included.
static void expect_exact(const model_config* config, const char* name, unsigned* seed) {
  uintptr_t next = (uintptr_t)1 << 40;
  tm_auto_stream stream = tm_stream_create(0, 0);
  tm_auto_allocator endless =
      tm_callback_allocator_create(&(tm_callback_options){.device = {TM_DEVICE, 0},
                                                          .stream = stream,
                                                          .alloc = hand_out,
                                                          .free = take_back,
                                                          .user = &next});
  model_weights weights;
  TM_USE_STREAM(stream);
  TM_USE_ALLOCATOR(endless);
  cr_assert(eq(int, model_weights_init(config, &weights), TM_OK));
  for (int i = 0; i < 40; i++) {
    const int64_t tokens = i == 0 ? 1 : i == 1 ? 1 << 20 : 1 + rand_r(seed) % 8192;
    const int64_t sequences = i < 2 ? tokens : 1 + rand_r(seed) % tokens;
    cr_expect(eq(sz, decoder_activation_bytes(config, tokens, sequences, TM_DEVICE_ALIGNMENT),
                 mark_of_step(config, &weights, endless, tokens, sequences)),
              "%s: %lld tokens of %lld sequences", name, (long long)tokens, (long long)sequences);
  }
  model_weights_deinit(&weights);
}

Test(decoder, what_a_step_needs_is_the_mark_it_leaves, .init = require_device) {
  unsigned seed = 20231116;
  printf("seed %u\n", seed);
  for (size_t i = 0; i < builtin_model_count(); i++) {
    model_config config;
    cr_assert(builtin_model_find(builtin_model_name(i), &config));
    config.layers = config.layers < 3 ? config.layers : 3;
    expect_exact(&config, builtin_model_name(i), &seed);
  }
  for (int i = 0; i < 12; i++) {  // shapes that nobody would choose
    model_config config = tiny_model(1 + i % 3);
    config.hidden = 1 + rand_r(&seed) % 300;
    config.heads = 1 + rand_r(&seed) % 9;
    config.kv_heads = 1 + rand_r(&seed) % 9;
    config.head_dim = 1 + rand_r(&seed) % 40;
    config.intermediate = 1 + rand_r(&seed) % 500;
    config.vocabulary = 1 + rand_r(&seed) % 3000;
    config.dtype = i % 2 ? TM_BF16 : TM_F32;
    expect_exact(&config, "a random model", &seed);
  }
}

Test(decoder, what_no_memory_can_hold_needs_all_there_is) {
  model_config config = tiny_model(1);
  config.vocabulary = INT64_MAX / 4;
  cr_expect(eq(sz, decoder_activation_bytes(&config, 100, 100, 256), SIZE_MAX));
  config = tiny_model(1);
  cr_expect(eq(sz, decoder_activation_bytes(&config, INT64_MAX / 4, 1, 256), SIZE_MAX));
}

Test(decoder, weights_are_what_the_config_says, .init = require_device) {
  model_config config = tiny_model(3);
  config.qkv_bias = true;
  for (int tied = 0; tied < 2; tied++) {
    model_weights weights;
    config.tied_embeddings = tied;
    TM_USE_ALLOCATOR(tm_cuda_allocator(0));
    cr_assert(eq(int, model_weights_init(&config, &weights), TM_OK));
    size_t bytes = tm_byte_size(&weights.embedding) + tm_byte_size(&weights.norm) +
                   (tied ? 0 : tm_byte_size(&weights.head));
    for (int64_t i = 0; i < weights.layer_count; i++) {
      const layer_weights* w = &weights.layers[i];
      bytes += tm_byte_size(&w->attention_norm) + tm_byte_size(&w->qkv) +
               tm_byte_size(&w->qkv_bias) + tm_byte_size(&w->output) +
               tm_byte_size(&w->feed_forward_norm) + tm_byte_size(&w->gate_up) +
               tm_byte_size(&w->down);
    }
    cr_expect(eq(sz, bytes, (size_t)model_weight_bytes(&config)));
    model_weights_deinit(&weights);
  }
}

// With the nth allocation failing: the status says so, and nothing stays alive.
Test(decoder, gives_everything_back_wherever_memory_runs_out, .init = require_device) {
  const model_config config = tiny_model(2);
  model_weights weights;
  tm_auto_stream stream = tm_stream_create(0, 0);
  TM_USE_STREAM(stream);
  TM_USE_ALLOCATOR(tm_cuda_allocator(0));
  cr_assert(eq(int, model_weights_init(&config, &weights), TM_OK));
  decoder d = {.config = &config, .weights = &weights};
  const int64_t before = machine_live_allocations(0);
  for (uint64_t nth = 1; nth <= (uint64_t)decoder_tensors_per_step(&config); nth++) {
    machine_fail("cudaMalloc", nth, 0, cudaErrorMemoryAllocation);
    cr_expect(eq(int, decoder_forward(&d, 10, 2), TM_ERR_NO_MEMORY), "allocation %llu",
              (unsigned long long)nth);
    machine_fail_nothing();
    cr_expect(eq(i64, machine_live_allocations(0), before), "allocation %llu",
              (unsigned long long)nth);
  }
  cr_expect(eq(int, decoder_forward(&d, 10, 2), TM_OK));
  model_weights_deinit(&weights);
}
