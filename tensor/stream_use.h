// What every operation on the context's stream sees to, whatever it queues: which stream that is,
// that the memory is of its device, and that freeing the memory waits for it. Private.
#ifndef TM_TENSOR_STREAM_USE_H_
#define TM_TENSOR_STREAM_USE_H_

#include <stdbool.h>

#include "tm/alloc/device.h"
#include "tm/alloc/stream.h"
#include "tm/base/attributes.h"
#include "tm/base/status.h"
#include "tm/tensor/tensor.h"

static inline bool tm_on_host_(const tm_tensor* tensor) { return tensor->device.type != TM_DEVICE; }

// The stream that an operation runs on, borrowed from the context; NULL and an error where there is
// none (TM_ERR_UNAVAILABLE) or its owner took it back (TM_ERR_INVALID).
TM_NODISCARD tm_stream* tm_stream_use_find_(void);

// Whether an operation on `stream` may reach the tensor: host memory, or memory of the stream's own
// device. Another device reaches that by peer access at most.
// Errors: TM_ERR_INVALID (memory of another device).
TM_NODISCARD tm_status tm_stream_use_check_(const tm_tensor* tensor, const tm_stream* stream);

// The same for both sides of a copy, which may be between devices: `*by_peer` says whether it is,
// as seen from the stream's.
// Errors: also TM_ERR_DEVICE_LOST (either device of a copy between two).
TM_NODISCARD tm_status tm_stream_use_check_copy_(const tm_tensor* source,
                                                 const tm_tensor* destination,
                                                 const tm_stream* stream, bool* by_peer);

// Has the free of the tensor's memory wait for what is queued on `stream` by now. To be called
// twice: before anything is queued, because what a record needs must be there by then; and after,
// because a record covers what is queued by then.
// Errors: TM_ERR_NO_MEMORY, TM_ERR_CUDA.
TM_NODISCARD tm_status tm_stream_use_record_(const tm_tensor* tensor, tm_stream* stream);

#endif  // TM_TENSOR_STREAM_USE_H_
