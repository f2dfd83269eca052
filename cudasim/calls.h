// The functions of the API, for what is done by function: faults.
#ifndef CUDASIM_CALLS_H_
#define CUDASIM_CALLS_H_

#define CUDASIM_CALLS(X)                 \
  X(cudaRuntimeGetVersion)               \
  X(cudaDriverGetVersion)                \
  X(cudaGetDeviceCount)                  \
  X(cudaSetDevice)                       \
  X(cudaGetDevice)                       \
  X(cudaInitDevice)                      \
  X(cudaDeviceSynchronize)               \
  X(cudaDeviceReset)                     \
  X(cudaDeviceGetAttribute)              \
  X(cudaGetDeviceProperties)             \
  X(cudaMemGetInfo)                      \
  X(cudaDeviceGetStreamPriorityRange)    \
  X(cudaDeviceCanAccessPeer)             \
  X(cudaDeviceEnablePeerAccess)          \
  X(cudaDeviceDisablePeerAccess)         \
  X(cudaStreamCreate)                    \
  X(cudaStreamCreateWithFlags)           \
  X(cudaStreamCreateWithPriority)        \
  X(cudaStreamDestroy)                   \
  X(cudaStreamQuery)                     \
  X(cudaStreamSynchronize)               \
  X(cudaStreamWaitEvent)                 \
  X(cudaStreamGetPriority)               \
  X(cudaStreamGetFlags)                  \
  X(cudaStreamGetId)                     \
  X(cudaStreamGetDevice)                 \
  X(cudaLaunchHostFunc)                  \
  X(cudaLaunchKernel)                    \
  X(cudaStreamBeginCapture)              \
  X(cudaStreamEndCapture)                \
  X(cudaStreamIsCapturing)               \
  X(cudaStreamGetCaptureInfo)            \
  X(cudaThreadExchangeStreamCaptureMode) \
  X(cudaGraphCreate)                     \
  X(cudaGraphDestroy)                    \
  X(cudaGraphGetNodes)                   \
  X(cudaGraphGetRootNodes)               \
  X(cudaGraphNodeGetType)                \
  X(cudaGraphNodeGetDependencies)        \
  X(cudaGraphInstantiate)                \
  X(cudaGraphUpload)                     \
  X(cudaGraphLaunch)                     \
  X(cudaGraphExecDestroy)                \
  X(cudaDeviceGraphMemTrim)              \
  X(cudaDeviceGetGraphMemAttribute)      \
  X(cudaDeviceSetGraphMemAttribute)      \
  X(cudaEventCreate)                     \
  X(cudaEventCreateWithFlags)            \
  X(cudaEventRecord)                     \
  X(cudaEventRecordWithFlags)            \
  X(cudaEventQuery)                      \
  X(cudaEventSynchronize)                \
  X(cudaEventDestroy)                    \
  X(cudaEventElapsedTime)                \
  X(cudaMalloc)                          \
  X(cudaMallocPitch)                     \
  X(cudaMalloc3D)                        \
  X(cudaFree)                            \
  X(cudaMallocAsync)                     \
  X(cudaMallocFromPoolAsync)             \
  X(cudaFreeAsync)                       \
  X(cudaDeviceGetDefaultMemPool)         \
  X(cudaDeviceGetMemPool)                \
  X(cudaDeviceSetMemPool)                \
  X(cudaMemGetDefaultMemPool)            \
  X(cudaMemGetMemPool)                   \
  X(cudaMemSetMemPool)                   \
  X(cudaMemPoolCreate)                   \
  X(cudaMemPoolDestroy)                  \
  X(cudaMemPoolTrimTo)                   \
  X(cudaMemPoolSetAttribute)             \
  X(cudaMemPoolGetAttribute)             \
  X(cudaMemPoolSetAccess)                \
  X(cudaMemPoolGetAccess)                \
  X(cudaMallocHost)                      \
  X(cudaHostAlloc)                       \
  X(cudaFreeHost)                        \
  X(cudaHostRegister)                    \
  X(cudaHostUnregister)                  \
  X(cudaHostGetDevicePointer)            \
  X(cudaHostGetFlags)                    \
  X(cudaPointerGetAttributes)            \
  X(cudaMemcpy)                          \
  X(cudaMemcpyAsync)                     \
  X(cudaMemcpy2D)                        \
  X(cudaMemcpy2DAsync)                   \
  X(cudaMemcpy3D)                        \
  X(cudaMemcpy3DAsync)                   \
  X(cudaMemcpyPeer)                      \
  X(cudaMemcpyPeerAsync)                 \
  X(cudaMemcpy3DPeer)                    \
  X(cudaMemcpy3DPeerAsync)               \
  X(cudaMemcpyBatchAsync)                \
  X(cudaMemset)                          \
  X(cudaMemsetAsync)                     \
  X(cudaMemset2D)                        \
  X(cudaMemset2DAsync)                   \
  X(cudaMemset3D)                        \
  X(cudaMemset3DAsync)

typedef enum call_id {
#define CALL_ID_(function) CALL_##function,
  CUDASIM_CALLS(CALL_ID_)
#undef CALL_ID_
      CALL_COUNT
} call_id;

#endif  // CUDASIM_CALLS_H_
