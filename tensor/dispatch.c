#include "tm/tensor/dispatch.h"

#include <stdio.h>

tm_status tm_dispatch_refuse_(tm_dtype dtype, const tm_dtype* members, size_t count,
                              const char* file, int line) {
  char names[160];  // every type at once takes less
  size_t length = 0;
  for (size_t i = 0; i < count && length < sizeof names; i++) {
    length += (size_t)snprintf(names + length, sizeof names - length, i ? ", %s" : "%s",
                               tm_dtype_name(members[i]));
  }
  return tm_raise_(TM_ERR_INVALID, file, line, "dtype %s is none of %s", tm_dtype_name(dtype),
                   names);
}
