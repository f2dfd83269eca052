// The codes of cudaDataType, against the toolkit's own names for them.

#include <library_types.h>

#include "tm/check.h"
#include "tm/tensor/dtype.h"

static const struct {
  tm_dtype dtype;
  cudaDataType cuda;
} pairs[] = {
    {TM_U8, CUDA_R_8U},        {TM_U16, CUDA_R_16U},      {TM_U32, CUDA_R_32U},
    {TM_U64, CUDA_R_64U},      {TM_I8, CUDA_R_8I},        {TM_I16, CUDA_R_16I},
    {TM_I32, CUDA_R_32I},      {TM_I64, CUDA_R_64I},      {TM_F16, CUDA_R_16F},
    {TM_BF16, CUDA_R_16BF},    {TM_F32, CUDA_R_32F},      {TM_F64, CUDA_R_64F},
    {TM_E4M3, CUDA_R_8F_E4M3}, {TM_E5M2, CUDA_R_8F_E5M2}, {TM_E2M1, CUDA_R_4F_E2M1},
    {TM_E2M3, CUDA_R_6F_E2M3}, {TM_E3M2, CUDA_R_6F_E3M2}, {TM_U4, CUDA_R_4U},
};

int main(void) {
  for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
    int cuda = -1;
    tm_dtype dtype = TM_DTYPE_NULL;
    TM_CHECK_EQ(tm_dtype_to_cuda(pairs[i].dtype, &cuda), TM_OK);
    TM_CHECK_EQ(cuda, (int)pairs[i].cuda);
    TM_CHECK_EQ(tm_dtype_from_cuda((int)pairs[i].cuda, &dtype), TM_OK);
    TM_CHECK_EQ(dtype, pairs[i].dtype);
  }
  return 0;
}
