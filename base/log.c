#define _GNU_SOURCE  // syscall

#include "tm/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "tm/base/source_path.h"
#include "tm/base/stderr_line.h"
#include "tm/base/text.h"

//===-- Level -------------------------------------------------------------===//

static const char* const level_names[] = {"trace", "debug", "info", "warning", "error", "fatal"};
enum { LEVEL_COUNT = sizeof level_names / sizeof level_names[0] };

int tm_log_level_ = TM_LOG_LEVEL_UNREAD_;

static int level_of_name(const char* name) {
  for (int level = 0; level < LEVEL_COUNT; level++) {
    if (strcasecmp(name, level_names[level]) == 0) {
      return level;
    }
  }
  if (strcasecmp(name, "warn") == 0) return TM_LOG_LEVEL_WARNING;
  return strcasecmp(name, "off") == 0 ? TM_LOG_LEVEL_OFF : TM_LOG_LEVEL_UNREAD_;
}

// `known` names what the variable may be, and what is used instead of `value`.
static void complain(const char* known, const char* value) {
  char line[256];
  tm_text text = tm_text_of_(line, sizeof line);
  tm_text_add_string_(&text, "tmcore: ");
  tm_text_add_string_(&text, known);
  tm_text_add_string_(&text, " instead of \"");
  tm_text_add_(&text, value, strnlen(value, 64));
  tm_text_add_string_(&text, "\"\n");
  tm_write_stderr_(line, text.used);
}

// Of threads that come here at once, one decides, and complains.
static TM_COLD int level_from_environment(void) {
  const char* name = getenv("TM_LOG_LEVEL");
  int found = name && *name ? level_of_name(name) : TM_LOG_LEVEL_WARNING;
  const bool unknown = found == TM_LOG_LEVEL_UNREAD_;
  if (unknown) {
    found = TM_LOG_LEVEL_WARNING;
  }
  int now = TM_LOG_LEVEL_UNREAD_;
  if (!__atomic_compare_exchange_n(&tm_log_level_, &now, found, false, __ATOMIC_RELAXED,
                                   __ATOMIC_RELAXED)) {
    return now;
  }
  if (unknown) {
    complain(
        "TM_LOG_LEVEL is none of trace, debug, info, warning, error, off, fatal; using warning",
        name);
  }
  return found;
}

tm_log_level tm_get_log_level(void) {
  const int level = __atomic_load_n(&tm_log_level_, __ATOMIC_RELAXED);
  return (tm_log_level)(level == TM_LOG_LEVEL_UNREAD_ ? level_from_environment() : level);
}

void tm_set_log_level(tm_log_level level) {
  const int wanted = (int)level < TM_LOG_LEVEL_TRACE ? TM_LOG_LEVEL_TRACE : (int)level;
  __atomic_store_n(&tm_log_level_, wanted > TM_LOG_LEVEL_OFF ? TM_LOG_LEVEL_OFF : wanted,
                   __ATOMIC_RELAXED);
}

//===-- Lines -------------------------------------------------------------===//

enum { COLOURS_SIZE = 16 };  // bytes that colours add to a line at most

// A line without colours, and where the level's name stands in it.
typedef struct line {
  char text[TM_LOG_LINE_SIZE - COLOURS_SIZE];
  size_t length;  // bytes, without the terminating NUL
  size_t level_start, level_end;
} line;

static void add_padded(tm_text* text, unsigned long number, int digits) {
  unsigned long bound = 1;
  for (int i = 1; i < digits; i++) {
    bound *= 10;
    if (number < bound) tm_text_add_(text, "0", 1);
  }
  tm_text_add_number_(text, number);
}

// gmtime_r takes a lock in glibc, which another thread may have held when the process forked. Days
// are counted from March here, so that a leap day is the last of its year; eras are 400 years.
static void add_date(tm_text* text, int64_t days_since_1970) {
  const uint64_t days = (uint64_t)days_since_1970 + 719468;  // since March 1st of the year 0
  const uint64_t era = days / 146097;
  const uint64_t day_of_era = days % 146097;
  const uint64_t year_of_era =
      (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
  const uint64_t day_of_year =
      day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  const uint64_t month_from_march = (5 * day_of_year + 2) / 153;
  const uint64_t month = month_from_march < 10 ? month_from_march + 3 : month_from_march - 9;
  add_padded(text, year_of_era + era * 400 + (month <= 2), 4);
  tm_text_add_(text, "-", 1);
  add_padded(text, month, 2);
  tm_text_add_(text, "-", 1);
  add_padded(text, day_of_year - (153 * month_from_march + 2) / 5 + 1, 2);
}

static void add_time(tm_text* text) {
  struct timespec now = {0};
  (void)clock_gettime(CLOCK_REALTIME, &now);
  const int64_t seconds = now.tv_sec < 0 ? 0 : (int64_t)now.tv_sec;
  add_date(text, seconds / 86400);
  tm_text_add_(text, "T", 1);
  add_padded(text, (unsigned long)(seconds / 3600 % 24), 2);
  tm_text_add_(text, ":", 1);
  add_padded(text, (unsigned long)(seconds / 60 % 60), 2);
  tm_text_add_(text, ":", 1);
  add_padded(text, (unsigned long)(seconds % 60), 2);
  tm_text_add_(text, ".", 1);
  add_padded(text, (unsigned long)now.tv_nsec / 1000, 6);
  tm_text_add_(text, "Z ", 2);
}

static void add_formatted(tm_text* text, const char* format, va_list arguments) {
  const size_t room = text->limit - text->used;
  const int length = vsnprintf(text->start + text->used, room + 1, format, arguments);
  text->cut = length > 0 && (size_t)length > room;
  text->used += text->cut ? room : (size_t)(length < 0 ? 0 : length);
}

static void make_line(line* self, tm_log_level level, const char* file, int line_number,
                      const char* format, va_list arguments) {
  const bool known = (int)level >= 0 && (int)level < LEVEL_COUNT;
  tm_text text = tm_text_of_(self->text, sizeof self->text);
  tm_text_add_string_(&text, "tmcore: ");
  add_time(&text);
  tm_text_add_number_(&text, (unsigned long)syscall(SYS_gettid));
  tm_text_add_(&text, " ", 1);
  self->level_start = text.used;
  tm_text_add_string_(&text, known ? level_names[level] : "?");
  self->level_end = text.used;
  tm_text_add_(&text, " ", 1);
  const char* path = tm_source_path_(file);
  tm_text_add_(&text, path, strnlen(path, TM_LOG_LINE_SIZE / 4));
  tm_text_add_(&text, ":", 1);
  tm_text_add_number_(&text, (unsigned long)line_number);
  tm_text_add_(&text, ": ", 2);
  add_formatted(&text, format, arguments);
  tm_text_finish_(&text);
  self->length = text.used;
}

//===-- stderr ------------------------------------------------------------===//

typedef enum colours { COLOURS_UNREAD, COLOURS_NEVER, COLOURS_ALWAYS } colours;

static colours colours_by_terminal(void) {
  return isatty(STDERR_FILENO) == 1 ? COLOURS_ALWAYS : COLOURS_NEVER;
}

// COLOURS_UNREAD where the setting is not known.
static colours colours_of_setting(const char* setting) {
  if (strcasecmp(setting, "always") == 0 || strcmp(setting, "1") == 0) return COLOURS_ALWAYS;
  if (strcasecmp(setting, "never") == 0 || strcmp(setting, "0") == 0) return COLOURS_NEVER;
  const bool is_auto = setting[0] == '\0' || strcasecmp(setting, "auto") == 0;
  return is_auto ? colours_by_terminal() : COLOURS_UNREAD;
}

static int colours_now = COLOURS_UNREAD;  // with __atomic

// Of threads that come here at once, one decides, and complains.
static TM_COLD colours colours_from_environment(void) {
  const char* variable = getenv("TM_LOG_COLOR");
  const char* setting = variable ? variable : "";
  const colours known = colours_of_setting(setting);
  const colours found = known == COLOURS_UNREAD ? colours_by_terminal() : known;
  int now = COLOURS_UNREAD;
  if (!__atomic_compare_exchange_n(&colours_now, &now, (int)found, false, __ATOMIC_RELAXED,
                                   __ATOMIC_RELAXED)) {
    return (colours)now;
  }
  if (known == COLOURS_UNREAD) {
    complain("TM_LOG_COLOR is none of always, never, auto; using auto", setting);
  }
  return found;
}

static bool colours_wanted(void) {
  const int now = __atomic_load_n(&colours_now, __ATOMIC_RELAXED);
  return (now == COLOURS_UNREAD ? colours_from_environment() : (colours)now) == COLOURS_ALWAYS;
}

static const char* colour_of(tm_log_level level) {
  switch (level) {
    case TM_LOG_LEVEL_TRACE:
    case TM_LOG_LEVEL_DEBUG:
      return "\033[2m";  // faint
    case TM_LOG_LEVEL_INFO:
      return "\033[32m";  // green
    case TM_LOG_LEVEL_WARNING:
      return "\033[33m";  // yellow
    default:
      return "\033[31m";  // red
  }
}

static void write_line(tm_log_level level, const line* self) {
  char whole[TM_LOG_LINE_SIZE + 1];
  const bool coloured = colours_wanted();
  tm_text text = tm_text_of_(whole, sizeof whole);
  tm_text_add_(&text, self->text, self->level_start);
  if (coloured) tm_text_add_string_(&text, colour_of(level));
  tm_text_add_(&text, self->text + self->level_start, self->level_end - self->level_start);
  if (coloured) tm_text_add_string_(&text, "\033[0m");
  tm_text_add_(&text, self->text + self->level_end, self->length - self->level_end);
  tm_text_add_(&text, "\n", 1);
  tm_write_stderr_(whole, text.used);
}

//===-- The sink ----------------------------------------------------------===//

enum { FATAL_PATIENCE_S = 1 };

static pthread_mutex_t sink_lock = PTHREAD_MUTEX_INITIALIZER;
static tm_log_sink sink;       // written under the lock, with __atomic
static void* sink_user;        // under the lock
static __thread bool in_sink;  // this thread holds the lock, and is inside the sink

static void unlock_sink(void) { pthread_mutex_unlock(&sink_lock); }

// A child must not inherit the lock from a thread that it does not have. A thread that forks inside
// the sink has the lock, and so has its child.
static void before_fork(void) {
  if (!in_sink) pthread_mutex_lock(&sink_lock);
}
static void after_fork(void) {
  if (!in_sink) unlock_sink();
}

static void leave_sink(const bool* entered) {
  (void)entered;
  in_sink = false;
  unlock_sink();
}

// Gives the line to the sink; the caller holds the lock. False where there is none any more.
static bool call_sink(tm_log_level level, const char* text) {
  __attribute__((cleanup(leave_sink))) const bool entered = true;  // exceptions leave it too
  in_sink = entered;
  if (!sink) {
    return false;
  }
  sink(level, text, sink_user);
  return true;
}

static bool give_to_sink(tm_log_level level, const char* text) {
  if (in_sink || !__atomic_load_n(&sink, __ATOMIC_RELAXED)) {
    return false;
  }
  pthread_mutex_lock(&sink_lock);
  return call_sink(level, text);
}

// Another thread may be stuck in the sink, which must not keep the program from dying.
static void give_fatal_to_sink(const char* message) {
  if (in_sink || !__atomic_load_n(&sink, __ATOMIC_RELAXED)) {
    return;
  }
  struct timespec until = {0};
  (void)clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += FATAL_PATIENCE_S;
  if (pthread_mutex_timedlock(&sink_lock, &until) == 0) {
    (void)call_sink(TM_LOG_LEVEL_FATAL, message);
  }
}

// What is registered last locks first: a sink may take the lock of the fatal handler, which a fork
// that waits for the sink must not hold yet.
static void prepare_sinks(void) {
  tm_observe_fatal_(give_fatal_to_sink);
  (void)pthread_atfork(before_fork, after_fork, after_fork);
}

void tm_set_log_sink(tm_log_sink new_sink, void* user) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  (void)pthread_once(&once, prepare_sinks);
  const bool locked = in_sink;
  if (!locked) pthread_mutex_lock(&sink_lock);
  __atomic_store_n(&sink, new_sink, __ATOMIC_RELAXED);
  sink_user = user;
  if (!locked) unlock_sink();
}

void tm_log_(tm_log_level level, const char* file, int line_number, const char* format, ...) {
  const int before = errno;
  line whole;
  va_list arguments;
  va_start(arguments, format);
  make_line(&whole, level, file, line_number, format, arguments);
  va_end(arguments);
  if (!give_to_sink(level, whole.text)) {
    write_line(level, &whole);
  }
  errno = before;
}
