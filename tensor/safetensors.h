// Tensor maps in safetensors files: 8 bytes with the size of a header, the header in JSON, and the
// values.
//
//   TM_WITH_STREAM(stream) TM_WITH_ALLOCATOR(weights) {
//     model = tm_safetensors_load("model.safetensors", TM_DEVICE);
//   }
//
// A file need not be trusted: every size and offset is checked against what is there before
// anything is allocated for it, and one that does not add up is TM_ERR_CORRUPT. Names and order of
// the tensors, and the metadata, survive writing and reading.
//
// The types of files are BOOL, U8 to U64, I8 to I64, F16, BF16, F32, F64, F8_E4M3, F8_E5M2, F4
// (e2m1), F6_E2M3 and F6_E3M2. Values are not aligned in a file; they are in the tensors.
//
// Threads: as the allocator and the map.
#ifndef TM_TENSOR_SAFETENSORS_H_
#define TM_TENSOR_SAFETENSORS_H_

#include <stddef.h>

#include "tm/alloc/allocator.h"
#include "tm/alloc/device.h"
#include "tm/base/attributes.h"
#include "tm/base/status.h"
#include "tm/tensor/buffer.h"
#include "tm/tensor/map.h"

TM_EXTERN_C_BEGIN

//===-- Reading -----------------------------------------------------------===//

// All tensors of a file, in the order of its header, in memory of the context's innermost allocator
// of that device type, or of `allocator`. Those on a device are there once the current stream has
// passed. NULL on failure.
// Ownership: the caller releases the map.
// Errors: TM_ERR_CORRUPT (no such file: sizes that lie, tensors that overlap or leave bytes out, a
//         name twice, no JSON, an unknown type or field), TM_ERR_UNAVAILABLE (a type that tmcore
//         has not, more than 8 dimensions, a NUL in a name or a text, no allocator or stream),
//         TM_ERR_NOT_FOUND, TM_ERR_IO (also what is no regular file), TM_ERR_INVALID (NULL),
//         TM_ERR_CAPTURING (to a device, and the current stream is being captured: the capture
//         stays as it is), and those of the allocator and of tm_buffer_copy.
TM_API TM_NODISCARD tm_tensor_map* tm_safetensors_load(const char* path, tm_device_type type);
TM_API TM_NODISCARD tm_tensor_map* tm_safetensors_load_from(tm_allocator* allocator,
                                                            const char* path);

// The same for a file that is in memory. The bytes may be reused when this returns.
TM_API TM_NODISCARD tm_tensor_map* tm_safetensors_decode(const void* data, size_t size,
                                                         tm_device_type type);
TM_API TM_NODISCARD tm_tensor_map* tm_safetensors_decode_from(tm_allocator* allocator,
                                                              const void* data, size_t size);

//===-- Writing -----------------------------------------------------------===//

// Writes the map to a file, which appears when it is complete and replaces one that was there: it
// has the permissions of that, and its owner where the system allows it. Of a symbolic link, what
// it leads to is replaced. Threads and processes may save to one path: the last one stays.
//
// Pipes, devices and what this process has open (/dev/stdout, /proc/self/fd/7) are written to as
// they are, from where they are; a pipe whose reader is gone raises SIGPIPE, as for every write.
//
// Tensors on a device are fetched through the current stream; those that are not contiguous become
// so.
// Errors: TM_ERR_INVALID (NULL, a type that files do not have, elements that fill no whole bytes, a
//         name that is no UTF-8 or that files reserve, dry memory), TM_ERR_OVERFLOW (a header of
//         more than 100 million bytes), TM_ERR_CAPTURING (values on a device, and the current
//         stream is being captured: the capture stays as it is), TM_ERR_IO (also a link to
//         nothing), TM_ERR_NO_MEMORY, and those of tm_copy and tm_stream_sync. On error the file of
//         before is still there, and no other; a pipe or a device may have got a part.
TM_API TM_NODISCARD tm_status tm_safetensors_save(const tm_tensor_map* map, const char* path);

// The same into host memory of the context: bytes, TM_U8. Null on failure.
TM_API TM_NODISCARD tm_buffer tm_safetensors_encode(const tm_tensor_map* map);

TM_EXTERN_C_END

#endif  // TM_TENSOR_SAFETENSORS_H_
