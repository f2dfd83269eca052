// A progress bar for people: on stderr where that is a terminal, nowhere else.
#ifndef TOOLS_PROGRESS_H_
#define TOOLS_PROGRESS_H_

#include <stdbool.h>
#include <stdint.h>

typedef struct progress {
  const char* label;
  const char* unit;  // plural, e.g. "requests"
  uint64_t total;
  uint64_t start_ns;
  uint64_t shown_ns;  // when the bar was last drawn
  bool is_visible;
} progress;

// Starts a bar for `total` things. The strings are borrowed until progress_end.
progress progress_begin(const char* label, const char* unit, uint64_t total);

// Shows how many are done, at most ten times a second.
void progress_update(progress* bar, uint64_t done);

// Wipes the bar and returns the seconds since progress_begin.
double progress_end(progress* bar);

#endif  // TOOLS_PROGRESS_H_
