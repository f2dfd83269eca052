#include "alloc/destroy_watch.h"

#include <stddef.h>

static tm_destroy_watcher_ current;  // read and written with __atomic

void tm_watch_destroy_(tm_destroy_watcher_ watcher) {
  if (__atomic_load_n(&current, __ATOMIC_RELAXED) != watcher) {
    __atomic_store_n(&current, watcher, __ATOMIC_RELAXED);
  }
}

void tm_tell_destroy_(const void* object, const char* what) {
  const tm_destroy_watcher_ told = __atomic_load_n(&current, __ATOMIC_RELAXED);
  if (told) {
    told(object, what);
  }
}
