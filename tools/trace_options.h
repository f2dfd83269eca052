// What `tm trace` is asked to do.
#ifndef TOOLS_TRACE_OPTIONS_H_
#define TOOLS_TRACE_OPTIONS_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tools/allocator_expression.h"
#include "trace/allocation_log.h"

enum { TRACE_MAX_RUNS = 16 };  // expressions that are compared

typedef struct trace_options {
  const char* path;  // of the log
  log_format format;
  allocator_expression expressions[TRACE_MAX_RUNS];
  size_t expression_count;
  uint64_t device_memory;  // bytes; 0: all the device has
  uint64_t capacity;       // bytes; 0: what the file's name says, or none
  uint64_t repeat;         // timed passes
  bool concurrent;
  bool one_thread;
  bool try_failures;
  bool json;
  bool help;
} trace_options;

// Reads the command line after `trace`, which is argv[0]. On failure one line on stderr says what
// is wrong, and false is returned. The strings are those of `argv`.
bool trace_options_parse(int argc, char** argv, trace_options* out);

// Prints how `tm trace` is used, on stdout.
void trace_options_help(void);

#endif  // TOOLS_TRACE_OPTIONS_H_
