#include "tensor/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

// The letter behind a backslash, and at the same place what it stands for.
static const char escapes[] = "\"\\/bfnrt";
static const char meanings[] = "\"\\/\b\f\n\r\t";

//===-- UTF-8 -------------------------------------------------------------===//

static bool is_surrogate(uint32_t code) { return code >= 0xd800 && code < 0xe000; }

// Bytes of the character that starts at `at`; 0 where none does: cut off, overlong, a surrogate, or
// beyond Unicode.
static size_t utf8_length(const char* at, const char* end) {
  static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  const uint8_t first = (uint8_t)*at;
  const size_t length = first < 0x80   ? 1
                        : first < 0xc0 ? 0
                        : first < 0xe0 ? 2
                        : first < 0xf0 ? 3
                        : first < 0xf8 ? 4
                                       : 0;
  if (length <= 1 || (size_t)(end - at) < length) {
    return length == 1;
  }
  uint32_t code = first & (0x7fu >> length);
  for (size_t i = 1; i < length; i++) {
    const uint8_t next = (uint8_t)at[i];
    if ((next & 0xc0) != 0x80) {
      return 0;
    }
    code = code << 6 | (next & 0x3f);
  }
  return code >= least[length] && code <= 0x10ffff && !is_surrogate(code) ? length : 0;
}

static char* utf8_put(uint32_t code, char* out) {
  if (code < 0x80) {
    *out++ = (char)code;
    return out;
  }
  const int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  static const uint32_t marks[] = {0, 0xc0, 0xe0, 0xf0};
  *out++ = (char)(marks[more] | code >> (6 * more));
  for (int i = more - 1; i >= 0; i--) {
    *out++ = (char)(0x80 | (code >> (6 * i) & 0x3f));
  }
  return out;
}

//===-- Reading -----------------------------------------------------------===//

static bool problem(tm_json* json, const char* text) {
  json->problem = text;
  return false;
}

static void skip_space(tm_json* json) {
  while (json->at < json->end &&
         (*json->at == ' ' || *json->at == '\n' || *json->at == '\r' || *json->at == '\t')) {
    json->at++;
  }
}

bool tm_json_take_(tm_json* json, char c) {
  skip_space(json);
  if (json->at == json->end || *json->at != c) {
    return false;
  }
  json->at++;
  return true;
}

bool tm_json_expect_(tm_json* json, char c) {
  static const char* const problems[][2] = {{"{", "'{' expected"}, {"}", "'}' or ',' expected"},
                                            {"[", "'[' expected"}, {"]", "']' or ',' expected"},
                                            {":", "':' expected"}, {",", "',' expected"}};
  if (tm_json_take_(json, c)) {
    return true;
  }
  for (size_t i = 0; i < sizeof problems / sizeof *problems; i++) {
    if (*problems[i][0] == c) {
      return problem(json, problems[i][1]);
    }
  }
  return problem(json, "another character expected");
}

// The next character; a NUL at the end.
static char peek(const tm_json* json) {
  if (json->at == json->end) {
    return '\0';
  }
  return *json->at;
}

// The four digits of \uXXXX.
static bool take_hex(tm_json* json, uint32_t* out) {
  *out = 0;
  for (int i = 0; i < 4; i++, json->at++) {
    const char c = peek(json);
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
    if (digit < 0) {
      return problem(json, "four hexadecimal digits expected");
    }
    *out = *out << 4 | (uint32_t)digit;
  }
  return true;
}

// What follows \u: one code, or the two halves of one.
static bool take_unicode(tm_json* json, char** out) {
  uint32_t code;
  uint32_t low;
  if (!take_hex(json, &code)) {
    return false;
  }
  if (code == 0) {
    json->is_legal = true;
    return problem(json, "a NUL in a string");
  }
  if (is_surrogate(code)) {
    if (code >= 0xdc00 || json->end - json->at < 2 || json->at[0] != '\\' || json->at[1] != 'u') {
      return problem(json, "half a surrogate pair");
    }
    json->at += 2;
    if (!take_hex(json, &low)) {
      return false;
    }
    if (low < 0xdc00 || low >= 0xe000) {
      return problem(json, "half a surrogate pair");
    }
    code = 0x10000 + ((code - 0xd800) << 10 | (low - 0xdc00));
  }
  *out = utf8_put(code, *out);
  return true;
}

// What follows a backslash.
static bool take_escape(tm_json* json, char** out) {
  const char c = peek(json);
  if (c == 'u') {
    json->at++;
    return take_unicode(json, out);
  }
  const char* const found = c ? strchr(escapes, c) : NULL;
  if (!found) {
    return problem(json, "no such escape");
  }
  json->at++;
  *(*out)++ = meanings[found - escapes];
  return true;
}

bool tm_json_string_(tm_json* json, char* out) {
  if (!tm_json_take_(json, '"')) {
    return problem(json, "a string expected");
  }
  while (json->at < json->end && *json->at != '"') {
    if (*json->at == '\\') {
      json->at++;
      if (!take_escape(json, &out)) {
        return false;
      }
      continue;
    }
    const size_t length = utf8_length(json->at, json->end);
    if (length == 0 || (uint8_t)*json->at < ' ') {
      return problem(json, length ? "a control character in a string" : "no UTF-8");
    }
    memcpy(out, json->at, length);
    out += length;
    json->at += length;
  }
  if (json->at == json->end) {
    return problem(json, "a string without an end");
  }
  json->at++;
  *out = '\0';
  return true;
}

bool tm_json_integer_(tm_json* json, int64_t* out) {
  skip_space(json);
  const char* const first = json->at;
  *out = 0;
  for (; json->at < json->end && *json->at >= '0' && *json->at <= '9'; json->at++) {
    if (__builtin_mul_overflow(*out, 10, out) ||
        __builtin_add_overflow(*out, *json->at - '0', out)) {
      return problem(json, "an integer beyond 2^63 - 1");
    }
  }
  if (json->at == first || (*first == '0' && json->at - first > 1)) {
    return problem(json, "an integer of 0 or more expected");
  }
  return true;
}

bool tm_json_end_(tm_json* json) {
  skip_space(json);
  return json->at == json->end || problem(json, "nothing more expected");
}

//===-- Writing -----------------------------------------------------------===//

static void put_bytes(tm_json_writer* writer, const char* bytes, size_t size) {
  if (writer->text) {
    memcpy(writer->text + writer->size, bytes, size);
  }
  writer->size += size;
}

void tm_json_put_(tm_json_writer* writer, const char* text) {
  put_bytes(writer, text, strlen(text));
}

void tm_json_put_integer_(tm_json_writer* writer, int64_t value) {
  char digits[24];
  snprintf(digits, sizeof digits, "%" PRId64, value);
  tm_json_put_(writer, digits);
}

static void put_character(tm_json_writer* writer, const char* at, size_t length) {
  const char* const found = *at == '/' ? NULL : strchr(meanings, *at);
  char escape[8];
  if (found) {
    snprintf(escape, sizeof escape, "\\%c", escapes[found - meanings]);
  } else if ((uint8_t)*at < ' ') {
    snprintf(escape, sizeof escape, "\\u%04x", (unsigned)*at);
  } else {
    put_bytes(writer, at, length);
    return;
  }
  tm_json_put_(writer, escape);
}

bool tm_json_put_string_(tm_json_writer* writer, const char* text) {
  const char* const end = text + strlen(text);
  tm_json_put_(writer, "\"");
  while (text < end) {
    const size_t length = utf8_length(text, end);
    if (length == 0) {
      return false;
    }
    put_character(writer, text, length);
    text += length;
  }
  tm_json_put_(writer, "\"");
  return true;
}
