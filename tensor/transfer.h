// Values between tensors anywhere and bytes on the host, for the file formats. Private.
#ifndef TM_TENSOR_TRANSFER_H_
#define TM_TENSOR_TRANSFER_H_

#include <stddef.h>
#include <stdint.h>

#include "tm/base/attributes.h"
#include "tm/base/status.h"
#include "tm/tensor/tensor.h"

// Where a reader puts what it reads.
typedef struct tm_transfer_target {
  tm_allocator* allocator;  // NULL: the context's for `type`
  tm_device_type type;
} tm_transfer_target;

// A tensor without contents for what is read. Null on failure.
// Errors: those of tm_empty, TM_ERR_CAPTURING (on a device, and the current stream is being
//         captured).
TM_NODISCARD tm_tensor tm_transfer_empty_(const tm_transfer_target* target, const tm_shape* shape,
                                          tm_dtype dtype);

// Stores the `bytes` that lie `offset` behind the first in `out`.
typedef tm_status (*tm_transfer_read_)(void* user, uint64_t offset, void* out, size_t bytes);

// Fills the contiguous `tensor`, wherever it is, with what `read` has at `offset`. On a device that
// is queued on the current stream, and no more memory of the host is taken than a few MiB.
// Errors: those of `read` and of tm_copy. On error the contents are undefined.
TM_NODISCARD tm_status tm_transfer_fill_(const tm_tensor* tensor, tm_transfer_read_ read,
                                         void* user, uint64_t offset);

// Whether the values of a tensor can be asked for now. A null tensor is left to who asks.
// Errors: TM_ERR_INVALID (dry memory), TM_ERR_CAPTURING (on a device, and the current stream is
//         being captured).
TM_NODISCARD tm_status tm_transfer_check_(const tm_tensor* tensor);

// The values of a tensor anywhere, contiguous on the host, there when this returns: the tensor
// itself where it is that. Null on failure, and for a null tensor.
// Errors: those of tm_transfer_check_, tm_copy and tm_stream_sync.
TM_NODISCARD tm_tensor tm_transfer_to_host_(const tm_tensor* tensor);

#endif  // TM_TENSOR_TRANSFER_H_
