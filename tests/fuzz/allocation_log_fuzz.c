// Any bytes as an allocation log of every format: what is refused says where and leaves nothing
// behind; what is read holds together.

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tests/trace/log_check.h"
#include "tm/alloc/bookkeeping.h"
#include "tm/base/status.h"
#include "trace/read_log.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

static void check(bool holds) {
  if (!holds) abort();
}

static void expect_refused(const allocation_log* log, tm_status status) {
  check(status == TM_ERR_CORRUPT && tm_last_status() == status);
  check(strncmp(tm_last_error()->message, "fuzzed:", strlen("fuzzed:")) == 0);
  check(log->events == NULL && log->event_count == 0 && log->block_count == 0);
}

static void try_format(const char* text, size_t size, log_format format) {
  const int64_t live = tm_bookkeeping_live();
  allocation_log log;
  tm_clear_error();
  const tm_status status = allocation_log_parse(text, size, "fuzzed", format, &log);
  if (status == TM_OK) {
    check(log_check(&log) == NULL);
    check(format == LOG_ANY ? log.format != LOG_ANY : log.format == format);
  } else {
    expect_refused(&log, status);
  }
  allocation_log_deinit(&log);
  check(tm_bookkeeping_live() == live);
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const char nothing;
  const char* text = size ? (const char*)data : &nothing;
  for (int format = LOG_ANY; format < LOG_FORMATS; format++) {
    try_format(text, size, (log_format)format);
  }
  return 0;
}
