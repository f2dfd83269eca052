// Running a batch: all that can be refused is refused first; then the host's pieces, in the order
// of adding, since none of them depends on a stream's; then the stream's, wave by wave.

#include <string.h>

#include "alloc/cuda_runtime.h"
#include "tensor/batch_pieces.h"
#include "tensor/batch_waves.h"
#include "tensor/stream_use.h"
#include "tm/alloc/bookkeeping.h"
#include "tm/base/checked.h"
#include "tm/context/context.h"
#include "tm/tensor/dry.h"

// How the stream's pieces are queued.
typedef struct lane {
  tm_stream* stream;
  cudaStream_t handle;
  int32_t device;
  uint32_t waves;
  bool one_by_one;  // the stream takes no batches
  uint64_t calls;   // made so far
} lane;

//===-- The host's pieces -------------------------------------------------===//

static bool has_stream_pieces(const tm_batch_copy* batch) {
  for (size_t i = 0; i < tm_batch_count_(batch); i++) {
    if (!tm_batch_host_piece_(batch, &batch->pieces[i])) {
      return true;
    }
  }
  return false;
}

static void copy_on_host(const tm_batch_copy* batch) {
  for (size_t i = 0; i < tm_batch_count_(batch); i++) {
    const tm_batch_piece_* piece = &batch->pieces[i];
    if (tm_batch_host_piece_(batch, piece)) {
      memcpy(piece->to, piece->from, tm_batch_bytes_(piece));
    }
  }
}

static void count_dry(const tm_batch_copy* batch) {
  size_t bytes = batch->dry_bytes;
  for (uint64_t i = 0; i < batch->dry_copies; i++) {
    tm_dry_count_(bytes);  // all at the first: only the sums are seen
    bytes = 0;
  }
}

//===-- Checks ------------------------------------------------------------===//

// Memory without elements, which is what the functions for streams look at.
static tm_tensor as_tensor(const tm_batch_place_* place) {
  tm_tensor tensor = tm_null();
  tensor.storage = place->storage;
  tensor.device = place->device;
  tensor.dtype = TM_U8;
  tensor.flags = TM_BORROWED_;
  return tensor;
}

// Checks that the stream may do the pieces, and marks the memories they lie in.
static tm_status check_places(tm_batch_copy* batch, const lane* l) {
  for (size_t i = 0; i < batch->place_count; i++) {
    batch->places[i].on_stream = false;
    batch->places[i].is_written = false;
  }
  const tm_batch_piece_* before = NULL;
  for (size_t i = 0; i < tm_batch_count_(batch); i++) {
    const tm_batch_piece_* piece = &batch->pieces[i];
    const bool again =
        before && before->source == piece->source && before->destination == piece->destination;
    before = piece;
    if (again || tm_batch_host_piece_(batch, piece)) {
      continue;
    }
    const tm_tensor from = as_tensor(&batch->places[piece->source]);
    const tm_tensor to = as_tensor(&batch->places[piece->destination]);
    bool by_peer;
    TM_TRY(tm_stream_use_check_copy_(&from, &to, l->stream, &by_peer));
    batch->places[piece->source].on_stream = true;
    batch->places[piece->destination].on_stream = true;
    batch->places[piece->destination].is_written = true;
  }
  return TM_OK;
}

// Pageable memory that is read has been read when the calls return. What is written may not have
// been: that cudaMemcpyAsync waits for it is not said of copies in a batch.
static tm_status record_use(const tm_batch_place_* place, tm_stream* stream) {
  if (place->device.type == TM_CPU) {
    return place->storage && place->is_written ? tm_storage_record_stream(place->storage, stream)
                                               : TM_OK;
  }
  const tm_tensor used = as_tensor(place);
  return tm_stream_use_record_(&used, stream);
}

static tm_status record_uses(const tm_batch_copy* batch, const lane* l) {
  for (size_t i = 0; i < batch->place_count; i++) {
    if (batch->places[i].on_stream) {
      TM_TRY(record_use(&batch->places[i], l->stream));
    }
  }
  return TM_OK;
}

// Arrays of as many elements as there may be pieces.
static tm_status reserve_calls(tm_batch_copy* batch) {
  tm_batch_scratch_* s = &batch->scratch;
  const size_t capacity = tm_batch_capacity_(batch);
  const size_t each = 2 * sizeof(void*) + sizeof(size_t) + 2 * sizeof(uint32_t);
  size_t bytes;
  if (tm_batch_count_(batch) <= s->capacity) {
    return TM_OK;
  }
  if (!tm_checked_mul(capacity, each, &bytes)) {
    return TM_RAISE(TM_ERR_OVERFLOW, "batch copy: calls for %zu pieces", capacity);
  }
  void* block = tm_bookkeeping_alloc(bytes, "the calls of a batch of copies");
  if (!block) {
    return tm_last_status();
  }
  tm_bookkeeping_free(s->block);
  s->block = block;
  s->capacity = capacity;
  s->to = block;
  s->from = (const void**)(s->to + capacity);
  s->sizes = (size_t*)(void*)(s->from + capacity);
  s->first = (uint32_t*)(void*)(s->sizes + capacity);
  s->next = s->first + capacity;
  return TM_OK;
}

//===-- The stream's pieces -----------------------------------------------===//

// Lists the pieces of each wave, in the order of adding.
static void list_waves(const tm_batch_copy* batch, uint32_t waves) {
  const tm_batch_scratch_* s = &batch->scratch;
  memset(s->first, 0, waves * sizeof *s->first);
  for (size_t i = tm_batch_count_(batch); i > 0; i--) {
    const uint32_t wave = batch->pieces[i - 1].wave;
    if (wave > 0) {
      s->next[i - 1] = s->first[wave - 1];
      s->first[wave - 1] = (uint32_t)i;
    }
  }
}

static bool is_by_peer(const tm_batch_copy* batch, const tm_batch_piece_* piece, const lane* l) {
  const tm_batch_place_* from = &batch->places[piece->source];
  const tm_batch_place_* to = &batch->places[piece->destination];
  return from->device.type == TM_DEVICE && to->device.type == TM_DEVICE &&
         (from->device.id != l->device || to->device.id != l->device);
}

// Bytes of pageable memory that a batch reads before its call returns, of one piece; more is read
// later by driver 580.159, on an H200, whatever the call's attributes say. A copy by itself reads
// all.
enum { MOST_READ_AT_ONCE = 65536 };

// Whether the piece takes a call of its own.
static bool is_alone(const tm_batch_copy* batch, const tm_batch_piece_* piece, const lane* l) {
  return is_by_peer(batch, piece, l) ||
         (tm_batch_reads_at_once_(batch, piece) && tm_batch_bytes_(piece) > MOST_READ_AT_ONCE);
}

// Only the peer call reaches memory of another device's pools without access being granted.
static tm_status queue_one(const tm_batch_copy* batch, const tm_batch_piece_* piece, lane* l) {
  const tm_batch_place_* from = &batch->places[piece->source];
  const tm_batch_place_* to = &batch->places[piece->destination];
  l->calls++;
  if (is_by_peer(batch, piece, l)) {
    TM_TRY_CUDA(cudaMemcpyPeerAsync(piece->to, to->device.id, piece->from, from->device.id,
                                    tm_batch_bytes_(piece), l->handle));
    return TM_OK;
  }
  const enum cudaMemcpyKind kind = tm_batch_host_place_(from) ? cudaMemcpyHostToDevice
                                   : tm_batch_host_place_(to) ? cudaMemcpyDeviceToHost
                                                              : cudaMemcpyDeviceToDevice;
  TM_TRY_CUDA(cudaMemcpyAsync(piece->to, piece->from, tm_batch_bytes_(piece), kind, l->handle));
  return TM_OK;
}

// Puts the pieces of a wave that one call can copy into the call's arrays: those that are read at
// once, or the others. Returns how many there are then.
static size_t gather(const tm_batch_copy* batch, uint32_t wave, const lane* l, bool at_once,
                     size_t count) {
  const tm_batch_scratch_* s = &batch->scratch;
  for (uint32_t i = s->first[wave - 1]; i > 0; i = s->next[i - 1]) {
    const tm_batch_piece_* piece = &batch->pieces[i - 1];
    if (tm_batch_reads_at_once_(batch, piece) == at_once && !is_alone(batch, piece, l)) {
      s->to[count] = piece->to;
      s->from[count] = piece->from;
      s->sizes[count++] = tm_batch_bytes_(piece);
    }
  }
  return count;
}

// Queues the pieces of a wave in a call each: all, or those that no batch can have.
static tm_status queue_each(const tm_batch_copy* batch, uint32_t wave, bool all, lane* l) {
  const tm_batch_scratch_* s = &batch->scratch;
  for (uint32_t i = s->first[wave - 1]; i > 0; i = s->next[i - 1]) {
    const tm_batch_piece_* piece = &batch->pieces[i - 1];
    if (all || is_alone(batch, piece, l)) {
      TM_TRY(queue_one(batch, piece, l));
    }
  }
  return TM_OK;
}

static bool is_unknown_to_driver(cudaError_t code) {
  return code == cudaErrorNotSupported || code == cudaErrorCallRequiresNewerDriver;
}

static tm_status queue_wave(const tm_batch_copy* batch, uint32_t wave, lane* l) {
  const tm_batch_scratch_* s = &batch->scratch;
  const size_t at_once = l->one_by_one ? 0 : gather(batch, wave, l, true, 0);
  const size_t count = l->one_by_one ? 0 : gather(batch, wave, l, false, at_once);
  if (count < 2) {
    return queue_each(batch, wave, true, l);
  }
  const cudaError_t code = tm_cuda_copy_batch_(s->to, s->from, s->sizes, count, at_once, l->handle);
  if (is_unknown_to_driver(code)) {
    tm_cuda_ignore_(code);
    l->one_by_one = true;
    return queue_each(batch, wave, true, l);
  }
  TM_TRY(tm_cuda_status_(code, "cudaMemcpyBatchAsync", __FILE__, __LINE__));
  l->calls++;
  return queue_each(batch, wave, false, l);
}

static tm_status queue_waves(const tm_batch_copy* batch, lane* l) {
  TM_ON_DEVICE(l->device);
  for (uint32_t wave = 1; wave <= l->waves; wave++) {
    TM_TRY(queue_wave(batch, wave, l));
  }
  return TM_OK;
}

// Some of the copies may be queued, and uses of their memory not recorded: nobody may free it yet.
static tm_status wait_after_failure(const lane* l, tm_status status) {
  const tm_error record = *tm_last_error();
  (void)!tm_stream_sync(l->stream);
  tm_restore_error_(&record);
  return status;
}

// The legacy stream takes no batches, and a graph has no node for one.
static tm_status open_lane(lane* l) {
  memset(l, 0, sizeof *l);
  l->stream = tm_stream_use_find_();
  if (!l->stream) {
    return tm_last_status();
  }
  l->handle = tm_stream_handle(l->stream);
  l->device = tm_stream_device(l->stream).id;
  TM_TRY(tm_stream_is_capturing(l->stream, &l->one_by_one));
  l->one_by_one = l->one_by_one || l->handle == cudaStreamLegacy;
  return TM_OK;
}

// The uses are recorded twice: before, because what a record needs must be there before anything is
// queued; after, because a record covers what is queued by then.
static tm_status run_with_stream(tm_batch_copy* batch, lane* l) {
  TM_TRY(open_lane(l));
  TM_TRY(check_places(batch, l));
  TM_TRY(reserve_calls(batch));
  TM_TRY(tm_batch_waves_assign_(batch, &l->waves));
  TM_TRY(record_uses(batch, l));
  list_waves(batch, l->waves);
  copy_on_host(batch);
  tm_status status = queue_waves(batch, l);
  if (status == TM_OK) {
    status = record_uses(batch, l);
  }
  return status == TM_OK ? TM_OK : wait_after_failure(l, status);
}

tm_status tm_batch_copy_run(tm_batch_copy* batch) {
  if (!batch) {
    return TM_NULL_HANDLE("the batch of copies");
  }
  if (batch->front.in_group) {
    return TM_RAISE(TM_ERR_INVALID, "batch copy: run inside a group, with %zu pieces waiting",
                    tm_batch_count_(batch));
  }
  lane l;
  l.calls = 0;
  if (has_stream_pieces(batch)) {
    TM_TRY(run_with_stream(batch, &l));
  } else {
    copy_on_host(batch);
  }
  count_dry(batch);
  batch->counts.added += tm_batch_count_(batch) + batch->front.continued;
  batch->counts.pieces += tm_batch_count_(batch);
  batch->counts.calls += l.calls;
  tm_batch_copy_clear(batch);
  return TM_OK;
}
