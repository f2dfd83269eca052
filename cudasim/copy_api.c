// The calls that copy.

#include <stddef.h>

#include "cudasim/capture.h"
#include "cudasim/copy.h"
#include "cudasim/order.h"
#include "cudasim/runtime.h"

#define LARGEST_PITCH ((size_t)INT32_MAX)

//===-- One and two dimensions ----------------------------------------------------------------===//

static cudaError_t copy_1d(device* current, void* to, const void* from, size_t bytes,
                           enum cudaMemcpyKind kind, cudaStream_t in, bool is_async) {
  copy_request r = sim_copy_linear(to, from, bytes, kind);
  return sim_copy(current, in, &r, is_async);
}

static cudaError_t copy_2d(device* current, side to, side from, size_t width, size_t height,
                           enum cudaMemcpyKind kind, cudaStream_t in, bool is_async) {
  copy_request r = {.to = to, .from = from, .extent = {width, height, 1}, .kind = kind};
  if (!box_is_empty(&r.extent)) {
    if (to.pitch < width || from.pitch < width) {
      return height == 1 ? cudaErrorInvalidValue : cudaErrorInvalidPitchValue;
    }
    if (to.pitch > LARGEST_PITCH || from.pitch > LARGEST_PITCH) return cudaErrorInvalidValue;
  }
  return sim_copy(current, in, &r, is_async);
}

static side side_of(const void* pointer, size_t pitch) {
  return (side){.pointer = (void*)(uintptr_t)pointer, .pitch = pitch};
}

//===-- Three dimensions ----------------------------------------------------------------------===//

// The corner `at` of a pitched array, from which a box of `b` fits.
static cudaError_t corner(const struct cudaPitchedPtr* p, const struct cudaPos* at, const box* b,
                          side* out) {
  if (!p->ptr) return cudaErrorInvalidValue;
  size_t width;
  size_t height;
  if (__builtin_add_overflow(at->x, b->width, &width) || width > p->pitch ||
      __builtin_add_overflow(at->y, b->height, &height) ||
      ((b->depth > 1 || at->z) && height > p->ysize)) {
    return cudaErrorInvalidPitchValue;
  }
  size_t slice;
  size_t offset;
  if (p->pitch > LARGEST_PITCH || __builtin_mul_overflow(p->pitch, p->ysize, &slice) ||
      __builtin_mul_overflow(at->z, slice, &offset) ||
      __builtin_add_overflow(offset, at->y * p->pitch + at->x, &offset)) {
    return cudaErrorInvalidValue;
  }
  *out = (side){.pointer = (char*)p->ptr + offset, .pitch = p->pitch, .slice = slice};
  return cudaSuccess;
}

cudaError_t sim_copy_request_3d(const struct cudaMemcpy3DParms* p, copy_request* out) {
  if (!p) return cudaErrorInvalidValue;
  if (p->srcArray || p->dstArray) return sim_refuse(cudaErrorNotSupported, "cudasim has no arrays");
  *out = (copy_request){.extent = {p->extent.width, p->extent.height, p->extent.depth},
                        .kind = p->kind};
  if (box_is_empty(&out->extent)) return cudaSuccess;
  cudaError_t error = corner(&p->dstPtr, &p->dstPos, &out->extent, &out->to);
  return error ? error : corner(&p->srcPtr, &p->srcPos, &out->extent, &out->from);
}

static cudaError_t copy_3d(device* current, const struct cudaMemcpy3DParms* p, cudaStream_t in,
                           bool is_async) {
  copy_request r;
  cudaError_t error = sim_copy_request_3d(p, &r);
  return error ? error : sim_copy(current, in, &r, is_async);
}

//===-- Peers ---------------------------------------------------------------------------------===//

static cudaError_t check_peers(const copy_request* r, int to, int from) {
  if (!sim_device_at(to) || !sim_device_at(from)) return cudaErrorInvalidDevice;
  if (box_is_empty(&r->extent)) return cudaSuccess;
  place destination;
  place source;
  cudaError_t error = sim_copy_check(r, &destination, &source);
  if (error) return error;
  const device* d = destination.device;
  const device* s = source.device;
  if ((!d || d->id == to) && (!s || s->id == from)) return cudaSuccess;
  return sim_refuse(cudaErrorInvalidValue, "memory of devices %d and %d, said to be of %d and %d",
                    d ? d->id : -1, s ? s->id : -1, to, from);
}

static cudaError_t copy_peer_async(device* current, const copy_request* r, int to, int from,
                                   cudaStream_t in) {
  cudaError_t error;
  const stream* s = sim_stream_of(current, in, &error);
  if (!error) error = sim_capture_refuse_stream(s);
  if (!error) error = check_peers(r, to, from);
  return error ? error : sim_copy(current, in, r, true);
}

// Puts the legacy stream of `current` behind that of the device `id`, or the other way round.
static cudaError_t join(device* current, int id, bool is_before) {
  cudaError_t error;
  device* other = sim_device_open(id, &error);
  if (!other || other == current) return error;
  stream* first = is_before ? other->legacy : current->legacy;
  stream* second = is_before ? current->legacy : other->legacy;
  error = sim_stream_enter(first);
  if (!error) sim_order_join(second, first);
  return error ? error : sim_stream_follow(second, first, first->submitted, first->known);
}

// In order with all that is before and after it on the three devices.
static cudaError_t copy_peer(device* current, const copy_request* r, int to, int from) {
  cudaError_t error = sim_capture_check_legacy(current, true);
  if (!error) error = check_peers(r, to, from);
  if (!error) error = join(current, to, true);
  if (!error) error = join(current, from, true);
  if (!error) error = sim_copy(current, cudaStreamLegacy, r, false);
  if (!error) error = join(current, to, false);
  return error ? error : join(current, from, false);
}

static copy_request linear_peer(void* to, const void* from, size_t bytes) {
  return sim_copy_linear(to, from, bytes, cudaMemcpyDefault);
}

static cudaError_t copy_3d_peer(device* current, const struct cudaMemcpy3DPeerParms* p,
                                cudaStream_t in, bool is_async) {
  if (!p) return cudaErrorInvalidValue;
  if (p->srcArray || p->dstArray) return sim_refuse(cudaErrorNotSupported, "cudasim has no arrays");
  copy_request r = {.extent = {p->extent.width, p->extent.height, p->extent.depth},
                    .kind = cudaMemcpyDefault};
  cudaError_t error = cudaSuccess;
  if (!box_is_empty(&r.extent)) {
    error = corner(&p->dstPtr, &p->dstPos, &r.extent, &r.to);
    if (!error) error = corner(&p->srcPtr, &p->srcPos, &r.extent, &r.from);
  }
  if (error) return error;
  return is_async ? copy_peer_async(current, &r, p->dstDevice, p->srcDevice, in)
                  : copy_peer(current, &r, p->dstDevice, p->srcDevice);
}

//===-- The API -------------------------------------------------------------------------------===//

cudaError_t cudaMemcpy(void* dst, const void* src, size_t count, enum cudaMemcpyKind kind) {
  CALL(cudaMemcpy, copy_1d(frame.device, dst, src, count, kind, cudaStreamLegacy, false));
}

cudaError_t cudaMemcpyAsync(void* dst, const void* src, size_t count, enum cudaMemcpyKind kind,
                            cudaStream_t hStream) {
  CALL(cudaMemcpyAsync, copy_1d(frame.device, dst, src, count, kind, hStream, true));
}

cudaError_t cudaMemcpy2D(void* dst, size_t dpitch, const void* src, size_t spitch, size_t width,
                         size_t height, enum cudaMemcpyKind kind) {
  CALL(cudaMemcpy2D, copy_2d(frame.device, side_of(dst, dpitch), side_of(src, spitch), width,
                             height, kind, cudaStreamLegacy, false));
}

cudaError_t cudaMemcpy2DAsync(void* dst, size_t dpitch, const void* src, size_t spitch,
                              size_t width, size_t height, enum cudaMemcpyKind kind,
                              cudaStream_t hStream) {
  CALL(cudaMemcpy2DAsync, copy_2d(frame.device, side_of(dst, dpitch), side_of(src, spitch), width,
                                  height, kind, hStream, true));
}

cudaError_t cudaMemcpy3D(const struct cudaMemcpy3DParms* p) {
  CALL(cudaMemcpy3D, copy_3d(frame.device, p, cudaStreamLegacy, false));
}

cudaError_t cudaMemcpy3DAsync(const struct cudaMemcpy3DParms* p, cudaStream_t hStream) {
  CALL(cudaMemcpy3DAsync, copy_3d(frame.device, p, hStream, true));
}

cudaError_t cudaMemcpyPeer(void* dst, int dstDevice, const void* src, int srcDevice, size_t count) {
  copy_request r = linear_peer(dst, src, count);
  CALL(cudaMemcpyPeer, copy_peer(frame.device, &r, dstDevice, srcDevice));
}

cudaError_t cudaMemcpyPeerAsync(void* dst, int dstDevice, const void* src, int srcDevice,
                                size_t count, cudaStream_t hStream) {
  copy_request r = linear_peer(dst, src, count);
  CALL(cudaMemcpyPeerAsync, copy_peer_async(frame.device, &r, dstDevice, srcDevice, hStream));
}

cudaError_t cudaMemcpy3DPeer(const struct cudaMemcpy3DPeerParms* p) {
  CALL(cudaMemcpy3DPeer, copy_3d_peer(frame.device, p, cudaStreamLegacy, false));
}

cudaError_t cudaMemcpy3DPeerAsync(const struct cudaMemcpy3DPeerParms* p, cudaStream_t hStream) {
  CALL(cudaMemcpy3DPeerAsync, copy_3d_peer(frame.device, p, hStream, true));
}
