// Kernels played by host functions: what is launched, when it runs, and what it may reach.

#include <string.h>

#include "tests/cudasim/support.h"

//===-- A kernel ------------------------------------------------------------------------------===//

// out[i] = in[i] * scale, an element per thread.
static int scale_kernel;  // its address is the kernel's

typedef struct span {
  const int* in;
  const int* out;  // written where the host sees it
  size_t count;
} span;

static size_t scale_reach(const cudasim_launch* launch, cudasim_range* ranges) {
  const span* s = launch->arguments[0];
  cr_assert(launch->memory == NULL);
  ranges[0] = (cudasim_range){s->in, s->count * sizeof(int), CUDASIM_READS};
  ranges[1] = (cudasim_range){s->out, s->count * sizeof(int), CUDASIM_WRITES};
  return 2;
}

static void scale_run(const cudasim_launch* launch, dim3 block) {
  const span* s = launch->arguments[0];
  int scale = *(const int*)launch->arguments[1];
  const int* in = launch->memory[0];
  int* out = launch->memory[1];
  size_t base = (size_t)block.x * launch->block.x;
  for (size_t i = base; i < base + launch->block.x && i < s->count; ++i) out[i] = in[i] * scale;
}

static const size_t scale_parameters[] = {sizeof(span), sizeof(int)};

static const cudasim_kernel scale = {"scale", scale_parameters, 2, scale_reach, scale_run};

static dim3 extent(unsigned x, unsigned y, unsigned z) {
  dim3 d = {x, y, z};
  return d;
}

static cudaError_t launch_scale(const int* in, const int* out, size_t count, int by,
                                cudaStream_t stream) {
  span s = {in, out, count};
  void* arguments[] = {&s, &by};
  return cudaLaunchKernel(&scale_kernel, extent((unsigned)(count + 63) / 64, 1, 1),
                          extent(64, 1, 1), arguments, 0, stream);
}

#define COUNT 1000

static int* new_memory(void) {
  int* p;
  OK(cudaMalloc((void**)&p, COUNT * sizeof(int)));
  return p;
}

// 0, 1, ... on the device.
static int* new_numbers(void) {
  int numbers[COUNT];
  int* p = new_memory();
  for (int i = 0; i < COUNT; ++i) numbers[i] = i;
  OK(cudaMemcpy(p, numbers, sizeof(numbers), cudaMemcpyHostToDevice));
  OK(cudaDeviceSynchronize());  // the copy only waits until it has read its source
  return p;
}

static void expect_scaled(const int* device, int by) {
  int seen[COUNT];
  OK(cudaMemcpy(seen, device, sizeof(seen), cudaMemcpyDeviceToHost));
  for (int i = 0; i < COUNT; ++i) cr_assert(eq(int, seen[i], i* by), "%d", i);
}

//===-- Launches ------------------------------------------------------------------------------===//

SIM_TEST(kernel, a_launch_does_all_blocks_and_is_counted) {
  OK(cudasim_register_kernel(&scale_kernel, &scale));
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  int* in = new_numbers();
  int* out = new_memory();
  OK(launch_scale(in, out, COUNT, 3, stream));
  OK(cudaStreamSynchronize(stream));
  expect_scaled(out, 3);
  cudasim_statistics statistics;
  OK(cudasim_stats(0, &statistics));
  cr_expect(eq(u64, statistics.kernels, 1));
}

THREADS_TEST(kernel, runs_in_its_turn_with_the_arguments_of_its_launch) {
  OK(cudasim_register_kernel(&scale_kernel, &scale));
  gate held = CLOSED_GATE;
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  int* numbers = new_numbers();
  int* twice = new_memory();
  int* six_times = new_memory();
  close_gate(&held, stream);
  OK(launch_scale(numbers, twice, COUNT, 2, stream));
  OK(launch_scale(twice, six_times, COUNT, 3, stream));
  REFUSED(cudaStreamQuery(stream), cudaErrorNotReady);
  open_gate(&held);
  OK(cudaStreamSynchronize(stream));
  expect_scaled(six_times, 6);
}

SIM_TEST(kernel, reaches_memory_whose_free_is_queued_behind_it) {
  OK(cudasim_register_kernel(&scale_kernel, &scale));
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  int* in;
  int* out = new_memory();
  OK(cudaMallocAsync((void**)&in, COUNT * sizeof(int), stream));
  OK(cudaMemsetAsync(in, 0, COUNT * sizeof(int), stream));
  OK(launch_scale(in, out, COUNT, 2, stream));
  OK(cudaFreeAsync(in, stream));
  OK(cudaStreamSynchronize(stream));
  expect_scaled(out, 0);
}

SIM_TEST(kernel, reaches_page_locked_memory) {
  OK(cudasim_register_kernel(&scale_kernel, &scale));
  int* pinned;
  OK(cudaMallocHost((void**)&pinned, COUNT * sizeof(int)));
  for (int i = 0; i < COUNT; ++i) pinned[i] = i;
  OK(launch_scale(pinned, pinned, COUNT, 5, cudaStreamLegacy));
  OK(cudaDeviceSynchronize());
  cr_expect(eq(int, pinned[COUNT - 1], (COUNT - 1) * 5));
}

static cudaGraph_t capture_two(int* x, cudaStream_t stream) {
  cudaGraph_t graph;
  OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  OK(launch_scale(x, x, COUNT, 2, stream));
  OK(launch_scale(x, x, COUNT, 5, stream));
  OK(cudaStreamEndCapture(stream, &graph));
  return graph;
}

SIM_TEST(kernel, is_captured_as_a_kernel_node) {
  OK(cudasim_register_kernel(&scale_kernel, &scale));
  int* x = new_numbers();
  cudaGraph_t graph = capture_two(x, new_stream(cudaStreamNonBlocking));
  size_t count = 2;
  cudaGraphNode_t nodes[2];
  enum cudaGraphNodeType type;
  OK(cudaGraphGetNodes(graph, nodes, &count));
  cr_assert(eq(sz, count, 2));
  OK(cudaGraphNodeGetType(nodes[1], &type));
  cr_expect(eq(int, (int)type, cudaGraphNodeTypeKernel));
  expect_scaled(x, 1);
  OK(cudaGraphDestroy(graph));
}

SIM_TEST(kernel, runs_at_every_launch_of_its_graph) {
  OK(cudasim_register_kernel(&scale_kernel, &scale));
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  int* x = new_numbers();
  cudaGraph_t graph = capture_two(x, stream);
  cudaGraphExec_t exec;
  OK(cudaGraphInstantiate(&exec, graph, 0));
  OK(cudaGraphDestroy(graph));
  OK(cudaGraphLaunch(exec, stream));
  OK(cudaGraphLaunch(exec, stream));
  OK(cudaStreamSynchronize(stream));
  expect_scaled(x, 100);
  OK(cudaGraphExecDestroy(exec));
  cudasim_statistics statistics;
  OK(cudasim_stats(0, &statistics));
  cr_expect(eq(u64, statistics.kernels, 4));
}

//===-- What is refused -----------------------------------------------------------------------===//

SIM_TEST(kernel, that_nobody_registered_is_refused) {
  static int other;
  REFUSED(cudaLaunchKernel(&other, extent(1, 1, 1), extent(1, 1, 1), NULL, 0, NULL),
          cudaErrorInvalidDeviceFunction);
  REFUSED(cudaLaunchKernel(NULL, extent(1, 1, 1), extent(1, 1, 1), NULL, 0, NULL),
          cudaErrorInvalidDeviceFunction);
  cr_expect(eq(int, cudaGetLastError(), cudaErrorInvalidDeviceFunction));
}

SIM_TEST(kernel, whose_registration_is_wrong_is_refused) {
  cudasim_kernel no_name = scale;
  cudasim_kernel no_body = scale;
  cudasim_kernel no_sizes = scale;
  no_name.name = NULL;
  no_body.run = NULL;
  no_sizes.parameters = NULL;
  REFUSED(cudasim_register_kernel(NULL, &scale), cudaErrorInvalidValue);
  REFUSED(cudasim_register_kernel(&scale_kernel, NULL), cudaErrorInvalidValue);
  REFUSED(cudasim_register_kernel(&scale_kernel, &no_name), cudaErrorInvalidValue);
  REFUSED(cudasim_register_kernel(&scale_kernel, &no_body), cudaErrorInvalidValue);
  REFUSED(cudasim_register_kernel(&scale_kernel, &no_sizes), cudaErrorInvalidValue);
  OK(cudasim_register_kernel(&scale_kernel, &scale));
  REFUSED(cudasim_register_kernel(&scale_kernel, &scale), cudaErrorInvalidValue);
}

SIM_TEST(kernel, whose_geometry_is_beyond_the_device_is_refused) {
  OK(cudasim_register_kernel(&scale_kernel, &scale));
  const struct {
    dim3 grid;
    dim3 block;
  } rows[] = {
      {{0, 1, 1}, {1, 1, 1}},           {{1, 0, 1}, {1, 1, 1}},     {{1, 1, 0}, {1, 1, 1}},
      {{1, 1, 1}, {0, 1, 1}},           {{1, 1, 1}, {1, 0, 1}},     {{1, 1, 1}, {1, 1, 0}},
      {{0x80000000u, 1, 1}, {1, 1, 1}}, {{1, 65536, 1}, {1, 1, 1}}, {{1, 1, 65536}, {1, 1, 1}},
      {{1, 1, 1}, {1025, 1, 1}},        {{1, 1, 1}, {1, 1025, 1}},  {{1, 1, 1}, {1, 1, 65}},
      {{1, 1, 1}, {32, 33, 1}},
  };
  int* x = new_numbers();
  span s = {x, x, COUNT};
  int by = 2;
  void* arguments[] = {&s, &by};
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); ++i) {
    cr_expect(eq(int, cudaLaunchKernel(&scale_kernel, rows[i].grid, rows[i].block, arguments, 0, 0),
                 cudaErrorInvalidConfiguration),
              "%zu", i);
  }
  REFUSED(cudaLaunchKernel(&scale_kernel, extent(1, 1, 1), extent(1, 1, 1), arguments, 49153, 0),
          cudaErrorInvalidValue);
  expect_scaled(x, 1);
}

SIM_TEST(kernel, without_its_arguments_is_refused) {
  OK(cudasim_register_kernel(&scale_kernel, &scale));
  span s = {0};
  void* arguments[] = {&s, NULL};
  REFUSED(cudaLaunchKernel(&scale_kernel, extent(1, 1, 1), extent(1, 1, 1), NULL, 0, 0),
          cudaErrorInvalidValue);
  REFUSED(cudaLaunchKernel(&scale_kernel, extent(1, 1, 1), extent(1, 1, 1), arguments, 0, 0),
          cudaErrorInvalidValue);
}

SIM_TEST(kernel, fails_on_demand) {
  OK(cudasim_register_kernel(&scale_kernel, &scale));
  int* x = new_numbers();
  OK(cudasim_fail("cudaLaunchKernel", 2, 1, cudaErrorUnknown));
  OK(launch_scale(x, x, COUNT, 2, NULL));
  REFUSED(launch_scale(x, x, COUNT, 2, NULL), cudaErrorUnknown);
  expect_scaled(x, 2);
}

//===-- Wild kernels --------------------------------------------------------------------------===//

static void expect_breaks(const int* in, int* out, size_t count) {
  cudaStream_t stream = new_stream(cudaStreamNonBlocking);
  cudaError_t launched = launch_scale(in, out, count, 2, stream);
  cr_expect(launched == cudaSuccess || launched == cudaErrorIllegalAddress);
  REFUSED(cudaStreamSynchronize(stream), cudaErrorIllegalAddress);
  void* p;
  REFUSED(cudaMalloc(&p, 1), cudaErrorIllegalAddress);
}

SIM_TEST(kernel, that_leaves_its_memory_breaks_the_device) {
  OK(cudasim_register_kernel(&scale_kernel, &scale));
  int* x = new_numbers();
  expect_breaks(x, x, COUNT + 1);
}

SIM_TEST(kernel, that_reads_pageable_memory_breaks_the_device) {
  OK(cudasim_register_kernel(&scale_kernel, &scale));
  static int pageable[COUNT];
  expect_breaks(pageable, new_numbers(), COUNT);
}

SIM_TEST(kernel, that_writes_nowhere_breaks_the_device) {
  OK(cudasim_register_kernel(&scale_kernel, &scale));
  expect_breaks(new_numbers(), NULL, COUNT);
}

SIM_TEST(kernel, that_uses_freed_memory_breaks_the_device) {
  OK(cudasim_register_kernel(&scale_kernel, &scale));
  int* x = new_numbers();
  OK(cudaFree(x));
  expect_breaks(x, x, COUNT);
}

Test(kernel, reaches_another_device_only_where_that_is_granted) {
  make_machine((cudasim_options){.devices = 2, .schedule = "eager"});
  OK(cudasim_register_kernel(&scale_kernel, &scale));
  OK(cudaSetDevice(1));
  int* there = new_numbers();
  OK(cudaSetDevice(0));
  int* here = new_memory();
  OK(cudaDeviceEnablePeerAccess(1, 0));
  OK(launch_scale(there, here, COUNT, 7, NULL));
  expect_scaled(here, 7);
  OK(cudaDeviceDisablePeerAccess(1));
  expect_breaks(there, here, COUNT);
}

//===-- Inside --------------------------------------------------------------------------------===//

static int calling_kernel;
static cudaError_t answer;

static size_t calling_reach(const cudasim_launch* launch, cudasim_range* ranges) {
  (void)launch;
  (void)ranges;
  return 0;
}

static void calling_run(const cudasim_launch* launch, dim3 block) {
  (void)launch;
  (void)block;
  answer = cudaDeviceSynchronize();
}

SIM_TEST(kernel, calls_nothing_of_the_runtime) {
  static const cudasim_kernel calling = {"calling", NULL, 0, calling_reach, calling_run};
  OK(cudasim_register_kernel(&calling_kernel, &calling));
  OK(cudaLaunchKernel(&calling_kernel, extent(1, 1, 1), extent(1, 1, 1), NULL, 0, NULL));
  OK(cudaDeviceSynchronize());
  cr_expect(eq(int, answer, cudaErrorNotPermitted));
}
