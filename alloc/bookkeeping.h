// The memory tmcore needs for itself: every heap call of the library goes through here, so that a
// test can make the first, second, ... nth one fail.
#ifndef TM_ALLOC_BOOKKEEPING_H_
#define TM_ALLOC_BOOKKEEPING_H_

#include <stddef.h>
#include <stdint.h>

#include "tm/base/attributes.h"

TM_EXTERN_C_BEGIN

// Returns `size` zeroed bytes aligned to 64, or NULL after raising TM_ERR_NO_MEMORY that names
// `what`: a noun phrase such as "a stack region", a literal and the call's own, since
// tools/allocation_sites.py tells calls by it.
// Ownership: the caller frees with tm_bookkeeping_free.
// Threads: safe.
TM_API TM_NODISCARD void* tm_bookkeeping_alloc(size_t size, const char* what);

// NULL is a no-op.
TM_API void tm_bookkeeping_free(void* pointer);

//===-- For tests ---------------------------------------------------------===//

// Makes the nth call from now on fail (1: the next one), on every thread; 0 turns that off. After
// it has failed once, calls succeed again.
TM_API void tm_bookkeeping_fail_nth(int64_t nth);

// What the call that failed last, whether by tm_bookkeeping_fail_nth or for want of memory, was
// for: its `what`. NULL: none has failed.
TM_API const char* tm_bookkeeping_failed_site(void);

// Calls of tm_bookkeeping_alloc in this process, those that failed included.
TM_API uint64_t tm_bookkeeping_calls(void);

// Blocks that were allocated and are not freed yet.
TM_API int64_t tm_bookkeeping_live(void);

TM_EXTERN_C_END

#endif  // TM_ALLOC_BOOKKEEPING_H_
