// Where memory lives: device types, devices, and what the process can see of them.
#ifndef TM_ALLOC_DEVICE_H_
#define TM_ALLOC_DEVICE_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tm/base/attributes.h"
#include "tm/base/status.h"

TM_EXTERN_C_BEGIN

typedef enum tm_device_type {
  TM_CPU = 0,         // pageable host memory
  TM_CPU_PINNED = 1,  // page-locked host memory, which devices copy from and to asynchronously
  TM_DEVICE = 2,      // memory of a CUDA device
} tm_device_type;

enum {
  TM_DEVICE_TYPES = 3,
  TM_MAX_DEVICES = 64,  // device ids are 0 to 63
};

// A place for memory. The CPU types have id 0; a TM_DEVICE has the CUDA device ordinal.
typedef struct tm_device {
  int32_t type;  // a tm_device_type
  int32_t id;
} tm_device;

static inline tm_device tm_device_make(tm_device_type type, int32_t id) {
  tm_device device;
  device.type = (int32_t)type;
  device.id = id;
  return device;
}

static inline bool tm_device_equal(tm_device a, tm_device b) {
  return a.type == b.type && a.id == b.id;
}

// "cpu", "cpu_pinned" or "device"; "unknown" for a value that is none of them.
TM_API const char* tm_device_type_name(tm_device_type type);

enum { TM_DEVICE_TEXT_SIZE = 32 };  // bytes that hold any device as text, the NUL included

// Writes "cpu", "cpu_pinned" or "device:1"; an id of -1, which means any, is left out. Cuts at
// `size` bytes, the terminating NUL included.
TM_API void tm_device_text(tm_device device, char* text, size_t size);

// How many CUDA devices are usable. On failure `*out` is 0.
// Errors: TM_ERR_UNAVAILABLE (no driver or no device; the driver's own words), TM_ERR_INVALID.
// Threads: safe.
TM_API TM_NODISCARD tm_status tm_device_count(int32_t* out);

// Free and total memory of a device, in bytes. On failure both are 0.
// Errors: TM_ERR_UNAVAILABLE, TM_ERR_OUT_OF_RANGE (`id`), TM_ERR_DEVICE_LOST, TM_ERR_INVALID.
// Threads: safe; the thread's current device is left as it was.
TM_API TM_NODISCARD tm_status tm_device_memory(int32_t id, size_t* free_bytes, size_t* total_bytes);

// Blocks until everything queued on a device is done.
// Errors: as tm_device_memory.
TM_API TM_NODISCARD tm_status tm_device_sync(int32_t id);

TM_EXTERN_C_END

#endif  // TM_ALLOC_DEVICE_H_
