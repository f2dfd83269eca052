// TM_DISPATCH in C++: templates in the body, and the narrow floats, whose headers are not here; any
// type of the name stands in.

#include <type_traits>

#include "tm/check.h"
#include "tm/tensor/dispatch.h"

struct __half {
  unsigned short bits;
};
struct __nv_bfloat16 {
  unsigned short bits;
};

namespace {

#define SOME_TYPES                                                                                 \
  (TM_BOOL, TM_U8, TM_U16, TM_U32, TM_U64, TM_I8, TM_I16, TM_I32, TM_I64, TM_F16, TM_BF16, TM_F32, \
   TM_F64, TM_POINTER)

template <class T>
int kind() {
  return std::is_same<T, __half>::value * 1000 + TM_DTYPE_OF(T);
}

class counted {
 public:
  explicit counted(int* count) : count_(count) {}
  ~counted() { ++*count_; }

 private:
  int* count_;
};

tm_status leave_early(tm_dtype dtype, int* destroyed) {
  TM_TRY(TM_DISPATCH(dtype, (TM_F16, TM_F32), T, {
    const counted local(destroyed);
    if (sizeof(T) == 2) {
      return TM_ERR_BUSY;
    }
  }));
  return TM_OK;
}

}  // namespace

int main() {
  int found = 0;
  for (int i = 0; i < TM_DTYPES; i++) {
    const auto dtype = static_cast<tm_dtype>(i);
    int ran = 0;
    const tm_status status = TM_DISPATCH(dtype, SOME_TYPES, T, { ran = kind<T>(); });
    if (status == TM_OK) {
      TM_CHECK_EQ(ran, i == TM_F16 ? 1000 + i : i);
      found++;
    }
  }
  TM_CHECK_EQ(found, 14);
  int destroyed = 0;
  TM_CHECK_EQ(leave_early(TM_F16, &destroyed), TM_ERR_BUSY);
  TM_CHECK_EQ(destroyed, 1);
  TM_CHECK_EQ(leave_early(TM_F32, &destroyed), TM_OK);
  TM_CHECK_EQ(destroyed, 2);
  return 0;
}
