// The machine that tests with devices run on: simulated, or with --config=cuda a real one. What a
// real one cannot do is false or skips the test, which says so.
#ifndef TM_TESTS_SUPPORT_MACHINE_H_
#define TM_TESTS_SUPPORT_MACHINE_H_

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool machine_is_simulated(void);

// Makes the machine, before its first use: `devices` of `memory` ("64MiB") each. A real one stays
// what it is.
void machine_configure(int devices, const char* memory);

// Skips the calling Criterion test and says why on stderr, since Criterion keeps reasons to itself.
void machine_skip(const char* reason);

// Skips the calling Criterion test, with the driver's reason, unless there are so many devices.
void machine_require_devices(int32_t count);

// Skips the calling Criterion test under compute-sanitizer, which lets calls wait that otherwise do
// not: a test that holds a stream up meanwhile would never end.
void machine_require_calls_that_do_not_wait(void);

// Skips the calling Criterion test on a simulated machine that works without threads
// (CUDASIM_SCHEDULE is eager or random): what waits there for the test to go on would wait for
// ever.
void machine_require_threads(void);

// Before machine_configure: the test does something wrong on purpose, which cudasim's checker,
// where it is on, is not to report.
void machine_leave_unchecked(void);

// Makes `count` calls of the runtime's `function` fail with `error`, from the `nth` on (1: the next
// one); a count of 0: all. Skips the test on a real machine.
void machine_fail(const char* function, uint64_t nth, uint64_t count, cudaError_t error);
void machine_fail_nothing(void);

// Breaks `device` with a sticky `error`. Skips the test on a real machine.
void machine_break_device(int device, cudaError_t error);

// Allocations of `device` that are not freed, in cudaMalloc'd and pool memory together; 0 on a real
// machine.
int64_t machine_live_allocations(int device);

// Bytes that are taken from `device`, in pools or in use, after all its work is done; 0 on a real
// machine.
uint64_t machine_reserved_bytes(int device);

// What was queued on the streams of `device` so far; all 0 on a real machine.
typedef struct machine_work {
  uint64_t copies;
  uint64_t fills;
  uint64_t kernels;
} machine_work;

machine_work machine_work_of(int device);

#endif  // TM_TESTS_SUPPORT_MACHINE_H_
