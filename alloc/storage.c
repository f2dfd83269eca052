// The life of a block:
//
//   made on stream S       used on T, U            last release
//   |----------------------|----------------------|
//   its allocator's own    an event per stream,   S waits for the events, the allocator's stream
//   stream waits for none  recorded when told     waits for S, and the block goes back: no host
//   wait
//
// S is the allocator's own stream in the common case; then nothing is noted and nothing waits.
// Where one of the other streams is being captured when the block is released, there is nothing
// that could be waited for: the storage is parked, and freed when the capture is over.
//
// Headers of allocators that keep no storage themselves come from a per-thread cache.

#include "tm/alloc/storage.h"

#include <pthread.h>
#include <stdlib.h>

#include "alloc/event_cache.h"
#include "alloc/parked.h"
#include "tm/alloc/bookkeeping.h"
#include "tm/alloc/event.h"
#include "tm/base/fatal.h"
#include "tm/base/thread_exit.h"

// A stream that uses the block, and the event that its free waits for.
struct tm_storage_use_ {
  tm_parked_ parked;  // must be first: of a storage that waits to be freed, in its first use
  tm_storage* storage;
  tm_storage_use_* next;
  tm_stream* stream;  // retained
  tm_event* event;    // from the event cache
  bool recorded;      // the event covers what was queued; else the free has to record it
};

struct tm_storage_adopted_ {
  tm_deleter deleter;
  void* user;
};

//===-- Headers -----------------------------------------------------------===//

enum { HEADER_CACHE_LIMIT = 256 };  // headers a thread keeps

typedef struct header_cache {
  tm_storage* first;
  size_t count;
} header_cache;

static __thread header_cache headers;
static tm_thread_exit at_exit;
static pthread_once_t process_exit_once = PTHREAD_ONCE_INIT;

static void empty_header_cache(void* cache) {
  header_cache* self = cache;
  while (self->first) {
    tm_storage* header = self->first;
    self->first = header->link.next;
    tm_bookkeeping_free(header);
  }
  self->count = HEADER_CACHE_LIMIT;  // destructors that run later return theirs to the heap
}

static void empty_own_header_cache(void) { empty_header_cache(&headers); }

static void empty_at_process_exit(void) { (void)atexit(empty_own_header_cache); }

static tm_storage* header_take(void) {
  tm_storage* header = headers.first;
  if (TM_LIKELY(header != NULL)) {
    headers.first = header->link.next;
    headers.count--;
    return header;
  }
  return tm_bookkeeping_alloc(sizeof *header, "a storage header");
}

// Registers what empties the cache; false where nothing would.
static bool watch_exit(void) {
  (void)pthread_once(&process_exit_once, empty_at_process_exit);
  return tm_thread_exit_set_(&at_exit, empty_header_cache, &headers);
}

static void header_give(tm_storage* header) {
  header->references = 0;  // so that releasing it once more is noticed
  if (TM_UNLIKELY(headers.count >= HEADER_CACHE_LIMIT || (!headers.first && !watch_exit()))) {
    tm_bookkeeping_free(header);
    return;
  }
  header->link.next = headers.first;
  headers.first = header;
  headers.count++;
}

//===-- Streams that use a block ------------------------------------------===//

static void use_destroy(tm_storage_use_* use) {
  tm_event_recycle_(use->event);
  tm_stream_release(use->stream);
  tm_bookkeeping_free(use);
}

// Notes that `stream` uses the block, with an event that is obtained but not yet recorded. NULL on
// failure.
static tm_storage_use_* use_add(tm_storage* storage, tm_stream* stream) {
  tm_storage_use_* use = tm_bookkeeping_alloc(sizeof *use, "a stream's use of a buffer");
  if (!use) {
    return NULL;
  }
  use->event = tm_event_acquire_(tm_stream_device(stream).id);
  if (!use->event) {
    tm_bookkeeping_free(use);
    return NULL;
  }
  use->storage = storage;
  use->stream = tm_stream_retain(stream);
  use->next = storage->uses;
  storage->uses = use;
  return use;
}

static tm_storage_use_* use_of(const tm_storage* storage, const tm_stream* stream) {
  tm_storage_use_* use = storage->uses;
  while (use && !tm_stream_equal(use->stream, stream)) {
    use = use->next;
  }
  return use;
}

// An event that is recorded in a capture belongs to that: then it is left to the free.
static tm_status record_unless_capturing(tm_storage_use_* use) {
  bool capturing = false;
  use->recorded = false;
  TM_TRY(tm_stream_is_capturing(use->stream, &capturing));
  if (!capturing) {
    TM_TRY(tm_event_record(use->event, use->stream));
    use->recorded = true;
  }
  return TM_OK;
}

tm_status tm_storage_record_stream(tm_storage* storage, tm_stream* stream) {
  if (!storage) {
    return TM_NULL_HANDLE("tm_storage_record_stream: the storage");
  }
  if (!stream) {
    return TM_RAISE(TM_ERR_INVALID, "tm_storage_record_stream: the stream is NULL");
  }
  if (tm_stream_equal(storage->stream, stream)) {
    return TM_OK;
  }
  tm_storage_use_* use = use_of(storage, stream);
  const bool is_new = !use;
  if (is_new) {
    use = use_add(storage, stream);
    if (!use) {
      return tm_last_status();
    }
  }
  const tm_status status = record_unless_capturing(use);
  if (status != TM_OK && is_new) {
    storage->uses = use->next;
    use_destroy(use);
  }
  return status;
}

//===-- Allocating --------------------------------------------------------===//

// Makes `stream` wait until the block is ready, and obtains now the event that its free needs.
static tm_status cross_streams(tm_storage* storage, tm_stream* stream) {
  tm_storage_use_* use = use_add(storage, stream);
  if (!use) {
    return tm_last_status();
  }
  const tm_status status = tm_stream_follow_(stream, storage->allocator->stream);
  if (status != TM_OK) {
    storage->uses = NULL;
    use_destroy(use);
    return status;
  }
  storage->stream = tm_stream_retain(stream);
  storage->flags |= TM_STORAGE_CROSS_;
  return TM_OK;
}

static tm_status alloc_embedded(tm_allocator* allocator, size_t size, tm_stream* stream,
                                tm_storage** out) {
  tm_storage* storage;
  TM_TRY(allocator->vtable->alloc_storage(allocator, size, &storage));
  if (stream && !allocator->ignores_stream && !tm_stream_equal(stream, allocator->stream)) {
    const tm_status status = cross_streams(storage, stream);
    if (status != TM_OK) {
      allocator->vtable->free_storage(allocator, storage);
      return status;
    }
  }
  *out = storage;
  return TM_OK;
}

static tm_status alloc_separate(tm_allocator* allocator, size_t size, tm_stream* stream,
                                tm_storage** out) {
  tm_storage* storage = header_take();
  if (!storage) {
    return tm_last_status();
  }
  void* data = NULL;
  tm_status status =
      tm_allocator_alloc_nested_(allocator, size, allocator->stream ? NULL : stream, &data);
  if (status != TM_OK) {
    header_give(storage);
    return status;
  }
  storage->references = 1;
  storage->flags = allocator->is_dry ? TM_STORAGE_DRY_ : 0;
  storage->data = data;
  storage->size = size;
  storage->allocator = allocator;
  storage->stream = allocator->stream;
  storage->uses = NULL;
  if (stream && !allocator->ignores_stream && !tm_stream_equal(stream, allocator->stream)) {
    if (allocator->stream) {
      status = cross_streams(storage, stream);
    } else {
      storage->stream = tm_stream_retain(stream);
      storage->flags |= TM_STORAGE_CROSS_;
    }
  }
  if (status != TM_OK) {
    tm_allocator_undo_(allocator, data, size, NULL);
    header_give(storage);
    return status;
  }
  tm_allocator_retain(allocator);
  *out = storage;
  return TM_OK;
}

static tm_status alloc_once(tm_allocator* allocator, size_t size, tm_stream* stream,
                            tm_storage** out) {
  return allocator->vtable->alloc_storage ? alloc_embedded(allocator, size, stream, out)
                                          : alloc_separate(allocator, size, stream, out);
}

static tm_status reject(tm_allocator* allocator, size_t size, tm_storage** out) {
  if (!out) {
    return TM_RAISE(TM_ERR_INVALID, "tm_storage_alloc: out is NULL");
  }
  *out = NULL;
  if (!allocator) {
    return TM_NULL_HANDLE("tm_storage_alloc: the allocator");
  }
  if (size == 0) {
    return TM_RAISE(TM_ERR_INVALID, "%s: a storage of 0 bytes asked", allocator->vtable->name);
  }
  return TM_RAISE(TM_ERR_INVALID, "%s: %zu bytes asked, more than any object can have",
                  allocator->vtable->name, size);
}

tm_status tm_storage_alloc_failed_(tm_status status, tm_allocator* allocator, size_t size,
                                   tm_stream* stream, tm_storage** out) {
  *out = NULL;
  if (status == TM_ERR_NO_MEMORY && tm_allocator_trim_to_retry_(allocator)) {
    status = alloc_once(allocator, size, stream, out);
  }
  return status == TM_ERR_NO_MEMORY ? tm_raise_oom_(allocator, size, stream) : status;
}

tm_status tm_storage_alloc_general_(tm_allocator* allocator, size_t size, tm_stream* stream,
                                    tm_storage** out) {
  if (!out || !allocator || size - 1 >= (size_t)PTRDIFF_MAX) {
    return reject(allocator, size, out);
  }
  *out = NULL;
  tm_retry_parked_();
  const tm_status status = alloc_once(allocator, size, stream, out);
  return TM_LIKELY(status == TM_OK)
             ? TM_OK
             : tm_storage_alloc_failed_(status, allocator, size, stream, out);
}

tm_status tm_storage_adopt(void* data, size_t size, tm_deleter deleter, void* user,
                           tm_storage** out) {
  if (!out) {
    return TM_RAISE(TM_ERR_INVALID, "tm_storage_adopt: out is NULL");
  }
  *out = NULL;
  if (!data && size) {
    return TM_RAISE(TM_ERR_INVALID, "tm_storage_adopt: data is NULL, and has %zu bytes", size);
  }
  struct tm_storage_adopted_* adopted = tm_bookkeeping_alloc(sizeof *adopted, "adopted memory");
  if (!adopted) {
    return tm_last_status();
  }
  tm_storage* storage = header_take();
  if (!storage) {
    tm_bookkeeping_free(adopted);
    return tm_last_status();
  }
  *adopted = (struct tm_storage_adopted_){.deleter = deleter, .user = user};
  *storage = (tm_storage){.references = 1, .data = data, .size = size, .link.adopted = adopted};
  *out = storage;
  return TM_OK;
}

//===-- Freeing -----------------------------------------------------------===//

static bool is_recorded(tm_storage_use_* use) {
  return use->recorded || (record_unless_capturing(use) == TM_OK && use->recorded);
}

// Orders the free behind one use; false where that is not possible now. On the device where there
// is a stream that can wait, otherwise (memory that knows no streams, a stream that is being
// captured) on the host.
static bool settle_use(tm_storage_use_* use, tm_stream* stream, bool on_host) {
  if (tm_stream_is_over_(use->stream) || (!on_host && tm_stream_equal(use->stream, stream))) {
    return true;
  }
  return is_recorded(use) &&
         ((!on_host && tm_stream_wait_unless_capturing_(stream, use->event)) ||
          tm_event_sync(use->event) == TM_OK || tm_stream_is_over_(use->stream));
}

static void drop_uses(tm_storage* storage) {
  while (storage->uses) {
    tm_storage_use_* use = storage->uses;
    storage->uses = use->next;
    use_destroy(use);
  }
}

// All or none: while one is in the way, the storage keeps them for the next time.
static bool settle_uses(tm_storage* storage, tm_stream* stream, bool on_host) {
  for (tm_storage_use_* use = storage->uses; use; use = use->next) {
    if (!settle_use(use, stream, on_host)) {
      return false;
    }
  }
  drop_uses(storage);
  return true;
}

static bool free_adopted(tm_storage* storage) {
  if (!settle_uses(storage, NULL, true)) {
    return false;
  }
  struct tm_storage_adopted_* adopted = storage->link.adopted;
  if (adopted->deleter) {
    adopted->deleter(storage->data, storage->size, adopted->user);
  }
  tm_bookkeeping_free(adopted);
  header_give(storage);
  return true;
}

static void free_separate(tm_storage* storage, tm_stream* stream) {
  tm_allocator* allocator = storage->allocator;
  tm_allocator_free(allocator, storage->data, storage->size, stream);
  header_give(storage);
  tm_allocator_release(allocator);
}

// The block goes back on the allocator's stream; without one, on the stream that it was made on or
// that has used it.
static tm_stream* stream_to_free_on(const tm_storage* storage) {
  if (storage->allocator->stream || storage->flags & TM_STORAGE_CROSS_) {
    return storage->allocator->stream ? storage->allocator->stream : storage->stream;
  }
  return storage->uses ? storage->uses->stream : NULL;
}

// False, with the storage as it was, where the free has to wait.
static bool free_general(tm_storage* storage) {
  tm_allocator* allocator = storage->allocator;
  if (!allocator) {
    return free_adopted(storage);
  }
  const bool on_host = allocator->device.type == TM_CPU && !allocator->stream;
  if (allocator->ignores_stream && !on_host) {
    drop_uses(storage);  // its free waits for the whole device
  }
  tm_stream* noted = storage->flags & TM_STORAGE_CROSS_ ? storage->stream : NULL;
  tm_stream* stream = tm_stream_retain(stream_to_free_on(storage));
  if (!settle_uses(storage, stream, on_host)) {
    tm_stream_release(stream);
    return false;
  }
  if (storage->flags & TM_STORAGE_EMBEDDED_) {
    storage->stream = allocator->stream;  // as its allocator made it
    allocator->vtable->free_storage(allocator, storage);
  } else {
    free_separate(storage, stream);
  }
  tm_stream_release(stream);
  tm_stream_release(noted);
  return true;
}

static bool retry_free(tm_parked_* parked) {
  return free_general(((tm_storage_use_*)parked)->storage);
}

static void free_or_park(tm_storage* storage) {
  const tm_error kept = *tm_last_error();
  if (!free_general(storage)) {
    storage->uses->parked.retry = retry_free;
    tm_park_(&storage->uses->parked);
  }
  tm_restore_error_(&kept);
}

void tm_storage_free_(tm_storage* storage) {
  if (TM_LIKELY(storage->flags == TM_STORAGE_EMBEDDED_ && !storage->uses)) {
    storage->allocator->vtable->free_storage(storage->allocator, storage);
    return;
  }
  tm_retry_parked_();
  free_or_park(storage);
}

void tm_storage_release_shared_(tm_storage* storage) {
  const int32_t before = __atomic_fetch_sub(&storage->references, 1, __ATOMIC_ACQ_REL);
  if (TM_UNLIKELY(before <= 0)) {
    TM_FATAL("storage %p (%zu bytes at %p) is released more often than it was retained",
             (void*)storage, storage->size, storage->data);
  }
  if (before == 1) {
    tm_storage_free_(storage);
  }
}
