// The calls that add nodes to graphs. Nodes stand in an order in which they can be done, so what a
// node comes after is said when it is added.

#include <stddef.h>
#include <string.h>

#include "cudasim/capture.h"
#include "cudasim/device.h"
#include "cudasim/event.h"
#include "cudasim/graph.h"
#include "cudasim/handle.h"
#include "cudasim/runtime.h"
#include "cudasim/slab.h"

//===-- Where a node goes ---------------------------------------------------------------------===//

typedef struct target {
  cudaGraphNode_t* out;
  cudaGraph_t graph;
  const cudaGraphNode_t* dependencies;
  size_t count;
} target;

static graph* graph_of(cudaGraph_t handle) { return sim_handle_object(HANDLE_GRAPH, handle); }

static bool find_index(const graph* g, cudaGraphNode_t handle, uint32_t* index) {
  const node* n = sim_handle_object(HANDLE_NODE, handle);
  if (!n || n->graph != g) return false;
  for (*index = 0; g->nodes[*index] != n;) ++*index;
  return true;
}

// The nodes of `g`, each once, with these handles.
static cudaError_t find_nodes(const graph* g, const cudaGraphNode_t* handles, size_t count,
                              node_set* out) {
  if (count && !handles) return cudaErrorInvalidValue;
  for (size_t i = 0; i < count; ++i) {
    uint32_t index;
    if (!find_index(g, handles[i], &index) || sim_node_set_has(out, index)) {
      return cudaErrorInvalidValue;
    }
    if (!sim_node_set_add(out, index)) return cudaErrorMemoryAllocation;
  }
  return cudaSuccess;
}

static cudaError_t add_after(const target* to, graph* g, const node_work* w, const device* d,
                             const node_set* before) {
  if (!sim_graph_add(g, w, d, before)) return cudaErrorMemoryAllocation;
  *to->out = g->nodes[g->count - 1]->handle;
  return cudaSuccess;
}

// The graph, and what the node comes after, which is to be cleared; NULL, and why, in `*error`.
static graph* open_target(const target* to, node_set* before, cudaError_t* error) {
  graph* g = graph_of(to->graph);
  *error =
      to->out && g ? find_nodes(g, to->dependencies, to->count, before) : cudaErrorInvalidValue;
  return *error ? NULL : g;
}

static cudaError_t add(const target* to, const device* d, const node_work* w) {
  node_set before = {0};
  cudaError_t error;
  graph* g = open_target(to, &before, &error);
  if (g) error = add_after(to, g, w, d, &before);
  sim_node_set_clear(&before);
  return error;
}

//===-- Kinds of nodes ------------------------------------------------------------------------===//

static cudaError_t add_empty(const target* to, const device* d) {
  node_work w = {.type = cudaGraphNodeTypeEmpty};
  return add(to, d, &w);
}

static cudaError_t add_host(const target* to, const device* d, const struct cudaHostNodeParams* p) {
  if (!p || !p->fn) return cudaErrorInvalidValue;
  node_work w = {.type = cudaGraphNodeTypeHost,
                 .host = {.function = p->fn, .argument = p->userData}};
  return add(to, d, &w);
}

static cudaError_t add_kernel(const target* to, const device* d,
                              const struct cudaKernelNodeParams* p) {
  if (!p) return cudaErrorInvalidValue;
  if (p->extra) return sim_refuse(cudaErrorNotSupported, "cudasim takes arguments one by one only");
  cudasim_launch what = {.grid = p->gridDim,
                         .block = p->blockDim,
                         .shared_bytes = p->sharedMemBytes,
                         .arguments = p->kernelParams};
  node_work w = {.type = cudaGraphNodeTypeKernel};
  cudaError_t error = sim_kernel_launch_create(d, p->func, &what, &w.kernel);
  if (error) return error;
  error = add(to, d, &w);
  sim_kernel_release(w.kernel);
  return error;
}

static cudaError_t add_copy(const target* to, const device* d, const copy_request* r) {
  if (box_is_empty(&r->extent)) return cudaErrorInvalidValue;
  place destination;
  place source;
  sim_graph_memory_is_planned = true;
  cudaError_t error = sim_copy_check(r, &destination, &source);
  sim_graph_memory_is_planned = false;
  if (error) return error;
  node_work w = {.type = cudaGraphNodeTypeMemcpy, .copy = *r};
  return add(to, d, &w);
}

static cudaError_t add_copy_3d(const target* to, const device* d,
                               const struct cudaMemcpy3DParms* p) {
  copy_request r;
  cudaError_t error = sim_copy_request_3d(p, &r);
  return error ? error : add_copy(to, d, &r);
}

static cudaError_t add_copy_1d(const target* to, const device* d, void* dst, const void* src,
                               size_t bytes, enum cudaMemcpyKind kind) {
  copy_request r = sim_copy_linear(dst, src, bytes, kind);
  return add_copy(to, d, &r);
}

// Whether all bytes of the element are the same: what a fill can do.
static bool is_of_one_byte(const struct cudaMemsetParams* p) {
  for (unsigned i = 1; i < p->elementSize; ++i) {
    if ((p->value >> 8 * i & 0xff) != (p->value & 0xff)) return false;
  }
  return true;
}

static cudaError_t add_fill(const target* to, const device* d, const struct cudaMemsetParams* p) {
  if (!p || (p->elementSize != 1 && p->elementSize != 2 && p->elementSize != 4)) {
    return cudaErrorInvalidValue;
  }
  if (!is_of_one_byte(p)) {
    return sim_refuse(cudaErrorNotSupported, "cudasim fills with bytes, not with %u-byte values",
                      p->elementSize);
  }
  box extent = {p->width * p->elementSize, p->height, 1};
  if (box_is_empty(&extent) || (p->height > 1 && p->pitch < extent.width)) {
    return cudaErrorInvalidValue;
  }
  node_work w = {.type = cudaGraphNodeTypeMemset,
                 .fill = {.to = {.pointer = p->dst, .pitch = p->pitch},
                          .extent = extent,
                          .value = (int)(p->value & 0xff)}};
  place where;
  sim_graph_memory_is_planned = true;
  cudaError_t error = sim_fill_check(&w.fill, &where);
  sim_graph_memory_is_planned = false;
  return error ? error : add(to, d, &w);
}

static cudaError_t add_event(const target* to, const device* d, enum cudaGraphNodeType type,
                             cudaEvent_t handle) {
  if (!sim_event_of(handle)) return cudaErrorInvalidResourceHandle;
  node_work w = {.type = type, .event = handle};
  return add(to, d, &w);
}

//===-- Memory --------------------------------------------------------------------------------===//

static cudaError_t check_allocation(const struct cudaMemAllocNodeParams* p, device** d) {
  const struct cudaMemPoolProps* props = &p->poolProps;
  if (!p->bytesize || props->allocType != cudaMemAllocationTypePinned ||
      props->location.type != cudaMemLocationTypeDevice ||
      (p->accessDescCount && !p->accessDescs)) {
    return cudaErrorInvalidValue;
  }
  if (props->handleTypes != cudaMemHandleTypeNone) return cudaErrorNotSupported;
  cudaError_t error;
  *d = sim_device_open(props->location.id, &error);
  return error == cudaErrorInvalidDevice ? cudaErrorInvalidValue : error;
}

static cudaError_t add_allocation(const target* to, struct cudaMemAllocNodeParams* p) {
  device* d;
  if (!p) return cudaErrorInvalidValue;
  cudaError_t error = check_allocation(p, &d);
  if (error) return error;
  node_set before = {0};
  graph* g = open_target(to, &before, &error);
  graph_memory* m = g ? sim_graph_memory_plan(g, d, p->bytesize, &before, &error) : NULL;
  if (m) {
    node_work w = {.type = cudaGraphNodeTypeMemAlloc,
                   .memory = {.memory = m, .bytes = p->bytesize}};
    error = add_after(to, g, &w, d, &before);
    if (!error) p->dptr = (void*)(uintptr_t)block_address(m->block);
    sim_graph_memory_drop(m, !error);
  }
  sim_node_set_clear(&before);
  return error;
}

static cudaError_t add_free(const target* to, const device* d, const void* pointer) {
  const graph* g = graph_of(to->graph);
  if (!g) return cudaErrorInvalidValue;
  node_work w = {.type = cudaGraphNodeTypeMemFree};
  cudaError_t error = sim_graph_memory_plan_free(g, pointer, &w.memory);
  return error ? error : add(to, d, &w);
}

//===-- Edges, clones and captures ------------------------------------------------------------===//

static cudaError_t get_edges(cudaGraph_t handle, cudaGraphNode_t* from, cudaGraphNode_t* to,
                             cudaGraphEdgeData* data, size_t* count) {
  const graph* g = graph_of(handle);
  if (!g || !count || !from != !to || (data && !from)) return cudaErrorInvalidValue;
  size_t there = 0;
  for (uint32_t i = 0; i < g->count; ++i) {
    const node_set* before = &g->nodes[i]->dependencies;
    for (uint32_t k = 0; k < before->count; ++k, ++there) {
      if (!from || there >= *count) continue;
      from[there] = g->nodes[before->nodes[k]]->handle;
      to[there] = g->nodes[i]->handle;
      if (data) data[there] = (cudaGraphEdgeData){0};
    }
  }
  for (size_t i = there; from && i < *count; ++i) from[i] = to[i] = NULL;
  if (!from || *count > there) *count = there;
  return cudaSuccess;
}

static cudaError_t clone(cudaGraph_t* out, cudaGraph_t handle) {
  const graph* g = graph_of(handle);
  if (!out || !g || g->is_growing) return cudaErrorInvalidValue;
  for (uint32_t i = 0; i < g->count; ++i) {
    if (!node_is_memory(g->nodes[i])) continue;
    return sim_refuse(cudaErrorInvalidValue, "a graph with memory nodes cannot be cloned");
  }
  graph* made = sim_graph_create();
  bool is_there = made;
  for (uint32_t i = 0; i < g->count && is_there; ++i) {
    const node* n = g->nodes[i];
    is_there = sim_graph_add(made, &n->work, sim_device_at(n->device), &n->dependencies);
  }
  if (is_there) {
    *out = made->handle;
  } else if (made) {
    sim_graph_destroy(made);
  }
  return is_there ? cudaSuccess : cudaErrorMemoryAllocation;
}

static cudaError_t update_tips(device* current, cudaStream_t handle, const cudaGraphNode_t* nodes,
                               size_t count, unsigned flags) {
  cudaError_t error;
  const stream* s = sim_stream_of(current, handle, &error);
  if (!s) return error;
  if (flags > cudaStreamSetCaptureDependencies) return cudaErrorInvalidValue;
  if (!s->branch) return cudaErrorIllegalState;
  branch* b = s->branch;
  if (b->capture->is_invalid) return cudaErrorStreamCaptureInvalidated;
  node_set tips = {0};
  error = find_nodes(b->capture->graph, nodes, count, &tips);
  if (!error && flags == cudaStreamAddCaptureDependencies && !sim_node_set_join(&tips, &b->tips)) {
    error = cudaErrorMemoryAllocation;
  }
  node_set old = error ? tips : b->tips;
  if (!error) b->tips = tips;
  sim_node_set_clear(&old);
  return error;
}

//===-- The API -------------------------------------------------------------------------------===//

#define TARGET_ \
  { pGraphNode, hGraph, pDependencies, numDependencies }

cudaError_t cudaGraphAddEmptyNode(cudaGraphNode_t* pGraphNode, cudaGraph_t hGraph,
                                  const cudaGraphNode_t* pDependencies, size_t numDependencies) {
  target to = TARGET_;
  CALL(cudaGraphAddEmptyNode, add_empty(&to, frame.device));
}

cudaError_t cudaGraphAddHostNode(cudaGraphNode_t* pGraphNode, cudaGraph_t hGraph,
                                 const cudaGraphNode_t* pDependencies, size_t numDependencies,
                                 const struct cudaHostNodeParams* pNodeParams) {
  target to = TARGET_;
  CALL(cudaGraphAddHostNode, add_host(&to, frame.device, pNodeParams));
}

cudaError_t cudaGraphAddKernelNode(cudaGraphNode_t* pGraphNode, cudaGraph_t hGraph,
                                   const cudaGraphNode_t* pDependencies, size_t numDependencies,
                                   const struct cudaKernelNodeParams* pNodeParams) {
  target to = TARGET_;
  CALL(cudaGraphAddKernelNode, add_kernel(&to, frame.device, pNodeParams));
}

cudaError_t cudaGraphAddMemcpyNode(cudaGraphNode_t* pGraphNode, cudaGraph_t hGraph,
                                   const cudaGraphNode_t* pDependencies, size_t numDependencies,
                                   const struct cudaMemcpy3DParms* pCopyParams) {
  target to = TARGET_;
  CALL(cudaGraphAddMemcpyNode, add_copy_3d(&to, frame.device, pCopyParams));
}

cudaError_t cudaGraphAddMemcpyNode1D(cudaGraphNode_t* pGraphNode, cudaGraph_t hGraph,
                                     const cudaGraphNode_t* pDependencies, size_t numDependencies,
                                     void* dst, const void* src, size_t count,
                                     enum cudaMemcpyKind kind) {
  target to = TARGET_;
  CALL(cudaGraphAddMemcpyNode1D, add_copy_1d(&to, frame.device, dst, src, count, kind));
}

cudaError_t cudaGraphAddMemsetNode(cudaGraphNode_t* pGraphNode, cudaGraph_t hGraph,
                                   const cudaGraphNode_t* pDependencies, size_t numDependencies,
                                   const struct cudaMemsetParams* pMemsetParams) {
  target to = TARGET_;
  CALL(cudaGraphAddMemsetNode, add_fill(&to, frame.device, pMemsetParams));
}

cudaError_t cudaGraphAddEventRecordNode(cudaGraphNode_t* pGraphNode, cudaGraph_t hGraph,
                                        const cudaGraphNode_t* pDependencies,
                                        size_t numDependencies, cudaEvent_t hEvent) {
  target to = TARGET_;
  CALL(cudaGraphAddEventRecordNode,
       add_event(&to, frame.device, cudaGraphNodeTypeEventRecord, hEvent));
}

cudaError_t cudaGraphAddEventWaitNode(cudaGraphNode_t* pGraphNode, cudaGraph_t hGraph,
                                      const cudaGraphNode_t* pDependencies, size_t numDependencies,
                                      cudaEvent_t hEvent) {
  target to = TARGET_;
  CALL(cudaGraphAddEventWaitNode, add_event(&to, frame.device, cudaGraphNodeTypeWaitEvent, hEvent));
}

cudaError_t cudaGraphAddMemAllocNode(cudaGraphNode_t* pGraphNode, cudaGraph_t hGraph,
                                     const cudaGraphNode_t* pDependencies, size_t numDependencies,
                                     struct cudaMemAllocNodeParams* nodeParams) {
  target to = TARGET_;
  CALL(cudaGraphAddMemAllocNode, add_allocation(&to, nodeParams));
}

cudaError_t cudaGraphAddMemFreeNode(cudaGraphNode_t* pGraphNode, cudaGraph_t hGraph,
                                    const cudaGraphNode_t* pDependencies, size_t numDependencies,
                                    void* dptr) {
  target to = TARGET_;
  CALL(cudaGraphAddMemFreeNode, add_free(&to, frame.device, dptr));
}

cudaError_t cudaGraphGetEdges(cudaGraph_t hGraph, cudaGraphNode_t* from, cudaGraphNode_t* to,
                              cudaGraphEdgeData* edgeData, size_t* numEdges) {
  CALL(cudaGraphGetEdges, get_edges(hGraph, from, to, edgeData, numEdges));
}

cudaError_t cudaGraphClone(cudaGraph_t* pGraphClone, cudaGraph_t originalGraph) {
  CALL(cudaGraphClone, clone(pGraphClone, originalGraph));
}

cudaError_t cudaStreamUpdateCaptureDependencies(cudaStream_t hStream, cudaGraphNode_t* dependencies,
                                                const cudaGraphEdgeData* dependencyData,
                                                size_t numDependencies, unsigned int flags) {
  (void)dependencyData;  // all edges are plain
  CALL(cudaStreamUpdateCaptureDependencies,
       update_tips(frame.device, hStream, dependencies, numDependencies, flags));
}
