// Where TurboMind goes wrong with scopes, guards and streams: one test for each row of the table.
// tests/mutations.sh shows that each of them fails without what it tests.

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/machine.h"
#include "tm/alloc/event.h"
#include "tm/alloc/host.h"
#include "tm/alloc/stack.h"
#include "tm/alloc/stream.h"
#include "tm/base/fatal.h"
#include "tm/base/trace.h"
#include "tm/context/context.h"

static char message[2048];
static jmp_buf caught;

static void catch_fatal(const char* text, void* user) {
  (void)user;
  snprintf(message, sizeof message, "%s", text);
  longjmp(caught, 1);
}

// Pops an entry; the fatal message is in `message`, or nothing where it was taken off.
static void pop(tm_frame* frame) {
  tm_set_fatal_handler(catch_fatal, NULL);
  message[0] = '\0';
  if (!setjmp(caught)) {
    tm_pop(frame);
  }
}

static void expect_caught(const char* words) {
  cr_expect(strstr(message, words) != NULL, "\"%s\" is not in \"%s\"", words, message);
}

Test(turbomind, pop_on_an_empty_context_is_caught) {
  cr_assert(eq(sz, tm_context_depth(), 0));
  tm_frame frame = {.file = "here.c", .line = 7};
  pop(&frame);
  expect_caught("here.c:7");
  expect_caught("no scope open");
  cr_expect(eq(sz, tm_context_depth(), 0));
  cr_expect(eq(ptr, tm_current_allocator(TM_CPU), tm_host_allocator()));
}

static void* pop_elsewhere(void* frame) {
  pop(frame);
  return NULL;
}

Test(turbomind, guard_copied_or_destroyed_out_of_order_or_on_another_thread_is_caught) {
  tm_auto_allocator a = tm_stack_allocator_create(tm_host_allocator(), NULL, NULL);
  tm_auto_allocator b = tm_stack_allocator_create(tm_host_allocator(), NULL, NULL);
  tm_frame outer;
  tm_frame inner;
  tm_push_allocator(&outer, a);
  tm_push_allocator(&inner, b);
  tm_frame copy = inner;
  pop(&copy);
  expect_caught("scopes_test.c");
  pop(&outer);
  expect_caught("scopes_test.c");
  pthread_t thread;
  cr_assert(eq(int, pthread_create(&thread, NULL, pop_elsewhere, &inner), 0));
  cr_assert(eq(int, pthread_join(thread, NULL), 0));
  expect_caught("on a thread that has no scope open");
  cr_expect(eq(sz, tm_context_depth(), 2));
  cr_expect(eq(ptr, tm_current_allocator(TM_CPU), b));  // nobody's entry was popped
  pop(&inner);
  cr_expect(eq(str, message, ""));
  cr_expect(eq(ptr, tm_current_allocator(TM_CPU), a));
  pop(&outer);
  cr_expect(eq(str, message, ""));
}

Test(turbomind, two_scopes_in_one_block_compile) {
  {
    // clang-format off
    TM_SCOPE("first"); TM_SCOPE("second");
    // clang-format on
    char text[256];
    tm_trace_text(text, sizeof text);
    cr_expect(eq(sz, tm_trace_depth(), 2));
    cr_expect(eq(int, strncmp(text, "second (", 8), 0), "%s", text);
    cr_expect(strstr(text, " < first (") != NULL, "%s", text);
  }
  cr_expect(eq(sz, tm_trace_depth(), 0));
}

Test(turbomind, stream_sync_and_wait_on_an_empty_handle_are_errors) {
  machine_configure(1, "64MiB");
  machine_require_devices(1);
  tm_auto_stream stream = tm_stream_create(0, 0);
  tm_auto_event event = tm_event_create(0, false);
  tm_clear_error();
  cr_expect(eq(int, tm_stream_sync(NULL), TM_ERR_INVALID));
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
  cr_expect(eq(int, tm_stream_wait(NULL, event), TM_ERR_INVALID));
  cr_expect(eq(int, tm_stream_wait(stream, NULL), TM_ERR_INVALID));
  cr_expect(eq(int, tm_stream_sync(stream), TM_OK));
}

// The name is gone when the trace is read.
static void open_and_read(char* text, size_t size) {
  char name[] = "layer 17";
  TM_SCOPE_COPY(name);
  memset(name, '#', sizeof name - 1);
  tm_trace_text(text, size);
}

Test(turbomind, scope_name_that_was_a_temporary_string_is_safe) {
  char text[256];
  open_and_read(text, sizeof text);
  cr_expect(eq(int, strncmp(text, "layer 17 (", 10), 0), "%s", text);
}
