#include "alloc/thread_identity.h"

#include <pthread.h>

#include "tm/alloc/bookkeeping.h"

// Never freed, only used again: whoever looks at the owner of a stack that another thread is taking
// over must find an identity there.
struct tm_thread_identity {
  int32_t references;  // atomic; one is the thread's own
  bool ended;          // atomic
  tm_thread_identity* next_unused;
};

static pthread_mutex_t unused_lock = PTHREAD_MUTEX_INITIALIZER;
static tm_thread_identity* unused;

static tm_thread_identity* take_unused(void) {
  pthread_mutex_lock(&unused_lock);
  tm_thread_identity* identity = unused;
  if (identity) {
    unused = identity->next_unused;
  }
  pthread_mutex_unlock(&unused_lock);
  return identity;
}

static void give_unused(tm_thread_identity* identity) {
  pthread_mutex_lock(&unused_lock);
  identity->next_unused = unused;
  unused = identity;
  pthread_mutex_unlock(&unused_lock);
}

__thread tm_thread_identity* tm_this_thread_ __attribute__((tls_model("initial-exec")));

static pthread_key_t identity_key;
static pthread_once_t identity_once = PTHREAD_ONCE_INIT;

static void end_thread(void* value) {
  tm_thread_identity* identity = value;
  __atomic_store_n(&identity->ended, true, __ATOMIC_RELEASE);
  tm_this_thread_ = NULL;
  tm_thread_identity_release(identity);
}

static void make_key(void) {
  // Without a key a thread's end goes unnoticed: its objects must then be handed over.
  (void)pthread_key_create(&identity_key, end_thread);
}

tm_thread_identity* tm_thread_identity_get(void) {
  if (!tm_this_thread_) {
    (void)pthread_once(&identity_once, make_key);
    tm_thread_identity* identity = take_unused();
    if (!identity) {
      identity = tm_bookkeeping_alloc(sizeof *identity, "a thread's identity");
    }
    if (!identity) {
      return NULL;
    }
    __atomic_store_n(&identity->references, 1, __ATOMIC_RELAXED);
    __atomic_store_n(&identity->ended, false, __ATOMIC_RELAXED);
    tm_this_thread_ = identity;
    (void)pthread_setspecific(identity_key, identity);
  }
  return tm_this_thread_;
}

tm_thread_identity* tm_thread_identity_retain(tm_thread_identity* identity) {
  __atomic_fetch_add(&identity->references, 1, __ATOMIC_RELAXED);
  return identity;
}

void tm_thread_identity_release(tm_thread_identity* identity) {
  if (identity && __atomic_fetch_sub(&identity->references, 1, __ATOMIC_ACQ_REL) == 1) {
    give_unused(identity);
  }
}

bool tm_thread_identity_ended(const tm_thread_identity* identity) {
  return __atomic_load_n(&identity->ended, __ATOMIC_ACQUIRE);
}
