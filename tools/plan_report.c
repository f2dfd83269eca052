#include "tools/plan_report.h"

#include <jansson.h>
#include <stdio.h>
#include <tm/tm.h>

#include "tools/size_text.h"

enum {
  LABEL_WIDTH = 16,  // characters
  COLUMN_WIDTH = 24,
};

//===-- The table ---------------------------------------------------------===//

static void print_bytes(uint64_t bytes) {
  char count[SIZE_TEXT_SIZE];
  char cell[SIZE_TEXT_SIZE + 8];
  count_format(bytes, count);
  (void)snprintf(cell, sizeof cell, "%s B", count);
  (void)printf("%*s", COLUMN_WIDTH, cell);
}

static void print_row(const char* label, uint64_t stack, uint64_t pool) {
  (void)printf("%-*s", LABEL_WIDTH, label);
  print_bytes(stack);
  print_bytes(pool);
  (void)printf("\n");
}

static void print_header(const plan_report* r) {
  char weights[SIZE_TEXT_SIZE], memory[SIZE_TEXT_SIZE], tokens[SIZE_TEXT_SIZE];
  size_format(r->plan.weights, weights);
  size_format(r->device_memory, memory);
  count_format((uint64_t)r->plan.kv_tokens, tokens);
  (void)printf("model     %s, %s of weights in %s\n", r->model, weights,
               tm_dtype_name(r->config->dtype));
  (void)printf("device    %s\n", memory);
  (void)printf("engine    %lld sequences of %lld tokens together, at most %lld tokens in a step\n",
               (long long)r->limits.batch, (long long)r->limits.sequence,
               (long long)r->limits.step_tokens);
  (void)printf("KV cache  %s tokens\n\n", tokens);
}

static void print_plan(const engine_plan* p) {
  (void)printf("%-*s%*s%*s\n", LABEL_WIDTH, "", COLUMN_WIDTH, "stack", COLUMN_WIDTH, "pool");
  print_row("weights", p->weights, p->weights);
  print_row("batches", p->batches, p->batches);
  print_row("KV cache", p->kv_cache, p->kv_cache);
  print_row("activations", p->stack.activations, p->pool.activations);
  print_row("peak", p->stack.peak, p->pool.peak);
  print_row("reserved", p->stack.reserved, p->pool.reserved);
}

static void print_fit(const plan_report* r) {
  const bool fits = plan_report_fits(r);
  const uint64_t reserved = r->plan.stack.reserved;
  char difference[SIZE_TEXT_SIZE];
  size_format(fits ? r->device_memory - reserved : reserved - r->device_memory, difference);
  (void)printf("\nfits             %s: %s %s\n", fits ? "yes" : "NO", difference,
               fits ? "are left" : "are missing");
  (void)printf("largest batch    %lld sequences of %lld tokens\n", (long long)r->largest_batch,
               (long long)r->limits.sequence);
  (void)printf("longest context  %lld tokens in %lld sequences%s\n", (long long)r->longest_sequence,
               (long long)r->limits.batch,
               r->longest_sequence == r->config->max_positions ? ", all that the model takes" : "");
}

void plan_report_table(const plan_report* r) {
  print_header(r);
  print_plan(&r->plan);
  print_fit(r);
}

//===-- JSON --------------------------------------------------------------===//

// Takes the value over. One for which there was no memory (NULL) is left out.
static void put(json_t* object, const char* key, json_t* value) {
  (void)json_object_set_new(object, key, value);
}

static void put_count(json_t* object, const char* key, uint64_t count) {
  put(object, key, json_integer((json_int_t)count));
}

static json_t* json_of_use(const plan_use* use) {
  json_t* object = json_object();
  put_count(object, "activation_bytes", use->activations);
  put_count(object, "peak_bytes", use->peak);
  put_count(object, "reserved_bytes", use->reserved);
  return object;
}

static void put_limits(json_t* root, const plan_report* r) {
  put(root, "model", json_string(r->model));
  put_count(root, "device_memory_bytes", r->device_memory);
  put_count(root, "batch", (uint64_t)r->limits.batch);
  put_count(root, "sequence", (uint64_t)r->limits.sequence);
  put_count(root, "max_tokens", (uint64_t)r->limits.step_tokens);
}

bool plan_report_json(const plan_report* r) {
  json_t* root = json_object();
  if (!root) return false;
  put_limits(root, r);
  put_count(root, "weight_bytes", r->plan.weights);
  put_count(root, "batch_bytes", r->plan.batches);
  put_count(root, "kv_cache_bytes", r->plan.kv_cache);
  put_count(root, "kv_cache_tokens", (uint64_t)r->plan.kv_tokens);
  put(root, "stack", json_of_use(&r->plan.stack));
  put(root, "pool", json_of_use(&r->plan.pool));
  put(root, "fits", json_boolean(plan_report_fits(r)));
  put_count(root, "largest_batch", (uint64_t)r->largest_batch);
  put_count(root, "longest_sequence", (uint64_t)r->longest_sequence);
  const bool is_written = json_dumpf(root, stdout, JSON_INDENT(2)) == 0;
  json_decref(root);
  (void)printf("\n");
  return is_written;
}
