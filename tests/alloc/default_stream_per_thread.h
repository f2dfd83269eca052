// Adopts cudaStream_t 0 in a file that is compiled for the per-thread default stream.
#ifndef TM_TESTS_ALLOC_DEFAULT_STREAM_PER_THREAD_H_
#define TM_TESTS_ALLOC_DEFAULT_STREAM_PER_THREAD_H_

#include "tm/alloc/stream.h"

tm_stream* adopt_default_stream_per_thread(int32_t id);

#endif  // TM_TESTS_ALLOC_DEFAULT_STREAM_PER_THREAD_H_
