// Every layout that leaves this file satisfies
//
//   the product of max(shape[i], 1)                  <= INT64_MAX
//   the sum of (max(shape[i], 1) - 1) * stride[i]    <  INT64_MAX
//
// so sizes, cosizes and offsets of indices within the shape are computed without further checks.

#include "tm/tensor/layout.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/layout_small.h"

typedef char layout_text[TM_LAYOUT_TEXT_SIZE];
typedef char shape_text[TM_SHAPE_TEXT_SIZE];

static const char* text_of(const tm_layout* layout, layout_text text) {
  tm_layout_text(layout, text, sizeof(layout_text));
  return text;
}

static const char* text_of_shape(const tm_shape* shape, shape_text text) {
  tm_shape_text(shape, text, sizeof(shape_text));
  return text;
}

static void make_null(tm_layout* layout) { layout->ranked = 0; }

// Whether a function can start: there is an input that is not null, and an output. Otherwise the
// output is null.
static bool can_start(const tm_layout* layout, tm_layout* out) {
  if (TM_LIKELY(out && layout && !tm_layout_is_null(layout))) {
    return true;
  }
  if (out) {
    make_null(out);
  }
  return false;
}

// Whether there is an input, and an output that can be written before all of the input is read.
static bool are_two(const tm_layout* layout, const tm_layout* out) {
  return layout && out && out != layout;
}

// Whether a rank is one that layout_small.h serves.
static bool is_small(int32_t rank) { return (uint32_t)rank - 1 < TM_SMALL_RANK_; }

static TM_COLD tm_status cannot_start(const char* who, const void* out) {
  if (!out) {
    return TM_RAISE(TM_ERR_INVALID, "%s: out is NULL", who);
  }
  return TM_NULL_HANDLE("a layout");
}

//===-- Making ------------------------------------------------------------===//

static int64_t at_least_one(int64_t size) { return size > 0 ? size : 1; }

static tm_status check_shape(const tm_shape* shape) {
  if (shape->rank < 0 || shape->rank > TM_MAX_RANK) {
    return TM_RAISE(TM_ERR_INVALID, "a shape of rank %d: ranks are 0 to %d", shape->rank,
                    TM_MAX_RANK);
  }
  for (int32_t i = 0; i < shape->rank; i++) {
    if (shape->dim[i] < 0) {
      shape_text text;
      return TM_RAISE(TM_ERR_INVALID, "shape %s: size %" PRId64 " of dimension %d is negative",
                      text_of_shape(shape, text), shape->dim[i], i);
    }
  }
  return TM_OK;
}

static TM_COLD tm_status too_large(const tm_shape* shape) {
  shape_text text;
  return TM_RAISE(TM_ERR_OVERFLOW, "shape %s: more elements than int64_t counts",
                  text_of_shape(shape, text));
}

tm_status tm_layout_make_(const tm_shape* shape, tm_layout* out) {
  if (!out) {
    return cannot_start("tm_layout_make", out);
  }
  make_null(out);
  TM_TRY(check_shape(shape));
  int64_t stride = 1;
  for (int32_t i = shape->rank - 1; i >= 0; i--) {
    out->shape[i] = shape->dim[i];
    out->stride[i] = stride;
    if (__builtin_mul_overflow(stride, at_least_one(shape->dim[i]), &stride)) {
      return too_large(shape);
    }
  }
  out->ranked = shape->rank + 1;
  return TM_OK;
}

static tm_status check_strides(const tm_shape* shape, const tm_shape* stride) {
  shape_text shape_is;
  shape_text stride_is;
  if (shape->rank != stride->rank) {
    return TM_RAISE(TM_ERR_INVALID, "shape %s has rank %d, strides %s have %d",
                    text_of_shape(shape, shape_is), shape->rank, text_of_shape(stride, stride_is),
                    stride->rank);
  }
  int64_t last = 0;
  for (int32_t i = 0; i < shape->rank; i++) {
    int64_t reach;
    if (stride->dim[i] < 0) {
      return TM_RAISE(TM_ERR_INVALID, "strides %s: stride %" PRId64 " of dimension %d is negative",
                      text_of_shape(stride, stride_is), stride->dim[i], i);
    }
    if (__builtin_mul_overflow(at_least_one(shape->dim[i]) - 1, stride->dim[i], &reach) ||
        __builtin_add_overflow(last, reach, &last) || last == INT64_MAX) {
      return TM_RAISE(TM_ERR_OVERFLOW, "layout %s:%s: offsets beyond int64_t",
                      text_of_shape(shape, shape_is), text_of_shape(stride, stride_is));
    }
  }
  return TM_OK;
}

tm_status tm_layout_make_strided_(const tm_shape* shape, const tm_shape* stride, tm_layout* out) {
  TM_TRY(tm_layout_make_(shape, out));
  const tm_status status = check_strides(shape, stride);
  if (status != TM_OK) {
    make_null(out);
    return status;
  }
  for (int32_t i = 0; i < shape->rank; i++) {
    out->stride[i] = stride->dim[i];
  }
  return TM_OK;
}

//===-- Asking ------------------------------------------------------------===//

// What this file calls: in a shared library a public function is called through a table.
static inline int64_t size_of(const tm_layout* layout) {
  int64_t size = !tm_layout_is_null(layout);
  for (int32_t i = tm_layout_rank(layout) - 1; i >= 0; i--) {
    size *= layout->shape[i];
    if (size == 0) {
      return 0;  // what is left may be large beside a size of 0
    }
  }
  return size;
}

int64_t tm_layout_size(const tm_layout* layout) { return size_of(layout); }

int64_t tm_layout_cosize(const tm_layout* layout) {
  if (size_of(layout) == 0) {
    return 0;
  }
  int64_t last = 0;
  for (int32_t i = 0; i < tm_layout_rank(layout); i++) {
    last += (layout->shape[i] - 1) * layout->stride[i];
  }
  return last + 1;
}

bool tm_layout_is_contiguous(const tm_layout* layout) {
  int64_t expected = 1;
  bool contiguous = true;
  for (int32_t i = tm_layout_rank(layout) - 1; i >= 0; i--) {
    const int64_t size = layout->shape[i];
    if (size == 0) {
      return true;
    }
    if (size != 1 && contiguous) {
      contiguous = layout->stride[i] == expected;
      expected *= size;
    }
  }
  return contiguous;
}

// Stores the dimensions of more than one element, smallest stride first; returns how many.
static int32_t sort_by_stride(const tm_layout* layout, int32_t* order) {
  int32_t count = 0;
  for (int32_t i = 0; i < tm_layout_rank(layout); i++) {
    if (layout->shape[i] <= 1) {
      continue;
    }
    int32_t at = count++;
    for (; at > 0 && layout->stride[order[at - 1]] > layout->stride[i]; at--) {
      order[at] = order[at - 1];
    }
    order[at] = i;
  }
  return count;
}

bool tm_layout_is_injective(const tm_layout* layout) {
  if (size_of(layout) == 0) {
    return true;
  }
  int32_t order[TM_MAX_RANK];
  const int32_t count = sort_by_stride(layout, order);
  int64_t reach = 0;  // the largest offset of the dimensions with smaller strides
  for (int32_t i = 0; i < count; i++) {
    if (layout->stride[order[i]] <= reach) {
      return false;
    }
    reach += (layout->shape[order[i]] - 1) * layout->stride[order[i]];
  }
  return true;
}

bool tm_layout_equal(const tm_layout* a, const tm_layout* b) {
  bool equal = a->ranked == b->ranked;
  for (int32_t i = 0; equal && i < tm_layout_rank(a); i++) {
    equal = a->shape[i] == b->shape[i] && a->stride[i] == b->stride[i];
  }
  return equal;
}

tm_shape tm_layout_shape(const tm_layout* layout) {
  return tm_shape_make(tm_layout_rank(layout), layout->shape);
}

// Turns a dimension that may count from the end into one of 0 to rank - 1.
static tm_status find_dim(const tm_layout* layout, int32_t dim, int32_t rank, int32_t* out) {
  *out = 0;
  if (dim < -rank || dim >= rank) {
    layout_text text;
    return TM_RAISE(TM_ERR_OUT_OF_RANGE, "dimension %d of %s: there are %d", dim,
                    text_of(layout, text), rank);
  }
  *out = dim < 0 ? dim + rank : dim;
  return TM_OK;
}

static tm_status entry_of(const tm_layout* layout, const int64_t* entries, int32_t dim,
                          int64_t* out) {
  if (!out || tm_layout_is_null(layout)) {
    return cannot_start("a dimension of a layout", out);
  }
  int32_t found;
  TM_TRY(find_dim(layout, dim, tm_layout_rank(layout), &found));
  *out = entries[found];
  return TM_OK;
}

tm_status tm_layout_dim(const tm_layout* layout, int32_t dim, int64_t* out) {
  if (out) {
    *out = -1;
  }
  return entry_of(layout, layout->shape, dim, out);
}

tm_status tm_layout_stride(const tm_layout* layout, int32_t dim, int64_t* out) {
  if (out) {
    *out = -1;
  }
  return entry_of(layout, layout->stride, dim, out);
}

static TM_COLD tm_status bad_index(const tm_layout* layout, const tm_shape* index, int32_t dim) {
  shape_text asked;
  layout_text there;
  return TM_RAISE(TM_ERR_OUT_OF_RANGE, "index %s of %s: %" PRId64 " is not in 0 to %" PRId64,
                  text_of_shape(index, asked), text_of(layout, there), index->dim[dim],
                  layout->shape[dim] - 1);
}

tm_status tm_layout_offset_(const tm_layout* layout, const tm_shape* index, int64_t* out) {
  if (!out || tm_layout_is_null(layout)) {
    if (out) {
      *out = -1;
    }
    return cannot_start("tm_layout_offset", out);
  }
  *out = -1;
  if (index->rank < 0 || index->rank > tm_layout_rank(layout)) {
    layout_text text;
    return TM_RAISE(TM_ERR_INVALID, "an index of %d numbers into %s", index->rank,
                    text_of(layout, text));
  }
  int64_t offset = 0;
  for (int32_t i = 0; i < index->rank; i++) {
    if (index->dim[i] < 0 || index->dim[i] >= layout->shape[i]) {
      return bad_index(layout, index, i);
    }
    offset += index->dim[i] * layout->stride[i];
  }
  *out = offset;
  return TM_OK;
}

//===-- View --------------------------------------------------------------===//

tm_status tm_layout_coalesce(const tm_layout* layout, tm_layout* out) {
  if (!out || !layout) {
    return cannot_start("tm_layout_coalesce", out);
  }
  if (tm_layout_is_null(layout)) {
    make_null(out);
    return TM_OK;
  }
  if (size_of(layout) == 0) {
    out->ranked = 2;
    out->shape[0] = 0;
    out->stride[0] = 1;
    return TM_OK;
  }
  int32_t rank = 0;
  for (int32_t i = 0; i < tm_layout_rank(layout); i++) {
    const int64_t size = layout->shape[i];
    const int64_t stride = layout->stride[i];
    int64_t whole;
    if (size == 1) {
      continue;
    }
    if (rank > 0 && !__builtin_mul_overflow(size, stride, &whole) &&
        out->stride[rank - 1] == whole) {
      out->shape[rank - 1] *= size;
    } else {
      out->shape[rank++] = size;
    }
    out->stride[rank - 1] = stride;
  }
  out->ranked = rank + 1;
  return TM_OK;
}

static TM_COLD tm_status bad_view(const tm_layout* layout, const tm_shape* shape,
                                  const char* reason) {
  layout_text there;
  shape_text asked;
  return TM_RAISE(TM_ERR_INVALID, "view of %s as %s: %s", text_of(layout, there),
                  text_of_shape(shape, asked), reason);
}

// Copies `asked` to `out`, with what is left of `size` elements in place of a -1. Returns the
// reason why that cannot be, or NULL.
static const char* resolve_wildcard(const tm_shape* asked, int64_t size, tm_shape* out) {
  int32_t wildcard = -1;
  int64_t known = 1;
  out->rank = asked->rank;
  for (int32_t i = 0; i < asked->rank; i++) {
    const int64_t dim = asked->dim[i];
    out->dim[i] = dim;
    if (dim < -1) {
      return "a negative size";
    }
    if (dim == -1) {
      if (wildcard >= 0) {
        return "more than one size of -1";
      }
      wildcard = i;
    } else if (known != 0 && __builtin_mul_overflow(known, dim, &known)) {
      // Only a size of 0 still to come could make this right.
      known = INT64_MAX;
    }
  }
  if (wildcard < 0) {
    return NULL;
  }
  if (known == 0) {
    return "a size of -1 beside a size of 0 could be anything";
  }
  if (size % known != 0) {
    return "the elements do not divide by the other sizes";
  }
  out->dim[wildcard] = size / known;
  return NULL;
}

// Gives each size of `out` the stride that visits the offsets of `from`, which is coalesced and has
// elements, in the same order. False where there is none: a size would reach over two dimensions
// that did not merge.
static bool restride(const tm_layout* from, tm_layout* out) {
  int32_t source = tm_layout_rank(from);
  int64_t left = 1;    // elements of dimension `source` that are not distributed yet
  int64_t stride = 1;  // between them
  for (int32_t i = tm_layout_rank(out) - 1; i >= 0; i--) {
    const int64_t size = out->shape[i];
    if (size != 1 && left == 1) {
      source--;
      // NOLINTBEGIN(clang-analyzer-core.uninitialized.Assign): there are as many elements left
      left = from->shape[source];
      stride = from->stride[source];
      // NOLINTEND(clang-analyzer-core.uninitialized.Assign)
    }
    if (left % size != 0) {
      return false;
    }
    out->stride[i] = stride;
    left /= size;
    int64_t next;
    // Past the last element the product may not fit; then only sizes of 1 can use it.
    stride = __builtin_mul_overflow(stride, size, &next) ? stride : next;
  }
  return true;
}

static __attribute__((noinline)) tm_status view_general(const tm_layout* layout,
                                                        const tm_shape* shape, tm_layout* out) {
  if (!can_start(layout, out)) {
    return cannot_start("tm_layout_view", out);
  }
  tm_layout from;  // `out` may be `layout`
  tm_layout_copy(layout, &from);
  make_null(out);
  if (shape->rank < 0 || shape->rank > TM_MAX_RANK) {
    return check_shape(shape);
  }
  const int64_t size = size_of(&from);
  tm_shape target;
  const char* wrong = resolve_wildcard(shape, size, &target);
  if (wrong) {
    return bad_view(&from, shape, wrong);
  }
  tm_layout made;
  TM_TRY(tm_layout_make_(&target, &made));
  if (size_of(&made) != size) {
    return bad_view(&from, shape, "another number of elements");
  }
  if (!tm_layout_is_contiguous(&from)) {
    tm_layout coalesced;
    TM_TRY(tm_layout_coalesce(&from, &coalesced));
    if (!restride(&coalesced, &made)) {
      return bad_view(&from, shape, "no strides visit the elements in that order");
    }
  }
  tm_layout_copy(&made, out);
  return TM_OK;
}

tm_status tm_layout_view_(const tm_layout* layout, const tm_shape* shape, tm_layout* out) {
  return TM_LIKELY(are_two(layout, out) && is_small(shape->rank) &&
                   tm_small_view_(layout, shape, shape->rank, out))
             ? TM_OK
             : view_general(layout, shape, out);
}

//===-- Slice -------------------------------------------------------------===//

// The extent of a slice in one dimension.
static tm_status slice_dim(const tm_layout* layout, int32_t dim, int64_t base, int64_t size,
                           int64_t* out) {
  const int64_t there = layout->shape[dim];
  layout_text text;
  if (size < -1) {
    return TM_RAISE(TM_ERR_INVALID, "slice of %s: size %" PRId64 " of dimension %d is negative",
                    text_of(layout, text), size, dim);
  }
  if (base < 0 || base > there || size > there - base) {
    return TM_RAISE(TM_ERR_OUT_OF_RANGE,
                    "slice of %s: %" PRId64 " elements from %" PRId64
                    " on asked of dimension %d, there are %" PRId64,
                    text_of(layout, text), size, base, dim, there);
  }
  *out = size == -1 ? there - base : size;
  return TM_OK;
}

static tm_status slice(const tm_layout* layout, const tm_shape* base, const tm_shape* size,
                       tm_layout* out, int64_t* offset) {
  const int32_t rank = tm_layout_rank(layout);
  if (base->rank != rank || size->rank != rank) {
    layout_text text;
    return TM_RAISE(TM_ERR_INVALID, "slice of %s by %d bases and %d sizes: its rank is %d",
                    text_of(layout, text), base->rank, size->rank, rank);
  }
  for (int32_t i = 0; i < rank; i++) {
    TM_TRY(slice_dim(layout, i, base->dim[i], size->dim[i], &out->shape[i]));
    out->stride[i] = layout->stride[i];
  }
  out->ranked = rank + 1;
  if (size_of(out) != 0) {  // so every base is within its size
    for (int32_t i = 0; i < rank; i++) {
      *offset += base->dim[i] * layout->stride[i];
    }
  }
  return TM_OK;
}

static __attribute__((noinline)) tm_status slice_general(const tm_layout* layout,
                                                         const tm_shape* base, const tm_shape* size,
                                                         tm_layout* out, int64_t* offset) {
  if (offset) {
    *offset = 0;
  }
  if (!can_start(layout, out) || !offset) {
    return cannot_start("tm_layout_slice", offset ? (const void*)out : NULL);
  }
  tm_layout made;  // `out` may be `layout`
  make_null(&made);
  const tm_status status = slice(layout, base, size, &made, offset);
  if (status != TM_OK) {
    make_null(&made);
  }
  tm_layout_copy(&made, out);
  return status;
}

tm_status tm_layout_slice_(const tm_layout* layout, const tm_shape* base, const tm_shape* size,
                           tm_layout* out, int64_t* offset) {
  return TM_LIKELY(are_two(layout, out) && offset && is_small(layout->ranked - 1) &&
                   tm_small_slice_(layout, base, size, layout->ranked - 1, out, offset))
             ? TM_OK
             : slice_general(layout, base, size, out, offset);
}

tm_status tm_layout_slice_outer(const tm_layout* layout, int64_t base, int64_t size, tm_layout* out,
                                int64_t* offset) {
  if (offset) {
    *offset = 0;
  }
  if (!can_start(layout, out) || !offset) {
    return cannot_start("tm_layout_slice_outer", offset ? (const void*)out : NULL);
  }
  int64_t taken = 0;
  tm_status status;
  if (tm_layout_rank(layout) == 0) {
    status = TM_RAISE(TM_ERR_OUT_OF_RANGE, "slice of a scalar: it has no outermost dimension");
  } else {
    status = slice_dim(layout, 0, base, size, &taken);
  }
  if (status != TM_OK) {
    make_null(out);
    return status;
  }
  if (out != layout) {
    tm_layout_copy(layout, out);
  }
  out->shape[0] = taken;
  if (size_of(out) != 0) {
    *offset = base * out->stride[0];
  }
  return TM_OK;
}

//===-- Permute, transpose, squeeze, unsqueeze ----------------------------===//

static tm_status permute(const tm_layout* layout, const tm_shape* order, tm_layout* out) {
  const int32_t rank = tm_layout_rank(layout);
  layout_text text;
  shape_text asked;
  if (order->rank != rank) {
    return TM_RAISE(TM_ERR_INVALID, "permutation of %s by %d numbers: its rank is %d",
                    text_of(layout, text), order->rank, rank);
  }
  uint32_t seen = 0;
  for (int32_t i = 0; i < rank; i++) {
    int32_t from;
    if (order->dim[i] < -rank || order->dim[i] >= rank) {
      return TM_RAISE(TM_ERR_OUT_OF_RANGE, "permutation of %s by %s: no dimension %" PRId64,
                      text_of(layout, text), text_of_shape(order, asked), order->dim[i]);
    }
    TM_TRY(find_dim(layout, (int32_t)order->dim[i], rank, &from));
    if (seen & 1u << from) {
      return TM_RAISE(TM_ERR_INVALID, "permutation of %s by %s: dimension %d twice",
                      text_of(layout, text), text_of_shape(order, asked), from);
    }
    seen |= 1u << from;
    out->shape[i] = layout->shape[from];
    out->stride[i] = layout->stride[from];
  }
  out->ranked = rank + 1;
  return TM_OK;
}

static __attribute__((noinline)) tm_status permute_general(const tm_layout* layout,
                                                           const tm_shape* order, tm_layout* out) {
  if (!can_start(layout, out)) {
    return cannot_start("tm_layout_permute", out);
  }
  tm_layout made;  // `out` may be `layout`
  make_null(&made);
  const tm_status status = permute(layout, order, &made);
  tm_layout_copy(&made, out);
  return status;
}

tm_status tm_layout_permute_(const tm_layout* layout, const tm_shape* order, tm_layout* out) {
  return TM_LIKELY(are_two(layout, out) && is_small(layout->ranked - 1) &&
                   tm_small_permute_(layout, order, layout->ranked - 1, out))
             ? TM_OK
             : permute_general(layout, order, out);
}

static void exchange(int64_t* a, int64_t* b) {
  const int64_t kept = *a;
  *a = *b;
  *b = kept;
}

// Finds a dimension of a layout of `rank`; on error `out` is the null layout.
static tm_status find_or_null(const tm_layout* layout, int32_t dim, int32_t rank, tm_layout* out,
                              int32_t* found) {
  const tm_status status = find_dim(layout, dim, rank, found);
  if (status != TM_OK) {
    make_null(out);
  }
  return status;
}

tm_status tm_layout_transpose(const tm_layout* layout, int32_t a, int32_t b, tm_layout* out) {
  if (!can_start(layout, out)) {
    return cannot_start("tm_layout_transpose", out);
  }
  const int32_t rank = tm_layout_rank(layout);
  int32_t first;
  int32_t second;
  TM_TRY(find_or_null(layout, a, rank, out, &first));
  TM_TRY(find_or_null(layout, b, rank, out, &second));
  if (out != layout) {
    tm_layout_copy(layout, out);
  }
  exchange(&out->shape[first], &out->shape[second]);
  exchange(&out->stride[first], &out->stride[second]);
  return TM_OK;
}

tm_status tm_layout_squeeze(const tm_layout* layout, int32_t dim, tm_layout* out) {
  if (!can_start(layout, out)) {
    return cannot_start("tm_layout_squeeze", out);
  }
  const int32_t rank = tm_layout_rank(layout);
  int32_t dropped;
  TM_TRY(find_or_null(layout, dim, rank, out, &dropped));
  if (layout->shape[dropped] != 1) {
    layout_text text;
    const tm_status status =
        TM_RAISE(TM_ERR_INVALID, "squeeze of dimension %d of %s: its size is %" PRId64 ", not 1",
                 dropped, text_of(layout, text), layout->shape[dropped]);
    make_null(out);
    return status;
  }
  for (int32_t i = 0; i < rank - 1; i++) {
    const int32_t from = i < dropped ? i : i + 1;
    out->shape[i] = layout->shape[from];
    out->stride[i] = layout->stride[from];
  }
  out->ranked = rank;
  return TM_OK;
}

tm_status tm_layout_unsqueeze(const tm_layout* layout, int32_t dim, tm_layout* out) {
  if (!can_start(layout, out)) {
    return cannot_start("tm_layout_unsqueeze", out);
  }
  const int32_t rank = tm_layout_rank(layout);
  if (rank == TM_MAX_RANK) {
    make_null(out);
    return TM_RAISE(TM_ERR_INVALID, "unsqueeze of a layout of rank %d, the largest", rank);
  }
  int32_t at;
  TM_TRY(find_or_null(layout, dim, rank + 1, out, &at));
  for (int32_t i = rank; i > at; i--) {
    out->shape[i] = layout->shape[i - 1];
    out->stride[i] = layout->stride[i - 1];
  }
  for (int32_t i = 0; i < at; i++) {
    out->shape[i] = layout->shape[i];
    out->stride[i] = layout->stride[i];
  }
  out->shape[at] = 1;
  out->stride[at] = 1;
  // The stride of a size of 1 is never used; this one keeps a row-major layout row-major to the
  // eye.
  if (at < rank && __builtin_mul_overflow(at_least_one(out->shape[at + 1]), out->stride[at + 1],
                                          &out->stride[at])) {
    out->stride[at] = 1;
  }
  out->ranked = rank + 2;
  return TM_OK;
}

//===-- Text --------------------------------------------------------------===//

void tm_layout_text(const tm_layout* layout, char* text, size_t size) {
  if (tm_layout_is_null(layout)) {
    snprintf(text, size, "null");
    return;
  }
  const tm_shape shape = tm_layout_shape(layout);
  const tm_shape stride = tm_shape_make(tm_layout_rank(layout), layout->stride);
  shape_text shape_is;
  shape_text stride_is;
  snprintf(text, size, "%s:%s", text_of_shape(&shape, shape_is), text_of_shape(&stride, stride_is));
}

static TM_COLD tm_status malformed(const char* text, const char* at, const char* reason) {
  return TM_RAISE(TM_ERR_CORRUPT, "layout \"%.128s\": %s at character %zu", text, reason,
                  (size_t)(at - text) + 1);
}

// Reads one number, and moves `*at` past it.
static tm_status parse_number(const char* text, const char** at, int64_t* out) {
  const char* digits = **at == '-' ? *at + 1 : *at;
  if (*digits < '0' || *digits > '9') {
    return malformed(text, *at, "no number");
  }
  char* end;
  errno = 0;
  *out = strtoll(*at, &end, 10);
  if (errno == ERANGE) {
    return TM_RAISE(TM_ERR_OVERFLOW, "layout \"%.128s\": a number beyond int64_t", text);
  }
  *at = end;
  return TM_OK;
}

// Reads "(1,2,3)", and moves `*at` past it.
static tm_status parse_list(const char* text, const char** at, tm_shape* out) {
  out->rank = 0;
  if (**at != '(') {
    return malformed(text, *at, "no '('");
  }
  ++*at;
  if (**at == ')') {
    ++*at;
    return TM_OK;
  }
  for (;;) {
    if (out->rank == TM_MAX_RANK) {
      return malformed(text, *at, "more than 8 dimensions");
    }
    TM_TRY(parse_number(text, at, &out->dim[out->rank]));
    out->rank++;
    const char next = *(*at)++;
    if (next == ')') {
      return TM_OK;
    }
    if (next != ',') {
      return malformed(text, *at - 1, "neither ',' nor ')'");
    }
  }
}

tm_status tm_layout_parse(const char* text, tm_layout* out) {
  if (!out) {
    return cannot_start("tm_layout_parse", out);
  }
  make_null(out);
  if (!text) {
    return TM_RAISE(TM_ERR_INVALID, "tm_layout_parse: the text is NULL");
  }
  const char* at = text;
  tm_shape shape = {0};
  tm_shape stride = {0};
  TM_TRY(parse_list(text, &at, &shape));
  if (*at != ':') {
    return malformed(text, at, "no ':'");
  }
  at++;
  TM_TRY(parse_list(text, &at, &stride));
  if (*at) {
    return malformed(text, at, "something left");
  }
  return tm_layout_make_strided_(&shape, &stride, out);
}
