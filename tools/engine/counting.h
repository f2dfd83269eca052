// An allocator that passes everything on and counts it: what another allocator, or an engine, asks
// of its upstream.
//
// It may share a budget with others, which caps what they hold together: a device of which only a
// part may be used.
#ifndef ENGINE_COUNTING_H_
#define ENGINE_COUNTING_H_

#include <stdint.h>
#include <tm/tm.h>

// Bytes that several counting allocators may hold together.
typedef struct memory_budget {
  uint64_t limit_bytes;
  uint64_t used_bytes;  // read and written with __atomic
} memory_budget;

// Wraps `upstream`, whose device, stream and alignment it has. `budget` may be NULL: no cap.
// Its statistics are those of what went through it; reserved bytes are the live ones. Returns NULL
// on failure.
// Ownership: the caller owns one reference; it retains `upstream` and borrows `budget`, which must
//            outlive it.
// Errors: TM_ERR_INVALID (`upstream` is NULL), TM_ERR_NO_MEMORY.
// Threads: every operation is as safe as the upstream's.
TM_NODISCARD tm_allocator* counting_allocator_create(tm_allocator* upstream, memory_budget* budget);

// For a counting allocator: the most that was live since the last call of counting_restart_peak (or
// ever), in bytes.
uint64_t counting_recent_peak(tm_allocator* allocator);

// In which cudaMalloc takes memory from a device, and in which it hands it out, in bytes.
enum { COUNTING_GRANULE = 2 << 20, COUNTING_UNIT = 512 };

// For a counting allocator: the bytes that cudaMalloc would take from the device for what is live.
// Blocks of a granule or more have granules of their own, smaller ones share them.
uint64_t counting_granule_bytes(tm_allocator* allocator);

// Starts a new period for counting_recent_peak.
void counting_restart_peak(tm_allocator* allocator);

// From now on calls `hook` whenever more is live than ever since this call; NULL: nobody. Set
// again, it starts anew. Nobody else uses the allocator meanwhile.
void counting_on_new_peak(tm_allocator* allocator, void (*hook)(void));

#endif  // ENGINE_COUNTING_H_
