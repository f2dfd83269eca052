#include "tm/cuda_check.h"

#include <stdarg.h>
#include <stdio.h>

#include "alloc/cuda_runtime.h"
#include "tm/base/fatal.h"

enum { MESSAGE_SIZE = 256 };  // bytes of the caller's own message

int tm_cuda_take_last_error_(void) { return (int)cudaGetLastError(); }

void tm_cuda_check_failed_(const char* file, int line, const char* call, int code,
                           const char* format, ...) {
  const cudaError_t error = (cudaError_t)code;
  char message[MESSAGE_SIZE];
  va_list arguments;
  va_start(arguments, format);
  const int length = vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  tm_cuda_ignore_(error);
  // Every format starts with a space; alone, it is no message.
  tm_fatal_(file, line, "check failed: %s: %s: %s%s%s", call, cudaGetErrorName(error),
            cudaGetErrorString(error), length > 1 ? ":" : "", length > 1 ? message : "");
}
