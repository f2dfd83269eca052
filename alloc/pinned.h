// Page-locked host memory, which devices copy from and to asynchronously: cudaHostAlloc behind a
// cache. Device {TM_CPU_PINNED, 0}, alignment 64, no stream of its own.
//
// cudaHostAlloc takes as long as many copies, so a freed block is parked and taken again. It is
// guarded by an event: freed on a stream, it is taken again only when what was queued there has
// been seen to be done. Nobody waits for that: meanwhile another block is taken, or a new one made.
//
// A block that is allocated for no stream (NULL) is taken again as soon as it is freed: then the
// program itself waits for copies that use it. Blocks are usable on every device.
#ifndef TM_ALLOC_PINNED_H_
#define TM_ALLOC_PINNED_H_

#include <stddef.h>

#include "tm/alloc/allocator.h"
#include "tm/base/attributes.h"

TM_EXTERN_C_BEGIN

// The process's pinned allocator, which is never counted. Never NULL; without a usable device, its
// allocations are TM_ERR_UNAVAILABLE, in the driver's own words. Freeing what is not a live block
// of it is fatal.
// A request is rounded up to a class, by at most an eighth or to 512 bytes: reserved bytes say so.
// tm_allocator_trim gives back what is parked and idle. That waits for the devices, as cudaFreeHost
// does; allocations that find a block, and frees, wait for nothing.
// Ownership: borrowed; retain and release do nothing.
// Threads: every operation is safe from any thread, whatever its current device, which stays.
TM_API tm_allocator* tm_pinned_allocator(void);

// How many bytes may stay parked when new memory is made; 1 GiB at first. What is above goes back
// then, the longest parked first, as far as it is idle.
// Threads: safe; holds from the next new block on.
TM_API void tm_pinned_set_cache_limit(size_t bytes);

TM_EXTERN_C_END

#endif  // TM_ALLOC_PINNED_H_
