// 0        8                8 + header                    the file's end
// | header | {"x": {...}}   | values of a | values of b |
//                           0             |             |    offsets count from here; every byte
//                                                            belongs to one tensor

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tensor/json.h"
#include "tensor/little_endian.h"
#include "tensor/safetensors_names.h"
#include "tensor/transfer.h"
#include "tm/alloc/bookkeeping.h"
#include "tm/tensor/safetensors.h"

enum {
  PREFIX_SIZE = 8,  // bytes
  // Of header, that no tensor does with less than:
  // "":{"dtype":"U8","shape":[],"data_offsets":[0,0]}
  LEAST_ENTRY = 48,
};

// Where a file's bytes are.
typedef struct source {
  const char* name;  // for messages
  const char* data;  // NULL where it is a file
  int file;
  uint64_t size;      // bytes
  uint64_t position;  // of the values
} source;

// A tensor as the header tells.
typedef struct info {
  const char* name;
  tm_dtype dtype;
  tm_shape shape;
  int64_t begin;  // bytes from the first of the values
  int64_t end;
} info;

typedef struct header {
  const source* from;
  const char* text;
  tm_json json;
  char* pool;   // the strings; as large as the text, so that all of them fit
  size_t used;  // bytes of the pool
  info* infos;
  info** order;  // as many, to sort
  int64_t count;
  int64_t room;
  tm_tensor_map* map;  // takes the metadata
} header;

//===-- Bytes -------------------------------------------------------------===//

static tm_status read_file(const source* from, uint64_t offset, char* out, size_t bytes) {
  while (bytes > 0) {
    const ssize_t got = pread(from->file, out, bytes, (off_t)offset);
    if (got < 0 && errno != EINTR) {
      return TM_RAISE(TM_ERR_IO, "%s: %s", from->name, strerror(errno));
    }
    if (got == 0) {
      return TM_RAISE(TM_ERR_CORRUPT, "%s became shorter while it was read", from->name);
    }
    if (got > 0) {
      out += got;
      offset += (uint64_t)got;
      bytes -= (size_t)got;
    }
  }
  return TM_OK;
}

// The caller has checked that the bytes are there.
static tm_status read_bytes(void* user, uint64_t offset, void* out, size_t bytes) {
  const source* const from = user;
  if (!from->data) {
    return read_file(from, offset, out, bytes);
  }
  memcpy(out, from->data + offset, bytes);
  return TM_OK;
}

//===-- The header --------------------------------------------------------===//

static TM_COLD tm_status malformed(const header* h, const char* problem) {
  return TM_RAISE(h->json.is_legal ? TM_ERR_UNAVAILABLE : TM_ERR_CORRUPT,
                  "%s: byte %lld of the header: %s", h->from->name,
                  (long long)(h->json.at - h->text), problem);
}

// What the checks of tensors and maps refuse is a fault of the file here.
static tm_status as_corrupt(const header* h, tm_status status, const char* name) {
  if (status == TM_OK || status == TM_ERR_NO_MEMORY) {
    return status;
  }
  const tm_error error = *tm_last_error();
  return TM_RAISE(TM_ERR_CORRUPT, "%s: \"%.64s\": %s", h->from->name, name, error.message);
}

static tm_status expect(header* h, char c) {
  return tm_json_expect_(&h->json, c) ? TM_OK : malformed(h, h->json.problem);
}

static tm_status take_integer(header* h, int64_t* out) {
  return tm_json_integer_(&h->json, out) ? TM_OK : malformed(h, h->json.problem);
}

// Takes a string into the pool; the next one overwrites it unless it is kept.
static tm_status take_string(header* h, const char** out) {
  *out = h->pool + h->used;
  return tm_json_string_(&h->json, h->pool + h->used) ? TM_OK : malformed(h, h->json.problem);
}

static void keep(header* h, const char* string) { h->used += strlen(string) + 1; }

static tm_status take_metadata(header* h) {
  TM_TRY(expect(h, '{'));
  if (tm_json_take_(&h->json, '}')) {
    return TM_OK;
  }
  do {
    const size_t used = h->used;
    const char* key;
    const char* text;
    TM_TRY(take_string(h, &key));
    keep(h, key);
    TM_TRY(expect(h, ':'));
    TM_TRY(take_string(h, &text));
    TM_TRY(as_corrupt(h, tm_tensor_map_add_metadata(h->map, key, text), key));
    h->used = used;
  } while (tm_json_take_(&h->json, ','));
  return expect(h, '}');
}

static tm_status take_dtype(header* h, info* tensor) {
  static const char* const foreign[] = {"F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "C64"};
  const char* name;
  TM_TRY(take_string(h, &name));
  for (int i = TM_DTYPE_NULL + 1; i < TM_DTYPES; i++) {
    const char* const known = tm_safetensors_name_((tm_dtype)i);
    if (known && strcmp(name, known) == 0) {
      tensor->dtype = (tm_dtype)i;
      return TM_OK;
    }
  }
  for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
    if (strcmp(name, foreign[i]) == 0) {
      return TM_RAISE(TM_ERR_UNAVAILABLE, "%s: \"%.64s\" is of type %s, which tmcore has not",
                      h->from->name, tensor->name, name);
    }
  }
  return TM_RAISE(TM_ERR_CORRUPT, "%s: \"%.64s\" is of an unknown type, \"%.32s\"", h->from->name,
                  tensor->name, name);
}

static tm_status take_shape(header* h, info* tensor) {
  tensor->shape.rank = 0;
  TM_TRY(expect(h, '['));
  if (tm_json_take_(&h->json, ']')) {
    return TM_OK;
  }
  do {
    int64_t size;
    TM_TRY(take_integer(h, &size));
    if (tensor->shape.rank == TM_MAX_RANK) {
      return TM_RAISE(TM_ERR_UNAVAILABLE, "%s: \"%.64s\" has more than %d dimensions",
                      h->from->name, tensor->name, TM_MAX_RANK);
    }
    tensor->shape.dim[tensor->shape.rank++] = size;
  } while (tm_json_take_(&h->json, ','));
  return expect(h, ']');
}

static tm_status take_offsets(header* h, info* tensor) {
  TM_TRY(expect(h, '['));
  TM_TRY(take_integer(h, &tensor->begin));
  TM_TRY(expect(h, ','));
  TM_TRY(take_integer(h, &tensor->end));
  return expect(h, ']');
}

// Takes one field of a tensor, whose bit in `seen` must not be set.
static tm_status take_field(header* h, info* tensor, unsigned* seen) {
  static const struct {
    const char* name;
    tm_status (*take)(header*, info*);
  } fields[] = {{"dtype", take_dtype}, {"shape", take_shape}, {"data_offsets", take_offsets}};
  const char* name;
  TM_TRY(take_string(h, &name));
  for (unsigned i = 0; i < sizeof fields / sizeof *fields; i++) {
    if (strcmp(name, fields[i].name) == 0 && !(*seen & 1u << i)) {
      *seen |= 1u << i;
      TM_TRY(expect(h, ':'));
      return fields[i].take(h, tensor);
    }
  }
  return malformed(h, "another field expected");
}

// Whether type, shape and offsets tell of the same number of bytes.
static tm_status check_bytes(const header* h, const info* tensor) {
  tm_layout layout;
  size_t bytes;
  TM_TRY(as_corrupt(h, tm_layout_make(tensor->shape, &layout), tensor->name));
  const int64_t size = tm_layout_size(&layout);
  TM_TRY(as_corrupt(h, tm_dtype_bytes(tensor->dtype, size, &bytes), tensor->name));
  const bool whole = size % 8 * tm_dtype_bits(tensor->dtype) % 8 == 0;
  if (whole && tensor->begin <= tensor->end && (size_t)(tensor->end - tensor->begin) == bytes) {
    return TM_OK;
  }
  char shape[TM_SHAPE_TEXT_SIZE];
  tm_shape_text(&tensor->shape, shape, sizeof shape);
  return TM_RAISE(TM_ERR_CORRUPT, "%s: \"%.64s\": %s of %s in bytes %lld to %lld", h->from->name,
                  tensor->name, shape, tm_dtype_name(tensor->dtype), (long long)tensor->begin,
                  (long long)tensor->end);
}

static tm_status take_tensor(header* h, const char* name) {
  if (h->count == h->room) {
    return malformed(h, "more tensors than bytes for them");
  }
  info* const tensor = &h->infos[h->count];
  unsigned seen = 0;
  tensor->name = name;
  keep(h, name);
  TM_TRY(expect(h, '{'));
  do {
    TM_TRY(take_field(h, tensor, &seen));
  } while (tm_json_take_(&h->json, ','));
  TM_TRY(expect(h, '}'));
  if (seen != 7) {
    return malformed(h, "a tensor without its type, shape or offsets");
  }
  h->order[h->count++] = tensor;
  return check_bytes(h, tensor);
}

static tm_status take_all(header* h) {
  bool metadata = false;
  TM_TRY(h->text < h->json.end && *h->text == '{' ? TM_OK : malformed(h, "'{' expected"));
  TM_TRY(expect(h, '{'));
  if (!tm_json_take_(&h->json, '}')) {
    do {
      const char* name;
      TM_TRY(take_string(h, &name));
      TM_TRY(expect(h, ':'));
      if (strcmp(name, TM_SAFETENSORS_METADATA_) != 0) {
        TM_TRY(take_tensor(h, name));
      } else if (metadata) {
        return malformed(h, "the metadata for the second time");
      } else {
        metadata = true;
        TM_TRY(take_metadata(h));
      }
    } while (tm_json_take_(&h->json, ','));
    TM_TRY(expect(h, '}'));
  }
  return tm_json_end_(&h->json) ? TM_OK : malformed(h, h->json.problem);
}

//===-- The whole ---------------------------------------------------------===//

static int compare_names(const void* a, const void* b) {
  return strcmp((*(info* const*)a)->name, (*(info* const*)b)->name);
}

static int compare_offsets(const void* a, const void* b) {
  const info* const x = *(info* const*)a;
  const info* const y = *(info* const*)b;
  if (x->begin != y->begin) {
    return x->begin < y->begin ? -1 : 1;
  }
  return (x->end > y->end) - (x->end < y->end);
}

static tm_status check_names(const header* h) {
  qsort(h->order, (size_t)h->count, sizeof *h->order, compare_names);
  for (int64_t i = 1; i < h->count; i++) {
    if (strcmp(h->order[i - 1]->name, h->order[i]->name) == 0) {
      return TM_RAISE(TM_ERR_CORRUPT, "%s: \"%.64s\" is there twice", h->from->name,
                      h->order[i]->name);
    }
  }
  return TM_OK;
}

// Whether every byte of the values belongs to exactly one tensor.
static tm_status check_cover(const header* h) {
  const int64_t size = (int64_t)(h->from->size - h->from->position);
  int64_t covered = 0;
  qsort(h->order, (size_t)h->count, sizeof *h->order, compare_offsets);
  for (int64_t i = 0; i < h->count; i++) {
    if (h->order[i]->begin != covered) {
      return TM_RAISE(TM_ERR_CORRUPT, "%s: \"%.64s\" begins at byte %lld, %lld are taken by others",
                      h->from->name, h->order[i]->name, (long long)h->order[i]->begin,
                      (long long)covered);
    }
    covered = h->order[i]->end;
  }
  return covered == size ? TM_OK
                         : TM_RAISE(TM_ERR_CORRUPT, "%s: tensors of %lld bytes, %lld are there",
                                    h->from->name, (long long)covered, (long long)size);
}

static tm_status load_tensors(const header* h, const tm_transfer_target* target) {
  for (int64_t i = 0; i < h->count; i++) {
    const info* const tensor = &h->infos[i];
    tm_auto_tensor made = tm_transfer_empty_(target, &tensor->shape, tensor->dtype);
    if (!tm_ok(&made)) {
      return tm_last_status();
    }
    const uint64_t offset = h->from->position + (uint64_t)tensor->begin;
    TM_TRY(tm_transfer_fill_(&made, read_bytes, (void*)h->from, offset));
    TM_TRY(tm_tensor_map_produce(h->map, tensor->name, &made));
  }
  return TM_OK;
}

// Stores the size of the header, which the source has.
static tm_status find_header(source* from, size_t* out) {
  char prefix[PREFIX_SIZE];
  *out = 0;
  if (from->size < PREFIX_SIZE) {
    return TM_RAISE(TM_ERR_CORRUPT, "%s: %llu bytes, the size of the header takes %d", from->name,
                    (unsigned long long)from->size, PREFIX_SIZE);
  }
  TM_TRY(read_bytes(from, 0, prefix, PREFIX_SIZE));
  const uint64_t size = tm_get_u64_(prefix);
  if (size > from->size - PREFIX_SIZE || size > TM_SAFETENSORS_MOST_HEADER_) {
    return TM_RAISE(TM_ERR_CORRUPT, "%s: a header of %llu bytes in a file of %llu", from->name,
                    (unsigned long long)size, (unsigned long long)from->size);
  }
  from->position = PREFIX_SIZE + size;
  *out = (size_t)size;
  return TM_OK;
}

static tm_status parse_and_load(header* h, const tm_transfer_target* target) {
  TM_TRY(take_all(h));
  TM_TRY(check_names(h));
  TM_TRY(check_cover(h));
  return load_tensors(h, target);
}

// With memory for a header of `size` bytes: the text, the strings, and what it tells.
static tm_status load_sized(const source* from, const tm_transfer_target* target, size_t size,
                            tm_tensor_map* map) {
  header h = {.from = from, .room = (int64_t)(size / LEAST_ENTRY) + 1, .map = map};
  const size_t infos = (size_t)h.room * (sizeof(info) + sizeof(info*));
  char* const memory = tm_bookkeeping_alloc(infos + 2 * (size + 1), "a header of tensors");
  if (!memory) {
    return TM_ERR_NO_MEMORY;
  }
  h.infos = (info*)memory;
  h.order = (info**)(h.infos + h.room);
  h.pool = memory + infos;
  char* const text = h.pool + size + 1;
  h.text = text;
  h.json = (tm_json){.at = text, .end = text + size};
  tm_status status = read_bytes((void*)from, PREFIX_SIZE, text, size);
  if (status == TM_OK) {
    status = parse_and_load(&h, target);
  }
  tm_bookkeeping_free(memory);
  return status;
}

static tm_tensor_map* load(source* from, const tm_transfer_target* target) {
  size_t size;
  if (find_header(from, &size) != TM_OK) {
    return NULL;
  }
  tm_tensor_map* map = tm_tensor_map_create();
  if (map && load_sized(from, target, size, map) != TM_OK) {
    tm_tensor_map_release(map);
    map = NULL;
  }
  return map;
}

//===-- Files and memory --------------------------------------------------===//

static tm_status raise_errno(const char* path) {
  return TM_RAISE(errno == ENOENT ? TM_ERR_NOT_FOUND : TM_ERR_IO, "%s: %s", path, strerror(errno));
}

static tm_tensor_map* load_file(const char* path, const tm_transfer_target* target) {
  struct stat status;
  if (!path) {
    (void)TM_RAISE(TM_ERR_INVALID, "safetensors: the path is NULL");
    return NULL;
  }
  // What is no file is refused below; a pipe without a writer would keep us here.
  source from = {.name = path, .file = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)};
  if (from.file < 0) {
    (void)raise_errno(path);
    return NULL;
  }
  tm_tensor_map* map = NULL;
  if (fstat(from.file, &status) != 0) {
    (void)raise_errno(path);
  } else if (!S_ISREG(status.st_mode)) {
    (void)TM_RAISE(TM_ERR_IO, "%s: no regular file", path);
  } else {
    from.size = (uint64_t)status.st_size;
    map = load(&from, target);
  }
  close(from.file);
  return map;
}

static tm_tensor_map* load_memory(const void* data, size_t size, const tm_transfer_target* target) {
  if (!data) {
    (void)TM_RAISE(TM_ERR_INVALID, "safetensors: %zu bytes at NULL", size);
    return NULL;
  }
  source from = {.name = "safetensors", .data = data, .size = size};
  return load(&from, target);
}

static bool is_allocator(tm_allocator* allocator) {
  return allocator || TM_NULL_HANDLE("an allocator") == TM_OK;
}

tm_tensor_map* tm_safetensors_load(const char* path, tm_device_type type) {
  return load_file(path, &(tm_transfer_target){.type = type});
}

tm_tensor_map* tm_safetensors_load_from(tm_allocator* allocator, const char* path) {
  return is_allocator(allocator) ? load_file(path, &(tm_transfer_target){.allocator = allocator})
                                 : NULL;
}

tm_tensor_map* tm_safetensors_decode(const void* data, size_t size, tm_device_type type) {
  return load_memory(data, size, &(tm_transfer_target){.type = type});
}

tm_tensor_map* tm_safetensors_decode_from(tm_allocator* allocator, const void* data, size_t size) {
  return is_allocator(allocator)
             ? load_memory(data, size, &(tm_transfer_target){.allocator = allocator})
             : NULL;
}
