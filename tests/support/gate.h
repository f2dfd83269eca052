// Holds up a stream until the test says so, so that what is queued behind is pending for certain.
#ifndef TM_TESTS_SUPPORT_GATE_H_
#define TM_TESTS_SUPPORT_GATE_H_

#include <semaphore.h>

#include "tm/alloc/stream.h"

typedef struct gate {
  sem_t opened;
} gate;

// Queues a closed gate on `stream`, or skips the calling Criterion test where that would wait for
// ever (machine_require_threads). It stays where it is until the stream is synchronized.
void gate_close(gate* self, tm_stream* stream);

// Lets the stream pass.
void gate_open(gate* self);

#endif  // TM_TESTS_SUPPORT_GATE_H_
