// A clock that is cheap to read.
#ifndef CUDASIM_TICKS_H_
#define CUDASIM_TICKS_H_

#include <stdint.h>
#include <time.h>

static inline uint64_t ticks_ns_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

// The time in ticks of unknown length: the processor's counter where it has one, else nanoseconds.
static inline uint64_t ticks_now(void) {
#ifdef __x86_64__
  return __builtin_ia32_rdtsc();
#else
  return ticks_ns_now();
#endif
}

// Makes the moment one of the two between which the length of a tick is measured.
void sim_ticks_begin(void);

// Converts a number of ticks to nanoseconds.
uint64_t sim_ticks_to_ns(uint64_t ticks);

#endif  // CUDASIM_TICKS_H_
