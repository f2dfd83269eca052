#include <criterion/criterion.h>

#include "tests/support/machine.h"

bool machine_is_simulated(void) { return false; }

void machine_configure(int devices, const char* memory) {
  (void)devices;
  (void)memory;
}

void machine_fail(const char* function, uint64_t nth, uint64_t count, cudaError_t error) {
  (void)nth;
  (void)count;
  (void)error;
  cr_skip_test("a real machine does not fail %s on demand", function);
}

void machine_fail_nothing(void) {}

void machine_break_device(int device, cudaError_t error) {
  (void)error;
  cr_skip_test("device %d is real and is not broken on demand", device);
}

int64_t machine_live_allocations(int device) {
  (void)device;
  return 0;
}

uint64_t machine_reserved_bytes(int device) {
  (void)device;
  return 0;
}
