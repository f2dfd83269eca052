// The guard adaptor finds writes outside of blocks, and frees of what is no block:
//
//   |-- red zone --|------ block ------|-- red zone --|     what the upstream gives
//                  ^ what the caller gets
//
// A red zone before the block is as large as the alignment; the one behind begins at the last byte
// that was asked for, and is at least as large. The zones are filled at the allocation and looked
// at when the block is freed, or at tm_guard_check. A block that is freed is filled with 0xdd, so
// that reading it later shows.
//
// What is found at a free is fatal (tm/base/fatal.h), with the block, where it was allocated, and
// what is wrong: a zone that was written to, a second free, an address that is no block of this
// adaptor, another size than was allocated.
//
// The memory of devices is guarded by copies. A free then waits: for the block's stream, or where
// none is known for the whole device, which no capture of any of its streams survives. So does that
// of host memory which streams use. Memory that goes back to the driver at once (tm_cuda_allocator)
// is not filled at the free. While its stream is being captured nothing is filled or copied: an
// allocation is TM_ERR_CAPTURING, and a free is put off until the capture is over. On a lost
// device, in a forked child and where CUDA fails, blocks are freed without a look: tm_guard_get
// counts them.
//
// Over an allocator that is dry the guard is refused, since it touches memory. Adaptors pass sizes
// on as they were asked: under any of them the guard sees the last byte; under an arena it guards
// regions.
//
// Threads: any, at once, as far as the upstream allows: the adaptor asks it with no lock held.
#ifndef TM_ALLOC_GUARD_ADAPTOR_H_
#define TM_ALLOC_GUARD_ADAPTOR_H_

#include <stdint.h>

#include "tm/alloc/allocator.h"
#include "tm/base/attributes.h"
#include "tm/base/status.h"

TM_EXTERN_C_BEGIN

// Creates the adaptor. Returns NULL on failure.
// Ownership: the caller owns one reference; the adaptor retains `upstream`.
// Errors: TM_ERR_INVALID (NULL; dry, or over what is dry), TM_ERR_NO_MEMORY.
TM_API TM_NODISCARD tm_allocator* tm_guard_adaptor_create(tm_allocator* upstream);

// Looks at the red zones of every live block. On a device it waits for all that is queued there.
// Errors: TM_ERR_INVALID (NULL, or no guard adaptor), TM_ERR_CORRUPT (the first block found that
// was
//         written outside of; the message has how many there are), TM_ERR_CAPTURING,
//         TM_ERR_DEVICE_LOST, TM_ERR_UNAVAILABLE, TM_ERR_CUDA.
// Threads: safe; allocations and frees of the adaptor wait meanwhile.
TM_API TM_NODISCARD tm_status tm_guard_check(tm_allocator* guard);

typedef struct tm_guard_counts {
  uint64_t checked;    // blocks whose red zones were looked at when they were freed
  uint64_t unchecked;  // blocks that were freed without a look
} tm_guard_counts;

// Errors: TM_ERR_INVALID (NULL, or no guard adaptor). On error `*out` is all zero.
// Threads: safe.
TM_API TM_NODISCARD tm_status tm_guard_get(tm_allocator* guard, tm_guard_counts* out);

TM_EXTERN_C_END

#endif  // TM_ALLOC_GUARD_ADAPTOR_H_
