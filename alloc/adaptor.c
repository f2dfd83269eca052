#include "alloc/adaptor.h"

#include <pthread.h>
#include <stdint.h>

#include "tm/alloc/bookkeeping.h"
#include "tm/base/checked.h"

//===-- Locks ---------------------------------------------------------------===//

// A lock in each adaptor would have to be found by a thread that forks; these are always there.
enum { LOCKS = 16 };

static pthread_mutex_t locks[LOCKS] = {[0 ... LOCKS - 1] = PTHREAD_MUTEX_INITIALIZER};
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void lock_all(void) {
  for (int i = 0; i < LOCKS; i++) {
    (void)pthread_mutex_lock(&locks[i]);
  }
}

static void unlock_all(void) {
  for (int i = LOCKS - 1; i >= 0; i--) {
    (void)pthread_mutex_unlock(&locks[i]);
  }
}

static void watch_forks(void) { (void)pthread_atfork(lock_all, unlock_all, unlock_all); }

static pthread_mutex_t* lock_of(const tm_allocator* self) {
  const uint64_t mixed = ((uintptr_t)self / 64) * 0x9e3779b97f4a7c15u;
  return &locks[mixed >> 60];
}

_Static_assert(LOCKS == 16, "four bits choose a lock");

void tm_adaptor_lock_(const tm_allocator* self) { (void)pthread_mutex_lock(lock_of(self)); }
void tm_adaptor_unlock_(const tm_allocator* self) { (void)pthread_mutex_unlock(lock_of(self)); }

//===-- Lifetime ------------------------------------------------------------===//

void* tm_adaptor_create_(size_t size, const tm_allocator_vtable* vtable, tm_allocator* upstream,
                         const char* what) {
  if (!upstream) {
    (void)TM_NULL_HANDLE(what);
    return NULL;
  }
  tm_allocator* self = tm_bookkeeping_alloc(size, "an adaptor");
  if (!self) {
    return NULL;
  }
  (void)pthread_once(&fork_once, watch_forks);
  tm_allocator_init_(self, vtable, upstream->device, upstream->stream);
  self->upstream = tm_allocator_retain(upstream);
  self->alignment = upstream->alignment;
  self->ignores_stream = upstream->ignores_stream;
  self->puts_off_frees = upstream->puts_off_frees;  // they come through the adaptor when they come
  self->is_dry = upstream->is_dry;
  self->exact_sizes = true;
  return self;
}

void tm_adaptor_destroy_(tm_allocator* self) {
  tm_allocator* upstream = self->upstream;
  tm_allocator_deinit_(self);
  tm_bookkeeping_free(self);
  tm_allocator_release(upstream);
}

tm_status tm_adaptor_check_(const tm_allocator* adaptor, const tm_allocator_vtable* vtable,
                            const char* what) {
  if (!adaptor) {
    return TM_NULL_HANDLE(what);
  }
  if (adaptor->vtable != vtable) {
    return TM_RAISE(TM_ERR_INVALID, "%s: the allocator is a %s, no %s", what, adaptor->vtable->name,
                    vtable->name);
  }
  return TM_OK;
}

//===-- The upstream --------------------------------------------------------===//

tm_status tm_adaptor_ask_(tm_allocator* self, size_t size, tm_stream* stream, void** out) {
  return tm_allocator_alloc_nested_(self->upstream, size, self->stream ? self->stream : stream,
                                    out);
}

void tm_adaptor_give_back_(tm_allocator* self, void* ptr, size_t size, tm_stream* stream) {
  tm_allocator_free(self->upstream, ptr, size, self->stream ? self->stream : stream);
}

void tm_adaptor_undo_(tm_allocator* self, void* ptr, size_t size, tm_stream* stream) {
  tm_allocator_undo_(self->upstream, ptr, size, self->stream ? self->stream : stream);
}

size_t tm_adaptor_rounded_(const tm_allocator* self, size_t size) {
  size_t rounded = size;
  (void)tm_checked_round_up(size, self->alignment, &rounded);  // has been checked to fit
  return rounded;
}

tm_status tm_adaptor_trim_(tm_allocator* self, size_t keep) {
  return tm_allocator_trim(self->upstream, keep);
}

tm_status tm_adaptor_get_stats_(tm_allocator* self, tm_allocator_stats* out) {
  return tm_allocator_get_stats(self->upstream, out);
}

void tm_adaptor_add_reserved_(const tm_allocator* self, tm_allocator_stats* out) {
  const tm_error kept = *tm_last_error();
  tm_allocator_stats stats;
  if (tm_allocator_get_stats(self->upstream, &stats) != TM_OK) {
    tm_restore_error_(&kept);
    out->reserved_bytes = out->live_bytes;
    out->peak_reserved_bytes = out->peak_live_bytes;
    return;
  }
  stats.live_bytes = out->live_bytes;
  stats.live_blocks = out->live_blocks;
  stats.peak_live_bytes = out->peak_live_bytes;
  stats.alloc_calls = out->alloc_calls;
  *out = stats;
}
