// The steps of random programs: streams, events, memory, pools and errors. What works on memory is
// in program_work.c.

#include <stdlib.h>
#include <string.h>

#include "tests/cudasim/program_parts.h"

//===-- Choosing ------------------------------------------------------------------------------===//

static model_stream_arg arg_of(program* p, int index) {
  model_stream_arg arg = {index, p->model.streams[index].handle};
  if (model_is_legacy(index)) arg.handle = program_chance(p, 2) ? NULL : cudaStreamLegacy;
  if (!model_is_legacy(index) && index < MODEL_FIRST_OWN) arg.handle = cudaStreamPerThread;
  return arg;
}

int pick_event(program* p) {
  for (int i = 0; i < 4; ++i) {
    int e = (int)program_draw(p, MODEL_EVENTS);
    if (p->model.events[e].exists) return e;
  }
  return MODEL_NONE;
}

model_stream_arg pick_stream(program* p) {
  const model* m = &p->model;
  for (int i = 0; i < 8; ++i) {
    int index = MODEL_FIRST_OWN + (int)program_draw(p, MODEL_STREAMS - MODEL_FIRST_OWN);
    if (m->streams[index].exists && !program_chance(p, 6)) return arg_of(p, index);
  }
  return arg_of(p, program_chance(p, 2) ? model_legacy(m->device) : model_per_thread(m->device));
}

model_stream_arg pick_any_stream(program* p) {
  if (!program_chance(p, 25)) return pick_stream(p);
  int event = pick_event(p);
  bool takes_event = event != MODEL_NONE && program_chance(p, 2);
  void* wrong = takes_event ? (void*)p->model.events[event].handle : (void*)p->gone_stream;
  return (model_stream_arg){MODEL_NONE, wrong ? (cudaStream_t)wrong : (cudaStream_t)0x1230};
}

int pick_buffer(program* p, bool (*fits)(const model_buffer* b)) {
  for (int i = 0; i < 12; ++i) {
    int index = (int)program_draw(p, MODEL_BUFFERS);
    const model_buffer* b = &p->model.buffers[index];
    bool is_broken = b->exists && model_is_on_device(b) && p->model.devices[b->device].broken;
    if (b->exists && !is_broken && (!fits || fits(b))) return index;
  }
  return MODEL_NONE;
}

static int pick_pool(program* p) {
  for (int i = 0; i < 6; ++i) {
    int pool = (int)program_draw(p, MODEL_POOLS);
    if (p->model.pools[pool].exists) return pool;
  }
  return (int)program_draw(p, MODEL_DEVICES);
}

static cudaMemPool_t pool_handle(program* p, int pool) {
  return pool == MODEL_NONE ? p->gone_pool : p->model.pools[pool].handle;
}

//===-- Devices -------------------------------------------------------------------------------===//

static void set_device(program* p) {
  int device = program_chance(p, 12) ? MODEL_DEVICES : (int)program_draw(p, MODEL_DEVICES);
  TRY(p, model_set_device(&p->model, device), cudaSetDevice(device), "cudaSetDevice(%d)", device);
}

void synchronize_device(program* p) {
  TRY(p, model_synchronize_device(&p->model), cudaDeviceSynchronize(), "cudaDeviceSynchronize()");
}

static void peer(program* p) {
  int other = (int)program_draw(p, MODEL_DEVICES + 1);
  unsigned flags = program_chance(p, 8);
  if (program_chance(p, 2)) {
    TRY(p, model_enable_peer(&p->model, other, flags), cudaDeviceEnablePeerAccess(other, flags),
        "cudaDeviceEnablePeerAccess(%d, %u)", other, flags);
  } else {
    TRY(p, model_disable_peer(&p->model, other), cudaDeviceDisablePeerAccess(other),
        "cudaDeviceDisablePeerAccess(%d)", other);
  }
}

static void refetch_default_pool(program* p, int device) {
  model_pool* pool = &p->model.pools[device];
  if (cudaDeviceGetDefaultMemPool(&pool->handle, device)) program_fail(p, "no default pool");
}

static void reset_device(program* p) {
  int device = p->model.device;
  cudaError_t error = TRY(p, model_reset_device(&p->model), cudaDeviceReset(), "cudaDeviceReset()");
  if (!error) refetch_default_pool(p, device);
}

// Waits for all streams of all devices; false if that is not allowed now.
static bool is_all_over(program* p) {
  if (model_is_capturing(&p->model)) return false;
  int before = p->model.device;
  for (int d = 0; d < MODEL_DEVICES; ++d) {
    if (p->model.devices[d].broken) return false;
    TRY(p, model_set_device(&p->model, d), cudaSetDevice(d), "cudaSetDevice(%d)", d);
    synchronize_device(p);
  }
  TRY(p, model_set_device(&p->model, before), cudaSetDevice(before), "cudaSetDevice(%d)", before);
  for (int i = 0; i < MODEL_STREAMS; ++i) {
    if (p->model.done.at[i] < p->model.streams[i].position) return false;  // there was a fault
  }
  return true;
}

static void break_device(program* p) {
  static const cudaError_t errors[] = {cudaErrorIllegalAddress, cudaErrorLaunchFailure,
                                       cudaErrorECCUncorrectable};
  if (!program_chance(p, 4) || !is_all_over(p)) return;
  int device = (int)program_draw(p, MODEL_DEVICES);
  cudaError_t error = errors[program_draw(p, 3)];
  if (p->is_logging) program_note(p, "device %d breaks: %s\n", device, cudaGetErrorName(error));
  model_break(&p->model, device, error);
  cudasim_break_device(device, error);
}

//===-- Errors --------------------------------------------------------------------------------===//

static void last_error(program* p) {
  TRY(p, model_get_last_error(&p->model), cudaGetLastError(), "cudaGetLastError()");
}

static void fault(program* p) {
  static const char* const functions[] = {"cudaMalloc",
                                          "cudaFree",
                                          "cudaMallocAsync",
                                          "cudaFreeAsync",
                                          "cudaMemcpyAsync",
                                          "cudaMemsetAsync",
                                          "cudaStreamSynchronize",
                                          "cudaEventRecord",
                                          "cudaStreamWaitEvent",
                                          "cudaHostAlloc",
                                          "cudaFreeHost",
                                          "cudaLaunchHostFunc",
                                          "cudaEventQuery",
                                          "cudaMemPoolCreate",
                                          "cudaMemcpy",
                                          "cudaDeviceSynchronize",
                                          "cudaMemPoolTrimTo",
                                          "cudaGraphLaunch",
                                          "cudaStreamQuery",
                                          "cudaEventDestroy"};
  static const cudaError_t errors[] = {cudaErrorMemoryAllocation, cudaErrorUnknown,
                                       cudaErrorInvalidValue};
  const char* function = functions[program_draw(p, 20)];
  uint64_t nth = 1 + program_draw(p, 3);
  uint64_t count = 1 + program_draw(p, 2);
  cudaError_t error = errors[program_draw(p, 3)];
  for (int i = 0; i < MODEL_FAULTS; ++i) {
    if (p->model.faults[i].error && i == MODEL_FAULTS - 1) return;  // there is no room
  }
  if (p->is_logging) {
    program_note(p, "cudasim_fail(%s, %d, %d, %s)\n", function, (int)nth, (int)count,
                 cudaGetErrorName(error));
  }
  model_fail(&p->model, function, nth, count, error);
  cudasim_fail(function, nth, count, error);
}

//===-- Streams -------------------------------------------------------------------------------===//

static void create_stream(program* p) {
  int slot = model_stream_slot(&p->model);
  if (slot == MODEL_NONE) return;
  unsigned flags = program_chance(p, 12) ? 8 : program_draw(p, 2);
  int priority = (int)program_draw(p, 12) - 9;
  cudaStream_t handle = NULL;
  cudaError_t error = TRY(p, model_create_stream(&p->model, slot, flags, priority),
                          cudaStreamCreateWithPriority(&handle, flags, priority),
                          "cudaStreamCreateWithPriority(stream %d, %u, %d)", slot, flags, priority);
  if (!error) p->model.streams[slot].handle = handle;
}

static void destroy_stream(program* p) {
  model_stream_arg s = pick_any_stream(p);
  cudaError_t error = TRY(p, model_destroy_stream(&p->model, s), cudaStreamDestroy(s.handle),
                          "cudaStreamDestroy(stream %d)", s.index);
  if (!error) p->gone_stream = s.handle;
}

static void query_stream(program* p) {
  model_stream_arg s = pick_any_stream(p);
  cudaError_t error = TRY(p, model_query_stream(&p->model, s), cudaStreamQuery(s.handle),
                          "cudaStreamQuery(stream %d)", s.index);
  if (!error) model_host_knows(&p->model, &p->model.streams[s.index].order);
  model_settle_memory(&p->model);
}

static void synchronize_stream_arg(program* p, model_stream_arg s) {
  TRY(p, model_synchronize_stream(&p->model, s), cudaStreamSynchronize(s.handle),
      "cudaStreamSynchronize(stream %d)", s.index);
}

static void synchronize_stream(program* p) { synchronize_stream_arg(p, pick_any_stream(p)); }

static void ask_stream(program* p) {
  model* m = &p->model;
  model_stream_arg s = pick_any_stream(p);
  const model_stream* found = s.index == MODEL_NONE ? NULL : &m->streams[s.index];
  int value = 99;
  unsigned flags = 99;
  cudaError_t why;
  cudaError_t expected = model_open(m, "cudaStreamGetPriority");
  if (!expected) model_usable(m, s, &why);
  if (!expected) expected = why;
  if (!TRY(p, model_close(m, expected), cudaStreamGetPriority(s.handle, &value),
           "cudaStreamGetPriority(stream %d)", s.index) &&
      found && value != found->priority) {
    program_fail(p, "the priority is %d, not %d", value, found->priority);
  }
  expected = model_open(m, "cudaStreamGetFlags");
  if (!expected) model_usable(m, s, &why);
  if (!expected) expected = why;
  if (!TRY(p, model_close(m, expected), cudaStreamGetFlags(s.handle, &flags),
           "cudaStreamGetFlags(stream %d)", s.index) &&
      found && flags != found->flags) {
    program_fail(p, "the flags are %u, not %u", flags, found->flags);
  }
}

//===-- Events --------------------------------------------------------------------------------===//

static cudaEvent_t event_handle(const program* p, int e) {
  if (e != MODEL_NONE) return p->model.events[e].handle;
  return p->gone_event ? p->gone_event : (cudaEvent_t)0x4560;
}

static int create_event_with(program* p, unsigned flags) {
  int slot = 0;
  while (slot < MODEL_EVENTS && p->model.events[slot].exists) ++slot;
  if (slot == MODEL_EVENTS) return MODEL_NONE;
  cudaEvent_t handle = NULL;
  cudaError_t error =
      TRY(p, model_create_event(&p->model, slot, flags), cudaEventCreateWithFlags(&handle, flags),
          "cudaEventCreateWithFlags(event %d, %u)", slot, flags);
  if (!error) p->model.events[slot].handle = handle;
  return error ? MODEL_NONE : slot;
}

static void create_event(program* p) {
  create_event_with(p, program_chance(p, 3) ? program_draw(p, 16) : program_draw(p, 2) * 2);
}

static void destroy_event_of(program* p, int e) {
  cudaEvent_t handle = event_handle(p, e);
  cudaError_t error = TRY(p, model_destroy_event(&p->model, e), cudaEventDestroy(handle),
                          "cudaEventDestroy(event %d)", e);
  if (!error) p->gone_event = handle;
}

static void destroy_event(program* p) { destroy_event_of(p, pick_event(p)); }

static void record_in(program* p, int e, model_stream_arg s) {
  TRY(p, model_record(&p->model, "cudaEventRecord", e, s, 0),
      cudaEventRecord(event_handle(p, e), s.handle), "cudaEventRecord(event %d, stream %d)", e,
      s.index);
}

static void record(program* p) { record_in(p, pick_event(p), pick_any_stream(p)); }

static void wait_in(program* p, model_stream_arg s, int e) {
  TRY(p, model_wait_event(&p->model, s, e, 0), cudaStreamWaitEvent(s.handle, event_handle(p, e), 0),
      "cudaStreamWaitEvent(stream %d, event %d)", s.index, e);
}

static void wait_event(program* p) { wait_in(p, pick_any_stream(p), pick_event(p)); }

static void query_event(program* p) {
  int e = pick_event(p);
  cudaError_t error = TRY(p, model_query_event(&p->model, e), cudaEventQuery(event_handle(p, e)),
                          "cudaEventQuery(event %d)", e);
  bool is_over = !error && p->model.events[e].stream != MODEL_NONE;
  if (is_over) model_host_knows(&p->model, &p->model.events[e].order);
  model_settle_memory(&p->model);
}

static void synchronize_event(program* p) {
  int e = pick_event(p);
  TRY(p, model_synchronize_event(&p->model, e), cudaEventSynchronize(event_handle(p, e)),
      "cudaEventSynchronize(event %d)", e);
}

static void elapsed(program* p) {
  int start = pick_event(p);
  int end = pick_event(p);
  float ms;
  TRY(p, model_elapsed(&p->model, start, end),
      cudaEventElapsedTime(&ms, event_handle(p, start), event_handle(p, end)),
      "cudaEventElapsedTime(event %d, event %d)", start, end);
}

//===-- Order ---------------------------------------------------------------------------------===//

// Makes `s` (or the host, with MODEL_NONE) come after what is in `other`, in one of the ways that
// there are.
static void order_by_event(program* p, int other, model_stream_arg s) {
  model* m = &p->model;
  int before = m->device;
  int device = m->streams[other].device;
  if (device != before) {
    TRY(p, model_set_device(m, device), cudaSetDevice(device), "cudaSetDevice(%d)", device);
  }
  int e = create_event_with(p, cudaEventDisableTiming);
  if (e != MODEL_NONE) record_in(p, e, arg_of(p, other));
  if (device != before) {
    TRY(p, model_set_device(m, before), cudaSetDevice(before), "cudaSetDevice(%d)", before);
  }
  if (e != MODEL_NONE) wait_in(p, s, e);
  if (e != MODEL_NONE) destroy_event_of(p, e);
}

static void order_after(program* p, int other, model_stream_arg s) {
  model* m = &p->model;
  const model_stream* k = &m->streams[other];
  bool can_wait = !model_is_capturing(m);
  bool is_usable = k->exists && k->capture == MODEL_NONE;
  bool is_here = other >= MODEL_FIRST_OWN || k->device == m->device;
  unsigned way = program_draw(p, 8);
  if (is_usable && s.index != MODEL_NONE && way < 6) {
    order_by_event(p, other, s);
  } else if (is_usable && is_here && can_wait && way < 7) {
    synchronize_stream_arg(p, arg_of(p, other));
  } else if (can_wait && !m->devices[k->device].broken) {
    int before = m->device;
    TRY(p, model_set_device(m, k->device), cudaSetDevice(k->device), "cudaSetDevice(%d)",
        k->device);
    synchronize_device(p);
    TRY(p, model_set_device(m, before), cudaSetDevice(before), "cudaSetDevice(%d)", before);
  }
}

bool make_safe(program* p, model_stream_arg s, int (*race)(program* p, int stream, const void* of),
               const void* of) {
  for (int i = 0; i < 12; ++i) {
    int other = race(p, s.index, of);
    if (other == MODEL_NONE) return true;
    order_after(p, other, s);
    if (p->has_failed) return false;
  }
  return false;
}

//===-- Memory --------------------------------------------------------------------------------===//

static size_t draw_size(program* p) {
  switch (program_draw(p, 12)) {
    case 0:
      return (size_t)(1 + program_draw(p, 12)) << 20;
    case 1:
      return (size_t)(20 + program_draw(p, 60)) << 20;
    case 2:
      return program_chance(p, 2) ? (size_t)300 << 20 : 0;
    default:
      return 1 + program_draw(p, program_chance(p, 4) ? 1 << 20 : 4096);
  }
}

static void look_at(program* p, int buffer) {
  model_buffer* b = &p->model.buffers[buffer];
  size_t bytes = b->size < MODEL_WINDOW ? b->size : MODEL_WINDOW;
  b->seen = cudasim_device_memory(b->address, bytes);
  if (!b->seen) program_fail(p, "the memory is not there");
}

static void judge_address(program* p, int buffer, const char* wrong) {
  if (wrong) program_fail(p, "%s", wrong);
  look_at(p, buffer);
}

static void allocate(program* p) {
  int slot = model_buffer_slot(&p->model);
  if (slot == MODEL_NONE) return;
  size_t size = draw_size(p);
  void* memory = p;
  cudaError_t error = TRY(p, model_malloc(&p->model, "cudaMalloc", size), cudaMalloc(&memory, size),
                          "cudaMalloc(buffer %d, %zu)", slot, size);
  if (error || p->has_failed) return;
  if (!size && memory) program_fail(p, "0 bytes have an address");
  if (size) judge_address(p, slot, model_malloced(&p->model, slot, memory, size));
}

int allocate_in(program* p, int pool, size_t size, model_stream_arg s) {
  int slot = model_buffer_slot(&p->model);
  if (slot == MODEL_NONE) return MODEL_NONE;
  void* memory = p;
  cudaError_t error;
  if (pool == MODEL_NONE) {
    error = TRY(p, model_malloc_async(&p->model, "cudaMallocAsync", pool, size, s),
                cudaMallocAsync(&memory, size, s.handle),
                "cudaMallocAsync(buffer %d, %zu, stream %d)", slot, size, s.index);
  } else {
    error = TRY(p, model_malloc_async(&p->model, "cudaMallocFromPoolAsync", pool, size, s),
                cudaMallocFromPoolAsync(&memory, size, pool_handle(p, pool), s.handle),
                "cudaMallocFromPoolAsync(buffer %d, %zu, pool %d, stream %d)", slot, size, pool,
                s.index);
  }
  if (error || !size || p->has_failed) return MODEL_NONE;
  judge_address(p, slot, model_malloced_async(&p->model, slot, pool, memory, size, s));
  return slot;
}

static void allocate_async(program* p) {
  model_stream_arg s = pick_any_stream(p);
  if (s.index != MODEL_NONE && p->model.streams[s.index].capture != MODEL_NONE) return;
  int pool = program_chance(p, 2) ? MODEL_NONE : pick_pool(p);
  int owner = pool == MODEL_NONE ? 0 : p->model.pools[pool].device;
  if (!p->model.devices[owner].broken) allocate_in(p, pool, draw_size(p), s);
}

static int race_of_free(program* p, int stream, const void* of) {
  return model_race_of_free(&p->model, stream, *(const int*)of);
}

static bool is_on_device(const model_buffer* b) { return model_is_on_device(b); }
static bool is_host(const model_buffer* b) { return !model_is_on_device(b); }

// An argument that is no allocation.
static void* wrong_pointer(program* p) {
  for (int i = 0; i < MODEL_BUFFERS; ++i) {
    const model_buffer* b = &p->model.buffers[i];
    char* gone = p->gone;
    if (b->exists && gone >= b->address && gone < b->address + b->size) return (void*)0x100;
  }
  return p->gone ? p->gone : (void*)0x100;
}

static void free_wrongly(program* p) {
  void* wrong = wrong_pointer(p);
  model_stream_arg s = pick_stream(p);
  if (program_chance(p, 2)) {
    TRY(p, model_free(&p->model, MODEL_NONE), cudaFree(wrong), "cudaFree(%p)", wrong);
  } else if (p->model.streams[s.index].capture == MODEL_NONE) {
    TRY(p, model_free_async(&p->model, MODEL_NONE, s), cudaFreeAsync(wrong, s.handle),
        "cudaFreeAsync(%p, stream %d)", wrong, s.index);
  }
}

static const model_stream_arg the_host = {MODEL_NONE, NULL};

bool release_in(program* p, int buffer, model_stream_arg s) {
  void* memory = p->model.buffers[buffer].address;
  if (p->model.streams[s.index].capture != MODEL_NONE) return false;
  if (!make_safe(p, s, race_of_free, &buffer)) return false;
  cudaError_t error =
      TRY(p, model_free_async(&p->model, buffer, s), cudaFreeAsync(memory, s.handle),
          "cudaFreeAsync(buffer %d, stream %d)", buffer, s.index);
  if (!error) p->gone = memory;
  return !error && !p->has_failed;
}

static void release(program* p) {
  int buffer = program_chance(p, 15) ? MODEL_NONE : pick_buffer(p, is_on_device);
  if (buffer == MODEL_NONE) {
    free_wrongly(p);
    return;
  }
  if (!program_chance(p, 3)) {
    release_in(p, buffer, pick_stream(p));
    return;
  }
  void* memory = p->model.buffers[buffer].address;
  if (!make_safe(p, the_host, race_of_free, &buffer)) return;
  cudaError_t error =
      TRY(p, model_free(&p->model, buffer), cudaFree(memory), "cudaFree(buffer %d)", buffer);
  if (!error) p->gone = memory;
}

//===-- Host memory ---------------------------------------------------------------------------===//

static void write_pattern(program* p, int buffer) {
  model_buffer* b = &p->model.buffers[buffer];
  for (size_t i = 0; i < MODEL_WINDOW && i < b->size; ++i) {
    b->seen[i] = b->data[i] = (unsigned char)program_draw(p, 256);
    b->is_known[i] = true;
  }
}

static void allocate_host(program* p) {
  int slot = model_buffer_slot(&p->model);
  if (slot == MODEL_NONE) return;
  size_t size = 1 + program_draw(p, 600);
  unsigned flags = program_chance(p, 3) ? program_draw(p, 10) : 0;
  void* memory = NULL;
  cudaError_t error = TRY(p, model_host_alloc(&p->model, "cudaHostAlloc", size, flags),
                          cudaHostAlloc(&memory, size, flags), "cudaHostAlloc(buffer %d, %zu, %u)",
                          slot, size, flags);
  if (error || p->has_failed) return;
  model_host_alloced(&p->model, slot, memory, size, flags);
  write_pattern(p, slot);
}

// Pageable memory, which may be registered later.
static void allocate_pageable(program* p) {
  int slot = model_buffer_slot(&p->model);
  size_t size = 1 + program_draw(p, 600);
  if (slot == MODEL_NONE) return;
  void* memory = malloc(size);
  if (!memory) abort();
  model_host_alloced(&p->model, slot, memory, size, 0);
  p->model.buffers[slot].memory = MEMORY_PAGEABLE;
  write_pattern(p, slot);
}

static void change_registration(program* p) {
  int buffer = pick_buffer(p, is_host);
  if (buffer == MODEL_NONE || !make_safe(p, the_host, race_of_free, &buffer)) return;
  model_buffer* b = &p->model.buffers[buffer];
  void* memory = b->address;
  unsigned flags = program_chance(p, 8) ? 64 : program_draw(p, 4);
  if (program_chance(p, 2)) {
    TRY(p, model_host_register(&p->model, buffer, b->size, flags),
        cudaHostRegister(memory, b->size, flags), "cudaHostRegister(buffer %d, %u)", buffer, flags);
  } else {
    TRY(p, model_host_unregister(&p->model, buffer), cudaHostUnregister(memory),
        "cudaHostUnregister(buffer %d)", buffer);
  }
}

static void free_host(program* p) {
  int buffer = pick_buffer(p, is_host);
  if (buffer == MODEL_NONE || !make_safe(p, the_host, race_of_free, &buffer)) return;
  void* memory = p->model.buffers[buffer].address;
  TRY(p, model_free_host(&p->model, buffer), cudaFreeHost(memory), "cudaFreeHost(buffer %d)",
      buffer);
}

static void change_host(program* p) {
  int buffer = pick_buffer(p, is_host);
  if (buffer != MODEL_NONE && model_host_may_touch(&p->model, buffer)) write_pattern(p, buffer);
}

static int expected_type(const model_buffer* b) {
  if (model_is_on_device(b)) return cudaMemoryTypeDevice;
  return model_is_pinned(b) ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered;
}

static void ask_pointer(program* p) {
  int buffer = pick_buffer(p, NULL);
  if (buffer == MODEL_NONE) return;
  const model_buffer* b = &p->model.buffers[buffer];
  const char* pointer = b->address + program_draw(p, (unsigned)b->size);
  struct cudaPointerAttributes a;
  cudaError_t expected = model_open(&p->model, "cudaPointerGetAttributes");
  if (TRY(p, model_close(&p->model, expected), cudaPointerGetAttributes(&a, pointer),
          "cudaPointerGetAttributes(buffer %d)", buffer)) {
    return;
  }
  int type = expected_type(b);
  int device = type == cudaMemoryTypeUnregistered ? cudaInvalidDeviceId : b->device;
  bool is_same = (int)a.type == type && a.device == device &&
                 (a.hostPointer == pointer) == (type != cudaMemoryTypeDevice) &&
                 (a.devicePointer == pointer) == (type != cudaMemoryTypeUnregistered);
  if (!is_same)
    program_fail(p, "type %d of device %d, not %d of %d", a.type, a.device, type, device);
}

//===-- Pools ---------------------------------------------------------------------------------===//

static void create_pool(program* p) {
  int slot = model_pool_slot(&p->model);
  if (slot == MODEL_NONE) return;
  int device = program_chance(p, 10) ? MODEL_DEVICES : (int)program_draw(p, MODEL_DEVICES);
  size_t limit = program_chance(p, 2) ? 0 : (size_t)(1 + program_draw(p, 100)) << 20;
  struct cudaMemPoolProps props = {.allocType = cudaMemAllocationTypePinned, .maxSize = limit};
  props.location.type = cudaMemLocationTypeDevice;
  props.location.id = device;
  cudaMemPool_t handle = NULL;
  cudaError_t error =
      TRY(p, model_create_pool(&p->model, slot, device, limit), cudaMemPoolCreate(&handle, &props),
          "cudaMemPoolCreate(pool %d, device %d, %zu MiB)", slot, device, limit >> 20);
  if (!error) p->model.pools[slot].handle = handle;
}

static void destroy_pool(program* p) {
  int pool = pick_pool(p);
  cudaMemPool_t handle = pool_handle(p, pool);
  cudaError_t error = TRY(p, model_destroy_pool(&p->model, pool), cudaMemPoolDestroy(handle),
                          "cudaMemPoolDestroy(pool %d)", pool);
  if (!error) p->gone_pool = handle;
}

static int pick_any_pool(program* p) {
  return p->gone_pool && program_chance(p, 15) ? MODEL_NONE : pick_pool(p);
}

static void trim_pool(program* p) {
  int pool = pick_any_pool(p);
  size_t keep = program_chance(p, 2) ? 0 : (size_t)program_draw(p, 100) << 20;
  TRY(p, model_trim_pool(&p->model, pool, keep), cudaMemPoolTrimTo(pool_handle(p, pool), keep),
      "cudaMemPoolTrimTo(pool %d, %zu MiB)", pool, keep >> 20);
}

static void set_pool(program* p) {
  int pool = pick_any_pool(p);
  int attribute = 1 + (int)program_draw(p, 9);
  uint64_t value = program_draw(p, 2);
  if (attribute == cudaMemPoolAttrReleaseThreshold) value *= (uint64_t)program_draw(p, 100) << 20;
  TRY(p, model_set_pool(&p->model, pool, (enum cudaMemPoolAttr)attribute, value),
      cudaMemPoolSetAttribute(pool_handle(p, pool), (enum cudaMemPoolAttr)attribute, &value),
      "cudaMemPoolSetAttribute(pool %d, %d, %llu)", pool, attribute, (unsigned long long)value);
}

static void set_device_pool(program* p) {
  int pool = pick_any_pool(p);
  int device = (int)program_draw(p, MODEL_DEVICES);
  TRY(p, model_set_device_pool(&p->model, device, pool),
      cudaDeviceSetMemPool(device, pool_handle(p, pool)), "cudaDeviceSetMemPool(%d, pool %d)",
      device, pool);
}

static void get_device_pool(program* p) {
  int device = (int)program_draw(p, MODEL_DEVICES);
  cudaMemPool_t found = NULL;
  cudaError_t expected = model_open(&p->model, "cudaDeviceGetMemPool");
  if (TRY(p, model_close(&p->model, expected), cudaDeviceGetMemPool(&found, device),
          "cudaDeviceGetMemPool(%d)", device)) {
    return;
  }
  const model_pool* pool = &p->model.pools[p->model.devices[device].pool];
  if (found != pool->handle) program_fail(p, "it is another pool");
}

//===-- All -----------------------------------------------------------------------------------===//

typedef struct choice {
  unsigned weight;
  void (*step)(program* p);
} choice;

static const choice choices[] = {
    {60, work_step},
    {6, wrong_work_step},
    {6, turn_over_step},
    {10, allocate},
    {16, allocate_async},
    {14, release},
    {6, allocate_host},
    {3, allocate_pageable},
    {3, free_host},
    {3, change_registration},
    {4, change_host},
    {3, ask_pointer},
    {5, set_device},
    {2, peer},
    {4, synchronize_device},
    {6, create_stream},
    {3, destroy_stream},
    {5, query_stream},
    {5, synchronize_stream},
    {2, ask_stream},
    {5, create_event},
    {2, destroy_event},
    {7, record},
    {7, wait_event},
    {4, query_event},
    {4, synchronize_event},
    {3, elapsed},
    {3, create_pool},
    {1, destroy_pool},
    {4, trim_pool},
    {4, set_pool},
    {2, set_device_pool},
    {2, get_device_pool},
    {2, last_error},
    {2, fault},
    {1, break_device},
    {6, begin_capture},
    {8, graph_step},
    {20, launch_graph},
};

// What goes well with captures.
static const choice captured_choices[] = {
    {20, work_step},    {20, captured_work_step}, {6, fork_capture},  {6, join_capture},
    {5, end_capture},   {2, create_event},        {2, begin_capture}, {2, ask_capture},
    {1, exchange_mode}, {2, create_stream},       {1, set_device},
};

static void take(program* p, const choice* from, size_t count) {
  unsigned sum = 0;
  for (size_t i = 0; i < count; ++i) sum += from[i].weight;
  unsigned drawn = program_draw(p, sum);
  size_t i = 0;
  while (drawn >= from[i].weight) drawn -= from[i++].weight;
  from[i].step(p);
}

// What a program begins with, so that it has something to work on.
static const choice first_choices[] = {
    {5, create_stream},  {2, create_event},  {3, allocate},
    {4, allocate_async}, {2, allocate_host}, {1, allocate_pageable},
};

void program_step(program* p) {
  if (p->step < 20) {
    take(p, first_choices, sizeof(first_choices) / sizeof(first_choices[0]));
  } else if (program_chance(p, 400) && !model_is_capturing(&p->model)) {
    if (is_all_over(p)) reset_device(p);
  } else if (model_is_capturing(&p->model) && !program_chance(p, 15)) {
    take(p, captured_choices, sizeof(captured_choices) / sizeof(captured_choices[0]));
  } else {
    take(p, choices, sizeof(choices) / sizeof(choices[0]));
  }
}

static bool is_any_broken(const program* p) {
  for (int d = 0; d < MODEL_DEVICES; ++d) {
    if (p->model.devices[d].broken) return true;
  }
  return false;
}

// Everything is given back, and then all memory must be there again.
static void empty_device(program* p, int device) {
  cudasim_fail_nothing();
  memset(p->model.faults, 0, sizeof(p->model.faults));
  TRY(p, model_set_device(&p->model, device), cudaSetDevice(device), "cudaSetDevice(%d)", device);
  synchronize_device(p);
  for (int i = 0; i < MODEL_BUFFERS && !p->has_failed; ++i) {
    const model_buffer* b = &p->model.buffers[i];
    if (!b->exists || !model_is_on_device(b) || b->device != device) continue;
    TRY(p, model_free(&p->model, i), cudaFree(b->address), "cudaFree(buffer %d)", i);
  }
  synchronize_device(p);
  for (int i = 0; i < MODEL_POOLS && !p->has_failed; ++i) {
    const model_pool* pool = &p->model.pools[i];
    if (!pool->exists || pool->device != device) continue;
    TRY(p, model_trim_pool(&p->model, i, 0), cudaMemPoolTrimTo(pool->handle, 0),
        "cudaMemPoolTrimTo(pool %d, 0)", i);
  }
}

// Nothing brings a broken device back, so what is on it stays.
void program_end(program* p) {
  if (is_any_broken(p)) return;
  for (int i = MODEL_FIRST_OWN; i < MODEL_STREAMS; ++i) {
    if (!p->model.streams[i].exists) continue;
    if (p->model.streams[i].capture == MODEL_NONE) continue;
    model_stream_arg s = arg_of(p, i);
    TRY(p, model_destroy_stream(&p->model, s), cudaStreamDestroy(s.handle),
        "cudaStreamDestroy(stream %d)", i);
  }
  if (model_is_capturing(&p->model)) return;  // of a default stream
  for (int round = 0; round < 2; ++round) {   // devices may hold each other's memory
    for (int d = 0; d < MODEL_DEVICES && !p->has_failed; ++d) {
      empty_device(p, d);
      program_compare(p);
    }
  }
}
