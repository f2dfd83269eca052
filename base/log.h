// Log lines by level. Opt-in: include <tm/log.h>.
//
//   TM_LOG_INFO("%d requests, %zu bytes", count, bytes);
//
//   tmcore: 2026-03-01T09:30:12.004217Z 4711 info server.c:88: 3 requests, 4096 bytes
//
// The environment says what is shown, and is read once:
//   TM_LOG_LEVEL  trace, debug, info, warning (or warn), error, off (or fatal), in any case; the
//                 default is warning
//   TM_LOG_COLOR  always (or 1), never (or 0), auto (the default): where stderr is a terminal
//   TM_SRC_FULL_PATH  where it is set, files are shown with their paths
//
// A line is written whole, whatever other threads write, to stderr or to the sink that was set.
// Nothing is buffered, so there is nothing to flush when the program dies.
#ifndef TM_LOG_H_
#define TM_LOG_H_

#ifdef TM_LOG_INFO
#error "TM_LOG_INFO is already defined: include either tmcore's <tm/log.h> or TurboMind's logger."
#endif

#include <stdbool.h>

#include "tm/base/attributes.h"
#include "tm/base/fatal.h"

TM_EXTERN_C_BEGIN

typedef enum tm_log_level {
  TM_LOG_LEVEL_TRACE = 0,
  TM_LOG_LEVEL_DEBUG = 1,
  TM_LOG_LEVEL_INFO = 2,
  TM_LOG_LEVEL_WARNING = 3,
  TM_LOG_LEVEL_ERROR = 4,
  TM_LOG_LEVEL_FATAL = 5,
  TM_LOG_LEVEL_OFF = TM_LOG_LEVEL_FATAL,  // fatal messages cannot be turned off
} tm_log_level;

// Bytes that a line has at most, with colours and its newline; a longer one is cut and ends in
// "...". As much as a pipe takes in one piece.
enum { TM_LOG_LINE_SIZE = 4096 };

// Called with one line, without colours and without its newline. It is also given fatal messages
// (TM_LOG_LEVEL_FATAL; several lines) before the fatal handler: one that buffers writes all it has
// before it returns from that. What it logs itself goes to stderr. It may leave by a C++ exception,
// but not by longjmp. In a program that forks it allocates from the host allocator or malloc only:
// a thread that forks waits for the sink with other allocators' locks held.
// Threads: calls are serialized, also with tm_set_log_sink.
typedef void (*tm_log_sink)(tm_log_level level, const char* line, void* user);

// Sends log lines to `sink`; NULL restores stderr.
// Threads: safe, also inside a sink; `user` must stay valid while the sink is set. When the call
// returns, the sink before is not running any more, except where it makes the call itself.
TM_API void tm_set_log_sink(tm_log_sink sink, void* user);

// Lines below `level` are dropped. Overrides TM_LOG_LEVEL.
// Threads: safe.
TM_API void tm_set_log_level(tm_log_level level);
TM_API tm_log_level tm_get_log_level(void);

// Logs a line. The arguments are not evaluated where the level is off, which costs one load. Leaves
// errno, so that "%m" works and the caller's own is kept.
// Threads: safe, in forked children too.
#define TM_LOG_TRACE(...) TM_LOG_(TM_LOG_LEVEL_TRACE, __VA_ARGS__)
#define TM_LOG_DEBUG(...) TM_LOG_(TM_LOG_LEVEL_DEBUG, __VA_ARGS__)
#define TM_LOG_INFO(...) TM_LOG_(TM_LOG_LEVEL_INFO, __VA_ARGS__)
#define TM_LOG_WARNING(...) TM_LOG_(TM_LOG_LEVEL_WARNING, __VA_ARGS__)
#define TM_LOG_WARN(...) TM_LOG_WARNING(__VA_ARGS__)  // as TurboMind has it
#define TM_LOG_ERROR(...) TM_LOG_(TM_LOG_LEVEL_ERROR, __VA_ARGS__)

// Reports a fatal error (tm/base/fatal.h): shows the scopes and does not return.
#define TM_LOG_FATAL(...) TM_FATAL(__VA_ARGS__)

//===-- What the macros use -----------------------------------------------===//

enum { TM_LOG_LEVEL_UNREAD_ = -1 };  // the environment has not been asked yet

extern TM_API int tm_log_level_;  // a tm_log_level or TM_LOG_LEVEL_UNREAD_, with __atomic

TM_API TM_COLD void tm_log_(tm_log_level level, const char* file, int line, const char* format, ...)
    TM_PRINTF(4, 5);

static inline bool tm_log_is_on_(tm_log_level level) {
  const int now = __atomic_load_n(&tm_log_level_, __ATOMIC_RELAXED);
  if (TM_LIKELY(now > (int)level)) {
    return false;
  }
  return now != TM_LOG_LEVEL_UNREAD_ || tm_get_log_level() <= level;
}

#define TM_LOG_(level, ...)                              \
  do {                                                   \
    if (tm_log_is_on_(level)) {                          \
      tm_log_((level), __FILE__, __LINE__, __VA_ARGS__); \
    }                                                    \
  } while (0)

TM_EXTERN_C_END

#endif  // TM_LOG_H_
