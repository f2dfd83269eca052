// One piece of work in a stream's queue.
#ifndef CUDASIM_OP_H_
#define CUDASIM_OP_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cudasim/include/cuda_runtime_api.h"

struct block;
struct device;
struct event;
struct kernel_run;
struct stream;

// Bytes of device memory; `device` is NULL where there are none.
typedef struct span {
  struct device* device;
  uint64_t address;
  uint64_t bytes;
} span;

// A box of `depth` slices of `height` rows of `width` bytes.
typedef struct box {
  size_t width;
  size_t height;
  size_t depth;
} box;

// Where a box lies: bytes from row to row and from slice to slice. `at` is an address that the
// simulation can use.
typedef struct grid {
  char* at;
  size_t pitch;
  size_t slice;
} grid;

typedef enum op_kind {
  OP_COPY,
  OP_FILL,
  OP_KERNEL,  // runs a kernel's host function
  OP_HOST,    // calls a function of the program
  OP_WAIT,    // holds the stream until another one has reached a position
  OP_RECORD,  // notes the time in an event
  OP_FREE,    // frees memory of cudaMalloc's
  OP_EMPTY,   // has an order and nothing to do
} op_kind;

typedef struct op {
  struct op* next;
  struct stream* stream;
  uint64_t position;  // in the stream
  op_kind kind;
  union {
    struct {
      box extent;
      grid to;
      grid from;
      span written;
      span read;
      void* staging;  // holds the source; given back afterwards; or NULL
    } copy;
    struct {
      box extent;
      grid to;
      span written;
      int value;
    } fill;
    struct {
      struct kernel_run* run;
    } kernel;
    struct {
      cudaHostFn_t function;
      void* argument;
      struct stamp* mark;  // for the checker, or NULL
    } host;
    struct {
      struct stream* target;
      uint64_t position;
    } wait;
    struct {
      struct event* event;
      uint64_t serial;  // of the recording: a later one makes this one void
    } record;
    struct {
      struct block* block;
    } free;
  };
} op;

// Whether somebody has to run the op; the others are done as soon as it is their turn.
static inline bool op_is_work(const op* o) {
  return o->kind == OP_COPY || o->kind == OP_FILL || o->kind == OP_KERNEL || o->kind == OP_HOST;
}

// An op of the kind, otherwise zero; NULL when the host has no memory.
op* sim_op_create(op_kind kind);

// The op that calls `function`.
op* sim_host_op(cudaHostFn_t function, void* argument);

// Does the work, without the runtime's lock; only for ops that do something outside the simulation:
// copies, fills, kernels and host functions.
void sim_op_run(const op* o);

// Gives back the op and what it holds.
void sim_op_release(op* o);

// Memory for the contents of a small pageable source, at most STAGING_BYTES; NULL when the host has
// none, or when all of it together would be more than it is worth.
#define STAGING_BYTES ((size_t)1 << 20)
void* sim_staging_take(size_t size);

// Frees the bookkeeping of all ops at once.
void sim_op_drop(void);

#endif  // CUDASIM_OP_H_
