// A C function with scopes that a C++ exception is thrown through.
#ifndef TM_TESTS_CONTEXT_C_FRAMES_H_
#define TM_TESTS_CONTEXT_C_FRAMES_H_

#include "tm/alloc/allocator.h"

TM_EXTERN_C_BEGIN

// Calls `function(user)` with three entries of the context open, and a named scope.
void call_inside_c_scopes(tm_allocator* allocator, void (*function)(void* user), void* user);

TM_EXTERN_C_END

#endif  // TM_TESTS_CONTEXT_C_FRAMES_H_
