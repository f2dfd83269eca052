// Random programs against the model: each call is made on both, and whatever can be seen is
// compared after it.
//
// A program orders what must be ordered, and so it is right, but it also passes arguments that are
// wrong, breaks captures and devices, runs out of memory and orders faults. Its steps draw from
// random numbers of their own, so that a program with steps left out goes on doing the same.
#ifndef TESTS_CUDASIM_PROGRAM_H_
#define TESTS_CUDASIM_PROGRAM_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/cudasim/model.h"

#define PROGRAM_STEPS 120
#define PROGRAM_ADDITIONS 256
#define PROGRAM_LOG ((size_t)1 << 18)

// What a host function does: adds a number to bytes.
typedef struct program_addition {
  unsigned char* memory;
  size_t bytes;
  unsigned char number;
} program_addition;

typedef struct program {
  model model;
  unsigned seed;
  uint64_t random;
  int step;
  bool skips[PROGRAM_STEPS];
  bool has_failed;
  bool is_logging;
  char* log;
  size_t logged;
  program_addition additions[PROGRAM_ADDITIONS];
  int addition_count;
  void* gone;  // what was freed or destroyed last, as an argument that is wrong
  cudaStream_t gone_stream;
  cudaEvent_t gone_event;
  cudaMemPool_t gone_pool;
  cudaGraph_t gone_graph;
  cudaGraphExec_t gone_exec;
} program;

// Makes a call on both; `expected` is evaluated first. What follows describes the call.
#define TRY(p, expected, call, ...)                      \
  __extension__({                                        \
    cudaError_t expected_ = (expected);                  \
    if ((p)->is_logging) program_note((p), __VA_ARGS__); \
    cudaError_t actual_ = (call);                        \
    program_judge((p), #call, expected_, actual_);       \
    actual_;                                             \
  })

void program_note(program* p, const char* format, ...) __attribute__((format(printf, 2, 3)));
void program_judge(program* p, const char* call, cudaError_t expected, cudaError_t actual);
void program_fail(program* p, const char* format, ...) __attribute__((format(printf, 2, 3)));

// A random number below `below`.
unsigned program_draw(program* p, unsigned below);

static inline bool program_chance(program* p, unsigned one_in) {
  return program_draw(p, one_in) == 0;
}

// Runs the program of `seed` on a new machine. False, after the list of its calls on stderr, when
// something was not as the model says; then with as few steps as still show it.
bool program_run(unsigned seed, const char* schedule);

// One random step, and what ends a program.
void program_step(program* p);
void program_end(program* p);

// Compares what can be seen.
void program_compare(program* p);

#endif  // TESTS_CUDASIM_PROGRAM_H_
