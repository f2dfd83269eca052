// A tensor (100,5000) shows rows 0, 1, 2, 97, 98, 99 and of each the columns 0, 1, 2, 4997, ...:
//
//   select   per dimension, which indices are shown          shown[d] of them
//   gather   the bits of each shown element                  one 64-bit cell each, row-major
//   write    the cells as text, as wide as the widest
//
// All cells are there before the first byte is written.

#include "tm/tensor/print.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "tm/alloc/bookkeeping.h"
#include "tm/context/context.h"
#include "tm/tensor/copy.h"

enum {
  MAXIMUM_SHOWN = 1000,    // values
  MAXIMUM_EDGE = 3,        // indices at each end of a dimension that is cut
  FETCH_WHOLE = 64 << 10,  // bytes; what reaches further is fetched by element
  LINE_WIDTH = 100,        // columns
  CELL_TEXT_SIZE = 32,
};

typedef struct printout {
  const tm_tensor* tensor;
  tm_layout layout;
  int64_t edge;                // indices at each end of a cut dimension; 0: all are shown
  int64_t shown[TM_MAX_RANK];  // indices of each dimension
  int64_t count;               // values: the product of `shown`
  uint64_t* cells;             // their bits
  char* whole;                 // the memory of a small tensor on a device, or NULL
  int width;                   // columns of a value
} printout;

//===-- Select ------------------------------------------------------------===//

static bool is_cut(const printout* p, int32_t dim) { return p->shown[dim] < p->layout.shape[dim]; }

// Shows `edge` indices at each end of what is longer than both together. Returns the values.
static int64_t select_edges(printout* p, int64_t edge) {
  p->edge = edge;
  p->count = 1;
  for (int32_t i = 0; i < tm_layout_rank(&p->layout); i++) {
    const int64_t size = p->layout.shape[i];
    p->shown[i] = edge && size > 2 * edge + 1 ? 2 * edge : size;
    p->count *= p->shown[i];
  }
  return p->count;
}

// With an edge of 1 a tensor of rank 8 has at most 3 values per dimension, 6561 in all.
static void select_shown(printout* p) {
  int64_t edge = MAXIMUM_EDGE;
  if (tm_layout_size(&p->layout) <= MAXIMUM_SHOWN) {
    select_edges(p, 0);
    return;
  }
  while (select_edges(p, edge) > MAXIMUM_SHOWN && edge > 1) {
    edge--;
  }
}

// The index that the nth shown one of a dimension is.
static int64_t index_of(const printout* p, int32_t dim, int64_t nth) {
  return is_cut(p, dim) && nth >= p->edge ? p->layout.shape[dim] - p->shown[dim] + nth : nth;
}

//===-- Gather ------------------------------------------------------------===//

// Copies `size` bytes, `offset` into the tensor's memory on a device, to the host.
static tm_status fetch(const tm_tensor* tensor, int64_t offset, size_t size, char* out) {
  tm_buffer from = tm_buffer_null();
  from.storage = tensor->storage;
  from.data = (char*)tensor->data + offset;
  from.size = (int64_t)size;
  from.device = tensor->device;
  from.dtype = TM_U8;
  from.flags = TM_BORROWED_;
  const tm_buffer to =
      tm_buffer_from_borrowed(out, (int64_t)size, TM_U8, tm_device_make(TM_CPU, 0));
  return tm_buffer_copy(&from, &to);
}

static tm_status check_not_capturing(void) {
  tm_stream* stream = tm_require_stream();
  bool capturing = false;
  if (!stream) {
    return tm_last_status();
  }
  TM_TRY(tm_stream_is_capturing(stream, &capturing));
  return capturing ? TM_RAISE(TM_ERR_CAPTURING, "tm_print: the current stream is being captured")
                   : TM_OK;
}

// Stores the bits of the element at `offset` elements. One of 6 bits may lie in two bytes.
static tm_status read_element(const printout* p, int64_t offset, uint64_t* out) {
  const unsigned bits = (unsigned)tm_dtype_bits(tm_dtype_of(p->tensor));
  const unsigned shift = (unsigned)(offset % 8 * bits % 8);
  const int64_t byte = offset / 8 * bits + offset % 8 * bits / 8;
  const size_t size = (shift + bits + 7) / 8;
  const char* memory = p->whole ? p->whole : p->tensor->data;
  *out = 0;
  if (!p->whole && p->tensor->device.type == TM_DEVICE) {
    TM_TRY(fetch(p->tensor, byte, size, (char*)out));
    TM_TRY(tm_stream_sync(tm_current_stream()));
  } else {
    memcpy(out, memory + byte, size);
  }
  *out >>= shift;
  *out &= bits == 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1;
  return TM_OK;
}

static tm_status gather(printout* p) {
  int64_t nth[TM_MAX_RANK] = {0};
  const int32_t rank = tm_layout_rank(&p->layout);
  for (int64_t i = 0; i < p->count; i++) {
    int64_t offset = 0;
    for (int32_t dim = 0; dim < rank; dim++) {
      offset += index_of(p, dim, nth[dim]) * p->layout.stride[dim];
    }
    TM_TRY(read_element(p, offset, &p->cells[i]));
    for (int32_t dim = rank - 1; dim >= 0 && ++nth[dim] == p->shown[dim]; dim--) {
      nth[dim] = 0;
    }
  }
  return TM_OK;
}

static tm_status fetch_whole(printout* p) {
  size_t reach;
  TM_TRY(tm_dtype_bytes(tm_dtype_of(p->tensor), tm_layout_cosize(&p->layout), &reach));
  if (reach > FETCH_WHOLE) {
    return TM_OK;
  }
  p->whole = tm_bookkeeping_alloc(reach, "a tensor's memory to print");
  if (!p->whole) {
    return TM_ERR_NO_MEMORY;
  }
  TM_TRY(fetch(p->tensor, 0, reach, p->whole));
  return tm_stream_sync(tm_current_stream());
}

static tm_status gather_cells(printout* p) {
  if (p->count == 0) {
    return TM_OK;
  }
  p->cells = tm_bookkeeping_alloc((size_t)p->count * sizeof *p->cells, "the values to print");
  if (!p->cells) {
    return TM_ERR_NO_MEMORY;
  }
  if (p->tensor->device.type == TM_DEVICE) {
    TM_TRY(check_not_capturing());
    TM_TRY(fetch_whole(p));
  }
  return gather(p);
}

//===-- Values as text ----------------------------------------------------===//

// A float of 1 bit of sign and `exponent` and `mantissa` bits. With `special`, the largest exponent
// stands for infinity and what is no number; of e4m3 only the all-ones value is none.
static double decode(uint64_t bits, int exponent, int mantissa, bool special) {
  const int bias = (1 << (exponent - 1)) - 1;
  const int e = (int)(bits >> mantissa) & ((1 << exponent) - 1);
  const int m = (int)bits & ((1 << mantissa) - 1);
  const double sign = bits >> (exponent + mantissa) & 1 ? -1 : 1;
  if (special && e == (1 << exponent) - 1) {
    return m ? (double)NAN : sign * (double)INFINITY;
  }
  return sign *
         (e ? ldexp((1 << mantissa) + m, e - bias - mantissa) : ldexp(m, 1 - bias - mantissa));
}

static double decode_float(tm_dtype dtype, uint64_t bits) {
  float single;
  double twice;
  const uint32_t low = (uint32_t)bits;
  switch (dtype) {
    case TM_F16:
      return decode(bits, 5, 10, true);
    case TM_BF16:
      return decode(bits, 8, 7, true);
    case TM_F32:
      memcpy(&single, &low, sizeof single);
      return (double)single;
    case TM_F64:
      memcpy(&twice, &bits, sizeof twice);
      return twice;
    case TM_E4M3:
      return (bits & 0x7f) == 0x7f ? (double)NAN : decode(bits, 4, 3, false);
    case TM_E5M2:
      return decode(bits, 5, 2, true);
    case TM_E2M1:
      return decode(bits, 2, 1, false);
    case TM_E2M3:
      return decode(bits, 2, 3, false);
    default:
      return decode(bits, 3, 2, false);  // TM_E3M2
  }
}

// Writes a float; returns its length. The sign of what is no number means nothing. The point is one
// in every locale: a comma would look like the end of the value.
static int float_text(double value, char* text) {
  if (isnan(value)) {
    return snprintf(text, CELL_TEXT_SIZE, "nan");
  }
  snprintf(text, CELL_TEXT_SIZE, "%g", value);
  char* out = text;
  for (const char* at = text; *at; at++) {
    if (strchr("0123456789+-einf", *at)) {
      *out++ = *at;
    } else if (out[-1] != '.') {  // there is a digit before it; it may have several bytes
      *out++ = '.';
    }
  }
  *out = '\0';
  return (int)(out - text);
}

// Writes one value; returns its length.
static int value_text(tm_dtype dtype, uint64_t bits, char* text) {
  const int unused = 64 - tm_dtype_bits(dtype);
  switch (dtype) {
    case TM_BOOL:
      return snprintf(text, CELL_TEXT_SIZE, "%s", bits ? "true" : "false");
    case TM_I8:
    case TM_I16:
    case TM_I32:
    case TM_I64:
      return snprintf(text, CELL_TEXT_SIZE, "%" PRId64, (int64_t)(bits << unused) >> unused);
    case TM_U2:
    case TM_U4:
    case TM_U6:
    case TM_U8:
    case TM_U16:
    case TM_U32:
    case TM_U64:
      return snprintf(text, CELL_TEXT_SIZE, "%" PRIu64, bits);
    case TM_POINTER:
      return snprintf(text, CELL_TEXT_SIZE, "0x%" PRIx64, bits);
    default:
      return float_text(decode_float(dtype, bits), text);
  }
}

static void measure(printout* p) {
  char text[CELL_TEXT_SIZE];
  for (int64_t i = 0; i < p->count; i++) {
    const int length = value_text(tm_dtype_of(p->tensor), p->cells[i], text);
    p->width = length > p->width ? length : p->width;
  }
}

//===-- Write -------------------------------------------------------------===//

// Between two entries of dimension `dim`: a comma, then a space within a row, else a line's end and
// an empty line between matrices.
static void write_gap(const printout* p, FILE* file, int32_t dim) {
  const int32_t inner = tm_layout_rank(&p->layout) - 1 - dim;
  fputs(inner == 0 ? ", " : inner == 1 ? ",\n" : ",\n\n", file);
  if (inner > 0) {
    fprintf(file, "%*s", (int)dim + 1, "");
  }
}

static void write_row(const printout* p, FILE* file, const uint64_t* cells) {
  const int32_t dim = tm_layout_rank(&p->layout) - 1;
  int column = dim + 1;
  for (int64_t i = 0; i < p->shown[dim]; i++) {
    char text[CELL_TEXT_SIZE];
    if (i > 0) {
      write_gap(p, file, dim);
    }
    if (i == p->edge && is_cut(p, dim)) {
      fputs("..., ", file);
      column += 5;
    }
    column += p->width + 2;
    if (i > 0 && column > LINE_WIDTH) {
      fprintf(file, "\n%*s", (int)dim + 1, "");
      column = dim + 1 + p->width + 2;
    }
    (void)value_text(tm_dtype_of(p->tensor), cells[i], text);
    fprintf(file, "%*s", p->width, text);
  }
}

// Writes one entry of dimension `dim - 1`, or the whole; returns the cells after it.
// NOLINTNEXTLINE(misc-no-recursion): as deep as the rank
static const uint64_t* write_part(const printout* p, FILE* file, int32_t dim,
                                  const uint64_t* cells) {
  fputc('[', file);
  if (dim == tm_layout_rank(&p->layout) - 1) {
    write_row(p, file, cells);
    cells += p->shown[dim];
  } else {
    for (int64_t i = 0; i < p->shown[dim]; i++) {
      if (i > 0) {
        write_gap(p, file, dim);
      }
      if (i == p->edge && is_cut(p, dim)) {
        fputs("...", file);
        write_gap(p, file, dim);
      }
      cells = write_part(p, file, dim + 1, cells);
    }
  }
  fputc(']', file);
  return cells;
}

static void write_values(const printout* p, FILE* file) {
  char text[CELL_TEXT_SIZE];
  if (tm_is_dry(p->tensor)) {
    fputs("(dry: no values)\n", file);
  } else if (p->count == 0) {
    fputs("[]\n", file);
  } else if (tm_layout_rank(&p->layout) == 0) {
    (void)value_text(tm_dtype_of(p->tensor), p->cells[0], text);
    fprintf(file, "%s\n", text);
  } else {
    (void)write_part(p, file, 0, p->cells);
    fputc('\n', file);
  }
}

static tm_status print(printout* p, FILE* file) {
  char text[TM_TENSOR_TEXT_SIZE];
  if (tm_ok(p->tensor) && !tm_is_dry(p->tensor)) {
    select_shown(p);
    TM_TRY(gather_cells(p));
    measure(p);
  }
  tm_tensor_text(p->tensor, text, sizeof text);
  fprintf(file, "%s\n", text);
  if (tm_ok(p->tensor)) {
    write_values(p, file);
  }
  return fflush(file) == 0 && !ferror(file)
             ? TM_OK
             : TM_RAISE(TM_ERR_IO, "tm_print: the file took not all of %s", text);
}

tm_status tm_print(const tm_tensor* tensor, FILE* file) {
  if (!file) {
    return TM_RAISE(TM_ERR_INVALID, "tm_print: file is NULL");
  }
  if (!tensor) {
    return TM_RAISE(TM_ERR_INVALID, "tm_print: tensor is NULL");
  }
  printout p = {.tensor = tensor};
  tm_layout_copy(&tensor->layout, &p.layout);
  const tm_status status = print(&p, file);
  tm_bookkeeping_free(p.cells);
  tm_bookkeeping_free(p.whole);
  return status;
}
