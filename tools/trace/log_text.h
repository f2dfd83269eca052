// The text of a log: its lines, the fields of a line, and numbers in them.
#ifndef TRACE_LOG_TEXT_H_
#define TRACE_LOG_TEXT_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// A piece of a log. Not terminated, and it may hold any byte.
typedef struct log_field {
  const char* text;
  size_t length;
} log_field;

typedef struct log_text {
  const char* file;  // for messages
  const char* at;    // what is not read yet
  const char* end;
  log_field line;  // the latest one, without its end
  uint64_t line_number;
} log_text;

enum { SHOWN_SIZE = 48 };  // bytes that hold what log_shown makes, the terminating NUL included

// The text from its beginning, behind a byte order mark where it has one.
log_text log_text_of(const char* text, size_t size, const char* file);

// Goes to the next line that is not blank. False at the end of the text: then the line is empty,
// and its number is that of the last line, or 1.
bool log_next_line(log_text* text);

// Splits a line at its commas, and takes blanks off the fields. Returns how many there are, of
// which at most `most` are stored.
size_t log_split(log_field line, log_field* fields, size_t most);

bool log_field_is(log_field field, const char* word);
bool log_field_equal(log_field a, log_field b);

// Reads decimal digits, up to `largest`. False else; then `*out` is 0.
bool log_decimal(log_field field, uint64_t largest, uint64_t* out);

// Reads hexadecimal digits, which "0x" may precede, of at most 64 bits; "(nil)" and "nullptr" are
// 0. False else; then `*out` is 0.
bool log_hexadecimal(log_field field, uint64_t* out);

// Copies the beginning of a field for a message, with '?' for what does not print.
const char* log_shown(log_field field, char text[SHOWN_SIZE]);

#endif  // TRACE_LOG_TEXT_H_
