#include "cudasim/kernel.h"

#include <stddef.h>
#include <string.h>

#include "cudasim/capture.h"
#include "cudasim/check.h"
#include "cudasim/copy.h"
#include "cudasim/device.h"
#include "cudasim/pool.h"
#include "cudasim/runtime.h"
#include "cudasim/scheduler.h"
#include "cudasim/slab.h"

//===-- Registration --------------------------------------------------------------------------===//

typedef struct registration {
  struct registration* next;
  const void* function;
  cudasim_kernel kernel;
} registration;

static registration* registered;  // by the process, not by the machine: as code is loaded

static registration* forgotten;  // launches may still refer to them

static kernel_source* source;

static registration* look_up(const void* function) {
  registration* r = registered;
  while (r && r->function != function) r = r->next;
  return r;
}

// NULL when the host has no memory.
static registration* enter(const void* function, const cudasim_kernel* kernel) {
  registration* r = sim_bookkeeping_alloc(sizeof(*r));
  if (!r) return NULL;
  *r = (registration){.next = registered, .function = function, .kernel = *kernel};
  registered = r;
  return r;
}

static registration* find(const void* function) {
  registration* r = look_up(function);
  cudasim_kernel kernel;
  return r || !source || !source(function, &kernel) ? r : enter(function, &kernel);
}

void sim_kernel_set_source(kernel_source* s) { source = s; }

void sim_kernel_forget(const void* function) {
  registration** link = &registered;
  while (*link && (*link)->function != function) link = &(*link)->next;
  registration* r = *link;
  if (!r) return;
  *link = r->next;
  r->next = forgotten;
  forgotten = r;
}

static bool is_complete(const cudasim_kernel* k) {
  return k && k->name && k->reach && k->run && (k->parameters || !k->parameter_count);
}

cudaError_t cudasim_register_kernel(const void* function, const cudasim_kernel* kernel) {
  if (!function || !is_complete(kernel)) return cudaErrorInvalidValue;
  cudaError_t error = cudaSuccess;
  sim_lock();
  if (look_up(function)) {
    error = cudaErrorInvalidValue;
  } else if (!enter(function, kernel)) {
    error = cudaErrorMemoryAllocation;
  }
  sim_unlock();
  return error;
}

//===-- Launches ------------------------------------------------------------------------------===//

struct kernel_launch {
  uint32_t references;  // of nodes, ops and calls
  const registration* kernel;
  cudasim_launch what;
  max_align_t arguments[];  // pointers to them, then they
};

// Bytes that keep the next argument aligned for anything.
static size_t padded(size_t bytes) {
  return (bytes + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
}

static size_t argument_bytes(const cudasim_kernel* k) {
  size_t bytes = padded(k->parameter_count * sizeof(void*));
  for (size_t i = 0; i < k->parameter_count; ++i) bytes += padded(k->parameters[i]);
  return bytes;
}

static kernel_launch* make_launch(const registration* r, const cudasim_launch* what) {
  const cudasim_kernel* k = &r->kernel;
  kernel_launch* l = sim_bookkeeping_alloc(sizeof(*l) + argument_bytes(k));
  if (!l) return NULL;
  l->references = 1;
  l->kernel = r;
  l->what = *what;
  void** arguments = (void**)(void*)l->arguments;
  char* next = (char*)l->arguments + padded(k->parameter_count * sizeof(void*));
  for (size_t i = 0; i < k->parameter_count; ++i) {
    arguments[i] = memcpy(next, what->arguments[i], k->parameters[i]);
    next += padded(k->parameters[i]);
  }
  l->what.arguments = arguments;
  return l;
}

kernel_launch* sim_kernel_retain(kernel_launch* l) {
  ++l->references;
  return l;
}

void sim_kernel_release(kernel_launch* l) {
  if (--l->references == 0) sim_bookkeeping_free(l);
}

//===-- What is reached -----------------------------------------------------------------------===//

struct kernel_run {
  kernel_launch* launch;
  bool is_wild;
  void* memory[CUDASIM_MAX_RANGES];
  span spans[CUDASIM_MAX_RANGES];
  cudasim_range ranges[CUDASIM_MAX_RANGES];
};

// Of other devices, what their pools or the program's peers grant.
static bool is_in_reach(const device* d, const place* p) {
  if (!p->device) return p->is_pinned;
  if (p->device == d) return true;
  const block* b = sim_space_block_around(&p->device->space, p->address);
  uint64_t granted = b->pool ? b->pool->accessible >> d->id : d->peers >> p->device->id;
  return granted & 1;
}

static bool find_range(const device* d, const cudasim_range* range, void** memory, span* where) {
  if (!range->bytes) return true;
  side from = {.pointer = (void*)(uintptr_t)range->pointer};
  box extent = {range->bytes, 1, 1};
  place p;
  if (sim_place_find(&from, &extent, &p) || !is_in_reach(d, &p)) return false;
  *memory = p.at;
  *where = (span){.device = p.device, .address = p.address, .bytes = p.device ? p.bytes : 0};
  return true;
}

// The program's function must not call the runtime, whose lock is held.
static size_t ask(const kernel_launch* l, cudasim_range* ranges) {
  bool before = sim_thread()->in_host_function;
  sim_thread()->in_host_function = true;
  size_t count = l->kernel->kernel.reach(&l->what, ranges);
  sim_thread()->in_host_function = before;
  return count;
}

static void find_memory(kernel_run* r, const device* d) {
  cudasim_range* ranges = r->ranges;
  size_t count = ask(r->launch, ranges);
  r->is_wild = count > CUDASIM_MAX_RANGES;
  for (size_t i = 0; i < count && !r->is_wild; ++i) {
    if (find_range(d, &ranges[i], &r->memory[i], &r->spans[i])) continue;
    r->is_wild = true;
    sim_refuse(cudaErrorIllegalAddress, "kernel %s reaches %zu bytes at %p that device %d cannot",
               r->launch->kernel->kernel.name, ranges[i].bytes, ranges[i].pointer, d->id);
  }
}

op* sim_kernel_op(kernel_launch* l, const device* d) {
  op* o = sim_op_create(OP_KERNEL);
  if (!o) return NULL;
  kernel_run* r = sim_bookkeeping_alloc(sizeof(*r));
  if (!r) {
    sim_op_release(o);
    return NULL;
  }
  r->launch = sim_kernel_retain(l);
  find_memory(r, d);
  o->kernel.run = r;
  return o;
}

//===-- Running -------------------------------------------------------------------------------===//

void sim_kernel_run(const kernel_run* r) {
  if (r->is_wild) return;
  cudasim_launch what = r->launch->what;
  what.memory = r->memory;
  sim_thread()->in_host_function = true;
  dim3 at;
  for (at.z = 0; at.z < what.grid.z; ++at.z) {
    for (at.y = 0; at.y < what.grid.y; ++at.y) {
      for (at.x = 0; at.x < what.grid.x; ++at.x) r->launch->kernel->kernel.run(&what, at);
    }
  }
  sim_thread()->in_host_function = false;
}

//===-- Checks --------------------------------------------------------------------------------===//

static size_t uses_of(const cudasim_range* ranges, use* out) {
  size_t count = 0;
  for (int i = 0; i < CUDASIM_MAX_RANGES; ++i) {
    if (!ranges[i].bytes) continue;
    out[count++] = (use){.where = {.pointer = (void*)(uintptr_t)ranges[i].pointer},
                         .extent = {ranges[i].bytes, 1, 1},
                         .writes = ranges[i].access == CUDASIM_WRITES};
  }
  return count;
}

size_t sim_kernel_uses(const kernel_run* r, use* out) {
  return r->is_wild ? 0 : uses_of(r->ranges, out);
}

size_t sim_kernel_launch_uses(const kernel_launch* l, use* out) {
  cudasim_range ranges[CUDASIM_MAX_RANGES] = {{0}};
  return ask(l, ranges) > CUDASIM_MAX_RANGES ? 0 : uses_of(ranges, out);
}

bool sim_kernel_is_wild(const kernel_run* r) { return r->is_wild; }

void sim_kernel_run_release(kernel_run* r) {
  if (!r) return;
  for (int i = 0; i < CUDASIM_MAX_RANGES; ++i) {
    const span* s = &r->spans[i];
    if (s->device) sim_space_touch(&s->device->space, s->address, s->bytes);
  }
  sim_kernel_release(r->launch);
  sim_bookkeeping_free(r);
}

//===-- The call ------------------------------------------------------------------------------===//

static bool is_within(const device* d, unsigned extent, enum cudaDeviceAttr limit) {
  return extent > 0 && extent <= (unsigned)sim_device_attribute(d, limit);
}

static cudaError_t check_geometry(const device* d, const cudasim_launch* what) {
  const dim3* blocks = &what->grid;
  const dim3* threads = &what->block;
  bool is_good = is_within(d, blocks->x, cudaDevAttrMaxGridDimX) &&
                 is_within(d, blocks->y, cudaDevAttrMaxGridDimY) &&
                 is_within(d, blocks->z, cudaDevAttrMaxGridDimZ) &&
                 is_within(d, threads->x, cudaDevAttrMaxBlockDimX) &&
                 is_within(d, threads->y, cudaDevAttrMaxBlockDimY) &&
                 is_within(d, threads->z, cudaDevAttrMaxBlockDimZ) &&
                 is_within(d, threads->x * threads->y * threads->z, cudaDevAttrMaxThreadsPerBlock);
  if (!is_good) {
    return sim_refuse(cudaErrorInvalidConfiguration, "(%u,%u,%u) blocks of (%u,%u,%u) threads",
                      blocks->x, blocks->y, blocks->z, threads->x, threads->y, threads->z);
  }
  size_t most = (size_t)sim_device_attribute(d, cudaDevAttrMaxSharedMemoryPerBlock);
  if (what->shared_bytes <= most) return cudaSuccess;
  return sim_refuse(cudaErrorInvalidValue, "%zu bytes of shared memory; a block has %zu",
                    what->shared_bytes, most);
}

static cudaError_t check_arguments(const cudasim_kernel* k, void* const* arguments) {
  for (size_t i = 0; i < k->parameter_count; ++i) {
    if (!arguments || !arguments[i]) {
      return sim_refuse(cudaErrorInvalidValue, "kernel %s has %zu parameters; argument %zu is NULL",
                        k->name, k->parameter_count, i);
    }
  }
  return cudaSuccess;
}

static cudaError_t submit(stream* s, kernel_launch* l) {
  if (s->branch) {
    node_work w = {.type = cudaGraphNodeTypeKernel, .kernel = l};
    return sim_capture_work(s, &w);
  }
  op* o = sim_kernel_op(l, s->device);
  if (!o) return cudaErrorMemoryAllocation;
  ++s->device->statistics.kernels;
  if (check_is_on()) sim_check_kernel(s, o->kernel.run);
  sim_scheduler_submit(s, o, false);
  return cudaSuccess;
}

static cudaError_t check(const device* d, const void* function, const cudasim_launch* what,
                         const registration** out) {
  const registration* r = find(function);
  if (!r) {
    sim_refuse(cudaErrorInvalidDeviceFunction, "%p is no registered kernel", function);
    return cudaErrorInvalidDeviceFunction;
  }
  *out = r;
  cudaError_t error = check_geometry(d, what);
  return error ? error : check_arguments(&r->kernel, what->arguments);
}

cudaError_t sim_kernel_launch_create(const device* d, const void* function,
                                     const cudasim_launch* what, kernel_launch** out) {
  const registration* r;
  cudaError_t error = check(d, function, what, &r);
  if (error) return error;
  *out = make_launch(r, what);
  return *out ? cudaSuccess : cudaErrorMemoryAllocation;
}

static cudaError_t launch(device* current, const void* function, const cudasim_launch* what,
                          cudaStream_t in) {
  const registration* r;
  cudaError_t error = check(current, function, what, &r);
  if (error) return error;
  stream* s = sim_stream_for_work(current, in, &error);
  if (!s) return error;
  if (s->device != current) return cudaErrorInvalidResourceHandle;
  kernel_launch* l = make_launch(r, what);
  if (!l) return cudaErrorMemoryAllocation;
  error = submit(s, l);
  sim_kernel_release(l);
  return error;
}

cudaError_t cudaLaunchKernel(const void* func, dim3 gridDim, dim3 blockDim, void** args,
                             size_t sharedMem, cudaStream_t hStream) {
  cudasim_launch what = {
      .grid = gridDim, .block = blockDim, .shared_bytes = sharedMem, .arguments = args};
  CALL(cudaLaunchKernel, launch(frame.device, func, &what, hStream));
}
