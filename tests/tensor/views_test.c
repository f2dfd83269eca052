// Views of random tensors against the functions of layouts, in place. Those in place take the
// general path; into another layout, and for tensors, ranks of 1 to 4 have one of their own.
//
// Tensors are random: rank 0 to 8, sizes of 0 and 1 among them, row-major, permuted, padded or
// broadcast, elements of 2 to 64 bits, owned, borrowed or foreign. What is asked of them is mostly
// right. The seed is printed, and TM_TEST_SEED repeats a run.

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/counting_allocator.h"
#include "tests/support/random.h"
#include "tm/tensor/tensor.h"

enum { CASES = 200000, MAXIMUM_ELEMENTS = 512 };

static test_random chance;

static int64_t below(int64_t limit) { return (int64_t)test_random_below(&chance, (size_t)limit); }

//===-- Random layouts and requests ---------------------------------------===//

typedef enum operation {
  VIEW,
  SLICE,
  SLICE_OUTER,
  PERMUTE,
  TRANSPOSE,
  SQUEEZE,
  OPERATIONS,
} operation;

// What is asked of a tensor; an operation reads what it needs.
typedef struct request {
  operation operation;
  tm_shape first;   // a shape, where a slice starts, an order
  tm_shape second;  // the sizes of a slice
  int32_t a;        // dimensions
  int32_t b;
} request;

// Often as small as what has a path of its own.
static int32_t random_rank(void) { return (int32_t)(below(3) ? below(6) : below(TM_MAX_RANK + 1)); }

static int64_t random_size(void) {
  static const int64_t sizes[] = {1, 1, 2, 2, 3, 4, 5, 8};
  return below(24) ? sizes[below(8)] : 0;
}

// A number that is hardly ever right.
static int64_t odd_number(void) {
  static const int64_t numbers[] = {-1,  -2, -3, 0,         1,         7,
                                    100, -9, 9,  INT64_MAX, INT64_MIN, INT64_C(1) << 62};
  return numbers[below(12)];
}

static tm_layout random_layout(void) {
  tm_shape shape = {.rank = random_rank()};
  tm_shape stride = {.rank = shape.rank};
  int64_t elements = 1;
  const int64_t kind = below(4);  // 0 and 1: row-major
  for (int32_t i = shape.rank - 1; i >= 0; i--) {
    const int64_t size = random_size();
    shape.dim[i] = elements * size > MAXIMUM_ELEMENTS ? 1 : size;
    stride.dim[i] = elements;
    elements *= shape.dim[i] ? shape.dim[i] : 1;
    if (kind == 2) {
      elements += below(3);
    } else if (kind == 3) {
      stride.dim[i] = below(9);
    }
    if (shape.dim[i] == 1 && below(8) == 0) {
      stride.dim[i] = below(9);  // which nothing uses
    }
  }
  tm_layout layout;
  cr_assert(eq(int, tm_layout_make_strided(shape, stride, &layout), TM_OK));
  return layout;
}

// A shape of as many elements where that can be.
static tm_shape random_shape_of(int64_t elements) {
  tm_shape shape = {.rank = random_rank()};
  int64_t left = elements;
  for (int32_t i = 0; i < shape.rank; i++) {
    const int64_t factor = i + 1 < shape.rank ? 1 + below(8) : left;
    shape.dim[i] = factor > 0 && left % factor ? 1 : factor;
    left /= shape.dim[i] ? shape.dim[i] : 1;
  }
  if (shape.rank && below(2)) {
    shape.dim[below(shape.rank)] = -1;
  }
  return shape;
}

static void random_slice_of(const tm_layout* layout, request* asked) {
  asked->first.rank = asked->second.rank = tm_layout_rank(layout);
  for (int32_t i = 0; i < asked->first.rank; i++) {
    asked->first.dim[i] = below(layout->shape[i] + (below(8) == 0 ? 1 : layout->shape[i] == 0));
    const int64_t left = layout->shape[i] - asked->first.dim[i];
    asked->second.dim[i] = below(2) ? -1 : left - (left > 1 ? below(left) : 0);
  }
}

static tm_shape random_order_of(int32_t rank) {
  tm_shape order = {.rank = rank};
  for (int32_t i = 0; i < rank; i++) {
    const int32_t j = (int32_t)below(i + 1);
    order.dim[i] = order.dim[j];
    order.dim[j] = i;
  }
  for (int32_t i = 0; i < rank; i++) {
    order.dim[i] -= below(4) ? 0 : rank;
  }
  return order;
}

// One number of a list, or its rank, becomes something else.
static void damage(tm_shape* list) {
  if (list->rank && below(3)) {
    list->dim[below(list->rank)] = odd_number();
  } else {
    const int32_t rank = (int32_t)below(12) - 1;
    for (int32_t i = list->rank; i < rank && i < TM_MAX_RANK; i++) {
      list->dim[i] = 1;
    }
    list->rank = rank;
  }
}

static request random_request(const tm_layout* layout) {
  const int32_t rank = tm_layout_rank(layout);
  request asked = {.operation = (operation)below(OPERATIONS)};
  asked.a = (int32_t)(below(2 * rank + 2) - rank - 1);
  asked.b = (int32_t)(below(2 * rank + 2) - rank - 1);
  if (asked.operation == VIEW) {
    asked.first = random_shape_of(tm_layout_size(layout));
  } else if (asked.operation == PERMUTE) {
    asked.first = random_order_of(rank);
  } else {
    random_slice_of(layout, &asked);
  }
  if (below(6) == 0) {
    damage(below(2) ? &asked.first : &asked.second);
  }
  return asked;
}

//===-- Doing it ----------------------------------------------------------===//

static int64_t outer(const tm_shape* list) { return list->rank > 0 ? list->dim[0] : 0; }

static tm_status change_layout(const request* asked, const tm_layout* layout, tm_layout* out,
                               int64_t* offset) {
  *offset = 0;
  switch (asked->operation) {
    case VIEW:
      return tm_layout_view(layout, asked->first, out);
    case SLICE:
      return tm_layout_slice(layout, asked->first, asked->second, out, offset);
    case SLICE_OUTER:
      return tm_layout_slice_outer(layout, outer(&asked->first), outer(&asked->second), out,
                                   offset);
    case PERMUTE:
      return tm_layout_permute(layout, asked->first, out);
    case TRANSPOSE:
      return tm_layout_transpose(layout, asked->a, asked->b, out);
    default:
      return tm_layout_squeeze(layout, asked->a, out);
  }
}

static tm_tensor change(const request* asked, const tm_tensor* x) {
  switch (asked->operation) {
    case VIEW:
      return tm_view(x, asked->first);
    case SLICE:
      return tm_slice(x, asked->first, asked->second);
    case SLICE_OUTER:
      return tm_slice_outer(x, outer(&asked->first), outer(&asked->second));
    case PERMUTE:
      return tm_permute(x, asked->first);
    case TRANSPOSE:
      return tm_transpose(x, asked->a, asked->b);
    default:
      return tm_squeeze(x, asked->a);
  }
}

static tm_tensor change_move(const request* asked, tm_tensor x) {
  switch (asked->operation) {
    case VIEW:
      return tm_view_move(x, asked->first);
    case SLICE:
      return tm_slice_move(x, asked->first, asked->second);
    case SLICE_OUTER:
      return tm_slice_outer_move(x, outer(&asked->first), outer(&asked->second));
    case PERMUTE:
      return tm_permute_move(x, asked->first);
    case TRANSPOSE:
      return tm_transpose_move(x, asked->a, asked->b);
    default:
      return tm_squeeze_move(x, asked->a);
  }
}

//===-- Layouts -----------------------------------------------------------===//

static char* describe(const tm_layout* layout, const request* asked) {
  static char text[3 * TM_LAYOUT_TEXT_SIZE];
  char whole[TM_LAYOUT_TEXT_SIZE];
  char first[TM_SHAPE_TEXT_SIZE];
  char second[TM_SHAPE_TEXT_SIZE];
  tm_layout_text(layout, whole, sizeof whole);
  tm_shape_text(&asked->first, first, sizeof first);
  tm_shape_text(&asked->second, second, sizeof second);
  snprintf(text, sizeof text, "operation %d of %s: %s, %s, %d, %d", (int)asked->operation, whole,
           first, second, asked->a, asked->b);
  return text;
}

// Whether each entry behind those in use is what it was.
static bool kept_the_rest(const tm_layout* layout, int64_t was) {
  bool kept = true;
  for (int32_t i = tm_layout_rank(layout); i < TM_MAX_RANK; i++) {
    kept = kept && layout->shape[i] == was && layout->stride[i] == was;
  }
  return kept;
}

Test(views, a_layout_changes_into_another_as_in_place) {
  const int64_t untouched = 0x5555555555555555;
  int done[OPERATIONS] = {0};
  int refused[OPERATIONS] = {0};
  chance = test_random_start("views");
  for (int k = 0; k < CASES; k++) {
    const tm_layout layout = random_layout();
    const request asked = random_request(&layout);
    tm_layout in_place = layout;
    tm_layout other;
    int64_t offset;
    int64_t other_offset;
    memset(&other, 0x55, sizeof other);
    const tm_status status = change_layout(&asked, &in_place, &in_place, &offset);
    cr_assert(eq(int, change_layout(&asked, &layout, &other, &other_offset), status), "%s",
              describe(&layout, &asked));
    cr_assert(tm_layout_equal(&in_place, &other), "%s", describe(&layout, &asked));
    cr_assert(eq(i64, other_offset, offset), "%s", describe(&layout, &asked));
    cr_assert(status != TM_OK || kept_the_rest(&other, untouched), "%s", describe(&layout, &asked));
    (status == TM_OK ? done : refused)[asked.operation]++;
  }
  for (int i = 0; i < OPERATIONS; i++) {
    cr_expect(done[i] > CASES / 50 && refused[i] > CASES / 100, "operation %d: %d, %d", i, done[i],
              refused[i]);
  }
}

//===-- Tensors -----------------------------------------------------------===//

typedef enum holding { OWNED, BORROWED, FOREIGN, HOLDINGS } holding;

static int64_t foreign[(2 * TM_MAX_RANK + 1) * MAXIMUM_ELEMENTS];

static tm_tensor random_tensor(tm_allocator* allocator, holding held) {
  static const tm_dtype dtypes[] = {TM_U2, TM_U4, TM_U6, TM_U8, TM_F16, TM_F32, TM_F64};
  const tm_layout layout = random_layout();
  const tm_dtype dtype = dtypes[below(7)];
  if (held == FOREIGN) {
    tm_auto_buffer buffer =
        tm_buffer_from_borrowed(foreign, sizeof foreign / 8, dtype, tm_device_make(TM_CPU, 0));
    return tm_from_buffer(&buffer, &layout);
  }
  return tm_empty_strided_from(allocator, &layout, dtype);
}

static bool at_byte(int64_t element, int64_t bits) { return element * bits % 8 == 0; }

// Whether a part of a tensor, `offset` elements in, shares no byte with what is left out.
static bool is_whole_bytes(const tm_tensor* whole, const tm_layout* part, int64_t offset) {
  const int64_t bits = tm_dtype_bits(tm_dtype_of(whole));
  const int64_t end = offset + tm_layout_cosize(part);
  return tm_layout_size(part) == 0 ||
         (at_byte(offset, bits) && (at_byte(end, bits) || end == tm_layout_cosize(&whole->layout)));
}

// What `change` must have made of `x`.
static void expect_made(const tm_tensor* x, const request* asked, const tm_tensor* made) {
  tm_layout layout = x->layout;
  int64_t offset;
  tm_status status = change_layout(asked, &layout, &layout, &offset);
  if (status == TM_OK && (asked->operation == SLICE || asked->operation == SLICE_OUTER) &&
      !is_whole_bytes(x, &layout, offset)) {
    status = TM_ERR_INVALID;
  }
  const char* const text = describe(&x->layout, asked);
  cr_assert(eq(int, tm_ok(made), status == TM_OK), "%s", text);
  if (status != TM_OK) {
    cr_assert(eq(int, tm_last_status(), status), "%s", text);
    cr_assert(made->storage == NULL && made->data == NULL, "%s", text);
    return;
  }
  const bool empty = tm_layout_size(&layout) == 0;
  const int64_t bytes = offset * tm_dtype_bits(tm_dtype_of(x)) / 8;
  cr_assert(tm_layout_equal(&layout, &made->layout), "%s", text);
  cr_assert(eq(ptr, made->storage, empty ? NULL : x->storage), "%s", text);
  cr_assert(eq(ptr, made->data, empty ? NULL : (char*)x->data + bytes), "%s", text);
  cr_assert(eq(int, made->dtype, x->dtype), "%s", text);
  cr_assert(tm_device_equal(made->device, x->device), "%s", text);
  cr_assert(eq(int, made->flags, 0), "%s", text);
}

// The memory of `x` lives as long as `x` or `made`, whichever is released first.
static void expect_counted(const counting_allocator* memory, tm_tensor* x, tm_tensor* made) {
  const bool made_first = below(2);
  tm_release(made_first ? made : x);
  cr_assert(eq(int, memory->live_bytes != 0, (made_first ? x : made)->storage != NULL));
  tm_release(made_first ? x : made);
  cr_assert(eq(sz, memory->live_bytes, 0));
}

Test(views, a_tensor_changes_as_its_layout_and_counts_references) {
  counting_allocator memory;
  counting_allocator_init(&memory);
  chance = test_random_start("views");
  for (int k = 0; k < CASES; k++) {
    const holding held = (holding)below(HOLDINGS);
    tm_tensor x = random_tensor(&memory.base, held);
    cr_assert(tm_ok(&x), "%s", tm_last_error()->message);
    const request asked = random_request(&x.layout);
    const tm_tensor before = held == BORROWED ? tm_borrow(&x) : x;
    const bool moved = below(2);
    tm_tensor made = moved ? change_move(&asked, before) : change(&asked, &before);
    if (moved && held != BORROWED) {
      tm_reset_(&x);  // its reference went on
    }
    expect_made(&before, &asked, &made);
    expect_counted(&memory, &x, &made);
  }
}

Test(views, a_share_is_the_tensor_again_in_every_rank) {
  counting_allocator memory;
  counting_allocator_init(&memory);
  chance = test_random_start("views");
  for (int k = 0; k < CASES / 10; k++) {
    tm_tensor x = random_tensor(&memory.base, OWNED);
    const tm_tensor borrowed = tm_borrow(&x);
    tm_tensor shared;
    memset(&shared, 0x55, sizeof shared);
    shared = tm_share(below(2) ? &x : &borrowed);
    cr_assert(tm_layout_equal(&shared.layout, &x.layout));
    cr_assert(eq(ptr, shared.storage, x.storage));
    cr_assert(eq(ptr, shared.data, x.data));
    cr_assert(eq(int, shared.dtype, x.dtype));
    cr_assert(tm_device_equal(shared.device, x.device));
    cr_assert(eq(int, shared.flags, 0));
    expect_counted(&memory, &x, &shared);
  }
  tm_tensor null = tm_null();
  tm_tensor shared = tm_share(&null);
  cr_expect(not(tm_ok(&shared)));
  cr_expect(tm_layout_is_null(&shared.layout));
}

static void count_call(void* data, size_t size, void* user) {
  (void)data;
  (void)size;
  ++*(int*)user;
}

// Adopted memory stays with the tensor that adopted it, not with what is made of that.
Test(views, nothing_made_of_a_tensor_without_elements_holds_memory) {
  int deleted = 0;
  tm_tensor x = tm_adopt(foreign, sizeof foreign, TM_SHAPE(1, 0, 3), TM_F32,
                         tm_device_make(TM_CPU, 0), count_call, &deleted);
  cr_assert(x.storage != NULL);
  const tm_tensor made[] = {
      tm_view(&x, TM_SHAPE(0, 1)), tm_slice(&x, TM_INDEX(0, 0, 0), TM_INDEX(-1, -1, -1)),
      tm_slice_outer(&x, 0, 1),    tm_permute(&x, TM_INDEX(2, 1, 0)),
      tm_transpose(&x, 0, 1),      tm_squeeze(&x, 0),
  };
  for (size_t i = 0; i < sizeof made / sizeof made[0]; i++) {
    cr_expect(tm_ok(&made[i]));
    cr_expect(eq(ptr, made[i].storage, NULL), "%zu", i);
  }
  tm_release(&x);
  cr_expect(eq(int, deleted, 1));
}
