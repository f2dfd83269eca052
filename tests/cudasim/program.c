#include "tests/cudasim/program.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MEMORY ((uint64_t)256 << 20)

//===-- Random numbers ------------------------------------------------------------------------===//

static uint64_t next_random(program* p) {
  uint64_t z = p->random += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
  return z ^ z >> 31;
}

unsigned program_draw(program* p, unsigned below) {
  return (unsigned)((next_random(p) >> 32) * below >> 32);
}

static void begin_step(program* p, int step) {
  p->step = step;
  p->random = ((uint64_t)p->seed << 32) + (uint64_t)step * 7919;
}

//===-- Saying what happens -------------------------------------------------------------------===//

static void append(program* p, const char* format, va_list arguments) {
  size_t left = PROGRAM_LOG - p->logged;
  int length = vsnprintf(p->log + p->logged, left, format, arguments);
  if (length > 0 && (size_t)length < left) p->logged += (size_t)length;
}

static void say(program* p, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  append(p, format, arguments);
  va_end(arguments);
}

void program_note(program* p, const char* format, ...) {
  say(p, "%4d: ", p->step);
  va_list arguments;
  va_start(arguments, format);
  append(p, format, arguments);
  va_end(arguments);
}

void program_fail(program* p, const char* format, ...) {
  if (p->has_failed) return;
  p->has_failed = true;
  say(p, "    ^ step %d: ", p->step);
  va_list arguments;
  va_start(arguments, format);
  append(p, format, arguments);
  va_end(arguments);
  say(p, "\n");
}

void program_judge(program* p, const char* call, cudaError_t expected, cudaError_t actual) {
  if (p->is_logging) say(p, ": %s\n", cudaGetErrorName(actual));
  if (actual == expected) return;
  if (p->model.or_else && actual == p->model.or_else) {
    model_correct(&p->model);
    return;
  }
  program_fail(p, "%s returned %s, not %s", call, cudaGetErrorName(actual),
               cudaGetErrorName(expected));
}

//===-- Comparing -----------------------------------------------------------------------------===//

static void compare_contents(program* p, int index) {
  model_buffer* b = &p->model.buffers[index];
  bool is_over = b->writer == MODEL_NONE || b->written <= p->model.done.at[b->writer];
  if (b->is_compared || !is_over || !b->seen) return;
  b->is_compared = true;
  for (size_t i = 0; i < MODEL_WINDOW && i < b->size; ++i) {
    if (!b->is_known[i] || b->seen[i] == b->data[i]) continue;
    program_fail(p, "buffer %d: byte %zu is %d, not %d", index, i, b->seen[i], b->data[i]);
    return;
  }
}

static void compare_memory(program* p) {
  size_t free;
  size_t total;
  uint64_t least;
  uint64_t most;
  if (p->model.devices[p->model.device].broken) return;
  cudaError_t error = cudaMemGetInfo(&free, &total);
  model_free_memory(&p->model, p->model.device, &least, &most);
  if (error || total != MEMORY || free < least || free > most) {
    program_fail(p, "cudaMemGetInfo: %s, %zu KiB free, not %llu to %llu", cudaGetErrorName(error),
                 free >> 10, (unsigned long long)least >> 10, (unsigned long long)most >> 10);
  }
}

static uint64_t figure(program* p, const model_pool* pool, enum cudaMemPoolAttr attribute) {
  uint64_t bytes = UINT64_MAX;
  cudaError_t error = cudaMemPoolGetAttribute(pool->handle, attribute, &bytes);
  if (error) program_fail(p, "cudaMemPoolGetAttribute: %s", cudaGetErrorName(error));
  return bytes;
}

static void compare_pool(program* p, int index) {
  model_pool* pool = &p->model.pools[index];
  uint64_t used = figure(p, pool, cudaMemPoolAttrUsedMemCurrent);
  uint64_t used_high = figure(p, pool, cudaMemPoolAttrUsedMemHigh);
  uint64_t reserved = figure(p, pool, cudaMemPoolAttrReservedMemCurrent);
  uint64_t reserved_high = figure(p, pool, cudaMemPoolAttrReservedMemHigh);
  uint64_t least = pool->least;
  uint64_t most = pool->most;
  if (used != pool->used || used_high != pool->used_high) {
    program_fail(p, "pool %d: %llu used, at most %llu, not %llu and %llu", index,
                 (unsigned long long)used, (unsigned long long)used_high,
                 (unsigned long long)pool->used, (unsigned long long)pool->used_high);
  } else if (!model_settle_reserved(&p->model, index, reserved)) {
    program_fail(p, "pool %d: %llu MiB reserved, not %llu to %llu", index,
                 (unsigned long long)reserved >> 20, (unsigned long long)least >> 20,
                 (unsigned long long)most >> 20);
  } else if (reserved_high != pool->reserved_high) {
    program_fail(p, "pool %d: at most %llu MiB reserved, not %llu", index,
                 (unsigned long long)reserved_high >> 20,
                 (unsigned long long)pool->reserved_high >> 20);
  }
}

static void compare_pools(program* p) {
  if (p->model.devices[p->model.device].broken || model_refuse_unsafe(&p->model, false)) return;
  for (int i = 0; i < MODEL_POOLS; ++i) {
    if (p->model.pools[i].exists) compare_pool(p, i);
  }
}

static void compare_counts(program* p, int device) {
  const cudasim_statistics* c = &p->model.devices[device].counts;
  cudasim_statistics found;
  cudasim_stats(device, &found);
  bool is_same = found.copies == c->copies && found.fills == c->fills &&
                 found.kernels == c->kernels && found.host_functions == c->host_functions;
  if (!is_same) program_fail(p, "device %d: cudasim_stats counts other work", device);
}

void program_compare(program* p) {
  model* m = &p->model;
  int device = MODEL_NONE;
  cudaError_t last = cudaPeekAtLastError();
  if (last != model_peek(m)) {
    program_fail(p, "the last error is %s, not %s", cudaGetErrorName(last),
                 cudaGetErrorName(model_peek(m)));
  }
  if (cudaGetDevice(&device) || device != m->device) program_fail(p, "the device is %d", device);
  compare_pools(p);
  compare_memory(p);
  for (int i = 0; i < m->device_count; ++i) compare_counts(p, i);
  for (int i = 0; i < MODEL_BUFFERS; ++i) {
    if (m->buffers[i].exists) compare_contents(p, i);
  }
}

//===-- Running -------------------------------------------------------------------------------===//

static void take_default_pools(program* p) {
  for (int d = 0; d < p->model.device_count; ++d) {
    if (cudaDeviceGetDefaultMemPool(&p->model.pools[d].handle, d)) {
      program_fail(p, "device %d has no default pool", d);
    }
  }
}

static void run_steps(program* p) {
  take_default_pools(p);
  for (int i = 0; i < PROGRAM_STEPS && !p->has_failed; ++i) {
    begin_step(p, i);
    if (p->skips[i]) continue;
    program_step(p);
    if (!p->has_failed) program_compare(p);
  }
  begin_step(p, PROGRAM_STEPS);
  if (!p->has_failed) program_end(p);
}

// What the program itself allocated for its pageable buffers.
static void free_pageable(program* p) {
  for (int i = 0; i < MODEL_BUFFERS; ++i) {
    const model_buffer* b = &p->model.buffers[i];
    bool is_ours = b->memory == MEMORY_PAGEABLE || b->memory == MEMORY_REGISTERED;
    if (b->exists && is_ours) free(b->address);
  }
}

// Runs it with the steps in `p->skips` left out.
static bool run(program* p, const char* schedule, bool is_logging) {
  unsigned seed = p->seed;
  bool is_eager = strcmp(schedule, "eager") == 0;
  char text[32];
  snprintf(text, sizeof(text), strcmp(schedule, "random") ? "%s" : "%s:%u", schedule, seed);
  // Wrong arguments are among what is compared: the checker would report them.
  cudasim_options machine = {
      .devices = MODEL_DEVICES, .memory = "256MiB", .schedule = text, .check = "off"};
  cudasim_reset();
  if (cudasim_configure(&machine)) return false;
  (void)cudaGetLastError();
  p->has_failed = false;
  p->is_logging = is_logging;
  p->logged = 0;
  p->addition_count = 0;
  p->gone = NULL;
  p->gone_stream = NULL;
  p->gone_event = NULL;
  p->gone_pool = NULL;
  p->gone_graph = NULL;
  p->gone_exec = NULL;
  model_begin(&p->model, MODEL_DEVICES, MEMORY, is_eager);
  run_steps(p);
  cudasim_reset();
  free_pageable(p);
  return !p->has_failed;
}

// Leaves out what the failure does not need: first many steps at once, then single ones.
static void shrink(program* p, const char* schedule) {
  int last = p->step;
  for (int width = PROGRAM_STEPS / 2; width; width /= 2) {
    for (int first = 0; first <= last; first += width) {
      bool before[PROGRAM_STEPS];
      memcpy(before, p->skips, sizeof(before));
      for (int i = first; i < first + width && i < PROGRAM_STEPS; ++i) p->skips[i] = true;
      if (run(p, schedule, true)) memcpy(p->skips, before, sizeof(before));
    }
  }
}

static void explain(program* p, const char* schedule) {
  run(p, schedule, true);
  if (!p->has_failed) {
    fprintf(stderr, "seed %u, %s: failed once and not again\n", p->seed, schedule);
    return;
  }
  shrink(p, schedule);
  run(p, schedule, true);
  fprintf(stderr, "seed %u, %s: MODEL_SEED=%u MODEL_SCHEDULE=%s runs it alone\n%.*s", p->seed,
          schedule, p->seed, schedule, (int)p->logged, p->log);
}

bool program_run(unsigned seed, const char* schedule) {
  program* p = calloc(1, sizeof(*p));
  char* log = malloc(PROGRAM_LOG);
  if (!p || !log) abort();
  p->seed = seed;
  p->log = log;
  bool is_good = run(p, schedule, getenv("MODEL_LOG") != NULL);
  if (is_good && getenv("MODEL_LOG")) fprintf(stderr, "%.*s", (int)p->logged, p->log);
  if (!is_good) {
    fprintf(stderr, "seed %u, %s:\n%.*s", seed, schedule, (int)p->logged, p->log);
    explain(p, schedule);
  }
  free(log);
  free(p);
  return is_good;
}
