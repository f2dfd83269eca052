#include "cudasim/region.h"

// Rows are compared one by one where there is more than one on both sides: of more than these, only
// the first are.
#define MOST_ROWS 4096

region sim_region_of(const side* where, const box* extent) {
  region r = {.address = (uint64_t)(uintptr_t)where->pointer,
              .width = extent->width,
              .height = extent->height,
              .depth = extent->depth,
              .pitch = where->pitch,
              .slice = where->slice};
  if (r.height == 1) {
    r.height = r.depth;
    r.depth = 1;
    r.pitch = r.slice;
  }
  if (r.depth > 1 && r.slice == r.height * r.pitch) {
    r.height *= r.depth;
    r.depth = 1;
  }
  if (r.height > 1 && r.pitch == r.width) {
    r.width *= r.height;
    r.height = 1;
  }
  if (r.height == 1) r.pitch = 0;
  if (r.depth == 1) r.slice = 0;
  return r;
}

static bool hulls_overlap(const region* a, const region* b) {
  return a->address < region_end(b) && b->address < region_end(a);
}

// Whether a row of the slice at `first` of `r` has a byte in [start, end).
static bool slice_meets(const region* r, uint64_t first, uint64_t start, uint64_t end) {
  uint64_t last = first + (r->height - 1) * r->pitch + r->width;
  if (end <= first || start >= last) return false;
  if (r->height == 1 || !r->pitch) return true;
  // The first row that ends after `start`; no earlier one has a byte there.
  uint64_t before = first + r->width;
  uint64_t row = start < before ? 0 : (start - before) / r->pitch + 1;
  return row < r->height && first + row * r->pitch < end;
}

static bool meets(const region* r, uint64_t start, uint64_t end) {
  for (uint64_t z = 0; z < r->depth; ++z) {
    if (slice_meets(r, r->address + z * r->slice, start, end)) return true;
  }
  return false;
}

static uint64_t rows_of(const region* r) { return r->height * r->depth; }

bool sim_region_overlaps(const region* a, const region* b) {
  if (!hulls_overlap(a, b)) return false;
  if (rows_of(a) > rows_of(b)) {
    const region* fewer = b;
    b = a;
    a = fewer;
  }
  uint64_t compared = 0;
  for (uint64_t z = 0; z < a->depth; ++z) {
    for (uint64_t y = 0; y < a->height && compared < MOST_ROWS; ++y, ++compared) {
      uint64_t start = a->address + z * a->slice + y * a->pitch;
      if (meets(b, start, start + a->width)) return true;
    }
  }
  return false;
}

static bool is_same(const region* a, const region* b) {
  return a->address == b->address && a->width == b->width && a->height == b->height &&
         a->depth == b->depth && a->pitch == b->pitch && a->slice == b->slice;
}

bool sim_region_covers(const region* a, const region* b) {
  bool is_dense = a->height == 1 && a->depth == 1;
  return is_same(a, b) || (is_dense && a->address <= b->address && region_end(b) <= region_end(a));
}
