// What stands in for the kernels of a program that knows nothing of cudasim.
#ifndef CUDASIM_STANDIN_KERNELS_H_
#define CUDASIM_STANDIN_KERNELS_H_

// Reads the settings, and loads the library that CUDASIM_KERNELS names, once. Without the runtime's
// lock: what is loaded may call the runtime as it starts.
void sim_kernels_load(void);

#endif  // CUDASIM_STANDIN_KERNELS_H_
