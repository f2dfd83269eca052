// What the programs with mistakes are written in: calls that have to succeed, streams and events.
#ifndef TESTS_CUDASIM_MUST_H_
#define TESTS_CUDASIM_MUST_H_

#include <stdio.h>
#include <stdlib.h>

#include "cudasim.h"

// Ends the process where `call` fails.
#define MUST(call)                                                  \
  do {                                                              \
    cudaError_t error_ = (call);                                    \
    if (error_ != cudaSuccess) {                                    \
      fprintf(stderr, "%s: %s\n", #call, cudaGetErrorName(error_)); \
      abort();                                                      \
    }                                                               \
  } while (0)

static inline cudaStream_t new_stream(void) {
  cudaStream_t stream;
  MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}

static inline cudaEvent_t new_event(void) {
  cudaEvent_t event;
  MUST(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  return event;
}

#endif  // TESTS_CUDASIM_MUST_H_
