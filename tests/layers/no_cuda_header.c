// No public header includes a CUDA header, real or simulated.

#include <tm/check.h>
#include <tm/cuda_check.h>
#include <tm/log.h>
#include <tm/tm.h>

#if defined(CUDART_VERSION) || defined(__CUDA_RUNTIME_API_H__) || defined(__DRIVER_TYPES_H__)
#error "a public header includes a CUDA header"
#endif

int main(void) { return 0; }
