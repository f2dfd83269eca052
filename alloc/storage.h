// Storage: a reference-counted block of memory. It is what buffers and tensors own.
//
// A storage knows the allocator that takes its block back (or a deleter), the stream it was made
// on, and the streams that have used it since. Its last release frees the block after all of them,
// on the device, while the host goes on. It keeps its allocator alive.
//
// The count is atomic, but the sole owner never pays for it: a count of 1 cannot be raised by
// anybody else, so releasing the only reference is a load and a compare.
#ifndef TM_ALLOC_STORAGE_H_
#define TM_ALLOC_STORAGE_H_

#include <stddef.h>
#include <stdint.h>

#include "tm/alloc/allocator.h"
#include "tm/base/attributes.h"
#include "tm/base/status.h"

TM_EXTERN_C_BEGIN

// Called once, when the last reference of adopted memory is gone.
typedef void (*tm_deleter)(void* data, size_t size, void* user);

typedef struct tm_storage_use_ tm_storage_use_;

// Read `data` and `size`; the rest is for the implementation.
struct tm_storage {
  int32_t references;       // read and written with __atomic
  uint32_t flags;           // tm_storage_flags_
  void* data;               // NULL only where `size` is 0
  size_t size;              // bytes that were asked for
  tm_allocator* allocator;  // takes the block back; NULL for adopted memory
  tm_stream* stream;        // retained where it is not the allocator's own; else that, or NULL
  tm_storage_use_* uses;    // an event per other stream that has used the block
  union {
    struct tm_storage_adopted_* adopted;
    tm_storage* next;  // while on a list of headers or of returned blocks
  } link;
};

enum tm_storage_flags_ {
  TM_STORAGE_DRY_ = 1,       // addresses only: nothing may touch the memory
  TM_STORAGE_EMBEDDED_ = 2,  // lives in its allocator's bookkeeping
  TM_STORAGE_CROSS_ = 4,     // made on a stream that is not the allocator's
};

// Allocates `size` bytes (not 0) as storage, first and last used on `stream` (NULL: the
// allocator's own).
// Ownership: the caller owns one reference.
// Errors: as tm_allocator_alloc. On error `*out` is NULL.
// Threads: as allocation on `allocator`.
TM_NODISCARD static inline tm_status tm_storage_alloc(tm_allocator* allocator, size_t size,
                                                      tm_stream* stream, tm_storage** out);

// Takes ownership of `data`, of `size` bytes; `deleter` (which may be NULL) is called with `user`
// when the last reference is gone.
// Errors: TM_ERR_INVALID (`data` is NULL and `size` is not 0), TM_ERR_NO_MEMORY. On error `*out`
//         is NULL and `data` stays the caller's.
// Threads: safe.
TM_API TM_NODISCARD tm_status tm_storage_adopt(void* data, size_t size, tm_deleter deleter,
                                               void* user, tm_storage** out);

// Another reference. NULL passes through.
// Threads: safe for a caller that holds a reference.
static inline tm_storage* tm_storage_retain(tm_storage* storage) {
  if (storage) {
    __atomic_fetch_add(&storage->references, 1, __ATOMIC_RELAXED);
  }
  return storage;
}

// The last reference is gone: frees the block. Only for tm_storage_release.
TM_API void tm_storage_free_(tm_storage* storage);

// Drops one reference of several. Releasing more often than retaining is fatal.
TM_API void tm_storage_release_shared_(tm_storage* storage);

// Drops a reference. NULL is a no-op.
// Threads: safe from any thread.
static inline void tm_storage_release(tm_storage* storage) {
  if (!storage) {
    return;
  }
  if (TM_LIKELY(__atomic_load_n(&storage->references, __ATOMIC_ACQUIRE) == 1)) {
    tm_storage_free_(storage);
  } else {
    tm_storage_release_shared_(storage);
  }
}

// From here on the block is also used on `stream`: its free waits, on the device, for all that is
// queued there now. The event for that is obtained here, so the free cannot fail. Where `stream` is
// being captured, what it queued before is not known, and the free happens after the capture.
// The stream the storage was made on needs no record.
// Errors: TM_ERR_INVALID (NULL stream), TM_ERR_NO_MEMORY, TM_ERR_DEVICE_LOST, TM_ERR_CUDA. On
//         error nothing is recorded, and the caller must order the use itself.
// Threads: one thread at a time per storage.
TM_API TM_NODISCARD tm_status tm_storage_record_stream(tm_storage* storage, tm_stream* stream);

//===-- What the inline functions call ------------------------------------===//

TM_API TM_NODISCARD tm_status tm_storage_alloc_general_(tm_allocator* allocator, size_t size,
                                                        tm_stream* stream, tm_storage** out);
// The storage was refused with `status`: trims, tries again and reports where memory ran out.
TM_API TM_COLD TM_NODISCARD tm_status tm_storage_alloc_failed_(tm_status status,
                                                               tm_allocator* allocator, size_t size,
                                                               tm_stream* stream, tm_storage** out);

// Straight to the allocator where the storage is its own and the stream too.
static inline tm_status tm_storage_alloc(tm_allocator* allocator, size_t size, tm_stream* stream,
                                         tm_storage** out) {
  if (TM_UNLIKELY(!(allocator && out && size - 1 < (size_t)PTRDIFF_MAX &&
                    (stream == allocator->stream || allocator->ignores_stream) &&
                    allocator->vtable->alloc_storage))) {
    return tm_storage_alloc_general_(allocator, size, stream, out);
  }
  const tm_status status = allocator->vtable->alloc_storage(allocator, size, out);
  if (TM_UNLIKELY(status != TM_OK)) {
    return tm_storage_alloc_failed_(status, allocator, size, stream, out);
  }
  return TM_OK;
}

TM_EXTERN_C_END

#endif  // TM_ALLOC_STORAGE_H_
