#include "tests/trace/parse.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>
#include <tm/tm.h>

#include "tests/trace/log_check.h"

allocation_log parsed(log_format format, const char* text) {
  allocation_log log;
  cr_assert(allocation_log_parse(text, strlen(text), "file.log", format, &log) == TM_OK, "%s",
            tm_last_error()->message);
  const char* wrong = log_check(&log);
  cr_assert(wrong == NULL, "%s in the log of %s", wrong, text);
  return log;
}

void expect_malformed(log_format format, const char* text, int line, const char* what) {
  allocation_log log;
  char place[32];
  (void)snprintf(place, sizeof(place), "file.log:%d: ", line);
  tm_clear_error();
  cr_expect(
      eq(int, allocation_log_parse(text, strlen(text), "file.log", format, &log), TM_ERR_CORRUPT),
      "accepted: %s", text);
  const char* message = tm_last_error()->message;
  cr_expect(strncmp(message, place, strlen(place)) == 0, "%s in: %s", place, message);
  cr_expect(strstr(message, what) != NULL, "'%s' in: %s", what, message);
  cr_expect(eq(sz, log.event_count, 0));
  cr_expect(eq(ptr, log.events, NULL));
}

// Appends one event's word, behind what has changed since the one before.
static size_t describe(const log_event* e, const log_event* before, char* text, size_t size) {
  size_t at = 0;
  if (e->thread != (before ? before->thread : 0)) {
    at += (size_t)snprintf(text + at, size - at, "@%u ", e->thread);
  }
  if (e->stream != (before ? before->stream : 0)) {
    at += (size_t)snprintf(text + at, size - at, "#%u ", e->stream);
  }
  const unsigned long long bytes = e->bytes;
  if (e->kind == LOG_ALLOCATE) {
    at += (size_t)snprintf(text + at, size - at, "+%u:%llu", e->block, bytes);
  } else if (e->kind == LOG_FREE) {
    at += (size_t)snprintf(text + at, size - at, "-%u", e->block);
  } else {
    at += (size_t)snprintf(text + at, size - at, "!%llu", bytes);
  }
  return at;
}

void expect_events(const allocation_log* log, const char* wanted) {
  char text[1024] = "";
  size_t at = 0;
  for (size_t i = 0; i < log->event_count && at + 64 < sizeof(text); i++) {
    if (i) text[at++] = ' ';
    at += describe(&log->events[i], i ? &log->events[i - 1] : NULL, text + at, sizeof(text) - at);
  }
  cr_expect(eq(str, text, (char*)wanted));
}
