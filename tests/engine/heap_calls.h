// Counts what a thread asks of the heap, and remembers where.
//
// The program that links this has a malloc, calloc, realloc, free, aligned_alloc, posix_memalign
// and memalign of its own, which its shared libraries call as well. They pass on to glibc's, and
// between heap_calls_begin and heap_calls_end they count.
//
// Under ASan and TSan these functions are the sanitizer's, and nothing is counted.
#ifndef TESTS_ENGINE_HEAP_CALLS_H_
#define TESTS_ENGINE_HEAP_CALLS_H_

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

// Whether anything is counted in this build.
bool heap_calls_are_counted(void);

// Counts the calling thread's calls from here on, from 0, and forgets those before. Not nested.
// Threads: each has its own count.
void heap_calls_begin(void);

// Stops counting, and returns the calls since heap_calls_begin. free(NULL) is one.
uint64_t heap_calls_end(void);

// Prints the places that the counted calls of this thread came from, each with its number of calls
// and its callers, innermost first. Functions have names where addr2line is installed. Call it
// after heap_calls_end.
void heap_calls_print(FILE* to);

#endif  // TESTS_ENGINE_HEAP_CALLS_H_
