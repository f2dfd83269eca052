// Typed buffers and tensors, shapes, and what prints.

#include <cstdio>
#include <cstring>
#include <numeric>
#include <string>
#include <type_traits>
#include <vector>

#include "tests/cpp/support.hpp"

// A type of the user's own, and one that looks like CUDA's.
struct bits16 {
  uint16_t bits;
};
struct __half {
  uint16_t bits;
};

namespace tmcore {
template <>
struct dtype_of<bits16> {
  static constexpr tm_dtype value = TM_BF16;
};
}  // namespace tmcore

static_assert(std::is_convertible<tmcore::buffer, tmcore::buffer_<float>>::value, "checked");
static_assert(std::is_base_of<tmcore::tensor, tmcore::tensor_<float>>::value, "it is a tensor");
static_assert(std::is_same<decltype(tmcore::tensor_<float>().slice(0).view({1})),
                           tmcore::tensor_<float>>::value,
              "views of a typed tensor are typed");
static_assert(!std::is_constructible<tmcore::dims, int, tm_dtype>::value, "an argument too few");
static_assert(!std::is_constructible<tmcore::dims, double>::value, "no size");
static_assert(std::is_same<decltype(tmcore::buffer_<int>().slice(0)), tmcore::buffer_<int>>::value,
              "slices of a typed buffer are typed");

namespace {

using tmcore::buffer_;
using tmcore::tensor_;

template <class T>
void expect_dtype(tm_dtype dtype) {
  const buffer_<T> b(3, TM_CPU);
  TM_CHECK_EQ(b.dtype(), dtype);
  TM_CHECK_EQ(b.byte_size(), 3 * sizeof(T));
}

void types_have_their_dtype() {
  expect_dtype<float>(TM_F32);
  expect_dtype<double>(TM_F64);
  expect_dtype<bool>(TM_BOOL);
  expect_dtype<int8_t>(TM_I8);
  expect_dtype<uint8_t>(TM_U8);
  expect_dtype<int16_t>(TM_I16);
  expect_dtype<uint16_t>(TM_U16);
  expect_dtype<int>(TM_I32);
  expect_dtype<unsigned>(TM_U32);
  expect_dtype<int64_t>(TM_I64);
  expect_dtype<long long>(TM_I64);
  expect_dtype<uint64_t>(TM_U64);
  expect_dtype<void*>(TM_POINTER);
  expect_dtype<const float*>(TM_POINTER);
  expect_dtype<__half>(TM_F16);
  expect_dtype<bits16>(TM_BF16);
}

void a_buffer_is_a_range() {
  buffer_<int> b(10, TM_CPU);
  std::iota(b.begin(), b.end(), 0);
  int sum = 0;
  for (const int i : b) {
    sum += i;
  }
  TM_CHECK_EQ(sum, 45);
  b[3] = 30;
  const buffer_<int> part = b.slice(3, 2);
  TM_CHECK_EQ(part.size(), 2);
  TM_CHECK_EQ(part[0], 30);
  TM_CHECK_EQ(part.data(), b.data() + 3);
  const buffer_<int> empty(0, TM_CPU);
  TM_CHECK(empty && empty.empty() && empty.begin() == empty.end());
  const buffer_<int> null;
  TM_CHECK(!null && null.data() == nullptr && null.begin() == null.end());
}

void every_way_to_make_one() {
  counting_upstream upstream;
  const tmcore::allocator shared = tmcore::allocator::share(upstream.get());
  const buffer_<float> from_raw(4, upstream.get());
  const buffer_<float> from_owner(4, shared);
  const buffer_<float> from_reference(4, tmcore::allocator_ref(shared));
  const tensor_<float> t({2, 2}, shared);
  TM_CHECK_EQ(upstream.figures().allocs, 4u);
  const buffer_<float> from_context(4, TM_CPU);
  const buffer_<float> on_device(4, tmcore::cpu);
  TM_CHECK_EQ(upstream.figures().allocs, 4u);
  float memory[6] = {0, 1, 2, 3, 4, 5};
  const buffer_<float> borrowed(memory, 6, tmcore::cpu);
  const tensor_<float> matrix(memory, {2, 3}, tmcore::cpu);
  TM_CHECK_EQ(borrowed[5], 5.f);
  TM_CHECK_EQ((matrix.access<2>()(1, 2)), 5.f);
  TM_CHECK_EQ((matrix.t().access<2>()(2, 1)), 5.f);
  TM_CHECK_EQ((matrix.access<2, int32_t>().checked()(1, 2)), 5.f);
  TM_CHECK_EQ((matrix.tmcore::tensor::access<const float, 2, int32_t>()[1](2)), 5.f);
  TM_CHECK_EQ(*matrix.slice(1).view({3}).data(), 3.f);
}

void conversion_checks_the_dtype() {
  const tmcore::tensor floats({4}, TM_F32, TM_CPU);
  const tensor_<float> same = floats;
  TM_CHECK_EQ(same.data(), floats.data());
  std::string text;
  try {
    const tensor_<int> other = floats;
  } catch (const tmcore::error& e) {
    text = e.what();
  }
  TM_CHECK(text == "a tensor of f32 is not one of i32");
  try {
    const buffer_<bits16> other = tmcore::buffer(4, TM_U6, TM_CPU);
  } catch (const tmcore::error& e) {
    text = e.what();
  }
  TM_CHECK(text == "a buffer of u6 is not one of bf16");
  TM_CHECK(!tensor_<int>(floats, std::nothrow));
  TM_CHECK(!buffer_<int>(buffer_<float>(1, TM_CPU), std::nothrow));
  TM_CHECK_EQ(tm_last_status(), TM_ERR_INVALID);
  const tensor_<int> null = tmcore::tensor();
  TM_CHECK(!null);
  // The same, asked of the untyped one.
  TM_CHECK_EQ(floats.data<float>(), floats.data());
  TM_CHECK_EQ(floats.data<const float>(), floats.data());
  TM_CHECK(floats.data<int>(std::nothrow) == nullptr);
  // A failed conversion takes no reference; one that moves adds none.
  TM_CHECK_EQ(floats.get()->storage->references, 2);
  const tensor_<float> moved = tmcore::tensor(floats);
  TM_CHECK_EQ(floats.get()->storage->references, 3);
}

void a_typed_handle_is_not_another_type_by_the_back_door() {
  tensor_<float> x({4}, TM_CPU);
  static_cast<tmcore::tensor&>(x) = tensor_<int>({4}, TM_CPU);
  bool refused = false;
  try {
    (void)x.data();
  } catch (const tmcore::error& e) {
    refused = e.code() == TM_ERR_INVALID;
  }
  TM_CHECK(refused);
}

void shapes_take_any_integers() {
  const size_t tokens = 5;
  const uint8_t heads = 3;
  const tmcore::dims shape{tokens, 2 * heads, -1, int64_t{1} << 40};
  TM_CHECK_EQ(shape.rank(), 4);
  TM_CHECK_EQ(shape[1], 6);
  TM_CHECK_EQ(shape[2], -1);
  TM_CHECK(std::vector<int64_t>(shape.begin(), shape.end()).size() == 4);
  enum { HEADS = 3 };
  TM_CHECK_EQ(tmcore::dims(HEADS, HEADS)[1], 3);
  TM_CHECK(tmcore::dims{} == tmcore::dims::of(0, nullptr));
  const int64_t many[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
  const std::vector<int64_t> at_run_time = {7, 8};
  TM_CHECK(tmcore::dims::of(2, at_run_time.data()) == tmcore::dims(7, 8));
  TM_CHECK(tmcore::dims(7) != tmcore::dims(7, 1));
  const tensor_<int> x({tokens, heads}, TM_CPU);
  TM_CHECK(x.shape() == tmcore::dims(5, 3));
  TM_CHECK_EQ(x.shape(-1), 3);
  TM_CHECK_EQ(tensor_<int>({}, TM_CPU).size(), 1);
  TM_CHECK(!tmcore::tensor(tmcore::dims::of(9, many), TM_F32, TM_CPU, std::nothrow));
}

void text() {
  const tmcore::tensor x({20, 50}, TM_U6, TM_CPU);
  TM_CHECK(tmcore::to_string(x) == "u6 cpu (20,50):(50,1)");
  TM_CHECK(tmcore::to_string(x.t()) == "u6 cpu (50,20):(1,50)");
  TM_CHECK(to_string(x.shape()) == "(20,50)");
  TM_CHECK(tmcore::to_string(x.layout()) == "(20,50):(50,1)");
  TM_CHECK(to_string(buffer_<int>(reinterpret_cast<int*>(0x100), 7, tmcore::cpu)) ==
           "i32[7]@0x100");
  TM_CHECK(to_string(tmcore::tensor()) == "null" && to_string(tmcore::buffer()) == "null");
  TM_CHECK(tmcore::to_string(tmcore::cuda(3)) == "device:3");
  TM_CHECK(tmcore::to_string(tmcore::cpu_pinned) == "cpu_pinned");
}

void buffers_by_element_and_compared() {
  const buffer_<int> a(6, TM_CPU);
  const tmcore::buffer part = a.slice(2);
  const tmcore::buffer none;
  int other = 7;
  TM_CHECK(part.data_at(1) == a.data() + 3 && part.data_at(4) == a.end());
  TM_CHECK(part.data_or(&other) == a.data() + 2);
  TM_CHECK(tmcore::buffer().data_or(&other) == &other);
  TM_CHECK(part.data_at(5, std::nothrow) == nullptr);
  TM_CHECK_EQ(tm_last_status(), TM_ERR_OUT_OF_RANGE);
  TM_CHECK(part == a.slice(2, 4) && part != a && none == none.borrow());
  TM_CHECK_EQ(tmcore::empty_like(part).byte_size(), 16u);
  TM_CHECK_EQ(tmcore::empty_like(part, TM_CPU).dtype(), TM_I32);
  TM_CHECK_EQ(tmcore::empty_like(part, TM_U4).byte_size(), 2u);
  TM_CHECK_EQ(tmcore::empty_like(part, TM_F64, TM_CPU).byte_size(), 32u);
}

void tensors_of_layouts_and_whole_buffers() {
  tm_layout layout;
  TM_CHECK_OK(tm_layout_parse("(2,3):(5,1)", &layout));
  const tmcore::tensor x = tmcore::tensor::strided(layout, TM_F32, TM_CPU);
  TM_CHECK(to_string(x) == "f32 cpu (2,3):(5,1)");
  TM_CHECK_EQ(x.capacity().size(), 8);
  const tmcore::tensor y = tmcore::tensor::strided(layout, TM_F32, tm_host_allocator());
  TM_CHECK_EQ(y.memory().size(), 8);
  const tmcore::tensor row = tmcore::tensor::of(x.slice(1, 1).capacity());
  TM_CHECK(to_string(row) == "f32 cpu (3):(1)");
  TM_CHECK(!tmcore::tensor::of(tmcore::buffer(), std::nothrow));
}

void prints_values() {
  char text[100] = "";
  std::FILE* file = fmemopen(text, sizeof text, "w");
  const tensor_<int> x({2}, TM_CPU);
  tmcore::clear(x);
  tmcore::print(x, file);
  std::fclose(file);
  TM_CHECK(std::string(text) == "i32 cpu (2):(1)\n[0, 0]\n");
  TM_CHECK_EQ(tmcore::print(x, nullptr, std::nothrow), TM_ERR_INVALID);
}

void copies() {
  const buffer_<int> a(4, TM_CPU);
  const buffer_<int> b(4, TM_CPU);
  std::iota(a.begin(), a.end(), 1);
  tmcore::copy(a, b);
  TM_CHECK_EQ(b[3], 4);
  TM_CHECK_OK(tmcore::copy(b.slice(0, 2), a.slice(2, 2), std::nothrow));
  TM_CHECK_EQ(a[3], 2);
  tmcore::clear(b);
  TM_CHECK_EQ(b[3], 0);
  tmcore::copy(a, 2, b);
  TM_CHECK(b[1] == 2 && b[2] == 0);
  const int* from = a.data();
  TM_CHECK(tmcore::copy(from + 1, 2, b.data()) == b.data() + 2 && b[0] == 2);
  TM_CHECK(tmcore::copy(from, -1, b.data(), std::nothrow) == nullptr);
  tmcore::fill_bytes(b.slice(3), 1);
  TM_CHECK(b[3] == 0x01010101 && b[2] == 0);
  const tensor_<int> x({2, 3}, TM_CPU);
  const tmcore::tensor y = tmcore::empty_like(x.t());
  tmcore::fill_bytes(x, 1);
  tmcore::copy(x.t(), y);
  TM_CHECK_EQ(y.data<int>()[5], 0x01010101);
  tmcore::clear(x);
  TM_CHECK_EQ(x.data()[5], 0);
  TM_CHECK_OK(tmcore::clear(x, std::nothrow));
  TM_CHECK_OK(tmcore::clear(b, std::nothrow));
  TM_CHECK_EQ(tmcore::empty_like(x, TM_F64).byte_size(), 48u);
  TM_CHECK_EQ(tmcore::empty_like(x, TM_CPU).dtype(), TM_I32);
}

}  // namespace

int main() {
  RUN_TEST(types_have_their_dtype);
  RUN_TEST(a_buffer_is_a_range);
  RUN_TEST(every_way_to_make_one);
  RUN_TEST(conversion_checks_the_dtype);
  RUN_TEST(a_typed_handle_is_not_another_type_by_the_back_door);
  RUN_TEST(shapes_take_any_integers);
  RUN_TEST(text);
  RUN_TEST(buffers_by_element_and_compared);
  RUN_TEST(tensors_of_layouts_and_whole_buffers);
  RUN_TEST(prints_values);
  RUN_TEST(copies);
  return 0;
}
