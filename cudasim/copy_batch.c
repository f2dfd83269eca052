// cudaMemcpyBatchAsync: many copies in one call, in stream order as a whole. All are checked before
// the first is queued.

#include <stddef.h>

#include "cudasim/copy.h"
#include "cudasim/runtime.h"

typedef struct batch {
  void* const* to;
  const void* const* from;
  const size_t* sizes;
  size_t count;
  const struct cudaMemcpyAttributes* attributes;
  const size_t* firsts;  // the first copy of each attribute
  size_t attribute_count;
} batch;

static bool is_order(enum cudaMemcpySrcAccessOrder order) {
  return order >= cudaMemcpySrcAccessOrderStream && order <= cudaMemcpySrcAccessOrderAny;
}

static bool is_attribute(const struct cudaMemcpyAttributes* a) {
  return is_order(a->srcAccessOrder) &&
         !(a->flags & ~(unsigned)cudaMemcpyFlagPreferOverlapWithCompute);
}

static bool are_attributes(const batch* b) {
  if (!b->attributes || !b->firsts || !b->attribute_count || b->attribute_count > b->count ||
      b->firsts[0] != 0) {
    return false;
  }
  for (size_t i = 0; i < b->attribute_count; ++i) {
    if (!is_attribute(&b->attributes[i])) return false;
    if (i > 0 && b->firsts[i] <= b->firsts[i - 1]) return false;
  }
  return b->firsts[b->attribute_count - 1] < b->count;
}

static copy_request request_of(const batch* b, size_t i) {
  return sim_copy_linear(b->to[i], b->from[i], b->sizes[i], cudaMemcpyDefault);
}

static cudaError_t check(const batch* b) {
  if (!b->to || !b->from || !b->sizes || !b->count || !are_attributes(b)) {
    return cudaErrorInvalidValue;
  }
  for (size_t i = 0; i < b->count; ++i) {
    if (!b->sizes[i]) return cudaErrorInvalidValue;
    copy_request r = request_of(b, i);
    place to;
    place from;
    cudaError_t error = sim_copy_check(&r, &to, &from);
    if (error) return error;
  }
  return cudaSuccess;
}

// One copy. What the program may change as soon as the call returns is waited for.
static cudaError_t copy_one(device* current, cudaStream_t in, const batch* b, size_t i,
                            enum cudaMemcpySrcAccessOrder order) {
  copy_request r = request_of(b, i);
  cudaError_t error = sim_copy(current, in, &r, true);
  if (error) return error;
  stream* s = sim_stream_of(current, in, &error);
  if (!s || order != cudaMemcpySrcAccessOrderDuringApiCall) return error;
  if (sim_device_of((uint64_t)(uintptr_t)r.from.pointer)) return cudaSuccess;
  sim_scheduler_wait(s, s->submitted);
  return cudaSuccess;
}

static cudaError_t copy(device* current, cudaStream_t in, const batch* b) {
  cudaError_t error;
  const stream* s = sim_stream_of(current, in, &error);
  if (!s) return error;
  if (s->branch) {
    return sim_refuse(cudaErrorStreamCaptureUnsupported, "a batch of copies cannot be captured");
  }
  if (s == s->device->legacy) {
    return sim_refuse(cudaErrorInvalidValue, "a batch of copies cannot go into the legacy stream");
  }
  error = check(b);
  size_t attribute = 0;
  for (size_t i = 0; i < b->count && !error; ++i) {
    if (attribute + 1 < b->attribute_count && b->firsts[attribute + 1] == i) ++attribute;
    error = copy_one(current, in, b, i, b->attributes[attribute].srcAccessOrder);
  }
  return error;
}

cudaError_t cudaMemcpyBatchAsync(void* const* dsts, const void* const* srcs, const size_t* sizes,
                                 size_t count, struct cudaMemcpyAttributes* attrs,
                                 // NOLINTNEXTLINE(readability-non-const-parameter): CUDA's own
                                 size_t* attrsIdxs, size_t numAttrs, cudaStream_t hStream) {
  batch b = {dsts, srcs, sizes, count, attrs, attrsIdxs, numAttrs};
  CALL(cudaMemcpyBatchAsync, copy(frame.device, hStream, &b));
}
