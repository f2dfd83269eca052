// The end of a program that is wrong, and who may take over.

#include "tm/base/fatal.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/child.h"
#include "tm/base/trace.h"

static void say(const char* text) {
  if (write(STDERR_FILENO, text, strlen(text)) < 0) _exit(1);
}

//===-- Messages ----------------------------------------------------------===//

static void fail_in_scopes(const void* unused) {
  (void)unused;
  TM_SCOPE("step");
  TM_WITH_SCOPE("layer") TM_FATAL("%d blocks left", 3);
}
enum { FAIL_LINE = __LINE__ - 2 };

Test(fatal, the_default_handler_writes_place_text_and_scopes_and_aborts) {
  char expected[256];
  cr_expect(child_aborted(run_in_child(fail_in_scopes, NULL)));
  snprintf(expected, sizeof expected,
           "tmcore: fatal: fatal_test.c:%d: 3 blocks left\n"
           "  in layer (fatal_test.c:%d) < step (fatal_test.c:%d)\n",
           FAIL_LINE, FAIL_LINE, FAIL_LINE - 1);
  cr_expect(eq(str, child_stderr, expected));
}

static void fail_at_a_path(const void* unused) {
  (void)unused;
  tm_fatal_("/src/engine/a.c", 12, "x");
}

Test(fatal, paths_are_whole_where_the_environment_asks) {
  (void)run_in_child(fail_at_a_path, NULL);
  cr_expect(eq(str, child_stderr, "tmcore: fatal: a.c:12: x\n"));
  setenv("TM_SRC_FULL_PATH", "1", 1);
  (void)run_in_child(fail_at_a_path, NULL);
  cr_expect(eq(str, child_stderr, "tmcore: fatal: /src/engine/a.c:12: x\n"));
}

static void fail_at_length(const void* unused) {
  (void)unused;
  static char text[8192];
  memset(text, 'x', sizeof text - 1);
  TM_SCOPE("deep");
  TM_FATAL("%s", text);
}

Test(fatal, a_long_message_is_cut_and_still_shows_the_scopes) {
  cr_expect(child_aborted(run_in_child(fail_at_length, NULL)));
  cr_expect(ne(ptr, strstr(child_stderr, "xxx\n  in deep (fatal_test.c:"), NULL));
  cr_expect(lt(sz, strlen(child_stderr), 4096));
}

//===-- Handlers ----------------------------------------------------------===//

static void return_from(const char* message, void* user) {
  (void)message;
  if (user) say(user);
}

Test(fatal, setting_a_handler_gives_back_the_one_before_and_its_pointer) {
  int first;
  int second;
  const tm_fatal_hook none = tm_set_fatal_handler(return_from, &first);
  cr_expect(none.handler == NULL);
  cr_expect(eq(ptr, none.user, NULL));
  const tm_fatal_hook before = tm_set_fatal_handler(return_from, &second);
  cr_expect(before.handler == return_from);
  cr_expect(eq(ptr, before.user, &first));
  const tm_fatal_hook last = tm_set_fatal_handler(before.handler, before.user);
  cr_expect(eq(ptr, last.user, &second));
  cr_expect(eq(ptr, tm_set_fatal_handler(NULL, NULL).user, &first));
  const tm_fatal_hook after = tm_set_fatal_handler(NULL, NULL);
  cr_expect(after.handler == NULL);
  cr_expect(eq(ptr, after.user, NULL));
}

static void fail_with_a_handler(const void* unused) {
  (void)unused;
  tm_set_fatal_handler(return_from, "handled\n");
  TM_FATAL("not shown");
}

Test(fatal, a_handler_replaces_the_message_and_abort_follows_it) {
  cr_expect(child_aborted(run_in_child(fail_with_a_handler, NULL)));
  cr_expect(eq(str, child_stderr, "handled\n"));
}

static void fail_with_the_handler_taken_back(const void* unused) {
  (void)unused;
  tm_set_fatal_handler(return_from, "handled\n");
  tm_set_fatal_handler(NULL, NULL);
  tm_fatal_("a.c", 1, "shown");
}

Test(fatal, no_handler_is_the_default_again) {
  cr_expect(child_aborted(run_in_child(fail_with_the_handler_taken_back, NULL)));
  cr_expect(eq(str, child_stderr, "tmcore: fatal: a.c:1: shown\n"));
}

static jmp_buf back;
static char message[2048];

static void jump(const char* text, void* user) {
  snprintf(message, sizeof message, "%s", text);
  ++*(int*)user;
  longjmp(back, 1);
}

Test(fatal, a_handler_may_leave_by_longjmp_any_number_of_times) {
  static volatile int i;
  int calls = 0;
  tm_set_fatal_handler(jump, &calls);
  for (i = 0; i < 100; i++) {
    if (!setjmp(back)) tm_fatal_("a.c", i, "x");
  }
  cr_expect(eq(int, calls, 100));
  cr_expect(eq(str, message, "tmcore: fatal: a.c:99: x"));  // no newline
}

//===-- Failures inside a handler -----------------------------------------===//

static void fail_inside(const char* text, void* user) {
  (void)user;
  say("<");
  say(strrchr(text, ' ') + 1);
  say(">");
  tm_fatal_("a.c", 1, "inner");
}

static void fail_for_ever(const void* unused) {
  (void)unused;
  tm_set_fatal_handler(fail_inside, NULL);
  tm_fatal_("a.c", 1, "outer");
}

Test(fatal, what_fails_in_a_handler_calls_it_once_more_and_then_nobody) {
  cr_expect(child_aborted(run_in_child(fail_for_ever, NULL)));
  cr_expect(eq(str, child_stderr, "<outer><inner>tmcore: fatal: a.c:1: inner\n"));
}

// A handler that restores the default and fails has the message shown.
static void restore_and_fail(const char* text, void* user) {
  (void)user;
  tm_set_fatal_handler(NULL, NULL);
  tm_fatal_("b.c", 2, "after %s", text);
}

static void fail_and_restore(const void* unused) {
  (void)unused;
  tm_set_fatal_handler(restore_and_fail, NULL);
  tm_fatal_("a.c", 1, "x");
}

Test(fatal, a_handler_can_be_set_inside_one) {
  cr_expect(child_aborted(run_in_child(fail_and_restore, NULL)));
  cr_expect(eq(str, child_stderr, "tmcore: fatal: b.c:2: after tmcore: fatal: a.c:1: x\n"));
}

// Each thread is counted for itself: two that fail at once both reach the handler.
static void meet(const char* text, void* user) {
  (void)text;
  pthread_barrier_wait(user);
  pthread_exit(NULL);
}

static void* fail_on_a_thread(void* unused) {
  (void)unused;
  TM_FATAL("x");
}

Test(fatal, threads_that_fail_at_once_are_in_the_handler_together, .timeout = 30) {
  enum { THREADS = 4 };
  pthread_t threads[THREADS];
  pthread_barrier_t all;
  pthread_barrier_init(&all, NULL, THREADS + 1);
  tm_set_fatal_handler(meet, &all);
  for (int i = 0; i < THREADS; i++) {
    cr_assert(eq(int, pthread_create(&threads[i], NULL, fail_on_a_thread, NULL), 0));
  }
  pthread_barrier_wait(&all);
  for (int i = 0; i < THREADS; i++) {
    cr_assert(eq(int, pthread_join(threads[i], NULL), 0));
  }
  pthread_barrier_destroy(&all);
}

//===-- Setting a handler while others do ---------------------------------===//

static int pair_user[2];
static bool stop;

static void first_handler(const char* text, void* user) {
  (void)text;
  (void)user;
}
static void second_handler(const char* text, void* user) {
  (void)text;
  (void)user;
}

static void* set_pairs(void* unused) {
  while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
    tm_set_fatal_handler(first_handler, &pair_user[0]);
    tm_set_fatal_handler(second_handler, &pair_user[1]);
  }
  return unused;
}

Test(fatal, a_handler_is_never_seen_with_another_s_pointer) {
  pthread_t thread;
  cr_assert(eq(int, pthread_create(&thread, NULL, set_pairs, NULL), 0));
  for (int i = 0; i < 100000; i++) {
    const tm_fatal_hook seen = tm_set_fatal_handler(first_handler, &pair_user[0]);
    const int* user = seen.user;
    const bool is_pair = seen.handler == first_handler    ? user == &pair_user[0]
                         : seen.handler == second_handler ? user == &pair_user[1]
                                                          : !seen.handler && !user;
    cr_assert(is_pair);
  }
  __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
  cr_assert(eq(int, pthread_join(thread, NULL), 0));
}
