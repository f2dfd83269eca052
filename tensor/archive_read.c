#include <string.h>

#include "tensor/archive_format.h"
#include "tensor/little_endian.h"
#include "tensor/transfer.h"
#include "tm/alloc/bookkeeping.h"
#include "tm/base/checked.h"
#include "tm/tensor/archive.h"

//===-- Bytes -------------------------------------------------------------===//

static TM_COLD tm_status corrupt(const tm_archive_reader* r, const char* problem) {
  return TM_RAISE(TM_ERR_CORRUPT, "archive: %s, %zu bytes before the end", problem, r->left);
}

// What the checks of layouts and maps refuse is a fault of the archive here.
static tm_status as_corrupt(const tm_archive_reader* r, tm_status status) {
  if (status == TM_OK || status == TM_ERR_NO_MEMORY) {
    return status;
  }
  const tm_error error = *tm_last_error();
  return corrupt(r, error.message);
}

static tm_status take_field(tm_archive_reader* r, uint64_t* out) {
  *out = 0;
  if (r->left < TM_ARCHIVE_FIELD_) {
    return corrupt(r, "a field expected");
  }
  *out = tm_get_u64_(r->at);
  r->at += TM_ARCHIVE_FIELD_;
  r->left -= TM_ARCHIVE_FIELD_;
  return TM_OK;
}

static tm_status take_integer(tm_archive_reader* r, int64_t* out) {
  uint64_t value;
  *out = 0;
  TM_TRY(take_field(r, &value));
  if (value > INT64_MAX) {
    return corrupt(r, "a number of 2^63 or more");
  }
  *out = (int64_t)value;
  return TM_OK;
}

// Takes a run of bytes, which stay where they are. On error the outputs are unchanged.
static tm_status take_bytes(tm_archive_reader* r, const char** out, size_t* size) {
  uint64_t bytes;
  size_t padded;
  TM_TRY(take_field(r, &bytes));
  if (!tm_checked_round_up(bytes, TM_ARCHIVE_FIELD_, &padded) || padded > r->left) {
    return TM_RAISE(TM_ERR_CORRUPT, "archive: a run of %llu bytes, %zu are left",
                    (unsigned long long)bytes, r->left);
  }
  for (size_t i = bytes; i < padded; i++) {
    if (r->at[i] != 0) {
      return corrupt(r, "bytes behind a run that are not zero");
    }
  }
  *out = r->at;
  *size = bytes;
  r->at += padded;
  r->left -= padded;
  return TM_OK;
}

static tm_status take_kind(tm_archive_reader* r, tm_archive_kind kind) {
  static const char* const problems[] = {NULL, "a layout expected", "a buffer expected",
                                         "a tensor expected", "a map expected"};
  uint64_t there;
  TM_TRY(take_field(r, &there));
  return there == (uint64_t)kind ? TM_OK : corrupt(r, problems[kind]);
}

static tm_status take_sizes(tm_archive_reader* r, int32_t rank, tm_shape* out) {
  out->rank = rank;
  for (int32_t i = 0; i < rank; i++) {
    TM_TRY(take_integer(r, &out->dim[i]));
  }
  return TM_OK;
}

static tm_status take_rank(tm_archive_reader* r, int32_t* out) {
  uint64_t rank;
  *out = 0;
  TM_TRY(take_field(r, &rank));
  if (rank > TM_MAX_RANK) {
    return corrupt(r, "a rank of more than 8");
  }
  *out = (int32_t)rank;
  return TM_OK;
}

static tm_status take_dtype(tm_archive_reader* r, tm_dtype* out) {
  uint64_t dtype;
  *out = TM_DTYPE_NULL;
  TM_TRY(take_field(r, &dtype));
  if (dtype >= TM_DTYPES || !tm_archive_holds_((tm_dtype)dtype)) {
    return corrupt(r, "an unknown type");
  }
  *out = (tm_dtype)dtype;
  return TM_OK;
}

//===-- Values ------------------------------------------------------------===//

static tm_status read_bytes(void* user, uint64_t offset, void* out, size_t bytes) {
  memcpy(out, (const char*)user + offset, bytes);
  return TM_OK;
}

static tm_status check_last_byte(const tm_archive_reader* r, const char* values, size_t bytes,
                                 tm_dtype dtype, int64_t count) {
  if (bytes == 0 || (uint8_t)values[bytes - 1] >> tm_archive_last_bits_(dtype, count) == 0) {
    return TM_OK;
  }
  return TM_RAISE(TM_ERR_CORRUPT,
                  "archive: bits behind the last of %lld %s that are not zero, %zu bytes before "
                  "the end",
                  (long long)count, tm_dtype_name(dtype), r->left);
}

// Takes the values of a tensor. Only when as many bytes are there is memory taken for them.
static tm_status take_values(tm_archive_reader* r, tm_dtype dtype, const tm_shape* shape,
                             tm_tensor* out) {
  tm_layout layout;
  const char* values = NULL;
  size_t expected;
  size_t bytes = 0;
  TM_TRY(as_corrupt(r, tm_layout_make(*shape, &layout)));
  TM_TRY(as_corrupt(r, tm_dtype_bytes(dtype, tm_layout_size(&layout), &expected)));
  TM_TRY(take_bytes(r, &values, &bytes));
  if (bytes != expected) {
    return TM_RAISE(TM_ERR_CORRUPT, "archive: %zu bytes for %lld of %s", bytes,
                    (long long)tm_layout_size(&layout), tm_dtype_name(dtype));
  }
  TM_TRY(check_last_byte(r, values, bytes, dtype, tm_layout_size(&layout)));
  const tm_transfer_target target = {.allocator = r->allocator, .type = r->type};
  TM_TRY_TENSOR(made, tm_transfer_empty_(&target, shape, dtype));
  TM_TRY(tm_transfer_fill_(&made, read_bytes, (void*)values, 0));
  *out = tm_move(&made);
  return TM_OK;
}

//===-- Things ------------------------------------------------------------===//

static tm_status take_layout(tm_archive_reader* r, tm_layout* out) {
  int32_t rank;
  tm_shape shape;
  tm_shape stride;
  TM_TRY(take_kind(r, TM_ARCHIVE_LAYOUT_));
  TM_TRY(take_rank(r, &rank));
  TM_TRY(take_sizes(r, rank, &shape));
  TM_TRY(take_sizes(r, rank, &stride));
  return as_corrupt(r, tm_layout_make_strided(shape, stride, out));
}

static tm_status take_buffer(tm_archive_reader* r, tm_buffer* out) {
  tm_dtype dtype;
  tm_shape shape;
  tm_auto_tensor row = tm_null();
  TM_TRY(take_kind(r, TM_ARCHIVE_BUFFER_));
  TM_TRY(take_dtype(r, &dtype));
  TM_TRY(take_sizes(r, 1, &shape));
  TM_TRY(take_values(r, dtype, &shape, &row));
  *out = tm_buffer_of(&row);
  return TM_OK;
}

static tm_status take_tensor(tm_archive_reader* r, tm_tensor* out) {
  tm_dtype dtype;
  int32_t rank;
  tm_shape shape;
  TM_TRY(take_kind(r, TM_ARCHIVE_TENSOR_));
  TM_TRY(take_dtype(r, &dtype));
  TM_TRY(take_rank(r, &rank));
  TM_TRY(take_sizes(r, rank, &shape));
  return take_values(r, dtype, &shape, out);
}

// Takes a run of bytes as a string of its own, which the caller frees.
static tm_status take_string(tm_archive_reader* r, char** out) {
  const char* bytes = "";
  size_t size = 0;
  *out = NULL;
  TM_TRY(take_bytes(r, &bytes, &size));
  if (memchr(bytes, '\0', size)) {
    return corrupt(r, "a NUL in a string");
  }
  *out = tm_bookkeeping_alloc(size + 1, "a string of an archive");
  if (!*out) {
    return TM_ERR_NO_MEMORY;
  }
  memcpy(*out, bytes, size);
  return TM_OK;
}

static tm_status take_entry(tm_archive_reader* r, tm_tensor_map* map) {
  char* key;
  tm_auto_tensor tensor = tm_null();
  TM_TRY(take_string(r, &key));
  tm_status status = take_tensor(r, &tensor);
  if (status == TM_OK) {
    status = as_corrupt(r, tm_tensor_map_produce(map, key, &tensor));
  }
  tm_bookkeeping_free(key);
  return status;
}

static tm_status take_metadata(tm_archive_reader* r, tm_tensor_map* map) {
  char* key;
  char* text;
  TM_TRY(take_string(r, &key));
  tm_status status = take_string(r, &text);
  if (status == TM_OK) {
    status = as_corrupt(r, tm_tensor_map_add_metadata(map, key, text));
  }
  tm_bookkeeping_free(key);
  tm_bookkeeping_free(text);
  return status;
}

// A count that lies ends at the first entry that is not there.
static tm_status take_map(tm_archive_reader* r, tm_tensor_map* map) {
  uint64_t count;
  TM_TRY(take_kind(r, TM_ARCHIVE_MAP_));
  TM_TRY(take_field(r, &count));
  for (; count > 0; count--) {
    TM_TRY(take_entry(r, map));
  }
  TM_TRY(take_field(r, &count));
  for (; count > 0; count--) {
    TM_TRY(take_metadata(r, map));
  }
  return TM_OK;
}

//===-- Public ------------------------------------------------------------===//

static tm_status open_archive(const void* data, size_t size, tm_archive_reader* out) {
  uint64_t version;
  tm_archive_reader r = *out;
  if (!data) {
    return TM_RAISE(TM_ERR_INVALID, "archive: %zu bytes at NULL", size);
  }
  r.at = data;
  r.left = size;
  if (size < TM_ARCHIVE_FIELD_ || memcmp(data, TM_ARCHIVE_MAGIC_, TM_ARCHIVE_FIELD_) != 0) {
    return TM_RAISE(TM_ERR_CORRUPT, "archive: %zu bytes that do not begin with " TM_ARCHIVE_MAGIC_,
                    size);
  }
  r.at += TM_ARCHIVE_FIELD_;
  r.left -= TM_ARCHIVE_FIELD_;
  TM_TRY(take_field(&r, &version));
  if (version == 0) {
    return corrupt(&r, "version 0");
  }
  if (version > TM_ARCHIVE_VERSION_) {
    return TM_RAISE(TM_ERR_UNAVAILABLE, "archive: version %llu, this library reads up to %d",
                    (unsigned long long)version, TM_ARCHIVE_VERSION_);
  }
  *out = r;
  return TM_OK;
}

tm_status tm_archive_open(const void* data, size_t size, tm_device_type type,
                          tm_archive_reader* out) {
  if (!out) {
    return TM_RAISE(TM_ERR_INVALID, "archive: the reader is NULL");
  }
  *out = (tm_archive_reader){.type = type};
  return open_archive(data, size, out);
}

tm_status tm_archive_open_from(tm_allocator* allocator, const void* data, size_t size,
                               tm_archive_reader* out) {
  if (!out) {
    return TM_RAISE(TM_ERR_INVALID, "archive: the reader is NULL");
  }
  *out = (tm_archive_reader){.allocator = allocator};
  return allocator ? open_archive(data, size, out) : TM_NULL_HANDLE("an allocator");
}

static bool is_reader(const tm_archive_reader* reader) {
  return reader || TM_NULL_HANDLE("an archive reader") == TM_OK;
}

tm_status tm_archive_get_layout(tm_archive_reader* reader, tm_layout* out) {
  if (!out) {
    return TM_RAISE(TM_ERR_INVALID, "tm_archive_get_layout: out is NULL");
  }
  out->ranked = 0;
  if (!is_reader(reader)) {
    return tm_last_status();
  }
  tm_archive_reader r = *reader;
  TM_TRY(take_layout(&r, out));
  *reader = r;
  return TM_OK;
}

tm_buffer tm_archive_get_buffer(tm_archive_reader* reader) {
  if (!is_reader(reader)) {
    return tm_buffer_null();
  }
  tm_archive_reader r = *reader;
  tm_buffer buffer = tm_buffer_null();
  if (take_buffer(&r, &buffer) == TM_OK) {
    *reader = r;
  }
  return buffer;
}

tm_tensor tm_archive_get_tensor(tm_archive_reader* reader) {
  if (!is_reader(reader)) {
    return tm_null();
  }
  tm_archive_reader r = *reader;
  tm_tensor tensor = tm_null();
  if (take_tensor(&r, &tensor) == TM_OK) {
    *reader = r;
  }
  return tensor;
}

tm_tensor_map* tm_archive_get_map(tm_archive_reader* reader) {
  if (!is_reader(reader)) {
    return NULL;
  }
  tm_archive_reader r = *reader;
  tm_tensor_map* map = tm_tensor_map_create();
  if (map && take_map(&r, map) != TM_OK) {
    tm_tensor_map_release(map);
    return NULL;
  }
  if (map) {
    *reader = r;
  }
  return map;
}
