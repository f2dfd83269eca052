#include "tm/tensor/buffer.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#include "tests/support/counting_allocator.h"
#include "tests/support/failing.h"
#include "tm/alloc/host.h"
#include "tm/context/context.h"

static counting_allocator memory;  // what the tests allocate from

static void setup(void) { counting_allocator_init(&memory); }

TestSuite(buffer, .init = setup);

static const tm_device cpu = {TM_CPU, 0};

static void expect_null(const tm_buffer* buffer, tm_status status) {
  cr_expect(not(tm_buffer_ok(buffer)));
  cr_expect(eq(ptr, buffer->storage, NULL));
  cr_expect(eq(ptr, buffer->data, NULL));
  cr_expect(eq(i64, buffer->size, 0));
  cr_expect(eq(int, tm_last_status(), status), "%s", tm_last_error()->message);
}

// The call gives a null buffer and leaves `status` on record.
#define EXPECT_FAILS(call, status)    \
  do {                                \
    tm_clear_error();                 \
    const tm_buffer failed_ = (call); \
    expect_null(&failed_, (status));  \
  } while (0)

static tm_buffer make(int64_t size, tm_dtype dtype) {
  tm_buffer buffer = tm_buffer_empty_from(&memory.base, size, dtype);
  cr_assert(tm_buffer_ok(&buffer), "%s", tm_last_error()->message);
  return buffer;
}

//===-- Creating ----------------------------------------------------------===//

Test(buffer, comes_from_the_context) {
  TM_WITH_ALLOCATOR(&memory.base) {
    tm_auto_buffer buffer = tm_buffer_empty(100, TM_F32, TM_CPU);
    cr_expect(tm_buffer_ok(&buffer));
    cr_expect(eq(i64, buffer.size, 100));
    cr_expect(eq(int, buffer.dtype, TM_F32));
    cr_expect(tm_device_equal(buffer.device, cpu));
    cr_expect(eq(sz, tm_buffer_byte_size(&buffer), 400));
    cr_expect(eq(u64, memory.allocs, 1));
    memset(tm_buffer_data(&buffer), 1, 400);
  }
  cr_expect(eq(u64, memory.frees, 1));
  cr_expect(eq(sz, memory.live_bytes, 0));
}

Test(buffer, comes_from_the_device_named) {
  TM_WITH_ALLOCATOR(&memory.base) {
    tm_auto_buffer here = tm_buffer_empty_on(8, TM_U8, cpu);
    cr_expect(tm_buffer_ok(&here));
    cr_expect(eq(u64, memory.allocs, 1));
    EXPECT_FAILS(tm_buffer_empty_on(8, TM_U8, tm_device_make(TM_DEVICE, 3)), TM_ERR_UNAVAILABLE);
  }
}

Test(buffer, without_an_allocator_is_unavailable) {
  EXPECT_FAILS(tm_buffer_empty(8, TM_U8, TM_DEVICE), TM_ERR_UNAVAILABLE);
  EXPECT_FAILS(tm_buffer_empty(0, TM_U8, TM_DEVICE), TM_ERR_UNAVAILABLE);
  EXPECT_FAILS(tm_buffer_empty_from(NULL, 8, TM_U8), TM_ERR_INVALID);
}

Test(buffer, zero_size_is_ok_and_has_no_memory) {
  tm_auto_buffer buffer = make(0, TM_I64);
  cr_expect(eq(ptr, buffer.data, NULL));
  cr_expect(eq(ptr, buffer.storage, NULL));
  cr_expect(eq(int, buffer.dtype, TM_I64));
  cr_expect(tm_device_equal(buffer.device, cpu));
  cr_expect(eq(sz, tm_buffer_byte_size(&buffer), 0));
  cr_expect(eq(u64, memory.allocs, 0));
}

Test(buffer, negative_size_is_invalid_and_too_large_ones_overflow) {
  EXPECT_FAILS(tm_buffer_empty_from(&memory.base, -1, TM_U8), TM_ERR_INVALID);
  EXPECT_FAILS(tm_buffer_empty_from(&memory.base, INT64_MIN, TM_U8), TM_ERR_INVALID);
  EXPECT_FAILS(tm_buffer_empty_from(&memory.base, INT64_C(1) << 62, TM_F32), TM_ERR_OVERFLOW);
  EXPECT_FAILS(tm_buffer_empty_from(&memory.base, 8, TM_DTYPE_NULL), TM_ERR_INVALID);
  EXPECT_FAILS(tm_buffer_empty_from(&memory.base, 8, (tm_dtype)77), TM_ERR_INVALID);
  cr_expect(eq(u64, memory.allocs, 0));
}

Test(buffer, sub_byte_sizes_round_up) {
  tm_auto_buffer three = make(3, TM_U4);
  tm_auto_buffer one = make(1, TM_U6);
  cr_expect(eq(sz, tm_buffer_byte_size(&three), 2));
  cr_expect(eq(sz, tm_buffer_byte_size(&one), 1));
}

Test(buffer, empty_like) {
  tm_auto_buffer model = make(7, TM_F16);
  TM_WITH_ALLOCATOR(&memory.base) {
    tm_auto_buffer same = tm_buffer_empty_like(&model);
    cr_expect(eq(i64, same.size, 7));
    cr_expect(eq(int, same.dtype, TM_F16));
    cr_expect(ne(ptr, same.data, model.data));
    tm_auto_buffer other_type = tm_buffer_empty_like_as(&model, TM_F64);
    cr_expect(eq(sz, tm_buffer_byte_size(&other_type), 56));
    tm_auto_buffer other_device = tm_buffer_empty_like_on(&model, TM_CPU);
    cr_expect(tm_buffer_ok(&other_device));
    EXPECT_FAILS(tm_buffer_empty_like_on(&model, TM_DEVICE), TM_ERR_UNAVAILABLE);
    tm_auto_buffer both = tm_buffer_empty_like_as_on(&model, TM_I32, TM_CPU);
    cr_expect(eq(i64, both.size, 7));
    cr_expect(eq(int, both.dtype, TM_I32));
    cr_expect(eq(int, both.device.type, TM_CPU));
    EXPECT_FAILS(tm_buffer_empty_like_as_on(&model, TM_I32, TM_DEVICE), TM_ERR_UNAVAILABLE);
    EXPECT_FAILS(tm_buffer_empty_like_as_on(&model, TM_DTYPE_NULL, TM_CPU), TM_ERR_INVALID);
  }
  const tm_buffer null = tm_buffer_null();
  EXPECT_FAILS(tm_buffer_empty_like(&null), TM_ERR_INVALID);
  EXPECT_FAILS(tm_buffer_empty_like_as(&null, TM_U8), TM_ERR_INVALID);
  EXPECT_FAILS(tm_buffer_empty_like_on(&null, TM_CPU), TM_ERR_INVALID);
  EXPECT_FAILS(tm_buffer_empty_like_as_on(&null, TM_U8, TM_CPU), TM_ERR_INVALID);
}

Test(buffer, out_of_memory_is_an_error_and_leaves_nothing) {
  memory.budget = 1000;
  EXPECT_FAILS(tm_buffer_empty_from(&memory.base, 2000, TM_U8), TM_ERR_NO_MEMORY);
  cr_expect(eq(sz, memory.live_bytes, 0));
  tm_auto_buffer fits = make(500, TM_U8);
  cr_expect(tm_buffer_ok(&fits));
}

//===-- Foreign memory ----------------------------------------------------===//

typedef struct deletion {
  int calls;
  void* data;
  size_t size;
} deletion;

static void note_deletion(void* data, size_t size, void* user) {
  deletion* noted = user;
  noted->calls++;
  noted->data = data;
  noted->size = size;
}

Test(buffer, borrowed_memory_is_never_freed) {
  int32_t numbers[4] = {1, 2, 3, 4};
  tm_buffer buffer = tm_buffer_from_borrowed(numbers, 4, TM_I32, cpu);
  cr_assert(tm_buffer_ok(&buffer));
  tm_buffer second = tm_buffer_share(&buffer);
  tm_buffer_release(&buffer);
  cr_expect(eq(int, TM_BUFFER_DATA(int32_t, &second)[2], 3));
  tm_buffer_release(&second);
  cr_expect(eq(int, numbers[3], 4));
}

Test(buffer, foreign_memory_is_vetted) {
  char bytes[16] __attribute__((aligned(8)));
  EXPECT_FAILS(tm_buffer_from_borrowed(NULL, 1, TM_U8, cpu), TM_ERR_INVALID);
  EXPECT_FAILS(tm_buffer_from_borrowed(bytes + 1, 2, TM_F32, cpu), TM_ERR_INVALID);
  EXPECT_FAILS(tm_buffer_from_borrowed(bytes, -1, TM_U8, cpu), TM_ERR_INVALID);
  EXPECT_FAILS(tm_buffer_from_borrowed(bytes, 1, TM_DTYPE_NULL, cpu), TM_ERR_INVALID);
  EXPECT_FAILS(tm_buffer_from_borrowed(bytes, INT64_MAX, TM_F64, cpu), TM_ERR_OVERFLOW);
  EXPECT_FAILS(tm_buffer_from_borrowed(bytes, 1, TM_U8, tm_device_make(TM_CPU, 1)), TM_ERR_INVALID);
  EXPECT_FAILS(tm_buffer_from_borrowed(bytes, 1, TM_U8, tm_device_make(TM_DEVICE, -1)),
               TM_ERR_INVALID);
  EXPECT_FAILS(tm_buffer_from_borrowed(bytes, 1, TM_U8, tm_device_make(TM_DEVICE, TM_MAX_DEVICES)),
               TM_ERR_INVALID);
  EXPECT_FAILS(tm_buffer_from_borrowed(bytes, 1, TM_U8, tm_device_make((tm_device_type)9, 0)),
               TM_ERR_INVALID);
  tm_auto_buffer empty = tm_buffer_from_borrowed(NULL, 0, TM_F64, cpu);
  cr_expect(tm_buffer_ok(&empty));
  tm_auto_buffer narrow = tm_buffer_from_borrowed(bytes + 1, 30, TM_U4, cpu);
  cr_expect(tm_buffer_ok(&narrow));
}

Test(buffer, adopted_memory_is_deleted_with_the_last_reference) {
  char bytes[64] __attribute__((aligned(8)));
  deletion noted = {0};
  tm_buffer buffer = tm_buffer_adopt(bytes, sizeof bytes, 10, TM_F32, cpu, note_deletion, &noted);
  cr_assert(tm_buffer_ok(&buffer));
  tm_buffer part = tm_buffer_slice(&buffer, 5, -1);
  tm_buffer_release(&buffer);
  cr_expect(eq(int, noted.calls, 0));
  tm_buffer_release(&part);
  cr_expect(eq(int, noted.calls, 1));
  cr_expect(eq(ptr, noted.data, bytes));
  cr_expect(eq(sz, noted.size, sizeof bytes));
}

Test(buffer, memory_that_is_not_adopted_stays_the_callers) {
  char bytes[64] __attribute__((aligned(8)));
  deletion noted = {0};
  EXPECT_FAILS(tm_buffer_adopt(bytes, 39, 10, TM_F32, cpu, note_deletion, &noted),
               TM_ERR_OUT_OF_RANGE);
  EXPECT_FAILS(tm_buffer_adopt(bytes + 2, 40, 10, TM_F32, cpu, note_deletion, &noted),
               TM_ERR_INVALID);
  EXPECT_FAILS(tm_buffer_adopt(NULL, 40, 10, TM_F32, cpu, note_deletion, &noted), TM_ERR_INVALID);
  cr_expect(eq(int, noted.calls, 0));
  tm_buffer no_deleter = tm_buffer_adopt(bytes, sizeof bytes, 10, TM_F32, cpu, NULL, NULL);
  cr_expect(tm_buffer_ok(&no_deleter));
  tm_buffer_release(&no_deleter);
}

Test(buffer, adopted_memory_without_elements_is_deleted_too) {
  char bytes[8];
  deletion noted = {0};
  tm_buffer buffer = tm_buffer_adopt(bytes, sizeof bytes, 0, TM_F32, cpu, note_deletion, &noted);
  cr_expect(tm_buffer_ok(&buffer));
  cr_expect(eq(ptr, buffer.data, NULL));
  tm_buffer_release(&buffer);
  cr_expect(eq(int, noted.calls, 1));
}

//===-- Lifetime ----------------------------------------------------------===//

Test(buffer, release_nulls_and_may_be_repeated) {
  tm_buffer buffer = make(10, TM_U8);
  tm_buffer_release(&buffer);
  cr_expect(not(tm_buffer_ok(&buffer)));
  cr_expect(eq(ptr, buffer.data, NULL));
  tm_buffer_release(&buffer);
  cr_expect(eq(u64, memory.frees, 1));
}

Test(buffer, move_share_and_assign_count_references) {
  tm_buffer a = make(10, TM_U8);
  tm_buffer b = tm_buffer_move(&a);
  cr_expect(not(tm_buffer_ok(&a)));
  tm_buffer c = tm_buffer_share(&b);
  cr_expect(eq(ptr, c.data, b.data));
  tm_buffer_release(&b);
  cr_expect(eq(u64, memory.frees, 0));
  tm_buffer_assign(&c, make(20, TM_U8));
  cr_expect(eq(u64, memory.frees, 1));
  cr_expect(eq(i64, c.size, 20));
  tm_buffer_assign(&c, tm_buffer_slice(&c, 5, 5));
  cr_expect(eq(u64, memory.frees, 1));
  cr_expect(eq(i64, c.size, 5));
  tm_buffer_assign(&c, tm_buffer_null());
  cr_expect(eq(u64, memory.frees, 2));
}

Test(buffer, a_borrow_frees_nothing_and_can_be_shared) {
  tm_buffer owner = make(10, TM_U8);
  tm_buffer borrowed = tm_buffer_borrow(&owner);
  tm_buffer shared = tm_buffer_share(&borrowed);
  tm_buffer part = tm_buffer_slice_move(tm_buffer_borrow(&owner), 2, 3);
  tm_buffer_release(&borrowed);
  tm_buffer_release(&owner);
  cr_expect(eq(u64, memory.frees, 0));
  tm_buffer_release(&shared);
  cr_expect(eq(u64, memory.frees, 0));
  memset(part.data, 1, 3);
  tm_buffer_release(&part);
  cr_expect(eq(u64, memory.frees, 1));
}

static tm_status try_two(bool second_fails) {
  TM_TRY_BUFFER(first, tm_buffer_empty_from(&memory.base, 10, TM_U8));
  TM_TRY_BUFFER(second, tm_buffer_empty_from(&memory.base, second_fails ? -1 : 10, TM_U8));
  return TM_OK;
}

Test(buffer, try_returns_the_status_and_releases_what_came_before) {
  cr_expect(eq(int, try_two(false), TM_OK));
  cr_expect(eq(int, try_two(true), TM_ERR_INVALID));
  cr_expect(eq(u64, memory.allocs, 3));
  cr_expect(eq(u64, memory.frees, 3));
}

Test(buffer, typed_data_checks_the_dtype) {
  tm_auto_buffer buffer = make(10, TM_F32);
  cr_expect(eq(ptr, TM_BUFFER_DATA(float, &buffer), buffer.data));
  cr_expect(eq(int, tm_last_status(), TM_OK));
  cr_expect(eq(ptr, TM_BUFFER_DATA(double, &buffer), NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
  cr_expect(eq(str, (char*)tm_last_error()->message, "data of a buffer of f32 asked as f64"));
}

Test(buffer, data_or_is_the_other_where_there_is_none) {
  float other = 1;
  tm_auto_buffer buffer = make(10, TM_F32);
  tm_auto_buffer nothing = make(0, TM_F64);
  const tm_buffer null = tm_buffer_null();
  tm_clear_error();
  cr_expect(eq(ptr, TM_BUFFER_DATA_OR(float, &buffer, &other), buffer.data));
  cr_expect(eq(ptr, TM_BUFFER_DATA_OR(float, &nothing, &other), &other));
  cr_expect(eq(ptr, TM_BUFFER_DATA_OR(float, &null, &other), &other));
  cr_expect(eq(ptr, TM_BUFFER_DATA_OR(float, &null, NULL), NULL));
  cr_expect(eq(int, tm_last_status(), TM_OK));
  cr_expect(eq(ptr, TM_BUFFER_DATA_OR(int, &buffer, NULL), NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
}

// The call gives NULL and leaves `status` on record.
#define EXPECT_NO_DATA(call, status)                \
  do {                                              \
    tm_clear_error();                               \
    cr_expect(eq(ptr, (call), NULL));               \
    cr_expect(eq(int, tm_last_status(), (status))); \
  } while (0)

Test(buffer, data_at_is_an_element_whatever_its_type) {
  tm_auto_buffer buffer = make(10, TM_F64);
  tm_auto_buffer part = tm_buffer_slice(&buffer, 2, 5);
  cr_expect(eq(ptr, tm_buffer_data_at(&buffer, 0), buffer.data));
  cr_expect(eq(ptr, tm_buffer_data_at(&part, 3), (double*)buffer.data + 5));
  cr_expect(eq(ptr, tm_buffer_data_at(&part, 5), (double*)buffer.data + 7));
  EXPECT_NO_DATA(tm_buffer_data_at(&part, 6), TM_ERR_OUT_OF_RANGE);
  cr_expect(eq(str, (char*)tm_last_error()->message, "element 6 of a buffer of 5"));
  EXPECT_NO_DATA(tm_buffer_data_at(&part, -1), TM_ERR_OUT_OF_RANGE);
  EXPECT_NO_DATA(tm_buffer_data_at(&part, INT64_MIN), TM_ERR_OUT_OF_RANGE);
  tm_auto_buffer narrow = make(8, TM_U6);
  cr_expect(eq(ptr, tm_buffer_data_at(&narrow, 4), (char*)narrow.data + 3));
  EXPECT_NO_DATA(tm_buffer_data_at(&narrow, 2), TM_ERR_INVALID);
  tm_auto_buffer nothing = make(0, TM_F64);
  EXPECT_NO_DATA(tm_buffer_data_at(&nothing, 0), TM_OK);
  EXPECT_NO_DATA(tm_buffer_data_at(&nothing, 1), TM_ERR_OUT_OF_RANGE);
  const tm_buffer null = tm_buffer_null();
  EXPECT_NO_DATA(tm_buffer_data_at(&null, 0), TM_ERR_INVALID);
}

Test(buffer, equal_is_the_same_elements_and_not_the_same_values) {
  tm_auto_buffer a = make(10, TM_I32);
  tm_auto_buffer b = make(10, TM_I32);
  memset(a.data, 0, 40);
  memset(b.data, 0, 40);
  tm_auto_buffer shared = tm_buffer_share(&a);
  const tm_buffer borrowed = tm_buffer_borrow(&a);
  tm_auto_buffer shorter = tm_buffer_slice(&a, 0, 9);
  tm_auto_buffer later = tm_buffer_slice(&a, 1, -1);
  tm_auto_buffer later_too = tm_buffer_slice(&a, 1, 9);
  tm_auto_buffer other_type = tm_buffer_as(&a, TM_F32);
  cr_expect(tm_buffer_equal(&a, &shared) && tm_buffer_equal(&borrowed, &a));
  cr_expect(tm_buffer_equal(&later, &later_too));
  cr_expect(not(tm_buffer_equal(&a, &b)));
  cr_expect(not(tm_buffer_equal(&a, &shorter)));
  cr_expect(not(tm_buffer_equal(&shorter, &later)));
  cr_expect(not(tm_buffer_equal(&a, &other_type)));
  const tm_buffer null = tm_buffer_null();
  const tm_buffer null_too = tm_buffer_null();
  tm_auto_buffer nothing = make(0, TM_I32);
  cr_expect(tm_buffer_equal(&null, &null_too));
  cr_expect(not(tm_buffer_equal(&null, &nothing)));
  const tm_buffer here = tm_buffer_from_borrowed(a.data, 10, TM_I32, cpu);
  const tm_buffer pinned =
      tm_buffer_from_borrowed(a.data, 10, TM_I32, tm_device_make(TM_CPU_PINNED, 0));
  cr_expect(not(tm_buffer_equal(&here, &pinned)));
}

static char* text_of(const tm_buffer* buffer) {
  static char text[TM_BUFFER_TEXT_SIZE];
  tm_buffer_text(buffer, text, sizeof text);
  return text;
}

Test(buffer, prints_type_size_address_and_base) {
  void* const at = (void*)(uintptr_t)0x7f00dead0000;
  tm_auto_buffer bytes = tm_buffer_adopt(at, 64, 64, TM_U8, cpu, NULL, NULL);
  tm_auto_buffer numbers = tm_buffer_as(&bytes, TM_I32);
  tm_auto_buffer part = tm_buffer_slice(&numbers, 12, -1);
  tm_auto_buffer nibbles = tm_buffer_as_move(tm_buffer_slice(&bytes, 4, 3), TM_U4);
  tm_auto_buffer sixes = tm_buffer_as_move(tm_buffer_slice(&bytes, 1, 3), TM_U6);
  cr_expect(eq(str, text_of(&numbers), "i32[16]@0x7f00dead0000"));
  cr_expect(eq(str, text_of(&part), "i32[4]@0x7f00dead0000+12"));
  cr_expect(eq(str, text_of(&nibbles), "u4[6]@0x7f00dead0000+8"));
  cr_expect(eq(str, text_of(&sixes), "u6[4]@0x7f00dead0000+1B"));
  tm_auto_buffer foreign = tm_buffer_from_borrowed((char*)at + 4, 2, TM_F16, cpu);
  cr_expect(eq(str, text_of(&foreign), "f16[2]@0x7f00dead0004"));
  tm_auto_buffer nothing = make(0, TM_POINTER);
  cr_expect(eq(str, text_of(&nothing), "pointer[0]@0x0"));
  tm_auto_buffer unused = tm_buffer_adopt(at, 64, 0, TM_I32, cpu, NULL, NULL);
  cr_expect(eq(str, text_of(&unused), "i32[0]@0x0"));
  const tm_buffer null = tm_buffer_null();
  cr_expect(eq(str, text_of(&null), "null"));
  char cut[8];
  tm_buffer_text(&part, cut, sizeof cut);
  cr_expect(eq(str, cut, "i32[4]@"));
}

Test(buffer, no_text_is_longer_than_announced) {
  void* const last = (void*)(UINTPTR_MAX - 7);
  tm_auto_buffer longest = tm_buffer_from_borrowed(last, INT64_MAX / 8, TM_POINTER, cpu);
  cr_assert(tm_buffer_ok(&longest));
  cr_expect(eq(str, text_of(&longest), "pointer[1152921504606846975]@0xfffffffffffffff8"));
}

//===-- Slices and other types --------------------------------------------===//

Test(buffer, slice_beyond_the_end_or_before_the_start_is_out_of_range) {
  tm_auto_buffer buffer = make(10, TM_F32);
  EXPECT_FAILS(tm_buffer_slice(&buffer, 11, -1), TM_ERR_OUT_OF_RANGE);
  EXPECT_FAILS(tm_buffer_slice(&buffer, -1, 1), TM_ERR_OUT_OF_RANGE);
  EXPECT_FAILS(tm_buffer_slice(&buffer, -1000000, 1), TM_ERR_OUT_OF_RANGE);
  EXPECT_FAILS(tm_buffer_slice(&buffer, INT64_MIN, INT64_MAX), TM_ERR_OUT_OF_RANGE);
  EXPECT_FAILS(tm_buffer_slice(&buffer, 4, 7), TM_ERR_OUT_OF_RANGE);
  EXPECT_FAILS(tm_buffer_slice(&buffer, 4, INT64_MAX), TM_ERR_OUT_OF_RANGE);
  EXPECT_FAILS(tm_buffer_slice(&buffer, 4, -2), TM_ERR_INVALID);
}

Test(buffer, slice_to_zero_size_is_empty) {
  tm_auto_buffer buffer = make(10, TM_F32);
  tm_auto_buffer at_end = tm_buffer_slice(&buffer, 10, -1);
  tm_auto_buffer inside = tm_buffer_slice(&buffer, 3, 0);
  cr_expect(tm_buffer_ok(&at_end) && tm_buffer_ok(&inside));
  cr_expect(eq(i64, at_end.size, 0));
  cr_expect(eq(i64, inside.size, 0));
  cr_expect(eq(ptr, inside.data, NULL));
  cr_expect(eq(int, inside.dtype, TM_F32));
}

Test(buffer, slice_of_a_slice_is_at_the_sum_of_the_bases) {
  tm_auto_buffer buffer = make(10, TM_I16);
  for (int i = 0; i < 10; i++) {
    TM_BUFFER_DATA(int16_t, &buffer)[i] = (int16_t)i;
  }
  tm_auto_buffer part = tm_buffer_slice_move(tm_buffer_slice(&buffer, 2, 7), 3, -1);
  cr_expect(eq(i64, part.size, 4));
  cr_expect(eq(int, TM_BUFFER_DATA(int16_t, &part)[0], 5));
  cr_expect(eq(int, TM_BUFFER_DATA(int16_t, &part)[3], 8));
}

Test(buffer, sub_byte_slices_start_and_end_at_whole_bytes) {
  tm_auto_buffer buffer = make(7, TM_U4);
  tm_auto_buffer tail = tm_buffer_slice(&buffer, 2, -1);
  cr_expect(eq(ptr, tail.data, (char*)buffer.data + 1));
  tm_auto_buffer middle = tm_buffer_slice(&buffer, 2, 2);
  cr_expect(eq(sz, tm_buffer_byte_size(&middle), 1));
  EXPECT_FAILS(tm_buffer_slice(&buffer, 1, -1), TM_ERR_INVALID);
  EXPECT_FAILS(tm_buffer_slice(&buffer, 0, 3), TM_ERR_INVALID);
  tm_auto_buffer six = make(12, TM_U6);
  tm_auto_buffer six_tail = tm_buffer_slice(&six, 4, 8);
  cr_expect(eq(ptr, six_tail.data, (char*)six.data + 3));
  EXPECT_FAILS(tm_buffer_slice(&six, 2, -1), TM_ERR_INVALID);
  tm_auto_buffer nothing = tm_buffer_slice(&six, 3, 0);
  cr_expect(tm_buffer_ok(&nothing));
}

Test(buffer, u8_at_base_3_is_no_i32) {
  tm_auto_buffer bytes = make(11, TM_U8);
  tm_auto_buffer part = tm_buffer_slice(&bytes, 3, 8);
  EXPECT_FAILS(tm_buffer_as(&part, TM_I32), TM_ERR_INVALID);
  tm_auto_buffer aligned = tm_buffer_slice(&bytes, 4, -1);
  EXPECT_FAILS(tm_buffer_as(&aligned, TM_I32), TM_ERR_INVALID);  // 7 bytes
  tm_auto_buffer words = tm_buffer_as_move(tm_buffer_slice(&bytes, 0, 8), TM_I32);
  cr_expect(eq(i64, words.size, 2));
  cr_expect(eq(ptr, words.data, bytes.data));
}

Test(buffer, another_type_has_the_same_bytes_exactly) {
  tm_auto_buffer narrow = make(8, TM_U4);
  tm_auto_buffer floats = tm_buffer_as(&narrow, TM_F32);
  cr_expect(eq(i64, floats.size, 1));
  tm_auto_buffer odd = make(3, TM_U4);
  EXPECT_FAILS(tm_buffer_as(&odd, TM_U8), TM_ERR_INVALID);
  tm_auto_buffer same = tm_buffer_as(&odd, TM_U4);
  cr_expect(eq(i64, same.size, 3));
  tm_auto_buffer two = make(2, TM_U8);
  EXPECT_FAILS(tm_buffer_as(&two, TM_U6), TM_ERR_INVALID);
  tm_auto_buffer three = make(3, TM_U8);
  tm_auto_buffer sixes = tm_buffer_as(&three, TM_U6);
  cr_expect(eq(i64, sixes.size, 4));
  EXPECT_FAILS(tm_buffer_as(&three, TM_DTYPE_NULL), TM_ERR_INVALID);
  tm_auto_buffer nothing = make(0, TM_U8);
  tm_auto_buffer still_nothing = tm_buffer_as(&nothing, TM_F64);
  cr_expect(tm_buffer_ok(&still_nothing));
  cr_expect(eq(int, still_nothing.dtype, TM_F64));
}

Test(buffer, a_chain_that_fails_leaks_nothing_and_keeps_the_first_failure) {
  tm_buffer end = tm_buffer_as_move(
      tm_buffer_slice_move(tm_buffer_as_move(make(10, TM_U8), TM_F64), 0, 1), TM_DTYPE_NULL);
  expect_null(&end, TM_ERR_INVALID);
  cr_expect(ne(ptr, (void*)strstr(tm_last_error()->message, "10 elements of u8"), NULL), "%s",
            tm_last_error()->message);
  cr_expect(eq(sz, memory.live_bytes, 0));
}

Test(buffer, null_buffers_are_safe_to_ask) {
  const tm_buffer null = tm_buffer_null();
  cr_expect(eq(sz, tm_buffer_byte_size(&null), 0));
  cr_expect(eq(ptr, tm_buffer_data(&null), NULL));
  cr_expect(not(tm_buffer_is_dry(&null)));
  EXPECT_FAILS(tm_buffer_slice(&null, 0, -1), TM_ERR_INVALID);
  EXPECT_FAILS(tm_buffer_as(&null, TM_U8), TM_ERR_INVALID);
  cr_expect(eq(ptr, tm_buffer_data_as(&null, TM_U8), NULL));
  cr_expect(eq(int, tm_buffer_record_stream(&null, NULL), TM_ERR_INVALID));
  const tm_buffer zeroed = {0};
  cr_expect(not(tm_buffer_ok(&zeroed)));
}

Test(buffer, record_stream_needs_a_stream) {
  tm_auto_buffer buffer = make(10, TM_U8);
  cr_expect(eq(int, tm_buffer_record_stream(&buffer, NULL), TM_ERR_INVALID));
}

//===-- Failures ----------------------------------------------------------===//

static void free_nothing(void* data, size_t size, void* user) {
  (void)data;
  (void)size;
  (void)user;
}

static tm_status use_buffers(tm_allocator* upstream) {
  static char bytes[64] __attribute__((aligned(64)));
  TM_TRY_BUFFER(buffer, tm_buffer_empty_from(upstream, 100, TM_F32));
  TM_TRY_BUFFER(adopted, tm_buffer_adopt(bytes, 64, 16, TM_F32, cpu, free_nothing, NULL));
  TM_TRY_BUFFER(part, tm_buffer_as_move(tm_buffer_slice(&buffer, 10, 20), TM_U8));
  TM_TRY_BUFFER(again, tm_buffer_slice(&adopted, 1, -1));
  TM_USE_ALLOCATOR(upstream);
  TM_TRY_BUFFER(like, tm_buffer_empty_like(&buffer));
  TM_TRY_BUFFER(other, tm_buffer_empty_like_as_on(&buffer, TM_U4, TM_CPU));
  return TM_OK;
}

Test(buffer, survives_every_failure) { expect_survives_every_failure(use_buffers); }
