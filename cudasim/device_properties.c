// What the devices say they are: a Hopper-like machine as far as launch geometry goes, and only
// those features that cudasim has.

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "cudasim/device.h"
#include "cudasim/runtime.h"

typedef struct attribute {
  enum cudaDeviceAttr name;
  int value;
} attribute;

// Those that are not here are 0.
static const attribute attributes[] = {
    {cudaDevAttrMaxThreadsPerBlock, 1024},
    {cudaDevAttrMaxBlockDimX, 1024},
    {cudaDevAttrMaxBlockDimY, 1024},
    {cudaDevAttrMaxBlockDimZ, 64},
    {cudaDevAttrMaxGridDimX, 2147483647},
    {cudaDevAttrMaxGridDimY, 65535},
    {cudaDevAttrMaxGridDimZ, 65535},
    {cudaDevAttrMaxSharedMemoryPerBlock, 49152},
    {cudaDevAttrTotalConstantMemory, 65536},
    {cudaDevAttrWarpSize, 32},
    {cudaDevAttrMaxPitch, 2147483647},
    {cudaDevAttrMaxRegistersPerBlock, 65536},
    {cudaDevAttrClockRate, 1000000},
    {cudaDevAttrTextureAlignment, 512},
    {cudaDevAttrGpuOverlap, 1},
    {cudaDevAttrMultiProcessorCount, 132},
    {cudaDevAttrCanMapHostMemory, 1},
    {cudaDevAttrSurfaceAlignment, 512},
    {cudaDevAttrConcurrentKernels, 1},
    {cudaDevAttrMemoryClockRate, 1000000},
    {cudaDevAttrGlobalMemoryBusWidth, 5120},
    {cudaDevAttrL2CacheSize, 50 << 20},
    {cudaDevAttrMaxThreadsPerMultiProcessor, 2048},
    {cudaDevAttrAsyncEngineCount, 1},
    {cudaDevAttrUnifiedAddressing, 1},
    {cudaDevAttrTexturePitchAlignment, 32},
    {cudaDevAttrComputeCapabilityMajor, 9},
    {cudaDevAttrComputeCapabilityMinor, 0},
    {cudaDevAttrStreamPrioritiesSupported, 1},
    {cudaDevAttrGlobalL1CacheSupported, 1},
    {cudaDevAttrLocalL1CacheSupported, 1},
    {cudaDevAttrMaxSharedMemoryPerMultiprocessor, 233472},
    {cudaDevAttrMaxRegistersPerMultiprocessor, 65536},
    {cudaDevAttrSingleToDoublePrecisionPerfRatio, 2},
    {cudaDevAttrComputePreemptionSupported, 1},
    {cudaDevAttrCanUseHostPointerForRegisteredMem, 1},
    {cudaDevAttrMaxSharedMemoryPerBlockOptin, 232448},
    {cudaDevAttrHostRegisterSupported, 1},
    {cudaDevAttrMaxBlocksPerMultiprocessor, 32},
    {cudaDevAttrReservedSharedMemoryPerBlock, 1024},
    {cudaDevAttrHostRegisterReadOnlySupported, 1},
    {cudaDevAttrMemoryPoolsSupported, 1},
    {cudaDevAttrNumaId, -1},
};

int sim_device_attribute(const device* d, enum cudaDeviceAttr name) {
  if (name == cudaDevAttrPciBusId) return d->id + 1;
  for (size_t i = 0; i < sizeof(attributes) / sizeof(attributes[0]); ++i) {
    if (attributes[i].name == name) return attributes[i].value;
  }
  return 0;
}

static cudaError_t get_attribute(int* out, enum cudaDeviceAttr name, int id) {
  if (!out) return cudaErrorInvalidValue;
  const device* d = sim_device_at(id);
  if (!d) return cudaErrorInvalidDevice;
  if (name < cudaDevAttrMaxThreadsPerBlock || name >= cudaDevAttrMax) return cudaErrorInvalidValue;
  *out = sim_device_attribute(d, name);
  return cudaSuccess;
}

//===-- Properties ----------------------------------------------------------------------------===//

// An int of cudaDeviceProp that is an attribute as well.
typedef struct field {
  size_t offset;
  enum cudaDeviceAttr name;
} field;

#define FIELD(member, name) \
  { offsetof(struct cudaDeviceProp, member), cudaDevAttr##name }

static const field fields[] = {
    FIELD(regsPerBlock, MaxRegistersPerBlock),
    FIELD(warpSize, WarpSize),
    FIELD(maxThreadsPerBlock, MaxThreadsPerBlock),
    FIELD(maxThreadsDim[0], MaxBlockDimX),
    FIELD(maxThreadsDim[1], MaxBlockDimY),
    FIELD(maxThreadsDim[2], MaxBlockDimZ),
    FIELD(maxGridSize[0], MaxGridDimX),
    FIELD(maxGridSize[1], MaxGridDimY),
    FIELD(maxGridSize[2], MaxGridDimZ),
    FIELD(major, ComputeCapabilityMajor),
    FIELD(minor, ComputeCapabilityMinor),
    FIELD(multiProcessorCount, MultiProcessorCount),
    FIELD(canMapHostMemory, CanMapHostMemory),
    FIELD(concurrentKernels, ConcurrentKernels),
    FIELD(pciBusID, PciBusId),
    FIELD(asyncEngineCount, AsyncEngineCount),
    FIELD(unifiedAddressing, UnifiedAddressing),
    FIELD(memoryBusWidth, GlobalMemoryBusWidth),
    FIELD(l2CacheSize, L2CacheSize),
    FIELD(maxThreadsPerMultiProcessor, MaxThreadsPerMultiProcessor),
    FIELD(streamPrioritiesSupported, StreamPrioritiesSupported),
    FIELD(globalL1CacheSupported, GlobalL1CacheSupported),
    FIELD(localL1CacheSupported, LocalL1CacheSupported),
    FIELD(regsPerMultiprocessor, MaxRegistersPerMultiprocessor),
    FIELD(computePreemptionSupported, ComputePreemptionSupported),
    FIELD(canUseHostPointerForRegisteredMem, CanUseHostPointerForRegisteredMem),
    FIELD(maxBlocksPerMultiProcessor, MaxBlocksPerMultiprocessor),
    FIELD(hostRegisterSupported, HostRegisterSupported),
    FIELD(hostRegisterReadOnlySupported, HostRegisterReadOnlySupported),
    FIELD(memoryPoolsSupported, MemoryPoolsSupported),
    FIELD(deviceNumaId, NumaId),
};

static cudaError_t get_properties(struct cudaDeviceProp* out, int id) {
  if (!out) return cudaErrorInvalidValue;
  const device* d = sim_device_at(id);
  if (!d) return cudaErrorInvalidDevice;
  memset(out, 0, sizeof(*out));
  for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); ++i) {
    *(int*)((char*)out + fields[i].offset) = sim_device_attribute(d, fields[i].name);
  }
  snprintf(out->name, sizeof(out->name), "cudasim device %d", id);
  snprintf(out->uuid.bytes, sizeof(out->uuid.bytes), "cudasim-%07d", id);
  out->totalGlobalMem = sim_options()->memory[id];
  out->sharedMemPerBlock = (size_t)sim_device_attribute(d, cudaDevAttrMaxSharedMemoryPerBlock);
  out->memPitch = (size_t)sim_device_attribute(d, cudaDevAttrMaxPitch);
  out->totalConstMem = (size_t)sim_device_attribute(d, cudaDevAttrTotalConstantMemory);
  out->textureAlignment = (size_t)sim_device_attribute(d, cudaDevAttrTextureAlignment);
  out->texturePitchAlignment = (size_t)sim_device_attribute(d, cudaDevAttrTexturePitchAlignment);
  out->surfaceAlignment = (size_t)sim_device_attribute(d, cudaDevAttrSurfaceAlignment);
  out->sharedMemPerMultiprocessor =
      (size_t)sim_device_attribute(d, cudaDevAttrMaxSharedMemoryPerMultiprocessor);
  out->sharedMemPerBlockOptin =
      (size_t)sim_device_attribute(d, cudaDevAttrMaxSharedMemoryPerBlockOptin);
  out->reservedSharedMemPerBlock =
      (size_t)sim_device_attribute(d, cudaDevAttrReservedSharedMemoryPerBlock);
  return cudaSuccess;
}

//===-- The API -------------------------------------------------------------------------------===//

cudaError_t cudaDeviceGetAttribute(int* value, enum cudaDeviceAttr attr, int id) {
  PLAIN_CALL(cudaDeviceGetAttribute, get_attribute(value, attr, id));
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp* prop, int id) {
  PLAIN_CALL(cudaGetDeviceProperties, get_properties(prop, id));
}
