#include "tests/context/c_frames.h"

#include "tm/base/trace.h"
#include "tm/context/context.h"

void call_inside_c_scopes(tm_allocator* allocator, void (*function)(void* user), void* user) {
  TM_SCOPE("c");
  TM_USE_ALLOCATOR(allocator);
  TM_WITH_STREAM(NULL)
  TM_WITH_OWNED_ALLOCATOR(tm_allocator_retain(allocator)) { function(user); }
}
