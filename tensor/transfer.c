#include "tensor/transfer.h"
#include "tensor/stream_use.h"

#include "tm/alloc/host.h"
#include "tm/context/context.h"
#include "tm/tensor/copy.h"

enum { STAGING_SIZE = 4 << 20 };  // bytes

tm_tensor tm_transfer_empty_(const tm_transfer_target* target, const tm_shape* shape,
                             tm_dtype dtype) {
  return target->allocator ? tm_empty_from(target->allocator, *shape, dtype)
                           : tm_empty(*shape, dtype, target->type);
}

// Through a block of the host's, which a copy from pageable memory is done with when it returns.
static tm_status fill_staged(const tm_tensor* tensor, int64_t bytes, tm_transfer_read_ read,
                             void* user, uint64_t offset) {
  const int64_t most = bytes < STAGING_SIZE ? bytes : STAGING_SIZE;
  TM_TRY_BUFFER(staging, tm_buffer_empty_from(tm_host_allocator(), most, TM_U8));
  TM_TRY_BUFFER(all, tm_buffer_as_move(tm_buffer_of(tensor), TM_U8));
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

tm_tensor tm_transfer_to_host_(const tm_tensor* tensor) {
  if (tm_ok(tensor) && tm_is_dry(tensor)) {
    (void)TM_RAISE(TM_ERR_INVALID, "the values of a tensor of %zu bytes in dry memory are asked",
                   tm_byte_size(tensor));
    return tm_null();
  }
  if (!tm_ok(tensor) || (tm_on_host_(tensor) && tm_is_contiguous(tensor))) {
    return tm_share(tensor);
  }
  tm_auto_tensor host =
      tm_empty_from(tm_host_allocator(), tm_shape_of(tensor), tm_dtype_of(tensor));
  if (!tm_ok(&host) || tm_copy(tensor, &host) != TM_OK ||
      (!tm_on_host_(tensor) && tm_stream_sync(tm_current_stream()) != TM_OK)) {
    return tm_null();
  }
  return tm_move(&host);
}
