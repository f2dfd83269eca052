// tm replay's JSON, on generated requests and on the real trace where it is there.

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/trace.h"

enum { RUNS = 4, STACK = 3 };  // allocators without --allocators, and where the stack is

#define SMALL "--model tests/tools/small_model.json --max-tokens 512"

//===-- Running -----------------------------------------------------------===//

// Skips the test where there is no device, with the driver's reason.
static void require_device(void) {
  char line[256];
  FILE* info = popen("tools/tm info", "r");  // NOLINT(cert-env33-c): the command is the test's own
  cr_assert(info != NULL);
  bool has_device = false;
  while (!has_device && fgets(line, sizeof(line), info)) {
    has_device = strncmp(line, "device 0", strlen("device 0")) == 0;
  }
  (void)pclose(info);
  if (!has_device) cr_skip_test("%s", line);
}

// The program's JSON, which the caller gives back; the exit status must be 0.
static json_t* replay(const char* arguments) {
  char command[PATH_MAX + 256];
  json_error_t error;
  require_device();
  (void)snprintf(command, sizeof(command), "tools/tm replay --json %s", arguments);
  FILE* output = popen(command, "r");  // NOLINT(cert-env33-c): the command is the test's own
  cr_assert(output != NULL);
  json_t* root = json_loadf(output, JSON_REJECT_DUPLICATES, &error);
  cr_assert(root != NULL, "line %d: %s", error.line, error.text);
  const int status = pclose(output);
  cr_assert(status == 0, "%s: status %d", command, status);
  return root;
}

static const json_t* run_of(const json_t* root, size_t index) {
  return json_array_get(json_object_get(root, "runs"), index);
}

static int64_t integer(const json_t* object, const char* key) {
  const json_t* value = json_object_get(object, key);
  cr_assert(value && json_is_integer(value), "\"%s\" is no integer", key);
  return json_integer_value(value);
}

static double number(const json_t* object, const char* key) {
  const json_t* value = json_object_get(object, key);
  cr_assert(value && json_is_number(value), "\"%s\" is no number", key);
  return json_number_value(value);
}

static const char* text(const json_t* object, const char* key) {
  const json_t* value = json_object_get(object, key);
  cr_assert(value && json_is_string(value), "\"%s\" is no string", key);
  return json_string_value(value);
}

static json_type type_of(const json_t* object, const char* key) {
  const json_t* value = json_object_get(object, key);
  cr_assert(value != NULL, "\"%s\" is missing", key);
  return json_typeof(value);
}

//===-- The keys ----------------------------------------------------------===//

static void expect_run(const json_t* run, const char* allocator) {
  cr_expect(strcmp(text(run, "allocator"), allocator) == 0);
  cr_expect(integer(run, "finished") + integer(run, "refused") == integer(run, "requests"));
  cr_expect(integer(run, "preempted") >= 0);
  cr_expect(integer(run, "steps") > 0);
  cr_expect(integer(run, "tensors") == integer(run, "steps") * (12 * 32 + 5));
  cr_expect(integer(run, "upstream_calls") >= integer(run, "upstream_calls_after_warmup"));
  cr_expect(integer(run, "peak_live_bytes") > 0);
  cr_expect(integer(run, "peak_reserved_bytes") >= integer(run, "peak_live_bytes"));
  cr_expect(integer(run, "peak_reserved_bytes") % (2 << 20) == 0, "granules of 2 MiB");
  cr_expect(integer(run, "peak_reserved_bytes_after_warmup") > 0);
  cr_expect(integer(run, "peak_reserved_bytes_after_warmup") <=
            integer(run, "peak_reserved_bytes"));
  cr_expect(number(run, "fragmentation") >= 0 && number(run, "fragmentation") < 1);
  cr_expect(integer(run, "oom_events") == 0);
  cr_expect(number(run, "host_ns_per_tensor") > 0);
}

// The real runtime does not say what its share is.
static void expect_shares(const json_t* run, bool is_simulated) {
  if (!is_simulated) {
    cr_expect(type_of(run, "library_ns_per_tensor") == JSON_NULL);
    cr_expect(type_of(run, "runtime_ns_per_tensor") == JSON_NULL);
    return;
  }
  const double parts = number(run, "library_ns_per_tensor") + number(run, "runtime_ns_per_tensor");
  cr_expect(parts > 0.99 * number(run, "host_ns_per_tensor"));
  cr_expect(parts < 1.01 * number(run, "host_ns_per_tensor"));
}

// What must be the same whatever the allocator.
static void expect_agreement(const json_t* root) {
  static const char* const keys[] = {"requests", "finished", "preempted",       "refused",
                                     "steps",    "tensors",  "peak_live_bytes", "oom_events"};
  for (size_t i = 1; i < json_array_size(json_object_get(root, "runs")); i++) {
    for (size_t k = 0; k < sizeof(keys) / sizeof(keys[0]); k++) {
      cr_expect(eq(i64, integer(run_of(root, i), keys[k]), integer(run_of(root, 0), keys[k])), "%s",
                keys[k]);
    }
  }
}

Test(replay, json_has_every_key_and_allocators_agree) {
  json_t* root = replay("--requests 20 --device-memory 40GiB");
  const json_t* device = json_object_get(root, "device");
  cr_expect(strcmp(text(root, "trace"), "generated") == 0);
  cr_expect(strcmp(text(root, "model"), "llama-3-8b") == 0);
  const bool is_simulated = strcmp(text(device, "backend"), "cudasim") == 0;
  cr_expect(is_simulated || strcmp(text(device, "backend"), "cuda") == 0);
  cr_expect(strlen(text(device, "name")) > 0);
  cr_expect(eq(i64, integer(device, "memory_bytes"), (int64_t)40 << 30));
  cr_assert(eq(sz, json_array_size(json_object_get(root, "runs")), RUNS));
  expect_run(run_of(root, 0), "cuda");
  expect_run(run_of(root, 1), "cached");
  expect_run(run_of(root, 2), "pool");
  expect_run(run_of(root, STACK), "stack");
  expect_agreement(root);
  for (size_t i = 0; i < RUNS; i++) {
    expect_shares(run_of(root, i), is_simulated);
    cr_expect(type_of(run_of(root, i), "verified") == JSON_NULL);
  }
  cr_expect(eq(i64, integer(run_of(root, STACK), "upstream_calls_after_warmup"), 0));
  cr_expect(integer(run_of(root, 1), "upstream_calls") < 100);
  cr_expect(eq(i64, integer(run_of(root, 0), "upstream_calls_after_warmup"),
               2 * integer(run_of(root, 0), "tensors")));
  json_decref(root);
}

// What a cache holds at most, in all and in the steady state, beside what is live at most.
Test(replay, a_cache_holds_hardly_more_than_is_live) {
  json_t* root = replay("--requests 200 --device-memory 80GiB --allocators cached");
  const json_t* run = run_of(root, 0);
  const double live = number(run, "peak_live_bytes");
  cr_expect(live > 900e6);
  cr_expect(number(run, "peak_reserved_bytes_after_warmup") <= 1.02 * live);
  cr_expect(number(run, "peak_reserved_bytes") <= 1.02 * live);
  json_decref(root);
}

static const char* const timings[] = {"host_ns_per_tensor", "library_ns_per_tensor",
                                      "runtime_ns_per_tensor", "seconds"};

Test(replay, a_seed_makes_the_same_replay) {
  json_t* runs[3];
  for (int i = 0; i < 3; i++) {
    runs[i] = replay(i < 2 ? SMALL " --requests 20 --seed 5" : SMALL " --requests 20 --seed 6");
    for (size_t run = 0; run < RUNS; run++) {
      for (size_t t = 0; t < sizeof(timings) / sizeof(timings[0]); t++) {
        json_object_del((json_t*)run_of(runs[i], run), timings[t]);
      }
    }
  }
  cr_expect(json_equal(runs[0], runs[1]));
  cr_expect(not(json_equal(runs[0], runs[2])));
  for (int i = 0; i < 3; i++) json_decref(runs[i]);
}

Test(replay, verified_is_true_when_nothing_is_found) {
  json_t* root =
      replay("--requests 1 --max-batch 2 --max-tokens 64 --verify --allocators cached,pool,stack");
  for (size_t i = 0; i < 3; i++) {
    cr_expect(type_of(run_of(root, i), "verified") == JSON_TRUE);
    cr_expect(eq(i64, integer(run_of(root, i), "findings"), 0));
    cr_expect(integer(run_of(root, i), "checked") > integer(run_of(root, i), "tensors"));
  }
  json_decref(root);
}

//===-- The real trace ----------------------------------------------------===//

// $TM_TEST_DATA, or ../shared/data beside the workspace; skips the test where the trace is not
// there.
static const char* azure_trace(void) {
  static char path[PATH_MAX + 64];
  char source[PATH_MAX];
  const char* folder = getenv("TM_TEST_DATA");
  if (folder) {
    (void)snprintf(path, sizeof(path), "%s/azure_llm_2023_conv.csv", folder);
  } else if (realpath("tests/tools/replay_test.c", source)) {
    (void)snprintf(path, sizeof(path), "%.*s../shared/data/azure_llm_2023_conv.csv",
                   (int)(strlen(source) - strlen("tests/tools/replay_test.c")), source);
  }
  if (access(path, R_OK) != 0) cr_skip_test("the Azure trace is not there: set TM_TEST_DATA");
  return path;
}

Test(replay, the_real_trace_is_read_whole) {
  request_trace trace;
  uint64_t prompt = 0;
  uint64_t generated = 0;
  cr_assert(request_trace_read(azure_trace(), &trace) == TM_OK, "%s", tm_last_error()->message);
  for (size_t i = 0; i < trace.count; i++) {
    prompt += trace.requests[i].prompt_tokens;
    generated += trace.requests[i].generated_tokens;
  }
  cr_expect(eq(sz, trace.count, 19366));
  cr_expect(eq(u64, prompt, 22361870));
  cr_expect(eq(u64, generated, 4088665));
  request_trace_deinit(&trace);
}

static json_t* replay_azure(const char* options) {
  char arguments[PATH_MAX + 128];
  (void)snprintf(arguments, sizeof(arguments), "--trace %s %s", azure_trace(), options);
  return replay(arguments);
}

Test(replay, the_real_trace_is_served) {
  json_t* root = replay_azure("--requests 300");
  expect_agreement(root);
  cr_expect(eq(i64, integer(run_of(root, 0), "finished"), 300));
  cr_expect(eq(i64, integer(run_of(root, STACK), "upstream_calls_after_warmup"), 0));
  json_decref(root);
}

Test(replay, little_memory_preempts_and_everything_finishes) {
  json_t* root = replay_azure("--requests 40 --device-memory 17GiB");
  expect_agreement(root);
  cr_expect(eq(i64, integer(run_of(root, 0), "finished"), 40));
  cr_expect(integer(run_of(root, 0), "preempted") > 0);
  json_decref(root);
}
