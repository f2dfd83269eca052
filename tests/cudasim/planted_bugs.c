#include "tests/cudasim/planted_bugs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cudasim.h"
#include "tests/cudasim/must.h"

#define BYTES ((size_t)4096)

//===-- What they are made of -----------------------------------------------------------------===//

static char* new_buffer(void) {
  void* p;
  MUST(cudaMalloc(&p, BYTES));
  return p;
}

static char* new_pinned(void) {
  void* p;
  MUST(cudaMallocHost(&p, BYTES));
  return p;
}

static char* new_async(cudaStream_t stream) {
  void* p;
  MUST(cudaMallocAsync(&p, BYTES, stream));
  return p;
}

static void fill(void* to, cudaStream_t stream) { MUST(cudaMemsetAsync(to, 1, BYTES, stream)); }

static void copy(void* to, const void* from, cudaStream_t stream) {
  MUST(cudaMemcpyAsync(to, from, BYTES, cudaMemcpyDefault, stream));
}

// What comes next in `second` comes after what is in `first` now.
static void order(cudaStream_t first, cudaStream_t second) {
  cudaEvent_t event = new_event();
  MUST(cudaEventRecord(event, first));
  MUST(cudaStreamWaitEvent(second, event, 0));
  MUST(cudaEventDestroy(event));
}

static void must_fail(cudaError_t error) {
  if (error == cudaSuccess) abort();
  (void)cudaGetLastError();
}

//===-- Allocations ---------------------------------------------------------------------------===//

static void used_before_it_is_allocated(bool is_right) {
  cudaStream_t owner = new_stream();
  cudaStream_t user = new_stream();
  char* p = new_async(owner);
  if (is_right) order(owner, user);
  fill(p, user);
}

// The event is recorded before the allocation.
static void waited_for_what_came_before_the_allocation(bool is_right) {
  cudaStream_t owner = new_stream();
  cudaStream_t user = new_stream();
  char* pinned = new_pinned();
  if (!is_right) order(owner, user);
  char* p = new_async(owner);
  if (is_right) order(owner, user);
  copy(p, pinned, user);
}

static void freed_before_it_is_allocated(bool is_right) {
  cudaStream_t owner = new_stream();
  cudaStream_t other = new_stream();
  char* p = new_async(owner);
  if (is_right) MUST(cudaStreamSynchronize(owner));
  MUST(cudaFreeAsync(p, other));
}

//===-- Frees ---------------------------------------------------------------------------------===//

static void freed_while_it_is_read(bool is_right) {
  cudaStream_t owner = new_stream();
  cudaStream_t reader = new_stream();
  char* pinned = new_pinned();
  char* p = new_async(owner);
  fill(p, owner);
  order(owner, reader);
  copy(pinned, p, reader);
  if (is_right) order(reader, owner);
  MUST(cudaFreeAsync(p, owner));
}

// cudaFree of stream-ordered memory waits for nothing.
static void freed_at_once_while_it_is_written(bool is_right) {
  cudaStream_t owner = new_stream();
  char* p = new_async(owner);
  fill(p, owner);
  if (is_right) MUST(cudaStreamSynchronize(owner));
  MUST(cudaFree(p));
}

static void destruction_taken_for_a_wait(bool is_right) {
  cudaStream_t owner = new_stream();
  cudaStream_t writer = new_stream();
  char* p = new_async(owner);
  order(owner, writer);
  fill(p, writer);
  if (is_right) MUST(cudaStreamSynchronize(writer));
  MUST(cudaStreamDestroy(writer));
  MUST(cudaFreeAsync(p, owner));
}

static void used_after_free_async(bool is_right) {
  cudaStream_t owner = new_stream();
  char* p = new_async(owner);
  if (is_right) fill(p, owner);
  MUST(cudaFreeAsync(p, owner));
  if (!is_right) must_fail(cudaMemsetAsync(p, 1, BYTES, owner));
}

static void used_after_free(bool is_right) {
  char* p = new_buffer();
  char* pinned = new_pinned();
  if (is_right) copy(pinned, p, cudaStreamPerThread);
  MUST(cudaFree(p));
  if (!is_right) must_fail(cudaMemcpy(pinned, p, BYTES, cudaMemcpyDeviceToHost));
}

static void freed_twice(bool is_right) {
  char* p = new_buffer();
  MUST(cudaFree(p));
  if (!is_right) must_fail(cudaFree(p));
}

static void freed_twice_in_streams(bool is_right) {
  cudaStream_t stream = new_stream();
  char* p = new_async(stream);
  MUST(cudaFreeAsync(p, stream));
  if (!is_right) must_fail(cudaFreeAsync(p, stream));
}

static void pinned_freed_twice(bool is_right) {
  char* p = new_pinned();
  MUST(cudaFreeHost(p));
  if (!is_right) must_fail(cudaFreeHost(p));
}

static void pinned_freed_as_device_memory(bool is_right) {
  char* p = new_pinned();
  if (!is_right) must_fail(cudaFree(p));
  MUST(cudaFreeHost(p));
}

static void device_memory_freed_as_pinned(bool is_right) {
  char* p = new_buffer();
  if (!is_right) must_fail(cudaFreeHost(p));
  MUST(cudaFree(p));
}

static void pinned_freed_in_a_stream(bool is_right) {
  char* p = new_pinned();
  if (!is_right) must_fail(cudaFreeAsync(p, cudaStreamPerThread));
  MUST(cudaFreeHost(p));
}

static void freed_in_the_middle(bool is_right) {
  char* p = new_buffer();
  if (!is_right) must_fail(cudaFree(p + 512));
  MUST(cudaFree(p));
}

//===-- Order ---------------------------------------------------------------------------------===//

static void missing_event(bool is_right) {
  cudaStream_t producer = new_stream();
  cudaStream_t consumer = new_stream();
  char* data = new_buffer();
  char* result = new_pinned();
  fill(data, producer);
  if (is_right) order(producer, consumer);
  copy(result, data, consumer);
}

static void buffer_reused_too_early(bool is_right) {
  cudaStream_t reader = new_stream();
  cudaStream_t writer = new_stream();
  char* data = new_buffer();
  char* result = new_pinned();
  copy(result, data, reader);
  if (is_right) order(reader, writer);
  fill(data, writer);
}

static void halves_that_overlap(bool is_right) {
  cudaStream_t first = new_stream();
  cudaStream_t second = new_stream();
  char* data = new_buffer();
  MUST(cudaMemsetAsync(data, 1, BYTES / 2, first));
  MUST(cudaMemsetAsync(data + BYTES / 2 - !is_right, 2, BYTES / 2, second));
}

static void columns_that_overlap(bool is_right) {
  cudaStream_t first = new_stream();
  cudaStream_t second = new_stream();
  char* data = new_buffer();
  MUST(cudaMemset2DAsync(data, 64, 1, 32, 64, first));
  MUST(cudaMemset2DAsync(data + 32 - !is_right, 64, 2, 32, 64, second));
}

static void two_results_in_one_place(bool is_right) {
  cudaStream_t first = new_stream();
  cudaStream_t second = new_stream();
  char* data = new_buffer();
  char* result = new_pinned();
  copy(result, data, first);
  if (is_right) order(first, second);
  copy(result, data, second);
}

static void default_stream_taken_for_order(bool is_right) {
  cudaStream_t consumer;
  MUST(cudaStreamCreateWithFlags(&consumer, is_right ? cudaStreamDefault : cudaStreamNonBlocking));
  char* data = new_buffer();
  char* result = new_pinned();
  MUST(cudaMemset(data, 1, BYTES));
  copy(result, data, consumer);
}

static void upload_taken_for_a_wait(bool is_right) {
  cudaStream_t consumer = new_stream();
  char* data = new_buffer();
  char* result = new_pinned();
  char source[BYTES];
  memset(source, 1, sizeof(source));
  MUST(cudaMemcpy(data, source, BYTES, cudaMemcpyHostToDevice));
  if (is_right) MUST(cudaStreamSynchronize(cudaStreamLegacy));
  copy(result, data, consumer);
}

// A new stream is in no order with a destroyed one, whose place it takes.
static void new_stream_taken_for_the_old_one(bool is_right) {
  cudaStream_t old = new_stream();
  char* data = new_buffer();
  fill(data, old);
  if (is_right) MUST(cudaStreamSynchronize(old));
  MUST(cudaStreamDestroy(old));
  cudaStream_t next = new_stream();
  fill(data, next);
}

static void batch_that_depends_on_itself(bool is_right) {
  cudaStream_t stream = new_stream();
  char* data = new_buffer();
  char* other = new_buffer();
  void* to[] = {other, data};
  const void* from[] = {data, other + (is_right ? BYTES / 2 : 0)};
  size_t sizes[] = {BYTES / 2, BYTES / 2};
  struct cudaMemcpyAttributes how = {.srcAccessOrder = cudaMemcpySrcAccessOrderStream};
  size_t first = 0;
  if (is_right) to[1] = data + BYTES / 2;
  MUST(cudaMemcpyBatchAsync(to, from, sizes, 2, &how, &first, 1, stream));
}

static void missing_event_between_devices(bool is_right) {
  cudaStream_t first = new_stream();
  cudaEvent_t ready = new_event();
  char* data = new_buffer();
  fill(data, first);
  MUST(cudaEventRecord(ready, first));
  MUST(cudaSetDevice(1));
  cudaStream_t second = new_stream();
  char* received = new_buffer();
  if (is_right) MUST(cudaStreamWaitEvent(second, ready, 0));
  MUST(cudaMemcpyPeerAsync(received, 1, data, 0, BYTES, second));
  MUST(cudaSetDevice(0));
}

//===-- Kernels and graphs --------------------------------------------------------------------===//

static size_t reach_output(const cudasim_launch* launch, cudasim_range* ranges) {
  ranges[0] = (cudasim_range){*(void**)launch->arguments[0], BYTES, CUDASIM_WRITES};
  return 1;
}

static void run_nothing(const cudasim_launch* launch, dim3 index) {
  (void)launch;
  (void)index;
}

static void launch_writer(void* p, cudaStream_t stream) {
  static const size_t sizes[] = {sizeof(void*)};
  static const cudasim_kernel kernel = {"write", sizes, 1, reach_output, run_nothing};
  static bool is_registered;
  if (!is_registered) MUST(cudasim_register_kernel(&kernel, &kernel));
  is_registered = true;
  void* arguments[] = {&p};
  dim3 one = {1, 1, 1};
  MUST(cudaLaunchKernel(&kernel, one, one, arguments, 0, stream));
}

static void kernels_on_one_output(bool is_right) {
  cudaStream_t first = new_stream();
  cudaStream_t second = new_stream();
  char* data = new_buffer();
  launch_writer(data, first);
  if (is_right) order(first, second);
  launch_writer(data, second);
}

// Captures a fill and a copy of what it fills in two streams.
static cudaGraphExec_t new_step(char* data, char* result, bool is_right) {
  cudaStream_t producer = new_stream();
  cudaStream_t consumer = new_stream();
  cudaGraph_t graph;
  cudaGraphExec_t step;
  MUST(cudaStreamBeginCapture(producer, cudaStreamCaptureModeGlobal));
  if (!is_right) order(producer, consumer);
  fill(data, producer);
  if (is_right) order(producer, consumer);
  copy(result, data, consumer);
  order(consumer, producer);
  MUST(cudaStreamEndCapture(producer, &graph));
  MUST(cudaGraphInstantiate(&step, graph, 0));
  return step;
}

static void nodes_without_order(bool is_right) {
  (void)new_step(new_buffer(), new_pinned(), is_right);
}

static void graph_launched_without_order(bool is_right) {
  cudaStream_t producer = new_stream();
  cudaStream_t other = new_stream();
  char* data = new_buffer();
  cudaGraphExec_t step = new_step(data, new_pinned(), true);
  fill(data, producer);
  MUST(cudaGraphLaunch(step, is_right ? producer : other));
  MUST(cudaGraphLaunch(step, producer));  // comes after the launch before
}

static void used_without_order_after_a_graph(bool is_right) {
  cudaStream_t launching = new_stream();
  cudaStream_t other = new_stream();
  char* data = new_buffer();
  cudaGraphExec_t step = new_step(data, new_pinned(), true);
  MUST(cudaGraphLaunch(step, launching));
  if (is_right) order(launching, other);
  fill(data, other);
}

//===-- Bounds --------------------------------------------------------------------------------===//

static void copy_out_of_bounds(bool is_right) {
  char* data = new_buffer();
  char* pinned = new_pinned();
  if (is_right) copy(pinned, data, cudaStreamPerThread);
  if (!is_right) must_fail(cudaMemcpy(pinned, data + 1, BYTES, cudaMemcpyDeviceToHost));
}

static void pinned_copy_out_of_bounds(bool is_right) {
  char* data = new_buffer();
  char* pinned = new_pinned();
  if (is_right) copy(data, pinned, cudaStreamPerThread);
  if (!is_right) must_fail(cudaMemcpyAsync(data, pinned + 1, BYTES, cudaMemcpyDefault, NULL));
}

static void fill_out_of_bounds(bool is_right) {
  char* data = new_buffer();
  if (is_right) fill(data, cudaStreamPerThread);
  if (!is_right) must_fail(cudaMemset2D(data, 100, 1, 50, 42));
}

//===-- All -----------------------------------------------------------------------------------===//

const planted_bug planted_bugs[] = {
#define BUG(function, rule, here, there) \
  { #function, function, rule, here, there }
    BUG(used_before_it_is_allocated, "use-before-alloc", "cudaMemsetAsync",
        "allocated by cudaMallocAsync"),
    BUG(waited_for_what_came_before_the_allocation, "use-before-alloc", "cudaMemcpyAsync",
        "allocated by cudaMallocAsync"),
    BUG(freed_before_it_is_allocated, "use-before-alloc", "cudaFreeAsync",
        "allocated by cudaMallocAsync"),
    BUG(freed_while_it_is_read, "use-after-free", "cudaFreeAsync", "read by cudaMemcpyAsync"),
    BUG(freed_at_once_while_it_is_written, "use-after-free", "cudaFree",
        "written by cudaMemsetAsync"),
    BUG(destruction_taken_for_a_wait, "use-after-free", "cudaFreeAsync",
        "written by cudaMemsetAsync"),
    BUG(used_after_free_async, "use-after-free", "cudaMemsetAsync", "freed by cudaFreeAsync"),
    BUG(used_after_free, "use-after-free", "cudaMemcpy", "freed by cudaFree"),
    BUG(freed_twice, "double-free", "cudaFree", "freed by cudaFree"),
    BUG(freed_twice_in_streams, "double-free", "cudaFreeAsync", "freed by cudaFreeAsync"),
    BUG(pinned_freed_twice, "double-free", "cudaFreeHost", "freed by cudaFreeHost"),
    BUG(pinned_freed_as_device_memory, "wrong-free", "cudaFree", "allocated by cudaMallocHost"),
    BUG(device_memory_freed_as_pinned, "wrong-free", "cudaFreeHost", "allocated by cudaMalloc"),
    BUG(pinned_freed_in_a_stream, "wrong-free", "cudaFreeAsync", "allocated by cudaMallocHost"),
    BUG(freed_in_the_middle, "wrong-free", "cudaFree", "allocated by cudaMalloc"),
    BUG(missing_event, "unordered-copies", "cudaMemcpyAsync", "written by cudaMemsetAsync"),
    BUG(buffer_reused_too_early, "unordered-copies", "cudaMemsetAsync", "read by cudaMemcpyAsync"),
    BUG(halves_that_overlap, "unordered-copies", "cudaMemsetAsync", "written by cudaMemsetAsync"),
    BUG(columns_that_overlap, "unordered-copies", "cudaMemset2DAsync",
        "written by cudaMemset2DAsync"),
    BUG(two_results_in_one_place, "unordered-copies", "cudaMemcpyAsync",
        "written by cudaMemcpyAsync"),
    BUG(default_stream_taken_for_order, "unordered-copies", "cudaMemcpyAsync",
        "written by cudaMemset"),
    BUG(upload_taken_for_a_wait, "unordered-copies", "cudaMemcpyAsync", "written by cudaMemcpy"),
    BUG(new_stream_taken_for_the_old_one, "unordered-copies", "cudaMemsetAsync",
        "written by cudaMemsetAsync"),
    BUG(batch_that_depends_on_itself, "unordered-copies", "cudaMemcpyBatchAsync",
        "by cudaMemcpyBatchAsync"),
    BUG(missing_event_between_devices, "unordered-copies", "cudaMemcpyPeerAsync",
        "written by cudaMemsetAsync"),
    BUG(kernels_on_one_output, "unordered-copies", "cudaLaunchKernel",
        "written by cudaLaunchKernel"),
    BUG(nodes_without_order, "unordered-copies", "cudaMemcpyAsync", "written by cudaMemsetAsync"),
    BUG(graph_launched_without_order, "unordered-copies", "cudaGraphLaunch",
        "written by cudaMemsetAsync"),
    BUG(used_without_order_after_a_graph, "unordered-copies", "cudaMemsetAsync",
        "by cudaGraphLaunch"),
    BUG(copy_out_of_bounds, "out-of-bounds", "cudaMemcpy", "allocated by cudaMalloc"),
    BUG(pinned_copy_out_of_bounds, "out-of-bounds", "cudaMemcpyAsync",
        "allocated by cudaMallocHost"),
    BUG(fill_out_of_bounds, "out-of-bounds", "cudaMemset2D", "allocated by cudaMalloc"),
#undef BUG
};

const size_t planted_bug_count = sizeof(planted_bugs) / sizeof(planted_bugs[0]);
