// Shapes: a rank and that many sizes, passed by value.
//
//   tm_empty(TM_SHAPE(tokens, hidden), TM_F16, TM_DEVICE);
//
// Only the first `rank` entries are ever written or read: a shape of two sizes costs three stores.
// The same struct carries other lists with one number per dimension (where a slice starts, the
// order of a permutation); TM_INDEX is TM_SHAPE under a name that reads right there.
#ifndef TM_TENSOR_SHAPE_H_
#define TM_TENSOR_SHAPE_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tm/base/attributes.h"

TM_EXTERN_C_BEGIN

enum {
  TM_MAX_RANK = 8,
  TM_SHAPE_TEXT_SIZE = 192,  // bytes that hold any shape as text, the terminating NUL included
};

// Not checked when it is made: what takes a shape says what is wrong with it.
typedef struct tm_shape {
  int32_t rank;              // 0 (one element) to TM_MAX_RANK
  int64_t dim[TM_MAX_RANK];  // the first `rank` are set
} tm_shape;

// A shape of 0 to 8 integers, each converted to int64_t. TM_SHAPE() is the scalar.
#define TM_SHAPE(...)                                                                          \
  TM_SHAPE_PICK_(_ __VA_OPT__(, ) __VA_ARGS__, tm_shape8_, tm_shape7_, tm_shape6_, tm_shape5_, \
                 tm_shape4_, tm_shape3_, tm_shape2_, tm_shape1_, tm_shape0_)                   \
  (__VA_ARGS__)
#define TM_INDEX(...) TM_SHAPE(__VA_ARGS__)

// A shape of `rank` sizes that are known at run time only. `dim` may be NULL where `rank` is 0.
TM_API tm_shape tm_shape_make(int32_t rank, const int64_t* dim);

// Whether two shapes have the same rank and sizes.
TM_API bool tm_shape_equal(const tm_shape* a, const tm_shape* b);

// Writes "(20,50)"; cuts at `size` bytes, the terminating NUL included.
TM_API void tm_shape_text(const tm_shape* shape, char* text, size_t size);

//===-- What the macro uses -----------------------------------------------===//

#define TM_SHAPE_PICK_(_, a, b, c, d, e, f, g, h, name, ...) name

TM_HOST_DEVICE_ static inline tm_shape tm_shape0_(void) {
  tm_shape shape;
  shape.rank = 0;
  return shape;
}

TM_HOST_DEVICE_ static inline tm_shape tm_shape1_(int64_t a) {
  tm_shape shape;
  shape.rank = 1;
  shape.dim[0] = a;
  return shape;
}

TM_HOST_DEVICE_ static inline tm_shape tm_shape2_(int64_t a, int64_t b) {
  tm_shape shape;
  shape.rank = 2;
  shape.dim[0] = a;
  shape.dim[1] = b;
  return shape;
}

TM_HOST_DEVICE_ static inline tm_shape tm_shape3_(int64_t a, int64_t b, int64_t c) {
  tm_shape shape;
  shape.rank = 3;
  shape.dim[0] = a;
  shape.dim[1] = b;
  shape.dim[2] = c;
  return shape;
}

TM_HOST_DEVICE_ static inline tm_shape tm_shape4_(int64_t a, int64_t b, int64_t c, int64_t d) {
  tm_shape shape;
  shape.rank = 4;
  shape.dim[0] = a;
  shape.dim[1] = b;
  shape.dim[2] = c;
  shape.dim[3] = d;
  return shape;
}

TM_HOST_DEVICE_ static inline tm_shape tm_shape5_(int64_t a, int64_t b, int64_t c, int64_t d,
                                                  int64_t e) {
  tm_shape shape = tm_shape4_(a, b, c, d);
  shape.rank = 5;
  shape.dim[4] = e;
  return shape;
}

TM_HOST_DEVICE_ static inline tm_shape tm_shape6_(int64_t a, int64_t b, int64_t c, int64_t d,
                                                  int64_t e, int64_t f) {
  tm_shape shape = tm_shape4_(a, b, c, d);
  shape.rank = 6;
  shape.dim[4] = e;
  shape.dim[5] = f;
  return shape;
}

TM_HOST_DEVICE_ static inline tm_shape tm_shape7_(int64_t a, int64_t b, int64_t c, int64_t d,
                                                  int64_t e, int64_t f, int64_t g) {
  tm_shape shape = tm_shape6_(a, b, c, d, e, f);
  shape.rank = 7;
  shape.dim[6] = g;
  return shape;
}

TM_HOST_DEVICE_ static inline tm_shape tm_shape8_(int64_t a, int64_t b, int64_t c, int64_t d,
                                                  int64_t e, int64_t f, int64_t g, int64_t h) {
  tm_shape shape = tm_shape6_(a, b, c, d, e, f);
  shape.rank = 8;
  shape.dim[6] = g;
  shape.dim[7] = h;
  return shape;
}

// Copies the entries in use. Inline functions pass on the address of such a copy: were it that of
// their argument, gcc would fill all of its entries.
static inline void tm_shape_copy_(const tm_shape* shape, tm_shape* out) {
  const int32_t rank = shape->rank;
  out->rank = rank;
  if (rank > 0) out->dim[0] = shape->dim[0];
  if (rank > 1) out->dim[1] = shape->dim[1];
  if (rank > 2) out->dim[2] = shape->dim[2];
  if (rank > 3) out->dim[3] = shape->dim[3];
  if (rank > 4) out->dim[4] = shape->dim[4];
  if (rank > 5) out->dim[5] = shape->dim[5];
  if (rank > 6) out->dim[6] = shape->dim[6];
  if (rank > 7) out->dim[7] = shape->dim[7];
}

TM_EXTERN_C_END

#endif  // TM_TENSOR_SHAPE_H_
