#include "alloc/cuda_runtime.h"

#include <pthread.h>
#include <stdlib.h>

#include "tm/alloc/device.h"

//===-- The process -------------------------------------------------------===//

typedef enum process_state {
  PROCESS_FRESH,  // no CUDA call has succeeded yet
  PROCESS_IN_USE,
  PROCESS_FORKED,  // the child of a process that was in use
  PROCESS_EXITING,
} process_state;

static int state = PROCESS_FRESH;  // a process_state, read and written with __atomic
static pthread_mutex_t first_use_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;
static bool forks_are_watched;
static int lost[TM_MAX_DEVICES];              // the cudaError_t that lost each; with __atomic
static __thread int32_t entered_device = -1;  // the innermost device entered

static int process_now(void) { return __atomic_load_n(&state, __ATOMIC_ACQUIRE); }

// A child must not find the lock held by a thread that it does not have.
static void before_fork(void) { (void)pthread_mutex_lock(&first_use_lock); }
static void after_fork(void) { (void)pthread_mutex_unlock(&first_use_lock); }

static void enter_forked_child(void) {
  if (process_now() != PROCESS_FRESH) {
    __atomic_store_n(&state, PROCESS_FORKED, __ATOMIC_RELEASE);
  }
  after_fork();
}

static void watch_forks(void) {
  forks_are_watched = pthread_atfork(before_fork, after_fork, enter_forked_child) == 0;
}

static void stop_at_exit(void) {
  int expected = PROCESS_IN_USE;
  (void)__atomic_compare_exchange_n(&state, &expected, PROCESS_EXITING, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_RELAXED);
}

// The exit handler is registered after CUDA has been called once, so that it runs before whatever
// the runtime registered for itself.
static tm_status start_cuda(void) {
  int count = 0;
  TM_TRY_CUDA(cudaGetDeviceCount(&count));
  if (count == 0) {
    return TM_RAISE(TM_ERR_UNAVAILABLE, "cudaGetDeviceCount: there is no CUDA device");
  }
  if (!forks_are_watched || atexit(stop_at_exit) != 0) {
    return TM_RAISE(TM_ERR_NO_MEMORY, "host: no memory to register fork and exit handlers");
  }
  __atomic_store_n(&state, PROCESS_IN_USE, __ATOMIC_RELEASE);
  return TM_OK;
}

static TM_COLD tm_status use_cuda_first(void) {
  (void)pthread_once(&fork_once, watch_forks);
  pthread_mutex_lock(&first_use_lock);
  const tm_status status = process_now() == PROCESS_FRESH ? start_cuda() : TM_OK;
  pthread_mutex_unlock(&first_use_lock);
  return status;
}

// TM_OK where this process may call CUDA.
static tm_status process_check(void) {
  switch (process_now()) {
    case PROCESS_FRESH:
      return use_cuda_first();
    case PROCESS_FORKED:
      return TM_RAISE(TM_ERR_UNAVAILABLE,
                      "CUDA is not usable in the child of a fork whose parent used it; "
                      "start the child with exec, or fork before the first device call");
    case PROCESS_EXITING:
      return TM_RAISE(TM_ERR_UNAVAILABLE, "CUDA is not usable any more: the process is exiting");
    default:
      return TM_OK;
  }
}

//===-- Errors ------------------------------------------------------------===//

static bool is_lost(int32_t id) { return __atomic_load_n(&lost[id], __ATOMIC_RELAXED) != 0; }

// After these a device does nothing more in this process: CUDA returns the same from every call.
static bool is_sticky(cudaError_t code) {
  switch (code) {
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContained:
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorTensorMemoryLeak:
    case cudaErrorMpsClientTerminated:
    case cudaErrorExternalDevice:
      return true;
    default:
      return false;
  }
}

static bool is_unavailable(cudaError_t code) {
  switch (code) {
    case cudaErrorInitializationError:
    case cudaErrorCudartUnloading:
    case cudaErrorStubLibrary:
    case cudaErrorInsufficientDriver:
    case cudaErrorCallRequiresNewerDriver:
    case cudaErrorDevicesUnavailable:
    case cudaErrorIncompatibleDriverContext:
    case cudaErrorNoDevice:
    case cudaErrorDeviceNotLicensed:
    case cudaErrorStartupFailure:
    case cudaErrorNotSupported:
    case cudaErrorSystemNotReady:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorCompatNotSupportedOnDevice:
    case cudaErrorMpsConnectionFailed:
    case cudaErrorMpsServerNotReady:
    case cudaErrorMpsMaxClientsReached:
    case cudaErrorMpsMaxConnectionsReached:
      return true;
    default:
      return false;
  }
}

static bool is_capture_error(cudaError_t code) {
  return code >= cudaErrorStreamCaptureUnsupported && code <= cudaErrorStreamCaptureWrongThread;
}

static tm_status classify(cudaError_t code) {
  if (code == cudaErrorMemoryAllocation) return TM_ERR_NO_MEMORY;
  if (is_sticky(code)) return TM_ERR_DEVICE_LOST;
  if (is_unavailable(code)) return TM_ERR_UNAVAILABLE;
  return is_capture_error(code) ? TM_ERR_CAPTURING : TM_ERR_CUDA;
}

// Clears the runtime's record of a failure, and remembers a device that it loses.
static void settle_failure(cudaError_t code) {
  (void)cudaGetLastError();
  if (is_sticky(code) && entered_device >= 0) {
    int expected = 0;  // the first failure is the one to name
    (void)__atomic_compare_exchange_n(&lost[entered_device], &expected, (int)code, false,
                                      __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  }
}

static TM_COLD tm_status raise_failure(cudaError_t code, const char* call, const char* file,
                                       int line) {
  settle_failure(code);
  const tm_status status = classify(code);
  return tm_raise_(status, file, line, "%s failed with %s: %s%s", call, cudaGetErrorName(code),
                   cudaGetErrorString(code),
                   status == TM_ERR_DEVICE_LOST
                       ? " (the cause may be earlier asynchronous work; the device is unusable)"
                       : "");
}

tm_status tm_cuda_status_(cudaError_t code, const char* call, const char* file, int line) {
  return TM_LIKELY(code == cudaSuccess) ? TM_OK : raise_failure(code, call, file, line);
}

void tm_cuda_ignore_(cudaError_t code) {
  if (code != cudaSuccess) {
    settle_failure(code);
  }
}

tm_status tm_cuda_query_(cudaError_t code, bool* out, const char* call, const char* file,
                         int line) {
  *out = code == cudaSuccess;
  if (code == cudaErrorNotReady) {
    (void)cudaGetLastError();
    return TM_OK;
  }
  return tm_cuda_status_(code, call, file, line);
}

tm_status tm_cuda_alloc_status_(cudaError_t code, const char* who, size_t size, const char* call,
                                const char* file, int line) {
  if (code != cudaErrorMemoryAllocation) {
    return tm_cuda_status_(code, call, file, line);
  }
  (void)cudaGetLastError();
  return tm_raise_(TM_ERR_NO_MEMORY, file, line, "%s: device %d has no %zu bytes (%s: %s)", who,
                   (int)entered_device, size, call, cudaGetErrorName(code));
}

//===-- Devices -----------------------------------------------------------===//

static tm_status raise_lost(int32_t id) {
  const cudaError_t code = (cudaError_t)__atomic_load_n(&lost[id], __ATOMIC_RELAXED);
  return TM_RAISE(TM_ERR_DEVICE_LOST,
                  "device %d is unusable since %s: %s (the cause may be earlier asynchronous work)",
                  (int)id, cudaGetErrorName(code), cudaGetErrorString(code));
}

static TM_COLD tm_status raise_no_such_device(int32_t id) {
  int count = 0;
  tm_cuda_ignore_(cudaGetDeviceCount(&count));
  return TM_RAISE(TM_ERR_OUT_OF_RANGE, "device %d asked; there are %d, counted from 0", (int)id,
                  count);
}

tm_status tm_device_check_(int32_t id) {
  TM_TRY(process_check());
  if (id < 0 || id >= TM_MAX_DEVICES) {
    return raise_no_such_device(id);
  }
  return is_lost(id) ? raise_lost(id) : TM_OK;
}

bool tm_cuda_usable_(void) { return process_now() == PROCESS_IN_USE; }

bool tm_device_usable_(int32_t id) {
  return tm_cuda_usable_() && id >= 0 && id < TM_MAX_DEVICES && !is_lost(id);
}

static tm_status make_current(int32_t id, int previous) {
  if (previous == id) {
    return TM_OK;
  }
  const cudaError_t code = cudaSetDevice(id);
  if (code == cudaErrorInvalidDevice) {
    (void)cudaGetLastError();
    return raise_no_such_device(id);
  }
  return tm_cuda_status_(code, "cudaSetDevice(id)", __FILE__, __LINE__);
}

// Calls that CUDA forbids everywhere while any stream is captured are safe for ours: what a capture
// must not see is refused before. The exchange is its own inverse.
static void exchange_capture_mode(enum cudaStreamCaptureMode* mode) {
  tm_cuda_ignore_(cudaThreadExchangeStreamCaptureMode(mode));
}

static tm_status enter_checked(int32_t id, tm_device_guard* guard) {
  TM_TRY_CUDA(cudaGetDevice(&guard->current));
  guard->outer = entered_device;
  entered_device = id;  // a sticky error from here on is this device's
  const tm_status status = make_current(id, guard->current);
  if (status != TM_OK) {
    entered_device = guard->outer;
    return status;
  }
  guard->device_id = id;
  guard->mode = cudaStreamCaptureModeRelaxed;
  exchange_capture_mode(&guard->mode);
  guard->entered = true;
  return TM_OK;
}

tm_status tm_device_enter_(int32_t id, tm_device_guard* guard) {
  TM_TRY(tm_device_check_(id));
  return enter_checked(id, guard);
}

bool tm_device_enter_to_free_(int32_t id, tm_device_guard* guard) {
  return tm_device_usable_(id) && enter_checked(id, guard) == TM_OK;
}

void tm_device_leave_(tm_device_guard* guard) {
  if (!guard->entered) {
    return;
  }
  exchange_capture_mode(&guard->mode);
  if (guard->current != guard->device_id) {
    entered_device = guard->current;  // what fails now is that device's failure
    tm_cuda_ignore_(cudaSetDevice(guard->current));
  }
  entered_device = guard->outer;
  guard->entered = false;
}

tm_status tm_current_device_(int32_t* out) {
  *out = 0;
  TM_TRY(process_check());
  int current = 0;
  TM_TRY_CUDA(cudaGetDevice(&current));
  *out = current;
  return TM_OK;
}

//===-- Capture -----------------------------------------------------------===//

tm_status tm_cuda_is_capturing_(cudaStream_t handle, bool* out) {
  *out = false;
  if (!handle) {
    return TM_OK;
  }
  enum cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  const cudaError_t code = cudaStreamIsCapturing(handle, &status);
  // The legacy stream is not captured itself, but may not be used while a stream that is ordered
  // with it is.
  const bool implicit = code == cudaErrorStreamCaptureImplicit;
  if (implicit) {
    tm_cuda_ignore_(code);
  } else {
    TM_TRY(tm_cuda_status_(code, "cudaStreamIsCapturing(handle)", __FILE__, __LINE__));
  }
  *out = implicit || status != cudaStreamCaptureStatusNone;
  return TM_OK;
}

tm_status tm_cuda_refuse_capture_(cudaStream_t handle, const char* who) {
  bool capturing;
  TM_TRY(tm_cuda_is_capturing_(handle, &capturing));
  return capturing
             ? TM_RAISE(TM_ERR_CAPTURING, "%s: the stream is being captured into a graph", who)
             : TM_OK;
}
