// Named scopes and what they look like in a trace.

#include "tm/base/trace.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "tm/base/fatal.h"
#include "tm/base/status.h"

static char* trace(void) {
  static char text[512];
  tm_trace_text(text, sizeof text);
  return text;
}

Test(trace, no_scope_is_an_empty_text) {
  cr_expect(eq(str, trace(), ""));
  cr_expect(eq(sz, tm_trace_depth(), 0));
}

Test(trace, shows_name_file_and_line_innermost_first) {
  char expected[128];
  const int line = __LINE__ + 1;
  TM_SCOPE("step");
  TM_WITH_SCOPE("layer") {
    snprintf(expected, sizeof expected, "layer (trace_test.c:%d) < step (trace_test.c:%d)",
             line + 1, line);
    cr_expect(eq(str, trace(), expected));
    cr_expect(eq(sz, tm_trace_depth(), 2));
  }
  cr_expect(eq(sz, tm_trace_depth(), 1));
}

Test(trace, two_scopes_in_one_block_and_on_one_line) {
  TM_SCOPE("a");
  TM_SCOPE("b");
  cr_expect(eq(sz, tm_trace_depth(), 2));
  TM_WITH_SCOPE("c") TM_WITH_SCOPE("d") cr_expect(eq(sz, tm_trace_depth(), 4));
  cr_expect(eq(sz, tm_trace_depth(), 2));
}

static int leave_early(int how) {
  for (int i = 0; i < 3; i++) {
    TM_WITH_SCOPE("loop") {
      if (how == 0) {
        return 1;
      }
      if (how == 1) {
        break;
      }
      if (how == 2) {
        continue;
      }
      goto out;
    }
  }
out:
  return 0;
}

Test(trace, closes_on_every_way_out) {
  for (int how = 0; how < 4; how++) {
    leave_early(how);
    cr_expect(eq(sz, tm_trace_depth(), 0));
  }
}

Test(trace, is_one_statement_after_if_without_braces) {
  int ran = 0;
  if (ran)
    TM_WITH_SCOPE("then") ran = 1;
  else
    TM_WITH_SCOPE("else") ran = 2;
  cr_expect(eq(int, ran, 2));
}

Test(trace, a_scope_name_that_was_a_temporary_string_is_copied) {
  char* name = strdup("layer 17");
  TM_SCOPE_COPY(name);
  memset(name, 'x', 8);
  free(name);
  cr_expect(strstr(trace(), "layer 17 (") != NULL);
}

Test(trace, a_name_of_any_length_or_none_is_safe) {
  char name[500];
  memset(name, 'n', sizeof name - 1);
  name[sizeof name - 1] = '\0';
  TM_SCOPE_COPY(name);
  TM_SCOPE_COPY(NULL);
  cr_expect(strstr(trace(), "(null) (") != NULL);
}

Test(trace, a_cut_text_ends_in_dots) {
  TM_SCOPE("a scope whose text does not fit");
  char text[12];
  tm_trace_text(text, sizeof text);
  cr_expect(eq(sz, strlen(text), 11));
  cr_expect(eq(str, text + 8, "..."));
  tm_trace_text(text, 1);
  cr_expect(eq(str, text, ""));
}

Test(trace, names_of_every_kind_are_cut_where_the_text_ends) {
  char whole[256];
  TM_SCOPE_COPY("copied");
  TM_FUNCTION_SCOPE();
  TM_SCOPE("plain");
  tm_trace_text(whole, sizeof whole);
  for (size_t size = 4; size <= strlen(whole); size++) {
    char text[256];
    memset(text, '#', sizeof text);
    tm_trace_text(text, size);
    cr_assert(eq(sz, strlen(text), size - 1));
    cr_assert(eq(int, memcmp(text, whole, size - 4), 0));
    cr_assert(eq(str, text + size - 4, "..."));
    cr_assert(eq(chr, text[size], '#'));
  }
}

Test(trace, leaves_errno) {
  TM_SCOPE("a");
  errno = E2BIG;
  (void)trace();
  cr_expect(eq(int, errno, E2BIG));
}

//===-- Functions, calls, paths -------------------------------------------===//

static void in_a_function(char* text, size_t size) {
  TM_FUNCTION_SCOPE();
  tm_trace_text(text, size);
}

Test(trace, a_function_scope_has_the_function_s_name) {
  char text[64];
  in_a_function(text, sizeof text);
  text[strlen("in_a_function (trace_test.c:")] = '\0';
  cr_expect(eq(str, text, "in_a_function (trace_test.c:"));
  cr_expect(eq(sz, tm_trace_depth(), 0));
}

static int calls;
static char called_in[128];

static int doubled(int value) {
  calls++;
  tm_trace_text(called_in, sizeof called_in);
  return 2 * value;
}

static void nothing(void) { (void)doubled(0); }

Test(trace, a_call_shows_its_name_and_gives_its_value) {
  char expected[128];
  struct {
    int (*call)(int);
  } table = {doubled}, *pointer = &table;
  snprintf(expected, sizeof expected, "doubled() (trace_test.c:%d)", __LINE__ + 1);
  cr_expect(eq(int, TM_SCOPE_CALL(doubled(doubled(3))), 12));
  cr_expect(eq(str, called_in, expected));
  cr_expect(eq(int, calls, 2));
  (void)TM_SCOPE_CALL(pointer->call(1));
  cr_expect(eq(int, strncmp(called_in, "call() (", 8), 0));
  cr_expect(eq(sz, tm_trace_depth(), 0));
}

Test(trace, a_call_scope_is_one_statement_after_if_without_braces) {
  for (int i = 0; i < 2; i++) {
    if (i)
      TM_SCOPE_CALL(nothing());
    else
      TM_SCOPE_CALL(doubled(1));
    const char* name = i ? "nothing() (" : "doubled() (";
    cr_expect(eq(int, strncmp(called_in, name, strlen(name)), 0));
  }
}

static tm_status refuse(int n) { return TM_RAISE(TM_ERR_BUSY, "%d", n); }

static tm_status try_in_a_scope(void) {
  TM_TRY(TM_SCOPE_CALL(refuse(3)));
  return TM_OK;
}

Test(trace, a_call_scope_gives_its_status_to_try) {
  cr_expect(eq(int, try_in_a_scope(), TM_ERR_BUSY));
  cr_expect(eq(int, strncmp(tm_last_error()->trace, "refuse() (trace_test.c:", 23), 0));
  cr_expect(eq(sz, tm_trace_depth(), 0));
}

Test(trace, paths_are_whole_where_the_environment_asks) {
  setenv("TM_SRC_FULL_PATH", "", 1);  // set is enough
  tm_trace_frame frame = tm_trace_make_("a", TM_SCOPE_PLAIN_, "/src/engine/a.c", 12);
  tm_trace_open_(&frame);
  cr_expect(eq(str, trace(), "a (/src/engine/a.c:12)"));
  unsetenv("TM_SRC_FULL_PATH");  // read once
  cr_expect(eq(str, trace(), "a (/src/engine/a.c:12)"));
  (void)TM_RAISE(TM_ERR_IO, "x");
  cr_expect(eq(str, (char*)tm_last_error()->file, __FILE__));
  tm_trace_close_(&frame);
}

Test(trace, paths_are_file_names_otherwise) {
  unsetenv("TM_SRC_FULL_PATH");
  tm_trace_frame frame = tm_trace_make_("a", TM_SCOPE_PLAIN_, "/src/engine/a.c", 12);
  tm_trace_open_(&frame);
  cr_expect(eq(str, trace(), "a (a.c:12)"));
  (void)TM_RAISE(TM_ERR_IO, "x");
  cr_expect(eq(str, (char*)tm_last_error()->file, "trace_test.c"));
  tm_trace_close_(&frame);
}

Test(trace, each_scope_has_its_own_file) {
  unsetenv("TM_SRC_FULL_PATH");
  static const char* const files[] = {"/x/a.c", "/x/a.c", NULL, "/x/bcd.c",
                                      "/y/a.c", NULL,     NULL, ""};
  static const char expected[] =
      "s (:8) < s (:7) < s (:6) < s (a.c:5) < s (bcd.c:4) < s (:3) < s (a.c:2) < s (a.c:1)";
  tm_trace_frame frames[8];
  for (int i = 0; i < 8; i++) {
    frames[i] = tm_trace_make_("s", TM_SCOPE_PLAIN_, files[i], i + 1);
    tm_trace_open_(&frames[i]);
  }
  cr_expect(eq(str, trace(), (char*)expected));
  for (size_t size = 1; size < sizeof expected; size++) {
    char text[sizeof expected];
    tm_trace_text(text, size);
    const size_t kept = size < 4 ? 0 : size - 4;  // before the dots
    cr_assert(eq(sz, strlen(text), size - 1));
    cr_assert(eq(int, memcmp(text, expected, kept), 0));
  }
  for (int i = 7; i >= 0; i--) tm_trace_close_(&frames[i]);
}

//===-- Frames that are gone ----------------------------------------------===//

// AddressSanitizer would move these functions' scopes off the stack, where they do not go away.
#define ON_THE_STACK __attribute__((noinline, no_sanitize_address))

static jmp_buf back;

ON_THE_STACK static void jump_over_scopes(void) {
  TM_SCOPE("left by longjmp");
  longjmp(back, 1);
}

// What a later call writes where the scope was.
ON_THE_STACK static void overwrite_stack(void) {
  volatile char bytes[4096];
  memset((char*)bytes, 0x5a, sizeof bytes);
}

Test(trace, scopes_left_by_longjmp_are_never_followed) {
  if (!setjmp(back)) {
    jump_over_scopes();
  }
  overwrite_stack();
  cr_expect(eq(str, trace(), "(scopes left without closing)"));
}

// Leaves a scope more than a page below, so that its address does not give it away, under one that
// the next round opens in the same place: a list in a circle.
ON_THE_STACK static void jump_from_far(void) {
  volatile char far[3 * 4096];
  far[0] = 0;
  TM_SCOPE("far");
  longjmp(back, 1 + far[0]);
}

ON_THE_STACK static size_t open_in_the_same_place(bool jump) {
  TM_SCOPE("same");
  if (jump) jump_from_far();
  char text[512];
  tm_trace_text(text, sizeof text);
  cr_expect(eq(int, strncmp(text, "same (trace_test.c:", 19), 0));
  return tm_trace_depth();
}

Test(trace, a_list_that_runs_in_circles_ends) {
  static volatile int round;
  (void)setjmp(back);
  if (round++ == 0) (void)open_in_the_same_place(true);
  cr_expect(lt(sz, open_in_the_same_place(false), 16));
}

static ucontext_t scheduler;
static ucontext_t fiber;

ON_THE_STACK static void open_and_stop(void) {
  char name[] = "on the fiber";
  TM_SCOPE("fiber");
  TM_SCOPE_COPY(name);
  swapcontext(&fiber, &scheduler);
}

// Runs a fiber until it has scopes open, and returns its stack.
static void* leave_scopes_on_a_fiber(size_t size) {
  void* stack = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  cr_assert(stack != MAP_FAILED);
  getcontext(&fiber);
  fiber.uc_stack.ss_sp = stack;
  fiber.uc_stack.ss_size = size;
  fiber.uc_link = &scheduler;
  makecontext(&fiber, open_and_stop, 0);
  swapcontext(&scheduler, &fiber);
  return stack;
}

enum { FIBER_STACK = 256 * 1024 };

Test(trace, scopes_of_a_suspended_fiber_are_followed) {
  (void)leave_scopes_on_a_fiber(FIBER_STACK);
  cr_expect(eq(sz, tm_trace_depth(), 2));
  cr_expect(eq(int, strncmp(trace(), "on the fiber (trace_test.c:", 27), 0));
  cr_expect(strstr(trace(), " < fiber (trace_test.c:") != NULL);
}

Test(trace, scopes_of_a_fiber_whose_stack_is_unmapped_are_not) {
  void* stack = leave_scopes_on_a_fiber(FIBER_STACK);
  munmap(stack, FIBER_STACK);
  cr_expect(eq(str, trace(), "(scopes left without closing)"));
  cr_expect(eq(sz, tm_trace_depth(), 0));
  (void)TM_RAISE(TM_ERR_IO, "x");
  cr_expect(eq(str, (char*)tm_last_error()->trace, "(scopes left without closing)"));
}

Test(trace, scopes_of_a_fiber_whose_stack_is_protected_are_not) {
  void* stack = leave_scopes_on_a_fiber(FIBER_STACK);
  cr_assert(eq(int, mprotect(stack, FIBER_STACK, PROT_NONE), 0));
  cr_expect(eq(str, trace(), "(scopes left without closing)"));
  TM_WITH_SCOPE("above") cr_expect(eq(sz, tm_trace_depth(), 1));
}

Test(trace, a_copied_name_that_was_overwritten_is_not_overrun) {
  const size_t page = 4096;
  char* pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  cr_assert(pages != MAP_FAILED);
  char* name = pages + page - TM_SCOPE_NAME_SIZE;
  tm_trace_frame frame = tm_trace_make_(name, TM_SCOPE_COPIED_, "a.c", 1);
  tm_trace_open_(&frame);
  memset(pages, 'x', 2 * page);
  munmap(pages + page, page);
  cr_expect(eq(sz, strlen(trace()), TM_SCOPE_NAME_SIZE - 1 + strlen(" (a.c:1)")));
  munmap(pages, page);
  cr_expect(eq(str, trace(), "(gone) (a.c:1)"));
  tm_trace_close_(&frame);
}

//===-- Misuse ------------------------------------------------------------===//

static jmp_buf caught;
static char message[2048];

static void catch_fatal(const char* text, void* user) {
  (void)user;
  snprintf(message, sizeof message, "%s", text);
  longjmp(caught, 1);
}

Test(trace, closing_out_of_order_is_fatal_and_names_both_scopes) {
  tm_set_fatal_handler(catch_fatal, NULL);
  tm_trace_frame outer = tm_trace_make_("outer", TM_SCOPE_PLAIN_, "a.c", 1);
  tm_trace_frame inner = tm_trace_make_("inner", TM_SCOPE_PLAIN_, "b.c", 2);
  tm_trace_open_(&outer);
  tm_trace_open_(&inner);
  if (!setjmp(caught)) {
    tm_trace_close_(&outer);
    cr_fail("closing out of order was accepted");
  }
  cr_expect(strstr(message, "outer (a.c:1)") != NULL);
  cr_expect(strstr(message, "inner (b.c:2)") != NULL);
}
