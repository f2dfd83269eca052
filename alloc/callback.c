#include "tm/alloc/callback.h"

#include <stdio.h>

#include "alloc/counters.h"
#include "tm/alloc/bookkeeping.h"

typedef struct callback_allocator {
  tm_allocator base_allocator;  // must be first
  tm_allocator_vtable vtable;   // its own, since the name is its own
  char name[32];
  tm_callback_options functions;
  tm_allocator_stats counters;
} callback_allocator;

//===-- Slots ---------------------------------------------------------------===//

// The function may or may not have raised: its words are kept where the record has its code.
static TM_COLD tm_status raise_refusal(const callback_allocator* self, tm_status status,
                                       size_t size) {
  return TM_RAISE(status, "%s: %zu bytes asked, and the allocation function returned %s%s%s",
                  self->name, size, tm_status_name(status), tm_last_status() == status ? ": " : "",
                  tm_last_status() == status ? tm_last_error()->message : "");
}

static tm_status ask_user(callback_allocator* self, size_t size, tm_stream* stream, void** out) {
  tm_count_upstream_call_(&self->counters);
  const tm_status status = self->functions.alloc(size, stream, out, self->functions.user);
  if (status != TM_OK) {
    return raise_refusal(self, status, size);
  }
  return *out ? TM_OK
              : TM_RAISE(TM_ERR_NO_MEMORY, "%s: %zu bytes asked, and the function gave NULL",
                         self->name, size);
}

static void give_back(callback_allocator* self, void* ptr, size_t size, tm_stream* stream) {
  tm_count_upstream_call_(&self->counters);
  self->functions.free(ptr, size, stream, self->functions.user);
}

static tm_status callback_alloc(tm_allocator* base, size_t size, tm_stream* stream, void** out) {
  callback_allocator* self = (callback_allocator*)base;
  stream = base->stream ? base->stream : stream;
  tm_count_request_(&self->counters);
  void* block = NULL;
  if (base->puts_off_frees) {
    TM_TRY(tm_stream_refuse_capture_(stream, self->name));
  }
  TM_TRY(ask_user(self, size, stream, &block));
  if ((uintptr_t)block % base->alignment != 0) {
    give_back(self, block, size, stream);
    return TM_RAISE(TM_ERR_INVALID, "%s: the function gave %p, which is not aligned to %zu bytes",
                    self->name, block, base->alignment);
  }
  tm_count_alloc_(&self->counters, size);
  tm_count_reserve_(&self->counters, size);
  *out = block;
  return TM_OK;
}

static void callback_free(tm_allocator* base, void* ptr, size_t size, tm_stream* stream) {
  callback_allocator* self = (callback_allocator*)base;
  give_back(self, ptr, size, base->stream ? base->stream : stream);
  tm_count_free_(&self->counters, size);
  tm_count_unreserve_(&self->counters, size);
}

static tm_status callback_get_stats(tm_allocator* base, tm_allocator_stats* out) {
  tm_count_read_(&((callback_allocator*)base)->counters, out);
  out->knows_largest_free = true;  // nothing is held that is not in use
  return TM_OK;
}

static void callback_destroy(tm_allocator* base) {
  callback_allocator* self = (callback_allocator*)base;
  if (self->functions.destroy_user) {
    self->functions.destroy_user(self->functions.user);
  }
  tm_allocator_deinit_(base);
  tm_bookkeeping_free(self);
}

static const tm_allocator_vtable callback_vtable = {
    .destroy = callback_destroy,
    .alloc = callback_alloc,
    .free = callback_free,
    .get_stats = callback_get_stats,
};

//===-- Creation ------------------------------------------------------------===//

static bool is_device(tm_device device) {
  return device.type == TM_DEVICE
             ? device.id >= 0 && device.id < TM_MAX_DEVICES
             : (device.type == TM_CPU || device.type == TM_CPU_PINNED) && device.id == 0;
}

static tm_status check_alignment(const tm_callback_options* options) {
  const size_t alignment = options->alignment;
  const size_t least = options->device.type == TM_DEVICE ? TM_DEVICE_ALIGNMENT : TM_HOST_ALIGNMENT;
  if (alignment && (alignment < least || (alignment & (alignment - 1)) != 0)) {
    return TM_RAISE(TM_ERR_INVALID,
                    "callback: an alignment of %zu bytes; a power of two from %zu on is possible",
                    alignment, least);
  }
  return TM_OK;
}

static tm_status check_options(const tm_callback_options* options) {
  if (!options || !options->alloc || !options->free) {
    return TM_RAISE(TM_ERR_INVALID, "callback: the options or one of the two functions is NULL");
  }
  const tm_device device = options->device;
  if (!is_device(device)) {
    return TM_RAISE(TM_ERR_INVALID, "callback: there is no device {type %d, id %d}",
                    (int)device.type, (int)device.id);
  }
  if (options->stream && device.type == TM_DEVICE &&
      !tm_device_equal(tm_stream_device(options->stream), device)) {
    return TM_RAISE(TM_ERR_INVALID,
                    "callback: memory of device %d ordered on a stream of device %d",
                    (int)device.id, (int)tm_stream_device(options->stream).id);
  }
  return check_alignment(options);
}

tm_allocator* tm_callback_allocator_create(const tm_callback_options* options) {
  if (check_options(options) != TM_OK) {
    return NULL;
  }
  callback_allocator* self = tm_bookkeeping_alloc(sizeof *self, "a callback allocator");
  if (!self) {
    return NULL;
  }
  self->functions = *options;
  snprintf(self->name, sizeof self->name, "%s", options->name ? options->name : "callback");
  self->functions.name = self->name;
  self->vtable = callback_vtable;
  self->vtable.name = self->name;
  tm_allocator_init_(&self->base_allocator, &self->vtable, options->device, options->stream);
  // What the functions do with memory of the host disturbs no capture.
  self->base_allocator.puts_off_frees = options->device.type != TM_CPU || options->stream;
  if (options->alignment) {
    self->base_allocator.alignment = options->alignment;
  }
  return &self->base_allocator;
}
