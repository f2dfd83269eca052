// cudaMemcpyBatchAsync: many copies in one call, in stream order as a whole. All are checked before
// the first is queued.
//
// CUDA orders none of them, so a program must not count on any order: here it is another one with
// every call, and the same in every run (of the seed, where the schedule is random).

#include <stddef.h>

#include "cudasim/check.h"
#include "cudasim/choice.h"
#include "cudasim/copy.h"
#include "cudasim/host_check.h"
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

// Queues a copy that is done in its turn, whatever memory it is of.
static cudaError_t queue(stream* s, const copy_request* r, const place* to, const place* from) {
  op* o = sim_copy_op(r, to, from);
  if (!o) return cudaErrorMemoryAllocation;
  ++s->device->statistics.copies;
  sim_scheduler_submit(s, o, false);
  return cudaSuccess;
}

// Bytes of pageable memory, of one copy, that are read before the call returns where the program
// says that they may be changed then. Of more that is asked in vain: driver 580.159 on an H200
// reads, and copies, what is there later.
enum { LARGEST_READ_AT_ONCE = 65536 };

static bool is_read_at_once(const copy_request* r, const place* from,
                            enum cudaMemcpySrcAccessOrder order) {
  return order == cudaMemcpySrcAccessOrderDuringApiCall && !from->device &&
         (from->is_pinned || r->extent.width <= LARGEST_READ_AT_ONCE);
}

// One copy. Only what is read at once is waited for: other copies do not wait for the stream, also
// from and to pageable memory.
static cudaError_t copy_one(device* current, cudaStream_t in, const batch* b, size_t i,
                            enum cudaMemcpySrcAccessOrder order) {
  cudaError_t error;
  stream* s = sim_stream_for_work(current, in, &error);
  if (!s) return error;
  const copy_request r = request_of(b, i);
  place to;
  place from;
  error = sim_copy_check(&r, &to, &from);
  if (error) return error;
  if (!is_read_at_once(&r, &from, order)) return queue(s, &r, &to, &from);
  error = sim_copy_submit(s, &r, &to, &from, true);
  if (!error && from.is_pinned) sim_host_check_wait(s, s->submitted);
  return error;
}

static size_t common_divisor(size_t a, size_t b) {
  while (b) {
    const size_t rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

// The copies one after another: from anywhere, in steps that come by all of them.
typedef struct order {
  size_t next;
  size_t step;
} order;

static order next_order(size_t count) {
  static uint64_t calls;  // guarded by the runtime's lock
  uint64_t mixed = ++calls * 0x9e3779b97f4a7c15u;
  mixed ^= mixed >> 29;
  if (sim_options()->schedule == SCHEDULE_RANDOM) mixed = sim_choice_bits();
  order o = {.next = mixed % count, .step = (mixed >> 32) % count};
  while (common_divisor(o.step, count) != 1) o.step = (o.step + 1) % count;
  return o;
}

static size_t order_take(order* o, size_t count) {
  const size_t taken = o->next;
  o->next = taken < count - o->step ? taken + o->step : taken - (count - o->step);
  return taken;
}

static enum cudaMemcpySrcAccessOrder access_order_of(const batch* b, size_t i) {
  size_t low = 0;
  size_t high = b->attribute_count;
  while (high - low > 1) {
    const size_t middle = low + (high - low) / 2;
    if (b->firsts[middle] <= i) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return b->attributes[low].srcAccessOrder;
}

// In the order that the program gave, so that every run finds the same.
static void check_order(const stream* s, const batch* b) {
  uint64_t time = sim_check_batch_begin(s);
  for (size_t i = 0; i < b->count; ++i) {
    copy_request r = request_of(b, i);
    sim_check_batch_copy(s, &r, time);
  }
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
  if (error) return error;
  if (check_is_on()) check_order(s, b);
  order o = next_order(b->count);
  for (size_t done = 0; done < b->count && !error; ++done) {
    const size_t i = order_take(&o, b->count);
    error = copy_one(current, in, b, i, access_order_of(b, i));
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
