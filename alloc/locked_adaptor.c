// A fork must not wait for ever: a thread inside an upstream may itself wait for a lock that the
// forking thread holds by then. So it waits for a while, and a child that was left with an upstream
// in the middle of a call keeps away from it.

#include "tm/alloc/locked_adaptor.h"

#include <pthread.h>
#include <sys/queue.h>
#include <time.h>

#include "alloc/adaptor.h"
#include "alloc/parked.h"
#include "tm/alloc/stack.h"
#include "tm/base/thread.h"

typedef struct locked {
  tm_allocator base;  // must be first
  pthread_mutex_t mutex;
  const void* holder;  // atomic; the thread that has the mutex, by its tm_thread_; NULL: none
  int depth;           // of the holder's calls
  bool held_by_fork;   // while this thread forks
  bool broken;         // this process was forked in the middle of a call
  LIST_ENTRY(locked) in_list;
} locked;

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static LIST_HEAD(, locked) all = LIST_HEAD_INITIALIZER(all);
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

//===-- The lock ------------------------------------------------------------===//

static bool is_mine(const locked* l) {
  return __atomic_load_n(&l->holder, __ATOMIC_RELAXED) == &tm_thread_;
}

// Lets the holder in again, whom the upstream may have called. Frees that were put off wait for the
// end of the call: they may need the mutex of another locked adaptor, whose holder may need ours.
static void enter(locked* l) {
  tm_withhold_parked_();
  if (!is_mine(l)) {
    (void)pthread_mutex_lock(&l->mutex);
    __atomic_store_n(&l->holder, &tm_thread_, __ATOMIC_RELAXED);
  }
  l->depth++;
}

static void leave(locked* l) {
  if (--l->depth == 0) {
    __atomic_store_n(&l->holder, NULL, __ATOMIC_RELAXED);
    (void)pthread_mutex_unlock(&l->mutex);
  }
  tm_allow_parked_();
}

static tm_status check_is_whole(const locked* l) {
  return l->broken ? TM_RAISE(TM_ERR_UNAVAILABLE,
                              "locked: another thread was inside %s when this process was forked",
                              tm_allocator_name(l->base.upstream))
                   : TM_OK;
}

//===-- Forks ---------------------------------------------------------------===//

enum { PATIENCE_SECONDS = 1 };

static void before_fork(void) {
  struct timespec until;
  (void)clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += PATIENCE_SECONDS;
  (void)pthread_mutex_lock(&list_lock);
  locked* l;
  LIST_FOREACH(l, &all, in_list) {
    l->held_by_fork = !is_mine(l) && pthread_mutex_timedlock(&l->mutex, &until) == 0;
  }
}

static void unlock_after_fork(locked* l) {
  if (l->held_by_fork) {
    l->held_by_fork = false;
    (void)pthread_mutex_unlock(&l->mutex);
  }
}

static void after_fork(void) {
  locked* l;
  LIST_FOREACH(l, &all, in_list) { unlock_after_fork(l); }
  (void)pthread_mutex_unlock(&list_lock);
}

// A thread that forks inside the upstream is inside it in the child as well.
static void enter_forked_child(void) {
  locked* l;
  LIST_FOREACH(l, &all, in_list) {
    if (!l->held_by_fork && !is_mine(l)) {
      l->broken = true;
      l->depth = 0;
      l->holder = NULL;
      (void)pthread_mutex_init(&l->mutex, NULL);
    }
    unlock_after_fork(l);
  }
  (void)pthread_mutex_unlock(&list_lock);
}

static void watch_forks(void) { (void)pthread_atfork(before_fork, after_fork, enter_forked_child); }

//===-- Slots ---------------------------------------------------------------===//

static tm_status locked_alloc(tm_allocator* self, size_t size, tm_stream* stream, void** out) {
  locked* l = (locked*)self;
  enter(l);
  tm_status status = check_is_whole(l);
  status = status == TM_OK ? tm_adaptor_ask_(self, size, stream, out) : status;
  leave(l);
  return status;
}

static void locked_free(tm_allocator* self, void* ptr, size_t size, tm_stream* stream) {
  locked* l = (locked*)self;
  enter(l);
  if (!l->broken) {
    tm_adaptor_give_back_(self, ptr, size, stream);
  }
  leave(l);
}

static tm_status locked_trim(tm_allocator* self, size_t keep) {
  locked* l = (locked*)self;
  enter(l);
  tm_status status = check_is_whole(l);
  status = status == TM_OK ? tm_adaptor_trim_(self, keep) : status;
  leave(l);
  return status;
}

static tm_status locked_get_stats(tm_allocator* self, tm_allocator_stats* out) {
  locked* l = (locked*)self;
  enter(l);
  tm_status status = check_is_whole(l);
  status = status == TM_OK ? tm_adaptor_get_stats_(self, out) : status;
  leave(l);
  return status;
}

// An upstream in the middle of a call stays as it is.
static void locked_destroy(tm_allocator* self) {
  locked* l = (locked*)self;
  (void)pthread_mutex_lock(&list_lock);
  LIST_REMOVE(l, in_list);
  (void)pthread_mutex_unlock(&list_lock);
  (void)pthread_mutex_destroy(&l->mutex);
  if (l->broken) {
    (void)tm_allocator_retain(self->upstream);
  }
  tm_adaptor_destroy_(self);
}

static const tm_allocator_vtable locked_vtable = {
    .name = "locked",
    .destroy = locked_destroy,
    .alloc = locked_alloc,
    .free = locked_free,
    .trim = locked_trim,
    .get_stats = locked_get_stats,
};

//===-- Creation ------------------------------------------------------------===//

static tm_status refuse_arena(const tm_allocator* upstream) {
  for (const tm_allocator* below = upstream; below; below = tm_allocator_upstream(below)) {
    if (tm_is_stack(below)) {
      return TM_RAISE(TM_ERR_INVALID,
                      "locked: %s%s belongs to the thread that allocates from it, which no lock "
                      "changes; give each thread a stack over the locked adaptor",
                      upstream == below ? "" : "what is over ", tm_allocator_name(below));
    }
  }
  return TM_OK;
}

// Under list_lock.
static bool is_locked_already(const tm_allocator* upstream) {
  const locked* l;
  LIST_FOREACH(l, &all, in_list) {
    if (l->base.upstream == upstream) {
      return true;
    }
  }
  return false;
}

static bool is_process_wide(const tm_allocator* allocator) {
  return __atomic_load_n(&allocator->references, __ATOMIC_RELAXED) == TM_IMMORTAL_;
}

static bool add_to_list(locked* l) {
  (void)pthread_once(&fork_once, watch_forks);
  (void)pthread_mutex_lock(&list_lock);
  const bool added = is_process_wide(l->base.upstream) || !is_locked_already(l->base.upstream);
  if (added) {
    LIST_INSERT_HEAD(&all, l, in_list);
  }
  (void)pthread_mutex_unlock(&list_lock);
  return added;
}

tm_allocator* tm_locked_adaptor_create(tm_allocator* upstream) {
  if (refuse_arena(upstream) != TM_OK) {
    return NULL;
  }
  locked* l = tm_adaptor_create_(sizeof *l, &locked_vtable, upstream,
                                 "tm_locked_adaptor_create: the upstream");
  if (!l) {
    return NULL;
  }
  (void)pthread_mutex_init(&l->mutex, NULL);
  if (!add_to_list(l)) {
    (void)TM_RAISE(TM_ERR_INVALID,
                   "locked: another locked adaptor is over this %s, and two do not exclude each "
                   "other; share that one",
                   tm_allocator_name(upstream));
    (void)pthread_mutex_destroy(&l->mutex);
    tm_adaptor_destroy_(&l->base);
    return NULL;
  }
  return &l->base;
}
