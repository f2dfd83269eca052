// Checks of CUDA calls. Opt-in: include <tm/cuda_check.h>.
//
//   TM_CUDA_CHECK(cudaMemcpyAsync(to, from, size, cudaMemcpyDefault, stream));
//   kernel<<<grid, block, 0, stream>>>(...);
//   TM_CUDA_CHECK_LAST("layer %d", i);
//
// A check that fails is fatal (tm/base/fatal.h), as in <tm/check.h>: with CUDA's name for the
// error, its words and the call. What can fail for a reason outside the program deserves a status
// instead.
//
// The header includes none of CUDA's: a cudaError_t is an int here. It is apart from <tm/check.h>
// because that is of a layer which knows no devices.
#ifndef TM_CUDA_CHECK_H_
#define TM_CUDA_CHECK_H_

#ifdef TM_CUDA_CHECK
#error "TM_CUDA_CHECK is already defined: include either tmcore's <tm/cuda_check.h> or TurboMind's."
#endif

#include "tm/base/attributes.h"

TM_EXTERN_C_BEGIN

// That a call which returns a cudaError_t succeeds; cudaErrorNotReady is no success. Evaluates the
// call once. CUDA's own record of the failure is cleared, so that a handler which goes on is not
// told of it twice. TM_CUDA_CHECK(call) TM_CUDA_CHECK(call, "format", ...)
#define TM_CUDA_CHECK(call, ...) TM_CUDA_CHECK_(call, #call, TM_UNIQUE_(tm_cuda_code_), __VA_ARGS__)

// That nothing has failed on this thread since CUDA was last asked, for use after a kernel launch:
// reports a launch that was refused, or an earlier failure that nobody looked at. What the kernel
// itself does wrong shows later, when its stream is synchronized.
// TM_CUDA_CHECK_LAST()
// TM_CUDA_CHECK_LAST("format", ...)
#define TM_CUDA_CHECK_LAST(...)                                                               \
  TM_CUDA_CHECK_(tm_cuda_take_last_error_(), "the launch, or an earlier call on this thread", \
                 TM_UNIQUE_(tm_cuda_code_), __VA_ARGS__)

//===-- What the macros use -----------------------------------------------===//

#define TM_CUDA_CHECK_(call, text, code, ...)                                   \
  do {                                                                          \
    const int code = (int)(call);                                               \
    if (TM_UNLIKELY(code != 0)) {                                               \
      tm_cuda_check_failed_(__FILE__, __LINE__, (text), code, " " __VA_ARGS__); \
    }                                                                           \
  } while (0)

// cudaGetLastError().
TM_API int tm_cuda_take_last_error_(void);

// `format` starts with a space, so that it is never empty.
TM_API TM_COLD void tm_cuda_check_failed_(const char* file, int line, const char* call, int code,
                                          const char* format, ...) TM_PRINTF(5, 6)
    __attribute__((noreturn));

TM_EXTERN_C_END

#endif  // TM_CUDA_CHECK_H_
