// The checks of what the program does with memory: of each piece of work against what nothing
// orders before it, of each free, and of what is left at the end. All are made in the order of the
// calls, whatever the schedule does, and only while the checker is on: every caller asks
// check_is_on(). Guarded by the runtime's lock.
//
// Of an allocation are kept those uses that a later one might not come after: not what the host has
// waited for, and not what is covered by a use that comes after it. So a queue may be long.
#ifndef CUDASIM_CHECK_H_
#define CUDASIM_CHECK_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cudasim/copy.h"
#include "cudasim/graph_exec.h"
#include "cudasim/order.h"
#include "cudasim/report.h"
#include "cudasim/stream.h"

// Memory that a piece of work reads or writes.
typedef struct use {
  side where;
  box extent;
  bool writes;
} use;

#define MOST_USES CUDASIM_MAX_RANGES  // of one piece of work

typedef enum memory_kind {
  MEMORY_DEVICE,  // cudaMalloc's
  MEMORY_POOL,
  MEMORY_PINNED,  // cudaHostAlloc's
  MEMORY_REGISTERED,
} memory_kind;

//===-- Work ----------------------------------------------------------------------------------===//

// Work that is about to be queued in `s`.
void sim_check_copy(const stream* s, const copy_request* r);
void sim_check_fill(const stream* s, const fill_request* r);
void sim_check_kernel(const stream* s, const struct kernel_run* r);

// The copies of one batch, between which there is no order: all at the time that the batch begins.
uint64_t sim_check_batch_begin(const stream* s);
void sim_check_batch_copy(const stream* s, const copy_request* r, uint64_t time);

// All nodes of a graph that is launched in `s`; and, once, against each other.
void sim_check_launch(const stream* s, const step* steps, size_t count);
void sim_check_graph(node* const* nodes, size_t count);

//===-- Allocations ---------------------------------------------------------------------------===//

// `s` is NULL for memory that all streams may use at once.
void sim_check_made(const void* p, size_t bytes, memory_kind kind, const stream* s);

// The live allocation at `p` is freed in `s`; or at once, where that is NULL.
void sim_check_freed(const void* p, const stream* s);

// The runtime refuses to free `p`.
void sim_check_refused_free(const void* p);

// The runtime refuses to use the bytes, which are not all in one live allocation.
void sim_check_refused_use(uint64_t address, uint64_t bytes);

// Where the memory that holds `address` was allocated or, in `*is_freed`, was freed last; NULL
// where that is not known. Allocates nothing.
const site* sim_check_origin(uint64_t address, bool* is_freed);

// All memory of a device is gone.
void sim_check_device_gone(int id);

//===-- The end -------------------------------------------------------------------------------===//

// Reports what was not freed or destroyed.
void sim_check_leaks(void);

// Forgets everything.
void sim_check_drop(void);

#endif  // CUDASIM_CHECK_H_
