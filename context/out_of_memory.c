// Allocating from the context, and asking its handlers when memory runs out.

#include <stddef.h>

#include "context/object.h"
#include "tm/alloc/allocator.h"
#include "tm/alloc/storage.h"
#include "tm/base/fatal.h"

// While a handler runs, its device has an allocator that refuses, so that what the handler asks of
// the failing device fails at once.

static tm_status refuse_alloc(tm_allocator* self, size_t size, tm_stream* stream, void** out) {
  (void)stream;
  (void)out;
  return TM_RAISE(TM_ERR_NO_MEMORY, "%zu bytes of %s asked inside its out-of-memory handler", size,
                  tm_device_type_name((tm_device_type)self->device.type));
}

static void refuse_free(tm_allocator* self, void* ptr, size_t size, tm_stream* stream) {
  (void)self;
  (void)ptr;
  (void)size;
  (void)stream;
}

static void refuse_destroy(tm_allocator* self) { (void)self; }

static const tm_allocator_vtable refuse_vtable = {
    .name = "out-of-memory handler",
    .destroy = refuse_destroy,
    .alloc = refuse_alloc,
    .free = refuse_free,
};

// What run_handler changes in a context, to be put back.
typedef struct handler_state {
  context_object* object;
  void* handlers;
  tm_device failing;
} handler_state;

static void put_back(const handler_state* state) {
  state->object->hot.current[TM_SLOT_OOM_HANDLER_] = state->handlers;
  state->object->failing = state->failing;
}

// Copies the entry of a handler, which longjmp may have left.
static tm_frame read_handler(const tm_frame* entry) {
  tm_frame copy;
  if (!context_read_entry(entry, &copy) || !copy.value ||
      copy.slots != tm_slots_make_(TM_SLOT_OOM_HANDLER_, TM_SLOT_NONE_)) {
    TM_FATAL("an out-of-memory handler is asked whose scope was left without closing it");
  }
  return copy;
}

// Runs one handler, which sees only the handlers outside itself, however it is left.
static bool run_handler(const tm_frame* entry, const tm_oom_request* request) {
  tm_context* context = tm_context_get_();
  context_object* object = (context_object*)context;
  __attribute__((cleanup(put_back), unused))
  const handler_state state = {object, context->current[TM_SLOT_OOM_HANDLER_], object->failing};
  context->current[TM_SLOT_OOM_HANDLER_] = entry->saved;
  object->failing = request->device;
  tm_allocator refusing;
  tm_allocator_init_(&refusing, &refuse_vtable, request->device, NULL);
  refusing.references = TM_IMMORTAL_;
  TM_USE_ALLOCATOR(&refusing);
  return ((tm_oom_handler)entry->value)(request, entry->saved_on_device);
}

tm_status tm_context_ask_handlers_(tm_allocator* allocator, size_t size, tm_storage** out) {
  *out = NULL;
  if (tm_device_equal(((context_object*)tm_context_get_())->failing, allocator->device)) {
    return TM_ERR_NO_MEMORY;
  }
  const tm_error failure = *tm_last_error();
  tm_oom_request request = {.device = allocator->device, .size = size, .attempt = 1};
  const tm_frame* entry = tm_context_get_()->current[TM_SLOT_OOM_HANDLER_];
  int freed = 0;
  while (entry && freed < TM_OOM_MAX_RETRIES) {
    const tm_frame handler = read_handler(entry);
    if (run_handler(&handler, &request)) {
      freed++;
      const tm_status status = tm_storage_alloc(allocator, size, tm_current_stream(), out);
      if (status != TM_ERR_NO_MEMORY) {
        return status;
      }
    } else {
      entry = handler.saved;
    }
    request.attempt++;
  }
  return tm_raise_(TM_ERR_NO_MEMORY, failure.file, failure.line, "%s", failure.message);
}

tm_status tm_context_alloc(tm_allocator* allocator, tm_device device, size_t size,
                           tm_storage** out) {
  if (!out) {
    return TM_RAISE(TM_ERR_INVALID, "tm_context_alloc: out is NULL");
  }
  *out = NULL;
  allocator = allocator ? allocator : tm_require_allocator(device);
  if (!allocator) {
    return tm_last_status();
  }
  const context_object* object = (const context_object*)tm_context_get_();
  if (TM_UNLIKELY(tm_device_equal(object->failing, allocator->device))) {
    return refuse_alloc(allocator, size, NULL, NULL);
  }
  const tm_status status = tm_storage_alloc(allocator, size, tm_current_stream(), out);
  if (TM_LIKELY(status != TM_ERR_NO_MEMORY)) {
    return status;
  }
  return tm_context_ask_handlers_(allocator, size, out);
}
