// A trace of requests: how long each prompt is and how many tokens it generates, in order of
// arrival.
#ifndef ENGINE_TRACE_H_
#define ENGINE_TRACE_H_

#include <stddef.h>
#include <stdint.h>
#include <tm/tm.h>

typedef struct trace_request {
  uint32_t prompt_tokens;     // at least 1
  uint32_t generated_tokens;  // may be 0
} trace_request;

typedef struct request_trace {
  trace_request* requests;
  size_t count;
  size_t capacity;
} request_trace;

// Reads a file with the columns of the Azure LLM inference traces, which its first line names:
//
//   TIMESTAMP,ContextTokens,GeneratedTokens
//   2023-11-16 18:15:46.6805900,374,44
//
// Timestamps must be dates that exist, in order; "+00:00" or "Z" may follow. Lines may end in CR
// LF. Ownership: the caller gives `*out` back with request_trace_deinit. Errors: TM_ERR_NOT_FOUND,
// TM_ERR_IO, TM_ERR_NO_MEMORY, TM_ERR_CORRUPT ("file:line: ...", also for
//         a trace without requests). On error `*out` is empty.
tm_status request_trace_read(const char* path, request_trace* out);

// Appends a request. On failure (TM_ERR_NO_MEMORY) the trace is as before.
tm_status request_trace_append(request_trace* trace, trace_request request);

// Frees what the trace holds and empties it.
void request_trace_deinit(request_trace* trace);

#endif  // ENGINE_TRACE_H_
