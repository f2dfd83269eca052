// Streams: queues of work on a CUDA device, executed in order.
//
// A stream is created here, or adopted from a foreign cudaStream_t (PyTorch's, NCCL's) and then
// never destroyed by tmcore. Every call on a NULL tm_stream* is an error, never a crash.
// Threads: every function is safe from any thread and leaves the thread's current device alone.
#ifndef TM_ALLOC_STREAM_H_
#define TM_ALLOC_STREAM_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tm/alloc/device.h"
#include "tm/base/attributes.h"
#include "tm/base/status.h"

TM_EXTERN_C_BEGIN

typedef struct CUstream_st* cudaStream_t;  // as the CUDA toolkit declares it

typedef struct tm_stream tm_stream;
typedef struct tm_event tm_event;

//===-- Lifetime ----------------------------------------------------------===//

// Creates a non-blocking stream on device `id`. A lower `priority` value runs first; values
// outside the device's range are clamped by CUDA. 0 is the default priority.
// Returns NULL on failure.
// Ownership: the caller owns one reference.
// Errors: TM_ERR_UNAVAILABLE, TM_ERR_OUT_OF_RANGE (`id`), TM_ERR_NO_MEMORY, TM_ERR_CUDA.
TM_API TM_NODISCARD tm_stream* tm_stream_create(int32_t id, int priority);

// Wraps a foreign stream of device `id`, which is taken on trust where it is being captured: asking
// would end the capture. `handle` may be 0, cudaStreamLegacy or
// cudaStreamPerThread: 0 means whichever of the two the including file is compiled for. The
// per-thread stream is another queue on every thread, so what is made on it is used and freed by
// one thread.
// Returns NULL on failure.
// Ownership: the caller owns one reference; `handle` stays its maker's, who keeps it alive until
//            every allocator, buffer and captured context on it is gone, or tm_stream_disown.
// Errors: TM_ERR_UNAVAILABLE, TM_ERR_OUT_OF_RANGE (`id`), TM_ERR_INVALID (not a stream of that
//         device), TM_ERR_NO_MEMORY.
TM_API TM_NODISCARD tm_stream* tm_stream_adopt_(cudaStream_t handle, int32_t id);

static inline tm_stream* tm_stream_adopt(cudaStream_t handle, int32_t id) {
#if defined(CUDA_API_PER_THREAD_DEFAULT_STREAM) || defined(__CUDA_API_PER_THREAD_DEFAULT_STREAM)
  const uintptr_t default_stream = 2;  // cudaStreamPerThread
#else
  const uintptr_t default_stream = 1;  // cudaStreamLegacy
#endif
  return tm_stream_adopt_(handle ? handle : (cudaStream_t)default_stream, id);
}

// Waits for everything queued on an adopted stream and detaches it from its handle, which its
// owner may then destroy. Later calls on `stream` are TM_ERR_INVALID; frees ordered on it happen
// at once, since all of its work is done.
// Errors: TM_ERR_INVALID (NULL, or not adopted), TM_ERR_DEVICE_LOST, TM_ERR_CUDA.
TM_API TM_NODISCARD tm_status tm_stream_disown(tm_stream* stream);

// Takes another reference and returns `stream`. NULL passes through.
TM_API tm_stream* tm_stream_retain(tm_stream* stream);

// Drops a reference; the last one destroys a created stream once its work is done, without
// waiting for it. NULL is a no-op.
TM_API void tm_stream_release(tm_stream* stream);

//===-- What it is --------------------------------------------------------===//

// The CUDA handle, for calls of the CUDA runtime; NULL for a NULL or disowned stream.
TM_API cudaStream_t tm_stream_handle(const tm_stream* stream);

// The device the stream runs on; {TM_CPU, 0} for NULL.
TM_API tm_device tm_stream_device(const tm_stream* stream);

// The priority CUDA gave the stream.
// Errors: TM_ERR_INVALID (NULL or disowned), TM_ERR_CUDA. On failure `*out` is 0.
TM_API TM_NODISCARD tm_status tm_stream_priority(const tm_stream* stream, int* out);

// Whether the two are the same queue: the same object, or the same handle on the same device. Every
// device has default streams of its own, so those of two devices differ. Two NULLs are equal.
TM_API bool tm_stream_equal(const tm_stream* a, const tm_stream* b);

enum { TM_STREAM_TEXT_SIZE = 64 };  // bytes that hold any stream as text, the NUL included

// Writes "stream(device 1, 0x5581c0, adopted)", "stream(device 0, legacy)", "... per-thread)",
// "... disowned)" or "stream(null)"; cuts at `size` bytes, the terminating NUL included.
TM_API void tm_stream_text(const tm_stream* stream, char* text, size_t size);

// Whether work queued on the stream is being captured into a graph.
// Errors: TM_ERR_INVALID (NULL or disowned), TM_ERR_CUDA. On failure `*out` is false.
TM_API TM_NODISCARD tm_status tm_stream_is_capturing(const tm_stream* stream, bool* out);

//===-- Order -------------------------------------------------------------===//

// Blocks the calling thread until everything queued so far is done.
// Errors: TM_ERR_INVALID (NULL or disowned), TM_ERR_CAPTURING, TM_ERR_DEVICE_LOST, TM_ERR_CUDA.
TM_API TM_NODISCARD tm_status tm_stream_sync(tm_stream* stream);

// Stores whether everything queued so far is done. Not done is no error.
// Errors: as tm_stream_sync. On failure `*out` is false.
TM_API TM_NODISCARD tm_status tm_stream_query(tm_stream* stream, bool* out);

// Work queued on `stream` from here on starts after what `event`, of any device, recorded; one that
// was never recorded needs no waiting. The host does not wait.
// Errors: as tm_stream_sync; TM_ERR_DEVICE_LOST also of the event's device.
TM_API TM_NODISCARD tm_status tm_stream_wait(tm_stream* stream, tm_event* event);

// Work queued on `stream` from here on starts after all that is queued on `other` now. Equal
// streams need nothing. The host does not wait.
// Errors: as tm_stream_sync.
TM_API TM_NODISCARD tm_status tm_stream_wait_stream(tm_stream* stream, tm_stream* other);

// Calls `function(user)` once on a runtime thread, after what is queued so far and before what is
// queued later; it holds the stream up until it returns. Host memory is its to allocate, use and
// free. It must call neither CUDA nor what does: nothing of a device, stream or event, and no
// release of memory that is not the host's. It must not wait for work that may be queued behind it.
// `user` is valid until the call has been made. On failure no call is made, and none where the
// device is lost before its turn. Of a stream that is being captured, the graph gets the call.
// Errors: as tm_stream_sync, but capturing is none.
TM_API TM_NODISCARD tm_status tm_stream_call_host(tm_stream* stream, void (*function)(void* user),
                                                  void* user);

//===-- Scoped references (tm_auto_stream) --------------------------------===//

static inline void tm_stream_release_at_(tm_stream** stream) { tm_stream_release(*stream); }

// A tm_stream* variable that is released at the end of its block: `tm_auto_stream s = ...;`.
#define tm_auto_stream __attribute__((cleanup(tm_stream_release_at_))) tm_stream*

//===-- For implementers --------------------------------------------------===//

// TM_OK where memory calls may be made for `stream`: raises TM_ERR_CAPTURING, naming `who`, where
// the stream is being captured into a graph, which such a call would end up in or invalidate.
// NULL and disowned streams are not being captured.
TM_API TM_NODISCARD tm_status tm_stream_refuse_capture_(const tm_stream* stream, const char* who);

TM_EXTERN_C_END

#endif  // TM_ALLOC_STREAM_H_
