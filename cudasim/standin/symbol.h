// The kernels and variables that programs compiled by nvcc tell the runtime of as they start, and
// forget as they end or are unloaded. Guarded by the runtime's lock.
#ifndef CUDASIM_STANDIN_SYMBOL_H_
#define CUDASIM_STANDIN_SYMBOL_H_

#include <stdbool.h>
#include <stddef.h>

typedef struct symbol {
  struct symbol* next;            // in its bucket
  struct symbol* next_of_binary;  // of the same program or library
  const void* host;               // what stands for it in the program
  const char* name;               // the device's, mangled
  size_t bytes;                   // of a variable; 0: a kernel
  bool is_told;                   // stderr has its name
  void** memory;                  // of a variable: on each device, or NULL before the first use
} symbol;

// What one program or library has.
typedef struct binary {
  symbol* symbols;
  struct managed* managed;
} binary;

// Adds a symbol to `b`; NULL when the host has no memory.
symbol* sim_symbol_add(binary* b, const void* host, const char* name, size_t bytes);

// The one that `host` stands for, or NULL.
symbol* sim_symbol_find(const void* host);

// Forgets all of `b`.
void sim_symbol_remove_all(binary* b);

#endif  // CUDASIM_STANDIN_SYMBOL_H_
