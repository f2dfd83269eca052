#include "tm/alloc/allocator.h"

#include <pthread.h>
#include <string.h>

#include "alloc/cuda_runtime.h"
#include "alloc/destroy_watch.h"
#include "alloc/parked.h"
#include "tm/alloc/bookkeeping.h"
#include "tm/alloc/event.h"
#include "tm/base/checked.h"
#include "tm/base/fatal.h"

//===-- Lifetime ----------------------------------------------------------===//

static tm_slots_ slots_of_device(tm_device device) {
  const uint32_t type = (uint32_t)device.type;
  return tm_slots_make_(type,
                        device.type == TM_DEVICE ? TM_SLOT_ON_DEVICE_ + (uint32_t)device.id : type);
}

void tm_allocator_init_(tm_allocator* allocator, const tm_allocator_vtable* vtable,
                        tm_device device, tm_stream* stream) {
  allocator->vtable = vtable;
  allocator->slots = slots_of_device(device);
  allocator->references = 1;
  allocator->device = device;
  allocator->stream = tm_stream_retain(stream);
  allocator->alignment = device.type == TM_DEVICE ? TM_DEVICE_ALIGNMENT : TM_HOST_ALIGNMENT;
  allocator->ignores_stream = false;
  allocator->puts_off_frees = false;
  allocator->upstream = NULL;
  allocator->is_dry = false;
  allocator->exact_sizes = false;
}

void tm_allocator_deinit_(tm_allocator* allocator) {
  tm_stream_release(allocator->stream);
  allocator->stream = NULL;
}

static bool is_immortal(const tm_allocator* allocator) {
  return __atomic_load_n(&allocator->references, __ATOMIC_RELAXED) == TM_IMMORTAL_;
}

static TM_COLD void die_of_references(const tm_allocator* allocator, const char* what) {
  TM_FATAL("the allocator %p is %s after its last reference was released", (const void*)allocator,
           what);
}

tm_allocator* tm_allocator_retain(tm_allocator* allocator) {
  if (allocator && !is_immortal(allocator) &&
      __atomic_fetch_add(&allocator->references, 1, __ATOMIC_RELAXED) <= 0) {
    die_of_references(allocator, "retained");
  }
  return allocator;
}

void tm_allocator_release(tm_allocator* allocator) {
  if (!allocator || is_immortal(allocator)) {
    return;
  }
  const int32_t before = __atomic_fetch_sub(&allocator->references, 1, __ATOMIC_ACQ_REL);
  if (TM_UNLIKELY(before <= 0)) {
    die_of_references(allocator, "released");
  }
  if (before == 1) {
    tm_tell_destroy_(allocator, allocator->vtable->name);
    allocator->vtable->destroy(allocator);
  }
}

//===-- Memory ------------------------------------------------------------===//

// Whether blocks used on `stream` need an event to be ordered with the allocator's own stream.
static bool crosses_streams(const tm_allocator* allocator, const tm_stream* stream) {
  return stream && allocator->stream && stream != allocator->stream &&
         !tm_stream_equal(stream, allocator->stream);
}

//===-- Parking -----------------------------------------------------------===//

// A block whose free has to wait. Each block that may come to that has one made ahead, so that its
// free cannot fail.
typedef struct parked_block {
  tm_parked_ parked;          // must be first
  struct parked_block* next;  // while it is nobody's
  tm_allocator* allocator;    // retained
  void* ptr;
  size_t size;        // as the slots get it
  tm_stream* stream;  // retained; or NULL
} parked_block;

static pthread_mutex_t places_lock = PTHREAD_MUTEX_INITIALIZER;
static parked_block* places;  // as many as there are live blocks that may need one
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

// A forked child must not find the lock held by a thread that it does not have.
static void lock_places(void) { (void)pthread_mutex_lock(&places_lock); }
static void unlock_places(void) { (void)pthread_mutex_unlock(&places_lock); }
static void watch_forks(void) { (void)pthread_atfork(lock_places, unlock_places, unlock_places); }

static bool may_be_parked(const tm_allocator* allocator, const tm_stream* stream) {
  return allocator->puts_off_frees || crosses_streams(allocator, stream);
}

static tm_status make_place(void) {
  parked_block* place = tm_bookkeeping_alloc(sizeof *place, "a block of another stream");
  if (!place) {
    return tm_last_status();
  }
  (void)pthread_once(&fork_once, watch_forks);
  lock_places();
  place->next = places;
  places = place;
  unlock_places();
  return TM_OK;
}

static parked_block* take_place(void) {
  lock_places();
  parked_block* place = places;
  places = place ? place->next : NULL;
  unlock_places();
  return place;
}

//===-- Allocating --------------------------------------------------------===//

static __thread bool undoing;

bool tm_is_undoing_(void) { return undoing; }

// The size that the slots get.
static size_t slot_size(const tm_allocator* allocator, size_t size, size_t rounded) {
  return allocator->exact_sizes ? size : rounded;
}

static tm_status round_request(const tm_allocator* allocator, size_t size, size_t* out) {
  size_t rounded = 0;
  if (size > PTRDIFF_MAX) {
    return TM_RAISE(TM_ERR_INVALID, "%s: %zu bytes asked, more than any object can have",
                    allocator->vtable->name, size);
  }
  if (!tm_checked_round_up(size, allocator->alignment, &rounded)) {
    return TM_RAISE(TM_ERR_OVERFLOW, "%s: %zu bytes do not round up to a multiple of %zu",
                    allocator->vtable->name, size, allocator->alignment);
  }
  *out = slot_size(allocator, size, rounded);
  return TM_OK;
}

static tm_status alloc_ordered(tm_allocator* allocator, size_t size, tm_stream* stream,
                               void** out) {
  void* block = NULL;
  TM_TRY(allocator->vtable->alloc(allocator, size, stream ? stream : allocator->stream, &block));
  if (crosses_streams(allocator, stream)) {
    const tm_status status = tm_stream_follow_(stream, allocator->stream);
    if (status != TM_OK) {
      undoing = true;
      allocator->vtable->free(allocator, block, size, allocator->stream);
      undoing = false;
      return status;
    }
  }
  *out = block;
  return TM_OK;
}

static tm_status alloc_parkable(tm_allocator* allocator, size_t size, tm_stream* stream,
                                void** out) {
  TM_TRY(make_place());
  const tm_status status = alloc_ordered(allocator, size, stream, out);
  if (status != TM_OK) {
    tm_bookkeeping_free(take_place());
  }
  return status;
}

tm_status tm_allocator_alloc_nested_(tm_allocator* allocator, size_t size, tm_stream* stream,
                                     void** out) {
  if (!out) {
    return TM_RAISE(TM_ERR_INVALID, "tm_allocator_alloc: out is NULL");
  }
  *out = NULL;
  if (!allocator) {
    return TM_NULL_HANDLE("tm_allocator_alloc: the allocator");
  }
  if (size == 0) {
    return TM_OK;
  }
  TM_TRY(round_request(allocator, size, &size));
  return may_be_parked(allocator, stream) ? alloc_parkable(allocator, size, stream, out)
                                          : alloc_ordered(allocator, size, stream, out);
}

bool tm_allocator_trim_to_retry_(tm_allocator* allocator) {
  if (!allocator->vtable->trim) {
    return false;
  }
  const tm_error out_of_memory = *tm_last_error();
  (void)!allocator->vtable->trim(allocator, 0);
  tm_restore_error_(&out_of_memory);  // it is the failure to report, whatever trimming ran into
  return true;
}

tm_status tm_allocator_alloc(tm_allocator* allocator, size_t size, tm_stream* stream, void** out) {
  tm_retry_parked_();
  tm_status status = tm_allocator_alloc_nested_(allocator, size, stream, out);
  if (TM_LIKELY(status != TM_ERR_NO_MEMORY) || !allocator) {
    return status;
  }
  if (tm_allocator_trim_to_retry_(allocator)) {
    status = tm_allocator_alloc_nested_(allocator, size, stream, out);
  }
  return status == TM_ERR_NO_MEMORY ? tm_raise_oom_(allocator, size, stream) : status;
}

tm_status tm_stream_follow_(tm_stream* stream, tm_stream* own) {
  TM_TRY(tm_stream_refuse_capture_(stream, "an allocator of another stream"));
  TM_TRY(tm_stream_refuse_capture_(own, "an allocator"));
  return tm_stream_wait_stream(stream, own);
}

bool tm_stream_wait_unless_capturing_(tm_stream* stream, tm_event* event) {
  bool capturing = true;
  return tm_stream_is_capturing(stream, &capturing) == TM_OK && !capturing &&
         tm_stream_wait(stream, event) == TM_OK;
}

//===-- Freeing -----------------------------------------------------------===//

bool tm_stream_is_over_(const tm_stream* stream) {
  return !tm_stream_handle(stream) || !tm_device_usable_(tm_stream_device(stream).id);
}

static bool may_be_capturing(const tm_stream* stream) {
  bool capturing = true;
  return tm_stream_is_capturing(stream, &capturing) != TM_OK || capturing;
}

// Orders a free behind `stream`; false where that is not possible now. A host wait is the last
// resort: it needs no event, and disturbs no capture of the allocator's stream.
static bool order_behind(tm_allocator* allocator, tm_stream* stream) {
  if (tm_stream_is_over_(stream)) {
    return true;
  }
  if (may_be_capturing(stream)) {
    return false;
  }
  return (!may_be_capturing(allocator->stream) &&
          tm_stream_wait_stream(allocator->stream, stream) == TM_OK) ||
         tm_stream_sync(stream) == TM_OK || tm_stream_is_over_(stream);
}

// Frees a block whose slots get `size`; false where that has to wait.
static bool free_ordered(tm_allocator* allocator, void* ptr, size_t size, tm_stream* stream) {
  if (crosses_streams(allocator, stream)) {
    if (!order_behind(allocator, stream)) {
      return false;
    }
    stream = allocator->stream;
  }
  stream = stream ? stream : allocator->stream;
  if (allocator->puts_off_frees && !tm_stream_is_over_(stream) && may_be_capturing(stream)) {
    return false;
  }
  allocator->vtable->free(allocator, ptr, size, stream);
  return true;
}

static bool retry_free(tm_parked_* parked) {
  parked_block* block = (parked_block*)parked;
  if (!free_ordered(block->allocator, block->ptr, block->size, block->stream)) {
    return false;
  }
  tm_allocator_release(block->allocator);
  tm_stream_release(block->stream);
  tm_bookkeeping_free(block);
  return true;
}

static void free_or_park(tm_allocator* allocator, void* ptr, size_t size, tm_stream* stream) {
  const tm_error kept = *tm_last_error();
  const bool freed = free_ordered(allocator, ptr, size, stream);  // fatal: may not come back
  parked_block* place = take_place();
  if (freed) {
    tm_bookkeeping_free(place);
  } else if (place) {  // else the block was not allocated on `stream`: lost, but never used too
                       // early
    *place = (parked_block){.parked.retry = retry_free,
                            .allocator = tm_allocator_retain(allocator),
                            .ptr = ptr,
                            .size = size,
                            .stream = tm_stream_retain(stream)};
    tm_park_(&place->parked);
  }
  tm_restore_error_(&kept);
}

void tm_allocator_free(tm_allocator* allocator, void* ptr, size_t size, tm_stream* stream) {
  size_t rounded = 0;
  if (!ptr || !allocator || !tm_checked_round_up(size, allocator->alignment, &rounded)) {
    return;
  }
  tm_retry_parked_();
  size = slot_size(allocator, size, rounded);
  if (may_be_parked(allocator, stream)) {
    free_or_park(allocator, ptr, size, stream);
  } else {
    allocator->vtable->free(allocator, ptr, size, stream ? stream : allocator->stream);
  }
}

void tm_allocator_undo_(tm_allocator* allocator, void* ptr, size_t size, tm_stream* stream) {
  const bool before = undoing;
  undoing = true;
  tm_allocator_free(allocator, ptr, size, stream);
  undoing = before;
}

tm_status tm_allocator_trim(tm_allocator* allocator, size_t keep) {
  if (!allocator) {
    return TM_NULL_HANDLE("tm_allocator_trim: the allocator");
  }
  tm_retry_parked_();
  return allocator->vtable->trim ? allocator->vtable->trim(allocator, keep) : TM_OK;
}

tm_status tm_allocator_get_stats(tm_allocator* allocator, tm_allocator_stats* out) {
  if (!out) {
    return TM_RAISE(TM_ERR_INVALID, "tm_allocator_get_stats: out is NULL");
  }
  memset(out, 0, sizeof *out);
  if (!allocator) {
    return TM_NULL_HANDLE("tm_allocator_get_stats: the allocator");
  }
  if (!allocator->vtable->get_stats) {
    return TM_RAISE(TM_ERR_UNAVAILABLE, "%s: this allocator keeps no statistics",
                    allocator->vtable->name);
  }
  const tm_status status = allocator->vtable->get_stats(allocator, out);
  if (status != TM_OK) {
    memset(out, 0, sizeof *out);
  }
  return status;
}

//===-- What it is --------------------------------------------------------===//

tm_device tm_allocator_device(const tm_allocator* allocator) {
  return allocator ? allocator->device : tm_device_make(TM_CPU, 0);
}

tm_stream* tm_allocator_stream(const tm_allocator* allocator) {
  return allocator ? allocator->stream : NULL;
}

size_t tm_allocator_alignment(const tm_allocator* allocator) {
  return allocator ? allocator->alignment : TM_HOST_ALIGNMENT;
}

const char* tm_allocator_name(const tm_allocator* allocator) {
  return allocator ? allocator->vtable->name : "(null)";
}

tm_allocator* tm_allocator_upstream(const tm_allocator* allocator) {
  return allocator ? allocator->upstream : NULL;
}
