// A dlpack.h of the user's between two headers of ours, in each order that a program can have.
#include <stdint.h>
#include <tm/tensor/dlpack.h>

// What a dlpack.h declares, as far as that could meet ours.
#define DLPACK_DLPACK_H_
#ifdef __cplusplus
extern "C" {
#endif
typedef struct {
  uint32_t major;
  uint32_t minor;
} DLPackVersion;
typedef enum { kDLCPU = 1, kDLCUDA = 2, kDLCUDAHost = 3 } DLDeviceType;
typedef struct {
  DLDeviceType device_type;
  int32_t device_id;
} DLDevice;
typedef enum { kDLInt = 0U, kDLUInt = 1U, kDLFloat = 2U } DLDataTypeCode;
typedef struct {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
} DLDataType;
typedef struct {
  void* data;
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t* shape;
  int64_t* strides;
  uint64_t byte_offset;
} DLTensor;
typedef struct DLManagedTensor {
  DLTensor dl_tensor;
  void* manager_ctx;
  void (*deleter)(struct DLManagedTensor* self);
} DLManagedTensor;
typedef struct DLManagedTensorVersioned {
  DLPackVersion version;
  void* manager_ctx;
  void (*deleter)(struct DLManagedTensorVersioned* self);
  uint64_t flags;
  DLTensor dl_tensor;
} DLManagedTensorVersioned;
#ifdef __cplusplus
}
#endif

#include <tm/tensor/dlpack_abi.h>
#include <tm/tm.h>

int64_t first_size(const tm_tensor* tensor);

int64_t first_size(const tm_tensor* tensor) {
  DLManagedTensorVersioned* managed = tm_to_dlpack(tensor, TM_DLPACK_READ_ONLY);
  const bool on_host = managed && managed->dl_tensor.device.device_type == kDLCPU;
  const int64_t size = on_host ? managed->dl_tensor.shape[0] : 0;
  tm_dlpack_delete(managed);
  return size;
}
