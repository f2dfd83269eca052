// What every allocator promises, asked of the rows of conformance_rows.h. Each case takes the index
// of a row.
#ifndef TM_TESTS_ALLOC_CONFORMANCE_CASES_H_
#define TM_TESTS_ALLOC_CONFORMANCE_CASES_H_

#include <stdbool.h>
#include <stddef.h>

#include "tests/alloc/conformance_rows.h"

// The first finds the statistics of allocators of the process as they begin.
#define CONFORMANCE_CASES(X)                              \
  X(statistics_add_up_and_return_to_zero)                 \
  X(says_what_it_is)                                      \
  X(keeps_statistics_or_says_that_it_does_not)            \
  X(process_wide_allocators_are_not_counted)              \
  X(every_block_is_aligned_the_first_too)                 \
  X(live_blocks_keep_what_is_written_to_them)             \
  X(live_blocks_do_not_overlap)                           \
  X(no_bytes_are_no_block)                                \
  X(huge_request_fails_cleanly)                           \
  X(null_output_is_an_error)                              \
  X(blocks_are_freed_on_any_thread)                       \
  X(storage_keeps_its_allocator_alive)                    \
  X(last_storage_is_released_on_another_thread)           \
  X(threads_use_it_at_once_unless_it_has_an_owner)        \
  X(trim_gives_back_what_is_not_in_use)                   \
  X(out_of_memory_is_an_error_and_a_free_makes_up_for_it) \
  X(works_whatever_the_current_device_is_and_leaves_it)   \
  X(serves_any_stream)

// With each allocation and each call of CUDA failing in turn.
#define CONFORMANCE_FAILURES(X)        \
  X(survives_every_failing_allocation) \
  X(survives_every_failing_cuda_call)

// Leaves a machine whose device is lost.
#define CONFORMANCE_LAST(X) X(a_lost_device_is_an_error_and_frees_do_nothing)

#define CONFORMANCE_DECLARE(name) void conformance_##name(const size_t* index);
CONFORMANCE_CASES(CONFORMANCE_DECLARE)
CONFORMANCE_FAILURES(CONFORMANCE_DECLARE)
CONFORMANCE_LAST(CONFORMANCE_DECLARE)
#undef CONFORMANCE_DECLARE

// All of them, one after the other on one machine.
void conformance_all(const size_t* index, bool with_failures);

#endif  // TM_TESTS_ALLOC_CONFORMANCE_CASES_H_
