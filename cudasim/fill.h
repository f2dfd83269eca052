// Fills: memory set to a byte, as a program asks for it and as it is queued.
#ifndef CUDASIM_FILL_H_
#define CUDASIM_FILL_H_

#include "cudasim/copy.h"

typedef struct fill_request {
  side to;
  box extent;
  int value;
} fill_request;

// Finds where the box, which is not empty, is to be filled. Refuses what is neither on a device nor
// page-locked.
cudaError_t sim_fill_check(const fill_request* r, place* where);

// The op that does the checked fill; NULL when the host has no memory.
op* sim_fill_op(const fill_request* r, const place* where);

#endif  // CUDASIM_FILL_H_
