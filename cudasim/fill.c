// The calls that fill memory with a byte. They wait only for page-locked memory, and only if they
// are not asynchronous by name.

#include <stddef.h>

#include "cudasim/capture.h"
#include "cudasim/check.h"
#include "cudasim/fill.h"
#include "cudasim/host_check.h"
#include "cudasim/runtime.h"
#include "cudasim/scheduler.h"

cudaError_t sim_fill_check(const fill_request* r, place* where) {
  cudaError_t error = sim_place_find(&r->to, &r->extent, where);
  if (error || where->device || where->is_pinned) return error;
  return sim_refuse(cudaErrorInvalidValue, "%p is neither on a device nor page-locked",
                    r->to.pointer);
}

op* sim_fill_op(const fill_request* r, const place* where) {
  op* o = sim_op_create(OP_FILL);
  if (!o) return NULL;
  o->fill.extent = r->extent;
  o->fill.to = (grid){.at = where->at, .pitch = r->to.pitch, .slice = r->to.slice};
  o->fill.written = (span){.device = where->device,
                           .address = where->address,
                           .bytes = where->device ? where->bytes : 0};
  o->fill.value = r->value & 0xff;
  return o;
}

// Where the memory is, is first asked when the graph is instantiated.
static cudaError_t capture_fill(stream* s, const fill_request* r) {
  node_work w = {.type = cudaGraphNodeTypeMemset, .fill = *r};
  return sim_capture_work(s, &w);
}

static cudaError_t submit(stream* s, const fill_request* r, const place* where, bool waits) {
  op* o = sim_fill_op(r, where);
  if (!o) return cudaErrorMemoryAllocation;
  if (check_is_on()) sim_check_fill(s, r);
  stamp here = waits ? sim_order_stamp(s) : (stamp){0};
  device* d = s->device;
  uint64_t position = s->submitted + 1;
  ++d->statistics.fills;
  sim_scheduler_submit(s, o, waits);
  if (!waits) return cudaSuccess;
  sim_host_check_wait(s, position);
  sim_order_learn(&here);
  return d->broken;
}

static cudaError_t fill(device* current, cudaStream_t in, side to, box extent, int value,
                        bool is_async) {
  cudaError_t error;
  fill_request r = {.to = to, .extent = extent, .value = value};
  if (box_is_empty(&extent)) {
    sim_stream_of(current, in, &error);
    return error;
  }
  if ((extent.height > 1 || extent.depth > 1) && to.pitch < extent.width) {
    return cudaErrorInvalidValue;
  }
  stream* s = sim_stream_for_work(current, in, &error);
  if (!s) return error;
  if (s->branch) return capture_fill(s, &r);
  place where;
  error = sim_fill_check(&r, &where);
  return error ? error : submit(s, &r, &where, !where.device && !is_async);
}

static side linear(void* pointer) { return (side){.pointer = pointer}; }

static cudaError_t fill_3d(device* current, cudaStream_t in, const struct cudaPitchedPtr* p,
                           int value, struct cudaExtent extent, bool is_async) {
  size_t slice;
  if (__builtin_mul_overflow(p->pitch, p->ysize, &slice)) return cudaErrorInvalidValue;
  if (extent.depth > 1 && extent.height > p->ysize) return cudaErrorInvalidValue;
  side to = {.pointer = p->ptr, .pitch = p->pitch, .slice = slice};
  box b = {extent.width, extent.height, extent.depth};
  return fill(current, in, to, b, value, is_async);
}

//===-- The API -------------------------------------------------------------------------------===//

cudaError_t cudaMemset(void* devPtr, int value, size_t count) {
  box b = {count, 1, 1};
  CALL(cudaMemset, fill(frame.device, cudaStreamLegacy, linear(devPtr), b, value, false));
}

cudaError_t cudaMemsetAsync(void* devPtr, int value, size_t count, cudaStream_t hStream) {
  box b = {count, 1, 1};
  CALL(cudaMemsetAsync, fill(frame.device, hStream, linear(devPtr), b, value, true));
}

cudaError_t cudaMemset2D(void* devPtr, size_t pitch, int value, size_t width, size_t height) {
  side to = {.pointer = devPtr, .pitch = pitch};
  box b = {width, height, 1};
  CALL(cudaMemset2D, fill(frame.device, cudaStreamLegacy, to, b, value, false));
}

cudaError_t cudaMemset2DAsync(void* devPtr, size_t pitch, int value, size_t width, size_t height,
                              cudaStream_t hStream) {
  side to = {.pointer = devPtr, .pitch = pitch};
  box b = {width, height, 1};
  CALL(cudaMemset2DAsync, fill(frame.device, hStream, to, b, value, true));
}

cudaError_t cudaMemset3D(struct cudaPitchedPtr pitchedDevPtr, int value, struct cudaExtent extent) {
  CALL(cudaMemset3D, fill_3d(frame.device, cudaStreamLegacy, &pitchedDevPtr, value, extent, false));
}

cudaError_t cudaMemset3DAsync(struct cudaPitchedPtr pitchedDevPtr, int value,
                              struct cudaExtent extent, cudaStream_t hStream) {
  CALL(cudaMemset3DAsync, fill_3d(frame.device, hStream, &pitchedDevPtr, value, extent, true));
}
