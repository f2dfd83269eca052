// Events: points in a stream's work, to wait for and to time.
//
// Every call on a NULL tm_event* is an error, never a crash.
// Threads: every function is safe from any thread and leaves the thread's current device alone.
#ifndef TM_ALLOC_EVENT_H_
#define TM_ALLOC_EVENT_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tm/alloc/stream.h"
#include "tm/base/attributes.h"
#include "tm/base/status.h"

TM_EXTERN_C_BEGIN

typedef struct CUevent_st* cudaEvent_t;  // as the CUDA toolkit declares it

// Creates an event on device `id`; `timing` makes it usable with tm_event_elapsed, at a cost.
// Returns NULL on failure.
// Ownership: the caller owns one reference.
// Errors: TM_ERR_UNAVAILABLE, TM_ERR_OUT_OF_RANGE (`id`), TM_ERR_NO_MEMORY, TM_ERR_CUDA.
TM_API TM_NODISCARD tm_event* tm_event_create(int32_t id, bool timing);

// Takes another reference and returns `event`. NULL passes through.
TM_API tm_event* tm_event_retain(tm_event* event);

// Drops a reference; the last one destroys the event, also while it is pending. NULL is a no-op.
TM_API void tm_event_release(tm_event* event);

// The CUDA handle; NULL for NULL.
TM_API cudaEvent_t tm_event_handle(const tm_event* event);

// The device the event belongs to; {TM_CPU, 0} for NULL.
TM_API tm_device tm_event_device(const tm_event* event);

enum { TM_EVENT_TEXT_SIZE = 64 };  // bytes that hold any event as text, the NUL included

// Writes "event(device 0, 0x5581c0)", "event(device 0, 0x5581c0, timing)" or "event(null)"; cuts at
// `size` bytes, the terminating NUL included.
TM_API void tm_event_text(const tm_event* event, char* text, size_t size);

// Marks what is queued on `stream` so far. Recording again moves the mark. Streams of every device
// can wait for it.
// Errors: TM_ERR_INVALID (NULL, a disowned stream, or a stream of another device),
//         TM_ERR_DEVICE_LOST, TM_ERR_CUDA.
TM_API TM_NODISCARD tm_status tm_event_record(tm_event* event, tm_stream* stream);

// Blocks the calling thread until what was recorded is done. Never recorded: returns at once.
// Errors: TM_ERR_INVALID (NULL), TM_ERR_DEVICE_LOST, TM_ERR_CUDA.
TM_API TM_NODISCARD tm_status tm_event_sync(tm_event* event);

// Stores whether what was recorded is done. Not done is no error. On failure `*out` is false.
// Errors: as tm_event_sync.
TM_API TM_NODISCARD tm_status tm_event_query(tm_event* event, bool* out);

// Stores the milliseconds between two recorded events that are done. On failure `*out` is 0.
// Errors: TM_ERR_INVALID (NULL, made without timing, never recorded, of two devices), TM_ERR_BUSY
//         (not done yet), TM_ERR_DEVICE_LOST, TM_ERR_CUDA.
TM_API TM_NODISCARD tm_status tm_event_elapsed(tm_event* start, tm_event* end, float* out);

static inline void tm_event_release_at_(tm_event** event) { tm_event_release(*event); }

// A tm_event* variable that is released at the end of its block: `tm_auto_event e = ...;`.
#define tm_auto_event __attribute__((cleanup(tm_event_release_at_))) tm_event*

TM_EXTERN_C_END

#endif  // TM_ALLOC_EVENT_H_
