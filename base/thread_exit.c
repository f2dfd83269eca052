#include "tm/base/thread_exit.h"

// What destroys C++ thread-locals, in the C library that has it.
extern int __cxa_thread_atexit_impl(void (*function)(void* value), void* value,  // NOLINT
                                    void* library) __attribute__((weak));
extern void* __dso_handle __attribute__((visibility("hidden")));  // NOLINT: of this library

// Of threads that make the key at once, the first one's stays.
static uint64_t make_key(tm_thread_exit* self, void (*function)(void* value)) {
  pthread_key_t key;
  if (pthread_key_create(&key, function) != 0) {
    return 0;
  }
  uint64_t before = 0;
  if (__atomic_compare_exchange_n(&self->key_and_1, &before, (uint64_t)key + 1, false,
                                  __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
    return (uint64_t)key + 1;
  }
  (void)pthread_key_delete(key);
  return before;
}

bool tm_thread_exit_set_(tm_thread_exit* self, void (*function)(void* value), void* value) {
  uint64_t made = __atomic_load_n(&self->key_and_1, __ATOMIC_ACQUIRE);
  made = made ? made : make_key(self, function);
  return made && pthread_setspecific((pthread_key_t)(made - 1), value) == 0;
}

bool tm_thread_exit_set_first_(void (*function)(void* value), void* value) {
  return __cxa_thread_atexit_impl && __cxa_thread_atexit_impl(function, value, &__dso_handle) == 0;
}
