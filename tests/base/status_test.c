// The per-thread error record.

#include "tm/base/status.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>
#include <string.h>

#include "tm/base/trace.h"

Test(status, every_code_has_its_name) {
  cr_expect(eq(str, (char*)tm_status_name(TM_OK), "TM_OK"));
  cr_expect(eq(str, (char*)tm_status_name(TM_ERR_NO_MEMORY), "TM_ERR_NO_MEMORY"));
  cr_expect(eq(str, (char*)tm_status_name(TM_ERR_DEVICE_LOST), "TM_ERR_DEVICE_LOST"));
  cr_expect(eq(str, (char*)tm_status_name((tm_status)999), "TM_ERR_UNKNOWN"));
  for (int code = TM_OK; code <= TM_ERR_DEVICE_LOST; code++) {
    cr_expect(ne(str, (char*)tm_status_name((tm_status)code), "TM_ERR_UNKNOWN"));
  }
}

Test(status, a_fresh_thread_has_no_failure) {
  cr_expect(eq(int, tm_last_error()->code, TM_OK));
  cr_expect(eq(str, (char*)tm_last_error()->message, ""));
  cr_expect(eq(str, (char*)tm_last_error()->file, ""));
}

Test(status, raising_records_code_place_and_message) {
  const int line = __LINE__ + 1;
  const tm_status status = TM_RAISE(TM_ERR_OVERFLOW, "%d bytes asked, %d there", 7, 3);
  const tm_error* error = tm_last_error();
  cr_expect(eq(int, status, TM_ERR_OVERFLOW));
  cr_expect(eq(int, error->code, TM_ERR_OVERFLOW));
  cr_expect(eq(int, error->line, line));
  cr_expect(eq(str, (char*)error->message, "7 bytes asked, 3 there"));
  cr_expect(strstr(error->file, "status_test.c") != NULL);
}

Test(status, every_failure_has_a_number_of_its_own) {
  cr_expect(eq(u64, tm_last_error()->number, 0));
  (void)TM_RAISE(TM_ERR_IO, "first");
  const tm_error first = *tm_last_error();
  (void)TM_RAISE(TM_ERR_IO, "first");
  cr_expect(first.number != 0);
  cr_expect(tm_last_error()->number > first.number);
  tm_restore_error_(&first);
  cr_expect(eq(u64, tm_last_error()->number, first.number));
  (void)TM_RAISE(TM_ERR_IO, "third");
  cr_expect(tm_last_error()->number > first.number + 1, "what was put back is not counted from");
  tm_clear_error();
  cr_expect(eq(u64, tm_last_error()->number, 0));
}

Test(status, a_message_may_quote_the_record_it_replaces) {
  (void)TM_RAISE(TM_ERR_IO, "inner");
  (void)TM_RAISE(TM_ERR_INVALID, "outer: %s", tm_last_error()->message);
  cr_expect(eq(str, (char*)tm_last_error()->message, "outer: inner"));
}

Test(status, a_long_message_is_cut_not_overrun) {
  char text[2000];
  memset(text, 'x', sizeof text - 1);
  text[sizeof text - 1] = '\0';
  (void)TM_RAISE(TM_ERR_INVALID, "%s", text);
  cr_expect(eq(sz, strlen(tm_last_error()->message), TM_ERROR_MESSAGE_SIZE - 1));
}

Test(status, the_record_shows_the_open_scopes_innermost_first) {
  TM_SCOPE("outer");
  TM_SCOPE("inner");
  (void)TM_RAISE(TM_ERR_INVALID, "x");
  const char* inner = strstr(tm_last_error()->trace, "inner (status_test.c:");
  const char* outer = strstr(tm_last_error()->trace, "outer (status_test.c:");
  cr_assert(inner && outer);
  cr_expect(inner < outer);
}

static tm_status fail_at(int step) {
  return step == 2 ? TM_RAISE(TM_ERR_NOT_FOUND, "step %d", step) : TM_OK;
}

static tm_status run_steps(int* reached) {
  for (*reached = 1; *reached <= 3; (*reached)++) {
    TM_TRY(fail_at(*reached));
  }
  return TM_OK;
}

Test(status, try_returns_the_failure_and_goes_no_further) {
  int reached = 0;
  cr_expect(eq(int, run_steps(&reached), TM_ERR_NOT_FOUND));
  cr_expect(eq(int, reached, 2));
}

Test(status, success_never_touches_the_record) {
  (void)TM_RAISE(TM_ERR_IO, "kept");
  cr_expect(eq(int, fail_at(1), TM_OK));
  cr_expect(eq(int, tm_last_status(), TM_ERR_IO));
  tm_clear_error();
  cr_expect(eq(int, tm_last_status(), TM_OK));
  cr_expect(eq(str, (char*)tm_last_error()->message, ""));
}

Test(status, a_null_handle_keeps_the_first_failure) {
  (void)TM_RAISE(TM_ERR_NO_MEMORY, "first");
  cr_expect(eq(int, TM_NULL_HANDLE("the tensor"), TM_ERR_NO_MEMORY));
  cr_expect(eq(str, (char*)tm_last_error()->message, "first"));
  tm_clear_error();
  cr_expect(eq(int, TM_NULL_HANDLE("the tensor"), TM_ERR_INVALID));
  cr_expect(eq(str, (char*)tm_last_error()->message, "the tensor is null"));
}

static void* raise_elsewhere(void* unused) {
  (void)TM_RAISE(TM_ERR_BUSY, "elsewhere");
  return unused;
}

Test(status, threads_have_records_of_their_own) {
  (void)TM_RAISE(TM_ERR_IO, "here");
  pthread_t thread;
  cr_assert(eq(int, pthread_create(&thread, NULL, raise_elsewhere, NULL), 0));
  pthread_join(thread, NULL);
  cr_expect(eq(str, (char*)tm_last_error()->message, "here"));
}
