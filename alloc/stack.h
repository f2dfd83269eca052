// The stack allocator: an arena that bumps through one region of its upstream, for the
// activations of one step of an engine.
//
//   region           bump                          end
//    |--- in use ------|---------- free ------------|     frees come in reverse order: O(1)
//
// A free out of order is legal: the space comes back when everything above it is free. A request
// that does not fit opens a further region (at least 2 MiB). When the stack is next empty, or at
// tm_stack_reset, it goes on with one region of the high-water mark, so an iteration no larger
// than an earlier one makes no upstream call.
//
// Threads: one thread allocates, its owner: the first that does. tm_stack_hand_over lets the next
// one take over. A release on another thread goes onto a lock-free list which the owner takes in
// at its next call. An allocation by a thread that is not the owner is TM_ERR_BUSY.
// Lifetime: blocks keep the stack alive without counting it. Released with blocks alive, it
// closes, and whoever returns the last block destroys it.
#ifndef TM_ALLOC_STACK_H_
#define TM_ALLOC_STACK_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tm/alloc/allocator.h"
#include "tm/base/attributes.h"
#include "tm/base/status.h"

TM_EXTERN_C_BEGIN

typedef struct tm_stack_options {
  size_t initial_bytes;  // reserved at creation; 0: the first request opens the first region
  size_t maximum_bytes;  // held from the upstream at most, in all regions; 0: no limit
} tm_stack_options;

// Creates a stack over `upstream`, whose memory is used on `stream` (NULL: the upstream's own).
// `options` may be NULL. Returns NULL on failure.
// Ownership: the caller owns one reference; the stack retains `upstream` and `stream`.
// Errors: TM_ERR_INVALID (`upstream` is NULL; initial over maximum), and those of the upstream's
//         allocation where initial_bytes is not 0.
TM_API TM_NODISCARD tm_allocator* tm_stack_allocator_create(tm_allocator* upstream,
                                                            tm_stream* stream,
                                                            const tm_stack_options* options);

// Whether `allocator` is a stack.
TM_API bool tm_is_stack(const tm_allocator* allocator);

// The operations below:
// Errors: TM_ERR_INVALID (NULL, or no stack), TM_ERR_BUSY (not the owner), TM_ERR_NO_MEMORY (a
//         thread's first use of any stack), and what each says.
// Threads: the owner's; on a stack that is nobody's any one thread's, which does not become the
// owner. tm_allocator_trim and tm_allocator_get_stats are operations of this kind as well. In the
// statistics peak_live_bytes is the high-water mark.

// Has at least `bytes` free to allocate without an upstream call, in one piece above what is in
// use. This is the reservation that cannot fail later. It replaces an earlier one, and trimming
// leaves it alone: reserve 0 to give it up. Bookkeeping beyond 256 blocks may still come from the
// heap. Where memory runs out, the stack trims itself and tries once more, as an allocation does;
// tm_context_reserve also asks the context's handlers. Errors: also those of the upstream's
// allocation; then an earlier reservation still holds.
TM_API TM_NODISCARD tm_status tm_stack_reserve(tm_allocator* stack, size_t bytes);

// Starts an iteration: regions that still hold live blocks are retired until their last block is
// free, and allocation goes on in one region of the high-water mark.
// Errors: also TM_ERR_INVALID (pinned, with blocks live).
TM_API TM_NODISCARD tm_status tm_stack_reset(tm_allocator* stack);

// While pinned, the stack neither grows, moves nor trims: addresses stay valid for a captured graph
// that holds them, and the same requests find the same addresses. A request that does not fit is
// TM_ERR_NO_MEMORY. Pins nest. A stack can be pinned when all its live blocks lie in one region.
// Errors: also TM_ERR_INVALID (blocks live in several regions, nothing reserved yet; unpinned more
//         often than pinned), and where the region is to be obtained those of the upstream.
TM_API TM_NODISCARD tm_status tm_stack_pin(tm_allocator* stack);
TM_API TM_NODISCARD tm_status tm_stack_unpin(tm_allocator* stack);

// The calling thread gives the ownership up; the next thread that allocates takes it.
TM_API TM_NODISCARD tm_status tm_stack_hand_over(tm_allocator* stack);

// The high-water mark: the bytes that the requests so far would need in one unbounded region. On
// failure `*out` is 0.
TM_API TM_NODISCARD tm_status tm_stack_high_water_mark(tm_allocator* stack, size_t* out);

// The allocator the regions come from. Borrowed; NULL for what is no stack.
TM_API tm_allocator* tm_stack_upstream(const tm_allocator* stack);

// Private to tmcore: makes `to` the owner of a stack that is that already, or is owned by `from`,
// by nobody or by a thread that has ended. NULL means nobody. False, with nothing changed, where it
// is somebody else's.
struct tm_thread_identity;
bool tm_stack_pass_(tm_allocator* stack, struct tm_thread_identity* from,
                    struct tm_thread_identity* to);

TM_EXTERN_C_END

#endif  // TM_ALLOC_STACK_H_
