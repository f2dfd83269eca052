#include "tests/support/machine.h"

#include <stdlib.h>

bool machine_is_simulated(void) { return false; }

void machine_configure(int devices, const char* memory) {
  (void)devices;
  (void)memory;
}

void machine_require_calls_that_do_not_wait(void) {
  if (getenv("TM_COMPUTE_SANITIZER")) {
    machine_skip("compute-sanitizer lets calls wait that otherwise do not");
  }
}

void machine_require_threads(void) {}

void machine_leave_unchecked(void) {}

void machine_fail(const char* function, uint64_t nth, uint64_t count, cudaError_t error) {
  (void)function;
  (void)nth;
  (void)count;
  (void)error;
  machine_skip("a real machine does not fail calls on demand");
}

void machine_fail_nothing(void) {}

void machine_break_device(int device, cudaError_t error) {
  (void)device;
  (void)error;
  machine_skip("a real device is not broken on demand");
}

int64_t machine_live_allocations(int device) {
  (void)device;
  return 0;
}

uint64_t machine_reserved_bytes(int device) {
  (void)device;
  return 0;
}

machine_work machine_work_of(int device) {
  (void)device;
  return (machine_work){0};
}
