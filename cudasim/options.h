// How the simulated machine is made.
#ifndef CUDASIM_OPTIONS_H_
#define CUDASIM_OPTIONS_H_

#include <stdbool.h>
#include <stdint.h>

#include "cudasim/include/cudasim.h"
#include "cudasim/scheduler.h"

typedef struct options {
  int devices;
  uint64_t memory[CUDASIM_MAX_DEVICES];  // bytes
  schedule schedule;
  uint64_t seed;  // of the schedule `random`
  bool protect;
  bool verbose;
} options;

// Fills `out` from `asked`, the environment and the defaults. False, after a line on stderr for
// each value that is not allowed, when there is one.
bool sim_options_resolve(const cudasim_options* asked, options* out);

#endif  // CUDASIM_OPTIONS_H_
