// Pageable host memory, from libc. Device {TM_CPU, 0}, alignment 64, no stream.
#ifndef TM_ALLOC_HOST_H_
#define TM_ALLOC_HOST_H_

#include "tm/alloc/allocator.h"
#include "tm/base/attributes.h"

TM_EXTERN_C_BEGIN

// The process's host allocator. Never NULL, never counted, usable at any time, also while the
// process exits.
// Ownership: borrowed; retain and release do nothing.
// Threads: every operation is safe from any thread.
TM_API tm_allocator* tm_host_allocator(void);

TM_EXTERN_C_END

#endif  // TM_ALLOC_HOST_H_
