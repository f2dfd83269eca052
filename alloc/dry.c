// All dry allocators of the process bump through one range of addresses, cut into slots that count
// what is live in them:
//
//   0x4080...                                                                   0x40c0...
//    | 2 live | 0, free | 7 live |=== next ---- free until run_end ---| 1 live | 0, free |
//
// Where the run of free slots ends, the next one that is long enough is taken. A block counts in
// every slot that it touches.
//
// On x86-64 these addresses are not canonical. On AArch64 bit 55 makes them the kernel's, whatever
// the ignored top byte says. So no mapping, of anybody, can ever be there.

#include "tm/alloc/dry.h"

#include <pthread.h>
#include <stdint.h>

#include "alloc/counters.h"
#include "tm/alloc/bookkeeping.h"
#include "tm/base/checked.h"
#include "tm/base/fatal.h"

#define RANGE_BEGIN ((uintptr_t)0x4080000000000000)
#define RANGE_END ((uintptr_t)0x40c0000000000000)

typedef struct dry_allocator {
  tm_allocator base_allocator;  // must be first
  tm_allocator_stats counters;
  uint64_t maximum;  // bytes; UINT64_MAX: no limit
} dry_allocator;

//===-- The range -----------------------------------------------------------===//

#define SLOT_BYTES ((size_t)16 << 40)

enum { SLOTS = (RANGE_END - RANGE_BEGIN) / SLOT_BYTES };

static pthread_mutex_t range_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;
static uint64_t slot_blocks[SLOTS];  // live, of all allocators
static uint64_t range_blocks;        // the same, of the whole range
static uintptr_t range_next = RANGE_BEGIN;
static uintptr_t run_end = RANGE_END;

// A forked child must not find the lock held by a thread that it does not have.
static void lock_range(void) { (void)pthread_mutex_lock(&range_lock); }
static void unlock_range(void) { (void)pthread_mutex_unlock(&range_lock); }
static void watch_forks(void) { (void)pthread_atfork(lock_range, unlock_range, unlock_range); }

static size_t slot_of(uintptr_t address) { return (address - RANGE_BEGIN) / SLOT_BYTES; }

static void count_in_slots(uintptr_t address, size_t spaced, uint64_t by) {
  for (size_t i = slot_of(address); i <= slot_of(address + spaced - 1); i++) {
    slot_blocks[i] += by;
  }
}

// The first slot, from `begin` on, where something is live.
static size_t end_of_run(size_t begin) {
  size_t end = begin;
  while (end < SLOTS && slot_blocks[end] == 0) {
    end++;
  }
  return end;
}

// Goes on in the first run of free slots that holds `bytes`.
static bool find_run(size_t bytes) {
  for (size_t begin = 0; begin < SLOTS; begin++) {
    const size_t end = end_of_run(begin);
    if (bytes <= (end - begin) * SLOT_BYTES) {
      range_next = RANGE_BEGIN + begin * SLOT_BYTES;
      run_end = RANGE_BEGIN + end * SLOT_BYTES;
      return true;
    }
    begin = end;
  }
  return false;
}

static bool spaced_size(size_t size, size_t* out) {
  return tm_checked_round_up(size, TM_DEVICE_ALIGNMENT, out);
}

// Addresses for `size` bytes; 0 where the range has none left. With the lock held.
static uintptr_t take_addresses(size_t size) {
  size_t spaced;
  if (!spaced_size(size, &spaced) || (spaced > run_end - range_next && !find_run(spaced))) {
    return 0;
  }
  const uintptr_t address = range_next;
  range_next += spaced;
  range_blocks++;
  count_in_slots(address, spaced, 1);
  return address;
}

static bool is_live(uintptr_t address, size_t spaced) {
  return address >= RANGE_BEGIN && address < RANGE_END && spaced <= RANGE_END - address &&
         slot_blocks[slot_of(address)] != 0 && slot_blocks[slot_of(address + spaced - 1)] != 0;
}

// False, and nothing has changed, where no such block can be live.
static bool give_addresses(uintptr_t address, size_t size) {
  size_t spaced;
  lock_range();
  const bool live = spaced_size(size, &spaced) && is_live(address, spaced);
  if (live) {
    count_in_slots(address, spaced, (uint64_t)-1);
    if (--range_blocks == 0) {
      range_next = RANGE_BEGIN;
      run_end = RANGE_END;
    }
  }
  unlock_range();
  return live;
}

//===-- Slots ---------------------------------------------------------------===//

static TM_COLD tm_status raise_no_memory(const dry_allocator* self, size_t size, uint64_t live) {
  if (size > self->maximum - live) {
    return TM_RAISE(TM_ERR_NO_MEMORY, "dry: %zu bytes asked, %llu of at most %llu bytes are live",
                    size, (unsigned long long)live, (unsigned long long)self->maximum);
  }
  return TM_RAISE(TM_ERR_NO_MEMORY, "dry: %zu bytes asked, and there are not that many addresses",
                  size);
}

// What is live only shrinks while the lock is held, so the limit holds.
static tm_status dry_alloc(tm_allocator* base, size_t size, tm_stream* stream, void** out) {
  (void)stream;
  dry_allocator* self = (dry_allocator*)base;
  tm_count_request_(&self->counters);
  lock_range();
  const uint64_t live = __atomic_load_n(&self->counters.live_bytes, __ATOMIC_RELAXED);
  const uintptr_t address = size <= self->maximum - live ? take_addresses(size) : 0;
  if (address) {
    tm_count_alloc_(&self->counters, size);
  }
  unlock_range();
  if (!address) {
    return raise_no_memory(self, size, live);
  }
  *out = (void*)address;  // NOLINT(performance-no-int-to-ptr): it is no more than a number
  return TM_OK;
}

static void dry_free(tm_allocator* base, void* ptr, size_t size, tm_stream* stream) {
  (void)stream;
  if (!give_addresses((uintptr_t)ptr, size)) {
    TM_FATAL("dry: %p is freed, and no block of %zu bytes is live there", ptr, size);
  }
  tm_count_free_(&((dry_allocator*)base)->counters, size);
}

static tm_status dry_get_stats(tm_allocator* base, tm_allocator_stats* out) {
  tm_count_read_(&((dry_allocator*)base)->counters, out);
  out->reserved_bytes = out->live_bytes;
  out->peak_reserved_bytes = out->peak_live_bytes;
  out->knows_largest_free = true;  // nothing is held that is not in use
  return TM_OK;
}

static void dry_destroy(tm_allocator* base) {
  tm_allocator_deinit_(base);
  tm_bookkeeping_free(base);
}

static const tm_allocator_vtable dry_vtable = {
    .name = "dry",
    .destroy = dry_destroy,
    .alloc = dry_alloc,
    .free = dry_free,
    .get_stats = dry_get_stats,
};

//===-- Creation ------------------------------------------------------------===//

static bool is_device(tm_device device) {
  return device.type == TM_DEVICE
             ? device.id >= 0 && device.id < TM_MAX_DEVICES
             : (device.type == TM_CPU || device.type == TM_CPU_PINNED) && device.id == 0;
}

tm_allocator* tm_dry_allocator_create(tm_device device, const tm_dry_options* options) {
  if (!is_device(device)) {
    (void)TM_RAISE(TM_ERR_INVALID, "dry: there is no device {type %d, id %d}", (int)device.type,
                   (int)device.id);
    return NULL;
  }
  dry_allocator* self = tm_bookkeeping_alloc(sizeof *self, "a dry allocator");
  if (!self) {
    return NULL;
  }
  (void)pthread_once(&fork_once, watch_forks);
  tm_allocator_init_(&self->base_allocator, &dry_vtable, device, NULL);
  self->base_allocator.ignores_stream = true;
  self->base_allocator.is_dry = true;
  self->maximum = options && options->maximum_bytes ? options->maximum_bytes : UINT64_MAX;
  return &self->base_allocator;
}
