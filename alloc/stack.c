// Regions form a chain in stack order; the last one is bumped, the others are full:
//
//   [region A: full] <- below - [region B: current |--- used ---|--- free ---]      spares, retired
//
// - `spares` are empty regions that are kept; `retired` ones were set aside by a reset and wait for
//   their last block.
// - Had everything been one region, a block at B would lie at virtual_base(B) + its offset. The
//   high-water mark is the largest such end.
// - target() is the region an empty stack wants to go on in: the largest end since the last trim,
// or
//   that of the reservation. Where its region is smaller, the next request finds `current` to be
//   the `none` region of no capacity, and takes the slow path. A target the upstream could not
//   serve is not asked for again until something changes.
// - The owner's path has no atomic read-modify-write. A free tells a thread that closes the stack
//   meanwhile where it is by `busy`; that thread makes the order of the two visible by membarrier.

#include "tm/alloc/stack.h"

#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "alloc/parked.h"
#include "alloc/stack_allocator.h"
#include "tm/alloc/bookkeeping.h"
#include "tm/base/checked.h"
#include "tm/base/fatal.h"

enum { GROWTH_MINIMUM = 2 << 20 };  // bytes of a further region, at least: the driver's granule

// References of a storage that is on its way back: fatal to release once more.
enum { RETURNED = -1 };

static bool stack_is_valid(const stack_allocator* s) {
  const stack_region* r = s->current;
  return r && r->used <= r->capacity && r->used % s->base.alignment == 0 &&
         s->reserved <= s->peak_reserved && r->virtual_base + r->used <= s->mark;
}

static void check_valid(const stack_allocator* s) {
  if (!stack_is_valid(s)) {
    TM_FATAL("stack: used by two threads at once, or overwritten (used %zu of %zu, mark %zu)",
             s->current ? s->current->used : 0, s->current ? s->current->capacity : 0, s->mark);
  }
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

static size_t extent(const stack_allocator* s) {
  return s->current->virtual_base + s->current->used;
}

static size_t target(const stack_allocator* s) { return larger(s->peak, s->reserved_end); }

// Within the limit a bump reaches neither the end of the region nor a new peak.
static void set_limit(stack_allocator* s) {
  const stack_region* region = s->current;
  const size_t below_peak = s->peak > region->virtual_base ? s->peak - region->virtual_base : 0;
  s->limit = below_peak < region->capacity ? below_peak : region->capacity;
}

static void set_current(stack_allocator* s, stack_region* region) {
  s->current = region;
  set_limit(s);
}

static void set_peak(stack_allocator* s, size_t peak) {
  s->peak = peak;
  set_limit(s);
}

static bool chain_is_empty(const stack_allocator* s) {
  return s->current->used == 0 && !s->current->below;
}

//===-- Regions and the upstream ------------------------------------------===//

static tm_status refuse_while_capturing(const stack_allocator* s, size_t size) {
  bool capturing = false;
  if (s->base.stream) {
    TM_TRY(tm_stream_is_capturing(s->base.stream, &capturing));
  }
  if (capturing) {
    return TM_RAISE(TM_ERR_CAPTURING,
                    "stack: %zu bytes asked of the upstream while its stream is being captured",
                    size);
  }
  return TM_OK;
}

static tm_status obtain_region(stack_allocator* s, size_t capacity, stack_region** out) {
  const size_t granule = larger(s->base.alignment, s->upstream->alignment);
  if (!tm_checked_round_up(capacity, granule, &capacity)) {
    return TM_RAISE(TM_ERR_OVERFLOW, "stack: a region of %zu bytes", capacity);
  }
  if (capacity > s->maximum - s->reserved) {
    return TM_RAISE(TM_ERR_NO_MEMORY, "stack: a region of %zu bytes asked; %zu of at most %zu held",
                    capacity, s->reserved, s->maximum);
  }
  TM_TRY(refuse_while_capturing(s, capacity));
  void* base;
  s->upstream_calls++;
  TM_TRY(tm_allocator_alloc_nested_(s->upstream, capacity, s->base.stream, &base));
  stack_region* region = stack_region_create(base, capacity, &s->base);
  if (!region) {
    tm_allocator_undo_(s->upstream, base, capacity, s->base.stream);
    return tm_last_status();
  }
  s->reserved += capacity;
  s->peak_reserved = s->reserved > s->peak_reserved ? s->reserved : s->peak_reserved;
  *out = region;
  return TM_OK;
}

static void give_region_back(stack_allocator* s, stack_region* region) {
  s->unobtainable = SIZE_MAX;
  s->upstream_calls++;
  tm_allocator_free(s->upstream, region->base, region->capacity, s->base.stream);
  s->reserved -= region->capacity;
  stack_region_destroy(region);
}

static void add_spare(stack_allocator* s, stack_region* region) {
  stack_region_clear(region);
  region->below = s->spares;
  s->spares = region;
}

// The smallest spare of at least `size` bytes, taken off the list; NULL where there is none.
static stack_region* take_spare(stack_allocator* s, size_t size) {
  stack_region** best = NULL;
  for (stack_region** link = &s->spares; *link; link = &(*link)->below) {
    if ((*link)->capacity >= size && (!best || (*link)->capacity < (*best)->capacity)) {
      best = link;
    }
  }
  if (!best) {
    return NULL;
  }
  stack_region* region = *best;
  *best = region->below;
  region->below = NULL;
  return region;
}

// The spare that a reservation needs; NULL where the current region serves it.
static const stack_region* spare_to_protect(const stack_allocator* s) {
  const stack_region* best = NULL;
  if (s->current->capacity - s->current->used >= s->reservation) {
    return NULL;
  }
  for (const stack_region* region = s->spares; region; region = region->below) {
    if (region->capacity >= s->reservation && (!best || region->capacity < best->capacity)) {
      best = region;
    }
  }
  return best;
}

// Gives back spares smaller than `size`, as long as at least `keep` bytes stay held.
static void drop_spares(stack_allocator* s, size_t size, size_t keep) {
  const stack_region* protected = spare_to_protect(s);
  stack_region** link = &s->spares;
  while (*link) {
    stack_region* region = *link;
    if (region != protected && region->capacity < size && s->reserved - region->capacity >= keep) {
      *link = region->below;
      give_region_back(s, region);
    } else {
      link = &region->below;
    }
  }
}

static void push_region(stack_allocator* s, stack_region* region) {
  region->virtual_base = extent(s);
  region->below = s->current == &s->none ? NULL : s->current;
  set_current(s, region);
}

// The chain's last region is empty: steps back to the one below, or to none.
static void pop_region(stack_allocator* s) {
  stack_region* region = s->current;
  set_current(s, region->below ? region->below : &s->none);
  add_spare(s, region);
}

// Obtains a region of `wanted` bytes or, where there is not that much, of `size`. What is known not
// to be there is not asked for.
static tm_status obtain_up_to(stack_allocator* s, size_t wanted, size_t size, stack_region** out) {
  const size_t most = larger(wanted < s->unobtainable ? wanted : size, GROWTH_MINIMUM);
  const tm_status status = obtain_region(s, most, out);
  if (status != TM_ERR_NO_MEMORY || size >= most) {
    return status;
  }
  if (wanted > size && wanted < s->unobtainable) {
    s->unobtainable = wanted;
  }
  return obtain_region(s, size, out);
}

// Obtains a region of the target in place of smaller ones, which are given back only afterwards.
// Where it is not to be had, that is noted.
static stack_region* consolidate(stack_allocator* s, size_t wanted) {
  stack_region* region = NULL;
  bool capturing = false;
  if (wanted >= s->unobtainable ||
      (s->base.stream &&
       (tm_stream_is_capturing(s->base.stream, &capturing) != TM_OK || capturing))) {
    return NULL;
  }
  const tm_error kept = *tm_last_error();
  if (obtain_region(s, larger(wanted, GROWTH_MINIMUM), &region) != TM_OK) {
    tm_restore_error_(&kept);  // something smaller may do
    s->unobtainable = wanted;
    return NULL;
  }
  drop_spares(s, wanted, 0);
  return region;
}

// The first region of an iteration: one of the target, or else one that is held, or else a new one
// of what is asked.
static tm_status begin_chain(stack_allocator* s, size_t size) {
  const size_t wanted = larger(size, target(s));
  stack_region* region = take_spare(s, wanted);
  region = region || !s->spares ? region : consolidate(s, wanted);
  region = region ? region : take_spare(s, size);  // the smallest, as the chain first grew
  if (!region) {
    TM_TRY(refuse_while_capturing(s, size));
    drop_spares(s, SIZE_MAX, 0);  // none of them is large enough
    TM_TRY(obtain_up_to(s, wanted, size, &region));
  }
  push_region(s, region);
  return TM_OK;
}

static tm_status extend_chain(stack_allocator* s, size_t size) {
  stack_region* region = take_spare(s, size);
  if (!region) {
    TM_TRY(obtain_up_to(s, size, size, &region));
  }
  push_region(s, region);
  return TM_OK;
}

// Has a current region with `size` bytes free.
static tm_status make_room(stack_allocator* s, size_t size) {
  if (size <= s->current->capacity - s->current->used) {
    return TM_OK;
  }
  if (s->pins) {
    return TM_RAISE(TM_ERR_NO_MEMORY, "stack: %zu bytes asked, %zu of %zu free, and it is pinned",
                    size, s->current->capacity - s->current->used, s->current->capacity);
  }
  if (s->current != &s->none && chain_is_empty(s)) {
    pop_region(s);
  }
  return s->current == &s->none ? begin_chain(s, size) : extend_chain(s, size);
}

//===-- Taking blocks back ------------------------------------------------===//

static void retire_emptied(stack_allocator* s, stack_region* region) {
  stack_region** link = &s->retired;
  while (*link != region) {
    link = &(*link)->below;
  }
  *link = region->below;
  add_spare(s, region);
}

// Takes dead records off the top of the chain, through regions that become empty.
static void pop_dead(stack_allocator* s) {
  for (;;) {
    stack_region* region = s->current;
    const stack_record* top = region == &s->none ? NULL : stack_region_top(region);
    if (top && !stack_record_is_live(top)) {
      region->dead--;
      stack_region_pop(region);
    } else if (!top && region->below) {
      pop_region(s);
    } else {
      break;
    }
  }
  // An empty stack whose region is short of the mark begins anew in one that is not.
  if (s->current != &s->none && chain_is_empty(s) && s->current->capacity < target(s) && !s->pins) {
    pop_region(s);
  }
}

// The owner's free, in any order.
static void free_record(stack_allocator* s, stack_record* record) {
  stack_region* region = record->region;
  record->storage.references = 0;
  record->storage.flags |= STACK_RECORD_DEAD;
  region->dead++;
  if (!region->retired) {
    pop_dead(s);
  } else if (stack_region_live(region) == 0) {
    retire_emptied(s, region);
  }
}

static stack_record* find_in_list(stack_region* region, const void* ptr) {
  for (; region; region = region->below) {
    if ((const char*)ptr >= region->base && (const char*)ptr < region->base + region->used) {
      return stack_region_find(region, ptr);
    }
  }
  return NULL;
}

static stack_record* find_record(const stack_allocator* s, const void* ptr) {
  stack_record* record = s->current == &s->none ? NULL : find_in_list(s->current, ptr);
  record = record ? record : find_in_list(s->retired, ptr);
  if (!record) {
    TM_FATAL("stack: %p is not the address of a live block", ptr);
  }
  return record;
}

static void free_raw(stack_allocator* s, const void* ptr) {
  free_record(s, find_record(s, ptr));
  s->raw_live--;
}

// Frees what other threads have returned.
static void take_in_returns(stack_allocator* s) {
  tm_storage* item = stack_returns_take(&s->returns);
  while (item) {
    tm_storage* next = item->link.next;
    if (item->flags & STACK_RETURNS_RAW) {
      free_raw(s, item->data);
      stack_returns_give_node(&s->returns, item);
    } else {
      free_record(s, (stack_record*)item);
    }
    item = next;
  }
}

//===-- Ownership ---------------------------------------------------------===//

// Taken by whoever changes an owner, so that an identity that is looked at stays referenced.
static pthread_mutex_t owner_lock = PTHREAD_MUTEX_INITIALIZER;

// A forked child must not find the lock held by a thread that it does not have.
static void lock_owners(void) { (void)pthread_mutex_lock(&owner_lock); }
static void unlock_owners(void) { (void)pthread_mutex_unlock(&owner_lock); }

// Whether the stack has an owner that could use it. Under owner_lock.
static bool has_owner(const stack_allocator* s) {
  const tm_thread_identity* owner = __atomic_load_n(&s->owner, __ATOMIC_ACQUIRE);
  return owner && !tm_thread_identity_ended(owner);
}

// Replaces the owner, which has ended, is the calling thread, or no thread.
static void set_owner(stack_allocator* s, tm_thread_identity* owner) {
  tm_thread_identity_release(__atomic_exchange_n(&s->owner, owner, __ATOMIC_ACQ_REL));
}

// Makes the calling thread the owner where the stack has none. Stores whether it had one.
static tm_status claim(stack_allocator* s, bool* was_unowned) {
  *was_unowned = false;
  if (stack_is_owner(s)) {
    return TM_OK;
  }
  tm_thread_identity* self = tm_thread_identity_get();
  if (!self) {
    return tm_last_status();
  }
  pthread_mutex_lock(&owner_lock);
  *was_unowned = !has_owner(s);
  if (*was_unowned) {
    set_owner(s, tm_thread_identity_retain(self));
  }
  pthread_mutex_unlock(&owner_lock);
  return *was_unowned ? TM_OK
                      : TM_RAISE(TM_ERR_BUSY,
                                 "stack: owned by another thread, which can give it up by "
                                 "tm_stack_hand_over");
}

static void give_up(stack_allocator* s) {
  pthread_mutex_lock(&owner_lock);
  set_owner(s, NULL);
  pthread_mutex_unlock(&owner_lock);
}

// What every operation but a free begins with. It ends in leave(), but for an allocation, which
// makes its thread the owner.
static tm_status enter(stack_allocator* s, bool* was_unowned) {
  if (stack_returns_is_closed(&s->returns)) {
    TM_FATAL("stack: used after its last reference was released");
  }
  TM_TRY(claim(s, was_unowned));
  check_valid(s);
  take_in_returns(s);
  return TM_OK;
}

// A stack that is nobody's stays so.
static void leave(stack_allocator* s, bool was_unowned) {
  if (was_unowned) {
    give_up(s);
  }
}

//===-- Allocating --------------------------------------------------------===//

static stack_record* bump_beyond_peak(stack_allocator* s, size_t size) {
  stack_record* record = stack_bump(s, s->current, size);
  if (extent(s) > s->peak) {
    s->mark = larger(s->mark, extent(s));
    set_peak(s, extent(s));
  }
  return record;
}

static TM_COLD tm_status prepare(stack_allocator* s, size_t size) {
  bool was_unowned = false;
  tm_retry_parked_();
  TM_TRY(enter(s, &was_unowned));
  TM_TRY(make_room(s, size));
  if (!stack_region_has_room_for_record(s->current)) {
    TM_TRY(stack_region_add_records(s->current, &s->base));
  }
  return TM_OK;
}

static TM_COLD tm_status alloc_with_care(stack_allocator* s, size_t size, tm_storage** out) {
  TM_TRY(prepare(s, size));
  *out = &bump_beyond_peak(s, size)->storage;
  return TM_OK;
}

static tm_status stack_alloc_storage(tm_allocator* self, size_t size, tm_storage** out) {
  *out = stack_try_alloc((stack_allocator*)self, size);
  return TM_LIKELY(*out != NULL) ? TM_OK : alloc_with_care((stack_allocator*)self, size, out);
}

static tm_status stack_alloc(tm_allocator* self, size_t size, tm_stream* stream, void** out) {
  (void)stream;
  stack_allocator* s = (stack_allocator*)self;
  TM_TRY(prepare(s, size));
  TM_TRY(stack_returns_ensure_nodes(&s->returns, s->raw_live + 1));
  s->raw_live++;
  *out = bump_beyond_peak(s, size)->storage.data;
  return TM_OK;
}

//===-- Freeing -----------------------------------------------------------===//

static void finish(stack_allocator* s);

// A block of a closed stack came back.
static void count_return(stack_allocator* s) {
  if (__atomic_fetch_sub(&s->outstanding, 1, __ATOMIC_ACQ_REL) == 1) {
    finish(s);
  }
}

// The owner tells a closing thread that it is inside a free, and only then looks whether it still
// is the owner. False, with nothing told, where it is not.
static inline bool begin_free(stack_allocator* s) {
  if (TM_UNLIKELY(!stack_is_owner(s))) {
    return false;
  }
  tm_thread_identity* owner;
  if (TM_UNLIKELY(s->fenced)) {
    (void)__atomic_exchange_n(&s->busy, true, __ATOMIC_SEQ_CST);
    owner = __atomic_load_n(&s->owner, __ATOMIC_SEQ_CST);
  } else {
    __atomic_store_n(&s->busy, true, __ATOMIC_RELAXED);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);  // membarrier does the rest
    owner = __atomic_load_n(&s->owner, __ATOMIC_RELAXED);
  }
  if (TM_UNLIKELY(!owner)) {
    __atomic_store_n(&s->busy, false, __ATOMIC_RELEASE);
    return false;
  }
  return true;
}

// The last access to the stack: a closing thread may destroy it from here on.
static inline void end_free(stack_allocator* s) {
  __atomic_store_n(&s->busy, false, __ATOMIC_RELEASE);
}

// The common case: the last block of a region that stays current. False where it is anything else.
// No two segments of records touch, so `next_record` tells which region the record is of. What goes
// down is what went up, not what the record says: that would make every allocation wait for the
// free before it.
static inline bool free_top(stack_allocator* s, stack_record* record) {
  stack_region* region = s->current;
  if (TM_UNLIKELY(record + 1 != region->next_record || region->dead != 0)) {
    return false;
  }
  const size_t used = region->used - stack_rounded(s, record->storage.size);
  if (TM_UNLIKELY(used == 0) && (region->below || region->capacity < target(s))) {
    return false;
  }
  record->storage.references = 0;
  region->next_record--;
  region->used = used;
  return true;
}

static TM_COLD void free_with_care(stack_allocator* s, stack_record* record) {
  free_record(s, record);
  end_free(s);
}

static TM_COLD void return_to_owner(stack_allocator* s, tm_storage* storage) {
  __atomic_store_n(&storage->references, RETURNED, __ATOMIC_RELAXED);
  if (!stack_returns_push(&s->returns, storage)) {
    count_return(s);
  }
}

// No call but the last, so that the common case needs no frame.
static void stack_free_storage(tm_allocator* self, tm_storage* storage) {
  stack_allocator* s = (stack_allocator*)self;
  stack_record* record = (stack_record*)storage;
  if (TM_UNLIKELY(!begin_free(s))) {
    return_to_owner(s, storage);
  } else if (TM_UNLIKELY(!free_top(s, record))) {
    free_with_care(s, record);
  } else {
    end_free(s);
  }
}

static void stack_free(tm_allocator* self, void* ptr, size_t size, tm_stream* stream) {
  (void)size;
  (void)stream;
  stack_allocator* s = (stack_allocator*)self;
  if (begin_free(s)) {
    free_raw(s, ptr);
    end_free(s);
  } else if (!stack_returns_push_raw(&s->returns, ptr)) {
    count_return(s);
  }
}

//===-- Closing -----------------------------------------------------------===//

static bool membarrier_works;
static pthread_once_t process_once = PTHREAD_ONCE_INIT;

static void prepare_process(void) {
  (void)pthread_atfork(lock_owners, unlock_owners, unlock_owners);
  membarrier_works = syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
}

// Returns once the owner is outside a free; since it is no longer the owner, it stays outside.
static void wait_for_owner(const stack_allocator* s) {
  if (!s->fenced) {
    (void)syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
  }
  while (__atomic_load_n(&s->busy, __ATOMIC_SEQ_CST)) {
    (void)sched_yield();
  }
}

static void give_list_back(stack_allocator* s, stack_region* region) {
  while (region) {
    stack_region* below = region->below;
    give_region_back(s, region);
    region = below;
  }
}

// No block is out, and nobody refers to the stack.
static void finish(stack_allocator* s) {
  if (s->current != &s->none) {
    give_list_back(s, s->current);
  }
  give_list_back(s, s->spares);
  give_list_back(s, s->retired);
  stack_returns_deinit(&s->returns);
  tm_allocator_deinit_(&s->base);
  tm_allocator_release(s->upstream);
  tm_bookkeeping_free(s);
}

static size_t live_in_list(const stack_region* region) {
  size_t live = 0;
  for (; region; region = region->below) {
    live += stack_region_live(region);
  }
  return live;
}

static size_t live_blocks(const stack_allocator* s) {
  return (s->current == &s->none ? 0 : live_in_list(s->current)) + live_in_list(s->retired);
}

// The last reference is gone. From here on blocks are counted, and the last to come back destroys.
static void stack_destroy(tm_allocator* self) {
  stack_allocator* s = (stack_allocator*)self;
  pthread_mutex_lock(&owner_lock);
  tm_thread_identity* owner = __atomic_exchange_n(&s->owner, NULL, __ATOMIC_SEQ_CST);
  pthread_mutex_unlock(&owner_lock);
  if (owner && owner != tm_this_thread_ && !tm_thread_identity_ended(owner)) {
    wait_for_owner(s);
  }
  tm_thread_identity_release(owner);
  __atomic_store_n(&s->outstanding, live_blocks(s) + 1, __ATOMIC_RELAXED);  // 1: this function
  size_t returned = 1;
  for (const tm_storage* item = stack_returns_close(&s->returns); item; item = item->link.next) {
    returned++;
  }
  if (__atomic_fetch_sub(&s->outstanding, returned, __ATOMIC_ACQ_REL) == returned) {
    finish(s);
  }
}

//===-- Trim and statistics -----------------------------------------------===//

static tm_status trim_owned(stack_allocator* s, size_t keep) {
  if (s->pins) {
    return TM_OK;
  }
  if (s->current != &s->none && chain_is_empty(s)) {
    pop_region(s);
  }
  TM_TRY(refuse_while_capturing(s, 0));
  drop_spares(s, SIZE_MAX, keep);
  set_peak(s, extent(s));
  return keep == 0 ? tm_allocator_trim(s->upstream, 0) : TM_OK;
}

static tm_status stack_trim(tm_allocator* self, size_t keep) {
  stack_allocator* s = (stack_allocator*)self;
  bool was_unowned = false;
  TM_TRY(enter(s, &was_unowned));
  const tm_status status = trim_owned(s, keep);
  leave(s, was_unowned);
  return status;
}

static size_t live_bytes_in_list(const stack_allocator* s, const stack_region* region) {
  size_t bytes = 0;
  for (; region; region = region->below) {
    bytes += stack_region_live_bytes(region, s->base.alignment);
  }
  return bytes;
}

// What a request can get without an upstream call.
static size_t largest_free(const stack_allocator* s) {
  size_t largest = s->current->capacity - s->current->used;
  for (const stack_region* spare = s->pins ? NULL : s->spares; spare; spare = spare->below) {
    largest = larger(largest, spare->capacity);
  }
  return largest;
}

static tm_status stack_get_stats(tm_allocator* self, tm_allocator_stats* out) {
  stack_allocator* s = (stack_allocator*)self;
  bool was_unowned = false;
  TM_TRY(enter(s, &was_unowned));
  out->live_blocks = live_blocks(s);
  out->live_bytes = live_bytes_in_list(s, s->current) + live_bytes_in_list(s, s->retired);
  out->peak_live_bytes = s->mark;
  out->reserved_bytes = s->reserved;
  out->peak_reserved_bytes = s->peak_reserved;
  out->alloc_calls = s->alloc_calls;
  out->upstream_calls = s->upstream_calls;
  out->largest_free_bytes = largest_free(s);
  out->knows_largest_free = true;
  out->limit_bytes = s->maximum == SIZE_MAX ? 0 : s->maximum;
  leave(s, was_unowned);
  return TM_OK;
}

const tm_allocator_vtable stack_vtable_ = {
    .name = "stack",
    .destroy = stack_destroy,
    .alloc = stack_alloc,
    .free = stack_free,
    .trim = stack_trim,
    .get_stats = stack_get_stats,
    .alloc_storage = stack_alloc_storage,
    .free_storage = stack_free_storage,
};

//===-- Public functions --------------------------------------------------===//

static tm_status check_options(const tm_allocator* upstream, const tm_stream* stream,
                               const tm_stack_options* options) {
  if (!upstream) {
    return TM_NULL_HANDLE("tm_stack_allocator_create: the upstream");
  }
  if (upstream->device.type != TM_CPU && !stream && !upstream->stream && !upstream->is_dry) {
    return TM_RAISE(TM_ERR_INVALID,
                    "tm_stack_allocator_create: a stack over %s needs a stream to order reuse on",
                    upstream->vtable->name);
  }
  if (options && options->maximum_bytes && options->initial_bytes > options->maximum_bytes) {
    return TM_RAISE(TM_ERR_INVALID,
                    "tm_stack_allocator_create: initial_bytes is %zu, maximum_bytes %zu",
                    options->initial_bytes, options->maximum_bytes);
  }
  return TM_OK;
}

static void init_stack(stack_allocator* s, tm_allocator* upstream, tm_stream* stream,
                       const tm_stack_options* options) {
  tm_allocator_init_(&s->base, &stack_vtable_, upstream->device,
                     stream ? stream : upstream->stream);
  s->base.ignores_stream = s->base.stream == NULL;
  s->base.is_dry = upstream->is_dry;
  s->storage_flags = TM_STORAGE_EMBEDDED_ | (upstream->is_dry ? TM_STORAGE_DRY_ : 0);
  s->upstream = tm_allocator_retain(upstream);
  s->base.upstream = upstream;
  const size_t granule = larger(s->base.alignment, upstream->alignment);
  s->maximum = SIZE_MAX;
  if (options && options->maximum_bytes) {
    (void)tm_checked_round_up(options->maximum_bytes, granule, &s->maximum);
  }
  s->unobtainable = SIZE_MAX;
  s->none.segments = &s->none_segment;
  s->current = &s->none;
  (void)pthread_once(&process_once, prepare_process);
  s->fenced = !membarrier_works;
}

// The first region was not to be had.
static void report_creation(stack_allocator* s, tm_status status, size_t bytes) {
  if (status == TM_ERR_NO_MEMORY) {
    (void)tm_raise_oom_(&s->base, bytes, NULL);
  }
}

tm_allocator* tm_stack_allocator_create(tm_allocator* upstream, tm_stream* stream,
                                        const tm_stack_options* options) {
  if (check_options(upstream, stream, options) != TM_OK) {
    return NULL;
  }
  stack_allocator* s = tm_bookkeeping_alloc(sizeof *s, "a stack allocator");
  if (!s) {
    return NULL;
  }
  init_stack(s, upstream, stream, options);
  if (options && options->initial_bytes) {
    stack_region* region;
    const tm_status status = obtain_region(s, options->initial_bytes, &region);
    if (status != TM_OK) {
      report_creation(s, status, options->initial_bytes);
      finish(s);
      return NULL;
    }
    add_spare(s, region);
  }
  return &s->base;
}

bool tm_is_stack(const tm_allocator* allocator) {
  return allocator && allocator->vtable == &stack_vtable_;
}

// Checks the argument of an operation and begins it.
static tm_status begin(tm_allocator* allocator, const char* what, bool* was_unowned) {
  if (!allocator) {
    return TM_NULL_HANDLE(what);
  }
  if (!tm_is_stack(allocator)) {
    return TM_RAISE(TM_ERR_INVALID, "%s: the allocator is a %s, no stack", what,
                    allocator->vtable->name);
  }
  return enter((stack_allocator*)allocator, was_unowned);
}

static tm_status reserve_owned(stack_allocator* s, size_t bytes) {
  size_t rounded;
  size_t end;
  if (!tm_checked_round_up(bytes, s->base.alignment, &rounded) ||
      !tm_checked_add(extent(s), rounded, &end) || end > PTRDIFF_MAX) {
    return TM_RAISE(TM_ERR_INVALID, "stack: a reservation of %zu bytes asked", bytes);
  }
  if (rounded > s->current->capacity - s->current->used) {
    s->unobtainable = SIZE_MAX;  // worth asking again
    TM_TRY(make_room(s, rounded));
  }
  s->reservation = rounded;
  s->reserved_end = rounded ? extent(s) + rounded : 0;
  return TM_OK;
}

tm_status tm_stack_reserve(tm_allocator* allocator, size_t bytes) {
  bool was_unowned = false;
  TM_TRY(begin(allocator, "tm_stack_reserve", &was_unowned));
  stack_allocator* s = (stack_allocator*)allocator;
  tm_status status = reserve_owned(s, bytes);
  if (status == TM_ERR_NO_MEMORY && tm_allocator_trim_to_retry_(allocator)) {
    status = reserve_owned(s, bytes);
  }
  status = status == TM_ERR_NO_MEMORY ? tm_raise_oom_(allocator, bytes, NULL) : status;
  leave(s, was_unowned);
  return status;
}

// Takes the chain apart: empty regions become spares, the others wait for their last block.
static void retire_chain(stack_allocator* s) {
  stack_region* region = s->current == &s->none ? NULL : s->current;
  set_current(s, &s->none);
  while (region) {
    stack_region* below = region->below;
    if (stack_region_live(region) == 0) {
      add_spare(s, region);
    } else {
      region->retired = true;
      region->below = s->retired;
      s->retired = region;
    }
    region = below;
  }
}

tm_status tm_stack_reset(tm_allocator* allocator) {
  bool was_unowned = false;
  TM_TRY(begin(allocator, "tm_stack_reset", &was_unowned));
  stack_allocator* s = (stack_allocator*)allocator;
  tm_status status = TM_OK;
  if (!s->pins) {
    retire_chain(s);
  } else if (stack_region_live(s->current)) {
    status = TM_RAISE(TM_ERR_INVALID, "stack: reset while pinned, with %zu blocks live",
                      stack_region_live(s->current));
  }
  leave(s, was_unowned);
  return status;
}

// Pinned, a stack lives in one region, so that the same requests find the same addresses.
static tm_status pin_owned(stack_allocator* s) {
  if (s->current == &s->none && target(s) == 0 && !s->spares) {
    return TM_RAISE(TM_ERR_INVALID, "stack: nothing is reserved that could be pinned");
  }
  if (s->current == &s->none) {
    TM_TRY(begin_chain(s, larger(target(s), 1)));
  }
  if (s->current->below) {
    return TM_RAISE(TM_ERR_INVALID,
                    "stack: blocks are live in several regions; free or reset it before pinning");
  }
  s->pins++;
  return TM_OK;
}

tm_status tm_stack_pin(tm_allocator* allocator) {
  bool was_unowned = false;
  TM_TRY(begin(allocator, "tm_stack_pin", &was_unowned));
  stack_allocator* s = (stack_allocator*)allocator;
  tm_status status = pin_owned(s);
  status = status == TM_ERR_NO_MEMORY ? tm_raise_oom_(allocator, target(s), NULL) : status;
  leave(s, was_unowned);
  return status;
}

tm_status tm_stack_unpin(tm_allocator* allocator) {
  bool was_unowned = false;
  TM_TRY(begin(allocator, "tm_stack_unpin", &was_unowned));
  stack_allocator* s = (stack_allocator*)allocator;
  tm_status status = TM_OK;
  if (s->pins) {
    s->pins--;
  } else {
    status = TM_RAISE(TM_ERR_INVALID, "stack: unpinned more often than pinned");
  }
  leave(s, was_unowned);
  return status;
}

tm_status tm_stack_hand_over(tm_allocator* allocator) {
  bool was_unowned = false;
  TM_TRY(begin(allocator, "tm_stack_hand_over", &was_unowned));
  give_up((stack_allocator*)allocator);
  return TM_OK;
}

bool tm_stack_pass_(tm_allocator* allocator, tm_thread_identity* from, tm_thread_identity* to) {
  stack_allocator* s = (stack_allocator*)allocator;
  pthread_mutex_lock(&owner_lock);
  const tm_thread_identity* owner = __atomic_load_n(&s->owner, __ATOMIC_RELAXED);
  const bool passes = owner == from || owner == to || !has_owner(s);
  if (passes) {
    set_owner(s, to ? tm_thread_identity_retain(to) : NULL);
  }
  pthread_mutex_unlock(&owner_lock);
  return passes;
}

tm_status tm_stack_high_water_mark(tm_allocator* allocator, size_t* out) {
  if (!out) {
    return TM_RAISE(TM_ERR_INVALID, "tm_stack_high_water_mark: out is NULL");
  }
  *out = 0;
  bool was_unowned = false;
  TM_TRY(begin(allocator, "tm_stack_high_water_mark", &was_unowned));
  stack_allocator* s = (stack_allocator*)allocator;
  *out = s->mark;
  leave(s, was_unowned);
  return TM_OK;
}

tm_allocator* tm_stack_upstream(const tm_allocator* allocator) {
  return tm_is_stack(allocator) ? ((const stack_allocator*)allocator)->upstream : NULL;
}
