// How a copy or fill on a stream is done by as few calls of the runtime as possible. Private.
#ifndef TM_TENSOR_MEMCPY_CALLS_H_
#define TM_TENSOR_MEMCPY_CALLS_H_

#include <stdint.h>

#include "alloc/cuda_runtime.h"
#include "tensor/copy_plan.h"
#include "tm/base/attributes.h"
#include "tm/base/status.h"

// A plan whose last loops are one call of one, two or three dimensions.
typedef struct tm_memcpy_calls_ {
  tm_copy_plan_ plan;
  int32_t inner;  // loops of a call: 0, 1 or 2
  int64_t count;  // calls: iterations of the other loops
} tm_memcpy_calls_;

// Chooses the loops of which a call does most.
tm_memcpy_calls_ tm_memcpy_calls_make_(const tm_copy_plan_* plan);

// Queue the calls on `stream`, whose device is entered. The second is for copies between devices,
// or on a stream of a third one: only the peer calls reach memory of pools without access to them
// being granted.
// Errors: those of the calls. On error those before it are queued: the destination is undefined if
//         there is more than one.
TM_NODISCARD tm_status tm_memcpy_calls_copy_(const tm_memcpy_calls_* calls, const void* source,
                                             void* destination, enum cudaMemcpyKind kind,
                                             cudaStream_t stream);
TM_NODISCARD tm_status tm_memcpy_calls_copy_peer_(const tm_memcpy_calls_* calls, const void* source,
                                                  int32_t source_device, void* destination,
                                                  int32_t destination_device, cudaStream_t stream);

// Sets the bytes of the destination's side of the plan, by which alone the loops were chosen where
// both sides are the same.
// Errors: as above.
TM_NODISCARD tm_status tm_memcpy_calls_fill_(const tm_memcpy_calls_* calls, uint8_t value,
                                             void* destination, cudaStream_t stream);

#endif  // TM_TENSOR_MEMCPY_CALLS_H_
