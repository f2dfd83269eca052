#include "tm/tensor/tensor.h"

#include <stdio.h>

#include "alloc/stack_allocator.h"
#include "tensor/layout_small.h"
#include "tensor/memory.h"
#include "tm/context/context.h"

//===-- Creating ----------------------------------------------------------===//

// One pass over the sizes, and no call: not even for the storage, where that comes from a stack.
// What is unusual (a size of 0, an argument that is wrong, no allocator, a rare rank) starts over
// in empty_general.
//
// There is a function per common rank, in which every field is set by itself and every index is a
// constant: then gcc builds the result where the caller wants it, instead of on the stack and
// copied.

enum { nowhere = -1 };  // the device type of a context that runs no out-of-memory handler

// Where to take memory from; NULL where there is nothing, where finding it takes calls, and inside
// an out-of-memory handler: there an allocator may have to refuse, also one that the handler
// pushed.
static inline tm_allocator* find_allocator(const tm_context* context, tm_device device,
                                           tm_allocator* allocator) {
  if (TM_UNLIKELY(context && context->failing.type != nowhere)) {
    return NULL;
  }
  if (TM_UNLIKELY(allocator != NULL)) {
    return allocator;
  }
  if (TM_LIKELY(context && device.id == -1 && (uint32_t)device.type < TM_DEVICE_TYPES)) {
    return context->current[TM_SLOT_ALLOCATOR_ + device.type];
  }
  if (context && device.type == TM_DEVICE && (uint32_t)device.id < TM_MAX_DEVICES) {
    return context->current[TM_SLOT_ON_DEVICE_ + device.id];
  }
  return NULL;
}

// Memory has run out: asks the context's handlers. NULL where they do not help.
static TM_COLD tm_storage* ask_handlers(tm_allocator* allocator, size_t bytes) {
  tm_storage* storage;
  (void)!tm_context_ask_handlers_(allocator, bytes, &storage);
  return storage;
}

// A storage that the allocator has to be called for. NULL on failure.
static __attribute__((noinline)) tm_storage* call_allocator(tm_allocator* from, size_t bytes) {
  const tm_context* const context = tm_thread_.context;
  tm_stream* const stream = context ? context->current[TM_SLOT_STREAM_] : NULL;
  tm_storage* storage;
  const tm_status status = tm_storage_alloc(from, bytes, stream, &storage);
  if (TM_UNLIKELY(status != TM_OK)) {
    return status == TM_ERR_NO_MEMORY ? ask_handlers(from, bytes) : NULL;
  }
  return storage;
}

// Whether `from` is a stack, and its stream the current one.
static inline bool is_stack_here(const tm_context* context, const tm_allocator* from) {
  return TM_LIKELY(from->vtable == &stack_vtable_) && TM_LIKELY(context != NULL) &&
         TM_LIKELY(context->current[TM_SLOT_STREAM_] == from->stream || from->ignores_stream);
}

// The storage of `elements`, more than 0. NULL where that fails, or where it cannot be tried here:
// then `*unusual` stays true.
static inline __attribute__((always_inline)) tm_storage* take_storage(
    int64_t elements, tm_dtype dtype, tm_device device, tm_allocator* allocator, bool* unusual) {
  const tm_context* const context = tm_thread_.context;
  tm_allocator* const from = find_allocator(context, device, allocator);
  const int64_t bits = tm_dtype_bits(dtype);
  int64_t size;
  if (TM_UNLIKELY(!from) || TM_UNLIKELY(bits == 0) ||
      TM_UNLIKELY(__builtin_mul_overflow(elements, bits, &size))) {
    return NULL;
  }
  *unusual = false;
  const size_t bytes = ((size_t)size + 7) / 8;
  tm_storage* const storage =
      is_stack_here(context, from) ? stack_try_alloc((stack_allocator*)from, bytes) : NULL;
  return TM_LIKELY(storage != NULL) ? storage : call_allocator(from, bytes);
}

// Every case, with every check and its words.
static TM_COLD tm_tensor empty_general(const tm_shape* shape, tm_dtype dtype, tm_device device,
                                       tm_allocator* allocator) {
  size_t bytes;
  tm_storage* storage;
  tm_tensor tensor;
  if (tm_layout_make_(shape, &tensor.layout) != TM_OK ||
      tm_dtype_bytes(dtype, tm_layout_size(&tensor.layout), &bytes) != TM_OK ||
      tm_memory_alloc_(device, allocator, bytes, &storage, &tensor.device) != TM_OK) {
    return tm_null();
  }
  tensor.storage = storage;
  tensor.data = storage ? storage->data : NULL;
  tensor.dtype = (uint8_t)dtype;
  tensor.flags = 0;
  return tensor;
}

static TM_COLD tm_tensor refuse(bool unusual, tm_shape shape, tm_dtype dtype, tm_device device,
                                tm_allocator* allocator) {
  return unusual ? empty_general(&shape, dtype, device, allocator) : tm_null();
}

static inline void set_memory(tm_tensor* tensor, tm_storage* storage, tm_dtype dtype) {
  tensor->storage = storage;
  tensor->data = storage->data;
  tensor->device.type = storage->allocator->device.type;
  tensor->device.id = storage->allocator->device.id;
  tensor->dtype = (uint8_t)dtype;
  tensor->flags = 0;
}

// Multiplies `*size` by a size that must be above 0 here.
static inline bool grow(int64_t* size, int64_t by) {
  return TM_LIKELY(by > 0) && TM_LIKELY(!__builtin_mul_overflow(*size, by, size));
}

tm_tensor tm_empty_1_(int64_t a, tm_dtype dtype, tm_device device, tm_allocator* allocator) {
  tm_tensor tensor;
  bool unusual = true;
  tm_storage* storage = NULL;
  if (TM_LIKELY(a > 0)) {
    storage = take_storage(a, dtype, device, allocator, &unusual);
  }
  if (TM_UNLIKELY(!storage)) {
    return refuse(unusual, tm_shape1_(a), dtype, device, allocator);
  }
  tensor.layout.ranked = 2;
  tensor.layout.shape[0] = a;
  tensor.layout.stride[0] = 1;
  set_memory(&tensor, storage, dtype);
  return tensor;
}

tm_tensor tm_empty_2_(int64_t a, int64_t b, tm_dtype dtype, tm_device device,
                      tm_allocator* allocator) {
  tm_tensor tensor;
  bool unusual = true;
  tm_storage* storage = NULL;
  int64_t size = b;
  if (TM_LIKELY(b > 0) && grow(&size, a)) {
    storage = take_storage(size, dtype, device, allocator, &unusual);
  }
  if (TM_UNLIKELY(!storage)) {
    return refuse(unusual, tm_shape2_(a, b), dtype, device, allocator);
  }
  tensor.layout.ranked = 3;
  tensor.layout.shape[0] = a;
  tensor.layout.shape[1] = b;
  tensor.layout.stride[0] = b;
  tensor.layout.stride[1] = 1;
  set_memory(&tensor, storage, dtype);
  return tensor;
}

tm_tensor tm_empty_3_(int64_t a, int64_t b, int64_t c, tm_dtype dtype, tm_device device,
                      tm_allocator* allocator) {
  tm_tensor tensor;
  bool unusual = true;
  tm_storage* storage = NULL;
  int64_t size = c;
  if (TM_LIKELY(c > 0) && grow(&size, b) && grow(&size, a)) {
    storage = take_storage(size, dtype, device, allocator, &unusual);
  }
  if (TM_UNLIKELY(!storage)) {
    return refuse(unusual, tm_shape3_(a, b, c), dtype, device, allocator);
  }
  tensor.layout.ranked = 4;
  tensor.layout.shape[0] = a;
  tensor.layout.shape[1] = b;
  tensor.layout.shape[2] = c;
  tensor.layout.stride[0] = b * c;
  tensor.layout.stride[1] = c;
  tensor.layout.stride[2] = 1;
  set_memory(&tensor, storage, dtype);
  return tensor;
}

tm_tensor tm_empty_4_(int64_t a, int64_t b, int64_t c, int64_t d, tm_dtype dtype, tm_device device,
                      tm_allocator* allocator) {
  tm_tensor tensor;
  bool unusual = true;
  tm_storage* storage = NULL;
  int64_t size = d;
  if (TM_LIKELY(d > 0) && grow(&size, c) && grow(&size, b) && grow(&size, a)) {
    storage = take_storage(size, dtype, device, allocator, &unusual);
  }
  if (TM_UNLIKELY(!storage)) {
    return refuse(unusual, tm_shape4_(a, b, c, d), dtype, device, allocator);
  }
  tensor.layout.ranked = 5;
  tensor.layout.shape[0] = a;
  tensor.layout.shape[1] = b;
  tensor.layout.shape[2] = c;
  tensor.layout.shape[3] = d;
  tensor.layout.stride[0] = b * c * d;
  tensor.layout.stride[1] = c * d;
  tensor.layout.stride[2] = d;
  tensor.layout.stride[3] = 1;
  set_memory(&tensor, storage, dtype);
  return tensor;
}

tm_tensor tm_empty_(const tm_shape* shape, tm_dtype dtype, tm_device device,
                    tm_allocator* allocator) {
  const int64_t* dim = shape->dim;
  switch (shape->rank) {
    case 1:
      return tm_empty_1_(dim[0], dtype, device, allocator);
    case 2:
      return tm_empty_2_(dim[0], dim[1], dtype, device, allocator);
    case 3:
      return tm_empty_3_(dim[0], dim[1], dim[2], dtype, device, allocator);
    case 4:
      return tm_empty_4_(dim[0], dim[1], dim[2], dim[3], dtype, device, allocator);
    default:
      return empty_general(shape, dtype, device, allocator);
  }
}

// Whether an operation can start on `tensor`; raises where not.
static bool is_usable(const tm_tensor* tensor) {
  if (TM_LIKELY(tm_ok(tensor))) {
    return true;
  }
  (void)TM_NULL_HANDLE("a tensor");
  return false;
}

tm_tensor tm_empty_like(const tm_tensor* tensor) {
  return is_usable(tensor) ? tm_empty_on(tm_shape_of(tensor), tm_dtype_of(tensor), tensor->device)
                           : tm_null();
}

tm_tensor tm_empty_like_on(const tm_tensor* tensor, tm_device_type type) {
  return is_usable(tensor) ? tm_empty(tm_shape_of(tensor), tm_dtype_of(tensor), type) : tm_null();
}

tm_tensor tm_empty_like_as(const tm_tensor* tensor, tm_dtype dtype) {
  return is_usable(tensor) ? tm_empty_on(tm_shape_of(tensor), dtype, tensor->device) : tm_null();
}

tm_tensor tm_empty_like_as_on(const tm_tensor* tensor, tm_dtype dtype, tm_device_type type) {
  return is_usable(tensor) ? tm_empty(tm_shape_of(tensor), dtype, type) : tm_null();
}

// Every entry is set by itself, with `rank` a constant where this is inlined, and the device in
// two: then gcc builds the result where the caller wants it, instead of on the stack and copied.
TM_INLINE_ tm_tensor make_of_rank(tm_storage* storage, void* data, const tm_layout* layout,
                                  tm_device device, uint8_t dtype, uint8_t flags,
                                  tm_tensor* emptied, int32_t rank) {
  tm_tensor tensor;
  tensor.storage = storage;
  tensor.data = data;
  tensor.device.type = device.type;
  tensor.device.id = device.id;
  tensor.dtype = dtype;
  tensor.flags = flags;
  tensor.layout.ranked = rank + 1;
  if (rank > 0) tm_layout_copy_dim_(layout, 0, &tensor.layout, 0);
  if (rank > 1) tm_layout_copy_dim_(layout, 1, &tensor.layout, 1);
  if (rank > 2) tm_layout_copy_dim_(layout, 2, &tensor.layout, 2);
  if (rank > 3) tm_layout_copy_dim_(layout, 3, &tensor.layout, 3);
  if (rank > 4) tm_layout_copy_dim_(layout, 4, &tensor.layout, 4);
  if (rank > 5) tm_layout_copy_dim_(layout, 5, &tensor.layout, 5);
  if (rank > 6) tm_layout_copy_dim_(layout, 6, &tensor.layout, 6);
  if (rank > 7) tm_layout_copy_dim_(layout, 7, &tensor.layout, 7);
  if (emptied) {
    tm_reset_(emptied);
  }
  return tensor;
}

// `emptied` is NULL, or a tensor that becomes null after that.
TM_INLINE_ tm_tensor make_handle(tm_storage* storage, void* data, const tm_layout* layout,
                                 tm_device device, uint8_t dtype, uint8_t flags,
                                 tm_tensor* emptied) {
  switch (layout->ranked - 1) {
    case 0:
      return make_of_rank(storage, data, layout, device, dtype, flags, emptied, 0);
    case 1:
      return make_of_rank(storage, data, layout, device, dtype, flags, emptied, 1);
    case 2:
      return make_of_rank(storage, data, layout, device, dtype, flags, emptied, 2);
    case 3:
      return make_of_rank(storage, data, layout, device, dtype, flags, emptied, 3);
    case 4:
      return make_of_rank(storage, data, layout, device, dtype, flags, emptied, 4);
    case 5:
      return make_of_rank(storage, data, layout, device, dtype, flags, emptied, 5);
    case 6:
      return make_of_rank(storage, data, layout, device, dtype, flags, emptied, 6);
    case 7:
      return make_of_rank(storage, data, layout, device, dtype, flags, emptied, 7);
    case 8:
      return make_of_rank(storage, data, layout, device, dtype, flags, emptied, 8);
    default:
      return make_of_rank(storage, data, layout, device, dtype, flags, emptied, -1);
  }
}

static __attribute__((noinline)) tm_tensor make(tm_storage* storage, void* data,
                                                const tm_layout* layout, tm_device device,
                                                tm_dtype dtype) {
  return make_handle(storage, data, layout, device, (uint8_t)dtype, 0, NULL);
}

// What foreign memory must satisfy to hold a tensor. Stores the tensor's layout and bytes.
static tm_status check_foreign(const void* data, const tm_shape* shape, tm_dtype dtype,
                               tm_device device, tm_layout* layout, size_t* bytes) {
  TM_TRY(tm_layout_make_(shape, layout));
  TM_TRY(tm_dtype_bytes(dtype, tm_layout_size(layout), bytes));
  return tm_memory_check_(data, *bytes, dtype, device);
}

tm_tensor tm_from_borrowed_(void* data, const tm_shape* shape, tm_dtype dtype, tm_device device) {
  tm_layout layout;
  size_t bytes;
  if (check_foreign(data, shape, dtype, device, &layout, &bytes) != TM_OK) {
    return tm_null();
  }
  return make(NULL, bytes ? data : NULL, &layout, device, dtype);
}

tm_tensor tm_adopt_(void* data, size_t bytes, const tm_shape* shape, tm_dtype dtype,
                    tm_device device, tm_deleter deleter, void* user) {
  tm_layout layout;
  size_t needed;
  tm_storage* storage;
  if (check_foreign(data, shape, dtype, device, &layout, &needed) != TM_OK) {
    return tm_null();
  }
  if (needed > bytes) {
    (void)TM_RAISE(TM_ERR_OUT_OF_RANGE, "a tensor of %zu bytes asked, %zu are adopted", needed,
                   bytes);
    return tm_null();
  }
  if (tm_storage_adopt(data, bytes, deleter, user, &storage) != TM_OK) {
    return tm_null();
  }
  return make(storage, needed ? data : NULL, &layout, device, dtype);
}

// Whether `layout`, which may have been filled in by hand, is one.
static tm_status check_layout(const tm_layout* layout) {
  const int32_t rank = layout->ranked - 1;
  const tm_shape shape = tm_shape_make(rank, layout->shape);
  const tm_shape stride = tm_shape_make(rank, layout->stride);
  tm_layout checked;
  return tm_layout_make_strided_(&shape, &stride, &checked);
}

static tm_status check_within(const tm_buffer* buffer, const tm_layout* layout) {
  TM_TRY(check_layout(layout));
  if (tm_layout_cosize(layout) <= buffer->size) {
    return TM_OK;
  }
  char text[TM_LAYOUT_TEXT_SIZE];
  tm_layout_text(layout, text, sizeof text);
  return TM_RAISE(TM_ERR_OUT_OF_RANGE, "layout %s reaches %lld elements, the buffer has %lld", text,
                  (long long)tm_layout_cosize(layout), (long long)buffer->size);
}

tm_tensor tm_from_buffer(const tm_buffer* buffer, const tm_layout* layout) {
  if (!tm_buffer_ok(buffer) || tm_layout_is_null(layout)) {
    (void)TM_NULL_HANDLE(tm_buffer_ok(buffer) ? "a layout" : "a buffer");
    return tm_null();
  }
  if (check_within(buffer, layout) != TM_OK) {
    return tm_null();
  }
  if (tm_layout_size(layout) == 0) {
    return make(NULL, NULL, layout, buffer->device, (tm_dtype)buffer->dtype);
  }
  return make(tm_storage_retain(buffer->storage), buffer->data, layout, buffer->device,
              (tm_dtype)buffer->dtype);
}

tm_tensor tm_from_whole_buffer(const tm_buffer* buffer) {
  tm_layout layout;
  if (!tm_buffer_ok(buffer)) {
    (void)TM_NULL_HANDLE("a buffer");
    return tm_null();
  }
  if (tm_layout_make(TM_SHAPE(buffer->size), &layout) != TM_OK) {
    return tm_null();
  }
  return make(tm_storage_retain(buffer->storage), buffer->data, &layout, buffer->device,
              (tm_dtype)buffer->dtype);
}

static tm_tensor empty_strided(const tm_layout* layout, tm_dtype dtype, tm_device device,
                               tm_allocator* allocator) {
  if (tm_layout_is_null(layout)) {
    (void)TM_NULL_HANDLE("a layout");
    return tm_null();
  }
  if (check_layout(layout) != TM_OK) {
    return tm_null();
  }
  tm_auto_buffer buffer = tm_buffer_empty_(tm_layout_cosize(layout), dtype, device, allocator);
  return tm_buffer_ok(&buffer) ? tm_from_buffer(&buffer, layout) : tm_null();
}

tm_tensor tm_empty_strided(const tm_layout* layout, tm_dtype dtype, tm_device_type type) {
  return empty_strided(layout, dtype, tm_device_any_(type), NULL);
}

tm_tensor tm_empty_strided_on(const tm_layout* layout, tm_dtype dtype, tm_device device) {
  return empty_strided(layout, dtype, device, NULL);
}

tm_tensor tm_empty_strided_from(tm_allocator* allocator, const tm_layout* layout, tm_dtype dtype) {
  return empty_strided(layout, dtype, tm_device_none_(), allocator);
}

// Memory that was adopted for a tensor without elements may be anywhere.
static bool is_aligned(const void* data, tm_dtype dtype) {
  const size_t bits = (size_t)tm_dtype_bits(dtype);
  return bits <= 8 || (uintptr_t)data % (bits / 8) == 0;
}

tm_buffer tm_buffer_of_capacity(const tm_tensor* tensor) {
  tm_buffer buffer = tm_buffer_of(tensor);
  const tm_storage* const storage = buffer.storage;
  const tm_dtype dtype = (tm_dtype)buffer.dtype;
  char* const begin = buffer.data || !storage ? buffer.data : storage->data;
  int64_t count;
  if (storage && is_aligned(begin, dtype)) {
    const size_t before = (size_t)(begin - (char*)storage->data);
    if (tm_dtype_count(dtype, storage->size - before, &count) == TM_OK) {
      buffer.data = count ? begin : NULL;
      buffer.size = count;
    }
  }
  return buffer;
}

tm_buffer tm_buffer_of(const tm_tensor* tensor) {
  if (!is_usable(tensor)) {
    return tm_buffer_null();
  }
  tm_buffer buffer;
  buffer.storage = tm_storage_retain(tensor->storage);
  buffer.data = tensor->data;
  buffer.size = tm_layout_cosize(&tensor->layout);
  buffer.device = tensor->device;
  buffer.dtype = tensor->dtype;
  buffer.flags = 0;
  return buffer;
}

//===-- Lifetime ----------------------------------------------------------===//

TM_INLINE_ tm_tensor copy(const tm_tensor* tensor, uint8_t flags, tm_tensor* emptied) {
  return make_handle(tensor->storage, tensor->data, &tensor->layout, tensor->device, tensor->dtype,
                     flags, emptied);
}

tm_tensor tm_share(const tm_tensor* tensor) {
  tm_storage_retain(tensor->storage);
  return copy(tensor, 0, NULL);
}

tm_tensor tm_borrow(const tm_tensor* tensor) { return copy(tensor, TM_BORROWED_, NULL); }

tm_tensor tm_move(tm_tensor* tensor) { return copy(tensor, tensor->flags, tensor); }

void tm_assign(tm_tensor* tensor, tm_tensor value) {
  tm_release(tensor);
  tensor->storage = value.storage;
  tensor->data = value.data;
  tensor->device = value.device;
  tensor->dtype = value.dtype;
  tensor->flags = value.flags;
  tm_layout_copy(&value.layout, &tensor->layout);
}

//===-- Asking ------------------------------------------------------------===//

size_t tm_byte_size(const tm_tensor* tensor) {
  size_t bytes = 0;
  return tm_ok(tensor) && tm_dtype_bytes(tm_dtype_of(tensor), tm_layout_size(&tensor->layout),
                                         &bytes) == TM_OK
             ? bytes
             : 0;
}

int64_t tm_dim(const tm_tensor* tensor, int32_t dim) {
  int64_t size = -1;
  if (is_usable(tensor)) {
    (void)!tm_layout_dim(&tensor->layout, dim, &size);
  }
  return size;
}

int64_t tm_stride(const tm_tensor* tensor, int32_t dim) {
  int64_t stride = -1;
  if (is_usable(tensor)) {
    (void)!tm_layout_stride(&tensor->layout, dim, &stride);
  }
  return stride;
}

void tm_tensor_text(const tm_tensor* tensor, char* text, size_t size) {
  if (!tm_ok(tensor)) {
    snprintf(text, size, "null");
    return;
  }
  char layout[TM_LAYOUT_TEXT_SIZE];
  char id[16] = "";
  tm_layout_text(&tensor->layout, layout, sizeof layout);
  if (tensor->device.type == TM_DEVICE) {
    snprintf(id, sizeof id, ":%d", (int)tensor->device.id);
  }
  snprintf(text, size, "%s %s%s %s", tm_dtype_name(tm_dtype_of(tensor)),
           tm_device_type_name((tm_device_type)tensor->device.type), id, layout);
}

void* tm_data_as(const tm_tensor* tensor, tm_dtype dtype) {
  if (!is_usable(tensor)) {
    return NULL;
  }
  if (tensor->dtype != dtype) {
    (void)TM_RAISE(TM_ERR_INVALID, "data of a tensor of %s asked as %s",
                   tm_dtype_name(tm_dtype_of(tensor)), tm_dtype_name(dtype));
    return NULL;
  }
  return tensor->data;
}

//===-- Views -------------------------------------------------------------===//

// Returns what `operation` makes, by a function for the common ranks, in which the rank is a
// constant, or by one for everything.
#define BY_RANK(rank, operation, ...)             \
  switch (rank) {                                 \
    case 1:                                       \
      return operation##_of_rank(__VA_ARGS__, 1); \
    case 2:                                       \
      return operation##_of_rank(__VA_ARGS__, 2); \
    case 3:                                       \
      return operation##_of_rank(__VA_ARGS__, 3); \
    case 4:                                       \
      return operation##_of_rank(__VA_ARGS__, 4); \
    default:                                      \
      return operation##_general(__VA_ARGS__);    \
  }                                               \
  (void)0

// Whether there is a tensor, with elements.
static inline bool has_elements(const tm_tensor* tensor) { return tm_ok(tensor) && tensor->data; }

// A view of `from`, which has elements, that begins `bytes` in.
TM_INLINE_ tm_tensor view_at(const tm_tensor* from, int64_t bytes, const tm_layout* layout,
                             int take, int32_t rank) {
  return make_of_rank(tm_memory_take_(from->storage, from->flags, take), (char*)from->data + bytes,
                      layout, from->device, from->dtype, 0, NULL, rank);
}

static tm_tensor give_up(const tm_tensor* source, int take) {
  tm_memory_drop_(source->storage, source->flags, take);
  return tm_null();
}

// The part of `source` that lies at `layout`, `offset` elements in, where making the layout was a
// success; null otherwise.
static tm_tensor derive(const tm_tensor* source, tm_status status, const tm_layout* layout,
                        int64_t offset, int take) {
  if (TM_UNLIKELY(status != TM_OK)) {
    return give_up(source, take);
  }
  const tm_dtype dtype = tm_dtype_of(source);
  if (TM_UNLIKELY(tm_layout_size(layout) == 0)) {
    tm_memory_drop_(source->storage, source->flags, take);
    return make(NULL, NULL, layout, source->device, dtype);
  }
  return make(tm_memory_take_(source->storage, source->flags, take),
              (char*)source->data + tm_memory_offset_(dtype, offset), layout, source->device,
              dtype);
}

static __attribute__((noinline)) tm_tensor view_general(const tm_tensor* tensor,
                                                        const tm_shape* shape, int take) {
  if (!is_usable(tensor)) {
    return give_up(tensor, take);
  }
  tm_layout layout;
  return derive(tensor, tm_layout_view_(&tensor->layout, shape, &layout), &layout, 0, take);
}

TM_INLINE_ tm_tensor view_of_rank(const tm_tensor* tensor, const tm_shape* shape, int take,
                                  int32_t rank) {
  tm_layout layout;
  if (TM_UNLIKELY(!(tm_ok(tensor) && tm_small_view_(&tensor->layout, shape, rank, &layout)))) {
    return view_general(tensor, shape, take);
  }
  return view_at(tensor, 0, &layout, take, rank);
}

tm_tensor tm_view_(const tm_tensor* tensor, const tm_shape* shape, int take) {
  BY_RANK(shape->rank, view, tensor, shape, take);
}

// Whether a slice of elements narrower than a byte shares no byte with what it leaves out.
static tm_status check_bytes(const tm_tensor* tensor, const tm_layout* slice, int64_t offset) {
  const tm_dtype dtype = tm_dtype_of(tensor);
  if (tm_dtype_bits(dtype) >= 8) {
    return TM_OK;
  }
  const int64_t end = offset + tm_layout_cosize(slice);
  if (tm_layout_size(slice) == 0 ||
      (tm_memory_at_byte_(dtype, offset) &&
       (tm_memory_at_byte_(dtype, end) || end == tm_layout_cosize(&tensor->layout)))) {
    return TM_OK;
  }
  return TM_RAISE(TM_ERR_INVALID,
                  "slice of a tensor of %s: elements %lld to %lld are no whole bytes",
                  tm_dtype_name(dtype), (long long)offset, (long long)end);
}

// The part of `tensor` at a slice of its layout.
static tm_tensor derive_slice(const tm_tensor* tensor, tm_status status, const tm_layout* slice,
                              int64_t offset, int take) {
  if (status == TM_OK) {
    status = check_bytes(tensor, slice, offset);
  }
  return derive(tensor, status, slice, offset, take);
}

static __attribute__((noinline)) tm_tensor slice_general(const tm_tensor* tensor,
                                                         const tm_shape* base, const tm_shape* size,
                                                         int take) {
  if (!is_usable(tensor)) {
    return give_up(tensor, take);
  }
  tm_layout layout;
  int64_t offset;
  const tm_status status = tm_layout_slice_(&tensor->layout, base, size, &layout, &offset);
  return derive_slice(tensor, status, &layout, offset, take);
}

TM_INLINE_ tm_tensor slice_of_rank(const tm_tensor* tensor, const tm_shape* base,
                                   const tm_shape* size, int take, int32_t rank) {
  tm_layout layout;
  const int64_t bits = tm_dtype_bits(tm_dtype_of(tensor));
  int64_t offset;
  if (TM_UNLIKELY(
          !(bits >= 8 && tm_small_slice_(&tensor->layout, base, size, rank, &layout, &offset)))) {
    return slice_general(tensor, base, size, take);
  }
  return view_at(tensor, offset * (bits / 8), &layout, take, rank);
}

tm_tensor tm_slice_(const tm_tensor* tensor, const tm_shape* base, const tm_shape* size, int take) {
  BY_RANK(tensor->layout.ranked - 1, slice, tensor, base, size, take);
}

static __attribute__((noinline)) tm_tensor slice_outer_general(const tm_tensor* tensor,
                                                               int64_t base, int64_t size,
                                                               int take) {
  if (!is_usable(tensor)) {
    return give_up(tensor, take);
  }
  tm_layout layout;
  int64_t offset;
  const tm_status status = tm_layout_slice_outer(&tensor->layout, base, size, &layout, &offset);
  return derive_slice(tensor, status, &layout, offset, take);
}

TM_INLINE_ tm_tensor slice_outer_of_rank(const tm_tensor* tensor, int64_t base, int64_t size,
                                         int take, int32_t rank) {
  tm_layout layout;
  const int64_t bits = tm_dtype_bits(tm_dtype_of(tensor));
  int64_t offset;
  if (TM_UNLIKELY(!(bits >= 8 &&
                    tm_small_slice_outer_(&tensor->layout, base, size, rank, &layout, &offset)))) {
    return slice_outer_general(tensor, base, size, take);
  }
  return view_at(tensor, offset * (bits / 8), &layout, take, rank);
}

tm_tensor tm_slice_outer_(const tm_tensor* tensor, int64_t base, int64_t size, int take) {
  BY_RANK(tensor->layout.ranked - 1, slice_outer, tensor, base, size, take);
}

static __attribute__((noinline)) tm_tensor permute_general(const tm_tensor* tensor,
                                                           const tm_shape* order, int take) {
  if (!is_usable(tensor)) {
    return give_up(tensor, take);
  }
  tm_layout layout;
  return derive(tensor, tm_layout_permute_(&tensor->layout, order, &layout), &layout, 0, take);
}

TM_INLINE_ tm_tensor permute_of_rank(const tm_tensor* tensor, const tm_shape* order, int take,
                                     int32_t rank) {
  tm_layout layout;
  if (TM_UNLIKELY(
          !(has_elements(tensor) && tm_small_permute_(&tensor->layout, order, rank, &layout)))) {
    return permute_general(tensor, order, take);
  }
  return view_at(tensor, 0, &layout, take, rank);
}

tm_tensor tm_permute_(const tm_tensor* tensor, const tm_shape* order, int take) {
  BY_RANK(tensor->layout.ranked - 1, permute, tensor, order, take);
}

static __attribute__((noinline)) tm_tensor transpose_general(const tm_tensor* tensor, int32_t a,
                                                             int32_t b, int take) {
  if (!is_usable(tensor)) {
    return give_up(tensor, take);
  }
  tm_layout layout;
  return derive(tensor, tm_layout_transpose(&tensor->layout, a, b, &layout), &layout, 0, take);
}

TM_INLINE_ tm_tensor transpose_of_rank(const tm_tensor* tensor, int32_t a, int32_t b, int take,
                                       int32_t rank) {
  tm_layout layout;
  if (TM_UNLIKELY(
          !(has_elements(tensor) && tm_small_transpose_(&tensor->layout, a, b, rank, &layout)))) {
    return transpose_general(tensor, a, b, take);
  }
  return view_at(tensor, 0, &layout, take, rank);
}

tm_tensor tm_transpose_(const tm_tensor* tensor, int32_t a, int32_t b, int take) {
  BY_RANK(tensor->layout.ranked - 1, transpose, tensor, a, b, take);
}

tm_tensor tm_t_(const tm_tensor* tensor, int take) {
  if (is_usable(tensor) && tm_rank(tensor) != 2) {
    (void)TM_RAISE(TM_ERR_INVALID, "tm_t of a tensor of rank %d: it exchanges the two of a matrix",
                   tm_rank(tensor));
    return give_up(tensor, take);
  }
  return tm_transpose_(tensor, 0, 1, take);
}

static __attribute__((noinline)) tm_tensor squeeze_general(const tm_tensor* tensor, int32_t dim,
                                                           int take) {
  if (!is_usable(tensor)) {
    return give_up(tensor, take);
  }
  tm_layout layout;
  return derive(tensor, tm_layout_squeeze(&tensor->layout, dim, &layout), &layout, 0, take);
}

TM_INLINE_ tm_tensor squeeze_of_rank(const tm_tensor* tensor, int32_t dim, int take, int32_t rank) {
  tm_layout layout;
  if (TM_UNLIKELY(
          !(has_elements(tensor) && tm_small_squeeze_(&tensor->layout, dim, rank, &layout)))) {
    return squeeze_general(tensor, dim, take);
  }
  return view_at(tensor, 0, &layout, take, rank);
}

tm_tensor tm_squeeze_(const tm_tensor* tensor, int32_t dim, int take) {
  BY_RANK(tensor->layout.ranked - 2, squeeze, tensor, dim, take);
}

tm_tensor tm_unsqueeze_(const tm_tensor* tensor, int32_t dim, int take) {
  if (!is_usable(tensor)) {
    return give_up(tensor, take);
  }
  tm_layout layout;
  return derive(tensor, tm_layout_unsqueeze(&tensor->layout, dim, &layout), &layout, 0, take);
}

//===-- Streams -----------------------------------------------------------===//

tm_status tm_record_stream(const tm_tensor* tensor, tm_stream* stream) {
  return tm_ok(tensor) ? tm_memory_record_(tensor->storage, stream) : TM_NULL_HANDLE("a tensor");
}
