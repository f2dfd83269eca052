// The logging adaptor writes a line for every allocation, failure and free to a file, in the format
// of RMM's logging_resource_adaptor, which its replay benchmark and others read:
//
//   Thread,Time,Action,Pointer,Size,Stream
//   4711,09:30:12:004217,allocate,0x7f0a40000000,1000,0x55d2c0
//   4711,09:30:12:004302,free,0x7f0a40000000,1000,0x55d2c0
//   4711,09:30:12:004410,allocate failure,0x0,99999999999,0x55d2c0
//
// Thread is the system's number of the thread; Time is local, to the microsecond, with the offset
// that held when the file was opened; Size is in bytes as they were asked; Stream is the CUDA
// handle of the stream that was named or else of the allocator's own, 0x0 where there is none. A
// free that crosses streams is logged on the allocator's own, where it happens. Requests of 0 bytes
// are not seen. A second try after trimming is a line of its own, as it is a request of its own.
//
// Each line is one write to the file, so that none is lost when the program dies. A line that
// cannot be written fails no allocation: tm_logging_check tells of it.
//
// Threads: any, at once, as far as the upstream allows: the adaptor asks it with no lock held. The
// lines of one block are in order: a free is written before the block can be had again. A forked
// child goes on in the same file.
#ifndef TM_ALLOC_LOGGING_ADAPTOR_H_
#define TM_ALLOC_LOGGING_ADAPTOR_H_

#include "tm/alloc/allocator.h"
#include "tm/base/attributes.h"
#include "tm/base/status.h"

TM_EXTERN_C_BEGIN

// Creates the adaptor, with `path` as a new file, or emptied. Returns NULL on failure.
// Ownership: the caller owns one reference; the adaptor retains `upstream`. The file is closed with
//            the adaptor.
// Errors: TM_ERR_INVALID (NULL), TM_ERR_NOT_FOUND (no such folder), TM_ERR_IO, TM_ERR_NO_MEMORY.
TM_API TM_NODISCARD tm_allocator* tm_logging_adaptor_create(tm_allocator* upstream,
                                                            const char* path);

// Whether every line so far is in the file.
// Errors: TM_ERR_INVALID (NULL, or no logging adaptor), TM_ERR_IO (how many are lost, and why the
//         first was).
// Threads: safe.
TM_API TM_NODISCARD tm_status tm_logging_check(tm_allocator* logging);

TM_EXTERN_C_END

#endif  // TM_ALLOC_LOGGING_ADAPTOR_H_
