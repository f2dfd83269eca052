// The laws of layouts, against a model that knows no algebra: a layout is the list of the offsets
// of its elements in row-major order, found by counting through every index.
//
// Layouts are random: rank 0 to 8, sizes of 0 and 1 among them, strides that are row-major,
// permuted, 0 or anything. Each law is tried on 100,000; the seed is printed, and TM_TEST_SEED
// repeats a run.

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tm/tensor/layout.h"

enum {
  CASES = 100000,
  MAXIMUM_ELEMENTS = 360,
  MAXIMUM_RANK = TM_MAX_RANK,
};

//===-- Random layouts ----------------------------------------------------===//

static uint64_t random_state;

static uint64_t random_bits(void) {  // splitmix64
  uint64_t z = random_state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

static int64_t random_below(int64_t limit) { return (int64_t)(random_bits() % (uint64_t)limit); }

static void seed_random(void) {
  const char* given = getenv("TM_TEST_SEED");
  random_state = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL) * 1000003u;
  printf("TM_TEST_SEED=%" PRIu64 "\n", random_state);
}

static int64_t random_size(void) {
  static const int64_t sizes[] = {1, 1, 2, 2, 3, 3, 4, 5, 6, 8};
  return random_below(24) == 0 ? 0 : sizes[random_below(10)];
}

static tm_shape random_shape(void) {
  tm_shape shape;
  int64_t elements = 1;
  shape.rank = (int32_t)random_below(MAXIMUM_RANK + 1);
  for (int32_t i = 0; i < shape.rank; i++) {
    shape.dim[i] = random_size();
    if (elements * shape.dim[i] > MAXIMUM_ELEMENTS) {
      shape.dim[i] = 1;
    }
    elements *= shape.dim[i] ? shape.dim[i] : 1;
  }
  return shape;
}

static void shuffle(int64_t* values, int32_t count) {
  for (int32_t i = count - 1; i > 0; i--) {
    const int32_t j = (int32_t)random_below(i + 1);
    const int64_t kept = values[i];
    values[i] = values[j];
    values[j] = kept;
  }
}

static tm_shape random_order(int32_t rank) {
  tm_shape order;
  order.rank = rank;
  for (int32_t i = 0; i < rank; i++) {
    order.dim[i] = i;
  }
  shuffle(order.dim, rank);
  return order;
}

// Strides that are row-major up to the order of the dimensions, with padding where `pad` is set.
static void fill_packed_strides(const tm_shape* shape, bool permuted, bool pad, tm_shape* stride) {
  tm_shape order = random_order(shape->rank);
  int64_t step = 1;
  for (int32_t i = shape->rank - 1; i >= 0; i--) {
    const int32_t dim = permuted ? (int32_t)order.dim[i] : i;
    stride->dim[dim] = step;
    step *= shape->dim[dim] ? shape->dim[dim] : 1;
    step += pad && random_below(2) ? random_below(4) : 0;
  }
}

static tm_shape random_strides(const tm_shape* shape) {
  tm_shape stride;
  stride.rank = shape->rank;
  const int64_t kind = random_below(6);
  if (kind < 4) {
    fill_packed_strides(shape, kind & 1, kind & 2, &stride);
  } else {
    for (int32_t i = 0; i < shape->rank; i++) {
      stride.dim[i] = random_below(13);
    }
  }
  for (int32_t i = 0; i < shape->rank; i++) {
    if (random_below(10) == 0) {
      stride.dim[i] = 0;  // a broadcast
    }
    if (shape->dim[i] == 1 && random_below(2)) {
      stride.dim[i] = random_below(100);  // which nothing uses
    }
  }
  return stride;
}

static tm_layout random_layout(void) {
  const tm_shape shape = random_shape();
  const tm_shape stride = random_strides(&shape);
  tm_layout layout;
  cr_assert(eq(int, tm_layout_make_strided(shape, stride, &layout), TM_OK));
  return layout;
}

static char* text_of(const tm_layout* layout) {
  static char texts[4][TM_LAYOUT_TEXT_SIZE];
  static int next;
  char* text = texts[next++ % 4];
  tm_layout_text(layout, text, TM_LAYOUT_TEXT_SIZE);
  return text;
}

//===-- The model ---------------------------------------------------------===//

typedef struct model {
  int64_t count;
  int64_t offset[MAXIMUM_ELEMENTS + 1];
} model;

// Steps `index` to the next in row-major order; false past the last.
static bool next_index(const tm_layout* layout, int64_t* index) {
  for (int32_t i = layout->ranked - 2; i >= 0; i--) {
    if (++index[i] < layout->shape[i]) {
      return true;
    }
    index[i] = 0;
  }
  return false;
}

static bool has_elements(const tm_layout* layout) {
  bool has = layout->ranked > 0;
  for (int32_t i = 0; i < layout->ranked - 1; i++) {
    has = has && layout->shape[i] > 0;
  }
  return has;
}

static int64_t offset_at(const tm_layout* layout, const int64_t* index) {
  int64_t offset = 0;
  for (int32_t i = 0; i < layout->ranked - 1; i++) {
    offset += index[i] * layout->stride[i];
  }
  return offset;
}

static void enumerate(const tm_layout* layout, model* out) {
  int64_t index[TM_MAX_RANK] = {0};
  out->count = 0;
  if (!has_elements(layout)) {
    return;
  }
  do {
    cr_assert(lt(i64, out->count, MAXIMUM_ELEMENTS + 1));
    out->offset[out->count++] = offset_at(layout, index);
  } while (next_index(layout, index));
}

static bool same_offsets(const model* a, const model* b) {
  bool same = a->count == b->count;
  for (int64_t i = 0; same && i < a->count; i++) {
    same = a->offset[i] == b->offset[i];
  }
  return same;
}

static model first;  // these are large
static model second;

#define FOR_EACH_CASE() for (int case_ = (seed_random(), 0); case_ < CASES; case_++)

//===-- Size, cosize, contiguity, injectivity -----------------------------===//

Test(layout_laws, size_counts_the_elements_and_cosize_what_they_reach) {
  FOR_EACH_CASE() {
    const tm_layout layout = random_layout();
    enumerate(&layout, &first);
    int64_t reach = 0;
    for (int64_t i = 0; i < first.count; i++) {
      reach = first.offset[i] + 1 > reach ? first.offset[i] + 1 : reach;
    }
    cr_assert(eq(i64, tm_layout_size(&layout), first.count), "%s", text_of(&layout));
    cr_assert(eq(i64, tm_layout_cosize(&layout), reach), "%s", text_of(&layout));
  }
}

Test(layout_laws, contiguous_iff_the_offsets_enumerate_0_to_size_minus_1) {
  int contiguous = 0;
  FOR_EACH_CASE() {
    const tm_layout layout = random_layout();
    enumerate(&layout, &first);
    bool expected = true;
    for (int64_t i = 0; i < first.count; i++) {
      expected = expected && first.offset[i] == i;
    }
    cr_assert(eq(int, tm_layout_is_contiguous(&layout), expected), "%s", text_of(&layout));
    contiguous += expected && first.count > 1;
  }
  cr_expect(gt(int, contiguous, CASES / 50), "too few contiguous layouts to mean anything");
}

Test(layout_laws, injective_layouts_reach_no_offset_twice) {
  int injective = 0;
  FOR_EACH_CASE() {
    const tm_layout layout = random_layout();
    if (!tm_layout_is_injective(&layout)) {
      cr_assert(not(tm_layout_is_contiguous(&layout)), "%s", text_of(&layout));
      continue;
    }
    enumerate(&layout, &first);
    static bool seen[1 << 16];
    for (int64_t i = 0; i < first.count; i++) {
      cr_assert(lt(i64, first.offset[i], (int64_t)sizeof seen));
      cr_assert(not(seen[first.offset[i]]), "%s", text_of(&layout));
      seen[first.offset[i]] = true;
    }
    for (int64_t i = 0; i < first.count; i++) {
      seen[first.offset[i]] = false;
    }
    injective++;
  }
  cr_expect(gt(int, injective, CASES / 4));
}

Test(layout_laws, every_permutation_of_a_row_major_layout_is_injective) {
  FOR_EACH_CASE() {
    const tm_shape shape = random_shape();
    tm_layout layout;
    cr_assert(eq(int, tm_layout_make(shape, &layout), TM_OK));
    cr_assert(eq(int, tm_layout_permute(&layout, random_order(shape.rank), &layout), TM_OK));
    cr_assert(tm_layout_is_injective(&layout), "%s", text_of(&layout));
  }
}

//===-- Coalesce ----------------------------------------------------------===//

Test(layout_laws, coalesce_preserves_the_index_map) {
  FOR_EACH_CASE() {
    const tm_layout layout = random_layout();
    tm_layout coalesced;
    cr_assert(eq(int, tm_layout_coalesce(&layout, &coalesced), TM_OK));
    enumerate(&layout, &first);
    enumerate(&coalesced, &second);
    cr_assert(same_offsets(&first, &second), "%s became %s", text_of(&layout), text_of(&coalesced));
  }
}

Test(layout_laws, coalesced_layouts_have_nothing_left_to_merge) {
  FOR_EACH_CASE() {
    const tm_layout layout = random_layout();
    tm_layout coalesced;
    tm_layout again;
    cr_assert(eq(int, tm_layout_coalesce(&layout, &coalesced), TM_OK));
    cr_assert(eq(int, tm_layout_coalesce(&coalesced, &again), TM_OK));
    cr_assert(tm_layout_equal(&coalesced, &again), "%s", text_of(&layout));
    const int32_t rank = tm_layout_rank(&coalesced);
    for (int32_t i = 0; i < rank; i++) {
      cr_assert(ne(i64, coalesced.shape[i], 1), "%s", text_of(&coalesced));
      cr_assert(not(i + 1 < rank &&
                    coalesced.stride[i] == coalesced.shape[i + 1] * coalesced.stride[i + 1]),
                "%s", text_of(&coalesced));
    }
  }
}

//===-- View --------------------------------------------------------------===//

// A shape with as many elements as `size`, or sometimes not quite.
static tm_shape random_view_shape(int64_t size) {
  tm_shape shape;
  shape.rank = 0;
  int64_t left = size;
  while (left > 1 && shape.rank < MAXIMUM_RANK - 1) {
    int64_t factor = 1 + random_below(left < 12 ? left : 12);
    factor = left % factor == 0 ? factor : 1;
    shape.dim[shape.rank++] = factor;
    left /= factor;
  }
  if (left != 1 || random_below(8) == 0) {
    shape.dim[shape.rank++] = left;
  }
  shuffle(shape.dim, shape.rank);
  return shape;
}

// Whether strides exist that visit the offsets of `wanted` in the order of `shape`; stores them.
// They are forced: each is the difference between the first element and its neighbour.
static bool model_view(const model* wanted, const tm_shape* shape, tm_layout* out) {
  int64_t ahead = 1;
  if (tm_layout_make(*shape, out) != TM_OK) {
    return false;
  }
  for (int32_t i = shape->rank - 1; i >= 0; i--) {
    out->stride[i] = shape->dim[i] > 1 ? wanted->offset[ahead] - wanted->offset[0] : 0;
    ahead *= shape->dim[i];
  }
  enumerate(out, &second);
  return same_offsets(wanted, &second);
}

Test(layout_laws, view_preserves_the_index_map_and_succeeds_iff_strides_exist) {
  int strided_views = 0;
  int refused = 0;
  FOR_EACH_CASE() {
    const tm_layout layout = random_layout();
    enumerate(&layout, &first);
    const tm_shape shape = random_view_shape(first.count);
    tm_layout view;
    tm_layout expected;
    const bool exists = model_view(&first, &shape, &expected);
    const tm_status status = tm_layout_view(&layout, shape, &view);
    cr_assert(eq(int, status, exists ? TM_OK : TM_ERR_INVALID), "%s as %s: %s", text_of(&layout),
              text_of(&expected), tm_last_error()->message);
    if (exists) {
      enumerate(&view, &second);
      cr_assert(same_offsets(&first, &second), "%s became %s", text_of(&layout), text_of(&view));
      strided_views += !tm_layout_is_contiguous(&layout);
    }
    refused += !exists;
  }
  cr_expect(gt(int, strided_views, CASES / 20));
  cr_expect(gt(int, refused, CASES / 20));
}

Test(layout_laws, view_of_a_row_major_layout_is_row_major) {
  FOR_EACH_CASE() {
    const tm_shape shape = random_shape();
    tm_layout layout;
    tm_layout view;
    tm_layout expected;
    cr_assert(eq(int, tm_layout_make(shape, &layout), TM_OK));
    const tm_shape other = random_view_shape(tm_layout_size(&layout));
    cr_assert(eq(int, tm_layout_view(&layout, other, &view), TM_OK), "%s",
              tm_last_error()->message);
    cr_assert(eq(int, tm_layout_make(other, &expected), TM_OK));
    cr_assert(tm_layout_equal(&view, &expected), "%s, not %s", text_of(&view), text_of(&expected));
  }
}

Test(layout_laws, view_of_a_view_is_the_view) {
  int twice = 0;
  FOR_EACH_CASE() {
    const tm_layout layout = random_layout();
    const tm_shape a = random_view_shape(tm_layout_size(&layout));
    const tm_shape b = random_view_shape(tm_layout_size(&layout));
    tm_layout via;
    tm_layout direct;
    const tm_status direct_status = tm_layout_view(&layout, b, &direct);
    if (tm_layout_view(&layout, a, &via) != TM_OK) {
      continue;
    }
    const tm_status via_status = tm_layout_view(&via, b, &via);
    cr_assert(eq(int, via_status, direct_status), "%s", text_of(&layout));
    if (direct_status == TM_OK) {
      enumerate(&direct, &first);
      enumerate(&via, &second);
      cr_assert(same_offsets(&first, &second), "%s", text_of(&layout));
      twice++;
    }
  }
  cr_expect(gt(int, twice, CASES / 4));
}

Test(layout_laws, view_and_back_is_where_it_was) {
  FOR_EACH_CASE() {
    const tm_layout layout = random_layout();
    tm_layout view;
    if (tm_layout_view(&layout, random_view_shape(tm_layout_size(&layout)), &view) != TM_OK) {
      continue;
    }
    cr_assert(eq(int, tm_layout_view(&view, tm_layout_shape(&layout), &view), TM_OK), "%s",
              text_of(&layout));
    enumerate(&layout, &first);
    enumerate(&view, &second);
    cr_assert(same_offsets(&first, &second), "%s", text_of(&layout));
  }
}

Test(layout_laws, a_wildcard_is_what_makes_the_sizes_fit) {
  FOR_EACH_CASE() {
    const tm_layout layout = random_layout();
    tm_shape shape = random_view_shape(tm_layout_size(&layout));
    if (shape.rank == 0 || tm_layout_size(&layout) == 0) {
      continue;
    }
    tm_layout with_number;
    tm_layout with_wildcard;
    const tm_status expected = tm_layout_view(&layout, shape, &with_number);
    shape.dim[random_below(shape.rank)] = -1;
    cr_assert(eq(int, tm_layout_view(&layout, shape, &with_wildcard), expected));
    cr_assert(tm_layout_equal(&with_number, &with_wildcard));
  }
}

//===-- Slice -------------------------------------------------------------===//

// A part of `layout`; sizes are -1 sometimes, and 0.
static void random_slice(const tm_layout* layout, tm_shape* base, tm_shape* size) {
  base->rank = tm_layout_rank(layout);
  size->rank = base->rank;
  for (int32_t i = 0; i < base->rank; i++) {
    base->dim[i] = random_below(layout->shape[i] + 1);
    size->dim[i] = random_below(layout->shape[i] - base->dim[i] + 1);
    if (random_below(4) == 0) {
      size->dim[i] = -1;
    }
  }
}

static int64_t rest(int64_t size, int64_t base, int64_t there) {
  return size == -1 ? there - base : size;
}

Test(layout_laws, slice_reaches_the_elements_asked_for) {
  FOR_EACH_CASE() {
    const tm_layout layout = random_layout();
    tm_shape base;
    tm_shape size;
    tm_layout part;
    int64_t offset;
    random_slice(&layout, &base, &size);
    cr_assert(eq(int, tm_layout_slice(&layout, base, size, &part, &offset), TM_OK), "%s",
              tm_last_error()->message);
    cr_assert(eq(int, part.ranked, layout.ranked));
    for (int32_t i = 0; i < base.rank; i++) {
      cr_assert(eq(i64, part.shape[i], rest(size.dim[i], base.dim[i], layout.shape[i])));
    }
    if (!has_elements(&part)) {
      cr_assert(eq(i64, offset, 0));
      continue;
    }
    int64_t index[TM_MAX_RANK] = {0};
    do {
      int64_t whole[TM_MAX_RANK];
      for (int32_t i = 0; i < base.rank; i++) {
        whole[i] = base.dim[i] + index[i];
      }
      cr_assert(eq(i64, offset + offset_at(&part, index), offset_at(&layout, whole)), "%s",
                text_of(&layout));
    } while (next_index(&part, index));
  }
}

Test(layout_laws, slice_of_a_slice_is_the_slice_at_the_sum_of_the_bases) {
  FOR_EACH_CASE() {
    const tm_layout layout = random_layout();
    tm_shape base;
    tm_shape size;
    tm_shape inner_base;
    tm_shape inner_size;
    tm_layout part;
    tm_layout inner;
    tm_layout direct;
    int64_t offset;
    int64_t inner_offset;
    int64_t direct_offset;
    random_slice(&layout, &base, &size);
    cr_assert(eq(int, tm_layout_slice(&layout, base, size, &part, &offset), TM_OK));
    random_slice(&part, &inner_base, &inner_size);
    cr_assert(
        eq(int, tm_layout_slice(&part, inner_base, inner_size, &inner, &inner_offset), TM_OK));
    for (int32_t i = 0; i < base.rank; i++) {
      base.dim[i] += inner_base.dim[i];
      size.dim[i] = inner.shape[i];
    }
    cr_assert(eq(int, tm_layout_slice(&layout, base, size, &direct, &direct_offset), TM_OK));
    cr_assert(tm_layout_equal(&inner, &direct), "%s", text_of(&layout));
    if (has_elements(&direct)) {
      cr_assert(eq(i64, offset + inner_offset, direct_offset), "%s", text_of(&layout));
    }
  }
}

Test(layout_laws, slice_of_the_outermost_dimension_is_the_slice_with_all_of_the_others) {
  FOR_EACH_CASE() {
    const tm_layout layout = random_layout();
    const int32_t rank = tm_layout_rank(&layout);
    const int64_t base = random_below(12) - 2;
    const int64_t size = random_below(12) - 3;
    tm_shape bases = TM_INDEX(0, 0, 0, 0, 0, 0, 0, 0);
    tm_shape sizes = TM_INDEX(-1, -1, -1, -1, -1, -1, -1, -1);
    tm_layout part;
    tm_layout outer;
    int64_t offset;
    int64_t outer_offset;
    const tm_status status = tm_layout_slice_outer(&layout, base, size, &outer, &outer_offset);
    if (rank == 0) {
      cr_assert(eq(int, status, TM_ERR_OUT_OF_RANGE));
      continue;
    }
    bases.rank = rank;
    sizes.rank = rank;
    bases.dim[0] = base;
    sizes.dim[0] = size;
    cr_assert(eq(int, tm_layout_slice(&layout, bases, sizes, &part, &offset), status));
    cr_assert(tm_layout_equal(&part, &outer), "%s", text_of(&layout));
    cr_assert(eq(i64, offset, outer_offset), "%s", text_of(&layout));
  }
}

Test(layout_laws, slices_out_of_range_are_refused) {
  FOR_EACH_CASE() {
    const tm_layout layout = random_layout();
    tm_shape base;
    tm_shape size;
    tm_layout part;
    int64_t offset;
    random_slice(&layout, &base, &size);
    if (base.rank == 0) {
      continue;
    }
    const int32_t dim = (int32_t)random_below(base.rank);
    tm_status expected = TM_ERR_OUT_OF_RANGE;
    switch (random_below(4)) {
      case 0:
        base.dim[dim] = -1 - random_below(INT64_MAX);
        break;
      case 1:
        base.dim[dim] = layout.shape[dim] + 1 + random_below(INT64_MAX / 2);
        break;
      case 2:
        size.dim[dim] = layout.shape[dim] - base.dim[dim] + 1 + random_below(INT64_MAX / 2);
        break;
      default:
        size.dim[dim] = -2 - random_below(INT64_MAX - 1);
        expected = TM_ERR_INVALID;
    }
    cr_assert(eq(int, tm_layout_slice(&layout, base, size, &part, &offset), expected), "%s",
              text_of(&layout));
    cr_assert(tm_layout_is_null(&part));
    cr_assert(eq(i64, offset, 0));
  }
}

//===-- Permute, transpose, squeeze, unsqueeze ----------------------------===//

Test(layout_laws, permute_moves_every_index_and_its_inverse_moves_it_back) {
  FOR_EACH_CASE() {
    const tm_layout layout = random_layout();
    const int32_t rank = tm_layout_rank(&layout);
    const tm_shape order = random_order(rank);
    tm_shape inverse;
    tm_layout permuted;
    tm_layout back;
    inverse.rank = rank;
    for (int32_t i = 0; i < rank; i++) {
      inverse.dim[order.dim[i]] = i - (random_below(2) ? rank : 0);  // either way of counting
    }
    cr_assert(eq(int, tm_layout_permute(&layout, order, &permuted), TM_OK));
    cr_assert(eq(int, tm_layout_permute(&permuted, inverse, &back), TM_OK));
    cr_assert(tm_layout_equal(&layout, &back), "%s", text_of(&layout));
    if (!has_elements(&layout)) {
      continue;
    }
    int64_t index[TM_MAX_RANK] = {0};
    do {
      int64_t moved[TM_MAX_RANK];
      for (int32_t i = 0; i < rank; i++) {
        moved[i] = index[order.dim[i]];
      }
      cr_assert(eq(i64, offset_at(&permuted, moved), offset_at(&layout, index)));
    } while (next_index(&layout, index));
  }
}

Test(layout_laws, transpose_is_the_permutation_and_its_own_inverse) {
  FOR_EACH_CASE() {
    const tm_layout layout = random_layout();
    const int32_t rank = tm_layout_rank(&layout);
    if (rank == 0) {
      continue;
    }
    const int32_t a = (int32_t)random_below(rank);
    const int32_t b = (int32_t)random_below(rank);
    tm_shape order;
    order.rank = rank;
    for (int32_t i = 0; i < rank; i++) {
      order.dim[i] = i == a ? b : i == b ? a : i;
    }
    tm_layout transposed;
    tm_layout permuted;
    tm_layout back;
    cr_assert(eq(int, tm_layout_transpose(&layout, a, b - rank, &transposed), TM_OK));
    cr_assert(eq(int, tm_layout_permute(&layout, order, &permuted), TM_OK));
    cr_assert(tm_layout_equal(&transposed, &permuted), "%s", text_of(&layout));
    cr_assert(eq(int, tm_layout_transpose(&transposed, a, b, &back), TM_OK));
    cr_assert(tm_layout_equal(&layout, &back), "%s", text_of(&layout));
  }
}

Test(layout_laws, unsqueeze_keeps_the_index_map_and_squeeze_undoes_it) {
  FOR_EACH_CASE() {
    const tm_layout layout = random_layout();
    const int32_t rank = tm_layout_rank(&layout);
    const int32_t dim = (int32_t)random_below(rank + 1);
    const int32_t asked = random_below(2) ? dim : dim - rank - 1;
    tm_layout more;
    tm_layout back;
    if (rank == TM_MAX_RANK) {
      cr_assert(eq(int, tm_layout_unsqueeze(&layout, asked, &more), TM_ERR_INVALID));
      cr_assert(tm_layout_is_null(&more));
      continue;
    }
    cr_assert(eq(int, tm_layout_unsqueeze(&layout, asked, &more), TM_OK));
    cr_assert(eq(int, tm_layout_rank(&more), rank + 1));
    cr_assert(eq(i64, more.shape[dim], 1));
    enumerate(&layout, &first);
    enumerate(&more, &second);
    cr_assert(same_offsets(&first, &second), "%s became %s", text_of(&layout), text_of(&more));
    cr_assert(eq(int, tm_layout_squeeze(&more, asked, &back), TM_OK));
    cr_assert(tm_layout_equal(&layout, &back), "%s", text_of(&layout));
  }
}

Test(layout_laws, a_permutation_of_a_permutation_is_their_composition) {
  FOR_EACH_CASE() {
    const tm_layout layout = random_layout();
    const int32_t rank = tm_layout_rank(&layout);
    const tm_shape a = random_order(rank);
    const tm_shape b = random_order(rank);
    tm_shape both;
    tm_layout twice;
    tm_layout once;
    both.rank = rank;
    for (int32_t i = 0; i < rank; i++) {
      both.dim[i] = a.dim[b.dim[i]];
    }
    cr_assert(eq(int, tm_layout_permute(&layout, a, &twice), TM_OK));
    cr_assert(eq(int, tm_layout_permute(&twice, b, &twice), TM_OK));
    cr_assert(eq(int, tm_layout_permute(&layout, both, &once), TM_OK));
    cr_assert(tm_layout_equal(&twice, &once), "%s", text_of(&layout));
  }
}

Test(layout_laws, a_part_of_what_is_permuted_is_what_is_permuted_of_the_part) {
  FOR_EACH_CASE() {
    const tm_layout layout = random_layout();
    const tm_shape order = random_order(tm_layout_rank(&layout));
    tm_shape base;
    tm_shape size;
    tm_shape moved_base;
    tm_shape moved_size;
    tm_layout part;
    tm_layout permuted;
    int64_t offset;
    int64_t permuted_offset;
    random_slice(&layout, &base, &size);
    moved_base.rank = order.rank;
    moved_size.rank = order.rank;
    for (int32_t i = 0; i < order.rank; i++) {
      moved_base.dim[i] = base.dim[order.dim[i]];
      moved_size.dim[i] = size.dim[order.dim[i]];
    }
    cr_assert(eq(int, tm_layout_slice(&layout, base, size, &part, &offset), TM_OK));
    cr_assert(eq(int, tm_layout_permute(&part, order, &part), TM_OK));
    cr_assert(eq(int, tm_layout_permute(&layout, order, &permuted), TM_OK));
    cr_assert(eq(int,
                 tm_layout_slice(&permuted, moved_base, moved_size, &permuted, &permuted_offset),
                 TM_OK));
    cr_assert(tm_layout_equal(&part, &permuted), "%s", text_of(&layout));
    cr_assert(eq(i64, offset, permuted_offset), "%s", text_of(&layout));
  }
}

Test(layout_laws, only_dimensions_of_size_1_are_squeezed) {
  FOR_EACH_CASE() {
    const tm_layout layout = random_layout();
    const int32_t rank = tm_layout_rank(&layout);
    const int32_t dim = (int32_t)random_below(2 * rank + 2) - rank - 1;
    tm_layout less;
    const tm_status status = tm_layout_squeeze(&layout, dim, &less);
    if (dim < -rank || dim >= rank) {
      cr_assert(eq(int, status, TM_ERR_OUT_OF_RANGE), "%s", text_of(&layout));
    } else if (layout.shape[dim < 0 ? dim + rank : dim] != 1) {
      cr_assert(eq(int, status, TM_ERR_INVALID), "%s", text_of(&layout));
    } else {
      cr_assert(eq(int, status, TM_OK));
      enumerate(&layout, &first);
      enumerate(&less, &second);
      cr_assert(same_offsets(&first, &second), "%s became %s", text_of(&layout), text_of(&less));
      continue;
    }
    cr_assert(tm_layout_is_null(&less));
  }
}

Test(layout_laws, contiguous_iff_coalesced_to_one_dimension_of_stride_1) {
  FOR_EACH_CASE() {
    const tm_layout layout = random_layout();
    tm_layout coalesced;
    cr_assert(eq(int, tm_layout_coalesce(&layout, &coalesced), TM_OK));
    const int32_t rank = tm_layout_rank(&coalesced);
    const bool expected = rank == 0 || (rank == 1 && coalesced.stride[0] == 1);
    cr_assert(eq(int, tm_layout_is_contiguous(&layout), expected), "%s", text_of(&layout));
  }
}

//===-- Offsets and text --------------------------------------------------===//

Test(layout_laws, offsets_of_full_and_partial_indices_are_those_counted) {
  FOR_EACH_CASE() {
    const tm_layout layout = random_layout();
    const int32_t rank = tm_layout_rank(&layout);
    if (!has_elements(&layout)) {
      continue;
    }
    int64_t index[TM_MAX_RANK] = {0};
    for (int32_t i = 0; i < rank; i++) {
      index[i] = random_below(layout.shape[i]);
    }
    const int32_t given = (int32_t)random_below(rank + 1);
    tm_shape partial = tm_shape_make(given, index);
    for (int32_t i = given; i < rank; i++) {
      index[i] = 0;
    }
    int64_t offset;
    cr_assert(eq(int, tm_layout_offset(&layout, partial, &offset), TM_OK));
    cr_assert(eq(i64, offset, offset_at(&layout, index)), "%s", text_of(&layout));
    if (given > 0) {
      const int32_t dim = (int32_t)random_below(given);
      partial.dim[dim] = random_below(2) ? -1 - random_below(10) : layout.shape[dim];
      cr_assert(eq(int, tm_layout_offset(&layout, partial, &offset), TM_ERR_OUT_OF_RANGE));
      cr_assert(eq(i64, offset, -1));
    }
  }
}

Test(layout_laws, text_parses_back_and_damaged_text_never_makes_a_bad_layout) {
  FOR_EACH_CASE() {
    const tm_layout layout = random_layout();
    char text[TM_LAYOUT_TEXT_SIZE];
    tm_layout parsed;
    tm_layout_text(&layout, text, sizeof text);
    cr_assert(eq(int, tm_layout_parse(text, &parsed), TM_OK), "%s", text);
    cr_assert(tm_layout_equal(&layout, &parsed), "%s", text);
    char* damaged = text;
    while (*damaged && random_below(4)) {
      damaged++;
    }
    *damaged = "(),:-0123456789x"[random_below(16)];
    if (tm_layout_parse(text, &parsed) == TM_OK) {
      cr_assert(ge(i64, tm_layout_cosize(&parsed), 0), "%s", text);
    } else {
      cr_assert(tm_layout_is_null(&parsed), "%s", text);
    }
  }
}

//===-- Large numbers -----------------------------------------------------===//

// Against 128-bit arithmetic: what fits is right, and what does not is an error.
Test(layout_laws, sizes_beyond_int64_are_overflow_and_nothing_else_is) {
  int overflows = 0;
  FOR_EACH_CASE() {
    tm_shape shape;
    tm_shape stride;
    shape.rank = 1 + (int32_t)random_below(4);
    stride.rank = shape.rank;
    __int128 product = 1;
    __int128 reach = 0;
    bool empty = false;
    for (int32_t i = 0; i < shape.rank; i++) {
      shape.dim[i] = (int64_t)(random_bits() >> (1 + random_below(63)));
      stride.dim[i] = (int64_t)(random_bits() >> (1 + random_below(63)));
      const int64_t at_least_one = shape.dim[i] ? shape.dim[i] : 1;
      empty = empty || shape.dim[i] == 0;
      product = product > INT64_MAX ? product : product * at_least_one;
      reach = reach > INT64_MAX ? reach : reach + (__int128)(at_least_one - 1) * stride.dim[i];
    }
    tm_layout layout;
    const bool fits = product <= INT64_MAX;
    cr_assert(eq(int, tm_layout_make(shape, &layout), fits ? TM_OK : TM_ERR_OVERFLOW));
    if (fits) {
      cr_assert(eq(i64, tm_layout_size(&layout), empty ? 0 : (int64_t)product));
      cr_assert(eq(i64, tm_layout_cosize(&layout), tm_layout_size(&layout)));
    }
    const bool reaches = fits && reach < INT64_MAX;
    cr_assert(
        eq(int, tm_layout_make_strided(shape, stride, &layout), reaches ? TM_OK : TM_ERR_OVERFLOW));
    if (reaches) {
      cr_assert(eq(i64, tm_layout_cosize(&layout), empty ? 0 : (int64_t)reach + 1));
      tm_layout out;
      cr_assert(eq(int, tm_layout_coalesce(&layout, &out), TM_OK));
      cr_assert(eq(i64, tm_layout_cosize(&out), tm_layout_cosize(&layout)));
      cr_assert(eq(int, tm_layout_view(&layout, shape, &out), TM_OK));
      cr_assert(eq(i64, tm_layout_cosize(&out), tm_layout_cosize(&layout)));
      (void)tm_layout_is_injective(&layout);
      (void)tm_layout_is_contiguous(&layout);
    }
    overflows += !reaches;
  }
  cr_expect(gt(int, overflows, CASES / 10));
  cr_expect(lt(int, overflows, CASES * 9 / 10));
}
