// A decode step as a CUDA graph: captured once, launched for every token.
//
// The graph keeps the addresses that the captured step had. So the step's arena is warmed up and
// pinned: what it hands out during the capture stays where it is, and the requests of a later step
// would find the same addresses. What changes between launches, the tokens, goes in and out through
// page-locked memory that is allocated once.
//
// Works on a GPU and on cudasim. For lack of a kernel that both can run, a host function in stream
// order does the arithmetic; an engine launches kernels in its place.

#include <cuda_runtime_api.h>
#include <stdio.h>
#include <tm/tm.h>

enum { SEQUENCES = 8, HIDDEN = 1024, LAYERS = 4, TOKENS = 100 };

// What the graph holds the addresses of.
typedef struct decoder {
  tm_tensor tokens;   // (SEQUENCES), page-locked: written before a launch
  tm_tensor hidden;   // (SEQUENCES, HIDDEN), page-locked: where the host function works
  tm_tensor outputs;  // (SEQUENCES), page-locked: read after a launch
} decoder;

static void decoder_release(decoder* d) {
  tm_release(&d->tokens);
  tm_release(&d->hidden);
  tm_release(&d->outputs);
}

static tm_status decoder_init(decoder* d) {
  d->tokens = tm_empty(TM_SHAPE(SEQUENCES), TM_I32, TM_CPU_PINNED);
  d->hidden = tm_empty(TM_SHAPE(SEQUENCES, HIDDEN), TM_I32, TM_CPU_PINNED);
  d->outputs = tm_empty(TM_SHAPE(SEQUENCES), TM_I32, TM_CPU_PINNED);
  const bool ok = tm_ok(&d->tokens) && tm_ok(&d->hidden) && tm_ok(&d->outputs);
  return ok ? TM_OK : tm_last_status();
}

// One layer, in the place of a kernel: x += sequence + 1.
static void add_on_host(void* user) {
  int32_t* x = user;
  for (int i = 0; i < SEQUENCES * HIDDEN; i++) {
    x[i] += i / HIDDEN + 1;
  }
}

// The step: only work queued on the current stream, and memory from the current allocators. It runs
// as it is, and it is what is captured.
static tm_status step(decoder* d) {
  TM_SCOPE("decode step");
  tm_stream* stream = tm_current_stream();
  TM_TRY_TENSOR(x, tm_empty(TM_SHAPE(SEQUENCES, HIDDEN), TM_I32, TM_DEVICE));
  TM_TRY(tm_clear(&x));
  {
    tm_auto_tensor first = tm_slice(&x, TM_INDEX(0, 0), TM_INDEX(-1, 1));  // a strided copy
    tm_auto_tensor tokens = tm_unsqueeze(&d->tokens, 1);
    TM_TRY(tm_copy(&tokens, &first));
  }
  for (int i = 0; i < LAYERS; i++) {
    TM_TRY_TENSOR(y, tm_empty_like(&x));
    TM_TRY(tm_copy(&x, &d->hidden));
    TM_TRY(tm_stream_call_host(stream, add_on_host, tm_data(&d->hidden)));
    TM_TRY(tm_copy(&d->hidden, &y));
    TM_TRY(tm_copy(&y, &x));
  }
  tm_auto_tensor last = tm_slice(&x, TM_INDEX(0, 0), TM_INDEX(-1, 1));
  tm_auto_tensor outputs = tm_unsqueeze(&d->outputs, 1);
  return tm_copy(&last, &outputs);
}

static tm_status cuda(cudaError_t code) {
  return code == cudaSuccess
             ? TM_OK
             : TM_RAISE(TM_ERR_CUDA, "%s: %s", cudaGetErrorName(code), cudaGetErrorString(code));
}

// Captures the step. Where it fails, the capture is ended all the same, and the stream is as
// before.
static tm_status capture(decoder* d, cudaGraphExec_t* out) {
  cudaStream_t stream = tm_stream_handle(tm_current_stream());
  cudaGraph_t graph = NULL;
  TM_TRY(cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal)));
  const tm_status captured = step(d);
  const tm_status ended = cuda(cudaStreamEndCapture(stream, &graph));
  TM_TRY(captured);
  TM_TRY(ended);
  const tm_status status = cuda(cudaGraphInstantiate(out, graph, 0));
  (void)cudaGraphDestroy(graph);
  return status;
}

// Launches the graph for one token of every sequence, and checks what comes back.
static tm_status decode(decoder* d, cudaGraphExec_t graph, int32_t token) {
  tm_stream* stream = tm_current_stream();
  for (int32_t i = 0; i < SEQUENCES; i++) {
    TM_DATA(int32_t, &d->tokens)[i] = token + i;
  }
  TM_TRY(cuda(cudaGraphLaunch(graph, tm_stream_handle(stream))));
  TM_TRY(tm_stream_sync(stream));
  for (int32_t i = 0; i < SEQUENCES; i++) {
    const int32_t got = TM_DATA(int32_t, &d->outputs)[i];
    const int32_t expected = token + i + LAYERS * (i + 1);
    if (got != expected) {
      return TM_RAISE(TM_ERR_CORRUPT, "token %d of sequence %d: %d, expected %d", token, i, got,
                      expected);
    }
  }
  return TM_OK;
}

// With a stream, an arena and page-locked memory current.
static tm_status run(tm_allocator* arena, decoder* d) {
  // An arena that has not seen the step would have to grow inside the capture. It refuses, the
  // capture stays valid, and nothing has happened.
  cudaGraphExec_t graph = NULL;
  const tm_status cold = capture(d, &graph);
  printf("captured cold:   %s\n", tm_status_name(cold));
  if (cold != TM_ERR_CAPTURING) {
    return TM_RAISE(TM_ERR_CORRUPT, "expected TM_ERR_CAPTURING");
  }

  TM_TRY(step(d));                              // the arena learns what a step takes
  TM_TRY(tm_stack_pin(arena));                  // and stays there
  TM_TRY(tm_stream_sync(tm_current_stream()));  // the step has read the tokens: others may be set
  tm_status status = capture(d, &graph);
  printf("captured pinned: %s\n", tm_status_name(status));
  for (int32_t token = 0; status == TM_OK && token < TOKENS; token++) {
    status = decode(d, graph, token * 1000);
  }
  if (graph) {
    (void)cudaGraphExecDestroy(graph);
  }
  TM_TRY(tm_stack_unpin(arena));
  TM_TRY(status);
  printf("%d launches of %d sequences, all as expected\n", TOKENS, SEQUENCES);
  return TM_OK;
}

int main(void) {
  tm_auto_stream stream = tm_stream_create(0, 0);
  tm_auto_allocator pool = tm_cuda_pool_allocator_create(stream, NULL);
  tm_auto_allocator arena = tm_stack_allocator_create(pool, stream, NULL);
  tm_status status = TM_ERR_UNAVAILABLE;
  if (arena) {
    TM_WITH_STREAM(stream)
    TM_WITH_ALLOCATOR(tm_pinned_allocator())
    TM_WITH_ALLOCATOR(arena) {
      decoder d = {0};
      status = decoder_init(&d);
      status = status == TM_OK ? run(arena, &d) : status;
      decoder_release(&d);
    }
  }
  if (status != TM_OK) {
    fprintf(stderr, "%s: %s\n", tm_status_name(status), tm_last_error()->message);
  }
  return status != TM_OK;
}
