// What is true of every allocation log, whoever read it.
#ifndef TESTS_TRACE_LOG_CHECK_H_
#define TESTS_TRACE_LOG_CHECK_H_

#include "trace/allocation_log.h"

// What is wrong with a log; NULL: nothing. Events must be about blocks that live, in the order of
// their numbers, and the log's figures must be those of its events.
const char* log_check(const allocation_log* log);

#endif  // TESTS_TRACE_LOG_CHECK_H_
