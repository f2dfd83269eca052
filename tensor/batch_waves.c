// Few pieces are compared with each other. For many, the ends of all ranges cut the address space
// into segments, and two trees over those know the last wave that wrote, and that read, each.
//
//            16 (all)                 `most` of a node: the largest wave anywhere in it
//        8            8               `whole` of a node: the largest one that covered all of it
//     4     4      4     4
//   s s s s s ...                     segments: [ends[i], ends[i + 1])

#include "tensor/batch_waves.h"

#include <string.h>

#include "tm/alloc/bookkeeping.h"
#include "tm/base/checked.h"

//===-- What a piece depends on -------------------------------------------===//

static TM_COLD tm_status host_depends(const tm_batch_copy* batch, const tm_batch_piece_* piece) {
  return TM_RAISE(
      TM_ERR_INVALID,
      "batch copy: piece %zu of %zu, %zu bytes from %p to %p, is %s by the host at once, "
      "and depends on an earlier one that waits for a stream",
      (size_t)(piece - batch->pieces), tm_batch_count_(batch), tm_batch_bytes_(piece),
      (const void*)piece->from, (void*)piece->to,
      tm_batch_host_piece_(batch, piece) ? "copied" : "read");
}

// The last waves of a stream before a piece that write what it reads, and that read or write what
// it writes; 0: none.
typedef struct conflicts {
  uint32_t source;
  uint32_t destination;
} conflicts;

static uint32_t larger(uint32_t a, uint32_t b) { return a > b ? a : b; }

static tm_status settle(const tm_batch_copy* batch, tm_batch_piece_* piece, conflicts found) {
  const bool by_host = tm_batch_host_piece_(batch, piece);
  const uint32_t last = larger(found.source, found.destination);
  if ((by_host && last > 0) || (found.source > 0 && tm_batch_reads_at_once_(batch, piece))) {
    return host_depends(batch, piece);
  }
  piece->wave = by_host ? 0 : last + 1;
  return TM_OK;
}

//===-- A few -------------------------------------------------------------===//

enum { FEW = 16 };  // pieces: up to here comparing all of them costs less than sorting

static bool overlaps(const char* a, size_t a_bytes, const char* b, size_t b_bytes) {
  return (uintptr_t)a < (uintptr_t)b + b_bytes && (uintptr_t)b < (uintptr_t)a + a_bytes;
}

static conflicts compare(const tm_batch_piece_* pieces, const tm_batch_piece_* piece) {
  conflicts found = {0, 0};
  for (const tm_batch_piece_* other = pieces; other < piece; other++) {
    if (overlaps(other->to, tm_batch_bytes_(other), piece->from, tm_batch_bytes_(piece))) {
      found.source = larger(found.source, other->wave);
    }
    if (overlaps(other->to, tm_batch_bytes_(other), piece->to, tm_batch_bytes_(piece)) ||
        overlaps(other->from, tm_batch_bytes_(other), piece->to, tm_batch_bytes_(piece))) {
      found.destination = larger(found.destination, other->wave);
    }
  }
  return found;
}

static tm_status assign_few(tm_batch_copy* batch, uint32_t* out) {
  for (size_t i = 0; i < tm_batch_count_(batch); i++) {
    tm_batch_piece_* piece = &batch->pieces[i];
    TM_TRY(settle(batch, piece, compare(batch->pieces, piece)));
    *out = larger(*out, piece->wave);
  }
  return TM_OK;
}

//===-- Ends of ranges ----------------------------------------------------===//

static void sift(uintptr_t* heap, size_t at, size_t count) {
  const uintptr_t value = heap[at];
  for (size_t child; (child = 2 * at + 1) < count; at = child) {
    child += child + 1 < count && heap[child] < heap[child + 1] ? 1 : 0;
    if (heap[child] <= value) {
      break;
    }
    heap[at] = heap[child];
  }
  heap[at] = value;
}

// Sorts in place; libc's qsort takes memory.
static void sort(uintptr_t* values, size_t count) {
  for (size_t at = count / 2; at > 0; at--) {
    sift(values, at - 1, count);
  }
  for (size_t left = count; left > 1; left--) {
    const uintptr_t largest = values[0];
    values[0] = values[left - 1];
    values[left - 1] = largest;
    sift(values, 0, left - 1);
  }
}

static size_t drop_repeats(uintptr_t* values, size_t count) {
  size_t kept = 1;
  for (size_t i = 1; i < count; i++) {
    if (values[i] != values[kept - 1]) {
      values[kept++] = values[i];
    }
  }
  return kept;
}

//===-- The trees ---------------------------------------------------------===//

typedef struct tree {
  uint32_t* most;
  uint32_t* whole;
} tree;

typedef struct segments {
  uintptr_t* ends;  // sorted
  size_t count;     // ends
  size_t leaves;    // a power of two, no fewer than there are segments
  tree written;
  tree read;
} segments;

// The segment that begins at `end`.
static size_t segment_at(const segments* s, uintptr_t end) {
  size_t low = 0;
  size_t high = s->count;
  while (high - low > 1) {
    const size_t middle = low + (high - low) / 2;
    if (s->ends[middle] <= end) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

typedef struct range {
  size_t first;
  size_t last;  // the one behind
} range;

static range range_of(const segments* s, const char* data, size_t bytes) {
  range r;
  r.first = segment_at(s, (uintptr_t)data);
  r.last = segment_at(s, (uintptr_t)data + bytes);
  return r;
}

// The largest wave on any segment of the range. The nodes that make up the range, and those above
// them, which are above its two ends.
static uint32_t latest(const tree* t, size_t leaves, range r) {
  uint32_t found = 0;
  size_t left = r.first + leaves;
  size_t right = r.last + leaves;
  for (; left < right; left /= 2, right /= 2) {
    if (left & 1) found = larger(found, t->most[left++]);
    if (right & 1) found = larger(found, t->most[--right]);
  }
  for (left = r.first + leaves; left > 0; left /= 2) found = larger(found, t->whole[left]);
  for (right = r.last - 1 + leaves; right > 0; right /= 2) found = larger(found, t->whole[right]);
  return found;
}

static void cover(const tree* t, size_t node, uint32_t wave) {
  t->most[node] = larger(t->most[node], wave);
  t->whole[node] = larger(t->whole[node], wave);
}

static void raise_above(const tree* t, size_t leaf, uint32_t wave) {
  for (size_t node = leaf / 2; node > 0; node /= 2) {
    t->most[node] = larger(t->most[node], wave);
  }
}

static void note(const tree* t, size_t leaves, range r, uint32_t wave) {
  size_t left = r.first + leaves;
  size_t right = r.last + leaves;
  for (; left < right; left /= 2, right /= 2) {
    if (left & 1) cover(t, left++, wave);
    if (right & 1) cover(t, --right, wave);
  }
  raise_above(t, r.first + leaves, wave);
  raise_above(t, r.last - 1 + leaves, wave);
}

//===-- Many --------------------------------------------------------------===//

// Takes the memory for `pieces` pieces, or finds it in what an earlier run has taken.
static tm_status reserve(tm_batch_scratch_* scratch, size_t pieces, size_t leaves) {
  size_t ends;
  size_t nodes;
  size_t bytes;
  if (!tm_checked_mul(pieces, 4 * sizeof(uintptr_t), &ends) ||
      !tm_checked_mul(leaves, 8 * sizeof(uint32_t), &nodes) ||
      !tm_checked_add(ends, nodes, &bytes)) {
    return TM_RAISE(TM_ERR_OVERFLOW, "batch copy: the order of %zu pieces", pieces);
  }
  if (bytes <= scratch->tree_size) {
    return TM_OK;
  }
  void* taken = tm_bookkeeping_alloc(bytes, "the order of a batch of copies");
  if (!taken) {
    return tm_last_status();
  }
  tm_bookkeeping_free(scratch->tree);
  scratch->tree = taken;
  scratch->tree_size = bytes;
  return TM_OK;
}

static tm_status make_segments(tm_batch_copy* batch, segments* out) {
  const size_t pieces = tm_batch_count_(batch);
  out->leaves = 1;
  while (out->leaves < 4 * pieces) {
    out->leaves *= 2;
  }
  TM_TRY(reserve(&batch->scratch, pieces, out->leaves));
  out->ends = batch->scratch.tree;
  out->written.most = (uint32_t*)(void*)(out->ends + 4 * pieces);
  out->written.whole = out->written.most + 2 * out->leaves;
  out->read.most = out->written.whole + 2 * out->leaves;
  out->read.whole = out->read.most + 2 * out->leaves;
  memset(out->written.most, 0, 8 * out->leaves * sizeof(uint32_t));
  for (size_t i = 0; i < pieces; i++) {
    const tm_batch_piece_* piece = &batch->pieces[i];
    uintptr_t* ends = out->ends + 4 * i;
    ends[0] = (uintptr_t)piece->from;
    ends[1] = (uintptr_t)piece->until;
    ends[2] = (uintptr_t)piece->to;
    ends[3] = (uintptr_t)piece->to + tm_batch_bytes_(piece);
  }
  sort(out->ends, 4 * pieces);
  out->count = drop_repeats(out->ends, 4 * pieces);
  return TM_OK;
}

static tm_status assign_many(tm_batch_copy* batch, uint32_t* out) {
  segments s;
  TM_TRY(make_segments(batch, &s));
  for (size_t i = 0; i < tm_batch_count_(batch); i++) {
    tm_batch_piece_* piece = &batch->pieces[i];
    const range from = range_of(&s, piece->from, tm_batch_bytes_(piece));
    const range to = range_of(&s, piece->to, tm_batch_bytes_(piece));
    conflicts found;
    found.source = latest(&s.written, s.leaves, from);
    found.destination = larger(latest(&s.written, s.leaves, to), latest(&s.read, s.leaves, to));
    TM_TRY(settle(batch, piece, found));
    if (piece->wave > 0) {
      note(&s.read, s.leaves, from, piece->wave);
      note(&s.written, s.leaves, to, piece->wave);
    }
    *out = larger(*out, piece->wave);
  }
  return TM_OK;
}

tm_status tm_batch_waves_assign_(tm_batch_copy* batch, uint32_t* out) {
  *out = 0;
  const tm_status status =
      tm_batch_count_(batch) <= FEW ? assign_few(batch, out) : assign_many(batch, out);
  if (status != TM_OK) {
    *out = 0;
  }
  return status;
}
