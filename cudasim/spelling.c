#include "cudasim/spelling.h"

#include <string.h>

#define LONGEST 80  // letters that are looked at; no name is longer

static size_t least(size_t a, size_t b, size_t c) {
  size_t ab = a < b ? a : b;
  return ab < c ? ab : c;
}

// Levenshtein's distance, row by row: row[j] is that of the letters so far to the first j of
// `meant`.
size_t sim_spelling_distance(const char* word, size_t length, const char* meant) {
  size_t row[LONGEST + 1];
  size_t width = strnlen(meant, LONGEST);
  for (size_t j = 0; j <= width; ++j) row[j] = j;
  for (size_t i = 0; i < length && i < LONGEST; ++i) {
    size_t diagonal = row[0]++;
    for (size_t j = 0; j < width; ++j) {
      size_t changed = diagonal + (word[i] != meant[j]);
      diagonal = row[j + 1];
      row[j + 1] = least(row[j] + 1, diagonal + 1, changed);
    }
  }
  return row[width];
}
