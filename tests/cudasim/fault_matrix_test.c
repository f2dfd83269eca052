// Every function can be made to fail, and has then done nothing; and a program that meets failures
// everywhere can keep its memory together.

#include <stdio.h>
#include <string.h>

#include "cudasim/calls.h"
#include "tests/cudasim/support.h"

static void set_faults(const char* spec) {
  char why[256];
  cr_assert(eq(int, cudasim_faults(spec, why, sizeof(why)), cudaSuccess), "%s: %s", spec, why);
}

//===-- Every function ------------------------------------------------------------------------===//

typedef void (*any_function)(void);

typedef struct entry {
  const char* name;
  any_function function;
} entry;

static const entry entries[] = {
#define ENTRY_(function) {#function, (any_function)(function)},
    CUDASIM_CALLS(ENTRY_)
#undef ENTRY_
};

// Calls a function with nothing but zeros, more of them than any has: one that is refused looks at
// none of its arguments, whatever their number and types are.
static cudaError_t call_with_zeros(any_function function) {
  typedef cudaError_t (*with_many)(void*, void*, void*, void*, void*, void*, void*, void*, void*,
                                   void*, void*, void*, void*, void*, void*, void*);
  with_many f = (with_many)function;
  return f(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
           NULL);
}

SIM_TEST(every_function, fails_on_demand_without_a_look_at_its_arguments) {
  for (int i = 0; i < CALL_COUNT; ++i) {
    char spec[128];
    snprintf(spec, sizeof(spec), "%s:count=1:error=cudaErrorTimeout", entries[i].name);
    set_faults(spec);
    cr_expect(eq(int, call_with_zeros(entries[i].function), cudaErrorTimeout), "%s",
              entries[i].name);
    cr_expect(eq(int, cudaGetLastError(), cudaErrorTimeout), "%s", entries[i].name);
  }
}

SIM_TEST(every_function, fails_by_the_pattern_of_all) {
  set_faults("*:error=cudaErrorTimeout");
  for (int i = 0; i < CALL_COUNT; ++i) {
    cr_expect(eq(int, call_with_zeros(entries[i].function), cudaErrorTimeout), "%s",
              entries[i].name);
  }
}

//===-- What there is before a call fails -----------------------------------------------------===//

enum { BYTES = 4096 };

typedef struct world {
  cudaStream_t stream;
  cudaStream_t captured;
  cudaEvent_t event;
  cudaEvent_t later;
  char* memory;        // of BYTES
  char* other;         // another
  char* block;         // from cudaMallocAsync
  char* pinned;        // of BYTES
  char* registered;    // of BYTES
  char* unregistered;  // of BYTES
  cudaMemPool_t pool;  // not the default one
  cudaMemPool_t default_pool;
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  cudaGraphNode_t node;
} world;

static _Alignas(4096) char pages[2][BYTES];

static int launches;
static void count_launch(void* unused) {
  (void)unused;
  ++launches;
}

static int kernel;

static size_t reach_nothing(const cudasim_launch* launch, cudasim_range* ranges) {
  (void)launch;
  (void)ranges;
  return 0;
}

static void count_run(const cudasim_launch* launch, dim3 block) {
  (void)launch;
  (void)block;
  ++launches;
}

static void register_kernel(void) {
  static const cudasim_kernel k = {"counts", NULL, 0, reach_nothing, count_run};
  OK(cudasim_register_kernel(&kernel, &k));
}

static const struct cudaMemPoolProps pool_props = {.allocType = cudaMemAllocationTypePinned,
                                                   .location = {cudaMemLocationTypeDevice, 0}};

static void make_graph(world* w) {
  OK(cudaStreamBeginCapture(w->captured, cudaStreamCaptureModeRelaxed));
  OK(cudaMemsetAsync(w->memory, 1, BYTES, w->captured));
  OK(cudaStreamEndCapture(w->captured, &w->graph));
  size_t count = 1;
  OK(cudaGraphGetNodes(w->graph, &w->node, &count));
  OK(cudaGraphInstantiate(&w->exec, w->graph, 0));
}

static world make_world(void) {
  world w = {.registered = pages[0], .unregistered = pages[1]};
  w.stream = new_stream(cudaStreamNonBlocking);
  w.captured = new_stream(cudaStreamNonBlocking);
  w.memory = new_device_memory(BYTES);
  w.other = new_device_memory(BYTES);
  w.pinned = (char*)new_pinned_memory(BYTES);
  memset(pages, 3, sizeof(pages));
  memset(w.pinned, 3, BYTES);
  OK(cudaHostRegister(w.registered, BYTES, 0));
  OK(cudaMemset(w.memory, 1, BYTES));
  OK(cudaMemset(w.other, 2, BYTES));
  OK(cudaMallocAsync((void**)&w.block, BYTES, w.stream));
  OK(cudaMemPoolCreate(&w.pool, &pool_props));
  OK(cudaDeviceGetDefaultMemPool(&w.default_pool, 0));
  make_graph(&w);
  OK(cudaEventCreate(&w.event));
  OK(cudaEventCreate(&w.later));
  OK(cudaEventRecord(w.event, w.stream));
  OK(cudaEventRecord(w.later, w.stream));
  OK(cudaDeviceSynchronize());
  return w;
}

static void begin_capture(const world* w) {
  OK(cudaStreamBeginCapture(w->captured, cudaStreamCaptureModeRelaxed));
}

static void enable_peer(const world* w) {
  (void)w;
  OK(cudaDeviceEnablePeerAccess(1, 0));
}

//===-- What can be seen of it ----------------------------------------------------------------===//

typedef struct view {
  int device;
  int launches;
  enum cudaStreamCaptureStatus capture;
  cudaError_t handles[7];
  size_t free[2];
  cudasim_statistics statistics[2];
  uint64_t pools[2][3];
  struct cudaPointerAttributes pointers[6];
  unsigned char memory[2][BYTES];
  unsigned char host[3][BYTES];
} view;

static void look_at_pools(const world* w, view* v) {
  static const enum cudaMemPoolAttr attributes[] = {cudaMemPoolAttrReleaseThreshold,
                                                    cudaMemPoolAttrUsedMemCurrent,
                                                    cudaMemPoolAttrReservedMemCurrent};
  for (int i = 0; i < 3; ++i) {
    v->pools[0][i] = pool_bytes(w->default_pool, attributes[i]);
    v->pools[1][i] = pool_bytes(w->pool, attributes[i]);
  }
}

static void look_at_handles(const world* w, view* v) {
  unsigned flags;
  size_t count;
  enum cudaGraphNodeType type;
  v->handles[0] = cudaStreamGetFlags(w->stream, &flags);
  v->handles[1] = cudaStreamGetFlags(w->captured, &flags);
  v->handles[2] = cudaEventQuery(w->event);
  v->handles[3] = cudaEventQuery(w->later);
  v->handles[4] = cudaGraphGetNodes(w->graph, NULL, &count);
  v->handles[5] = cudaGraphNodeGetType(w->node, &type);
  OK(cudaStreamIsCapturing(w->captured, &v->capture));
}

static void look_at_memory(const world* w, view* v) {
  const void* pointers[] = {w->memory, w->other,      w->block,
                            w->pinned, w->registered, w->unregistered};
  for (int i = 0; i < 6; ++i) OK(cudaPointerGetAttributes(&v->pointers[i], pointers[i]));
  memcpy(v->memory[0], cudasim_device_memory(w->memory, BYTES), BYTES);
  memcpy(v->memory[1], cudasim_device_memory(w->other, BYTES), BYTES);
  memcpy(v->host[0], w->pinned, BYTES);
  memcpy(v->host[1], w->registered, BYTES);
  memcpy(v->host[2], w->unregistered, BYTES);
}

static void look(const world* w, view* v) {
  memset(v, 0, sizeof(*v));
  v->launches = launches;
  OK(cudaGetDevice(&v->device));
  for (int i = 0; i < 2; ++i) {
    OK(cudasim_stats(i, &v->statistics[i]));
    OK(cudaSetDevice(i));
    OK(cudaMemGetInfo(&v->free[i], NULL));
  }
  OK(cudaSetDevice(v->device));
  look_at_pools(w, v);
  look_at_handles(w, v);
  look_at_memory(w, v);
}

//===-- Calls that would do something ---------------------------------------------------------===//

// Where calls put what they return; must not be touched by one that fails.
static union {
  unsigned char bytes[sizeof(struct cudaDeviceProp)];
  void* pointer;
  int number;
  unsigned flags;
  unsigned long long id;
  size_t sizes[2];
  float ms;
  uint64_t value;
  cudaStream_t stream;
  cudaEvent_t event;
  cudaMemPool_t pool;
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  cudaGraphNode_t nodes[4];
  struct cudaPitchedPtr pitched;
  struct cudaDeviceProp properties;
  struct cudaPointerAttributes attributes;
  enum cudaStreamCaptureStatus status;
  enum cudaGraphNodeType type;
  enum cudaMemAccessFlags access;
} out;

static size_t node_count;
static enum cudaStreamCaptureMode mode;
static uint64_t threshold = 77;

static struct cudaMemcpy3DParms copy_3d(const world* w) {
  return (struct cudaMemcpy3DParms){.srcPtr = {w->other, 64, 64, 8},
                                    .dstPtr = {w->memory, 64, 64, 8},
                                    .extent = {64, 8, 8},
                                    .kind = cudaMemcpyDeviceToDevice};
}

static struct cudaMemcpy3DPeerParms copy_3d_peer(const world* w) {
  return (struct cudaMemcpy3DPeerParms){
      .srcPtr = {w->other, 64, 64, 8}, .dstPtr = {w->memory, 64, 64, 8}, .extent = {64, 8, 8}};
}

static cudaError_t copy_batch(const world* w) {
  void* to[] = {w->memory};
  const void* from[] = {w->other};
  size_t sizes[] = {BYTES};
  size_t index = 0;
  struct cudaMemcpyAttributes attributes = {.srcAccessOrder = cudaMemcpySrcAccessOrderStream};
  return cudaMemcpyBatchAsync(to, from, sizes, 1, &attributes, &index, 1, w->stream);
}

static struct cudaMemLocation location = {cudaMemLocationTypeDevice, 0};
static const struct cudaMemAccessDesc access_from_1 = {{cudaMemLocationTypeDevice, 1},
                                                       cudaMemAccessFlagsProtReadWrite};

typedef struct attempt {
  const char* name;
  cudaError_t (*call)(world* w);
  void (*prepare)(const world* w);
} attempt;

#define ATTEMPTS(X)                                                                                \
  X(cudaRuntimeGetVersion, cudaRuntimeGetVersion(&out.number), NULL)                               \
  X(cudaDriverGetVersion, cudaDriverGetVersion(&out.number), NULL)                                 \
  X(cudaGetDeviceCount, cudaGetDeviceCount(&out.number), NULL)                                     \
  X(cudaSetDevice, cudaSetDevice(1), NULL)                                                         \
  X(cudaGetDevice, cudaGetDevice(&out.number), NULL)                                               \
  X(cudaInitDevice, cudaInitDevice(1, 0, 0), NULL)                                                 \
  X(cudaDeviceSynchronize, cudaDeviceSynchronize(), NULL)                                          \
  X(cudaDeviceReset, cudaDeviceReset(), NULL)                                                      \
  X(cudaDeviceGetAttribute, cudaDeviceGetAttribute(&out.number, cudaDevAttrWarpSize, 0), NULL)     \
  X(cudaGetDeviceProperties, cudaGetDeviceProperties(&out.properties, 0), NULL)                    \
  X(cudaMemGetInfo, cudaMemGetInfo(&out.sizes[0], &out.sizes[1]), NULL)                            \
  X(cudaDeviceGetStreamPriorityRange, cudaDeviceGetStreamPriorityRange(&out.number, NULL), NULL)   \
  X(cudaDeviceCanAccessPeer, cudaDeviceCanAccessPeer(&out.number, 0, 1), NULL)                     \
  X(cudaDeviceEnablePeerAccess, cudaDeviceEnablePeerAccess(1, 0), NULL)                            \
  X(cudaDeviceDisablePeerAccess, cudaDeviceDisablePeerAccess(1), enable_peer)                      \
  X(cudaStreamCreate, cudaStreamCreate(&out.stream), NULL)                                         \
  X(cudaStreamCreateWithFlags, cudaStreamCreateWithFlags(&out.stream, 1), NULL)                    \
  X(cudaStreamCreateWithPriority, cudaStreamCreateWithPriority(&out.stream, 1, -1), NULL)          \
  X(cudaStreamDestroy, cudaStreamDestroy(w->stream), NULL)                                         \
  X(cudaStreamQuery, cudaStreamQuery(w->stream), NULL)                                             \
  X(cudaStreamSynchronize, cudaStreamSynchronize(w->stream), NULL)                                 \
  X(cudaStreamWaitEvent, cudaStreamWaitEvent(w->stream, w->event, 0), NULL)                        \
  X(cudaStreamGetPriority, cudaStreamGetPriority(w->stream, &out.number), NULL)                    \
  X(cudaStreamGetFlags, cudaStreamGetFlags(w->stream, &out.flags), NULL)                           \
  X(cudaStreamGetId, cudaStreamGetId(w->stream, &out.id), NULL)                                    \
  X(cudaStreamGetDevice, cudaStreamGetDevice(w->stream, &out.number), NULL)                        \
  X(cudaLaunchHostFunc, cudaLaunchHostFunc(w->stream, count_launch, NULL), NULL)                   \
  X(cudaLaunchKernel,                                                                              \
    cudaLaunchKernel(&kernel, (dim3){1, 1, 1}, (dim3){1, 1, 1}, NULL, 0, w->stream), NULL)         \
  X(cudaStreamBeginCapture, cudaStreamBeginCapture(w->captured, cudaStreamCaptureModeRelaxed),     \
    NULL)                                                                                          \
  X(cudaStreamEndCapture, cudaStreamEndCapture(w->captured, &out.graph), begin_capture)            \
  X(cudaStreamIsCapturing, cudaStreamIsCapturing(w->captured, &out.status), begin_capture)         \
  X(cudaStreamGetCaptureInfo,                                                                      \
    cudaStreamGetCaptureInfo(w->captured, &out.status, NULL, NULL, NULL, NULL, NULL),              \
    begin_capture)                                                                                 \
  X(cudaThreadExchangeStreamCaptureMode, cudaThreadExchangeStreamCaptureMode(&mode), NULL)         \
  X(cudaGraphCreate, cudaGraphCreate(&out.graph, 0), NULL)                                         \
  X(cudaGraphDestroy, cudaGraphDestroy(w->graph), NULL)                                            \
  X(cudaGraphGetNodes, cudaGraphGetNodes(w->graph, out.nodes, &node_count), NULL)                  \
  X(cudaGraphGetRootNodes, cudaGraphGetRootNodes(w->graph, out.nodes, &node_count), NULL)          \
  X(cudaGraphNodeGetType, cudaGraphNodeGetType(w->node, &out.type), NULL)                          \
  X(cudaGraphNodeGetDependencies, cudaGraphNodeGetDependencies(w->node, NULL, NULL, &node_count),  \
    NULL)                                                                                          \
  X(cudaGraphInstantiate, cudaGraphInstantiate(&out.exec, w->graph, 0), NULL)                      \
  X(cudaGraphUpload, cudaGraphUpload(w->exec, w->stream), NULL)                                    \
  X(cudaGraphLaunch, cudaGraphLaunch(w->exec, w->stream), NULL)                                    \
  X(cudaGraphExecDestroy, cudaGraphExecDestroy(w->exec), NULL)                                     \
  X(cudaEventCreate, cudaEventCreate(&out.event), NULL)                                            \
  X(cudaEventCreateWithFlags, cudaEventCreateWithFlags(&out.event, 0), NULL)                       \
  X(cudaEventRecord, cudaEventRecord(w->event, w->stream), NULL)                                   \
  X(cudaEventRecordWithFlags, cudaEventRecordWithFlags(w->event, w->stream, 0), NULL)              \
  X(cudaEventQuery, cudaEventQuery(w->event), NULL)                                                \
  X(cudaEventSynchronize, cudaEventSynchronize(w->event), NULL)                                    \
  X(cudaEventDestroy, cudaEventDestroy(w->event), NULL)                                            \
  X(cudaEventElapsedTime, cudaEventElapsedTime(&out.ms, w->event, w->later), NULL)                 \
  X(cudaMalloc, cudaMalloc(&out.pointer, 5 * MIB), NULL)                                           \
  X(cudaMallocPitch, cudaMallocPitch(&out.pointer, &node_count, 5 * MIB, 2), NULL)                 \
  X(cudaMalloc3D, cudaMalloc3D(&out.pitched, (struct cudaExtent){MIB, 5, 1}), NULL)                \
  X(cudaFree, cudaFree(w->memory), NULL)                                                           \
  X(cudaMallocAsync, cudaMallocAsync(&out.pointer, 50 * MIB, w->stream), NULL)                     \
  X(cudaMallocFromPoolAsync, cudaMallocFromPoolAsync(&out.pointer, 50 * MIB, w->pool, w->stream),  \
    NULL)                                                                                          \
  X(cudaFreeAsync, cudaFreeAsync(w->block, w->stream), NULL)                                       \
  X(cudaDeviceGetDefaultMemPool, cudaDeviceGetDefaultMemPool(&out.pool, 0), NULL)                  \
  X(cudaDeviceGetMemPool, cudaDeviceGetMemPool(&out.pool, 0), NULL)                                \
  X(cudaDeviceSetMemPool, cudaDeviceSetMemPool(0, w->pool), NULL)                                  \
  X(cudaMemGetDefaultMemPool,                                                                      \
    cudaMemGetDefaultMemPool(&out.pool, &location, cudaMemAllocationTypePinned), NULL)             \
  X(cudaMemGetMemPool, cudaMemGetMemPool(&out.pool, &location, cudaMemAllocationTypePinned), NULL) \
  X(cudaMemSetMemPool, cudaMemSetMemPool(&location, cudaMemAllocationTypePinned, w->pool), NULL)   \
  X(cudaMemPoolCreate, cudaMemPoolCreate(&out.pool, &pool_props), NULL)                            \
  X(cudaMemPoolDestroy, cudaMemPoolDestroy(w->pool), NULL)                                         \
  X(cudaMemPoolTrimTo, cudaMemPoolTrimTo(w->default_pool, 0), NULL)                                \
  X(cudaMemPoolSetAttribute,                                                                       \
    cudaMemPoolSetAttribute(w->pool, cudaMemPoolAttrReleaseThreshold, &threshold), NULL)           \
  X(cudaMemPoolGetAttribute,                                                                       \
    cudaMemPoolGetAttribute(w->pool, cudaMemPoolAttrReleaseThreshold, &out.value), NULL)           \
  X(cudaMemPoolSetAccess, cudaMemPoolSetAccess(w->pool, &access_from_1, 1), NULL)                  \
  X(cudaMemPoolGetAccess, cudaMemPoolGetAccess(&out.access, w->pool, &location), NULL)             \
  X(cudaMallocHost, cudaMallocHost(&out.pointer, BYTES), NULL)                                     \
  X(cudaHostAlloc, cudaHostAlloc(&out.pointer, BYTES, 0), NULL)                                    \
  X(cudaFreeHost, cudaFreeHost(w->pinned), NULL)                                                   \
  X(cudaHostRegister, cudaHostRegister(w->unregistered, BYTES, 0), NULL)                           \
  X(cudaHostUnregister, cudaHostUnregister(w->registered), NULL)                                   \
  X(cudaHostGetDevicePointer, cudaHostGetDevicePointer(&out.pointer, w->pinned, 0), NULL)          \
  X(cudaHostGetFlags, cudaHostGetFlags(&out.flags, w->pinned), NULL)                               \
  X(cudaPointerGetAttributes, cudaPointerGetAttributes(&out.attributes, w->memory), NULL)          \
  X(cudaMemcpy, cudaMemcpy(w->memory, w->other, BYTES, cudaMemcpyDefault), NULL)                   \
  X(cudaMemcpyAsync, cudaMemcpyAsync(w->pinned, w->other, BYTES, cudaMemcpyDefault, w->stream),    \
    NULL)                                                                                          \
  X(cudaMemcpy2D, cudaMemcpy2D(w->registered, 64, w->other, 64, 64, 64, cudaMemcpyDefault), NULL)  \
  X(cudaMemcpy2DAsync,                                                                             \
    cudaMemcpy2DAsync(w->memory, 64, w->other, 64, 64, 64, cudaMemcpyDefault, w->stream), NULL)    \
  X(cudaMemcpy3D, (parms = copy_3d(w), cudaMemcpy3D(&parms)), NULL)                                \
  X(cudaMemcpy3DAsync, (parms = copy_3d(w), cudaMemcpy3DAsync(&parms, w->stream)), NULL)           \
  X(cudaMemcpyPeer, cudaMemcpyPeer(w->memory, 0, w->other, 0, BYTES), NULL)                        \
  X(cudaMemcpyPeerAsync, cudaMemcpyPeerAsync(w->memory, 0, w->other, 0, BYTES, w->stream), NULL)   \
  X(cudaMemcpy3DPeer, (peers = copy_3d_peer(w), cudaMemcpy3DPeer(&peers)), NULL)                   \
  X(cudaMemcpy3DPeerAsync, (peers = copy_3d_peer(w), cudaMemcpy3DPeerAsync(&peers, w->stream)),    \
    NULL)                                                                                          \
  X(cudaMemcpyBatchAsync, copy_batch(w), NULL)                                                     \
  X(cudaMemset, cudaMemset(w->memory, 9, BYTES), NULL)                                             \
  X(cudaMemsetAsync, cudaMemsetAsync(w->memory, 9, BYTES, w->stream), NULL)                        \
  X(cudaMemset2D, cudaMemset2D(w->memory, 64, 9, 64, 64), NULL)                                    \
  X(cudaMemset2DAsync, cudaMemset2DAsync(w->memory, 64, 9, 64, 64, w->stream), NULL)               \
  X(cudaMemset3D,                                                                                  \
    cudaMemset3D((struct cudaPitchedPtr){w->memory, 64, 64, 8}, 9, (struct cudaExtent){64, 8, 8}), \
    NULL)                                                                                          \
  X(cudaMemset3DAsync,                                                                             \
    cudaMemset3DAsync((struct cudaPitchedPtr){w->memory, 64, 64, 8}, 9,                            \
                      (struct cudaExtent){64, 8, 8}, w->stream),                                   \
    NULL)

static struct cudaMemcpy3DParms parms;
static struct cudaMemcpy3DPeerParms peers;

#define CALL_(name, expression, prepare)     \
  static cudaError_t call_##name(world* w) { \
    (void)w;                                 \
    return expression;                       \
  }
ATTEMPTS(CALL_)
#undef CALL_

static const attempt attempts[] = {
#define ATTEMPT_(name, expression, prepare) {#name, call_##name, prepare},
    ATTEMPTS(ATTEMPT_)
#undef ATTEMPT_
};

static bool is_untouched(void) {
  for (size_t i = 0; i < sizeof(out); ++i) {
    if (out.bytes[i] != 0x5a) return false;
  }
  return true;
}

// The call fails and leaves everything as it was; then, with the same arguments, it succeeds.
static void expect_changes_nothing(const attempt* a) {
  static view before;
  static view after;
  char spec[128];
  world w = make_world();
  if (a->prepare) a->prepare(&w);
  node_count = 4;
  memset(&out, 0x5a, sizeof(out));
  look(&w, &before);
  snprintf(spec, sizeof(spec), "%s:nth=1:error=cudaErrorTimeout", a->name);
  set_faults(spec);
  cr_expect(eq(int, a->call(&w), cudaErrorTimeout), "%s", a->name);
  cr_expect(is_untouched(), "%s", a->name);
  cr_expect(eq(sz, node_count, 4), "%s", a->name);
  look(&w, &after);
  cr_expect(eq(int, memcmp(&before, &after, sizeof(view)), 0), "%s", a->name);
  cr_expect(eq(int, a->call(&w), cudaSuccess), "%s", a->name);
}

static void every_call_that_fails_changes_nothing(const char* schedule) {
  register_kernel();
  for (size_t i = 0; i < sizeof(attempts) / sizeof(attempts[0]); ++i) {
    make_machine((cudasim_options){.devices = 2, .schedule = schedule});
    expect_changes_nothing(&attempts[i]);
    cudasim_reset();
  }
}

Test(every_function, that_fails_changes_nothing_eager) {
  every_call_that_fails_changes_nothing("eager");
}
Test(every_function, that_fails_changes_nothing_threads) {
  every_call_that_fails_changes_nothing("threads");
}
Test(every_function, that_fails_changes_nothing_random) {
  every_call_that_fails_changes_nothing("random:1");
}

//===-- An engine -----------------------------------------------------------------------------===//

enum { STEP_BYTES = 32 << 10 };

// What one step of an engine holds, so that all of it can be given back wherever the step ended.
typedef struct step {
  cudaStream_t compute;
  cudaStream_t copies;
  cudaEvent_t ready;
  void* weights;
  void* blocks[4];
  void* staging;
} step;

// Gives back until it works: a call that failed has done nothing.
#define INSIST(call) \
  do {               \
  } while ((call) != cudaSuccess)

#define TRY(call)                             \
  do {                                        \
    cudaError_t error_ = (call);              \
    if (error_ != cudaSuccess) return error_; \
  } while (0)

static cudaError_t prepare_step(step* s) {
  TRY(cudaStreamCreateWithFlags(&s->compute, cudaStreamNonBlocking));
  TRY(cudaStreamCreateWithFlags(&s->copies, cudaStreamNonBlocking));
  TRY(cudaEventCreateWithFlags(&s->ready, cudaEventDisableTiming));
  TRY(cudaMalloc(&s->weights, STEP_BYTES));
  return cudaMallocHost(&s->staging, STEP_BYTES);
}

static cudaError_t run_step(step* s, int* result) {
  for (int i = 0; i < 4; ++i) TRY(cudaMallocAsync(&s->blocks[i], STEP_BYTES, s->compute));
  memset(s->staging, 5, STEP_BYTES);
  TRY(cudaEventRecord(s->ready, s->compute));
  TRY(cudaStreamWaitEvent(s->copies, s->ready, 0));
  TRY(cudaMemcpyAsync(s->weights, s->staging, STEP_BYTES, cudaMemcpyHostToDevice, s->copies));
  TRY(cudaEventRecord(s->ready, s->copies));
  TRY(cudaStreamWaitEvent(s->compute, s->ready, 0));
  for (int i = 0; i < 4; ++i) {
    TRY(cudaMemcpyAsync(s->blocks[i], s->weights, STEP_BYTES, cudaMemcpyDeviceToDevice,
                        s->compute));
  }
  TRY(cudaMemcpyAsync(s->staging, s->blocks[3], STEP_BYTES, cudaMemcpyDeviceToHost, s->compute));
  TRY(cudaStreamSynchronize(s->compute));
  *result = ((const unsigned char*)s->staging)[STEP_BYTES - 1];
  return cudaSuccess;
}

// What a step that failed has queued may still use the host's memory.
static void end_step(step* s) {
  INSIST(cudaStreamSynchronize(s->copies));
  INSIST(cudaStreamSynchronize(s->compute));
  for (int i = 0; i < 4; ++i) {
    if (s->blocks[i]) INSIST(cudaFreeAsync(s->blocks[i], s->compute));
    s->blocks[i] = NULL;
  }
}

static void close_engine(step* s) {
  INSIST(cudaDeviceSynchronize());
  INSIST(cudaFree(s->weights));
  INSIST(cudaFreeHost(s->staging));
  if (s->ready) INSIST(cudaEventDestroy(s->ready));
  if (s->copies) INSIST(cudaStreamDestroy(s->copies));
  if (s->compute) INSIST(cudaStreamDestroy(s->compute));
}

static int run_engine(void) {
  int failures = 0;
  step s = {0};
  if (prepare_step(&s) != cudaSuccess) {
    ++failures;
  } else {
    for (int i = 0; i < 10; ++i) {
      int result = 0;
      cudaError_t error = run_step(&s, &result);
      cr_expect(error || result == 5);
      failures += error != cudaSuccess;
      end_step(&s);
    }
  }
  close_engine(&s);
  return failures;
}

static void expect_nothing_is_lost(size_t before) {
  cudaMemPool_t pool;
  OK(cudaDeviceSynchronize());
  OK(cudaDeviceGetDefaultMemPool(&pool, 0));
  cr_expect(eq(u64, pool_bytes(pool, cudaMemPoolAttrUsedMemCurrent), 0));
  OK(cudaMemPoolTrimTo(pool, 0));
  cr_expect(eq(sz, free_memory(), before));
}

SIM_TEST(engine, that_gives_back_what_it_got_loses_nothing) {
  size_t before = free_memory();
  int failures = 0;
  for (int seed = 0; seed < 100; ++seed) {
    char spec[64];
    snprintf(spec, sizeof(spec), "*:fraction=0.02:seed=%d", seed);
    set_faults(spec);
    failures += run_engine();
    set_faults("");
    expect_nothing_is_lost(before);
  }
  cr_expect(failures > 100 && failures < 1000, "%d", failures);
}
