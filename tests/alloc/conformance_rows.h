// The allocators that the conformance suite runs on. A new allocator adds a row.
#ifndef TM_TESTS_ALLOC_CONFORMANCE_ROWS_H_
#define TM_TESTS_ALLOC_CONFORMANCE_ROWS_H_

#include <stdbool.h>
#include <stddef.h>

#include "tm/alloc/allocator.h"

enum { CONFORMANCE_ROWS = 27 };

typedef struct conformance_row {
  const char* name;
  tm_allocator* (*create)(void);  // NULL after raising on failure; the caller releases
  tm_device device;
  size_t alignment;
  bool uses_device;  // needs a CUDA device
  bool has_stream;   // is ordered on a stream of its own
  bool counts;       // keeps statistics
  bool runs_out;     // of the device's memory
  bool is_process_wide;
  bool is_owned;  // one thread at a time allocates
  bool is_dry;    // has no memory
} conformance_row;

extern const conformance_row conformance_rows[CONFORMANCE_ROWS];

#endif  // TM_TESTS_ALLOC_CONFORMANCE_ROWS_H_
