// Allocating from the context, and asking its handlers when memory runs out.

#include <stddef.h>

#include "context/object.h"
#include "tm/alloc/allocator.h"
#include "tm/alloc/oom_report.h"
#include "tm/alloc/stack.h"
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
  state->object->hot.failing = state->failing;
}

// Copies the entry of a handler, which longjmp may have left.
static tm_frame read_handler(const tm_frame* entry) {
  tm_frame copy;
  if (!context_read_entry(entry, &copy) || !copy.value ||
      copy.slots != tm_slots_make_(TM_SLOT_OOM_HANDLER_, TM_SLOT_NONE_) ||
      copy.seal != context_seal(entry, &copy)) {
    TM_FATAL("an out-of-memory handler is asked whose scope was left without closing it");
  }
  return copy;
}

// Runs one handler, which sees only the handlers outside itself, however it is left.
static bool run_handler(const tm_frame* entry, const tm_oom_request* request) {
  tm_context* context = tm_context_get_();
  context_object* object = (context_object*)context;
  __attribute__((cleanup(put_back), unused))
  const handler_state state = {object, context->current[TM_SLOT_OOM_HANDLER_], object->hot.failing};
  context->current[TM_SLOT_OOM_HANDLER_] = entry->saved;
  object->hot.failing = request->device;
  tm_allocator refusing;
  tm_allocator_init_(&refusing, &refuse_vtable, request->device, NULL);
  refusing.references = TM_IMMORTAL_;
  TM_USE_ALLOCATOR(&refusing);
  return ((tm_oom_handler)entry->value)(request, entry->saved_on_device);
}

//===-- Asking --------------------------------------------------------------===//

// What has failed for want of memory, to be tried again.
typedef struct attempt {
  tm_allocator* allocator;
  size_t size;
  tm_storage** out;  // NULL: of a reservation in a stack
} attempt;

static tm_status try_again(const attempt* a) {
  return a->out ? tm_storage_alloc(a->allocator, a->size, tm_current_stream(), a->out)
                : tm_stack_reserve(a->allocator, a->size);
}

// A failure, kept while handlers run, which may have failures of their own.
typedef struct kept_failure {
  tm_error error;
  tm_oom_report report;
  bool has_report;
} kept_failure;

static void keep_failure(kept_failure* kept) {
  const tm_oom_report* report = tm_last_oom_report();
  kept->error = *tm_last_error();
  kept->has_report = report != NULL;
  if (report) {
    kept->report = *report;
  }
}

static void restore_failure(const kept_failure* kept) {
  tm_restore_error_(&kept->error);
  if (kept->has_report) {
    tm_restore_oom_report_(&kept->report);
  }
}

// Asks for what has just failed, as is on record.
static tm_status ask_handlers(const attempt* failed) {
  kept_failure failure;
  keep_failure(&failure);
  tm_oom_request request = {.device = failed->allocator->device,
                            .size = failed->size,
                            .attempt = 1,
                            .report = failure.has_report ? &failure.report : NULL};
  const tm_frame* entry = tm_context_get_()->current[TM_SLOT_OOM_HANDLER_];
  int freed = 0;
  while (entry && freed < TM_OOM_MAX_RETRIES) {
    const tm_frame handler = read_handler(entry);
    if (run_handler(&handler, &request)) {
      freed++;
      const tm_status status = try_again(failed);
      if (status != TM_ERR_NO_MEMORY) {
        return status;
      }
      keep_failure(&failure);
    } else {
      entry = handler.saved;
    }
    request.attempt++;
  }
  restore_failure(&failure);
  return TM_ERR_NO_MEMORY;
}

static bool refuses_for(const tm_frame* entry, tm_device device) {
  const tm_allocator* allocator = entry->value;
  return tm_slots_type_(entry->slots) == TM_SLOT_ALLOCATOR_ + (uint32_t)device.type && allocator &&
         allocator->vtable == &refuse_vtable && tm_device_equal(allocator->device, device);
}

// Whether a handler of `device` runs further out, inside which another device ran out: then the
// allocator that refuses is still pushed.
static bool fails_further_out(const tm_context* context, tm_device device) {
  tm_frame copy;
  for (const tm_frame* entry = context->top; entry; entry = copy.below) {
    if (!context_read_entry(entry, &copy)) {
      return false;
    }
    if (refuses_for(&copy, device)) {
      return true;
    }
  }
  return false;
}

static bool is_failing(const tm_allocator* allocator) {
  const tm_context* context = tm_context_get_();
  return tm_device_equal(context->failing, allocator->device) ||
         (!tm_device_equal(context->failing, nowhere) &&
          fails_further_out(context, allocator->device));
}

// Inside its handler a device gives nothing.
static tm_status refuse(tm_allocator* allocator, size_t size) {
  (void)!refuse_alloc(allocator, size, NULL, NULL);
  return tm_raise_oom_(allocator, size, NULL);
}

//===-- Public functions ----------------------------------------------------===//

tm_status tm_context_ask_handlers_(tm_allocator* allocator, size_t size, tm_storage** out) {
  *out = NULL;
  return is_failing(allocator) ? TM_ERR_NO_MEMORY : ask_handlers(&(attempt){allocator, size, out});
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
  if (TM_UNLIKELY(is_failing(allocator))) {
    return refuse(allocator, size);
  }
  const tm_status status = tm_storage_alloc(allocator, size, tm_current_stream(), out);
  if (TM_LIKELY(status != TM_ERR_NO_MEMORY)) {
    return status;
  }
  return tm_context_ask_handlers_(allocator, size, out);
}

tm_status tm_context_reserve(tm_allocator* stack, size_t bytes) {
  if (stack && is_failing(stack)) {
    return refuse(stack, bytes);
  }
  const tm_status status = tm_stack_reserve(stack, bytes);
  return status == TM_ERR_NO_MEMORY && stack && tm_is_stack(stack)
             ? ask_handlers(&(attempt){.allocator = stack, .size = bytes})
             : status;
}
