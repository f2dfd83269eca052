// Memory of graphs: allocations and frees that are captured, when their memory is there and who may
// free it, and what it costs.

#include <stdlib.h>
#include <string.h>

#include "tests/cudasim/failing_calloc.h"
#include "tests/cudasim/support.h"

static void begin(cudaStream_t stream) {
  OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
}

static cudaGraph_t end(cudaStream_t stream) {
  cudaGraph_t graph = NULL;
  OK(cudaStreamEndCapture(stream, &graph));
  return graph;
}

static cudaGraphExec_t instantiate(cudaGraph_t graph, unsigned flags) {
  cudaGraphExec_t exec = NULL;
  OK(cudaGraphInstantiate(&exec, graph, flags));
  return exec;
}

static unsigned char* allocate(cudaStream_t stream, size_t bytes) {
  void* p = NULL;
  OK(cudaMallocAsync(&p, bytes, stream));
  cr_assert(ne(ptr, p, NULL));
  return p;
}

static uint64_t graph_bytes(enum cudaGraphMemAttributeType attribute) {
  uint64_t bytes = 99;
  OK(cudaDeviceGetGraphMemAttribute(0, attribute, &bytes));
  return bytes;
}

static unsigned char first_byte(const void* p, cudaStream_t stream) {
  unsigned char* seen = new_pinned_memory(1);
  OK(cudaMemcpyAsync(seen, p, 1, cudaMemcpyDefault, stream));
  OK(cudaStreamSynchronize(stream));
  unsigned char byte = *seen;
  OK(cudaFreeHost(seen));
  return byte;
}

// A graph that allocates, fills with `value` and does not free.
static cudaGraph_t capture_leak(cudaStream_t stream, size_t bytes, int value, unsigned char** p) {
  begin(stream);
  *p = allocate(stream, bytes);
  OK(cudaMemsetAsync(*p, value, bytes, stream));
  return end(stream);
}

// A graph that frees what another one allocates.
static cudaGraph_t capture_free(cudaStream_t stream, void* p) {
  begin(stream);
  OK(cudaFreeAsync(p, stream));
  return end(stream);
}

static enum cudaGraphNodeType node_type(cudaGraph_t graph, size_t i) {
  cudaGraphNode_t nodes[16];
  size_t count = 16;
  OK(cudaGraphGetNodes(graph, nodes, &count));
  cr_assert(lt(sz, i, count));
  enum cudaGraphNodeType type;
  OK(cudaGraphNodeGetType(nodes[i], &type));
  return type;
}

//===-- Lifetime ------------------------------------------------------------------------------===//

SIM_TEST(graph_memory, a_launch_allocates_uses_and_frees) {
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  unsigned char* host = new_pinned_memory(MIB);
  begin(stream);
  unsigned char* p = allocate(stream, MIB);
  OK(cudaMemsetAsync(p, 7, MIB, stream));
  OK(cudaMemcpyAsync(host, p, MIB, cudaMemcpyDefault, stream));
  OK(cudaFreeAsync(p, stream));
  cudaGraph_t graph = end(stream);
  cr_expect(eq(int, node_type(graph, 0), cudaGraphNodeTypeMemAlloc));
  cr_expect(eq(int, node_type(graph, 3), cudaGraphNodeTypeMemFree));
  cudaGraphExec_t exec = instantiate(graph, 0);
  for (int i = 0; i < 20; ++i) {
    host[MIB - 1] = 0;
    OK(cudaGraphLaunch(exec, stream));
    OK(cudaStreamSynchronize(stream));
    cr_assert(eq(int, host[MIB - 1], 7));
    REFUSED(cudaFree(p), cudaErrorInvalidValue);
    REFUSED(cudaFreeAsync(p, stream), cudaErrorInvalidValue);
    REFUSED(cudaMemsetAsync(p, 1, 1, stream), cudaErrorInvalidValue);
  }
}

SIM_TEST(graph_memory, is_not_there_before_a_launch) {
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  unsigned char* p;
  size_t before = free_memory();
  cudaGraph_t graph = capture_leak(stream, 4 * MIB, 3, &p);
  REFUSED(cudaMemsetAsync(p, 1, 1, stream), cudaErrorInvalidValue);
  REFUSED(cudaMemcpyAsync(p, p + 1, 1, cudaMemcpyDefault, stream), cudaErrorInvalidValue);
  REFUSED(cudaFree(p), cudaErrorInvalidValue);
  REFUSED(cudaFreeAsync(p, stream), cudaErrorInvalidValue);
  cudaGraphExec_t exec = instantiate(graph, 0);
  REFUSED(cudaFree(p), cudaErrorInvalidValue);
  cr_expect(eq(sz, free_memory(), before));
  OK(cudaGraphLaunch(exec, stream));
  cr_expect(eq(sz, free_memory(), before - 4 * MIB));
  cr_expect(eq(int, first_byte(p + 4 * MIB - 1, stream), 3));
  REFUSED(cudaMemsetAsync(p + 4 * MIB, 1, 1, stream), cudaErrorInvalidValue);
}

static void free_at_once(unsigned char* p, cudaStream_t stream) {
  (void)stream;
  OK(cudaFree(p));
}

static void free_in_order(unsigned char* p, cudaStream_t stream) { OK(cudaFreeAsync(p, stream)); }

static void free_by_graph(unsigned char* p, cudaStream_t stream) {
  cudaGraph_t graph = capture_free(stream, p);
  cudaGraphExec_t exec = instantiate(graph, 0);
  OK(cudaGraphLaunch(exec, stream));
  REFUSED(cudaGraphLaunch(exec, stream), cudaErrorInvalidValue);
  OK(cudaGraphExecDestroy(exec));
  OK(cudaGraphDestroy(graph));
}

SIM_TEST(graph_memory, that_is_left_is_freed_before_the_next_launch) {
  void (*const ways[])(unsigned char*, cudaStream_t) = {free_at_once, free_in_order, free_by_graph};
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  unsigned char* p;
  cudaGraphExec_t exec = instantiate(capture_leak(stream, MIB, 3, &p), 0);
  for (int i = 0; i < 9; ++i) {
    OK(cudaGraphLaunch(exec, stream));
    REFUSED(cudaGraphLaunch(exec, stream), cudaErrorInvalidValue);
    cr_expect(eq(int, first_byte(p, stream), 3));
    OK(cudaMemsetAsync(p, 9, MIB, stream));
    cr_expect(eq(int, first_byte(p, stream), 9));
    ways[i % 3](p, stream);
    REFUSED(cudaFreeAsync(p, stream), cudaErrorInvalidValue);
    REFUSED(cudaMemsetAsync(p, 9, MIB, stream), cudaErrorInvalidValue);
  }
  OK(cudaStreamSynchronize(stream));
}

SIM_TEST(graph_memory, is_freed_by_the_next_launch_if_asked) {
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  unsigned char* p;
  cudaGraph_t graph = capture_leak(stream, MIB, 3, &p);
  cudaGraphExec_t exec = instantiate(graph, cudaGraphInstantiateFlagAutoFreeOnLaunch);
  for (int i = 0; i < 5; ++i) OK(cudaGraphLaunch(exec, stream));
  cr_expect(eq(int, first_byte(p, stream), 3));
  OK(cudaFree(p));
  REFUSED(cudaFree(p), cudaErrorInvalidValue);
  OK(cudaGraphLaunch(exec, stream));
  OK(cudaFreeAsync(p, stream));
  OK(cudaGraphLaunch(exec, stream));
  OK(cudaStreamSynchronize(stream));
}

SIM_TEST(graph_memory, outlives_graph_and_executable_graph) {
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  size_t before = free_memory();
  unsigned char* p;
  cudaGraph_t graph = capture_leak(stream, 2 * MIB, 3, &p);
  cudaGraphExec_t exec = instantiate(graph, 0);
  OK(cudaGraphDestroy(graph));
  OK(cudaGraphLaunch(exec, stream));
  OK(cudaFreeAsync(p, stream));
  OK(cudaGraphLaunch(exec, stream));
  OK(cudaGraphExecDestroy(exec));
  cr_expect(eq(int, first_byte(p, stream), 3));
  OK(cudaMemsetAsync(p, 4, 2 * MIB, stream));
  cr_expect(eq(int, first_byte(p, stream), 4));
  OK(cudaFree(p));
  REFUSED(cudaFree(p), cudaErrorInvalidValue);
  OK(cudaDeviceSynchronize());
  OK(cudaDeviceGraphMemTrim(0));
  cr_expect(eq(sz, free_memory(), before));
}

SIM_TEST(graph_memory, that_is_live_stays_for_the_next_executable_graph) {
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  unsigned char* p;
  cudaGraph_t graph = capture_leak(stream, MIB, 3, &p);
  cudaGraphExec_t exec = instantiate(graph, 0);
  REFUSED(cudaGraphInstantiate(&exec, graph, 0), cudaErrorInvalidValue);  // one at a time
  OK(cudaGraphLaunch(exec, stream));
  OK(cudaGraphExecDestroy(exec));
  exec = instantiate(graph, 0);
  REFUSED(cudaGraphLaunch(exec, stream), cudaErrorInvalidValue);
  OK(cudaFree(p));
  OK(cudaGraphLaunch(exec, stream));
  OK(cudaStreamSynchronize(stream));
}

SIM_TEST(graph_memory, can_be_captured_again_while_it_is_live) {
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  unsigned char* p[2];
  for (int i = 0; i < 2; ++i) {
    cudaGraph_t graph = capture_leak(stream, 3 * MIB, 10 + i, &p[i]);
    OK(cudaGraphLaunch(instantiate(graph, 0), stream));
    OK(cudaGraphDestroy(graph));
  }
  cr_expect(ne(ptr, p[0], p[1]));
  cr_expect(eq(int, first_byte(p[0], stream), 10));
  cr_expect(eq(int, first_byte(p[1], stream), 11));
}

SIM_TEST(graph_memory, goes_with_the_device) {
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  unsigned char* p;
  cudaGraphExec_t exec = instantiate(capture_leak(stream, MIB, 3, &p), 0);
  OK(cudaGraphLaunch(exec, stream));
  OK(cudaDeviceReset());
  REFUSED(cudaFree(p), cudaErrorInvalidValue);
  stream = new_stream(cudaStreamNonBlocking);
  REFUSED(cudaGraphLaunch(exec, stream), cudaErrorInvalidValue);
  OK(cudaGraphExecDestroy(exec));
  cr_expect(eq(ullong, graph_bytes(cudaGraphMemAttrReservedMemCurrent), 0));
}

//===-- What a capture takes ------------------------------------------------------------------===//

SIM_TEST(graph_memory, is_freed_once) {
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  unsigned char* p;
  begin(stream);
  unsigned char* inside = allocate(stream, 100);
  REFUSED(cudaFreeAsync(inside + 8, stream), cudaErrorInvalidValue);
  OK(cudaFreeAsync(inside, stream));
  REFUSED(cudaFreeAsync(inside, stream), cudaErrorInvalidValue);
  cudaGraph_t owner = end(stream);
  begin(stream);
  REFUSED(cudaFreeAsync(inside, stream), cudaErrorInvalidValue);
  OK(cudaGraphDestroy(end(stream)));
  cudaGraph_t leak = capture_leak(stream, 100, 1, &p);
  begin(stream);
  OK(cudaFreeAsync(p, stream));
  REFUSED(cudaFreeAsync(p, stream), cudaErrorInvalidValue);
  cudaGraph_t other = end(stream);
  cudaGraphExec_t exec = instantiate(other, 0);
  REFUSED(cudaGraphLaunch(exec, stream), cudaErrorInvalidValue);  // nobody has allocated it
  OK(cudaGraphLaunch(instantiate(leak, 0), stream));
  OK(cudaGraphLaunch(exec, stream));
  OK(cudaGraphDestroy(owner));
  OK(cudaGraphDestroy(leak));
  OK(cudaStreamSynchronize(stream));
}

SIM_TEST(graph_memory, of_others_is_not_freed_in_a_capture) {
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  void* p = new_device_memory(100);
  unsigned char* q = allocate(stream, 100);
  begin(stream);
  REFUSED(cudaFreeAsync(p, stream), cudaErrorInvalidValue);
  REFUSED(cudaFreeAsync(q, stream), cudaErrorInvalidValue);
  REFUSED(cudaFreeAsync((void*)0x1234, stream), cudaErrorInvalidValue);
  REFUSED(cudaMallocAsync(NULL, 100, stream), cudaErrorInvalidValue);
  void* none = p;
  OK(cudaMallocAsync(&none, 0, stream));
  cr_expect(eq(ptr, none, NULL));
  REFUSED(cudaMallocAsync(&none, 2 * GIB, stream), cudaErrorMemoryAllocation);
  cr_expect(eq(ptr, none, NULL));
  size_t count = 9;
  OK(cudaGraphGetNodes(end(stream), NULL, &count));
  cr_expect(eq(sz, count, 0));
}

SIM_TEST(graph_memory, is_taken_from_no_pool) {
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  struct cudaMemPoolProps props = {.allocType = cudaMemAllocationTypePinned,
                                   .location = {cudaMemLocationTypeDevice, 0}};
  cudaMemPool_t pool;
  OK(cudaMemPoolCreate(&pool, &props));
  begin(stream);
  void* p;
  OK(cudaMallocFromPoolAsync(&p, MIB, pool, stream));
  cudaGraphExec_t exec = instantiate(end(stream), 0);
  OK(cudaGraphLaunch(exec, stream));
  cr_expect(eq(ullong, pool_bytes(pool, cudaMemPoolAttrUsedMemCurrent), 0));
  OK(cudaMemPoolDestroy(pool));
  OK(cudaFree(p));
}

SIM_TEST(graph_memory, a_capture_that_fails_leaves_nothing) {
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  begin(stream);
  unsigned char* p = allocate(stream, MIB);
  OK(cudasim_fail("cudaMallocAsync", 1, 1, cudaErrorUnknown));
  void* q = p;
  REFUSED(cudaMallocAsync(&q, MIB, stream), cudaErrorUnknown);
  REFUSED(cudaStreamSynchronize(stream), cudaErrorStreamCaptureUnsupported);
  REFUSED(cudaMallocAsync(&q, MIB, stream), cudaErrorStreamCaptureInvalidated);
  REFUSED(cudaFreeAsync(p, stream), cudaErrorStreamCaptureInvalidated);
  cudaGraph_t graph;
  REFUSED(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureInvalidated);
  REFUSED(cudaFree(p), cudaErrorInvalidValue);
  struct cudaPointerAttributes attributes;
  OK(cudaPointerGetAttributes(&attributes, p));
  cr_expect(eq(int, attributes.type, cudaMemoryTypeUnregistered));
}

//===-- Places --------------------------------------------------------------------------------===//

static void follow(cudaStream_t to, cudaStream_t from) {
  cudaEvent_t event;
  OK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  OK(cudaEventRecord(event, from));
  OK(cudaStreamWaitEvent(to, event, 0));
  OK(cudaEventDestroy(event));
}

SIM_TEST(graph_memory, what_is_freed_serves_what_comes_after) {
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  cudaStream_t fork = new_stream(cudaStreamNonBlocking);
  unsigned char* host = new_pinned_memory(3);
  begin(stream);
  unsigned char* p = allocate(stream, 3 * MIB);
  follow(fork, stream);
  OK(cudaMemsetAsync(p, 1, 3 * MIB, stream));
  OK(cudaMemcpyAsync(&host[0], p, 1, cudaMemcpyDefault, stream));
  OK(cudaFreeAsync(p, stream));
  unsigned char* beside = allocate(fork, 3 * MIB);  // not ordered behind the free
  OK(cudaMemsetAsync(beside, 2, 3 * MIB, fork));
  OK(cudaMemcpyAsync(&host[1], beside, 1, cudaMemcpyDefault, fork));
  unsigned char* after = allocate(stream, 4 * MIB);
  OK(cudaMemsetAsync(after, 3, 4 * MIB, stream));
  OK(cudaMemcpyAsync(&host[2], after, 1, cudaMemcpyDefault, stream));
  unsigned char* third = allocate(stream, 100);
  OK(cudaFreeAsync(third, stream));
  OK(cudaFreeAsync(after, stream));
  OK(cudaFreeAsync(beside, fork));
  follow(stream, fork);
  cudaGraphExec_t exec = instantiate(end(stream), 0);
  cr_expect(ne(ptr, beside, p));
  cr_expect(eq(ptr, after, p));
  cr_expect(ne(ptr, third, p));
  for (int i = 0; i < 10; ++i) {
    memset(host, 0, 3);
    OK(cudaGraphLaunch(exec, stream));
    OK(cudaStreamSynchronize(stream));
    cr_assert(eq(int, host[0] * 100 + host[1] * 10 + host[2], 123));
  }
}

SIM_TEST(graph_memory, graphs_one_after_another_share_memory) {
  enum { GRAPHS = 4 };
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  unsigned char* host = new_pinned_memory(GRAPHS);
  cudaGraphExec_t execs[GRAPHS];
  for (int i = 0; i < GRAPHS; ++i) {
    begin(stream);
    unsigned char* p = allocate(stream, 600 * MIB);  // of one GiB
    OK(cudaMemsetAsync(p, i + 1, 1, stream));
    OK(cudaMemcpyAsync(&host[i], p, 1, cudaMemcpyDefault, stream));
    OK(cudaFreeAsync(p, stream));
    execs[i] = instantiate(end(stream), 0);
  }
  for (int round = 0; round < 20; ++round) {
    memset(host, 0, GRAPHS);
    for (int i = 0; i < GRAPHS; ++i) OK(cudaGraphLaunch(execs[i], stream));
    OK(cudaStreamSynchronize(stream));
    for (int i = 0; i < GRAPHS; ++i) cr_assert(eq(int, host[i], i + 1));
  }
  cr_expect(eq(ullong, graph_bytes(cudaGraphMemAttrReservedMemHigh), 600 * MIB));
}

THREADS_TEST(graph_memory, graphs_beside_each_other_do_not_share) {
  gate g = CLOSED_GATE;
  cudaStream_t streams[2] = {new_stream(cudaStreamNonBlocking), new_stream(cudaStreamNonBlocking)};
  cudaGraphExec_t execs[2];
  for (int i = 0; i < 2; ++i) {
    begin(streams[i]);
    unsigned char* p = allocate(streams[i], 600 * MIB);
    if (i == 0) close_gate(&g, streams[i]);
    OK(cudaFreeAsync(p, streams[i]));
    execs[i] = instantiate(end(streams[i]), 0);
  }
  OK(cudaGraphLaunch(execs[0], streams[0]));
  REFUSED(cudaGraphLaunch(execs[1], streams[1]), cudaErrorMemoryAllocation);
  follow(streams[1], streams[0]);
  OK(cudaGraphLaunch(execs[1], streams[1]));
  open_gate(&g);
  OK(cudaDeviceSynchronize());
}

//===-- Counts --------------------------------------------------------------------------------===//

SIM_TEST(graph_memory, is_counted_and_trimmed) {
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  size_t before = free_memory();
  unsigned char* p;
  cudaGraph_t graph = capture_leak(stream, 5 * MIB, 1, &p);
  cudaGraphExec_t exec = instantiate(graph, 0);
  cr_expect(eq(ullong, graph_bytes(cudaGraphMemAttrReservedMemCurrent), 0));
  OK(cudaGraphLaunch(exec, stream));
  cr_expect(eq(ullong, graph_bytes(cudaGraphMemAttrUsedMemCurrent), 6 * MIB));
  cr_expect(eq(ullong, graph_bytes(cudaGraphMemAttrReservedMemCurrent), 6 * MIB));
  OK(cudaDeviceSynchronize());
  OK(cudaDeviceGraphMemTrim(0));
  cr_expect(eq(ullong, graph_bytes(cudaGraphMemAttrReservedMemCurrent), 6 * MIB));  // live
  cr_expect(eq(int, first_byte(p, stream), 1));
  OK(cudaFree(p));
  cr_expect(eq(ullong, graph_bytes(cudaGraphMemAttrReservedMemCurrent), 6 * MIB));
  OK(cudaDeviceGraphMemTrim(0));
  cr_expect(eq(ullong, graph_bytes(cudaGraphMemAttrReservedMemCurrent), 0));
  cr_expect(eq(ullong, graph_bytes(cudaGraphMemAttrUsedMemCurrent), 0));
  cr_expect(eq(ullong, graph_bytes(cudaGraphMemAttrReservedMemHigh), 6 * MIB));
  cr_expect(eq(sz, free_memory(), before));
}

SIM_TEST(graph_memory, marks_are_reset_and_orphans_kept) {
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  unsigned char* p;
  cudaGraph_t graph = capture_leak(stream, 5 * MIB, 1, &p);
  cudaGraphExec_t exec = instantiate(graph, 0);
  OK(cudaGraphLaunch(exec, stream));
  OK(cudaFreeAsync(p, stream));
  OK(cudaDeviceSynchronize());
  OK(cudaDeviceGraphMemTrim(0));
  uint64_t zero = 0;
  OK(cudaDeviceSetGraphMemAttribute(0, cudaGraphMemAttrReservedMemHigh, &zero));
  OK(cudaDeviceSetGraphMemAttribute(0, cudaGraphMemAttrUsedMemHigh, &zero));
  cr_expect(eq(ullong, graph_bytes(cudaGraphMemAttrReservedMemHigh), 0));
  cr_expect(eq(ullong, graph_bytes(cudaGraphMemAttrUsedMemHigh), 0));
  OK(cudaGraphLaunch(exec, stream));
  cr_expect(eq(int, first_byte(p, stream), 1));
  OK(cudaGraphExecDestroy(exec));
  OK(cudaGraphDestroy(graph));
  OK(cudaFree(p));
  cr_expect(eq(ullong, graph_bytes(cudaGraphMemAttrUsedMemCurrent), 0));  // nobody's, but kept
  cr_expect(eq(ullong, graph_bytes(cudaGraphMemAttrReservedMemCurrent), 6 * MIB));
}

Test(graph_memory, wrong_questions_are_refused) {
  make_machine((cudasim_options){.schedule = "eager"});
  uint64_t value = 0;
  REFUSED(cudaDeviceGraphMemTrim(1), cudaErrorInvalidDevice);
  REFUSED(cudaDeviceGetGraphMemAttribute(1, cudaGraphMemAttrUsedMemHigh, &value),
          cudaErrorInvalidDevice);
  REFUSED(cudaDeviceGetGraphMemAttribute(0, (enum cudaGraphMemAttributeType)4, &value),
          cudaErrorInvalidValue);
  REFUSED(cudaDeviceGetGraphMemAttribute(0, cudaGraphMemAttrUsedMemHigh, NULL),
          cudaErrorInvalidValue);
  REFUSED(cudaDeviceSetGraphMemAttribute(0, cudaGraphMemAttrUsedMemCurrent, &value),
          cudaErrorInvalidValue);
  REFUSED(cudaDeviceSetGraphMemAttribute(-1, cudaGraphMemAttrUsedMemHigh, &value),
          cudaErrorInvalidDevice);
  value = 1;
  REFUSED(cudaDeviceSetGraphMemAttribute(0, cudaGraphMemAttrUsedMemHigh, &value),
          cudaErrorInvalidValue);
}

SIM_TEST(graph_memory, that_nobody_uses_serves_other_allocations) {
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  unsigned char* p;
  cudaGraphExec_t exec = instantiate(capture_leak(stream, 600 * MIB, 1, &p), 0);
  OK(cudaGraphLaunch(exec, stream));
  void* q;
  REFUSED(cudaMalloc(&q, 600 * MIB), cudaErrorMemoryAllocation);
  REFUSED(cudaMallocAsync(&q, 600 * MIB, stream), cudaErrorMemoryAllocation);
  OK(cudaFreeAsync(p, stream));
  OK(cudaStreamSynchronize(stream));
  OK(cudaMalloc(&q, 600 * MIB));
  REFUSED(cudaGraphLaunch(exec, stream), cudaErrorMemoryAllocation);
  REFUSED(cudaFree(p), cudaErrorInvalidValue);  // the launch has allocated nothing
  OK(cudaFree(q));
  OK(cudaGraphLaunch(exec, stream));
  cr_expect(eq(int, first_byte(p, stream), 1));
}

//===-- Failures ------------------------------------------------------------------------------===//

static cudaError_t capture_and_launch(cudaStream_t stream, int count) {
  cudaGraph_t graph = NULL;
  cudaGraphExec_t exec = NULL;
  void* p[64] = {0};
  cudaError_t error = cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal);
  for (int i = 0; i < count && !error; ++i) error = cudaMallocAsync(&p[i], 100, stream);
  for (int i = 0; i < count - 1 && !error; ++i) error = cudaFreeAsync(p[i], stream);
  cudaError_t ended = cudaStreamEndCapture(stream, &graph);
  if (!error) error = ended;
  if (!error) error = cudaGraphInstantiate(&exec, graph, 0);
  if (!error) error = cudaGraphLaunch(exec, stream);
  if (!error) OK(cudaFreeAsync(p[count - 1], stream));
  if (exec) OK(cudaGraphExecDestroy(exec));
  if (graph) OK(cudaGraphDestroy(graph));
  return error;
}

SIM_TEST(graph_memory, survives_every_failure_of_host_memory) {
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  size_t before = free_memory();
  int failures = -1;
  cudaError_t error = cudaErrorMemoryAllocation;
  while (error) {
    allocations_left = ++failures;
    error = capture_and_launch(stream, 64);
    allocations_left = -1;
    if (error) cr_assert(eq(int, error, cudaErrorMemoryAllocation), "%d", failures);
  }
  cr_expect(gt(int, failures, 64));
  OK(cudaDeviceSynchronize());
  OK(cudaDeviceGraphMemTrim(0));
  cr_expect(eq(sz, free_memory(), before));
}

//===-- Random programs -----------------------------------------------------------------------===//

enum { RANDOM_GRAPHS = 6 };

typedef struct leaky {
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  unsigned char* p;
  bool is_live;
} leaky;

static uint32_t next_random(uint32_t* state) {
  *state = *state * 1664525 + 1013904223;
  return *state >> 16;
}

static void renew(leaky* l, cudaStream_t stream, uint32_t value, size_t bytes) {
  if (l->exec) OK(cudaGraphExecDestroy(l->exec));
  if (l->graph) OK(cudaGraphDestroy(l->graph));
  if (l->is_live) OK(cudaFreeAsync(l->p, stream));
  *l = (leaky){0};
  l->graph = capture_leak(stream, bytes, (int)value, &l->p);
  l->exec = instantiate(l->graph, 0);
}

// One stream does it all, so that a simple model says what every call returns and every byte is.
static void run_random(uint32_t seed, cudaStream_t stream) {
  uint32_t state = seed;
  leaky graphs[RANDOM_GRAPHS] = {{0}};
  for (int i = 0; i < RANDOM_GRAPHS; ++i) renew(&graphs[i], stream, (uint32_t)i, MIB);
  for (int step = 0; step < 200; ++step) {
    uint32_t i = next_random(&state) % RANDOM_GRAPHS;
    leaky* l = &graphs[i];
    switch (next_random(&state) % 5) {
      case 0:
        REFUSED(cudaGraphLaunch(l->exec, stream), l->is_live ? cudaErrorInvalidValue : cudaSuccess);
        l->is_live = true;
        break;
      case 1:
        REFUSED(cudaFreeAsync(l->p, stream), l->is_live ? cudaSuccess : cudaErrorInvalidValue);
        l->is_live = false;
        break;
      case 2:
        if (l->is_live) cr_assert(eq(int, first_byte(l->p, stream), (int)i), "seed %u", seed);
        break;
      case 3:
        OK(cudaDeviceGraphMemTrim(0));
        break;
      default:
        renew(l, stream, i, (1 + next_random(&state) % 40) * MIB);
        break;
    }
    uint64_t reserved = graph_bytes(cudaGraphMemAttrReservedMemCurrent);
    cr_assert(ge(ullong, reserved, graph_bytes(cudaGraphMemAttrUsedMemCurrent)));
    cr_assert(eq(ullong, free_memory() + reserved, GIB), "seed %u", seed);
  }
  for (int i = 0; i < RANDOM_GRAPHS; ++i) {
    if (graphs[i].is_live) OK(cudaFree(graphs[i].p));
    OK(cudaGraphExecDestroy(graphs[i].exec));
    OK(cudaGraphDestroy(graphs[i].graph));
  }
  OK(cudaDeviceSynchronize());
  OK(cudaDeviceGraphMemTrim(0));
  cr_assert(eq(sz, free_memory(), GIB), "seed %u", seed);
}

SIM_TEST(graph_memory, random_programs_get_what_a_model_says) {
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  for (uint32_t seed = 1; seed <= 10; ++seed) run_random(seed, stream);
}
