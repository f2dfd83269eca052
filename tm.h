// tmcore: thread-context allocators, buffers and tensors for inference engines and CUDA kernels.
//
// This header is all of it but the opt-in <tm/check.h> and <tm/log.h>, whose macros TurboMind also
// defines.
#ifndef TM_TM_H_
#define TM_TM_H_

#include "tm/alloc/allocator.h"
#include "tm/alloc/bookkeeping.h"
#include "tm/alloc/cached.h"
#include "tm/alloc/callback.h"
#include "tm/alloc/cuda.h"
#include "tm/alloc/cuda_pool.h"
#include "tm/alloc/device.h"
#include "tm/alloc/dry.h"
#include "tm/alloc/event.h"
#include "tm/alloc/host.h"
#include "tm/alloc/pinned.h"
#include "tm/alloc/stack.h"
#include "tm/alloc/storage.h"
#include "tm/alloc/stream.h"
#include "tm/base/checked.h"
#include "tm/base/fatal.h"
#include "tm/base/status.h"
#include "tm/base/trace.h"
#include "tm/base/version.h"
#include "tm/context/context.h"
#include "tm/tensor/accessor.h"
#include "tm/tensor/archive.h"
#include "tm/tensor/buffer.h"
#include "tm/tensor/copy.h"
#include "tm/tensor/data_format.h"
#include "tm/tensor/dispatch.h"
#include "tm/tensor/dlpack.h"
#include "tm/tensor/dry.h"
#include "tm/tensor/dtype.h"
#include "tm/tensor/interval.h"
#include "tm/tensor/layout.h"
#include "tm/tensor/map.h"
#include "tm/tensor/print.h"
#include "tm/tensor/safetensors.h"
#include "tm/tensor/shape.h"
#include "tm/tensor/tensor.h"

#endif  // TM_TM_H_
