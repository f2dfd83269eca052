// A program that knows nothing of cudasim: it is linked with the runtime, and does what host code
// does. That it runs on the stand-in is all that it asks of its surroundings.
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BYTES ((size_t)1 << 20)

#define OK(call) check((call), #call, __LINE__)
#define EXPECT(condition) expect((condition) != 0, #condition, __LINE__)

static void expect(int is_true, const char* what, int line) {
  if (is_true) return;
  fprintf(stderr, "host_program.c:%d: not so: %s\n", line, what);
  exit(1);
}

static void check(cudaError_t error, const char* what, int line) {
  if (error == cudaSuccess) return;
  fprintf(stderr, "host_program.c:%d: %s: %s\n", line, what, cudaGetErrorString(error));
  exit(1);
}

static void devices(void) {
  int count = 0;
  int version = 0;
  struct cudaDeviceProp properties;
  size_t left = 0;
  size_t all = 0;
  OK(cudaGetDeviceCount(&count));
  OK(cudaGetDeviceProperties(&properties, count - 1));
  OK(cudaMemGetInfo(&left, &all));
  OK(cudaRuntimeGetVersion(&version));
  EXPECT(all == properties.totalGlobalMem && left <= all);
  EXPECT(version == 13000);
}

static void copies(void) {
  void* there;
  char* from;
  char* to;
  OK(cudaMalloc(&there, BYTES));
  OK(cudaHostAlloc((void**)&from, BYTES, cudaHostAllocDefault));
  OK(cudaMallocHost((void**)&to, BYTES));
  for (size_t i = 0; i < BYTES; ++i) from[i] = (char)(i * 7);
  OK(cudaMemcpy(there, from, BYTES, cudaMemcpyHostToDevice));
  OK(cudaMemset((char*)there + 1, 5, 1));
  OK(cudaMemcpy2D(to, 64, there, 32, 32, BYTES / 64, cudaMemcpyDeviceToHost));
  OK(cudaDeviceSynchronize());
  EXPECT(to[0] == from[0] && to[1] == 5 && memcmp(to + 64, from + 32, 32) == 0);
  OK(cudaFreeHost(to));
  OK(cudaFreeHost(from));
  OK(cudaFree(there));
}

static void count_up(void* argument) { ++*(int*)argument; }

static void streams(void) {
  cudaStream_t stream;
  cudaEvent_t begin;
  cudaEvent_t end;
  float ms = -1;
  int calls = 0;
  void* there;
  int value = 0;
  OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  OK(cudaEventCreate(&begin));
  OK(cudaEventCreate(&end));
  OK(cudaEventRecord(begin, stream));
  OK(cudaMallocAsync(&there, BYTES, stream));
  OK(cudaMemsetAsync(there, 1, BYTES, stream));
  OK(cudaLaunchHostFunc(stream, count_up, &calls));
  OK(cudaEventRecord(end, stream));
  OK(cudaStreamWaitEvent(0, end, 0));
  OK(cudaMemcpyAsync(&value, there, sizeof(value), cudaMemcpyDeviceToHost, 0));
  OK(cudaStreamSynchronize(0));
  OK(cudaEventElapsedTime(&ms, begin, end));
  EXPECT(value == 0x01010101 && calls == 1 && ms >= 0);
  OK(cudaFreeAsync(there, stream));
  OK(cudaStreamSynchronize(stream));
  OK(cudaEventDestroy(begin));
  OK(cudaEventDestroy(end));
  OK(cudaStreamDestroy(stream));
}

static void graphs(void) {
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  void* there;
  int value = 0;
  int calls = 0;
  OK(cudaMalloc(&there, BYTES));
  OK(cudaStreamCreate(&stream));
  OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  OK(cudaMemsetAsync(there, 3, BYTES, stream));
  OK(cudaLaunchHostFunc(stream, count_up, &calls));
  OK(cudaStreamEndCapture(stream, &graph));
  OK(cudaGraphInstantiate(&exec, graph, 0));
  OK(cudaGraphLaunch(exec, stream));
  OK(cudaGraphLaunch(exec, stream));
  OK(cudaStreamSynchronize(stream));
  OK(cudaMemcpy(&value, there, sizeof(value), cudaMemcpyDeviceToHost));
  EXPECT(value == 0x03030303 && calls == 2);
  OK(cudaGraphExecDestroy(exec));
  OK(cudaGraphDestroy(graph));
  OK(cudaStreamDestroy(stream));
  OK(cudaFree(there));
}

static void errors(void) {
  EXPECT(cudaMemcpy(NULL, NULL, 1, (enum cudaMemcpyKind)17) == cudaErrorInvalidMemcpyDirection);
  EXPECT(cudaPeekAtLastError() == cudaErrorInvalidMemcpyDirection);
  EXPECT(cudaGetLastError() == cudaErrorInvalidMemcpyDirection);
  EXPECT(cudaGetLastError() == cudaSuccess);
  EXPECT(strcmp(cudaGetErrorName(cudaErrorMemoryAllocation), "cudaErrorMemoryAllocation") == 0);
  EXPECT(strlen(cudaGetErrorString(cudaErrorMemoryAllocation)) > 0);
}

// Whether stream 0 is the thread's own is decided when a program is compiled.
static void default_stream(void) {
#ifdef CUDA_API_PER_THREAD_DEFAULT_STREAM
  cudaStream_t meant = cudaStreamPerThread;
#else
  cudaStream_t meant = cudaStreamLegacy;
#endif
  unsigned long long id = 0;
  unsigned long long of_zero = 1;
  OK(cudaStreamGetId(meant, &id));
  OK(cudaStreamGetId(0, &of_zero));
  EXPECT(id == of_zero);
}

// There are no functions with which a program could be made that uses textures.
static void missing(void) {
  int (*function)(void) = NULL;
  *(void**)(&function) = dlsym(RTLD_DEFAULT, "cudaDestroySurfaceObject");
  EXPECT(function != NULL);
  EXPECT(function() == cudaErrorNotSupported && function() == cudaErrorNotSupported);
  EXPECT(cudaGetLastError() == cudaErrorNotSupported);
}

int main(void) {
  EXPECT(dlsym(RTLD_DEFAULT, "cudasim_stats") != NULL);
  devices();
  copies();
  streams();
  graphs();
  errors();
  default_stream();
  missing();
  return 0;
}
