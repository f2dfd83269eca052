#include "tm/tensor/map.h"

#include <limits.h>
#include <string.h>
#include <sys/queue.h>

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

enum {
  SHORT_KEY = 56,      // bytes, the NUL included, that an entry has room for
  FIRST_ENTRIES = 16,  // that a map makes at once, and as many again as it has when it needs more
  MEMO_SETS = 32,
  MEMO_WAYS = 2,
  MEMO_CHANGES = 4 * MEMO_SETS * MEMO_WAYS,  // by finding, until something is put in again
};

// uthash keeps entries in the order of insertion as well as by their key. One whose tensor was
// taken out keeps its key and hash, so that the key can come back soon.
typedef struct entry {
  tm_tensor_map_entry shown;  // must be first
  UT_hash_handle hh;
  TAILQ_ENTRY(entry) in_unused;
  char* long_key;  // one that does not fit
  char short_key[SHORT_KEY];
} entry;

typedef struct chunk {
  SLIST_ENTRY(chunk) in_chunks;
  size_t used;  // entries that have had a key
  size_t count;
  _Alignas(64) entry entries[];
} chunk;

// The entry that a key at this address was found in last: callers name keys by literals, again and
// again. It may have another key by now, or none. Read and written with __atomic, since those who
// only ask may do so side by side.
typedef struct memo {
  const char* address;
  entry* found;
} memo;

// uthash frees a table with its last entry. The tensors' has one more before all of them, whose key
// no string is, so that a map which is emptied in every step takes no memory in the next.
struct tm_tensor_map {
  entry* tensors;   // NULL, or the anchor; then the tensors
  entry* metadata;  // NULL where there are none
  entry anchor;
  TAILQ_HEAD(, entry) unused;
  SLIST_HEAD(, chunk) chunks;  // the first is the only one with entries never used
  int32_t memo_changes;        // left; with __atomic: many readers must not go on writing for ever
  memo memos[MEMO_SETS][MEMO_WAYS];
};

static const tm_tensor null_tensor;  // all zero is null

//===-- What was found before ---------------------------------------------===//

// Literals lie side by side.
static inline size_t memo_set_of(const char* key) {
  return ((uintptr_t)key >> 3 ^ (uintptr_t)key >> 8) % MEMO_SETS;
}

// An entry with that key, in the map or unused; NULL where none is remembered.
static inline entry* remembered(const tm_tensor_map* map, const char* key) {
  const memo* set = map->memos[memo_set_of(key)];
  for (int i = 0; i < MEMO_WAYS; i++) {
    if (__atomic_load_n(&set[i].address, __ATOMIC_RELAXED) == key) {
      entry* found = __atomic_load_n(&set[i].found, __ATOMIC_RELAXED);
      return found && strcmp(found->shown.key, key) == 0 ? found : NULL;
    }
  }
  return NULL;
}

static void memo_store(memo* self, const char* address, entry* found) {
  __atomic_store_n(&self->address, address, __ATOMIC_RELAXED);
  __atomic_store_n(&self->found, found, __ATOMIC_RELAXED);
}

// In place of what the address had, or of what its set was told first.
static void remember(tm_tensor_map* map, const char* key, entry* found) {
  memo* set = map->memos[memo_set_of(key)];
  if (__atomic_load_n(&set[0].address, __ATOMIC_RELAXED) != key) {
    memo_store(&set[1], __atomic_load_n(&set[0].address, __ATOMIC_RELAXED),
               __atomic_load_n(&set[0].found, __ATOMIC_RELAXED));
  }
  memo_store(&set[0], key, found);
}

// The same by those who only ask.
static void remember_found(const tm_tensor_map* map, const char* key, entry* found) {
  tm_tensor_map* self = (tm_tensor_map*)(uintptr_t)map;  // what is remembered is nobody's to see
  const int32_t left = __atomic_load_n(&self->memo_changes, __ATOMIC_RELAXED);
  if (left > 0) {
    __atomic_store_n(&self->memo_changes, left - 1, __ATOMIC_RELAXED);
    remember(self, key, found);
  }
}

//===-- Finding -----------------------------------------------------------===//

// A key with what uthash wants of it.
typedef struct hashed_key {
  const char* text;
  size_t size;  // without the NUL
  unsigned hash;
} hashed_key;

static hashed_key hash_key(const char* key) {
  hashed_key self = {key, strlen(key), 0};
  HASH_VALUE(key, self.size, self.hash);
  return self;
}

static inline entry* find(entry* head, const hashed_key* key) {
  entry* found;
  HASH_FIND_BYHASHVALUE(hh, head, key->text, key->size, key->hash, found);
  return found;
}

// Values are never null.
static bool is_unused(const entry* self) { return !tm_ok(&self->shown.tensor); }

static inline entry* find_tensor(const tm_tensor_map* map, const char* key) {
  entry* found = remembered(map, key);
  if (TM_LIKELY(found && !is_unused(found))) {
    return found;
  }
  const hashed_key hashed = hash_key(key);
  found = find(map->tensors, &hashed);
  if (found) {
    remember_found(map, key, found);
  }
  return found;
}

//===-- Entries -----------------------------------------------------------===//

static tm_status check_key_size(size_t size) {
  // uthash counts a key's bytes in an unsigned.
  return size < INT_MAX
             ? TM_OK
             : TM_RAISE(TM_ERR_OVERFLOW, "tensor map: a key of %zu bytes, at most %d fit", size,
                        INT_MAX - 1);
}

static tm_status add_chunk(tm_tensor_map* map) {
  const chunk* last = SLIST_FIRST(&map->chunks);
  const size_t count = last ? 2 * last->count : FIRST_ENTRIES;
  size_t size;
  if (!tm_checked_mul(count, sizeof(entry), &size) || !tm_checked_add(size, sizeof(chunk), &size)) {
    return TM_RAISE(TM_ERR_OVERFLOW, "tensor map: %zu entries more", count);
  }
  chunk* made = tm_bookkeeping_alloc(size, "entries of a tensor map");
  if (!made) {
    return tm_last_status();
  }
  made->count = count;
  SLIST_INSERT_HEAD(&map->chunks, made, in_chunks);
  return TM_OK;
}

// Gives the entry another key. On failure it keeps the one it had.
static tm_status set_key(entry* self, const hashed_key* key) {
  char* long_key = NULL;
  if (key->size >= SHORT_KEY) {
    long_key = tm_bookkeeping_alloc(key->size + 1, "a key of a tensor map");
    if (!long_key) {
      return tm_last_status();
    }
  }
  tm_bookkeeping_free(self->long_key);
  self->long_key = long_key;
  self->shown.key = memcpy(long_key ? long_key : self->short_key, key->text, key->size + 1);
  return TM_OK;
}

// One that has not had a key; NULL where there is none.
static entry* new_entry(tm_tensor_map* map) {
  chunk* first = SLIST_FIRST(&map->chunks);
  return first && first->used < first->count ? &first->entries[first->used] : NULL;
}

// An entry for that key, which has it now and is no longer among the unused ones. Of those, the one
// that has been unused longest gives way, once there is none that is new. NULL after raising.
static entry* take_unused(tm_tensor_map* map, const hashed_key* key) {
  entry* self = new_entry(map);
  if (!self) {
    self = TAILQ_FIRST(&map->unused);
  }
  if (!self && add_chunk(map) == TM_OK) {
    self = new_entry(map);
  }
  const bool is_new = self && !self->shown.key;
  if (!self || set_key(self, key) != TM_OK) {
    return NULL;
  }
  if (is_new) {
    SLIST_FIRST(&map->chunks)->used++;
  } else {
    TAILQ_REMOVE(&map->unused, self, in_unused);
  }
  return self;
}

// The key stays.
static inline void give_unused(tm_tensor_map* map, entry* self) {
  TAILQ_INSERT_TAIL(&map->unused, self, in_unused);
}

// Adds an entry, which has the key, to one of the map's two tables; false after raising.
static inline bool add(entry** head, entry* self, const hashed_key* key) {
  self->hh.tbl = NULL;
  HASH_ADD_KEYPTR_BYHASHVALUE(hh, *head, self->shown.key, key->size, key->hash, self);
  return self->hh.tbl != NULL;  // else the table could not grow
}

//===-- Lifetime ----------------------------------------------------------===//

tm_tensor_map* tm_tensor_map_create(void) {
  tm_tensor_map* map = tm_bookkeeping_alloc(sizeof(tm_tensor_map), "a tensor map");
  if (map) {
    TAILQ_INIT(&map->unused);
    SLIST_INIT(&map->chunks);
  }
  return map;
}

static entry* first_tensor(const tm_tensor_map* map) {
  return map->tensors ? map->anchor.hh.next : NULL;
}

static void release_tensors(tm_tensor_map* map) {
  entry* at;
  entry* next;
  HASH_ITER(hh, map->tensors, at, next) { tm_release(&at->shown.tensor); }
  HASH_CLEAR(hh, map->tensors);
}

static void release_metadata(tm_tensor_map* map) {
  entry* at;
  entry* next;
  HASH_ITER(hh, map->metadata, at, next) {
    HASH_DELETE(hh, map->metadata, at);
    tm_bookkeeping_free(at);
  }
}

static void release_chunks(tm_tensor_map* map) {
  chunk* at;
  while ((at = SLIST_FIRST(&map->chunks)) != NULL) {
    for (size_t i = 0; i < at->used; i++) {
      tm_bookkeeping_free(at->entries[i].long_key);
    }
    SLIST_REMOVE_HEAD(&map->chunks, in_chunks);
    tm_bookkeeping_free(at);
  }
}

void tm_tensor_map_release(tm_tensor_map* map) {
  if (map) {
    release_tensors(map);
    release_metadata(map);
    release_chunks(map);
    tm_bookkeeping_free(map);
  }
}

//===-- Asking ------------------------------------------------------------===//

static const tm_tensor_map_entry* shown(const entry* self) { return self ? &self->shown : NULL; }

// The keys that are there, as many as fit.
static void list_keys(const tm_tensor_map* map, char* text, size_t size) {
  tm_text out = tm_text_of_(text, size);
  const entry* first = first_tensor(map);
  for (const entry* at = first; at && !out.cut; at = at->hh.next) {
    tm_text_add_string_(&out, at == first ? "\"" : ", \"");
    tm_text_add_string_(&out, at->shown.key);
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
  entry* const found = find_tensor(map, key);
  if (!found) {
    (void)not_found(map, key);
  }
  return found;
}

int64_t tm_tensor_map_size(const tm_tensor_map* map) {
  return map && map->tensors ? (int64_t)HASH_COUNT(map->tensors) - 1 : 0;
}

bool tm_tensor_map_contains(const tm_tensor_map* map, const char* key) {
  return tm_tensor_map_try(map, key) != NULL;
}

const tm_tensor* tm_tensor_map_at(const tm_tensor_map* map, const char* key) {
  const entry* const found = require(map, key);
  return found ? &found->shown.tensor : &null_tensor;
}

const tm_tensor* tm_tensor_map_try(const tm_tensor_map* map, const char* key) {
  const entry* const found = map && key ? find_tensor(map, key) : NULL;
  return found ? &found->shown.tensor : NULL;
}

const tm_tensor_map_entry* tm_tensor_map_first(const tm_tensor_map* map) {
  return map ? shown(first_tensor(map)) : NULL;
}

const tm_tensor_map_entry* tm_tensor_map_next(const tm_tensor_map_entry* self) {
  return self ? shown(((const entry*)self)->hh.next) : NULL;
}

//===-- Putting in and taking out -----------------------------------------===//

// As tm_move, without a copy of what is not used of the layout.
static inline void move(tm_tensor* from, tm_tensor* to) {
  to->storage = from->storage;
  to->data = from->data;
  to->device = from->device;
  to->dtype = from->dtype;
  to->flags = from->flags;
  to->layout.ranked = from->layout.ranked;
  for (int32_t i = 0; i < from->layout.ranked - 1; i++) {
    to->layout.shape[i] = from->layout.shape[i];
    to->layout.stride[i] = from->layout.stride[i];
    __asm__("" : "+r"(i));  // or the compiler calls memmove, twice
  }
  tm_reset_(from);
}

static inline bool has_elements(const tm_layout* layout) {
  bool has = true;
  for (int32_t i = 0; i < tm_layout_rank(layout); i++) {
    has = has && layout->shape[i] != 0;
  }
  return has;
}

static TM_COLD tm_status exists(const char* key) {
  return TM_RAISE(TM_ERR_EXISTS, "tensor map: \"%.64s\" is there already", key);
}

static bool add_anchor(tm_tensor_map* map) {
  static const char no_string[1] = {'\0'};
  hashed_key key = {no_string, sizeof no_string, 0};
  HASH_VALUE(key.text, key.size, key.hash);
  map->anchor.shown.key = no_string;
  return add(&map->tensors, &map->anchor, &key);
}

// An unused entry with that key, added to the table, in which there is none. NULL after raising.
static inline entry* insert(tm_tensor_map* map, entry* before, const hashed_key* key) {
  if (TM_UNLIKELY(!map->tensors) && !add_anchor(map)) {
    return NULL;
  }
  entry* self = before;
  if (before) {
    TAILQ_REMOVE(&map->unused, before, in_unused);
  } else {
    self = check_key_size(key->size) == TM_OK ? take_unused(map, key) : NULL;
  }
  if (self && !add(&map->tensors, self, key)) {
    give_unused(map, self);
    self = NULL;
  }
  return self;
}

tm_status tm_tensor_map_produce(tm_tensor_map* map, const char* key, tm_tensor* tensor) {
  TM_TRY(check(map, key));
  if (!tensor || !tm_ok(tensor)) {
    return TM_NULL_HANDLE("a tensor");
  }
  entry* const before = remembered(map, key);  // whose hash is known, and which may be free
  const hashed_key hashed =
      before ? (hashed_key){before->shown.key, before->hh.keylen, before->hh.hashv} : hash_key(key);
  if (find(map->tensors, &hashed)) {
    return exists(key);
  }
  entry* const made = insert(map, before, &hashed);
  if (!made) {
    return tm_last_status();
  }
  if (tensor->flags & TM_BORROWED_) {
    tm_storage_retain(tensor->storage);
    tensor->flags = 0;
  }
  move(tensor, &made->shown.tensor);
  __atomic_store_n(&map->memo_changes, MEMO_CHANGES, __ATOMIC_RELAXED);
  if (!before) {
    remember(map, key, made);
  }
  return TM_OK;
}

static inline void take(tm_tensor_map* map, entry* self, tm_tensor* out) {
  move(&self->shown.tensor, out);
  HASH_DELETE(hh, map->tensors, self);
  give_unused(map, self);
}

static TM_COLD void refuse_to_consume(const entry* self) {
  char shape[TM_LAYOUT_TEXT_SIZE];
  tm_layout_text(&self->shown.tensor.layout, shape, sizeof shape);
  (void)TM_RAISE(TM_ERR_INVALID, "tensor map: \"%.64s\" has no elements to consume: %s",
                 self->shown.key, shape);
}

tm_tensor tm_tensor_map_consume(tm_tensor_map* map, const char* key) {
  tm_tensor taken;
  tm_reset_(&taken);
  entry* const found = require(map, key);
  if (found && !has_elements(&found->shown.tensor.layout)) {
    refuse_to_consume(found);
  } else if (found) {
    take(map, found, &taken);
  }
  return taken;
}

tm_tensor tm_tensor_map_try_consume(tm_tensor_map* map, const char* key) {
  tm_tensor taken;
  tm_reset_(&taken);
  entry* const found = map && key ? find_tensor(map, key) : NULL;
  if (found) {
    take(map, found, &taken);
  }
  return taken;
}

//===-- Metadata ----------------------------------------------------------===//

// An entry with copies of `key` and `text`. NULL after raising.
static entry* metadata_create(const hashed_key* key, const char* text) {
  const size_t text_size = strlen(text) + 1;
  size_t size;
  if (check_key_size(key->size) != TM_OK) {
    return NULL;
  }
  if (!tm_checked_add(sizeof(entry) + key->size + 1, text_size, &size)) {
    (void)TM_RAISE(TM_ERR_OVERFLOW, "tensor map: a text of %zu bytes", text_size - 1);
    return NULL;
  }
  entry* self = tm_bookkeeping_alloc(size, "a text of a tensor map");
  if (self) {
    char* copies = (char*)(self + 1);
    self->shown.tensor = tm_null();
    self->shown.key = memcpy(copies, key->text, key->size + 1);
    self->shown.text = memcpy(copies + key->size + 1, text, text_size);
  }
  return self;
}

tm_status tm_tensor_map_add_metadata(tm_tensor_map* map, const char* key, const char* text) {
  TM_TRY(check(map, key));
  if (!text) {
    return TM_RAISE(TM_ERR_INVALID, "tensor map: the text of \"%.64s\" is NULL", key);
  }
  const hashed_key hashed = hash_key(key);
  if (find(map->metadata, &hashed)) {
    return exists(key);
  }
  entry* const made = metadata_create(&hashed, text);
  if (made && !add(&map->metadata, made, &hashed)) {
    tm_bookkeeping_free(made);
    return tm_last_status();
  }
  return made ? TM_OK : tm_last_status();
}

const char* tm_tensor_map_metadata(const tm_tensor_map* map, const char* key) {
  if (!map || !key) {
    return NULL;
  }
  const hashed_key hashed = hash_key(key);
  const entry* const found = find(map->metadata, &hashed);
  return found ? found->shown.text : NULL;
}

int64_t tm_tensor_map_metadata_size(const tm_tensor_map* map) {
  return map ? HASH_COUNT(map->metadata) : 0;
}

const tm_tensor_map_entry* tm_tensor_map_first_metadata(const tm_tensor_map* map) {
  return map ? shown(map->metadata) : NULL;
}
