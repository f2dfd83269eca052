// Random programs and what must come of them.
//
// A sequence is a program of random copies, fills, host functions, allocations and frees on several
// buffers, streams and devices, with just the events that order what must be ordered. A model in
// host memory does the same one after the other; at the end every byte must be equal.
#ifndef TESTS_CUDASIM_SEQUENCE_H_
#define TESTS_CUDASIM_SEQUENCE_H_

#include <stdbool.h>

typedef struct sequence_options {
  int devices;
  int streams;  // at most SEQUENCE_STREAMS
  int steps;    // at most SEQUENCE_STEPS
} sequence_options;

#define SEQUENCE_STREAMS 64
#define SEQUENCE_STEPS 1000

// Runs the sequence of `seed`. False, after a line on stderr, when something was not as it must be.
// Threads: any number of sequences may run at once.
bool run_sequence(unsigned seed, const sequence_options* options);

#endif  // TESTS_CUDASIM_SEQUENCE_H_
