// Thousands of random programs under every schedule. Under `random`, the seed of a program is that
// of its machine as well.

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "cudasim.h"
#include "tests/cudasim/sequence.h"

// Whether the device has all its memory again.
static int is_empty(int device) {
  size_t free;
  size_t total;
  if (cudaSetDevice(device) || cudaDeviceSynchronize() || cudaMemGetInfo(&free, &total)) return 0;
  return free == total;
}

static bool make_machine(const char* schedule, const sequence_options* o) {
  const cudasim_options machine = {.devices = o->devices, .memory = "1GiB", .schedule = schedule};
  return cudasim_configure(&machine) == cudaSuccess;
}

static int count_leaking(const sequence_options* o, const char* schedule) {
  int leaking = 0;
  for (int device = 0; device < o->devices; ++device) {
    if (is_empty(device)) continue;
    fprintf(stderr, "%s: device %d has not got all its memory back\n", schedule, device);
    ++leaking;
  }
  return leaking;
}

static void report(const char* schedule, const sequence_options* o, unsigned first, unsigned last,
                   int failed) {
  printf("%s, %d devices, %d streams, %d steps, seeds %u to %u: %d failed\n", schedule, o->devices,
         o->streams, o->steps, first, last - 1, failed);
}

static int run_with(const char* schedule, const sequence_options* o, unsigned first,
                    unsigned last) {
  if (!make_machine(schedule, o)) return 1;
  int failed = 0;
  for (unsigned seed = first; seed < last; ++seed) failed += !run_sequence(seed, o);
  failed += count_leaking(o, schedule);
  cudasim_reset();
  report(schedule, o, first, last, failed);
  return failed;
}

static int run_randomly(const sequence_options* o, unsigned first, unsigned last) {
  int failed = 0;
  for (unsigned seed = first; seed < last; ++seed) {
    char schedule[32];
    snprintf(schedule, sizeof(schedule), "random:%u", seed);
    if (!make_machine(schedule, o)) return 1;
    failed += !run_sequence(seed, o);
    failed += count_leaking(o, schedule);
    cudasim_reset();
  }
  report("random", o, first, last, failed);
  return failed;
}

// sequence_test [COUNT [FIRST_SEED]]: how many sequences of each kind.
int main(int argc, char** argv) {
  static const sequence_options kinds[] = {{1, 1, 50}, {1, 4, 100}, {2, 6, 200}, {3, 40, 300}};
  unsigned count = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 100;
  unsigned first = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 1;
  int failed = 0;
  for (int i = 0; i < 4; ++i) {
    failed += run_with("eager", &kinds[i], first, first + count);
    failed += run_with("threads", &kinds[i], first, first + count);
    failed += run_randomly(&kinds[i], first, first + count);
  }
  return failed != 0;
}
