// The kernels of strided copies and fills on a device.

#include "tensor/strided_copy_functions.h"
#include "tensor/strided_copy_kernel.h"

namespace {

enum { TILE_BLOCKS = 4 };  // of a multiprocessor at once: 64 registers a thread

template <int Unit, int Fills>
__global__ void __launch_bounds__(TM_STRIDED_THREADS_)
    rows_kernel(const __grid_constant__ tm_strided_copy_ p) {
  const uint64_t chunks = tm_strided_chunks_(&p);
  for (uint64_t chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x) {
    tm_strided_rows_(&p, Unit, Fills, chunk, threadIdx.x);
  }
}

template <int Element, int Load, int Store>
__global__ void __launch_bounds__(TM_STRIDED_THREADS_, TILE_BLOCKS)
    tiles_kernel(const __grid_constant__ tm_strided_copy_ p) {
  __shared__ __align__(16) char shared[TM_STRIDED_SHARED_(Element)];
  for (uint64_t index = blockIdx.x; index < p.total; index += gridDim.x) {
    const tm_strided_tile_ tile = tm_strided_tile_find_(&p, index);
    tm_strided_tile_load_(&p, &tile, Element, Load, threadIdx.x, shared);
    __syncthreads();
    tm_strided_tile_store_(&p, &tile, Element, Store, threadIdx.x, shared);
    __syncthreads();
  }
}

}  // namespace

const void* tm_strided_function_(int kind) {
  switch (kind) {
#define FUNCTIONS(unit)                                              \
  case TM_STRIDED_COPY_##unit##_:                                    \
    return reinterpret_cast<const void*>(&rows_kernel<unit, false>); \
  case TM_STRIDED_FILL_##unit##_:                                    \
    return reinterpret_cast<const void*>(&rows_kernel<unit, true>);
    TM_STRIDED_ROWS_(FUNCTIONS)
#undef FUNCTIONS
#define FUNCTIONS(element, load, store)                 \
  case TM_STRIDED_TILE_##element##_##load##_##store##_: \
    return reinterpret_cast<const void*>(&tiles_kernel<element, load, store>);
    TM_STRIDED_TILES_(FUNCTIONS)
#undef FUNCTIONS
    default:
      return nullptr;
  }
}
