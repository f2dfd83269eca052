// Buffers: a run of elements of one type, without a shape.
//
// A tm_buffer is a value that holds one reference to its storage. Plain `=` copies the struct and
// not the reference: use tm_buffer_share for a second one, tm_buffer_move to pass one on. A
// function that returns a buffer returns an owned one, except where its name says `borrow`.
//
//   tm_auto_buffer ids = tm_buffer_empty(batch, TM_I32, TM_CPU_PINNED);  // released with the block
//
// Null is not empty: a buffer is null (tm_buffer_ok is false) where its dtype is; one of 0 elements
// is ok, has no memory, and keeps device and dtype. A null input gives a null result and leaves the
// earlier failure on record.
// Threads: a tm_buffer is a plain value; the storage under it may be shared by threads.
#ifndef TM_TENSOR_BUFFER_H_
#define TM_TENSOR_BUFFER_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tm/alloc/allocator.h"
#include "tm/alloc/device.h"
#include "tm/alloc/storage.h"
#include "tm/alloc/stream.h"
#include "tm/base/attributes.h"
#include "tm/base/status.h"
#include "tm/tensor/dtype.h"

TM_EXTERN_C_BEGIN

typedef struct tm_buffer {
  tm_storage* storage;  // NULL for foreign memory that is borrowed, and where there is none
  void* data;           // element 0; NULL only where `size` is 0
  int64_t size;         // elements
  tm_device device;
  uint8_t dtype;  // a tm_dtype; 0 in a null buffer
  uint8_t flags;  // tm_handle_flags_
} tm_buffer;

enum { TM_BUFFER_TEXT_SIZE = 96 };  // bytes that hold any buffer as text, the NUL included

enum tm_handle_flags_ {
  TM_BORROWED_ = 1,  // the reference to `storage` is somebody else's
};

//===-- Creating ----------------------------------------------------------===//

// `size` elements from the context's innermost allocator of that device type, from the one on
// exactly that device, or from `allocator`. Contents are undefined. Null on failure. Errors:
// TM_ERR_INVALID (a negative size, no dtype), TM_ERR_OVERFLOW, TM_ERR_UNAVAILABLE (no such
//         allocator), and those of the allocator; when memory runs out the context's handlers are
//         asked first.
static inline tm_buffer tm_buffer_empty(int64_t size, tm_dtype dtype, tm_device_type type);
static inline tm_buffer tm_buffer_empty_on(int64_t size, tm_dtype dtype, tm_device device);
static inline tm_buffer tm_buffer_empty_from(tm_allocator* allocator, int64_t size, tm_dtype dtype);

// As many elements, from the context: on the same device; on another device type; of another dtype;
// both.
TM_API TM_NODISCARD tm_buffer tm_buffer_empty_like(const tm_buffer* buffer);
TM_API TM_NODISCARD tm_buffer tm_buffer_empty_like_on(const tm_buffer* buffer, tm_device_type type);
TM_API TM_NODISCARD tm_buffer tm_buffer_empty_like_as(const tm_buffer* buffer, tm_dtype dtype);
TM_API TM_NODISCARD tm_buffer tm_buffer_empty_like_as_on(const tm_buffer* buffer, tm_dtype dtype,
                                                         tm_device_type type);

// Memory that stays its owner's, who keeps it until every buffer and tensor on it is gone and its
// uses on streams are done. Null on failure.
// Errors: TM_ERR_INVALID (NULL for a size above 0, a pointer not aligned to the element, a negative
//         size, no dtype, no such device), TM_ERR_OVERFLOW.
TM_API TM_NODISCARD tm_buffer tm_buffer_from_borrowed(void* data, int64_t size, tm_dtype dtype,
                                                      tm_device device);

// Takes over `bytes` of memory at `data`, of which the buffer shows `size` elements. `deleter`
// (which may be NULL) is called with `data`, `bytes` and `user` when the last reference is gone.
// Null on failure; then `data` stays the caller's and `deleter` is not called. Errors: as
// tm_buffer_from_borrowed, TM_ERR_OUT_OF_RANGE (fewer bytes than the elements take),
//         TM_ERR_NO_MEMORY.
TM_API TM_NODISCARD tm_buffer tm_buffer_adopt(void* data, size_t bytes, int64_t size,
                                              tm_dtype dtype, tm_device device, tm_deleter deleter,
                                              void* user);

//===-- Lifetime ----------------------------------------------------------===//

static inline tm_buffer tm_buffer_null(void) {
  tm_buffer buffer;
  buffer.storage = NULL;
  buffer.data = NULL;
  buffer.size = 0;
  buffer.device = tm_device_make(TM_CPU, 0);
  buffer.dtype = TM_DTYPE_NULL;
  buffer.flags = 0;
  return buffer;
}

static inline bool tm_buffer_ok(const tm_buffer* buffer) { return buffer->dtype != TM_DTYPE_NULL; }

// Drops the buffer's reference and makes it null. Null is a no-op.
// Threads: safe from any thread.
static inline void tm_buffer_release(tm_buffer* buffer) {
  tm_storage* storage = buffer->flags & TM_BORROWED_ ? NULL : buffer->storage;
  *buffer = tm_buffer_null();
  tm_storage_release(storage);
}

// A tm_buffer variable that is released at the end of its block.
#define tm_auto_buffer __attribute__((cleanup(tm_buffer_release))) tm_buffer

// Hands the buffer's reference on: `*buffer` becomes null.
TM_NODISCARD static inline tm_buffer tm_buffer_move(tm_buffer* buffer) {
  tm_buffer moved = *buffer;
  *buffer = tm_buffer_null();
  return moved;
}

// A second reference to the same memory, also where `buffer` only borrows it.
TM_NODISCARD static inline tm_buffer tm_buffer_share(const tm_buffer* buffer) {
  tm_buffer shared = *buffer;
  shared.flags = 0;
  tm_storage_retain(shared.storage);
  return shared;
}

// The same memory without a reference: valid while `buffer` is, and releasing it does nothing.
TM_NODISCARD static inline tm_buffer tm_buffer_borrow(const tm_buffer* buffer) {
  tm_buffer borrowed = *buffer;
  borrowed.flags = TM_BORROWED_;
  return borrowed;
}

// Releases what `*buffer` holds, then lets it take `value` over.
static inline void tm_buffer_assign(tm_buffer* buffer, tm_buffer value) {
  tm_buffer_release(buffer);
  *buffer = value;
}

// Declares the auto buffer `name`, or returns the status from the calling function.
#define TM_TRY_BUFFER(name, call)            \
  tm_auto_buffer name = (call);              \
  if (TM_UNLIKELY(!tm_buffer_ok(&(name)))) { \
    return TM_NULL_HANDLE(#name);            \
  }                                          \
  (void)0

//===-- Asking ------------------------------------------------------------===//

// Bytes, rounded up to whole ones; 0 for a null buffer.
TM_API size_t tm_buffer_byte_size(const tm_buffer* buffer);

// Element 0; NULL where there is none.
static inline void* tm_buffer_data(const tm_buffer* buffer) { return buffer->data; }

// Element 0, checked to be of `dtype`; NULL after raising TM_ERR_INVALID where it is not. NULL
// without raising where the buffer has no elements.
TM_API TM_NODISCARD void* tm_buffer_data_as(const tm_buffer* buffer, tm_dtype dtype);

// The same for a type of the language: float* x = TM_BUFFER_DATA(float, &buffer).
#define TM_BUFFER_DATA(type, buffer) ((type*)tm_buffer_data_as((buffer), TM_DTYPE_OF(type)))

// The same, but `other` where there is no memory: of a null buffer, and of one without elements.
// Ownership: `other` stays the caller's, as it was.
static inline void* tm_buffer_data_or(const tm_buffer* buffer, tm_dtype dtype, void* other);
#define TM_BUFFER_DATA_OR(type, buffer, other) \
  ((type*)tm_buffer_data_or((buffer), TM_DTYPE_OF(type), (other)))

// Element `index`, whatever its type; where `index` is the size, the end. NULL on failure, and
// without raising where the buffer has no elements and `index` is 0.
// Errors: TM_ERR_OUT_OF_RANGE (below 0 or above the size), TM_ERR_INVALID (null; an
//         element narrower than a byte that does not begin at a whole one).
TM_API TM_NODISCARD void* tm_buffer_data_at(const tm_buffer* buffer, int64_t index);

// Whether two buffers are the same elements: the same memory, size, dtype and device. What the
// memory holds is not read. Two null buffers are equal.
TM_API bool tm_buffer_equal(const tm_buffer* a, const tm_buffer* b);

// Writes "i32[4]@0x7f0c5a000000+12": type, elements, where the storage begins and, unless it is 0,
// how many elements further on the buffer does ("+3B": bytes, where that is no whole number).
// Writes "null" for a null buffer; cuts at `size` bytes, the terminating NUL included.
TM_API void tm_buffer_text(const tm_buffer* buffer, char* text, size_t size);

// Whether the memory is only accounted for: nothing may touch it. See the dry allocator.
static inline bool tm_buffer_is_dry(const tm_buffer* buffer) {
  return buffer->storage && (buffer->storage->flags & TM_STORAGE_DRY_) != 0;
}

//===-- Changing ----------------------------------------------------------===//

// Each has a form that consumes its argument, for chains: tm_buffer_as_move(tm_buffer_slice(...)).

// `size` elements from `base` on; a size of -1 is the rest. Null on failure.
// Errors: TM_ERR_OUT_OF_RANGE (a base below 0 or beyond the end, a size that reaches beyond it),
//         TM_ERR_INVALID (a size below -1; elements narrower than a byte that do not start, or end,
//         at a whole byte).
static inline tm_buffer tm_buffer_slice(const tm_buffer* buffer, int64_t base, int64_t size);
static inline tm_buffer tm_buffer_slice_move(tm_buffer buffer, int64_t base, int64_t size);

// The same bytes as elements of another type. Null on failure.
// Errors: TM_ERR_INVALID (bytes that are no whole number of those elements, an address that is not
//         aligned to them, no dtype).
static inline tm_buffer tm_buffer_as(const tm_buffer* buffer, tm_dtype dtype);
static inline tm_buffer tm_buffer_as_move(tm_buffer buffer, tm_dtype dtype);

// From here on the memory is also used on `stream`: see tm_storage_record_stream. Memory that is
// borrowed from outside is its owner's to keep: then, and for dry memory, this does nothing.
// Errors: as tm_storage_record_stream.
TM_API TM_NODISCARD tm_status tm_buffer_record_stream(const tm_buffer* buffer, tm_stream* stream);

//===-- What the inline functions call ------------------------------------===//

enum tm_take_ {
  TM_TAKE_SHARE_ = 0,  // the result holds a reference of its own
  TM_TAKE_MOVE_ = 1,   // the result takes the argument's over; on failure that is released
};

// A device type of -1: exactly `allocator`. An id of -1: any of that type.
TM_API tm_buffer tm_buffer_empty_(int64_t size, tm_dtype dtype, tm_device device,
                                  tm_allocator* allocator);
TM_API tm_buffer tm_buffer_slice_(const tm_buffer* buffer, int64_t base, int64_t size, int take);
TM_API tm_buffer tm_buffer_as_(const tm_buffer* buffer, tm_dtype dtype, int take);

static inline tm_device tm_device_any_(tm_device_type type) { return tm_device_make(type, -1); }
static inline tm_device tm_device_none_(void) {
  tm_device device;
  device.type = -1;
  device.id = -1;
  return device;
}

TM_NODISCARD static inline void* tm_buffer_data_or(const tm_buffer* buffer, tm_dtype dtype,
                                                   void* other) {
  return buffer->data ? tm_buffer_data_as(buffer, dtype) : other;
}

TM_NODISCARD static inline tm_buffer tm_buffer_empty(int64_t size, tm_dtype dtype,
                                                     tm_device_type type) {
  return tm_buffer_empty_(size, dtype, tm_device_any_(type), NULL);
}

TM_NODISCARD static inline tm_buffer tm_buffer_empty_on(int64_t size, tm_dtype dtype,
                                                        tm_device device) {
  return tm_buffer_empty_(size, dtype, device, NULL);
}

TM_NODISCARD static inline tm_buffer tm_buffer_empty_from(tm_allocator* allocator, int64_t size,
                                                          tm_dtype dtype) {
  return tm_buffer_empty_(size, dtype, tm_device_none_(), allocator);
}

TM_NODISCARD static inline tm_buffer tm_buffer_slice(const tm_buffer* buffer, int64_t base,
                                                     int64_t size) {
  return tm_buffer_slice_(buffer, base, size, TM_TAKE_SHARE_);
}

TM_NODISCARD static inline tm_buffer tm_buffer_slice_move(tm_buffer buffer, int64_t base,
                                                          int64_t size) {
  return tm_buffer_slice_(&buffer, base, size, TM_TAKE_MOVE_);
}

TM_NODISCARD static inline tm_buffer tm_buffer_as(const tm_buffer* buffer, tm_dtype dtype) {
  return tm_buffer_as_(buffer, dtype, TM_TAKE_SHARE_);
}

TM_NODISCARD static inline tm_buffer tm_buffer_as_move(tm_buffer buffer, tm_dtype dtype) {
  return tm_buffer_as_(&buffer, dtype, TM_TAKE_MOVE_);
}

TM_EXTERN_C_END

#endif  // TM_TENSOR_BUFFER_H_
