#include "tensor/transfer.h"

#include "tensor/stream_use.h"
#include "tm/alloc/host.h"
#include "tm/alloc/stream.h"
#include "tm/context/context.h"
#include "tm/tensor/copy.h"

// Values pass between memory and files as they lie, and files have the lowest byte first.
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "values would have to be turned around");

enum { STAGING_SIZE = 4 << 20 };  // bytes

// Whether values of the tensor pass through the current stream.
static bool is_streamed(const tm_tensor* tensor) {
  return !tm_on_host_(tensor) && !tm_is_dry(tensor) && tm_size(tensor) != 0;
}

// A transfer in a capture would become part of the graph, and use memory that is gone when the
// graph runs; waiting for it would invalidate the capture.
static tm_status check_not_capturing(const tm_tensor* tensor) {
  return is_streamed(tensor)
             ? tm_stream_refuse_capture_(tm_current_stream(), "values between a device and a file")
             : TM_OK;
}

tm_status tm_transfer_check_(const tm_tensor* tensor) {
  if (tm_ok(tensor) && tm_is_dry(tensor)) {
    return TM_RAISE(TM_ERR_INVALID, "the values of a tensor of %zu bytes in dry memory are asked",
                    tm_byte_size(tensor));
  }
  return check_not_capturing(tensor);
}

tm_tensor tm_transfer_empty_(const tm_transfer_target* target, const tm_shape* shape,
                             tm_dtype dtype) {
  tm_auto_tensor made = target->allocator ? tm_empty_from(target->allocator, *shape, dtype)
                                          : tm_empty(*shape, dtype, target->type);
  return check_not_capturing(&made) == TM_OK ? tm_move(&made) : tm_null();
}

// The bytes of a contiguous tensor. A last one that elements fill in part is one of them.
static tm_buffer bytes_of(const tm_tensor* tensor) {
  tm_buffer bytes = tm_buffer_of(tensor);
  bytes.size = (int64_t)tm_byte_size(tensor);
  bytes.dtype = TM_U8;
  return bytes;
}

// Through a block of the host's, which a copy from pageable memory is done with when it returns.
static tm_status fill_staged(const tm_tensor* tensor, int64_t bytes, tm_transfer_read_ read,
                             void* user, uint64_t offset) {
  const int64_t most = bytes < STAGING_SIZE ? bytes : STAGING_SIZE;
  TM_TRY_BUFFER(staging, tm_buffer_empty_from(tm_host_allocator(), most, TM_U8));
  TM_TRY_BUFFER(all, bytes_of(tensor));
  for (int64_t done = 0; done < bytes; done += most) {
    const int64_t part = bytes - done < most ? bytes - done : most;
    TM_TRY_BUFFER(from, tm_buffer_slice(&staging, 0, part));
    TM_TRY_BUFFER(to, tm_buffer_slice(&all, done, part));
    TM_TRY(read(user, offset + (uint64_t)done, tm_buffer_data(&from), (size_t)part));
    TM_TRY(tm_buffer_copy(&from, &to));
  }
  return TM_OK;
}

tm_status tm_transfer_fill_(const tm_tensor* tensor, tm_transfer_read_ read, void* user,
                            uint64_t offset) {
  const size_t bytes = tm_byte_size(tensor);
  if (bytes == 0) {
    return TM_OK;
  }
  if (tm_on_host_(tensor) && !tm_is_dry(tensor)) {
    return read(user, offset, tm_data(tensor), bytes);
  }
  return fill_staged(tensor, (int64_t)bytes, read, user, offset);
}

// All that a tensor on a device reaches, under its layout on the host, when this returns.
static tm_tensor fetch(const tm_tensor* tensor) {
  tm_auto_buffer there = tm_buffer_of(tensor);
  tm_auto_buffer here = tm_buffer_empty_from(tm_host_allocator(), there.size, tm_dtype_of(tensor));
  if (!tm_buffer_ok(&here) || tm_buffer_copy(&there, &here) != TM_OK ||
      (is_streamed(tensor) && tm_stream_sync(tm_current_stream()) != TM_OK)) {
    return tm_null();
  }
  return tm_from_buffer(&here, &tensor->layout);
}

// A device sends layouts that are not contiguous in many calls, the host arranges them in memory:
// where no more than the elements would be fetched, all is, and arranged here.
static bool is_arranged_here(const tm_tensor* tensor) {
  return !tm_on_host_(tensor) && !tm_is_contiguous(tensor) &&
         tm_layout_cosize(&tensor->layout) <= tm_size(tensor);
}

tm_tensor tm_transfer_to_host_(const tm_tensor* tensor) {
  if (tm_transfer_check_(tensor) != TM_OK) {
    return tm_null();
  }
  tm_auto_tensor source = is_arranged_here(tensor) ? fetch(tensor) : tm_share(tensor);
  if (!tm_ok(&source) || (tm_on_host_(&source) && tm_is_contiguous(&source))) {
    return tm_move(&source);
  }
  tm_auto_tensor host =
      tm_empty_from(tm_host_allocator(), tm_shape_of(tensor), tm_dtype_of(tensor));
  if (!tm_ok(&host) || tm_copy(&source, &host) != TM_OK ||
      (is_streamed(&source) && tm_stream_sync(tm_current_stream()) != TM_OK)) {
    return tm_null();
  }
  return tm_move(&host);
}
