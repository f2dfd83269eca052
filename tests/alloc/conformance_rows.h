// The allocators that the conformance suite runs on. A new allocator adds a row; every adaptor goes
// over every row, every two of them over a few, and a stack over every adaptor.
#ifndef TM_TESTS_ALLOC_CONFORMANCE_ROWS_H_
#define TM_TESTS_ALLOC_CONFORMANCE_ROWS_H_

#include <stdbool.h>
#include <stddef.h>

#include "tm/alloc/allocator.h"

enum {
  CONFORMANCE_ROWS = 27,
  CONFORMANCE_ADAPTORS = 7,
  CONFORMANCE_PAIR_BASES = 3,  // of the rows
  CONFORMANCE_FIRST_SINGLE = CONFORMANCE_ROWS,
  CONFORMANCE_SINGLES = CONFORMANCE_ADAPTORS * CONFORMANCE_ROWS,
  CONFORMANCE_FIRST_PAIR = CONFORMANCE_FIRST_SINGLE + CONFORMANCE_SINGLES,
  CONFORMANCE_PAIRS = CONFORMANCE_ADAPTORS * CONFORMANCE_ADAPTORS * CONFORMANCE_PAIR_BASES,
  CONFORMANCE_FIRST_STACKED = CONFORMANCE_FIRST_PAIR + CONFORMANCE_PAIRS,
  CONFORMANCE_STACKED_BASES = 2,  // of the rows
  CONFORMANCE_STACKED = CONFORMANCE_ADAPTORS * CONFORMANCE_STACKED_BASES,
};

typedef struct conformance_row {
  const char* name;
  tm_allocator* (*create)(void);  // NULL after raising on failure; the caller releases
  tm_device device;
  size_t alignment;
  const char* refusal;  // says why a combination is not made, since it cannot be safe; NULL: it is
  int adaptors[2];      // over what `create` makes, the first one first; 0: none
  bool uses_device;     // needs a CUDA device
  bool has_stream;      // is ordered on a stream of its own
  bool counts;          // keeps statistics
  bool runs_out;        // of the device's memory
  bool is_process_wide;
  bool is_owned;    // one thread at a time allocates
  bool is_dry;      // has no memory
  bool is_stacked;  // with a stack over all
} conformance_row;

// The row of an index: one of an allocator, of an adaptor over one, or of a pair of adaptors. Its
// name is good until the next call.
conformance_row conformance_row_at(size_t index);

// The row's allocator, for the caller to release. NULL after raising on failure.
tm_allocator* conformance_create(const conformance_row* row);

#endif  // TM_TESTS_ALLOC_CONFORMANCE_ROWS_H_
