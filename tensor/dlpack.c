// An export is one block:
//
//   | DLManagedTensor or ...Versioned | storage | sizes | strides |
//     ^ what the consumer holds         ^ retained  ^ shape ^ strides of its DLTensor
//
// An import is adopted memory whose deleter is the producer's. Everything is checked before the
// memory is adopted, which comes last: until then nothing is the producer's to undo.

#include "tm/tensor/dlpack.h"

#include <inttypes.h>
#include <stddef.h>

#include "tensor/memory.h"
#include "tm/alloc/bookkeeping.h"
#include "tm/tensor/dlpack_abi.h"

// The layout in memory is the agreement; other programs were compiled against their own headers.
_Static_assert(sizeof(DLTensor) == 48 && offsetof(DLTensor, byte_offset) == 40, "DLTensor");
_Static_assert(sizeof(struct DLManagedTensor) == 64, "DLManagedTensor");
_Static_assert(sizeof(struct DLManagedTensorVersioned) == 80, "DLManagedTensorVersioned");
_Static_assert(offsetof(struct DLManagedTensorVersioned, dl_tensor) == 32, "dl_tensor");

enum {
  VERSION_MAJOR = 1,
  VERSION_MINOR = 1,  // the first with the narrow floats
  FLAG_PADDED = 4,
  FLAGS_OUT = TM_DLPACK_READ_ONLY | TM_DLPACK_COPIED,
  FLAGS_IN = FLAGS_OUT | FLAG_PADDED,
};

//===-- Codes -------------------------------------------------------------===//

static const int32_t device_codes[TM_DEVICE_TYPES] = {
    [TM_CPU] = 1,
    [TM_CPU_PINNED] = 3,
    [TM_DEVICE] = 2,
};

static tm_status read_dtype(DLDataType from, tm_dtype* out) {
  if (from.lanes == 0) {
    return TM_RAISE(TM_ERR_INVALID, "DLPack: elements of 0 lanes");
  }
  if (from.lanes == 1 && tm_dtype_from_dlpack(from.code, from.bits, out) == TM_OK) {
    return TM_OK;
  }
  return TM_RAISE(TM_ERR_UNAVAILABLE,
                  "DLPack: no dtype here for elements of type code %u, %u bits, %u lanes",
                  from.code, from.bits, from.lanes);
}

// Every type of a tensor has a counterpart.
static DLDataType describe_dtype(tm_dtype dtype) {
  DLDataType described = {0, 0, 1};
  (void)!tm_dtype_to_dlpack(dtype, &described.code, &described.bits);
  return described;
}

// Producers disagree on the id of host memory, which says nothing.
static tm_status read_device(DLDevice from, tm_device* out) {
  for (int32_t type = 0; type < TM_DEVICE_TYPES; type++) {
    if (device_codes[type] == from.device_type) {
      *out = tm_device_make((tm_device_type)type, type == TM_DEVICE ? from.device_id : 0);
      return TM_OK;
    }
  }
  return TM_RAISE(TM_ERR_UNAVAILABLE,
                  "DLPack: memory on a device of type %" PRId32
                  ", known are 1 (cpu), 2 (cuda) and 3 (cuda host)",
                  from.device_type);
}

//===-- Handing out -------------------------------------------------------===//

typedef struct exported {
  union {
    DLManagedTensor legacy;
    DLManagedTensorVersioned versioned;
  } managed;
  tm_storage* storage;  // retained; NULL where the tensor has none
  int64_t dims[];       // sizes, then strides
} exported;

static exported* export_make(const tm_tensor* tensor) {
  if (!tm_ok(tensor)) {
    (void)TM_NULL_HANDLE("a tensor");
    return NULL;
  }
  if (tm_is_dry(tensor)) {
    (void)TM_RAISE(TM_ERR_INVALID, "DLPack: dry memory has no contents to hand out");
    return NULL;
  }
  const size_t dims = 2 * (size_t)tm_rank(tensor);
  exported* made =
      tm_bookkeeping_alloc(sizeof *made + dims * sizeof *made->dims, "a tensor for DLPack");
  if (made) {
    made->storage = tm_storage_retain(tensor->storage);
  }
  return made;
}

static void export_destroy(exported* self) {
  tm_storage* storage = self->storage;
  tm_bookkeeping_free(self);
  tm_storage_release(storage);
}

static DLTensor export_describe(exported* self, const tm_tensor* tensor) {
  const int32_t rank = tm_rank(tensor);
  for (int32_t i = 0; i < rank; i++) {
    self->dims[i] = tensor->layout.shape[i];
    self->dims[rank + i] = tensor->layout.stride[i];
  }
  return (DLTensor){
      .data = tensor->data,
      .device = {device_codes[tensor->device.type], tensor->device.id},
      .ndim = rank,
      .dtype = describe_dtype(tm_dtype_of(tensor)),
      .shape = self->dims,
      .strides = self->dims + rank,
  };
}

static void export_delete(DLManagedTensorVersioned* managed) {
  export_destroy(managed->manager_ctx);
}

static void export_delete_legacy(DLManagedTensor* managed) { export_destroy(managed->manager_ctx); }

DLManagedTensorVersioned* tm_to_dlpack(const tm_tensor* tensor, uint64_t flags) {
  if (flags & ~(uint64_t)FLAGS_OUT) {
    (void)TM_RAISE(TM_ERR_INVALID, "tm_to_dlpack: flags 0x%" PRIx64 ", there are 0x%x", flags,
                   (unsigned)FLAGS_OUT);
    return NULL;
  }
  exported* made = export_make(tensor);
  if (!made) {
    return NULL;
  }
  made->managed.versioned = (DLManagedTensorVersioned){
      .version = {VERSION_MAJOR, VERSION_MINOR},
      .manager_ctx = made,
      .deleter = export_delete,
      .flags = flags,
      .dl_tensor = export_describe(made, tensor),
  };
  return &made->managed.versioned;
}

// The legacy struct has no flag for it, and programs have read it both ways.
static tm_status check_legacy(int bits) {
  return bits % 8 == 0
             ? TM_OK
             : TM_RAISE(TM_ERR_INVALID,
                        "DLPack: the legacy struct cannot say how elements of %d bits are packed",
                        bits);
}

DLManagedTensor* tm_to_dlpack_legacy(const tm_tensor* tensor) {
  if (check_legacy(tm_dtype_bits(tm_dtype_of(tensor))) != TM_OK) {
    return NULL;
  }
  exported* made = export_make(tensor);
  if (!made) {
    return NULL;
  }
  made->managed.legacy = (DLManagedTensor){
      .dl_tensor = export_describe(made, tensor),
      .manager_ctx = made,
      .deleter = export_delete_legacy,
  };
  return &made->managed.legacy;
}

//===-- Taking in ---------------------------------------------------------===//

// Whether the strides are some that a layout of the shape can have.
static bool strides_fit(const DLTensor* from, const tm_shape* shape) {
  int64_t last = 0;
  for (int32_t i = 0; i < shape->rank; i++) {
    const int64_t steps = shape->dim[i] > 1 ? shape->dim[i] - 1 : 0;
    int64_t reach;
    if (from->strides[i] < 0 || __builtin_mul_overflow(steps, from->strides[i], &reach) ||
        __builtin_add_overflow(last, reach, &last)) {
      return false;
    }
  }
  return last != INT64_MAX;
}

// Strides are looked at only where an index above 0 exists: elsewhere producers write anything.
// Those that mean something are kept all the same.
static tm_status read_strides(const DLTensor* from, tm_layout* layout) {
  tm_shape shape = tm_layout_shape(layout);
  tm_shape stride = shape;
  if (tm_layout_size(layout) == 0 && !strides_fit(from, &shape)) {
    return TM_OK;  // row-major, as it was made
  }
  for (int32_t i = 0; i < shape.rank; i++) {
    const bool is_taken = shape.dim[i] > 1 || from->strides[i] >= 0;
    stride.dim[i] = is_taken ? from->strides[i] : layout->stride[i];
  }
  return tm_layout_make_strided(shape, stride, layout);
}

static tm_status read_layout(const DLTensor* from, tm_layout* out) {
  if (from->ndim < 0 || from->ndim > TM_MAX_RANK) {
    return TM_RAISE(TM_ERR_INVALID, "DLPack: %" PRId32 " dimensions, there may be 0 to %d",
                    from->ndim, TM_MAX_RANK);
  }
  if (from->ndim > 0 && !from->shape) {
    return TM_RAISE(TM_ERR_INVALID, "DLPack: a tensor of %" PRId32 " dimensions without a shape",
                    from->ndim);
  }
  TM_TRY(tm_layout_make(tm_shape_make(from->ndim, from->shape), out));
  return from->ndim > 0 && from->strides ? read_strides(from, out) : TM_OK;
}

// Where element 0 is, and how many bytes from there on the layout reaches.
static tm_status read_data(const DLTensor* from, const tm_tensor* tensor, void** data,
                           size_t* bytes) {
  const int64_t reached = tm_layout_cosize(&tensor->layout);
  uintptr_t end;
  uintptr_t address;
  *data = NULL;
  TM_TRY(tm_dtype_bytes(tm_dtype_of(tensor), reached, bytes));
  if (*bytes == 0) {
    return TM_OK;
  }
  if (!from->data) {
    return TM_RAISE(TM_ERR_INVALID, "DLPack: %" PRId64 " elements at NULL",
                    tm_layout_size(&tensor->layout));
  }
  if (__builtin_add_overflow((uintptr_t)from->data, from->byte_offset, &address) ||
      __builtin_add_overflow(address, *bytes, &end)) {
    return TM_RAISE(TM_ERR_OVERFLOW,
                    "DLPack: %zu bytes at %p + %" PRIu64 " are beyond all addresses", *bytes,
                    from->data, from->byte_offset);
  }
  *data = (char*)from->data + from->byte_offset;
  return TM_OK;
}

// All of the tensor but its storage.
static tm_status read_tensor(const DLTensor* from, tm_tensor* out, size_t* bytes) {
  tm_dtype dtype = TM_DTYPE_NULL;
  TM_TRY(read_dtype(from->dtype, &dtype));
  TM_TRY(read_device(from->device, &out->device));
  TM_TRY(read_layout(from, &out->layout));
  out->dtype = (uint8_t)dtype;
  TM_TRY(read_data(from, out, &out->data, bytes));
  return tm_memory_check_(out->data, *bytes, dtype, out->device);
}

static tm_status check_versioned(const DLManagedTensorVersioned* managed, bool takes_read_only) {
  if (managed->version.major != VERSION_MAJOR) {  // then no other field is where it is here
    return TM_RAISE(managed->version.major == 0 ? TM_ERR_INVALID : TM_ERR_UNAVAILABLE,
                    "DLPack: a struct of version %" PRIu32 ".%" PRIu32 ", known is %d",
                    managed->version.major, managed->version.minor, VERSION_MAJOR);
  }
  if (managed->flags & ~(uint64_t)FLAGS_IN) {
    return TM_RAISE(TM_ERR_UNAVAILABLE, "DLPack: flags 0x%" PRIx64 ", known are 0x%x",
                    managed->flags, (unsigned)FLAGS_IN);
  }
  if (managed->flags & FLAG_PADDED && managed->dl_tensor.dtype.bits % 8 != 0) {
    return TM_RAISE(TM_ERR_UNAVAILABLE, "DLPack: elements of %u bits padded to whole bytes",
                    managed->dl_tensor.dtype.bits);
  }
  if (managed->flags & TM_DLPACK_READ_ONLY && !takes_read_only) {
    return TM_RAISE(TM_ERR_INVALID, "DLPack: a read-only tensor, and the caller does not ask");
  }
  return TM_OK;
}

static void release_versioned(void* data, size_t size, void* user) {
  (void)data;
  (void)size;
  tm_dlpack_delete(user);
}

static void release_legacy(void* data, size_t size, void* user) {
  (void)data;
  (void)size;
  tm_dlpack_delete_legacy(user);
}

// Also a tensor without elements has a storage: the producer waits for its deleter.
static tm_tensor import(const DLTensor* from, tm_deleter deleter, void* managed) {
  tm_tensor tensor = tm_null();
  size_t bytes;
  if (read_tensor(from, &tensor, &bytes) != TM_OK ||
      tm_storage_adopt(tensor.data, bytes, deleter, managed, &tensor.storage) != TM_OK) {
    return tm_null();
  }
  return tensor;
}

tm_tensor tm_from_dlpack(DLManagedTensorVersioned* managed, bool* read_only) {
  if (read_only) {
    *read_only = false;
  }
  if (!managed) {
    (void)TM_NULL_HANDLE("a tensor of DLPack");
    return tm_null();
  }
  if (check_versioned(managed, read_only != NULL) != TM_OK) {
    return tm_null();
  }
  tm_tensor tensor = import(&managed->dl_tensor, release_versioned, managed);
  if (read_only && tm_ok(&tensor)) {
    *read_only = (managed->flags & TM_DLPACK_READ_ONLY) != 0;
  }
  return tensor;
}

tm_tensor tm_from_dlpack_legacy(DLManagedTensor* managed) {
  if (!managed) {
    (void)TM_NULL_HANDLE("a tensor of DLPack");
    return tm_null();
  }
  if (check_legacy(managed->dl_tensor.dtype.bits) != TM_OK) {
    return tm_null();
  }
  return import(&managed->dl_tensor, release_legacy, managed);
}

void tm_dlpack_delete(DLManagedTensorVersioned* managed) {
  if (managed && managed->deleter) {
    managed->deleter(managed);
  }
}

void tm_dlpack_delete_legacy(DLManagedTensor* managed) {
  if (managed && managed->deleter) {
    managed->deleter(managed);
  }
}
