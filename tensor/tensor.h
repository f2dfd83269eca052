// Tensors: memory with an element type and a layout.
//
//   TM_WITH_ALLOCATOR(stack) {
//     tm_auto_tensor x = tm_empty(TM_SHAPE(tokens, 3 * hidden), TM_F16, TM_DEVICE);
//     tm_auto_tensor q = tm_slice(&x, TM_INDEX(0, 0), TM_INDEX(-1, hidden));  // the same memory
//     TM_TRY_TENSOR(heads, tm_transpose_move(tm_view(&x, TM_SHAPE(tokens, -1, 128)), 0, 1));
//   }                                                             // all released
//
// A tm_tensor is a value that holds one reference to its storage. Plain `=` copies the struct and
// not the reference: use tm_share for a second one, tm_move to pass one on. A function that returns
// a tensor returns an owned one, except where its name says `borrow`.
//
// Operations take `const tm_tensor*`. Each also has a form `_move` that consumes its argument, so
// that a chain leaks nothing. A null input gives a null result and leaves the earlier failure on
// record: check a chain once, at its end.
//
// Null is not empty: a tensor is null (tm_ok is false) where its dtype is; one without elements is
// ok, has no memory, and keeps device, dtype and shape. Threads: a tm_tensor is a plain value; the
// storage under it may be shared by threads.
#ifndef TM_TENSOR_TENSOR_H_
#define TM_TENSOR_TENSOR_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tm/alloc/allocator.h"
#include "tm/alloc/device.h"
#include "tm/alloc/storage.h"
#include "tm/alloc/stream.h"
#include "tm/base/attributes.h"
#include "tm/base/status.h"
#include "tm/tensor/buffer.h"
#include "tm/tensor/dtype.h"
#include "tm/tensor/layout.h"
#include "tm/tensor/shape.h"

TM_EXTERN_C_BEGIN

enum { TM_TENSOR_TEXT_SIZE = 416 };  // bytes that hold any tensor as text, the NUL included

// Only `layout.ranked - 1` entries of shape and stride are ever written, read or copied.
typedef struct tm_tensor {
  tm_storage* storage;  // NULL for foreign memory that is borrowed, and where there is none
  void* data;           // element 0; NULL where there are no elements, and nowhere else
  tm_device device;
  uint8_t dtype;  // a tm_dtype; 0 in a null tensor
  uint8_t flags;  // tm_handle_flags_
  tm_layout layout;
} tm_tensor;

//===-- Creating ----------------------------------------------------------===//

// A contiguous tensor from the context's innermost allocator of that device type, from the one on
// exactly that device, or from `allocator`. It is first and last used on the current stream.
// Contents are undefined. Null on failure. Errors: TM_ERR_INVALID (rank out of 0 to 8, a negative
// size, no dtype), TM_ERR_OVERFLOW,
//         TM_ERR_UNAVAILABLE (no such allocator), and those of the allocator; when memory runs out
//         the context's handlers are asked first.
static inline tm_tensor tm_empty(tm_shape shape, tm_dtype dtype, tm_device_type type);
static inline tm_tensor tm_empty_on(tm_shape shape, tm_dtype dtype, tm_device device);
static inline tm_tensor tm_empty_from(tm_allocator* allocator, tm_shape shape, tm_dtype dtype);

// The same with a layout: memory for all that it reaches, its cosize. Null on failure.
// Errors: as tm_empty, TM_ERR_INVALID (a null layout, negative strides).
TM_API TM_NODISCARD tm_tensor tm_empty_strided(const tm_layout* layout, tm_dtype dtype,
                                               tm_device_type type);
TM_API TM_NODISCARD tm_tensor tm_empty_strided_on(const tm_layout* layout, tm_dtype dtype,
                                                  tm_device device);
TM_API TM_NODISCARD tm_tensor tm_empty_strided_from(tm_allocator* allocator,
                                                    const tm_layout* layout, tm_dtype dtype);

// A contiguous tensor of the same shape, from the context: on the same device; on another device
// type; of another dtype; both. Null on failure.
// Errors: as tm_empty.
TM_API TM_NODISCARD tm_tensor tm_empty_like(const tm_tensor* tensor);
TM_API TM_NODISCARD tm_tensor tm_empty_like_on(const tm_tensor* tensor, tm_device_type type);
TM_API TM_NODISCARD tm_tensor tm_empty_like_as(const tm_tensor* tensor, tm_dtype dtype);
TM_API TM_NODISCARD tm_tensor tm_empty_like_as_on(const tm_tensor* tensor, tm_dtype dtype,
                                                  tm_device_type type);

// Contiguous memory that stays its owner's, who keeps it until every tensor on it is gone and its
// uses on streams are done. Null on failure.
// Errors: TM_ERR_INVALID (NULL for a shape with elements, a pointer not aligned to the element,
// rank,
//         sizes, no dtype, no such device), TM_ERR_OVERFLOW.
static inline tm_tensor tm_from_borrowed(void* data, tm_shape shape, tm_dtype dtype,
                                         tm_device device);

// Takes over `bytes` of memory at `data`, on which the tensor lies contiguously. `deleter` (which
// may be NULL) is called with `data`, `bytes` and `user` when the last reference is gone. Null on
// failure; then `data` stays the caller's and `deleter` is not called.
// Errors: as tm_from_borrowed, TM_ERR_OUT_OF_RANGE (fewer bytes than the shape takes),
//         TM_ERR_NO_MEMORY.
static inline tm_tensor tm_adopt(void* data, size_t bytes, tm_shape shape, tm_dtype dtype,
                                 tm_device device, tm_deleter deleter, void* user);

// A buffer's memory under a layout. The tensor holds a reference of its own. Null on failure.
// Errors: TM_ERR_OUT_OF_RANGE (the layout reaches beyond the buffer), TM_ERR_INVALID (a null
// layout,
//         negative sizes or strides), TM_ERR_OVERFLOW.
TM_API TM_NODISCARD tm_tensor tm_from_buffer(const tm_buffer* buffer, const tm_layout* layout);

// All of a buffer as a tensor of one dimension, with a reference of its own. Null where `buffer`
// is.
TM_API TM_NODISCARD tm_tensor tm_from_whole_buffer(const tm_buffer* buffer);

// The memory a tensor reaches, from its first element to its last, as a buffer with a reference of
// its own. Null where `tensor` is.
TM_API TM_NODISCARD tm_buffer tm_buffer_of(const tm_tensor* tensor);

// The same to the end of the storage: what a tensor can grow into with tm_from_buffer. That is
// beyond the buffer or the tensor that it was made of, where those end earlier. Memory that is
// borrowed from outside has no known end: as tm_buffer_of. Null where `tensor` is.
TM_API TM_NODISCARD tm_buffer tm_buffer_of_capacity(const tm_tensor* tensor);

//===-- Lifetime ----------------------------------------------------------===//

static inline void tm_reset_(tm_tensor* tensor) {
  tensor->storage = NULL;
  tensor->data = NULL;
  tensor->device = tm_device_make(TM_CPU, 0);
  tensor->dtype = TM_DTYPE_NULL;
  tensor->flags = 0;
  tensor->layout.ranked = 0;
}

static inline tm_tensor tm_null(void) {
  tm_tensor tensor;
  tm_reset_(&tensor);
  return tensor;
}

static inline bool tm_ok(const tm_tensor* tensor) { return tensor->dtype != TM_DTYPE_NULL; }

// Drops the tensor's reference and makes it null. Null is a no-op.
// Threads: safe from any thread.
static inline void tm_release(tm_tensor* tensor) {
  tm_storage* storage = tensor->flags & TM_BORROWED_ ? NULL : tensor->storage;
  tm_reset_(tensor);
  tm_storage_release(storage);
}

// The same for a tensor that nobody looks at again: it need not become null. Private.
static inline void tm_release_last_(const tm_tensor* tensor) {
  if (!(tensor->flags & TM_BORROWED_)) {
    tm_storage_release(tensor->storage);
  }
}

// A tm_tensor variable that is released at the end of its block.
#define tm_auto_tensor __attribute__((cleanup(tm_release_last_))) tm_tensor

// Hands the tensor's reference on, for example out of the function that made it: `*tensor` becomes
// null.
TM_API TM_NODISCARD tm_tensor tm_move(tm_tensor* tensor);

// A second reference to the same memory, also where `tensor` only borrows it.
TM_API TM_NODISCARD tm_tensor tm_share(const tm_tensor* tensor);

// The same memory without a reference: valid while `tensor` is, and releasing it does nothing.
TM_API TM_NODISCARD tm_tensor tm_borrow(const tm_tensor* tensor);

// Releases what `*tensor` holds, then lets it take `value` over.
TM_API void tm_assign(tm_tensor* tensor, tm_tensor value);

// Declares the auto tensor `name`, or returns the status from the calling function.
#define TM_TRY_TENSOR(name, call)     \
  tm_auto_tensor name = (call);       \
  if (TM_UNLIKELY(!tm_ok(&(name)))) { \
    return TM_NULL_HANDLE(#name);     \
  }                                   \
  (void)0

//===-- Asking ------------------------------------------------------------===//

// 0 for a null tensor as well.
static inline int32_t tm_rank(const tm_tensor* tensor) { return tm_layout_rank(&tensor->layout); }

static inline tm_dtype tm_dtype_of(const tm_tensor* tensor) { return (tm_dtype)tensor->dtype; }

static inline tm_device tm_device_of(const tm_tensor* tensor) { return tensor->device; }

// Rank 0 for a null tensor.
static inline tm_shape tm_shape_of(const tm_tensor* tensor) {
  return tm_layout_shape(&tensor->layout);
}

// Elements.
static inline int64_t tm_size(const tm_tensor* tensor) { return tm_layout_size(&tensor->layout); }

// Bytes of that many elements, rounded up to whole ones. A tensor that is not contiguous reaches
// further.
TM_API size_t tm_byte_size(const tm_tensor* tensor);

// A size, or a stride in elements; `dim` counts from the end where it is negative. -1 after raising
// TM_ERR_OUT_OF_RANGE where there is no such dimension; -1 for a null tensor.
TM_API int64_t tm_dim(const tm_tensor* tensor, int32_t dim);
TM_API int64_t tm_stride(const tm_tensor* tensor, int32_t dim);

// Writes "f16 device:0 (20,50):(50,1)", or "null"; cuts at `size` bytes, the terminating NUL
// included.
TM_API void tm_tensor_text(const tm_tensor* tensor, char* text, size_t size);

static inline bool tm_is_contiguous(const tm_tensor* tensor) {
  return tm_layout_is_contiguous(&tensor->layout);
}

// Element 0; NULL where there is none.
static inline void* tm_data(const tm_tensor* tensor) { return tensor->data; }

// Element 0, checked to be of `dtype`; NULL after raising TM_ERR_INVALID where it is not. NULL
// without raising where the tensor has no elements.
TM_API TM_NODISCARD void* tm_data_as(const tm_tensor* tensor, tm_dtype dtype);

// The same for a type of the language: float* x = TM_DATA(float, &tensor).
#define TM_DATA(type, tensor) ((type*)tm_data_as((tensor), TM_DTYPE_OF(type)))

// Whether the memory is only accounted for: code that launches kernels itself must not. See the dry
// allocator.
static inline bool tm_is_dry(const tm_tensor* tensor) {
  return tensor->storage && (tensor->storage->flags & TM_STORAGE_DRY_) != 0;
}

//===-- Views -------------------------------------------------------------===//

// New tensors on the same memory, as the layout functions of the same names say, with their errors.
// All return null on failure.

// Another shape; one size may be -1.
static inline tm_tensor tm_view(const tm_tensor* tensor, tm_shape shape);
static inline tm_tensor tm_view_move(tm_tensor tensor, tm_shape shape);

// The part that starts at `base`, of `size` elements per dimension; a size of -1 is the rest.
// Errors: also TM_ERR_INVALID where elements narrower than a byte would not start, or end, at a
// whole
//         byte.
static inline tm_tensor tm_slice(const tm_tensor* tensor, tm_shape base, tm_shape size);
static inline tm_tensor tm_slice_move(tm_tensor tensor, tm_shape base, tm_shape size);

// The same for the outermost dimension, all of the others.
static inline tm_tensor tm_slice_outer(const tm_tensor* tensor, int64_t base, int64_t size);
static inline tm_tensor tm_slice_outer_move(tm_tensor tensor, int64_t base, int64_t size);

// Dimension i of the result is dimension order[i].
static inline tm_tensor tm_permute(const tm_tensor* tensor, tm_shape order);
static inline tm_tensor tm_permute_move(tm_tensor tensor, tm_shape order);

// Exchanges two dimensions.
static inline tm_tensor tm_transpose(const tm_tensor* tensor, int32_t a, int32_t b);
static inline tm_tensor tm_transpose_move(tm_tensor tensor, int32_t a, int32_t b);

// Exchanges the two dimensions of a matrix.
// Errors: TM_ERR_INVALID (the rank is not 2).
static inline tm_tensor tm_t(const tm_tensor* tensor);
static inline tm_tensor tm_t_move(tm_tensor tensor);

// Drops a dimension of size 1.
static inline tm_tensor tm_squeeze(const tm_tensor* tensor, int32_t dim);
static inline tm_tensor tm_squeeze_move(tm_tensor tensor, int32_t dim);

// Inserts a dimension of size 1.
static inline tm_tensor tm_unsqueeze(const tm_tensor* tensor, int32_t dim);
static inline tm_tensor tm_unsqueeze_move(tm_tensor tensor, int32_t dim);

//===-- Streams -----------------------------------------------------------===//

// From here on the memory is also used on `stream`, which is neither the one the tensor was made on
// nor that of a tmcore copy: its free will wait for that use. See tm_storage_record_stream. Memory
// that is borrowed from outside is its owner's to keep: then, and for dry memory, this does
// nothing. Errors: as tm_storage_record_stream.
TM_API TM_NODISCARD tm_status tm_record_stream(const tm_tensor* tensor, tm_stream* stream);

//===-- What the inline functions call ------------------------------------===//

// A device type of -1: exactly `allocator`. An id of -1: any of that type.
TM_API tm_tensor tm_empty_(const tm_shape* shape, tm_dtype dtype, tm_device device,
                           tm_allocator* allocator);

// The same by rank, for shapes whose rank the compiler knows: they need not be in memory.
TM_API tm_tensor tm_empty_1_(int64_t a, tm_dtype dtype, tm_device device, tm_allocator* allocator);
TM_API tm_tensor tm_empty_2_(int64_t a, int64_t b, tm_dtype dtype, tm_device device,
                             tm_allocator* allocator);
TM_API tm_tensor tm_empty_3_(int64_t a, int64_t b, int64_t c, tm_dtype dtype, tm_device device,
                             tm_allocator* allocator);
TM_API tm_tensor tm_empty_4_(int64_t a, int64_t b, int64_t c, int64_t d, tm_dtype dtype,
                             tm_device device, tm_allocator* allocator);

static inline __attribute__((always_inline)) tm_tensor tm_empty_by_rank_(tm_shape shape,
                                                                         tm_dtype dtype,
                                                                         tm_device device,
                                                                         tm_allocator* allocator) {
  tm_shape sizes;
  switch (__builtin_constant_p(shape.rank) ? shape.rank : -1) {
    case 1:
      return tm_empty_1_(shape.dim[0], dtype, device, allocator);
    case 2:
      return tm_empty_2_(shape.dim[0], shape.dim[1], dtype, device, allocator);
    case 3:
      return tm_empty_3_(shape.dim[0], shape.dim[1], shape.dim[2], dtype, device, allocator);
    case 4:
      return tm_empty_4_(shape.dim[0], shape.dim[1], shape.dim[2], shape.dim[3], dtype, device,
                         allocator);
    default:
      tm_shape_copy_(&shape, &sizes);
      return tm_empty_(&sizes, dtype, device, allocator);
  }
}

TM_API tm_tensor tm_from_borrowed_(void* data, const tm_shape* shape, tm_dtype dtype,
                                   tm_device device);
TM_API tm_tensor tm_adopt_(void* data, size_t bytes, const tm_shape* shape, tm_dtype dtype,
                           tm_device device, tm_deleter deleter, void* user);
// `take` is a tm_take_.
TM_API tm_tensor tm_view_(const tm_tensor* tensor, const tm_shape* shape, int take);
TM_API tm_tensor tm_slice_(const tm_tensor* tensor, const tm_shape* base, const tm_shape* size,
                           int take);
TM_API tm_tensor tm_slice_outer_(const tm_tensor* tensor, int64_t base, int64_t size, int take);
TM_API tm_tensor tm_permute_(const tm_tensor* tensor, const tm_shape* order, int take);
TM_API tm_tensor tm_transpose_(const tm_tensor* tensor, int32_t a, int32_t b, int take);
TM_API tm_tensor tm_t_(const tm_tensor* tensor, int take);
TM_API tm_tensor tm_squeeze_(const tm_tensor* tensor, int32_t dim, int take);
TM_API tm_tensor tm_unsqueeze_(const tm_tensor* tensor, int32_t dim, int take);

TM_NODISCARD static inline __attribute__((always_inline)) tm_tensor tm_empty(tm_shape shape,
                                                                             tm_dtype dtype,
                                                                             tm_device_type type) {
  return tm_empty_by_rank_(shape, dtype, tm_device_any_(type), NULL);
}

TM_NODISCARD static inline __attribute__((always_inline)) tm_tensor tm_empty_on(tm_shape shape,
                                                                                tm_dtype dtype,
                                                                                tm_device device) {
  return tm_empty_by_rank_(shape, dtype, device, NULL);
}

TM_NODISCARD static inline __attribute__((always_inline)) tm_tensor tm_empty_from(
    tm_allocator* allocator, tm_shape shape, tm_dtype dtype) {
  return tm_empty_by_rank_(shape, dtype, tm_device_none_(), allocator);
}

TM_NODISCARD static inline tm_tensor tm_from_borrowed(void* data, tm_shape shape, tm_dtype dtype,
                                                      tm_device device) {
  tm_shape sizes;
  tm_shape_copy_(&shape, &sizes);
  return tm_from_borrowed_(data, &sizes, dtype, device);
}

TM_NODISCARD static inline tm_tensor tm_adopt(void* data, size_t bytes, tm_shape shape,
                                              tm_dtype dtype, tm_device device, tm_deleter deleter,
                                              void* user) {
  tm_shape sizes;
  tm_shape_copy_(&shape, &sizes);
  return tm_adopt_(data, bytes, &sizes, dtype, device, deleter, user);
}

TM_NODISCARD static inline tm_tensor tm_view(const tm_tensor* tensor, tm_shape shape) {
  tm_shape sizes;
  tm_shape_copy_(&shape, &sizes);
  return tm_view_(tensor, &sizes, TM_TAKE_SHARE_);
}

TM_NODISCARD static inline tm_tensor tm_view_move(tm_tensor tensor, tm_shape shape) {
  tm_shape sizes;
  tm_shape_copy_(&shape, &sizes);
  return tm_view_(&tensor, &sizes, TM_TAKE_MOVE_);
}

TM_NODISCARD static inline tm_tensor tm_slice(const tm_tensor* tensor, tm_shape base,
                                              tm_shape size) {
  tm_shape bases;
  tm_shape sizes;
  tm_shape_copy_(&base, &bases);
  tm_shape_copy_(&size, &sizes);
  return tm_slice_(tensor, &bases, &sizes, TM_TAKE_SHARE_);
}

TM_NODISCARD static inline tm_tensor tm_slice_move(tm_tensor tensor, tm_shape base, tm_shape size) {
  tm_shape bases;
  tm_shape sizes;
  tm_shape_copy_(&base, &bases);
  tm_shape_copy_(&size, &sizes);
  return tm_slice_(&tensor, &bases, &sizes, TM_TAKE_MOVE_);
}

TM_NODISCARD static inline tm_tensor tm_slice_outer(const tm_tensor* tensor, int64_t base,
                                                    int64_t size) {
  return tm_slice_outer_(tensor, base, size, TM_TAKE_SHARE_);
}

TM_NODISCARD static inline tm_tensor tm_slice_outer_move(tm_tensor tensor, int64_t base,
                                                         int64_t size) {
  return tm_slice_outer_(&tensor, base, size, TM_TAKE_MOVE_);
}

TM_NODISCARD static inline tm_tensor tm_permute(const tm_tensor* tensor, tm_shape order) {
  tm_shape dims;
  tm_shape_copy_(&order, &dims);
  return tm_permute_(tensor, &dims, TM_TAKE_SHARE_);
}

TM_NODISCARD static inline tm_tensor tm_permute_move(tm_tensor tensor, tm_shape order) {
  tm_shape dims;
  tm_shape_copy_(&order, &dims);
  return tm_permute_(&tensor, &dims, TM_TAKE_MOVE_);
}

TM_NODISCARD static inline tm_tensor tm_transpose(const tm_tensor* tensor, int32_t a, int32_t b) {
  return tm_transpose_(tensor, a, b, TM_TAKE_SHARE_);
}

TM_NODISCARD static inline tm_tensor tm_transpose_move(tm_tensor tensor, int32_t a, int32_t b) {
  return tm_transpose_(&tensor, a, b, TM_TAKE_MOVE_);
}

TM_NODISCARD static inline tm_tensor tm_t(const tm_tensor* tensor) {
  return tm_t_(tensor, TM_TAKE_SHARE_);
}

TM_NODISCARD static inline tm_tensor tm_t_move(tm_tensor tensor) {
  return tm_t_(&tensor, TM_TAKE_MOVE_);
}

TM_NODISCARD static inline tm_tensor tm_squeeze(const tm_tensor* tensor, int32_t dim) {
  return tm_squeeze_(tensor, dim, TM_TAKE_SHARE_);
}

TM_NODISCARD static inline tm_tensor tm_squeeze_move(tm_tensor tensor, int32_t dim) {
  return tm_squeeze_(&tensor, dim, TM_TAKE_MOVE_);
}

TM_NODISCARD static inline tm_tensor tm_unsqueeze(const tm_tensor* tensor, int32_t dim) {
  return tm_unsqueeze_(tensor, dim, TM_TAKE_SHARE_);
}

TM_NODISCARD static inline tm_tensor tm_unsqueeze_move(tm_tensor tensor, int32_t dim) {
  return tm_unsqueeze_(&tensor, dim, TM_TAKE_MOVE_);
}

TM_EXTERN_C_END

#endif  // TM_TENSOR_TENSOR_H_
