// Log lines by level. Opt-in: include <tm/log.h>.
//
// The level comes from TM_LOG_LEVEL (debug, info, warning, error, off; the default is warning).
// A line is written whole, whatever other threads write, to stderr or to the sink that was set.
#ifndef TM_LOG_H_
#define TM_LOG_H_

#ifdef TM_LOG_INFO
#error "TM_LOG_INFO is already defined: include either tmcore's <tm/log.h> or TurboMind's logger."
#endif

#include "tm/base/attributes.h"

TM_EXTERN_C_BEGIN

typedef enum tm_log_level {
  TM_LOG_LEVEL_DEBUG = 0,
  TM_LOG_LEVEL_INFO = 1,
  TM_LOG_LEVEL_WARNING = 2,
  TM_LOG_LEVEL_ERROR = 3,
  TM_LOG_LEVEL_OFF = 4,
} tm_log_level;

// Called with one line, without its newline.
// Threads: calls are serialized; a sink must not log.
typedef void (*tm_log_sink)(tm_log_level level, const char* line, void* user);

// Sends log lines to `sink`; NULL restores stderr.
// Threads: safe; `user` must stay valid while the sink is set.
TM_API void tm_set_log_sink(tm_log_sink sink, void* user);

// Lines below `level` are dropped. Overrides TM_LOG_LEVEL.
TM_API void tm_set_log_level(tm_log_level level);
TM_API tm_log_level tm_get_log_level(void);

TM_API TM_COLD void tm_log_(tm_log_level level, const char* file, int line, const char* format, ...)
    TM_PRINTF(4, 5);

#define TM_LOG_(level, ...)                              \
  do {                                                   \
    if (tm_get_log_level() <= (level)) {                 \
      tm_log_((level), __FILE__, __LINE__, __VA_ARGS__); \
    }                                                    \
  } while (0)
#define TM_LOG_DEBUG(...) TM_LOG_(TM_LOG_LEVEL_DEBUG, __VA_ARGS__)
#define TM_LOG_INFO(...) TM_LOG_(TM_LOG_LEVEL_INFO, __VA_ARGS__)
#define TM_LOG_WARNING(...) TM_LOG_(TM_LOG_LEVEL_WARNING, __VA_ARGS__)
#define TM_LOG_ERROR(...) TM_LOG_(TM_LOG_LEVEL_ERROR, __VA_ARGS__)

TM_EXTERN_C_END

#endif  // TM_LOG_H_
