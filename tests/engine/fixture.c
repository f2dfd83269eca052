#include "tests/engine/fixture.h"

#include "engine/counting.h"

model_config tiny_model(int64_t layers) {
  return (model_config){
      .layers = layers,
      .hidden = 96,
      .heads = 6,
      .kv_heads = 2,
      .head_dim = 16,
      .intermediate = 200,
      .vocabulary = 1000,
      .max_positions = 1000,
      .dtype = TM_BF16,
  };
}

tm_status fixture_init(engine_fixture* f, const model_config* config, double kv_fraction) {
  *f = (engine_fixture){.stream = tm_stream_create(0, 0)};
  if (!f->stream) return tm_last_status();
  tm_allocator* memory = tm_cuda_allocator(0);
  if (!memory) return tm_last_status();
  const engine_options options = {
      .stream = f->stream,
      .memory = memory,
      .cache_memory = memory,
      .kv_fraction = kv_fraction,
      .max_batch = TINY_BATCH,
      .max_tokens = TINY_TOKENS,
  };
  f->engine = engine_create(config, &options);
  return f->engine ? TM_OK : tm_last_status();
}

static tm_status make_upstream(engine_fixture* f, activation_source source) {
  tm_allocator* memory =
      source == FROM_CUDA ? tm_cuda_allocator(0) : tm_cuda_pool_allocator_create(f->stream, NULL);
  f->upstream = counting_allocator_create(memory, NULL);
  tm_allocator_release(memory);
  return f->upstream ? TM_OK : tm_last_status();
}

tm_status fixture_start(engine_fixture* f, activation_source source, const request_trace* trace) {
  TM_TRY(make_upstream(f, source));
  const tm_stack_options arena = {
      .initial_bytes = engine_get_memory(f->engine).activation_bytes,
  };
  f->activations = source == FROM_STACK ? tm_stack_allocator_create(f->upstream, f->stream, &arena)
                                        : tm_allocator_retain(f->upstream);
  if (!f->activations) return tm_last_status();
  return engine_start(f->engine, f->activations, trace);
}

tm_status fixture_serve(engine_fixture* f) {
  while (!engine_is_idle(f->engine)) TM_TRY(engine_step(f->engine));
  return engine_drain(f->engine);
}

void fixture_deinit(engine_fixture* f) {
  engine_destroy(f->engine);
  tm_allocator_release(f->activations);
  tm_allocator_release(f->upstream);
  tm_stream_release(f->stream);
  *f = (engine_fixture){0};
}
