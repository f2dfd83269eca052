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
    const size_t count = tm_batch_count_(batch);
    size_t capacity = tm_batch_capacity_(batch);
    array = batch->pieces;
    status = grow(&array, sizeof *batch->pieces, count, pieces, &capacity, "pieces");
    if (status == TM_OK) {
      batch->pieces = array;
      batch->front.next = batch->pieces + count;
      batch->front.end = batch->pieces + capacity;
    }
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

// Whether the piece goes on where the last one ends, in the same storages, and the two together
// read nothing that they write.
static bool continues(const tm_batch_front_* last, const tm_batch_piece_* piece) {
  return last->until && piece->from == last->until && piece->source == last->next[-1].source &&
         piece->destination == last->next[-1].destination &&
         (uintptr_t)piece->to - (uintptr_t)piece->from == last->distance &&
         tm_batch_bytes_(piece) <= (uintptr_t)last->limit - (uintptr_t)piece->from;
}

// Lets the piece, which is the last one, be continued: up to where one of its ends reaches the
// other.
static void let_continue(tm_batch_front_* last, const tm_batch_piece_* piece) {
  const size_t ahead = (uintptr_t)piece->to - (uintptr_t)piece->from;
  const size_t behind = 0 - ahead;
  last->until = piece->until;
  last->limit = (const char*)((uintptr_t)piece->from + (ahead < behind ? ahead : behind));
  last->distance = ahead;
}

// Adds a piece, for which there is room.
static void put(tm_batch_copy* batch, const tm_batch_piece_* piece) {
  tm_batch_front_* last = &batch->front;
  if (continues(last, piece)) {
    last->until = piece->until;
    last->next[-1].until = piece->until;
    last->continued++;
    return;
  }
  *last->next++ = *piece;
  last->until = NULL;
  if (last->in_group && batch->places[piece->source].storage &&
      batch->places[piece->destination].storage) {
    let_continue(last, piece);
  }
}

// No copy is like the last one.
static void forget_last(tm_batch_front_* last) {
  last->source = NULL;
  last->destination = NULL;
  last->dtype = TM_DTYPE_NULL;
}

// What follows is compared with this copy, if it is one that says all: in storages, which know
// where they lie, and of whole bytes.
static void remember_last(tm_batch_front_* last, const tm_tensor* source,
                          const tm_tensor* destination) {
  const int bits = tm_dtype_bits(tm_dtype_of(source));
  forget_last(last);
  if (source->storage && destination->storage && bits >= 8) {
    last->source = source->storage;
    last->destination = destination->storage;
    last->source_index = last->next[-1].source;
    last->destination_index = last->next[-1].destination;
    last->dtype = source->dtype;
    last->element = (size_t)bits / 8;
  }
}

static void move(tm_batch_piece_* piece, int64_t source, int64_t destination) {
  piece->from += source;
  piece->until += source;
  piece->to += destination;
}

// Steps to the next run; false past the last. The piece's addresses follow.
static bool next_run(const tm_copy_plan_* plan, int64_t* index, tm_batch_piece_* piece) {
  for (int32_t i = plan->rank - 1; i >= 0; i--) {
    move(piece, plan->source[i], plan->destination[i]);
    if (++index[i] < plan->count[i]) {
      return true;
    }
    move(piece, -plan->count[i] * plan->source[i], -plan->count[i] * plan->destination[i]);
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
  const size_t runs = runs_of(&plan);
  TM_TRY(reserve(batch, runs));
  tm_batch_piece_ piece;
  piece.from = source->data;
  piece.until = piece.from + plan.run;
  piece.to = destination->data;
  piece.source = place_of(batch, source);
  piece.destination = place_of(batch, destination);
  piece.wave = 0;
  int64_t index[TM_MAX_RANK] = {0};
  do {
    put(batch, &piece);
  } while (next_run(&plan, index, &piece));
  remember_last(&batch->front, source, destination);
  batch->front.continued += 1 - runs;
  return TM_OK;
}

tm_batch_mark_ tm_batch_copy_mark_(const tm_batch_copy* batch) {
  tm_batch_mark_ mark;
  mark.front = batch->front;
  mark.piece_count = tm_batch_count_(batch);
  mark.place_count = batch->place_count;
  mark.last_until = mark.piece_count ? batch->front.next[-1].until : NULL;
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
  tm_batch_piece_* const end = batch->front.end;  // the array may have grown since
  batch->front = mark->front;
  batch->front.next = batch->pieces;
  batch->front.end = end;
  if (mark->piece_count > 0) {
    batch->front.next += mark->piece_count;
    batch->front.next[-1].until = mark->last_until;
  }
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
    batch->front.next = batch->pieces;
    batch->front.until = NULL;
    batch->front.continued = 0;
    forget_last(&batch->front);
    batch->dry_copies = 0;
    batch->dry_bytes = 0;
    drop_places(batch, 0);
  }
}

size_t tm_batch_copy_size(const tm_batch_copy* batch) { return batch ? tm_batch_count_(batch) : 0; }

tm_batch_copy_counts tm_batch_copy_counted(const tm_batch_copy* batch) {
  tm_batch_copy_counts none;
  memset(&none, 0, sizeof none);
  return batch ? batch->counts : none;
}

//===-- Adding ------------------------------------------------------------===//

// The common case: rows of the same two storages as before, contiguous, of one shape.
static bool add_like_last(tm_batch_front_* last, const tm_tensor* source,
                          const tm_tensor* destination) {
  return source->storage == last->source && destination->storage == last->destination &&
         source->dtype == last->dtype && destination->dtype == last->dtype &&
         tm_layout_equal(&source->layout, &destination->layout) && tm_is_contiguous(source) &&
         tm_batch_add_like_last_(last, source->data, tm_size(source), destination->data);
}

tm_status tm_batch_copy_add(tm_batch_copy* batch, const tm_tensor* source,
                            const tm_tensor* destination) {
  if (!batch) {
    return TM_NULL_HANDLE("the batch of copies");
  }
  if (add_like_last(&batch->front, source, destination)) {
    return TM_OK;
  }
  TM_TRY(tm_copy_check_pair_(source, destination));
  return tm_batch_copy_add_checked_(batch, source, destination);
}

tm_status tm_batch_copy_add_buffer_(tm_batch_copy* batch, const tm_buffer* source,
                                    const tm_buffer* destination) {
  tm_tensor from;
  tm_tensor to;
  TM_TRY(tm_copy_front_(source, source->size, &from));
  TM_TRY(tm_copy_front_(destination, destination->size, &to));
  return tm_batch_copy_add(batch, &from, &to);
}

tm_status tm_batch_copy_add_buffer_n_(tm_batch_copy* batch, const tm_buffer* source, int64_t count,
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

void tm_batch_open_group_(tm_batch_copy* batch) {
  batch->front.in_group = true;
  batch->front.until = NULL;
}

void tm_batch_close_group_(tm_batch_copy* batch) {
  batch->front.in_group = false;
  batch->front.until = NULL;
}

tm_status tm_batch_copy_begin_group(tm_batch_copy* batch) {
  if (!batch) {
    return TM_NULL_HANDLE("the batch of copies");
  }
  if (batch->front.in_group) {
    return TM_RAISE(TM_ERR_INVALID, "batch copy: a group is begun inside a group");
  }
  tm_batch_open_group_(batch);
  return TM_OK;
}

tm_status tm_batch_copy_end_group(tm_batch_copy* batch) {
  if (!batch) {
    return TM_NULL_HANDLE("the batch of copies");
  }
  if (!batch->front.in_group) {
    return TM_RAISE(TM_ERR_INVALID, "batch copy: a group is ended that was not begun");
  }
  tm_batch_close_group_(batch);
  return TM_OK;
}

tm_batch_copy* tm_batch_copy_enter_group_(tm_batch_copy* batch, const char* file, int line) {
  if (tm_batch_copy_begin_group(batch) != TM_OK) {
    tm_fatal_(file, line, "TM_WITH_COPY_GROUP: %s", tm_last_error()->message);
  }
  return batch;
}

// A block that ended its group itself leaves nothing to end.
void tm_batch_copy_leave_group_(tm_batch_copy** batch) { tm_batch_close_group_(*batch); }
