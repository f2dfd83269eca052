// What the runtime must do, told one call after the other: a machine in plain data that has no
// queues, no threads and no memory of its own.
//
// Each function here stands for one of the runtime: it returns what that must return, and does to
// the data what that must do. Work is done at once. What may be done later in the real order of
// things is told by clocks:
//
//   a position     counts what was put into one stream
//   a clock        has one position for each stream: all that something comes after
//
// A stream has a clock (what its next work comes after), so has an event (the stream's when it was
// recorded), and so has the host (what is over, because it waited for it). Where two answers are
// right, because a stream may or may not have got to something, `or_else` is the other one, and the
// caller says by model_correct which it was.
#ifndef TESTS_CUDASIM_MODEL_H_
#define TESTS_CUDASIM_MODEL_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cudasim.h"

#define MODEL_DEVICES 2
#define MODEL_STREAMS 32
#define MODEL_EVENTS 16
#define MODEL_BUFFERS 40
#define MODEL_POOLS 8
#define MODEL_CAPTURES 3
#define MODEL_NODES 24
#define MODEL_GRAPHS 6
#define MODEL_FREED 32
#define MODEL_FAULTS 4
#define MODEL_WINDOW ((size_t)256)  // bytes of a buffer whose content is followed
#define MODEL_CHUNK ((uint64_t)32 << 20)
#define MODEL_GRANULE ((uint64_t)2 << 20)
#define MODEL_NONE (-1)

//===-- State ---------------------------------------------------------------------------------===//

typedef struct model_clock {
  uint32_t at[MODEL_STREAMS];
} model_clock;

typedef struct model_device {
  cudaError_t broken;
  uint64_t memory;  // bytes
  uint64_t peers;   // a bit for each device
  int pool;         // the current one
  cudasim_statistics counts;
} model_device;

// The first MODEL_DEVICES are the legacy ones, the next those of the thread; they always exist.
typedef struct model_stream {
  bool exists;
  int device;
  unsigned flags;
  int priority;
  cudaStream_t handle;
  unsigned long long id;  // 0: not asked yet
  uint32_t position;
  model_clock order;    // what its next work comes after
  model_clock history;  // the same without what graphs add: what pools count
  bool may_wait;        // a refused call may have put it behind the legacy stream all the same
  int capture;          // or MODEL_NONE
  uint64_t tips;        // in the capture: nodes that the next one depends on
  uint64_t before;      // and all that it comes after
} model_stream;

typedef struct model_event {
  bool exists;
  int device;
  unsigned flags;
  cudaEvent_t handle;
  int stream;  // it was last recorded in, or MODEL_NONE
  model_clock order;
  model_clock history;
  uint64_t capture;  // the id of the capture it was last recorded in; 0: in none
  uint64_t tips;
  uint64_t before;
} model_event;

typedef enum model_memory {
  MEMORY_DEVICE,      // cudaMalloc
  MEMORY_POOL,        // cudaMallocAsync
  MEMORY_PINNED,      // cudaHostAlloc
  MEMORY_REGISTERED,  // cudaHostRegister
  MEMORY_PAGEABLE,
} model_memory;

typedef struct model_buffer {
  bool exists;
  bool is_leaving;  // cudaFreeAsync of cudaMalloc's: gone when `writer` gets there
  uint32_t id;      // of the allocation
  model_memory memory;
  int device;  // of the memory, or the current one when it was pinned
  int pool;
  unsigned flags;
  char* address;
  size_t size;
  unsigned char* seen;  // where the host sees it
  unsigned char data[MODEL_WINDOW];
  bool is_known[MODEL_WINDOW];
  bool is_compared;  // since it was last written
  int writer;        // stream of the last write or of the allocation, or MODEL_NONE
  uint32_t written;  // its position
  model_clock reads;
} model_buffer;

typedef struct model_pool {
  bool exists;     // its handle is valid
  bool is_ending;  // destroyed, but with memory in use
  int device;
  cudaMemPool_t handle;
  uint64_t limit;
  uint64_t threshold;
  int follows_events;
  int is_opportunistic;
  int adds_dependencies;
  uint64_t accessible;
  uint64_t used;
  uint64_t used_high;
  uint64_t reserved;  // as last read
  uint64_t least;     // what may be read next
  uint64_t most;
  uint64_t reserved_high;  // of what was read
  uint64_t peak;           // the same, never set back
  model_clock frees;       // the last one in each stream
} model_pool;

// Memory of a pool that was freed in a stream and not used since.
typedef struct model_freed {
  int pool;  // or MODEL_NONE
  char* address;
  size_t size;
  int stream;
  uint32_t position;
} model_freed;

typedef enum model_work_kind { WORK_COPY, WORK_FILL, WORK_ADD } model_work_kind;

// One side of a copy or fill, in the window of a buffer.
typedef struct model_side {
  int buffer;
  uint32_t id;
  size_t offset;
  size_t pitch;
  size_t slice;
} model_side;

typedef struct model_work {
  model_work_kind kind;
  bool is_kernel;  // of WORK_ADD
  model_side to;
  model_side from;
  size_t width;
  size_t height;
  size_t depth;
  unsigned char value;
} model_work;

typedef struct model_node {
  model_work work;
  uint64_t dependencies;
  uint64_t before;  // all nodes that it comes after
} model_node;

typedef struct model_nodes {
  model_node at[MODEL_NODES];
  int count;
} model_nodes;

typedef struct model_capture {
  bool exists;
  bool is_invalid;
  uint64_t id;
  enum cudaStreamCaptureMode mode;
  int origin;
  model_nodes nodes;
} model_capture;

typedef struct model_graph {
  bool exists;
  cudaGraph_t handle;
  model_nodes nodes;
} model_graph;

typedef struct model_exec {
  bool exists;
  cudaGraphExec_t handle;
  model_nodes nodes;
  model_clock last;  // the end of its last launch
} model_exec;

typedef struct model_fault {
  char function[48];
  uint64_t ahead;
  uint64_t count;  // 0: all
  cudaError_t error;
} model_fault;

typedef struct model {
  bool is_eager;
  int device_count;
  model_device devices[MODEL_DEVICES];
  model_stream streams[MODEL_STREAMS];
  model_event events[MODEL_EVENTS];
  model_buffer buffers[MODEL_BUFFERS];
  model_pool pools[MODEL_POOLS];
  model_freed freed[MODEL_FREED];
  model_capture captures[MODEL_CAPTURES];
  model_graph graphs[MODEL_GRAPHS];
  model_exec execs[MODEL_GRAPHS];
  model_fault faults[MODEL_FAULTS];
  uint64_t capture_ids;
  uint32_t buffer_ids;
  int freed_next;
  model_clock done;      // the host knows, also from asking, that it is over
  model_clock waited;    // the host has waited for it in some way
  model_clock observed;  // and in one that counts for pools
  int device;            // of the thread
  cudaError_t last_error;
  enum cudaStreamCaptureMode mode;  // of the thread
  cudaError_t or_else;              // of the last call; cudaSuccess: no other answer is right
} model;

// A stream as an argument: what it is, and what the program passes.
typedef struct model_stream_arg {
  int index;  // MODEL_NONE: no valid handle
  cudaStream_t handle;
} model_stream_arg;

void model_begin(model* m, int devices, uint64_t memory, bool is_eager);

//===-- Calls ---------------------------------------------------------------------------------===//

// What a call returns before it looks at its arguments: a fault, or what breaks the device.
cudaError_t model_open(model* m, const char* function);
cudaError_t model_open_plain(model* m, const char* function);

// The same for a call that is unsafe beside captures.
cudaError_t model_open_unsafe(model* m, const char* function);

// Records the error as the thread's last one and returns it.
cudaError_t model_close(model* m, cudaError_t error);

// The call returned `or_else`.
void model_correct(model* m);

#define MODEL_CALL_(m, open, function, expression) \
  cudaError_t error_ = open((m), #function);       \
  return model_close((m), error_ ? error_ : (cudaError_t)(expression))
#define MODEL_CALL(m, function, expression) MODEL_CALL_(m, model_open, function, expression)
#define MODEL_PLAIN_CALL(m, function, expression) \
  MODEL_CALL_(m, model_open_plain, function, expression)
#define MODEL_UNSAFE_CALL(m, function, expression) \
  MODEL_CALL_(m, model_open_unsafe, function, expression)

// Orders `count` calls of `function`, from the `nth`, to fail.
void model_fail(model* m, const char* function, uint64_t nth, uint64_t count, cudaError_t error);
void model_break(model* m, int device, cudaError_t error);

cudaError_t model_peek(const model* m);
cudaError_t model_get_last_error(model* m);

//===-- Devices -------------------------------------------------------------------------------===//

static inline bool model_is_device(const model* m, int device) {
  return device >= 0 && device < m->device_count;
}

cudaError_t model_set_device(model* m, int device);
cudaError_t model_synchronize_device(model* m);
cudaError_t model_reset_device(model* m);
cudaError_t model_enable_peer(model* m, int peer, unsigned flags);
cudaError_t model_disable_peer(model* m, int peer);

// Bytes that cudaMemGetInfo may say are free.
void model_free_memory(const model* m, int device, uint64_t* least, uint64_t* most);

//===-- Streams -------------------------------------------------------------------------------===//

static inline bool model_is_legacy(int stream) { return stream < MODEL_DEVICES; }

static inline int model_legacy(int device) { return device; }
static inline int model_per_thread(int device) { return MODEL_DEVICES + device; }
#define MODEL_FIRST_OWN (2 * MODEL_DEVICES)

static inline bool model_is_blocking(const model_stream* s) {
  return !(s->flags & cudaStreamNonBlocking);
}

// The stream as the call means it, which then is not of a broken device; NULL, and why.
model_stream* model_usable(model* m, model_stream_arg s, cudaError_t* error);
model_stream* model_stream_of(model* m, model_stream_arg s, cudaError_t* error);

// A place for a new stream, or MODEL_NONE.
int model_stream_slot(const model* m);
cudaError_t model_create_stream(model* m, int slot, unsigned flags, int priority);
cudaError_t model_destroy_stream(model* m, model_stream_arg s);
cudaError_t model_query_stream(model* m, model_stream_arg s);
cudaError_t model_synchronize_stream(model* m, model_stream_arg s);

// Whether the host knows that `clock` is past.
bool model_is_done(const model* m, const model_clock* clock);

// Puts what the stream does next behind what the legacy stream's rules say.
void model_enter(model* m, model_stream* s);

// Takes the next position of the stream.
uint32_t model_tick(model* m, model_stream* s);

// The host has waited for, or found out about, all before `clock`.
void model_host_waits(model* m, const model_clock* clock);
void model_host_knows(model* m, const model_clock* clock);
void model_host_waits_for_device(model* m, int device);
void model_join(model_clock* a, const model_clock* b);

//===-- Events --------------------------------------------------------------------------------===//

cudaError_t model_create_event(model* m, int slot, unsigned flags);
cudaError_t model_destroy_event(model* m, int e);
cudaError_t model_record(model* m, const char* function, int e, model_stream_arg s, unsigned flags);
cudaError_t model_wait_event(model* m, model_stream_arg s, int e, unsigned flags);
cudaError_t model_query_event(model* m, int e);
cudaError_t model_synchronize_event(model* m, int e);
cudaError_t model_elapsed(model* m, int start, int end);

//===-- Captures ------------------------------------------------------------------------------===//

// What unsafe calls, and uses of the legacy stream of `device`, return beside captures; `breaks`
// tells whether it invalidates those that are in the way.
cudaError_t model_refuse_unsafe(model* m, bool breaks);
cudaError_t model_refuse_legacy(model* m, int device, bool breaks);

// For what no capture takes.
cudaError_t model_refuse_captured(model* m, const model_stream* s);

bool model_is_capturing(const model* m);
cudaError_t model_begin_capture(model* m, model_stream_arg s, enum cudaStreamCaptureMode mode);

// On success the graph is in the model's place `graph`.
cudaError_t model_end_capture(model* m, model_stream_arg s, int graph);
cudaError_t model_capture_status(model* m, const char* function, model_stream_arg s,
                                 enum cudaStreamCaptureStatus* out);
cudaError_t model_exchange_mode(model* m, enum cudaStreamCaptureMode mode);

// A captured stream is gone.
void model_leave_capture(model* m, model_stream* s);

// Whether a node of `work` would race with one of the capture that it is not ordered with.
bool model_races_in_capture(const model* m, const model_stream* s, const model_work* work);
bool model_capture_is_full(const model* m, const model_stream* s);

//===-- Memory --------------------------------------------------------------------------------===//

int model_buffer_slot(const model* m);

// What an allocation returns that is not refused for its arguments; `or_else` says if both ways are
// right. With the address, model_allocated makes it exist, and returns what is wrong with it or
// NULL.
cudaError_t model_malloc(model* m, const char* function, size_t size);
const char* model_malloced(model* m, int buffer, void* address, size_t size);
cudaError_t model_malloc_async(model* m, const char* function, int pool, size_t size,
                               model_stream_arg s);
const char* model_malloced_async(model* m, int buffer, int pool, void* address, size_t size,
                                 model_stream_arg arg);
cudaError_t model_free(model* m, int buffer);
cudaError_t model_free_async(model* m, int buffer, model_stream_arg s);
cudaError_t model_host_alloc(model* m, const char* function, size_t size, unsigned flags);
void model_host_alloced(model* m, int buffer, void* address, size_t size, unsigned flags);
cudaError_t model_free_host(model* m, int buffer);
cudaError_t model_host_register(model* m, int buffer, size_t size, unsigned flags);
cudaError_t model_host_unregister(model* m, int buffer);

static inline bool model_is_on_device(const model_buffer* b) {
  return b->memory == MEMORY_DEVICE || b->memory == MEMORY_POOL;
}

static inline bool model_is_pinned(const model_buffer* b) {
  return b->memory == MEMORY_PINNED || b->memory == MEMORY_REGISTERED;
}

//===-- Pools ---------------------------------------------------------------------------------===//

int model_pool_slot(const model* m);
cudaError_t model_create_pool(model* m, int slot, int device, uint64_t limit);
cudaError_t model_destroy_pool(model* m, int pool);
cudaError_t model_trim_pool(model* m, int pool, uint64_t keep);
cudaError_t model_set_pool(model* m, int pool, enum cudaMemPoolAttr attribute, uint64_t value);
cudaError_t model_set_device_pool(model* m, int device, int pool);

// What the host's waiting makes the pools of `device` give back.
void model_trim_to_thresholds(model* m, int device);

// Takes the figure that was read; false if it cannot be.
bool model_settle_reserved(model* m, int pool, uint64_t reserved);

// Forgets what is over for certain.
void model_settle_memory(model* m);

//===-- Work ----------------------------------------------------------------------------------===//

// A stream with which the work, put into `stream` now, would race, or MODEL_NONE.
int model_race(const model* m, int stream, const model_work* work);

// The same for all of a graph, for the end of a buffer, and for the host's own access.
int model_race_of_nodes(const model* m, int stream, const model_nodes* nodes);
int model_race_of_free(const model* m, int stream, int buffer);
bool model_host_may_touch(const model* m, int buffer);

// Whether all memory that the nodes use is still there.
bool model_can_launch(const model* m, const model_nodes* nodes);

// What is wrong with the arguments of a copy or fill: before the stream is looked at, and after.
typedef struct model_wrong {
  cudaError_t early;
  cudaError_t late;
  bool is_empty;  // there is nothing to do
} model_wrong;

cudaError_t model_copy(model* m, const char* function, model_stream_arg s, const model_work* work,
                       bool is_async, model_wrong wrong);
cudaError_t model_copy_peer(model* m, const char* function, model_stream_arg s,
                            const model_work* work, bool is_async, model_wrong wrong);
cudaError_t model_copy_batch(model* m, model_stream_arg s, const model_work* works, int count,
                             model_wrong wrong);
cudaError_t model_fill(model* m, const char* function, model_stream_arg s, const model_work* work,
                       bool is_async, model_wrong wrong);
cudaError_t model_launch_host(model* m, model_stream_arg s, const model_work* work,
                              model_wrong wrong);
cudaError_t model_launch_kernel(model* m, model_stream_arg s, const model_work* work,
                                model_wrong wrong);

//===-- Graphs --------------------------------------------------------------------------------===//

int model_graph_slot(const model* m);
int model_exec_slot(const model* m);
cudaError_t model_destroy_graph(model* m, int graph);
cudaError_t model_instantiate(model* m, int graph, int exec);
cudaError_t model_launch_graph(model* m, int exec, model_stream_arg s);
cudaError_t model_destroy_exec(model* m, int exec);

#endif  // TESTS_CUDASIM_MODEL_H_
