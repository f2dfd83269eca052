#include "alloc/destroy_watch.h"

#include <stddef.h>

static tm_destroy_watcher_ watcher;  // read and written with __atomic

void tm_watch_destroy_(tm_destroy_watcher_ asked) {
  if (__atomic_load_n(&watcher, __ATOMIC_RELAXED) != asked) {
    __atomic_store_n(&watcher, asked, __ATOMIC_RELAXED);
  }
}

void tm_tell_destroy_(const void* object, const char* what) {
  const tm_destroy_watcher_ told = __atomic_load_n(&watcher, __ATOMIC_RELAXED);
  if (told) {
    told(object, what);
  }
}
