// The locked adaptor makes any upstream usable from all threads at once: one call at a time reaches
// it, whichever thread makes it.
//
//   tm_auto_allocator foreign = tm_callback_allocator_create(...);  // functions without a lock
//   tm_auto_allocator shared = tm_locked_adaptor_create(foreign);
//
// From its creation on the upstream is used through the adaptor only.
//
// What a mutex cannot make safe is refused: an arena belongs to the thread that allocates from it,
// and so does everything over one. Give each thread an arena of its own, over the locked adaptor.
// So is a second lock around an upstream that has one already, since the two would not exclude each
// other.
//
// Threads: any, at once; that is what it is for. An upstream that calls the adaptor back on the
// same thread is let in. A fork waits for the call that is in the upstream, for a second at most:
// where that is not over, the child cannot use the adaptor (TM_ERR_UNAVAILABLE, and frees do
// nothing).
#ifndef TM_ALLOC_LOCKED_ADAPTOR_H_
#define TM_ALLOC_LOCKED_ADAPTOR_H_

#include "tm/alloc/allocator.h"
#include "tm/base/attributes.h"
#include "tm/base/status.h"

TM_EXTERN_C_BEGIN

// Creates the adaptor. Returns NULL on failure.
// Ownership: the caller owns one reference; the adaptor retains `upstream`.
// Errors: TM_ERR_INVALID (NULL; a stack, or anything over one; an upstream that another locked
//         adaptor is over, unless it is one of the process's), TM_ERR_NO_MEMORY.
// Threads: safe.
TM_API TM_NODISCARD tm_allocator* tm_locked_adaptor_create(tm_allocator* upstream);

TM_EXTERN_C_END

#endif  // TM_ALLOC_LOCKED_ADAPTOR_H_
