// The controls of cudasim: how many devices there are, how work is scheduled, which calls fail, and
// what the program did. Nothing here exists in the real runtime.
#ifndef CUDASIM_CUDASIM_H_
#define CUDASIM_CUDASIM_H_

#include <stddef.h>
#include <stdint.h>

#include "cuda_runtime_api.h"

#ifdef __cplusplus
extern "C" {
#endif

//===-- Configuration -------------------------------------------------------------------------===//

#define CUDASIM_MAX_DEVICES 64

// A switch: whatever the environment says, or on, or off.
typedef enum cudasim_switch {
  CUDASIM_DEFAULT = 0,
  CUDASIM_ON = 1,
  CUDASIM_OFF = 2,
} cudasim_switch;

// How the simulated machine is made. What is 0 or NULL is taken from the environment variable named
// at it, and where that is not set, from the default after it.
typedef struct cudasim_options {
  int devices;              // number of devices, 1 to CUDASIM_MAX_DEVICES; CUDASIM_DEVICES; 1
  cudasim_switch protect;   // device memory is out of the host's reach; CUDASIM_PROTECT; on
  const char* memory;       // "20GiB", "512MiB", bytes, or one for each device with commas between:
                            // the last holds for all further ones; CUDASIM_MEMORY; "80GiB"
  const char* schedule;     // "threads", "eager", "random:SEED", or "random" with a seed from the
                            // clock, which stderr says; CUDASIM_SCHEDULE; "threads"
  const char* host_memory;  // what can be page-locked in all, as one size of `memory`;
                            // CUDASIM_HOST_MEMORY; no limit
  const char* faults;       // which calls fail, as in cudasim_faults; CUDASIM_FAULTS; none
  const char* check;        // "off", "report", or "abort" after the first report; CUDASIM_CHECK;
                            // "off"
  const char* check_format;    // "text" or "json", an object on each line; CUDASIM_CHECK_FORMAT;
                               // "text"
  const char* check_file;      // where reports are appended, %p in it is the process id;
                               // CUDASIM_CHECK_FILE; stderr
  cudasim_switch verbose;      // refused calls say why on stderr; CUDASIM_VERBOSE; off
  cudasim_switch check_leaks;  // what is left at exit is reported; CUDASIM_CHECK_LEAKS; on
} cudasim_options;

// Sets the options of the machine that the first call of the runtime makes. NULL is all defaults.
// Ownership: the strings are copied.
// Errors: cudaErrorInvalidValue (a value that is not allowed; stderr says which are),
//         cudaErrorSetOnActiveProcess (the machine exists: cudasim_reset first).
// Threads: safe from any thread.
CUDASIM_EXPORT_ cudaError_t cudasim_configure(const cudasim_options* options);

// Waits for all work, then takes the machine down: every device pointer, stream, event and pool
// becomes invalid, pinned memory is freed, failures are disarmed, options and statistics are
// forgotten. The next call of the runtime makes a new machine.
// Threads: no other thread may be inside a call of the runtime.
CUDASIM_EXPORT_ void cudasim_reset(void);

//===-- Statistics ----------------------------------------------------------------------------===//

// What happened on one device since it was made or its statistics were reset. Counts are of calls
// that succeeded and had work to do.
typedef struct cudasim_statistics {
  uint64_t mallocs;              // cudaMalloc and its kin
  uint64_t frees;                // cudaFree
  uint64_t async_mallocs;        // cudaMallocAsync, cudaMallocFromPoolAsync
  uint64_t async_frees;          // cudaFreeAsync
  uint64_t copies;               // copies of any kind, each piece of a batch counted
  uint64_t fills;                // cudaMemset and its kin
  uint64_t kernels;              // cudaLaunchKernel
  uint64_t host_functions;       // cudaLaunchHostFunc
  uint64_t memory_bytes;         // size of the device's memory
  uint64_t reserved_bytes;       // taken from it now, in granules of 2 MiB
  uint64_t peak_reserved_bytes;  // the most that was taken at any time
} cudasim_statistics;

// Reads the statistics of `device`.
// Errors: cudaErrorInvalidDevice, cudaErrorInvalidValue (`statistics` is NULL).
// Threads: safe from any thread.
CUDASIM_EXPORT_ cudaError_t cudasim_stats(int device, cudasim_statistics* statistics);

// Sets the counts of `device` to 0 and its peak to what is reserved now.
// Errors: cudaErrorInvalidDevice.
// Threads: safe from any thread.
CUDASIM_EXPORT_ cudaError_t cudasim_reset_stats(int device);

// Starts (not 0) or stops (0) measuring the time spent inside calls of the runtime, waiting
// included, so that a benchmark can subtract the simulation's share. Off at first; costs two clock
// readings a call while on. Threads: safe from any thread.
CUDASIM_EXPORT_ void cudasim_measure_calls(int on);

// Nanoseconds that the calling thread, or all threads, spent inside calls while measuring was on.
// Threads: safe from any thread.
CUDASIM_EXPORT_ uint64_t cudasim_thread_call_ns(void);
CUDASIM_EXPORT_ uint64_t cudasim_call_ns(void);

//===-- Faults --------------------------------------------------------------------------------===//

// Makes calls of `function` (by its name, e.g. "cudaMalloc") return `error` without doing anything:
// `count` calls from the `nth` on (1 is the next one), or all from the nth on where `count` is 0.
// A function has one such order at a time; a new one replaces it, and cudaSuccess removes it.
// Errors: cudaErrorInvalidValue (no such function in cudasim, or `nth` is 0).
// Threads: safe from any thread; calls are counted over all threads.
CUDASIM_EXPORT_ cudaError_t cudasim_fail(const char* function, uint64_t nth, uint64_t count,
                                         cudaError_t error);

// Makes calls fail as the rules in `spec` say, in place of those that were there before, also of
// CUDASIM_FAULTS: `cudaMalloc:nth=3;cudaMemcpy*:fraction=0.01,seed=7:error=cudaErrorUnknown`. All
// of it is in docs/faults.md. NULL or "" is no rules. An order of cudasim_fail comes before them.
// Makes the machine, if there is none. Errors: cudaErrorInvalidValue (`why`, of `why_bytes` bytes,
// or stderr where `why` is NULL, says
//         where and what is allowed), cudaErrorMemoryAllocation. The rules are then as they were.
// Threads: safe from any thread; calls are counted over all threads.
CUDASIM_EXPORT_ cudaError_t cudasim_faults(const char* spec, char* why, size_t why_bytes);

// Removes every order of cudasim_fail and every rule.
// Threads: safe from any thread.
CUDASIM_EXPORT_ void cudasim_fail_nothing(void);

// Breaks `device` as an illegal access in a kernel would: its queued work is dropped, and every
// later call on it returns `error` (e.g. cudaErrorIllegalAddress) until cudaDeviceReset, and
// cudaErrorDevicesUnavailable after that: only cudasim_reset makes a new one.
// Errors: cudaErrorInvalidDevice, cudaErrorInvalidValue (`error` is cudaSuccess).
// Threads: safe from any thread.
CUDASIM_EXPORT_ cudaError_t cudasim_break_device(int device, cudaError_t error);

//===-- Reports -------------------------------------------------------------------------------===//

// How many reports the checker has made since the machine was made, those of a pair of places that
// was written before included: of the rule, e.g. "use-after-free", or of all where it is NULL.
// Threads: safe from any thread.
CUDASIM_EXPORT_ uint64_t cudasim_report_count(const char* rule);

// Copies the report written last, cut at `size` bytes with the NUL; empty where there was none.
// Returns its length. Threads: safe from any thread.
CUDASIM_EXPORT_ size_t cudasim_last_report(char* text, size_t size);

// Names the open scopes of the calling thread for reports: `source` fills `text`, cut at `size`
// bytes with the NUL, allocates nothing and may be called in a signal handler. NULL: tmcore's,
// where the program has it. Threads: safe from any thread.
CUDASIM_EXPORT_ void cudasim_set_scope_source(void (*source)(char* text, size_t size));
// From now on other processes hold `bytes` of the memory of `device`, rounded up to 2 MiB: so much
// less is free, as cudaMemGetInfo says. 0 at first. Errors: cudaErrorInvalidDevice,
// cudaErrorMemoryAllocation (this process holds too much for that; nothing is changed).
// Threads: safe from any thread.
CUDASIM_EXPORT_ cudaError_t cudasim_occupy_memory(int device, uint64_t bytes);

//===-- Device memory -------------------------------------------------------------------------===//

// Where the host can read and write the `size` bytes of device memory at `pointer`: what a host
// function that stands in for a kernel works on. Ask when the host function is queued and pass the
// result along: by the time it runs, the program may have queued the free as well. NULL unless the
// bytes lie within one live allocation.
// Ownership: borrowed from the allocation, until it is freed in stream order.
// Threads: safe from any thread; the order of accesses is the caller's to keep, as on a device.
CUDASIM_EXPORT_ void* cudasim_device_memory(const void* pointer, size_t size);

//===-- Kernels -------------------------------------------------------------------------------===//

#define CUDASIM_MAX_RANGES 8

// What a launch does with a range, as far as the checker is told. What it may do at will conflicts
// with the writes of others, and not with what they may do.
typedef enum cudasim_access {
  CUDASIM_READS_OR_WRITES = 0,
  CUDASIM_READS = 1,
  CUDASIM_WRITES = 2,  // all of it
} cudasim_access;

// Bytes that a launch reads or writes, by the address that the program gave.
typedef struct cudasim_range {
  const void* pointer;
  size_t bytes;  // 0: none
  cudasim_access access;
} cudasim_range;

// One launch, as the functions of a kernel see it.
typedef struct cudasim_launch {
  dim3 grid;               // blocks
  dim3 block;              // threads of each
  size_t shared_bytes;     // of dynamic shared memory
  void* const* arguments;  // one pointer per parameter, to a copy
  void* const* memory;     // where the host can use the ranges, in their order; NULL in `reach`
} cudasim_launch;

// What stands in for a `__global__` function. Neither function may call the runtime.
typedef struct cudasim_kernel {
  const char* name;          // for messages
  const size_t* parameters;  // bytes of each
  size_t parameter_count;
  // Stores the memory that the launch may read or write and returns the number of ranges, at most
  // CUDASIM_MAX_RANGES. Called when the launch is queued.
  size_t (*reach)(const cudasim_launch* launch, cudasim_range* ranges);
  // Does what all threads of the block at `index` do. Blocks run one after the other.
  void (*run)(const cudasim_launch* launch, dim3 index);
} cudasim_kernel;

// Makes `function`, an address that the program uses for nothing else, a kernel that
// cudaLaunchKernel runs, for as long as the process lives, also on machines that are made later.
// A launch that reaches memory that is not in one live allocation, pageable host memory, or memory
// of another device without access to it, breaks the device with cudaErrorIllegalAddress when it
// runs. Ownership: `kernel` is copied; what it points at must last.
// Errors: cudaErrorInvalidValue (NULL, or registered before), cudaErrorMemoryAllocation.
// Threads: safe from any thread.
CUDASIM_EXPORT_ cudaError_t cudasim_register_kernel(const void* function,
                                                    const cudasim_kernel* kernel);

// Defined by the library that CUDASIM_KERNELS names, for programs that run on the stand-in library
// and know nothing of cudasim: what stands in for the kernels of these (mangled) names, up to an
// entry whose name is NULL.
CUDASIM_EXPORT_ const cudasim_kernel cudasim_kernels[];

#ifdef __cplusplus
}
#endif

#endif  // CUDASIM_CUDASIM_H_
