#include "tm/tensor/interval.h"

#include <inttypes.h>
#include <stdio.h>

void tm_interval_text(tm_interval interval, char* text, size_t size) {
  char first[24] = "(-inf";
  char last[24] = "inf";
  if (interval.first != INT64_MIN) {
    snprintf(first, sizeof first, "[%" PRId64, interval.first);
  }
  if (interval.last != INT64_MAX) {
    snprintf(last, sizeof last, "%" PRId64, interval.last);
  }
  snprintf(text, size, "%s,%s)", first, last);
}
