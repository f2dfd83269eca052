#include "tools/report.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "tools/size_text.h"

enum {
  LABEL_WIDTH = 32,  // characters
  COLUMN_WIDTH = 14,
};

//===-- Numbers made of others --------------------------------------------===//

static uint64_t refused(const replay_run* run) {
  uint64_t sum = 0;
  for (int i = 0; i < REFUSALS; i++) sum += run->counts.requests.refused[i];
  return sum;
}

static uint64_t preempted(const replay_run* run) {
  return run->counts.requests.preempted_for_kv + run->counts.requests.preempted_for_memory;
}

// Small blocks of cudaMalloc may lie in granules that were taken before: then more is live than was
// reserved for it, and nothing is wasted.
static double fragmentation(const replay_run* run) {
  if (run->peak_reserved_bytes <= run->live_at_peak_bytes) return 0;
  return 1 - (double)run->live_at_peak_bytes / (double)run->peak_reserved_bytes;
}

static double per_tensor(const replay_run* run, uint64_t ns) {
  return run->counts.tensors ? (double)ns / (double)run->counts.tensors : 0;
}

static uint64_t library_ns(const replay_run* run) {
  const engine_counts* c = &run->counts;
  return c->forward_ns > c->runtime_ns ? c->forward_ns - c->runtime_ns : 0;
}

//===-- The table ---------------------------------------------------------===//

// Writes one run's cell.
typedef void (*cell)(const replay_run* run, char text[SIZE_TEXT_SIZE]);

static void ns_format(double ns, char text[SIZE_TEXT_SIZE]) {
  (void)snprintf(text, SIZE_TEXT_SIZE, "%.1f", ns);
}

static void cell_finished(const replay_run* r, char text[SIZE_TEXT_SIZE]) {
  count_format(r->counts.requests.finished, text);
}
static void cell_preempted(const replay_run* r, char text[SIZE_TEXT_SIZE]) {
  count_format(preempted(r), text);
}
static void cell_refused(const replay_run* r, char text[SIZE_TEXT_SIZE]) {
  count_format(refused(r), text);
}
static void cell_refused_positions(const replay_run* r, char text[SIZE_TEXT_SIZE]) {
  count_format(r->counts.requests.refused[REFUSED_POSITIONS], text);
}
static void cell_refused_kv_cache(const replay_run* r, char text[SIZE_TEXT_SIZE]) {
  count_format(r->counts.requests.refused[REFUSED_KV_CACHE], text);
}
static void cell_refused_memory(const replay_run* r, char text[SIZE_TEXT_SIZE]) {
  count_format(r->counts.requests.refused[REFUSED_MEMORY], text);
}
static void cell_steps(const replay_run* r, char text[SIZE_TEXT_SIZE]) {
  count_format(r->counts.steps, text);
}
static void cell_tensors(const replay_run* r, char text[SIZE_TEXT_SIZE]) {
  count_format(r->counts.tensors, text);
}
static void cell_upstream(const replay_run* r, char text[SIZE_TEXT_SIZE]) {
  count_format(r->upstream_calls, text);
}
static void cell_upstream_later(const replay_run* r, char text[SIZE_TEXT_SIZE]) {
  count_format(r->upstream_calls_after_warmup, text);
}
static void cell_peak_live(const replay_run* r, char text[SIZE_TEXT_SIZE]) {
  size_format(r->peak_live_bytes, text);
}
static void cell_peak_reserved(const replay_run* r, char text[SIZE_TEXT_SIZE]) {
  size_format(r->peak_reserved_bytes, text);
}
static void cell_steady_reserved(const replay_run* r, char text[SIZE_TEXT_SIZE]) {
  size_format(r->steady_reserved_bytes, text);
}
static void cell_fragmentation(const replay_run* r, char text[SIZE_TEXT_SIZE]) {
  (void)snprintf(text, SIZE_TEXT_SIZE, "%.2f %%", 100 * fragmentation(r));
}
static void cell_oom(const replay_run* r, char text[SIZE_TEXT_SIZE]) {
  count_format(r->counts.oom_events, text);
}
static void cell_ns(const replay_run* r, char text[SIZE_TEXT_SIZE]) {
  ns_format(per_tensor(r, r->counts.forward_ns), text);
}
static void cell_ns_library(const replay_run* r, char text[SIZE_TEXT_SIZE]) {
  (void)snprintf(text, SIZE_TEXT_SIZE, "-");
  if (r->has_runtime_share) ns_format(per_tensor(r, library_ns(r)), text);
}
static void cell_ns_runtime(const replay_run* r, char text[SIZE_TEXT_SIZE]) {
  (void)snprintf(text, SIZE_TEXT_SIZE, "-");
  if (r->has_runtime_share) ns_format(per_tensor(r, r->counts.runtime_ns), text);
}
static void cell_seconds(const replay_run* r, char text[SIZE_TEXT_SIZE]) {
  (void)snprintf(text, SIZE_TEXT_SIZE, "%.2f s", r->seconds);
}
static void cell_verified(const replay_run* r, char text[SIZE_TEXT_SIZE]) {
  static const char* const words[] = {"-", "yes", "NO"};
  (void)snprintf(text, SIZE_TEXT_SIZE, "%s", words[r->verified]);
}

static const struct {
  const char* label;
  cell write;
} rows[] = {
    {"requests finished", cell_finished},
    {"  pre-empted", cell_preempted},
    {"  refused", cell_refused},
    {"    longer than the model takes", cell_refused_positions},
    {"    longer than the KV cache", cell_refused_kv_cache},
    {"    no memory, even alone", cell_refused_memory},
    {"steps", cell_steps},
    {"tensors", cell_tensors},
    {"upstream calls", cell_upstream},
    {"  after the profile step", cell_upstream_later},
    {"peak live", cell_peak_live},
    {"peak reserved", cell_peak_reserved},
    {"  after the profile step", cell_steady_reserved},
    {"fragmentation", cell_fragmentation},
    {"out of memory", cell_oom},
    {"host ns per tensor", cell_ns},
    {"  the library's", cell_ns_library},
    {"  the simulated runtime's", cell_ns_runtime},
    {"time", cell_seconds},
    {"verified", cell_verified},
};

static void print_header(const replay_report* r) {
  const engine_memory* memory = &r->runs[0].memory;
  char requests[SIZE_TEXT_SIZE], weights[SIZE_TEXT_SIZE], device[SIZE_TEXT_SIZE];
  char kv[SIZE_TEXT_SIZE], kv_tokens[SIZE_TEXT_SIZE];
  count_format(r->runs[0].requests, requests);
  size_format(memory->weight_bytes, weights);
  size_format(r->device->memory_bytes, device);
  size_format(memory->kv_bytes, kv);
  count_format((uint64_t)memory->kv_tokens, kv_tokens);
  (void)printf("trace     %s, %s requests\n", r->trace ? r->trace : "generated", requests);
  (void)printf("model     %s, %s of weights in %s\n", r->model, weights,
               tm_dtype_name(r->config->dtype));
  (void)printf("device    %s (%s), %s\n", r->device->name, backend_name(), device);
  (void)printf("KV cache  %s, %s tokens: %.0f %% of what weights and activations leave\n", kv,
               kv_tokens, 100 * r->kv_fraction);
  (void)printf("step      at most %lld sequences, %lld tokens\n\n", (long long)r->max_batch,
               (long long)r->max_tokens);
}

static void print_row(const replay_report* r, const char* label, cell write) {
  (void)printf("%-*s", LABEL_WIDTH, label);
  for (size_t i = 0; i < r->run_count; i++) {
    char text[SIZE_TEXT_SIZE];
    write(&r->runs[i], text);
    (void)printf("%*s", COLUMN_WIDTH, text);
  }
  (void)printf("\n");
}

static void cell_name(const replay_run* r, char text[SIZE_TEXT_SIZE]) {
  (void)snprintf(text, SIZE_TEXT_SIZE, "%s%s", r->allocator, r->failed ? " FAILED" : "");
}

void report_table(const replay_report* report) {
  print_header(report);
  print_row(report, "", cell_name);
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    print_row(report, rows[i].label, rows[i].write);
  }
}

//===-- JSON --------------------------------------------------------------===//

// Takes the value over. One for which there was no memory (NULL) is left out.
static void put(json_t* object, const char* key, json_t* value) {
  (void)json_object_set_new(object, key, value);
}

static void put_count(json_t* object, const char* key, uint64_t count) {
  put(object, key, json_integer((json_int_t)count));
}

static json_t* json_of_refusals(const replay_run* r) {
  const uint64_t* counts = r->counts.requests.refused;
  json_t* object = json_object();
  put_count(object, "max_positions", counts[REFUSED_POSITIONS]);
  put_count(object, "kv_cache", counts[REFUSED_KV_CACHE]);
  put_count(object, "memory", counts[REFUSED_MEMORY]);
  return object;
}

static void put_requests(json_t* object, const replay_run* r) {
  put_count(object, "requests", r->requests);
  put_count(object, "finished", r->counts.requests.finished);
  put_count(object, "preempted", preempted(r));
  put_count(object, "refused", refused(r));
  put(object, "refused_for", json_of_refusals(r));
  put_count(object, "steps", r->counts.steps);
  put_count(object, "tensors", r->counts.tensors);
}

static void put_memory(json_t* object, const replay_run* r) {
  put_count(object, "upstream_calls", r->upstream_calls);
  put_count(object, "upstream_calls_after_warmup", r->upstream_calls_after_warmup);
  put_count(object, "peak_live_bytes", r->peak_live_bytes);
  put_count(object, "peak_reserved_bytes", r->peak_reserved_bytes);
  put_count(object, "peak_reserved_bytes_after_warmup", r->steady_reserved_bytes);
  put(object, "fragmentation", json_real(fragmentation(r)));
  put_count(object, "oom_events", r->counts.oom_events);
}

static json_t* json_of_share(const replay_run* r, uint64_t ns) {
  return r->has_runtime_share ? json_real(per_tensor(r, ns)) : json_null();
}

static void put_times(json_t* object, const replay_run* r) {
  put(object, "host_ns_per_tensor", json_real(per_tensor(r, r->counts.forward_ns)));
  put(object, "library_ns_per_tensor", json_of_share(r, library_ns(r)));
  put(object, "runtime_ns_per_tensor", json_of_share(r, r->counts.runtime_ns));
  put(object, "seconds", json_real(r->seconds));
}

static void put_verdict(json_t* object, const replay_run* r) {
  const bool is_known = r->verified != NOT_VERIFIED;
  put(object, "verified", is_known ? json_boolean(r->verified == VERIFIED) : json_null());
  put_count(object, "findings", r->findings);
  put_count(object, "checked", r->checked);
  if (r->message[0]) put(object, "message", json_string(r->message));
}

static json_t* json_of_run(const replay_run* r) {
  json_t* object = json_object();
  put(object, "allocator", json_string(r->allocator));
  put_requests(object, r);
  put_memory(object, r);
  put_times(object, r);
  put_verdict(object, r);
  return object;
}

static json_t* json_of_runs(const replay_report* r) {
  json_t* runs = json_array();
  for (size_t i = 0; i < r->run_count; i++) {
    (void)json_array_append_new(runs, json_of_run(&r->runs[i]));
  }
  return runs;
}

static json_t* json_of_device(const backend_device* device) {
  json_t* object = json_object();
  put(object, "backend", json_string(backend_name()));
  put(object, "name", json_string(device->name));
  put_count(object, "memory_bytes", device->memory_bytes);
  return object;
}

bool report_json(const replay_report* r) {
  json_t* root = json_object();
  if (!root) return false;
  put(root, "trace", json_string(r->trace ? r->trace : "generated"));
  put(root, "model", json_string(r->model));
  put(root, "device", json_of_device(r->device));
  put_count(root, "weight_bytes", r->runs[0].memory.weight_bytes);
  put_count(root, "kv_cache_bytes", r->runs[0].memory.kv_bytes);
  put_count(root, "max_batch", (uint64_t)r->max_batch);
  put_count(root, "max_tokens", (uint64_t)r->max_tokens);
  put(root, "runs", json_of_runs(r));
  const bool is_written = json_dumpf(root, stdout, JSON_INDENT(2)) == 0;
  json_decref(root);
  (void)printf("\n");
  return is_written;
}
