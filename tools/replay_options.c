#include "tools/replay_options.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/builtin_models.h"
#include "tools/option_values.h"

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
  OPTION_PREFIX_CACHE,
  OPTION_FAIL_RATE,
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
    {"prefix-cache", required_argument, NULL, OPTION_PREFIX_CACHE},
    {"fail-rate", required_argument, NULL, OPTION_FAIL_RATE},
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
      "  --seed N              of the generated requests and of --fail-rate (default: 0)\n"
      "  --prefix-cache SIZE   memory for beginnings of prompts that requests share (default: "
      "none)\n"
      "  --fail-rate P         refuse that share, e.g. 0.01, of the allocations below an arena, or "
      "of\n"
      "                        activations without one, at random, and track what is not given "
      "back\n"
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

static bool read_share(const named_value* value, double* out) {
  char* end;
  const double share = strtod(value->text, &end);
  if (end == value->text || *end != '\0' || !(share >= 0 && share <= 1)) {
    return option_complain(value, "a share from 0 to 1 is expected");
  }
  *out = share;
  return true;
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

static bool read_allocators(const named_value* value, replay_options* out) {
  out->allocator_count = 0;
  const char* at = value->text;
  for (;;) {
    const size_t length = strcspn(at, ",");
    const replay_allocator allocator = find_allocator(at, length);
    if (allocator == REPLAY_ALLOCATORS) {
      return option_complain(value, "cuda, cached, pool and stack are known, with commas between");
    }
    if (!add_allocator(out, allocator)) return option_complain(value, "one is named twice");
    if (at[length] == '\0') return true;
    at += length + 1;
  }
}

//===-- The command line --------------------------------------------------===//

static bool read_option(int letter, const named_value* value, replay_options* out) {
  switch (letter) {
    case OPTION_TRACE:
      out->trace = value->text;
      return true;
    case OPTION_MODEL:
      out->model = value->text;
      return true;
    case OPTION_DEVICE_MEMORY:
      return option_size(value, &out->device_memory);
    case OPTION_ALLOCATORS:
      return read_allocators(value, out);
    case OPTION_REQUESTS:
      return option_count(value, 1, most_requests, &out->requests);
    case OPTION_MAX_BATCH:
      return option_limit(value, largest_batch, &out->max_batch);
    case OPTION_MAX_TOKENS:
      return option_limit(value, largest_step, &out->max_tokens);
    case OPTION_SEED:
      return option_count(value, 0, UINT64_MAX, &out->seed);
    case OPTION_PREFIX_CACHE:
      return option_size(value, &out->prefix_cache);
    case OPTION_FAIL_RATE:
      return read_share(value, &out->fail_rate);
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
    const named_value value = {"tm replay", long_options[index].name, optarg};
    if (!read_option(letter, &value, out)) return false;
  }
  if (optind < argc) {
    (void)fprintf(stderr, "tm replay: '%s' is no option\n", argv[optind]);
    return false;
  }
  return true;
}
