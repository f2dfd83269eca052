// What `tm replay` is asked to do.
#ifndef TOOLS_REPLAY_OPTIONS_H_
#define TOOLS_REPLAY_OPTIONS_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// The allocators that can serve the activations.
typedef enum replay_allocator {
  REPLAY_CUDA,    // cudaMalloc and cudaFree
  REPLAY_CACHED,  // a cache over cudaMalloc
  REPLAY_POOL,    // a CUDA memory pool
  REPLAY_STACK,   // an arena over a CUDA memory pool
  REPLAY_ALLOCATORS,
} replay_allocator;

// "cuda", "cached", "pool" or "stack".
const char* replay_allocator_name(replay_allocator allocator);

typedef struct replay_options {
  const char* trace;       // a file; NULL: generated
  const char* model;       // a built-in name or a file
  uint64_t device_memory;  // bytes; 0: all the device has
  replay_allocator allocators[REPLAY_ALLOCATORS];
  size_t allocator_count;
  uint64_t requests;  // at most so many; 0: all of the trace, or the generator's default
  int64_t max_batch;
  int64_t max_tokens;
  uint64_t seed;
  bool verify;
  bool json;
  bool help;
} replay_options;

// Reads the command line after `replay`, which is argv[0]. On failure one line on stderr says what
// is wrong, and false is returned. The strings are those of `argv`.
bool replay_options_parse(int argc, char** argv, replay_options* out);

// Prints how `tm replay` is used, on stdout.
void replay_options_help(void);

#endif  // TOOLS_REPLAY_OPTIONS_H_
