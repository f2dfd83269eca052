// The calls on graphs.

#include <stddef.h>

#include "cudasim/capture.h"
#include "cudasim/device.h"
#include "cudasim/graph.h"
#include "cudasim/graph_exec.h"
#include "cudasim/handle.h"
#include "cudasim/runtime.h"

static graph* graph_of(cudaGraph_t handle) { return sim_handle_object(HANDLE_GRAPH, handle); }

static graph_exec* exec_of(cudaGraphExec_t handle) {
  return sim_handle_object(HANDLE_GRAPH_EXEC, handle);
}

static cudaError_t create(cudaGraph_t* out, unsigned flags) {
  if (!out || flags) return cudaErrorInvalidValue;
  const graph* g = sim_graph_create();
  if (!g) return cudaErrorMemoryAllocation;
  *out = g->handle;
  return cudaSuccess;
}

static cudaError_t destroy(cudaGraph_t handle) {
  graph* g = graph_of(handle);
  if (!g) return cudaErrorInvalidValue;
  if (g->is_growing) {
    return sim_refuse(cudaErrorInvalidValue, "a graph that is still being captured");
  }
  sim_graph_destroy(g);
  return cudaSuccess;
}

//===-- Nodes ---------------------------------------------------------------------------------===//

// Stores the nodes of `of`, or all where it is NULL, as the calls that list nodes do: where `out`
// is NULL their count, else as many as there is room for, and NULL in the room that is left.
static void list(const graph* g, const node_set* of, cudaGraphNode_t* out, size_t* count) {
  uint32_t there = of ? of->count : g->count;
  for (size_t i = 0; out && i < *count; ++i) {
    out[i] = i < there ? g->nodes[of ? of->nodes[i] : i]->handle : NULL;
  }
  if (!out || *count > there) *count = there;
}

static cudaError_t get_nodes(cudaGraph_t handle, cudaGraphNode_t* out, size_t* count) {
  const graph* g = graph_of(handle);
  if (!g || !count) return cudaErrorInvalidValue;
  list(g, NULL, out, count);
  return cudaSuccess;
}

static cudaError_t get_roots(cudaGraph_t handle, cudaGraphNode_t* out, size_t* count) {
  const graph* g = graph_of(handle);
  if (!g || !count) return cudaErrorInvalidValue;
  node_set roots = {0};
  bool is_there = true;
  for (uint32_t i = 0; i < g->count && is_there; ++i) {
    if (!g->nodes[i]->dependencies.count) is_there = sim_node_set_add(&roots, i);
  }
  if (is_there) list(g, &roots, out, count);
  sim_node_set_clear(&roots);
  return is_there ? cudaSuccess : cudaErrorMemoryAllocation;
}

static cudaError_t get_type(cudaGraphNode_t handle, enum cudaGraphNodeType* out) {
  const node* n = sim_handle_object(HANDLE_NODE, handle);
  if (!n || !out) return cudaErrorInvalidValue;
  *out = n->work.type;
  return cudaSuccess;
}

static cudaError_t get_dependencies(cudaGraphNode_t handle, cudaGraphNode_t* out,
                                    cudaGraphEdgeData* edges, size_t* count) {
  const node* n = sim_handle_object(HANDLE_NODE, handle);
  if (!n || !count || (edges && !out)) return cudaErrorInvalidValue;
  list(n->graph, &n->dependencies, out, count);
  for (size_t i = 0; edges && i < *count; ++i) edges[i] = (cudaGraphEdgeData){0};
  return cudaSuccess;
}

//===-- Execution -----------------------------------------------------------------------------===//

static cudaError_t instantiate(cudaGraphExec_t* out, cudaGraph_t handle, unsigned long long flags) {
  const unsigned long long known =
      cudaGraphInstantiateFlagAutoFreeOnLaunch | cudaGraphInstantiateFlagUseNodePriority;
  const graph* g = graph_of(handle);
  if (!out || !g || g->is_growing || flags & ~known) return cudaErrorInvalidValue;
  cudaError_t error;
  const graph_exec* e = sim_graph_exec_create(g, flags, &error);
  if (e) *out = e->handle;
  return error;
}

// The stream comes first: to get it may let other threads run.
static cudaError_t launch(device* current, cudaGraphExec_t handle, cudaStream_t in) {
  cudaError_t error;
  stream* s = sim_stream_for_work(current, in, &error);
  if (!s) return error;
  error = sim_capture_refuse_stream(s);
  if (error) return error;
  graph_exec* e = exec_of(handle);
  return e ? sim_graph_exec_launch(e, s) : cudaErrorInvalidValue;
}

// There is nothing to bring to the device.
static cudaError_t upload(device* current, cudaGraphExec_t handle, cudaStream_t in) {
  cudaError_t error;
  const stream* s = sim_stream_of(current, in, &error);
  if (!s) return error;
  error = sim_capture_refuse_stream(s);
  if (error) return error;
  return exec_of(handle) ? s->device->broken : cudaErrorInvalidValue;
}

static cudaError_t destroy_exec(cudaGraphExec_t handle) {
  graph_exec* e = exec_of(handle);
  if (!e) return cudaErrorInvalidValue;
  sim_graph_exec_destroy(e);
  return cudaSuccess;
}

//===-- The API -------------------------------------------------------------------------------===//

cudaError_t cudaGraphCreate(cudaGraph_t* pGraph, unsigned int flags) {
  CALL(cudaGraphCreate, create(pGraph, flags));
}

cudaError_t cudaGraphDestroy(cudaGraph_t hGraph) { CALL(cudaGraphDestroy, destroy(hGraph)); }

cudaError_t cudaGraphGetNodes(cudaGraph_t hGraph, cudaGraphNode_t* nodes, size_t* numNodes) {
  CALL(cudaGraphGetNodes, get_nodes(hGraph, nodes, numNodes));
}

cudaError_t cudaGraphGetRootNodes(cudaGraph_t hGraph, cudaGraphNode_t* pRootNodes,
                                  size_t* pNumRootNodes) {
  CALL(cudaGraphGetRootNodes, get_roots(hGraph, pRootNodes, pNumRootNodes));
}

cudaError_t cudaGraphNodeGetType(cudaGraphNode_t hNode, enum cudaGraphNodeType* pType) {
  CALL(cudaGraphNodeGetType, get_type(hNode, pType));
}

cudaError_t cudaGraphNodeGetDependencies(cudaGraphNode_t hNode, cudaGraphNode_t* pDependencies,
                                         cudaGraphEdgeData* edgeData, size_t* pNumDependencies) {
  CALL(cudaGraphNodeGetDependencies,
       get_dependencies(hNode, pDependencies, edgeData, pNumDependencies));
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* pGraphExec, cudaGraph_t hGraph,
                                 unsigned long long flags) {
  UNSAFE_CALL(cudaGraphInstantiate, instantiate(pGraphExec, hGraph, flags));
}

cudaError_t cudaGraphUpload(cudaGraphExec_t graphExec, cudaStream_t hStream) {
  CALL(cudaGraphUpload, upload(frame.device, graphExec, hStream));
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t graphExec, cudaStream_t hStream) {
  CALL(cudaGraphLaunch, launch(frame.device, graphExec, hStream));
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graphExec) {
  CALL(cudaGraphExecDestroy, destroy_exec(graphExec));
}
