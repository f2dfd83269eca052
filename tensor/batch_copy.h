// Batches of copies: many small ones, submitted together.
//
//   tm_auto_batch_copy batch = tm_batch_copy_create();      // kept, and used again every step
//   ...
//   TM_WITH_COPY_GROUP(batch) {
//     for (int i = 0; i < n; i++) TM_TRY(tm_batch_copy_add(batch, &rows[i], &slots[i]));
//   }
//   TM_TRY(tm_batch_copy_run(batch));                       // on the current stream
//
// What is added waits until the batch is run. Then the device's part is one call of the driver
// (cudaMemcpyBatchAsync) instead of one for each copy; where that call is not to be had (a runtime
// before CUDA 13, the legacy stream, a stream that is being captured, copies between devices, more
// than 64 KiB of pageable memory) they are queued one by one.
//
// Order. The result is that of the same copies done one after another in the order in which they
// were added. CUDA does not order the pieces of one call, so a piece that reads or writes what an
// earlier one writes, or writes what an earlier one reads, goes into a further call behind it. What
// the host does (copies between two places on the host, and reading pageable memory) it does while
// the batch is run: where that depends on an earlier copy of the batch which a stream does, nothing
// orders the two, and running the batch is TM_ERR_INVALID. Run what was added before, wait for the
// stream, and add the rest then.
//
// Groups. Inside one, a copy that continues the one added before it, in the same storage at both
// ends, is merged into it. Neighbours in different storages are never merged, although they may lie
// side by side; nor are pointers, of which no storage is known.
//
// Memory. The batch holds a reference to what it copies from and to until it is run or cleared.
// Uses of streams are recorded as tm_copy records them, and also on pageable memory that is
// written: its last release waits, on the host, until the stream has passed. In a stream that is
// being captured nothing is copied before the graph runs, and pageable memory is read then. Arrays
// grow with the largest batch and are kept: running the same sizes again takes no memory.
//
// Dry memory is neither read nor written; its copies are counted when the batch is run.
//
// Threads: one at a time per batch.
#ifndef TM_TENSOR_BATCH_COPY_H_
#define TM_TENSOR_BATCH_COPY_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tm/alloc/device.h"
#include "tm/alloc/storage.h"
#include "tm/base/attributes.h"
#include "tm/base/status.h"
#include "tm/tensor/buffer.h"
#include "tm/tensor/tensor.h"

TM_EXTERN_C_BEGIN

typedef struct tm_batch_copy tm_batch_copy;

// What a batch has done since it was made, dry copies left out.
typedef struct tm_batch_copy_counts {
  uint64_t added;   // copies that were run, as they were added
  uint64_t pieces;  // contiguous ranges they were done as: more where strided, fewer where merged
  uint64_t calls;   // calls of the driver that queued them; the host's own part takes none
} tm_batch_copy_counts;

//===-- Lifetime ----------------------------------------------------------===//

// A batch without copies. NULL on failure.
// Ownership: the caller releases it.
// Errors: TM_ERR_NO_MEMORY.
// Threads: safe.
TM_API TM_NODISCARD tm_batch_copy* tm_batch_copy_create(void);

// Releases the batch; copies that were not run are dropped. NULL is a no-op.
TM_API void tm_batch_copy_release(tm_batch_copy* batch);

static inline void tm_batch_copy_close_(tm_batch_copy** batch) { tm_batch_copy_release(*batch); }

// A tm_batch_copy* variable that is released at the end of its block.
#define tm_auto_batch_copy __attribute__((cleanup(tm_batch_copy_close_))) tm_batch_copy*

//===-- Adding ------------------------------------------------------------===//

// Adds the copy of the elements of `source` to `destination`, of one shape and one dtype. Layouts
// may be strided: every contiguous run is a piece of its own. No elements: nothing is added.
// Ownership: the batch holds a reference to both memories until it is run or cleared, one however
//            many copies lie in them. Memory that is borrowed from outside is its owner's to keep
//            until then.
// Errors: TM_ERR_INVALID (null; shapes or dtypes differ; the two overlap; elements of the
//         destination overlap each other; a run of elements narrower than a byte that is no whole
//         number of bytes), TM_ERR_NO_MEMORY, TM_ERR_OVERFLOW (2^32 pieces). On error the batch is
//         unchanged.
TM_API TM_NODISCARD tm_status tm_batch_copy_add(tm_batch_copy* batch, const tm_tensor* source,
                                                const tm_tensor* destination);

// The same for buffers of one size and dtype. Where the copy before was between the same two
// storages, this is a few comparisons and stores, inlined.
TM_NODISCARD static inline tm_status tm_batch_copy_add_buffer(tm_batch_copy* batch,
                                                              const tm_buffer* source,
                                                              const tm_buffer* destination);

// The same for the first `count` elements of buffers of one dtype.
// Errors: also TM_ERR_OUT_OF_RANGE (more than either has), TM_ERR_INVALID (`count` is negative;
//         elements narrower than a byte that do not end at a whole one).
TM_NODISCARD static inline tm_status tm_batch_copy_add_buffer_n(tm_batch_copy* batch,
                                                                const tm_buffer* source,
                                                                int64_t count,
                                                                const tm_buffer* destination);

// Adds the copy of `count` elements between pointers to one type and returns the end of the copy,
// `destination + count`, typed as `destination`; NULL on failure. The pointers may be to host,
// pinned or device memory, which the caller keeps until the stream has passed the batch.
// Errors: TM_ERR_INVALID (`count` is negative, NULL with a count above 0, and as above),
//         TM_ERR_OVERFLOW, TM_ERR_NO_MEMORY, TM_ERR_CUDA.
#define TM_BATCH_COPY_ADD_N(batch, source, count, destination) \
  ((__typeof__(&*(destination)))tm_batch_copy_add_n_(          \
      (batch), (1 ? (source) : (destination)), (count), sizeof *(destination), (destination)))
TM_API TM_NODISCARD void* tm_batch_copy_add_n_(tm_batch_copy* batch, const void* source,
                                               int64_t count, size_t element, void* destination);

//===-- Groups ------------------------------------------------------------===//

// Opens and closes a group of `batch`. TM_WITH_COPY_GROUP(batch) { ... } is the two of them round a
// block, closed on every way out; there a group that cannot be opened is fatal, since no status can
// say so.
// Errors: TM_ERR_INVALID (NULL; a group is open already, or none is).
TM_API TM_NODISCARD tm_status tm_batch_copy_begin_group(tm_batch_copy* batch);
TM_API TM_NODISCARD tm_status tm_batch_copy_end_group(tm_batch_copy* batch);

#define TM_WITH_COPY_GROUP(batch) \
  TM_WITH_COPY_GROUP_(batch, TM_UNIQUE_(tm_once_), TM_UNIQUE_(tm_group_))
#define TM_WITH_COPY_GROUP_(batch, once, group)                                          \
  for (int once = 1; once;)                                                              \
    for (__attribute__((cleanup(tm_batch_copy_leave_group_)))                            \
         tm_batch_copy* group = tm_batch_copy_enter_group_((batch), __FILE__, __LINE__); \
         once && (once = 0, group != NULL);)

TM_API tm_batch_copy* tm_batch_copy_enter_group_(tm_batch_copy* batch, const char* file, int line);
TM_API void tm_batch_copy_leave_group_(tm_batch_copy** batch);

//===-- Running -----------------------------------------------------------===//

// Does the copies: the host's own before it returns, the others on the context's current stream,
// which is needed for those only. Then the batch is without copies and can be used again. After it
// returns, pageable memory that was a source may be changed at once, everything else once the
// stream has passed. A batch without copies needs nothing.
// Errors: TM_ERR_INVALID (a group is open; a stream of another device, as tm_copy; what the host
//         does depends on what the stream does), TM_ERR_UNAVAILABLE (no current stream),
//         TM_ERR_NO_MEMORY, TM_ERR_DEVICE_LOST, TM_ERR_CUDA. On error the batch keeps all its
//         copies, and nothing was copied; except where CUDA refuses a call that queues some: then
//         the host's own are done, the stream was waited for, and some of its may have been done.
TM_API TM_NODISCARD tm_status tm_batch_copy_run(tm_batch_copy* batch);

// Drops the copies that wait. A group stays open. NULL is a no-op.
TM_API void tm_batch_copy_clear(tm_batch_copy* batch);

// Pieces that wait, dry ones left out; 0 for NULL.
TM_API size_t tm_batch_copy_size(const tm_batch_copy* batch);

// All zero for NULL.
TM_API tm_batch_copy_counts tm_batch_copy_counted(const tm_batch_copy* batch);

//===-- What the inline functions use -------------------------------------===//

// A contiguous range that is to be copied. Private.
typedef struct tm_batch_piece_ {
  const char* from;
  const char* until;  // the end of what is read, behind `from`
  char* to;
  uint32_t source;       // index of the memory that is read,
  uint32_t destination;  // and written
  uint32_t wave;         // while running: the driver call it goes into, from 1; 0: the host's
} tm_batch_piece_;

// What every batch begins with: the copy that was added last, so that one like it need only be
// compared with that. Private.
typedef struct tm_batch_front_ {
  tm_batch_piece_* next;          // where the next piece goes
  tm_batch_piece_* end;           // of the room for pieces
  const tm_storage* source;       // of the last copy, retained; NULL where the next one has to be
  const tm_storage* destination;  // looked at whatever it is: then `dtype` is null
  size_t element;                 // bytes of the dtype
  const char* until;              // what continues the last piece begins here; NULL: nothing does
  const char* limit;              // where that would reach what the piece writes, or the reverse
  size_t distance;                // from what the piece reads to what it writes
  uint64_t continued;             // copies that wait, beyond one for each piece; or modulo 2^64
  uint32_t source_index;
  uint32_t destination_index;
  uint8_t dtype;
  bool in_group;
} tm_batch_front_;

TM_API tm_status tm_batch_copy_add_buffer_(tm_batch_copy* batch, const tm_buffer* source,
                                           const tm_buffer* destination);
TM_API tm_status tm_batch_copy_add_buffer_n_(tm_batch_copy* batch, const tm_buffer* source,
                                             int64_t count, const tm_buffer* destination);

// Whether copies of `source` to `destination` differ from the last one in addresses and sizes only.
// A storage is on one device.
static inline bool tm_batch_is_like_last_(const tm_batch_front_* last, const tm_buffer* source,
                                          const tm_buffer* destination) {
  return source->storage == last->source && destination->storage == last->destination &&
         source->dtype == last->dtype && destination->dtype == last->dtype;
}

// Adds a copy like the last one, of elements that both sides have; false where that takes more:
// memory, a closer look or an error.
static inline bool tm_batch_add_like_last_(tm_batch_front_* last, const void* source, int64_t count,
                                           void* destination) {
  const uintptr_t from = (uintptr_t)source;
  const uintptr_t until = from + (size_t)count * last->element;  // within the storage
  const size_t ahead = (uintptr_t)destination - from;            // or 2^64 minus how far behind
  const size_t behind = 0 - ahead;
  if (from == (uintptr_t)last->until && ahead == last->distance && until > from &&
      until <= (uintptr_t)last->limit) {
    last->until = (const char*)until;
    last->next[-1].until = (const char*)until;
    last->continued++;
    return true;
  }
  if (until <= from || until - from > ahead || until - from > behind || last->next == last->end) {
    return false;  // no elements, an overlap, no room
  }
  tm_batch_piece_* const piece = last->next++;
  piece->from = (const char*)from;
  piece->until = (const char*)until;
  piece->to = (char*)destination;
  piece->source = last->source_index;
  piece->destination = last->destination_index;
  if (last->in_group) {
    last->until = (const char*)until;
    last->limit = (const char*)(from + (ahead < behind ? ahead : behind));
    last->distance = ahead;
  }
  return true;
}

static inline tm_status tm_batch_copy_add_buffer(tm_batch_copy* batch, const tm_buffer* source,
                                                 const tm_buffer* destination) {
  tm_batch_front_* const last = (tm_batch_front_*)(void*)batch;
  if (TM_LIKELY(last && tm_batch_is_like_last_(last, source, destination) &&
                source->size == destination->size &&
                tm_batch_add_like_last_(last, source->data, source->size, destination->data))) {
    return TM_OK;
  }
  return tm_batch_copy_add_buffer_(batch, source, destination);
}

static inline tm_status tm_batch_copy_add_buffer_n(tm_batch_copy* batch, const tm_buffer* source,
                                                   int64_t count, const tm_buffer* destination) {
  tm_batch_front_* const last = (tm_batch_front_*)(void*)batch;
  if (TM_LIKELY(last && tm_batch_is_like_last_(last, source, destination) &&
                (uint64_t)count <= (uint64_t)source->size && count <= destination->size &&
                tm_batch_add_like_last_(last, source->data, count, destination->data))) {
    return TM_OK;
  }
  return tm_batch_copy_add_buffer_n_(batch, source, count, destination);
}

TM_EXTERN_C_END

#endif  // TM_TENSOR_BATCH_COPY_H_
