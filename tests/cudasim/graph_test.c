// Stream capture and graphs: what a capture takes and what breaks it, what a launch does and when.
// The rules were observed on an H100 with CUDA 13.0.

#include <stdlib.h>
#include <string.h>

#include "tests/cudasim/failing_calloc.h"
#include "tests/cudasim/probe_kernel.h"
#include "tests/cudasim/support.h"

#define BYTES ((size_t)256)

static enum cudaStreamCaptureStatus status_of(cudaStream_t stream) {
  enum cudaStreamCaptureStatus status;
  OK(cudaStreamIsCapturing(stream, &status));
  return status;
}

#define EXPECT_STATUS(stream, expected) \
  cr_expect(eq(int, status_of(stream), cudaStreamCaptureStatus##expected))

static void begin(cudaStream_t stream) {
  OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
}

static cudaGraph_t end(cudaStream_t stream) {
  cudaGraph_t graph = NULL;
  OK(cudaStreamEndCapture(stream, &graph));
  cr_assert(ne(ptr, graph, NULL));
  return graph;
}

// The capture in `stream` must end with `error`, and without a graph.
static void expect_end(cudaStream_t stream, cudaError_t error) {
  int not_null;
  cudaGraph_t graph = (cudaGraph_t)(void*)&not_null;
  cr_expect(eq(int, cudaStreamEndCapture(stream, &graph), error));
  cr_expect(eq(ptr, graph, NULL));
  EXPECT_STATUS(stream, None);
}

static cudaGraphExec_t end_and_instantiate(cudaStream_t stream) {
  cudaGraph_t graph = end(stream);
  cudaGraphExec_t exec;
  OK(cudaGraphInstantiate(&exec, graph, 0));
  OK(cudaGraphDestroy(graph));
  return exec;
}

static size_t node_count(cudaGraph_t graph) {
  size_t count = 99;
  OK(cudaGraphGetNodes(graph, NULL, &count));
  return count;
}

static cudaEvent_t new_event(void) {
  cudaEvent_t event;
  OK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  return event;
}

// Makes `to` wait for all that is in `from`, as programs fork and join.
static void follow(cudaStream_t to, cudaStream_t from) {
  cudaEvent_t event = new_event();
  OK(cudaEventRecord(event, from));
  OK(cudaStreamWaitEvent(to, event, 0));
  OK(cudaEventDestroy(event));
}

static void launch_and_wait(cudaGraphExec_t exec, cudaStream_t stream) {
  OK(cudaGraphLaunch(exec, stream));
  OK(cudaStreamSynchronize(stream));
}

//===-- Launches ------------------------------------------------------------------------------===//

static void nothing(void* argument) { (void)argument; }

typedef struct addition {
  const unsigned char* from;
  unsigned char* to;
  unsigned char amount;
} addition;

// A kernel: to = from + amount.
static void add(void* argument) {
  const addition* a = argument;
  for (size_t i = 0; i < BYTES; ++i) a->to[i] = (unsigned char)(a->from[i] + a->amount);
}

SIM_TEST(graph, a_launch_does_what_was_captured) {
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  unsigned char* input = new_pinned_memory(BYTES);
  unsigned char* output = new_pinned_memory(BYTES);
  void* p = new_device_memory(BYTES);
  void* q = new_device_memory(BYTES);
  addition a = {cudasim_device_memory(p, BYTES), cudasim_device_memory(q, BYTES), 3};
  memset(output, 77, BYTES);
  begin(stream);
  OK(cudaMemcpyAsync(p, input, BYTES, cudaMemcpyHostToDevice, stream));
  OK(cudaLaunchHostFunc(stream, add, &a));
  OK(cudaMemsetAsync(q, 9, 1, stream));
  OK(cudaMemcpyAsync(output, q, BYTES, cudaMemcpyDeviceToHost, stream));
  cudaGraphExec_t exec = end_and_instantiate(stream);
  OK(cudaStreamSynchronize(stream));
  cr_expect(eq(int, output[1], 77));  // nothing has been done yet
  for (int i = 0; i < 100; ++i) {
    memset(input, i, BYTES);
    launch_and_wait(exec, stream);
    cr_assert(eq(int, output[0], 9));
    cr_assert(eq(int, output[1], (i + 3) & 255));
    cr_assert(eq(int, output[BYTES - 1], (i + 3) & 255));
  }
  OK(cudaGraphExecDestroy(exec));
}

static void count(void* argument) { ++*(int*)argument; }

SIM_TEST(graph, a_thousand_launches_are_queued_and_done) {
  cudaStream_t stream = new_stream(cudaStreamDefault);
  int done = 0;
  begin(stream);
  for (int i = 0; i < 5; ++i) OK(cudaLaunchHostFunc(stream, count, &done));
  cudaGraphExec_t exec = end_and_instantiate(stream);
  for (int i = 0; i < 1000; ++i) OK(cudaGraphLaunch(exec, stream));
  OK(cudaStreamSynchronize(stream));
  cr_expect(eq(int, done, 5000));
}

SIM_TEST(graph, pageable_memory_is_read_and_written_by_the_launch) {
  cudaStream_t stream = new_stream(0);
  unsigned char source[BYTES] = {1};
  unsigned char target[BYTES] = {0};
  void* p = new_device_memory(BYTES);
  begin(stream);
  OK(cudaMemcpyAsync(p, source, BYTES, cudaMemcpyDefault, stream));
  OK(cudaMemcpyAsync(target, p, BYTES, cudaMemcpyDefault, stream));
  OK(cudaMemcpyAsync(target + 1, source, 1, cudaMemcpyDefault, stream));
  cudaGraphExec_t exec = end_and_instantiate(stream);
  source[0] = 5;
  launch_and_wait(exec, stream);
  cr_expect(eq(int, target[0], 5));
  cr_expect(eq(int, target[1], 5));
}

static enum cudaGraphNodeType node_type(cudaGraph_t graph, int i) {
  cudaGraphNode_t nodes[8];
  size_t there = 8;
  OK(cudaGraphGetNodes(graph, nodes, &there));
  cr_assert(lt(sz, (size_t)i, there));
  enum cudaGraphNodeType type;
  OK(cudaGraphNodeGetType(nodes[i], &type));
  return type;
}

SIM_TEST(graph, boxes_are_copied_and_filled) {
  cudaStream_t stream = new_stream(0);
  unsigned char* host = new_pinned_memory(1024);
  unsigned char* p = new_device_memory(1024);
  struct cudaMemcpy3DParms box = {.srcPtr = {p, 16, 16, 4},
                                  .dstPtr = {host, 16, 16, 4},
                                  .extent = {8, 2, 2},
                                  .kind = cudaMemcpyDeviceToHost};
  begin(stream);
  OK(cudaMemsetAsync(p, 1, 1024, stream));
  OK(cudaMemset2DAsync(p, 16, 2, 4, 2, stream));
  OK(cudaMemset3DAsync((struct cudaPitchedPtr){p, 16, 16, 4}, 3, (struct cudaExtent){2, 1, 2},
                       stream));
  OK(cudaMemcpy2DAsync(host + 512, 32, p, 16, 8, 2, cudaMemcpyDeviceToHost, stream));
  OK(cudaMemcpy3DAsync(&box, stream));
  cudaGraph_t graph = end(stream);
  cudaGraphExec_t exec;
  OK(cudaGraphInstantiate(&exec, graph, 0));
  for (int i = 0; i < 5; ++i) {
    cr_expect(
        eq(int, node_type(graph, i), i < 3 ? cudaGraphNodeTypeMemset : cudaGraphNodeTypeMemcpy));
  }
  memset(host, 0, 1024);
  launch_and_wait(exec, stream);
  const unsigned char row[] = {3, 3, 2, 2, 1, 1, 1, 1, 0};
  cr_expect(eq(int, memcmp(host, row, 9), 0));
  cr_expect(eq(int, memcmp(host + 512, row, 9), 0));
  cr_expect(eq(int, host[16], 2));  // the second row: only the 2D fill
  cr_expect(eq(int, host[64], 3));  // the second slice: only the 3D fill
  cr_expect(eq(int, host[66], 1));
  cr_expect(eq(int, host[512 + 32], 2));
}

SIM_TEST(graph, addresses_are_used_at_each_launch) {
  cudaStream_t stream = new_stream(0);
  void* p = new_device_memory(4 * MIB);
  begin(stream);
  OK(cudaMemsetAsync(p, 4, 4 * MIB, stream));
  cudaGraphExec_t exec = end_and_instantiate(stream);
  OK(cudaFree(p));
  REFUSED(cudaGraphLaunch(exec, stream), cudaErrorInvalidValue);  // as a bug that it is
  void* again = new_device_memory(4 * MIB);
  cr_assert(eq(ptr, again, p));
  launch_and_wait(exec, stream);
  unsigned char seen;
  OK(cudaMemcpy(&seen, again, 1, cudaMemcpyDefault));
  cr_expect(eq(int, seen, 4));
}

SIM_TEST(graph, an_executable_graph_outlives_its_graph) {
  cudaStream_t stream = new_stream(0);
  int done = 0;
  begin(stream);
  OK(cudaLaunchHostFunc(stream, count, &done));
  cudaGraph_t graph = end(stream);
  cudaGraphExec_t first;
  cudaGraphExec_t second;
  OK(cudaGraphInstantiate(&first, graph, cudaGraphInstantiateFlagAutoFreeOnLaunch));
  OK(cudaGraphInstantiate(&second, graph, cudaGraphInstantiateFlagUseNodePriority));
  OK(cudaGraphDestroy(graph));
  REFUSED(cudaGraphDestroy(graph), cudaErrorInvalidValue);
  REFUSED(cudaGraphInstantiate(&second, graph, 0), cudaErrorInvalidValue);
  OK(cudaGraphUpload(first, stream));
  OK(cudaGraphLaunch(first, stream));
  OK(cudaGraphExecDestroy(first));
  REFUSED(cudaGraphLaunch(first, stream), cudaErrorInvalidValue);
  launch_and_wait(second, stream);
  cr_expect(eq(int, done, 2));
  OK(cudaGraphExecDestroy(second));
}

THREADS_TEST(graph, destroying_what_is_launched_stops_nothing) {
  gate g = CLOSED_GATE;
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  cudaStream_t fork = new_stream(cudaStreamNonBlocking);
  unsigned char* host = new_pinned_memory(1);
  int done = 0;
  begin(stream);
  close_gate(&g, stream);
  follow(fork, stream);
  OK(cudaLaunchHostFunc(fork, count, &done));
  OK(cudaMemsetAsync(host, 1, 1, stream));
  follow(stream, fork);
  cudaGraphExec_t exec = end_and_instantiate(stream);
  OK(cudaGraphLaunch(exec, stream));
  OK(cudaGraphExecDestroy(exec));
  REFUSED(cudaStreamQuery(stream), cudaErrorNotReady);
  open_gate(&g);
  OK(cudaStreamSynchronize(stream));
  cr_expect(eq(int, done, 1));
}

SIM_TEST(graph, an_empty_one_can_be_launched) {
  cudaStream_t stream = new_stream(0);
  cudaGraph_t created;
  OK(cudaGraphCreate(&created, 0));
  begin(stream);
  cudaGraph_t captured = end(stream);
  cr_expect(eq(sz, node_count(created), 0));
  cr_expect(eq(sz, node_count(captured), 0));
  cudaGraphExec_t exec;
  OK(cudaGraphInstantiate(&exec, created, 0));
  OK(cudaGraphLaunch(exec, 0));
  OK(cudaDeviceSynchronize());
  OK(cudaGraphInstantiate(&exec, captured, 0));
  launch_and_wait(exec, stream);
}

SIM_TEST(graph, bad_arguments_are_refused) {
  cudaStream_t stream = new_stream(0);
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  begin(stream);
  OK(cudaLaunchHostFunc(stream, nothing, NULL));
  graph = end(stream);
  OK(cudaGraphInstantiate(&exec, graph, 0));
  const unsigned flags[] = {2, 4, 16, 32};
  for (int i = 0; i < 4; ++i) {
    REFUSED(cudaGraphInstantiate(&exec, graph, flags[i]), cudaErrorInvalidValue);
  }
  REFUSED(cudaGraphInstantiate(NULL, graph, 0), cudaErrorInvalidValue);
  REFUSED(cudaGraphInstantiate(&exec, NULL, 0), cudaErrorInvalidValue);
  REFUSED(cudaGraphCreate(&graph, 1), cudaErrorInvalidValue);
  REFUSED(cudaGraphLaunch(NULL, stream), cudaErrorInvalidValue);
  REFUSED(cudaGraphUpload(NULL, stream), cudaErrorInvalidValue);
  REFUSED(cudaGraphExecDestroy(NULL), cudaErrorInvalidValue);
  REFUSED(cudaGraphDestroy(NULL), cudaErrorInvalidValue);
  OK(cudaStreamDestroy(stream));
  REFUSED(cudaGraphLaunch(exec, stream), cudaErrorInvalidResourceHandle);
  REFUSED(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal),
          cudaErrorInvalidResourceHandle);
}

SIM_TEST(graph, bad_questions_are_refused) {
  cudaGraph_t graph;
  enum cudaGraphNodeType type;
  size_t nodes = 1;
  OK(cudaGraphCreate(&graph, 0));
  REFUSED(cudaGraphGetNodes(NULL, NULL, &nodes), cudaErrorInvalidValue);
  REFUSED(cudaGraphGetNodes(graph, NULL, NULL), cudaErrorInvalidValue);
  REFUSED(cudaGraphGetRootNodes(graph, NULL, NULL), cudaErrorInvalidValue);
  REFUSED(cudaGraphNodeGetType(NULL, &type), cudaErrorInvalidValue);
  REFUSED(cudaGraphNodeGetDependencies(NULL, NULL, NULL, &nodes), cudaErrorInvalidValue);
}

//===-- Order ---------------------------------------------------------------------------------===//

// From one byte the graph makes two, in two streams, and from those a third.
static void capture_diamond(cudaStream_t stream, cudaStream_t fork, unsigned char* host,
                            unsigned char* p, addition* sums) {
  unsigned char* seen = cudasim_device_memory(p, 3 * BYTES);
  sums[0] = (addition){seen, seen + BYTES, 1};
  sums[1] = (addition){seen, seen + 2 * BYTES, 2};
  begin(stream);
  OK(cudaMemcpyAsync(p, host, BYTES, cudaMemcpyHostToDevice, stream));
  follow(fork, stream);
  OK(cudaLaunchHostFunc(stream, add, &sums[0]));
  OK(cudaLaunchHostFunc(fork, add, &sums[1]));
  OK(cudaMemsetAsync(p + 2 * BYTES, 50, 1, fork));
  follow(stream, fork);
  OK(cudaMemcpyAsync(host + BYTES, p + BYTES, 2 * BYTES, cudaMemcpyDeviceToHost, stream));
}

static void expect_diamond(cudaGraph_t graph) {
  size_t roots = 9;
  OK(cudaGraphGetRootNodes(graph, NULL, &roots));
  cr_expect(eq(sz, roots, 1));
  cudaGraphNode_t nodes[5];
  size_t there = 5;
  OK(cudaGraphGetNodes(graph, nodes, &there));
  cr_expect(eq(sz, there, 5));
  const size_t expected[] = {0, 1, 1, 1, 2};
  for (int i = 0; i < 5; ++i) {
    size_t before = 9;
    OK(cudaGraphNodeGetDependencies(nodes[i], NULL, NULL, &before));
    cr_expect(eq(sz, before, expected[i]), "node %d", i);
  }
  cudaGraphNode_t before[3];
  size_t room = 3;
  OK(cudaGraphNodeGetDependencies(nodes[4], before, NULL, &room));
  cr_expect(eq(sz, room, 2));
  cr_expect(eq(ptr, before[0], nodes[1]));
  cr_expect(eq(ptr, before[1], nodes[3]));
  cr_expect(eq(ptr, before[2], NULL));
}

SIM_TEST(graph, forks_and_joins) {
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  cudaStream_t fork = new_stream(cudaStreamDefault);
  unsigned char* host = new_pinned_memory(3 * BYTES);
  void* p = new_device_memory(3 * BYTES);
  addition sums[2];
  capture_diamond(stream, fork, host, p, sums);
  EXPECT_STATUS(fork, Active);
  cudaGraph_t graph = end(stream);
  EXPECT_STATUS(fork, None);
  expect_diamond(graph);
  cudaGraphExec_t exec;
  OK(cudaGraphInstantiate(&exec, graph, 0));
  for (int i = 0; i < 200; ++i) {
    memset(host, i, BYTES);
    launch_and_wait(exec, stream);
    cr_assert(eq(int, host[BYTES], (i + 1) & 255));
    cr_assert(eq(int, host[2 * BYTES], 50));
    cr_assert(eq(int, host[3 * BYTES - 1], (i + 2) & 255));
  }
}

// Branches really are independent: one waits on the host for what the other does.
THREADS_TEST(graph, branches_do_not_wait_for_each_other) {
  gate g = CLOSED_GATE;
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  cudaStream_t fork = new_stream(cudaStreamNonBlocking);
  unsigned char* host = new_pinned_memory(1);
  begin(stream);
  OK(cudaMemsetAsync(host, 1, 1, stream));
  follow(fork, stream);
  close_gate(&g, stream);
  OK(cudaLaunchHostFunc(fork, (cudaHostFn_t)open_gate, &g));
  follow(stream, fork);
  cudaGraphExec_t exec = end_and_instantiate(stream);
  launch_and_wait(exec, stream);
  cr_expect(g.is_reached);
}

THREADS_TEST(graph, launches_of_one_graph_follow_each_other) {
  gate g = CLOSED_GATE;
  cudaStream_t streams[] = {new_stream(cudaStreamNonBlocking), new_stream(cudaStreamNonBlocking)};
  int done = 0;
  begin(streams[0]);
  OK(cudaLaunchHostFunc(streams[0], count, &done));
  cudaGraphExec_t exec = end_and_instantiate(streams[0]);
  close_gate(&g, streams[0]);
  OK(cudaGraphLaunch(exec, streams[0]));
  OK(cudaGraphLaunch(exec, streams[1]));
  nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
  REFUSED(cudaStreamQuery(streams[1]), cudaErrorNotReady);
  open_gate(&g);
  OK(cudaStreamSynchronize(streams[1]));
  cr_expect(eq(int, done, 2));
}

// Lane 1 of a launch waits for what is in the launch's stream, and what follows for lane 1.
THREADS_TEST(graph, a_launch_is_in_order_with_its_stream) {
  gate g = CLOSED_GATE;
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  cudaStream_t fork = new_stream(cudaStreamNonBlocking);
  unsigned char* host = new_pinned_memory(1);
  int done = 0;
  begin(stream);
  follow(fork, stream);
  OK(cudaMemsetAsync(host, 1, 1, stream));
  OK(cudaLaunchHostFunc(fork, count, &done));
  follow(stream, fork);
  cudaGraphExec_t exec = end_and_instantiate(stream);
  close_gate(&g, stream);
  OK(cudaGraphLaunch(exec, stream));
  OK(cudaMemsetAsync(host, 7, 1, stream));
  nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
  cr_expect(eq(int, *(volatile int*)&done, 0));
  open_gate(&g);
  OK(cudaStreamSynchronize(stream));
  cr_expect(eq(int, done, 1));
  cr_expect(eq(int, host[0], 7));
}

SIM_TEST(graph, wide_ones_are_done_in_order) {
  enum { WIDTH = 40 };
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  cudaStream_t forks[WIDTH];
  unsigned char* host = new_pinned_memory(WIDTH * BYTES);
  unsigned char* p = new_device_memory(WIDTH * BYTES);
  begin(stream);
  OK(cudaMemsetAsync(p, 1, WIDTH * BYTES, stream));
  for (int i = 0; i < WIDTH; ++i) {
    forks[i] = new_stream(cudaStreamNonBlocking);
    follow(forks[i], stream);
    OK(cudaMemsetAsync(p + i * BYTES, i + 2, BYTES - 1, forks[i]));
  }
  for (int i = 0; i < WIDTH; ++i) follow(stream, forks[i]);
  OK(cudaMemcpyAsync(host, p, WIDTH * BYTES, cudaMemcpyDeviceToHost, stream));
  cudaGraphExec_t exec = end_and_instantiate(stream);
  for (int k = 0; k < 20; ++k) {
    memset(host, 0, WIDTH * BYTES);
    launch_and_wait(exec, stream);
    for (int i = 0; i < WIDTH; ++i) {
      cr_assert(eq(int, host[i * BYTES], i + 2));
      cr_assert(eq(int, host[(i + 1) * BYTES - 1], 1));
    }
  }
}

Test(graph, spans_devices) {
  make_machine((cudasim_options){.devices = 2});
  cudaStream_t here = new_stream(cudaStreamNonBlocking);
  void* p = new_device_memory(BYTES);
  OK(cudaSetDevice(1));
  cudaStream_t there = new_stream(cudaStreamNonBlocking);
  void* q = new_device_memory(BYTES);
  cudaEvent_t back = new_event();
  OK(cudaSetDevice(0));
  unsigned char* host = new_pinned_memory(BYTES);
  begin(here);
  OK(cudaMemsetAsync(p, 6, BYTES, here));
  follow(there, here);
  OK(cudaMemcpyAsync(q, p, BYTES, cudaMemcpyDefault, there));
  OK(cudaMemcpyAsync(host, q, BYTES, cudaMemcpyDefault, there));
  OK(cudaEventRecord(back, there));
  OK(cudaStreamWaitEvent(here, back, 0));
  cudaGraphExec_t exec = end_and_instantiate(here);
  for (int i = 0; i < 10; ++i) {
    memset(host, 0, BYTES);
    launch_and_wait(exec, here);
    cr_assert(eq(int, host[BYTES - 1], 6));
  }
  OK(cudaSetDevice(1));
  OK(cudaDeviceReset());  // with it goes the lane of the graph that is there
  OK(cudaSetDevice(0));
  REFUSED(cudaGraphLaunch(exec, here), cudaErrorInvalidValue);
  OK(cudaGraphExecDestroy(exec));
}

SIM_TEST(graph, random_ones_give_what_their_captures_say) {
  enum { STREAMS = 6, STEPS = 120, CELLS = 12 };
  cudaStream_t streams[STREAMS];
  unsigned char* p = new_device_memory(CELLS);
  unsigned char* host = new_pinned_memory(CELLS);
  for (unsigned seed = 1; seed <= 30; ++seed) {
    unsigned state = seed;
    unsigned char model[CELLS] = {0};
    for (int i = 0; i < STREAMS; ++i) streams[i] = new_stream(cudaStreamNonBlocking);
    begin(streams[0]);
    OK(cudaMemsetAsync(p, 0, CELLS, streams[0]));
    for (int i = 1; i < STREAMS; ++i) follow(streams[i], streams[0]);
    for (int i = 0; i < STEPS; ++i) {
      cudaStream_t stream = streams[rand_r(&state) % STREAMS];
      unsigned to = rand_r(&state) % CELLS;
      unsigned from = rand_r(&state) % CELLS;
      for (int k = 0; k < STREAMS; ++k) {
        if (streams[k] != stream) follow(stream, streams[k]);
      }
      if (i % 3) {
        if (to != from) OK(cudaMemcpyAsync(p + to, p + from, 1, cudaMemcpyDefault, stream));
        model[to] = model[from];
      } else {
        OK(cudaMemsetAsync(p + to, i + 1, 1, stream));
        model[to] = (unsigned char)(i + 1);
      }
    }
    for (int i = 1; i < STREAMS; ++i) follow(streams[0], streams[i]);
    OK(cudaMemcpyAsync(host, p, CELLS, cudaMemcpyDefault, streams[0]));
    cudaGraphExec_t exec = end_and_instantiate(streams[0]);
    for (int i = 0; i < 3; ++i) launch_and_wait(exec, streams[i]);
    cr_assert(eq(int, memcmp(host, model, CELLS), 0), "seed %u", seed);
    OK(cudaGraphExecDestroy(exec));
    for (int i = 0; i < STREAMS; ++i) OK(cudaStreamDestroy(streams[i]));
  }
}

//===-- What is asked of a capture ------------------------------------------------------------===//

SIM_TEST(capture, there_is_none_to_ask_about) {
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  enum cudaStreamCaptureStatus status = cudaStreamCaptureStatusActive;
  unsigned long long id = 7;
  size_t tips = 7;
  OK(cudaStreamGetCaptureInfo(stream, &status, &id, NULL, NULL, NULL, &tips));
  cr_expect(eq(int, status, cudaStreamCaptureStatusNone));
  cr_expect(eq(ullong, id, 7));
  cr_expect(eq(sz, tips, 7));
  REFUSED(cudaStreamIsCapturing(stream, NULL), cudaErrorInvalidValue);
}

static unsigned long long id_of(cudaStream_t stream) {
  enum cudaStreamCaptureStatus status;
  unsigned long long id;
  OK(cudaStreamGetCaptureInfo(stream, &status, &id, NULL, NULL, NULL, NULL));
  cr_assert(eq(int, status, cudaStreamCaptureStatusActive));
  return id;
}

SIM_TEST(capture, each_has_an_id) {
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  cudaStream_t fork = new_stream(cudaStreamNonBlocking);
  begin(stream);
  unsigned long long id = id_of(stream);
  OK(cudaLaunchHostFunc(stream, nothing, NULL));
  follow(fork, stream);
  cr_expect(eq(ullong, id_of(fork), id));
  follow(stream, fork);
  cr_expect(eq(ullong, id_of(stream), id));
  end(stream);
  begin(stream);
  cr_expect(ne(ullong, id_of(stream), id));
  cr_expect(eq(sz, node_count(end(stream)), 0));
}

SIM_TEST(capture, tells_its_graph_and_tips) {
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  cudaStream_t fork = new_stream(cudaStreamNonBlocking);
  enum cudaStreamCaptureStatus status;
  size_t tips = 7;
  begin(stream);
  cudaGraph_t graph;
  const cudaGraphNode_t* nodes = (const cudaGraphNode_t*)&graph;
  const cudaGraphEdgeData* edges = (const cudaGraphEdgeData*)&graph;
  OK(cudaStreamGetCaptureInfo(stream, &status, NULL, &graph, &nodes, &edges, &tips));
  cr_expect(eq(sz, tips, 0));
  cr_expect(eq(ptr, (void*)nodes, NULL));
  cr_expect(eq(ptr, (void*)edges, NULL));
  OK(cudaLaunchHostFunc(stream, nothing, NULL));
  follow(fork, stream);
  OK(cudaLaunchHostFunc(fork, nothing, NULL));
  follow(stream, fork);
  follow(stream, fork);
  OK(cudaStreamGetCaptureInfo(stream, &status, NULL, NULL, &nodes, NULL, &tips));
  cr_assert(eq(sz, tips, 2));
  cudaGraphNode_t all[2];
  size_t there = 2;
  OK(cudaGraphGetNodes(graph, all, &there));
  cr_expect(eq(ptr, nodes[0], all[0]));
  cr_expect(eq(ptr, nodes[1], all[1]));
  REFUSED(cudaGraphDestroy(graph), cudaErrorInvalidValue);
  cr_expect(eq(ptr, end(stream), graph));
}

SIM_TEST(capture, the_mode_of_a_thread_is_exchanged) {
  enum cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  OK(cudaThreadExchangeStreamCaptureMode(&mode));
  cr_expect(eq(int, mode, cudaStreamCaptureModeGlobal));
  OK(cudaThreadExchangeStreamCaptureMode(&mode));
  cr_expect(eq(int, mode, cudaStreamCaptureModeRelaxed));
  REFUSED(cudaThreadExchangeStreamCaptureMode(NULL), cudaErrorInvalidValue);
}

//===-- What is captured, and what breaks a capture -------------------------------------------===//

static cudaStream_t captured;
static cudaStream_t other;
static cudaStream_t blocking;
static cudaEvent_t outside;  // recorded before the capture
static cudaEvent_t inside;   // recorded in it
static cudaEvent_t unused;   // never recorded
static char* memory;         // of cudaMalloc
static char* from_pool;
static char pageable[8192] __attribute__((aligned(4096)));
static cudaGraph_t ready_graph;
static cudaGraphExec_t ready;

static void make_cast(unsigned flags) {
  captured = new_stream(flags);
  other = new_stream(cudaStreamNonBlocking);
  blocking = new_stream(cudaStreamDefault);
  outside = new_event();
  unused = new_event();
  OK(cudaEventCreate(&inside));
  memory = new_device_memory(4096);
  OK(cudaMallocAsync((void**)&from_pool, 64, other));
  OK(cudaEventRecord(outside, other));
  begin(other);
  OK(cudaLaunchHostFunc(other, nothing, NULL));
  ready_graph = end(other);
  OK(cudaGraphInstantiate(&ready, ready_graph, 0));
  OK(cudaDeviceSynchronize());
}

static void begin_captured(enum cudaStreamCaptureMode mode) {
  OK(cudaStreamBeginCapture(captured, mode));
  OK(cudaMemsetAsync(memory, 0, 8, captured));
  OK(cudaEventRecord(inside, captured));
}

static cudaMemPool_t default_pool(void) {
  cudaMemPool_t pool;
  OK(cudaDeviceGetDefaultMemPool(&pool, 0));
  return pool;
}

// How a call and a capture beside it get on.
typedef enum rule {
  SAFE,      // always allowed
  UNSAFE,    // as the modes say
  NEVER,     // refused in all modes
  IMPLICIT,  // uses the legacy stream: refused if a blocking stream is captured
  ASKS,      // the same, but the capture stays valid
  JOINS,     // the legacy stream would enter the capture: refused always
  BOTH,      // IMPLICIT, and else UNSAFE
} rule;

typedef struct act {
  const char* name;
  cudaError_t (*call)(void);
  rule rule;
  cudaError_t error;  // of NEVER
} act;

static void* p_out;
static size_t size_out;
static int int_out;
static enum cudaStreamCaptureStatus status_out;

// The acts, each a function and a row.
#define ACTS(X)                                                                                    \
  X(malloc, UNSAFE, 0, cudaMalloc(&p_out, 64))                                                     \
  X(free, UNSAFE, 0, cudaFree(from_pool))                                                          \
  X(free_nothing, UNSAFE, 0, cudaFree(NULL))                                                       \
  X(host_alloc, UNSAFE, 0, cudaHostAlloc(&p_out, 64, 0))                                           \
  X(malloc_host, UNSAFE, 0, cudaMallocHost(&p_out, 64))                                            \
  X(free_host, UNSAFE, 0, cudaFreeHost(NULL))                                                      \
  X(host_register, UNSAFE, 0, cudaHostRegister(pageable, 4096, 0))                                 \
  X(malloc_async, UNSAFE, 0, cudaMallocAsync(&p_out, 64, other))                                   \
  X(free_async, UNSAFE, 0, cudaFreeAsync(from_pool, other))                                        \
  X(malloc_async_legacy, BOTH, 0, cudaMallocAsync(&p_out, 64, NULL))                               \
  X(trim_pool, UNSAFE, 0, cudaMemPoolTrimTo(default_pool(), 0))                                    \
  X(pool_attribute, UNSAFE, 0,                                                                     \
    cudaMemPoolGetAttribute(default_pool(), cudaMemPoolAttrUsedMemCurrent, &size_out))             \
  X(set_pool, UNSAFE, 0, cudaDeviceSetMemPool(0, default_pool()))                                  \
  X(mem_info, SAFE, 0, cudaMemGetInfo(&size_out, &size_out))                                       \
  X(synchronize_device, NEVER, cudaErrorStreamCaptureUnsupported, cudaDeviceSynchronize())         \
  X(synchronize, NEVER, cudaErrorStreamCaptureUnsupported, cudaStreamSynchronize(captured))        \
  X(query, NEVER, cudaErrorStreamCaptureUnsupported, cudaStreamQuery(captured))                    \
  X(synchronize_other, UNSAFE, 0, cudaStreamSynchronize(other))                                    \
  X(synchronize_blocking, UNSAFE, 0, cudaStreamSynchronize(blocking))                              \
  X(query_other, UNSAFE, 0, cudaStreamQuery(other))                                                \
  X(synchronize_legacy, BOTH, 0, cudaStreamSynchronize(NULL))                                      \
  X(query_legacy, BOTH, 0, cudaStreamQuery(cudaStreamLegacy))                                      \
  X(event_query, NEVER, cudaErrorCapturedEvent, cudaEventQuery(inside))                            \
  X(event_synchronize, NEVER, cudaErrorCapturedEvent, cudaEventSynchronize(inside))                \
  X(event_query_outside, UNSAFE, 0, cudaEventQuery(outside))                                       \
  X(event_synchronize_outside, UNSAFE, 0, cudaEventSynchronize(outside))                           \
  X(event_destroy, SAFE, 0, cudaEventDestroy(inside))                                              \
  X(event_create, SAFE, 0, cudaEventCreate(&unused))                                               \
  X(stream_create, SAFE, 0, cudaStreamCreate(&blocking))                                           \
  X(memcpy, IMPLICIT, 0, cudaMemcpy(memory, memory + 512, 8, cudaMemcpyDefault))                   \
  X(memcpy_pageable, IMPLICIT, 0, cudaMemcpy(memory, pageable, 8, cudaMemcpyDefault))              \
  X(memset, IMPLICIT, 0, cudaMemset(memory, 0, 8))                                                 \
  X(copy_legacy, IMPLICIT, 0, cudaMemcpyAsync(memory, memory + 512, 8, cudaMemcpyDefault, NULL))   \
  X(record_legacy, IMPLICIT, 0, cudaEventRecord(unused, NULL))                                     \
  X(wait_legacy, IMPLICIT, 0, cudaStreamWaitEvent(NULL, outside, 0))                               \
  X(join_legacy, JOINS, 0, cudaStreamWaitEvent(NULL, inside, 0))                                   \
  X(host_legacy, IMPLICIT, 0, cudaLaunchHostFunc(NULL, nothing, NULL))                             \
  X(priority_legacy, IMPLICIT, 0, cudaStreamGetPriority(NULL, &int_out))                           \
  X(launch_legacy, IMPLICIT, 0, cudaGraphLaunch(ready, NULL))                                      \
  X(ask_legacy, ASKS, 0, cudaStreamIsCapturing(NULL, &status_out))                                 \
  X(ask_more_legacy, ASKS, 0,                                                                      \
    cudaStreamGetCaptureInfo(NULL, &status_out, NULL, NULL, NULL, NULL, NULL))                     \
  X(ask_blocking, SAFE, 0, cudaStreamIsCapturing(blocking, &status_out))                           \
  X(copy_blocking, SAFE, 0, cudaMemcpyAsync(memory, memory + 512, 8, cudaMemcpyDefault, blocking)) \
  X(copy_other, SAFE, 0, cudaMemcpyAsync(memory, pageable, 8, cudaMemcpyDefault, other))           \
  X(wait_other, SAFE, 0, cudaStreamWaitEvent(other, outside, 0))                                   \
  X(instantiate, UNSAFE, 0, cudaGraphInstantiate(&ready, ready_graph, 0))                          \
  X(launch_other, SAFE, 0, cudaGraphLaunch(ready, other))                                          \
  X(upload_other, SAFE, 0, cudaGraphUpload(ready, other))                                          \
  X(launch_captured, NEVER, cudaErrorStreamCaptureUnsupported, cudaGraphLaunch(ready, captured))   \
  X(upload_captured, NEVER, cudaErrorStreamCaptureUnsupported, cudaGraphUpload(ready, captured))   \
  X(peer_copy, NEVER, cudaErrorStreamCaptureUnsupported,                                           \
    cudaMemcpyPeerAsync(memory, 0, memory + 512, 0, 8, captured))                                  \
  X(wait_outside, NEVER, cudaErrorStreamCaptureIsolation,                                          \
    cudaStreamWaitEvent(captured, outside, 0))                                                     \
  X(wait_unused, SAFE, 0, cudaStreamWaitEvent(captured, unused, 0))                                \
  X(wait_inside, SAFE, 0, cudaStreamWaitEvent(captured, inside, 0))                                \
  X(priority, SAFE, 0, cudaStreamGetPriority(captured, &int_out))                                  \
  X(empty_copy, SAFE, 0, cudaMemcpyAsync(memory, pageable, 0, cudaMemcpyDefault, captured))

#define FUNCTION_(name, rule, error, call) \
  static cudaError_t act_##name(void) { return call; }
ACTS(FUNCTION_)

static const act acts[] = {
#define ROW_(name, rule, error, call) {#name, act_##name, rule, (cudaError_t)(error)},
    ACTS(ROW_)
#undef ROW_
};

typedef struct setting {
  enum cudaStreamCaptureMode capture;
  enum cudaStreamCaptureMode thread;  // of the one that calls
  unsigned flags;                     // of the captured stream
  bool by_other_thread;
} setting;

static bool allows_unsafe(const setting* s) {
  if (s->thread == cudaStreamCaptureModeRelaxed) return true;
  if (!s->by_other_thread) return s->capture == cudaStreamCaptureModeRelaxed;
  return s->capture != cudaStreamCaptureModeGlobal || s->thread == cudaStreamCaptureModeThreadLocal;
}

static cudaError_t expected_of(const act* a, const setting* s, bool* breaks) {
  bool is_implicit = s->flags != cudaStreamNonBlocking;
  *breaks = a->rule != ASKS;
  switch (a->rule) {
    case NEVER:
      return a->error;
    case JOINS:
      return cudaErrorStreamCaptureImplicit;
    case IMPLICIT:
    case ASKS:
      return is_implicit ? cudaErrorStreamCaptureImplicit : cudaSuccess;
    case BOTH:
      if (is_implicit) return cudaErrorStreamCaptureImplicit;
      return allows_unsafe(s) ? cudaSuccess : cudaErrorStreamCaptureUnsupported;
    case UNSAFE:
      return allows_unsafe(s) ? cudaSuccess : cudaErrorStreamCaptureUnsupported;
    case SAFE:
      break;
  }
  return cudaSuccess;
}

typedef struct calling {
  const act* act;
  const setting* setting;
  cudaError_t result;
} calling;

static void* do_call(void* argument) {
  calling* c = argument;
  enum cudaStreamCaptureMode mode = c->setting->thread;
  OK(cudaThreadExchangeStreamCaptureMode(&mode));
  c->result = c->act->call();
  OK(cudaThreadExchangeStreamCaptureMode(&mode));
  return NULL;
}

static void try_beside_capture(const act* a, const setting* s) {
  make_cast(s->flags);
  begin_captured(s->capture);
  calling c = {.act = a, .setting = s};
  if (s->by_other_thread) {
    pthread_t thread;
    cr_assert(eq(int, pthread_create(&thread, NULL, do_call, &c), 0));
    pthread_join(thread, NULL);
  } else {
    do_call(&c);
  }
  bool breaks;
  cudaError_t expected = expected_of(a, s, &breaks);
  breaks = breaks && expected != cudaSuccess;
  cr_expect(eq(int, c.result, expected), "%s in mode %d, thread %d, flags %u, other thread %d",
            a->name, s->capture, s->thread, s->flags, s->by_other_thread);
  cr_expect(eq(int, status_of(captured), breaks ? 2 : 1), "%s in mode %d", a->name, s->capture);
  if (breaks) {
    expect_end(captured, cudaErrorStreamCaptureInvalidated);
  } else {
    cr_expect(eq(sz, node_count(end(captured)), 1), "%s", a->name);
  }
  (void)cudaHostUnregister(pageable);
  OK(cudaDeviceReset());
}

// Each call beside captures of all modes, by a thread in all modes, as the one that captures or as
// another.
static void try_all(enum cudaStreamCaptureMode mode) {
  for (size_t i = 0; i < sizeof(acts) / sizeof(acts[0]); ++i) {
    for (int k = 0; k < 12; ++k) {
      setting s = {.capture = mode,
                   .thread = (enum cudaStreamCaptureMode)(k % 3),
                   .flags = k / 3 % 2,
                   .by_other_thread = k / 6};
      try_beside_capture(&acts[i], &s);
    }
  }
}

SIM_TEST(capture, calls_beside_a_global_one) { try_all(cudaStreamCaptureModeGlobal); }
SIM_TEST(capture, calls_beside_a_thread_local_one) { try_all(cudaStreamCaptureModeThreadLocal); }
SIM_TEST(capture, calls_beside_a_relaxed_one) { try_all(cudaStreamCaptureModeRelaxed); }

SIM_TEST(capture, refused_calls_that_leave_it_valid) {
  make_cast(cudaStreamNonBlocking);
  begin_captured(cudaStreamCaptureModeGlobal);
  float ms;
  void* to[] = {memory};
  const void* from[] = {memory + 512};
  size_t size = 8;
  struct cudaMemcpyAttributes attributes = {.srcAccessOrder = cudaMemcpySrcAccessOrderStream};
  size_t first = 0;
  REFUSED(cudaStreamBeginCapture(captured, cudaStreamCaptureModeGlobal), cudaErrorIllegalState);
  REFUSED(cudaEventElapsedTime(&ms, inside, inside), cudaErrorCapturedEvent);
  REFUSED(cudaMemcpyAsync(memory, NULL, 8, cudaMemcpyDefault, captured), cudaErrorInvalidValue);
  REFUSED(cudaMemcpyAsync(memory, memory + 512, 1 << 30, cudaMemcpyDefault, captured),
          cudaErrorInvalidValue);
  REFUSED(cudaLaunchHostFunc(captured, NULL, NULL), cudaErrorInvalidValue);
  REFUSED(cudaMemcpyBatchAsync(to, from, &size, 1, &attributes, &first, 1, captured),
          cudaErrorStreamCaptureUnsupported);
  REFUSED(cudaFreeAsync(from_pool, captured), cudaErrorInvalidValue);
  REFUSED(cudaStreamBeginCapture(NULL, cudaStreamCaptureModeRelaxed),
          cudaErrorStreamCaptureUnsupported);
  cudaGraph_t graph;
  REFUSED(cudaStreamEndCapture(other, &graph), cudaErrorIllegalState);
  cr_expect(eq(sz, node_count(end(captured)), 1));
}

SIM_TEST(capture, a_fill_of_a_bad_address_fails_when_instantiated) {
  cudaStream_t stream = new_stream(0);
  void* const bad[] = {NULL, pageable};
  for (int i = 0; i < 2; ++i) {
    begin(stream);
    OK(cudaMemsetAsync(bad[i], 0, 8, stream));
    cudaGraph_t graph = end(stream);
    cudaGraphExec_t exec;
    cr_expect(eq(sz, node_count(graph), 1));
    REFUSED(cudaGraphInstantiate(&exec, graph, 0), cudaErrorInvalidValue);
  }
}

//===-- Beginning and ending ------------------------------------------------------------------===//

SIM_TEST(capture, of_default_streams) {
  REFUSED(cudaStreamBeginCapture(NULL, cudaStreamCaptureModeGlobal),
          cudaErrorStreamCaptureUnsupported);
  REFUSED(cudaStreamBeginCapture(cudaStreamLegacy, cudaStreamCaptureModeRelaxed),
          cudaErrorStreamCaptureUnsupported);
  begin(cudaStreamPerThread);
  EXPECT_STATUS(cudaStreamPerThread, Active);
  cr_expect(eq(sz, node_count(end(cudaStreamPerThread)), 0));
  REFUSED(cudaStreamBeginCapture(cudaStreamPerThread, (enum cudaStreamCaptureMode)7),
          cudaErrorInvalidValue);
  expect_end(cudaStreamPerThread, cudaErrorIllegalState);
}

typedef struct ending {
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaError_t result;
} ending;

static void* end_it(void* argument) {
  ending* e = argument;
  e->result = cudaStreamEndCapture(e->stream, &e->graph);
  return NULL;
}

SIM_TEST(capture, ends_in_the_thread_that_began_it_unless_relaxed) {
  for (int mode = 0; mode < 3; ++mode) {
    ending e = {.stream = new_stream(0)};
    OK(cudaStreamBeginCapture(e.stream, (enum cudaStreamCaptureMode)mode));
    pthread_t thread;
    cr_assert(eq(int, pthread_create(&thread, NULL, end_it, &e), 0));
    pthread_join(thread, NULL);
    bool is_relaxed = mode == cudaStreamCaptureModeRelaxed;
    cr_expect(eq(int, e.result, is_relaxed ? cudaSuccess : cudaErrorStreamCaptureWrongThread));
    cr_expect(eq(int, e.graph != NULL, is_relaxed));
    EXPECT_STATUS(e.stream, None);
    OK(cudaStreamSynchronize(e.stream));
  }
}

SIM_TEST(capture, ends_in_the_stream_in_which_it_began) {
  make_cast(cudaStreamNonBlocking);
  begin_captured(cudaStreamCaptureModeGlobal);
  OK(cudaStreamWaitEvent(other, inside, 0));
  cudaGraph_t graph = ready_graph;
  REFUSED(cudaStreamEndCapture(other, &graph), cudaErrorStreamCaptureUnmatched);
  cr_expect(eq(ptr, graph, NULL));
  EXPECT_STATUS(captured, Invalidated);
  EXPECT_STATUS(other, Invalidated);
  expect_end(captured, cudaErrorStreamCaptureInvalidated);
  EXPECT_STATUS(other, None);
}

SIM_TEST(capture, must_be_joined) {
  make_cast(cudaStreamNonBlocking);
  begin_captured(cudaStreamCaptureModeGlobal);
  OK(cudaStreamWaitEvent(other, inside, 0));
  OK(cudaMemsetAsync(memory, 0, 8, other));
  expect_end(captured, cudaErrorStreamCaptureUnjoined);
  EXPECT_STATUS(other, None);
  // joined too early
  begin_captured(cudaStreamCaptureModeGlobal);
  OK(cudaStreamWaitEvent(other, inside, 0));
  OK(cudaMemsetAsync(memory, 0, 8, other));
  follow(captured, other);
  OK(cudaMemsetAsync(memory, 0, 8, other));
  expect_end(captured, cudaErrorStreamCaptureUnjoined);
  // by way of a third stream
  begin_captured(cudaStreamCaptureModeGlobal);
  OK(cudaStreamWaitEvent(other, inside, 0));
  OK(cudaMemsetAsync(memory, 0, 8, other));
  follow(blocking, other);
  OK(cudaMemsetAsync(memory, 0, 8, blocking));
  follow(captured, blocking);
  cr_expect(eq(sz, node_count(end(captured)), 3));
  // a fork that does nothing needs no join
  begin_captured(cudaStreamCaptureModeGlobal);
  OK(cudaStreamWaitEvent(other, inside, 0));
  cr_expect(eq(sz, node_count(end(captured)), 1));
}

SIM_TEST(capture, two_are_not_merged) {
  make_cast(cudaStreamNonBlocking);
  begin_captured(cudaStreamCaptureModeGlobal);
  begin(other);
  OK(cudaMemsetAsync(memory, 0, 8, other));
  REFUSED(cudaStreamWaitEvent(other, inside, 0), cudaErrorStreamCaptureMerge);
  EXPECT_STATUS(captured, Invalidated);
  expect_end(other, cudaErrorStreamCaptureInvalidated);
  expect_end(captured, cudaErrorStreamCaptureInvalidated);
}

SIM_TEST(capture, two_live_side_by_side) {
  make_cast(cudaStreamNonBlocking);
  begin_captured(cudaStreamCaptureModeGlobal);
  begin(other);
  OK(cudaMemsetAsync(memory, 0, 8, other));
  OK(cudaMemsetAsync(memory, 0, 8, other));
  cr_expect(eq(sz, node_count(end(other)), 2));
  cr_expect(eq(sz, node_count(end(captured)), 1));
}

SIM_TEST(capture, an_invalid_one_only_ends) {
  make_cast(cudaStreamNonBlocking);
  begin_captured(cudaStreamCaptureModeGlobal);
  OK(cudaStreamWaitEvent(other, inside, 0));
  REFUSED(cudaStreamSynchronize(captured), cudaErrorStreamCaptureUnsupported);
  EXPECT_STATUS(other, Invalidated);
  REFUSED(cudaMemsetAsync(memory, 0, 8, captured), cudaErrorStreamCaptureInvalidated);
  REFUSED(cudaMalloc(&p_out, 64), cudaErrorStreamCaptureUnsupported);
  REFUSED(cudaEventRecord(unused, captured), cudaErrorStreamCaptureInvalidated);
  REFUSED(cudaEventRecord(unused, other), cudaErrorStreamCaptureInvalidated);
  REFUSED(cudaStreamWaitEvent(captured, inside, 0), cudaErrorStreamCaptureInvalidated);
  REFUSED(cudaStreamWaitEvent(blocking, inside, 0), cudaErrorInvalidValue);
  REFUSED(cudaEventQuery(inside), cudaErrorInvalidValue);
  REFUSED(cudaStreamSynchronize(captured), cudaErrorStreamCaptureUnsupported);
  REFUSED(cudaStreamBeginCapture(captured, cudaStreamCaptureModeGlobal), cudaErrorIllegalState);
  expect_end(captured, cudaErrorStreamCaptureInvalidated);
  OK(cudaMemsetAsync(memory, 0, 8, other));
  OK(cudaStreamSynchronize(other));
  OK(cudaMalloc(&p_out, 64));
}

SIM_TEST(capture, an_invalid_one_can_be_asked_about) {
  make_cast(cudaStreamNonBlocking);
  begin_captured(cudaStreamCaptureModeGlobal);
  OK(cudaStreamWaitEvent(other, inside, 0));
  REFUSED(cudaStreamSynchronize(captured), cudaErrorStreamCaptureUnsupported);
  enum cudaStreamCaptureStatus status;
  unsigned long long id = 77;
  OK(cudaStreamGetCaptureInfo(captured, &status, &id, NULL, NULL, NULL, NULL));
  cr_expect(eq(int, status, cudaStreamCaptureStatusInvalidated));
  cr_expect(eq(ullong, id, 77));
  cudaGraph_t graph;
  REFUSED(cudaStreamEndCapture(other, &graph), cudaErrorStreamCaptureUnmatched);
  expect_end(captured, cudaErrorStreamCaptureInvalidated);
}

SIM_TEST(capture, its_events_mean_nothing_afterwards) {
  make_cast(cudaStreamNonBlocking);
  begin_captured(cudaStreamCaptureModeGlobal);
  end(captured);
  REFUSED(cudaEventQuery(inside), cudaErrorInvalidValue);
  REFUSED(cudaEventSynchronize(inside), cudaErrorInvalidValue);
  REFUSED(cudaStreamWaitEvent(other, inside, 0), cudaErrorInvalidValue);
  EXPECT_STATUS(other, None);
  begin(captured);
  REFUSED(cudaStreamWaitEvent(captured, inside, 0), cudaErrorInvalidValue);
  expect_end(captured, cudaErrorStreamCaptureInvalidated);
  OK(cudaEventRecord(inside, other));
  OK(cudaEventSynchronize(inside));
  OK(cudaStreamWaitEvent(captured, inside, 0));
}

SIM_TEST(capture, its_events_can_be_recorded_elsewhere_meanwhile) {
  make_cast(cudaStreamNonBlocking);
  begin_captured(cudaStreamCaptureModeRelaxed);
  OK(cudaEventRecord(inside, other));
  OK(cudaEventSynchronize(inside));
  REFUSED(cudaStreamWaitEvent(captured, inside, 0), cudaErrorStreamCaptureIsolation);
  expect_end(captured, cudaErrorStreamCaptureInvalidated);
}

SIM_TEST(capture, goes_with_its_stream) {
  make_cast(cudaStreamNonBlocking);
  begin_captured(cudaStreamCaptureModeGlobal);
  OK(cudaStreamWaitEvent(other, inside, 0));
  OK(cudaStreamDestroy(other));  // one that only entered
  EXPECT_STATUS(captured, Active);
  OK(cudaStreamWaitEvent(blocking, inside, 0));
  OK(cudaStreamDestroy(captured));
  EXPECT_STATUS(blocking, None);
  OK(cudaMalloc(&p_out, 64));
  OK(cudaDeviceSynchronize());
}

SIM_TEST(capture, goes_with_the_device) {
  make_cast(cudaStreamNonBlocking);
  begin_captured(cudaStreamCaptureModeGlobal);
  OK(cudaDeviceReset());
  OK(cudaMalloc(&p_out, 64));
}

static void* capture_and_leave(void* argument) {
  *(cudaStream_t*)argument = cudaStreamPerThread;
  begin(cudaStreamPerThread);
  return NULL;
}

SIM_TEST(capture, of_a_thread_s_stream_goes_with_the_thread) {
  cudaStream_t stream;
  pthread_t thread;
  cr_assert(eq(int, pthread_create(&thread, NULL, capture_and_leave, &stream), 0));
  pthread_join(thread, NULL);
  OK(cudaMalloc(&p_out, 64));
}

SIM_TEST(capture, streams_work_again_afterwards) {
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  int done = 0;
  OK(cudaLaunchHostFunc(stream, count, &done));
  begin(stream);
  OK(cudaLaunchHostFunc(stream, count, &done));
  end(stream);
  OK(cudaLaunchHostFunc(stream, count, &done));
  OK(cudaStreamSynchronize(stream));
  cr_expect(eq(int, done, 2));
}

//===-- Failures ------------------------------------------------------------------------------===//

static void fail_next(const char* const* names) {
  for (; *names; ++names) OK(cudasim_fail(*names, 1, 1, cudaErrorUnknown));
}

SIM_TEST(graph, making_one_fails_on_demand) {
  cudaStream_t stream = new_stream(0);
  cudaGraph_t graph = NULL;
  cudaGraphNode_t node;
  enum cudaGraphNodeType type;
  size_t one = 1;
  fail_next((const char* const[]){"cudaStreamBeginCapture", "cudaStreamEndCapture",
                                  "cudaGraphGetNodes", "cudaGraphGetRootNodes",
                                  "cudaGraphNodeGetType", "cudaGraphNodeGetDependencies",
                                  "cudaGraphCreate", NULL});
  REFUSED(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaErrorUnknown);
  begin(stream);
  OK(cudaLaunchHostFunc(stream, nothing, NULL));
  REFUSED(cudaStreamEndCapture(stream, &graph), cudaErrorUnknown);
  graph = end(stream);
  REFUSED(cudaGraphGetNodes(graph, &node, &one), cudaErrorUnknown);
  OK(cudaGraphGetNodes(graph, &node, &one));
  REFUSED(cudaGraphGetRootNodes(graph, &node, &one), cudaErrorUnknown);
  REFUSED(cudaGraphNodeGetType(node, &type), cudaErrorUnknown);
  REFUSED(cudaGraphNodeGetDependencies(node, NULL, NULL, &one), cudaErrorUnknown);
  REFUSED(cudaGraphCreate(&graph, 0), cudaErrorUnknown);
}

SIM_TEST(graph, using_one_fails_on_demand) {
  cudaStream_t stream = new_stream(0);
  cudaGraphExec_t exec = NULL;
  begin(stream);
  OK(cudaLaunchHostFunc(stream, nothing, NULL));
  cudaGraph_t graph = end(stream);
  fail_next((const char* const[]){"cudaGraphInstantiate", "cudaGraphUpload", "cudaGraphLaunch",
                                  "cudaGraphExecDestroy", "cudaGraphDestroy", NULL});
  REFUSED(cudaGraphInstantiate(&exec, graph, 0), cudaErrorUnknown);
  OK(cudaGraphInstantiate(&exec, graph, 0));
  REFUSED(cudaGraphUpload(exec, stream), cudaErrorUnknown);
  REFUSED(cudaGraphLaunch(exec, stream), cudaErrorUnknown);
  OK(cudaGraphLaunch(exec, stream));
  REFUSED(cudaGraphExecDestroy(exec), cudaErrorUnknown);
  OK(cudaGraphExecDestroy(exec));
  REFUSED(cudaGraphDestroy(graph), cudaErrorUnknown);
  OK(cudaGraphDestroy(graph));
}

SIM_TEST(graph, a_broken_device_launches_nothing) {
  cudaStream_t stream = new_stream(0);
  int done = 0;
  begin(stream);
  OK(cudaLaunchHostFunc(stream, count, &done));
  cudaGraphExec_t exec = end_and_instantiate(stream);
  OK(cudasim_break_device(0, cudaErrorIllegalAddress));
  REFUSED(cudaGraphLaunch(exec, stream), cudaErrorIllegalAddress);
  cr_expect(eq(int, done, 0));
}

static cudaError_t register_probe(void) {
  static const size_t sizes[] = {sizeof(int*)};
  static const cudasim_kernel probe = {"probe", sizes, 1, probe_reach, probe_run};
  return cudasim_register_kernel(&probe_kernel, &probe);
}

static cudaError_t launch_probe(int* runs, cudaStream_t stream) {
  dim3 one = {1, 1, 1};
  void* arguments[] = {&runs};
  return cudaLaunchKernel(&probe_kernel, one, one, arguments, 0, stream);
}

// Captures a fork with `nodes` nodes in each stream, and a kernel, and launches it; the first error
// that comes up.
static cudaError_t capture_and_launch(cudaStream_t stream, cudaStream_t fork, int nodes, int* done,
                                      int* runs) {
  cudaGraph_t graph = NULL;
  cudaGraphExec_t exec = NULL;
  cudaEvent_t event = NULL;
  cudaError_t error = cudaEventCreate(&event);
  if (!error) error = cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal);
  if (!error) error = cudaEventRecord(event, stream);
  if (!error) error = cudaStreamWaitEvent(fork, event, 0);
  if (!error) error = launch_probe(runs, fork);
  for (int i = 0; i < nodes && !error; ++i) {
    error = cudaLaunchHostFunc(stream, count, done);
    if (!error) error = cudaLaunchHostFunc(fork, nothing, NULL);
  }
  if (!error) error = cudaEventRecord(event, fork);
  if (!error) error = cudaStreamWaitEvent(stream, event, 0);
  cudaError_t ended = cudaStreamEndCapture(stream, &graph);
  if (!error) error = ended;
  if (!error) error = cudaGraphInstantiate(&exec, graph, 0);
  if (!error) error = cudaGraphLaunch(exec, stream);
  if (exec) OK(cudaGraphExecDestroy(exec));
  if (graph) OK(cudaGraphDestroy(graph));
  if (event) OK(cudaEventDestroy(event));
  return error;
}

SIM_TEST(graph, survives_every_failure_of_host_memory) {
  enum { NODES = 200 };
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  cudaStream_t fork = new_stream(cudaStreamNonBlocking);
  int done = 0;
  int runs = 0;
  int failures = 0;
  cudaError_t error = cudaErrorMemoryAllocation;
  OK(register_probe());
  while (error) {
    allocations_left = failures;
    int before = done;
    error = capture_and_launch(stream, fork, NODES, &done, &runs);
    allocations_left = -1;
    OK(cudaStreamSynchronize(stream));
    cr_assert(eq(int, done - before, error ? 0 : NODES), "%d", failures);
    if (!error) break;
    cr_assert(eq(int, error, cudaErrorMemoryAllocation), "%d", failures);
    ++failures;
    EXPECT_STATUS(stream, None);
    EXPECT_STATUS(fork, None);
  }
  cr_expect(eq(int, runs, 1));
  cr_expect(gt(int, failures, NODES));
}

//===-- Threads -------------------------------------------------------------------------------===//

enum { LAUNCHES = 200 };

typedef struct launcher {
  cudaGraphExec_t exec;
  cudaStream_t stream;
} launcher;

static void* launch_often(void* argument) {
  const launcher* l = argument;
  for (int i = 0; i < LAUNCHES; ++i) OK(cudaGraphLaunch(l->exec, l->stream));
  OK(cudaStreamSynchronize(l->stream));
  return NULL;
}

// What a graph does is not synchronized with itself: the launches are.
SIM_TEST(graph, is_launched_by_several_threads) {
  enum { THREADS = 4 };
  cudaStream_t fork = new_stream(cudaStreamNonBlocking);
  launcher launchers[THREADS];
  int done[2] = {0};
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  begin(stream);
  OK(cudaLaunchHostFunc(stream, count, &done[0]));
  follow(fork, stream);
  OK(cudaLaunchHostFunc(fork, count, &done[1]));
  OK(cudaLaunchHostFunc(stream, count, &done[0]));
  follow(stream, fork);
  cudaGraphExec_t exec = end_and_instantiate(stream);
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; ++i) {
    launchers[i] = (launcher){exec, new_stream(cudaStreamNonBlocking)};
    cr_assert(eq(int, pthread_create(&threads[i], NULL, launch_often, &launchers[i]), 0));
  }
  for (int i = 0; i < THREADS; ++i) pthread_join(threads[i], NULL);
  cr_expect(eq(int, done[0], 2 * THREADS * LAUNCHES));
  cr_expect(eq(int, done[1], THREADS* LAUNCHES));
}
