#include "tools/replay.h"

#include <stdbool.h>
#include <stdio.h>
#include <tm/tm.h>

#include "engine/builtin_models.h"
#include "engine/config.h"
#include "engine/generator.h"
#include "engine/trace.h"
#include "engine/weights.h"
#include "tools/backend.h"
#include "tools/replay_options.h"
#include "tools/replay_run.h"
#include "tools/report.h"
#include "tools/size_text.h"

enum {
  EXIT_SERVED = 0,
  EXIT_FAILED = 1,
  EXIT_BAD_INPUT = 2,
  GENERATED_REQUESTS = 1000,  // unless --requests says otherwise
};

static int complain_of_error(void) {
  (void)fprintf(stderr, "tm replay: %s\n", tm_last_error()->message);
  return EXIT_BAD_INPUT;
}

//===-- Inputs ------------------------------------------------------------===//

static tm_status read_trace(const replay_options* o, request_trace* out) {
  if (!o->trace) {
    return request_trace_generate(o->requests ? o->requests : GENERATED_REQUESTS, o->seed, out);
  }
  TM_TRY(request_trace_read(o->trace, out));
  if (o->requests && o->requests < out->count) out->count = o->requests;
  return TM_OK;
}

static tm_status read_model(const replay_options* o, model_config* out) {
  return builtin_model_find(o->model, out) ? TM_OK : model_config_read(o->model, out);
}

static tm_status check_memory(const model_config* config, const replay_options* o,
                              const backend_device* device) {
  const uint64_t weights = (uint64_t)model_weight_bytes(config);
  char weights_text[SIZE_TEXT_SIZE];
  char memory_text[SIZE_TEXT_SIZE];
  if (weights < device->memory_bytes) return TM_OK;
  size_format(weights, weights_text);
  size_format(device->memory_bytes, memory_text);
  return TM_RAISE(TM_ERR_OUT_OF_RANGE, "%s has %s of weights, the device %s of memory", o->model,
                  weights_text, memory_text);
}

//===-- Runs --------------------------------------------------------------===//

static int exit_status(const replay_report* report) {
  int status = EXIT_SERVED;
  for (size_t i = 0; i < report->run_count; i++) {
    const replay_run* run = &report->runs[i];
    if (run->message[0]) (void)fprintf(stderr, "tm replay: %s\n", run->message);
    if (run->failed || run->verified == FOUND_SOMETHING) status = EXIT_FAILED;
  }
  return status;
}

static int print_report(const replay_options* o, const replay_report* report) {
  if (o->json) {
    if (!report_json(report)) return EXIT_FAILED;
  } else {
    report_table(report);
  }
  return exit_status(report);
}

static int complain_of_fit(const replay_options* o, const backend_device* device,
                           const replay_run* run) {
  char memory[SIZE_TEXT_SIZE];
  size_format(device->memory_bytes, memory);
  (void)fprintf(stderr,
                "tm replay: %s with %lld sequences and %lld tokens a step does not fit in %s: %s\n",
                o->model, (long long)o->max_batch, (long long)o->max_tokens, memory, run->message);
  return EXIT_BAD_INPUT;
}

static int run_all(const replay_options* o, const model_config* config, const request_trace* trace,
                   const backend_device* device) {
  replay_run runs[REPLAY_ALLOCATORS];
  for (size_t i = 0; i < o->allocator_count; i++) {
    replay_run_allocator(o, config, trace, device, o->allocators[i], &runs[i]);
    if (runs[i].does_not_fit) return complain_of_fit(o, device, &runs[i]);
  }
  const replay_report report = {
      .trace = o->trace,
      .model = o->model,
      .config = config,
      .device = device,
      .max_batch = o->max_batch,
      .max_tokens = o->max_tokens,
      .kv_fraction = replay_kv_fraction,
      .fail_rate = o->fail_rate,
      .seed = o->seed,
      .runs = runs,
      .run_count = o->allocator_count,
  };
  return print_report(o, &report);
}

static int replay(const replay_options* o, request_trace* trace) {
  model_config config;
  backend_device device;
  if (read_trace(o, trace) != TM_OK || read_model(o, &config) != TM_OK ||
      backend_open(o->device_memory, &device) != TM_OK ||
      check_memory(&config, o, &device) != TM_OK) {
    return complain_of_error();
  }
  return run_all(o, &config, trace, &device);
}

int replay_main(int argc, char** argv) {
  replay_options options;
  request_trace trace = {0};
  if (!replay_options_parse(argc, argv, &options)) return EXIT_BAD_INPUT;
  if (options.help) {
    replay_options_help();
    return EXIT_SERVED;
  }
  const int status = replay(&options, &trace);
  request_trace_deinit(&trace);
  return status;
}
