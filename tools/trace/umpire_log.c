#include "trace/umpire_log.h"

#include <jansson.h>
#include <string.h>

#include "trace/array.h"
#include "trace/log_builder.h"

typedef unsigned long long ull;  // what printf takes

// What the old form has announced and not confirmed yet.
typedef struct announcement {
  uint64_t owner;
  uint64_t bytes;
  size_t event;  // a failure, until it is confirmed
  uint32_t thread;
} announcement;

// A reallocation of which the first line was seen, not the second.
typedef struct reallocation {
  log_subject from;
  uint64_t bytes;
  uint64_t line;  // 0: none
} reallocation;

typedef struct umpire_reader {
  log_text text;
  log_builder builder;
  announcement* announced;
  size_t announced_count;
  size_t announced_capacity;
  reallocation* reallocations;  // one per thread
  size_t reallocation_count;
  size_t reallocation_capacity;
} umpire_reader;

// An event in either form.
typedef struct umpire_event {
  const json_t* numbers;  // the objects that hold its arguments
  const json_t* strings;
  const json_t* result;  // NULL: it has none
  bool is_old;
  log_place place;
} umpire_event;

bool umpire_log_begins(log_field line) {
  return line.length > 0 && (line.text[0] == '{' || line.text[0] == '#');
}

//===-- Values ------------------------------------------------------------===//

static tm_status malformed(const umpire_reader* r, const char* key, const char* wanted) {
  return TM_RAISE(TM_ERR_CORRUPT, "%s:%llu: \"%s\" must be %s", r->text.file,
                  (ull)r->text.line_number, key, wanted);
}

static tm_status read_bytes(const umpire_reader* r, const umpire_event* e, uint64_t* out) {
  const json_t* value = json_object_get(e->numbers, "size");
  *out = 0;
  if (!json_is_integer(value) || json_integer_value(value) < 0) {
    return malformed(r, "size", "a number of bytes below 2^63");
  }
  *out = (uint64_t)json_integer_value(value);
  return TM_OK;
}

static tm_status read_handle(const umpire_reader* r, const json_t* object, const char* key,
                             uint64_t* out) {
  const char* text = json_string_value(json_object_get(object, key));
  *out = 0;
  if (!text || !log_hexadecimal((log_field){.text = text, .length = strlen(text)}, out)) {
    return malformed(r, key, "an address such as \"0x7f00\"");
  }
  return TM_OK;
}

static tm_status read_subject(const umpire_reader* r, const umpire_event* e, const json_t* object,
                              const char* key, log_subject* out) {
  *out = (log_subject){.bytes = LOG_SIZE_UNKNOWN};
  out->address.space = e->place.thread;
  TM_TRY(read_handle(r, e->strings, "allocator_ref", &out->owner));
  return read_handle(r, object, key, &out->address.value);
}

//===-- Allocations -------------------------------------------------------===//

static tm_status announce(umpire_reader* r, const umpire_event* e) {
  announcement made = {.thread = e->place.thread};
  TM_TRY(read_bytes(r, e, &made.bytes));
  TM_TRY(read_handle(r, e->strings, "allocator_ref", &made.owner));
  TM_TRY(array_make_room((void**)&r->announced, &r->announced_capacity, r->announced_count,
                         sizeof(made), "the announcements of a log"));
  TM_TRY(log_builder_fail(&r->builder, e->place, made.bytes, &made.event));
  r->announced[r->announced_count++] = made;
  return TM_OK;
}

// The latest equal one: what failed is tried again later, not earlier.
static void confirm(umpire_reader* r, const umpire_event* e, const log_subject* s) {
  for (size_t i = r->announced_count; i-- > 0;) {
    const announcement* a = &r->announced[i];
    if (a->thread != e->place.thread || a->owner != s->owner || a->bytes != s->bytes) continue;
    log_builder_withdraw(&r->builder, a->event);
    r->announced_count--;
    memmove(&r->announced[i], &r->announced[i + 1],
            (r->announced_count - i) * sizeof(announcement));
    return;
  }
}

static tm_status take_allocate(umpire_reader* r, const umpire_event* e) {
  log_subject subject;
  if (e->is_old && !e->result) return announce(r, e);
  TM_TRY(e->is_old ? read_subject(r, e, e->result, "memory_ptr", &subject)
                   : read_subject(r, e, e->strings, "pointer", &subject));
  TM_TRY(read_bytes(r, e, &subject.bytes));
  if (e->is_old) confirm(r, e, &subject);
  return log_builder_allocate(&r->builder, e->place, subject);
}

static tm_status take_deallocate(umpire_reader* r, const umpire_event* e) {
  log_subject subject;
  TM_TRY(read_subject(r, e, e->strings, e->is_old ? "memory_ptr" : "pointer", &subject));
  return log_builder_free(&r->builder, e->place, subject);
}

//===-- Reallocations -----------------------------------------------------===//

static tm_status reallocation_of(umpire_reader* r, uint32_t thread, reallocation** out) {
  *out = NULL;
  while (r->reallocation_count <= thread) {
    TM_TRY(array_make_room((void**)&r->reallocations, &r->reallocation_capacity,
                           r->reallocation_count, sizeof(reallocation),
                           "the reallocations of a log"));
    r->reallocations[r->reallocation_count++] = (reallocation){0};
  }
  *out = &r->reallocations[thread];
  return TM_OK;
}

static tm_status begin_reallocation(umpire_reader* r, const umpire_event* e, reallocation* now) {
  reallocation begun = {.line = e->place.line};
  TM_TRY(read_bytes(r, e, &begun.bytes));
  TM_TRY(read_subject(r, e, e->strings, e->is_old ? "ptr" : "current_ptr", &begun.from));
  *now = begun;
  return TM_OK;
}

static tm_status end_reallocation(umpire_reader* r, const umpire_event* e, reallocation* now) {
  log_subject to;
  uint64_t line;
  TM_TRY(e->is_old ? read_subject(r, e, e->result, "memory_ptr", &to)
                   : read_subject(r, e, e->strings, "new_ptr", &to));
  if (!now->line) {
    return TM_RAISE(TM_ERR_CORRUPT, "%s:%llu: a reallocation ends, but none began", r->text.file,
                    (ull)e->place.line);
  }
  const reallocation done = *now;
  *now = (reallocation){0};
  to.bytes = done.bytes;
  TM_TRY(log_builder_find(&r->builder, to.address, &line));
  if (line > done.line) return TM_OK;  // the lines between have said it all
  return done.from.address.value ? log_builder_move(&r->builder, e->place, done.from, to)
                                 : log_builder_allocate(&r->builder, e->place, to);
}

static tm_status take_reallocate(umpire_reader* r, const umpire_event* e) {
  reallocation* now;
  TM_TRY(reallocation_of(r, e->place.thread, &now));
  const bool is_end =
      e->is_old ? e->result != NULL : json_object_get(e->strings, "new_ptr") != NULL;
  return is_end ? end_reallocation(r, e, now) : begin_reallocation(r, e, now);
}

//===-- Events ------------------------------------------------------------===//

static const struct {
  const char* name;
  tm_status (*take)(umpire_reader* r, const umpire_event* e);
} events[] = {
    {"allocate", take_allocate},
    {"deallocate", take_deallocate},
    {"reallocate", take_reallocate},
};

enum { EVENTS = sizeof(events) / sizeof(events[0]) };

static tm_status take_event(umpire_reader* r, const char* name, const umpire_event* e) {
  for (int i = 0; i < EVENTS; i++) {
    if (strcmp(name, events[i].name) == 0) return events[i].take(r, e);
  }
  return TM_OK;
}

static tm_status find_place(umpire_reader* r, const json_t* root, umpire_event* e) {
  const json_t* uid = json_object_get(root, "uid");
  const log_handle process = {.value = (uint64_t)json_integer_value(uid)};
  if (uid && !json_is_integer(uid)) return malformed(r, "uid", "an integer");
  e->place.line = r->text.line_number;
  TM_TRY(log_builder_thread(&r->builder, process, &e->place.thread));
  return log_builder_stream(&r->builder, (log_handle){.space = e->place.thread}, &e->place.stream);
}

static tm_status take_old(umpire_reader* r, const json_t* root, const json_t* name) {
  const json_t* payload = json_object_get(root, "payload");
  const char* kind = json_string_value(json_object_get(root, "kind"));
  umpire_event e = {
      .numbers = payload,
      .strings = payload,
      .result = json_object_get(root, "result"),
      .is_old = true,
  };
  if (!kind) return malformed(r, "kind", "a string");
  if (strcmp(kind, "replay") != 0) return TM_OK;
  if (!json_is_string(name)) return malformed(r, "event", "a string");
  if (!json_is_object(payload)) return malformed(r, "payload", "an object");
  TM_TRY(find_place(r, root, &e));
  return take_event(r, json_string_value(name), &e);
}

static tm_status take_new(umpire_reader* r, const json_t* root) {
  const char* category = json_string_value(json_object_get(root, "category"));
  const char* name = json_string_value(json_object_get(root, "name"));
  umpire_event e = {
      .numbers = json_object_get(root, "numeric_args"),
      .strings = json_object_get(root, "string_args"),
  };
  if (!category) return malformed(r, "category", "a string");
  if (strcmp(category, "operation") != 0) return TM_OK;
  if (!name) return malformed(r, "name", "a string");
  if (e.strings && !json_is_object(e.strings)) return malformed(r, "string_args", "an object");
  TM_TRY(find_place(r, root, &e));
  return take_event(r, name, &e);
}

static tm_status take_object(umpire_reader* r, const json_t* root) {
  if (!json_is_object(root)) {
    return TM_RAISE(TM_ERR_CORRUPT, "%s:%llu: the line is no JSON object", r->text.file,
                    (ull)r->text.line_number);
  }
  const json_t* event = json_object_get(root, "event");
  const bool is_old = event || json_object_get(root, "kind");
  return is_old ? take_old(r, root, event) : take_new(r, root);
}

//===-- Lines -------------------------------------------------------------===//

static tm_status take_line(umpire_reader* r) {
  json_error_t error;
  const log_field line = r->text.line;
  json_t* root = json_loadb(line.text, line.length, JSON_REJECT_DUPLICATES, &error);
  if (!root) {
    const bool is_out = json_error_code(&error) == json_error_out_of_memory;
    return TM_RAISE(is_out ? TM_ERR_NO_MEMORY : TM_ERR_CORRUPT, "%s:%llu: column %d: %s",
                    r->text.file, (ull)r->text.line_number, error.column, error.text);
  }
  const tm_status status = take_object(r, root);
  json_decref(root);
  return status;
}

static tm_status take_lines(umpire_reader* r) {
  while (log_next_line(&r->text)) {
    if (r->text.line.text[0] == '#') continue;
    TM_TRY(take_line(r));
  }
  return TM_OK;
}

tm_status umpire_log_parse(const char* text, size_t size, const char* file, allocation_log* out) {
  umpire_reader r = {.text = log_text_of(text, size, file), .builder = {.file = file}};
  *out = (allocation_log){0};
  tm_status status = take_lines(&r);
  if (status == TM_OK) status = log_builder_finish(&r.builder, LOG_UMPIRE, out);
  log_builder_deinit(&r.builder);
  tm_bookkeeping_free(r.announced);
  tm_bookkeeping_free(r.reallocations);
  return status;
}
