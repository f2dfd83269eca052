// Text appended piece by piece to a buffer, without stdio: for what must be quick, must not
// allocate and must hold in signal handlers. Private.
#ifndef TM_BASE_TEXT_H_
#define TM_BASE_TEXT_H_

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

// A buffer being filled. It always has room for the terminating NUL, which tm_text_finish_ writes.
typedef struct tm_text {
  char* start;
  size_t used;   // bytes
  size_t limit;  // bytes that may be used
  bool cut;      // something did not fit
} tm_text;

// `size` includes the terminating NUL and is at least 1.
static inline tm_text tm_text_of_(char* buffer, size_t size) {
  return (tm_text){.start = buffer, .used = 0, .limit = size - 1, .cut = false};
}

// In the common case the length is what it was: one that is known is no call of memcpy.
static inline void tm_text_add_(tm_text* text, const char* piece, size_t length) {
  const size_t room = text->limit - text->used;
  if (length <= room) {
    memcpy(text->start + text->used, piece, length);
    text->used += length;
  } else {
    memcpy(text->start + text->used, piece, room);
    text->used = text->limit;
    text->cut = true;
  }
}

static inline void tm_text_add_string_(tm_text* text, const char* piece) {
  tm_text_add_(text, piece, strlen(piece));
}

static inline void tm_text_add_number_(tm_text* text, unsigned long number) {
  char digits[20];
  size_t first = sizeof digits;
  do {
    digits[--first] = (char)('0' + number % 10);
    number /= 10;
  } while (number);
  tm_text_add_(text, digits + first, sizeof digits - first);
}

// Takes back what was added since `used` was that.
static inline void tm_text_rewind_(tm_text* text, size_t used) {
  text->used = used;
  text->cut = false;
}

// Terminates the text; one that was cut ends in "...".
static inline void tm_text_finish_(tm_text* text) {
  if (text->cut && text->limit >= 3) {
    memcpy(text->start + text->limit - 3, "...", 3);
  }
  text->start[text->used] = '\0';
}

#endif  // TM_BASE_TEXT_H_
