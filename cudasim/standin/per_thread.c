// The names that a program refers to when it is compiled for per-thread default streams: stream 0
// of the calls on streams (_ptsz), and the stream of those that have none (_ptds), is the thread's
// own.
//
// They are weak: cudasim's own come first where it has them.
#include "cudasim/include/cuda_runtime_api.h"

#define FUNCTION(name, parameters)                                          \
  __attribute__((weak, visibility("default"))) cudaError_t name parameters; \
  cudaError_t name parameters

static cudaStream_t own(cudaStream_t stream) { return stream ? stream : cudaStreamPerThread; }

// As the call without a stream, in the thread's own.
static cudaError_t finish(cudaError_t error) {
  return error ? error : cudaStreamSynchronize(cudaStreamPerThread);
}

//===-- Calls on streams ----------------------------------------------------------------------===//

FUNCTION(cudaEventRecordWithFlags_ptsz,
         (cudaEvent_t event, cudaStream_t stream, unsigned int flags)) {
  return cudaEventRecordWithFlags(event, own(stream), flags);
}

FUNCTION(cudaEventRecord_ptsz, (cudaEvent_t event, cudaStream_t stream)) {
  return cudaEventRecord(event, own(stream));
}

FUNCTION(cudaFreeAsync_ptsz, (void* devPtr, cudaStream_t hStream)) {
  return cudaFreeAsync(devPtr, own(hStream));
}

FUNCTION(cudaGraphLaunch_ptsz, (cudaGraphExec_t graphExec, cudaStream_t stream)) {
  return cudaGraphLaunch(graphExec, own(stream));
}

FUNCTION(cudaGraphUpload_ptsz, (cudaGraphExec_t graphExec, cudaStream_t stream)) {
  return cudaGraphUpload(graphExec, own(stream));
}

FUNCTION(cudaLaunchHostFunc_ptsz, (cudaStream_t stream, cudaHostFn_t fn, void* userData)) {
  return cudaLaunchHostFunc(own(stream), fn, userData);
}

FUNCTION(cudaLaunchKernel_ptsz, (const void* func, dim3 gridDim, dim3 blockDim, void** args,
                                 size_t sharedMem, cudaStream_t stream)) {
  return cudaLaunchKernel(func, gridDim, blockDim, args, sharedMem, own(stream));
}

FUNCTION(cudaMallocAsync_ptsz, (void** devPtr, size_t size, cudaStream_t hStream)) {
  return cudaMallocAsync(devPtr, size, own(hStream));
}

FUNCTION(cudaMallocFromPoolAsync_ptsz,
         (void** ptr, size_t size, cudaMemPool_t memPool, cudaStream_t stream)) {
  return cudaMallocFromPoolAsync(ptr, size, memPool, own(stream));
}

FUNCTION(cudaMemcpy2DAsync_ptsz,
         (void* dst, size_t dpitch, const void* src, size_t spitch, size_t width, size_t height,
          enum cudaMemcpyKind kind, cudaStream_t stream)) {
  return cudaMemcpy2DAsync(dst, dpitch, src, spitch, width, height, kind, own(stream));
}

FUNCTION(cudaMemcpy3DAsync_ptsz, (const struct cudaMemcpy3DParms* p, cudaStream_t stream)) {
  return cudaMemcpy3DAsync(p, own(stream));
}

FUNCTION(cudaMemcpy3DPeerAsync_ptsz, (const struct cudaMemcpy3DPeerParms* p, cudaStream_t stream)) {
  return cudaMemcpy3DPeerAsync(p, own(stream));
}

FUNCTION(cudaMemcpyAsync_ptsz, (void* dst, const void* src, size_t count, enum cudaMemcpyKind kind,
                                cudaStream_t stream)) {
  return cudaMemcpyAsync(dst, src, count, kind, own(stream));
}

FUNCTION(cudaMemcpyBatchAsync_ptsz,
         (void* const* dsts, const void* const* srcs, const size_t* sizes, size_t count,
          struct cudaMemcpyAttributes* attrs, size_t* attrsIdxs, size_t numAttrs,
          cudaStream_t stream)) {
  return cudaMemcpyBatchAsync(dsts, srcs, sizes, count, attrs, attrsIdxs, numAttrs, own(stream));
}

FUNCTION(cudaMemset2DAsync_ptsz, (void* devPtr, size_t pitch, int value, size_t width,
                                  size_t height, cudaStream_t stream)) {
  return cudaMemset2DAsync(devPtr, pitch, value, width, height, own(stream));
}

FUNCTION(cudaMemset3DAsync_ptsz, (struct cudaPitchedPtr pitchedDevPtr, int value,
                                  struct cudaExtent extent, cudaStream_t stream)) {
  return cudaMemset3DAsync(pitchedDevPtr, value, extent, own(stream));
}

FUNCTION(cudaMemsetAsync_ptsz, (void* devPtr, int value, size_t count, cudaStream_t stream)) {
  return cudaMemsetAsync(devPtr, value, count, own(stream));
}

FUNCTION(cudaStreamBeginCapture_ptsz, (cudaStream_t stream, enum cudaStreamCaptureMode mode)) {
  return cudaStreamBeginCapture(own(stream), mode);
}

FUNCTION(cudaStreamEndCapture_ptsz, (cudaStream_t stream, cudaGraph_t* pGraph)) {
  return cudaStreamEndCapture(own(stream), pGraph);
}

FUNCTION(cudaStreamGetCaptureInfo_ptsz,
         (cudaStream_t stream, enum cudaStreamCaptureStatus* captureStatus_out,
          unsigned long long* id_out, cudaGraph_t* graph_out,
          const cudaGraphNode_t** dependencies_out, const cudaGraphEdgeData** edgeData_out,
          size_t* numDependencies_out)) {
  return cudaStreamGetCaptureInfo(own(stream), captureStatus_out, id_out, graph_out,
                                  dependencies_out, edgeData_out, numDependencies_out);
}

FUNCTION(cudaStreamGetDevice_ptsz, (cudaStream_t hStream, int* device)) {
  return cudaStreamGetDevice(own(hStream), device);
}

FUNCTION(cudaStreamGetFlags_ptsz, (cudaStream_t hStream, unsigned int* flags)) {
  return cudaStreamGetFlags(own(hStream), flags);
}

FUNCTION(cudaStreamGetId_ptsz, (cudaStream_t hStream, unsigned long long* streamId)) {
  return cudaStreamGetId(own(hStream), streamId);
}

FUNCTION(cudaStreamGetPriority_ptsz, (cudaStream_t hStream, int* priority)) {
  return cudaStreamGetPriority(own(hStream), priority);
}

FUNCTION(cudaStreamIsCapturing_ptsz,
         (cudaStream_t stream, enum cudaStreamCaptureStatus* pCaptureStatus)) {
  return cudaStreamIsCapturing(own(stream), pCaptureStatus);
}

FUNCTION(cudaStreamQuery_ptsz, (cudaStream_t stream)) { return cudaStreamQuery(own(stream)); }

FUNCTION(cudaStreamSynchronize_ptsz, (cudaStream_t stream)) {
  return cudaStreamSynchronize(own(stream));
}

FUNCTION(cudaStreamWaitEvent_ptsz, (cudaStream_t stream, cudaEvent_t event, unsigned int flags)) {
  return cudaStreamWaitEvent(own(stream), event, flags);
}

//===-- Calls without a stream ----------------------------------------------------------------===//

FUNCTION(cudaMemcpy2D_ptds, (void* dst, size_t dpitch, const void* src, size_t spitch, size_t width,
                             size_t height, enum cudaMemcpyKind kind)) {
  return finish(
      cudaMemcpy2DAsync(dst, dpitch, src, spitch, width, height, kind, cudaStreamPerThread));
}

FUNCTION(cudaMemcpy3DPeer_ptds, (const struct cudaMemcpy3DPeerParms* p)) {
  return finish(cudaMemcpy3DPeerAsync(p, cudaStreamPerThread));
}

FUNCTION(cudaMemcpy3D_ptds, (const struct cudaMemcpy3DParms* p)) {
  return finish(cudaMemcpy3DAsync(p, cudaStreamPerThread));
}

FUNCTION(cudaMemcpy_ptds, (void* dst, const void* src, size_t count, enum cudaMemcpyKind kind)) {
  return finish(cudaMemcpyAsync(dst, src, count, kind, cudaStreamPerThread));
}

FUNCTION(cudaMemset2D_ptds, (void* devPtr, size_t pitch, int value, size_t width, size_t height)) {
  return cudaMemset2DAsync(devPtr, pitch, value, width, height, cudaStreamPerThread);
}

FUNCTION(cudaMemset3D_ptds,
         (struct cudaPitchedPtr pitchedDevPtr, int value, struct cudaExtent extent)) {
  return cudaMemset3DAsync(pitchedDevPtr, value, extent, cudaStreamPerThread);
}

FUNCTION(cudaMemset_ptds, (void* devPtr, int value, size_t count)) {
  return cudaMemsetAsync(devPtr, value, count, cudaStreamPerThread);
}
