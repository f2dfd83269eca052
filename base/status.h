// Status codes and the per-thread error record: how every tmcore call reports failure.
//
// A function that makes a handle (allocator, stream, buffer, tensor, ...) returns it, or the null
// handle. Everything else that can fail returns a tm_status, with its outputs last. A failure
// leaves a record on the calling thread, which tm_last_error() shows until the next failure;
// success never touches it. Raising allocates nothing.
#ifndef TM_BASE_STATUS_H_
#define TM_BASE_STATUS_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tm/base/attributes.h"

TM_EXTERN_C_BEGIN

typedef enum tm_status {
  TM_OK = 0,
  TM_ERR_INVALID = 1,       // an argument that can never be right
  TM_ERR_OUT_OF_RANGE = 2,  // an index, offset or size beyond what is there
  TM_ERR_OVERFLOW = 3,      // a size that does not fit its integer type
  TM_ERR_NO_MEMORY = 4,     // memory is exhausted; freeing some and asking again may succeed
  TM_ERR_UNAVAILABLE = 5,   // no such device, driver, allocator or feature here
  TM_ERR_NOT_FOUND = 6,     // no such file or key
  TM_ERR_EXISTS = 7,        // the key is already there
  TM_ERR_BUSY = 8,          // in use by another thread
  TM_ERR_CORRUPT = 9,       // malformed input data
  TM_ERR_IO = 10,           // the operating system refused a read or write
  TM_ERR_CAPTURING = 11,    // not possible while a stream is being captured into a graph
  TM_ERR_CUDA = 12,         // any other failure of the CUDA runtime; the message has its name
  TM_ERR_DEVICE_LOST = 13,  // a sticky CUDA error: the device is unusable in this process
} tm_status;

enum {
  TM_ERROR_MESSAGE_SIZE = 384,  // bytes, the terminating NUL included
  TM_ERROR_TRACE_SIZE = 448,    // bytes, the terminating NUL included
};

// A thread's latest failure.
typedef struct tm_error {
  tm_status code;                       // TM_OK: no failure yet on this thread
  int32_t line;                         // where it was raised
  const char* file;                     // where it was raised, without its folders unless
                                        // TM_SRC_FULL_PATH is set; "" where there was no failure
  char message[TM_ERROR_MESSAGE_SIZE];  // who, what was asked, what is there; with units
  char trace[TM_ERROR_TRACE_SIZE];      // the open scopes, innermost first; "" where none
  uint64_t number;                      // of this failure in the process; 0: no failure yet
} tm_error;

// The constant's name, e.g. "TM_ERR_NO_MEMORY"; "TM_ERR_UNKNOWN" for a value that is no status.
TM_API const char* tm_status_name(tm_status status);

// The calling thread's error record. Never NULL.
// Ownership: borrowed; valid until the thread ends, overwritten by its next failure.
TM_API const tm_error* tm_last_error(void);

// The code of tm_last_error().
TM_API tm_status tm_last_status(void);

// Forgets the calling thread's failure: the record reads TM_OK again.
TM_API void tm_clear_error(void);

//===-- Raising -----------------------------------------------------------===//

// Fills the calling thread's record and returns `code`. A message that does not fit is cut.
// `code` must not be TM_OK.
TM_API TM_COLD tm_status tm_raise_(tm_status code, const char* file, int line, const char* format,
                                   ...) TM_PRINTF(4, 5);
#define TM_RAISE(code, ...) tm_raise_((code), __FILE__, __LINE__, __VA_ARGS__)

// The status to return for an operation on a null handle: the first failure stays on record. Where
// the record holds none, this raises TM_ERR_INVALID, naming `what` is null.
TM_API TM_COLD tm_status tm_null_handle_(const char* what, const char* file, int line);
#define TM_NULL_HANDLE(what) tm_null_handle_((what), __FILE__, __LINE__)

// Puts a record back that was copied from tm_last_error(), after something in between has failed.
TM_API void tm_restore_error_(const tm_error* error);

// Returns from the calling function with the status of `call` where that is a failure.
#define TM_TRY(call) TM_TRY_((call), TM_UNIQUE_(tm_status_))
#define TM_TRY_(call, status)           \
  do {                                  \
    const tm_status status = (call);    \
    if (TM_UNLIKELY(status != TM_OK)) { \
      return status;                    \
    }                                   \
  } while (0)

TM_EXTERN_C_END

#endif  // TM_BASE_STATUS_H_
