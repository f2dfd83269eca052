#include "cudasim/standin/missing.h"

#include <stdio.h>

#include "cudasim/runtime.h"

int sim_missing(atomic_flag* is_told, const char* function) {
  if (!atomic_flag_test_and_set(is_told)) {
    fprintf(stderr, "cudasim: there is no %s: it returns cudaErrorNotSupported\n", function);
  }
  sim_thread()->last_error = cudaErrorNotSupported;
  return cudaErrorNotSupported;
}
