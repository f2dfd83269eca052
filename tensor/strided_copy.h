// Copies and fills between layouts on one device by a kernel, and when that is faster than calls of
// the runtime. Private.
#ifndef TM_TENSOR_STRIDED_COPY_H_
#define TM_TENSOR_STRIDED_COPY_H_

#include <stdbool.h>
#include <stdint.h>

#include "alloc/cuda_runtime.h"
#include "tensor/copy_plan.h"
#include "tensor/memcpy_calls.h"
#include "tm/base/attributes.h"
#include "tm/base/status.h"

// Whether the kernel is faster than `calls`, which do the same.
bool tm_strided_copy_pays_(const tm_memcpy_calls_* calls, const void* source,
                           const void* destination);
bool tm_strided_fill_pays_(const tm_memcpy_calls_* calls, const void* destination);

// Queue the kernel on `stream`, whose device is entered and is the memory's. `*launched` says
// whether there was one: for devices older than those that the library was built for, and for newer
// ones whose driver cannot compile for them, there is none, and nothing is queued.
// Errors: TM_ERR_CUDA, TM_ERR_DEVICE_LOST. On error nothing is queued.
TM_NODISCARD tm_status tm_strided_copy_launch_(const tm_copy_plan_* plan, const void* source,
                                               void* destination, cudaStream_t stream,
                                               bool* launched);
TM_NODISCARD tm_status tm_strided_fill_launch_(const tm_copy_plan_* plan, uint8_t value,
                                               void* destination, cudaStream_t stream,
                                               bool* launched);

#endif  // TM_TENSOR_STRIDED_COPY_H_
