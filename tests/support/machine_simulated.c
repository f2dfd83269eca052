#include <criterion/criterion.h>
#include <cudasim.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/machine.h"
#include "tm/alloc/device.h"

bool machine_is_simulated(void) { return true; }

void machine_configure(int devices, const char* memory) {
  const cudasim_options options = {.devices = devices, .memory = memory};
  cr_assert(cudasim_configure(&options) == cudaSuccess);
}

void machine_require_calls_that_do_not_wait(void) {}

void machine_require_threads(void) {
  const char* schedule = getenv("CUDASIM_SCHEDULE");
  if (schedule && strcmp(schedule, "threads") != 0) {
    machine_skip("this test holds up a stream, which only the schedule threads allows");
  }
}

void machine_leave_unchecked(void) { cr_assert(setenv("CUDASIM_CHECK", "off", 1) == 0); }

void machine_fail(const char* function, uint64_t nth, uint64_t count, cudaError_t error) {
  cr_assert(cudasim_fail(function, nth, count, error) == cudaSuccess, "%s cannot fail", function);
}

void machine_fail_nothing(void) { cudasim_fail_nothing(); }

void machine_break_device(int device, cudaError_t error) {
  cr_assert(cudasim_break_device(device, error) == cudaSuccess);
}

int64_t machine_live_allocations(int device) {
  cudasim_statistics statistics;
  cr_assert(cudasim_stats(device, &statistics) == cudaSuccess);
  return (int64_t)(statistics.mallocs + statistics.async_mallocs - statistics.frees -
                   statistics.async_frees);
}

uint64_t machine_reserved_bytes(int device) {
  cr_assert(tm_device_sync(device) == TM_OK, "%s", tm_last_error()->message);
  cudasim_statistics statistics;
  cr_assert(cudasim_stats(device, &statistics) == cudaSuccess);
  return statistics.reserved_bytes;
}

machine_work machine_work_of(int device) {
  cudasim_statistics statistics;
  cr_assert(cudasim_stats(device, &statistics) == cudaSuccess);
  return (machine_work){
      .copies = statistics.copies, .fills = statistics.fills, .kernels = statistics.kernels};
}
