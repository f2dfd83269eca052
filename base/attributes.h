// Compiler attributes and small preprocessor helpers shared by every public header.
// Works in C11, C++17 and in CUDA sources, with gcc, clang and nvcc.
#ifndef TM_BASE_ATTRIBUTES_H_
#define TM_BASE_ATTRIBUTES_H_

#ifdef __cplusplus
#define TM_EXTERN_C_BEGIN extern "C" {
#define TM_EXTERN_C_END }
#else
#define TM_EXTERN_C_BEGIN
#define TM_EXTERN_C_END
#endif

// A function of the library's public interface; everything else is hidden.
#define TM_API __attribute__((visibility("default")))
// The result tells of failure or carries ownership: dropping it is a mistake.
#define TM_NODISCARD __attribute__((warn_unused_result))
// Checks a printf format against the arguments that follow it; positions count from 1.
#define TM_PRINTF(text, first) __attribute__((__format__(__printf__, text, first)))
// Out of line, laid out away from the hot code.
#define TM_COLD __attribute__((cold, noinline))

#define TM_LIKELY(x) __builtin_expect(!!(x), 1)
#define TM_UNLIKELY(x) __builtin_expect(!!(x), 0)

// A function that kernels call as well.
#ifdef __CUDACC__
#define TM_HOST_DEVICE_ __host__ __device__
#else
#define TM_HOST_DEVICE_
#endif

// Pastes after expanding both sides, so that __COUNTER__ gives a number.
#define TM_CONCAT_(a, b) TM_CONCAT2_(a, b)
#define TM_CONCAT2_(a, b) a##b
#define TM_UNIQUE_(stem) TM_CONCAT_(stem, __COUNTER__)

#endif  // TM_BASE_ATTRIBUTES_H_
