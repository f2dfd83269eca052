// The C++ accessor on the host: what kernels do with it, and what it refuses.

#include <cstring>
#include <string>
#include <type_traits>

#include "tm/alloc/host.h"
#include "tm/base/fatal.h"
#include "tm/check.h"
#include "tm/tensor/accessor.h"

static_assert(std::is_trivially_copyable<tmcore::accessor<float, 3>>::value, "passed by value");
static_assert(std::is_standard_layout<tmcore::accessor<float, 3>>::value, "passed by value");
static_assert(sizeof(tmcore::accessor<float, 2>) == 8 + 2 * 2 * 8, "nothing but what is used");
static_assert(sizeof(tmcore::accessor<float, 2, int32_t>) == 8 + 2 * 2 * 4, "half of the offsets");
static_assert(std::is_trivially_copyable<tmcore::accessor<const float, 0, int32_t>>::value, "");
static_assert(std::is_trivially_copyable<tmcore::checked_accessor<float, 2, int32_t>>::value, "");
static_assert(std::is_same<decltype(tmcore::accessor<const float, 1>{}(0)), const float&>::value,
              "what is only read cannot be written");
static_assert(TM_DTYPE_OF(float) == TM_F32 && TM_DTYPE_OF(const bool) == TM_BOOL, "");
static_assert(TM_DTYPE_OF(int64_t) == TM_I64 && TM_DTYPE_OF(uint8_t) == TM_U8, "");
static_assert(TM_DTYPE_OF(void*) == TM_POINTER && TM_DTYPE_OF(long double) == TM_DTYPE_NULL, "");
static_assert(TM_DTYPE_OF(__half) == TM_F16 && TM_DTYPE_OF(__nv_bfloat16) == TM_BF16, "");

static tm_tensor count_up(tm_shape shape) {
  tm_tensor tensor = tm_empty_from(tm_host_allocator(), shape, TM_F32);
  TM_CHECK(tm_ok(&tensor));
  for (int64_t i = 0; i < tm_size(&tensor); i++) {
    TM_DATA(float, &tensor)[i] = static_cast<float>(i);
  }
  return tensor;
}

static void indexing_follows_strides() {
  tm_auto_tensor x = count_up(TM_SHAPE(3, 4, 5));
  tm_auto_tensor turned = tm_permute(&x, TM_INDEX(2, 0, 1));
  tmcore::accessor<float, 3> a;
  TM_CHECK_OK(tmcore::make_accessor(&turned, &a));
  TM_CHECK_EQ(a.size(0), 5);
  for (int i = 0; i < 5; i++) {
    for (int64_t j = 0; j < 3; j++) {
      for (int8_t k = 0; k < 4; k++) {
        const float expected = static_cast<float>(j * 20 + int64_t{k} * 5 + i);
        TM_CHECK_EQ(a(i, j, k), expected);
        TM_CHECK_EQ(a[i][j](k), expected);
      }
    }
  }
  a(4, 2, 3) = -1.f;
  TM_CHECK_EQ(TM_DATA(float, &x)[59], -1.f);
}

static void scalars_and_const_elements() {
  tm_auto_tensor x = count_up(TM_SHAPE());
  *TM_DATA(float, &x) = 7;
  tmcore::accessor<const float, 0> a;
  TM_CHECK_OK(tmcore::make_accessor(&x, &a));
  TM_CHECK_EQ(a(), 7.f);
}

static void type_and_rank_are_checked() {
  tm_auto_tensor x = count_up(TM_SHAPE(3, 4));
  tmcore::accessor<int, 2> wrong_type;
  TM_CHECK_EQ(tmcore::make_accessor(&x, &wrong_type), TM_ERR_INVALID);
  TM_CHECK(wrong_type.data == nullptr);
  TM_CHECK_EQ(wrong_type.size(1), 0);
  tmcore::accessor<float, 1> wrong_rank;
  TM_CHECK_EQ(tmcore::make_accessor(&x, &wrong_rank), TM_ERR_INVALID);
  TM_CHECK(std::strstr(tm_last_error()->message, "rank") != nullptr);
}

static void rows_and_narrow_offsets() {
  tm_auto_tensor x = count_up(TM_SHAPE(3, 4, 5));
  tm_auto_tensor turned = tm_permute(&x, TM_INDEX(2, 0, 1));
  tmcore::accessor<float, 3, int32_t> narrow;
  tmcore::accessor<float, 3> wide;
  TM_CHECK_OK(tmcore::make_accessor(&turned, &narrow));
  TM_CHECK_OK(tmcore::make_accessor(&turned, &wide));
  for (int i = 0; i < 5; i++) {
    for (unsigned j = 0; j < 3; j++) {
      for (size_t k = 0; k < 4; k++) {
        TM_CHECK_EQ(&narrow(i, j, k), &wide(i, j, k));
        TM_CHECK_EQ(&narrow.row(i).row(static_cast<int32_t>(j))(k), &wide(i, j, k));
        TM_CHECK_EQ(&narrow.checked()(i, j, k), &wide(i, j, k));
        TM_CHECK_EQ(&wide.as_const().checked()[i][j](k), &wide(i, j, k));
      }
    }
  }
}

// Memory that is never touched.
static tm_tensor borrowed(tm_shape shape, tm_shape stride, tm_dtype dtype) {
  static int64_t memory[1];
  tm_layout layout;
  TM_CHECK_OK(tm_layout_make_strided(shape, stride, &layout));
  tm_auto_buffer all =
      tm_buffer_from_borrowed(memory, int64_t{1} << 50, dtype, tm_device_make(TM_CPU, 0));
  tm_tensor tensor = tm_from_buffer(&all, &layout);
  TM_CHECK(tm_ok(&tensor));
  return tensor;
}

static void what_does_not_fit_narrow_offsets_is_refused() {
  const int64_t huge = int64_t{1} << 33;
  const struct {
    tm_shape shape;
    tm_shape stride;
    const char* words;
  } rows[] = {
      {TM_SHAPE(2, 4), TM_SHAPE(huge, 1),
       "dimension 0 has a stride of 8589934592, over 2147483647"},
      {TM_SHAPE(1, huge), TM_SHAPE(1, 0), "dimension 1 has a size of 8589934592, over 2147483647"},
      {TM_SHAPE(3, 4), TM_SHAPE(1 << 30, 1), "has an offset in bytes of 8589934607, over"},
  };
  for (const auto& row : rows) {
    tm_auto_tensor x = borrowed(row.shape, row.stride, TM_F32);
    tmcore::accessor<float, 2> wide;
    tmcore::accessor<float, 2, int32_t> narrow;
    TM_CHECK_OK(tmcore::make_accessor(&x, &wide));
    TM_CHECK_EQ(tmcore::make_accessor(&x, &narrow), TM_ERR_OVERFLOW);
    TM_CHECK(std::strstr(tm_last_error()->message, row.words) != nullptr, "%s",
             tm_last_error()->message);
    TM_CHECK(narrow.data == nullptr);
    TM_CHECK_EQ(narrow.size(0), 0);
  }
  tm_auto_tensor one_row = borrowed(TM_SHAPE(1, 4), TM_SHAPE(huge, 1), TM_F32);
  tmcore::accessor<float, 2, int32_t> narrow;
  TM_CHECK_OK(tmcore::make_accessor(&one_row, &narrow));
  TM_CHECK_EQ(narrow.stride[0], 0);
  TM_CHECK_EQ(&narrow(0, 3), static_cast<float*>(one_row.data) + 3);
}

struct fatal_message {
  std::string text;
};

static void throw_message(const char* message, void* /*user*/) { throw fatal_message{message}; }

template <class Read>
static void expect_fatal(Read read, const char* words) {
  const tm_fatal_hook before = tm_set_fatal_handler(throw_message, nullptr);
  std::string caught;
  try {
    (void)read();
  } catch (const fatal_message& message) {
    caught = message.text;
  }
  tm_set_fatal_handler(before.handler, before.user);
  TM_CHECK(caught.find(words) != std::string::npos, "\"%s\" is not in \"%s\"", words,
           caught.c_str());
}

template <class Index>
static void checked_indices_out_of_range_are_fatal() {
  tm_auto_tensor x = count_up(TM_SHAPE(3, 4));
  tmcore::accessor<float, 2, Index> a;
  TM_CHECK_OK(tmcore::make_accessor(&x, &a));
  const auto c = a.checked();
  TM_CHECK_EQ(c.size(1), 4);
  c(2, 3) = -1.f;
  TM_CHECK_EQ(TM_DATA(float, &x)[11], -1.f);
  expect_fatal([&] { return c(3, 0); }, "index 3 in dimension 0, whose size is 3");
  expect_fatal([&] { return c(0, 4u); }, "index 4 in dimension 1, whose size is 4");
  expect_fatal([&] { return c(0, -1); }, "index -1 in dimension 1, whose size is 4");
  expect_fatal([&] { return c(int64_t{1} << 32, 0); }, "index 4294967296 in dimension 0");
  expect_fatal([&] { return c(SIZE_MAX, 0); }, "index -1 in dimension 0");
  expect_fatal([&] { return c[int64_t{1} << 32](0); }, "index 4294967296 in dimension 0");
  expect_fatal([&] { return c[1](4); }, "index 4 in dimension 0, whose size is 4");
  expect_fatal([&] { return a.checked()(3, 0); }, "accessor_cpp_test.cc:");
}

static void macros_work_in_cpp() {
  tm_auto_tensor x = count_up(TM_SHAPE(3, 4));
  tm_accessor a;
  TM_CHECK_OK(tm_accessor_make(&x, TM_F32, 2, &a));
  TM_AT(float, a, 1, 2) = 2;
  TM_AT_CHECKED(float, a, 1, 2) += 3;
  TM_CHECK_EQ(TM_DATA(float, &x)[6], 5.f);
  expect_fatal([&] { return TM_AT_CHECKED(float, a, 1, 4); }, "index 4 in dimension 1");
  expect_fatal([&] { return TM_AT_CHECKED(int, a, 1, 3); }, "an accessor of f32 read as i32");
}

int main() {
  indexing_follows_strides();
  scalars_and_const_elements();
  type_and_rank_are_checked();
  rows_and_narrow_offsets();
  what_does_not_fit_narrow_offsets_is_refused();
  checked_indices_out_of_range_are_fatal<int64_t>();
  checked_indices_out_of_range_are_fatal<int32_t>();
  macros_work_in_cpp();
  return 0;
}
