#include "trace/minimalloc_log.h"

#include <stdlib.h>
#include <string.h>

#include "trace/array.h"
#include "trace/handle_map.h"
#include "trace/log_builder.h"

enum column {
  COLUMN_ID,
  COLUMN_LOWER,
  COLUMN_UPPER,
  COLUMN_SIZE,
  COLUMNS,
  COLUMN_UNUSED = COLUMNS,
};

enum { MOST_FIELDS = 16 };  // of a line

static const struct {
  const char* name;
  int column;
} column_names[] = {
    {"id", COLUMN_ID},         {"buffer", COLUMN_ID},   {"buffer_id", COLUMN_ID},
    {"lower", COLUMN_LOWER},   {"upper", COLUMN_UPPER}, {"size", COLUMN_SIZE},
    {"offset", COLUMN_UNUSED}, {"hint", COLUMN_UNUSED},
};

enum { COLUMN_NAMES = sizeof(column_names) / sizeof(column_names[0]) };

typedef struct planned_buffer {
  log_field id;
  uint64_t lower;
  uint64_t upper;
  uint64_t bytes;
  uint64_t line;
} planned_buffer;

// One end of a buffer's life.
typedef struct life_end {
  uint64_t time;
  uint32_t buffer;
  bool is_allocation;
} life_end;

typedef struct problem {
  log_text text;
  int columns[MOST_FIELDS];  // what each field is
  size_t column_count;
  planned_buffer* buffers;
  size_t count;
  size_t capacity;
  handle_map ids;  // by their hash
} problem;

typedef unsigned long long ull;  // what printf takes

//===-- The header --------------------------------------------------------===//

// COLUMN_UNUSED + 1 for a name that is not known.
static int column_of(log_field name) {
  for (int i = 0; i < COLUMN_NAMES; i++) {
    if (log_field_is(name, column_names[i].name)) return column_names[i].column;
  }
  return COLUMN_UNUSED + 1;
}

bool minimalloc_log_begins(log_field line) {
  log_field fields[MOST_FIELDS];
  bool has_lower = false;
  bool has_upper = false;
  const size_t count = log_split(line, fields, MOST_FIELDS);
  for (size_t i = 0; i < count && i < MOST_FIELDS; i++) {
    has_lower |= column_of(fields[i]) == COLUMN_LOWER;
    has_upper |= column_of(fields[i]) == COLUMN_UPPER;
  }
  return has_lower && has_upper;
}

static tm_status bad_header(const problem* p, const char* what) {
  return TM_RAISE(TM_ERR_CORRUPT,
                  "%s:%llu: %s; the columns must be id, lower, upper and size, in any order",
                  p->text.file, (ull)p->text.line_number, what);
}

static tm_status read_header(problem* p) {
  log_field fields[MOST_FIELDS];
  unsigned seen = 0;
  if (!log_next_line(&p->text)) return bad_header(p, "there is no header");
  p->column_count = log_split(p->text.line, fields, MOST_FIELDS);
  if (p->column_count > MOST_FIELDS) return bad_header(p, "there are too many columns");
  for (size_t i = 0; i < p->column_count; i++) {
    p->columns[i] = column_of(fields[i]);
    if (p->columns[i] > COLUMN_UNUSED) return bad_header(p, "a column is not known");
    if (p->columns[i] == COLUMN_UNUSED) continue;
    if (seen & 1u << p->columns[i]) return bad_header(p, "a column is there twice");
    seen |= 1u << p->columns[i];
  }
  return seen == (1u << COLUMNS) - 1 ? TM_OK : bad_header(p, "a column is missing");
}

//===-- Buffers -----------------------------------------------------------===//

static tm_status malformed(const problem* p, const char* column, log_field field,
                           const char* wanted) {
  char shown[SHOWN_SIZE];
  return TM_RAISE(TM_ERR_CORRUPT, "%s:%llu: %s must be %s, not '%s'", p->text.file,
                  (ull)p->text.line_number, column, wanted, log_shown(field, shown));
}

static tm_status read_values(const problem* p, const log_field* fields, planned_buffer* out) {
  out->id = fields[COLUMN_ID];
  out->line = p->text.line_number;
  if (!log_decimal(fields[COLUMN_LOWER], INT64_MAX, &out->lower)) {
    return malformed(p, "lower", fields[COLUMN_LOWER], "an integer from 0 to 2^63 - 1");
  }
  if (!log_decimal(fields[COLUMN_UPPER], INT64_MAX, &out->upper) || out->upper <= out->lower) {
    return malformed(p, "upper", fields[COLUMN_UPPER], "an integer above lower, below 2^63");
  }
  if (!log_decimal(fields[COLUMN_SIZE], INT64_MAX, &out->bytes)) {
    return malformed(p, "size", fields[COLUMN_SIZE], "a number of bytes below 2^63");
  }
  return out->id.length ? TM_OK : malformed(p, "id", out->id, "a name");
}

static tm_status read_buffer(const problem* p, planned_buffer* out) {
  log_field fields[MOST_FIELDS] = {{NULL, 0}};
  log_field values[COLUMNS + 1] = {{NULL, 0}};
  *out = (planned_buffer){0};
  const size_t count = log_split(p->text.line, fields, MOST_FIELDS);
  if (count != p->column_count) {
    return TM_RAISE(TM_ERR_CORRUPT, "%s:%llu: %zu columns are expected, not %zu", p->text.file,
                    (ull)p->text.line_number, p->column_count, count);
  }
  for (size_t i = 0; i < count; i++) values[p->columns[i]] = fields[i];
  return read_values(p, values, out);
}

// FNV-1a.
static uint64_t hash(log_field id) {
  uint64_t h = 0xcbf29ce484222325u;
  for (size_t i = 0; i < id.length; i++) h = (h ^ (unsigned char)id.text[i]) * 0x100000001b3u;
  return h;
}

// Of two ids with one hash the first is remembered: equal ids are found but for such an accident.
static tm_status check_id(problem* p, const planned_buffer* buffer) {
  uint32_t* number;
  const log_handle handle = {.value = hash(buffer->id)};
  TM_TRY(handle_map_get(&p->ids, handle, (uint32_t)p->count, &number));
  if (*number == p->count) return TM_OK;
  const planned_buffer* other = &p->buffers[*number];
  if (log_field_equal(other->id, buffer->id)) {
    char shown[SHOWN_SIZE];
    return TM_RAISE(TM_ERR_CORRUPT, "%s:%llu: buffer '%s' is there already, in line %llu",
                    p->text.file, (ull)buffer->line, log_shown(buffer->id, shown),
                    (ull)other->line);
  }
  return TM_OK;
}

static tm_status read_buffers(problem* p) {
  while (log_next_line(&p->text)) {
    planned_buffer buffer;
    TM_TRY(read_buffer(p, &buffer));
    if (p->count >= UINT32_MAX / 2) {
      return TM_RAISE(TM_ERR_CORRUPT, "%s:%llu: more than %zu buffers", p->text.file,
                      (ull)buffer.line, p->count);
    }
    TM_TRY(check_id(p, &buffer));
    TM_TRY(array_make_room((void**)&p->buffers, &p->capacity, p->count, sizeof(buffer),
                           "the buffers of a problem"));
    p->buffers[p->count++] = buffer;
  }
  return TM_OK;
}

//===-- Events ------------------------------------------------------------===//

static int compare(const void* left, const void* right) {
  const life_end* a = left;
  const life_end* b = right;
  if (a->time != b->time) return a->time < b->time ? -1 : 1;
  if (a->is_allocation != b->is_allocation) return a->is_allocation ? 1 : -1;
  return a->buffer < b->buffer ? -1 : a->buffer > b->buffer;
}

static tm_status build_in_order(const problem* p, const life_end* ends, log_builder* builder) {
  log_place place = {0};
  TM_TRY(log_builder_thread(builder, (log_handle){0}, &place.thread));
  TM_TRY(log_builder_stream(builder, (log_handle){0}, &place.stream));
  for (size_t i = 0; i < 2 * p->count; i++) {
    const planned_buffer* buffer = &p->buffers[ends[i].buffer];
    const log_subject subject = {.address = {.value = (uint64_t)ends[i].buffer + 1},
                                 .bytes = buffer->bytes};
    place.line = buffer->line;
    TM_TRY(ends[i].is_allocation ? log_builder_allocate(builder, place, subject)
                                 : log_builder_free(builder, place, subject));
  }
  return TM_OK;
}

static tm_status build(const problem* p, log_builder* builder) {
  if (p->count == 0) return TM_OK;
  life_end* ends = tm_bookkeeping_alloc(2 * p->count * sizeof(*ends), "the events of a problem");
  if (!ends) return tm_last_status();
  for (size_t i = 0; i < p->count; i++) {
    const uint32_t buffer = (uint32_t)i;
    ends[2 * i] = (life_end){p->buffers[i].lower, buffer, true};
    ends[2 * i + 1] = (life_end){p->buffers[i].upper, buffer, false};
  }
  qsort(ends, 2 * p->count, sizeof(*ends), compare);
  const tm_status status = build_in_order(p, ends, builder);
  tm_bookkeeping_free(ends);
  return status;
}

static tm_status parse(problem* p, log_builder* builder, allocation_log* out) {
  TM_TRY(read_header(p));
  TM_TRY(read_buffers(p));
  TM_TRY(build(p, builder));
  return log_builder_finish(builder, LOG_MINIMALLOC, out);
}

tm_status minimalloc_log_parse(const char* text, size_t size, const char* file,
                               allocation_log* out) {
  problem p = {.text = log_text_of(text, size, file)};
  log_builder builder = {.file = file};
  *out = (allocation_log){0};
  const tm_status status = parse(&p, &builder, out);
  log_builder_deinit(&builder);
  handle_map_deinit(&p.ids);
  tm_bookkeeping_free(p.buffers);
  return status;
}

uint64_t minimalloc_capacity_of_name(const char* path) {
  uint64_t capacity = 0;
  const char* slash = strrchr(path, '/');
  const char* name = slash ? slash + 1 : path;
  const char* last = strrchr(name, '.');
  if (!last) return 0;
  const char* first = last;
  while (first > name && first[-1] != '.') first--;
  if (first == name) return 0;
  const log_field number = {.text = first, .length = (size_t)(last - first)};
  return log_decimal(number, INT64_MAX, &capacity) ? capacity : 0;
}
