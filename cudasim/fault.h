// Calls that fail on demand.
#ifndef CUDASIM_FAULT_H_
#define CUDASIM_FAULT_H_

#include <stdatomic.h>

#include "cudasim/calls.h"
#include "cudasim/include/cuda_runtime_api.h"

// Whether any function has an order to fail. Read without a lock, so that unarmed calls pay a load.
extern atomic_bool sim_faults_armed;

// Counts one call of the function; the error it is to return, or cudaSuccess.
cudaError_t sim_fault_next(call_id id);

const char* sim_call_name(call_id id);

#endif  // CUDASIM_FAULT_H_
