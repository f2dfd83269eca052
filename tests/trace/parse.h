// Logs in tests: what a reader must find in a text, and what it must say of a bad one.
#ifndef TESTS_TRACE_PARSE_H_
#define TESTS_TRACE_PARSE_H_

#include "trace/allocation_log.h"
#include "trace/read_log.h"

// The log of a text, which must be good. The caller gives it back with allocation_log_deinit.
allocation_log parsed(log_format format, const char* text);

// Expects "file.log:LINE: " and `what` in the message, and an empty log.
void expect_malformed(log_format format, const char* text, int line, const char* what);

// Expects the events to be these, one a word: "+3:64" for block 3 of 64 bytes, "-3" for its free,
// "!64" for a failure; "@2" before them means that they are of thread 2, "#2" the same of stream 2.
void expect_events(const allocation_log* log, const char* wanted);

#endif  // TESTS_TRACE_PARSE_H_
