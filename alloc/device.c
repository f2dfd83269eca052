#include "tm/alloc/device.h"

#include <stdio.h>

#include "alloc/cuda_runtime.h"

const char* tm_device_type_name(tm_device_type type) {
  switch (type) {
    case TM_CPU:
      return "cpu";
    case TM_CPU_PINNED:
      return "cpu_pinned";
    case TM_DEVICE:
      return "device";
  }
  return "unknown";
}

void tm_device_text(tm_device device, char* text, size_t size) {
  const char* name = tm_device_type_name((tm_device_type)device.type);
  const int32_t unsaid = device.type == TM_DEVICE ? -1 : 0;
  if (device.id == unsaid) {
    snprintf(text, size, "%s", name);
  } else {
    snprintf(text, size, "%s:%d", name, (int)device.id);
  }
}

tm_status tm_device_count(int32_t* out) {
  if (!out) {
    return TM_RAISE(TM_ERR_INVALID, "tm_device_count: out is NULL");
  }
  *out = 0;
  int32_t current;
  TM_TRY(tm_current_device_(&current));  // says why CUDA is not usable, where it is not
  int count = 0;
  TM_TRY_CUDA(cudaGetDeviceCount(&count));
  *out = count < TM_MAX_DEVICES ? count : TM_MAX_DEVICES;
  return TM_OK;
}

tm_status tm_device_memory(int32_t id, size_t* free_bytes, size_t* total_bytes) {
  if (!free_bytes || !total_bytes) {
    return TM_RAISE(TM_ERR_INVALID, "tm_device_memory: an output is NULL");
  }
  *free_bytes = 0;
  *total_bytes = 0;
  TM_ON_DEVICE(id);
  size_t available = 0;
  size_t total = 0;
  TM_TRY_CUDA(cudaMemGetInfo(&available, &total));
  *free_bytes = available;
  *total_bytes = total;
  return TM_OK;
}

tm_status tm_device_sync(int32_t id) {
  TM_ON_DEVICE(id);
  TM_TRY_CUDA(cudaDeviceSynchronize());
  return TM_OK;
}
