// The text that says which calls are to fail: docs/faults.md.
#ifndef CUDASIM_FAULT_SPEC_H_
#define CUDASIM_FAULT_SPEC_H_

#include <stddef.h>

#include "cudasim/fault.h"

// Reads `spec` for a machine with `devices` devices. `*out` is NULL where there are no rules, and
// on failure: then `why`, of `size` bytes, says what is wrong and what is allowed.
// Ownership: `*out` is the caller's, who passes it on to sim_fault_arm or sim_bookkeeping_free.
// Errors: cudaErrorInvalidValue, cudaErrorMemoryAllocation.
cudaError_t sim_fault_parse(const char* spec, int devices, fault_plan** out, char* why,
                            size_t size);

#endif  // CUDASIM_FAULT_SPEC_H_
