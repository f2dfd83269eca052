// What somebody meant who wrote something else.
#ifndef CUDASIM_SPELLING_H_
#define CUDASIM_SPELLING_H_

#include <stddef.h>

// How many letters have to be added, removed, exchanged or changed in case to make `word`, which
// has `length` letters, of `meant`.
size_t sim_spelling_distance(const char* word, size_t length, const char* meant);

#endif  // CUDASIM_SPELLING_H_
