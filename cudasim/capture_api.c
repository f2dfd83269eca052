// The calls that capture streams.

#include <stddef.h>

#include "cudasim/capture.h"
#include "cudasim/device.h"
#include "cudasim/runtime.h"
#include "cudasim/slab.h"

static stream* usable(device* current, cudaStream_t handle, cudaError_t* error) {
  stream* s = sim_stream_of(current, handle, error);
  if (s) *error = s->device->broken;
  return *error ? NULL : s;
}

static cudaError_t begin(device* current, cudaStream_t handle, enum cudaStreamCaptureMode mode) {
  cudaError_t error;
  stream* s = usable(current, handle, &error);
  return s ? sim_capture_begin(s, mode) : error;
}

static cudaError_t end(device* current, cudaStream_t handle, cudaGraph_t* out) {
  if (out) *out = NULL;
  cudaError_t error;
  stream* s = sim_stream_of(current, handle, &error);
  return s ? sim_capture_end(s, out) : error;
}

//===-- Questions -----------------------------------------------------------------------------===//

// The stream to ask about; unlike other uses, asking about the legacy one breaks no capture.
static const stream* asked_of(device* current, cudaStream_t handle, cudaError_t* error) {
  bool is_legacy = !handle || handle == cudaStreamLegacy;
  *error = is_legacy ? sim_capture_check_legacy(current, false) : cudaSuccess;
  return *error ? NULL : usable(current, handle, error);
}

static enum cudaStreamCaptureStatus status_of(const stream* s) {
  if (!s->branch) return cudaStreamCaptureStatusNone;
  return s->branch->capture->is_invalid ? cudaStreamCaptureStatusInvalidated
                                        : cudaStreamCaptureStatusActive;
}

static cudaError_t get_status(device* current, cudaStream_t handle,
                              enum cudaStreamCaptureStatus* out) {
  cudaError_t error;
  const stream* s = asked_of(current, handle, &error);
  if (!s) return error;
  if (!out) return cudaErrorInvalidValue;
  *out = status_of(s);
  return cudaSuccess;
}

// The handles of the tips, in memory of the branch's that lasts until the next such question.
static cudaError_t get_tips(branch* b, const cudaGraphNode_t** out) {
  sim_bookkeeping_free(b->handles);
  b->handles = NULL;
  *out = NULL;
  if (!b->tips.count) return cudaSuccess;
  b->handles = sim_bookkeeping_alloc(b->tips.count * sizeof(cudaGraphNode_t));
  if (!b->handles) return cudaErrorMemoryAllocation;
  for (uint32_t i = 0; i < b->tips.count; ++i) {
    b->handles[i] = b->capture->graph->nodes[b->tips.nodes[i]]->handle;
  }
  *out = b->handles;
  return cudaSuccess;
}

typedef struct info {
  enum cudaStreamCaptureStatus* status;
  unsigned long long* id;
  cudaGraph_t* graph;
  const cudaGraphNode_t** tips;
  const cudaGraphEdgeData** edges;
  size_t* count;
} info;

// Only the status is written where there is no active capture.
static cudaError_t get_info(device* current, cudaStream_t handle, const info* out) {
  cudaError_t error;
  const stream* s = asked_of(current, handle, &error);
  if (!s) return error;
  if (!out->status) return cudaErrorInvalidValue;
  *out->status = status_of(s);
  if (*out->status != cudaStreamCaptureStatusActive) return cudaSuccess;
  branch* b = s->branch;
  if (out->id) *out->id = b->capture->id;
  if (out->graph) *out->graph = b->capture->graph->handle;
  if (out->edges) *out->edges = NULL;  // all edges are plain
  if (out->count) *out->count = b->tips.count;
  return out->tips ? get_tips(b, out->tips) : cudaSuccess;
}

static cudaError_t exchange_mode(enum cudaStreamCaptureMode* mode) {
  if (!mode || *mode > cudaStreamCaptureModeRelaxed) return cudaErrorInvalidValue;
  enum cudaStreamCaptureMode before = sim_thread()->capture_mode;
  sim_thread()->capture_mode = *mode;
  *mode = before;
  return cudaSuccess;
}

//===-- The API -------------------------------------------------------------------------------===//

cudaError_t cudaStreamBeginCapture(cudaStream_t hStream, enum cudaStreamCaptureMode mode) {
  CALL(cudaStreamBeginCapture, begin(frame.device, hStream, mode));
}

cudaError_t cudaStreamEndCapture(cudaStream_t hStream, cudaGraph_t* pGraph) {
  CALL(cudaStreamEndCapture, end(frame.device, hStream, pGraph));
}

cudaError_t cudaStreamIsCapturing(cudaStream_t hStream,
                                  enum cudaStreamCaptureStatus* pCaptureStatus) {
  CALL(cudaStreamIsCapturing, get_status(frame.device, hStream, pCaptureStatus));
}

// NOLINTBEGIN(readability-non-const-parameter): clang-tidy misses writes through `info`
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t hStream,
                                     enum cudaStreamCaptureStatus* captureStatus_out,
                                     unsigned long long* id_out, cudaGraph_t* graph_out,
                                     const cudaGraphNode_t** dependencies_out,
                                     const cudaGraphEdgeData** edgeData_out,
                                     size_t* numDependencies_out) {
  info out = {captureStatus_out, id_out,       graph_out,
              dependencies_out,  edgeData_out, numDependencies_out};
  CALL(cudaStreamGetCaptureInfo, get_info(frame.device, hStream, &out));
}
// NOLINTEND(readability-non-const-parameter)

cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode* mode) {
  PLAIN_CALL(cudaThreadExchangeStreamCaptureMode, exchange_mode(mode));
}
