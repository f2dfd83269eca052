// How the simulated machine is made.
#ifndef CUDASIM_OPTIONS_H_
#define CUDASIM_OPTIONS_H_

#include <stdbool.h>
#include <stdint.h>

#include "cudasim/include/cudasim.h"
#include "cudasim/scheduler.h"

#define CHECK_FILE_BYTES 512

typedef enum check_mode {
  CHECK_OFF,
  CHECK_REPORT,
  CHECK_ABORT,  // after the first report
} check_mode;

typedef struct options {
  int devices;
  uint64_t memory[CUDASIM_MAX_DEVICES];  // bytes
  schedule schedule;
  uint64_t seed;  // of the schedule `random`
  bool protect;
  bool verbose;
  check_mode check;
  bool check_json;
  bool check_leaks;
  char check_file[CHECK_FILE_BYTES];  // empty: stderr
  uint64_t host_memory;               // bytes that can be page-locked
  struct fault_plan* faults;          // whoever has the options owns it; or NULL
} options;

// Fills `out` from `asked`, the environment and the defaults. False, after a line on stderr for
// each value that is not allowed, when there is one; `out` then owns nothing.
bool sim_options_resolve(const cudasim_options* asked, options* out);

#endif  // CUDASIM_OPTIONS_H_
