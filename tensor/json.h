// The JSON of file headers: strings, integers and the punctuation between, read where they lie.
// Nothing is allocated, nothing recurses, integers are exact. Private.
//
// Not a library, because those packaged lose or change text when a small allocation inside them
// fails, or read numbers as double.
#ifndef TM_TENSOR_JSON_H_
#define TM_TENSOR_JSON_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

//===-- Reading -----------------------------------------------------------===//

// A position in a text. Each function skips white space before it looks; those that return false
// say in `problem` what they wanted, and the position is where that was not.
typedef struct tm_json {
  const char* at;
  const char* end;
  const char* problem;
  bool is_legal;  // the problem is no fault of the text: JSON has it, strings of C have not
} tm_json;

// Whether the next character is `c`; then it is taken. False is no problem.
bool tm_json_take_(tm_json* json, char c);

// Takes `c`.
bool tm_json_expect_(tm_json* json, char c);

// Takes a string and writes what it stands for to `out`, with a NUL behind it: valid UTF-8 without
// a NUL inside. `out` has room for as many bytes as are left of the text.
bool tm_json_string_(tm_json* json, char* out);

// Takes an integer from 0 to 2^63 - 1.
bool tm_json_integer_(tm_json* json, int64_t* out);

// Whether only white space is left.
bool tm_json_end_(tm_json* json);

//===-- Writing -----------------------------------------------------------===//

// Text that is written, or only measured where `text` is NULL.
typedef struct tm_json_writer {
  char* text;
  size_t size;  // bytes so far
} tm_json_writer;

void tm_json_put_(tm_json_writer* writer, const char* text);
void tm_json_put_integer_(tm_json_writer* writer, int64_t value);
// In quotes, with escapes. False where it is no UTF-8.
bool tm_json_put_string_(tm_json_writer* writer, const char* text);

#endif  // TM_TENSOR_JSON_H_
