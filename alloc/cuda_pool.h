// Device memory from a CUDA memory pool, in the order of one stream: cudaMallocFromPoolAsync and
// cudaFreeAsync. Device {TM_DEVICE, id} of the stream, alignment 256.
//
// A block is ready for what is queued on the stream after its allocation, and its memory is reused
// for what is queued there after its free; the host waits for neither. The driver keeps freed
// memory for the next allocation, until the release threshold or a trim gives it back.
#ifndef TM_ALLOC_CUDA_POOL_H_
#define TM_ALLOC_CUDA_POOL_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tm/alloc/allocator.h"
#include "tm/alloc/stream.h"
#include "tm/base/attributes.h"

TM_EXTERN_C_BEGIN

// All zero: a pool of its own, as large as the device allows, that keeps what it has.
typedef struct tm_cuda_pool_options {
  bool default_pool;           // the device's default pool, shared with all that use it
  size_t maximum_bytes;        // that an own pool holds; 0: no limit but the device's memory
  uint64_t release_threshold;  // bytes kept when a stream or event is synchronized, in the driver's
                               // chunks: 1 keeps a single one; 0: all of an own pool, and of the
                               // default pool what is set already
} tm_cuda_pool_options;

// Creates an allocator whose memory is ordered on `stream`. `options` may be NULL: all zero.
// Returns NULL on failure.
// What is freed while the stream is being captured into a graph is given back after the capture;
// an allocation meanwhile is TM_ERR_CAPTURING. For the default pool, reserved bytes are everyone's.
// Ownership: the caller owns one reference; the allocator retains `stream`.
// Errors: TM_ERR_INVALID (NULL or disowned stream; a maximum for the default pool),
//         TM_ERR_UNAVAILABLE (the device has no pools), TM_ERR_NO_MEMORY, TM_ERR_DEVICE_LOST,
//         TM_ERR_CUDA.
// Threads: every operation is safe from any thread, whatever its current device, which stays.
TM_API TM_NODISCARD tm_allocator* tm_cuda_pool_allocator_create(
    tm_stream* stream, const tm_cuda_pool_options* options);

TM_EXTERN_C_END

#endif  // TM_ALLOC_CUDA_POOL_H_
