#include "tools/info.h"

#include <cuda_runtime_api.h>
#include <stdio.h>
#include <string.h>
#include <tm/tm.h>

#include "tools/backend.h"
#include "tools/size_text.h"

static void print_device(int32_t id) {
  struct cudaDeviceProp properties;
  size_t free_bytes, total_bytes;
  char free_text[SIZE_TEXT_SIZE];
  char total_text[SIZE_TEXT_SIZE];
  if (tm_device_memory(id, &free_bytes, &total_bytes) != TM_OK) {
    (void)printf("device %d   %s\n", id, tm_last_error()->message);
    return;
  }
  const bool has_name = cudaGetDeviceProperties(&properties, id) == cudaSuccess;
  size_format(free_bytes, free_text);
  size_format(total_bytes, total_text);
  (void)printf("device %d   %s, %s of %s free\n", id, has_name ? properties.name : "?", free_text,
               total_text);
}

static void print_devices(void) {
  int32_t count;
  if (tm_device_count(&count) != TM_OK) {
    (void)printf("devices    none: %s\n", tm_last_error()->message);
  }
  for (int32_t id = 0; id < count; id++) print_device(id);
}

int info_main(int argc, char** argv) {
  if (argc > 1 && strcmp(argv[1], "--help") == 0) {
    (void)printf("Usage: tm info\nSays what tmcore sees: versions, backend, devices, memory.\n");
    return 0;
  }
  if (argc > 1) {
    (void)fprintf(stderr, "%s: '%s' is no option\n", argv[0], argv[1]);
    return 2;
  }
  int runtime = 0;
  (void)cudaRuntimeGetVersion(&runtime);
  (void)printf("tmcore     %s\n", tm_version());
  (void)printf("backend    %s, CUDA runtime %d.%d\n", backend_name(), runtime / 1000,
               runtime % 1000 / 10);
  print_devices();
  return 0;
}
