#include "cudasim/copy.h"

#include <stddef.h>
#include <string.h>

#include "cudasim/capture.h"
#include "cudasim/check.h"
#include "cudasim/graph_memory.h"
#include "cudasim/host_check.h"
#include "cudasim/host_memory.h"
#include "cudasim/runtime.h"
#include "cudasim/scheduler.h"

//===-- Places --------------------------------------------------------------------------------===//

// Bytes from the first to the last byte of the box; false if they are no size.
static bool span_bytes(const side* where, const box* b, uint64_t* out) {
  uint64_t slices;
  uint64_t rows;
  bool overflows = __builtin_mul_overflow(b->depth - 1, where->slice, &slices);
  overflows |= __builtin_mul_overflow(b->height - 1, where->pitch, &rows);
  overflows |= __builtin_add_overflow(slices, rows, &rows);
  overflows |= __builtin_add_overflow(rows, b->width, out);
  return !overflows;
}

static cudaError_t find_on_device(place* p) {
  const block* b = sim_space_block_around(&p->device->space, p->address);
  if (!b || (b->graph && !graph_memory_is_there(b->graph))) {
    if (!b && check_is_on()) sim_check_refused_use(p->address, p->bytes);
    return sim_refuse(cudaErrorInvalidValue, "%#llx is in no live allocation of device %d",
                      (unsigned long long)p->address, p->device->id);
  }
  uint64_t offset = p->address - block_address(b);
  if (offset > b->requested || p->bytes > b->requested - offset) {
    if (check_is_on()) sim_check_refused_use(p->address, p->bytes);
    return sim_refuse(cudaErrorInvalidValue,
                      "%llu bytes at %llu of an allocation of %llu on device %d",
                      (unsigned long long)p->bytes, (unsigned long long)offset,
                      (unsigned long long)b->requested, p->device->id);
  }
  p->at = space_alias(&p->device->space, p->address);
  return cudaSuccess;
}

static cudaError_t find_on_host(place* p) {
  const host_range* r = sim_host_memory_around(p->address);
  p->is_pinned = r;
  p->at = r && r->pinned ? sim_pinned_alias(p->address) : (char*)(uintptr_t)p->address;
  if (!r || p->bytes <= r->bytes - (p->address - r->node.major)) return cudaSuccess;
  if (check_is_on()) sim_check_refused_use(p->address, p->bytes);
  return sim_refuse(cudaErrorInvalidValue, "%llu bytes at %llu of %llu bytes of page-locked memory",
                    (unsigned long long)p->bytes, (unsigned long long)(p->address - r->node.major),
                    (unsigned long long)r->bytes);
}

cudaError_t sim_place_find(const side* where, const box* extent, place* out) {
  *out = (place){.address = (uint64_t)(uintptr_t)where->pointer};
  if (!where->pointer) return sim_refuse(cudaErrorInvalidValue, "a NULL pointer");
  uint64_t end;
  if (!span_bytes(where, extent, &out->bytes) ||
      __builtin_add_overflow(out->address, out->bytes, &end)) {
    return sim_refuse(cudaErrorInvalidValue, "a box that is larger than memory");
  }
  out->device = sim_device_of(out->address);
  return out->device ? find_on_device(out) : find_on_host(out);
}

//===-- Checks --------------------------------------------------------------------------------===//

// Page-locked memory is in reach of devices, and under unified addressing the host's side may be
// anything: so the real runtime, although its documentation calls a wrong kind undefined.
static bool is_for_device(const place* p) { return p->device || p->is_pinned; }

static bool fits_kind(enum cudaMemcpyKind kind, const place* to, const place* from) {
  bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  return (!to_device || is_for_device(to)) && (!from_device || is_for_device(from));
}

static bool is_kind(enum cudaMemcpyKind kind) {
  return (int)kind >= cudaMemcpyHostToHost && kind <= cudaMemcpyDefault;
}

cudaError_t sim_copy_check(const copy_request* r, place* to, place* from) {
  if (!is_kind(r->kind)) return cudaErrorInvalidMemcpyDirection;
  cudaError_t error = sim_place_find(&r->to, &r->extent, to);
  if (!error) error = sim_place_find(&r->from, &r->extent, from);
  if (error) return error;
  if (fits_kind(r->kind, to, from)) return cudaSuccess;
  return sim_refuse(cudaErrorInvalidValue, "the copy's kind is %d, but it goes from %s to %s",
                    (int)r->kind, from->device ? "a device" : "the host",
                    to->device ? "a device" : "the host");
}

//===-- Submission ----------------------------------------------------------------------------===//

static bool is_pageable(const place* p) { return !p->device && !p->is_pinned; }

static bool must_wait(const place* to, const place* from, bool is_async) {
  if (to->device && from->device) return false;
  return !is_async || is_pageable(to) || is_pageable(from) || (!to->device && !from->device);
}

static span span_of(const place* p) {
  return (span){.device = p->device, .address = p->address, .bytes = p->device ? p->bytes : 0};
}

static grid grid_of(const place* p, const side* where) {
  return (grid){.at = p->at, .pitch = where->pitch, .slice = where->slice};
}

// Copies the source now, so that the program can have its memory back at once.
static bool stage(op* o) {
  const box* b = &o->copy.extent;
  char* staging = sim_staging_take(b->width * b->height * b->depth);
  if (!staging) return false;
  o->copy.staging = staging;
  const grid* from = &o->copy.from;
  char* next = staging;
  for (size_t z = 0; z < b->depth; ++z) {
    for (size_t y = 0; y < b->height; ++y, next += b->width) {
      memcpy(next, from->at + z * from->slice + y * from->pitch, b->width);
    }
  }
  o->copy.from = (grid){.at = staging, .pitch = b->width, .slice = b->width * b->height};
  return true;
}

static bool can_be_staged(const box* b, const place* to, const place* from) {
  size_t bytes;
  bool overflows = __builtin_mul_overflow(b->width, b->height, &bytes);
  overflows |= __builtin_mul_overflow(bytes, b->depth, &bytes);
  return to->device && is_pageable(from) && !overflows && bytes <= STAGING_BYTES;
}

op* sim_copy_op(const copy_request* r, const place* to, const place* from) {
  op* o = sim_op_create(OP_COPY);
  if (!o) return NULL;
  o->copy.extent = r->extent;
  o->copy.to = grid_of(to, &r->to);
  o->copy.from = grid_of(from, &r->from);
  o->copy.written = span_of(to);
  o->copy.read = span_of(from);
  return o;
}

cudaError_t sim_copy_submit(stream* s, const copy_request* r, const place* to, const place* from,
                            bool is_async) {
  op* o = sim_copy_op(r, to, from);
  if (!o) return cudaErrorMemoryAllocation;
  if (check_is_on()) sim_check_copy(s, r);
  bool waits = must_wait(to, from, is_async);
  bool is_staged = waits && can_be_staged(&r->extent, to, from);
  if (is_staged) waits = !stage(o);
  stamp here = waits && !is_staged ? sim_order_stamp(s) : (stamp){0};
  device* d = s->device;
  uint64_t position = s->submitted + 1;
  ++d->statistics.copies;
  sim_scheduler_submit(s, o, waits);
  if (!waits) return cudaSuccess;
  sim_host_check_wait(s, position);
  sim_order_learn(&here);
  return d->broken;
}

static cudaError_t capture_copy(stream* s, const copy_request* r) {
  node_work w = {.type = cudaGraphNodeTypeMemcpy, .copy = *r};
  return sim_capture_work(s, &w);
}

// The stream of the copy, and its two sides; refuses what cannot be done.
static cudaError_t prepare(device* current, cudaStream_t in, const copy_request* r, stream** s,
                           place* to, place* from) {
  cudaError_t error;
  *s = sim_stream_for_work(current, in, &error);
  if (!*s) return error;
  sim_graph_memory_is_planned = (*s)->branch;
  error = sim_copy_check(r, to, from);
  sim_graph_memory_is_planned = false;
  return error;
}

cudaError_t sim_copy(device* current, cudaStream_t in, const copy_request* r, bool is_async) {
  cudaError_t error;
  if (box_is_empty(&r->extent)) {
    sim_stream_of(current, in, &error);
    return error;
  }
  stream* s;
  place to;
  place from;
  error = prepare(current, in, r, &s, &to, &from);
  if (error) return error;
  bool waits_first = !is_async && !s->branch && to.device && is_pageable(&from);
  if (waits_first) {
    stamp before = sim_order_stamp(s);
    sim_order_learn(&before);
  }
  if (waits_first && (!stream_is_done(s, s->submitted) || check_is_on())) {
    sim_host_check_wait(s, s->submitted);  // without the lock: anything may be different then
    error = prepare(current, in, r, &s, &to, &from);
    if (error) return error;
  }
  if (s->branch) return capture_copy(s, r);
  return sim_copy_submit(s, r, &to, &from, is_async);
}

copy_request sim_copy_linear(void* to, const void* from, size_t bytes, enum cudaMemcpyKind kind) {
  return (copy_request){.to = {.pointer = to},
                        .from = {.pointer = (void*)(uintptr_t)from},
                        .extent = {.width = bytes, .height = 1, .depth = 1},
                        .kind = kind};
}
