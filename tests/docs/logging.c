#include <stdio.h>
#include <stdlib.h>
#include <tm/check.h>
#include <tm/log.h>
#include <tm/tm.h>

typedef struct server {
  int lines;
} server;

static void keep_line(tm_log_level level, const char* line, void* user) {
  server* self = user;
  self->lines++;
  if (level >= TM_LOG_LEVEL_ERROR) fprintf(stderr, "%s\n", line);
}

static void report(const char* message, void* user) {
  const server* self = user;
  printf("%s\nafter %d log lines\n", message, self->lines);
  exit(0);  // or longjmp, or a C++ exception; if it returns, abort() follows
}

static void forward(size_t used, size_t capacity, const char* activation) {
  TM_FUNCTION_SCOPE();
  const char* name = TM_CHECK_NOTNULL(activation);  // gives back what it checked
  TM_CHECK_STREQ(name, "relu");                     // compares text
  TM_CHECK_OK(tm_last_status());                    // shows the error record
  TM_LOG_INFO("%zu of %zu bytes", used, capacity);
  TM_CHECK_LE(used, capacity, "layer %d", 3);  // shows both sides, and what you add
}

int main(void) {
  server self = {0};
  tm_set_log_level(TM_LOG_LEVEL_INFO);
  tm_set_log_sink(keep_line, &self);
  const tm_fatal_hook before = tm_set_fatal_handler(report, &self);
  forward(9, 8, "relu");
  tm_set_fatal_handler(before.handler, before.user);
  return 0;
}
