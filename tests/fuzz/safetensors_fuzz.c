// Any bytes as a safetensors file, and any text as its header: what is refused says why and leaves
// nothing behind; what is read is what another JSON library reads, and is read again from what is
// written of it.

#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tm/alloc/bookkeeping.h"
#include "tm/tensor/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

static void check(bool holds) {
  if (!holds) abort();
}

//===-- Two of one map ----------------------------------------------------===//

static void expect_same_tensor(const tm_tensor* a, const tm_tensor* b) {
  const tm_shape left = tm_shape_of(a);
  const tm_shape right = tm_shape_of(b);
  check(tm_ok(a) && tm_ok(b) && tm_dtype_of(a) == tm_dtype_of(b));
  check(tm_shape_equal(&left, &right));
  check(tm_byte_size(a) == 0 || memcmp(tm_data(a), tm_data(b), tm_byte_size(a)) == 0);
}

static void expect_same(const tm_tensor_map* a, const tm_tensor_map* b) {
  const tm_tensor_map_entry* x = tm_tensor_map_first(a);
  const tm_tensor_map_entry* y = tm_tensor_map_first(b);
  for (; x && y; x = tm_tensor_map_next(x), y = tm_tensor_map_next(y)) {
    check(strcmp(x->key, y->key) == 0);
    expect_same_tensor(&x->tensor, &y->tensor);
  }
  check(!x && !y);
  x = tm_tensor_map_first_metadata(a);
  y = tm_tensor_map_first_metadata(b);
  for (; x && y; x = tm_tensor_map_next(x), y = tm_tensor_map_next(y)) {
    check(strcmp(x->key, y->key) == 0 && strcmp(x->text, y->text) == 0);
  }
  check(!x && !y);
}

static void expect_survives(const tm_tensor_map* map) {
  tm_auto_buffer bytes = tm_safetensors_encode(map);
  check(tm_buffer_ok(&bytes));
  tm_auto_tensor_map back =
      tm_safetensors_decode(tm_buffer_data(&bytes), tm_buffer_byte_size(&bytes), TM_CPU);
  check(back != NULL);
  expect_same(map, back);
}

//===-- What another library reads ----------------------------------------===//

static int64_t integer_at(const json_t* object, const char* field, size_t i) {
  const json_t* value = json_array_get(json_object_get(object, field), i);
  check(json_is_integer(value));
  return json_integer_value(value);
}

static void expect_described(const json_t* description, const tm_tensor* tensor,
                             const uint8_t* values) {
  check(json_object_size(description) == 3);
  check((int)json_array_size(json_object_get(description, "shape")) == tm_rank(tensor));
  for (int32_t i = 0; i < tm_rank(tensor); i++) {
    check(integer_at(description, "shape", (size_t)i) == tm_dim(tensor, i));
  }
  const int64_t begin = integer_at(description, "data_offsets", 0);
  const int64_t end = integer_at(description, "data_offsets", 1);
  check((size_t)(end - begin) == tm_byte_size(tensor));
  check(end == begin || memcmp(tm_data(tensor), values + begin, (size_t)(end - begin)) == 0);
}

static void expect_read_so_by_others(const tm_tensor_map* map, const uint8_t* data, size_t header) {
  json_error_t error;
  json_t* root = json_loadb((const char*)data + 8, header, JSON_REJECT_DUPLICATES, &error);
  check(root != NULL);
  const json_t* metadata = json_object_get(root, "__metadata__");
  check((int64_t)json_object_size(root) == tm_tensor_map_size(map) + (metadata ? 1 : 0));
  for (const tm_tensor_map_entry* e = tm_tensor_map_first(map); e; e = tm_tensor_map_next(e)) {
    expect_described(json_object_get(root, e->key), &e->tensor, data + 8 + header);
  }
  check((int64_t)json_object_size(metadata) == tm_tensor_map_metadata_size(map));
  const tm_tensor_map_entry* e = tm_tensor_map_first_metadata(map);
  for (; e; e = tm_tensor_map_next(e)) {
    const char* text = json_string_value(json_object_get(metadata, e->key));
    check(text && strcmp(text, e->text) == 0);
  }
  json_decref(root);
}

//===-- The target --------------------------------------------------------===//

static void try_file(const uint8_t* data, size_t size) {
  const int64_t live = tm_bookkeeping_live();
  tm_clear_error();
  tm_tensor_map* map = tm_safetensors_decode(data, size, TM_CPU);
  if (map) {
    uint64_t header;
    memcpy(&header, data, sizeof header);
    expect_read_so_by_others(map, data, (size_t)header);
    expect_survives(map);
    tm_tensor_map_release(map);
  } else {
    const tm_status status = tm_last_status();
    check(status == TM_ERR_CORRUPT || status == TM_ERR_UNAVAILABLE);
    check(tm_bookkeeping_live() == live);
  }
}

// What comes before a NUL is the header, what comes behind it the values.
static void try_header(const uint8_t* data, size_t size) {
  const uint8_t* end = memchr(data, 0, size);
  const uint64_t header = end ? (uint64_t)(end - data) : size;
  const size_t values = end ? size - header - 1 : 0;
  uint8_t* file = malloc(8 + header + values);
  if (!file) return;
  memcpy(file, &header, 8);
  memcpy(file + 8, data, header);
  if (values) memcpy(file + 8 + header, end + 1, values);
  try_file(file, 8 + header + values);
  free(file);
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const uint8_t nothing;
  try_file(size ? data : &nothing, size);
  if (size) try_header(data, size);
  return 0;
}
