// Sizes and counts as people write them.
#ifndef TOOLS_SIZE_TEXT_H_
#define TOOLS_SIZE_TEXT_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SIZE_TEXT_SIZE = 32 };  // bytes that hold any text made here, the terminating NUL included

// Reads "80GiB", "1.5 TiB", "512M", "2GB" or a number of bytes. KiB and K are 1024 bytes, KB is
// 1000. False where `text` is no such size, or not a whole number of bytes below 2^63; then `*out`
// is 0.
bool size_parse(const char* text, uint64_t* out);

// Reads a number in decimal digits, up to `largest`. False else; then `*out` is 0.
bool count_parse(const char* text, uint64_t largest, uint64_t* out);

// Writes "14.96 GiB", or "512 B".
void size_format(uint64_t bytes, char text[SIZE_TEXT_SIZE]);

// Writes "19,366".
void count_format(uint64_t count, char text[SIZE_TEXT_SIZE]);

#endif  // TOOLS_SIZE_TEXT_H_
