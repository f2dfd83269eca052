#include "alloc/thread_identity.h"

#include <pthread.h>

#include "tm/alloc/bookkeeping.h"
#include "tm/base/thread_exit.h"

struct tm_thread_identity {
  int32_t references;  // atomic; one is the thread's own
  bool ended;          // atomic
  uint32_t process;    // the fork it belongs to
};

__thread tm_thread_identity* tm_this_thread_ __attribute__((tls_model("initial-exec")));

static tm_thread_exit at_exit;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;
static uint32_t process;  // forks between the first process and this one

// Of the threads of the parent only the one that forked goes on in the child.
static void enter_forked_child(void) {
  process++;
  if (tm_this_thread_) {
    tm_this_thread_->process = process;
  }
}

static void watch_forks(void) { (void)pthread_atfork(NULL, NULL, enter_forked_child); }

static void end_thread(void* value) {
  tm_thread_identity* identity = value;
  __atomic_store_n(&identity->ended, true, __ATOMIC_RELEASE);
  tm_this_thread_ = NULL;
  tm_thread_identity_release(identity);
}

tm_thread_identity* tm_thread_identity_make(void) {
  (void)pthread_once(&fork_once, watch_forks);
  tm_thread_identity* identity = tm_bookkeeping_alloc(sizeof *identity, "a thread's identity");
  if (identity) {
    identity->references = 1;
    identity->process = process;
  }
  return identity;
}

tm_thread_identity* tm_thread_identity_get(void) {
  if (!tm_this_thread_) {
    tm_thread_identity* identity = tm_thread_identity_make();
    if (!identity) {
      return NULL;
    }
    tm_this_thread_ = identity;
    // Where that fails, the thread's end goes unnoticed: its stacks must then be handed over.
    (void)tm_thread_exit_set_(&at_exit, end_thread, identity);
  }
  return tm_this_thread_;
}

tm_thread_identity* tm_thread_identity_retain(tm_thread_identity* identity) {
  __atomic_fetch_add(&identity->references, 1, __ATOMIC_RELAXED);
  return identity;
}

void tm_thread_identity_release(tm_thread_identity* identity) {
  if (identity && __atomic_fetch_sub(&identity->references, 1, __ATOMIC_ACQ_REL) == 1) {
    tm_bookkeeping_free(identity);
  }
}

bool tm_thread_identity_ended(const tm_thread_identity* identity) {
  return __atomic_load_n(&identity->ended, __ATOMIC_ACQUIRE) || identity->process != process;
}
