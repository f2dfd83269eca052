// Copies and fills on the host, and of dry memory.

#include "tm/tensor/copy.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tm/alloc/host.h"
#include "tm/context/context.h"
#include "tm/tensor/dry.h"

static const tm_device cpu = {TM_CPU, 0};

static tm_tensor make(tm_shape shape, tm_dtype dtype) {
  tm_tensor tensor = tm_empty_from(tm_host_allocator(), shape, dtype);
  cr_assert(tm_ok(&tensor), "%s", tm_last_error()->message);
  return tensor;
}

static tm_tensor count_up(tm_shape shape) {
  tm_tensor tensor = make(shape, TM_I32);
  for (int64_t i = 0; i < tm_size(&tensor); i++) {
    TM_DATA(int32_t, &tensor)[i] = (int32_t)i;
  }
  return tensor;
}

static int value_at(const tm_tensor* tensor, tm_shape index) {
  int64_t offset = 0;
  cr_assert(eq(int, tm_layout_offset(&tensor->layout, index, &offset), TM_OK));
  return TM_DATA(int32_t, tensor)[offset];
}

#define EXPECT_OK(call) cr_expect(eq(int, (call), TM_OK), "%s", tm_last_error()->message)

//===-- Contiguous --------------------------------------------------------===//

Test(copy, from_cpu_to_cpu_needs_no_stream) {
  cr_assert(tm_current_stream() == NULL);
  tm_auto_tensor x = count_up(TM_SHAPE(20, 50));
  tm_auto_tensor y = make(TM_SHAPE(20, 50), TM_I32);
  EXPECT_OK(tm_copy(&x, &y));
  cr_expect(eq(int, memcmp(x.data, y.data, 4000), 0));
}

Test(copy, of_every_dtype_copies_exactly_its_bytes) {
  for (int i = 1; i < TM_DTYPES; i++) {
    const tm_dtype dtype = (tm_dtype)i;
    uint8_t from[64] __attribute__((aligned(8)));
    uint8_t to[64] __attribute__((aligned(8)));
    memset(from, 0x5a, sizeof from);
    memset(to, 0, sizeof to);
    tm_auto_tensor x = tm_from_borrowed(from, TM_SHAPE(5), dtype, cpu);
    tm_auto_tensor y = tm_from_borrowed(to, TM_SHAPE(5), dtype, cpu);
    EXPECT_OK(tm_copy(&x, &y));
    const size_t bytes = (5 * (size_t)tm_dtype_bits(dtype) + 7) / 8;
    for (size_t b = 0; b < sizeof to; b++) {
      cr_expect(eq(int, to[b], b < bytes ? 0x5a : 0), "%s, byte %zu", tm_dtype_name(dtype), b);
    }
  }
}

Test(copy, of_nothing_is_done_at_once) {
  tm_auto_tensor x = make(TM_SHAPE(0, 3), TM_F32);
  tm_auto_tensor y = make(TM_SHAPE(0, 3), TM_F32);
  EXPECT_OK(tm_copy(&x, &y));
  EXPECT_OK(tm_clear(&x));
}

Test(copy, of_a_scalar) {
  tm_auto_tensor x = count_up(TM_SHAPE());
  tm_auto_tensor y = make(TM_SHAPE(), TM_I32);
  *TM_DATA(int32_t, &x) = 42;
  EXPECT_OK(tm_copy(&x, &y));
  cr_expect(eq(int, *TM_DATA(int32_t, &y), 42));
}

Test(copy, refuses_what_does_not_match) {
  tm_auto_tensor x = count_up(TM_SHAPE(2, 3));
  tm_auto_tensor turned = make(TM_SHAPE(3, 2), TM_I32);
  tm_auto_tensor other_type = make(TM_SHAPE(2, 3), TM_F32);
  tm_auto_tensor other_rank = make(TM_SHAPE(6), TM_I32);
  const tm_tensor null = tm_null();
  cr_expect(eq(int, tm_copy(&x, &turned), TM_ERR_INVALID));
  cr_expect(
      eq(str, (char*)tm_last_error()->message, "copy of i32 (2,3) to i32 (3,2): not the same"));
  cr_expect(eq(int, tm_copy(&x, &other_type), TM_ERR_INVALID));
  cr_expect(eq(int, tm_copy(&x, &other_rank), TM_ERR_INVALID));
  tm_clear_error();
  cr_expect(eq(int, tm_copy(&x, &null), TM_ERR_INVALID));
  cr_expect(eq(str, (char*)tm_last_error()->message, "the destination of a copy is null"));
  tm_clear_error();
  cr_expect(eq(int, tm_copy(&null, &x), TM_ERR_INVALID));
  cr_expect(eq(int, tm_clear(&null), TM_ERR_INVALID));
}

Test(copy, refuses_overlapping_ranges) {
  tm_auto_tensor x = count_up(TM_SHAPE(10));
  tm_auto_tensor head = tm_slice_outer(&x, 0, 6);
  tm_auto_tensor tail = tm_slice_outer(&x, 4, 6);
  tm_auto_tensor rest = tm_slice_outer(&x, 6, 4);
  tm_auto_tensor first = tm_slice_outer(&x, 0, 4);
  cr_expect(eq(int, tm_copy(&head, &tail), TM_ERR_INVALID));
  cr_expect(eq(int, tm_copy(&tail, &head), TM_ERR_INVALID));
  cr_expect(eq(int, tm_copy(&x, &x), TM_ERR_INVALID));
  for (int i = 0; i < 10; i++) {
    cr_expect(eq(int, value_at(&x, TM_INDEX(i)), i));
  }
  EXPECT_OK(tm_copy(&first, &rest));
  cr_expect(eq(int, value_at(&x, TM_INDEX(9)), 3));
}

Test(copy, buffers) {
  tm_auto_buffer x = tm_buffer_empty_from(tm_host_allocator(), 9, TM_I16);
  tm_auto_buffer y = tm_buffer_empty_from(tm_host_allocator(), 9, TM_I16);
  tm_auto_buffer shorter = tm_buffer_slice(&y, 0, 8);
  tm_buffer null = tm_buffer_null();
  for (int i = 0; i < 9; i++) {
    TM_BUFFER_DATA(int16_t, &x)[i] = (int16_t)(i * i);
  }
  EXPECT_OK(tm_buffer_copy(&x, &y));
  cr_expect(eq(int, TM_BUFFER_DATA(int16_t, &y)[8], 64));
  EXPECT_OK(tm_buffer_clear(&y));
  cr_expect(eq(int, TM_BUFFER_DATA(int16_t, &y)[8], 0));
  cr_expect(eq(int, tm_buffer_copy(&x, &shorter), TM_ERR_INVALID));
  cr_expect(eq(int, tm_buffer_copy(&x, &null), TM_ERR_INVALID));
  cr_expect(eq(int, tm_buffer_clear(&null), TM_ERR_INVALID));
}

Test(copy, fill_bytes_of_a_buffer_stays_within_it) {
  tm_auto_buffer whole = tm_buffer_empty_from(tm_host_allocator(), 9, TM_I16);
  tm_auto_buffer middle = tm_buffer_slice(&whole, 3, 4);
  EXPECT_OK(tm_buffer_fill_bytes(&whole, 0x11));
  EXPECT_OK(tm_buffer_fill_bytes(&middle, 0x7f));
  for (int i = 0; i < 9; i++) {
    const int expected = i >= 3 && i < 7 ? 0x7f7f : 0x1111;
    cr_expect(eq(int, TM_BUFFER_DATA(int16_t, &whole)[i], expected), "%d", i);
  }
  const tm_buffer null = tm_buffer_null();
  cr_expect(eq(int, tm_buffer_fill_bytes(&null, 1), TM_ERR_INVALID));
}

Test(copy, of_the_first_elements_of_buffers) {
  int32_t from[5] = {1, 2, 3, 4, 5};
  int32_t to[4] = {0};
  tm_auto_buffer x = tm_buffer_from_borrowed(from, 5, TM_I32, cpu);
  tm_auto_buffer y = tm_buffer_from_borrowed(to, 4, TM_I32, cpu);
  EXPECT_OK(tm_buffer_copy_n(&x, 3, &y));
  cr_expect(eq(int, memcmp(to, (int32_t[]){1, 2, 3, 0}, sizeof to), 0));
  EXPECT_OK(tm_buffer_copy_n(&x, 4, &y));
  cr_expect(eq(int, to[3], 4));
  EXPECT_OK(tm_buffer_copy_n(&x, 0, &y));
  cr_expect(eq(int, tm_buffer_copy_n(&x, 5, &y), TM_ERR_OUT_OF_RANGE));
  cr_expect(eq(int, tm_buffer_copy_n(&y, 5, &x), TM_ERR_OUT_OF_RANGE));
  cr_expect(eq(int, tm_buffer_copy_n(&x, -1, &y), TM_ERR_INVALID));
  cr_expect(eq(int, tm_buffer_copy_n(&x, 2, &x), TM_ERR_INVALID));  // they overlap
  const tm_buffer null = tm_buffer_null();
  cr_expect(eq(int, tm_buffer_copy_n(&x, 0, &null), TM_ERR_INVALID));
  cr_expect(eq(int, tm_buffer_copy_n(&null, 0, &x), TM_ERR_INVALID));
}

Test(copy, of_the_first_elements_writes_no_neighbour_in_the_same_byte) {
  uint8_t from[4] = {0x21, 0x43, 0x65, 0x87};
  uint8_t to[4] = {0xff, 0xff, 0xff, 0xff};
  tm_auto_buffer x = tm_buffer_from_borrowed(from, 7, TM_U4, cpu);
  tm_auto_buffer y = tm_buffer_from_borrowed(to, 8, TM_U4, cpu);
  tm_auto_buffer same = tm_buffer_from_borrowed(to, 7, TM_U4, cpu);
  EXPECT_OK(tm_buffer_copy_n(&x, 4, &y));
  cr_expect(eq(int, memcmp(to, (uint8_t[]){0x21, 0x43, 0xff, 0xff}, sizeof to), 0));
  cr_expect(eq(int, tm_buffer_copy_n(&x, 3, &y), TM_ERR_INVALID));
  cr_expect(eq(int, tm_buffer_copy_n(&x, 7, &y), TM_ERR_INVALID));
  cr_expect(eq(int, to[2], 0xff));
  EXPECT_OK(tm_buffer_copy_n(&x, 7, &same));
  cr_expect(eq(int, memcmp(to, from, sizeof to), 0));
}

//===-- Pointers ----------------------------------------------------------===//

Test(copy, of_pointers_returns_the_end) {
  const int32_t from[5] = {1, 2, 3, 4, 5};
  int32_t to[7] = {0};
  int32_t* end = TM_COPY_N(from, 2, to);
  end = TM_COPY_N(from + 2, 3, end);
  end = TM_COPY_N(from, 0, end);
  end = TM_COPY_N((const int32_t*)NULL, 0, end);
  cr_expect(eq(ptr, end, to + 5));
  cr_expect(eq(int, memcmp(to, (int32_t[]){1, 2, 3, 4, 5, 0, 0}, sizeof to), 0));
}

Test(copy, of_pointers_that_cannot_be_is_NULL_and_an_error) {
  int64_t from[4] = {1, 2, 3, 4};
  int64_t* const nowhere = NULL;
  const struct {
    int64_t* source;
    int64_t count;
    int64_t* destination;
    tm_status status;
  } rows[] = {
      {from, -1, from, TM_ERR_INVALID},
      {from, INT64_MAX / 4, from, TM_ERR_OVERFLOW},
      {from, INT64_MAX, from, TM_ERR_OVERFLOW},
      {nowhere, 2, from, TM_ERR_INVALID},
      {from, 2, nowhere, TM_ERR_INVALID},
      {from, 3, from + 1, TM_ERR_INVALID},  // they overlap
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    tm_clear_error();
    cr_expect(eq(ptr, TM_COPY_N(rows[i].source, rows[i].count, rows[i].destination), NULL));
    cr_expect(eq(int, tm_last_status(), rows[i].status), "%zu", i);
  }
  cr_expect(eq(int, memcmp(from, (int64_t[]){1, 2, 3, 4}, sizeof from), 0));
}

//===-- Strided -----------------------------------------------------------===//

Test(copy, transposes) {
  tm_auto_tensor x = count_up(TM_SHAPE(3, 4));
  tm_auto_tensor y = make(TM_SHAPE(4, 3), TM_I32);
  tm_auto_tensor turned = tm_t(&x);
  EXPECT_OK(tm_copy(&turned, &y));
  for (int64_t i = 0; i < 4; i++) {
    for (int64_t j = 0; j < 3; j++) {
      cr_expect(eq(int, value_at(&y, TM_INDEX(i, j)), value_at(&x, TM_INDEX(j, i))));
    }
  }
}

Test(copy, writes_to_a_part_and_nowhere_else) {
  tm_auto_tensor x = count_up(TM_SHAPE(3, 2));
  tm_auto_tensor y = make(TM_SHAPE(5, 6), TM_I32);
  memset(y.data, 0xff, tm_byte_size(&y));
  tm_auto_tensor part = tm_slice(&y, TM_INDEX(1, 3), TM_INDEX(3, 2));
  EXPECT_OK(tm_copy(&x, &part));
  for (int64_t i = 0; i < 5; i++) {
    for (int64_t j = 0; j < 6; j++) {
      const bool inside = i >= 1 && i < 4 && j >= 3 && j < 5;
      cr_expect(eq(int, value_at(&y, TM_INDEX(i, j)), inside ? (int)((i - 1) * 2 + j - 3) : -1));
    }
  }
}

Test(copy, refuses_a_destination_whose_elements_overlap) {
  tm_auto_tensor x = count_up(TM_SHAPE(4, 3));
  tm_auto_buffer memory = tm_buffer_empty_from(tm_host_allocator(), 12, TM_I32);
  tm_layout layout;
  cr_assert(eq(int, tm_layout_parse("(4,3):(0,1)", &layout), TM_OK));
  tm_auto_tensor broadcast = tm_from_buffer(&memory, &layout);
  EXPECT_OK(tm_buffer_clear(&memory));
  cr_expect(eq(int, tm_copy(&x, &broadcast), TM_ERR_INVALID));
  cr_expect(eq(int, tm_clear(&broadcast), TM_ERR_INVALID));
  cr_assert(eq(int, tm_layout_parse("(4,3):(1,1)", &layout), TM_OK));
  tm_auto_tensor sliding = tm_from_buffer(&memory, &layout);
  cr_expect(eq(int, tm_copy(&x, &sliding), TM_ERR_INVALID));
  tm_auto_tensor y = make(TM_SHAPE(4, 3), TM_I32);
  EXPECT_OK(tm_copy(&sliding, &y));  // as a source it is fine
}

static void forget(void* data, size_t size, void* user) {
  (void)data;
  (void)size;
  (void)user;
}

// Only dry memory is so large.
Test(copy, of_strides_near_two_to_the_63_is_counted) {
  const size_t bytes = ((size_t)1 << 62) + 2;
  tm_auto_tensor huge =
      tm_adopt((void*)64, bytes, TM_SHAPE((int64_t)bytes), TM_U8, cpu, forget, NULL);
  cr_assert(tm_ok(&huge), "%s", tm_last_error()->message);
  huge.storage->flags |= TM_STORAGE_DRY_;
  tm_auto_buffer all = tm_buffer_of(&huge);
  tm_layout layout;
  cr_assert(eq(int, tm_layout_parse("(2,2):(1,4611686018427387904)", &layout), TM_OK));
  tm_auto_tensor corners = tm_from_buffer(&all, &layout);
  cr_assert(tm_ok(&corners), "%s", tm_last_error()->message);
  tm_auto_tensor y = make(TM_SHAPE(2, 2), TM_U8);
  const tm_dry_counts before = tm_dry_counted();
  EXPECT_OK(tm_copy(&corners, &y));
  EXPECT_OK(tm_fill_bytes(&corners, 1));
  cr_expect(eq(u64, tm_dry_counted().bytes, before.bytes + 8));
}

Test(copy, of_sub_byte_elements_moves_whole_bytes_only) {
  tm_auto_tensor x = make(TM_SHAPE(4, 6), TM_U4);
  tm_auto_tensor y = make(TM_SHAPE(4, 4), TM_U4);
  for (int i = 0; i < 12; i++) {
    ((uint8_t*)x.data)[i] = (uint8_t)i;
  }
  tm_auto_tensor columns = tm_slice(&x, TM_INDEX(0, 2), TM_INDEX(-1, 4));
  EXPECT_OK(tm_copy(&columns, &y));
  for (int row = 0; row < 4; row++) {
    const uint8_t* pair = (const uint8_t*)y.data + (ptrdiff_t)row * 2;
    cr_expect(eq(int, pair[0], row * 3 + 1));
    cr_expect(eq(int, pair[1], row * 3 + 2));
  }
  tm_auto_tensor turned = tm_t(&y);
  tm_auto_tensor z = make(TM_SHAPE(4, 4), TM_U4);
  cr_expect(eq(int, tm_copy(&turned, &z), TM_ERR_INVALID));
  cr_expect(ne(ptr, (void*)strstr(tm_last_error()->message, "no whole bytes"), NULL));
  tm_auto_buffer memory = tm_buffer_empty_from(tm_host_allocator(), 20, TM_U4);
  tm_layout layout;
  cr_assert(eq(int, tm_layout_parse("(4,4):(5,1)", &layout), TM_OK));
  tm_auto_tensor rows_between_bytes = tm_from_buffer(&memory, &layout);
  cr_expect(eq(int, tm_copy(&y, &rows_between_bytes), TM_ERR_INVALID));
  cr_expect(eq(int, tm_copy(&rows_between_bytes, &y), TM_ERR_INVALID));
  cr_expect(eq(int, tm_clear(&rows_between_bytes), TM_ERR_INVALID));
}

//===-- Random layouts against a model ------------------------------------===//

enum { CASES = 4000, SPACE = 1 << 16 };

static uint64_t random_state;

static int64_t random_below(int64_t limit) {  // splitmix64
  uint64_t z = random_state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return (int64_t)((z ^ (z >> 31)) % (uint64_t)limit);
}

// Strides of a permuted, padded layout, and as a source also broadcasts.
static tm_shape random_strides(const tm_shape* shape, bool is_source) {
  tm_shape stride;
  int32_t order[TM_MAX_RANK];
  stride.rank = shape->rank;
  for (int32_t i = 0; i < shape->rank; i++) {
    const int32_t j = (int32_t)random_below(i + 1);
    order[i] = i;
    order[i] = order[j];
    order[j] = i;
  }
  int64_t step = random_below(3) ? 1 : 1 + random_below(3);
  for (int32_t i = 0; i < shape->rank; i++) {
    stride.dim[order[i]] = is_source && random_below(8) == 0 ? 0 : step;
    step *= shape->dim[order[i]];
    step += random_below(3) ? 0 : random_below(4);
  }
  return stride;
}

static bool next_index(const tm_shape* shape, tm_shape* index) {
  for (int32_t i = index->rank - 1; i >= 0; i--) {
    if (++index->dim[i] < shape->dim[i]) {
      return true;
    }
    index->dim[i] = 0;
  }
  return false;
}

// What a copy makes of `to`, element by element; of a fill where `from` is NULL.
static void model(const tm_layout* from_layout, const uint8_t* from, const tm_layout* to_layout,
                  uint8_t* to, int64_t width) {
  const tm_shape shape = tm_layout_shape(to_layout);
  tm_shape index = TM_INDEX(0, 0, 0, 0, 0, 0, 0, 0);
  index.rank = shape.rank;
  do {
    int64_t source;
    int64_t destination;
    cr_assert(eq(int, tm_layout_offset(from_layout, index, &source), TM_OK));
    cr_assert(eq(int, tm_layout_offset(to_layout, index, &destination), TM_OK));
    if (from) {
      memcpy(to + destination * width, from + source * width, (size_t)width);
    } else {
      memset(to + destination * width, 0x3c, (size_t)width);
    }
  } while (next_index(&shape, &index));
}

Test(copy, of_random_layouts_moves_every_element_and_no_other_byte) {
  static const tm_dtype types[] = {TM_U8, TM_I16, TM_F32, TM_F64};
  const char* given = getenv("TM_TEST_SEED");
  random_state = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL) * 1000003u;
  printf("TM_TEST_SEED=%" PRIu64 "\n", random_state);
  uint8_t* from = malloc(SPACE);
  uint8_t* to = malloc(SPACE);
  uint8_t* expected = malloc(SPACE);
  cr_assert(from && to && expected);
  for (int i = 0; i < CASES; i++) {
    const tm_dtype dtype = types[random_below(4)];
    const int64_t width = tm_dtype_bits(dtype) / 8;
    tm_shape shape = TM_SHAPE(1, 1, 1, 1, 1, 1, 1, 1);
    shape.rank = (int32_t)random_below(5);
    for (int32_t d = 0; d < shape.rank; d++) {
      shape.dim[d] = 1 + random_below(5);
    }
    tm_layout from_layout;
    tm_layout to_layout;
    cr_assert(
        eq(int, tm_layout_make_strided(shape, random_strides(&shape, true), &from_layout), TM_OK));
    cr_assert(
        eq(int, tm_layout_make_strided(shape, random_strides(&shape, false), &to_layout), TM_OK));
    tm_buffer from_buffer = tm_buffer_from_borrowed(from, SPACE / 8, dtype, cpu);
    tm_buffer to_buffer = tm_buffer_from_borrowed(to, SPACE / 8, dtype, cpu);
    tm_auto_tensor x = tm_from_buffer(&from_buffer, &from_layout);
    tm_auto_tensor y = tm_from_buffer(&to_buffer, &to_layout);
    cr_assert(tm_ok(&x) && tm_ok(&y), "%s", tm_last_error()->message);
    const size_t used = (size_t)(tm_layout_cosize(&to_layout) + 8) * (size_t)width;
    for (int64_t b = 0; b < (tm_layout_cosize(&from_layout) + 8) * width; b++) {
      from[b] = (uint8_t)random_below(256);
    }
    memset(to, 0xee, used);
    memset(expected, 0xee, used);
    model(&from_layout, from, &to_layout, expected, width);
    cr_assert(eq(int, tm_copy(&x, &y), TM_OK), "%s", tm_last_error()->message);
    char text[TM_LAYOUT_TEXT_SIZE];
    tm_layout_text(&to_layout, text, sizeof text);
    cr_assert(eq(int, memcmp(to, expected, used), 0), "%s", text);
    model(&to_layout, NULL, &to_layout, expected, width);
    cr_assert(eq(int, tm_fill_bytes(&y, 0x3c), TM_OK), "%s", tm_last_error()->message);
    cr_assert(eq(int, memcmp(to, expected, used), 0), "fill of %s", text);
  }
  free(from);
  free(to);
  free(expected);
}

//===-- Dry memory --------------------------------------------------------===//

// Hands out addresses at which nothing is.
static char* next_dry_address = (char*)0x100000;

static void dry_destroy(tm_allocator* self) { tm_allocator_deinit_(self); }

static tm_status dry_alloc(tm_allocator* self, size_t size, tm_stream* stream, void** out) {
  (void)self;
  (void)stream;
  *out = next_dry_address;
  next_dry_address += size;
  return TM_OK;
}

static void dry_free(tm_allocator* self, void* ptr, size_t size, tm_stream* stream) {
  (void)self;
  (void)ptr;
  (void)size;
  (void)stream;
}

static tm_status dry_alloc_storage(tm_allocator* self, size_t size, tm_storage** out) {
  tm_storage* storage = calloc(1, sizeof *storage);
  storage->references = 1;
  storage->flags = TM_STORAGE_EMBEDDED_ | TM_STORAGE_DRY_;
  storage->data = next_dry_address;
  storage->size = size;
  storage->allocator = self;
  next_dry_address += (size + 255) / 256 * 256;
  *out = storage;
  return TM_OK;
}

static void dry_free_storage(tm_allocator* self, tm_storage* storage) {
  (void)self;
  free(storage);
}

static const tm_allocator_vtable dry_vtable = {
    .name = "test dry",
    .destroy = dry_destroy,
    .alloc = dry_alloc,
    .free = dry_free,
    .alloc_storage = dry_alloc_storage,
    .free_storage = dry_free_storage,
};

Test(copy, of_dry_memory_is_checked_and_counted_and_touches_nothing) {
  tm_allocator dry;
  tm_allocator_init_(&dry, &dry_vtable, tm_device_make(TM_DEVICE, 0), NULL);
  dry.ignores_stream = true;
  TM_WITH_ALLOCATOR(&dry) {
    tm_auto_tensor x = tm_empty(TM_SHAPE(100, 64), TM_F16, TM_DEVICE);
    tm_auto_tensor y = tm_empty_like(&x);
    tm_auto_tensor host = tm_empty_like_on(&x, TM_CPU);
    tm_auto_tensor turned = tm_t(&x);
    tm_auto_tensor other = tm_empty(TM_SHAPE(64, 100), TM_F16, TM_DEVICE);
    tm_auto_tensor borrowed = tm_borrow(&x);
    cr_expect(tm_is_dry(&x) && tm_is_dry(&turned) && tm_is_dry(&borrowed));
    cr_expect(not(tm_is_dry(&host)));
    const tm_dry_counts before = tm_dry_counted();
    EXPECT_OK(tm_copy(&x, &y));
    EXPECT_OK(tm_copy(&host, &x));
    EXPECT_OK(tm_copy(&x, &host));
    EXPECT_OK(tm_copy(&turned, &other));
    EXPECT_OK(tm_clear(&borrowed));
    EXPECT_OK(tm_record_stream(&x, (tm_stream*)0x1));  // which is not looked at
    const tm_dry_counts after = tm_dry_counted();
    cr_expect(eq(u64, after.operations - before.operations, 6));
    cr_expect(eq(u64, after.bytes - before.bytes, UINT64_C(5) * 12800));
    cr_expect(eq(int, tm_copy(&x, &x), TM_ERR_INVALID));
    cr_expect(eq(int, tm_copy(&x, &other), TM_ERR_INVALID));
    cr_expect(eq(u64, tm_dry_counted().operations, after.operations));
  }
}
