#include <cudasim.h>
#include <stdio.h>
#include <string.h>

#include "tools/backend.h"

static const uint64_t smallest_memory = (uint64_t)2 << 20;
static const uint64_t largest_memory = (uint64_t)4 << 40;

const char* backend_name(void) { return "cudasim"; }

static tm_status configure(uint64_t memory_bytes) {
  char memory[32];
  if (memory_bytes == 0) return TM_OK;
  if (memory_bytes < smallest_memory || memory_bytes > largest_memory) {
    return TM_RAISE(TM_ERR_INVALID, "a simulated device has 2 MiB to 4 TiB of memory");
  }
  (void)snprintf(memory, sizeof(memory), "%llu", (unsigned long long)memory_bytes);
  const cudaError_t code = cudasim_configure(&(cudasim_options){.memory = memory});
  return code == cudaSuccess ? TM_OK
                             : TM_RAISE(TM_ERR_INVALID, "cudasim: %s", cudaGetErrorName(code));
}

tm_status backend_open(uint64_t memory_bytes, backend_device* out) {
  *out = (backend_device){0};
  TM_TRY(configure(memory_bytes));
  size_t free_bytes, total_bytes;
  TM_TRY(tm_device_memory(0, &free_bytes, &total_bytes));
  struct cudaDeviceProp properties;
  if (cudaGetDeviceProperties(&properties, 0) == cudaSuccess) {
    memcpy(out->name, properties.name, sizeof(out->name));
  }
  out->memory_bytes = total_bytes;
  cudasim_measure_calls(1);
  return TM_OK;
}

static cudasim_statistics statistics(void) {
  cudasim_statistics now = {0};
  (void)cudasim_stats(0, &now);
  return now;
}

uint64_t backend_reserved(void) { return statistics().reserved_bytes; }

uint64_t backend_peak_reserved(void) { return statistics().peak_reserved_bytes; }

void backend_restart_peak(void) { (void)cudasim_reset_stats(0); }

void backend_sample_peak(void) {}

backend_clock backend_runtime_clock(void) { return cudasim_thread_call_ns; }
