#include <cuda_runtime_api.h>
#include <string.h>

#include "tools/backend.h"

static uint64_t sampled_peak;  // bytes

const char* backend_name(void) { return "cuda"; }

tm_status backend_open(uint64_t memory_bytes, backend_device* out) {
  *out = (backend_device){0};
  size_t free_bytes, total_bytes;
  TM_TRY(tm_device_memory(0, &free_bytes, &total_bytes));
  if (memory_bytes > total_bytes) {
    return TM_RAISE(TM_ERR_INVALID, "the device has %zu bytes of memory", total_bytes);
  }
  struct cudaDeviceProp properties;
  if (cudaGetDeviceProperties(&properties, 0) == cudaSuccess) {
    memcpy(out->name, properties.name, sizeof(out->name));
  }
  out->memory_bytes = memory_bytes ? memory_bytes : total_bytes;
  out->is_capped = out->memory_bytes < total_bytes;
  return TM_OK;
}

uint64_t backend_reserved(void) {
  size_t free_bytes, total_bytes;
  return tm_device_memory(0, &free_bytes, &total_bytes) == TM_OK ? total_bytes - free_bytes : 0;
}

uint64_t backend_peak_reserved(void) {
  backend_sample_peak();
  return sampled_peak;
}

void backend_restart_peak(void) { sampled_peak = backend_reserved(); }

void backend_sample_peak(void) {
  const uint64_t now = backend_reserved();
  if (now > sampled_peak) sampled_peak = now;
}

backend_clock backend_runtime_clock(void) { return NULL; }
