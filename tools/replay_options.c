#include "tools/replay_options.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "engine/builtin_models.h"
#include "tools/size_text.h"

static const uint64_t most_requests = 10000000;
static const uint64_t largest_batch = 65536;
static const uint64_t largest_step = 1 << 24;  // tokens

static const char* const allocator_names[REPLAY_ALLOCATORS] = {"cuda", "cached", "pool", "stack"};

enum option_letter {
  OPTION_HELP = 'h',
  OPTION_TRACE = 256,  // no letters of their own
  OPTION_MODEL,
  OPTION_DEVICE_MEMORY,
  OPTION_ALLOCATORS,
  OPTION_REQUESTS,
  OPTION_MAX_BATCH,
  OPTION_MAX_TOKENS,
  OPTION_SEED,
  OPTION_VERIFY,
  OPTION_JSON,
};

static const struct option long_options[] = {
    {"trace", required_argument, NULL, OPTION_TRACE},
    {"model", required_argument, NULL, OPTION_MODEL},
    {"device-memory", required_argument, NULL, OPTION_DEVICE_MEMORY},
    {"allocators", required_argument, NULL, OPTION_ALLOCATORS},
    {"requests", required_argument, NULL, OPTION_REQUESTS},
    {"max-batch", required_argument, NULL, OPTION_MAX_BATCH},
    {"max-tokens", required_argument, NULL, OPTION_MAX_TOKENS},
    {"seed", required_argument, NULL, OPTION_SEED},
    {"verify", no_argument, NULL, OPTION_VERIFY},
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, OPTION_HELP},
    {NULL, 0, NULL, 0},
};

const char* replay_allocator_name(replay_allocator allocator) { return allocator_names[allocator]; }

void replay_options_help(void) {
  (void)printf(
      "Usage: tm replay [OPTION...]\n"
      "Serves a trace of requests with a continuous-batching decoder, once per allocator of its\n"
      "activations, and compares them. The decoder has no kernels: memory, streams and copies are\n"
      "real.\n\n"
      "  --trace FILE          requests: TIMESTAMP,ContextTokens,GeneratedTokens, as in the Azure "
      "LLM\n"
      "                        inference traces; without it they are generated\n"
      "  --model NAME|FILE     a config.json with Hugging Face's keys, or one of the names below\n"
      "                        (default: llama-3-8b)\n"
      "  --device-memory SIZE  memory of the device, e.g. 80GiB (default: all of it)\n"
      "  --allocators LIST     any of cuda, cached, pool, stack, with commas between\n"
      "                        (default: all)\n"
      "  --requests N          the first N requests only (default: all; 1000 of the generated)\n"
      "  --max-batch N         sequences in a step (default: 256)\n"
      "  --max-tokens N        tokens in a step (default: 8192)\n"
      "  --seed N              of the generated requests (default: 0)\n"
      "  --verify              stamp and check the memory of every activation: slow\n"
      "  --json                print one JSON object instead of tables\n"
      "  -h, --help            print this\n\n"
      "Models:");
  for (size_t i = 0; i < builtin_model_count(); i++) (void)printf(" %s", builtin_model_name(i));
  (void)printf(
      "\n\nExit status: 0 the trace was served; 1 a run failed, or --verify found something; 2 "
      "the\n"
      "command line or an input file is wrong.\n");
}

//===-- Values ------------------------------------------------------------===//

static bool complain(const char* option, const char* value, const char* wanted) {
  (void)fprintf(stderr, "tm replay: --%s %s: %s\n", option, value, wanted);
  return false;
}

static bool read_count(const char* option, const char* text, uint64_t smallest, uint64_t largest,
                       uint64_t* out) {
  char wanted[64];
  if (count_parse(text, largest, out) && *out >= smallest) return true;
  (void)snprintf(wanted, sizeof(wanted), "an integer from %llu to %llu is expected",
                 (unsigned long long)smallest, (unsigned long long)largest);
  return complain(option, text, wanted);
}

static bool read_limit(const char* option, const char* text, uint64_t largest, int64_t* out) {
  uint64_t value;
  const bool is_good = read_count(option, text, 1, largest, &value);
  if (is_good) *out = (int64_t)value;
  return is_good;
}

static bool read_size(const char* option, const char* text, uint64_t* out) {
  return (size_parse(text, out) && *out > 0) ||
         complain(option, text, "a size such as 80GiB is expected");
}

// The allocator whose name is the first `length` characters; REPLAY_ALLOCATORS for none.
static replay_allocator find_allocator(const char* name, size_t length) {
  int i = 0;
  while (i < REPLAY_ALLOCATORS &&
         (strlen(allocator_names[i]) != length || strncmp(allocator_names[i], name, length) != 0)) {
    i++;
  }
  return (replay_allocator)i;
}

static bool add_allocator(replay_options* out, replay_allocator allocator) {
  for (size_t i = 0; i < out->allocator_count; i++) {
    if (out->allocators[i] == allocator) return false;
  }
  out->allocators[out->allocator_count++] = allocator;
  return true;
}

static bool read_allocators(const char* option, const char* text, replay_options* out) {
  out->allocator_count = 0;
  const char* at = text;
  for (;;) {
    const size_t length = strcspn(at, ",");
    const replay_allocator allocator = find_allocator(at, length);
    if (allocator == REPLAY_ALLOCATORS) {
      return complain(option, text, "cuda, cached, pool and stack are known, with commas between");
    }
    if (!add_allocator(out, allocator)) return complain(option, text, "one is named twice");
    if (at[length] == '\0') return true;
    at += length + 1;
  }
}

//===-- The command line --------------------------------------------------===//

static bool read_option(int letter, const char* name, const char* value, replay_options* out) {
  switch (letter) {
    case OPTION_TRACE:
      out->trace = value;
      return true;
    case OPTION_MODEL:
      out->model = value;
      return true;
    case OPTION_DEVICE_MEMORY:
      return read_size(name, value, &out->device_memory);
    case OPTION_ALLOCATORS:
      return read_allocators(name, value, out);
    case OPTION_REQUESTS:
      return read_count(name, value, 1, most_requests, &out->requests);
    case OPTION_MAX_BATCH:
      return read_limit(name, value, largest_batch, &out->max_batch);
    case OPTION_MAX_TOKENS:
      return read_limit(name, value, largest_step, &out->max_tokens);
    case OPTION_SEED:
      return read_count(name, value, 0, UINT64_MAX, &out->seed);
    case OPTION_VERIFY:
      out->verify = true;
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

bool replay_options_parse(int argc, char** argv, replay_options* out) {
  *out = (replay_options){
      .model = "llama-3-8b",
      .allocators = {REPLAY_CUDA, REPLAY_CACHED, REPLAY_POOL, REPLAY_STACK},
      .allocator_count = REPLAY_ALLOCATORS,
      .max_batch = 256,
      .max_tokens = 8192,
  };
  optind = 0;  // glibc: start anew
  for (;;) {
    int index = 0;
    const int letter = getopt_long(argc, argv, "+h", long_options, &index);
    if (letter == -1) break;
    if (!read_option(letter, long_options[index].name, optarg, out)) return false;
  }
  if (optind < argc) {
    (void)fprintf(stderr, "tm replay: '%s' is no option\n", argv[optind]);
    return false;
  }
  return true;
}
