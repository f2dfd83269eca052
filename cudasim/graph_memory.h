// Memory of graphs: what allocation nodes make and free nodes free. Guarded by the runtime's lock.
//
//   capture    malloc p   copy to p   free p   malloc q   copy to q        p and q: one place
//   launch     |- memory is taken for all -----------------------------|- it stays, spare, or live
//
// An allocation has its addresses from when its node is made to when node and executable graphs are
// gone and it is not live. It has memory from its first launch on: until a launch that comes after
// its last use takes that over, or until it is trimmed or needed otherwise. What is freed in a
// graph gives its place to later allocations of that graph that come after the free.
#ifndef CUDASIM_GRAPH_MEMORY_H_
#define CUDASIM_GRAPH_MEMORY_H_

#include <stdbool.h>
#include <stdint.h>

#include "cudasim/block.h"
#include "cudasim/include/cuda_runtime_api.h"

struct device;
struct graph;
struct node_set;
struct stream;

// The place of one allocation after another of a graph.
typedef struct graph_memory {
  struct graph_memory* previous;  // of the device
  struct graph_memory* next;
  struct device* device;
  block* block;               // its addresses, in granules; NULL once the device was reset
  uint32_t references;        // of nodes
  uint32_t frees_elsewhere;   // nodes of other graphs than its own that free it
  const struct graph* owner;  // NULL once that is destroyed
  bool is_freed_inside;       // a node of its owner frees its last allocation
  bool is_live;               // launched, and not freed
  bool was_live;              // before the launch that is being prepared
  bool is_charged;            // has memory
  bool is_lent;               // its memory was taken over by what comes after its last use
  struct stream* stream;      // of the last launch or free, or NULL
  uint64_t position;          // there
} graph_memory;

// What an allocation or free node is about.
typedef struct memory_work {
  graph_memory* memory;  // retained by the node
  uint64_t bytes;        // allocations: that were asked for
  bool is_elsewhere;     // frees: of another graph's allocation
} memory_work;

//===-- Nodes ---------------------------------------------------------------------------------===//

// A place for `bytes` bytes, not 0, that a node of `g` after `dependencies` allocates on `d`; NULL,
// and why, in `*error`. It is held until sim_graph_memory_drop, which says whether a node came to
// be.
graph_memory* sim_graph_memory_plan(struct graph* g, struct device* d, uint64_t bytes,
                                    const struct node_set* dependencies, cudaError_t* error);
void sim_graph_memory_drop(graph_memory* m, bool is_used);

// Checks that a node of `g` may free what begins at `pointer`, and describes that in `*out`.
cudaError_t sim_graph_memory_plan_free(const struct graph* g, const void* pointer,
                                       memory_work* out);

// A node is made, or goes.
void sim_graph_memory_retain(const memory_work* w, enum cudaGraphNodeType type);
void sim_graph_memory_release(const memory_work* w, enum cudaGraphNodeType type);

// The graph is about to be destroyed, though executable graphs of it may stay.
void sim_graph_memory_disown(graph_memory* m);

//===-- Launches ------------------------------------------------------------------------------===//

// A launch is being prepared: of each node in its order, first sim_graph_memory_note of all, then
// sim_graph_memory_step. If it comes to nothing, sim_graph_memory_revert of all.
void sim_graph_memory_note(graph_memory* m, bool frees);
cudaError_t sim_graph_memory_step(const memory_work* w, enum cudaGraphNodeType type);
void sim_graph_memory_revert(graph_memory* m);

// Notes that a launch in `s`, or all before a free there, uses it up to `position`.
void sim_graph_memory_use(graph_memory* m, struct stream* s, uint64_t position);

// Takes memory for the places that have none, of those that `s` comes after or else of the
// device's. False, with nothing taken, if there is too little.
bool sim_graph_memory_charge(graph_memory* const* places, uint32_t count, const struct stream* s);

//===-- Beside graphs -------------------------------------------------------------------------===//

// While what is checked is to be done by a later launch: memory of graphs is taken to be there.
extern bool sim_graph_memory_is_planned;

// Whether the memory of a graph may be used by what comes next.
static inline bool graph_memory_is_there(const graph_memory* m) {
  return m->is_live || sim_graph_memory_is_planned;
}

// Frees it at this point of `s`; at once where that is NULL.
cudaError_t sim_graph_memory_free(graph_memory* m, struct stream* s);

// Gives memory of graphs that nothing uses any more back to the device.
void sim_graph_memory_trim(struct device* d);

// Ends all of `d`, whose space is about to go.
void sim_graph_memory_forget_all(struct device* d);

#endif  // CUDASIM_GRAPH_MEMORY_H_
