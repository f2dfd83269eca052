#include "tm/check.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tm/base/text.h"
#include "tm/base/thread.h"

enum {
  STRING_SHOWN = 96,                     // bytes of a string that a message shows
  OPERAND_SIZE = 4 * STRING_SHOWN + 64,  // bytes, with all of them escaped
  MESSAGE_SIZE = 256,                    // bytes of the caller's own message
  PAGE_SIZE = 4096,                      // bytes that can be read together, or a part of them
};

//===-- Comparing ---------------------------------------------------------===//

enum { UNORDERED = 2 };

static int order_unsigned(uint64_t a, uint64_t b) { return (a > b) - (a < b); }

static bool is_float(const tm_operand* operand) {
  return operand->kind >= TM_OPERAND_FLOAT && operand->kind <= TM_OPERAND_LONG_DOUBLE;
}

static long double as_float(const tm_operand* operand) {
  long double value;
  switch (operand->kind) {
    case TM_OPERAND_SIGNED:
    case TM_OPERAND_CHAR:
      return (long double)operand->value.as_signed;
    case TM_OPERAND_UNSIGNED:
    case TM_OPERAND_BOOL:
      return (long double)operand->value.as_unsigned;
    case TM_OPERAND_FLOAT:
    case TM_OPERAND_DOUBLE:
      return (long double)operand->value.as_double;
    case TM_OPERAND_LONG_DOUBLE:
      memcpy(&value, operand->value.as_long_double, sizeof value);
      return value;
    default:
      return (long double)(uintptr_t)operand->value.as_pointer;
  }
}

static uint64_t as_address(const tm_operand* operand) {
  return tm_operand_is_integer_(operand) ? operand->value.as_unsigned
                                         : (uint64_t)(uintptr_t)operand->value.as_pointer;
}

// NULL where there is no string; a string_view of nothing is an empty one.
static const char* string_at(const tm_operand* operand) {
  const char* chars = (const char*)operand->value.as_pointer;
  return chars || operand->kind == TM_OPERAND_CHARS ? chars : "";
}

// By their bytes; NULL comes before every string.
static int order_strings(const tm_operand* a, const tm_operand* b) {
  const char* x = string_at(a);
  const char* y = string_at(b);
  if (!x || !y) {
    return (x != NULL) - (y != NULL);
  }
  const size_t x_size = a->kind == TM_OPERAND_STRING ? a->size : strlen(x);
  const size_t y_size = b->kind == TM_OPERAND_STRING ? b->size : strlen(y);
  const int order = memcmp(x, y, x_size < y_size ? x_size : y_size);
  return order ? (order > 0) - (order < 0) : order_unsigned(x_size, y_size);
}

static bool may_be_string(const tm_operand* operand) {
  return operand->kind == TM_OPERAND_STRING || operand->kind == TM_OPERAND_CHARS;
}

int tm_operands_order_(const tm_operand* a, const tm_operand* b) {
  if (is_float(a) || is_float(b)) {
    const long double x = as_float(a);
    const long double y = as_float(b);
    return isnan(x) || isnan(y) ? UNORDERED : (x > y) - (x < y);
  }
  const bool has_string = a->kind == TM_OPERAND_STRING || b->kind == TM_OPERAND_STRING;
  if (has_string && may_be_string(a) && may_be_string(b)) {
    return order_strings(a, b);
  }
  return order_unsigned(as_address(a), as_address(b));
}

bool tm_strings_equal_(const tm_operand* a, const tm_operand* b) {
  return order_strings(a, b) == 0;
}

//===-- Showing operands --------------------------------------------------===//

static void add_escaped(tm_text* text, char c) {
  static const char hex[] = "0123456789abcdef";
  static const char named[] = "\n\t\r\"\\";
  const char* found = c ? strchr(named, c) : NULL;
  if (found) {
    const char escape[] = {'\\', "ntr\"\\"[found - named]};
    tm_text_add_(text, escape, sizeof escape);
  } else if ((unsigned char)c < 0x20 || c == 0x7f) {
    const char escape[] = {'\\', 'x', hex[(unsigned char)c >> 4], hex[c & 15]};
    tm_text_add_(text, escape, sizeof escape);
  } else {
    tm_text_add_(text, &c, 1);
  }
}

// Copies a string's first bytes, up to `size` or its NUL, page by page; false where it goes on in
// memory that cannot be read.
static bool read_chars(const char* from, size_t size, bool to_nul, char* out, size_t* length) {
  *length = 0;
  while (*length < size) {
    const char* at = from + *length;
    const size_t in_page = PAGE_SIZE - (uintptr_t)at % PAGE_SIZE;
    const size_t left = size - *length;
    const size_t piece = left < in_page ? left : in_page;
    if (!tm_read_memory_(at, out + *length, piece)) {
      return false;
    }
    const char* nul = to_nul ? memchr(out + *length, '\0', piece) : NULL;
    if (nul) {
      *length = (size_t)(nul - out);
      return true;
    }
    *length += piece;
  }
  return true;
}

static void add_quoted(tm_text* text, const char* chars, size_t size, bool to_nul) {
  char bytes[STRING_SHOWN + 1];
  size_t length;
  if (!read_chars(chars, size < sizeof bytes ? size : sizeof bytes, to_nul, bytes, &length)) {
    tm_text_add_string_(text, "(unreadable)");
    return;
  }
  const bool whole = length <= STRING_SHOWN;
  tm_text_add_(text, "\"", 1);
  for (size_t i = 0; i < length && i < STRING_SHOWN; i++) {
    add_escaped(text, bytes[i]);
  }
  tm_text_add_string_(text, whole ? "\"" : "\"...");
}

static void add_double(tm_text* text, double value, bool is_single) {
  char digits[64];
  const int most = is_single ? 9 : 17;
  for (int precision = is_single ? 6 : 15; precision <= most; precision++) {
    snprintf(digits, sizeof digits, "%.*g", precision, value);
    const double back = is_single ? (double)strtof(digits, NULL) : strtod(digits, NULL);
    if (back == value) break;
  }
  tm_text_add_string_(text, digits);
}

static void add_char(tm_text* text, char c) {
  char code[16];
  tm_text_add_(text, "'", 1);
  add_escaped(text, c);
  snprintf(code, sizeof code, "' (%d)", c);
  tm_text_add_string_(text, code);
}

static void add_pointer(tm_text* text, const tm_operand* operand) {
  char address[32];
  const void* pointer = (const void*)operand->value.as_pointer;
  snprintf(address, sizeof address, pointer ? "%p" : "NULL", pointer);
  tm_text_add_string_(text, address);
  if (operand->kind == TM_OPERAND_CHARS && pointer) {
    tm_text_add_(text, " ", 1);
    add_quoted(text, pointer, STRING_SHOWN + 1, true);
  }
}

static void add_operand(tm_text* text, const tm_operand* operand) {
  char digits[64];
  switch (operand->kind) {
    case TM_OPERAND_SIGNED:
      snprintf(digits, sizeof digits, "%" PRId64, operand->value.as_signed);
      break;
    case TM_OPERAND_UNSIGNED:
      snprintf(digits, sizeof digits, "%" PRIu64, operand->value.as_unsigned);
      break;
    case TM_OPERAND_LONG_DOUBLE:
      snprintf(digits, sizeof digits, "%.21Lg", as_float(operand));
      break;
    case TM_OPERAND_BOOL:
      tm_text_add_string_(text, operand->value.as_unsigned ? "true" : "false");
      return;
    case TM_OPERAND_CHAR:
      add_char(text, (char)operand->value.as_signed);
      return;
    case TM_OPERAND_FLOAT:
    case TM_OPERAND_DOUBLE:
      add_double(text, operand->value.as_double, operand->kind == TM_OPERAND_FLOAT);
      return;
    case TM_OPERAND_POINTER:
    case TM_OPERAND_CHARS:
      add_pointer(text, operand);
      return;
    case TM_OPERAND_STRING:
      add_quoted(text, (const char*)operand->value.as_pointer, operand->size, false);
      return;
  }
  tm_text_add_string_(text, digits);
}

static void show_operand(const tm_operand* operand, char* shown, size_t size) {
  tm_text text = tm_text_of_(shown, size);
  add_operand(&text, operand);
  tm_text_finish_(&text);
}

//===-- Failing -----------------------------------------------------------===//

// The caller's message behind ": "; nothing where it has none.
static void show_message(char* shown, size_t size, const char* format, va_list arguments) {
  const int length = vsnprintf(shown + 1, size - 1, format, arguments);
  shown[0] = ':';
  if (length <= 1) {
    shown[0] = '\0';  // only the space that every format starts with
  }
}

static const char* sign_of(tm_comparison comparison) {
  static const char* const signs[] = {"", " == ", " != ", " < ", " <= ", " > ", " >= "};
  switch (comparison) {
    case TM_STREQ:
      return " has the text of ";
    case TM_STRNE:
      return " has not the text of ";
    default:
      return signs[comparison];
  }
}

void tm_check_failed_(const char* file, int line, const char* expression, tm_comparison comparison,
                      const tm_operand* a, const tm_operand* b, const char* format, ...) {
  char message[MESSAGE_SIZE];
  va_list arguments;
  va_start(arguments, format);
  show_message(message, sizeof message, format, arguments);
  va_end(arguments);
  const char* other = comparison == TM_TRUE_ ? "" : expression + strlen(expression) + 1;
  if (!a) {
    tm_fatal_(file, line, "check failed: %s%s%s%s", expression, sign_of(comparison), other,
              message);
  }
  char left[OPERAND_SIZE];
  char right[OPERAND_SIZE];
  show_operand(a, left, sizeof left);
  show_operand(b, right, sizeof right);
  tm_fatal_(file, line, "check failed: %s%s%s (%s vs %s)%s", expression, sign_of(comparison), other,
            left, right, message);
}

void tm_check_status_failed_(const char* file, int line, const char* expression, tm_status status,
                             const char* format, ...) {
  char message[MESSAGE_SIZE];
  va_list arguments;
  va_start(arguments, format);
  show_message(message, sizeof message, format, arguments);
  va_end(arguments);
  const tm_error* error = tm_last_error();
  tm_fatal_(file, line, "check failed: %s is %s: %s%s", expression, tm_status_name(status),
            error->code == status ? error->message : "(no message on this thread)", message);
}
