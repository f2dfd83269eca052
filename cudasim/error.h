// The errors that there are.
#ifndef CUDASIM_ERROR_H_
#define CUDASIM_ERROR_H_

#include <stddef.h>

#include "cudasim/include/cuda_runtime_api.h"

// The name of the error at `index`, counted from 0 (cudaSuccess), and its code in `*code`; NULL
// after the last.
const char* sim_error_at(size_t index, cudaError_t* code);

#endif  // CUDASIM_ERROR_H_
