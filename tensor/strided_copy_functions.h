// Where the kernels of strided copies are: on the device, or on the host for the simulated one.
// Private.
#ifndef TM_TENSOR_STRIDED_COPY_FUNCTIONS_H_
#define TM_TENSOR_STRIDED_COPY_FUNCTIONS_H_

#ifdef __cplusplus
extern "C" {
#endif

// What cudaLaunchKernel takes for a tm_strided_kind_. Its parameter is a tm_strided_copy_, its
// blocks have TM_STRIDED_THREADS_ threads, and its grid is of any size, in x alone.
const void* tm_strided_function_(int kind);

#ifdef __cplusplus
}
#endif

#endif  // TM_TENSOR_STRIDED_COPY_FUNCTIONS_H_
