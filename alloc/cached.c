// Two locks. `lock` guards the blocks and is held for memory operations and the events of guards
// only; `upstream_lock` is held by whoever obtains segments or gives some back, so that a thread
// that finds nothing meanwhile waits for the outcome instead of failing. `lock` is taken inside of
// `upstream_lock`, never the other way round, and a free takes `lock` alone.
//
//                  take           free                            its guard is over
//   (free block) --------> live --------> (free) or, guarded, pending ----------------> (free)
//
// A cache that needs CUDA touches nothing in the child of a fork, where both locks may be held for
// ever. One that does not goes on there: the fork waits for `lock`, and the child makes
// `upstream_lock` anew.

#include "tm/alloc/cached.h"

#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "alloc/cached_blocks.h"
#include "alloc/cuda_runtime.h"
#include "alloc/parked.h"
#include "alloc/reuse_guard.h"
#include "tm/alloc/bookkeeping.h"
#include "tm/base/checked.h"
#include "tm/base/fatal.h"

enum {
  GRANULE = 2 << 20,      // bytes: what a driver hands out at least, and segments are multiples of
  EARLY_GROWTH_LOG2 = 3,  // a further segment is at least an 8th of what is held,
  LARGE_GROWTH = 16 << 20,  // but that only to so many bytes,
  LATE_GROWTH_LOG2 = 8,     // and then a 256th
  CHECKS = 8,               // pending blocks an allocation looks at before it needs them
};

typedef struct cached {
  tm_allocator base;       // must be first
  tm_allocator* upstream;  // retained
  size_t granule;          // bytes: the larger alignment of the two
  size_t maximum;          // bytes; SIZE_MAX: no limit
  bool is_guarded;         // memory is used again only when the host has seen that it may be
  bool needs_cuda;         // and is left alone where CUDA is gone
  pid_t process;           // that made it
  tm_parked_ parked;       // while it waits for its last guards, with no reference left
  LIST_ENTRY(cached) in_registry;  // where it does not need CUDA
  pthread_mutex_t upstream_lock;
  pthread_mutex_t lock;  // guards what follows
  cached_blocks blocks;
  struct {
    two_level_block* first;  // the longest pending
    two_level_block** last;  // where the next one is linked
  } pending;
  tm_allocator_stats counters;
  size_t on_its_way;           // bytes of `reserved` that are no segment yet
  uint64_t peak_put_together;  // the peak of live bytes when segments last became one
  size_t unobtainable;  // bytes that the upstream had no single segment of; SIZE_MAX: none is known
  bool is_closed;       // the last reference is gone, and the last live block has one instead
} cached;

static inline bool cached_is_valid(const cached* s) {
  return s->counters.live_bytes <= s->counters.reserved_bytes &&
         s->counters.live_blocks == s->blocks.live_count &&
         s->counters.reserved_bytes - s->on_its_way <= s->counters.peak_reserved_bytes &&
         s->counters.reserved_bytes <= s->maximum;
}

static TM_COLD void die_of_overwriting(const cached* s) {
  TM_FATAL("cached: overwritten (%llu bytes live, %llu held)",
           (unsigned long long)s->counters.live_bytes,
           (unsigned long long)s->counters.reserved_bytes);
}

static inline void check_valid(const cached* s) {
  if (TM_UNLIKELY(!cached_is_valid(s))) {
    die_of_overwriting(s);
  }
}

static void lock(cached* s) { (void)pthread_mutex_lock(&s->lock); }
static void unlock(cached* s) { (void)pthread_mutex_unlock(&s->lock); }

static uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }
static uint64_t smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }

//===-- What is gone --------------------------------------------------------===//

// TM_OK where the locks may be taken and the memory used; else raises why not.
static inline tm_status check_usable(const cached* s) {
  if (!s->needs_cuda) {
    return TM_OK;
  }
  if (s->base.device.type == TM_DEVICE) {
    return tm_device_check_(s->base.device.id);
  }
  if (!tm_cuda_usable_()) {
    int32_t unused;
    TM_TRY(tm_current_device_(&unused));  // says why, or is the first use
  }
  return TM_OK;
}

// Whether this is the child of a fork in which nothing of the cache may be touched. A process that
// is exiting has lost CUDA too, but only what calls it.
static inline bool is_inherited(const cached* s) {
  return s->needs_cuda && !tm_cuda_usable_() && getpid() != s->process;
}

//===-- Forks ---------------------------------------------------------------===//

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static LIST_HEAD(, cached) registry = LIST_HEAD_INITIALIZER(registry);
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void before_fork(void) {
  (void)pthread_mutex_lock(&registry_lock);
  cached* s;
  LIST_FOREACH(s, &registry, in_registry) { lock(s); }
}

static void after_fork_in_parent(void) {
  cached* s;
  LIST_FOREACH(s, &registry, in_registry) { unlock(s); }
  (void)pthread_mutex_unlock(&registry_lock);
}

// Whoever was calling the upstream does not exist here: what it was obtaining never arrives.
static void after_fork_in_child(void) {
  cached* s;
  LIST_FOREACH(s, &registry, in_registry) {
    (void)pthread_mutex_init(&s->upstream_lock, NULL);
    s->counters.reserved_bytes -= s->on_its_way;
    s->on_its_way = 0;
    unlock(s);
  }
  (void)pthread_mutex_unlock(&registry_lock);
}

static void watch_forks(void) {
  (void)pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

static void enter_registry(cached* s) {
  (void)pthread_once(&fork_once, watch_forks);
  (void)pthread_mutex_lock(&registry_lock);
  LIST_INSERT_HEAD(&registry, s, in_registry);
  (void)pthread_mutex_unlock(&registry_lock);
}

static void leave_registry(cached* s) {
  (void)pthread_mutex_lock(&registry_lock);
  LIST_REMOVE(s, in_registry);
  (void)pthread_mutex_unlock(&registry_lock);
}

//===-- Pending blocks ------------------------------------------------------===//

static reuse_guard* guard_of(cached_block* block) { return cached_block_extra(block); }

static void add_pending(cached* s, cached_block* block) {
  block->span.next = NULL;
  block->span.link = s->pending.last;
  *s->pending.last = &block->span;
  s->pending.last = &block->span.next;
}

static void remove_pending(cached* s, cached_block* block) {
  if (block->span.next) {
    block->span.next->link = block->span.link;
  } else {
    s->pending.last = block->span.link;
  }
  *block->span.link = block->span.next;
}

static cached_block* first_pending(const cached* s) { return (cached_block*)s->pending.first; }

static cached_block* after(const cached_block* block) { return (cached_block*)block->span.next; }

static inline void make_free(cached* s, cached_block* block) {
  if (s->is_guarded) {
    reuse_guard_deinit(guard_of(block));
  }
  cached_blocks_give(&s->blocks, block);
}

static void settle_some(cached* s, size_t checks) {
  const tm_error kept = *tm_last_error();
  cached_block* next;
  for (cached_block* block = first_pending(s); block && checks > 0; block = next) {
    next = after(block);
    if (reuse_guard_is_over(guard_of(block))) {
      remove_pending(s, block);
      make_free(s, block);
    } else {
      checks--;
    }
  }
  tm_restore_error_(&kept);
}

// Frees what is over among the pending blocks, after at most `checks` that are not.
static inline void settle_pending(cached* s, size_t checks) {
  if (TM_UNLIKELY(s->pending.first != NULL)) {
    settle_some(s, checks);
  }
}

//===-- The upstream --------------------------------------------------------===//

static tm_status refuse_capture(const cached* s, const tm_stream* stream, size_t size) {
  bool capturing = false;
  if (stream && tm_stream_handle(stream)) {
    TM_TRY(tm_stream_is_capturing(stream, &capturing));
  }
  return capturing
             ? TM_RAISE(TM_ERR_CAPTURING,
                        "cached: %zu bytes asked of the upstream (%s) while a stream they are "
                        "for is being captured",
                        size, s->upstream->vtable->name)
             : TM_OK;
}

// These two are called without `lock`.

static tm_status ask_upstream(cached* s, size_t bytes, cached_segment** out) {
  cached_segment* segment = tm_bookkeeping_alloc(sizeof *segment, "a cache's segment");
  if (!segment) {
    return tm_last_status();
  }
  void* base = NULL;
  const tm_status status = tm_allocator_alloc_nested_(s->upstream, bytes, s->base.stream, &base);
  if (status != TM_OK) {
    tm_bookkeeping_free(segment);
    return status;
  }
  segment->base = base;
  segment->bytes = bytes;
  *out = segment;
  return TM_OK;
}

static void give_segments_back(cached* s, struct cached_segments* gone) {
  cached_segment* segment;
  while ((segment = TAILQ_FIRST(gone)) != NULL) {
    TAILQ_REMOVE(gone, segment, in_segments);
    tm_allocator_free(s->upstream, segment->base, segment->bytes, s->base.stream);
    tm_bookkeeping_free(segment);
  }
}

//===-- Reservations --------------------------------------------------------===//

// `bytes` are being obtained: they count against the maximum from now on.
static void reserve(cached* s, size_t bytes) {
  s->on_its_way += bytes;
  s->counters.reserved_bytes += bytes;
  s->counters.upstream_calls++;
}

static void unreserve(cached* s, size_t bytes) {
  s->on_its_way -= bytes;
  s->counters.reserved_bytes -= bytes;
}

static void arrive(cached* s, size_t bytes) {
  s->on_its_way -= bytes;
  s->counters.peak_reserved_bytes =
      larger(s->counters.peak_reserved_bytes, s->counters.reserved_bytes - s->on_its_way);
}

// Moves a segment that is all free to `gone`.
static void retire(cached* s, cached_segment* segment, struct cached_segments* gone) {
  s->counters.reserved_bytes -= segment->bytes;
  s->counters.upstream_calls++;
  cached_blocks_remove(&s->blocks, segment);
  TAILQ_INSERT_TAIL(gone, segment, in_segments);
}

static size_t room(const cached* s) { return s->maximum - s->counters.reserved_bytes; }

//===-- Growing -------------------------------------------------------------===//

typedef struct growth {
  size_t exact;                 // bytes of the smallest segment that will do
  size_t wanted;                // bytes to ask for first
  struct cached_segments gone;  // what it replaces
} growth;

// Small requests come in larger segments, so that few are needed and neighbours can be joined. What
// is too much of the last one stays little beside what is held.
static size_t least_growth(const cached* s) {
  const uint64_t held = s->counters.reserved_bytes;
  return smaller(held >> EARLY_GROWTH_LOG2, larger(LARGE_GROWTH, held >> LATE_GROWTH_LOG2));
}

static tm_status plan_sizes(const cached* s, size_t size, growth* g) {
  if (!tm_checked_round_up(size, s->granule, &g->exact) ||
      !tm_checked_round_up(larger(size, least_growth(s)), GRANULE, &g->wanted) ||
      g->exact > PTRDIFF_MAX) {
    return TM_RAISE(TM_ERR_NO_MEMORY, "cached: %zu bytes asked, more than a segment can have",
                    size);
  }
  g->wanted = g->wanted > PTRDIFF_MAX ? g->exact : g->wanted;
  return TM_OK;
}

// Segments that are all free make way for the new one, the largest first, until what is held does
// not grow and the limit allows it, or none is left.
static tm_status plan_growth(cached* s, size_t size, growth* g) {
  TAILQ_INIT(&g->gone);
  TM_TRY(plan_sizes(s, size, g));
  const size_t replaceable = s->blocks.free_segment_bytes;
  if (g->exact > room(s) + replaceable) {
    return TM_RAISE(TM_ERR_NO_MEMORY,
                    "cached: %zu bytes asked; %llu live in %llu held, of at most %zu, and the "
                    "largest free block has %zu",
                    size, (unsigned long long)s->counters.live_bytes,
                    (unsigned long long)s->counters.reserved_bytes, s->maximum,
                    two_level_largest(&s->blocks.index));
  }
  size_t replaced = 0;
  while (replaced < replaceable && (replaced < g->exact || room(s) < g->exact)) {
    cached_segment* segment = cached_blocks_largest_free_segment(&s->blocks, SIZE_MAX);
    replaced += segment->bytes;
    retire(s, segment, &g->gone);
  }
  g->wanted = g->wanted > room(s) ? g->exact : g->wanted;
  reserve(s, g->wanted);
  return TM_OK;
}

// Asks for what is wanted or, where there is not that much, for what will just do.
static tm_status obtain(cached* s, growth* g, cached_segment** out) {
  tm_status status = ask_upstream(s, g->wanted, out);
  if (status == TM_ERR_NO_MEMORY && g->exact < g->wanted) {
    lock(s);
    unreserve(s, g->wanted);
    reserve(s, g->exact);
    unlock(s);
    g->wanted = g->exact;
    status = ask_upstream(s, g->wanted, out);
  }
  return status;
}

static inline void count_alloc(cached* s, size_t size) {
  s->counters.live_blocks++;
  s->counters.live_bytes += size;
  s->counters.peak_live_bytes = larger(s->counters.peak_live_bytes, s->counters.live_bytes);
}

// The new segment serves the request that it was obtained for, before anybody else's.
static tm_status take_of_new(cached* s, cached_segment* segment, size_t size, cached_block** out) {
  TM_TRY(cached_blocks_prepare(&s->blocks));
  arrive(s, segment->bytes);
  *out = cached_blocks_take_of_new(&s->blocks, segment, size);
  count_alloc(s, size);
  return TM_OK;
}

// The upstream's words, and what the cache has.
static TM_COLD tm_status raise_no_memory(cached* s, size_t size) {
  lock(s);
  const tm_allocator_stats now = s->counters;
  const size_t largest = two_level_largest(&s->blocks.index);
  unlock(s);
  return TM_RAISE(TM_ERR_NO_MEMORY,
                  "cached: %zu bytes asked; %llu live in %llu held, the largest free block has %zu "
                  "bytes; %s",
                  size, (unsigned long long)now.live_bytes, (unsigned long long)now.reserved_bytes,
                  largest, tm_last_error()->message);
}

// Called with `upstream_lock` only.
static tm_status grow(cached* s, size_t size, cached_block** out) {
  growth g;
  lock(s);
  tm_status status = plan_growth(s, size, &g);
  unlock(s);
  if (status != TM_OK) {
    return status;
  }
  give_segments_back(s, &g.gone);
  cached_segment* segment = NULL;
  status = obtain(s, &g, &segment);
  lock(s);
  if (status == TM_OK) {
    status = take_of_new(s, segment, size, out);
  }
  if (status != TM_OK) {
    unreserve(s, g.wanted);
  }
  unlock(s);
  if (status != TM_OK && segment) {
    tm_allocator_undo_(s->upstream, segment->base, segment->bytes, s->base.stream);
    tm_bookkeeping_free(segment);
  }
  return status == TM_ERR_NO_MEMORY ? raise_no_memory(s, size) : status;
}

//===-- Several segments become one -----------------------------------------===//

static bool is_scattered(const cached* s) {
  return s->counters.live_blocks == 0 && !s->pending.first && s->blocks.segment_count > 1 &&
         s->counters.reserved_bytes < s->unobtainable;
}

// One segment of what was live at most: a region in one piece hardly needs more. Where it did, what
// is held at the same peak is the need.
static size_t bytes_for_all(const cached* s) {
  const uint64_t held = s->counters.reserved_bytes;
  size_t peak;
  const bool is_new_peak = s->counters.peak_live_bytes > s->peak_put_together;
  return is_new_peak && tm_checked_round_up(s->counters.peak_live_bytes, GRANULE, &peak)
             ? smaller(held, peak)
             : held;
}

static size_t retire_all(cached* s, struct cached_segments* gone) {
  const size_t bytes = bytes_for_all(s);
  s->peak_put_together = s->counters.peak_live_bytes;
  while (s->blocks.segment_count > 0) {
    retire(s, TAILQ_FIRST(&s->blocks.segments), gone);
  }
  reserve(s, bytes);
  return bytes;
}

// The nodes of the blocks that go are enough for the one that comes, and nothing else takes any:
// there is no free block, and further segments wait for `upstream_lock`.
static void become_one(cached* s, size_t bytes, cached_segment* segment) {
  lock(s);
  if (segment) {
    arrive(s, bytes);
    cached_blocks_add(&s->blocks, segment);
  } else {
    unreserve(s, bytes);
    s->unobtainable = bytes;
  }
  unlock(s);
}

// Called with `upstream_lock` only. What the upstream refuses is noted, and requests then get
// segments of their own again.
static void consolidate(cached* s, const tm_stream* stream) {
  const tm_error kept = *tm_last_error();
  struct cached_segments gone = TAILQ_HEAD_INITIALIZER(gone);
  if (refuse_capture(s, s->base.stream, 0) == TM_OK && refuse_capture(s, stream, 0) == TM_OK) {
    lock(s);
    const size_t bytes = is_scattered(s) ? retire_all(s, &gone) : 0;
    unlock(s);
    if (bytes) {
      cached_segment* segment = NULL;
      give_segments_back(s, &gone);
      (void)!ask_upstream(s, bytes, &segment);
      become_one(s, bytes, segment);
    }
  }
  tm_restore_error_(&kept);
}

//===-- Allocating ----------------------------------------------------------===//

// Stores NULL where nothing fits. Called with `lock`.
static inline tm_status take_free(cached* s, size_t size, cached_block** out) {
  check_valid(s);
  TM_TRY(cached_blocks_prepare(&s->blocks));
  *out = cached_blocks_take(&s->blocks, size);
  if (*out) {
    count_alloc(s, size);
  }
  return TM_OK;
}

// The same, but not while the segments are worth putting together.
static inline tm_status take_at_once(cached* s, size_t size, cached_block** out) {
  lock(s);
  s->counters.alloc_calls++;
  settle_pending(s, CHECKS);
  const tm_status status = is_scattered(s) ? TM_OK : take_free(s, size, out);
  unlock(s);
  return status;
}

// Called with `upstream_lock`: tries again first, since another thread may have obtained something.
static tm_status take_or_grow(cached* s, size_t size, const tm_stream* stream, cached_block** out) {
  consolidate(s, stream);
  lock(s);
  settle_pending(s, SIZE_MAX);
  const tm_status status = take_free(s, size, out);
  unlock(s);
  if (status != TM_OK || *out) {
    return status;
  }
  TM_TRY(refuse_capture(s, s->base.stream, size));
  TM_TRY(refuse_capture(s, stream, size));
  return grow(s, size, out);
}

static tm_status take(cached* s, size_t size, const tm_stream* stream, cached_block** out) {
  TM_TRY(take_at_once(s, size, out));
  if (TM_LIKELY(*out != NULL)) {
    return TM_OK;
  }
  (void)pthread_mutex_lock(&s->upstream_lock);
  const tm_status status = take_or_grow(s, size, stream, out);
  (void)pthread_mutex_unlock(&s->upstream_lock);
  return status;
}

// The event that the block's free needs is obtained first, so that the free cannot fail.
static tm_status cached_alloc(tm_allocator* base, size_t size, tm_stream* stream, void** out) {
  cached* s = (cached*)base;
  TM_TRY(check_usable(s));
  reuse_guard guard = {0};
  if (s->is_guarded && stream) {
    TM_TRY(reuse_guard_prepare(&guard, stream));
  }
  cached_block* block = NULL;
  const tm_status status = take(s, size, stream, &block);
  if (status != TM_OK) {
    reuse_guard_deinit(&guard);
    return status;
  }
  if (s->is_guarded) {
    *guard_of(block) = guard;
  }
  *out = block->span.base;
  return TM_OK;
}

//===-- Freeing -------------------------------------------------------------===//

static inline void put_back(cached* s, cached_block* block, tm_stream* stream) {
  s->counters.live_blocks--;
  s->counters.live_bytes -= block->span.bytes;
  if (s->is_guarded) {
    const tm_error kept = *tm_last_error();
    reuse_guard_close(guard_of(block), stream);
    add_pending(s, block);
    tm_restore_error_(&kept);
    settle_pending(s, 1);
  } else {
    make_free(s, block);
  }
}

static void cached_free(tm_allocator* base, void* ptr, size_t size, tm_stream* stream) {
  cached* s = (cached*)base;
  if (is_inherited(s)) {
    return;  // the lock may be held for ever
  }
  lock(s);
  check_valid(s);
  cached_block* block = cached_blocks_set_aside(&s->blocks, ptr, size);
  if (TM_LIKELY(block != NULL)) {
    put_back(s, block, stream);
  }
  const bool is_last = s->is_closed && s->counters.live_blocks == 0;
  unlock(s);
  if (TM_UNLIKELY(!block)) {
    TM_FATAL("cached: %p is freed, and no block of %zu bytes is live there", ptr, size);
  }
  if (is_last) {
    tm_allocator_release(base);
  }
}

//===-- The end -------------------------------------------------------------===//

// No block is live or pending, and nobody refers to the cache.
static void finish(cached* s) {
  struct cached_segments gone = TAILQ_HEAD_INITIALIZER(gone);
  while (s->blocks.segment_count > 0) {
    retire(s, TAILQ_FIRST(&s->blocks.segments), &gone);
  }
  if (!s->needs_cuda) {
    leave_registry(s);
  }
  give_segments_back(s, &gone);
  cached_blocks_deinit(&s->blocks);
  (void)pthread_mutex_destroy(&s->lock);
  (void)pthread_mutex_destroy(&s->upstream_lock);
  tm_allocator_deinit_(&s->base);
  tm_allocator_release(s->upstream);
  tm_bookkeeping_free(s);
}

// Whether nothing uses the memory any more; what a lost device used, nothing does.
static bool is_over(cached* s) {
  settle_pending(s, SIZE_MAX);
  cached_block* next;
  for (cached_block* block = first_pending(s); block; block = next) {
    next = after(block);
    if (reuse_guard_is_lost(guard_of(block))) {
      remove_pending(s, block);
      make_free(s, block);
    }
  }
  return !s->pending.first;
}

static bool retry_finish(tm_parked_* parked) {
  cached* s = (cached*)(void*)((char*)parked - offsetof(cached, parked));
  if (!is_over(s)) {
    return false;
  }
  finish(s);
  return true;
}

// The last reference is gone. Where blocks are live, they have one from here on.
static void cached_destroy(tm_allocator* base) {
  cached* s = (cached*)base;
  if (is_inherited(s)) {
    return;  // another thread may have been amid anything
  }
  lock(s);
  s->is_closed = s->counters.live_blocks > 0;
  const bool stays = s->is_closed;
  if (stays) {
    __atomic_store_n(&base->references, 1, __ATOMIC_RELAXED);
  }
  unlock(s);
  if (stays) {
    return;
  }
  const tm_error kept = *tm_last_error();
  if (is_over(s)) {
    finish(s);
  } else {
    s->parked.retry = retry_finish;
    tm_park_(&s->parked);
  }
  tm_restore_error_(&kept);
}

//===-- Trim and statistics -------------------------------------------------===//

static void collect_free_segments(cached* s, size_t keep, struct cached_segments* gone) {
  cached_segment* segment = NULL;
  do {
    const size_t held = s->counters.reserved_bytes;
    segment = held > keep ? cached_blocks_largest_free_segment(&s->blocks, held - keep) : NULL;
    if (segment) {
      retire(s, segment, gone);
    }
  } while (segment);
}

// Called with `upstream_lock` only.
static void trim_segments(cached* s, size_t keep) {
  struct cached_segments gone = TAILQ_HEAD_INITIALIZER(gone);
  lock(s);
  check_valid(s);
  settle_pending(s, SIZE_MAX);
  collect_free_segments(s, keep, &gone);
  s->unobtainable = SIZE_MAX;  // worth asking again
  s->peak_put_together = 0;
  unlock(s);
  give_segments_back(s, &gone);
}

static tm_status cached_trim(tm_allocator* base, size_t keep) {
  cached* s = (cached*)base;
  TM_TRY(check_usable(s));
  TM_TRY(refuse_capture(s, base->stream, 0));
  if (s->is_guarded && tm_stream_handle(base->stream)) {
    TM_TRY(tm_stream_sync(base->stream));  // so that the host sees that frees are over
  }
  (void)pthread_mutex_lock(&s->upstream_lock);
  trim_segments(s, keep);
  const tm_status status = keep == 0 ? tm_allocator_trim(s->upstream, 0) : TM_OK;
  (void)pthread_mutex_unlock(&s->upstream_lock);
  return status;
}

static tm_status cached_get_stats(tm_allocator* base, tm_allocator_stats* out) {
  cached* s = (cached*)base;
  if (is_inherited(s)) {
    TM_TRY(check_usable(s));
  }
  lock(s);
  *out = s->counters;
  out->reserved_bytes -= s->on_its_way;
  out->largest_free_bytes = two_level_largest(&s->blocks.index);
  out->knows_largest_free = true;
  out->limit_bytes = s->maximum == SIZE_MAX ? 0 : s->maximum;
  unlock(s);
  return TM_OK;
}

static const tm_allocator_vtable cached_vtable = {
    .name = "cached",
    .destroy = cached_destroy,
    .alloc = cached_alloc,
    .free = cached_free,
    .trim = cached_trim,
    .get_stats = cached_get_stats,
};

//===-- Public functions ----------------------------------------------------===//

static tm_status check_options(const tm_allocator* upstream, const tm_stream* stream,
                               const tm_cached_options* options) {
  if (!upstream) {
    return TM_NULL_HANDLE("tm_cached_allocator_create: the upstream");
  }
  if (upstream->device.type == TM_DEVICE && !stream && !upstream->stream && !upstream->is_dry) {
    return TM_RAISE(TM_ERR_INVALID,
                    "tm_cached_allocator_create: a cache over %s needs a stream to order reuse on",
                    upstream->vtable->name);
  }
  if (options->maximum_bytes && options->initial_bytes > options->maximum_bytes) {
    return TM_RAISE(TM_ERR_INVALID,
                    "tm_cached_allocator_create: initial_bytes is %zu, maximum_bytes %zu",
                    options->initial_bytes, options->maximum_bytes);
  }
  if (options->maximum_bytes && options->maximum_bytes < upstream->alignment) {
    return TM_RAISE(TM_ERR_INVALID,
                    "tm_cached_allocator_create: maximum_bytes is %zu, and the smallest block of "
                    "%s has %zu bytes",
                    options->maximum_bytes, upstream->vtable->name, upstream->alignment);
  }
  return TM_OK;
}

static void init_cached(cached* s, tm_allocator* upstream, tm_stream* stream,
                        const tm_cached_options* options) {
  tm_allocator_init_(&s->base, &cached_vtable, upstream->device,
                     stream ? stream : upstream->stream);
  const bool has_no_order =
      upstream->is_dry || (upstream->device.type == TM_CPU && !s->base.stream);
  s->base.ignores_stream = has_no_order && !s->base.stream;
  s->base.is_dry = upstream->is_dry;
  s->is_guarded = !has_no_order && upstream->device.type != TM_DEVICE;
  s->needs_cuda = !has_no_order;
  s->process = getpid();
  s->upstream = tm_allocator_retain(upstream);
  s->base.upstream = upstream;
  s->granule = larger(s->base.alignment, upstream->alignment);
  s->maximum = SIZE_MAX;
  if (options->maximum_bytes) {
    s->maximum = options->maximum_bytes / s->granule * s->granule;
  }
  s->unobtainable = SIZE_MAX;
  s->pending.last = &s->pending.first;
  cached_blocks_init(&s->blocks, s->is_guarded ? sizeof(reuse_guard) : 0);
  (void)pthread_mutex_init(&s->lock, NULL);
  (void)pthread_mutex_init(&s->upstream_lock, NULL);
  if (!s->needs_cuda) {
    enter_registry(s);
  }
}

// Nobody else knows the cache yet, so no lock is needed.
static tm_status obtain_initial(cached* s, size_t bytes) {
  if (!tm_checked_round_up(bytes, s->granule, &bytes)) {
    return TM_RAISE(TM_ERR_OVERFLOW, "cached: initial_bytes is %zu", bytes);
  }
  bytes = smaller(bytes, s->maximum);
  if (bytes == 0) {
    return TM_OK;
  }
  TM_TRY(refuse_capture(s, s->base.stream, bytes));
  TM_TRY(cached_blocks_prepare(&s->blocks));
  cached_segment* segment = NULL;
  TM_TRY(ask_upstream(s, bytes, &segment));
  reserve(s, bytes);
  arrive(s, bytes);
  cached_blocks_add(&s->blocks, segment);
  return TM_OK;
}

// The first segment was not to be had.
static void report_creation(cached* s, size_t bytes) {
  if (tm_last_status() == TM_ERR_NO_MEMORY) {
    (void)tm_raise_oom_(&s->base, bytes, NULL);
  }
}

tm_allocator* tm_cached_allocator_create(tm_allocator* upstream, tm_stream* stream,
                                         const tm_cached_options* options) {
  static const tm_cached_options defaults = {0};
  options = options ? options : &defaults;
  if (check_options(upstream, stream, options) != TM_OK) {
    return NULL;
  }
  cached* s = tm_bookkeeping_alloc(sizeof *s, "a cached allocator");
  if (!s) {
    return NULL;
  }
  init_cached(s, upstream, stream, options);
  if (options->initial_bytes && obtain_initial(s, options->initial_bytes) != TM_OK) {
    report_creation(s, options->initial_bytes);
    finish(s);
    return NULL;
  }
  return &s->base;
}

bool tm_is_cached(const tm_allocator* allocator) {
  return allocator && allocator->vtable == &cached_vtable;
}

tm_allocator* tm_cached_upstream(const tm_allocator* allocator) {
  return tm_is_cached(allocator) ? ((const cached*)allocator)->upstream : NULL;
}

bool tm_cached_is_valid(tm_allocator* allocator) {
  if (!tm_is_cached(allocator) || is_inherited((cached*)allocator)) {
    return false;
  }
  cached* s = (cached*)allocator;
  lock(s);
  const bool is_valid = cached_is_valid(s) && cached_blocks_are_valid(&s->blocks);
  unlock(s);
  return is_valid;
}
