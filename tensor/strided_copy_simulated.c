// The kernels of strided copies and fills on the simulated device: the threads of a block run one
// after the other, phase by phase.

#include <cudasim.h>
#include <stdlib.h>

#include "tensor/strided_copy_functions.h"
#include "tensor/strided_copy_kernel.h"

typedef struct block_work {
  tm_strided_copy_ copy;  // with addresses that the host can use
  uint64_t index;         // of the block
  uint64_t count;         // of blocks
} block_work;

// The loops that the device's wrappers have.
TM_KERNEL_ void run_rows(const block_work* work, int unit, int fills) {
  const uint64_t chunks = tm_strided_chunks_(&work->copy);
  for (uint64_t chunk = work->index; chunk < chunks; chunk += work->count) {
    for (uint32_t thread = 0; thread < TM_STRIDED_THREADS_; thread++) {
      tm_strided_rows_(&work->copy, unit, fills, chunk, thread);
    }
  }
}

TM_KERNEL_ void run_tiles(const block_work* work, int element, int load, int store) {
  char shared[TM_STRIDED_SHARED_(16)] __attribute__((aligned(16)));
  for (uint64_t index = work->index; index < work->copy.total; index += work->count) {
    const tm_strided_tile_ tile = tm_strided_tile_find_(&work->copy, index);
    for (uint32_t thread = 0; thread < TM_STRIDED_THREADS_; thread++) {
      tm_strided_tile_load_(&work->copy, &tile, element, load, thread, shared);
    }
    for (uint32_t thread = 0; thread < TM_STRIDED_THREADS_; thread++) {
      tm_strided_tile_store_(&work->copy, &tile, element, store, thread, shared);
    }
  }
}

#define BODIES(unit)                                                                   \
  static void copy_rows_of_##unit(const block_work* work) { run_rows(work, unit, 0); } \
  static void fill_rows_of_##unit(const block_work* work) { run_rows(work, unit, 1); }
TM_STRIDED_ROWS_(BODIES)
#undef BODIES
#define BODIES(element, load, store)                                               \
  static void copy_tiles_of_##element##_##load##_##store(const block_work* work) { \
    run_tiles(work, element, load, store);                                         \
  }
TM_STRIDED_TILES_(BODIES)
#undef BODIES

static void (*const bodies[TM_STRIDED_KINDS_])(const block_work* work) = {
#define BODIES(unit)                                 \
  [TM_STRIDED_COPY_##unit##_] = copy_rows_of_##unit, \
  [TM_STRIDED_FILL_##unit##_] = fill_rows_of_##unit,
    TM_STRIDED_ROWS_(BODIES)
#undef BODIES
#define BODIES(element, load, store) \
  [TM_STRIDED_TILE_##element##_##load##_##store##_] = copy_tiles_of_##element##_##load##_##store,
        TM_STRIDED_TILES_(BODIES)
#undef BODIES
};

static size_t reach(const cudasim_launch* launch, cudasim_range* ranges) {
  const tm_strided_copy_* copy = launch->arguments[0];
  ranges[0] = (cudasim_range){copy->source, copy->source_bytes, CUDASIM_READS_OR_WRITES};
  ranges[1] = (cudasim_range){copy->destination, copy->destination_bytes, CUDASIM_READS_OR_WRITES};
  return 2;
}

static void run(const cudasim_launch* launch, dim3 index) {
  const tm_strided_copy_* given = launch->arguments[0];
  block_work work = {.copy = *given, .index = index.x, .count = launch->grid.x};
  work.copy.source = launch->memory[0];
  work.copy.destination = launch->memory[1];
  bodies[given->kind](&work);
}

static const char functions[TM_STRIDED_KINDS_];  // their addresses are the kernels'

// As code for a device does, before main.
__attribute__((constructor)) static void register_all(void) {
  static const size_t parameters[] = {sizeof(tm_strided_copy_)};
  const cudasim_kernel kernel = {"strided copy", parameters, 1, reach, run};
  for (int kind = 0; kind < TM_STRIDED_KINDS_; kind++) {
    if (cudasim_register_kernel(&functions[kind], &kernel) != cudaSuccess) {
      abort();  // the process has no memory before it has begun
    }
  }
}

const void* tm_strided_function_(int kind) { return &functions[kind]; }
