// Makers of the small structs that the 2D and 3D calls take.
#ifndef CUDASIM_DRIVER_FUNCTIONS_H_
#define CUDASIM_DRIVER_FUNCTIONS_H_

// The names of parameters and fields are CUDA's.
// NOLINTBEGIN(readability-identifier-naming)

#include "driver_types.h"

// Describes linear memory at `d`: `p` bytes from row to row, `xsz` bytes by `ysz` rows of data.
static inline struct cudaPitchedPtr make_cudaPitchedPtr(void* d, size_t p, size_t xsz, size_t ysz) {
  struct cudaPitchedPtr pitched;
  pitched.ptr = d;
  pitched.pitch = p;
  pitched.xsize = xsz;
  pitched.ysize = ysz;
  return pitched;
}

// The corner `x` bytes, `y` rows and `z` slices into an array.
static inline struct cudaPos make_cudaPos(size_t x, size_t y, size_t z) {
  struct cudaPos position;
  position.x = x;
  position.y = y;
  position.z = z;
  return position;
}

// A box of `w` bytes, `h` rows and `d` slices.
static inline struct cudaExtent make_cudaExtent(size_t w, size_t h, size_t d) {
  struct cudaExtent extent;
  extent.width = w;
  extent.height = h;
  extent.depth = d;
  return extent;
}

// NOLINTEND(readability-identifier-naming)

#endif  // CUDASIM_DRIVER_FUNCTIONS_H_
