// An engine of a tiny model on a simulated device, for tests.
#ifndef TESTS_ENGINE_FIXTURE_H_
#define TESTS_ENGINE_FIXTURE_H_

#include <tm/tm.h>

#include "engine/engine.h"
#include "engine/verify.h"

// A model whose step is small and whose sizes are no round numbers.
model_config tiny_model(int64_t layers);

typedef enum activation_source {
  FROM_CUDA,
  FROM_POOL,
  FROM_STACK,
  ACTIVATION_SOURCES,
} activation_source;

typedef struct engine_fixture {
  tm_stream* stream;
  tm_allocator* upstream;  // counts
  tm_allocator* activations;
  engine* engine;
} engine_fixture;

enum { TINY_BATCH = 8, TINY_TOKENS = 256 };

// Makes the engine, not started. `kv_fraction` as in engine_options. Returns what engine_create
// did.
tm_status fixture_init(engine_fixture* f, const model_config* config, double kv_fraction);

// Makes the allocator of the activations and starts the engine.
tm_status fixture_start(engine_fixture* f, activation_source source, const request_trace* trace);

// Steps until all is done, and drains.
tm_status fixture_serve(engine_fixture* f);

void fixture_deinit(engine_fixture* f);

#endif  // TESTS_ENGINE_FIXTURE_H_
