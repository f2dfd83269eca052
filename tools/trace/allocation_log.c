#include "trace/allocation_log.h"

void allocation_log_deinit(allocation_log* log) {
  tm_bookkeeping_free(log->events);
  *log = (allocation_log){0};
}
