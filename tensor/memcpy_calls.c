// For loops (4: 2000|240) (5: 200|48) (6: 20|8) round runs of 8 bytes, source|destination:
//
//   rows      6 of 8 bytes, 20 and 8 bytes apart
//   planes    5 of them, 10 and 6 rows apart
//   calls     4

#include "tensor/memcpy_calls.h"

#include <stdbool.h>
#include <string.h>

enum { MAXIMUM_PITCH = INT32_MAX };  // bytes; what CUDA devices report

//===-- Choosing ----------------------------------------------------------===//

// Whether a loop can be the rows of a call, as one side sees it.
static bool is_rows(const tm_copy_plan_* plan, const int64_t* step, int32_t row) {
  return step[row] >= (int64_t)plan->run && step[row] <= MAXIMUM_PITCH;
}

// Whether another can be the planes round them: whole numbers of rows apart.
static bool is_planes(const tm_copy_plan_* plan, const int64_t* step, int32_t row, int32_t plane) {
  return step[plane] % step[row] == 0 && step[plane] / step[row] >= plan->count[row];
}

typedef struct choice {
  int32_t row;    // -1: a call is one run
  int32_t plane;  // -1: a call is rows only
  int64_t runs;   // of a call
} choice;

static void take_better(choice* best, int32_t row, int32_t plane, int64_t runs) {
  if (runs > best->runs) {
    *best = (choice){row, plane, runs};
  }
}

// Products of counts are sizes of layouts, or parts of them, and fit.
static choice choose(const tm_copy_plan_* plan) {
  choice best = {.row = -1, .plane = -1, .runs = 1};
  for (int32_t row = plan->rank - 1; row >= 0; row--) {
    if (!is_rows(plan, plan->source, row) || !is_rows(plan, plan->destination, row)) {
      continue;
    }
    take_better(&best, row, -1, plan->count[row]);
    for (int32_t plane = plan->rank - 1; plane >= 0; plane--) {
      if (plane != row && is_planes(plan, plan->source, row, plane) &&
          is_planes(plan, plan->destination, row, plane)) {
        take_better(&best, row, plane, plan->count[row] * plan->count[plane]);
      }
    }
  }
  return best;
}

static void append(const tm_copy_plan_* plan, int32_t i, tm_copy_plan_* out) {
  out->count[out->rank] = plan->count[i];
  out->source[out->rank] = plan->source[i];
  out->destination[out->rank++] = plan->destination[i];
}

tm_memcpy_calls_ tm_memcpy_calls_make_(const tm_copy_plan_* plan) {
  const choice best = choose(plan);
  tm_memcpy_calls_ calls = {.plan = {.run = plan->run}, .count = 1};
  for (int32_t i = 0; i < plan->rank; i++) {
    if (i != best.row && i != best.plane) {
      append(plan, i, &calls.plan);
      calls.count *= plan->count[i];
    }
  }
  if (best.plane >= 0) {
    append(plan, best.plane, &calls.plan);
    calls.inner++;
  }
  if (best.row >= 0) {
    append(plan, best.row, &calls.plan);
    calls.inner++;
  }
  return calls;
}

//===-- Calls -------------------------------------------------------------===//

// One side of a call of rows, or planes.
static struct cudaPitchedPtr pitched(const tm_memcpy_calls_* calls, const int64_t* step,
                                     char* data) {
  const int32_t row = calls->plan.rank - 1;
  struct cudaPitchedPtr result;
  result.ptr = data;
  result.pitch = (size_t)step[row];
  result.xsize = calls->plan.run;
  result.ysize = (size_t)(calls->inner == 1 ? calls->plan.count[row] : step[row - 1] / step[row]);
  return result;
}

static struct cudaExtent extent_of(const tm_memcpy_calls_* calls) {
  const int32_t row = calls->plan.rank - 1;
  struct cudaExtent extent;
  extent.width = calls->plan.run;
  extent.height = (size_t)calls->plan.count[row];
  extent.depth = calls->inner == 2 ? (size_t)calls->plan.count[row - 1] : 1;
  return extent;
}

static tm_status copy_once(const tm_memcpy_calls_* calls, char* source, char* destination,
                           enum cudaMemcpyKind kind, cudaStream_t stream) {
  const tm_copy_plan_* plan = &calls->plan;
  const int32_t row = plan->rank - 1;
  if (calls->inner == 0) {
    TM_TRY_CUDA(cudaMemcpyAsync(destination, source, plan->run, kind, stream));
  } else if (calls->inner == 1) {
    TM_TRY_CUDA(cudaMemcpy2DAsync(destination, (size_t)plan->destination[row], source,
                                  (size_t)plan->source[row], plan->run, (size_t)plan->count[row],
                                  kind, stream));
  } else {
    struct cudaMemcpy3DParms parameters;
    memset(&parameters, 0, sizeof parameters);
    parameters.srcPtr = pitched(calls, plan->source, source);
    parameters.dstPtr = pitched(calls, plan->destination, destination);
    parameters.extent = extent_of(calls);
    parameters.kind = kind;
    TM_TRY_CUDA(cudaMemcpy3DAsync(&parameters, stream));
  }
  return TM_OK;
}

tm_status tm_memcpy_calls_copy_(const tm_memcpy_calls_* calls, const void* source,
                                void* destination, enum cudaMemcpyKind kind, cudaStream_t stream) {
  char* from = (char*)(uintptr_t)source;
  tm_copy_walk_ walk = {.source = 0};
  do {
    TM_TRY(
        copy_once(calls, from + walk.source, (char*)destination + walk.destination, kind, stream));
  } while (tm_copy_walk_next_(&calls->plan, calls->plan.rank - calls->inner, &walk));
  return TM_OK;
}

static tm_status copy_peer_once(const tm_memcpy_calls_* calls, char* source, int32_t source_device,
                                char* destination, int32_t destination_device,
                                cudaStream_t stream) {
  if (calls->inner == 0) {
    TM_TRY_CUDA(cudaMemcpyPeerAsync(destination, destination_device, source, source_device,
                                    calls->plan.run, stream));
    return TM_OK;
  }
  struct cudaMemcpy3DPeerParms parameters;
  memset(&parameters, 0, sizeof parameters);
  parameters.srcPtr = pitched(calls, calls->plan.source, source);
  parameters.srcDevice = source_device;
  parameters.dstPtr = pitched(calls, calls->plan.destination, destination);
  parameters.dstDevice = destination_device;
  parameters.extent = extent_of(calls);
  TM_TRY_CUDA(cudaMemcpy3DPeerAsync(&parameters, stream));
  return TM_OK;
}

tm_status tm_memcpy_calls_copy_peer_(const tm_memcpy_calls_* calls, const void* source,
                                     int32_t source_device, void* destination,
                                     int32_t destination_device, cudaStream_t stream) {
  char* from = (char*)(uintptr_t)source;
  tm_copy_walk_ walk = {.source = 0};
  do {
    TM_TRY(copy_peer_once(calls, from + walk.source, source_device,
                          (char*)destination + walk.destination, destination_device, stream));
  } while (tm_copy_walk_next_(&calls->plan, calls->plan.rank - calls->inner, &walk));
  return TM_OK;
}

static tm_status fill_once(const tm_memcpy_calls_* calls, uint8_t value, char* destination,
                           cudaStream_t stream) {
  const tm_copy_plan_* plan = &calls->plan;
  const int32_t row = plan->rank - 1;
  if (calls->inner == 0) {
    TM_TRY_CUDA(cudaMemsetAsync(destination, value, plan->run, stream));
  } else if (calls->inner == 1) {
    TM_TRY_CUDA(cudaMemset2DAsync(destination, (size_t)plan->destination[row], value, plan->run,
                                  (size_t)plan->count[row], stream));
  } else {
    TM_TRY_CUDA(cudaMemset3DAsync(pitched(calls, plan->destination, destination), value,
                                  extent_of(calls), stream));
  }
  return TM_OK;
}

tm_status tm_memcpy_calls_fill_(const tm_memcpy_calls_* calls, uint8_t value, void* destination,
                                cudaStream_t stream) {
  tm_copy_walk_ walk = {.source = 0};
  do {
    TM_TRY(fill_once(calls, value, (char*)destination + walk.destination, stream));
  } while (tm_copy_walk_next_(&calls->plan, calls->plan.rank - calls->inner, &walk));
  return TM_OK;
}
