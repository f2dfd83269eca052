// Executable graphs: nodes dealt out to lanes, each of which is done in order.
//
//   lane 0, in the launch's stream    |wait for the last launch| fill  copy   |wait| copy
//   lane 1, in a stream of its own    |wait for lane 0|  host
//
// A launch queues all of its ops at once or none. Guarded by the runtime's lock.
#ifndef CUDASIM_GRAPH_EXEC_H_
#define CUDASIM_GRAPH_EXEC_H_

#include <stdbool.h>
#include <stdint.h>

#include "cudasim/graph.h"
#include "cudasim/order.h"
#include "cudasim/stream.h"

#define LANES 8

// A node, and how it is done.
typedef struct step {
  node* node;
  uint32_t lane;
  uint64_t position;  // in the lane's stream, in the launch under way
} step;

typedef struct lane {
  int device;
  uint32_t last;        // its last step so far, while it is being dealt to
  cudaStream_t handle;  // of its stream; lane 0 has none, and others none before a launch
  stream* stream;       // in the launch under way
} lane;

typedef struct graph_exec {
  struct graph_exec* previous;  // of all
  struct graph_exec* next;
  cudaGraphExec_t handle;
  step* steps;
  uint32_t count;
  lane lanes[LANES];
  uint32_t lane_count;
  uint32_t waits;         // that a launch may need at most
  graph_memory** memory;  // that its nodes allocate, each once
  uint32_t memory_count;
  bool frees_at_launch;    // what an earlier launch has left
  stream* last_stream;     // of the last launch; NULL before the first
  uint64_t last_position;  // there
  stamp last_launch;       // the same for the checker
} graph_exec;

// What the graph is now, to be launched; NULL, and why not, in `*error`.
graph_exec* sim_graph_exec_create(const graph* g, unsigned long long flags, cudaError_t* error);

// What was launched goes on.
void sim_graph_exec_destroy(graph_exec* e);

// Does it in `s`, which has been entered.
cudaError_t sim_graph_exec_launch(graph_exec* e, stream* s);

// Destroys all.
void sim_graph_exec_destroy_all(void);

#endif  // CUDASIM_GRAPH_EXEC_H_
