#include "tm/tensor/warp.h"

#include "tensor/batch_pieces.h"
#include "tensor/copy_check.h"
#include "tensor/memory.h"

// What is asked, checked.
typedef struct warp {
  const char* who;
  tm_batch_copy* batch;
  const int32_t* perm;
  int64_t rows;  // of the destination that are written
  int64_t old_rows;
} warp;

static bool stays(const warp* w, int64_t i) { return w->perm[i] < w->old_rows; }

//===-- Checks of arguments -----------------------------------------------===//

// Whether the host can read and write a buffer as numbers.
static tm_status check_numbers(const char* who, const char* name, const tm_buffer* buffer) {
  if (!buffer || !tm_buffer_ok(buffer)) {
    return TM_NULL_HANDLE(name);
  }
  if (buffer->dtype != TM_I32 || buffer->device.type == TM_DEVICE || tm_buffer_is_dry(buffer)) {
    char text[TM_BUFFER_TEXT_SIZE];
    tm_buffer_text(buffer, text, sizeof text);
    return TM_RAISE(
        TM_ERR_INVALID, "%s: %s is %s in %s memory; it must be i32 on the host", who, name, text,
        tm_buffer_is_dry(buffer) ? "dry"
                                 : tm_device_type_name((tm_device_type)buffer->device.type));
  }
  return TM_OK;
}

static int32_t* numbers_of(const tm_buffer* buffer) { return buffer->data; }

// Refuses an output of numbers that shares memory with an input, or with values: those are copied
// when the batch is run, and the numbers are written before.
static tm_status check_apart(const char* who, const char* name, const tm_buffer* output,
                             const tm_tensor* other) {
  tm_tensor numbers;
  tm_copy_borrow_(output, output->size, &numbers);
  if (tm_copy_may_overlap_(&numbers, other)) {
    return TM_RAISE(TM_ERR_INVALID, "%s: the destination's numbers at %p overlap %s at %p", who,
                    output->data, name, other->data);
  }
  return TM_OK;
}

static tm_status check_numbers_apart(const char* who, const char* name, const tm_buffer* output,
                                     const tm_buffer* input) {
  tm_tensor numbers;
  tm_copy_borrow_(input, input->size, &numbers);
  return check_apart(who, name, output, &numbers);
}

// Every row, and every element of a padded row, begins at a whole byte.
static tm_status check_tensor(const char* who, const char* name, const tm_tensor* tensor,
                              int32_t dims_of_rows) {
  if (!tensor || !tm_ok(tensor)) {
    return TM_NULL_HANDLE(name);
  }
  if (tm_rank(tensor) < dims_of_rows) {
    return TM_RAISE(TM_ERR_INVALID, "%s: %s has rank %d; it must have %d or more", who, name,
                    (int)tm_rank(tensor), (int)dims_of_rows);
  }
  for (int32_t dim = 0; dim < dims_of_rows; dim++) {
    if (tensor->layout.shape[dim] > 1 &&
        !tm_memory_at_byte_(tm_dtype_of(tensor), tensor->layout.stride[dim])) {
      return TM_RAISE(TM_ERR_INVALID, "%s: rows of %s, %lld elements of %s apart: no whole bytes",
                      who, name, (long long)tensor->layout.stride[dim],
                      tm_dtype_name(tm_dtype_of(tensor)));
    }
  }
  return TM_OK;
}

// What follows the dimensions of rows is the same at both sides.
static tm_status check_alike(const char* who, const char* name, const tm_tensor* source,
                             int32_t source_dims, const tm_tensor* destination,
                             int32_t destination_dims) {
  const int32_t rank = tm_rank(source) - source_dims;
  bool same =
      source->dtype == destination->dtype && rank == tm_rank(destination) - destination_dims;
  for (int32_t i = 0; same && i < rank; i++) {
    same = source->layout.shape[source_dims + i] == destination->layout.shape[destination_dims + i];
  }
  if (same) {
    return TM_OK;
  }
  char from[TM_TENSOR_TEXT_SIZE];
  char to[TM_TENSOR_TEXT_SIZE];
  tm_tensor_text(source, from, sizeof from);
  tm_tensor_text(destination, to, sizeof to);
  return TM_RAISE(TM_ERR_INVALID, "%s: rows of %s %.110s and of the destination %.110s differ", who,
                  name, from, to);
}

static tm_status check_source(const char* who, const char* name, const tm_tensor* source,
                              int32_t source_dims, const tm_tensor* destination,
                              int32_t destination_dims) {
  TM_TRY(check_tensor(who, name, source, source_dims));
  TM_TRY(check_alike(who, name, source, source_dims, destination, destination_dims));
  if (tm_copy_may_overlap_(source, destination)) {
    return TM_RAISE(
        TM_ERR_INVALID, "%s: %s, %zu bytes at %p, and the destination, %zu at %p, overlap", who,
        name, tm_copy_reach_(source), source->data, tm_copy_reach_(destination), destination->data);
  }
  return TM_OK;
}

static tm_status check_destination(const char* who, const tm_tensor* destination, int32_t dims) {
  TM_TRY(check_tensor(who, "the destination", destination, dims));
  if (!tm_layout_is_injective(&destination->layout)) {
    char text[TM_LAYOUT_TEXT_SIZE];
    tm_layout_text(&destination->layout, text, sizeof text);
    return TM_RAISE(TM_ERR_INVALID, "%s: elements of the destination %.200s may overlap", who,
                    text);
  }
  return TM_OK;
}

static tm_status check_perm(tm_batch_copy* batch, const tm_buffer* perm, int64_t old_rows,
                            int64_t old_room, const char* who, warp* out) {
  TM_TRY(check_numbers(who, "perm", perm));
  const int32_t* numbers = numbers_of(perm);
  if (old_rows < 0 || old_rows > old_room) {
    return TM_RAISE(old_rows < 0 ? TM_ERR_INVALID : TM_ERR_OUT_OF_RANGE,
                    "%s: %lld old rows, of %lld that there are", who, (long long)old_rows,
                    (long long)old_room);
  }
  for (int64_t i = 0; i < perm->size; i++) {
    if (numbers[i] < 0) {
      return TM_RAISE(TM_ERR_INVALID, "%s: perm[%lld] is %d", who, (long long)i, (int)numbers[i]);
    }
  }
  out->who = who;
  out->batch = batch;
  out->perm = numbers;
  out->rows = perm->size;
  out->old_rows = old_rows;
  return TM_OK;
}

// `have` rows of something must reach to `i`.
static tm_status check_row(const warp* w, const char* name, int64_t i, int64_t have) {
  return i < have
             ? TM_OK
             : TM_RAISE(TM_ERR_OUT_OF_RANGE,
                        "%s: row %lld (perm[%lld] is %d, of %lld old rows) of %s, which has %lld",
                        w->who, (long long)i, (long long)i, (int)w->perm[i], (long long)w->old_rows,
                        name, (long long)have);
}

static tm_status check_room(const warp* w, int64_t rows) {
  return w->rows <= rows
             ? TM_OK
             : TM_RAISE(TM_ERR_OUT_OF_RANGE, "%s: perm has %lld rows, the destination %lld", w->who,
                        (long long)w->rows, (long long)rows);
}

//===-- Packed rows -------------------------------------------------------===//

// Where row `row` lies among the packed ones; `i` is the row of the destination it is for.
static tm_status find_packed(const warp* w, const char* name, const tm_packed_rows* packed,
                             int64_t row, int64_t i, int64_t* first, int64_t* count) {
  const int32_t* offsets = numbers_of(packed->offsets);
  const int64_t elements = packed->values->layout.shape[0];
  *first = 0;
  *count = 0;
  if (row + 1 >= packed->offsets->size) {
    return TM_RAISE(TM_ERR_OUT_OF_RANGE, "%s: row %lld of %s (perm[%lld] is %d) of %lld offsets",
                    w->who, (long long)row, name, (long long)i, (int)w->perm[i],
                    (long long)packed->offsets->size);
  }
  const int32_t begin = offsets[row];
  const int32_t end = offsets[row + 1];
  if (begin < 0 || end < begin || end > elements) {
    return TM_RAISE(TM_ERR_OUT_OF_RANGE,
                    "%s: row %lld of %s (perm[%lld] is %d) is from %d to %d of %lld", w->who,
                    (long long)row, name, (long long)i, (int)w->perm[i], (int)begin, (int)end,
                    (long long)elements);
  }
  *first = begin;
  *count = end - begin;
  return TM_OK;
}

static tm_status find_row(const warp* w, const tm_packed_rows* old, const tm_packed_rows* added,
                          int64_t i, int64_t* first, int64_t* count) {
  return stays(w, i) ? find_packed(w, "the old ones", old, w->perm[i], i, first, count)
                     : find_packed(w, "the added ones", added, i, i, first, count);
}

//===-- Adding ------------------------------------------------------------===//

// `count` rows from `first` on, borrowed.
static tm_tensor rows_of(const tm_tensor* tensor, int64_t first, int64_t count) {
  tm_tensor rows = tm_borrow(tensor);
  if (rows.data && count > 0) {
    rows.data =
        (char*)rows.data + tm_memory_offset_(tm_dtype_of(tensor), first * tensor->layout.stride[0]);
  }
  rows.layout.shape[0] = count;
  return rows;
}

// One row without its dimension, borrowed.
static tm_tensor row_of(const tm_tensor* tensor, int64_t index) {
  tm_tensor row = rows_of(tensor, index, 1);
  row.layout.ranked--;
  for (int32_t i = 0; i < tm_layout_rank(&row.layout); i++) {
    row.layout.shape[i] = row.layout.shape[i + 1];
    row.layout.stride[i] = row.layout.stride[i + 1];
  }
  return row;
}

static tm_status add_rows(const warp* w, const tm_tensor* source, int64_t from,
                          const tm_tensor* destination, int64_t to, int64_t count) {
  const tm_tensor rows = rows_of(source, from, count);
  const tm_tensor place = rows_of(destination, to, count);
  return tm_batch_copy_add_checked_(w->batch, &rows, &place);
}

typedef struct session {
  tm_batch_mark_ mark;
  bool opened;  // the group is ours
} session;

// Rows that stay side by side are merged, in the caller's group where one is open.
static session begin(const warp* w) {
  session s;
  s.mark = tm_batch_copy_mark_(w->batch);
  s.opened = !w->batch->front.in_group;
  if (s.opened) {
    tm_batch_open_group_(w->batch);
  }
  return s;
}

// Takes everything back where `status` is a failure.
static tm_status end(const warp* w, const session* s, tm_status status) {
  if (s->opened) {
    tm_batch_close_group_(w->batch);
  }
  if (status != TM_OK) {
    tm_batch_copy_take_back_(w->batch, &s->mark);
  }
  return status;
}

//===-- Rows of one length ------------------------------------------------===//

// The rows from `i` on that come from one place, side by side.
static int64_t run_of_rows(const warp* w, int64_t i) {
  const bool old = stays(w, i);
  int64_t end = i + 1;
  while (end < w->rows && stays(w, end) == old &&
         (!old || w->perm[end] - w->perm[i] == (int32_t)(end - i))) {
    end++;
  }
  return end - i;
}

// `added` is NULL where rows that join are left as they are.
static tm_status add_all(const warp* w, const tm_tensor* old, const tm_tensor* added,
                         const tm_tensor* destination) {
  for (int64_t i = 0; i < w->rows;) {
    const int64_t count = run_of_rows(w, i);
    if (stays(w, i)) {
      TM_TRY(add_rows(w, old, w->perm[i], destination, i, count));
    } else if (added) {
      TM_TRY(add_rows(w, added, i, destination, i, count));
    }
    i += count;
  }
  return TM_OK;
}

static tm_status check_added(const warp* w, const tm_tensor* added) {
  for (int64_t i = 0; i < w->rows; i++) {
    if (!stays(w, i)) {
      TM_TRY(check_row(w, "the added ones", i, added->layout.shape[0]));
    }
  }
  return TM_OK;
}

tm_status tm_warp(tm_batch_copy* batch, const tm_tensor* old, int64_t old_rows,
                  const tm_buffer* perm, const tm_tensor* destination) {
  static const char who[] = "warp";
  warp w = {who, batch, NULL, 0, 0};
  if (!batch) {
    return TM_NULL_HANDLE("the batch of a warp");
  }
  TM_TRY(check_destination(who, destination, 1));
  TM_TRY(check_source(who, "old", old, 1, destination, 1));
  TM_TRY(check_perm(batch, perm, old_rows, old->layout.shape[0], who, &w));
  TM_TRY(check_room(&w, destination->layout.shape[0]));
  const session s = begin(&w);
  return end(&w, &s, add_all(&w, old, NULL, destination));
}

tm_status tm_warp_or(tm_batch_copy* batch, const tm_tensor* old, int64_t old_rows,
                     const tm_buffer* perm, const tm_tensor* added, const tm_tensor* destination) {
  static const char who[] = "warp";
  warp w = {who, batch, NULL, 0, 0};
  if (!batch) {
    return TM_NULL_HANDLE("the batch of a warp");
  }
  TM_TRY(check_destination(who, destination, 1));
  TM_TRY(check_source(who, "old", old, 1, destination, 1));
  TM_TRY(check_source(who, "added", added, 1, destination, 1));
  TM_TRY(check_perm(batch, perm, old_rows, old->layout.shape[0], who, &w));
  TM_TRY(check_room(&w, destination->layout.shape[0]));
  TM_TRY(check_added(&w, added));
  const session s = begin(&w);
  return end(&w, &s, add_all(&w, old, added, destination));
}

//===-- Packed ------------------------------------------------------------===//

// Finds every row, and where it goes; writes the destination's offsets where `offsets` is given.
static tm_status walk_packed(const warp* w, const tm_packed_rows* old, const tm_packed_rows* added,
                             const tm_tensor* destination, bool adds, int32_t* offsets) {
  int64_t to = 0;
  for (int64_t i = 0; i < w->rows; i++) {
    int64_t first;
    int64_t count;
    TM_TRY(find_row(w, old, added, i, &first, &count));
    if (to + count > destination->layout.shape[0] || to + count > INT32_MAX) {
      return TM_RAISE(to + count > INT32_MAX ? TM_ERR_OVERFLOW : TM_ERR_OUT_OF_RANGE,
                      "%s: row %lld (perm[%lld] is %d) is from %lld to %lld of %lld", w->who,
                      (long long)i, (long long)i, (int)w->perm[i], (long long)to,
                      (long long)(to + count), (long long)destination->layout.shape[0]);
    }
    if (adds) {
      const tm_tensor* source = stays(w, i) ? old->values : added->values;
      TM_TRY(add_rows(w, source, first, destination, to, count));
    }
    to += count;
    if (offsets) {
      offsets[i + 1] = (int32_t)to;
    }
  }
  return TM_OK;
}

static tm_status check_packed(const char* who, const char* name, const tm_packed_rows* packed,
                              const tm_tensor* destination, int32_t dims) {
  if (!packed) {
    return TM_NULL_HANDLE(name);
  }
  TM_TRY(check_source(who, name, packed->values, 1, destination, dims));
  return check_numbers(who, "offsets", packed->offsets);
}

// An output of `least` numbers or more.
static tm_status check_output(const warp* w, const tm_buffer* output, int64_t least) {
  TM_TRY(check_numbers(w->who, "the destination's numbers", output));
  return output->size >= least
             ? TM_OK
             : TM_RAISE(TM_ERR_OUT_OF_RANGE, "%s: %lld numbers into %lld of the destination's",
                        w->who, (long long)least, (long long)output->size);
}

tm_status tm_warp_packed(tm_batch_copy* batch, const tm_packed_rows* old, int64_t old_rows,
                         const tm_buffer* perm, const tm_packed_rows* added,
                         const tm_packed_rows* destination) {
  static const char who[] = "packed warp";
  warp w = {who, batch, NULL, 0, 0};
  if (!batch || !destination) {
    return TM_NULL_HANDLE(batch ? "the destination of a warp" : "the batch of a warp");
  }
  TM_TRY(check_destination(who, destination->values, 1));
  TM_TRY(check_packed(who, "old", old, destination->values, 1));
  TM_TRY(check_packed(who, "added", added, destination->values, 1));
  TM_TRY(check_perm(batch, perm, old_rows, INT32_MAX, who, &w));
  TM_TRY(check_output(&w, destination->offsets, w.rows + 1));
  TM_TRY(check_numbers_apart(who, "perm", destination->offsets, perm));
  TM_TRY(check_numbers_apart(who, "the old offsets", destination->offsets, old->offsets));
  TM_TRY(check_numbers_apart(who, "the added offsets", destination->offsets, added->offsets));
  TM_TRY(check_apart(who, "the old values", destination->offsets, old->values));
  TM_TRY(check_apart(who, "the added values", destination->offsets, added->values));
  TM_TRY(check_apart(who, "its values", destination->offsets, destination->values));
  TM_TRY(walk_packed(&w, old, added, destination->values, false, NULL));
  const session s = begin(&w);
  TM_TRY(end(&w, &s, walk_packed(&w, old, added, destination->values, true, NULL)));
  numbers_of(destination->offsets)[0] = 0;
  return walk_packed(&w, old, added, destination->values, false, numbers_of(destination->offsets));
}

//===-- Append ------------------------------------------------------------===//

typedef struct appending {
  warp w;
  const tm_padded_rows* old;
  const tm_tensor* last;
  const tm_packed_rows* added;
  const tm_padded_rows* destination;
} appending;

// The length of row `i` of the destination, and where it begins among the packed ones where it
// joins.
static tm_status find_length(const appending* a, int64_t i, int64_t* first, int64_t* length) {
  const int64_t longest = a->destination->values->layout.shape[1];
  *first = 0;
  *length = 0;
  if (stays(&a->w, i)) {
    const int32_t row = a->w.perm[i];
    const int32_t size = numbers_of(a->old->sizes)[row];
    if (size < 0 || size > a->old->values->layout.shape[1]) {
      return TM_RAISE(TM_ERR_OUT_OF_RANGE, "%s: old size %d (row %d, perm[%lld]) of %lld", a->w.who,
                      (int)size, (int)row, (long long)i,
                      (long long)a->old->values->layout.shape[1]);
    }
    *length = (int64_t)size + 1;
  } else {
    TM_TRY(find_packed(&a->w, "the added ones", a->added, i, i, first, length));
  }
  if (*length > longest || *length > INT32_MAX) {
    return TM_RAISE(
        *length > longest ? TM_ERR_OUT_OF_RANGE : TM_ERR_OVERFLOW,
        "%s: row %lld (perm[%lld] is %d) has %lld elements, the destination room for %lld",
        a->w.who, (long long)i, (long long)i, (int)a->w.perm[i], (long long)*length,
        (long long)longest);
  }
  return TM_OK;
}

static tm_status append_row(const appending* a, int64_t i) {
  int64_t first;
  int64_t length;
  TM_TRY(find_length(a, i, &first, &length));
  const tm_tensor to = row_of(a->destination->values, i);
  if (!stays(&a->w, i)) {
    return add_rows(&a->w, a->added->values, first, &to, 0, length);
  }
  const int32_t row = a->w.perm[i];
  const tm_tensor from = row_of(a->old->values, row);
  TM_TRY(add_rows(&a->w, &from, 0, &to, 0, length - 1));
  return add_rows(&a->w, a->last, row, &to, length - 1, 1);
}

static tm_status append_all(const appending* a) {
  for (int64_t i = 0; i < a->w.rows; i++) {
    TM_TRY(append_row(a, i));
  }
  return TM_OK;
}

// Checks every row, and writes the destination's sizes where `sizes` is given.
static tm_status walk_lengths(const appending* a, int32_t* sizes) {
  for (int64_t i = 0; i < a->w.rows; i++) {
    int64_t first;
    int64_t length;
    TM_TRY(find_length(a, i, &first, &length));
    if (sizes) {
      sizes[i] = (int32_t)length;
    }
  }
  return TM_OK;
}

static int64_t smallest(int64_t a, int64_t b, int64_t c) {
  const int64_t smaller = a < b ? a : b;
  return smaller < c ? smaller : c;
}

static tm_status check_append(tm_batch_copy* batch, int64_t old_rows, const tm_buffer* perm,
                              appending* a) {
  static const char who[] = "append";
  const tm_tensor* to = a->destination->values;
  TM_TRY(check_destination(who, to, 2));
  TM_TRY(check_source(who, "old", a->old->values, 2, to, 2));
  TM_TRY(check_source(who, "last", a->last, 1, to, 2));
  TM_TRY(check_packed(who, "added", a->added, to, 2));
  TM_TRY(check_numbers(who, "the old sizes", a->old->sizes));
  const int64_t room =
      smallest(a->old->values->layout.shape[0], a->last->layout.shape[0], a->old->sizes->size);
  TM_TRY(check_perm(batch, perm, old_rows, room, who, &a->w));
  TM_TRY(check_room(&a->w, to->layout.shape[0]));
  TM_TRY(check_output(&a->w, a->destination->sizes, a->w.rows));
  const tm_buffer* sizes = a->destination->sizes;
  TM_TRY(check_numbers_apart(who, "perm", sizes, perm));
  TM_TRY(check_numbers_apart(who, "the old sizes", sizes, a->old->sizes));
  TM_TRY(check_numbers_apart(who, "the added offsets", sizes, a->added->offsets));
  TM_TRY(check_apart(who, "the old values", sizes, a->old->values));
  TM_TRY(check_apart(who, "the added values", sizes, a->added->values));
  TM_TRY(check_apart(who, "last", sizes, a->last));
  TM_TRY(check_apart(who, "its values", sizes, a->destination->values));
  return walk_lengths(a, NULL);
}

tm_status tm_append(tm_batch_copy* batch, const tm_padded_rows* old, const tm_tensor* last,
                    int64_t old_rows, const tm_buffer* perm, const tm_packed_rows* added,
                    const tm_padded_rows* destination) {
  appending a = {{"append", batch, NULL, 0, 0}, old, last, added, destination};
  if (!batch || !old || !destination) {
    return TM_NULL_HANDLE(!batch ? "the batch of an append"
                                 : (old ? "the destination of an append" : "old"));
  }
  TM_TRY(check_append(batch, old_rows, perm, &a));
  const session s = begin(&a.w);
  TM_TRY(end(&a.w, &s, append_all(&a)));
  return walk_lengths(&a, numbers_of(destination->sizes));
}
