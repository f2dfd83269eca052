// Names and descriptions of error codes.

#include "cudasim/error.h"

typedef struct description {
  cudaError_t code;
  const char* name;
  const char* text;
} description;

#define DESCRIBE(code, text) \
  { code, #code, text }

static const description descriptions[] = {
    DESCRIBE(cudaSuccess, "no error"),
    DESCRIBE(cudaErrorInvalidValue, "invalid argument"),
    DESCRIBE(cudaErrorMemoryAllocation, "out of memory"),
    DESCRIBE(cudaErrorInitializationError, "initialization error"),
    DESCRIBE(cudaErrorCudartUnloading, "driver shutting down"),
    DESCRIBE(cudaErrorProfilerDisabled, "profiling is taken by another tool"),
    DESCRIBE(cudaErrorProfilerNotInitialized, "profiler was not initialized"),
    DESCRIBE(cudaErrorProfilerAlreadyStarted, "profiler runs already"),
    DESCRIBE(cudaErrorProfilerAlreadyStopped, "profiler is stopped already"),
    DESCRIBE(cudaErrorInvalidConfiguration, "invalid launch configuration"),
    DESCRIBE(cudaErrorInvalidPitchValue, "invalid pitch argument"),
    DESCRIBE(cudaErrorInvalidSymbol, "invalid device symbol"),
    DESCRIBE(cudaErrorInvalidHostPointer, "invalid host pointer"),
    DESCRIBE(cudaErrorInvalidDevicePointer, "invalid device pointer"),
    DESCRIBE(cudaErrorInvalidTexture, "invalid texture"),
    DESCRIBE(cudaErrorInvalidTextureBinding, "invalid texture binding"),
    DESCRIBE(cudaErrorInvalidChannelDescriptor, "invalid channel descriptor"),
    DESCRIBE(cudaErrorInvalidMemcpyDirection, "invalid copy direction"),
    DESCRIBE(cudaErrorAddressOfConstant, "address of a constant was taken"),
    DESCRIBE(cudaErrorTextureFetchFailed, "texture fetch failed"),
    DESCRIBE(cudaErrorTextureNotBound, "texture is not bound"),
    DESCRIBE(cudaErrorSynchronizationError, "synchronization of threads failed"),
    DESCRIBE(cudaErrorInvalidFilterSetting, "texture filter does not fit its type"),
    DESCRIBE(cudaErrorInvalidNormSetting, "texture normalization does not fit its type"),
    DESCRIBE(cudaErrorMixedDeviceExecution, "device and emulated execution were mixed"),
    DESCRIBE(cudaErrorNotYetImplemented, "not implemented"),
    DESCRIBE(cudaErrorMemoryValueTooLarge, "memory value does not fit in 32 bits"),
    DESCRIBE(cudaErrorStubLibrary, "driver is a stub library"),
    DESCRIBE(cudaErrorInsufficientDriver, "driver is older than the runtime needs"),
    DESCRIBE(cudaErrorCallRequiresNewerDriver, "call needs a newer driver"),
    DESCRIBE(cudaErrorInvalidSurface, "invalid surface"),
    DESCRIBE(cudaErrorDuplicateVariableName, "duplicate variable name"),
    DESCRIBE(cudaErrorDuplicateTextureName, "duplicate texture name"),
    DESCRIBE(cudaErrorDuplicateSurfaceName, "duplicate surface name"),
    DESCRIBE(cudaErrorDevicesUnavailable, "all devices are busy or unavailable"),
    DESCRIBE(cudaErrorIncompatibleDriverContext, "incompatible driver context"),
    DESCRIBE(cudaErrorMissingConfiguration, "launch was not configured"),
    DESCRIBE(cudaErrorPriorLaunchFailure, "an earlier launch failed"),
    DESCRIBE(cudaErrorLaunchMaxDepthExceeded, "nested launches are too deep"),
    DESCRIBE(cudaErrorLaunchFileScopedTex, "kernel uses file-scoped textures"),
    DESCRIBE(cudaErrorLaunchFileScopedSurf, "kernel uses file-scoped surfaces"),
    DESCRIBE(cudaErrorSyncDepthExceeded, "synchronization in a kernel is too deep"),
    DESCRIBE(cudaErrorLaunchPendingCountExceeded, "too many launches are pending"),
    DESCRIBE(cudaErrorInvalidDeviceFunction, "invalid device function"),
    DESCRIBE(cudaErrorNoDevice, "no device was found"),
    DESCRIBE(cudaErrorInvalidDevice, "invalid device ordinal"),
    DESCRIBE(cudaErrorDeviceNotLicensed, "device has no licence"),
    DESCRIBE(cudaErrorSoftwareValidityNotEstablished,
             "integrity of the software is not established"),
    DESCRIBE(cudaErrorStartupFailure, "runtime could not start"),
    DESCRIBE(cudaErrorInvalidKernelImage, "invalid kernel image"),
    DESCRIBE(cudaErrorDeviceUninitialized, "device has no valid context"),
    DESCRIBE(cudaErrorMapBufferObjectFailed, "buffer could not be mapped"),
    DESCRIBE(cudaErrorUnmapBufferObjectFailed, "buffer could not be unmapped"),
    DESCRIBE(cudaErrorArrayIsMapped, "array is mapped"),
    DESCRIBE(cudaErrorAlreadyMapped, "resource is mapped already"),
    DESCRIBE(cudaErrorNoKernelImageForDevice, "no kernel image fits the device"),
    DESCRIBE(cudaErrorAlreadyAcquired, "resource is acquired already"),
    DESCRIBE(cudaErrorNotMapped, "resource is not mapped"),
    DESCRIBE(cudaErrorNotMappedAsArray, "resource is not mapped as an array"),
    DESCRIBE(cudaErrorNotMappedAsPointer, "resource is not mapped as a pointer"),
    DESCRIBE(cudaErrorECCUncorrectable, "uncorrectable memory error"),
    DESCRIBE(cudaErrorUnsupportedLimit, "limit is not supported"),
    DESCRIBE(cudaErrorDeviceAlreadyInUse, "device is used by another thread"),
    DESCRIBE(cudaErrorPeerAccessUnsupported, "peer access is not supported between these devices"),
    DESCRIBE(cudaErrorInvalidPtx, "invalid PTX"),
    DESCRIBE(cudaErrorInvalidGraphicsContext, "invalid graphics context"),
    DESCRIBE(cudaErrorNvlinkUncorrectable, "uncorrectable NVLink error"),
    DESCRIBE(cudaErrorJitCompilerNotFound, "PTX compiler was not found"),
    DESCRIBE(cudaErrorUnsupportedPtxVersion, "unsupported PTX version"),
    DESCRIBE(cudaErrorJitCompilationDisabled, "PTX compilation is disabled"),
    DESCRIBE(cudaErrorUnsupportedExecAffinity, "unsupported execution affinity"),
    DESCRIBE(cudaErrorUnsupportedDevSideSync, "unsupported synchronization in PTX"),
    DESCRIBE(cudaErrorContained, "error was contained to some processes"),
    DESCRIBE(cudaErrorInvalidSource, "invalid kernel source"),
    DESCRIBE(cudaErrorFileNotFound, "file was not found"),
    DESCRIBE(cudaErrorSharedObjectSymbolNotFound, "symbol of a shared object was not found"),
    DESCRIBE(cudaErrorSharedObjectInitFailed, "shared object could not be initialized"),
    DESCRIBE(cudaErrorOperatingSystem, "operating system call failed"),
    DESCRIBE(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    DESCRIBE(cudaErrorIllegalState, "not possible in this state"),
    DESCRIBE(cudaErrorLossyQuery, "query would lose information"),
    DESCRIBE(cudaErrorSymbolNotFound, "symbol was not found"),
    DESCRIBE(cudaErrorNotReady, "device not ready"),
    DESCRIBE(cudaErrorIllegalAddress, "illegal memory access"),
    DESCRIBE(cudaErrorLaunchOutOfResources, "launch needs too many resources"),
    DESCRIBE(cudaErrorLaunchTimeout, "launch timed out"),
    DESCRIBE(cudaErrorLaunchIncompatibleTexturing, "incompatible texturing mode"),
    DESCRIBE(cudaErrorPeerAccessAlreadyEnabled, "peer access is enabled already"),
    DESCRIBE(cudaErrorPeerAccessNotEnabled, "peer access is not enabled"),
    DESCRIBE(cudaErrorSetOnActiveProcess, "too late: the device is in use"),
    DESCRIBE(cudaErrorContextIsDestroyed, "context is destroyed"),
    DESCRIBE(cudaErrorAssert, "assertion in a kernel failed"),
    DESCRIBE(cudaErrorTooManyPeers, "too many peers"),
    DESCRIBE(cudaErrorHostMemoryAlreadyRegistered, "host memory is registered already"),
    DESCRIBE(cudaErrorHostMemoryNotRegistered, "host memory is not registered"),
    DESCRIBE(cudaErrorHardwareStackError, "hardware stack error"),
    DESCRIBE(cudaErrorIllegalInstruction, "illegal instruction"),
    DESCRIBE(cudaErrorMisalignedAddress, "misaligned address"),
    DESCRIBE(cudaErrorInvalidAddressSpace, "wrong address space"),
    DESCRIBE(cudaErrorInvalidPc, "invalid program counter"),
    DESCRIBE(cudaErrorLaunchFailure, "launch failed"),
    DESCRIBE(cudaErrorCooperativeLaunchTooLarge, "cooperative launch is too large"),
    DESCRIBE(cudaErrorTensorMemoryLeak, "tensor memory was not freed"),
    DESCRIBE(cudaErrorNotPermitted, "operation not permitted"),
    DESCRIBE(cudaErrorNotSupported, "operation not supported"),
    DESCRIBE(cudaErrorSystemNotReady, "system is not ready"),
    DESCRIBE(cudaErrorSystemDriverMismatch, "drivers do not match"),
    DESCRIBE(cudaErrorCompatNotSupportedOnDevice,
             "forward compatibility is not supported on the device"),
    DESCRIBE(cudaErrorMpsConnectionFailed, "MPS: no connection"),
    DESCRIBE(cudaErrorMpsRpcFailure, "MPS: remote call failed"),
    DESCRIBE(cudaErrorMpsServerNotReady, "MPS: server is not ready"),
    DESCRIBE(cudaErrorMpsMaxClientsReached, "MPS: too many clients"),
    DESCRIBE(cudaErrorMpsMaxConnectionsReached, "MPS: too many connections"),
    DESCRIBE(cudaErrorMpsClientTerminated, "MPS: client was terminated"),
    DESCRIBE(cudaErrorCdpNotSupported, "dynamic parallelism is not supported"),
    DESCRIBE(cudaErrorCdpVersionMismatch, "versions of dynamic parallelism do not match"),
    DESCRIBE(cudaErrorStreamCaptureUnsupported, "not permitted while the stream is captured"),
    DESCRIBE(cudaErrorStreamCaptureInvalidated, "capture was invalidated by an earlier error"),
    DESCRIBE(cudaErrorStreamCaptureMerge, "two captures would be merged"),
    DESCRIBE(cudaErrorStreamCaptureUnmatched, "capture ends in another stream than it began in"),
    DESCRIBE(cudaErrorStreamCaptureUnjoined, "captured stream was not joined"),
    DESCRIBE(cudaErrorStreamCaptureIsolation, "capture would depend on work outside it"),
    DESCRIBE(cudaErrorStreamCaptureImplicit, "capture would involve the legacy stream"),
    DESCRIBE(cudaErrorCapturedEvent, "event belongs to a capture"),
    DESCRIBE(cudaErrorStreamCaptureWrongThread, "capture belongs to another thread"),
    DESCRIBE(cudaErrorTimeout, "wait timed out"),
    DESCRIBE(cudaErrorGraphExecUpdateFailure, "graph cannot be updated like this"),
    DESCRIBE(cudaErrorExternalDevice, "error outside of CUDA"),
    DESCRIBE(cudaErrorInvalidClusterSize, "invalid cluster size"),
    DESCRIBE(cudaErrorFunctionNotLoaded, "function is not loaded"),
    DESCRIBE(cudaErrorInvalidResourceType, "invalid resource type"),
    DESCRIBE(cudaErrorInvalidResourceConfiguration, "invalid resource configuration"),
    DESCRIBE(cudaErrorUnknown, "unknown error"),
    DESCRIBE(cudaErrorApiFailureBase, "API failure"),
};

static const description unknown = {cudaErrorUnknown, "unrecognized error code",
                                    "unrecognized error code"};

static const size_t count = sizeof(descriptions) / sizeof(descriptions[0]);

const char* sim_error_at(size_t index, cudaError_t* code) {
  if (index >= count) return NULL;
  *code = descriptions[index].code;
  return descriptions[index].name;
}

static const description* describe(cudaError_t code) {
  for (size_t i = 0; i < count; ++i) {
    if (descriptions[i].code == code) return &descriptions[i];
  }
  return &unknown;
}

const char* cudaGetErrorName(cudaError_t error) { return describe(error)->name; }

const char* cudaGetErrorString(cudaError_t error) { return describe(error)->text; }
