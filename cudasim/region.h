// Boxes of bytes in memory, and whether two have a byte in common.
#ifndef CUDASIM_REGION_H_
#define CUDASIM_REGION_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cudasim/copy.h"

// `depth` slices of `height` rows of `width` bytes; in the simplest form there is: one row where
// the bytes follow each other, one slice where the rows do.
typedef struct region {
  uint64_t address;
  uint64_t width;
  uint64_t height;
  uint64_t depth;
  uint64_t pitch;  // bytes from row to row; any where there is one row
  uint64_t slice;  // and from slice to slice
} region;

region sim_region_of(const side* where, const box* extent);

// The first byte after it.
static inline uint64_t region_end(const region* r) {
  return r->address + (r->depth - 1) * r->slice + (r->height - 1) * r->pitch + r->width;
}

bool sim_region_overlaps(const region* a, const region* b);

// Whether all of `b` is certain to be in `a`.
bool sim_region_covers(const region* a, const region* b);

#endif  // CUDASIM_REGION_H_
