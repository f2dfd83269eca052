// The cached allocator: best fit over any upstream that is slow, such as cudaMalloc or pinned
// memory.
//
//   segment of the upstream  |-- live --|------ free ------|-- live --|---- free ----|
//
// It keeps what is freed in segments, joins neighbours that are free, and serves a request from the
// free block that fits best (two-level segregated fit, in O(1)). All bookkeeping is outside the
// memory. A request that does not fit gets a segment of its size (at least 2 MiB, and a few percent
// of what is held) in place of segments that are all free, so what is held follows what is needed.
// When nothing is live, several segments become one, of what was live at most.
//
// Order: device memory is ordered on the allocator's stream; a block is used again there at once,
// and other streams wait on the device, as for every allocator with a stream. Memory that the host
// writes (pinned, or the host's with a stream) is used again only when what was queued on the
// stream of its free has been seen to be done; nobody waits for that, other memory is taken
// meanwhile.
#ifndef TM_ALLOC_CACHED_H_
#define TM_ALLOC_CACHED_H_

#include <stdbool.h>
#include <stddef.h>

#include "tm/alloc/allocator.h"
#include "tm/base/attributes.h"

TM_EXTERN_C_BEGIN

typedef struct tm_cached_options {
  size_t initial_bytes;  // obtained at creation, in one segment; 0: nothing
  size_t maximum_bytes;  // held from the upstream at most, in whole multiples of its
                         // alignment; 0: no limit
} tm_cached_options;

// Creates a cache over `upstream`, ordered on `stream` (NULL: the upstream's own). `options` may be
// NULL. Returns NULL on failure.
// Device memory needs a stream, the upstream's or its own, unless it is dry. Over pinned memory
// without one, each block is ordered on the stream it is freed on, and for NULL it is used again at
// once, as with the pinned allocator.
// The upstream is never called while a stream that the request is for is being captured: what does
// not fit then is TM_ERR_CAPTURING. tm_allocator_trim gives back segments that are all free, and
// waits for the allocator's stream where the host has to see that it is done.
// Freeing what is not a live block, or with another size, is fatal.
// Ownership: the caller owns one reference; the cache retains `upstream` and `stream`. Its live
//            blocks keep it alive: released before them, it goes with the last.
// Errors: TM_ERR_INVALID (`upstream` is NULL; no stream; initial over maximum; a maximum
//         below the upstream's alignment), TM_ERR_NO_MEMORY,
//         and those of the upstream's allocation where initial_bytes is not 0.
// Threads: every operation is safe from any thread, by a mutex that is held for none of the
//          upstream's calls; those are made one at a time, and must not come back to the cache. In
//          the child of a fork a cache of the host's memory goes on.
TM_API TM_NODISCARD tm_allocator* tm_cached_allocator_create(tm_allocator* upstream,
                                                             tm_stream* stream,
                                                             const tm_cached_options* options);

// Whether `allocator` is a cache.
TM_API bool tm_is_cached(const tm_allocator* allocator);

// The allocator the segments come from. Borrowed; NULL for what is no cache.
TM_API tm_allocator* tm_cached_upstream(const tm_allocator* cached);

// For tests: whether the bookkeeping of a cache holds together: blocks cover their segments without
// overlap, free neighbours are joined, counts add up. O(blocks). False for what is no cache.
TM_API bool tm_cached_is_valid(tm_allocator* cached);

TM_EXTERN_C_END

#endif  // TM_ALLOC_CACHED_H_
