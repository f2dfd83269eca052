#include "tools/size_text.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

// The bytes of a unit, 0 for what is none.
static uint64_t unit_bytes(const char* unit) {
  static const char letters[] = "KMGT";
  if (*unit == '\0' || strcmp(unit, "B") == 0) return 1;
  const char* letter = strchr(letters, unit[0]);
  const bool is_decimal = strcmp(unit + 1, "B") == 0;
  if (!letter || (unit[1] != '\0' && !is_decimal && strcmp(unit + 1, "iB") != 0)) return 0;
  uint64_t bytes = 1;
  for (const char* l = letters; l <= letter; l++) bytes *= is_decimal ? 1000 : 1024;
  return bytes;
}

// Digits at `*at`, which moves behind them; false where there is none or they exceed 64 bits.
// `scale`, unless it is NULL, is multiplied by 10 for each.
static bool take_digits(const char** at, uint64_t* value, uint64_t* scale) {
  const char* start = *at;
  for (; isdigit((unsigned char)**at); (*at)++) {
    if (__builtin_mul_overflow(*value, 10, value) ||
        __builtin_add_overflow(*value, (uint64_t)(**at - '0'), value) ||
        (scale && __builtin_mul_overflow(*scale, 10, scale))) {
      return false;
    }
  }
  return *at != start;
}

bool size_parse(const char* text, uint64_t* out) {
  *out = 0;
  uint64_t value = 0;
  uint64_t scale = 1;  // what `value` is to be divided by
  if (!take_digits(&text, &value, NULL)) return false;
  if (*text == '.') {
    text++;
    if (!take_digits(&text, &value, &scale)) return false;
  }
  if (*text == ' ') text++;
  const uint64_t unit = unit_bytes(text);
  uint64_t bytes;
  if (unit == 0 || __builtin_mul_overflow(value, unit, &bytes) || bytes % scale != 0 ||
      bytes / scale > INT64_MAX) {
    return false;
  }
  *out = bytes / scale;
  return true;
}

bool count_parse(const char* text, uint64_t largest, uint64_t* out) {
  uint64_t value = 0;
  *out = 0;
  if (!take_digits(&text, &value, NULL) || *text != '\0' || value > largest) return false;
  *out = value;
  return true;
}

void size_format(uint64_t bytes, char text[SIZE_TEXT_SIZE]) {
  static const char* const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = (double)bytes;
  size_t unit = 0;
  for (; value >= 1024; unit++) value /= 1024;
  (void)snprintf(text, SIZE_TEXT_SIZE, unit == 0 ? "%.0f %s" : "%.2f %s", value, units[unit]);
}

void count_format(uint64_t count, char text[SIZE_TEXT_SIZE]) {
  char digits[SIZE_TEXT_SIZE];
  const int length = snprintf(digits, sizeof(digits), "%llu", (unsigned long long)count);
  char* to = text;
  for (int i = 0; i < length; i++) {
    if (i > 0 && (length - i) % 3 == 0) *to++ = ',';
    *to++ = digits[i];
  }
  *to = '\0';
}
