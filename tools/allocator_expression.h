// Allocators named on a command line, one inside another:
//
//   stack(pool)                  an arena over a CUDA memory pool
//   stack:initial=64MiB(host)    the same over host memory, with an option
//   limit:8GiB(cached(cuda))     a budget for a cache over cudaMalloc
//
//   expression:  NAME [ ':' option { ',' option } ] [ '(' expression ')' ]
//   option:      KEY '=' VALUE  |  KEY, for what is on or off  |  VALUE, of the first option
//
// An arena belongs to one thread. So what is outside an arena, and the arena itself, is made once
// for each thread that allocates; what is inside is made once and shared.
#ifndef TOOLS_ALLOCATOR_EXPRESSION_H_
#define TOOLS_ALLOCATOR_EXPRESSION_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <tm/tm.h>

enum {
  EXPRESSION_MAX_DEPTH = 16,
  EXPRESSION_MAX_OPTIONS = 4,
};

// Where the memory comes from in the end.
typedef enum expression_memory {
  MEMORY_HOST,
  MEMORY_PINNED,
  MEMORY_DEVICE,
  MEMORY_DRY,  // addresses only
} expression_memory;

typedef struct allocator_kind allocator_kind;

// What an option is given; all zero where it is not. Which member counts, its type says.
typedef struct option_value {
  uint64_t number;
  double fraction;
  const char* text;  // a piece of the expression, not terminated
  size_t length;     // of `text`
} option_value;

typedef struct allocator_node {
  const allocator_kind* kind;
  option_value values[EXPRESSION_MAX_OPTIONS];  // of the kind's options
  unsigned given;                               // bits: which of them are
} allocator_node;

typedef struct allocator_expression {
  const char* text;                            // borrowed
  allocator_node nodes[EXPRESSION_MAX_DEPTH];  // outermost first
  size_t depth;
  size_t own_depth;  // of the nodes, so many are made for each thread; 0: none
  expression_memory memory;
} allocator_expression;

// Reads an expression. `text` is borrowed.
// Errors: TM_ERR_INVALID; the message names the column, from 1. On error `*out` is empty.
TM_NODISCARD tm_status allocator_expression_parse(const char* text, allocator_expression* out);

// Whether its memory is ordered on streams: those of a device are, and pinned memory.
bool allocator_expression_uses_streams(const allocator_expression* expression);

// Whether what is made for each thread writes a file: then two threads would write the same one.
bool allocator_expression_owns_file(const allocator_expression* expression);

// Puts something around the innermost allocator, whose reference it takes over; NULL on failure.
typedef tm_allocator* (*allocator_wrapper)(tm_allocator* innermost, void* user);

// Makes what all threads share: NULL on failure. `stream` (which may be NULL) is the one that
// allocators are made on; `wrap` may be NULL.
// Ownership: the caller owns one reference.
// Errors: those of the allocators' creation.
TM_NODISCARD tm_allocator* allocator_expression_make_shared(const allocator_expression* expression,
                                                            tm_stream* stream,
                                                            allocator_wrapper wrap, void* user);

// Makes what one thread has to itself, over what all share. Where that is nothing, it is another
// reference to `shared`. `*out_arena`, unless it is NULL, is the innermost arena: borrowed from the
// result; NULL where there is none. Returns NULL on failure.
// Ownership, Errors: as above.
TM_NODISCARD tm_allocator* allocator_expression_make_own(const allocator_expression* expression,
                                                         tm_allocator* shared, tm_stream* stream,
                                                         tm_allocator** out_arena);

// Prints a line on each known allocator, for a command's help.
void allocator_expression_help(void);

#endif  // TOOLS_ALLOCATOR_EXPRESSION_H_
