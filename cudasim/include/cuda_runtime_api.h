// The part of the CUDA runtime API, version 13.0, that cudasim implements on the CPU.
//
// Signatures and names are the toolkit's, and so is what each call does, unless docs/cudasim.md
// says otherwise. What is not declared here does not exist in cudasim. A program links either
// cudasim or the real runtime: both define the same symbols.
#ifndef CUDASIM_CUDA_RUNTIME_API_H_
#define CUDASIM_CUDA_RUNTIME_API_H_

// The names of parameters and fields are CUDA's.
// NOLINTBEGIN(readability-identifier-naming)

#include "driver_functions.h"
#include "driver_types.h"

#define CUDART_VERSION 13000
#define CUDARTAPI

#if defined(CUDA_API_PER_THREAD_DEFAULT_STREAM) || defined(__CUDA_API_PER_THREAD_DEFAULT_STREAM)
#error "cudasim: stream 0 is always the legacy stream; name cudaStreamPerThread where it is meant"
#endif

#define CUDASIM_EXPORT_ extern __attribute__((visibility("default")))

#ifdef __cplusplus
#define CUDASIM_DEFAULT_(value) = value
extern "C" {
#else
#define CUDASIM_DEFAULT_(value)
#endif

//===-- Errors --------------------------------------------------------------------------------===//

// Each thread has its own last error. cudaErrorNotReady is an answer and is not recorded.

CUDASIM_EXPORT_ cudaError_t cudaGetLastError(void);
CUDASIM_EXPORT_ cudaError_t cudaPeekAtLastError(void);
CUDASIM_EXPORT_ const char* cudaGetErrorName(cudaError_t error);
CUDASIM_EXPORT_ const char* cudaGetErrorString(cudaError_t error);

//===-- Devices -------------------------------------------------------------------------------===//

CUDASIM_EXPORT_ cudaError_t cudaRuntimeGetVersion(int* runtimeVersion);
CUDASIM_EXPORT_ cudaError_t cudaDriverGetVersion(int* driverVersion);
CUDASIM_EXPORT_ cudaError_t cudaGetDeviceCount(int* count);
CUDASIM_EXPORT_ cudaError_t cudaSetDevice(int device);
CUDASIM_EXPORT_ cudaError_t cudaGetDevice(int* device);
CUDASIM_EXPORT_ cudaError_t cudaInitDevice(int device, unsigned int deviceFlags,
                                           unsigned int flags);
CUDASIM_EXPORT_ cudaError_t cudaDeviceSynchronize(void);
CUDASIM_EXPORT_ cudaError_t cudaDeviceReset(void);
CUDASIM_EXPORT_ cudaError_t cudaDeviceGetAttribute(int* value, enum cudaDeviceAttr attr,
                                                   int device);
CUDASIM_EXPORT_ cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp* prop, int device);
CUDASIM_EXPORT_ cudaError_t cudaMemGetInfo(size_t* free, size_t* total);
CUDASIM_EXPORT_ cudaError_t cudaDeviceGetStreamPriorityRange(int* leastPriority,
                                                             int* greatestPriority);
CUDASIM_EXPORT_ cudaError_t cudaDeviceCanAccessPeer(int* canAccessPeer, int device, int peerDevice);
CUDASIM_EXPORT_ cudaError_t cudaDeviceEnablePeerAccess(int peerDevice, unsigned int flags);
CUDASIM_EXPORT_ cudaError_t cudaDeviceDisablePeerAccess(int peerDevice);

//===-- Streams -------------------------------------------------------------------------------===//

CUDASIM_EXPORT_ cudaError_t cudaStreamCreate(cudaStream_t* pStream);
CUDASIM_EXPORT_ cudaError_t cudaStreamCreateWithFlags(cudaStream_t* pStream, unsigned int flags);
CUDASIM_EXPORT_ cudaError_t cudaStreamCreateWithPriority(cudaStream_t* pStream, unsigned int flags,
                                                         int priority);
CUDASIM_EXPORT_ cudaError_t cudaStreamDestroy(cudaStream_t stream);
CUDASIM_EXPORT_ cudaError_t cudaStreamQuery(cudaStream_t stream);
CUDASIM_EXPORT_ cudaError_t cudaStreamSynchronize(cudaStream_t stream);
CUDASIM_EXPORT_ cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event,
                                                unsigned int flags CUDASIM_DEFAULT_(0));
CUDASIM_EXPORT_ cudaError_t cudaStreamGetPriority(cudaStream_t hStream, int* priority);
CUDASIM_EXPORT_ cudaError_t cudaStreamGetFlags(cudaStream_t hStream, unsigned int* flags);
CUDASIM_EXPORT_ cudaError_t cudaStreamGetId(cudaStream_t hStream, unsigned long long* streamId);
CUDASIM_EXPORT_ cudaError_t cudaStreamGetDevice(cudaStream_t hStream, int* device);
CUDASIM_EXPORT_ cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t fn,
                                               void* userData);

// Runs a kernel: in cudasim, the host function registered for it (cudasim_register_kernel).
CUDASIM_EXPORT_ cudaError_t cudaLaunchKernel(const void* func, dim3 gridDim, dim3 blockDim,
                                             void** args, size_t sharedMem, cudaStream_t stream);

//===-- Stream capture ------------------------------------------------------------------------===//

CUDASIM_EXPORT_ cudaError_t cudaStreamBeginCapture(cudaStream_t stream,
                                                   enum cudaStreamCaptureMode mode);
CUDASIM_EXPORT_ cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* pGraph);
CUDASIM_EXPORT_ cudaError_t cudaStreamIsCapturing(cudaStream_t stream,
                                                  enum cudaStreamCaptureStatus* pCaptureStatus);
CUDASIM_EXPORT_ cudaError_t cudaStreamGetCaptureInfo(
    cudaStream_t stream, enum cudaStreamCaptureStatus* captureStatus_out,
    unsigned long long* id_out CUDASIM_DEFAULT_(0), cudaGraph_t* graph_out CUDASIM_DEFAULT_(0),
    const cudaGraphNode_t** dependencies_out CUDASIM_DEFAULT_(0),
    const cudaGraphEdgeData** edgeData_out CUDASIM_DEFAULT_(0),
    size_t* numDependencies_out CUDASIM_DEFAULT_(0));
CUDASIM_EXPORT_ cudaError_t cudaStreamUpdateCaptureDependencies(
    cudaStream_t stream, cudaGraphNode_t* dependencies, const cudaGraphEdgeData* dependencyData,
    size_t numDependencies, unsigned int flags CUDASIM_DEFAULT_(0));
// The calling thread's capture mode, first cudaStreamCaptureModeGlobal: `*mode` becomes it, and it
// `*mode`.
CUDASIM_EXPORT_ cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode* mode);

//===-- Graphs --------------------------------------------------------------------------------===//

CUDASIM_EXPORT_ cudaError_t cudaGraphCreate(cudaGraph_t* pGraph, unsigned int flags);
CUDASIM_EXPORT_ cudaError_t cudaGraphDestroy(cudaGraph_t graph);
CUDASIM_EXPORT_ cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes,
                                              size_t* numNodes);
CUDASIM_EXPORT_ cudaError_t cudaGraphGetRootNodes(cudaGraph_t graph, cudaGraphNode_t* pRootNodes,
                                                  size_t* pNumRootNodes);
CUDASIM_EXPORT_ cudaError_t cudaGraphNodeGetType(cudaGraphNode_t node,
                                                 enum cudaGraphNodeType* pType);
CUDASIM_EXPORT_ cudaError_t cudaGraphNodeGetDependencies(cudaGraphNode_t node,
                                                         cudaGraphNode_t* pDependencies,
                                                         cudaGraphEdgeData* edgeData,
                                                         size_t* pNumDependencies);

// A node that does what the parameters say after the nodes given, which `graph` has. In cudasim
// they cannot be told later.
CUDASIM_EXPORT_ cudaError_t cudaGraphAddEmptyNode(cudaGraphNode_t* pGraphNode, cudaGraph_t graph,
                                                  const cudaGraphNode_t* pDependencies,
                                                  size_t numDependencies);
CUDASIM_EXPORT_ cudaError_t cudaGraphAddHostNode(cudaGraphNode_t* pGraphNode, cudaGraph_t graph,
                                                 const cudaGraphNode_t* pDependencies,
                                                 size_t numDependencies,
                                                 const struct cudaHostNodeParams* pNodeParams);
CUDASIM_EXPORT_ cudaError_t cudaGraphAddKernelNode(cudaGraphNode_t* pGraphNode, cudaGraph_t graph,
                                                   const cudaGraphNode_t* pDependencies,
                                                   size_t numDependencies,
                                                   const struct cudaKernelNodeParams* pNodeParams);
CUDASIM_EXPORT_ cudaError_t cudaGraphAddMemcpyNode(cudaGraphNode_t* pGraphNode, cudaGraph_t graph,
                                                   const cudaGraphNode_t* pDependencies,
                                                   size_t numDependencies,
                                                   const struct cudaMemcpy3DParms* pCopyParams);
CUDASIM_EXPORT_ cudaError_t cudaGraphAddMemcpyNode1D(cudaGraphNode_t* pGraphNode, cudaGraph_t graph,
                                                     const cudaGraphNode_t* pDependencies,
                                                     size_t numDependencies, void* dst,
                                                     const void* src, size_t count,
                                                     enum cudaMemcpyKind kind);
CUDASIM_EXPORT_ cudaError_t cudaGraphAddMemsetNode(cudaGraphNode_t* pGraphNode, cudaGraph_t graph,
                                                   const cudaGraphNode_t* pDependencies,
                                                   size_t numDependencies,
                                                   const struct cudaMemsetParams* pMemsetParams);
CUDASIM_EXPORT_ cudaError_t cudaGraphAddEventRecordNode(cudaGraphNode_t* pGraphNode,
                                                        cudaGraph_t graph,
                                                        const cudaGraphNode_t* pDependencies,
                                                        size_t numDependencies, cudaEvent_t event);
CUDASIM_EXPORT_ cudaError_t cudaGraphAddEventWaitNode(cudaGraphNode_t* pGraphNode,
                                                      cudaGraph_t graph,
                                                      const cudaGraphNode_t* pDependencies,
                                                      size_t numDependencies, cudaEvent_t event);
CUDASIM_EXPORT_ cudaError_t cudaGraphAddMemAllocNode(cudaGraphNode_t* pGraphNode, cudaGraph_t graph,
                                                     const cudaGraphNode_t* pDependencies,
                                                     size_t numDependencies,
                                                     struct cudaMemAllocNodeParams* nodeParams);
CUDASIM_EXPORT_ cudaError_t cudaGraphAddMemFreeNode(cudaGraphNode_t* pGraphNode, cudaGraph_t graph,
                                                    const cudaGraphNode_t* pDependencies,
                                                    size_t numDependencies, void* dptr);
CUDASIM_EXPORT_ cudaError_t cudaGraphGetEdges(cudaGraph_t graph, cudaGraphNode_t* from,
                                              cudaGraphNode_t* to, cudaGraphEdgeData* edgeData,
                                              size_t* numEdges);
CUDASIM_EXPORT_ cudaError_t cudaGraphClone(cudaGraph_t* pGraphClone, cudaGraph_t originalGraph);

CUDASIM_EXPORT_ cudaError_t cudaGraphInstantiate(cudaGraphExec_t* pGraphExec, cudaGraph_t graph,
                                                 unsigned long long flags CUDASIM_DEFAULT_(0));
CUDASIM_EXPORT_ cudaError_t cudaGraphUpload(cudaGraphExec_t graphExec, cudaStream_t stream);
CUDASIM_EXPORT_ cudaError_t cudaGraphLaunch(cudaGraphExec_t graphExec, cudaStream_t stream);
CUDASIM_EXPORT_ cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graphExec);
CUDASIM_EXPORT_ cudaError_t cudaDeviceGraphMemTrim(int device);
CUDASIM_EXPORT_ cudaError_t cudaDeviceGetGraphMemAttribute(int device,
                                                           enum cudaGraphMemAttributeType attr,
                                                           void* value);
CUDASIM_EXPORT_ cudaError_t cudaDeviceSetGraphMemAttribute(int device,
                                                           enum cudaGraphMemAttributeType attr,
                                                           void* value);

//===-- Events --------------------------------------------------------------------------------===//

CUDASIM_EXPORT_ cudaError_t cudaEventCreate(cudaEvent_t* event);
CUDASIM_EXPORT_ cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned int flags);
CUDASIM_EXPORT_ cudaError_t cudaEventRecord(cudaEvent_t event,
                                            cudaStream_t stream CUDASIM_DEFAULT_(0));
CUDASIM_EXPORT_ cudaError_t cudaEventRecordWithFlags(cudaEvent_t event,
                                                     cudaStream_t stream CUDASIM_DEFAULT_(0),
                                                     unsigned int flags CUDASIM_DEFAULT_(0));
CUDASIM_EXPORT_ cudaError_t cudaEventQuery(cudaEvent_t event);
CUDASIM_EXPORT_ cudaError_t cudaEventSynchronize(cudaEvent_t event);
CUDASIM_EXPORT_ cudaError_t cudaEventDestroy(cudaEvent_t event);
CUDASIM_EXPORT_ cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t start, cudaEvent_t end);

//===-- Device memory -------------------------------------------------------------------------===//

CUDASIM_EXPORT_ cudaError_t cudaMalloc(void** devPtr, size_t size);
CUDASIM_EXPORT_ cudaError_t cudaMallocPitch(void** devPtr, size_t* pitch, size_t width,
                                            size_t height);
CUDASIM_EXPORT_ cudaError_t cudaMalloc3D(struct cudaPitchedPtr* pitchedDevPtr,
                                         struct cudaExtent extent);
CUDASIM_EXPORT_ cudaError_t cudaFree(void* devPtr);

//===-- Stream-ordered memory -----------------------------------------------------------------===//

CUDASIM_EXPORT_ cudaError_t cudaMallocAsync(void** devPtr, size_t size, cudaStream_t hStream);
CUDASIM_EXPORT_ cudaError_t cudaMallocFromPoolAsync(void** ptr, size_t size, cudaMemPool_t memPool,
                                                    cudaStream_t stream);
CUDASIM_EXPORT_ cudaError_t cudaFreeAsync(void* devPtr, cudaStream_t hStream);
CUDASIM_EXPORT_ cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* memPool, int device);
CUDASIM_EXPORT_ cudaError_t cudaDeviceGetMemPool(cudaMemPool_t* memPool, int device);
CUDASIM_EXPORT_ cudaError_t cudaDeviceSetMemPool(int device, cudaMemPool_t memPool);
CUDASIM_EXPORT_ cudaError_t cudaMemGetDefaultMemPool(cudaMemPool_t* memPool,
                                                     struct cudaMemLocation* location,
                                                     enum cudaMemAllocationType type);
CUDASIM_EXPORT_ cudaError_t cudaMemGetMemPool(cudaMemPool_t* memPool,
                                              struct cudaMemLocation* location,
                                              enum cudaMemAllocationType type);
CUDASIM_EXPORT_ cudaError_t cudaMemSetMemPool(struct cudaMemLocation* location,
                                              enum cudaMemAllocationType type,
                                              cudaMemPool_t memPool);
CUDASIM_EXPORT_ cudaError_t cudaMemPoolCreate(cudaMemPool_t* memPool,
                                              const struct cudaMemPoolProps* poolProps);
CUDASIM_EXPORT_ cudaError_t cudaMemPoolDestroy(cudaMemPool_t memPool);
CUDASIM_EXPORT_ cudaError_t cudaMemPoolTrimTo(cudaMemPool_t memPool, size_t minBytesToKeep);
CUDASIM_EXPORT_ cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t memPool,
                                                    enum cudaMemPoolAttr attr, void* value);
CUDASIM_EXPORT_ cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t memPool,
                                                    enum cudaMemPoolAttr attr, void* value);
CUDASIM_EXPORT_ cudaError_t cudaMemPoolSetAccess(cudaMemPool_t memPool,
                                                 const struct cudaMemAccessDesc* descList,
                                                 size_t count);
CUDASIM_EXPORT_ cudaError_t cudaMemPoolGetAccess(enum cudaMemAccessFlags* flags,
                                                 cudaMemPool_t memPool,
                                                 struct cudaMemLocation* location);

//===-- Host memory ---------------------------------------------------------------------------===//

CUDASIM_EXPORT_ cudaError_t cudaMallocHost(void** ptr, size_t size);
CUDASIM_EXPORT_ cudaError_t cudaHostAlloc(void** pHost, size_t size, unsigned int flags);
CUDASIM_EXPORT_ cudaError_t cudaFreeHost(void* ptr);
CUDASIM_EXPORT_ cudaError_t cudaHostRegister(void* ptr, size_t size, unsigned int flags);
CUDASIM_EXPORT_ cudaError_t cudaHostUnregister(void* ptr);
CUDASIM_EXPORT_ cudaError_t cudaHostGetDevicePointer(void** pDevice, void* pHost,
                                                     unsigned int flags);
CUDASIM_EXPORT_ cudaError_t cudaHostGetFlags(unsigned int* pFlags, void* pHost);
CUDASIM_EXPORT_ cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes* attributes,
                                                     const void* ptr);

//===-- Copies --------------------------------------------------------------------------------===//

CUDASIM_EXPORT_ cudaError_t cudaMemcpy(void* dst, const void* src, size_t count,
                                       enum cudaMemcpyKind kind);
CUDASIM_EXPORT_ cudaError_t cudaMemcpyAsync(void* dst, const void* src, size_t count,
                                            enum cudaMemcpyKind kind,
                                            cudaStream_t stream CUDASIM_DEFAULT_(0));
CUDASIM_EXPORT_ cudaError_t cudaMemcpy2D(void* dst, size_t dpitch, const void* src, size_t spitch,
                                         size_t width, size_t height, enum cudaMemcpyKind kind);
CUDASIM_EXPORT_ cudaError_t cudaMemcpy2DAsync(void* dst, size_t dpitch, const void* src,
                                              size_t spitch, size_t width, size_t height,
                                              enum cudaMemcpyKind kind,
                                              cudaStream_t stream CUDASIM_DEFAULT_(0));
CUDASIM_EXPORT_ cudaError_t cudaMemcpy3D(const struct cudaMemcpy3DParms* p);
CUDASIM_EXPORT_ cudaError_t cudaMemcpy3DAsync(const struct cudaMemcpy3DParms* p,
                                              cudaStream_t stream CUDASIM_DEFAULT_(0));
CUDASIM_EXPORT_ cudaError_t cudaMemcpyPeer(void* dst, int dstDevice, const void* src, int srcDevice,
                                           size_t count);
CUDASIM_EXPORT_ cudaError_t cudaMemcpyPeerAsync(void* dst, int dstDevice, const void* src,
                                                int srcDevice, size_t count,
                                                cudaStream_t stream CUDASIM_DEFAULT_(0));
CUDASIM_EXPORT_ cudaError_t cudaMemcpy3DPeer(const struct cudaMemcpy3DPeerParms* p);
CUDASIM_EXPORT_ cudaError_t cudaMemcpy3DPeerAsync(const struct cudaMemcpy3DPeerParms* p,
                                                  cudaStream_t stream CUDASIM_DEFAULT_(0));
CUDASIM_EXPORT_ cudaError_t cudaMemcpyBatchAsync(void* const* dsts, const void* const* srcs,
                                                 const size_t* sizes, size_t count,
                                                 struct cudaMemcpyAttributes* attrs,
                                                 size_t* attrsIdxs, size_t numAttrs,
                                                 cudaStream_t stream);

//===-- Fills ---------------------------------------------------------------------------------===//

CUDASIM_EXPORT_ cudaError_t cudaMemset(void* devPtr, int value, size_t count);
CUDASIM_EXPORT_ cudaError_t cudaMemsetAsync(void* devPtr, int value, size_t count,
                                            cudaStream_t stream CUDASIM_DEFAULT_(0));
CUDASIM_EXPORT_ cudaError_t cudaMemset2D(void* devPtr, size_t pitch, int value, size_t width,
                                         size_t height);
CUDASIM_EXPORT_ cudaError_t cudaMemset2DAsync(void* devPtr, size_t pitch, int value, size_t width,
                                              size_t height,
                                              cudaStream_t stream CUDASIM_DEFAULT_(0));
CUDASIM_EXPORT_ cudaError_t cudaMemset3D(struct cudaPitchedPtr pitchedDevPtr, int value,
                                         struct cudaExtent extent);
CUDASIM_EXPORT_ cudaError_t cudaMemset3DAsync(struct cudaPitchedPtr pitchedDevPtr, int value,
                                              struct cudaExtent extent,
                                              cudaStream_t stream CUDASIM_DEFAULT_(0));

#ifdef __cplusplus
}
#endif

// NOLINTEND(readability-identifier-naming)

#endif  // CUDASIM_CUDA_RUNTIME_API_H_
