// Graphs: pieces of work and what each comes after. Guarded by the runtime's lock.
//
//   node           0: fill    1: copy    2: host function    3: copy
//   dependencies   -          0          0                   1, 2
//
// A node depends on earlier nodes only, so that the order in which they stand is one in which they
// can be done. Nodes are never changed; a graph and what is instantiated from it share them.
#ifndef CUDASIM_GRAPH_H_
#define CUDASIM_GRAPH_H_

#include <stdbool.h>
#include <stdint.h>

#include "cudasim/copy.h"
#include "cudasim/fill.h"
#include "cudasim/graph_memory.h"
#include "cudasim/kernel.h"

//===-- Sets of nodes -------------------------------------------------------------------------===//

// Nodes of one graph by their place in it, each once. All zero is the empty set.
typedef struct node_set {
  uint32_t* nodes;
  uint32_t count;
  uint32_t capacity;
} node_set;

bool sim_node_set_has(const node_set* s, uint32_t index);

// Adds the node `index`, or all of `other`. False, with nothing changed, when the host has no
// memory.
bool sim_node_set_add(node_set* s, uint32_t index);
bool sim_node_set_join(node_set* s, const node_set* other);

// Makes it the empty set.
void sim_node_set_clear(node_set* s);

//===-- Nodes and graphs ----------------------------------------------------------------------===//

// What a node does: as it is captured or added. Memory is named by the addresses that
// the program gave; what is there is looked up at each launch.
typedef struct node_work {
  enum cudaGraphNodeType type;
  union {
    copy_request copy;
    fill_request fill;
    kernel_launch* kernel;  // retained
    memory_work memory;     // allocations and frees
    cudaEvent_t event;      // that is recorded or waited for
    struct {
      cudaHostFn_t function;
      void* argument;
    } host;
  };
} node_work;

typedef struct node {
  uint32_t references;  // of graphs and executable graphs
  struct graph* graph;  // NULL once that is destroyed
  cudaGraphNode_t handle;
  int device;         // that it was captured on
  struct site* site;  // of the call that was captured, while the checker is on
  node_work work;
  node_set dependencies;
} node;

typedef struct graph {
  struct graph* previous;  // of all
  struct graph* next;
  cudaGraph_t handle;
  node** nodes;
  uint32_t count;
  uint32_t capacity;
  bool is_growing;  // a capture adds to it, and owns it
} graph;

// An empty graph; NULL when the host has no memory.
graph* sim_graph_create(void);
void sim_graph_destroy(graph* g);

// Adds a node that does `w` on `d` after `dependencies`; false, with nothing changed, when the host
// has no memory.
bool sim_graph_add(graph* g, const node_work* w, const struct device* d,
                   const node_set* dependencies);

static inline bool node_is_memory(const node* n) {
  return n->work.type == cudaGraphNodeTypeMemAlloc || n->work.type == cudaGraphNodeTypeMemFree;
}

static inline bool node_is_event(const node* n) {
  return n->work.type == cudaGraphNodeTypeEventRecord || n->work.type == cudaGraphNodeTypeWaitEvent;
}

node* sim_node_retain(node* n);
void sim_node_release(node* n);

// Checks what the node does, and makes the op for it; NULL, and why not, in `*error`.
op* sim_node_op(const node* n, cudaError_t* error);

// Destroys all graphs.
void sim_graph_destroy_all(void);

#endif  // CUDASIM_GRAPH_H_
