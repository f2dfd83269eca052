// Calls that fail on demand: by the orders of cudasim_fail, and by the rules of a plan.
#ifndef CUDASIM_FAULT_H_
#define CUDASIM_FAULT_H_

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cudasim/calls.h"
#include "cudasim/include/cuda_runtime_api.h"

//===-- Plans ---------------------------------------------------------------------------------===//

#define FAULT_EVERY_CALL UINT64_MAX

// What a rule does with the call that it hits.
typedef enum fault_effect {
  FAULT_FAILS,   // the call fails
  FAULT_BREAKS,  // the current device breaks, before the call
  FAULT_LOSES,   // and cudaDeviceReset does not get that far
} fault_effect;

typedef struct fault_rule {
  bool is_meant[CALL_COUNT];  // the functions it is about
  int device;                 // that must be the current one, or -1
  uint64_t ahead;             // calls that it still lets pass
  uint64_t count;             // calls that it then hits at most
  double fraction;            // of those calls it hits, drawn with the seed
  uint64_t seed;
  cudaError_t error;  // cudaSuccess: what is natural for the function
  fault_effect effect;
  uint64_t calls[CALL_COUNT];  // that were drawn for
} fault_rule;

// A plan is asked rule by rule; a call that one of them hits is not seen by those after it.
typedef struct fault_plan {
  size_t count;
  fault_rule rules[];
} fault_plan;

// Makes `plan`, which may be NULL, the plan in force. Ownership: passes to here.
void sim_fault_arm(fault_plan* plan);

//===-- Calls ---------------------------------------------------------------------------------===//

// By call_id.
extern const char* const sim_call_names[CALL_COUNT];

// Whether anything is to fail. Read without a lock, so that unarmed calls pay a load.
extern atomic_bool sim_faults_armed;

typedef struct fault {
  cudaError_t error;  // cudaSuccess: none
  fault_effect effect;
} fault;

// Counts one call of the function with device `current`, and says what is to happen to it.
fault sim_fault_next(call_id id, int current);

const char* sim_call_name(call_id id);

#endif  // CUDASIM_FAULT_H_
