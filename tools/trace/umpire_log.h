// Umpire's replay log: one JSON object a line, in the form that its versions up to 6 write,
//
//   { "kind":"replay", "uid":7, "timestamp":1, "event": "allocate",
//     "payload": { "allocator_ref": "0x10", "size": 64 }, "result": { "memory_ptr": "0x20" } }
//
// or the later one,
//
//   {"category":"operation","name":"allocate","numeric_args":{"size":64},
//    "string_args":{"allocator_ref":"0x10","pointer":"0x20"},"tags":{"replay":"true"},"timestamp":1}
//
// allocate, deallocate and reallocate are taken, whatever allocator they name: the program's
// requests. Other events are not allocations (copies, makers of allocators, externally allocated
// memory). Lines that begin with # are comments.
//
// The old form writes an allocation twice, before and after: what has no second line failed. A
// reallocation that contains neither an allocation nor a deallocation is replayed as both. Each uid
// of the old form is a process, which becomes a thread here, with addresses of its own.
#ifndef TRACE_UMPIRE_LOG_H_
#define TRACE_UMPIRE_LOG_H_

#include <stdbool.h>
#include <stddef.h>
#include <tm/tm.h>

#include "trace/allocation_log.h"
#include "trace/log_text.h"

// Whether a log that begins with this line is one of Umpire's.
bool umpire_log_begins(log_field line);

// Reads a log's text. `file` is its name in messages.
// Ownership: the caller gives `*out` back with allocation_log_deinit.
// Errors: TM_ERR_CORRUPT ("file:line: ..."), TM_ERR_NO_MEMORY. On failure `*out` is empty.
TM_NODISCARD tm_status umpire_log_parse(const char* text, size_t size, const char* file,
                                        allocation_log* out);

#endif  // TRACE_UMPIRE_LOG_H_
