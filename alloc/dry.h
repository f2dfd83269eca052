// The dry allocator: addresses without memory, to plan with. It measures what code would need.
//
//   tm_auto_allocator dry = tm_dry_allocator_create(tm_device_make(TM_DEVICE, 0), NULL);
//   tm_auto_allocator stack = tm_stack_allocator_create(dry, NULL, NULL);  // needs no stream
//   TM_WITH_ALLOCATOR(stack) run_step(batch);
//   TM_TRY(tm_allocator_get_stats(stack, &stats));  // peak_live_bytes: what the step needs
//
// Its blocks carry a dry mark, also through the allocators above it: our copies, fills and stream
// records are checked and counted (tensor/dry.h) and touch nothing. Code that launches kernels
// itself asks tm_is_dry. The addresses lie where no process has memory, so whatever does touch them
// faults. No device is needed, and no stream: memory that is never touched has no order.
#ifndef TM_ALLOC_DRY_H_
#define TM_ALLOC_DRY_H_

#include <stddef.h>

#include "tm/alloc/allocator.h"
#include "tm/alloc/device.h"
#include "tm/base/attributes.h"

TM_EXTERN_C_BEGIN

typedef struct tm_dry_options {
  size_t maximum_bytes;  // live at most, so that running out can be planned; 0: no limit
} tm_dry_options;

// Creates a dry allocator whose blocks claim to be on `device`, which need not exist. `options` may
// be NULL. Returns NULL on failure.
// Sizes are rounded as on the real device. Every block has an address of its own among all live
// blocks of all dry allocators, aligned to 256. Together they have 16 PiB of addresses, which are
// used again by stretches of 16 TiB, once nothing of a stretch is live. In the statistics what is
// live is reserved, and there are no upstream calls.
// Ownership: the caller owns one reference.
// Errors: TM_ERR_INVALID (there is no such device), TM_ERR_NO_MEMORY.
// Threads: every operation is safe from any thread, also in the child of a fork.
TM_API TM_NODISCARD tm_allocator* tm_dry_allocator_create(tm_device device,
                                                          const tm_dry_options* options);

TM_EXTERN_C_END

#endif  // TM_ALLOC_DRY_H_
