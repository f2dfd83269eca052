// Copies and fills: between host, pinned and device memory in every combination.
//
// Where both sides are host memory the copy is done by the calling thread when it returns, without
// any stream; the caller has seen to it that no stream still uses the memory. Where a device is
// involved it runs on the context's stream and the call may return before it has: pageable host
// memory may be reused at once when it was the source, everything else once the stream has passed.
// A copy that is captured into a graph is done whenever that runs, and reads its source then, also
// in pageable memory: both sides are the caller's to keep.
// A side that was made on another stream than the copy's records the copy's, so its free waits;
// ordering the *contents* between streams is the caller's (tm_stream_wait_stream).
//
// Layouts. Both sides may be strided, wherever they are: every pair of layouts of one shape is
// copied. On the host that is memcpy where both are contiguous, and blocked where they are
// transposed. On one device it is one memcpy where both are contiguous or their rows are wide, else
// a kernel. Between the host and a device, and between devices, as many runs as possible go into
// one memcpy of one, two or three dimensions, and there are as many of those as it takes: never
// more than the pair has contiguous runs. docs/tensors.md has a table.
//
// Devices. A fill, and a copy from or to the host, runs on a stream of the device whose memory it
// is; on another's it is TM_ERR_INVALID. A copy between devices runs on a stream of either. The
// thread's current CUDA device does not matter.
//
// Dry memory is neither read nor written: the operation is checked, counted (dry.h) and done; it
// needs no stream.
#ifndef TM_TENSOR_COPY_H_
#define TM_TENSOR_COPY_H_

#include <stddef.h>
#include <stdint.h>

#include "tm/base/attributes.h"
#include "tm/base/status.h"
#include "tm/tensor/buffer.h"
#include "tm/tensor/tensor.h"

TM_EXTERN_C_BEGIN

// Copies the elements of `source` to `destination`. Both have one shape and one dtype. No elements:
// nothing to do. All checks come before anything is queued, and an error of theirs leaves the
// destination unchanged. So does one of CUDA's (TM_ERR_DEVICE_LOST, TM_ERR_CUDA) where the copy is
// one call of the runtime; where it is several, those before the one that failed are queued, the
// destination's contents are undefined, and freeing either side still waits for them.
// Errors: TM_ERR_INVALID (null; shapes or dtypes differ; the two overlap; elements of the
//         destination overlap each other; a run of elements narrower than a byte that is no whole
//         number of bytes; a stream of another device, as above), TM_ERR_UNAVAILABLE (no current
//         stream), TM_ERR_NO_MEMORY, TM_ERR_DEVICE_LOST, TM_ERR_CUDA.
TM_API TM_NODISCARD tm_status tm_copy(const tm_tensor* source, const tm_tensor* destination);

// The same for buffers of one size and dtype.
TM_API TM_NODISCARD tm_status tm_buffer_copy(const tm_buffer* source, const tm_buffer* destination);

// The same for the first `count` elements of buffers of one dtype.
// Errors: also TM_ERR_OUT_OF_RANGE (more than either has), TM_ERR_INVALID (`count` is negative;
//         elements narrower than a byte that do not end at a whole one).
TM_API TM_NODISCARD tm_status tm_buffer_copy_n(const tm_buffer* source, int64_t count,
                                               const tm_buffer* destination);

// Copies `count` elements between pointers to one type and returns the end of the copy,
// `destination + count`, typed as `destination`; NULL on failure. The pointers may be to host,
// pinned or device memory: once the process uses devices, CUDA is asked which. Nothing keeps the
// memory, and no use of it is recorded; dry memory cannot be told by its address.
// Errors: TM_ERR_INVALID (`count` is negative, NULL with a count above 0, and as tm_copy),
//         TM_ERR_OVERFLOW, and those of tm_copy.
#define TM_COPY_N(source, count, destination)                                       \
  ((__typeof__(&*(destination)))tm_copy_n_((1 ? (source) : (destination)), (count), \
                                           sizeof *(destination), (destination)))
TM_API TM_NODISCARD void* tm_copy_n_(const void* source, int64_t count, size_t element,
                                     void* destination);

// Sets every byte of `destination` to 0, or to `value`. Layouts, streams and errors are those of
// tm_copy.
TM_API TM_NODISCARD tm_status tm_clear(const tm_tensor* destination);
TM_API TM_NODISCARD tm_status tm_fill_bytes(const tm_tensor* destination, uint8_t value);

// The same for a buffer.
TM_API TM_NODISCARD tm_status tm_buffer_clear(const tm_buffer* destination);
TM_API TM_NODISCARD tm_status tm_buffer_fill_bytes(const tm_buffer* destination, uint8_t value);

TM_EXTERN_C_END

#endif  // TM_TENSOR_COPY_H_
