#include "tm/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

enum { LOG_LINE_SIZE = 1024, LEVEL_UNSET = -1 };

static const char* const level_names[] = {"debug", "info", "warning", "error", "off"};
enum { LEVEL_COUNT = sizeof level_names / sizeof level_names[0] };

static int current_level = LEVEL_UNSET;  // a tm_log_level; read and written with __atomic
static pthread_mutex_t sink_lock = PTHREAD_MUTEX_INITIALIZER;
static tm_log_sink current_sink;
static void* sink_user;

static int level_from_environment(void) {
  const char* text = getenv("TM_LOG_LEVEL");
  if (!text || !*text) {
    return TM_LOG_LEVEL_WARNING;
  }
  for (int level = 0; level < LEVEL_COUNT; level++) {
    if (strcasecmp(text, level_names[level]) == 0) {
      return level;
    }
  }
  fprintf(stderr,
          "tmcore: TM_LOG_LEVEL is \"%s\", not one of debug, info, warning, error, off; "
          "using warning\n",
          text);
  return TM_LOG_LEVEL_WARNING;
}

tm_log_level tm_get_log_level(void) {
  int level = __atomic_load_n(&current_level, __ATOMIC_RELAXED);
  if (level == LEVEL_UNSET) {
    level = level_from_environment();
    __atomic_store_n(&current_level, level, __ATOMIC_RELAXED);
  }
  return (tm_log_level)level;
}

void tm_set_log_level(tm_log_level level) {
  __atomic_store_n(&current_level, (int)level, __ATOMIC_RELAXED);
}

void tm_set_log_sink(tm_log_sink sink, void* user) {
  pthread_mutex_lock(&sink_lock);
  current_sink = sink;
  sink_user = user;
  pthread_mutex_unlock(&sink_lock);
}

void tm_log_(tm_log_level level, const char* file, int line, const char* format, ...) {
  char text[LOG_LINE_SIZE - 128];
  char whole[LOG_LINE_SIZE];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  const char* name = (int)level >= 0 && (int)level < LEVEL_COUNT ? level_names[level] : "?";
  snprintf(whole, sizeof whole, "tmcore: %s: %s:%d: %s", name, file, line, text);
  pthread_mutex_lock(&sink_lock);
  if (current_sink) {
    current_sink(level, whole, sink_user);
  } else {
    fprintf(stderr, "%s\n", whole);  // one call: stderr writes the line whole
  }
  pthread_mutex_unlock(&sink_lock);
}
