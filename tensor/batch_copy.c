#include "tm/tensor/batch_copy.h"

#include <string.h>

#include "tensor/batch_pieces.h"
#include "tensor/copy_check.h"
#include "tensor/copy_plan.h"
#include "tm/alloc/bookkeeping.h"
#include "tm/base/checked.h"
#include "tm/base/fatal.h"

enum { LEAST_CAPACITY = 16 };

//===-- Room --------------------------------------------------------------===//

// Makes room for `more` elements behind `count` by at least doubling.
static tm_status grow(void** array, size_t element, size_t count, size_t more, size_t* capacity,
                      const char* what) {
  size_t needed;
  size_t bytes;
  if (!tm_checked_add(count, more, &needed) || needed >= UINT32_MAX) {
    return TM_RAISE(TM_ERR_OVERFLOW, "batch copy: %zu %s and %zu more; fewer than %u are possible",
                    count, what, more, UINT32_MAX);
  }
  if (needed <= *capacity) {
    return TM_OK;
  }
  size_t grown = *capacity < LEAST_CAPACITY ? LEAST_CAPACITY : 2 * *capacity;
  grown = grown < needed ? needed : grown;
  if (!tm_checked_mul(grown, element, &bytes)) {
    return TM_RAISE(TM_ERR_OVERFLOW, "batch copy: %zu %s of %zu bytes", grown, what, element);
  }
  void* moved = tm_bookkeeping_alloc(bytes, "more of a batch of copies");
  if (!moved) {
    return tm_last_status();
  }
  if (count > 0) {
    memcpy(moved, *array, count * element);
  }
  tm_bookkeeping_free(*array);
  *array = moved;
  *capacity = grown;
  return TM_OK;
}

static tm_status reserve(tm_batch_copy* batch, size_t pieces) {
  void* array = batch->places;
  tm_status status = grow(&array, sizeof *batch->places, batch->place_count, 2,
                          &batch->place_capacity, "memories");
  batch->places = array;
  if (status == TM_OK) {
    array = batch->pieces;
    status = grow(&array, sizeof *batch->pieces, batch->piece_count, pieces, &batch->piece_capacity,
                  "pieces");
    batch->pieces = array;
  }
  return status;
}

//===-- Places and pieces -------------------------------------------------===//

enum { PLACES_LOOKED_AT = 4 };  // what is copied next often lies where the last few copies did

// The place of a tensor's memory, which the batch retains. There is room for a new one.
static uint32_t place_of(tm_batch_copy* batch, const tm_tensor* tensor) {
  const size_t count = batch->place_count;
  const size_t looked_at = count < PLACES_LOOKED_AT ? count : PLACES_LOOKED_AT;
  for (size_t i = count; i > count - looked_at; i--) {
    const tm_batch_place_* place = &batch->places[i - 1];
    if (place->storage == tensor->storage && tm_device_equal(place->device, tensor->device)) {
      return (uint32_t)(i - 1);
    }
  }
  tm_batch_place_* made = &batch->places[batch->place_count++];
  made->storage = tm_storage_retain(tensor->storage);
  made->device = tensor->device;
  made->on_stream = false;
  made->is_written = false;
  return (uint32_t)count;
}

// Whether `next` goes on where `last` ends, in one storage at both ends, and the two together read
// nothing that they write.
static bool continues(const tm_batch_copy* batch, const tm_batch_piece_* last,
                      const tm_batch_piece_* next) {
  if (last->source != next->source || last->destination != next->destination ||
      !batch->places[next->source].storage || !batch->places[next->destination].storage ||
      last->from + last->bytes != next->from || last->to + last->bytes != next->to) {
    return false;
  }
  const size_t bytes = last->bytes + next->bytes;  // within a storage
  const uintptr_t from = (uintptr_t)last->from;
  const uintptr_t to = (uintptr_t)last->to;
  return from + bytes <= to || to + bytes <= from;
}

// Adds a piece, for which there is room.
static void put(tm_batch_copy* batch, const tm_batch_piece_* piece) {
  if (batch->in_group && batch->piece_count > batch->group_first) {
    tm_batch_piece_* last = &batch->pieces[batch->piece_count - 1];
    if (continues(batch, last, piece)) {
      last->bytes += piece->bytes;
      return;
    }
  }
  batch->pieces[batch->piece_count++] = *piece;
}

// Steps to the next run; false past the last. The piece's addresses follow.
static bool next_run(const tm_copy_plan_* plan, int64_t* index, tm_batch_piece_* piece) {
  for (int32_t i = plan->rank - 1; i >= 0; i--) {
    piece->from += plan->source[i];
    piece->to += plan->destination[i];
    if (++index[i] < plan->count[i]) {
      return true;
    }
    piece->from -= plan->count[i] * plan->source[i];
    piece->to -= plan->count[i] * plan->destination[i];
    index[i] = 0;
  }
  return false;
}

static tm_status make_plan(const tm_tensor* source, const tm_tensor* destination,
                           tm_copy_plan_* out) {
  if (tm_is_contiguous(source) && tm_is_contiguous(destination)) {
    out->rank = 0;
    out->run = tm_byte_size(source);
    return TM_OK;
  }
  return tm_copy_plan_make_(tm_dtype_of(source), &source->layout, &destination->layout, out);
}

// The runs of a plan, fewer than there are elements.
static size_t runs_of(const tm_copy_plan_* plan) {
  size_t runs = 1;
  for (int32_t i = 0; i < plan->rank; i++) {
    runs *= (size_t)plan->count[i];
  }
  return runs;
}

tm_status tm_batch_copy_add_checked_(tm_batch_copy* batch, const tm_tensor* source,
                                     const tm_tensor* destination) {
  if (tm_size(source) == 0) {
    return TM_OK;
  }
  tm_copy_plan_ plan;
  TM_TRY(make_plan(source, destination, &plan));
  if (tm_is_dry(source) || tm_is_dry(destination)) {
    batch->dry_copies++;
    batch->dry_bytes += tm_byte_size(source);
    return TM_OK;
  }
  TM_TRY(reserve(batch, runs_of(&plan)));
  tm_batch_piece_ piece;
  piece.from = source->data;
  piece.to = destination->data;
  piece.bytes = plan.run;
  piece.source = place_of(batch, source);
  piece.destination = place_of(batch, destination);
  piece.wave = 0;
  int64_t index[TM_MAX_RANK] = {0};
  do {
    put(batch, &piece);
  } while (next_run(&plan, index, &piece));
  batch->added++;
  return TM_OK;
}

tm_batch_mark_ tm_batch_copy_mark_(const tm_batch_copy* batch) {
  tm_batch_mark_ mark;
  mark.piece_count = batch->piece_count;
  mark.place_count = batch->place_count;
  mark.last_bytes = batch->piece_count ? batch->pieces[batch->piece_count - 1].bytes : 0;
  mark.added = batch->added;
  mark.dry_copies = batch->dry_copies;
  mark.dry_bytes = batch->dry_bytes;
  return mark;
}

static void drop_places(tm_batch_copy* batch, size_t kept) {
  while (batch->place_count > kept) {
    tm_storage_release(batch->places[--batch->place_count].storage);
  }
}

void tm_batch_copy_take_back_(tm_batch_copy* batch, const tm_batch_mark_* mark) {
  batch->piece_count = mark->piece_count;
  if (mark->piece_count > 0) {
    batch->pieces[mark->piece_count - 1].bytes = mark->last_bytes;
  }
  batch->added = mark->added;
  batch->dry_copies = mark->dry_copies;
  batch->dry_bytes = mark->dry_bytes;
  drop_places(batch, mark->place_count);
}

//===-- Lifetime ----------------------------------------------------------===//

tm_batch_copy* tm_batch_copy_create(void) {
  return tm_bookkeeping_alloc(sizeof(tm_batch_copy), "a batch of copies");
}

void tm_batch_copy_release(tm_batch_copy* batch) {
  if (batch) {
    drop_places(batch, 0);
    tm_bookkeeping_free(batch->pieces);
    tm_bookkeeping_free(batch->places);
    tm_bookkeeping_free(batch->scratch.block);
    tm_bookkeeping_free(batch->scratch.tree);
    tm_bookkeeping_free(batch);
  }
}

void tm_batch_copy_clear(tm_batch_copy* batch) {
  if (batch) {
    batch->piece_count = 0;
    batch->group_first = 0;
    batch->added = 0;
    batch->dry_copies = 0;
    batch->dry_bytes = 0;
    drop_places(batch, 0);
  }
}

size_t tm_batch_copy_size(const tm_batch_copy* batch) { return batch ? batch->piece_count : 0; }

tm_batch_copy_counts tm_batch_copy_counted(const tm_batch_copy* batch) {
  tm_batch_copy_counts none;
  memset(&none, 0, sizeof none);
  return batch ? batch->counts : none;
}

//===-- Adding ------------------------------------------------------------===//

tm_status tm_batch_copy_add(tm_batch_copy* batch, const tm_tensor* source,
                            const tm_tensor* destination) {
  if (!batch) {
    return TM_NULL_HANDLE("the batch of copies");
  }
  TM_TRY(tm_copy_check_pair_(source, destination));
  return tm_batch_copy_add_checked_(batch, source, destination);
}

tm_status tm_batch_copy_add_buffer(tm_batch_copy* batch, const tm_buffer* source,
                                   const tm_buffer* destination) {
  tm_tensor from;
  tm_tensor to;
  TM_TRY(tm_copy_front_(source, source->size, &from));
  TM_TRY(tm_copy_front_(destination, destination->size, &to));
  return tm_batch_copy_add(batch, &from, &to);
}

tm_status tm_batch_copy_add_buffer_n(tm_batch_copy* batch, const tm_buffer* source, int64_t count,
                                     const tm_buffer* destination) {
  tm_tensor from;
  tm_tensor to;
  TM_TRY(tm_copy_front_(source, count, &from));
  TM_TRY(tm_copy_front_(destination, count, &to));
  return tm_batch_copy_add(batch, &from, &to);
}

void* tm_batch_copy_add_n_(tm_batch_copy* batch, const void* source, int64_t count, size_t element,
                           void* destination) {
  tm_tensor from;
  tm_tensor to;
  if (!batch) {
    (void)!TM_NULL_HANDLE("the batch of copies");
    return NULL;
  }
  if (count == 0) {
    return destination;
  }
  if (tm_copy_pointers_(source, count, element, destination, &from, &to) != TM_OK ||
      tm_batch_copy_add(batch, &from, &to) != TM_OK) {
    return NULL;
  }
  return (char*)destination + tm_byte_size(&from);
}

//===-- Groups ------------------------------------------------------------===//

tm_status tm_batch_copy_begin_group(tm_batch_copy* batch) {
  if (!batch) {
    return TM_NULL_HANDLE("the batch of copies");
  }
  if (batch->in_group) {
    return TM_RAISE(TM_ERR_INVALID, "batch copy: a group is begun inside a group");
  }
  batch->in_group = true;
  batch->group_first = batch->piece_count;
  return TM_OK;
}

tm_status tm_batch_copy_end_group(tm_batch_copy* batch) {
  if (!batch) {
    return TM_NULL_HANDLE("the batch of copies");
  }
  if (!batch->in_group) {
    return TM_RAISE(TM_ERR_INVALID, "batch copy: a group is ended that was not begun");
  }
  batch->in_group = false;
  return TM_OK;
}

tm_batch_copy* tm_batch_copy_enter_group_(tm_batch_copy* batch, const char* file, int line) {
  if (tm_batch_copy_begin_group(batch) != TM_OK) {
    tm_fatal_(file, line, "TM_WITH_COPY_GROUP: %s", tm_last_error()->message);
  }
  return batch;
}

// A block that ended its group itself leaves nothing to end.
void tm_batch_copy_leave_group_(tm_batch_copy** batch) { (*batch)->in_group = false; }
