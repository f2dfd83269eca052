// Two programs with a mistake each, as engines have them, under the schedules of cudasim.

#include <cudasim.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BYTES ((size_t)4096)

#define MUST(call)                                                  \
  do {                                                              \
    cudaError_t error_ = (call);                                    \
    if (error_ != cudaSuccess) {                                    \
      fprintf(stderr, "%s: %s\n", #call, cudaGetErrorName(error_)); \
      exit(1);                                                      \
    }                                                               \
  } while (0)

typedef struct setting {
  cudaStream_t compute;
  cudaStream_t copies;
  void* weights;          // on the device
  unsigned char* input;   // page-locked
  unsigned char* output;  // page-locked
} setting;

static setting set_up(void) {
  setting s;
  MUST(cudaStreamCreateWithFlags(&s.compute, cudaStreamNonBlocking));
  MUST(cudaStreamCreateWithFlags(&s.copies, cudaStreamNonBlocking));
  MUST(cudaMalloc(&s.weights, BYTES));
  MUST(cudaMallocHost((void**)&s.input, BYTES));
  MUST(cudaMallocHost((void**)&s.output, BYTES));
  memset(s.output, 0, BYTES);
  return s;
}

// Weights are filled in one stream and read in another; nothing but the event orders the two.
static bool read_weights(bool has_event) {
  setting s = set_up();
  cudaEvent_t filled;
  MUST(cudaEventCreateWithFlags(&filled, cudaEventDisableTiming));
  MUST(cudaMemsetAsync(s.weights, 7, BYTES, s.compute));
  MUST(cudaEventRecord(filled, s.compute));
  if (has_event) MUST(cudaStreamWaitEvent(s.copies, filled, 0));
  MUST(cudaMemcpyAsync(s.output, s.weights, BYTES, cudaMemcpyDeviceToHost, s.copies));
  MUST(cudaStreamSynchronize(s.copies));
  return s.output[0] == 7 && s.output[BYTES - 1] == 7;
}

// The next batch is written into the buffer from which the first may still be copied.
static bool upload_batches(bool waits) {
  setting s = set_up();
  memset(s.input, 1, BYTES);
  MUST(cudaMemcpyAsync(s.weights, s.input, BYTES, cudaMemcpyHostToDevice, s.copies));
  if (waits) MUST(cudaStreamSynchronize(s.copies));
  memset(s.input, 2, BYTES);
  MUST(cudaMemcpyAsync(s.output, s.weights, BYTES, cudaMemcpyDeviceToHost, s.copies));
  MUST(cudaStreamSynchronize(s.copies));
  return s.output[0] == 1 && s.output[BYTES - 1] == 1;
}

// A machine of its own for each run.
static bool run(bool (*program)(bool is_right), bool is_right, const char* schedule) {
  MUST(cudasim_configure(
      &(cudasim_options){.memory = "64MiB", .schedule = schedule, .check = "off"}));
  bool is_good = program(is_right);
  cudasim_reset();
  return is_good;
}

static bool run_seed(bool (*program)(bool is_right), bool is_right, int seed) {
  char schedule[32];
  snprintf(schedule, sizeof(schedule), "random:%d", seed);
  return run(program, is_right, schedule);
}

// Whether some of 20 seeds find the mistake, each time it is run, and none finds fault with the
// program without it.
static void try_seeds(bool (*program)(bool is_right)) {
  int found = 0;
  int found_again = 0;
  int right = 0;
  for (int seed = 1; seed <= 20; ++seed) {
    bool is_wrong = !run_seed(program, false, seed);
    found += is_wrong;
    found_again += is_wrong && !run_seed(program, false, seed);
    right += run_seed(program, true, seed);
  }
  printf("  random, with the mistake: %s\n", found ? "wrong under some of 20 seeds" : "right");
  printf("  the same seeds again:     %s\n", found_again == found ? "wrong again" : "not the same");
  printf("  random, without it:       %s\n", right == 20 ? "right under all of them" : "wrong");
}

static void try_program(const char* name, bool (*program)(bool is_right)) {
  printf("%s\n", name);
  printf("  eager, with the mistake:  %s\n", run(program, false, "eager") ? "right" : "wrong");
  try_seeds(program);
}

int main(void) {
  try_program("a missing event", read_weights);
  try_program("a buffer reused too early", upload_batches);
  return 0;
}
