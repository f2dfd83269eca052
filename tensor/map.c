#include "tm/tensor/map.h"

#include <limits.h>
#include <string.h>

#include "tensor/key_hash.h"
#include "tm/alloc/bookkeeping.h"
#include "tm/base/checked.h"
#include "tm/base/text.h"

// What does not fit is an error of ours (the allocation raises it) and leaves the table as it was,
// instead of uthash's exit().
#define HASH_NONFATAL_OOM 1
#define uthash_malloc(size) tm_bookkeeping_alloc((size), "the table of a tensor map")
#define uthash_free(pointer, size) tm_bookkeeping_free(pointer)
#define HASH_FUNCTION(key, size, hash) ((hash) = (unsigned)tm_key_hash_((key), (size)))
#include <uthash.h>

// uthash keeps entries in the order of insertion as well as by their key.
typedef struct entry {
  tm_tensor_map_entry shown;  // must be first
  UT_hash_handle hh;
  char key[];  // the text of metadata follows its NUL
} entry;

struct tm_tensor_map {
  entry* tensors;   // NULL where there are none, as uthash has it
  entry* metadata;  // likewise
};

static const tm_tensor null_tensor;  // all zero is null

//===-- Entries -----------------------------------------------------------===//

static entry* find(entry* head, const char* key) {
  entry* found;
  HASH_FIND_STR(head, key, found);
  return found;
}

// An entry with copies of `key` and, unless it is NULL, of `text`. NULL after raising.
static entry* entry_create(const char* key, const char* text) {
  const size_t key_size = strlen(key) + 1;
  const size_t text_size = text ? strlen(text) + 1 : 0;
  size_t size;
  if (key_size > INT_MAX || !tm_checked_add(sizeof(entry) + key_size, text_size, &size)) {
    // uthash counts a key's bytes in an unsigned.
    (void)TM_RAISE(TM_ERR_OVERFLOW, "tensor map: a key of %zu bytes, at most %d fit", key_size - 1,
                   INT_MAX - 1);
    return NULL;
  }
  entry* self = tm_bookkeeping_alloc(size, "an entry of a tensor map");
  if (!self) {
    return NULL;
  }
  memcpy(self->key, key, key_size);
  self->shown.key = self->key;
  self->shown.tensor = tm_null();
  if (text) {
    self->shown.text = memcpy(self->key + key_size, text, text_size);
  }
  return self;
}

static void entry_destroy(entry* self) {
  tm_release(&self->shown.tensor);
  tm_bookkeeping_free(self);
}

// Adds to one of the map's two tables what is not there yet. NULL after raising.
static entry* insert(entry** head, const char* key, const char* text) {
  entry* made = entry_create(key, text);
  if (!made) {
    return NULL;
  }
  HASH_ADD_KEYPTR(hh, *head, made->key, strlen(key), made);
  if (!made->hh.tbl) {  // the table could not grow
    entry_destroy(made);
    return NULL;
  }
  return made;
}

static void clear(entry** head) {
  entry* at;
  entry* next;
  HASH_ITER(hh, *head, at, next) {
    HASH_DELETE(hh, *head, at);
    entry_destroy(at);
  }
}

//===-- Lifetime ----------------------------------------------------------===//

tm_tensor_map* tm_tensor_map_create(void) {
  return tm_bookkeeping_alloc(sizeof(tm_tensor_map), "a tensor map");
}

void tm_tensor_map_release(tm_tensor_map* map) {
  if (map) {
    clear(&map->tensors);
    clear(&map->metadata);
    tm_bookkeeping_free(map);
  }
}

//===-- Asking ------------------------------------------------------------===//

static const tm_tensor_map_entry* shown(const entry* self) { return self ? &self->shown : NULL; }

// The keys that are there, as many as fit.
static void list_keys(const tm_tensor_map* map, char* text, size_t size) {
  tm_text out = tm_text_of_(text, size);
  for (const entry* at = map->tensors; at && !out.cut; at = at->hh.next) {
    tm_text_add_string_(&out, at == map->tensors ? "\"" : ", \"");
    tm_text_add_string_(&out, at->key);
    tm_text_add_string_(&out, "\"");
  }
  tm_text_finish_(&out);
}

static TM_COLD tm_status not_found(const tm_tensor_map* map, const char* key) {
  char keys[TM_ERROR_MESSAGE_SIZE];
  list_keys(map, keys, sizeof keys - 128);
  return TM_RAISE(TM_ERR_NOT_FOUND, "tensor map: no \"%.64s\" among %lld: %s", key,
                  (long long)tm_tensor_map_size(map), keys);
}

static tm_status check(const tm_tensor_map* map, const char* key) {
  if (!map) {
    return TM_NULL_HANDLE("a tensor map");
  }
  return key ? TM_OK : TM_RAISE(TM_ERR_INVALID, "tensor map: the key is NULL");
}

// The entry, or NULL after raising.
static entry* require(const tm_tensor_map* map, const char* key) {
  if (check(map, key) != TM_OK) {
    return NULL;
  }
  entry* const found = find(map->tensors, key);
  if (!found) {
    (void)not_found(map, key);
  }
  return found;
}

int64_t tm_tensor_map_size(const tm_tensor_map* map) { return map ? HASH_COUNT(map->tensors) : 0; }

bool tm_tensor_map_contains(const tm_tensor_map* map, const char* key) {
  return tm_tensor_map_try(map, key) != NULL;
}

const tm_tensor* tm_tensor_map_at(const tm_tensor_map* map, const char* key) {
  const entry* const found = require(map, key);
  return found ? &found->shown.tensor : &null_tensor;
}

const tm_tensor* tm_tensor_map_try(const tm_tensor_map* map, const char* key) {
  const entry* const found = map && key ? find(map->tensors, key) : NULL;
  return found ? &found->shown.tensor : NULL;
}

const tm_tensor_map_entry* tm_tensor_map_first(const tm_tensor_map* map) {
  return map ? shown(map->tensors) : NULL;
}

const tm_tensor_map_entry* tm_tensor_map_next(const tm_tensor_map_entry* self) {
  return self ? shown(((const entry*)self)->hh.next) : NULL;
}

//===-- Putting in and taking out -----------------------------------------===//

static TM_COLD tm_status exists(const char* key) {
  return TM_RAISE(TM_ERR_EXISTS, "tensor map: \"%.64s\" is there already", key);
}

tm_status tm_tensor_map_produce(tm_tensor_map* map, const char* key, tm_tensor* tensor) {
  TM_TRY(check(map, key));
  if (!tensor || !tm_ok(tensor)) {
    return TM_NULL_HANDLE("a tensor");
  }
  if (find(map->tensors, key)) {
    return exists(key);
  }
  entry* const made = insert(&map->tensors, key, NULL);
  if (!made) {
    return tm_last_status();
  }
  made->shown.tensor = tensor->flags & TM_BORROWED_ ? tm_share(tensor) : tm_move(tensor);
  tm_release(tensor);
  return TM_OK;
}

static tm_tensor take(tm_tensor_map* map, entry* self) {
  tm_tensor taken = tm_move(&self->shown.tensor);
  HASH_DELETE(hh, map->tensors, self);
  entry_destroy(self);
  return taken;
}

tm_tensor tm_tensor_map_consume(tm_tensor_map* map, const char* key) {
  entry* const found = require(map, key);
  if (!found) {
    return tm_null();
  }
  if (tm_size(&found->shown.tensor) == 0) {
    char shape[TM_LAYOUT_TEXT_SIZE];
    tm_layout_text(&found->shown.tensor.layout, shape, sizeof shape);
    (void)TM_RAISE(TM_ERR_INVALID, "tensor map: \"%.64s\" has no elements to consume: %s", key,
                   shape);
    return tm_null();
  }
  return take(map, found);
}

tm_tensor tm_tensor_map_try_consume(tm_tensor_map* map, const char* key) {
  entry* const found = map && key ? find(map->tensors, key) : NULL;
  return found ? take(map, found) : tm_null();
}

//===-- Metadata ----------------------------------------------------------===//

tm_status tm_tensor_map_add_metadata(tm_tensor_map* map, const char* key, const char* text) {
  TM_TRY(check(map, key));
  if (!text) {
    return TM_RAISE(TM_ERR_INVALID, "tensor map: the text of \"%.64s\" is NULL", key);
  }
  if (find(map->metadata, key)) {
    return exists(key);
  }
  return insert(&map->metadata, key, text) ? TM_OK : tm_last_status();
}

const char* tm_tensor_map_metadata(const tm_tensor_map* map, const char* key) {
  const entry* const found = map && key ? find(map->metadata, key) : NULL;
  return found ? found->shown.text : NULL;
}

int64_t tm_tensor_map_metadata_size(const tm_tensor_map* map) {
  return map ? HASH_COUNT(map->metadata) : 0;
}

const tm_tensor_map_entry* tm_tensor_map_first_metadata(const tm_tensor_map* map) {
  return map ? shown(map->metadata) : NULL;
}
