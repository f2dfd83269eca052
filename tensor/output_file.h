// A file that is written from its beginning to its end: beside the one whose place it takes, so
// that there is a whole one at every time, or straight into what is no regular file. Private.
#ifndef TM_TENSOR_OUTPUT_FILE_H_
#define TM_TENSOR_OUTPUT_FILE_H_

#include "tm/base/attributes.h"
#include "tm/base/status.h"

typedef struct tm_output_file {
  int descriptor;    // to write to
  const char* name;  // as the caller has it, for messages; borrowed
  char* path;        // of the file that is replaced, links followed; NULL: written straight into
  char* scratch;     // of the one that takes its place, in the same folder; NULL likewise
} tm_output_file;

// Begins to write what will be at `path`, which must stay until the end. A regular file there
// passes its permissions on, and its owner where the system allows that. A pipe or a device is
// opened, a pipe when its reader comes. A path that means an open file (/dev/stdout,
// /proc/self/fd/7) goes on with that, where it is.
// Errors: TM_ERR_IO (what the system refuses, a link to nothing), TM_ERR_NO_MEMORY. On error
//         nothing is open and nothing was made.
TM_NODISCARD tm_status tm_output_file_open_(const char* path, tm_output_file* out);

// Ends it. With a `status` of TM_OK the file takes its place; with another it is removed, and what
// was there stays. Returns `status`, or what went wrong now.
// Errors: also TM_ERR_IO.
TM_NODISCARD tm_status tm_output_file_close_(tm_output_file* file, tm_status status);

#endif  // TM_TENSOR_OUTPUT_FILE_H_
