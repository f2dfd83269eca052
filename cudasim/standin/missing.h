// Functions of the runtime API that cudasim does not have: they say so, once each. Nothing here
// knows their signatures, nor those of the functions that cudasim has.
#ifndef CUDASIM_STANDIN_MISSING_H_
#define CUDASIM_STANDIN_MISSING_H_

#include <stdatomic.h>

// Returns and records cudaErrorNotSupported; the first time, stderr says which function it was.
int sim_missing(atomic_flag* is_told, const char* function);

// What the library exports under `function` unless something else in it has that name. Whatever the
// arguments are, the caller takes them back.
#define MISSING(function)                                          \
  __attribute__((weak, visibility("default"))) int function(void); \
  int function(void) {                                             \
    static atomic_flag is_told = ATOMIC_FLAG_INIT;                 \
    return sim_missing(&is_told, #function);                       \
  }

#endif  // CUDASIM_STANDIN_MISSING_H_
