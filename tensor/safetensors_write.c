#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tensor/json.h"
#include "tensor/little_endian.h"
#include "tensor/safetensors_names.h"
#include "tensor/transfer.h"
#include "tm/alloc/bookkeeping.h"
#include "tm/base/checked.h"
#include "tm/context/context.h"
#include "tm/tensor/safetensors.h"

enum { PREFIX_SIZE = 8, ALIGNMENT = 8 };  // bytes

// Values lie widest type first, so that each is aligned where the first is.
static const int widths[] = {64, 32, 16, 8, 6, 4};  // bits
enum { WIDTHS = sizeof widths / sizeof *widths };

// What is written, in the map's order.
typedef struct item {
  const tm_tensor_map_entry* entry;
  size_t begin;  // bytes from the first of the values
  size_t bytes;
} item;

typedef struct plan {
  const tm_tensor_map* map;
  item* items;
  int64_t count;
  size_t header;  // bytes, padded
  size_t values;  // bytes
} plan;

// Where the bytes go: one behind the other.
typedef struct sink {
  char* memory;  // NULL where it is a file
  int file;
  const char* name;  // for messages
} sink;

//===-- The plan ----------------------------------------------------------===//

static tm_status check_item(const tm_tensor_map_entry* entry, size_t* bytes) {
  const tm_dtype dtype = tm_dtype_of(&entry->tensor);
  const int64_t size = tm_size(&entry->tensor);
  *bytes = tm_byte_size(&entry->tensor);
  if (strcmp(entry->key, TM_SAFETENSORS_METADATA_) == 0) {
    return TM_RAISE(TM_ERR_INVALID, "safetensors: no tensor can be called \"%s\"", entry->key);
  }
  if (!tm_safetensors_name_(dtype)) {
    return TM_RAISE(TM_ERR_INVALID, "safetensors: \"%.64s\" is of %s, which files do not have",
                    entry->key, tm_dtype_name(dtype));
  }
  if (size % 8 * tm_dtype_bits(dtype) % 8 != 0) {
    return TM_RAISE(TM_ERR_INVALID, "safetensors: \"%.64s\": %lld of %s fill no whole bytes",
                    entry->key, (long long)size, tm_dtype_name(dtype));
  }
  return TM_OK;
}

static tm_status collect(plan* p) {
  item* at = p->items;
  for (const tm_tensor_map_entry* e = tm_tensor_map_first(p->map); e; e = tm_tensor_map_next(e)) {
    at->entry = e;
    TM_TRY(check_item(e, &at->bytes));
    at++;
  }
  return TM_OK;
}

static bool has_width(const item* at, int bits) {
  return tm_dtype_bits(tm_dtype_of(&at->entry->tensor)) == bits;
}

static tm_status place(plan* p) {
  for (int w = 0; w < WIDTHS; w++) {
    for (item* at = p->items; at < p->items + p->count; at++) {
      if (has_width(at, widths[w])) {
        at->begin = p->values;
        if (!tm_checked_add(p->values, at->bytes, &p->values)) {
          return TM_RAISE(TM_ERR_OVERFLOW, "safetensors: more than %zu bytes", SIZE_MAX);
        }
      }
    }
  }
  return TM_OK;
}

//===-- The header --------------------------------------------------------===//

static tm_status put_string(tm_json_writer* out, const char* text) {
  return tm_json_put_string_(out, text)
             ? TM_OK
             : TM_RAISE(TM_ERR_INVALID, "safetensors: \"%.64s\" is no UTF-8", text);
}

static tm_status put_metadata(const plan* p, tm_json_writer* out) {
  const tm_tensor_map_entry* e = tm_tensor_map_first_metadata(p->map);
  if (!e) {
    return TM_OK;
  }
  const char* before = "\"" TM_SAFETENSORS_METADATA_ "\":{";
  for (; e; e = tm_tensor_map_next(e)) {
    tm_json_put_(out, before);
    TM_TRY(put_string(out, e->key));
    tm_json_put_(out, ":");
    TM_TRY(put_string(out, e->text));
    before = ",";
  }
  tm_json_put_(out, p->count ? "}," : "}");
  return TM_OK;
}

static tm_status put_item(const item* at, tm_json_writer* out) {
  const tm_tensor* const tensor = &at->entry->tensor;
  TM_TRY(put_string(out, at->entry->key));
  tm_json_put_(out, ":{\"dtype\":\"");
  tm_json_put_(out, tm_safetensors_name_(tm_dtype_of(tensor)));
  tm_json_put_(out, "\",\"shape\":[");
  for (int32_t i = 0; i < tm_rank(tensor); i++) {
    tm_json_put_(out, i ? "," : "");
    tm_json_put_integer_(out, tm_dim(tensor, i));
  }
  tm_json_put_(out, "],\"data_offsets\":[");
  tm_json_put_integer_(out, (int64_t)at->begin);
  tm_json_put_(out, ",");
  tm_json_put_integer_(out, (int64_t)(at->begin + at->bytes));
  tm_json_put_(out, "]}");
  return TM_OK;
}

static tm_status put_header(const plan* p, tm_json_writer* out) {
  tm_json_put_(out, "{");
  TM_TRY(put_metadata(p, out));
  for (int64_t i = 0; i < p->count; i++) {
    tm_json_put_(out, i ? "," : "");
    TM_TRY(put_item(&p->items[i], out));
  }
  tm_json_put_(out, "}");
  while (out->size % ALIGNMENT != 0) {
    tm_json_put_(out, " ");
  }
  return TM_OK;
}

static tm_status make_plan(const tm_tensor_map* map, plan* p) {
  *p = (plan){.map = map, .count = tm_tensor_map_size(map)};
  p->items = tm_bookkeeping_alloc((size_t)p->count * sizeof *p->items, "a list of tensors");
  if (!p->items) {
    return TM_ERR_NO_MEMORY;
  }
  tm_json_writer measured = {.text = NULL};
  TM_TRY(collect(p));
  TM_TRY(place(p));
  TM_TRY(put_header(p, &measured));
  p->header = measured.size;
  size_t all;
  if (p->header > TM_SAFETENSORS_MOST_HEADER_ ||
      !tm_checked_add(p->values, PREFIX_SIZE + p->header, &all) || all > PTRDIFF_MAX) {
    return TM_RAISE(TM_ERR_OVERFLOW, "safetensors: a header of %zu bytes, values of %zu", p->header,
                    p->values);
  }
  return TM_OK;
}

//===-- Writing -----------------------------------------------------------===//

static tm_status put_file(const sink* to, const char* bytes, size_t size) {
  while (size > 0) {
    const ssize_t done = write(to->file, bytes, size);
    if (done < 0 && errno != EINTR) {
      return TM_RAISE(TM_ERR_IO, "%s: %s", to->name, strerror(errno));
    }
    if (done > 0) {
      bytes += done;
      size -= (size_t)done;
    }
  }
  return TM_OK;
}

static tm_status put_bytes(sink* to, const void* bytes, size_t size) {
  if (size == 0) {
    return TM_OK;
  }
  if (!to->memory) {
    return put_file(to, bytes, size);
  }
  memcpy(to->memory, bytes, size);
  to->memory += size;
  return TM_OK;
}

static tm_status write_header(const plan* p, sink* to) {
  char* const memory =
      tm_bookkeeping_alloc(PREFIX_SIZE + p->header, "a header of tensors to write");
  if (!memory) {
    return TM_ERR_NO_MEMORY;
  }
  tm_put_u64_(p->header, memory);
  tm_json_writer out = {.text = memory + PREFIX_SIZE};
  tm_status status = put_header(p, &out);
  if (status == TM_OK) {
    status = put_bytes(to, memory, PREFIX_SIZE + p->header);
  }
  tm_bookkeeping_free(memory);
  return status;
}

static tm_status write_values(const plan* p, sink* to) {
  for (int w = 0; w < WIDTHS; w++) {
    for (const item* at = p->items; at < p->items + p->count; at++) {
      if (has_width(at, widths[w])) {
        TM_TRY_TENSOR(host, tm_transfer_to_host_(&at->entry->tensor));
        TM_TRY(put_bytes(to, tm_data(&host), at->bytes));
      }
    }
  }
  return TM_OK;
}

static tm_status write_all(const plan* p, sink* to) {
  TM_TRY(write_header(p, to));
  return write_values(p, to);
}

//===-- Files and memory --------------------------------------------------===//

static tm_buffer encode(const plan* p) {
  const size_t size = PREFIX_SIZE + p->header + p->values;
  tm_auto_buffer made = tm_buffer_empty((int64_t)size, TM_U8, TM_CPU);
  if (tm_buffer_ok(&made) && tm_buffer_is_dry(&made)) {
    (void)TM_RAISE(TM_ERR_INVALID, "safetensors: %zu bytes to write to dry memory", size);
    return tm_buffer_null();
  }
  if (!tm_buffer_ok(&made)) {
    return tm_buffer_null();
  }
  sink to = {.memory = tm_buffer_data(&made)};
  return write_all(p, &to) == TM_OK ? tm_buffer_move(&made) : tm_buffer_null();
}

tm_buffer tm_safetensors_encode(const tm_tensor_map* map) {
  plan p;
  tm_buffer made = tm_buffer_null();
  if (!map) {
    (void)TM_NULL_HANDLE("a tensor map");
    return made;
  }
  if (make_plan(map, &p) == TM_OK) {
    made = encode(&p);
  }
  tm_bookkeeping_free(p.items);
  return made;
}

static tm_status raise_errno(const char* name) {
  return TM_RAISE(TM_ERR_IO, "%s: %s", name, strerror(errno));
}

// Writes a new file and lets it take the place of `path`.
static tm_status write_file(const plan* p, const char* path, const char* scratch) {
  sink to = {.name = path};
  to.file = open(scratch, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (to.file < 0) {
    return raise_errno(scratch);
  }
  tm_status status = write_all(p, &to);
  if (status == TM_OK && fsync(to.file) != 0) {
    status = raise_errno(path);
  }
  if (close(to.file) != 0 && status == TM_OK) {
    status = raise_errno(path);
  }
  if (status == TM_OK && rename(scratch, path) != 0) {
    status = raise_errno(path);
  }
  if (status != TM_OK) {
    (void)unlink(scratch);
  }
  return status;
}

static tm_status save(const plan* p, const char* path) {
  const size_t size = strlen(path) + 32;
  char* const scratch = tm_bookkeeping_alloc(size, "the name of a file");
  if (!scratch) {
    return TM_ERR_NO_MEMORY;
  }
  snprintf(scratch, size, "%s.%ld.tmp", path, (long)getpid());
  const tm_status status = write_file(p, path, scratch);
  tm_bookkeeping_free(scratch);
  return status;
}

tm_status tm_safetensors_save(const tm_tensor_map* map, const char* path) {
  plan p;
  if (!map) {
    return TM_NULL_HANDLE("a tensor map");
  }
  if (!path) {
    return TM_RAISE(TM_ERR_INVALID, "safetensors: the path is NULL");
  }
  tm_status status = make_plan(map, &p);
  if (status == TM_OK) {
    status = save(&p, path);
  }
  tm_bookkeeping_free(p.items);
  return status;
}
