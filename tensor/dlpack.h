// DLPack: tensors handed to NumPy, PyTorch and others, and taken from them, without a copy.
//
//   DLManagedTensorVersioned* managed = tm_to_dlpack(&x, 0);  // holds a reference to x's memory
//   ...                                                       // into a capsule
//   "dltensor_versioned"
//
//   tm_auto_tensor y = tm_from_dlpack(managed, &read_only);   // its release calls the deleter
//
// There are two structs. The versioned one (DLPack 1.x) has flags; the legacy one is all that older
// programs know, NumPy 1.24 and PyTorch 1.13 among them. This header knows them by name only, so a
// dlpack.h of yours may be included before or after it; dlpack_abi.h has their fields for who has
// no dlpack.h.
//
// Types go by DLPack's codes: e4m3 is its float8_e4m3fn, the 6- and 4-bit floats have their own,
// pointer is an opaque handle. Elements narrower than a byte are packed, as DLPack has them unless
// its padded flag is set; the legacy struct cannot say which, so it carries none of them.
// TM_CPU_PINNED is its CUDA host device.
//
// Streams: the structs name none. Who hands a device tensor over makes the consumer's stream wait
// for the producer's, and who calls the deleter has ordered its own work before what the producer
// does next. docs/dlpack.md has the rules both ways.
#ifndef TM_TENSOR_DLPACK_H_
#define TM_TENSOR_DLPACK_H_

#include <stdbool.h>
#include <stdint.h>

#include "tm/base/attributes.h"
#include "tm/tensor/tensor.h"

TM_EXTERN_C_BEGIN

// NOLINTBEGIN(readability-identifier-naming): the names are DLPack's
typedef struct DLManagedTensor DLManagedTensor;
typedef struct DLManagedTensorVersioned DLManagedTensorVersioned;
// NOLINTEND(readability-identifier-naming)

//===-- Handing out -------------------------------------------------------===//

typedef enum tm_dlpack_flags {
  TM_DLPACK_READ_ONLY = 1,  // the consumer must not write
  TM_DLPACK_COPIED = 2,     // the memory was copied for the consumer, who alone has it
} tm_dlpack_flags;

// The tensor as DLPack has it: its own strides, its own data pointer (a byte offset of 0: PyTorch
// reads no other). `flags` are of tm_dlpack_flags. NULL on failure; `*tensor` is never changed.
// Ownership: the caller passes the result to one consumer, who calls its deleter once, or to
//            tm_dlpack_delete. Until then it holds a reference to the tensor's storage; memory that
//            is borrowed from outside is its owner's to keep.
// Errors: TM_ERR_INVALID (other flags; dry memory; for the legacy struct, elements narrower than a
//         byte), TM_ERR_NO_MEMORY. A null tensor leaves the earlier failure on record.
// Threads: as tm_share. The deleter may be called on any thread.
TM_API TM_NODISCARD DLManagedTensorVersioned* tm_to_dlpack(const tm_tensor* tensor, uint64_t flags);
TM_API TM_NODISCARD DLManagedTensor* tm_to_dlpack_legacy(const tm_tensor* tensor);

//===-- Taking in ---------------------------------------------------------===//

// A tensor on a producer's memory. Shape and strides are copied, nothing else is. `*read_only` says
// whether the producer forbids writing, which a tm_tensor does not know; where `read_only` is NULL
// such a tensor is refused. Null on failure, with `*read_only` false.
// Ownership: takes `managed` over; its deleter is called once, when the last reference is gone,
// after
//            what tmcore knows to use the memory (copies, tm_record_stream). On failure `managed`
//            stays the caller's and its deleter is not called.
// Errors: TM_ERR_INVALID (ndim out of 0 to 8, a shape of NULL, a negative size, a negative stride
//         that is used, no lanes, NULL or misaligned data, no such device, version 0, read-only
//         where `read_only` is NULL), TM_ERR_OVERFLOW (sizes, offsets or addresses that do not
//         fit), TM_ERR_UNAVAILABLE (what DLPack has and tmcore has not: a later major version,
//         other flags, device types, element types, lanes, padded elements), TM_ERR_NO_MEMORY.
//         `managed` of NULL leaves the earlier failure on record.
// Threads: the deleter is called on the thread of the last release.
TM_API TM_NODISCARD tm_tensor tm_from_dlpack(DLManagedTensorVersioned* managed, bool* read_only);
TM_API TM_NODISCARD tm_tensor tm_from_dlpack_legacy(DLManagedTensor* managed);

// Calls the deleter, if there is one, of a struct that nobody has taken over: what a capsule that
// was never consumed does at its end. NULL is a no-op.
TM_API void tm_dlpack_delete(DLManagedTensorVersioned* managed);
TM_API void tm_dlpack_delete_legacy(DLManagedTensor* managed);

TM_EXTERN_C_END

#endif  // TM_TENSOR_DLPACK_H_
