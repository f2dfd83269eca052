#include "trace/log_text.h"

#include <ctype.h>
#include <string.h>

//===-- Lines -------------------------------------------------------------===//

log_text log_text_of(const char* text, size_t size, const char* file) {
  static const char mark[] = {'\xef', '\xbb', '\xbf'};
  const size_t skipped =
      size >= sizeof(mark) && memcmp(text, mark, sizeof(mark)) == 0 ? sizeof(mark) : 0;
  return (log_text){.file = file, .at = text + skipped, .end = text + size};
}

static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

static log_field without_blanks(log_field field) {
  while (field.length && is_blank(field.text[0])) {
    field.text++;
    field.length--;
  }
  while (field.length && is_blank(field.text[field.length - 1])) field.length--;
  return field;
}

bool log_next_line(log_text* text) {
  while (text->at < text->end) {
    const char* end = memchr(text->at, '\n', (size_t)(text->end - text->at));
    if (!end) end = text->end;
    text->line = without_blanks((log_field){.text = text->at, .length = (size_t)(end - text->at)});
    text->at = end < text->end ? end + 1 : end;
    text->line_number++;
    if (text->line.length) return true;
  }
  text->line = (log_field){.text = text->end};
  if (text->line_number == 0) text->line_number = 1;
  return false;
}

//===-- Fields ------------------------------------------------------------===//

size_t log_split(log_field line, log_field* fields, size_t most) {
  size_t count = 0;
  for (;;) {
    const char* comma = line.length ? memchr(line.text, ',', line.length) : NULL;
    const size_t length = comma ? (size_t)(comma - line.text) : line.length;
    if (count < most) {
      fields[count] = without_blanks((log_field){.text = line.text, .length = length});
    }
    count++;
    if (!comma) return count;
    line = (log_field){.text = comma + 1, .length = line.length - length - 1};
  }
}

bool log_field_is(log_field field, const char* word) {
  return field.length == strlen(word) && memcmp(field.text, word, field.length) == 0;
}

bool log_field_equal(log_field a, log_field b) {
  return a.length == b.length && (a.length == 0 || memcmp(a.text, b.text, a.length) == 0);
}

const char* log_shown(log_field field, char text[SHOWN_SIZE]) {
  size_t length = field.length < SHOWN_SIZE ? field.length : SHOWN_SIZE - 1;
  for (size_t i = 0; i < length; i++) {
    text[i] = (char)(isprint((unsigned char)field.text[i]) ? field.text[i] : '?');
  }
  if (length < field.length) memcpy(text + length - 3, "...", 3);
  text[length] = '\0';
  return text;
}

//===-- Numbers -----------------------------------------------------------===//

// The value of a digit, or 16.
static unsigned digit(char c) {
  if (c >= '0' && c <= '9') return (unsigned)(c - '0');
  if (c >= 'a' && c <= 'f') return (unsigned)(c - 'a') + 10;
  if (c >= 'A' && c <= 'F') return (unsigned)(c - 'A') + 10;
  return 16;
}

static bool digits(log_field field, unsigned base, uint64_t largest, uint64_t* out) {
  uint64_t value = 0;
  *out = 0;
  for (size_t i = 0; i < field.length; i++) {
    const unsigned d = digit(field.text[i]);
    if (d >= base || __builtin_mul_overflow(value, (uint64_t)base, &value) ||
        __builtin_add_overflow(value, (uint64_t)d, &value)) {
      return false;
    }
  }
  if (field.length == 0 || value > largest) return false;
  *out = value;
  return true;
}

bool log_decimal(log_field field, uint64_t largest, uint64_t* out) {
  return digits(field, 10, largest, out);
}

bool log_hexadecimal(log_field field, uint64_t* out) {
  *out = 0;
  if (log_field_is(field, "(nil)") || log_field_is(field, "nullptr")) return true;
  if (field.length > 2 && field.text[0] == '0' && (field.text[1] == 'x' || field.text[1] == 'X')) {
    field = (log_field){.text = field.text + 2, .length = field.length - 2};
  }
  return digits(field, 16, UINT64_MAX, out);
}
