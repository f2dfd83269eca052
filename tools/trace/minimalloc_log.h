// A static planning problem in the CSV of MiniMalloc: buffers, each with a size and the times
// between which it lives, the upper one excluded:
//
//   id,lower,upper,size
//   b1,0,3,4
//   b2,3,9,4
//
// Columns may come in any order; "buffer" and "buffer_id" are other names of "id". Columns "offset"
// and "hint", a solution, are not used. As a log, each buffer is allocated at `lower` and freed at
// `upper`, by one thread; what is freed at a time is freed before anything is allocated then.
#ifndef TRACE_MINIMALLOC_LOG_H_
#define TRACE_MINIMALLOC_LOG_H_

#include <stdbool.h>
#include <stddef.h>
#include <tm/tm.h>

#include "trace/allocation_log.h"
#include "trace/log_text.h"

// Whether a file that begins with this line is such a problem.
bool minimalloc_log_begins(log_field line);

// Reads a problem's text. `file` is its name in messages. An event's line is its buffer's.
// Ownership: the caller gives `*out` back with allocation_log_deinit.
// Errors: TM_ERR_CORRUPT ("file:line: ..."), TM_ERR_NO_MEMORY. On failure `*out` is empty.
TM_NODISCARD tm_status minimalloc_log_parse(const char* text, size_t size, const char* file,
                                            allocation_log* out);

// The capacity that is part of the name of a published problem: bytes, 1048576 for
// "folder/A.1048576.csv". 0: there is none.
uint64_t minimalloc_capacity_of_name(const char* path);

#endif  // TRACE_MINIMALLOC_LOG_H_
