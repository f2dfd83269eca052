// The C++ accessor on the host: what kernels do with it, and what it refuses.

#include <cstring>
#include <type_traits>

#include "tm/alloc/host.h"
#include "tm/check.h"
#include "tm/tensor/accessor.h"

static_assert(std::is_trivially_copyable<tmcore::accessor<float, 3>>::value, "passed by value");
static_assert(std::is_standard_layout<tmcore::accessor<float, 3>>::value, "passed by value");
static_assert(sizeof(tmcore::accessor<float, 2>) == 8 + 2 * 2 * 8, "nothing but what is used");
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

int main() {
  indexing_follows_strides();
  scalars_and_const_elements();
  type_and_rank_are_checked();
  return 0;
}
