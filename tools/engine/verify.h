// Finds memory that two tensors use at once, whatever allocator hands it out.
//
// A verifying allocator wraps another one. It stamps every block on its stream when it is made, and
// checks the stamps on the stream when it is released, before the allocator underneath may use the
// memory again. A stamp is unique to its block, and lies where neighbours and reuse would show:
//
//    first 64 bytes                                                         last 64 bytes
//   |####|.....................|#|.....................|#|..............|####|
//                            4 KiB                   8 KiB: 8 bytes each
//
// So a stamp is lost where another stream writes the block too early or too late. Beside that, the
// ranges handed out are kept in an interval map, which shows an overlap at once.
// All is queued on the block's stream; nothing waits. Ask for findings when the streams are done.
#ifndef ENGINE_VERIFY_H_
#define ENGINE_VERIFY_H_

#include <stdint.h>
#include <tm/tm.h>

// What the verifying allocators of one run have found together.
typedef struct verifier verifier;

// How much of a block is watched.
typedef enum verify_depth {
  VERIFY_STAMPS,  // ranges and contents
  VERIFY_RANGES,  // ranges only: for weights and caches, whose every page a stamp would touch
} verify_depth;

// Returns NULL on failure.
// Ownership: the caller owns it and gives it back with verifier_destroy, after its allocators and
//            their blocks are gone and the streams are done.
// Errors: TM_ERR_NO_MEMORY.
TM_NODISCARD verifier* verifier_create(void);
void verifier_destroy(verifier* v);

// Findings so far: overlaps, lost stamps, and blocks that could not be checked.
// Threads: safe.
uint64_t verifier_findings(const verifier* v);

// Blocks whose stamps were checked so far.
// Threads: safe.
uint64_t verifier_checked(const verifier* v);

// The text of the first finding; "" where there is none. Borrowed. Call it when streams are done.
const char* verifier_first_finding(const verifier* v);

// Wraps `upstream`, whose device and stream it has. Where there is
// no stream, or no device, only ranges are watched. Returns NULL on failure.
// Ownership: the caller owns one reference; it retains `upstream` and borrows `v`.
// Errors: TM_ERR_INVALID (NULL), TM_ERR_NO_MEMORY.
// Threads: every operation is as safe as the upstream's.
TM_NODISCARD tm_allocator* verify_allocator_create(verifier* v, tm_allocator* upstream,
                                                   verify_depth depth);

#endif  // ENGINE_VERIFY_H_
