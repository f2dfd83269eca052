// Reads an allocation log of any of the known formats.
#ifndef TRACE_READ_LOG_H_
#define TRACE_READ_LOG_H_

#include <stddef.h>
#include <tm/tm.h>

#include "trace/allocation_log.h"

// "rmm", "umpire", "minimalloc"; "any" for LOG_ANY.
const char* log_format_name(log_format format);

// The format of that name; LOG_FORMATS where there is none.
log_format log_format_find(const char* name);

// Reads a log's text, in a format or, with LOG_ANY, in the one that its first line belongs to.
// `file` is its name in messages.
// Ownership: the caller gives `*out` back with allocation_log_deinit.
// Errors: TM_ERR_CORRUPT ("file:line: ..."), TM_ERR_NO_MEMORY. On failure `*out` is empty.
TM_NODISCARD tm_status allocation_log_parse(const char* text, size_t size, const char* file,
                                            log_format format, allocation_log* out);

// Reads a file. Errors: also TM_ERR_NOT_FOUND, TM_ERR_IO.
TM_NODISCARD tm_status allocation_log_read(const char* path, log_format format,
                                           allocation_log* out);

#endif  // TRACE_READ_LOG_H_
