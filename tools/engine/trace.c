#include "engine/trace.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <tm/tm.h>

enum {
  LONGEST_LINE = 128,     // bytes, line end included
  FIRST_CAPACITY = 1024,  // requests
};

static const char header[] = "TIMESTAMP,ContextTokens,GeneratedTokens";

static const char three_columns[] = "there must be three columns";

// The file while it is read.
typedef struct trace_reader {
  const char* path;
  FILE* file;
  int line;           // of `text`, from 1
  bool ended;         // there was no further line
  int64_t latest_ns;  // the timestamp before
  char text[LONGEST_LINE];
} trace_reader;

//===-- The trace ---------------------------------------------------------===//

static tm_status grow(request_trace* trace) {
  const size_t capacity = trace->capacity ? 2 * trace->capacity : FIRST_CAPACITY;
  trace_request* requests = tm_bookkeeping_alloc(capacity * sizeof(*requests), "a request trace");
  if (!requests) return tm_last_status();
  if (trace->count) memcpy(requests, trace->requests, trace->count * sizeof(*requests));
  tm_bookkeeping_free(trace->requests);
  trace->requests = requests;
  trace->capacity = capacity;
  return TM_OK;
}

tm_status request_trace_append(request_trace* trace, trace_request request) {
  if (trace->count == trace->capacity) {
    TM_TRY(grow(trace));
  }
  trace->requests[trace->count++] = request;
  return TM_OK;
}

void request_trace_deinit(request_trace* trace) {
  tm_bookkeeping_free(trace->requests);
  *trace = (request_trace){0};
}

//===-- Numbers -----------------------------------------------------------===//

// Reads one to `most` digits at `*at`, which moves behind them.
static bool take_digits(const char** at, int most, uint32_t* out) {
  uint32_t value = 0;
  int digits = 0;
  for (; digits < most && isdigit((unsigned char)**at); digits++) {
    value = value * 10 + (uint32_t)(*(*at)++ - '0');
  }
  *out = value;
  return digits > 0;
}

static bool take_char(const char** at, char wanted) { return **at == wanted && *(*at)++; }

static bool take_count(const char** at, uint32_t* out) {
  return take_digits(at, 9, out) && !isdigit((unsigned char)**at);
}

//===-- Timestamps --------------------------------------------------------===//

// Two digits from `low` to `high`, behind `before`.
static bool take_pair(const char** at, char before, uint32_t low, uint32_t high, uint32_t* out) {
  const char* start = *at + 1;
  return take_char(at, before) && take_digits(at, 2, out) && *at == start + 2 && *out >= low &&
         *out <= high;
}

static bool is_leap(uint32_t year) { return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0; }

static uint32_t days_in_month(uint32_t year, uint32_t month) {
  static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  return days[month - 1] + (uint32_t)(month == 2 && is_leap(year));
}

static bool take_date(const char** at, int64_t* days) {
  const char* start = *at;
  uint32_t year, month, day;
  if (!take_digits(at, 4, &year) || *at != start + 4 || year < 1970 ||
      !take_pair(at, '-', 1, 12, &month) ||
      !take_pair(at, '-', 1, days_in_month(year, month), &day)) {
    return false;
  }
  *days = (int64_t)day - 1;
  for (uint32_t m = 1; m < month; m++) *days += days_in_month(year, m);
  for (uint32_t y = 1970; y < year; y++) *days += is_leap(y) ? 366 : 365;
  return true;
}

// Up to nine digits behind a point, as nanoseconds; nothing at all is 0.
static bool take_fraction(const char** at, uint32_t* nanoseconds) {
  *nanoseconds = 0;
  if (!take_char(at, '.')) return true;
  const char* start = *at;
  if (!take_digits(at, 9, nanoseconds)) return false;
  for (long digits = *at - start; digits < 9; digits++) *nanoseconds *= 10;
  return true;
}

static void skip_utc(const char** at) {
  if (!take_char(at, 'Z') && strncmp(*at, "+00:00", 6) == 0) *at += 6;
}

static bool take_timestamp(const char** at, int64_t* out_ns) {
  int64_t days;
  uint32_t hour, minute, second, nanoseconds;
  if (!take_date(at, &days) || !take_pair(at, ' ', 0, 23, &hour) ||
      !take_pair(at, ':', 0, 59, &minute) || !take_pair(at, ':', 0, 60, &second) ||
      !take_fraction(at, &nanoseconds)) {
    return false;
  }
  skip_utc(at);
  *out_ns = (((days * 24 + hour) * 60 + minute) * 60 + second) * 1000000000 + nanoseconds;
  return true;
}

//===-- Lines -------------------------------------------------------------===//

static tm_status malformed(const trace_reader* r, const char* what) {
  return TM_RAISE(TM_ERR_CORRUPT, "%s:%d: %s", r->path, r->line, what);
}

// Reads the next line, without its end.
static tm_status next_line(trace_reader* r) {
  r->line++;
  r->ended = !fgets(r->text, sizeof(r->text), r->file);
  if (r->ended) {
    return ferror(r->file) ? TM_RAISE(TM_ERR_IO, "%s: %s", r->path, strerror(errno)) : TM_OK;
  }
  size_t length = strlen(r->text);
  if ((length == 0 || r->text[length - 1] != '\n') && !feof(r->file)) {
    return malformed(r, "the line is too long, or has a NUL in it");
  }
  while (length > 0 && strchr("\r\n", r->text[length - 1])) r->text[--length] = '\0';
  return TM_OK;
}

static bool ends_column(const char* at) { return *at == ',' || *at == '\0'; }

static tm_status parse_request(trace_reader* r, trace_request* out) {
  const char* at = r->text;
  int64_t now_ns;
  if (!take_timestamp(&at, &now_ns) || !take_char(&at, ',')) {
    return malformed(r, "the timestamp must look like 2023-11-16 18:15:46.6805900");
  }
  if (now_ns < r->latest_ns) {
    return malformed(r, "the timestamp is before the one of the line above");
  }
  if (!take_count(&at, &out->prompt_tokens) || !ends_column(at) || out->prompt_tokens == 0) {
    return malformed(r, "ContextTokens must be an integer from 1 to 999999999");
  }
  if (!take_char(&at, ',')) return malformed(r, three_columns);
  if (!take_count(&at, &out->generated_tokens) || !ends_column(at)) {
    return malformed(r, "GeneratedTokens must be an integer from 0 to 999999999");
  }
  r->latest_ns = now_ns;
  return *at ? malformed(r, three_columns) : TM_OK;
}

static tm_status read_header(trace_reader* r) {
  TM_TRY(next_line(r));
  if (r->ended || strcmp(r->text, header) != 0) {
    return TM_RAISE(TM_ERR_CORRUPT, "%s:1: the first line must be %s", r->path, header);
  }
  return TM_OK;
}

static tm_status read_requests(trace_reader* r, request_trace* trace) {
  TM_TRY(read_header(r));
  for (;;) {
    trace_request request;
    TM_TRY(next_line(r));
    if (r->ended) break;
    TM_TRY(parse_request(r, &request));
    TM_TRY(request_trace_append(trace, request));
  }
  return trace->count ? TM_OK : malformed(r, "there is no request");
}

tm_status request_trace_read(const char* path, request_trace* out) {
  *out = (request_trace){0};
  trace_reader reader = {.path = path, .file = fopen(path, "r")};
  if (!reader.file) {
    return TM_RAISE(errno == ENOENT ? TM_ERR_NOT_FOUND : TM_ERR_IO, "%s: %s", path,
                    strerror(errno));
  }
  const tm_status status = read_requests(&reader, out);
  (void)fclose(reader.file);
  if (status != TM_OK) request_trace_deinit(out);
  return status;
}
