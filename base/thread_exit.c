#include "tm/base/thread_exit.h"

bool tm_thread_exit_set_(tm_thread_exit* self, void (*function)(void* value), void* value) {
  pthread_mutex_lock(&self->lock);
  if (!self->made) {
    self->made = pthread_key_create(&self->key, function) == 0;
  }
  const bool made = self->made;
  pthread_mutex_unlock(&self->lock);
  return made && pthread_setspecific(self->key, value) == 0;
}
