#include "trace/rmm_log.h"

#include <string.h>

#include "trace/log_builder.h"

enum column {
  COLUMN_THREAD,
  COLUMN_TIME,
  COLUMN_ACTION,
  COLUMN_POINTER,
  COLUMN_SIZE,
  COLUMN_STREAM,
  COLUMNS,
};

static const char* const column_names[COLUMNS] = {"Thread",  "Time", "Action",
                                                  "Pointer", "Size", "Stream"};

static const struct {
  const char* name;
  log_event_kind kind;
} actions[] = {
    {"allocate", LOG_ALLOCATE},
    {"free", LOG_FREE},
    {"deallocate", LOG_FREE},
    {"allocate failure", LOG_FAILURE},
};

enum { ACTIONS = sizeof(actions) / sizeof(actions[0]) };

// A row as it is read.
typedef struct rmm_row {
  log_event_kind kind;
  log_place place;
  log_subject subject;
} rmm_row;

// The per-thread default stream is another queue on every thread.
static const uint64_t per_thread_stream = 2;

bool rmm_log_begins(log_field line) {
  log_field fields[COLUMNS];
  if (log_split(line, fields, COLUMNS) != COLUMNS) return false;
  for (int i = 0; i < COLUMNS; i++) {
    if (!log_field_is(fields[i], column_names[i])) return false;
  }
  return true;
}

//===-- Fields ------------------------------------------------------------===//

static tm_status malformed(const log_text* text, int column, log_field field, const char* wanted) {
  char shown[SHOWN_SIZE];
  return TM_RAISE(TM_ERR_CORRUPT, "%s:%llu: %s must be %s, not '%s'", text->file,
                  (unsigned long long)text->line_number, column_names[column], wanted,
                  log_shown(field, shown));
}

static tm_status read_action(const log_text* text, log_field field, log_event_kind* out) {
  for (int i = 0; i < ACTIONS; i++) {
    if (log_field_is(field, actions[i].name)) {
      *out = actions[i].kind;
      return TM_OK;
    }
  }
  return malformed(text, COLUMN_ACTION, field, "allocate, free or 'allocate failure'");
}

// A decimal number, and what is none of those in hexadecimal.
static bool read_thread(log_field field, uint64_t* out) {
  return log_decimal(field, UINT64_MAX, out) || log_hexadecimal(field, out);
}

// Times are not used: this finds rows whose columns are not what the header says.
static bool is_time(log_field field) {
  for (size_t i = 0; i < field.length; i++) {
    const char c = field.text[i];
    if (c == '\0' || !strchr("0123456789:.-+TZ ", c)) return false;
  }
  return field.length > 0;
}

static tm_status read_place(const log_text* text, const log_field* fields, log_builder* builder,
                            log_place* out) {
  log_handle thread = {0};
  log_handle stream = {0};
  out->line = text->line_number;
  if (!read_thread(fields[COLUMN_THREAD], &thread.value)) {
    return malformed(text, COLUMN_THREAD, fields[COLUMN_THREAD], "a thread's number");
  }
  if (!log_hexadecimal(fields[COLUMN_STREAM], &stream.value)) {
    return malformed(text, COLUMN_STREAM, fields[COLUMN_STREAM], "a stream such as 0x0");
  }
  TM_TRY(log_builder_thread(builder, thread, &out->thread));
  if (stream.value == per_thread_stream) stream.space = 1 + out->thread;
  return log_builder_stream(builder, stream, &out->stream);
}

static tm_status read_row(const log_text* text, log_builder* builder, rmm_row* out) {
  log_field fields[COLUMNS];
  *out = (rmm_row){0};
  const size_t count = log_split(text->line, fields, COLUMNS);
  if (count != COLUMNS) {
    return TM_RAISE(TM_ERR_CORRUPT, "%s:%llu: %d columns are expected, not %zu", text->file,
                    (unsigned long long)text->line_number, COLUMNS, count);
  }
  if (!is_time(fields[COLUMN_TIME])) {
    return malformed(text, COLUMN_TIME, fields[COLUMN_TIME], "a time such as 10:31:07.112233");
  }
  TM_TRY(read_action(text, fields[COLUMN_ACTION], &out->kind));
  if (!log_hexadecimal(fields[COLUMN_POINTER], &out->subject.address.value)) {
    return malformed(text, COLUMN_POINTER, fields[COLUMN_POINTER], "an address such as 0x7f00");
  }
  if (!log_decimal(fields[COLUMN_SIZE], INT64_MAX, &out->subject.bytes)) {
    return malformed(text, COLUMN_SIZE, fields[COLUMN_SIZE], "a number of bytes below 2^63");
  }
  return read_place(text, fields, builder, &out->place);
}

//===-- Rows --------------------------------------------------------------===//

static tm_status take_row(log_builder* builder, const rmm_row* row) {
  switch (row->kind) {
    case LOG_ALLOCATE:
      return log_builder_allocate(builder, row->place, row->subject);
    case LOG_FREE:
      return log_builder_free(builder, row->place, row->subject);
    default:
      return log_builder_fail(builder, row->place, row->subject.bytes, NULL);
  }
}

static tm_status read_rows(log_text* text, log_builder* builder) {
  if (!log_next_line(text) || !rmm_log_begins(text->line)) {
    return TM_RAISE(TM_ERR_CORRUPT,
                    "%s:%llu: the first line must be Thread,Time,Action,Pointer,Size,Stream",
                    text->file, (unsigned long long)text->line_number);
  }
  while (log_next_line(text)) {
    rmm_row row;
    TM_TRY(read_row(text, builder, &row));
    TM_TRY(take_row(builder, &row));
  }
  return TM_OK;
}

tm_status rmm_log_parse(const char* text, size_t size, const char* file, allocation_log* out) {
  log_text lines = log_text_of(text, size, file);
  log_builder builder = {.file = file};
  *out = (allocation_log){0};
  tm_status status = read_rows(&lines, &builder);
  if (status == TM_OK) status = log_builder_finish(&builder, LOG_RMM, out);
  log_builder_deinit(&builder);
  return status;
}
