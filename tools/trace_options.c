#include "tools/trace_options.h"

#include <getopt.h>
#include <stdio.h>
#include <tm/tm.h>

#include "tools/option_values.h"
#include "trace/read_log.h"

static const uint64_t most_passes = 1000000;

// What is compared where nothing is named.
static const char* const default_expressions[] = {"cuda", "pool", "stack(pool)"};

enum { DEFAULTS = sizeof(default_expressions) / sizeof(default_expressions[0]) };

enum option_letter {
  OPTION_HELP = 'h',
  OPTION_ALLOCATORS = 256,  // no letters of their own
  OPTION_FORMAT,
  OPTION_DEVICE_MEMORY,
  OPTION_CAPACITY,
  OPTION_REPEAT,
  OPTION_CONCURRENT,
  OPTION_ONE_THREAD,
  OPTION_TRY_FAILURES,
  OPTION_JSON,
};

static const struct option long_options[] = {
    {"allocators", required_argument, NULL, OPTION_ALLOCATORS},
    {"format", required_argument, NULL, OPTION_FORMAT},
    {"device-memory", required_argument, NULL, OPTION_DEVICE_MEMORY},
    {"capacity", required_argument, NULL, OPTION_CAPACITY},
    {"repeat", required_argument, NULL, OPTION_REPEAT},
    {"concurrent", no_argument, NULL, OPTION_CONCURRENT},
    {"one-thread", no_argument, NULL, OPTION_ONE_THREAD},
    {"try-failures", no_argument, NULL, OPTION_TRY_FAILURES},
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, OPTION_HELP},
    {NULL, 0, NULL, 0},
};

void trace_options_help(void) {
  (void)printf(
      "Usage: tm trace FILE [OPTION...]\n"
      "Replays a log of allocations through allocators, and compares what that takes.\n\n"
      "  FILE                  a log of RMM (CSV) or Umpire (JSON lines), or a planning problem "
      "of\n"
      "                        MiniMalloc (CSV)\n"
      "  --allocators EXPR     the allocators, one inside another: 'stack(pool)'; again for each\n"
      "                        that is to be compared (default: cuda, pool and stack(pool))\n"
      "  --format NAME         rmm, umpire or minimalloc (default: what the content is)\n"
      "  --device-memory SIZE  memory of the device, e.g. 80GiB (default: all of it)\n"
      "  --capacity SIZE       what peaks are compared with (default: of a planning problem, the\n"
      "                        number in its name)\n"
      "  --repeat N            time N passes over the log (default: 1)\n"
      "  --concurrent          threads of the log run freely (default: one event at a time, in "
      "the\n"
      "                        order of the log)\n"
      "  --one-thread          all threads of the log on one\n"
      "  --try-failures        try what failed in the log as well\n"
      "  --json                print one JSON object instead of a table\n"
      "  -h, --help            print this\n\n"
      "Allocators, written NAME:OPTION,OPTION(INNER):\n");
  allocator_expression_help();
  (void)printf(
      "\nExit status: 0 the log was served; 1 an allocation was not, its line is on stderr; 2 the\n"
      "command line or the log is wrong.\n");
}

//===-- Values ------------------------------------------------------------===//

static bool read_format(const named_value* value, log_format* out) {
  const log_format format = log_format_find(value->text);
  if (format == LOG_ANY || format == LOG_FORMATS) {
    return option_complain(value, "rmm, umpire and minimalloc are known");
  }
  *out = format;
  return true;
}

static bool add_expression(const named_value* value, trace_options* out) {
  if (out->expression_count == TRACE_MAX_RUNS) {
    return option_complain(value, "more than 16 are not compared");
  }
  if (allocator_expression_parse(value->text, &out->expressions[out->expression_count]) != TM_OK) {
    (void)fprintf(stderr, "tm trace: --%s\n", tm_last_error()->message);
    return false;
  }
  out->expression_count++;
  return true;
}

//===-- The command line --------------------------------------------------===//

static bool read_flag(int letter, trace_options* out) {
  switch (letter) {
    case OPTION_CONCURRENT:
      out->concurrent = true;
      return true;
    case OPTION_ONE_THREAD:
      out->one_thread = true;
      return true;
    case OPTION_TRY_FAILURES:
      out->try_failures = true;
      return true;
    case OPTION_JSON:
      out->json = true;
      return true;
    case OPTION_HELP:
      out->help = true;
      return true;
    default:
      return false;  // getopt has said why
  }
}

static bool read_option(int letter, const named_value* value, trace_options* out) {
  switch (letter) {
    case OPTION_ALLOCATORS:
      return add_expression(value, out);
    case OPTION_FORMAT:
      return read_format(value, &out->format);
    case OPTION_DEVICE_MEMORY:
      return option_size(value, &out->device_memory);
    case OPTION_CAPACITY:
      return option_size(value, &out->capacity);
    case OPTION_REPEAT:
      return option_count(value, 1, most_passes, &out->repeat);
    default:
      return read_flag(letter, out);
  }
}

// What is behind the options, and what options say together.
static bool finish(int argc, char** argv, trace_options* out) {
  if (out->help) return true;
  if (optind == argc) {
    (void)fprintf(stderr, "tm trace: a log is expected; 'tm trace --help' says more\n");
    return false;
  }
  if (optind + 1 < argc) {
    (void)fprintf(stderr, "tm trace: '%s' is one log too many\n", argv[optind + 1]);
    return false;
  }
  if (out->concurrent && out->one_thread) {
    (void)fprintf(stderr, "tm trace: --concurrent needs threads, --one-thread has one\n");
    return false;
  }
  out->path = argv[optind];
  const int defaults = out->expression_count ? 0 : DEFAULTS;
  for (int i = 0; i < defaults; i++) {
    const named_value value = {"tm trace", "allocators", default_expressions[i]};
    if (!add_expression(&value, out)) return false;
  }
  return true;
}

bool trace_options_parse(int argc, char** argv, trace_options* out) {
  *out = (trace_options){.repeat = 1};
  optind = 0;  // glibc: start anew
  for (;;) {
    int index = 0;
    const int letter = getopt_long(argc, argv, "h", long_options, &index);
    if (letter == -1) break;
    const named_value value = {"tm trace", long_options[index].name, optarg};
    if (!read_option(letter, &value, out)) return false;
  }
  return finish(argc, argv, out);
}
