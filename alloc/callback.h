// Memory from functions of the caller's: how NCCL, symmetric, shared or foreign memory comes in.
//
// The functions see the allocator's promises kept: `size` is not 0 and rounded to the alignment,
// and with a stream of its own, the allocator is asked on that stream only, and orders it with
// others.
#ifndef TM_ALLOC_CALLBACK_H_
#define TM_ALLOC_CALLBACK_H_

#include <stddef.h>

#include "tm/alloc/allocator.h"
#include "tm/alloc/device.h"
#include "tm/alloc/stream.h"
#include "tm/base/attributes.h"
#include "tm/base/status.h"

TM_EXTERN_C_BEGIN

typedef struct tm_callback_options {
  const char* name;   // for messages; copied, and cut to 31 bytes; NULL: "callback"
  tm_device device;   // where the memory is
  size_t alignment;   // bytes that every block is aligned to, a power of two; 0: the least that
                      // is allowed, 64 on the host and 256 on a device
  tm_stream* stream;  // that the memory is ordered on; NULL: on none, and the functions are told
                      // the stream of each block instead (which may be NULL)
  // Stores a block of `size` bytes in `*out`, or returns why not. A NULL block is no memory.
  tm_status (*alloc)(size_t size, tm_stream* stream, void** out, void* user);
  // Takes a block back, after all that is queued on `stream` now.
  void (*free)(void* ptr, size_t size, tm_stream* stream, void* user);
  // Optional: called with `user` when the allocator is destroyed.
  void (*destroy_user)(void* user);
  void* user;
} tm_callback_options;

// Creates an allocator that calls the functions of `options`. Returns NULL on failure; `user` then
// stays the caller's.
// A block that is not aligned as promised is given back to `free`, and the allocation is
// TM_ERR_INVALID; a status that `alloc` returns is the allocation's.
// Ownership: the caller owns one reference; the allocator retains `stream` and owns `user`.
// Errors: TM_ERR_INVALID (NULL options or functions, an unknown device, an alignment that is no
//         power of two or too small, a stream of another device), TM_ERR_NO_MEMORY.
// Threads: as the functions are; the allocator itself may be used from any thread.
TM_API TM_NODISCARD tm_allocator* tm_callback_allocator_create(const tm_callback_options* options);

TM_EXTERN_C_END

#endif  // TM_ALLOC_CALLBACK_H_
