// Programs with one mistake each that the checker reports, whatever the schedule does, and the same
// programs without it, in which it finds nothing.
#ifndef TESTS_CUDASIM_PLANTED_BUGS_H_
#define TESTS_CUDASIM_PLANTED_BUGS_H_

#include <stdbool.h>
#include <stddef.h>

typedef struct planted_bug {
  const char* name;
  void (*run)(bool is_right);
  const char* rule;
  const char* here;   // the call that is reported
  const char* there;  // "RELATION CALL" of the other side; "" where there is none
} planted_bug;

extern const planted_bug planted_bugs[];
extern const size_t planted_bug_count;

#endif  // TESTS_CUDASIM_PLANTED_BUGS_H_
