// How tmcore calls the CUDA runtime. Private, and the one header that includes its API.
//
//   static tm_status stream_sync(const tm_stream* stream) {
//     TM_ON_DEVICE(stream->device_id);  // until the end of the block; then as it was
//     TM_TRY_CUDA(cudaStreamSynchronize(stream->handle));
//     return TM_OK;
//   }
//
// The process can lose its devices in three ways, and every call asks here whether it has:
//   - a sticky error (an illegal address, say) makes a device unusable: TM_ERR_DEVICE_LOST;
//   - the child of a fork has no CUDA when its parent used it: TM_ERR_UNAVAILABLE;
//   - the process is exiting, and the runtime is being torn down: TM_ERR_UNAVAILABLE.
// In all three a free does nothing, since the memory is gone or going.
#ifndef TM_ALLOC_CUDA_RUNTIME_H_
#define TM_ALLOC_CUDA_RUNTIME_H_

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tm/base/attributes.h"
#include "tm/base/status.h"

//===-- Errors ------------------------------------------------------------===//

// Returns from the calling function with the status of a runtime call that failed, after raising
// with CUDA's name for the error, its words and the call.
#define TM_TRY_CUDA(call) TM_TRY(tm_cuda_status_((call), #call, __FILE__, __LINE__))

// TM_OK for cudaSuccess; otherwise raises, and clears the runtime's last error, so that the
// program's own next check does not report it. A sticky error loses the device entered last.
tm_status tm_cuda_status_(cudaError_t code, const char* call, const char* file, int line);

// The same for a call whose failure nobody can be told of, such as a free: raises nothing.
void tm_cuda_ignore_(cudaError_t code);

// The same for a query: stores whether the answer was yes, and raises what is neither yes nor no.
tm_status tm_cuda_query_(cudaError_t code, bool* out, const char* call, const char* file, int line);
#define TM_CUDA_QUERY(call, out) tm_cuda_query_((call), (out), #call, __FILE__, __LINE__)

// The same for an allocation: running out of memory says who asked for how many bytes of the device
// entered last. What there is, the report says (oom_report.h).
tm_status tm_cuda_alloc_status_(cudaError_t code, const char* who, size_t size, const char* call,
                                const char* file, int line);
#define TM_CUDA_ALLOC_STATUS(who, size, call) \
  tm_cuda_alloc_status_((call), (who), (size), #call, __FILE__, __LINE__)

//===-- Devices -----------------------------------------------------------===//

// What to put back when a block that uses a device ends. All zero: nothing.
typedef struct tm_device_guard {
  bool entered;
  int32_t outer;                    // the device entered before, or -1
  int current;                      // the thread's current CUDA device before
  int32_t device_id;                // the current one since
  enum cudaStreamCaptureMode mode;  // the thread's capture mode before
} tm_device_guard;

// Makes `id` the thread's current device (where it is not already) until the end of the enclosing
// block, or returns the reason why not from the calling function. What the block calls does not
// disturb captures that other streams are in.
#define TM_ON_DEVICE(id) TM_ON_DEVICE_(id, TM_UNIQUE_(tm_guard_))
#define TM_ON_DEVICE_(id, guard)                                          \
  __attribute__((cleanup(tm_device_leave_))) tm_device_guard guard = {0}; \
  TM_TRY(tm_device_enter_((id), &guard))

// Errors: TM_ERR_OUT_OF_RANGE (no such `id`), TM_ERR_UNAVAILABLE, TM_ERR_DEVICE_LOST, TM_ERR_CUDA.
//         On error nothing was entered.
TM_NODISCARD tm_status tm_device_enter_(int32_t id, tm_device_guard* guard);
void tm_device_leave_(tm_device_guard* guard);  // does nothing where nothing was entered

// Enters a device to free something on it. False where there is nothing left to free, which raises
// nothing, and where CUDA fails.
TM_NODISCARD bool tm_device_enter_to_free_(int32_t id, tm_device_guard* guard);

// Whether device calls are possible at all; raises the reason why not. Calls CUDA only when nobody
// has before.
// Errors: TM_ERR_UNAVAILABLE, TM_ERR_OUT_OF_RANGE (`id`), TM_ERR_DEVICE_LOST.
TM_NODISCARD tm_status tm_device_check_(int32_t id);

// The same as a question: false in a forked child, in an exiting process and on a lost device.
bool tm_device_usable_(int32_t id);

// The same for the process: false in a forked child and in an exiting process.
bool tm_cuda_usable_(void);

// The thread's current device. On failure `*out` is 0.
// Errors: TM_ERR_UNAVAILABLE, TM_ERR_CUDA.
TM_NODISCARD tm_status tm_current_device_(int32_t* out);

//===-- Copies ------------------------------------------------------------===//

// Queues `count` copies in one call, in no order among themselves. The first `at_once` of them have
// sources that may be changed as soon as the call returns: no more than 64 KiB each, if pageable,
// because drivers read the rest later. A runtime before CUDA 13, which has no
// such call or one of another form, answers cudaErrorNotSupported, and nothing is queued.
static inline cudaError_t tm_cuda_copy_batch_(void** to, const void** from, size_t* sizes,
                                              size_t count, size_t at_once, cudaStream_t stream) {
#if CUDART_VERSION >= 13000
  struct cudaMemcpyAttributes attributes[2] = {
      {.srcAccessOrder = cudaMemcpySrcAccessOrderDuringApiCall},
      {.srcAccessOrder = cudaMemcpySrcAccessOrderStream},
  };
  size_t firsts[2] = {0, at_once};
  const size_t skipped = at_once == 0 ? 1 : 0;
  const size_t used = at_once == 0 || at_once == count ? 1 : 2;
  firsts[skipped] = skipped ? 0 : firsts[skipped];
  return cudaMemcpyBatchAsync((void*)to, from, sizes, count, attributes + skipped, firsts + skipped,
                              used, stream);
#else
  (void)to, (void)from, (void)sizes, (void)count, (void)at_once, (void)stream;
  return cudaErrorNotSupported;
#endif
}

//===-- Capture -----------------------------------------------------------===//

// Both are called with the stream's device entered.

// Whether work queued on `handle` would end up in a graph or break a capture. NULL (a disowned
// stream): false.
TM_NODISCARD tm_status tm_cuda_is_capturing_(cudaStream_t handle, bool* out);

// Raises TM_ERR_CAPTURING, naming `who`, where that is so.
TM_NODISCARD tm_status tm_cuda_refuse_capture_(cudaStream_t handle, const char* who);

#endif  // TM_ALLOC_CUDA_RUNTIME_H_
