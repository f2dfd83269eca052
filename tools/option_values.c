#include "tools/option_values.h"

#include <stdio.h>

#include "tools/size_text.h"

bool option_complain(const named_value* value, const char* wanted) {
  (void)fprintf(stderr, "%s: --%s %s: %s\n", value->command, value->option, value->text, wanted);
  return false;
}

bool option_count(const named_value* value, uint64_t smallest, uint64_t largest, uint64_t* out) {
  char wanted[64];
  if (count_parse(value->text, largest, out) && *out >= smallest) return true;
  (void)snprintf(wanted, sizeof(wanted), "an integer from %llu to %llu is expected",
                 (unsigned long long)smallest, (unsigned long long)largest);
  return option_complain(value, wanted);
}

bool option_limit(const named_value* value, uint64_t largest, int64_t* out) {
  uint64_t count;
  const bool is_good = option_count(value, 1, largest, &count);
  if (is_good) *out = (int64_t)count;
  return is_good;
}

bool option_size(const named_value* value, uint64_t* out) {
  return (size_parse(value->text, out) && *out > 0) ||
         option_complain(value, "a size such as 80GiB is expected");
}
