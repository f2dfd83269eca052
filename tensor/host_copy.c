// Three ways, by what is contiguous:
//
//   runs of many bytes       memcpy
//   short runs               loads and stores of a size that the compiler knows
//   transposed short runs    through tiles, so that every cache line is read once and written once:
//
//     source, rows of r        tile           destination, rows of c
//     r0: c0 c1 c2 c3     c0: r0 r1 r2 ..     c0: r0 r1 r2 ...
//     r1: c0 c1 c2 c3     c1: r0 r1 r2 ..     c1: r0 r1 r2 ...

#include "tensor/host_copy.h"

#include <stdbool.h>
#include <string.h>

#define ALWAYS_INLINE static inline __attribute__((always_inline))

typedef struct loop {
  int64_t count;
  int64_t source;       // bytes from one iteration to the next
  int64_t destination;  // the same
} loop;

static loop loop_of(const tm_copy_plan_* plan, int32_t i) {
  if (i < 0) {
    return (loop){.count = 1};
  }
  return (loop){plan->count[i], plan->source[i], plan->destination[i]};
}

//===-- Runs --------------------------------------------------------------===//

// A size that the compiler knows is a load and a store instead of a call.
ALWAYS_INLINE void copy_runs_of(size_t run, loop outer, loop inner, const char* source,
                                char* destination) {
  for (int64_t i = 0; i < outer.count; i++) {
    const char* from = source + i * outer.source;
    char* to = destination + i * outer.destination;
    for (int64_t n = inner.count; n > 0; n--) {
      memcpy(to, from, run);
      from += inner.source;
      to += inner.destination;
    }
  }
}

static void copy_runs(size_t run, loop outer, loop inner, const char* source, char* destination) {
  switch (run) {
#define COPY_RUNS_OF(size)                                 \
  case size:                                               \
    copy_runs_of(size, outer, inner, source, destination); \
    break
    COPY_RUNS_OF(1);
    COPY_RUNS_OF(2);
    COPY_RUNS_OF(3);
    COPY_RUNS_OF(4);
    COPY_RUNS_OF(6);
    COPY_RUNS_OF(8);
    COPY_RUNS_OF(12);
    COPY_RUNS_OF(16);
    COPY_RUNS_OF(24);
    COPY_RUNS_OF(32);
#undef COPY_RUNS_OF
    default:
      copy_runs_of(run, outer, inner, source, destination);
  }
}

// The two innermost loops at a time.
static void copy_rows(const tm_copy_plan_* plan, const char* source, char* destination) {
  const int32_t row = plan->rank - 1;
  const loop outer = loop_of(plan, row - 1);
  const loop inner = loop_of(plan, row);
  tm_copy_walk_ walk = {.source = 0};
  do {
    copy_runs(plan->run, outer, inner, source + walk.source, destination + walk.destination);
  } while (tm_copy_walk_next_(plan, row - 1, &walk));
}

//===-- Transpositions ----------------------------------------------------===//

// A tile has a cache line of the source's bytes in each of its rows, so that all of a line is used
// while it is there, and as many rows as make long pieces of the destination: a piece costs its
// page's translation.
enum {
  TILE_ROWS = 256,  // at most
  TILE_BYTES = 16384,
  CACHE_LINE = 64,
};

ALWAYS_INLINE int64_t tile_rows(size_t size) { return size <= 2 ? TILE_ROWS : TILE_ROWS / 2; }

ALWAYS_INLINE int64_t tile_columns(size_t size) { return CACHE_LINE / (int64_t)size; }

static const bool little_endian = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__;

// Exchanges, in each pair of words that are `half` apart, the upper bits of the first with the
// lower of the second, in parts of `shift` bits.
ALWAYS_INLINE void exchange_quarters(uint64_t* word, int count, int half, int shift,
                                     uint64_t mask) {
#pragma GCC unroll 8
  for (int i = 0; i < count; i++) {
    if ((i & half) == 0) {
      const uint64_t both = ((word[i] >> shift) ^ word[i + half]) & mask;
      word[i + half] ^= both;
      word[i] ^= both << shift;
    }
  }
}

// Transposes `count` words, 8 or 4, as a square matrix of so many elements a side.
ALWAYS_INLINE void transpose_words(uint64_t* word, int count) {
  exchange_quarters(word, count, count / 2, 32, 0x00000000ffffffff);
  exchange_quarters(word, count, count / 4, 16, 0x0000ffff0000ffff);
  if (count == 8) {
    exchange_quarters(word, count, 1, 8, 0x00ff00ff00ff00ff);
  }
}

// Squares of 8 by 8 elements of a byte, or 4 by 4 of two. `from` and `to` are rows `from_step` and
// `to_step` bytes apart.
ALWAYS_INLINE void transpose_square(size_t size, const char* from, int64_t from_step, char* to,
                                    int64_t to_step) {
  const int count = 8 / (int)size;
  uint64_t word[8];
#pragma GCC unroll 8
  for (int i = 0; i < count; i++) {
    memcpy(&word[i], from + i * from_step, 8);
  }
  transpose_words(word, count);
#pragma GCC unroll 8
  for (int i = 0; i < count; i++) {
    memcpy(to + i * to_step, &word[i], 8);
  }
}

// The same for any rectangle, element by element.
ALWAYS_INLINE void transpose_elements(size_t size, const char* from, int64_t from_step,
                                      int64_t rows, int64_t columns, char* to, int64_t to_step) {
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t c = 0; c < columns; c++) {
      memcpy(to + c * to_step + r * (int64_t)size, from + r * from_step + c * (int64_t)size, size);
    }
  }
}

// Fills a tile with the transpose of `rows` by `columns` elements at `from`.
ALWAYS_INLINE void fill_tile(size_t size, const char* from, int64_t from_step, int64_t rows,
                             int64_t columns, char* tile) {
  const int64_t bytes = (int64_t)size;
  const int64_t tile_step = tile_rows(size) * bytes;
  const int64_t square = size <= 2 && little_endian ? 8 / bytes : 0;
  if (square == 0) {
    transpose_elements(size, from, from_step, rows, columns, tile, tile_step);
    return;
  }
  const int64_t whole_rows = rows - rows % square;
  const int64_t whole_columns = columns - columns % square;
  for (int64_t r = 0; r < whole_rows; r += square) {
    for (int64_t c = 0; c < whole_columns; c += square) {
      transpose_square(size, from + r * from_step + c * bytes, from_step,
                       tile + c * tile_step + r * bytes, tile_step);
    }
  }
  transpose_elements(size, from + whole_columns * bytes, from_step, whole_rows,
                     columns - whole_columns, tile + whole_columns * tile_step, tile_step);
  transpose_elements(size, from + whole_rows * from_step, from_step, rows - whole_rows, columns,
                     tile + whole_rows * bytes, tile_step);
}

// `row` is contiguous in the destination, `column` in the source.
ALWAYS_INLINE void transpose_of(size_t size, loop row, loop column, const char* source,
                                char* destination) {
  char tile[TILE_BYTES] __attribute__((aligned(CACHE_LINE)));
  const int64_t most_rows = tile_rows(size);
  const int64_t most_columns = tile_columns(size);
  const int64_t bytes = (int64_t)size;
  for (int64_t r = 0; r < row.count; r += most_rows) {
    const int64_t rows = row.count - r < most_rows ? row.count - r : most_rows;
    for (int64_t c = 0; c < column.count; c += most_columns) {
      const int64_t columns = column.count - c < most_columns ? column.count - c : most_columns;
      fill_tile(size, source + r * row.source + c * bytes, row.source, rows, columns, tile);
      char* to = destination + r * bytes + c * column.destination;
      for (int64_t i = 0; i < columns; i++) {
        memcpy(to + i * column.destination, tile + i * most_rows * bytes, (size_t)(rows * bytes));
      }
    }
  }
}

static void transpose(size_t size, loop row, loop column, const char* source, char* destination) {
  switch (size) {
#define TRANSPOSE_OF(bytes)                                \
  case bytes:                                              \
    transpose_of(bytes, row, column, source, destination); \
    break
    TRANSPOSE_OF(1);
    TRANSPOSE_OF(2);
    TRANSPOSE_OF(4);
    TRANSPOSE_OF(8);
    TRANSPOSE_OF(16);
#undef TRANSPOSE_OF
    default:
      __builtin_unreachable();  // find_transposed takes no other
  }
}

enum { WORTH_A_TILE = 4 };  // iterations of either loop; fewer are done as fast one by one

// The loop that is contiguous in the source where the innermost is contiguous in the destination
// and that is worth a tile; or -1.
static int32_t find_transposed(const tm_copy_plan_* plan) {
  const int32_t row = plan->rank - 1;
  const int64_t run = (int64_t)plan->run;
  if (run > 16 || (run & (run - 1)) != 0 || plan->destination[row] != run ||
      plan->count[row] < WORTH_A_TILE) {
    return -1;
  }
  for (int32_t i = 0; i < row; i++) {
    if (plan->source[i] == run && plan->count[i] >= WORTH_A_TILE) {
      return i;
    }
  }
  return -1;
}

static void copy_transposed(const tm_copy_plan_* plan, int32_t column, const char* source,
                            char* destination) {
  const int32_t row = plan->rank - 1;
  tm_copy_plan_ outer = {.rank = 0};
  for (int32_t i = 0; i < row; i++) {
    if (i != column) {
      outer.count[outer.rank] = plan->count[i];
      outer.source[outer.rank] = plan->source[i];
      outer.destination[outer.rank++] = plan->destination[i];
    }
  }
  tm_copy_walk_ walk = {.source = 0};
  do {
    transpose(plan->run, loop_of(plan, row), loop_of(plan, column), source + walk.source,
              destination + walk.destination);
  } while (tm_copy_walk_next_(&outer, outer.rank, &walk));
}

//===-- All of it ---------------------------------------------------------===//

void tm_host_copy_(const tm_copy_plan_* plan, const void* source, void* destination) {
  if (plan->rank == 0) {
    memcpy(destination, source, plan->run);
    return;
  }
  const int32_t column = find_transposed(plan);
  if (column >= 0) {
    copy_transposed(plan, column, source, destination);
  } else {
    copy_rows(plan, source, destination);
  }
}

enum { SHORT_RUN = 32 };  // bytes; as COPY_RUNS_OF has them

// Short runs are copies of one run of the value.
static void fill_short_runs(const tm_copy_plan_* plan, uint8_t value, char* destination) {
  char run[SHORT_RUN];
  memset(run, value, sizeof run);
  tm_copy_plan_ copy = *plan;
  memset(copy.source, 0, sizeof copy.source);
  copy_rows(&copy, run, destination);
}

void tm_host_fill_(const tm_copy_plan_* plan, uint8_t value, void* destination) {
  if (plan->rank > 0 && plan->run <= SHORT_RUN) {
    fill_short_runs(plan, value, destination);
    return;
  }
  tm_copy_walk_ walk = {.source = 0};
  do {
    memset((char*)destination + walk.destination, value, plan->run);
  } while (tm_copy_walk_next_(plan, plan->rank, &walk));
}
