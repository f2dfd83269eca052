#include "tests/cudasim/wrong_programs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cudasim.h"
#include "tests/cudasim/must.h"

#define BYTES ((size_t)4096)

//===-- What they are made of -----------------------------------------------------------------===//

// Memory of the current device, all 0.
static void* new_buffer(void) {
  void* p;
  MUST(cudaMalloc(&p, BYTES));
  MUST(cudaMemset(p, 0, BYTES));
  MUST(cudaDeviceSynchronize());
  return p;
}

// Page-locked memory, all `value`.
static unsigned char* new_pinned(int value) {
  void* p;
  MUST(cudaMallocHost(&p, BYTES));
  return memset(p, value, BYTES);
}

static bool holds(const unsigned char* memory, int value) {
  for (size_t i = 0; i < BYTES; ++i) {
    if (memory[i] != value) return false;
  }
  return true;
}

static void fill(void* to, int value, cudaStream_t stream) {
  MUST(cudaMemsetAsync(to, value, BYTES, stream));
}

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

//===-- Between streams -----------------------------------------------------------------------===//

static bool missing_event(bool is_right) {
  cudaStream_t producer = new_stream();
  cudaStream_t consumer = new_stream();
  void* data = new_buffer();
  unsigned char* result = new_pinned(0);
  fill(data, 1, producer);
  if (is_right) order(producer, consumer);
  copy(result, data, consumer);
  MUST(cudaStreamSynchronize(consumer));
  return holds(result, 1);
}

static bool buffer_reused_too_early(bool is_right) {
  cudaStream_t reader = new_stream();
  cudaStream_t writer = new_stream();
  void* buffer = new_buffer();
  unsigned char* result = new_pinned(0);
  fill(buffer, 1, reader);
  copy(result, buffer, reader);
  if (is_right) order(reader, writer);
  fill(buffer, 2, writer);  // the next batch
  MUST(cudaDeviceSynchronize());
  return holds(result, 1);
}

static bool recorded_in_the_wrong_stream(bool is_right) {
  cudaStream_t producer = new_stream();
  cudaStream_t consumer = new_stream();
  cudaEvent_t ready = new_event();
  void* data = new_buffer();
  unsigned char* result = new_pinned(0);
  fill(data, 1, producer);
  MUST(cudaEventRecord(ready, is_right ? producer : consumer));
  MUST(cudaStreamWaitEvent(consumer, ready, 0));
  copy(result, data, consumer);
  MUST(cudaStreamSynchronize(consumer));
  return holds(result, 1);
}

// An event that was not recorded yet holds up nothing.
static bool waited_before_recorded(bool is_right) {
  cudaStream_t producer = new_stream();
  cudaStream_t consumer = new_stream();
  cudaEvent_t ready = new_event();
  void* data = new_buffer();
  unsigned char* result = new_pinned(0);
  if (!is_right) MUST(cudaStreamWaitEvent(consumer, ready, 0));
  fill(data, 1, producer);
  MUST(cudaEventRecord(ready, producer));
  if (is_right) MUST(cudaStreamWaitEvent(consumer, ready, 0));
  copy(result, data, consumer);
  MUST(cudaStreamSynchronize(consumer));
  return holds(result, 1);
}

static bool recorded_too_early(bool is_right) {
  cudaStream_t producer = new_stream();
  cudaStream_t consumer = new_stream();
  cudaEvent_t ready = new_event();
  void* data = new_buffer();
  unsigned char* result = new_pinned(0);
  if (!is_right) MUST(cudaEventRecord(ready, producer));
  fill(data, 1, producer);
  if (is_right) MUST(cudaEventRecord(ready, producer));
  MUST(cudaStreamWaitEvent(consumer, ready, 0));
  copy(result, data, consumer);
  MUST(cudaStreamSynchronize(consumer));
  return holds(result, 1);
}

// The free is in the order of the stream that allocated, not of the one that still reads.
static bool freed_without_order(bool is_right) {
  cudaStream_t owner = new_stream();
  cudaStream_t reader = new_stream();
  unsigned char* result = new_pinned(0);
  void* data;
  void* next;
  MUST(cudaMallocAsync(&data, BYTES, owner));
  fill(data, 1, owner);
  order(owner, reader);
  copy(result, data, reader);
  if (is_right) order(reader, owner);
  MUST(cudaFreeAsync(data, owner));
  MUST(cudaMallocAsync(&next, BYTES, owner));  // the same memory
  fill(next, 2, owner);
  MUST(cudaDeviceSynchronize());
  return holds(result, 1);
}

// The legacy default stream orders nothing in streams that are non-blocking.
static bool default_stream_taken_for_order(bool is_right) {
  cudaStream_t consumer;
  MUST(cudaStreamCreateWithFlags(&consumer, is_right ? cudaStreamDefault : cudaStreamNonBlocking));
  void* data = new_buffer();
  unsigned char* result = new_pinned(0);
  MUST(cudaMemset(data, 1, BYTES));  // does not wait
  copy(result, data, consumer);
  MUST(cudaStreamSynchronize(consumer));
  return holds(result, 1);
}

static bool graph_launched_without_order(bool is_right) {
  cudaStream_t producer = new_stream();
  cudaStream_t consumer = new_stream();
  void* data = new_buffer();
  unsigned char* result = new_pinned(0);
  cudaGraph_t graph;
  cudaGraphExec_t step;
  MUST(cudaStreamBeginCapture(consumer, cudaStreamCaptureModeGlobal));
  copy(result, data, consumer);
  MUST(cudaStreamEndCapture(consumer, &graph));
  MUST(cudaGraphInstantiate(&step, graph, 0));
  fill(data, 1, producer);
  MUST(cudaGraphLaunch(step, is_right ? producer : consumer));
  MUST(cudaDeviceSynchronize());
  return holds(result, 1);
}

static bool missing_event_between_devices(bool is_right) {
  cudaStream_t first = new_stream();
  cudaEvent_t ready = new_event();
  void* data = new_buffer();
  MUST(cudaSetDevice(1));
  cudaStream_t second = new_stream();
  void* received = new_buffer();
  unsigned char* result = new_pinned(0);
  fill(data, 1, first);
  MUST(cudaEventRecord(ready, first));
  if (is_right) MUST(cudaStreamWaitEvent(second, ready, 0));
  MUST(cudaMemcpyPeerAsync(received, 1, data, 0, BYTES, second));
  copy(result, received, second);
  MUST(cudaStreamSynchronize(second));
  return holds(result, 1);
}

//===-- Between the host and a stream ---------------------------------------------------------===//

static bool read_before_synchronization(bool is_right) {
  cudaStream_t stream = new_stream();
  void* data = new_buffer();
  unsigned char* result = new_pinned(0);
  fill(data, 1, stream);
  copy(result, data, stream);
  if (is_right) MUST(cudaStreamSynchronize(stream));
  return holds(result, 1);
}

static bool source_overwritten_too_early(bool is_right) {
  cudaStream_t stream = new_stream();
  void* data = new_buffer();
  unsigned char* source = new_pinned(1);
  unsigned char* result = new_pinned(0);
  copy(data, source, stream);
  if (is_right) MUST(cudaStreamSynchronize(stream));
  memset(source, 2, BYTES);  // the next batch
  copy(result, data, stream);
  MUST(cudaStreamSynchronize(stream));
  return holds(result, 1);
}

// The answer of a query is an answer, not a wait.
static bool query_taken_for_a_wait(bool is_right) {
  cudaStream_t stream = new_stream();
  void* data = new_buffer();
  unsigned char* result = new_pinned(0);
  fill(data, 1, stream);
  copy(result, data, stream);
  while (cudaStreamQuery(stream) == cudaErrorNotReady && is_right) {
  }
  return holds(result, 1);
}

static bool destruction_taken_for_a_wait(bool is_right) {
  cudaStream_t stream = new_stream();
  void* data = new_buffer();
  unsigned char* result = new_pinned(0);
  fill(data, 1, stream);
  copy(result, data, stream);
  if (is_right) MUST(cudaStreamSynchronize(stream));
  MUST(cudaStreamDestroy(stream));
  return holds(result, 1);
}

static bool waited_for_the_wrong_event(bool is_right) {
  cudaStream_t stream = new_stream();
  cudaEvent_t filled = new_event();
  cudaEvent_t copied = new_event();
  void* data = new_buffer();
  unsigned char* result = new_pinned(0);
  fill(data, 1, stream);
  MUST(cudaEventRecord(filled, stream));
  copy(result, data, stream);
  MUST(cudaEventRecord(copied, stream));
  MUST(cudaEventSynchronize(is_right ? copied : filled));
  return holds(result, 1);
}

// cudaMemcpy of pageable memory returns when it has read its source, not when the data is there.
static bool upload_taken_for_a_wait(bool is_right) {
  cudaStream_t consumer = new_stream();
  void* data = new_buffer();
  unsigned char source[BYTES];
  unsigned char* result = new_pinned(0);
  memset(source, 1, sizeof(source));
  MUST(cudaMemcpy(data, source, BYTES, cudaMemcpyHostToDevice));
  if (is_right) MUST(cudaStreamSynchronize(cudaStreamLegacy));
  copy(result, data, consumer);
  MUST(cudaStreamSynchronize(consumer));
  return holds(result, 1);
}

typedef struct token {
  int input;
  int output;
} token;

static void sample(void* argument) {
  token* t = argument;
  t->output = t->input + 1;
}

static bool argument_changed_too_early(bool is_right) {
  cudaStream_t stream = new_stream();
  token t = {.input = 1};
  MUST(cudaLaunchHostFunc(stream, sample, &t));
  if (is_right) MUST(cudaStreamSynchronize(stream));
  t.input = 5;  // the next step
  MUST(cudaStreamSynchronize(stream));
  return t.output == 2;
}

//===-- All -----------------------------------------------------------------------------------===//

#define PROGRAM(function) \
  { #function, function }

const wrong_program wrong_programs[] = {
    PROGRAM(missing_event),
    PROGRAM(buffer_reused_too_early),
    PROGRAM(recorded_in_the_wrong_stream),
    PROGRAM(waited_before_recorded),
    PROGRAM(recorded_too_early),
    PROGRAM(freed_without_order),
    PROGRAM(default_stream_taken_for_order),
    PROGRAM(graph_launched_without_order),
    PROGRAM(missing_event_between_devices),
    PROGRAM(read_before_synchronization),
    PROGRAM(source_overwritten_too_early),
    PROGRAM(query_taken_for_a_wait),
    PROGRAM(destruction_taken_for_a_wait),
    PROGRAM(waited_for_the_wrong_event),
    PROGRAM(upload_taken_for_a_wait),
    PROGRAM(argument_changed_too_early),
};

const size_t wrong_program_count = sizeof(wrong_programs) / sizeof(wrong_programs[0]);
