// The kernels of strided copies and fills, in the language that C and CUDA share: nvcc compiles
// them for devices, and the simulated device runs them on the host. Private.
//
// Rows: the units of all runs are numbered, and each thread moves those whose turn it is.
//
// Tiles: for layouts that are transposed, through memory that a block shares, so that both sides
// are reached along their contiguous dimension. A tile is two phases with a barrier between them.
//
//   source               shared                        destination
//   r0: c0 c1 c2 ..  ->  r0: c0 c1 c2 .. |pad|    ->   c0: r0 r1 r2 ..
//   r1: c0 c1 c2 ..      r1: c0 c1 c2 .. |pad|         c1: r0 r1 r2 ..
#ifndef TM_TENSOR_STRIDED_COPY_KERNEL_H_
#define TM_TENSOR_STRIDED_COPY_KERNEL_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __CUDACC__
#define TM_KERNEL_ static __device__ __forceinline__
#define TM_KERNEL_UNROLL_ _Pragma("unroll")
#define TM_KERNEL_ROLL_ _Pragma("unroll 1")
#define TM_KERNEL_ALIAS_
#else
#define TM_KERNEL_ static inline __attribute__((always_inline))
#define TM_KERNEL_UNROLL_
#define TM_KERNEL_ROLL_
#define TM_KERNEL_ALIAS_ __attribute__((may_alias))  // units are read from memory of any type
#endif

enum {
  TM_STRIDED_THREADS_ = 256,  // of a block
  TM_STRIDED_LOOPS_ = 9,      // as many as a layout has dimensions, and the units of a run
  TM_STRIDED_UNITS_ = 4,      // that a thread has under way at once
  TM_STRIDED_BATCH_ = 8,      // the same, of a tile
  TM_STRIDED_CHUNK_ = TM_STRIDED_THREADS_ * TM_STRIDED_UNITS_,  // units of a block at once
};

// The kinds of kernels: rows by the bytes of a unit; tiles by those of an element, and of what is
// loaded and stored at once.
#define TM_STRIDED_ROWS_(X) X(1) X(2) X(4) X(8) X(16)
#define TM_STRIDED_TILES_(X) \
  X(1, 1, 1)                 \
  X(1, 4, 1)                 \
  X(1, 1, 4)                 \
  X(1, 4, 4) X(2, 2, 2) X(2, 4, 2) X(2, 2, 4) X(2, 4, 4) X(4, 4, 4) X(8, 8, 8) X(16, 16, 16)

typedef enum tm_strided_kind_ {
#define TM_STRIDED_KIND_(unit) TM_STRIDED_COPY_##unit##_, TM_STRIDED_FILL_##unit##_,
  TM_STRIDED_ROWS_(TM_STRIDED_KIND_)
#undef TM_STRIDED_KIND_
#define TM_STRIDED_KIND_(element, load, store) TM_STRIDED_TILE_##element##_##load##_##store##_,
      TM_STRIDED_TILES_(TM_STRIDED_KIND_)
#undef TM_STRIDED_KIND_
          TM_STRIDED_KINDS_
} tm_strided_kind_;

typedef struct tm_strided_loop_ {
  uint64_t count;
  int64_t source;       // bytes from one iteration to the next
  int64_t destination;  // the same
  uint32_t multiplier;  // with the shift, divides numbers below 2^31 by the count
  uint32_t shift;
} tm_strided_loop_;

// Made on the host. The division is exact for numbers below 2^31.
static inline tm_strided_loop_ tm_strided_loop_make_(uint64_t count, int64_t source,
                                                     int64_t destination) {
  tm_strided_loop_ loop = {count, source, destination, 0, 0};
  if (count <= INT32_MAX) {
    while (UINT64_C(1) << loop.shift < count) {
      loop.shift++;
    }
    loop.multiplier = (uint32_t)((((UINT64_C(1) << loop.shift) - count) << 32) / count + 1);
  }
  return loop;
}

// The parameter of all kernels.
typedef struct tm_strided_copy_ {
  const char* source;
  char* destination;
  uint64_t source_bytes;  // from the first to the last that is read
  uint64_t destination_bytes;
  uint64_t total;     // units, or tiles: iterations of all loops
  int32_t kind;       // tm_strided_kind_
  int32_t rank;       // loops
  int32_t is_narrow;  // the total is below 2^31
  uint32_t value;     // of a fill: four times the byte
  uint32_t log_rows;  // of a tile: 2 to the power of it
  uint32_t log_columns;
  uint64_t rows;                             // of all tiles together; contiguous in the destination
  uint64_t columns;                          // contiguous in the source
  int64_t row_step;                          // bytes between rows in the source
  int64_t column_step;                       // bytes between columns in the destination
  tm_strided_loop_ loop[TM_STRIDED_LOOPS_];  // innermost first; of tiles: columns, rows, others
} tm_strided_copy_;

//===-- Units -------------------------------------------------------------===//

typedef uint8_t TM_KERNEL_ALIAS_ tm_unit_1_;
typedef uint16_t TM_KERNEL_ALIAS_ tm_unit_2_;
typedef uint32_t TM_KERNEL_ALIAS_ tm_unit_4_;
typedef struct TM_KERNEL_ALIAS_ __attribute__((aligned(8))) tm_unit_8_ {
  uint32_t x, y;
} tm_unit_8_;
typedef struct TM_KERNEL_ALIAS_ __attribute__((aligned(16))) tm_unit_16_ {
  uint32_t x, y, z, w;
} tm_unit_16_;

// A unit of `size` bytes, in the first bytes of the result.
TM_KERNEL_ tm_unit_16_ tm_unit_load_(int size, const char* at) {
  tm_unit_16_ unit = {0, 0, 0, 0};
  if (size == 1) {
    unit.x = *(const tm_unit_1_*)at;
  } else if (size == 2) {
    unit.x = *(const tm_unit_2_*)at;
  } else if (size == 4) {
    unit.x = *(const tm_unit_4_*)at;
  } else if (size == 8) {
    const tm_unit_8_ half = *(const tm_unit_8_*)at;
    unit.x = half.x;
    unit.y = half.y;
  } else {
    unit = *(const tm_unit_16_*)at;
  }
  return unit;
}

TM_KERNEL_ void tm_unit_store_(int size, tm_unit_16_ unit, char* at) {
  if (size == 1) {
    *(tm_unit_1_*)at = (uint8_t)unit.x;
  } else if (size == 2) {
    *(tm_unit_2_*)at = (uint16_t)unit.x;
  } else if (size == 4) {
    *(tm_unit_4_*)at = unit.x;
  } else if (size == 8) {
    const tm_unit_8_ half = {unit.x, unit.y};
    *(tm_unit_8_*)at = half;
  } else {
    *(tm_unit_16_*)at = unit;
  }
}

//===-- Indices -----------------------------------------------------------===//

// Where iteration `index` of all loops lies on both sides, and which iterations of the first two
// loops that is.
typedef struct tm_strided_place_ {
  int64_t source;
  int64_t destination;
  uint64_t inner;
  uint64_t second;
} tm_strided_place_;

TM_KERNEL_ void tm_strided_step_(const tm_strided_loop_* loop, int32_t i, uint64_t digit,
                                 tm_strided_place_* place) {
  place->source += (int64_t)digit * loop->source;
  place->destination += (int64_t)digit * loop->destination;
  if (i == 0) {
    place->inner = digit;
  }
  if (i == 1) {
    place->second = digit;
  }
}

// Division by multiplication: floor((n * multiplier / 2^32 + n) / 2^shift), whose sum fits for n
// below 2^31.
TM_KERNEL_ uint32_t tm_strided_divide_(uint32_t n, const tm_strided_loop_* loop) {
  const uint32_t high = (uint32_t)((uint64_t)n * loop->multiplier >> 32);
  return (high + n) >> loop->shift;
}

TM_KERNEL_ tm_strided_place_ tm_strided_find_(const tm_strided_copy_* p, uint64_t index) {
  tm_strided_place_ place = {0, 0, 0, 0};
  if (p->is_narrow) {
    uint32_t rest = (uint32_t)index;
    for (int32_t i = 0; i < p->rank; i++) {
      const uint32_t quotient = tm_strided_divide_(rest, &p->loop[i]);
      tm_strided_step_(&p->loop[i], i, rest - quotient * (uint32_t)p->loop[i].count, &place);
      rest = quotient;
    }
  } else {
    for (int32_t i = 0; i < p->rank; i++) {
      const uint64_t quotient = index / p->loop[i].count;
      tm_strided_step_(&p->loop[i], i, index - quotient * p->loop[i].count, &place);
      index = quotient;
    }
  }
  return place;
}

//===-- Rows --------------------------------------------------------------===//

// What one thread of a block does to the units of `chunk`.
TM_KERNEL_ void tm_strided_rows_(const tm_strided_copy_* p, int unit, int fills, uint64_t chunk,
                                 uint32_t thread) {
  const uint64_t first = chunk * TM_STRIDED_CHUNK_ + thread;
  const tm_unit_16_ value = {p->value, p->value, p->value, p->value};
  tm_unit_16_ held[TM_STRIDED_UNITS_];
  int64_t to[TM_STRIDED_UNITS_];
  TM_KERNEL_UNROLL_
  for (int i = 0; i < TM_STRIDED_UNITS_; i++) {
    const uint64_t index = first + (uint64_t)i * TM_STRIDED_THREADS_;
    if (index < p->total) {
      const tm_strided_place_ place = tm_strided_find_(p, index);
      to[i] = place.destination;
      held[i] = fills ? value : tm_unit_load_(unit, p->source + place.source);
    }
  }
  TM_KERNEL_UNROLL_
  for (int i = 0; i < TM_STRIDED_UNITS_; i++) {
    if (first + (uint64_t)i * TM_STRIDED_THREADS_ < p->total) {
      tm_unit_store_(unit, held[i], p->destination + to[i]);
    }
  }
}

TM_KERNEL_ uint64_t tm_strided_chunks_(const tm_strided_copy_* p) {
  return p->total / TM_STRIDED_CHUNK_ + (p->total % TM_STRIDED_CHUNK_ != 0);
}

//===-- Tiles -------------------------------------------------------------===//

// Elements of a tile are a power of two; its sides are chosen for the layout.
#define TM_STRIDED_LOG_TILE_(element) ((element) <= 4 ? 12 : 10)

// Bytes of shared memory: the tile, and a pad per row, which is least in relation where rows have
// many elements, and at most half of them.
#define TM_STRIDED_SHARED_(element) \
  (((element) << TM_STRIDED_LOG_TILE_(element)) * ((element) <= 2 ? 6 : 5) / 4)

typedef struct tm_strided_tile_ {
  const char* source;
  char* destination;
  uint32_t rows;
  uint32_t columns;
} tm_strided_tile_;

TM_KERNEL_ uint32_t tm_strided_least_(uint64_t rest, uint32_t side) {
  return rest < side ? (uint32_t)rest : side;
}

TM_KERNEL_ tm_strided_tile_ tm_strided_tile_find_(const tm_strided_copy_* p, uint64_t index) {
  const tm_strided_place_ place = tm_strided_find_(p, index);
  tm_strided_tile_ tile;
  tile.source = p->source + place.source;
  tile.destination = p->destination + place.destination;
  tile.columns =
      tm_strided_least_(p->columns - (place.inner << p->log_columns), 1u << p->log_columns);
  tile.rows = tm_strided_least_(p->rows - (place.second << p->log_rows), 1u << p->log_rows);
  return tile;
}

// Bytes between rows in shared memory: an odd number of words, or of elements where those are
// wider, so that a column's elements lie in different banks.
TM_KERNEL_ uint32_t tm_strided_pitch_(const tm_strided_copy_* p, int element) {
  const uint32_t word = element < 4 ? 4 : (uint32_t)element;
  return ((((uint32_t)element << p->log_columns) / word) | 1u) * word;
}

TM_KERNEL_ uint32_t tm_strided_log_(uint32_t power) { return power == 1 ? 0 : power == 2 ? 1 : 2; }

// Which units of a tile a thread has: one in TM_STRIDED_THREADS_, a batch of them at a time, so
// that as many loads are under way as registers allow.
typedef struct tm_strided_turns_ {
  uint32_t thread;
  uint32_t per_unit;   // elements
  uint32_t log_units;  // of the side
  int count;           // units of a thread
  int batch;           // divides the count
} tm_strided_turns_;

TM_KERNEL_ tm_strided_turns_ tm_strided_turns_make_(int element, int unit, uint32_t log_side,
                                                    uint32_t thread) {
  tm_strided_turns_ turns;
  turns.thread = thread;
  turns.per_unit = (uint32_t)(unit / element);
  turns.log_units = log_side - tm_strided_log_(turns.per_unit);
  turns.count = (1 << TM_STRIDED_LOG_TILE_(element)) / TM_STRIDED_THREADS_ / (unit / element);
  turns.batch = turns.count < TM_STRIDED_BATCH_ ? turns.count : TM_STRIDED_BATCH_;
  return turns;
}

// Where on the two sides a turn's unit begins, in elements: across, and along.
TM_KERNEL_ void tm_strided_turn_(const tm_strided_turns_* turns, int i, uint32_t* across,
                                 uint32_t* along) {
  const uint32_t number = turns->thread + (uint32_t)i * TM_STRIDED_THREADS_;
  *across = number >> turns->log_units;
  *along = (number & ((1u << turns->log_units) - 1)) * turns->per_unit;
}

// The first phase, of one thread: rows into shared memory, in units of `unit` bytes.
TM_KERNEL_ void tm_strided_tile_load_(const tm_strided_copy_* p, const tm_strided_tile_* tile,
                                      int element, int unit, uint32_t thread, char* shared) {
  const tm_strided_turns_ turns = tm_strided_turns_make_(element, unit, p->log_columns, thread);
  const uint32_t pitch = tm_strided_pitch_(p, element);
  tm_unit_16_ held[TM_STRIDED_BATCH_];
  uint32_t row;
  uint32_t column;
  TM_KERNEL_ROLL_
  for (int first = 0; first < turns.count; first += turns.batch) {
    TM_KERNEL_UNROLL_
    for (int i = 0; i < turns.batch; i++) {
      tm_strided_turn_(&turns, first + i, &row, &column);
      if (row < tile->rows && column < tile->columns) {
        held[i] = tm_unit_load_(
            unit, tile->source + (int64_t)row * p->row_step + (int64_t)column * element);
      }
    }
    TM_KERNEL_UNROLL_
    for (int i = 0; i < turns.batch; i++) {
      tm_strided_turn_(&turns, first + i, &row, &column);
      if (row < tile->rows && column < tile->columns) {
        tm_unit_store_(unit, held[i],
                       shared + (size_t)row * pitch + (size_t)column * (size_t)element);
      }
    }
  }
}

// `per_unit` elements of a column, from `at` on, side by side.
TM_KERNEL_ tm_unit_16_ tm_strided_gather_(int element, uint32_t per_unit, const char* at,
                                          uint32_t pitch) {
  tm_unit_16_ unit = tm_unit_load_(element, at);
  TM_KERNEL_UNROLL_
  for (uint32_t i = 1; i < per_unit; i++) {
    unit.x |= tm_unit_load_(element, at + (size_t)i * pitch).x << (i * (uint32_t)element * 8);
  }
  return unit;
}

// The second, after a barrier: columns out of it.
TM_KERNEL_ void tm_strided_tile_store_(const tm_strided_copy_* p, const tm_strided_tile_* tile,
                                       int element, int unit, uint32_t thread, const char* shared) {
  const tm_strided_turns_ turns = tm_strided_turns_make_(element, unit, p->log_rows, thread);
  const uint32_t pitch = tm_strided_pitch_(p, element);
  uint32_t row;
  uint32_t column;
  TM_KERNEL_ROLL_
  for (int first = 0; first < turns.count; first += turns.batch) {
    TM_KERNEL_UNROLL_
    for (int i = 0; i < turns.batch; i++) {
      tm_strided_turn_(&turns, first + i, &column, &row);
      if (row < tile->rows && column < tile->columns) {
        const char* from = shared + (size_t)row * pitch + (size_t)column * (size_t)element;
        tm_unit_store_(
            unit, tm_strided_gather_(element, turns.per_unit, from, pitch),
            tile->destination + (int64_t)column * p->column_step + (int64_t)row * element);
      }
    }
  }
}

#endif  // TM_TENSOR_STRIDED_COPY_KERNEL_H_
