// Tensor maps: tensors by name, in the order they were put in. Stages of an engine hand their
// inputs and outputs on in one.
//
//   tm_auto_tensor_map env = tm_tensor_map_create();
//   TM_TRY(tm_tensor_map_produce(env, "logits", &logits));   // the map's now; `logits` is null
//   ...
//   const tm_tensor* x = tm_tensor_map_at(env, "logits");    // borrowed
//   TM_TRY_TENSOR(y, tm_tensor_map_consume(env, "logits"));  // ours; the key is gone
//
// Keys are NUL-terminated, compared byte by byte, and copied; the empty string is one. Values are
// never null, but may be without elements. The metadata beside them are texts by name, which the
// file formats keep.
//
// A map remembers where it found the key that lies at an address, and what keys it had: a literal
// is found again by one comparison, and putting in and taking out the same keys takes no memory.
//
// Threads: one at a time per map; functions that take it const may run side by side.
#ifndef TM_TENSOR_MAP_H_
#define TM_TENSOR_MAP_H_

#include <stdbool.h>
#include <stdint.h>

#include "tm/base/attributes.h"
#include "tm/base/status.h"
#include "tm/tensor/tensor.h"

TM_EXTERN_C_BEGIN

typedef struct tm_tensor_map tm_tensor_map;

// A pair in a map. The key is the map's; exactly one of the others is set.
typedef struct tm_tensor_map_entry {
  const char* key;
  tm_tensor tensor;  // null in an entry of the metadata
  const char* text;  // NULL in an entry of the tensors
} tm_tensor_map_entry;

//===-- Lifetime ----------------------------------------------------------===//

// An empty map. NULL on failure.
// Ownership: the caller releases it.
// Errors: TM_ERR_NO_MEMORY.
// Threads: safe.
TM_API TM_NODISCARD tm_tensor_map* tm_tensor_map_create(void);

// Releases the tensors and the map. NULL is a no-op.
TM_API void tm_tensor_map_release(tm_tensor_map* map);

static inline void tm_tensor_map_close_(tm_tensor_map** map) { tm_tensor_map_release(*map); }

// A tm_tensor_map* variable that is released at the end of its block.
#define tm_auto_tensor_map __attribute__((cleanup(tm_tensor_map_close_))) tm_tensor_map*

//===-- Asking ------------------------------------------------------------===//

// Tensors in the map; 0 for NULL.
TM_API int64_t tm_tensor_map_size(const tm_tensor_map* map);

// False for NULL.
TM_API bool tm_tensor_map_contains(const tm_tensor_map* map, const char* key);

// The tensor of that name. A null tensor on failure, never NULL, so that chains pass it on.
// Ownership: borrowed; valid until the key is consumed or the map released.
// Errors: TM_ERR_NOT_FOUND (the message lists the keys that are there), TM_ERR_INVALID (NULL).
TM_API TM_NODISCARD const tm_tensor* tm_tensor_map_at(const tm_tensor_map* map, const char* key);

// The same, or NULL without raising where there is none.
TM_API TM_NODISCARD const tm_tensor* tm_tensor_map_try(const tm_tensor_map* map, const char* key);

// The first entry, and the one put in after `entry`; NULL where there is none.
//   for (const tm_tensor_map_entry* e = tm_tensor_map_first(map); e; e = tm_tensor_map_next(e))
// Ownership: borrowed; valid until its key is consumed or the map released.
TM_API const tm_tensor_map_entry* tm_tensor_map_first(const tm_tensor_map* map);
TM_API const tm_tensor_map_entry* tm_tensor_map_next(const tm_tensor_map_entry* entry);

//===-- Putting in and taking out -----------------------------------------===//

// Puts `*tensor` in under a new key.
// Ownership: the map takes over the reference of `*tensor`, which becomes null; of one that is
//            borrowed the map gets a reference of its own.
// Errors: TM_ERR_EXISTS (the key is there), TM_ERR_INVALID (NULL, a null tensor),
//         TM_ERR_OVERFLOW (a key of 2 GiB), TM_ERR_NO_MEMORY. On error `*tensor` and the map are
//         unchanged.
TM_API TM_NODISCARD tm_status tm_tensor_map_produce(tm_tensor_map* map, const char* key,
                                                    tm_tensor* tensor);

// Takes the tensor of that name out. Null on failure; then the map is unchanged.
// Errors: as tm_tensor_map_at, TM_ERR_INVALID (a tensor without elements: whoever consumes wants
//         values; tm_tensor_map_try_consume takes any).
TM_API TM_NODISCARD tm_tensor tm_tensor_map_consume(tm_tensor_map* map, const char* key);

// Takes the tensor of that name out; null without raising where there is none.
TM_API TM_NODISCARD tm_tensor tm_tensor_map_try_consume(tm_tensor_map* map, const char* key);

//===-- Metadata ----------------------------------------------------------===//

// Keeps a copy of `text` under a new key, which may also be that of a tensor.
// Errors: as tm_tensor_map_produce.
TM_API TM_NODISCARD tm_status tm_tensor_map_add_metadata(tm_tensor_map* map, const char* key,
                                                         const char* text);

// The text of that name, borrowed until the map is released; NULL without raising where there is
// none.
TM_API const char* tm_tensor_map_metadata(const tm_tensor_map* map, const char* key);

// As tm_tensor_map_size and tm_tensor_map_first; tm_tensor_map_next goes on from it.
TM_API int64_t tm_tensor_map_metadata_size(const tm_tensor_map* map);
TM_API const tm_tensor_map_entry* tm_tensor_map_first_metadata(const tm_tensor_map* map);

TM_EXTERN_C_END

#endif  // TM_TENSOR_MAP_H_
