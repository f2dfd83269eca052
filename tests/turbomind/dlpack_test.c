// Where TurboMind goes wrong with DLPack. tests/mutations.sh shows that the test fails without what
// it tests.

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "tm/context/context.h"
#include "tm/tensor/dlpack.h"
#include "tm/tensor/dlpack_abi.h"

Test(turbomind, dlpack_export_of_a_transposed_tensor_has_its_strides) {
  tm_auto_tensor x = tm_empty(TM_SHAPE(2, 3), TM_I32, TM_CPU);
  for (int i = 0; i < 6; i++) {
    TM_DATA(int32_t, &x)[i] = i;
  }
  tm_auto_tensor turned = tm_t(&x);
  DLManagedTensorVersioned* managed = tm_to_dlpack(&turned, 0);
  DLManagedTensor* legacy = tm_to_dlpack_legacy(&turned);
  cr_assert(managed && legacy, "%s", tm_last_error()->message);
  const DLTensor* both[] = {&managed->dl_tensor, &legacy->dl_tensor};
  for (int i = 0; i < 2; i++) {
    cr_assert(eq(int, both[i]->ndim, 2));
    cr_expect(eq(i64, both[i]->shape[0], 3));
    cr_expect(eq(i64, both[i]->shape[1], 2));
    cr_assert(both[i]->strides != NULL);
    cr_expect(eq(i64, both[i]->strides[0], 1));
    cr_expect(eq(i64, both[i]->strides[1], 3));
    const int32_t* data = (const int32_t*)both[i]->data;
    cr_expect(eq(int, data[2 * both[i]->strides[0] + 1 * both[i]->strides[1]], 5));
  }
  tm_dlpack_delete(managed);
  tm_dlpack_delete_legacy(legacy);
}
