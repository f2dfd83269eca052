// Values on a command line. What is wrong is said in one line on stderr, "COMMAND: --OPTION VALUE:
// what is expected", and false is returned.
#ifndef TOOLS_OPTION_VALUES_H_
#define TOOLS_OPTION_VALUES_H_

#include <stdbool.h>
#include <stdint.h>

// Which value of which command.
typedef struct named_value {
  const char* command;  // "tm replay"
  const char* option;   // without its dashes
  const char* text;
} named_value;

// Says what is wrong; false.
bool option_complain(const named_value* value, const char* wanted);

// Reads an integer from `smallest` to `largest`.
bool option_count(const named_value* value, uint64_t smallest, uint64_t largest, uint64_t* out);

// The same from 1 on, for a limit.
bool option_limit(const named_value* value, uint64_t largest, int64_t* out);

// Reads a size above 0, such as 80GiB.
bool option_size(const named_value* value, uint64_t* out);

#endif  // TOOLS_OPTION_VALUES_H_
