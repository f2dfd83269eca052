// Archives: layouts, buffers, tensors and maps as a run of bytes in memory, to be sent or kept.
//
//   tm_auto_archive archive = tm_archive_create();
//   TM_TRY(tm_archive_put_tensor(archive, &x));
//   send(tm_archive_data(archive), tm_archive_size(archive));
//
//   tm_archive_reader reader;  // elsewhere
//   TM_TRY(tm_archive_open(bytes, size, TM_DEVICE, &reader));
//   TM_TRY_TENSOR(x, tm_archive_get_tensor(&reader));
//
// Things are read in the order in which they were put in. Values come from any device and go to
// memory of the reader's choice; tensors become contiguous. What is read need not be trusted: every
// size is checked against the bytes that are there before anything is allocated for it, and one
// that does not add up is TM_ERR_CORRUPT.
//
// The bytes, version 1. Fields are 64 bits, lowest byte first; runs of bytes end in zeros up to a
// multiple of 8, and bits behind the last of elements narrower than a byte are zeros as well. Two
// archives of the same things are the same bytes.
//
//   archive   "TMCOREAR", version, things
//   layout    1, rank, sizes, strides
//   buffer    2, tm_dtype, elements, bytes, the bytes
//   tensor    3, tm_dtype, rank, sizes, bytes, the bytes in row-major order
//   map       4, tensors, for each: bytes of the key, the key, a tensor;
//             metadata, for each: bytes of the key, the key, bytes of the text, the text
#ifndef TM_TENSOR_ARCHIVE_H_
#define TM_TENSOR_ARCHIVE_H_

#include <stdbool.h>
#include <stddef.h>

#include "tm/alloc/allocator.h"
#include "tm/alloc/device.h"
#include "tm/base/attributes.h"
#include "tm/base/status.h"
#include "tm/tensor/buffer.h"
#include "tm/tensor/layout.h"
#include "tm/tensor/map.h"
#include "tm/tensor/tensor.h"

TM_EXTERN_C_BEGIN

//===-- Writing -----------------------------------------------------------===//

typedef struct tm_archive tm_archive;

// An archive with nothing in it. NULL on failure.
// Ownership: the caller releases it.
// Errors: TM_ERR_NO_MEMORY.
TM_API TM_NODISCARD tm_archive* tm_archive_create(void);

// NULL is a no-op.
TM_API void tm_archive_release(tm_archive* archive);

static inline void tm_archive_close_(tm_archive** archive) { tm_archive_release(*archive); }

// A tm_archive* variable that is released at the end of its block.
#define tm_auto_archive __attribute__((cleanup(tm_archive_close_))) tm_archive*

// Puts a copy behind what is there. Values on a device are fetched through the current stream.
// Errors: TM_ERR_INVALID (null, a layout that is none, addresses, which mean nothing elsewhere, dry
//         memory), TM_ERR_OVERFLOW, TM_ERR_NO_MEMORY, TM_ERR_CAPTURING (values on a device, and the
//         current stream is being captured: the capture stays as it is), and those of tm_copy and
//         tm_stream_sync. On error the archive is unchanged.
TM_API TM_NODISCARD tm_status tm_archive_put_layout(tm_archive* archive, const tm_layout* layout);
TM_API TM_NODISCARD tm_status tm_archive_put_buffer(tm_archive* archive, const tm_buffer* buffer);
TM_API TM_NODISCARD tm_status tm_archive_put_tensor(tm_archive* archive, const tm_tensor* tensor);
TM_API TM_NODISCARD tm_status tm_archive_put_map(tm_archive* archive, const tm_tensor_map* map);

// The bytes, valid until something is put in or the archive is released; NULL and 0 for NULL.
TM_API const void* tm_archive_data(const tm_archive* archive);
TM_API size_t tm_archive_size(const tm_archive* archive);

//===-- Reading -----------------------------------------------------------===//

// A position in somebody's bytes: a plain value, nothing to release.
typedef struct tm_archive_reader {
  const char* at;           // the next thing
  size_t left;              // bytes
  tm_allocator* allocator;  // borrowed; NULL: the context's for `type`
  tm_device_type type;
} tm_archive_reader;

// Begins to read the `size` bytes at `data`, into memory of the context's innermost allocator of
// that device type, or of `allocator`. Both must outlive the reader.
// Errors: TM_ERR_CORRUPT (no archive), TM_ERR_UNAVAILABLE (of a later version), TM_ERR_INVALID
//         (NULL). On error `*out` has nothing left.
TM_API TM_NODISCARD tm_status tm_archive_open(const void* data, size_t size, tm_device_type type,
                                              tm_archive_reader* out);
TM_API TM_NODISCARD tm_status tm_archive_open_from(tm_allocator* allocator, const void* data,
                                                   size_t size, tm_archive_reader* out);

// Whether everything has been read.
static inline bool tm_archive_at_end(const tm_archive_reader* reader) { return reader->left == 0; }

// Reads the next thing, which is a layout.
// Errors: TM_ERR_CORRUPT (something else, nothing more, what does not add up), TM_ERR_INVALID
//         (NULL). On error `*out` is the null layout and the reader stays where it is.
TM_API TM_NODISCARD tm_status tm_archive_get_layout(tm_archive_reader* reader, tm_layout* out);

// Read the next thing, which is that. Null on failure; then the reader stays where it is. On a
// device, values are there once the current stream has passed.
// Ownership: the caller owns the result.
// Errors: as tm_archive_get_layout, TM_ERR_CAPTURING (to a device, and the current stream is being
//         captured: the capture stays as it is), and those of the allocator and of tm_buffer_copy.
TM_API TM_NODISCARD tm_buffer tm_archive_get_buffer(tm_archive_reader* reader);
TM_API TM_NODISCARD tm_tensor tm_archive_get_tensor(tm_archive_reader* reader);
TM_API TM_NODISCARD tm_tensor_map* tm_archive_get_map(tm_archive_reader* reader);

TM_EXTERN_C_END

#endif  // TM_TENSOR_ARCHIVE_H_
