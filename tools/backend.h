// What a tool must know of the CUDA runtime it is linked with, the simulated or the real one: there
// is one source file for each, and the build chooses.
#ifndef TOOLS_BACKEND_H_
#define TOOLS_BACKEND_H_

#include <stdbool.h>
#include <stdint.h>
#include <tm/tm.h>

typedef struct backend_device {
  char name[256];
  uint64_t memory_bytes;  // that may be used
  bool is_capped;         // less than the device has: the user of the memory must keep to it
} backend_device;

// "cudasim" or "cuda".
const char* backend_name(void);

// Opens device 0 with `memory_bytes` of memory; 0: as much as it has. Call it before any other use
// of the device. Errors: TM_ERR_INVALID (not a size this device can have), TM_ERR_UNAVAILABLE (no
// device; in the
//         driver's own words). On error `*out` is all zero.
tm_status backend_open(uint64_t memory_bytes, backend_device* out);

// Bytes of the device's memory that are taken from it, as its driver counts: now, and at most since
// the last backend_restart_peak. Where the driver keeps no peak, it is the largest value that
// backend_sample_peak has seen.
uint64_t backend_reserved(void);
uint64_t backend_peak_reserved(void);
void backend_restart_peak(void);
void backend_sample_peak(void);

// Nanoseconds that the calling thread has spent in the runtime since backend_open; NULL where that
// is not known.
typedef uint64_t (*backend_clock)(void);
backend_clock backend_runtime_clock(void);

#endif  // TOOLS_BACKEND_H_
