// Memory and pools: what is taken, and what may be.
//
// Where an allocation lies is the runtime's business. The model takes the address, says what is
// wrong with it, and counts from the addresses what must be taken: granules of 2 MiB for
// cudaMalloc, chunks of 32 MiB for pools.

#include <string.h>

#include "tests/cudasim/model.h"

#define UNIT ((uint64_t)512)
#define LARGEST_SMALL (MODEL_GRANULE - UNIT)

static uint64_t round_up(uint64_t value, uint64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

static uint64_t lesser(uint64_t a, uint64_t b) { return a < b ? a : b; }

static uint64_t address_of(const model_buffer* b) { return (uint64_t)(uintptr_t)b->address; }

static uint64_t end_of(const model_buffer* b) { return address_of(b) + round_up(b->size, UNIT); }

int model_buffer_slot(const model* m) {
  for (int i = 0; i < MODEL_BUFFERS; ++i) {
    if (!m->buffers[i].exists && !m->buffers[i].is_leaving) return i;
  }
  return MODEL_NONE;
}

void model_settle_memory(model* m) {
  for (int i = 0; i < MODEL_BUFFERS; ++i) {
    model_buffer* b = &m->buffers[i];
    if (b->is_leaving && b->written <= m->done.at[b->writer]) b->is_leaving = false;
  }
}

//===-- What cudaMalloc has taken -------------------------------------------------------------===//

static bool is_of_malloc(const model_buffer* b, int device, bool with_leaving) {
  return b->memory == MEMORY_DEVICE && b->device == device &&
         (b->exists || (with_leaving && b->is_leaving));
}

static bool shares_granule_with_earlier(const model* m, int index, bool with_leaving) {
  const model_buffer* b = &m->buffers[index];
  for (int i = 0; i < index; ++i) {
    const model_buffer* other = &m->buffers[i];
    if (is_of_malloc(other, b->device, with_leaving) && other->size <= LARGEST_SMALL &&
        address_of(other) / MODEL_GRANULE == address_of(b) / MODEL_GRANULE) {
      return true;
    }
  }
  return false;
}

static uint64_t taken_by_malloc(const model* m, int device, bool with_leaving) {
  uint64_t taken = 0;
  for (int i = 0; i < MODEL_BUFFERS; ++i) {
    const model_buffer* b = &m->buffers[i];
    if (!is_of_malloc(b, device, with_leaving)) continue;
    if (b->size > LARGEST_SMALL) {
      taken += round_up(b->size, MODEL_GRANULE);
    } else if (!shares_granule_with_earlier(m, i, with_leaving)) {
      taken += MODEL_GRANULE;
    }
  }
  return taken;
}

// Whether `size` bytes fit from `start` on into its granule between the allocations there.
static bool fits_at(const model* m, int device, uint64_t start, uint64_t size, bool with_leaving) {
  if (start / MODEL_GRANULE != (start + size - 1) / MODEL_GRANULE) return false;
  for (int i = 0; i < MODEL_BUFFERS; ++i) {
    const model_buffer* b = &m->buffers[i];
    if (!is_of_malloc(b, device, with_leaving)) continue;
    if (address_of(b) < start + size && end_of(b) > start) return false;
  }
  return true;
}

// Whether a granule that is in use has a hole for `size` bytes, surely or perhaps: what leaves may
// be there or not. Holes begin where the granule does or where an allocation ends.
static bool has_hole(const model* m, int device, uint64_t size, bool surely) {
  uint64_t rounded = round_up(size, UNIT);
  for (int i = 0; i < MODEL_BUFFERS; ++i) {
    const model_buffer* b = &m->buffers[i];
    if (!is_of_malloc(b, device, !surely) || b->size > LARGEST_SMALL) continue;
    uint64_t granule = address_of(b) / MODEL_GRANULE * MODEL_GRANULE;
    if (fits_at(m, device, granule, rounded, surely)) return true;
    bool is_inside = end_of(b) / MODEL_GRANULE == granule / MODEL_GRANULE;
    if (is_inside && fits_at(m, device, end_of(b), rounded, surely)) return true;
  }
  return false;
}

//===-- What pools have taken -----------------------------------------------------------------===//

static bool is_in_pool(const model_buffer* b, int pool) {
  return b->exists && b->memory == MEMORY_POOL && b->pool == pool;
}

static bool is_in_use(const model* m, int pool, uint64_t chunk, int below) {
  for (int i = 0; i < below; ++i) {
    const model_buffer* b = &m->buffers[i];
    bool holds = is_in_pool(b, pool) && address_of(b) < chunk + MODEL_CHUNK && end_of(b) > chunk;
    if (holds) return true;
  }
  return false;
}

// Bytes of the chunks in which something is in use.
static uint64_t used_chunks(const model* m, int pool) {
  uint64_t bytes = 0;
  for (int i = 0; i < MODEL_BUFFERS; ++i) {
    const model_buffer* b = &m->buffers[i];
    if (!is_in_pool(b, pool)) continue;
    uint64_t chunk = address_of(b) / MODEL_CHUNK * MODEL_CHUNK;
    for (; chunk < end_of(b); chunk += MODEL_CHUNK) {
      if (!is_in_use(m, pool, chunk, i)) bytes += MODEL_CHUNK;
    }
  }
  return bytes;
}

static void set_range(model_pool* p, uint64_t least, uint64_t most) {
  p->least = least;
  p->most = most;
}

bool model_settle_reserved(model* m, int pool, uint64_t reserved) {
  model_pool* p = &m->pools[pool];
  if (reserved < p->least || reserved > p->most || reserved % MODEL_CHUNK) return false;
  p->reserved = p->least = p->most = reserved;
  if (reserved > p->reserved_high) p->reserved_high = reserved;
  if (reserved > p->peak) p->peak = reserved;
  return true;
}

// The pool may give up what is not in use.
static void may_shrink(model* m, int pool) {
  model_pool* p = &m->pools[pool];
  p->least = lesser(p->least, used_chunks(m, pool));
}

static void may_all_shrink(model* m, int device, int except) {
  for (int i = 0; i < MODEL_POOLS; ++i) {
    const model_pool* p = &m->pools[i];
    if (i != except && p->device == device && (p->exists || p->is_ending)) may_shrink(m, i);
  }
}

static void pool_bounds(const model* m, int device, uint64_t* least, uint64_t* most) {
  for (int i = 0; i < MODEL_POOLS; ++i) {
    const model_pool* p = &m->pools[i];
    if (p->device != device || (!p->exists && !p->is_ending)) continue;
    *least += p->least;
    *most += p->most;
  }
}

void model_free_memory(const model* m, int device, uint64_t* least, uint64_t* most) {
  uint64_t taken_least = taken_by_malloc(m, device, false);
  uint64_t taken_most = taken_by_malloc(m, device, true);
  pool_bounds(m, device, &taken_least, &taken_most);
  uint64_t memory = m->devices[device].memory;
  *least = memory > taken_most ? memory - taken_most : 0;
  *most = memory - taken_least;
}

// The most that could be free if pools gave up all that nothing is in.
static uint64_t free_at_best(const model* m, int device) {
  uint64_t taken = taken_by_malloc(m, device, false);
  for (int i = 0; i < MODEL_POOLS; ++i) {
    const model_pool* p = &m->pools[i];
    if (p->device == device && (p->exists || p->is_ending)) taken += used_chunks(m, i);
  }
  return m->devices[device].memory - taken;
}

//===-- cudaMalloc ----------------------------------------------------------------------------===//

static void make_buffer(model* m, int buffer, model_memory memory, void* address, size_t size) {
  model_buffer* b = &m->buffers[buffer];
  memset(b, 0, sizeof(*b));
  b->exists = true;
  b->id = ++m->buffer_ids;
  b->memory = memory;
  b->device = m->device;
  b->pool = MODEL_NONE;
  b->address = address;
  b->size = size;
  b->writer = MODEL_NONE;
}

static bool overlaps(const model_buffer* b, const void* address, size_t size) {
  uint64_t at = (uint64_t)(uintptr_t)address;
  return address_of(b) < at + size && at < address_of(b) + b->size;
}

static const char* check_address(model* m, const void* address, size_t size) {
  if (!address || (uintptr_t)address % UNIT) return "the address is not aligned";
  for (int i = 0; i < MODEL_BUFFERS; ++i) {
    model_buffer* b = &m->buffers[i];
    if (!overlaps(b, address, size)) continue;
    if (b->exists) return "the memory is in use";
    b->is_leaving = false;  // it is gone, or it would not have been given out
  }
  return NULL;
}

static cudaError_t refuse_or_not(model* m, uint64_t need, uint64_t least, uint64_t most) {
  if (need > most) return cudaErrorMemoryAllocation;
  if (need > least) m->or_else = cudaErrorMemoryAllocation;
  return cudaSuccess;
}

static cudaError_t take(model* m, size_t size) {
  int d = m->device;
  if (!size) return cudaSuccess;
  if (size > m->devices[d].memory) return cudaErrorMemoryAllocation;
  bool is_small = size <= LARGEST_SMALL;
  if (is_small && has_hole(m, d, size, true)) return cudaSuccess;
  uint64_t least;
  uint64_t most;
  model_free_memory(m, d, &least, &most);
  uint64_t need = round_up(size, MODEL_GRANULE);
  uint64_t best = free_at_best(m, d);
  if (is_small && has_hole(m, d, size, false)) best = UINT64_MAX;  // if what leaves is gone
  if (need > least) may_all_shrink(m, d, MODEL_NONE);
  return refuse_or_not(m, need, least, best);
}

cudaError_t model_malloc(model* m, const char* function, size_t size) {
  cudaError_t error = model_open_unsafe(m, function);
  return model_close(m, error ? error : take(m, size));
}

const char* model_malloced(model* m, int buffer, void* address, size_t size) {
  const char* wrong = check_address(m, address, size);
  bool is_small = size <= LARGEST_SMALL;
  bool had_hole = is_small && has_hole(m, m->device, size, true);
  uint64_t before = taken_by_malloc(m, m->device, true);
  make_buffer(m, buffer, MEMORY_DEVICE, address, size);
  bool has_grown = taken_by_malloc(m, m->device, true) > before;
  if (!wrong && had_hole && has_grown) wrong = "there was a hole for it";
  if (!wrong && !is_small && (uintptr_t)address % MODEL_GRANULE) wrong = "it shares a granule";
  return wrong;
}

//===-- cudaMallocAsync -----------------------------------------------------------------------===//

// What is in use of the pool, at the least: without what lies between allocations.
static cudaError_t take_from_pool(model* m, int pool, size_t size) {
  const model_pool* p = &m->pools[pool];
  uint64_t least;
  uint64_t most;
  model_free_memory(m, p->device, &least, &most);
  uint64_t surely = round_up(size, MODEL_CHUNK) + MODEL_CHUNK;  // it may lie across a boundary
  bool fits = surely <= least && p->most + surely <= p->limit;
  uint64_t room = free_at_best(m, p->device) + used_chunks(m, pool);
  uint64_t best = lesser(room, p->limit);
  best = best > p->used ? best - p->used : 0;
  if (!fits) may_all_shrink(m, p->device, MODEL_NONE);
  return refuse_or_not(m, size, fits ? UINT64_MAX : 0, best);
}

static cudaError_t malloc_async(model* m, int pool, size_t size, model_stream_arg arg) {
  cudaError_t error;
  model_stream* s = model_usable(m, arg, &error);
  if (!error) error = model_refuse_unsafe(m, true);
  if (error || !size) return error;
  if (pool == MODEL_NONE) pool = m->devices[s->device].pool;
  if (size > m->devices[m->pools[pool].device].memory) return cudaErrorMemoryAllocation;
  model_enter(m, s);
  return take_from_pool(m, pool, size);
}

cudaError_t model_malloc_async(model* m, const char* function, int pool, size_t size,
                               model_stream_arg s) {
  cudaError_t error = model_open(m, function);
  return model_close(m, error ? error : malloc_async(m, pool, size, s));
}

// Whether the rules let `s` have what was freed.
static bool may_reuse(const model* m, const model_freed* f, int stream) {
  const model_pool* p = &m->pools[f->pool];
  const model_stream* s = &m->streams[stream];
  if (f->stream == stream || p->is_opportunistic || p->adds_dependencies) return true;
  if (m->waited.at[f->stream] >= f->position || !m->streams[f->stream].exists) return true;
  return p->follows_events && s->order.at[f->stream] >= f->position;
}

static const char* check_reuse(model* m, int stream, const char* address, size_t size) {
  const char* wrong = NULL;
  for (int i = 0; i < MODEL_FREED; ++i) {
    model_freed* f = &m->freed[i];
    if (f->pool == MODEL_NONE || address >= f->address + f->size || f->address >= address + size) {
      continue;
    }
    if (!may_reuse(m, f, stream)) wrong = "another stream may still use the memory";
    f->pool = MODEL_NONE;
  }
  return wrong;
}

// Whether the pool has never been more than a chunk, all of which the stream may use, and has room
// in it.
static bool has_room_in_chunk(const model* m, int pool, int stream, uint64_t size) {
  const model_pool* p = &m->pools[pool];
  if (p->peak != MODEL_CHUNK || used_chunks(m, pool) != MODEL_CHUNK) return false;
  for (int i = 0; i < MODEL_STREAMS; ++i) {
    bool is_mine =
        i == stream || p->frees.at[i] <= m->observed.at[i] || (m->is_eager && p->is_opportunistic);
    if (!is_mine) return false;
  }
  uint64_t chunk = 0;
  for (int i = 0; i < MODEL_BUFFERS && !chunk; ++i) {
    if (is_in_pool(&m->buffers[i], pool)) chunk = address_of(&m->buffers[i]) / MODEL_CHUNK;
  }
  uint64_t start = chunk * MODEL_CHUNK;
  uint64_t end = start + MODEL_CHUNK;
  while (start + size <= end) {  // moves on behind what is in the way
    uint64_t next = start;
    for (int i = 0; i < MODEL_BUFFERS; ++i) {
      const model_buffer* b = &m->buffers[i];
      bool is_in_way = is_in_pool(b, pool) && address_of(b) < next + size && end_of(b) > next;
      if (is_in_way) next = end_of(b);
    }
    if (next == start) return true;
    start = next;
  }
  return false;
}

const char* model_malloced_async(model* m, int buffer, int pool, void* address, size_t size,
                                 model_stream_arg arg) {
  model_stream* s = &m->streams[arg.index];
  if (pool == MODEL_NONE) pool = m->devices[s->device].pool;
  model_pool* p = &m->pools[pool];
  const char* wrong = check_address(m, address, size);
  if (!wrong) wrong = check_reuse(m, arg.index, address, size);
  bool has_room = has_room_in_chunk(m, pool, arg.index, round_up(size, UNIT));
  uint64_t before = used_chunks(m, pool);
  make_buffer(m, buffer, MEMORY_POOL, address, size);
  model_buffer* b = &m->buffers[buffer];
  b->device = p->device;
  b->pool = pool;
  b->writer = arg.index;
  b->written = model_tick(m, s);
  uint64_t new = used_chunks(m, pool) - before;
  bool is_pressed = p->least < p->reserved;
  uint64_t least = is_pressed || p->reserved < before ? before + new : p->reserved;
  if (p->reserved == before) least = p->reserved + new;
  if (least < before + new) least = before + new;
  set_range(p, least, has_room ? p->reserved : p->reserved + new);
  p->used += size;
  if (p->used > p->used_high) p->used_high = p->used;
  return wrong;
}

//===-- Freeing -------------------------------------------------------------------------------===//

static void leave_pool(model* m, model_buffer* b) {
  model_pool* p = &m->pools[b->pool];
  p->used -= b->size;
  b->exists = false;
  if (p->is_ending) may_shrink(m, b->pool);
}

static cudaError_t free_now(model* m, int buffer) {
  if (buffer == MODEL_NONE) return cudaErrorInvalidValue;
  model_buffer* b = &m->buffers[buffer];
  if (m->devices[b->device].broken) return m->devices[b->device].broken;
  if (b->memory == MEMORY_POOL) {
    leave_pool(m, b);
    return cudaSuccess;
  }
  model_host_waits_for_device(m, b->device);
  b->exists = false;
  return cudaSuccess;
}

cudaError_t model_free(model* m, int buffer) {
  MODEL_UNSAFE_CALL(m, cudaFree, free_now(m, buffer));
}

static void note_freed(model* m, const model_buffer* b, int stream, uint32_t position) {
  model_freed* f = &m->freed[m->freed_next++ % MODEL_FREED];
  *f = (model_freed){.pool = b->pool,
                     .address = b->address,
                     .size = b->size,
                     .stream = stream,
                     .position = position};
  m->pools[b->pool].frees.at[stream] = position;
}

static cudaError_t free_later(model* m, int buffer, model_stream_arg arg) {
  cudaError_t error;
  model_stream* s = model_usable(m, arg, &error);
  if (!error && s->capture != MODEL_NONE) error = cudaErrorInvalidValue;
  if (!error) error = model_refuse_unsafe(m, true);
  if (error) return error;
  if (buffer == MODEL_NONE) return cudaErrorInvalidValue;
  model_buffer* b = &m->buffers[buffer];
  model_enter(m, s);
  uint32_t position = model_tick(m, s);
  if (b->memory == MEMORY_POOL) {
    note_freed(m, b, arg.index, position);
    leave_pool(m, b);
    return cudaSuccess;
  }
  b->exists = false;
  b->is_leaving = true;
  b->writer = arg.index;
  b->written = position;
  return cudaSuccess;
}

cudaError_t model_free_async(model* m, int buffer, model_stream_arg s) {
  MODEL_CALL(m, cudaFreeAsync, free_later(m, buffer, s));
}

//===-- Host memory ---------------------------------------------------------------------------===//

static cudaError_t host_alloc(unsigned flags) {
  unsigned known = cudaHostAllocPortable | cudaHostAllocMapped | cudaHostAllocWriteCombined;
  return flags & ~known ? cudaErrorInvalidValue : cudaSuccess;
}

cudaError_t model_host_alloc(model* m, const char* function, size_t size, unsigned flags) {
  cudaError_t error = model_open_unsafe(m, function);
  (void)size;
  return model_close(m, error ? error : host_alloc(flags));
}

void model_host_alloced(model* m, int buffer, void* address, size_t size, unsigned flags) {
  make_buffer(m, buffer, MEMORY_PINNED, address, size);
  m->buffers[buffer].flags = flags | cudaHostAllocMapped;
  m->buffers[buffer].seen = address;
}

static void wait_for_all_devices(model* m) {
  for (int d = 0; d < m->device_count; ++d) model_host_waits_for_device(m, d);
}

static cudaError_t free_host(model* m, int buffer) {
  if (buffer == MODEL_NONE) return cudaErrorInvalidValue;
  model_buffer* b = &m->buffers[buffer];
  if (b->memory != MEMORY_PINNED) return cudaErrorInvalidValue;
  wait_for_all_devices(m);
  b->exists = false;
  return cudaSuccess;
}

cudaError_t model_free_host(model* m, int buffer) {
  MODEL_UNSAFE_CALL(m, cudaFreeHost, free_host(m, buffer));
}

static cudaError_t host_register(model* m, int buffer, size_t size, unsigned flags) {
  unsigned known = cudaHostRegisterPortable | cudaHostRegisterMapped | cudaHostRegisterIoMemory |
                   cudaHostRegisterReadOnly;
  if (buffer == MODEL_NONE || !size || flags & ~known) return cudaErrorInvalidValue;
  model_buffer* b = &m->buffers[buffer];
  if (b->memory == MEMORY_REGISTERED) return cudaErrorHostMemoryAlreadyRegistered;
  if (b->memory != MEMORY_PAGEABLE) return cudaErrorInvalidValue;
  b->memory = MEMORY_REGISTERED;
  b->device = m->device;
  b->flags = flags | cudaHostRegisterMapped;
  return cudaSuccess;
}

cudaError_t model_host_register(model* m, int buffer, size_t size, unsigned flags) {
  MODEL_UNSAFE_CALL(m, cudaHostRegister, host_register(m, buffer, size, flags));
}

static cudaError_t host_unregister(model* m, int buffer) {
  if (buffer == MODEL_NONE) return cudaErrorHostMemoryNotRegistered;
  model_buffer* b = &m->buffers[buffer];
  if (b->memory == MEMORY_PINNED) return cudaErrorInvalidValue;
  if (b->memory != MEMORY_REGISTERED) return cudaErrorHostMemoryNotRegistered;
  wait_for_all_devices(m);
  b->memory = MEMORY_PAGEABLE;
  return cudaSuccess;
}

cudaError_t model_host_unregister(model* m, int buffer) {
  MODEL_UNSAFE_CALL(m, cudaHostUnregister, host_unregister(m, buffer));
}

//===-- Pools ---------------------------------------------------------------------------------===//

int model_pool_slot(const model* m) {
  for (int i = MODEL_DEVICES; i < MODEL_POOLS; ++i) {
    if (!m->pools[i].exists && !m->pools[i].is_ending && !m->pools[i].handle) return i;
  }
  return MODEL_NONE;
}

static cudaError_t create_pool(model* m, int slot, int device, uint64_t limit) {
  if (!model_is_device(m, device)) return cudaErrorInvalidValue;
  m->pools[slot] = (model_pool){.exists = true,
                                .device = device,
                                .limit = limit ? round_up(limit, MODEL_CHUNK) : UINT64_MAX,
                                .follows_events = 1,
                                .is_opportunistic = 1,
                                .adds_dependencies = 1,
                                .accessible = UINT64_C(1) << device};
  return cudaSuccess;
}

cudaError_t model_create_pool(model* m, int slot, int device, uint64_t limit) {
  MODEL_UNSAFE_CALL(m, cudaMemPoolCreate, create_pool(m, slot, device, limit));
}

// What may be given back: nothing of which the host has not waited for all frees. Of what counts
// as waiting there are more and less certain ways, and a chunk notes the frees of four streams.
typedef enum certainty { NO, PERHAPS, YES } certainty;

static certainty can_give_back(const model* m, const model_pool* p) {
  certainty answer = YES;
  int streams = 0;
  for (int i = 0; i < MODEL_STREAMS; ++i) {
    uint32_t freed = p->frees.at[i];
    if (!freed) continue;
    if (++streams > 4 && answer == YES) answer = PERHAPS;
    if (freed <= m->observed.at[i]) continue;
    bool is_over = freed <= m->waited.at[i] || !m->streams[i].exists;
    if (!is_over) return NO;
    answer = PERHAPS;
  }
  return answer;
}

// Of a destroyed pool nothing is left once all of it is freed and the host has waited for that.
static void end_if_over(model* m, int pool) {
  model_pool* p = &m->pools[pool];
  may_shrink(m, pool);
  if (p->used || can_give_back(m, p) != YES) return;
  p->is_ending = false;
  p->least = p->most = 0;
}

// A pool that is destroyed gives back what it has when the last of it is freed and over: from here
// on its figures cannot be read, but the memory of the device tells.
static cudaError_t destroy_pool(model* m, int pool) {
  if (pool < MODEL_DEVICES) return cudaErrorInvalidValue;
  model_pool* p = &m->pools[pool];
  p->exists = false;
  p->is_ending = true;
  end_if_over(m, pool);
  if (m->devices[p->device].pool == pool) m->devices[p->device].pool = p->device;
  return cudaSuccess;
}

cudaError_t model_destroy_pool(model* m, int pool) {
  MODEL_UNSAFE_CALL(m, cudaMemPoolDestroy, destroy_pool(m, pool));
}

static void give_back(model* m, int pool, uint64_t chunks) {
  model_pool* p = &m->pools[pool];
  uint64_t idle = (p->reserved - used_chunks(m, pool)) / MODEL_CHUNK;
  uint64_t given = lesser(idle, chunks) * MODEL_CHUNK;
  if (!given) return;
  certainty certain = can_give_back(m, p);
  bool is_one_chunk = p->reserved == MODEL_CHUNK;
  uint64_t least = p->reserved - given;
  uint64_t most = certain == YES ? least : p->reserved;
  if (certain == NO && is_one_chunk) least = p->reserved;
  set_range(p, least, most);
}

static cudaError_t trim(model* m, int pool, uint64_t keep) {
  if (pool == MODEL_NONE) return cudaErrorInvalidValue;
  const model_pool* p = &m->pools[pool];
  if (p->reserved > keep) give_back(m, pool, (p->reserved - keep) / MODEL_CHUNK);
  return cudaSuccess;
}

cudaError_t model_trim_pool(model* m, int pool, uint64_t keep) {
  MODEL_UNSAFE_CALL(m, cudaMemPoolTrimTo, trim(m, pool, keep));
}

void model_trim_to_thresholds(model* m, int device) {
  for (int i = 0; i < MODEL_POOLS; ++i) {
    model_pool* p = &m->pools[i];
    if (p->device != device) continue;
    if (p->is_ending) end_if_over(m, i);
    if (!p->exists || p->reserved <= p->threshold) continue;
    give_back(m, i, round_up(p->reserved - p->threshold, MODEL_CHUNK) / MODEL_CHUNK);
  }
}

static cudaError_t reset_high(uint64_t* high, uint64_t now, uint64_t value) {
  if (value) return cudaErrorInvalidValue;
  *high = now;
  return cudaSuccess;
}

static cudaError_t set_pool(model* m, int pool, enum cudaMemPoolAttr attribute, uint64_t value) {
  if (pool == MODEL_NONE) return cudaErrorInvalidValue;
  model_pool* p = &m->pools[pool];
  switch ((int)attribute) {
    case cudaMemPoolReuseFollowEventDependencies:
      p->follows_events = (int)value != 0;
      return cudaSuccess;
    case cudaMemPoolReuseAllowOpportunistic:
      p->is_opportunistic = (int)value != 0;
      return cudaSuccess;
    case cudaMemPoolReuseAllowInternalDependencies:
      p->adds_dependencies = (int)value != 0;
      return cudaSuccess;
    case cudaMemPoolAttrReleaseThreshold:
      p->threshold = value;
      return cudaSuccess;
    case cudaMemPoolAttrReservedMemHigh:
      return reset_high(&p->reserved_high, p->reserved, value);
    case cudaMemPoolAttrUsedMemHigh:
      return reset_high(&p->used_high, p->used, value);
    default:
      return cudaErrorInvalidValue;
  }
}

cudaError_t model_set_pool(model* m, int pool, enum cudaMemPoolAttr attribute, uint64_t value) {
  MODEL_UNSAFE_CALL(m, cudaMemPoolSetAttribute, set_pool(m, pool, attribute, value));
}

static cudaError_t set_device_pool(model* m, int device, int pool) {
  if (!model_is_device(m, device)) return cudaErrorInvalidDevice;
  if (pool == MODEL_NONE || m->pools[pool].device != device) return cudaErrorInvalidValue;
  m->devices[device].pool = pool;
  return cudaSuccess;
}

cudaError_t model_set_device_pool(model* m, int device, int pool) {
  MODEL_UNSAFE_CALL(m, cudaDeviceSetMemPool, set_device_pool(m, device, pool));
}
