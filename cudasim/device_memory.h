// Device memory that is not stream-ordered. Guarded by the runtime's lock.
#ifndef CUDASIM_DEVICE_MEMORY_H_
#define CUDASIM_DEVICE_MEMORY_H_

#include "cudasim/block.h"

// Gives back a block of cudaMalloc's that is no longer live.
void sim_device_memory_give(block* b);

#endif  // CUDASIM_DEVICE_MEMORY_H_
