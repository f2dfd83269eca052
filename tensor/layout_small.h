// Layouts of rank 1 to 4, by the functions of layout.h, inline and for the common case alone: what
// they refuse, by returning false, layout.c does in full and with words. Private.
//
// `rank` is the result's, and `out` another layout than the input: some of its entries are written
// also where they refuse. Their indices into `out` are constants: where `rank` is one too, `out`
// need not be in memory.
#ifndef TM_TENSOR_LAYOUT_SMALL_H_
#define TM_TENSOR_LAYOUT_SMALL_H_

#include <stdbool.h>
#include <stdint.h>

#include "tm/base/attributes.h"
#include "tm/tensor/layout.h"
#include "tm/tensor/shape.h"

#define TM_INLINE_ static inline __attribute__((always_inline))

enum { TM_SMALL_RANK_ = 4 };

// Whether a layout is of such a rank.
TM_INLINE_ bool tm_layout_is_small_(const tm_layout* layout) {
  return (uint32_t)layout->ranked - 2 < TM_SMALL_RANK_;
}

//===-- View --------------------------------------------------------------===//

// Whether dimension `dim` of a row-major layout has `*elements` inside it, which it multiplies.
TM_INLINE_ bool tm_small_row_major_dim_(const tm_layout* layout, int32_t dim, int64_t* elements) {
  const bool row_major = layout->stride[dim] == *elements;
  *elements *= layout->shape[dim];
  return row_major;
}

// The elements of a row-major layout; 0 of another, or where it has none.
TM_INLINE_ int64_t tm_small_row_major_size_(const tm_layout* layout) {
  const int32_t ranked = layout->ranked;
  int64_t size = 1;
  if ((ranked > 4 && !tm_small_row_major_dim_(layout, 3, &size)) ||
      (ranked > 3 && !tm_small_row_major_dim_(layout, 2, &size)) ||
      (ranked > 2 && !tm_small_row_major_dim_(layout, 1, &size)) ||
      !tm_small_row_major_dim_(layout, 0, &size)) {
    return 0;
  }
  return size;
}

// What a wildcard in dimension `dim` stands for beside `inside` elements in those inside it; 0
// where that takes a closer look.
TM_INLINE_ int64_t tm_small_wildcard_(const tm_shape* shape, int32_t dim, int64_t inside,
                                      int64_t size) {
  int64_t known = inside;
  for (int32_t i = 0; i < dim; i++) {
    if (shape->dim[i] <= 0 || __builtin_mul_overflow(known, shape->dim[i], &known)) {
      return 0;
    }
  }
  return size / known;
}

// One dimension of a view of `size` elements, with `*inside` of them in those inside it.
TM_INLINE_ bool tm_small_view_dim_(const tm_shape* shape, int32_t dim, int64_t size,
                                   int64_t* inside, tm_layout* out) {
  int64_t extent = shape->dim[dim];
  if (extent == -1) {
    extent = tm_small_wildcard_(shape, dim, *inside, size);
  }
  out->shape[dim] = extent;
  out->stride[dim] = *inside;
  return extent > 0 && !__builtin_mul_overflow(*inside, extent, inside);
}

// Of a row-major layout. At most one wildcard can be right: a second is a size below 1 to the
// first.
TM_INLINE_ bool tm_small_view_(const tm_layout* layout, const tm_shape* shape, int32_t rank,
                               tm_layout* out) {
  if (!tm_layout_is_small_(layout)) {
    return false;
  }
  const int64_t size = tm_small_row_major_size_(layout);
  int64_t made = 1;
  if (size == 0 || (rank > 3 && !tm_small_view_dim_(shape, 3, size, &made, out)) ||
      (rank > 2 && !tm_small_view_dim_(shape, 2, size, &made, out)) ||
      (rank > 1 && !tm_small_view_dim_(shape, 1, size, &made, out)) ||
      !tm_small_view_dim_(shape, 0, size, &made, out)) {
    return false;
  }
  out->ranked = rank + 1;
  return made == size;
}

//===-- Slice -------------------------------------------------------------===//

// `size` elements, more than 0, of one dimension from `base` on.
TM_INLINE_ bool tm_small_slice_dim_(const tm_layout* layout, int32_t dim, int64_t base,
                                    int64_t size, tm_layout* out, int64_t* offset) {
  // As unsigned numbers, negative ones are beyond all others.
  const uint64_t there = (uint64_t)layout->shape[dim];
  const uint64_t left = there - (uint64_t)base;
  const uint64_t taken = size == -1 ? left : (uint64_t)size;
  if ((uint64_t)base >= there || taken - 1 >= left) {
    return false;
  }
  out->shape[dim] = (int64_t)taken;
  out->stride[dim] = layout->stride[dim];
  *offset += base * layout->stride[dim];
  return true;
}

TM_INLINE_ bool tm_small_slice_(const tm_layout* layout, const tm_shape* base, const tm_shape* size,
                                int32_t rank, tm_layout* out, int64_t* offset) {
  int64_t start = 0;
  if (base->rank != rank || size->rank != rank ||
      !tm_small_slice_dim_(layout, 0, base->dim[0], size->dim[0], out, &start) ||
      (rank > 1 && !tm_small_slice_dim_(layout, 1, base->dim[1], size->dim[1], out, &start)) ||
      (rank > 2 && !tm_small_slice_dim_(layout, 2, base->dim[2], size->dim[2], out, &start)) ||
      (rank > 3 && !tm_small_slice_dim_(layout, 3, base->dim[3], size->dim[3], out, &start))) {
    return false;
  }
  out->ranked = rank + 1;
  *offset = start;
  return true;
}

// The outermost dimension alone. All sizes must be above 0: a slice without elements has no offset.
TM_INLINE_ bool tm_small_slice_outer_(const tm_layout* layout, int64_t base, int64_t size,
                                      int32_t rank, tm_layout* out, int64_t* offset) {
  int64_t start = 0;
  if (!tm_small_slice_dim_(layout, 0, base, size, out, &start) ||
      (rank > 1 && !tm_small_slice_dim_(layout, 1, 0, -1, out, &start)) ||
      (rank > 2 && !tm_small_slice_dim_(layout, 2, 0, -1, out, &start)) ||
      (rank > 3 && !tm_small_slice_dim_(layout, 3, 0, -1, out, &start))) {
    return false;
  }
  out->ranked = rank + 1;
  *offset = start;
  return true;
}

//===-- Permute, transpose, squeeze ---------------------------------------===//

// A dimension that may count from the end, as one of 0 to rank - 1; beyond them where it is none.
TM_INLINE_ uint64_t tm_small_dim_(int64_t dim, int32_t rank) {
  return (uint64_t)(dim < 0 ? dim + rank : dim);
}

// One dimension of a permutation; notes in `*seen` which one it was.
TM_INLINE_ bool tm_small_permute_dim_(const tm_layout* layout, int64_t dim, int32_t rank,
                                      tm_layout* out, int32_t to, uint32_t* seen) {
  const uint64_t from = tm_small_dim_(dim, rank);
  if (from >= (uint64_t)rank) {
    return false;
  }
  *seen |= 1u << from;
  tm_layout_copy_dim_(layout, (int32_t)from, out, to);
  return true;
}

TM_INLINE_ bool tm_small_permute_(const tm_layout* layout, const tm_shape* order, int32_t rank,
                                  tm_layout* out) {
  uint32_t seen = 0;
  if (order->rank != rank || !tm_small_permute_dim_(layout, order->dim[0], rank, out, 0, &seen) ||
      (rank > 1 && !tm_small_permute_dim_(layout, order->dim[1], rank, out, 1, &seen)) ||
      (rank > 2 && !tm_small_permute_dim_(layout, order->dim[2], rank, out, 2, &seen)) ||
      (rank > 3 && !tm_small_permute_dim_(layout, order->dim[3], rank, out, 3, &seen))) {
    return false;
  }
  out->ranked = rank + 1;
  return seen == (1u << rank) - 1;
}

// Dimension `to` of the layout with `a` and `b` exchanged.
TM_INLINE_ void tm_small_transpose_dim_(const tm_layout* layout, uint64_t a, uint64_t b,
                                        tm_layout* out, uint32_t to) {
  const uint64_t from = to == a ? b : to == b ? a : to;
  tm_layout_copy_dim_(layout, (int32_t)from, out, (int32_t)to);
}

TM_INLINE_ bool tm_small_transpose_(const tm_layout* layout, int32_t a, int32_t b, int32_t rank,
                                    tm_layout* out) {
  const uint64_t first = tm_small_dim_(a, rank);
  const uint64_t second = tm_small_dim_(b, rank);
  if (first >= (uint64_t)rank || second >= (uint64_t)rank) {
    return false;
  }
  out->ranked = rank + 1;
  tm_small_transpose_dim_(layout, first, second, out, 0);
  if (rank > 1) tm_small_transpose_dim_(layout, first, second, out, 1);
  if (rank > 2) tm_small_transpose_dim_(layout, first, second, out, 2);
  if (rank > 3) tm_small_transpose_dim_(layout, first, second, out, 3);
  return true;
}

TM_INLINE_ bool tm_small_squeeze_(const tm_layout* layout, int32_t dim, int32_t rank,
                                  tm_layout* out) {
  const uint64_t dropped = tm_small_dim_(dim, rank + 1);
  if (dropped > (uint64_t)rank || layout->shape[dropped] != 1) {
    return false;
  }
  out->ranked = rank + 1;
  tm_layout_copy_dim_(layout, dropped == 0, out, 0);
  if (rank > 1) tm_layout_copy_dim_(layout, 1 + (dropped <= 1), out, 1);
  if (rank > 2) tm_layout_copy_dim_(layout, 2 + (dropped <= 2), out, 2);
  if (rank > 3) tm_layout_copy_dim_(layout, 3 + (dropped <= 3), out, 3);
  return true;
}

#endif  // TM_TENSOR_LAYOUT_SMALL_H_
