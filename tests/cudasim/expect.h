// For tests whose cases are child processes, which Criterion is not in.
#ifndef TESTS_CUDASIM_EXPECT_H_
#define TESTS_CUDASIM_EXPECT_H_

#include <stdio.h>
#include <unistd.h>

// Says where it is and ends the process with status 1 unless `condition` holds.
#define EXPECT(condition)                                             \
  do {                                                                \
    if (!(condition)) {                                               \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
      _exit(1);                                                       \
    }                                                                 \
  } while (0)

#endif  // TESTS_CUDASIM_EXPECT_H_
