// Reruns code with its 1st, 2nd, ... nth allocation failing.
//
//   static tm_status create_and_release(tm_allocator* upstream) {
//     tm_allocator* stack = tm_stack_allocator_create(upstream, NULL, NULL);
//     if (!stack) return tm_last_status();
//     tm_allocator_release(stack);
//     return TM_OK;
//   }
//   Test(stack, create_survives_every_failure) { expect_survives_every_failure(create_and_release);
//   }
#ifndef TM_TESTS_SUPPORT_FAILING_H_
#define TM_TESTS_SUPPORT_FAILING_H_

#include "tm/alloc/allocator.h"
#include "tm/base/status.h"

// Allocates, uses and gives back all it takes, whether or not it succeeds. It runs on a thread of
// its own and reports by its status: assertions in it do not stop it. `upstream` is host memory
// that fails in turn with the library's own bookkeeping.
typedef tm_status (*failing_body)(tm_allocator* upstream);

// Fails the test where an allocation fails and the body succeeds all the same, returns another
// status than TM_ERR_NO_MEMORY, leaves no message, or leaves a block behind.
void expect_survives_every_failure(failing_body body);

// The same for a body that may succeed all the same, because an allocator tries a second time.
void expect_survives_every_failure_or_retries(failing_body body);

// Reruns the body with the 1st to 8th call of each function of the CUDA runtime failing. Fails the
// test where the status is not the failure's, or where a block is left behind although every
// function that frees succeeded. Skips the test on a real machine.
void expect_survives_every_cuda_failure(failing_body body);

#endif  // TM_TESTS_SUPPORT_FAILING_H_
