// Small programs with one mistake each in the order of their work, as they are found in engines.
// Where every call does its work before it returns, all of them compute the right thing.
#ifndef TESTS_CUDASIM_WRONG_PROGRAMS_H_
#define TESTS_CUDASIM_WRONG_PROGRAMS_H_

#include <stdbool.h>
#include <stddef.h>

typedef struct wrong_program {
  const char* name;  // the mistake
  // Runs on a new machine with two devices and leaves the taking down to cudasim_reset. Whether it
  // computed the right thing; `is_right` runs it without the mistake.
  bool (*run)(bool is_right);
} wrong_program;

extern const wrong_program wrong_programs[];
extern const size_t wrong_program_count;

#endif  // TESTS_CUDASIM_WRONG_PROGRAMS_H_
