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

// Of the device's memory in the steady state, weights, batches and KV cache included.
static double reserved_to_live(const replay_run* run) {
  const uint64_t live = run->persistent_live_bytes + run->peak_live_bytes;
  const uint64_t reserved = run->persistent_reserved_bytes + run->steady_reserved_bytes;
  return live ? (double)reserved / (double)live : 0;
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
static void cell_preempted_for_kv(const replay_run* r, char text[SIZE_TEXT_SIZE]) {
  count_format(r->counts.requests.preempted_for_kv, text);
}
static void cell_preempted_for_memory(const replay_run* r, char text[SIZE_TEXT_SIZE]) {
  count_format(r->counts.requests.preempted_for_memory, text);
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
static void cell_reserved_to_live(const replay_run* r, char text[SIZE_TEXT_SIZE]) {
  (void)snprintf(text, SIZE_TEXT_SIZE, "%.4f", reserved_to_live(r));
}
static void cell_fragmentation(const replay_run* r, char text[SIZE_TEXT_SIZE]) {
  (void)snprintf(text, SIZE_TEXT_SIZE, "%.2f %%", 100 * fragmentation(r));
}
static void cell_oom(const replay_run* r, char text[SIZE_TEXT_SIZE]) {
  count_format(r->counts.oom_events, text);
}
// Without admission there is nothing to fail after it, or to be refused.
static void admission_format(const replay_run* r, uint64_t count, char text[SIZE_TEXT_SIZE]) {
  (void)snprintf(text, SIZE_TEXT_SIZE, "-");
  if (r->admits) count_format(count, text);
}
static void cell_failed_after_admission(const replay_run* r, char text[SIZE_TEXT_SIZE]) {
  admission_format(r, r->counts.failed_after_admission, text);
}
static void cell_reservations_refused(const replay_run* r, char text[SIZE_TEXT_SIZE]) {
  admission_format(r, r->counts.reservations_refused, text);
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

static void cell_prefix_hits(const replay_run* r, char text[SIZE_TEXT_SIZE]) {
  count_format(r->counts.prefixes.hits, text);
}
static void cell_prefix_misses(const replay_run* r, char text[SIZE_TEXT_SIZE]) {
  count_format(r->counts.prefixes.misses, text);
}
static void cell_prefix_saved(const replay_run* r, char text[SIZE_TEXT_SIZE]) {
  count_format(r->counts.prefixes.tokens_saved, text);
}
static void cell_prefix_dropped(const replay_run* r, char text[SIZE_TEXT_SIZE]) {
  count_format(r->counts.prefixes.dropped, text);
}

static void cell_refused_on_purpose(const replay_run* r, char text[SIZE_TEXT_SIZE]) {
  count_format(r->refused_on_purpose, text);
}
static void cell_outstanding(const replay_run* r, char text[SIZE_TEXT_SIZE]) {
  count_format(r->outstanding, text);
}

typedef struct row {
  const char* label;
  cell write;
} row;

static const row rows[] = {
    {"requests finished", cell_finished},
    {"  pre-empted", cell_preempted},
    {"    for KV blocks", cell_preempted_for_kv},
    {"    for activations", cell_preempted_for_memory},
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
    {"reserved / live, all memory", cell_reserved_to_live},
    {"fragmentation", cell_fragmentation},
    {"out of memory", cell_oom},
    {"  steps failed after admission", cell_failed_after_admission},
    {"  steps refused admission", cell_reservations_refused},
    {"host ns per tensor", cell_ns},
    {"  the library's", cell_ns_library},
    {"  the simulated runtime's", cell_ns_runtime},
    {"time", cell_seconds},
    {"verified", cell_verified},
};

static const row prefix_rows[] = {
    {"prefix cache: hits", cell_prefix_hits},
    {"  misses", cell_prefix_misses},
    {"  prompt tokens saved", cell_prefix_saved},
    {"  dropped when memory ran out", cell_prefix_dropped},
};

static const row fault_rows[] = {
    {"allocations refused on purpose", cell_refused_on_purpose},
    {"outstanding at the end", cell_outstanding},
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
  (void)printf("step      at most %lld sequences, %lld tokens\n", (long long)r->max_batch,
               (long long)r->max_tokens);
  if (r->fail_rate > 0) {
    (void)printf("faults    %g of the allocations, at random from seed %llu\n", r->fail_rate,
                 (unsigned long long)r->seed);
  }
  (void)printf("\n");
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

static void print_rows(const replay_report* report, const row* printed, size_t count) {
  for (size_t i = 0; i < count; i++) print_row(report, printed[i].label, printed[i].write);
}

void report_table(const replay_report* report) {
  print_header(report);
  print_row(report, "", cell_name);
  print_rows(report, rows, sizeof(rows) / sizeof(rows[0]));
  if (report->runs[0].has_prefix_cache) {
    print_rows(report, prefix_rows, sizeof(prefix_rows) / sizeof(prefix_rows[0]));
  }
  if (report->fail_rate > 0) {
    print_rows(report, fault_rows, sizeof(fault_rows) / sizeof(fault_rows[0]));
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

static json_t* json_of_preemptions(const replay_run* r) {
  json_t* object = json_object();
  put_count(object, "kv_cache", r->counts.requests.preempted_for_kv);
  put_count(object, "memory", r->counts.requests.preempted_for_memory);
  return object;
}

static json_t* json_of_admission(const replay_run* r, uint64_t count) {
  return r->admits ? json_integer((json_int_t)count) : json_null();
}

static void put_requests(json_t* object, const replay_run* r) {
  put_count(object, "requests", r->requests);
  put_count(object, "finished", r->counts.requests.finished);
  put_count(object, "preempted", preempted(r));
  put(object, "preempted_for", json_of_preemptions(r));
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
  put(object, "reserved_to_live", json_real(reserved_to_live(r)));
  put(object, "fragmentation", json_real(fragmentation(r)));
  put_count(object, "oom_events", r->counts.oom_events);
  put(object, "steps_failed_after_admission",
      json_of_admission(r, r->counts.failed_after_admission));
  put(object, "steps_refused_admission", json_of_admission(r, r->counts.reservations_refused));
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

static json_t* json_of_prefixes(const replay_run* r) {
  const prefix_counts* counts = &r->counts.prefixes;
  if (!r->has_prefix_cache) return json_null();
  json_t* object = json_object();
  put_count(object, "hits", counts->hits);
  put_count(object, "misses", counts->misses);
  put_count(object, "tokens_saved", counts->tokens_saved);
  put_count(object, "stored", counts->stored);
  put_count(object, "not_stored", counts->not_stored);
  put_count(object, "replaced", counts->replaced);
  put_count(object, "dropped", counts->dropped);
  return object;
}

static json_t* json_of_run(const replay_run* r) {
  json_t* object = json_object();
  put(object, "allocator", json_string(r->allocator));
  put_requests(object, r);
  put_memory(object, r);
  put(object, "prefix_cache", json_of_prefixes(r));
  put_count(object, "refused_on_purpose", r->refused_on_purpose);
  put_count(object, "outstanding", r->outstanding);
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
  put(root, "fail_rate", json_real(r->fail_rate));
  put_count(root, "seed", r->seed);
  put(root, "runs", json_of_runs(r));
  const bool is_written = json_dumpf(root, stdout, JSON_INDENT(2)) == 0;
  json_decref(root);
  (void)printf("\n");
  return is_written;
}
