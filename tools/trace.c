#include "tools/trace.h"

#include <stdbool.h>
#include <stdio.h>
#include <tm/tm.h>

#include "tools/backend.h"
#include "tools/trace_options.h"
#include "tools/trace_report.h"
#include "tools/trace_run.h"
#include "trace/minimalloc_log.h"
#include "trace/read_log.h"

enum {
  EXIT_SERVED = 0,
  EXIT_NOT_SERVED = 1,
  EXIT_BAD_INPUT = 2,
};

static int complain_of_error(void) {
  (void)fprintf(stderr, "tm trace: %s\n", tm_last_error()->message);
  return EXIT_BAD_INPUT;
}

//===-- The verdict -------------------------------------------------------===//

static void complain_of_unserved(const trace_options* o, const trace_run* run) {
  const replay_result* result = &run->result;
  (void)fprintf(stderr, "tm trace: %s:%llu: '%s' does not serve %llu bytes: %s", o->path,
                (unsigned long long)result->lines[0], run->allocators,
                (unsigned long long)result->first_bytes, result->message);
  if (result->unserved > 1) {
    (void)fprintf(stderr, "; and %llu more", (unsigned long long)result->unserved - 1);
  }
  (void)fprintf(stderr, "\n");
}

static int exit_status(const trace_report* report) {
  int status = EXIT_SERVED;
  for (size_t i = 0; i < report->run_count; i++) {
    const trace_run* run = &report->runs[i];
    if (run->failed) {
      (void)fprintf(stderr, "tm trace: '%s': %s\n", run->allocators, run->message);
    } else if (run->result.unserved) {
      complain_of_unserved(report->options, run);
    }
    if (run->failed || run->result.unserved) status = EXIT_NOT_SERVED;
  }
  return status;
}

static int print_report(const trace_report* report) {
  if (report->options->json) {
    if (!trace_report_json(report)) return EXIT_NOT_SERVED;
  } else {
    trace_report_table(report);
  }
  return exit_status(report);
}

//===-- Runs --------------------------------------------------------------===//

static bool uses_device(const trace_options* o) {
  for (size_t i = 0; i < o->expression_count; i++) {
    if (allocator_expression_uses_streams(&o->expressions[i])) return true;
  }
  return false;
}

static uint64_t capacity_of(const trace_options* o, const allocation_log* log) {
  if (o->capacity || log->format != LOG_MINIMALLOC) return o->capacity;
  return minimalloc_capacity_of_name(o->path);
}

// What is wrong with an expression is known when its allocators are made: nothing is printed then.
static int run_all(const trace_options* o, const allocation_log* log,
                   const backend_device* device) {
  trace_run runs[TRACE_MAX_RUNS];
  for (size_t i = 0; i < o->expression_count; i++) {
    trace_run_expression(o, log, device, &o->expressions[i], &runs[i]);
    if (runs[i].is_misnamed) {
      (void)fprintf(stderr, "tm trace: '%s': %s\n", runs[i].allocators, runs[i].message);
      return EXIT_BAD_INPUT;
    }
  }
  const trace_report report = {
      .options = o,
      .log = log,
      .device = device,
      .capacity = capacity_of(o, log),
      .runs = runs,
      .run_count = o->expression_count,
  };
  return print_report(&report);
}

static int trace(const trace_options* o, allocation_log* log) {
  backend_device device;
  if (allocation_log_read(o->path, o->format, log) != TM_OK) return complain_of_error();
  if (!uses_device(o)) return run_all(o, log, NULL);
  if (backend_open(o->device_memory, &device) != TM_OK) return complain_of_error();
  return run_all(o, log, &device);
}

int trace_main(int argc, char** argv) {
  trace_options options;
  allocation_log log = {0};
  if (!trace_options_parse(argc, argv, &options)) return EXIT_BAD_INPUT;
  if (options.help) {
    trace_options_help();
    return EXIT_SERVED;
  }
  const int status = trace(&options, &log);
  allocation_log_deinit(&log);
  return status;
}
