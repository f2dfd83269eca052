// The public wrapper around every allocator: retries, records, references.

#include "tm/alloc/allocator.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>
#include <setjmp.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/counting_allocator.h"
#include "tm/alloc/host.h"
#include "tm/alloc/stack.h"
#include "tm/alloc/storage.h"
#include "tm/base/fatal.h"

Test(allocator, a_null_allocator_after_running_out_of_memory_passes_the_first_failure_on) {
  (void)TM_RAISE(TM_ERR_NO_MEMORY, "first");
  void* block = &block;
  cr_expect(eq(int, tm_allocator_alloc(NULL, 8, NULL, &block), TM_ERR_NO_MEMORY));
  cr_expect(block == NULL);
  cr_expect(eq(str, (char*)tm_last_error()->message, "first"));
}

// An allocator that is always out of memory, and whose trim fails with something else.
typedef struct exhausted {
  tm_allocator base;
  int allocs;
  int trims;
} exhausted;

static tm_status exhausted_alloc(tm_allocator* self, size_t size, tm_stream* stream, void** out) {
  (void)stream;
  (void)out;
  ((exhausted*)self)->allocs++;
  return TM_RAISE(TM_ERR_NO_MEMORY, "%zu bytes asked", size);
}

static void exhausted_free(tm_allocator* self, void* ptr, size_t size, tm_stream* stream) {
  (void)self;
  (void)ptr;
  (void)size;
  (void)stream;
}

static tm_status exhausted_trim(tm_allocator* self, size_t keep) {
  (void)keep;
  ((exhausted*)self)->trims++;
  return TM_RAISE(TM_ERR_CAPTURING, "no trimming now");
}

static void exhausted_destroy(tm_allocator* self) { (void)self; }

static const tm_allocator_vtable exhausted_vtable = {
    .name = "exhausted",
    .destroy = exhausted_destroy,
    .alloc = exhausted_alloc,
    .free = exhausted_free,
    .trim = exhausted_trim,
};

static void expect_out_of_memory(const exhausted* a, tm_status status) {
  cr_expect(eq(int, status, TM_ERR_NO_MEMORY));
  cr_expect(eq(int, tm_last_error()->code, TM_ERR_NO_MEMORY));
  cr_expect(strstr(tm_last_error()->message, "bytes asked") != NULL);
  cr_expect(eq(int, a->allocs, 2));
  cr_expect(eq(int, a->trims, 1));
}

Test(allocator, out_of_memory_trims_once_retries_once_and_keeps_its_record) {
  exhausted a = {.allocs = 0};
  tm_allocator_init_(&a.base, &exhausted_vtable, tm_device_make(TM_CPU, 0), NULL);
  void* block;
  expect_out_of_memory(&a, tm_allocator_alloc(&a.base, 8, NULL, &block));
  a.allocs = a.trims = 0;
  tm_storage* storage = NULL;
  expect_out_of_memory(&a, tm_storage_alloc(&a.base, 8, NULL, &storage));
  cr_expect(storage == NULL);
}

Test(allocator, a_stack_asks_its_upstream_once_per_try) {
  exhausted a = {.allocs = 0};
  tm_allocator_init_(&a.base, &exhausted_vtable, tm_device_make(TM_CPU, 0), NULL);
  tm_allocator* stack = tm_stack_allocator_create(&a.base, NULL, NULL);
  tm_storage* storage;
  cr_expect(eq(int, tm_storage_alloc(stack, 4 << 20, NULL, &storage), TM_ERR_NO_MEMORY));
  cr_expect(eq(int, a.allocs, 2));
  cr_expect(eq(int, a.trims, 1));
  cr_expect(eq(int, tm_storage_alloc(stack, 64, NULL, &storage), TM_ERR_NO_MEMORY));
  cr_expect(le(int, a.allocs, 2 + 4));  // a region to grow into, then one of what is asked
  tm_allocator_release(stack);
}

static jmp_buf caught;

static void catch_fatal(const char* text, void* user) {
  (void)text;
  (void)user;
  longjmp(caught, 1);
}

__attribute__((noinline)) static bool release_is_fatal(tm_allocator* allocator) {
  tm_set_fatal_handler(catch_fatal, NULL);
  if (setjmp(caught)) {
    return true;
  }
  tm_allocator_release(allocator);
  return false;
}

Test(allocator, releasing_an_allocator_too_often_is_fatal) {
  counting_allocator a;
  counting_allocator_init(&a);
  tm_allocator_release(&a.base);
  cr_expect(a.destroyed);
  cr_expect(release_is_fatal(&a.base));
  cr_expect(not(release_is_fatal(tm_host_allocator())));
}

enum { KEYS_MAX = 2048 };  // more than any libc has

static pthread_key_t keys[KEYS_MAX];

static void use_storages(void) {
  exhausted a = {.allocs = 0};
  tm_allocator_init_(&a.base, &exhausted_vtable, tm_device_make(TM_CPU, 0), NULL);
  tm_storage* storage;
  (void)!tm_storage_alloc(&a.base, 8, NULL, &storage);
  tm_allocator* stack = tm_stack_allocator_create(tm_host_allocator(), NULL, NULL);
  cr_expect(eq(int, tm_storage_alloc(stack, 8, NULL, &storage), TM_OK));
  tm_storage_release(storage);
  tm_allocator_release(stack);
}

// Exits with whether a key of somebody else's has a value.
static void run_without_keys(void) {
  int count = 0;
  while (count < KEYS_MAX && pthread_key_create(&keys[count], NULL) == 0) {
    count++;
  }
  use_storages();
  bool touched = false;
  for (int i = 0; i < count; i++) {
    touched = touched || pthread_getspecific(keys[i]) != NULL;
  }
  _exit(touched);
}

// In a child: what nothing cleans up when the thread ends is leaked, as it must be.
Test(allocator, a_process_without_thread_keys_loses_only_the_clean_up_at_thread_exit) {
  const pid_t child = fork();
  if (child == 0) {
    run_without_keys();
  }
  int status = -1;
  waitpid(child, &status, 0);
  cr_expect(eq(int, status, 0));
}

static tm_allocator* shared_stack;
static int ready[2];

static int stop;  // atomic

static void* allocate_and_free(void* unused) {
  tm_storage* storage;
  for (int i = 0; !__atomic_load_n(&stop, __ATOMIC_RELAXED); i++) {
    cr_assert(eq(int, tm_storage_alloc(shared_stack, 64, NULL, &storage), TM_OK));
    tm_storage_release(storage);
    cr_assert(i != 1000 || write(ready[1], "x", 1) == 1);
  }
  return unused;
}

Test(allocator, a_forked_child_can_drop_a_stack_whose_owner_stayed_in_the_parent) {
  cr_assert(eq(int, pipe(ready), 0));
  shared_stack = tm_stack_allocator_create(tm_host_allocator(), NULL, NULL);
  pthread_t thread;
  char byte;
  cr_assert(eq(int, pthread_create(&thread, NULL, allocate_and_free, NULL), 0));
  cr_assert(eq(sz, (size_t)read(ready[0], &byte, 1), 1));
  for (int i = 0; i < 20; i++) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(20);
      tm_allocator_release(shared_stack);
      _exit(0);
    }
    int status = -1;
    waitpid(child, &status, 0);
    cr_expect(eq(int, status, 0));
  }
  __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
  pthread_join(thread, NULL);
  tm_allocator_release(shared_stack);
}
