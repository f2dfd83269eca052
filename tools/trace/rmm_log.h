// The log of RMM's logging adaptor:
//
//   Thread,Time,Action,Pointer,Size,Stream
//   140202,10:31:07.112233,allocate,0x7f1e40000000,4096,0x0
//   140202,10:31:07.112250,allocate failure,(nil),68719476736,0x0
//   140202,10:31:07.112268,free,0x7f1e40000000,4096,0x0
//
// As its versions write it: addresses and streams with or without 0x, NULL as 0, 0x0, (nil) or
// nullptr, threads in decimal or hexadecimal, and "deallocate" for "free". Times are not used.
#ifndef TRACE_RMM_LOG_H_
#define TRACE_RMM_LOG_H_

#include <stdbool.h>
#include <stddef.h>
#include <tm/tm.h>

#include "trace/allocation_log.h"
#include "trace/log_text.h"

// Whether a log that begins with this line is one of RMM's.
bool rmm_log_begins(log_field line);

// Reads a log's text. `file` is its name in messages.
// Ownership: the caller gives `*out` back with allocation_log_deinit.
// Errors: TM_ERR_CORRUPT ("file:line: ..."), TM_ERR_NO_MEMORY. On failure `*out` is empty.
TM_NODISCARD tm_status rmm_log_parse(const char* text, size_t size, const char* file,
                                     allocation_log* out);

#endif  // TRACE_RMM_LOG_H_
