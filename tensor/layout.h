// Layouts: where the elements of a tensor lie, counted in elements from its first.
//
// Element (i, j, ...) lies at i * stride[0] + j * stride[1] + ... Sizes and strides are never
// negative, strides may be 0 (broadcast). Every layout made here satisfies two bounds, so that no
// arithmetic on it can overflow: the product of the sizes, with 0 counted as 1, and the largest
// offset fit int64_t.
//
// The null layout is the all-zero struct; its size is 0. The scalar's has rank 0 and size 1.
// Functions that make a layout store it in `*out`, which may be their input. Dimensions count from
// the end where they are negative. On error `*out` is the null layout. A null input is
// TM_ERR_INVALID and leaves an earlier failure on record, so that a chain is checked at its end.
//
// Threads: layouts are plain values.
#ifndef TM_TENSOR_LAYOUT_H_
#define TM_TENSOR_LAYOUT_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tm/base/attributes.h"
#include "tm/base/status.h"
#include "tm/tensor/shape.h"

TM_EXTERN_C_BEGIN

enum { TM_LAYOUT_TEXT_SIZE = 384 };  // bytes that hold any layout as text, the NUL included

// Only the first `ranked - 1` entries are ever written, read or copied.
typedef struct tm_layout {
  int32_t ranked;               // rank + 1; 0 in the null layout
  int64_t shape[TM_MAX_RANK];   // sizes, outermost first
  int64_t stride[TM_MAX_RANK];  // elements
} tm_layout;

//===-- Making ------------------------------------------------------------===//

// The contiguous row-major layout of `shape`. A size of 0 counts as 1 in the strides.
// Errors: TM_ERR_INVALID (rank out of 0 to 8, a negative size), TM_ERR_OVERFLOW.
static inline tm_status tm_layout_make(tm_shape shape, tm_layout* out);

// The layout of `shape` with the strides given, in elements.
// Errors: TM_ERR_INVALID (ranks that differ, a negative size or stride), TM_ERR_OVERFLOW.
static inline tm_status tm_layout_make_strided(tm_shape shape, tm_shape stride, tm_layout* out);

// Reads what tm_layout_text writes, e.g. "(20,50):(50,1)".
// Errors: TM_ERR_CORRUPT (not of that form), and as tm_layout_make_strided.
TM_API TM_NODISCARD tm_status tm_layout_parse(const char* text, tm_layout* out);

// Dimension `to` of `out` becomes dimension `from` of `layout`.
static inline void tm_layout_copy_dim_(const tm_layout* layout, int32_t from, tm_layout* out,
                                       int32_t to) {
  out->shape[to] = layout->shape[from];
  out->stride[to] = layout->stride[from];
}

// Copies the entries in use, each by itself: gcc makes two calls of memcpy of a loop, which load in
// one piece what has just been stored in several, and wait for that.
static inline void tm_layout_copy(const tm_layout* layout, tm_layout* out) {
  const int32_t ranked = layout->ranked;
  out->ranked = ranked;
  if (ranked > 1) tm_layout_copy_dim_(layout, 0, out, 0);
  if (ranked > 2) tm_layout_copy_dim_(layout, 1, out, 1);
  if (ranked > 3) tm_layout_copy_dim_(layout, 2, out, 2);
  if (ranked > 4) tm_layout_copy_dim_(layout, 3, out, 3);
  if (ranked > 5) tm_layout_copy_dim_(layout, 4, out, 4);
  if (ranked > 6) tm_layout_copy_dim_(layout, 5, out, 5);
  if (ranked > 7) tm_layout_copy_dim_(layout, 6, out, 6);
  if (ranked > 8) tm_layout_copy_dim_(layout, 7, out, 7);
}

//===-- Asking ------------------------------------------------------------===//

static inline bool tm_layout_is_null(const tm_layout* layout) { return layout->ranked == 0; }

// 0 for the null layout as well.
static inline int32_t tm_layout_rank(const tm_layout* layout) {
  return layout->ranked > 0 ? layout->ranked - 1 : 0;
}

// Elements: the product of the sizes. 0 for the null layout.
TM_API int64_t tm_layout_size(const tm_layout* layout);

// The elements of memory that the layout reaches: its largest offset + 1, or 0 where it has no
// elements.
TM_API int64_t tm_layout_cosize(const tm_layout* layout);

// Whether the offsets, in row-major order, are 0, 1, ... size - 1. True where there are none.
TM_API bool tm_layout_is_contiguous(const tm_layout* layout);

// Whether no two elements can lie at the same offset. Conservative: false for some exotic
// interleavings that have no overlap.
TM_API bool tm_layout_is_injective(const tm_layout* layout);

// Whether rank, sizes and strides are the same.
TM_API bool tm_layout_equal(const tm_layout* a, const tm_layout* b);

// The sizes alone; rank 0 for the null layout.
TM_API tm_shape tm_layout_shape(const tm_layout* layout);

// Stores a size, or a stride in elements; `dim` counts from the end where it is negative.
// Errors: TM_ERR_OUT_OF_RANGE, and TM_ERR_INVALID for the null layout. On error `*out` is -1.
TM_API TM_NODISCARD tm_status tm_layout_dim(const tm_layout* layout, int32_t dim, int64_t* out);
TM_API TM_NODISCARD tm_status tm_layout_stride(const tm_layout* layout, int32_t dim, int64_t* out);

// Stores the offset, in elements, of `index`: of one element where it has the layout's rank, of the
// first element of a part where it is shorter. Indices do not count from the end.
// Errors: TM_ERR_OUT_OF_RANGE (negative, or not below the size), TM_ERR_INVALID (more indices than
//         dimensions, null). On error `*out` is -1.
static inline tm_status tm_layout_offset(const tm_layout* layout, tm_shape index, int64_t* out);

// Writes "(20,50):(50,1)", "():()" for the scalar's and "null" for the null layout; cuts at `size`
// bytes, the terminating NUL included.
TM_API void tm_layout_text(const tm_layout* layout, char* text, size_t size);

//===-- Changing ----------------------------------------------------------===//

// The fewest dimensions that visit the same offsets in the same order: sizes of 1 are dropped,
// neighbours merged where the outer stride is the inner size times the inner stride. A layout
// without elements becomes (0):(1), the null layout stays null.
TM_API TM_NODISCARD tm_status tm_layout_coalesce(const tm_layout* layout, tm_layout* out);

// Another shape that visits the same offsets in the same order. One size may be -1: it becomes what
// is left. Layouts that are not contiguous are viewed where strides can express it.
// Errors: TM_ERR_INVALID (two wildcards, other negative sizes, a wildcard beside a size of 0,
// another
//         number of elements, strides that cannot express it), TM_ERR_OVERFLOW.
static inline tm_status tm_layout_view(const tm_layout* layout, tm_shape shape, tm_layout* out);

// The part of `size` elements per dimension that starts at `base`; a size of -1 is the rest. Stores
// where it starts in `*offset`, in elements; 0 where the part has no elements.
// Errors: TM_ERR_OUT_OF_RANGE (a base below 0 or beyond the end, a size that reaches beyond it),
//         TM_ERR_INVALID (a size below -1, ranks that differ). On error `*offset` is 0.
static inline tm_status tm_layout_slice(const tm_layout* layout, tm_shape base, tm_shape size,
                                        tm_layout* out, int64_t* offset);

// The same for the outermost dimension, with all of the others.
// Errors: as tm_layout_slice, TM_ERR_OUT_OF_RANGE (rank 0).
TM_API TM_NODISCARD tm_status tm_layout_slice_outer(const tm_layout* layout, int64_t base,
                                                    int64_t size, tm_layout* out, int64_t* offset);

// Dimension i of the result is dimension order[i] of `layout`.
// Errors: TM_ERR_INVALID (ranks that differ, a dimension twice), TM_ERR_OUT_OF_RANGE.
static inline tm_status tm_layout_permute(const tm_layout* layout, tm_shape order, tm_layout* out);

// Exchanges two dimensions.
// Errors: TM_ERR_OUT_OF_RANGE.
TM_API TM_NODISCARD tm_status tm_layout_transpose(const tm_layout* layout, int32_t a, int32_t b,
                                                  tm_layout* out);

// Drops dimension `dim`, whose size is 1.
// Errors: TM_ERR_OUT_OF_RANGE, TM_ERR_INVALID (its size is not 1).
TM_API TM_NODISCARD tm_status tm_layout_squeeze(const tm_layout* layout, int32_t dim,
                                                tm_layout* out);

// Inserts a dimension of size 1 that becomes dimension `dim` of the result: -1 is the innermost.
// Errors: TM_ERR_OUT_OF_RANGE, TM_ERR_INVALID (the rank is 8 already).
TM_API TM_NODISCARD tm_status tm_layout_unsqueeze(const tm_layout* layout, int32_t dim,
                                                  tm_layout* out);

//===-- What the inline functions call ------------------------------------===//

TM_API tm_status tm_layout_make_(const tm_shape* shape, tm_layout* out);
TM_API tm_status tm_layout_make_strided_(const tm_shape* shape, const tm_shape* stride,
                                         tm_layout* out);
TM_API tm_status tm_layout_offset_(const tm_layout* layout, const tm_shape* index, int64_t* out);
TM_API tm_status tm_layout_view_(const tm_layout* layout, const tm_shape* shape, tm_layout* out);
TM_API tm_status tm_layout_slice_(const tm_layout* layout, const tm_shape* base,
                                  const tm_shape* size, tm_layout* out, int64_t* offset);
TM_API tm_status tm_layout_permute_(const tm_layout* layout, const tm_shape* order, tm_layout* out);

TM_NODISCARD static inline tm_status tm_layout_make(tm_shape shape, tm_layout* out) {
  tm_shape sizes;
  tm_shape_copy_(&shape, &sizes);
  return tm_layout_make_(&sizes, out);
}

TM_NODISCARD static inline tm_status tm_layout_make_strided(tm_shape shape, tm_shape stride,
                                                            tm_layout* out) {
  tm_shape sizes;
  tm_shape strides;
  tm_shape_copy_(&shape, &sizes);
  tm_shape_copy_(&stride, &strides);
  return tm_layout_make_strided_(&sizes, &strides, out);
}

TM_NODISCARD static inline tm_status tm_layout_offset(const tm_layout* layout, tm_shape index,
                                                      int64_t* out) {
  tm_shape indices;
  tm_shape_copy_(&index, &indices);
  return tm_layout_offset_(layout, &indices, out);
}

TM_NODISCARD static inline tm_status tm_layout_view(const tm_layout* layout, tm_shape shape,
                                                    tm_layout* out) {
  tm_shape sizes;
  tm_shape_copy_(&shape, &sizes);
  return tm_layout_view_(layout, &sizes, out);
}

TM_NODISCARD static inline tm_status tm_layout_slice(const tm_layout* layout, tm_shape base,
                                                     tm_shape size, tm_layout* out,
                                                     int64_t* offset) {
  tm_shape bases;
  tm_shape sizes;
  tm_shape_copy_(&base, &bases);
  tm_shape_copy_(&size, &sizes);
  return tm_layout_slice_(layout, &bases, &sizes, out, offset);
}

TM_NODISCARD static inline tm_status tm_layout_permute(const tm_layout* layout, tm_shape order,
                                                       tm_layout* out) {
  tm_shape dims;
  tm_shape_copy_(&order, &dims);
  return tm_layout_permute_(layout, &dims, out);
}

TM_EXTERN_C_END

#endif  // TM_TENSOR_LAYOUT_H_
