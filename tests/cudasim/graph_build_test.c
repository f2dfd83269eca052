// Graphs that are built node by node, and the nodes of events, in captures as well.

#include <string.h>

#include "tests/cudasim/probe_kernel.h"
#include "tests/cudasim/support.h"

#define BYTES ((size_t)64)

static cudaGraph_t new_graph(void) {
  cudaGraph_t graph = NULL;
  OK(cudaGraphCreate(&graph, 0));
  return graph;
}

static cudaGraphExec_t instantiate(cudaGraph_t graph) {
  cudaGraphExec_t exec = NULL;
  OK(cudaGraphInstantiate(&exec, graph, 0));
  return exec;
}

static void launch_and_wait(cudaGraph_t graph, cudaStream_t stream) {
  cudaGraphExec_t exec = instantiate(graph);
  OK(cudaGraphLaunch(exec, stream));
  OK(cudaStreamSynchronize(stream));
  OK(cudaGraphExecDestroy(exec));
}

static size_t node_count(cudaGraph_t graph) {
  size_t count = 99;
  OK(cudaGraphGetNodes(graph, NULL, &count));
  return count;
}

static enum cudaGraphNodeType type_of(cudaGraphNode_t node) {
  enum cudaGraphNodeType type;
  OK(cudaGraphNodeGetType(node, &type));
  return type;
}

static cudaEvent_t new_event(unsigned flags) {
  cudaEvent_t event;
  OK(cudaEventCreateWithFlags(&event, flags));
  return event;
}

static void count(void* argument) { ++*(int*)argument; }

//===-- Nodes ---------------------------------------------------------------------------------===//

SIM_TEST(graph_build, a_launch_does_what_was_added) {
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  unsigned char* host = new_pinned_memory(2 * BYTES);
  unsigned char* p = new_device_memory(2 * BYTES);
  cudaGraph_t graph = new_graph();
  cudaGraphNode_t n[6];
  int done = 0;
  struct cudaMemsetParams fill = {
      .dst = p, .value = 0x05050505, .elementSize = 4, .width = BYTES / 2, .height = 1};
  struct cudaHostNodeParams call = {count, &done};
  struct cudaMemcpy3DParms box = {.srcPtr = {p, BYTES, BYTES, 1},
                                  .dstPtr = {host, BYTES, BYTES, 1},
                                  .extent = {BYTES, 1, 1},
                                  .kind = cudaMemcpyDefault};
  OK(cudaGraphAddEmptyNode(&n[0], graph, NULL, 0));
  OK(cudaGraphAddMemsetNode(&n[1], graph, &n[0], 1, &fill));
  fill = (struct cudaMemsetParams){p, BYTES, 7, 1, 8, 2};
  OK(cudaGraphAddMemsetNode(&n[2], graph, &n[1], 1, &fill));
  OK(cudaGraphAddHostNode(&n[3], graph, NULL, 0, &call));
  OK(cudaGraphAddMemcpyNode1D(&n[4], graph, &n[2], 2, host + BYTES, p + BYTES, BYTES,
                              cudaMemcpyDeviceToHost));
  OK(cudaGraphAddMemcpyNode(&n[5], graph, &n[2], 1, &box));
  const enum cudaGraphNodeType types[] = {cudaGraphNodeTypeEmpty,  cudaGraphNodeTypeMemset,
                                          cudaGraphNodeTypeMemset, cudaGraphNodeTypeHost,
                                          cudaGraphNodeTypeMemcpy, cudaGraphNodeTypeMemcpy};
  for (int i = 0; i < 6; ++i) cr_expect(eq(int, type_of(n[i]), types[i]));
  memset(host, 0, 2 * BYTES);
  launch_and_wait(graph, stream);
  const unsigned char row[] = {7, 7, 7, 7, 7, 7, 7, 7, 5};
  cr_expect(eq(int, memcmp(host, row, 9), 0));
  cr_expect(eq(int, memcmp(host + BYTES, row, 9), 0));
  cr_expect(eq(int, done, 1));
  OK(cudaGraphDestroy(graph));
}

SIM_TEST(graph_build, a_node_comes_after_its_dependencies) {
  enum { NODES = 40 };
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  unsigned char* cells = new_device_memory(NODES);
  cudaGraph_t graph = new_graph();
  cudaGraphNode_t n[NODES];
  unsigned char* host = new_pinned_memory(1);
  // Each copies the cell before it, which only the first fills.
  OK(cudaMemset(cells, 0, NODES));
  OK(cudaDeviceSynchronize());
  struct cudaMemsetParams fill = {
      .dst = cells, .value = 9, .elementSize = 1, .width = 1, .height = 1};
  OK(cudaGraphAddMemsetNode(&n[0], graph, NULL, 0, &fill));
  for (int i = 1; i < NODES; ++i) {
    OK(cudaGraphAddMemcpyNode1D(&n[i], graph, &n[i - 1], 1, cells + i, cells + i - 1, 1,
                                cudaMemcpyDefault));
  }
  launch_and_wait(graph, stream);
  OK(cudaMemcpy(host, cells + NODES - 1, 1, cudaMemcpyDefault));
  cr_expect(eq(int, *host, 9));
}

SIM_TEST(graph_build, kernels_are_launched) {
  static const size_t sizes[] = {sizeof(int*)};
  static const cudasim_kernel probe = {"probe", sizes, 1, probe_reach, probe_run};
  OK(cudasim_register_kernel(&probe_kernel, &probe));
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  cudaGraph_t graph = new_graph();
  cudaGraphNode_t node;
  int runs = 0;
  int* at = &runs;
  void* arguments[] = {&at};
  struct cudaKernelNodeParams params = {.func = &probe_kernel,
                                        .gridDim = {3, 1, 1},
                                        .blockDim = {1, 1, 1},
                                        .kernelParams = arguments};
  OK(cudaGraphAddKernelNode(&node, graph, NULL, 0, &params));
  params.func = &runs;
  REFUSED(cudaGraphAddKernelNode(&node, graph, NULL, 0, &params), cudaErrorInvalidDeviceFunction);
  REFUSED(cudaGraphAddKernelNode(&node, graph, NULL, 0, NULL), cudaErrorInvalidValue);
  params = (struct cudaKernelNodeParams){
      .func = &probe_kernel, .gridDim = {0, 1, 1}, .blockDim = {1, 1, 1}};
  REFUSED(cudaGraphAddKernelNode(&node, graph, NULL, 0, &params), cudaErrorInvalidConfiguration);
  launch_and_wait(graph, stream);
  cr_expect(eq(int, runs, 3));
}

SIM_TEST(graph_build, nodes_with_wrong_dependencies_are_not_added) {
  cudaGraph_t graph = new_graph();
  cudaGraph_t other = new_graph();
  cudaGraphNode_t first[2];
  cudaGraphNode_t foreign;
  cudaGraphNode_t node;
  OK(cudaGraphAddEmptyNode(&first[0], graph, NULL, 0));
  OK(cudaGraphAddEmptyNode(&foreign, other, NULL, 0));
  first[1] = first[0];
  REFUSED(cudaGraphAddEmptyNode(&node, graph, first, 2), cudaErrorInvalidValue);
  REFUSED(cudaGraphAddEmptyNode(&node, graph, &foreign, 1), cudaErrorInvalidValue);
  REFUSED(cudaGraphAddEmptyNode(&node, graph, NULL, 1), cudaErrorInvalidValue);
  REFUSED(cudaGraphAddEmptyNode(NULL, graph, NULL, 0), cudaErrorInvalidValue);
  REFUSED(cudaGraphAddEmptyNode(&node, (cudaGraph_t)(void*)first, NULL, 0), cudaErrorInvalidValue);
  cr_expect(eq(sz, node_count(graph), 1));
}

SIM_TEST(graph_build, wrong_nodes_are_not_added) {
  unsigned char* p = new_device_memory(BYTES);
  cudaGraph_t graph = new_graph();
  cudaGraphNode_t node;
  struct cudaMemsetParams fill = {.dst = p, .elementSize = 3, .width = 1, .height = 1};
  REFUSED(cudaGraphAddMemsetNode(&node, graph, NULL, 0, &fill), cudaErrorInvalidValue);
  fill = (struct cudaMemsetParams){p, 0, 0x0102, 2, 4, 1};
  REFUSED(cudaGraphAddMemsetNode(&node, graph, NULL, 0, &fill), cudaErrorNotSupported);
  fill = (struct cudaMemsetParams){p, 0, 0, 1, BYTES + 1, 1};
  REFUSED(cudaGraphAddMemsetNode(&node, graph, NULL, 0, &fill), cudaErrorInvalidValue);
  REFUSED(cudaGraphAddMemcpyNode1D(&node, graph, NULL, 0, p, NULL, 1, cudaMemcpyDefault),
          cudaErrorInvalidValue);
  REFUSED(cudaGraphAddMemcpyNode1D(&node, graph, NULL, 0, p, p + 1, 0, cudaMemcpyDefault),
          cudaErrorInvalidValue);
  REFUSED(cudaGraphAddMemcpyNode(&node, graph, NULL, 0, NULL), cudaErrorInvalidValue);
  struct cudaHostNodeParams call = {NULL, NULL};
  REFUSED(cudaGraphAddHostNode(&node, graph, NULL, 0, &call), cudaErrorInvalidValue);
  REFUSED(cudaGraphAddEventRecordNode(&node, graph, NULL, 0, NULL), cudaErrorInvalidResourceHandle);
  REFUSED(cudaGraphAddMemFreeNode(&node, graph, NULL, 0, p), cudaErrorInvalidValue);
  REFUSED(cudaGraphAddMemAllocNode(&node, graph, NULL, 0, NULL), cudaErrorInvalidValue);
  cr_expect(eq(sz, node_count(graph), 0));
}

SIM_TEST(graph_build, memory_is_allocated_and_freed) {
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  unsigned char* host = new_pinned_memory(1);
  cudaGraph_t graph = new_graph();
  cudaGraphNode_t n[4];
  struct cudaMemAllocNodeParams params = {.poolProps = {.allocType = cudaMemAllocationTypePinned,
                                                        .location = {cudaMemLocationTypeDevice, 0}},
                                          .bytesize = 100};
  OK(cudaGraphAddMemAllocNode(&n[0], graph, NULL, 0, &params));
  struct cudaMemsetParams fill = {
      .dst = params.dptr, .value = 4, .elementSize = 1, .width = 100, .height = 1};
  OK(cudaGraphAddMemsetNode(&n[1], graph, &n[0], 1, &fill));
  OK(cudaGraphAddMemcpyNode1D(&n[2], graph, &n[1], 1, host, params.dptr, 1, cudaMemcpyDefault));
  OK(cudaGraphAddMemFreeNode(&n[3], graph, &n[2], 1, params.dptr));
  REFUSED(cudaGraphAddMemFreeNode(&n[3], graph, &n[2], 1, params.dptr), cudaErrorInvalidValue);
  cr_expect(eq(int, type_of(n[0]), cudaGraphNodeTypeMemAlloc));
  *host = 0;
  launch_and_wait(graph, stream);
  cr_expect(eq(int, *host, 4));
  cudaGraph_t copy;
  REFUSED(cudaGraphClone(&copy, graph), cudaErrorInvalidValue);
  params.bytesize = 0;
  REFUSED(cudaGraphAddMemAllocNode(&n[0], graph, NULL, 0, &params), cudaErrorInvalidValue);
  params.bytesize = 1;
  params.poolProps.location.id = 3;
  REFUSED(cudaGraphAddMemAllocNode(&n[0], graph, NULL, 0, &params), cudaErrorInvalidValue);
}

//===-- Edges and clones ----------------------------------------------------------------------===//

SIM_TEST(graph_build, edges_are_listed) {
  cudaGraph_t graph = new_graph();
  cudaGraphNode_t n[3];
  OK(cudaGraphAddEmptyNode(&n[0], graph, NULL, 0));
  OK(cudaGraphAddEmptyNode(&n[1], graph, &n[0], 1));
  OK(cudaGraphAddEmptyNode(&n[2], graph, n, 2));
  size_t edges = 77;
  OK(cudaGraphGetEdges(graph, NULL, NULL, NULL, &edges));
  cr_assert(eq(sz, edges, 3));
  cudaGraphNode_t from[4];
  cudaGraphNode_t to[4];
  cudaGraphEdgeData data[4];
  edges = 4;
  OK(cudaGraphGetEdges(graph, from, to, data, &edges));
  cr_expect(eq(sz, edges, 3));
  cr_expect(from[0] == n[0] && to[0] == n[1]);
  cr_expect(from[1] == n[0] && to[1] == n[2]);
  cr_expect(from[2] == n[1] && to[2] == n[2]);
  cr_expect(from[3] == NULL && to[3] == NULL);
  REFUSED(cudaGraphGetEdges(graph, from, NULL, NULL, &edges), cudaErrorInvalidValue);
  REFUSED(cudaGraphGetEdges(graph, from, to, NULL, NULL), cudaErrorInvalidValue);
}

SIM_TEST(graph_build, a_clone_does_the_same) {
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  int done = 0;
  cudaGraph_t graph = new_graph();
  cudaGraphNode_t n[2];
  struct cudaHostNodeParams call = {count, &done};
  OK(cudaGraphAddHostNode(&n[0], graph, NULL, 0, &call));
  OK(cudaGraphAddHostNode(&n[1], graph, n, 1, &call));
  cudaGraph_t copy;
  OK(cudaGraphClone(&copy, graph));
  OK(cudaGraphDestroy(graph));
  launch_and_wait(copy, stream);
  cr_expect(eq(int, done, 2));
  REFUSED(cudaGraphClone(&copy, graph), cudaErrorInvalidValue);
  REFUSED(cudaGraphClone(NULL, copy), cudaErrorInvalidValue);
}

//===-- Captures ------------------------------------------------------------------------------===//

SIM_TEST(graph_build, a_capture_goes_on_behind_other_nodes) {
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  int done = 0;
  OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  OK(cudaLaunchHostFunc(stream, count, &done));
  enum cudaStreamCaptureStatus status;
  cudaGraph_t graph;
  const cudaGraphNode_t* tips;
  size_t tip_count;
  OK(cudaStreamGetCaptureInfo(stream, &status, NULL, &graph, &tips, NULL, &tip_count));
  cudaGraphNode_t node;
  struct cudaHostNodeParams call = {count, &done};
  OK(cudaGraphAddHostNode(&node, graph, tips, tip_count, &call));
  OK(cudaStreamUpdateCaptureDependencies(stream, &node, NULL, 1, cudaStreamSetCaptureDependencies));
  OK(cudaStreamGetCaptureInfo(stream, &status, NULL, NULL, &tips, NULL, &tip_count));
  cr_assert(eq(sz, tip_count, 1));
  cr_expect(tips[0] == node);
  OK(cudaGraphAddHostNode(&node, graph, NULL, 0, &call));
  OK(cudaStreamUpdateCaptureDependencies(stream, &node, NULL, 1, cudaStreamAddCaptureDependencies));
  OK(cudaStreamGetCaptureInfo(stream, &status, NULL, NULL, NULL, NULL, &tip_count));
  cr_expect(eq(sz, tip_count, 2));
  REFUSED(cudaStreamUpdateCaptureDependencies(stream, &node, NULL, 1, 2), cudaErrorInvalidValue);
  OK(cudaStreamEndCapture(stream, &graph));
  REFUSED(cudaStreamUpdateCaptureDependencies(stream, &node, NULL, 1, 0), cudaErrorIllegalState);
  launch_and_wait(graph, stream);
  cr_expect(eq(int, done, 3));
}

//===-- Events --------------------------------------------------------------------------------===//

// Captured, or built node by node.
static cudaGraph_t record_after_count(bool captures, cudaStream_t stream, int* done,
                                      cudaEvent_t event) {
  cudaGraph_t graph = NULL;
  if (captures) {
    OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    OK(cudaLaunchHostFunc(stream, count, done));
    OK(cudaEventRecordWithFlags(event, stream, cudaEventRecordExternal));
    OK(cudaStreamEndCapture(stream, &graph));
    return graph;
  }
  graph = new_graph();
  cudaGraphNode_t n[2];
  struct cudaHostNodeParams call = {count, done};
  OK(cudaGraphAddHostNode(&n[0], graph, NULL, 0, &call));
  OK(cudaGraphAddEventRecordNode(&n[1], graph, n, 1, event));
  cr_expect(eq(int, type_of(n[1]), cudaGraphNodeTypeEventRecord));
  return graph;
}

SIM_TEST(graph_event, is_recorded_by_each_launch) {
  const unsigned flags[] = {cudaEventDefault, cudaEventDisableTiming};
  for (int i = 0; i < 4; ++i) {
    cudaStream_t stream = new_stream(cudaStreamNonBlocking);
    cudaEvent_t event = new_event(flags[i / 2]);
    int done = 0;
    cudaGraphExec_t exec = instantiate(record_after_count(i % 2, stream, &done, event));
    OK(cudaEventQuery(event));  // it belongs to no capture, and nothing has recorded it
    for (int launches = 1; launches < 20; ++launches) {
      OK(cudaGraphLaunch(exec, stream));
      OK(cudaEventSynchronize(event));
      cr_assert(eq(int, done, launches));
    }
    float ms = -1;
    if (i < 2) OK(cudaEventElapsedTime(&ms, event, event));
    OK(cudaStreamSynchronize(stream));
    OK(cudaEventDestroy(event));
    REFUSED(cudaGraphLaunch(exec, stream), cudaErrorInvalidValue);
  }
}

SIM_TEST(graph_event, is_waited_for_by_each_launch) {
  for (int captures = 0; captures < 2; ++captures) {
    cudaStream_t stream = new_stream(cudaStreamNonBlocking);
    cudaStream_t other = new_stream(cudaStreamNonBlocking);
    unsigned char* host = new_pinned_memory(1);
    unsigned char* p = new_device_memory(MIB);
    cudaEvent_t event = new_event(cudaEventDisableTiming);
    cudaGraph_t graph;
    if (captures) {
      OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
      OK(cudaStreamWaitEvent(stream, event, cudaEventWaitExternal));
      OK(cudaMemcpyAsync(host, p + MIB - 1, 1, cudaMemcpyDefault, stream));
      OK(cudaStreamEndCapture(stream, &graph));
    } else {
      cudaGraphNode_t n[2];
      graph = new_graph();
      OK(cudaGraphAddEventWaitNode(&n[0], graph, NULL, 0, event));
      OK(cudaGraphAddMemcpyNode1D(&n[1], graph, n, 1, host, p + MIB - 1, 1, cudaMemcpyDefault));
    }
    cudaGraphExec_t exec = instantiate(graph);
    OK(cudaGraphLaunch(exec, stream));  // nothing is recorded: it does not wait
    OK(cudaStreamSynchronize(stream));
    for (int i = 1; i < 30; ++i) {
      OK(cudaMemsetAsync(p, i, MIB, other));
      OK(cudaEventRecord(event, other));
      OK(cudaGraphLaunch(exec, stream));
      OK(cudaStreamSynchronize(stream));
      cr_assert(eq(int, *host, i));
    }
  }
}

SIM_TEST(graph_event, is_external_only_in_a_capture) {
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  cudaStream_t other = new_stream(cudaStreamNonBlocking);
  cudaEvent_t event = new_event(cudaEventDisableTiming);
  REFUSED(cudaEventRecordWithFlags(event, stream, cudaEventRecordExternal), cudaErrorIllegalState);
  REFUSED(cudaStreamWaitEvent(stream, event, cudaEventWaitExternal), cudaErrorIllegalState);
  OK(cudaEventRecord(event, other));
  OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  OK(cudaStreamWaitEvent(stream, event, cudaEventWaitExternal));  // does not join the two
  enum cudaStreamCaptureStatus status;
  OK(cudaStreamIsCapturing(other, &status));
  cr_expect(eq(int, status, cudaStreamCaptureStatusNone));
  cudaGraph_t graph;
  OK(cudaStreamEndCapture(stream, &graph));
  cr_expect(eq(sz, node_count(graph), 1));
}

//===-- Faults --------------------------------------------------------------------------------===//

SIM_TEST(graph_build, every_call_fails_on_demand) {
  const char* const calls[] = {"cudaGraphAddEmptyNode", "cudaGraphAddHostNode",
                               "cudaGraphAddMemAllocNode", "cudaGraphGetEdges", "cudaGraphClone"};
  for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); ++i) {
    OK(cudasim_fail(calls[i], 1, 1, cudaErrorUnknown));
  }
  cudaGraph_t graph = new_graph();
  cudaGraph_t copy;
  cudaGraphNode_t node;
  size_t edges = 0;
  REFUSED(cudaGraphAddEmptyNode(&node, graph, NULL, 0), cudaErrorUnknown);
  REFUSED(cudaGraphAddHostNode(&node, graph, NULL, 0, NULL), cudaErrorUnknown);
  REFUSED(cudaGraphAddMemAllocNode(&node, graph, NULL, 0, NULL), cudaErrorUnknown);
  REFUSED(cudaGraphGetEdges(graph, NULL, NULL, NULL, &edges), cudaErrorUnknown);
  REFUSED(cudaGraphClone(&copy, graph), cudaErrorUnknown);
  cr_expect(eq(sz, node_count(graph), 0));
}
