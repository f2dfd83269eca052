// What a batch of copies is made of. Private.
//
//   pieces   [0]---[1]---[2]---...      contiguous ranges, in the order of adding
//             | \   |
//   places   (a) (b)...                 the memories they lie in, each with a reference
#ifndef TM_TENSOR_BATCH_PIECES_H_
#define TM_TENSOR_BATCH_PIECES_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tm/alloc/device.h"
#include "tm/alloc/storage.h"
#include "tm/base/attributes.h"
#include "tm/base/status.h"
#include "tm/tensor/batch_copy.h"
#include "tm/tensor/tensor.h"

typedef struct tm_batch_place_ {
  tm_storage* storage;  // retained; NULL where none is known
  tm_device device;
  bool on_stream;   // while running: a piece of a stream's reads or writes it
  bool is_written;  // while running: such a piece writes it
} tm_batch_place_;

// Memory that running takes, kept from run to run.
typedef struct tm_batch_scratch_ {
  void* block;
  size_t capacity;  // pieces
  void** to;        // what one driver call copies
  const void** from;
  size_t* sizes;
  uint32_t* first;  // the first piece of each wave, and
  uint32_t* next;   // the next one of the same wave: index + 1; 0: none
  void* tree;       // see batch_waves.h
  size_t tree_size;
} tm_batch_scratch_;

struct tm_batch_copy {
  tm_batch_front_ front;  // must be first
  tm_batch_piece_* pieces;
  tm_batch_place_* places;
  size_t place_count;
  size_t place_capacity;
  uint64_t dry_copies;
  size_t dry_bytes;
  tm_batch_copy_counts counts;
  tm_batch_scratch_ scratch;
};

// Pieces that wait.
static inline size_t tm_batch_count_(const tm_batch_copy* batch) {
  return (size_t)(batch->front.next - batch->pieces);
}

// Pieces there is room for.
static inline size_t tm_batch_capacity_(const tm_batch_copy* batch) {
  return (size_t)(batch->front.end - batch->pieces);
}

static inline size_t tm_batch_bytes_(const tm_batch_piece_* piece) {
  return (size_t)(piece->until - piece->from);
}

static inline bool tm_batch_host_place_(const tm_batch_place_* place) {
  return place->device.type != TM_DEVICE;
}

// Whether the host does the piece.
static inline bool tm_batch_host_piece_(const tm_batch_copy* batch, const tm_batch_piece_* piece) {
  return tm_batch_host_place_(&batch->places[piece->source]) &&
         tm_batch_host_place_(&batch->places[piece->destination]);
}

// Whether the piece's source is read while its call is made, and not in the stream's order.
static inline bool tm_batch_reads_at_once_(const tm_batch_copy* batch,
                                           const tm_batch_piece_* piece) {
  return batch->places[piece->source].device.type == TM_CPU;
}

// Adds what is known to be a copy: tm_copy_check_pair_ has been satisfied, or the like.
// Errors: TM_ERR_NO_MEMORY, TM_ERR_OVERFLOW, TM_ERR_INVALID (runs of no whole bytes). On error the
//         batch is unchanged.
TM_NODISCARD tm_status tm_batch_copy_add_checked_(tm_batch_copy* batch, const tm_tensor* source,
                                                  const tm_tensor* destination);

// Opens a group where none is open, and closes the one that is.
void tm_batch_open_group_(tm_batch_copy* batch);
void tm_batch_close_group_(tm_batch_copy* batch);

// How far a batch was: what was added since can be taken back.
typedef struct tm_batch_mark_ {
  tm_batch_front_ front;
  size_t piece_count;
  size_t place_count;
  const char* last_until;  // of the last piece, which may have been continued
  uint64_t dry_copies;
  size_t dry_bytes;
} tm_batch_mark_;

tm_batch_mark_ tm_batch_copy_mark_(const tm_batch_copy* batch);
void tm_batch_copy_take_back_(tm_batch_copy* batch, const tm_batch_mark_* mark);

#endif  // TM_TENSOR_BATCH_PIECES_H_
