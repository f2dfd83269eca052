// Device memory straight from cudaMalloc and cudaFree. Device {TM_DEVICE, id}, alignment 256, no
// stream of its own.
//
// Both calls are synchronous: a block is ready on every stream at once, and freeing one blocks the
// calling thread until the device has done what was queued, so it is safe on every stream. Use it
// for what lives long, such as weights, and as the upstream of other allocators.
#ifndef TM_ALLOC_CUDA_H_
#define TM_ALLOC_CUDA_H_

#include <stdint.h>

#include "tm/alloc/allocator.h"
#include "tm/base/attributes.h"

TM_EXTERN_C_BEGIN

// The process's allocator of device `id`, which is never counted. Returns NULL on failure.
// An allocation for a stream that is being captured into a graph is TM_ERR_CAPTURING.
// Ownership: borrowed; retain and release do nothing.
// Errors: TM_ERR_UNAVAILABLE (no usable device; in the driver's own words), TM_ERR_OUT_OF_RANGE
//         (`id`), TM_ERR_DEVICE_LOST.
// Threads: every operation is safe from any thread, whatever its current device, which stays.
TM_API TM_NODISCARD tm_allocator* tm_cuda_allocator(int32_t id);

TM_EXTERN_C_END

#endif  // TM_ALLOC_CUDA_H_
