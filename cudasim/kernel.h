// Kernels: host functions that the program has registered in their place, launched in stream order.
//
// What a launch reaches is asked of the kernel and looked up when it is queued, as with copies: the
// program may have queued the free by the time it runs. A launch that reaches what it must not is
// queued all the same, and breaks the device when it runs, as a wild kernel does.
//
// Guarded by the runtime's lock, but for running.
#ifndef CUDASIM_KERNEL_H_
#define CUDASIM_KERNEL_H_

#include <stdbool.h>
#include <stdint.h>

#include "cudasim/include/cudasim.h"
#include "cudasim/op.h"

struct device;
struct use;

// A kernel, its geometry and copies of its arguments. Never changed; graphs share it.
typedef struct kernel_launch kernel_launch;

// Checks the launch of a registered kernel on `d` and copies its arguments; the caller holds it.
cudaError_t sim_kernel_launch_create(const struct device* d, const void* function,
                                     const cudasim_launch* what, kernel_launch** out);

kernel_launch* sim_kernel_retain(kernel_launch* l);
void sim_kernel_release(kernel_launch* l);

// The op that does it on `d`; NULL when the host has no memory.
op* sim_kernel_op(kernel_launch* l, const struct device* d);

// One launch that is queued: what it reaches has been found.
typedef struct kernel_run kernel_run;

// Runs all blocks, without the lock, unless it is wild.
void sim_kernel_run(const kernel_run* r);

// Whether it reaches what the device cannot.
bool sim_kernel_is_wild(const kernel_run* r);

// What a launch, or what is queued of it, uses of memory: at most CUDASIM_MAX_RANGES; how many.
size_t sim_kernel_launch_uses(const kernel_launch* l, struct use* out);
size_t sim_kernel_uses(const kernel_run* r, struct use* out);

void sim_kernel_run_release(kernel_run* r);

//===-- Kernels that are known otherwise ------------------------------------------------------===//

// Says what stands in for `function`, which nobody has registered; false if nothing does.
typedef bool kernel_source(const void* function, cudasim_kernel* out);
void sim_kernel_set_source(kernel_source* source);

// Forgets what was registered for `function`, whose code is unloaded. Launches and graphs keep what
// they have, and so its memory stays.
void sim_kernel_forget(const void* function);

#endif  // CUDASIM_KERNEL_H_
