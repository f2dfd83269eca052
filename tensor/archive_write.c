#include <string.h>

#include "tensor/archive_format.h"
#include "tensor/little_endian.h"
#include "tensor/transfer.h"
#include "tm/alloc/bookkeeping.h"
#include "tm/base/checked.h"
#include "tm/tensor/archive.h"

struct tm_archive {
  char* data;
  size_t size;  // bytes in use, a multiple of a field's
  size_t room;  // bytes
};

enum { FIRST_ROOM = 1024 };  // bytes

//===-- Bytes -------------------------------------------------------------===//

// Makes room for `bytes` more.
static tm_status grow(tm_archive* archive, size_t bytes) {
  size_t needed;
  if (!tm_checked_add(archive->size, bytes, &needed) || needed > PTRDIFF_MAX / 2) {
    return TM_RAISE(TM_ERR_OVERFLOW, "archive: %zu bytes behind %zu", bytes, archive->size);
  }
  if (needed <= archive->room) {
    return TM_OK;
  }
  const size_t doubled = archive->room * 2;
  const size_t room = needed > doubled ? needed : doubled;
  char* const data = tm_bookkeeping_alloc(room, "more of an archive");
  if (!data) {
    return TM_ERR_NO_MEMORY;
  }
  memcpy(data, archive->data, archive->size);
  tm_bookkeeping_free(archive->data);
  archive->data = data;
  archive->room = room;
  return TM_OK;
}

static tm_status put_field(tm_archive* archive, uint64_t value) {
  TM_TRY(grow(archive, TM_ARCHIVE_FIELD_));
  tm_put_u64_(value, archive->data + archive->size);
  archive->size += TM_ARCHIVE_FIELD_;
  return TM_OK;
}

static tm_status put_fields(tm_archive* archive, const int64_t* values, int32_t count) {
  for (int32_t i = 0; i < count; i++) {
    TM_TRY(put_field(archive, (uint64_t)values[i]));
  }
  return TM_OK;
}

// Their number, the bytes, and zeros.
static tm_status put_bytes(tm_archive* archive, const void* bytes, size_t size) {
  size_t padded;
  TM_TRY(put_field(archive, size));
  if (!tm_checked_round_up(size, TM_ARCHIVE_FIELD_, &padded)) {
    return TM_RAISE(TM_ERR_OVERFLOW, "archive: a run of %zu bytes", size);
  }
  TM_TRY(grow(archive, padded));
  char* const to = archive->data + archive->size;
  if (size) {
    memcpy(to, bytes, size);
  }
  memset(to + size, 0, padded - size);
  archive->size += padded;
  return TM_OK;
}

//===-- Things ------------------------------------------------------------===//

static tm_status check_dtype(tm_dtype dtype) {
  return tm_archive_holds_(dtype) ? TM_OK
                                  : TM_RAISE(TM_ERR_INVALID,
                                             "archive: values of %s mean nothing "
                                             "elsewhere",
                                             tm_dtype_name(dtype));
}

static tm_status put_values(tm_archive* archive, const tm_tensor* tensor) {
  TM_TRY_TENSOR(host, tm_transfer_to_host_(tensor));
  return put_bytes(archive, tm_data(&host), tm_byte_size(&host));
}

static tm_status put_layout(tm_archive* archive, const void* thing) {
  const tm_layout* const layout = thing;
  const int32_t rank = tm_layout_rank(layout);
  TM_TRY(put_field(archive, TM_ARCHIVE_LAYOUT_));
  TM_TRY(put_field(archive, (uint64_t)rank));
  TM_TRY(put_fields(archive, layout->shape, rank));
  return put_fields(archive, layout->stride, rank);
}

static tm_status put_buffer(tm_archive* archive, const void* thing) {
  const tm_buffer* const buffer = thing;
  tm_layout layout;
  TM_TRY(check_dtype((tm_dtype)buffer->dtype));
  TM_TRY(put_field(archive, TM_ARCHIVE_BUFFER_));
  TM_TRY(put_field(archive, buffer->dtype));
  TM_TRY(put_field(archive, (uint64_t)buffer->size));
  TM_TRY(tm_layout_make(TM_SHAPE(buffer->size), &layout));
  TM_TRY_TENSOR(row, tm_from_buffer(buffer, &layout));
  return put_values(archive, &row);
}

static tm_status put_tensor(tm_archive* archive, const void* thing) {
  const tm_tensor* const tensor = thing;
  TM_TRY(check_dtype(tm_dtype_of(tensor)));
  TM_TRY(put_field(archive, TM_ARCHIVE_TENSOR_));
  TM_TRY(put_field(archive, tensor->dtype));
  TM_TRY(put_field(archive, (uint64_t)tm_rank(tensor)));
  TM_TRY(put_fields(archive, tensor->layout.shape, tm_rank(tensor)));
  return put_values(archive, tensor);
}

static tm_status put_map(tm_archive* archive, const void* thing) {
  const tm_tensor_map* const map = thing;
  const tm_tensor_map_entry* e = tm_tensor_map_first(map);
  TM_TRY(put_field(archive, TM_ARCHIVE_MAP_));
  TM_TRY(put_field(archive, (uint64_t)tm_tensor_map_size(map)));
  for (; e; e = tm_tensor_map_next(e)) {
    TM_TRY(put_bytes(archive, e->key, strlen(e->key)));
    TM_TRY(put_tensor(archive, &e->tensor));
  }
  TM_TRY(put_field(archive, (uint64_t)tm_tensor_map_metadata_size(map)));
  for (e = tm_tensor_map_first_metadata(map); e; e = tm_tensor_map_next(e)) {
    TM_TRY(put_bytes(archive, e->key, strlen(e->key)));
    TM_TRY(put_bytes(archive, e->text, strlen(e->text)));
  }
  return TM_OK;
}

// All of a thing, or nothing of it.
static tm_status put(tm_archive* archive, tm_status (*function)(tm_archive*, const void*),
                     const void* thing) {
  if (!archive) {
    return TM_NULL_HANDLE("an archive");
  }
  const size_t size = archive->size;
  const tm_status status = function(archive, thing);
  if (status != TM_OK) {
    archive->size = size;
  }
  return status;
}

//===-- Public ------------------------------------------------------------===//

tm_archive* tm_archive_create(void) {
  tm_archive* archive = tm_bookkeeping_alloc(sizeof *archive, "an archive");
  if (!archive) {
    return NULL;
  }
  archive->data = tm_bookkeeping_alloc(FIRST_ROOM, "an archive's bytes");
  if (!archive->data) {
    tm_bookkeeping_free(archive);
    return NULL;
  }
  archive->room = FIRST_ROOM;
  memcpy(archive->data, TM_ARCHIVE_MAGIC_, TM_ARCHIVE_FIELD_);
  tm_put_u64_(TM_ARCHIVE_VERSION_, archive->data + TM_ARCHIVE_FIELD_);
  archive->size = TM_ARCHIVE_FIELD_ + TM_ARCHIVE_FIELD_;
  return archive;
}

void tm_archive_release(tm_archive* archive) {
  if (archive) {
    tm_bookkeeping_free(archive->data);
    tm_bookkeeping_free(archive);
  }
}

tm_status tm_archive_put_layout(tm_archive* archive, const tm_layout* layout) {
  return layout && !tm_layout_is_null(layout) ? put(archive, put_layout, layout)
                                              : TM_NULL_HANDLE("a layout");
}

tm_status tm_archive_put_buffer(tm_archive* archive, const tm_buffer* buffer) {
  return buffer && tm_buffer_ok(buffer) ? put(archive, put_buffer, buffer)
                                        : TM_NULL_HANDLE("a buffer");
}

tm_status tm_archive_put_tensor(tm_archive* archive, const tm_tensor* tensor) {
  return tensor && tm_ok(tensor) ? put(archive, put_tensor, tensor) : TM_NULL_HANDLE("a tensor");
}

tm_status tm_archive_put_map(tm_archive* archive, const tm_tensor_map* map) {
  return map ? put(archive, put_map, map) : TM_NULL_HANDLE("a tensor map");
}

const void* tm_archive_data(const tm_archive* archive) { return archive ? archive->data : NULL; }

size_t tm_archive_size(const tm_archive* archive) { return archive ? archive->size : 0; }
