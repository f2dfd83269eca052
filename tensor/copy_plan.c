// For a destination (4,3,8):(24,8,1) and a source (4,3,8):(48,16,1), of bytes:
//
//   sorted by the destination's strides   (4: 24|48) (3: 8|16) (8: 1|1)
//   neighbours merged                     (12: 8|16) (8: 1|1)
//   the innermost is a run                12 runs of 8 bytes, 8 and 16 bytes apart

#include "tensor/copy_plan.h"

#include "tensor/memory.h"

// The loops in elements, larger steps in the destination first; loops of one iteration are left
// out.
static void sort_loops(const tm_layout* source, const tm_layout* destination, tm_copy_plan_* plan) {
  plan->rank = 0;
  for (int32_t i = 0; i < tm_layout_rank(destination); i++) {
    if (destination->shape[i] == 1) {
      continue;
    }
    int32_t at = plan->rank++;
    for (; at > 0 && plan->destination[at - 1] < destination->stride[i]; at--) {
      plan->count[at] = plan->count[at - 1];
      plan->source[at] = plan->source[at - 1];
      plan->destination[at] = plan->destination[at - 1];
    }
    plan->count[at] = destination->shape[i];
    plan->source[at] = source->stride[i];
    plan->destination[at] = destination->stride[i];
  }
}

// Whether the loop steps where all iterations of a later one end. Steps of dry memory, which has
// any size, may be too large for the product.
static bool is_outside(const tm_copy_plan_* plan, int32_t loop, int32_t later) {
  int64_t source;
  int64_t destination;
  return !__builtin_mul_overflow(plan->count[later], plan->source[later], &source) &&
         !__builtin_mul_overflow(plan->count[later], plan->destination[later], &destination) &&
         plan->source[loop] == source && plan->destination[loop] == destination;
}

static void merge_loops(tm_copy_plan_* plan) {
  int32_t last = -1;
  for (int32_t i = 0; i < plan->rank; i++) {
    const int64_t count = plan->count[i];
    if (last >= 0 && is_outside(plan, last, i)) {
      plan->count[last] *= count;
    } else {
      last++;
      plan->count[last] = count;
    }
    plan->source[last] = plan->source[i];
    plan->destination[last] = plan->destination[i];
  }
  plan->rank = last + 1;
}

// Takes the innermost loop out where it is a run. Returns the elements of a run.
static int64_t take_run(tm_copy_plan_* plan) {
  const int32_t inner = plan->rank - 1;
  if (inner < 0 || plan->source[inner] != 1 || plan->destination[inner] != 1) {
    return 1;
  }
  plan->rank--;
  return plan->count[inner];
}

static TM_COLD tm_status no_whole_bytes(tm_dtype dtype, int64_t elements) {
  return TM_RAISE(TM_ERR_INVALID, "copy of %s in runs of %lld elements: they are no whole bytes",
                  tm_dtype_name(dtype), (long long)elements);
}

tm_status tm_copy_plan_make_(tm_dtype dtype, const tm_layout* source, const tm_layout* destination,
                             tm_copy_plan_* out) {
  sort_loops(source, destination, out);
  merge_loops(out);
  const int64_t elements = take_run(out);
  TM_TRY(tm_dtype_bytes(dtype, elements, &out->run));
  if (out->rank > 0 && !tm_memory_at_byte_(dtype, elements)) {
    return no_whole_bytes(dtype, elements);
  }
  for (int32_t i = 0; i < out->rank; i++) {
    if (!tm_memory_at_byte_(dtype, out->source[i]) ||
        !tm_memory_at_byte_(dtype, out->destination[i])) {
      return no_whole_bytes(dtype, elements);
    }
    out->source[i] = tm_memory_offset_(dtype, out->source[i]);
    out->destination[i] = tm_memory_offset_(dtype, out->destination[i]);
  }
  return TM_OK;
}

bool tm_copy_walk_next_(const tm_copy_plan_* plan, int32_t loops, tm_copy_walk_* walk) {
  for (int32_t i = loops - 1; i >= 0; i--) {
    walk->source += plan->source[i];
    walk->destination += plan->destination[i];
    if (++walk->index[i] < plan->count[i]) {
      return true;
    }
    walk->source -= plan->count[i] * plan->source[i];
    walk->destination -= plan->count[i] * plan->destination[i];
    walk->index[i] = 0;
  }
  return false;
}
