// The simulated devices.
#ifndef CUDASIM_DEVICE_H_
#define CUDASIM_DEVICE_H_

#include <stdbool.h>
#include <stdint.h>

#include "cudasim/include/cudasim.h"
#include "cudasim/scheduler.h"
#include "cudasim/space.h"

typedef struct device {
  int id;
  bool is_open;        // has been used: what follows exists
  cudaError_t broken;  // what every call returns, or cudaSuccess
  bool is_lost;        // broken beyond cudaDeviceReset
  space space;
  shelf small;                // granules that small allocations share
  struct pool* pools;         // all, the default one included
  struct pool* default_pool;  // never destroyed
  struct pool* pool;          // the current one
  stream* streams;            // all, the legacy one and destroyed ones included
  stream* legacy;
  struct event* events;      // all
  uint64_t blocking_serial;  // counts what blocking streams do
  uint64_t observed_free;    // the last free for which the host has waited if it was in its streams
  struct graph_memory* graph_memory;  // all
  uint64_t graph_used_high;
  uint64_t graph_reserved_high;
  uint64_t queued;  // ops in all streams
  uint64_t peers;   // a bit for each device whose memory is enabled
  engine* copies;
  engine* host_functions;
  cudasim_statistics statistics;
} device;

// The devices exist from the first call on; those not used yet are not open.
int sim_device_count(void);

// The device `id`, open; or why not, in `*error` and NULL.
device* sim_device_open(int id, cudaError_t* error);

// The device `id`, open or not; NULL if there is none.
device* sim_device_at(int id);

// The device whose address space holds `address`; NULL for host memory.
device* sim_device_of(uint64_t address);

// Waits for the work of `d`, then frees all it has. It is whole again, and opened when it is used.
void sim_device_close(device* d);

// Breaks the device `id`: every call returns `error`, after cudaDeviceReset
// cudaErrorDevicesUnavailable; or, if it is lost, `error` for good. Takes the lock.
cudaError_t sim_device_break(int id, cudaError_t error, bool is_lost);

// The value of an attribute; 0 for those that the device does not have.
int sim_device_attribute(const device* d, enum cudaDeviceAttr name);

void sim_device_note_reserved(device* d, uint64_t bytes);

#endif  // CUDASIM_DEVICE_H_
