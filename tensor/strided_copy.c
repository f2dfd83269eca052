#include "tensor/strided_copy.h"

#include <stddef.h>

#include "tensor/strided_copy_functions.h"
#include "tensor/strided_copy_kernel.h"

enum { LARGEST_UNIT = 16 };  // bytes: what a thread loads at once

//===-- When --------------------------------------------------------------===//

// Rows of more units than this are left to cudaMemcpy2DAsync, cudaMemset2DAsync and their kin where
// one call does it. Measured on an H200, driver 580, in GB/s copied or set, by the bytes of a row:
//
//                 2    16   128   1024   4096   16384      255   4095
//   memcpy2D    3.1   144   952   1555   1564     841      392    738
//   kernel      714  1431  1993   2042   2051    2052      297    297
//   memset2D    3.2    25   200   1577   4306    4468      396   3213
//   kernel     1072  1052  3934   4287   4368    4396      426    427
//
// So with units of 16 bytes the kernel copies rows of up to 1024 of them faster (longer ones were
// not measured), and sets rows of fewer than 256. Rows of 255 and 4095 bytes have units of one
// byte, each of which costs it as much as one of 16: there the calls are faster.
enum { COPIED_UNITS = 1024, SET_UNITS = 256, NARROW_UNITS = 64 };

static size_t widest_row(size_t unit, size_t units) {  // bytes
  return unit == LARGEST_UNIT ? units * unit : NARROW_UNITS * unit;
}

// Bytes of a call that are worth more than the microseconds between two calls.
enum { WORTH_A_CALL = 1 << 20 };

// The largest unit that all of a side is made of, given what divides it already.
static uint64_t add_side(uint64_t bits, const tm_copy_plan_* plan, const int64_t* step,
                         const void* data) {
  bits |= (uintptr_t)data;
  for (int32_t i = 0; i < plan->rank; i++) {
    bits |= (uint64_t)step[i];
  }
  return bits;
}

static size_t lowest_bit(uint64_t bits) { return (size_t)(bits & (~bits + 1)); }

static size_t copy_unit(const tm_copy_plan_* plan, const void* source, const void* destination) {
  const uint64_t bits = add_side(plan->run | LARGEST_UNIT, plan, plan->source, source);
  return lowest_bit(add_side(bits, plan, plan->destination, destination));
}

static size_t fill_unit(const tm_copy_plan_* plan, const void* destination) {
  return lowest_bit(add_side(plan->run | LARGEST_UNIT, plan, plan->destination, destination));
}

static bool calls_are_small(const tm_memcpy_calls_* calls) {
  uint64_t bytes = calls->plan.run;
  for (int32_t i = calls->plan.rank - calls->inner; i < calls->plan.rank; i++) {
    bytes *= (uint64_t)calls->plan.count[i];
  }
  return calls->count > 1 && bytes < WORTH_A_CALL;
}

bool tm_strided_copy_pays_(const tm_memcpy_calls_* calls, const void* source,
                           const void* destination) {
  const size_t unit = copy_unit(&calls->plan, source, destination);
  return calls->plan.rank > 0 &&
         (calls->plan.run <= widest_row(unit, COPIED_UNITS) || calls_are_small(calls));
}

bool tm_strided_fill_pays_(const tm_memcpy_calls_* calls, const void* destination) {
  const size_t unit = fill_unit(&calls->plan, destination);
  return calls->plan.rank > 0 &&
         (calls->plan.run < widest_row(unit, SET_UNITS) || calls_are_small(calls));
}

//===-- Loops -------------------------------------------------------------===//

// Loops are added innermost first.
static void add_loop(tm_strided_copy_* copy, uint64_t count, int64_t source, int64_t destination) {
  copy->loop[copy->rank++] = tm_strided_loop_make_(count, source, destination);
  copy->total *= count;
}

static void add_loop_of(tm_strided_copy_* copy, const tm_copy_plan_* plan, int32_t i) {
  add_loop(copy, (uint64_t)plan->count[i], plan->source[i], plan->destination[i]);
}

static uint64_t bytes_reached(const tm_copy_plan_* plan, const int64_t* step) {
  uint64_t bytes = plan->run;
  for (int32_t i = 0; i < plan->rank; i++) {
    bytes += (uint64_t)(plan->count[i] - 1) * (uint64_t)step[i];
  }
  return bytes;
}

static tm_strided_copy_ begin(const tm_copy_plan_* plan, const void* source, void* destination) {
  tm_strided_copy_ copy = {.source = source, .destination = destination, .total = 1};
  copy.source_bytes = source ? bytes_reached(plan, plan->source) : 0;
  copy.destination_bytes = bytes_reached(plan, plan->destination);
  return copy;
}

//===-- Rows --------------------------------------------------------------===//

static int row_kind(size_t unit, bool fills) {
  switch (unit) {
#define KIND(bytes) \
  case bytes:       \
    return fills ? TM_STRIDED_FILL_##bytes##_ : TM_STRIDED_COPY_##bytes##_;
    TM_STRIDED_ROWS_(KIND)
#undef KIND
    default:
      __builtin_unreachable();  // units are powers of two up to LARGEST_UNIT
  }
}

static void make_rows(const tm_copy_plan_* plan, size_t unit, tm_strided_copy_* copy) {
  if (plan->run > unit) {
    add_loop(copy, plan->run / unit, (int64_t)unit, (int64_t)unit);
  }
  for (int32_t i = plan->rank - 1; i >= 0; i--) {
    add_loop_of(copy, plan, i);
  }
}

//===-- Tiles -------------------------------------------------------------===//

// Bytes that a tile of elements of a run can be loaded or stored at once: a word where all rows of
// a side, `step` bytes apart but for the loop `along`, are made of whole ones.
static size_t tile_unit(const tm_copy_plan_* plan, const int64_t* step, int32_t along,
                        const void* data) {
  uint64_t bits = (uintptr_t)data | 4 | (uint64_t)plan->count[along] * plan->run;
  for (int32_t i = 0; i < plan->rank; i++) {
    bits |= i == along ? 0 : (uint64_t)step[i];
  }
  return plan->run < 4 && lowest_bit(bits) == 4 ? 4 : plan->run;
}

static int tile_kind(size_t element, size_t load, size_t store) {
#define KIND(element_bytes, load_bytes, store_bytes)                                  \
  if (element == (element_bytes) && load == (load_bytes) && store == (store_bytes)) { \
    return TM_STRIDED_TILE_##element_bytes##_##load_bytes##_##store_bytes##_;         \
  }
  TM_STRIDED_TILES_(KIND)
#undef KIND
  __builtin_unreachable();  // elements are those of find_column, units those of tile_unit
}

enum { SHORTEST_SIDE = 2 };  // of a tile, as a power of two: room for a word of bytes

// The loop that is contiguous in the source where the innermost is in the destination; -1 where
// there is none, or it is too short for a tile.
static int32_t find_column(const tm_copy_plan_* plan) {
  const int32_t row = plan->rank - 1;
  const int64_t run = (int64_t)plan->run;
  if (run > LARGEST_UNIT || (run & (run - 1)) != 0 || plan->destination[row] != run ||
      plan->count[row] < 1 << SHORTEST_SIDE) {
    return -1;
  }
  for (int32_t i = 0; i < row; i++) {
    if (plan->source[i] == run && plan->count[i] >= 1 << SHORTEST_SIDE) {
      return i;
    }
  }
  return -1;
}

static uint32_t log_above(int64_t count) {  // of the least power of two that is not below it
  uint32_t log = 0;
  while (log < 62 && INT64_C(1) << log < count) {
    log++;
  }
  return log;
}

// Tiles are squares, or as long as it takes where one side is short.
static void choose_sides(const tm_copy_plan_* plan, int32_t column, tm_strided_copy_* copy) {
  const uint32_t log = TM_STRIDED_LOG_TILE_(plan->run);
  const uint32_t log_rows = log_above(plan->count[plan->rank - 1]);
  const uint32_t log_columns = log_above(plan->count[column]);
  copy->log_rows = log / 2;
  if (log_columns < log / 2) {
    copy->log_rows = log - log_columns;
  } else if (log_rows < log / 2) {
    copy->log_rows = log_rows;
  }
  copy->log_columns = log - copy->log_rows;
}

static void make_tiles(const tm_copy_plan_* plan, int32_t column, tm_strided_copy_* copy) {
  const int32_t row = plan->rank - 1;
  const int64_t element = (int64_t)plan->run;
  choose_sides(plan, column, copy);
  copy->rows = (uint64_t)plan->count[row];
  copy->columns = (uint64_t)plan->count[column];
  copy->row_step = plan->source[row];
  copy->column_step = plan->destination[column];
  const int64_t side_rows = INT64_C(1) << copy->log_rows;
  const int64_t side_columns = INT64_C(1) << copy->log_columns;
  // A step between tiles that leaves int64_t is one that is not taken: there is one tile then.
  add_loop(copy, (copy->columns - 1) / (uint64_t)side_columns + 1, side_columns * element,
           (int64_t)((uint64_t)side_columns * (uint64_t)copy->column_step));
  add_loop(copy, (copy->rows - 1) / (uint64_t)side_rows + 1,
           (int64_t)((uint64_t)side_rows * (uint64_t)copy->row_step), side_rows * element);
  for (int32_t i = row - 1; i >= 0; i--) {
    if (i != column) {
      add_loop_of(copy, plan, i);
    }
  }
}

//===-- Launching ---------------------------------------------------------===//

// What runtimes say where they have a kernel for other devices only, and where the driver cannot
// make one of the PTX: it is older than the toolkit, or has no compiler.
static bool has_no_kernel(cudaError_t error) {
  return error == cudaErrorNoKernelImageForDevice || error == cudaErrorInvalidDeviceFunction ||
         error == cudaErrorUnsupportedPtxVersion || error == cudaErrorJitCompilerNotFound ||
         error == cudaErrorJitCompilationDisabled;
}

static tm_status launch(tm_strided_copy_* copy, uint64_t blocks, cudaStream_t stream,
                        bool* launched) {
  dim3 grid = {1, 1, 1};
  dim3 threads = {TM_STRIDED_THREADS_, 1, 1};
  void* arguments[] = {copy};
  copy->is_narrow = copy->total <= INT32_MAX;
  grid.x = blocks < INT32_MAX ? (unsigned)blocks : INT32_MAX;  // kernels go round for more
  const cudaError_t error =
      cudaLaunchKernel(tm_strided_function_(copy->kind), grid, threads, arguments, 0, stream);
  *launched = error == cudaSuccess;
  if (has_no_kernel(error)) {
    tm_cuda_ignore_(error);
    return TM_OK;
  }
  return tm_cuda_status_(error, "cudaLaunchKernel(strided copy)", __FILE__, __LINE__);
}

tm_status tm_strided_copy_launch_(const tm_copy_plan_* plan, const void* source, void* destination,
                                  cudaStream_t stream, bool* launched) {
  tm_strided_copy_ copy = begin(plan, source, destination);
  const int32_t row = plan->rank - 1;
  const int32_t column = find_column(plan);
  const size_t unit = copy_unit(plan, source, destination);
  if (column >= 0 && unit == plan->run) {
    copy.kind = tile_kind(plan->run, tile_unit(plan, plan->source, column, source),
                          tile_unit(plan, plan->destination, row, destination));
    make_tiles(plan, column, &copy);
    return launch(&copy, copy.total, stream, launched);
  }
  copy.kind = row_kind(unit, false);
  make_rows(plan, unit, &copy);
  return launch(&copy, tm_strided_chunks_(&copy), stream, launched);
}

tm_status tm_strided_fill_launch_(const tm_copy_plan_* plan, uint8_t value, void* destination,
                                  cudaStream_t stream, bool* launched) {
  tm_strided_copy_ copy = begin(plan, NULL, destination);
  const size_t unit = fill_unit(plan, destination);
  copy.value = value * 0x01010101u;
  copy.kind = row_kind(unit, true);
  make_rows(plan, unit, &copy);
  return launch(&copy, tm_strided_chunks_(&copy), stream, launched);
}
