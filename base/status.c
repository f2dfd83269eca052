#include "tm/base/status.h"

#include <stdarg.h>
#include <stdio.h>

#include "tm/base/source_path.h"
#include "tm/base/trace.h"

static __thread tm_error last_error = {.file = ""};
static uint64_t failures;  // of all threads so far; read and written with __atomic

const char* tm_status_name(tm_status status) {
  switch (status) {
    case TM_OK:
      return "TM_OK";
    case TM_ERR_INVALID:
      return "TM_ERR_INVALID";
    case TM_ERR_OUT_OF_RANGE:
      return "TM_ERR_OUT_OF_RANGE";
    case TM_ERR_OVERFLOW:
      return "TM_ERR_OVERFLOW";
    case TM_ERR_NO_MEMORY:
      return "TM_ERR_NO_MEMORY";
    case TM_ERR_UNAVAILABLE:
      return "TM_ERR_UNAVAILABLE";
    case TM_ERR_NOT_FOUND:
      return "TM_ERR_NOT_FOUND";
    case TM_ERR_EXISTS:
      return "TM_ERR_EXISTS";
    case TM_ERR_BUSY:
      return "TM_ERR_BUSY";
    case TM_ERR_CORRUPT:
      return "TM_ERR_CORRUPT";
    case TM_ERR_IO:
      return "TM_ERR_IO";
    case TM_ERR_CAPTURING:
      return "TM_ERR_CAPTURING";
    case TM_ERR_CUDA:
      return "TM_ERR_CUDA";
    case TM_ERR_DEVICE_LOST:
      return "TM_ERR_DEVICE_LOST";
  }
  return "TM_ERR_UNKNOWN";
}

const tm_error* tm_last_error(void) { return &last_error; }

tm_status tm_last_status(void) { return last_error.code; }

void tm_clear_error(void) {
  last_error.code = TM_OK;
  last_error.line = 0;
  last_error.number = 0;
  last_error.file = "";
  last_error.message[0] = '\0';
  last_error.trace[0] = '\0';
}

tm_status tm_raise_(tm_status code, const char* file, int line, const char* format, ...) {
  // The message may quote the record it replaces, so it is written beside it first.
  char message[TM_ERROR_MESSAGE_SIZE];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  snprintf(last_error.message, sizeof last_error.message, "%s", message);
  last_error.code = code;
  last_error.line = line;
  last_error.number = __atomic_add_fetch(&failures, 1, __ATOMIC_RELAXED);
  last_error.file = tm_source_path_(file);
  tm_trace_text(last_error.trace, sizeof last_error.trace);
  return code;
}

void tm_restore_error_(const tm_error* error) { last_error = *error; }

tm_status tm_null_handle_(const char* what, const char* file, int line) {
  if (last_error.code != TM_OK) {
    return last_error.code;
  }
  return tm_raise_(TM_ERR_INVALID, file, line, "%s is null", what);
}
