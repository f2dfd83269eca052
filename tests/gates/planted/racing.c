#include <criterion/criterion.h>
#include <pthread.h>
#include <stddef.h>

static int counter;

static void* count(void* argument) {
  for (int i = 0; i < 100000; i++) counter++;
  return argument;
}

Test(planted, races) {
  pthread_t threads[2];
  for (int i = 0; i < 2; i++) cr_assert(pthread_create(&threads[i], NULL, count, NULL) == 0);
  for (int i = 0; i < 2; i++) cr_assert(pthread_join(threads[i], NULL) == 0);
}
