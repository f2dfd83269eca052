// What the locked adaptor lets through, and what it refuses to be over.

#include "tm/alloc/locked_adaptor.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/counting_allocator.h"
#include "tests/support/failing.h"
#include "tm/alloc/callback.h"
#include "tm/alloc/host.h"
#include "tm/alloc/stack.h"
#include "tm/alloc/statistics_adaptor.h"

static tm_allocator* create(tm_allocator* upstream) {
  tm_allocator* adaptor = tm_locked_adaptor_create(upstream);
  cr_assert(adaptor != NULL, "%s", tm_last_error()->message);
  return adaptor;
}

Test(locked_adaptor, threads_share_an_upstream_that_has_no_lock) {
  counting_allocator upstream;  // plain figures
  counting_allocator_init(&upstream);
  tm_allocator* adaptor = create(&upstream.base);
  void* block;
  cr_assert(eq(int, tm_allocator_alloc(adaptor, 1000, NULL, &block), TM_OK));
  cr_expect(eq(sz, upstream.live_bytes, 1024));
  tm_allocator_free(adaptor, block, 1000, NULL);
  cr_expect(eq(sz, upstream.live_bytes, 0));
  tm_allocator_release(adaptor);
  cr_expect(not(upstream.destroyed));
  tm_allocator_release(&upstream.base);
  cr_expect(upstream.destroyed);
}

Test(locked_adaptor, an_arena_is_refused_with_the_reason) {
  tm_auto_allocator stack = tm_stack_allocator_create(tm_host_allocator(), NULL, NULL);
  cr_expect(tm_locked_adaptor_create(stack) == NULL);
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
  cr_expect(strstr(tm_last_error()->message, "belongs to the thread") != NULL, "%s",
            tm_last_error()->message);
  tm_auto_allocator over = tm_statistics_adaptor_create(stack);
  cr_expect(tm_locked_adaptor_create(over) == NULL);
  cr_expect(strstr(tm_last_error()->message, "what is over stack") != NULL, "%s",
            tm_last_error()->message);
  tm_auto_allocator below = create(tm_host_allocator());
  tm_auto_allocator above = tm_stack_allocator_create(below, NULL, NULL);
  cr_expect(above != NULL);  // the other way round it is what one wants
}

Test(locked_adaptor, a_second_lock_around_one_upstream_is_refused) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  tm_allocator* first = create(&upstream.base);
  cr_expect(tm_locked_adaptor_create(&upstream.base) == NULL);
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
  cr_expect(strstr(tm_last_error()->message, "share that one") != NULL);
  tm_allocator_release(first);
  tm_allocator* second = create(&upstream.base);
  tm_allocator_release(second);
  tm_allocator_release(&upstream.base);
  tm_auto_allocator one = create(tm_host_allocator());  // which has no need of a lock
  tm_auto_allocator other = create(tm_host_allocator());
  cr_expect(one != other);
}

//===-- Upstreams that call back ----------------------------------------------===//

static tm_allocator* around;

static tm_status call_back(size_t size, tm_stream* stream, void** out, void* user) {
  static int depth;
  (void)user;
  if (depth) {
    return tm_allocator_alloc(tm_host_allocator(), size, stream, out);
  }
  depth++;
  const tm_status status = tm_allocator_alloc(around, size, stream, out);
  depth--;
  return status;
}

static void free_to_host(void* ptr, size_t size, tm_stream* stream, void* user) {
  (void)user;
  tm_allocator_free(tm_host_allocator(), ptr, size, stream);
}

Test(locked_adaptor, an_upstream_that_calls_it_back_is_let_in) {
  tm_auto_allocator foreign = tm_callback_allocator_create(
      &(tm_callback_options){.alloc = call_back, .free = free_to_host});
  around = create(foreign);
  void* block;
  cr_assert(eq(int, tm_allocator_alloc(around, 100, NULL, &block), TM_OK));
  tm_allocator_free(around, block, 100, NULL);
  tm_allocator_release(around);
}

//===-- Forks -----------------------------------------------------------------===//

static int started[2];  // a pipe: the upstream tells that a thread is inside
static int released[2];

static tm_status block_inside(size_t size, tm_stream* stream, void** out, void* user) {
  (void)user;
  char byte = 'x';
  if (size > 1000) {
    cr_assert(write(started[1], &byte, 1) == 1);
    cr_assert(read(released[0], &byte, 1) == 1);
  }
  return tm_allocator_alloc(tm_host_allocator(), size, stream, out);
}

static void* allocate_large(void* adaptor) {
  void* block;
  if (tm_allocator_alloc(adaptor, 2000, NULL, &block) == TM_OK) {
    tm_allocator_free(adaptor, block, 2000, NULL);
  }
  return NULL;
}

// Whether the child finds the adaptor to be usable, or unavailable with the reason.
static int status_in_child(tm_allocator* adaptor) {
  const pid_t child = fork();
  cr_assert(child >= 0);
  if (child == 0) {
    void* block = &block;
    const tm_status status = tm_allocator_alloc(adaptor, 10, NULL, &block);
    if (status == TM_OK) {
      tm_allocator_free(adaptor, block, 10, NULL);
    }
    tm_allocator_release(adaptor);
    _exit(status);
  }
  int result = -1;
  cr_assert(waitpid(child, &result, 0) == child);
  return WIFEXITED(result) ? WEXITSTATUS(result) : -1;
}

Test(locked_adaptor, a_forked_child_goes_on_unless_a_thread_was_inside_the_upstream) {
  cr_assert(pipe(started) == 0 && pipe(released) == 0);
  tm_auto_allocator foreign = tm_callback_allocator_create(
      &(tm_callback_options){.alloc = block_inside, .free = free_to_host});
  tm_auto_allocator adaptor = create(foreign);
  cr_expect(eq(int, status_in_child(adaptor), TM_OK));
  pthread_t thread;
  cr_assert(pthread_create(&thread, NULL, allocate_large, adaptor) == 0);
  char byte;
  cr_assert(read(started[0], &byte, 1) == 1);
  cr_expect(eq(int, status_in_child(adaptor), TM_ERR_UNAVAILABLE));
  cr_assert(write(released[1], "x", 1) == 1);
  cr_assert(pthread_join(thread, NULL) == 0);
  cr_expect(eq(int, status_in_child(adaptor), TM_OK));
}

//===-- Failures --------------------------------------------------------------===//

Test(locked_adaptor, null_is_an_error) {
  cr_expect(tm_locked_adaptor_create(NULL) == NULL);
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
}

static tm_status create_and_use(tm_allocator* upstream) {
  tm_auto_allocator adaptor = tm_locked_adaptor_create(upstream);
  if (!adaptor) {
    return tm_last_status();
  }
  void* block;
  TM_TRY(tm_allocator_alloc(adaptor, 100, NULL, &block));
  tm_allocator_free(adaptor, block, 100, NULL);
  return TM_OK;
}

Test(locked_adaptor, survives_every_failure) {
  expect_survives_every_failure_or_retries(create_and_use);
}
