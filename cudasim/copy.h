// Copies: what they are checked for, and when the host waits for them.
//
//   source     destination   cudaMemcpy...        cudaMemcpy...Async
//   pageable   device        waits for what is    takes a copy of up to 1 MiB, else waits
//                            before it, then as
//                            Async
//   pinned     device        waits                does not wait
//   device     pageable      waits                waits
//   device     pinned        waits                does not wait
//   device     device        does not wait        does not wait
//   host       host          waits                waits
#ifndef CUDASIM_COPY_H_
#define CUDASIM_COPY_H_

#include <stdbool.h>
#include <stdint.h>

#include "cudasim/device.h"
#include "cudasim/op.h"
#include "cudasim/stream.h"

// One side of a copy or fill as the program gave it: bytes from row to row and from slice to slice.
typedef struct side {
  void* pointer;
  size_t pitch;
  size_t slice;
} side;

typedef struct copy_request {
  side to;
  side from;
  box extent;
  enum cudaMemcpyKind kind;
} copy_request;

// What a pointer points at.
typedef struct place {
  device* device;  // NULL: host memory
  bool is_pinned;  // host memory that is page-locked
  char* at;        // where the simulation can use it
  uint64_t address;
  uint64_t bytes;  // from the first to the last byte of the box
} place;

// Finds where the box `extent`, which is not empty, lies. Refuses what is not all in one live
// allocation.
cudaError_t sim_place_find(const side* where, const box* extent, place* out);

// Checks the copy and finds where its two sides are. An empty extent is not for it.
cudaError_t sim_copy_check(const copy_request* r, place* to, place* from);

// The op that does the checked copy; NULL when the host has no memory.
op* sim_copy_op(const copy_request* r, const place* to, const place* from);

// Does the checked copy in `s`, which has been entered, and waits as the table says.
cudaError_t sim_copy_submit(stream* s, const copy_request* r, const place* to, const place* from,
                            bool is_async);

// All of it.
cudaError_t sim_copy(device* current, cudaStream_t in, const copy_request* r, bool is_async);

static inline bool box_is_empty(const box* b) { return !b->width || !b->height || !b->depth; }

// The request of a 3D copy; its extent may be empty.
cudaError_t sim_copy_request_3d(const struct cudaMemcpy3DParms* p, copy_request* out);

// A request for `bytes` contiguous bytes.
copy_request sim_copy_linear(void* to, const void* from, size_t bytes, enum cudaMemcpyKind kind);

#endif  // CUDASIM_COPY_H_
