#include "tools/trace_report.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "tools/size_text.h"
#include "trace/read_log.h"

enum {
  LABEL_WIDTH = 26,   // characters
  COLUMN_WIDTH = 14,  // at least
};

//===-- Numbers made of others --------------------------------------------===//

// Small blocks may lie in granules that were taken before: then more is live than was reserved for
// it, and nothing is wasted.
static double fragmentation(const trace_run* run) {
  if (run->peak_reserved_bytes <= run->live_at_peak_bytes) return 0;
  return 1 - (double)run->live_at_peak_bytes / (double)run->peak_reserved_bytes;
}

static double ratio(uint64_t bytes, uint64_t of_bytes) {
  return of_bytes ? (double)bytes / (double)of_bytes : 0;
}

static double ns_per_operation(const trace_run* run) {
  return run->operations ? run->seconds * 1e9 / (double)run->operations : 0;
}

static uint64_t served(const trace_report* r, const trace_run* run) {
  return r->log->allocations - run->result.unserved;
}

//===-- The table ---------------------------------------------------------===//

// Writes one run's cell.
typedef void (*cell)(const trace_report* r, const trace_run* run, char text[SIZE_TEXT_SIZE]);

// Whether a row is there at all.
typedef bool (*condition)(const trace_report* r);

static bool has_capacity(const trace_report* r) { return r->capacity != 0; }

static bool is_repeated(const trace_report* r) { return r->options->repeat > 1; }

static bool tries_failures(const trace_report* r) { return r->options->try_failures; }

static bool has_arena(const trace_report* r) {
  bool has = false;
  for (size_t i = 0; i < r->run_count; i++) has |= r->runs[i].has_arena;
  return has;
}

static bool has_arena_and_capacity(const trace_report* r) {
  return has_arena(r) && has_capacity(r);
}

static void percent_format(double share, char text[SIZE_TEXT_SIZE]) {
  (void)snprintf(text, SIZE_TEXT_SIZE, "%.2f %%", 100 * share);
}

static void cell_served(const trace_report* r, const trace_run* run, char text[SIZE_TEXT_SIZE]) {
  count_format(served(r, run), text);
}
static void cell_unserved(const trace_report* r, const trace_run* run, char text[SIZE_TEXT_SIZE]) {
  (void)r;
  count_format(run->result.unserved, text);
}
static void cell_failures(const trace_report* r, const trace_run* run, char text[SIZE_TEXT_SIZE]) {
  (void)r;
  count_format(run->result.failures_served, text);
}
static void cell_upstream(const trace_report* r, const trace_run* run, char text[SIZE_TEXT_SIZE]) {
  (void)r;
  count_format(run->upstream_calls, text);
}
static void cell_upstream_later(const trace_report* r, const trace_run* run,
                                char text[SIZE_TEXT_SIZE]) {
  (void)r;
  count_format(run->upstream_calls_later, text);
}
static void cell_peak_live(const trace_report* r, const trace_run* run, char text[SIZE_TEXT_SIZE]) {
  (void)r;
  size_format(run->peak_live_bytes, text);
}
static void cell_peak_reserved(const trace_report* r, const trace_run* run,
                               char text[SIZE_TEXT_SIZE]) {
  (void)r;
  size_format(run->peak_reserved_bytes, text);
}
static void cell_live_then(const trace_report* r, const trace_run* run, char text[SIZE_TEXT_SIZE]) {
  (void)r;
  size_format(run->live_at_peak_bytes, text);
}
static void cell_fragmentation(const trace_report* r, const trace_run* run,
                               char text[SIZE_TEXT_SIZE]) {
  (void)r;
  percent_format(fragmentation(run), text);
}
static void cell_ratio(const trace_report* r, const trace_run* run, char text[SIZE_TEXT_SIZE]) {
  (void)r;
  (void)snprintf(text, SIZE_TEXT_SIZE, "-");
  if (!run->live_at_peak_bytes) return;
  (void)snprintf(text, SIZE_TEXT_SIZE, "%.3f",
                 ratio(run->peak_reserved_bytes, run->live_at_peak_bytes));
}
static void cell_reserved_share(const trace_report* r, const trace_run* run,
                                char text[SIZE_TEXT_SIZE]) {
  percent_format(ratio(run->peak_reserved_bytes, r->capacity), text);
}
static void cell_high_water(const trace_report* r, const trace_run* run,
                            char text[SIZE_TEXT_SIZE]) {
  (void)r;
  (void)snprintf(text, SIZE_TEXT_SIZE, "-");
  if (run->has_arena) size_format(run->high_water_bytes, text);
}
static void cell_high_water_share(const trace_report* r, const trace_run* run,
                                  char text[SIZE_TEXT_SIZE]) {
  (void)snprintf(text, SIZE_TEXT_SIZE, "-");
  if (run->has_arena) percent_format(ratio(run->high_water_bytes, r->capacity), text);
}
static void cell_operations(const trace_report* r, const trace_run* run,
                            char text[SIZE_TEXT_SIZE]) {
  (void)r;
  count_format(run->operations, text);
}
static void cell_ns(const trace_report* r, const trace_run* run, char text[SIZE_TEXT_SIZE]) {
  (void)r;
  (void)snprintf(text, SIZE_TEXT_SIZE, "%.1f", ns_per_operation(run));
}
static void cell_seconds(const trace_report* r, const trace_run* run, char text[SIZE_TEXT_SIZE]) {
  (void)r;
  (void)snprintf(text, SIZE_TEXT_SIZE, "%.6f s", run->seconds);
}

static const struct {
  const char* label;
  cell write;
  condition is_there;  // NULL: always
} rows[] = {
    {"allocations served", cell_served, NULL},
    {"  not served", cell_unserved, NULL},
    {"  failed in the log, served", cell_failures, tries_failures},
    {"peak live", cell_peak_live, NULL},
    {"peak reserved", cell_peak_reserved, NULL},
    {"  of the capacity", cell_reserved_share, has_capacity},
    {"  live then", cell_live_then, NULL},
    {"  fragmentation", cell_fragmentation, NULL},
    {"  reserved by live", cell_ratio, NULL},
    {"high-water mark of arenas", cell_high_water, has_arena},
    {"  of the capacity", cell_high_water_share, has_arena_and_capacity},
    {"upstream calls", cell_upstream, NULL},
    {"  in the last pass", cell_upstream_later, is_repeated},
    {"operations", cell_operations, NULL},
    {"ns per operation", cell_ns, NULL},
    {"time", cell_seconds, NULL},
};

static const char* plural(uint64_t count) { return count == 1 ? "" : "s"; }

static void print_log(const trace_report* r) {
  char allocations[SIZE_TEXT_SIZE], frees[SIZE_TEXT_SIZE], failures[SIZE_TEXT_SIZE];
  const allocation_log* log = r->log;
  count_format(log->allocations, allocations);
  count_format(log->frees, frees);
  count_format(log->failures, failures);
  (void)printf("log       %s, of %s\n", r->options->path, log_format_name(log->format));
  (void)printf("events    %s allocation%s, %s free%s, %s failed; %u thread%s, %u stream%s\n",
               allocations, plural(log->allocations), frees, plural(log->frees), failures,
               log->thread_count, plural(log->thread_count), log->stream_count,
               plural(log->stream_count));
}

static const char* order(const trace_options* o, const allocation_log* log) {
  if (log->thread_count == 1) return "the log's";
  if (o->one_thread) return "the log's, on one thread";
  return o->concurrent ? "each thread's own, concurrent" : "the log's, one thread at a time";
}

static void print_header(const trace_report* r) {
  char peak[SIZE_TEXT_SIZE], last[SIZE_TEXT_SIZE], blocks[SIZE_TEXT_SIZE], memory[SIZE_TEXT_SIZE];
  const allocation_log* log = r->log;
  print_log(r);
  size_format(log->peak_live_bytes, peak);
  size_format(log->last_live_bytes, last);
  count_format(log->last_live_blocks, blocks);
  (void)printf("live      at most %s; at the end %s in %s block%s\n", peak, last, blocks,
               plural(log->last_live_blocks));
  if (r->capacity) {
    size_format(r->capacity, memory);
    (void)printf("capacity  %s\n", memory);
  }
  if (r->device) {
    size_format(r->device->memory_bytes, memory);
    (void)printf("device    %s (%s), %s\n", r->device->name, backend_name(), memory);
  }
  (void)printf("order     %s; %llu timed pass%s\n\n", order(r->options, log),
               (unsigned long long)r->options->repeat, r->options->repeat == 1 ? "" : "es");
}

static int column_width(const trace_run* run) {
  const int length = (int)strlen(run->allocators) + (run->failed ? 7 : 0) + 2;
  return length > COLUMN_WIDTH ? length : COLUMN_WIDTH;
}

static void print_names(const trace_report* r) {
  (void)printf("%-*s", LABEL_WIDTH, "");
  for (size_t i = 0; i < r->run_count; i++) {
    const trace_run* run = &r->runs[i];
    const int pad = column_width(run) - (int)strlen(run->allocators) - (run->failed ? 7 : 0);
    (void)printf("%*s%s%s", pad, "", run->allocators, run->failed ? " FAILED" : "");
  }
  (void)printf("\n");
}

static void print_row(const trace_report* r, const char* label, cell write) {
  (void)printf("%-*s", LABEL_WIDTH, label);
  for (size_t i = 0; i < r->run_count; i++) {
    const trace_run* run = &r->runs[i];
    char text[SIZE_TEXT_SIZE] = "-";
    if (!run->failed) write(r, run, text);
    (void)printf("%*s", column_width(run), text);
  }
  (void)printf("\n");
}

void trace_report_table(const trace_report* report) {
  print_header(report);
  print_names(report);
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    if (rows[i].is_there && !rows[i].is_there(report)) continue;
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

static void put_if(json_t* object, const char* key, bool is_known, double value) {
  put(object, key, is_known ? json_real(value) : json_null());
}

static json_t* json_of_lines(const replay_result* result) {
  json_t* lines = json_array();
  for (size_t i = 0; i < REPLAY_LINES && i < result->unserved; i++) {
    (void)json_array_append_new(lines, json_integer((json_int_t)result->lines[i]));
  }
  return lines;
}

static void put_memory(json_t* object, const trace_report* r, const trace_run* run) {
  put_count(object, "peak_live_bytes", run->peak_live_bytes);
  put_count(object, "peak_reserved_bytes", run->peak_reserved_bytes);
  put_count(object, "live_at_peak_bytes", run->live_at_peak_bytes);
  put(object, "fragmentation", json_real(fragmentation(run)));
  put_if(object, "reserved_by_live", run->live_at_peak_bytes != 0,
         ratio(run->peak_reserved_bytes, run->live_at_peak_bytes));
  put_if(object, "reserved_by_capacity", r->capacity != 0,
         ratio(run->peak_reserved_bytes, r->capacity));
  put(object, "high_water_bytes",
      run->has_arena ? json_integer((json_int_t)run->high_water_bytes) : json_null());
}

static json_t* json_of_run(const trace_report* r, const trace_run* run) {
  json_t* object = json_object();
  put(object, "allocators", json_string(run->allocators));
  put(object, "failed", json_boolean(run->failed));
  if (run->message[0]) put(object, "message", json_string(run->message));
  if (run->failed) return object;
  put_count(object, "served", served(r, run));
  put_count(object, "not_served", run->result.unserved);
  put(object, "not_served_lines", json_of_lines(&run->result));
  put_count(object, "failures_served", run->result.failures_served);
  put_memory(object, r, run);
  put_count(object, "upstream_calls", run->upstream_calls);
  put_count(object, "upstream_calls_last_pass", run->upstream_calls_later);
  put_count(object, "operations", run->operations);
  put(object, "ns_per_operation", json_real(ns_per_operation(run)));
  put(object, "seconds", json_real(run->seconds));
  return object;
}

static json_t* json_of_log(const trace_report* r) {
  const allocation_log* log = r->log;
  json_t* object = json_object();
  put(object, "file", json_string(r->options->path));
  put(object, "format", json_string(log_format_name(log->format)));
  put_count(object, "allocations", log->allocations);
  put_count(object, "frees", log->frees);
  put_count(object, "failures", log->failures);
  put_count(object, "threads", log->thread_count);
  put_count(object, "streams", log->stream_count);
  put_count(object, "peak_live_bytes", log->peak_live_bytes);
  put_count(object, "last_live_bytes", log->last_live_bytes);
  put_count(object, "last_live_blocks", log->last_live_blocks);
  return object;
}

static json_t* json_of_device(const backend_device* device) {
  if (!device) return json_null();
  json_t* object = json_object();
  put(object, "backend", json_string(backend_name()));
  put(object, "name", json_string(device->name));
  put_count(object, "memory_bytes", device->memory_bytes);
  return object;
}

bool trace_report_json(const trace_report* r) {
  json_t* root = json_object();
  json_t* runs = json_array();
  if (!root || !runs) {
    json_decref(root);
    json_decref(runs);
    return false;
  }
  put(root, "log", json_of_log(r));
  put(root, "device", json_of_device(r->device));
  put(root, "capacity_bytes", r->capacity ? json_integer((json_int_t)r->capacity) : json_null());
  put(root, "order", json_string(order(r->options, r->log)));
  put_count(root, "repeat", r->options->repeat);
  for (size_t i = 0; i < r->run_count; i++) {
    (void)json_array_append_new(runs, json_of_run(r, &r->runs[i]));
  }
  put(root, "runs", runs);
  const bool is_written = json_dumpf(root, stdout, JSON_INDENT(2)) == 0;
  json_decref(root);
  (void)printf("\n");
  return is_written;
}
