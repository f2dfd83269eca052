#include "tools/plan.h"

#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <tm/tm.h>

#include "engine/builtin_models.h"
#include "engine/plan.h"
#include "tools/backend.h"
#include "tools/option_values.h"
#include "tools/plan_report.h"

enum {
  EXIT_FITS = 0,
  EXIT_DOES_NOT_FIT = 1,
  EXIT_BAD_INPUT = 2,
  DEFAULT_SEQUENCE = 8192,  // tokens, or what the model takes where that is less
};

static const uint64_t largest_batch = 65536;
static const uint64_t largest_step = 1 << 24;  // tokens

typedef struct plan_options {
  const char* model;       // a built-in name or a file
  uint64_t device_memory;  // bytes; 0: what the device has
  int64_t batch;
  int64_t sequence;  // 0: the default
  int64_t max_tokens;
  bool json;
  bool help;
} plan_options;

//===-- The command line --------------------------------------------------===//

enum option_letter {
  OPTION_HELP = 'h',
  OPTION_MODEL = 256,  // no letters of their own
  OPTION_BATCH,
  OPTION_SEQUENCE,
  OPTION_MAX_TOKENS,
  OPTION_DEVICE_MEMORY,
  OPTION_JSON,
};

static const struct option long_options[] = {
    {"model", required_argument, NULL, OPTION_MODEL},
    {"batch", required_argument, NULL, OPTION_BATCH},
    {"sequence", required_argument, NULL, OPTION_SEQUENCE},
    {"max-tokens", required_argument, NULL, OPTION_MAX_TOKENS},
    {"device-memory", required_argument, NULL, OPTION_DEVICE_MEMORY},
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, OPTION_HELP},
    {NULL, 0, NULL, 0},
};

static void print_help(void) {
  (void)printf(
      "Usage: tm plan [OPTION...]\n"
      "Says what an engine needs of a device, by running its code over memory that is not there:\n"
      "the peak to the byte, and the largest batch and the longest context that fit.\n\n"
      "  --model NAME|FILE     a config.json with Hugging Face's keys, or one of the names below\n"
      "                        (default: llama-3-8b)\n"
      "  --batch N             sequences that run together (default: 16)\n"
      "  --sequence N          tokens of each (default: 8192, or what the model takes)\n"
      "  --max-tokens N        tokens in a step (default: 8192)\n"
      "  --device-memory SIZE  of the device to plan for, e.g. 80GiB (default: that of this one)\n"
      "  --json                print one JSON object instead of a table\n"
      "  -h, --help            print this\n\n"
      "Models:");
  for (size_t i = 0; i < builtin_model_count(); i++) (void)printf(" %s", builtin_model_name(i));
  (void)printf(
      "\n\nExit status: 0 it fits; 1 it does not; 2 the command line or an input file is wrong.\n");
}

static bool read_option(int letter, const named_value* value, plan_options* out) {
  switch (letter) {
    case OPTION_MODEL:
      out->model = value->text;
      return true;
    case OPTION_BATCH:
      return option_limit(value, largest_batch, &out->batch);
    case OPTION_SEQUENCE:
      return option_limit(value, largest_step, &out->sequence);
    case OPTION_MAX_TOKENS:
      return option_limit(value, largest_step, &out->max_tokens);
    case OPTION_DEVICE_MEMORY:
      return option_size(value, &out->device_memory);
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

static bool parse(int argc, char** argv, plan_options* out) {
  *out = (plan_options){.model = "llama-3-8b", .batch = 16, .max_tokens = 8192};
  optind = 0;  // glibc: start anew
  for (;;) {
    int index = 0;
    const int letter = getopt_long(argc, argv, "+h", long_options, &index);
    if (letter == -1) break;
    const named_value value = {"tm plan", long_options[index].name, optarg};
    if (!read_option(letter, &value, out)) return false;
  }
  if (optind < argc) {
    (void)fprintf(stderr, "tm plan: '%s' is no option\n", argv[optind]);
    return false;
  }
  return true;
}

//===-- The plan ----------------------------------------------------------===//

static tm_status read_model(const char* model, model_config* out) {
  return builtin_model_find(model, out) ? TM_OK : model_config_read(model, out);
}

static plan_limits limits_of(const plan_options* o, const model_config* config) {
  const int64_t usual =
      config->max_positions < DEFAULT_SEQUENCE ? config->max_positions : DEFAULT_SEQUENCE;
  return (plan_limits){
      .batch = o->batch,
      .sequence = o->sequence ? o->sequence : usual,
      .step_tokens = o->max_tokens,
  };
}

static tm_status make(const plan_options* o, model_config* config, plan_report* out) {
  backend_device device;
  TM_TRY(read_model(o->model, config));
  TM_TRY(backend_open(0, &device));
  tm_auto_stream stream = tm_stream_create(0, 0);
  if (!stream) return tm_last_status();
  *out = (plan_report){
      .model = o->model,
      .config = config,
      .limits = limits_of(o, config),
      .device_memory = o->device_memory ? o->device_memory : device.memory_bytes,
  };
  const plan_limits* limits = &out->limits;
  TM_TRY(plan_make(config, limits, stream, &out->plan));
  TM_TRY(plan_largest_batch(config, limits, stream, out->device_memory, &out->largest_batch));
  return plan_longest_sequence(config, limits, stream, out->device_memory, &out->longest_sequence);
}

int plan_main(int argc, char** argv) {
  plan_options options;
  model_config config = {0};
  plan_report report = {0};
  if (!parse(argc, argv, &options)) return EXIT_BAD_INPUT;
  if (options.help) {
    print_help();
    return EXIT_FITS;
  }
  if (make(&options, &config, &report) != TM_OK) {
    (void)fprintf(stderr, "tm plan: %s\n", tm_last_error()->message);
    return EXIT_BAD_INPUT;
  }
  if (!options.json) {
    plan_report_table(&report);
  } else if (!plan_report_json(&report)) {
    return EXIT_BAD_INPUT;
  }
  return plan_report_fits(&report) ? EXIT_FITS : EXIT_DOES_NOT_FIT;
}
