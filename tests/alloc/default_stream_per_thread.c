#define CUDA_API_PER_THREAD_DEFAULT_STREAM

#include "tests/alloc/default_stream_per_thread.h"

tm_stream* adopt_default_stream_per_thread(int32_t id) { return tm_stream_adopt(NULL, id); }
