// The structs of DLPack 1.x, for code that reads their fields and has no dlpack.h of its own. Who
// has one includes it before this header, which then declares nothing.
#ifndef TM_TENSOR_DLPACK_ABI_H_
#define TM_TENSOR_DLPACK_ABI_H_

#include <stdint.h>

#include "tm/base/attributes.h"
#include "tm/tensor/dlpack.h"

#ifndef DLPACK_DLPACK_H_  // what every dlpack.h defines

TM_EXTERN_C_BEGIN

// NOLINTBEGIN(readability-identifier-naming): the names are DLPack's

typedef struct {
  uint32_t major;  // another layout of the structs
  uint32_t minor;  // more codes and flags
} DLPackVersion;

typedef struct {
  int32_t device_type;  // 1: host, 2: CUDA, 3: page-locked host; others are not known here
  int32_t device_id;    // ordinal; 0 on the host
} DLDevice;

typedef struct {
  uint8_t code;    // kind of number
  uint8_t bits;    // of one lane
  uint16_t lanes;  // 1 unless elements are short vectors
} DLDataType;

typedef struct {
  void* data;
  DLDevice device;
  int32_t ndim;  // rank
  DLDataType dtype;
  int64_t* shape;        // `ndim` sizes
  int64_t* strides;      // `ndim` strides in elements; NULL: compact and row-major
  uint64_t byte_offset;  // of element 0, from `data`
} DLTensor;

struct DLManagedTensor {
  DLTensor dl_tensor;
  void* manager_ctx;                       // the producer's
  void (*deleter)(DLManagedTensor* self);  // called once by the consumer; may be NULL
};

// The first three fields are where they are in every version.
struct DLManagedTensorVersioned {
  DLPackVersion version;
  void* manager_ctx;
  void (*deleter)(DLManagedTensorVersioned* self);
  uint64_t flags;  // 1: read-only, 2: the producer made a copy, 4: narrow elements take a byte each
  DLTensor dl_tensor;
};

// NOLINTEND(readability-identifier-naming)

TM_EXTERN_C_END

#endif

#endif  // TM_TENSOR_DLPACK_ABI_H_
