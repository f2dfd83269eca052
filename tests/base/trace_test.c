// Named scopes and what they look like in a trace.

#include "tm/base/trace.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tm/base/fatal.h"

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

static jmp_buf back;

__attribute__((noinline)) static void jump_over_scopes(void) {
  TM_SCOPE("left by longjmp");
  longjmp(back, 1);
}

// What a later call writes where the scope was.
__attribute__((noinline)) static void overwrite_stack(void) {
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
